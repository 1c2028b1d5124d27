"""What training steps report, fetched from the device in groups, so that the host's work per step is small and constant."""

import math
import time
from collections.abc import Callable

import jax
import numpy as np

from imlenet_jax.runtime.fetching import AHEAD
from imlenet_jax.training.step import Outcome, Unfinished

GROUP = 64
"""Calls whose outcomes are fetched together, or fewer where `SECONDS` have passed since the last were."""

SECONDS = 0.1


class Outcomes:
    """The outcomes of one epoch so far. Those before an interruption are given as `before`.

    Args:
        before: what the epoch had come to when it was interrupted.
        not_finite: makes the error for a loss that is no number, from the loss and the step, counted from 0.
    """

    def __init__(self, before: Unfinished | None, not_finite: Callable[[float, int], Exception]):
        self._parts = [before] if before is not None else []
        self._not_finite = not_finite
        self._count = len(before.losses) if before is not None else 0
        self._sum = float(np.sum(before.losses, dtype=float)) if before is not None else 0.0
        self._waiting: list[Outcome] = []
        self._read_at = time.perf_counter()

    def add(self, outcome: Outcome) -> bool:
        """One more call of the step; waits until no more than `AHEAD` are under way. Whether losses were fetched.

        Raises:
            Exception: one of the fetched losses is no number; what `not_finite` makes of the first.
        """
        waiting = self._waiting
        waiting.append(outcome)
        done = len(waiting) - AHEAD
        if done < 1:
            return False
        jax.block_until_ready(waiting[done - 1].loss)
        if done < GROUP and time.perf_counter() - self._read_at < SECONDS:
            return False
        self._read(done)
        return True

    def read(self) -> None:
        """Wait for all calls and fetch what they report.

        Raises:
            Exception: see `add`.
        """
        self._read(len(self._waiting))

    @property
    def mean_loss(self) -> float:
        """The mean of the losses that were fetched; NaN of none."""
        return self._sum / self._count if self._count else math.nan

    def joined(self) -> Unfinished:
        """All that was fetched, in one."""
        if len(self._parts) > 1:
            self._parts = [Unfinished(*(np.concatenate(arrays) for arrays in zip(*self._parts, strict=True)))]
        return self._parts[0]

    def _read(self, count: int) -> None:
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        self._read_at = time.perf_counter()
        if not group:
            return
        fetched = jax.device_get([(outcome.loss, outcome.logits) for outcome in group])
        losses = np.concatenate([np.ravel(loss) for loss, _ in fetched])
        logits = np.concatenate([logits.reshape(-1, logits.shape[-1]) for _, logits in fetched])
        bad = np.flatnonzero(~np.isfinite(losses))
        if bad.size:
            raise self._not_finite(float(losses[bad[0]]), self._count + int(bad[0]))
        self._parts.append(Unfinished(losses, logits))
        self._count += len(losses)
        self._sum += float(np.sum(losses, dtype=float))
