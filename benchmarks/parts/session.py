"""A run that is short of time: what is measured is written at once, what does not fit is left out, what fails is told."""

import math
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.parts.device_report import device_report
from benchmarks.parts.machine import machine
from imlenet_jax.files import write_atomically, write_json

Row = dict[str, Any]
FIRST = 20.0  # seconds that a measurement like none before is given at least
# Failures after which a GPU does nothing more for a process.
BROKEN = ("ILLEGAL_ADDRESS", "LAUNCH_FAILED", "illegal memory access")


class Task(NamedTuple):
    """One measurement: what takes about as long (a network's name), what it is, and what makes its row."""

    like: str
    what: str
    measure: Callable[[], Row]


class Session:
    """One run of a benchmark's sections, each a list of rows in `results`, in so many minutes."""

    def __init__(self, module: str, sections: Sequence[str], out: Path, minutes: float):
        self._out, self._end = out, time.monotonic() + 60 * minutes
        self.results: dict[str, Any] = {
            "machine": machine(module) | {"driver": driver()},
            **{name: [] for name in (*sections, "left_out", "failed")},
        }

    def work_through(self, section: str, tasks: Iterable[Task]) -> None:
        """One measurement after the other, each if there is time for the slowest so far that it is like."""
        slowest: dict[str, float] = defaultdict(lambda: FIRST)
        for task in tasks:
            left = self._end - time.monotonic()
            if left <= slowest[task.like]:
                self.results["left_out"].append({"section": section, "what": task.what, "seconds_left": left})
                print(f"left out: {task.what} ({max(left, 0):.0f} s are left)", flush=True)
            else:
                slowest[task.like] = max(slowest.get(task.like, 0.0), self._take(section, task))
            write_json(self._out / "device.json", self.results)
            write_atomically(self._out / "device.md", self.report().encode())

    def report(self) -> str:
        """The results to read. Whatever they have that it cannot tell, they are in the JSON file."""
        try:
            return device_report(self.results)
        except Exception as error:
            return f"no report ({type(error).__name__}: {error}): see device.json\n"

    def _take(self, section: str, task: Task) -> float:
        """The seconds that a measurement took; its row, or why there is none, is among the results."""
        start = time.monotonic()
        try:
            row = strict(task.measure())
        except Exception as error:  # whatever becomes of one measurement, the others go on
            reason = f"{type(error).__name__}: {str(error)[:500]}"
            self.results["failed"].append({"section": section, "what": task.what, "reason": reason})
            print(f"failed: {task.what}: {reason}", flush=True)
            if any(word in reason for word in BROKEN):
                self._end = time.monotonic()
            return time.monotonic() - start
        seconds = time.monotonic() - start
        self.results[section].append(row | {"took_s": seconds})
        print(f"{task.what}: done in {seconds:.1f} s", flush=True)
        return seconds


def strict(value: Any) -> Any:
    """The same for strict JSON: NaN and infinity become None."""
    if isinstance(value, dict):
        return {key: strict(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [strict(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def driver() -> str | None:
    """What `nvidia-smi` says of the card and its driver; None where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
