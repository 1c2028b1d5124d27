"""Integer sums against float64 statistics."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from imlenet_jax.data.scaling import Moments, sums_and_squares

int16 = arrays(np.int16, st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 30)))


@given(int16)
def test_sums_are_exact(signals):
    sums, squares = sums_and_squares(signals)
    wide = signals.astype(object)
    assert sums.tolist() == wide.sum(axis=2).tolist()
    assert squares.tolist() == (wide**2).sum(axis=2).tolist()


def test_sums_of_the_largest_samples_are_exact():
    signals = np.full((1, 2, 5000), -32768, np.int16)
    sums, squares = sums_and_squares(signals)
    assert sums.tolist() == [[-32768 * 5000] * 2]
    assert squares.tolist() == [[32768**2 * 5000] * 2]


@pytest.mark.parametrize("calibrations", [[(1000.0, 0)], [(1000.0, 0), (204.8, 1024), (0.5, -7)]])
def test_scaler_is_the_float64_mean_and_population_deviation(calibrations):
    generator = np.random.default_rng(1)
    moments, millivolts = Moments(), []
    for gain, baseline in calibrations:
        signals = generator.integers(-3000, 3000, (7, 3, 100)).astype(np.int16)
        moments.update(*sums_and_squares(signals), 100, [gain] * 3, [baseline] * 3)
        millivolts.append((signals.astype(np.float64) - baseline) / gain)
    mean, std = moments.scaler()
    everything = np.concatenate(millivolts)
    assert mean == pytest.approx(everything.mean(), rel=1e-12)
    assert std == pytest.approx(everything.std(), rel=1e-12)


def test_scaler_does_not_cancel():
    # A float64 sum of squares would leave nothing of this deviation.
    moments = Moments([(1000.0, 0, 10**12, 10**12 * 30000, 10**12 * 30000**2 + 10**3)])
    mean, std = moments.scaler()
    assert mean == 30.0
    assert std == pytest.approx(math.sqrt(Fraction(10**3, 10**12)) / 1000, rel=1e-12)


def test_entries_add_up_whatever_their_order():
    entries = [(1000.0, 0, 4, 10, 30), (500.0, 1, 4, -2, 9), (1000.0, 0, 6, -3, 12)]
    merged = Moments(entries)
    assert merged.entries() == [(500.0, 1, 4, -2, 9), (1000.0, 0, 10, 7, 42)]
    assert merged.scaler() == Moments(reversed(entries)).scaler() == Moments(merged.entries()).scaler()


def test_no_samples_no_scaler():
    assert Moments().scaler() is None
