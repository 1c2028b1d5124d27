"""Percentile bootstrap intervals over records (Efron & Tibshirani 1993, chapter 13).

A resample is n records drawn with replacement, represented by how often each record was drawn. Any statistic that takes
weights for its records therefore serves for all resamples at once.

Records are drawn independently. PTB-XL has several records of some patients (all in one fold), so that the intervals
are a little too narrow.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CHUNK = 500_000
"""Weights held at once (4 MB): it fits the cache, and makes memory independent of the number of resamples."""


@dataclass(frozen=True)
class Interval:
    """Bounds of an interval, each of the statistic's shape (...).

    ``left_out`` (...) is the share of resamples, 0 to 1, in which the statistic did not exist, as an AUC where a class
    was not drawn; they do not count. The bounds are NaN where it is 1.
    """

    low: Array
    high: Array
    left_out: Array


def bootstrap(
    statistics: Callable[[Array], Mapping[str, Array]], n: int, resamples: int = 1000, seed: int = 0
) -> dict[str, Array]:
    """Each statistic in every resample of ``n`` records: name -> (resamples, ...), float64.

    ``statistics`` is called with the counts (r, n) of r resamples and returns arrays of shape (r, ...), as the
    functions of `imlenet_jax.evaluation.metrics` do. Equal ``n``, ``resamples`` and ``seed`` give equal draws.

    Raises ValueError unless ``n`` and ``resamples`` are positive.
    """
    if n < 1 or resamples < 1:
        raise ValueError(f"a bootstrap needs at least one record and one resample, not {n} and {resamples}")
    parts = [statistics(count_draws(indices)) for indices in draws(n, resamples, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def draws(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """The record indices of all resamples, in chunks (r, n)."""
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK // n)
    for start in range(0, resamples, rows):
        yield generator.integers(n, size=(min(rows, resamples - start), n))


def count_draws(indices: NDArray[np.int64]) -> Array:
    """How often each record is in each resample: indices (r, n) -> counts (r, n), float64."""
    rows, n = indices.shape
    cells = indices + n * np.arange(rows)[:, None]
    return np.bincount(cells.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def percentile_interval(samples: Array, level: float = 0.95) -> Interval:
    """The central ``level`` of the samples (resamples, ...) that exist, per entry of (...)."""
    flat = samples.reshape(len(samples), -1)
    bounds = np.array([_bounds(column[~np.isnan(column)], level) for column in flat.T])
    low, high = bounds.T.reshape(2, *samples.shape[1:])
    return Interval(low, high, np.isnan(samples).mean(axis=0))


def _bounds(samples: Array, level: float) -> Array:
    tail = 100 * (1 - level) / 2
    return np.percentile(samples, [tail, 100 - tail]) if samples.size else np.full(2, np.nan)
