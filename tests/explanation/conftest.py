"""A record to explain, with every array drawn from a seed."""

import numpy as np
import pytest

from imlenet_jax.explanation.attention import Attention, combine
from imlenet_jax.explanation.explain import Explanation

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
CLASSES = ("CD", "HYP", "MI", "NORM", "STTC")


@pytest.fixture
def explain():
    """Makes an `Explanation` of noise; keywords replace its fields."""

    def make(**fields) -> Explanation:
        draw = np.random.default_rng(5)
        levels = [draw.random((1, *shape)) ** 3 for shape in ((12, 20, 13), (12, 20), (12,))]
        beat, rhythm, channel = [level / level.sum(axis=-1, keepdims=True) for level in levels]
        attention = Attention(beat, rhythm, channel, combine(beat, rhythm, channel, 1000)).record(0)
        defaults = {
            "name": "a record",
            "signal_mv": draw.normal(scale=0.3, size=(1000, 12)),
            "sampling_rate": 100,
            "leads": LEADS,
            "classes": CLASSES,
            "probabilities": np.array([0.125, 0.25, 0.625, 0.75, 0.0], np.float32),
            "thresholds": (0.3, 0.25, 0.4, None, 0.35),
            "notes": ("Resampled from 500 Hz.",),
            "attention": attention,
        }
        return Explanation(**(defaults | fields))

    return make
