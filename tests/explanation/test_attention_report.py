"""The page of a split: every string is text, classes without records are left out of figures."""

import numpy as np

from imlenet_jax.evaluation.diagrams import png
from imlenet_jax.explanation.attention_report import draw_means, page
from imlenet_jax.explanation.attention_summary import Weights, mean_weights, per_record


def test_classes_without_records_have_no_panel():
    labels = np.array([[1, 0], [1, 0]])
    frame = mean_weights(np.array([[0.25, 0.75], [0.5, 0.5]]), labels, ["MI", "HYP"], ["I", "$V_$"], resamples=10)
    figure = draw_means(frame, "title", "lead")
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["all, 2 records", "MI, 2 records"]
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    np.testing.assert_allclose(heights, [0.375, 0.625])
    ticks = [figure.axes[0].yaxis.get_major_formatter()(value) for value in (0.05, 0.075)]
    assert ticks == ["5%", "7.5%"]
    assert png(figure)[:4] == b"\x89PNG"


def test_every_string_is_escaped():
    bad = "<b>x</b>"
    labels, weights = np.array([[1], [1]]), np.array([[0.25, 0.75], [0.5, 0.5]])
    leads = mean_weights(weights, labels, [bad], ["I", bad], resamples=10)
    sharp = per_record(
        Weights(weights, weights, np.array([1.0, 2.0]), np.ones(2)), np.array([4, 5]), labels, [bad], ["I", bad]
    )
    text = page(bad, [bad], {bad: b""}, leads, {bad: sharp}, {4: f'records/"{bad}'})
    assert bad not in text and "&lt;b&gt;x&lt;/b&gt;" in text
    assert '<a href="records/&quot;&lt;b&gt;x&lt;/b&gt;">4</a>' in text and ">5</td>" in text
    assert '<td>37.5 <span class="soft">[25.0, 50.0]</span></td>' in text  # the mean of the first lead, in per cent
