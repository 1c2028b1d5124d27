"""Predictions in words."""

import numpy as np
import pytest

from imlenet_jax.evaluation.explanation import Explanation


@pytest.mark.parametrize(
    ("thresholds", "predicted", "verdict"),
    [
        ((0.5, 0.2, 0.9), (False, True, True), "MI, NORM"),
        ((0.5, 0.3, 0.91), (False, False, False), "none"),
        ((0.5, None, 0.9), (False, None, True), "NORM"),
        ((None, None, None), (None, None, None), "no thresholds"),
    ],
)
def test_classes_are_predicted_from_their_threshold_on(thresholds, predicted, verdict):
    signal, probabilities = np.zeros((1000, 12)), np.array([0.1, 0.2, 0.9])
    explanation = Explanation("x", signal, 100, ("I",) * 12, ("CD", "MI", "NORM"), probabilities, thresholds)
    assert explanation.predicted == predicted
    assert explanation.verdict == verdict
