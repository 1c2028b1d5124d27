"""Counts and rates of decisions."""

import numpy as np
import pytest

from imlenet_jax.evaluation.confusion import COUNTS, confusion, format_confusion, matrix
from imlenet_jax.evaluation.metrics import most_probable

LABELS = np.array([[1, 0], [1, 0], [1, 1], [0, 1], [0, 1]])
PREDICTED = np.array([[1, 0], [0, 1], [1, 1], [1, 1], [0, 0]], bool)


def test_counts_and_rates_by_hand():
    found = confusion(LABELS, PREDICTED, ["A", "B"], [0.5, None], resamples=20)
    assert list(found) == ["A"]  # B has no threshold, so no decisions
    entry = found["A"]
    assert [entry[key] for key in COUNTS] == [2, 1, 1, 1] and entry["threshold"] == 0.5
    assert entry["sensitivity"]["value"] == pytest.approx(2 / 3)
    assert entry["specificity"]["value"] == 0.5
    assert entry["precision"]["value"] == pytest.approx(2 / 3)
    assert 0 <= entry["sensitivity"]["low"] <= 2 / 3 <= entry["sensitivity"]["high"] <= 1


def test_a_rate_of_nothing_is_undefined():
    found = confusion(LABELS[:, :1], np.zeros((5, 1)), ["A"], resamples=5)
    assert found["A"]["precision"]["value"] is None and found["A"]["sensitivity"]["value"] == 0
    assert "undefined" in format_confusion(found, "title")


def test_matrix_of_the_most_probable_class():
    scores = np.array([[3, 1, 2], [0, 5, 5], [1, 2, 9]])  # of equals the first
    predicted = most_probable(scores)
    assert predicted.argmax(axis=1).tolist() == [0, 1, 2] and predicted.sum() == 3
    table = matrix(np.eye(3)[[0, 2, 2]], predicted, ["A", "B", "C"])
    assert table == {"A": {"A": 1, "B": 0, "C": 0}, "B": {"A": 0, "B": 0, "C": 0}, "C": {"A": 0, "B": 1, "C": 1}}
