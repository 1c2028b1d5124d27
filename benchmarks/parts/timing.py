"""Time a call, and say how its times spread."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and quartiles, and of how many."""
    first, median, third = np.quantile(seconds, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "first_quartile": first, "third_quartile": third, "count": len(seconds)}
