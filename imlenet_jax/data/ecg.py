"""An ECG from any source as a network takes it: windows of ten seconds in mV, at its rate and in its order of leads."""

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.signal import resample_poly

from imlenet_jax.data.leads import derivation, parse_lead, parse_leads
from imlenet_jax.data.plausibility import examine
from imlenet_jax.data.ptbxl import LEADS, SECONDS
from imlenet_jax.data.records import UNITS_PER_MV
from imlenet_jax.data.sources import Source, TableFormat, read_sources
from imlenet_jax.errors import UserError

SHORT = ("refuse", "pad", "repeat")


class ECG(NamedTuple):
    """One window of a recording.

    Attributes:
        name: the record's; with the window, as in `rec[0-10s]`, where the recording is longer than one.
        span: which of several recordings in the file it is, and that window, as in `[3][0-10s]`; empty where there is but one.
        path: the file it was read from, of WFDB records the header.
        signal_mv: `(length, leads)` float32 in mV.
        notes: what was changed to get here: leads, units, rate, length.
        findings: what is implausible in it.
        deflection_mv: that its leads typically have within a second; NaN where samples are missing.
    """

    name: str
    span: str
    path: Path
    signal_mv: np.ndarray
    notes: tuple[str, ...]
    findings: tuple[str, ...]
    deflection_mv: float

    @property
    def complete(self) -> bool:
        """Whether no sample is missing; a network can be asked about a complete ECG only."""
        return bool(np.isfinite(self.signal_mv).all())


def read_ecg(
    path: str | Path,
    leads: Sequence[str] = LEADS,
    sampling_rate: int = 100,
    seconds: float = SECONDS,
    table: TableFormat | None = None,
    lead_map: Mapping[str, str] | None = None,
    short: str = "refuse",
) -> list[ECG]:
    """Read a recording in windows of `seconds`; what is left at its end is dropped, and the notes say so.

    Args:
        path: a WFDB record (with or without `.hea`), a `.csv`, `.csv.gz` or `.npy` file.
        leads: the leads that are wanted, in this order. Limb leads that are missing are computed from two others.
        sampling_rate: that is wanted, Hz.
        seconds: that are wanted.
        table: sampling rate, leads and unit of a `.csv` or `.npy` file.
        lead_map: names to take for a standard lead, such as `{"MLII": "II"}`.
        short: what becomes of a recording that lasts less than `seconds`, but half of it or more: `refuse`, `pad` (each
            lead stays at its median after the end) or `repeat` (it begins again).

    Raises:
        UserError: the file cannot be read, a lead is missing or in no unit of voltage, or the recording is too short.
    """
    wanted = (leads, sampling_rate, seconds, lead_map, short)
    return [ecg for source in read_sources(Path(path), table) for ecg in _windows(source, *wanted)]


def _windows(
    source: Source,
    leads: Sequence[str],
    sampling_rate: int,
    seconds: float,
    lead_map: Mapping[str, str] | None,
    short: str,
) -> Iterator[ECG]:
    """The windows of one recording."""
    signal, notes = arrange(source, leads, lead_map)
    rate = source.sampling_rate
    size = math.ceil(seconds * rate)  # never too short once resampled
    recorded = len(signal)
    if recorded < size:
        signal = _lengthened(source, signal, size, short)
        notes.append(f"{recorded / rate:g} s were {'repeated' if short == 'repeat' else 'padded'} to {seconds:g} s")
    count = len(signal) // size
    rest = len(signal) / rate - count * seconds
    if len(signal) > count * size:
        notes.append(f"the last {rest:.3g} s were dropped, as they fill no window of {seconds:g} s")
    if rate != sampling_rate:
        notes.append(f"resampled from {rate:g} to {sampling_rate} Hz")
    for number in range(count):
        window = signal[number * size : (number + 1) * size]
        span = f"[{number * seconds:g}-{(number + 1) * seconds:g}s]" if len(signal) > size else ""
        findings, deflection = examine(window[:recorded], rate, leads)
        signal_mv = resample(window, rate, sampling_rate)[: round(seconds * sampling_rate)].astype(np.float32)
        name = source.name + span
        yield ECG(name, source.part + span, source.path, signal_mv, tuple(notes), tuple(findings), deflection)


def _lengthened(source: Source, signal: np.ndarray, size: int, short: str) -> np.ndarray:
    """A recording that does not fill a window, made to."""
    lasts, wanted = len(signal) / source.sampling_rate, size / source.sampling_rate
    if short == "refuse":
        raise UserError(
            f"{source.path} lasts {lasts:g} s, less than {wanted:g} s: leave it out, or take it with --short pad or repeat"
        )
    if 2 * len(signal) < size:
        raise UserError(f"{source.path} lasts {lasts:g} s, less than half of {wanted:g} s: leave it out")
    if short == "repeat":
        return np.concatenate([signal, signal[: size - len(signal)]])
    return np.concatenate([signal, np.repeat(np.nanmedian(signal, axis=0)[None], size - len(signal), axis=0)])


def arrange(
    source: Source, leads: Sequence[str], lead_map: Mapping[str, str] | None = None
) -> tuple[np.ndarray, list[str]]:
    """The signal in mV `(samples, leads)` float64 in the order of `leads`, and notes on what was changed.

    Raises:
        UserError: a lead is missing and does not follow from others, two columns are the same lead, or a column that
            is needed is in no unit of voltage.
    """
    try:
        places = parse_leads(source.leads, lead_map)
    except UserError as error:
        raise UserError(f"{source.path}: {error}") from None
    weights = {lead: {lead: 1.0} if lead in places else derivation(lead, tuple(places)) for lead in leads}
    missing = [lead for lead, sources in weights.items() if sources is None]
    if missing:
        raise UserError(
            f"{source.path} has no lead {', '.join(missing)} (its leads are {', '.join(source.leads)}); "
            "where another name stands for it, say so with --lead_map NAME=LEAD"
        )
    mv = {lead: _millivolts(source, lead, place) for lead, place in places.items()}
    columns = [sum(weight * mv[name] for name, weight in (weights[lead] or {}).items()) for lead in leads]
    return np.stack(columns).T, _arrangement_notes(source, places, weights)


def _millivolts(source: Source, lead: str, place: int) -> np.ndarray:
    factor = UNITS_PER_MV.get(source.units[place].casefold())
    if factor is None:
        raise UserError(f"{source.path} has lead {lead} in {source.units[place]!r}, not in mV, uV or V")
    return source.signal[:, place] / factor


def _arrangement_notes(source: Source, places: Mapping[str, int], weights: Mapping[str, dict | None]) -> list[str]:
    notes = list(source.notes)
    taken = {source.leads[place]: lead for lead, place in places.items()}
    mapped = [f"{name} as {lead}" for name, lead in taken.items() if parse_lead(name) != lead]
    if mapped:
        notes.append(f"taken as was asked for: {', '.join(mapped)}")
    for lead, sources in weights.items():
        if sources and lead not in places:
            terms = " ".join(f"{weight:+.4g} {name}" for name, weight in sources.items())
            notes.append(f"lead {lead} was missing and computed as {terms}")
    if list(places) != [lead for lead in weights if lead in places]:
        notes.append(f"leads put in order, from {', '.join(places)}")
    unused = [name for name in source.leads if taken.get(name) not in weights]
    if unused:
        notes.append(f"not used: {', '.join(unused)}")
    units = sorted({source.units[place] for place in places.values()} - {"mV"})
    if units:
        notes.append(f"converted from {', '.join(units)} to mV")
    return notes


def resample(signal: np.ndarray, rate: float, wanted: int) -> np.ndarray:
    """`(samples, leads)` at `wanted` Hz instead of `rate`, by a polyphase filter that keeps out what would alias.

    The ends are continued along the line from the first to the last sample, so that an offset makes no step there.
    """
    if rate == wanted:
        return signal
    ratio = (Fraction(wanted) / Fraction(rate)).limit_denominator(10_000)
    return resample_poly(signal, ratio.numerator, ratio.denominator, axis=0, padtype="line")
