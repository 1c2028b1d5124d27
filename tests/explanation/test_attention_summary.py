"""Means over records against sums by hand; sharpness against maps whose entropy is known."""

import json

import numpy as np
import pytest

from imlenet_jax.explanation.attention import Attention, combine
from imlenet_jax.explanation.attention_summary import as_json, entropy, mean_weights, per_record, weights_of

LABELS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0]])
WEIGHTS = np.array([[0.5, 0.5], [0.7, 0.3], [0.2, 0.8], [0.0, 1.0]])


def test_entropy_counts_the_samples_that_an_even_map_covers():
    maps = np.zeros((3, 4, 10))
    maps[0] = 1 / 40
    maps[1, 2, 3] = 1
    maps[2, :2, :5] = 1 / 10
    np.testing.assert_allclose(np.exp(entropy(maps)), [40, 1, 10])


def test_weights_of_parts_are_those_of_the_whole():
    draw = np.random.default_rng(0)
    levels = [draw.random(shape) for shape in ((5, 12, 20, 13), (5, 12, 20), (5, 12))]
    beat, rhythm, channel = [level / level.sum(axis=-1, keepdims=True) for level in levels]
    maps = Attention(beat, rhythm, channel, combine(beat, rhythm, channel, 1000))
    whole = weights_of([maps])
    parts = weights_of(Attention(*(level[rows] for level in maps)) for rows in (slice(0, 2), slice(2, 5)))
    for name in ("leads", "windows", "entropy", "effective"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    np.testing.assert_array_equal(whole.leads, channel)
    np.testing.assert_allclose(whole.windows, maps.combined.reshape(5, 12, 20, 50).sum(axis=(1, 3)))
    assert (whole.effective < 1).all()


def test_means_of_all_and_of_each_class():
    frame = mean_weights(WEIGHTS, LABELS, ["CD", "MI", "HYP"], ["I", "II"], resamples=200)
    means = {(row["class"], row["name"]): (row["mean"], row["n"]) for row in frame.to_dict("records")}
    assert means["all", "I"] == (pytest.approx(0.35), 4)
    assert means["CD", "I"] == (pytest.approx(0.6), 2)
    assert means["MI", "II"] == (pytest.approx(0.7), 3)
    assert np.isnan(means["HYP", "I"][0]) and means["HYP", "I"][1] == 0
    known = frame.dropna()
    assert ((known["low"] <= known["mean"]) & (known["mean"] <= known["high"])).all()
    assert ((known["high"] - known["low"]) > 0).all()


def test_the_interval_of_all_is_that_of_a_mean():
    draw = np.random.default_rng(1)
    weights = draw.random((400, 1))
    frame = mean_weights(weights, np.ones((400, 1)), ["CD"], ["I"], resamples=2000)
    half = 1.96 * weights.std() / np.sqrt(400)
    row = frame.iloc[0]
    assert row["high"] - row["low"] == pytest.approx(2 * half, rel=0.1)


def test_json_has_no_nan():
    frame = mean_weights(WEIGHTS, LABELS, ["CD", "MI", "HYP"], ["I", "II"], resamples=10)
    value = json.loads(json.dumps(as_json(frame), allow_nan=False))
    assert list(value) == ["all", "CD", "MI", "HYP"]
    assert value["HYP"] == {
        "n": 0,
        "weights": {lead: {"mean": None, "low": None, "high": None} for lead in ("I", "II")},
    }
    assert value["CD"]["weights"]["I"]["mean"] == pytest.approx(0.6)


def test_records_stand_sharpest_first():
    draw = np.random.default_rng(2)
    sharpness = np.array([1, 9, 3])
    levels = [draw.random((3, *shape)) for shape in ((2, 4, 5), (2, 4), (2,))]
    powered = [level ** sharpness.reshape(3, *[1] * (level.ndim - 1)) for level in levels]
    beat, rhythm, channel = [level / level.sum(axis=-1, keepdims=True) for level in powered]
    weights = weights_of([Attention(beat, rhythm, channel, combine(beat, rhythm, channel, 40))])
    frame = per_record(weights, np.array([7, 8, 9]), LABELS[:3], ["CD", "MI", "HYP"], ["I", "II"])
    assert frame["ecg_id"].tolist() == [8, 9, 7]
    assert frame["labels"].tolist() == ["CD MI", "MI", "CD"]
    assert frame["top_weight"][0] == channel[1].max() and frame["top_lead"][0] == ["I", "II"][channel[1].argmax()]
