"""WFDB headers as archives write them: what the standard says, and what its readers have to forgive.

`header(5)` of WFDB. Formats other than 16, several segments, several samples a frame and skewed leads are left to wfdb.
"""

import re
from typing import NamedTuple

GAIN = 200.0  # steps per mV where a header says none: WFDB's default, "uncalibrated"
RATE = 250.0  # Hz where it says none

# A name may have a dot, and what stands after the number of samples (time and date) is of no use here and often not a date.
_RECORD = re.compile(r"([^\s/]+)\s+(\d{1,4})(?:\s+(\d[\d.eE+]{0,15})(?:/\S+)?(?:\s+(\d{1,10})(?:\s.*)?)?)?", re.ASCII)
_SIGNAL = re.compile(
    r"(\S+)\s+16(?:\+(\d{1,9}))?"
    r"(?:\s+([-+\d.eE]{1,20})(?:\((-?\d{1,9})\))?(?:/(\S+))?"
    r"(?:\s+\d{1,4}(?:\s+(-?\d{1,9})(?:\s+-?\d{1,9}(?:\s+(-?\d{1,9})(?:\s+\d{1,9}(?:\s+(.*))?)?)?)?)?)?)?",
)


class Signal(NamedTuple):
    """A lead's line: its file, the bytes before its first sample, and how steps become voltages; None where it does not say."""

    file: str
    offset: int
    gain: float | None
    baseline: int
    unit: str
    checksum: int | None
    name: str


class WfdbHeader(NamedTuple):
    """A record whose leads are all in format 16; `length` is None where the file's size has to tell."""

    sampling_rate: float
    length: int | None
    signals: tuple[Signal, ...]


def parse_wfdb(text: bytes) -> WfdbHeader | None:
    """A header of such a record; None for one that is of another kind, or no header at all."""
    lines = [line.strip() for line in text.decode("utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    record = _RECORD.fullmatch(lines[0]) if lines else None
    if record is None or int(record[2]) != len(lines) - 1 or len(lines) < 2:
        return None
    try:
        rate = float(record[3]) if record[3] else RATE
        signals = tuple(_signal(match) for match in map(_SIGNAL.fullmatch, lines[1:]) if match)
    except ValueError:
        return None
    if len(signals) < len(lines) - 1 or not rate > 0:
        return None
    return WfdbHeader(rate, int(record[4]) or None if record[4] else None, signals)


def _signal(match: re.Match[str]) -> Signal:
    file, offset, gain, baseline, unit, zero, checksum, name = match.groups()
    steps = float(gain) if gain else 0.0
    return Signal(
        file,
        int(offset or 0),
        steps or None,
        int(baseline or zero or 0),
        unit or "mV",
        int(checksum) if checksum else None,
        (name or "").strip(),
    )
