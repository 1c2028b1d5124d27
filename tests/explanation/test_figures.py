"""The figure is to scale, says what the network said, and its colours span the map's real range."""

import itertools

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from imlenet_jax.explanation.figures import COLOUR_MAP, LEFT, STEPS, _steps, draw, even_shares, write_figures


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def traces(figure, leads: int = 12) -> list[LineCollection]:
    return [c for c in figure.axes[0].collections if isinstance(c, LineCollection)][-leads:]


def test_traces_are_to_scale_and_whole(explain):
    """25 mm/s and 10 mm/mV, the y axis pointing down; the coloured runs join without a gap."""
    explanation = explain()
    for lead, trace in enumerate(traces(draw(explanation))):
        runs = trace.get_segments()
        points = np.concatenate([runs[0], *[run[1:] for run in runs[1:]]])
        assert all((a[-1] == b[0]).all() for a, b in itertools.pairwise(runs))
        np.testing.assert_allclose(points[:, 0], LEFT + 25 * np.arange(1000) / 100)
        mv = explanation.signal_mv[:, lead]
        np.testing.assert_allclose(np.diff(points[:, 1]), -10 * np.diff(mv), atol=1e-9)


def test_colours_follow_the_map_over_its_real_range(explain):
    explanation = explain()
    shares = even_shares(explanation.attention.combined)
    assert shares.mean() == pytest.approx(1)
    steps = _steps(shares)
    middles = (shares[:, 1:] + shares[:, :-1]) / 2
    depth = np.sqrt((middles - shares.min()) / (shares.max() - shares.min()))
    np.testing.assert_array_equal(steps, np.minimum(np.floor(STEPS * depth), STEPS - 1))
    figure = draw(explanation)
    drawn = traces(figure)[3]
    np.testing.assert_allclose(drawn.get_colors()[0], COLOUR_MAP(steps[3, 0]))
    lowest = f"{shares.min():.3g}" if shares.min() > shares.max() / 1000 else "0"
    assert {lowest, f"{shares.max():.3g}"} <= set(texts(figure))


def test_an_even_map_is_one_colour():
    assert (_steps(np.ones((2, 10))) == 0).all()


def test_prediction_weights_and_purpose_are_in_words(explain):
    explanation = explain()
    shown = texts(draw(explanation))
    assert shown[0] == "a record   predicted: HYP, MI"
    assert "CD 0.12 < 0.30     HYP 0.25 ≥ 0.25     MI 0.62 ≥ 0.40     NORM 0.75     STTC 0.00 < 0.35" in shown[1]
    assert any("For research, not for diagnosis." in text for text in shown)
    assert any("fixed half-seconds, not heart beats" in text for text in shown)
    assert "Resampled from 500 Hz." in shown
    attention = explanation.attention
    windows = (attention.channel[:, None] * attention.rhythm).sum(axis=0)
    assert {f"{share:.1%}" for share in [*attention.channel, *windows]} <= set(shown)


def test_without_attention_the_trace_is_black(explain):
    figure = draw(explain(attention=None))
    assert [len(trace.get_segments()) for trace in traces(figure)] == [1] * 12
    assert not any("half-seconds" in text for text in texts(figure))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "$x_$ <b>x</b> \\frac"},
        {"name": "x" * 400},
        {"signal_mv": np.zeros((1000, 12))},
        {"signal_mv": np.full((1000, 12), 32.0)},
        {"attention": None, "signal_mv": np.zeros((100, 2)), "leads": ("I", "V1")},
    ],
    ids=["markup", "long name", "flat", "saturated", "short"],
)
def test_odd_records_are_drawn(explain, tmp_path, fields):
    png, svg = write_figures(explain(**fields), tmp_path / "new")
    assert png.read_bytes()[:4] == b"\x89PNG" and b"<svg" in svg.read_bytes()
    assert [png.name, svg.name] == ["visualization.png", "visualization.svg"]


def test_equal_inputs_give_equal_files(explain, tmp_path):
    first, second = (write_figures(explain(), tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
