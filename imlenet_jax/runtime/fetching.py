"""Results on their way from the device to the host, so that neither waits for the other."""

import collections
from collections.abc import Iterator
from typing import Any

import jax

AHEAD = 2
"""Calls that may be under way while the host goes on: the device never waits, and a stop does not wait for many."""


def fetched(outputs: Iterator[Any]) -> Iterator[Any]:
    """Each of `outputs`, trees of arrays that are being computed, on the host; `AHEAD` more are begun before it is waited for."""
    waiting: collections.deque[Any] = collections.deque()
    for output in outputs:
        waiting.append(output)
        if len(waiting) > AHEAD:
            yield jax.device_get(waiting.popleft())
    while waiting:
        yield jax.device_get(waiting.popleft())
