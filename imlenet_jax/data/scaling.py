"""One mean and one standard deviation over many recordings, from exact integer sums."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

Entry = tuple[float, int, int, int, int]


class Scaler(NamedTuple):
    """One mean and one population standard deviation, in mV, for all leads."""

    mean: float
    std: float


class Moments:
    """Exact sums of int16 samples, kept apart by (gain, baseline), since only equal steps may be added."""

    def __init__(self, entries: Iterable[Entry] = ()):
        self._sums: dict[tuple[float, int], list[int]] = defaultdict(lambda: [0, 0, 0])
        for gain, baseline, *values in entries:
            self._add(gain, baseline, values)

    def update(self, sums: np.ndarray, squares: np.ndarray, length: int, gain: Sequence, baseline: Sequence) -> None:
        """Add recordings that share one calibration.

        Args:
            sums, squares: (n, leads) integers, per recording and lead.
            length: samples per lead of one recording.
            gain, baseline: per lead, steps per mV and the step of 0 mV.
        """
        for lead, key in enumerate(zip(gain, baseline, strict=True)):
            self._add(*key, [length * len(sums), sum(sums[:, lead].tolist()), sum(squares[:, lead].tolist())])

    def entries(self) -> list[Entry]:
        """(gain, baseline, count, sum, sum of squares), as JSON and `Moments` take them."""
        return [(gain, baseline, *values) for (gain, baseline), values in sorted(self._sums.items())]  # type: ignore[misc]

    def scaler(self) -> tuple[float, float] | None:
        """Mean and population standard deviation in mV; None without samples."""
        count = sum(n for n, _, _ in self._sums.values())
        if not count:
            return None
        total = squares = Fraction(0)
        for (gain, baseline), (n, s, q) in self._sums.items():
            total += (s - n * baseline) / Fraction(gain)
            squares += (q - 2 * baseline * s + n * baseline**2) / Fraction(gain) ** 2
        mean = total / count
        return float(mean), math.sqrt(squares / count - mean**2)

    def _add(self, gain: float, baseline: int, values: Sequence[int]) -> None:
        sums = self._sums[float(gain), int(baseline)]
        sums[:] = [a + b for a, b in zip(sums, values, strict=True)]


def sums_and_squares(signals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and sum of squares of each recording and lead.

    Args:
        signals: (n, leads, length) int16, time last and contiguous; length at most 2**22.

    Returns:
        Two (n, leads) int64 arrays. They are exact: every partial sum is an integer below 2**53.
    """
    wide = signals.astype(np.float64)
    return wide.sum(axis=2).astype(np.int64), np.einsum("nlt,nlt->nl", wide, wide).astype(np.int64)
