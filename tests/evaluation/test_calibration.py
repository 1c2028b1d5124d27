"""Calibration: the numbers of small examples by hand, and a temperature that is known."""

import json

import numpy as np
import pytest

from imlenet_jax.data.ptbxl import SUPERCLASSES
from imlenet_jax.data.tasks import Task
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.calibration import (
    calibration,
    fit_temperature,
    format_calibration,
    reliability,
    tempered,
)
from imlenet_jax.evaluation.diagrams import draw_reliability, wilson_interval

SEVERAL = Task("several", SUPERCLASSES)
EXCLUSIVE = Task("three", ("A", "B", "C"), exclusive=True)


def test_reliability_and_ece_by_hand():
    labels = [[1], [0], [1], [1], [0]]
    found = reliability(labels, [[0.95], [1.0], [0.35], [0.31], [0.05]])
    assert found.records[0].tolist() == [1, 0, 0, 2, 0, 0, 0, 0, 0, 2]  # 1.0 is in the last bin
    np.testing.assert_allclose(found.predicted[0, [0, 3, 9]], [0.05, 0.33, 0.975])
    np.testing.assert_allclose(found.observed[0, [0, 3, 9]], [0, 1, 0.5])
    assert np.isnan(found.predicted[0, 1])
    assert found.ece[0] == pytest.approx((0.05 + 2 * 0.67 + 2 * 0.475) / 5)


def test_calibration_of_honest_and_of_shifted_probabilities():
    draw = np.random.default_rng(0)
    honest = draw.random((4000, 2))
    labels = draw.random((4000, 2)) < honest
    found = calibration(labels, honest, ["A", "B"], resamples=100)
    assert found["mean"]["ece"] < 0.03
    assert found["A"]["bias"]["low"] < 0 < found["A"]["bias"]["high"]
    assert found["B"]["brier"]["value"] == pytest.approx(1 / 6, abs=0.01)  # the mean of p (1 - p)
    shifted = calibration(labels, np.minimum(honest + 0.2, 1), ["A", "B"], resamples=100)
    assert shifted["mean"]["bias"]["low"] > 0.1 and shifted["A"]["ece"] > 0.1
    assert "mean" in format_calibration({"as trained": found}) and json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("task", [SEVERAL, EXCLUSIVE], ids=lambda task: task.name)
def test_temperature_is_found_and_repairs(task):
    draw = np.random.default_rng(1)
    logits = draw.normal(size=(6000, len(task.classes)))
    probabilities = tempered(task, logits)
    if task.exclusive:
        chosen = (draw.random((6000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
        labels = np.eye(3)[np.minimum(chosen, 2)]
        np.testing.assert_allclose(probabilities, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    else:
        labels = draw.random(logits.shape) < probabilities
    sure = 2.5 * logits
    temperature = fit_temperature(task, labels, sure)
    assert temperature == pytest.approx(2.5, rel=0.07)
    before, after = (reliability(labels, tempered(task, sure, t)).ece.mean() for t in (1.0, temperature))
    assert after < 0.5 * before


def test_temperature_of_perfect_separation_is_refused():
    with pytest.raises(UserError, match="--temperature True finds no best temperature"):
        fit_temperature(SEVERAL, [[1], [0]], [[1.0], [-1.0]])


def test_wilson_interval_of_a_textbook_example():
    low, high = wilson_interval(np.array([0.0, 0.5]), np.array([10, 10]))
    np.testing.assert_allclose(low, [0, 0.2366], atol=1e-4)
    np.testing.assert_allclose(high, [0.2775, 0.7634], atol=1e-4)


def test_diagram_shows_every_bin_that_has_records():
    draw = np.random.default_rng(2)
    curves = {name: reliability(draw.random((50, 2)) < 0.4, draw.random((50, 2))) for name in ("one", "two")}
    figure = draw_reliability(curves, ["$A$", "B"], "title")
    line = figure.axes[0].containers[1].lines[0]
    np.testing.assert_allclose(line.get_ydata(), curves["one"].observed[0][curves["one"].records[0] > 0])
    assert f"$A$   ECE {curves['one'].ece[0]:.3f}, then " in figure.axes[0].get_title()
