"""One WFDB recording as int16 samples: a strict fast reader for PTB-XL's own format, wfdb for every other."""

import functools
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imlenet_jax.data.ptbxl import LEADS, SECONDS
from imlenet_jax.errors import UserError

MAX_HEADER_BYTES = 2**20  # PTB-XL's have 600
MAX_VALUES = 2**26  # of one recording: three hours of 12 leads at 500 Hz, half a gigabyte
INVALID = -32768  # what WFDB stores in format 16 where a sample is missing

# One match per line of PTB-XL's headers, in one call: matching is most of the cost of a record.
_RECORD_LINE = re.compile(r"[-\w]+ (\d{1,4}) (\d{1,6}) (\d{1,9})", re.ASCII)
_SIGNAL_LINES = re.compile(
    r"^([-\w]+\.\w+) 16 (\d{1,9}(?:\.\d{1,9})?)(?:\((-?\d{1,9})\))?/mV 16 (-?\d{1,9}) -?\d{1,9} (-?\d{1,9}) 0 (\w+)$",
    re.ASCII | re.MULTILINE,
)
UNITS_PER_MV = {"mv": 1.0, "uv": 1000.0, "μv": 1000.0, "v": 0.001}  # casefolded, which makes the micro sign a mu
_BYTES_PER_SAMPLE = {"80": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "61": 2.0, "160": 2.0, "212": 1.5}
_LONGEST_NAME = 255  # bytes that a file can have
_RESTORE = "restore the record from PTB-XL"


class Header(NamedTuple):
    """What a WFDB header says, one entry per lead in the header's order.

    Gain is in steps per mV, baseline is the step of 0 mV, checksum is the sum of the samples modulo 65536 (or None).
    """

    sampling_rate: float
    length: int
    files: tuple[str, ...]
    leads: tuple[str, ...]
    gain: tuple[float, ...]
    baseline: tuple[int, ...]
    checksum: tuple[int | None, ...]


class Recording(NamedTuple):
    """One recording, leads in the order of LEADS.

    Attributes:
        signal: (length, 12) int16 steps; millivolts are (signal - baseline) / gain.
        gain: 12 floats, steps per mV.
        baseline: 12 ints, steps.
        checksum: 12 sums of the samples modulo 65536, None where the header gives none.
    """

    signal: np.ndarray
    gain: tuple[float, ...]
    baseline: tuple[int, ...]
    checksum: tuple[int | None, ...]


def read_recording(stem: Path, sampling_rate: int) -> Recording:
    """Read the record `stem`.hea and its signal file. Samples are not looked at here (`prepare` does).

    Raises:
        UserError: a file is missing, unreadable, too short or too long, or the record is not 10 s of the 12 standard
            leads at `sampling_rate`; the message names the file.
    """
    path = f"{stem}.hea"
    header = parse_header(read_header(path))
    if header is None:
        return _read_with_wfdb(str(stem), path, sampling_rate)
    order = _check(header, path, sampling_rate)
    dat = _beside(path, header.files[0])
    expected = 2 * header.length * len(LEADS)
    samples = _read(dat, expected)
    _check_size(dat, len(samples), expected)
    return _arrange(header, order, np.frombuffer(samples, "<i2").reshape(header.length, len(LEADS)))


def parse_header(text: bytes) -> Header | None:
    """Parse a header whose every line is written as PTB-XL writes it; None for all others, valid or not."""
    first, _, rest = text.decode("ascii", errors="replace").replace("\r\n", "\n").rstrip("\n").partition("\n")
    record = _RECORD_LINE.fullmatch(first)
    signals = _SIGNAL_LINES.findall(rest)
    if record is None or not len(signals) == int(record[1]) == rest.count("\n") + 1:
        return None
    files, gains, baselines, zeros, checksums, leads = zip(*signals, strict=True)
    gain = tuple(map(float, gains))
    if 0.0 in gain or len(set(files)) > 1:
        return None
    baseline = tuple([int(base or zero) for base, zero in zip(baselines, zeros, strict=True)])
    return Header(int(record[2]), int(record[3]), files, leads, gain, baseline, tuple(map(int, checksums)))


def signal_files(stem: Path) -> list[Path]:
    """The files that the header of record `stem` refers to, as far as its lines can be read at all."""
    path = f"{stem}.hea"
    names = _names(read_header(path))
    check_files(names, path, _RESTORE)
    return [Path(_beside(path, name)) for name in names]


def _names(header: bytes) -> list[str]:
    """The first word of each line after the first: what a header's files, or segments, are called."""
    lines = [line for line in header.decode("ascii", errors="replace").splitlines() if not line.startswith("#")]
    return [words[0] for line in lines if (words := line.split())][1:]


def read_wfdb_header(stem: str, path: str, advice: str) -> Any:
    """A `wfdb.Record` or `wfdb.MultiRecord` without signals; `UserError` where `path` is no header, or a hostile one."""
    import wfdb  # slow to import, and PTB-XL itself never needs it

    check_files([name for name in _names(read_header(path)) if name != "~"], path, advice)  # which is a gap
    try:
        return wfdb.rdheader(stem)
    except Exception as error:  # a damaged header makes wfdb fail in any way
        raise UserError(f"{path} is not a usable WFDB header ({brief(error)}): {advice}") from None


def read_header(path: str) -> bytes:
    """The bytes of a WFDB header; `UserError` where there is none, or one larger than any header."""
    data = _read(path, MAX_HEADER_BYTES)
    if len(data) > MAX_HEADER_BYTES:
        raise UserError(f"{path} is too large for a WFDB header: {_RESTORE}")
    return data


def _read(path: str, limit: int) -> bytes:
    """The file's bytes; of one that is larger than `limit` a byte more than that."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(limit + 1)
    except FileNotFoundError:
        raise UserError(f"there is no {path}: {_RESTORE}") from None


def _beside(path: str, name: str) -> str:
    return os.path.join(os.path.dirname(path), name)


def _read_with_wfdb(stem: str, path: str, sampling_rate: int) -> Recording:
    import wfdb

    raw = read_wfdb_header(stem, path, _RESTORE)
    try:
        header = _header_of(raw)
    except Exception as error:  # wfdb leaves things out where a header is damaged
        raise UserError(f"{path} is not a usable WFDB header ({brief(error)}): {_RESTORE}") from None
    order = _check(header, path, sampling_rate)
    check_memory(raw, path, _RESTORE)
    _check_sizes(raw, path)
    try:
        record: Any = wfdb.rdrecord(stem, physical=False)
        samples = record.d_signal
        missing = np.isnan(record.dac())
    except Exception as error:
        raise UserError(f"the signals of {path} are not readable ({brief(error)}): {_RESTORE}") from None
    if samples.shape != (header.length, len(LEADS)):
        raise UserError(f"the signals of {path} are not {header.length} samples of 12 leads: {_RESTORE}")
    if not missing.all() and np.abs(samples[~missing].astype(np.int64)).max() > 32767:
        raise UserError(f"{path} has samples beyond 16 bits, which shards cannot hold: {_RESTORE}")
    return _arrange(header, order, np.where(missing, INVALID, samples).astype(np.int16))


def _header_of(raw: Any) -> Header:
    """A `wfdb.Record` as our header; any exception says that it cannot be one."""
    if any(samples != 1 for samples in raw.samps_per_frame):
        raise ValueError("its leads have several rates")
    for unit in raw.units:
        if unit.casefold() not in UNITS_PER_MV:
            raise ValueError(f"a lead is in {unit!r}, which is no voltage")
    return Header(
        float(raw.fs),
        int(raw.sig_len or 0),
        tuple(raw.file_name),
        tuple(name or "" for name in raw.sig_name),
        tuple(gain * UNITS_PER_MV[unit.casefold()] for gain, unit in zip(raw.adc_gain, raw.units, strict=True)),
        tuple(map(int, raw.baseline)),
        tuple(raw.checksum),
    )


def _check(header: Header, path: str, sampling_rate: int) -> tuple[int, ...]:
    """Refuse what is not a PTB-XL recording; returns where in the header each of LEADS is."""
    length = SECONDS * sampling_rate
    check_files(header.files, path, _RESTORE)
    if header.sampling_rate != sampling_rate:
        raise UserError(f"{path} says {header.sampling_rate:g} Hz instead of {sampling_rate} Hz: {_RESTORE}")
    if header.length != length:
        raise UserError(f"{path} says {header.length} samples instead of {length}: {_RESTORE}")
    if len(header.leads) != len(LEADS):
        raise UserError(f"{path} has {len(header.leads)} leads instead of {len(LEADS)}: {_RESTORE}")
    if not all(map(math.isfinite, header.gain)) or 0 in header.gain:
        raise UserError(f"{path} has a lead without a gain: {_RESTORE}")
    order = _lead_order(header.leads)
    if None in order:
        lead = LEADS[order.index(None)]
        raise UserError(f"{path} has no lead {lead} (its leads are {', '.join(header.leads)}): {_RESTORE}")
    return tuple(place for place in order if place is not None)


def check_files(names: Sequence[str], path: str, advice: str) -> None:
    """Refuse the header `path` if a signal file it names is not in its own folder."""
    for name in names:
        if (
            any(mark in name for mark in "/\\\0")
            or name in ("", ".", "..", "~")
            or len(os.fsencode(name)) > _LONGEST_NAME
        ):
            raise UserError(f"{path} refers to the file {name[:60]!r}, which is not in its own folder: {advice}")


def check_memory(raw: Any, path: str, advice: str) -> None:
    """Refuse a `wfdb.Record` whose header makes wfdb take more memory than a recording of MAX_VALUES does.

    wfdb fills up what skewed leads lack at their ends, and holds every sample of frames that have several of a lead.
    """
    frames = raw.sig_len + max([skew or 0 for skew in raw.skew], default=0)
    check_values(frames * sum(count or 1 for count in raw.samps_per_frame), path, advice)


def check_values(values: int, path: str, advice: str) -> None:
    """Refuse the header `path` of a recording of so many values in all, where that is none, or more than MAX_VALUES."""
    if not 0 < values <= MAX_VALUES:
        what = "cut it into parts" if values else "it is empty"
        raise UserError(f"{path} speaks of {values:,} samples, not 1 to {MAX_VALUES:,}: {what}, or {advice}")


@functools.lru_cache(maxsize=64)
def _lead_order(names: tuple[str, ...]) -> tuple[int | None, ...]:
    places = {name.strip().casefold(): place for place, name in enumerate(names)}
    return tuple(places.get(lead.casefold()) for lead in LEADS)


def _arrange(header: Header, order: tuple[int, ...], signal: np.ndarray) -> Recording:
    if order == tuple(range(len(LEADS))):
        return Recording(signal, header.gain, header.baseline, header.checksum)
    return Recording(
        signal[:, list(order)],
        tuple(header.gain[place] for place in order),
        tuple(header.baseline[place] for place in order),
        tuple(header.checksum[place] for place in order),
    )


def _check_sizes(raw: Any, path: str) -> None:
    """Check each signal file of a record that wfdb reads; formats without a fixed size are left to wfdb."""
    for name in dict.fromkeys(raw.file_name):
        channels = [place for place, file in enumerate(raw.file_name) if file == name]
        dat = _beside(path, name)
        if not os.path.isfile(dat):
            raise UserError(f"there is no {dat}: {_RESTORE}")
        width = _BYTES_PER_SAMPLE.get(raw.fmt[channels[0]])
        if width is not None and not any(raw.skew[place] for place in channels):
            offset = raw.byte_offset[channels[0]] or 0
            _check_size(dat, os.path.getsize(dat), offset + math.ceil(width * raw.sig_len * len(channels)))


def _check_size(dat: str, size: int, expected: int) -> None:
    if size != expected:
        kind = "short" if size < expected else "long"
        size = os.path.getsize(dat)  # no more than needed was read of it
        raise UserError(f"{dat} is too {kind} ({size} bytes instead of {expected}): {_RESTORE}")


def brief(error: Exception) -> str:
    """The start of an exception's message, on one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__
