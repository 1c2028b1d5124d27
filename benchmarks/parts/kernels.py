"""The longest kernels of a step, as the profiler of the device saw them."""

import collections
import gzip
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

STEPS = 5
_NUMBER = re.compile(r"[._]?\d+$")


def longest_kernels(step: Callable[[], Any], count: int) -> dict[str, Any]:
    """Run some steps under the profiler: microseconds and kernels per step, and of the longest kernels their names.

    Kernels that differ in their number alone are taken together. On a CPU there are none: nothing is seen.

    Raises:
        ValueError: an accelerator's trace has no kernels.
    """
    jax.block_until_ready(step())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                pending = step()
            jax.block_until_ready(pending)
        traces = sorted(Path(folder).rglob("*.trace.json.gz"))
        events = json.loads(gzip.decompress(traces[-1].read_bytes()))["traceEvents"] if traces else []
    kernels = kernel_events(events)
    if not kernels and jax.default_backend() != "cpu":
        raise ValueError(f"no kernels among {len(events):,} events of {len(traces)} traces")
    return summary(kernels, count)


def kernel_events(events: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """Names and microseconds of the kernels among the events of a trace: those on a stream of a GPU."""
    devices = {e["pid"] for e in events if e.get("name") == "process_name" and "GPU" in e["args"]["name"]}
    streams = {(e["pid"], e["tid"]) for e in events if e.get("name") == "thread_name" and "Stream" in e["args"]["name"]}
    return [
        (e["name"], float(e["dur"]))
        for e in events
        if e.get("ph") == "X" and e["pid"] in devices and (e["pid"], e["tid"]) in streams
    ]


def summary(kernels: list[tuple[str, float]], count: int) -> dict[str, Any]:
    """Totals per step, and the `count` longest kinds of kernels."""
    total: collections.Counter[str] = collections.Counter()
    started: collections.Counter[str] = collections.Counter()
    for name, microseconds in kernels:
        kind = _NUMBER.sub("", name)
        total[kind] += microseconds  # type: ignore[assignment]
        started[kind] += 1
    longest = [
        {"kernel": kind, "us": spent / STEPS, "started": started[kind] / STEPS}
        for kind, spent in total.most_common(count)
    ]
    return {"us": sum(total.values()) / STEPS, "started": len(kernels) / STEPS, "longest": longest}
