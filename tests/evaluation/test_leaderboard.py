"""The leaderboard: values by hand, the paired difference, pending rows, and its forms."""

import json

import numpy as np
import pytest

from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.comparison import Predictions, compare
from imlenet_jax.evaluation.diagrams import draw_leaderboard, png
from imlenet_jax.evaluation.leaderboard import Contestant, Cost, ranking, score
from imlenet_jax.evaluation.leaderboard_tables import (
    escape,
    format_latex,
    format_leaderboard,
    format_markdown,
    leaderboard_frame,
)
from imlenet_jax.evaluation.report import evaluate, sigmoid

SETTINGS = {"resamples": 200, "seed": 0}
COST = Cost(epochs=2, records_per_second=100.0, seconds=12.5, peak_memory_bytes=2 * 10**9)


def predictions(noise, n=200, seed=1, name="net", labels=None):
    if labels is None:
        labels = np.random.default_rng(0).random((n, 2)) < 0.4
    logits = 2.0 * labels - 1 + noise * np.random.default_rng(seed).normal(size=labels.shape)
    return Predictions(name, np.arange(len(labels)), labels, sigmoid(logits), ("A", "B"))


def contestant(label, *of_seeds, wanted=None, model="imle_net"):
    runs = [(score(p, **SETTINGS), COST) for p in of_seeds]
    return Contestant(label, model, 1000, wanted or len(runs), runs)


def report_of(*contestants, published=False, **more):
    rankings = [ranking("superclass", contestants, SETTINGS, published)]
    return {"tasks": rankings, "flags": {}, "not_comparable": [], **more}


def test_values_by_hand():
    labels = np.array([[0], [0], [1], [1]], bool)

    def made(*probabilities):
        return Predictions("net", np.arange(4), labels, np.array(probabilities)[:, None], ("A",))

    perfect, one_pair_wrong, half = made(0.1, 0.2, 0.8, 0.9), made(0.1, 0.6, 0.5, 0.9), made(0.5, 0.5, 0.5, 0.5)
    found = ranking("superclass", [contestant("b", half), contestant("a", perfect, one_pair_wrong)], SETTINGS)
    first, second = found["rows"]
    assert (first["network"], first["of_seeds"], first["auc"]["value"]) == ("a", [1.0, 0.75], 0.875)
    assert first["difference"] is None and second["over_seeds"] is None
    assert second["difference"]["value"] == 0.5 - 0.875
    half_width = 12.7062 * 0.125  # Student's t with one degree of freedom, times 0.25 / sqrt(2) / sqrt(2)
    assert first["over_seeds"]["high"] - 0.875 == pytest.approx(half_width, rel=1e-4)
    assert (first["epochs"], first["seconds"], first["peak_memory_bytes"]) == (2, 12.5, 2 * 10**9)


def test_a_single_seed_is_what_compare_says():
    good, bad = predictions(0.7, name="good"), predictions(3, seed=2, name="bad")
    found = ranking("superclass", [contestant("bad", bad), contestant("good", good)], SETTINGS)
    pair = compare([good, bad], **SETTINGS)
    rows = {row["network"]: row for row in found["rows"]}
    for name in ("good", "bad"):
        assert rows[name]["auc"] == pytest.approx(pair["values"]["macro_auc"][name])
    assert rows["bad"]["difference"] == pytest.approx(pair["differences"]["macro_auc"]["bad"])


def test_of_several_seeds_every_resample_is_their_mean():
    one, two, other = predictions(1), predictions(1, seed=5), predictions(2, seed=7)
    scores = [score(each, **SETTINGS) for each in (one, two, other)]
    gaps = scores[2].samples["macro_auc"] - (scores[0].samples["macro_auc"] + scores[1].samples["macro_auc"]) / 2
    (_, row) = ranking("superclass", [contestant("a", one, two), contestant("b", other)], SETTINGS)["rows"]
    low, high = np.percentile(gaps, [2.5, 97.5])
    assert (row["difference"]["low"], row["difference"]["high"]) == pytest.approx((low, high))
    rarer = min((gaps <= 0).sum(), (gaps >= 0).sum())
    assert row["difference"]["p"] == pytest.approx(2 * (rarer + 1) / (SETTINGS["resamples"] + 1))


def test_every_metric_is_that_of_a_test():
    labels = np.random.default_rng(0).random((200, 2)) < 0.4
    logits = 2.0 * labels - 1 + np.random.default_rng(1).normal(size=labels.shape)
    expected = evaluate(labels, logits, ("A", "B"), **SETTINGS)
    found = score(Predictions("net", np.arange(200), labels, sigmoid(logits), ("A", "B")), **SETTINGS)
    for name in ("macro_auc", "mean_accuracy_at_0.5", "max_f1_10_thresholds", "mean_accuracy_at_0.5_of_logits"):
        assert found.values[name] == pytest.approx(expected[name]["value"], rel=1e-12)
        assert np.percentile(found.samples[name], 2.5) == pytest.approx(expected[name]["low"], rel=1e-12)


def test_what_is_missing_is_pending_and_last():
    report = report_of(
        contestant("none", wanted=3), contestant("some", predictions(1), wanted=3), contestant("all", predictions(0.5))
    )
    text = format_leaderboard(report)
    rows = [line.split() for line in text.splitlines()[4:7]]
    assert [row[0] for row in rows] == ["all", "some", "none"]
    assert rows[2][1:5] == ["0", "of", "3", "pending"] and rows[1][1:4] == ["1", "of", "3"]
    frame = leaderboard_frame(report)
    assert frame["network"].tolist() == ["all", "some", "none"] and frame["auc_low"].isna().tolist() == [0, 0, 1]
    nothing = report_of(contestant("none", wanted=3))
    assert "superclass: no run is finished" in format_leaderboard(nothing)
    assert leaderboard_frame(nothing).columns.tolist() == frame.columns.tolist()


def test_markdown_has_the_same_cells():
    report = report_of(contestant("good", predictions(1)), contestant("bad", predictions(3, seed=2)))
    title, _, header, rule, *rows = format_markdown(report).splitlines()
    assert title == format_leaderboard(report).splitlines()[0]
    assert header.startswith("| network | seeds | macro AUC |") and rule == "| --- |" + " ---: |" * 11
    text = [line.split() for line in format_leaderboard(report).splitlines()[4:6]]
    assert [row.replace("|", "").split() for row in rows[:2]] == text
    assert rows[2] == "" and rows[3].startswith("- Macro AUC: mean over seeds.")


def test_latex_is_escaped_and_in_booktabs():
    text = format_latex(report_of(contestant("a_b", predictions(1)), contestant("50% & more", predictions(3, seed=2))))
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert rows[2].startswith(r"a\_b & 1 & 0.") and rows[3].startswith(r"50\% \& more & 1 & 0.")
    assert {row.count(" & ") for row in (rows[0], *rows[2:])} == {11}
    assert "$-0." in rows[3] and text.count("\\toprule") == text.count("\\bottomrule") == 1
    assert escape("~^\\{$#}") == r"\textasciitilde{}\textasciicircum{}\textbackslash{}\{\$\#\}"


def test_published_figures_stand_beside_ours():
    report = report_of(
        contestant("perfect", predictions(0)),
        contestant("poor", predictions(9, seed=3), model="ecgnet"),
        contestant("own", predictions(1), model="mine"),
        published=True,
        not_comparable=["the data are few"],
    )
    rows = {row["network"]: row["published"] for row in report["tasks"][0]["rows"]}
    assert (rows["perfect"][0]["published"], rows["perfect"][0]["verdict"]) == (0.9216, "below it")
    assert (rows["poor"][0]["published"], rows["poor"][0]["verdict"]) == (0.9101, "above it")
    assert rows["poor"][1]["metric"] == "mean_accuracy_at_0.5_of_logits" and rows["own"] == []
    text = format_leaderboard(report)
    assert "doi 10.1109/SMC52423.2021.9658706" in text
    assert "NOT TO BE COMPARED with the published figures: the data are few." in text
    labels = np.random.default_rng(0).random((30, 2)) < 0.5
    close = contestant("close", predictions(0.95, labels=labels, seed=3))
    assert report_of(close, published=True)["tasks"][0]["rows"][0]["published"][0]["verdict"] == "in our interval"


def test_a_class_that_no_record_has_is_left_out():
    labels = np.zeros((60, 2), bool)
    labels[:20, 0] = True
    found = ranking("form", [contestant("a", predictions(1, labels=labels))], SETTINGS)
    assert (found["auc"], found["classes"]) == ("macro_auc_present", ["A"])
    assert found["rows"][0]["auc"]["low"] < found["rows"][0]["auc"]["value"] < found["rows"][0]["auc"]["high"]
    none = predictions(1, labels=np.zeros((60, 2), bool))
    report = report_of(contestant("a", none, none), contestant("b", none))
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert "undefined" in format_leaderboard(report)
    draw_leaderboard(report, "nothing to draw")


def test_other_records_are_refused():
    with pytest.raises(UserError, match="first and second cannot be compared: 10 records are in one file only"):
        ranking(
            "superclass",
            [contestant("a", predictions(1, name="first")), contestant("b", predictions(1, n=210, name="second"))],
            SETTINGS,
        )


def test_names_are_not_typeset():
    report = report_of(contestant("$x_$", predictions(1)), contestant("$\\frac$", predictions(2)))
    assert png(draw_leaderboard(report, "$\\title$"))[:4] == b"\x89PNG"


def test_no_name_covers_another():
    figure = draw_leaderboard(report_of(*(contestant(f"network {seed}", predictions(1)) for seed in range(5))), "close")
    figure.draw_without_rendering()
    boxes = [name.get_window_extent() for panel in figure.axes for name in panel.texts]
    assert len(boxes) == 5
    assert not any(one.overlaps(other) for index, one in enumerate(boxes) for other in boxes[:index])
