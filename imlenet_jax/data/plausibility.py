"""Is this an ECG as its file describes it? Tests for what goes wrong with leads, units and rates; never a diagnosis.

Each bound lies outside what 1,987 records of PTB-XL show at 100 Hz (their range is given beside it), but for the deflection
and for arms that are swapped, where `docs/recordings.md` says how many of these are marked.
"""

import math
from collections.abc import Sequence

import numpy as np

from imlenet_jax.data.leads import LIMB
from imlenet_jax.data.ptbxl import LEADS

FLAT_SECONDS = 1.0  # of one value without a break (PTB-XL: up to 0.33)
FLAT_SHARE = 0.02  # of the deflection that the other leads have (from 0.10)
CLIPPED_RUNS, CLIPPED_RUN_SECONDS, CLIPPED_SECONDS = 4, 0.02, 0.5  # at a lead's very extreme (up to 2 runs; 0.27 s)
DEFLECTION_MV = (0.39, 3.0)  # within a second, of the median of twelve leads (all but 3 of 1,987; median 1.02)
FEW_LEADS_MV = (0.15, 5.0)  # of fewer leads (0.16 to 5.4, single leads included)
FAR_MV = (0.02, 100.0)  # beyond these it is no wrong gain, but another unit
SOURCE_MV = (0.4, 2.5)  # of many recordings together (of 20 at random: 0.79 to 1.33)
ARMS = -0.5  # correlation of the mean beat in I with V5 and with V6, where aVR is upright (below it: 2 of 1,987)
HEART_RATE = (20.0, 300.0)  # per minute (31 to 171)
QRS_SECONDS = (0.045, 0.22)  # as measured here (0.05 to 0.20)
FEW = 20  # recordings that say nothing of their source
CONTRADICTION = 0.3  # of the limb leads' size (up to 0.02)


def implausible(signal_mv: np.ndarray, sampling_rate: float, leads: Sequence[str]) -> list[str]:
    """What is implausible in a recording `(samples, leads)` of some seconds, one sentence each; best before resampling."""
    return examine(signal_mv, sampling_rate, leads)[0]


def examine(signal_mv: np.ndarray, sampling_rate: float, leads: Sequence[str]) -> tuple[list[str], float]:
    """What is implausible, and by how many mV the leads that are not flat typically deflect within a second.

    Missing samples end the search, since no network takes them; the deflection is NaN then, and 0 where all leads are flat.
    """
    by_lead = np.ascontiguousarray(signal_mv.T, np.float32)  # several times faster to reduce
    missing = (~np.isfinite(by_lead)).sum(axis=1)
    if missing.any():
        places = [f"{lead} ({count} samples)" for lead, count in zip(leads, missing, strict=True) if count]
        return [f"samples are missing in {', '.join(places)}"], float("nan")
    deflection = _deflection(by_lead, sampling_rate)
    still = _still(by_lead, max(2, math.ceil(FLAT_SECONDS * sampling_rate)))
    flat = still | (deflection <= FLAT_SHARE * np.median(deflection))
    clipped = _clipped(by_lead, sampling_rate) & ~flat
    findings = []
    if flat.any():
        findings.append(f"flat: {_names(leads, flat)}; was the electrode off?")
    if clipped.any():
        findings.append(f"saturated: {_names(leads, clipped)}; peaks are cut off")
    if flat.all():
        return findings, 0.0
    typical = float(np.median(deflection[~flat]))
    peaks, widths = find_qrs(by_lead[~flat].T, sampling_rate)
    rate = _wrong_rate(peaks, widths, sampling_rate)
    if not rate or not FAR_MV[0] <= typical <= FAR_MV[1]:  # a wrong rate changes what lies within a second
        findings += wrong_unit(typical, twelve=len(leads) >= len(LEADS))
    findings += rate
    findings += _wrong_leads(by_lead, leads)
    return findings + _swapped_arms(by_lead, peaks, sampling_rate, leads), typical


def find_qrs(signal_mv: np.ndarray, sampling_rate: float) -> tuple[np.ndarray, np.ndarray]:
    """The QRS complexes of `(samples, leads)`: the samples they are steepest at, and their widths in s.

    By the energy of the slope, summed over leads of equal weight and smoothed over 20 ms; a complex lasts as long as
    the energy stays above a tenth of its peak, and for 0.2 s no other follows.
    """
    from scipy.signal import find_peaks  # half a second, which loading a network need not wait for

    power = np.square(np.gradient(np.ascontiguousarray(signal_mv.T, np.float32), axis=1))
    power /= np.maximum(power.mean(axis=1, keepdims=True), 1e-24)
    smooth = max(1, round(0.02 * sampling_rate))
    energy = np.convolve(power.sum(axis=0), np.ones(smooth) / smooth, "same")
    peaks, _ = find_peaks(energy, height=0.3 * np.quantile(energy, 0.98), distance=max(1, round(0.2 * sampling_rate)))
    low = [np.flatnonzero(energy <= 0.1 * energy[peak]) for peak in peaks]
    ends = [(np.searchsorted(quiet, peak), quiet) for peak, quiet in zip(peaks, low, strict=True)]
    widths = [quiet[after] - quiet[after - 1] if 0 < after < len(quiet) else np.nan for after, quiet in ends]
    return peaks, np.array(widths, float) / sampling_rate


def wrong_unit(deflection: float, twelve: bool = True) -> list[str]:
    """A sentence where leads that deflect by so many mV, as a rule, are not in mV; none for those that lie flat."""
    low, high = DEFLECTION_MV if twelve else FEW_LEADS_MV
    if low <= deflection <= high or deflection == 0:
        return []
    return [f"the leads typically deflect by {float(f'{deflection:.3g}'):g} mV: {_hint(deflection)}"]


def wrong_source(deflections: np.ndarray) -> str:
    """A sentence where many recordings together deflect as no population does; empty where they do not, or are few."""
    known = deflections[np.isfinite(deflections) & (deflections > 0)]
    typical = float(np.median(known)) if len(known) >= FEW else 0.0
    low, high = SOURCE_MV
    if not typical or low <= typical <= high:
        return ""
    return (
        f"these {len(known)} recordings typically deflect by {float(f'{typical:.3g}'):g} mV, and ECGs by about 1 mV: "
        f"{_hint(typical)} Correct that before training"
    )


def typical_deflection(signals_mv: np.ndarray, sampling_rate: float) -> float:
    """The median over records, leads and seconds of highest less lowest value: signals (n, samples, leads)."""
    return float(np.median([_deflection(np.asarray(signal).T, sampling_rate) for signal in signals_mv]))


def _hint(deflection: float) -> str:
    if deflection > FAR_MV[1]:
        return "is it in uV, or in steps of the converter?"
    return "is it in V?" if deflection < FAR_MV[0] else "is the gain in its header right?"


def _wrong_rate(peaks: np.ndarray, widths: np.ndarray, sampling_rate: float) -> list[str]:
    if len(peaks) < 2 or np.isnan(widths).all():
        return ["no sequence of QRS complexes can be found: is it an ECG?"]
    rate = 60 * sampling_rate / np.median(np.diff(peaks))
    width = np.nanmedian(widths)
    if HEART_RATE[0] <= rate <= HEART_RATE[1] and QRS_SECONDS[0] <= width <= QRS_SECONDS[1]:
        return []
    return [
        f"at {sampling_rate:g} Hz the QRS complexes last {1000 * width:.0f} ms and come {rate:.0f} times a minute: "
        "is the sampling rate right?"
    ]


def _wrong_leads(by_lead: np.ndarray, leads: Sequence[str]) -> list[str]:
    """Limb leads that are not what I and II make them (Einthoven, Goldberger): misnamed, swapped or inverted."""
    limbs = [lead for lead in leads if lead in LIMB]
    if not {"I", "II"} <= set(limbs):
        return []
    limb = by_lead[[list(leads).index(lead) for lead in limbs]]
    limb = limb - limb.mean(axis=1, keepdims=True)
    one, two = limb[limbs.index("I")], limb[limbs.index("II")]
    # No matrix product: BLAS would start threads in each of the processes that read.
    difference = np.stack(
        [row - a * one - b * two for row, (a, b) in zip(limb, (LIMB[lead] for lead in limbs), strict=True)]
    )
    share = np.sqrt((difference**2).mean(axis=1) / max((limb**2).mean(), 1e-24))
    wrong = share > CONTRADICTION
    if not wrong.any():
        return []
    return [
        f"{_names(limbs, wrong)} {'contradicts' if wrong.sum() == 1 else 'contradict'} I and II: are limb leads misnamed, swapped or inverted?"
    ]


def _swapped_arms(by_lead: np.ndarray, peaks: np.ndarray, sampling_rate: float, leads: Sequence[str]) -> list[str]:
    """Electrodes of the arms exchanged: lead I is inverted against V5 and V6, and aVR, which is aVL then, is upright."""
    if not {"I", "aVR", "V5", "V6"} <= set(leads):
        return []
    names = list(leads)
    four = by_lead[[names.index(lead) for lead in ("I", "aVR", "V5", "V6")]]
    half = round(0.06 * sampling_rate)
    beats = [four[:, peak - half : peak + half + 1] for peak in peaks if half <= peak < four.shape[1] - half]
    if not beats:
        return []
    beat = np.median(beats, axis=0) - np.median(four, axis=1)[:, None]
    if (beat.std(axis=1) < 1e-6).any():
        return []
    correlation = np.corrcoef(beat)
    upright = beat.max(axis=1) + beat.min(axis=1) > 0
    if max(correlation[0, 2], correlation[0, 3]) < ARMS and upright[1] and not upright[0]:
        return ["I is inverted against V5 and V6, and aVR upright: are the electrodes of the arms swapped?"]
    return []


def _deflection(by_lead: np.ndarray, sampling_rate: float) -> np.ndarray:
    """Per lead, highest less lowest value within a second, the median over the seconds."""
    seconds = np.array_split(by_lead, max(1, int(by_lead.shape[1] / sampling_rate)), axis=1)
    return np.median([np.ptp(second, axis=1) for second in seconds], axis=0)


def _still(by_lead: np.ndarray, samples: int) -> np.ndarray:
    """Per lead, whether so many samples in a row have one value."""
    same = by_lead[:, 1:] == by_lead[:, :-1]
    half = max(1, (samples - 1) // 2)  # such a stretch holds a whole block of half its length, as few others do
    blocks = same[:, : same.shape[1] // half * half].reshape(len(same), -1, half)
    still = blocks.all(axis=2).any(axis=1)
    for lead in np.flatnonzero(still):
        still[lead] = _runs(same[lead]).max() >= samples - 1
    return still


def _clipped(by_lead: np.ndarray, sampling_rate: float) -> np.ndarray:
    """Per lead, whether it comes to rest at its highest or lowest value again and again, or for long."""
    shortest = max(2, round(CLIPPED_RUN_SECONDS * sampling_rate))
    fewest = min(CLIPPED_RUNS * shortest, CLIPPED_SECONDS * sampling_rate)
    extremes = [by_lead == extreme[:, None] for extreme in (by_lead.min(axis=1), by_lead.max(axis=1))]
    rests = np.max([extreme.sum(axis=1) for extreme in extremes], axis=0) >= fewest  # of most leads none, in less time
    clipped = []
    for column, at_rest in zip(by_lead, rests, strict=True):
        if not at_rest:
            clipped.append(False)
            continue
        at_extreme = [_runs(column == extreme) for extreme in (column.min(), column.max())]
        long_runs = [runs[runs >= shortest] for runs in at_extreme]
        clipped.append(
            any(len(runs) >= CLIPPED_RUNS or runs.sum() >= CLIPPED_SECONDS * sampling_rate for runs in long_runs)
        )
    return np.array(clipped)


def _runs(true: np.ndarray) -> np.ndarray:
    """The lengths of the stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], true, [False]]).astype(np.int8)))
    return edges[1::2] - edges[::2]


def _names(leads: Sequence[str], chosen: np.ndarray) -> str:
    return ", ".join(lead for lead, is_chosen in zip(leads, chosen, strict=True) if is_chosen)
