"""500 Hz against 100 Hz of the same records."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.resampling import compare, find_pairs
from imlenet_jax.data.ptbxl import LEADS
from imlenet_jax.errors import UserError


class Network:
    """In place of a Classifier: the probability of class A is the mean of lead I's absolute value."""

    classes, leads, sampling_rate = ("A", "B"), LEADS, 100
    meta = SimpleNamespace(thresholds=[0.0, None])

    def predict_proba(self, signals):
        share = np.abs(signals[:, :, 0]).mean(axis=1)
        return np.stack([share, 1 - share], axis=1)


def test_real_twins_are_nearly_alike(ptbxl_folder):
    pairs = find_pairs(ptbxl_folder)
    assert len(pairs) == 20 and pairs[0][0].name == "00001_lr.hea" and pairs[0][1].name == "00001_hr.hea"
    found = compare(Network(), pairs[:4])
    assert 0 < found["probability"]["mean"] < 0.005
    assert found["probability"]["max"] == pytest.approx(max(found["probability"]["by_class"].values()), abs=0.005)
    assert found["decisions"] == {"differ": 0, "of": 4}
    assert 0.005 < found["signal_mv"]["rms"] < 0.03


def test_a_folder_without_pairs_is_refused(synthetic_shards):
    with pytest.raises(UserError, match="names no recordings at 500 Hz"):
        find_pairs(synthetic_shards.parent)
