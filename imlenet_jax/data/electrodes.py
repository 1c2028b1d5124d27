"""From the heart to int16 samples: nine electrodes with their noise, and an amplifier.

Noise arises at electrodes, not in leads: what disturbs the left arm is seen in I, III, all augmented leads and, by a
third, in every precordial lead. Sizes are such that wander and the noise between waves resemble those of PTB-XL's records
at 100 Hz.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from imlenet_jax.data.heart import (
    SAMPLES,
    SAMPLING_RATE,
    Array,
    Heart,
    Rhythm,
    dipole,
    sinus_rhythm,
    t_onset,
    twelve_leads,
)

# Electrodes RA, LA, LL, V1-V6 to leads I, II, V1-V6; precordial leads are taken against the mean of the limbs.
ELECTRODES = np.zeros((8, 9))
ELECTRODES[0, :2] = ELECTRODES[1, [0, 2]] = (-1, 1)
ELECTRODES[2:, 3:] = np.eye(6)
ELECTRODES[2:, :3] = -1 / 3

# Standard deviations in mV: muscle noise (the arms tremble) and wander.
_MUSCLE = np.array([3.6, 3.6, 1.6, 1.6, 1.2, 1.2, 1.2, 1.2, 1.2]) / 1000
_WANDER = np.array([30, 30, 30, 38, 40, 42, 42, 46, 46]) / 1000


def record(heart: Heart, rng: np.random.Generator) -> tuple[NDArray[np.int16], Rhythm]:
    """Ten seconds of a heart: int16 `(1000, 12)` in uV, leads as `LEADS`, and the beats in them.

    III is computed from I and II after these are rounded to uV, so that I + III = II exactly.
    """
    rhythm = sinus_rhythm(heart, SAMPLES / SAMPLING_RATE, rng)
    moment = dipole(heart, rhythm, SAMPLES, SAMPLING_RATE, sway=rng.uniform(0, 0.07))
    eight = moment @ heart.lead_vectors.T + electrode_noise(rhythm, rng) @ ELECTRODES.T
    eight -= eight.mean(axis=0)  # the amplifier is AC coupled: a constant does not pass
    microvolts = np.rint(twelve_leads(np.rint(1000 * eight)))
    return microvolts.clip(-32767, 32767).astype(np.int16), rhythm


def electrode_noise(rhythm: Rhythm, rng: np.random.Generator) -> Array:
    """Wander, breathing, muscle and mains at each electrode, float64 `(1000, 9)` in mV."""
    time = np.arange(SAMPLES) / SAMPLING_RATE
    frequency = np.fft.rfftfreq(2 * SAMPLES, 1 / SAMPLING_RATE)  # twice as long: the ends must not meet
    slow = 1 / np.maximum(frequency, 0.08) ** 1.3 * (frequency < 0.8) * (frequency > 0)
    fast = frequency / (frequency + 2) ** 1.3 / (1 + (frequency / 42) ** 12)
    wander = _coloured(slow, rng) * _WANDER * rng.lognormal(0, 0.65) * rng.lognormal(0, 0.4, 9)
    muscle = _coloured(fast, rng) * _MUSCLE * rng.lognormal(0.15, 0.65) * rng.lognormal(0, 0.3, 9)
    if rng.random() < 0.25:
        centre, width = rng.uniform(0, time[-1]), rng.uniform(0.3, 1.5)
        burst = rng.uniform(2, 6) * np.exp(-0.5 * ((time - centre) / width) ** 2)
        muscle[:, rng.integers(9)] *= 1 + burst
    phase = np.interp(time, rhythm.onset, rhythm.phase)
    breath = np.sin(phase[:, None] + rng.normal(0, 0.4, 9)) * rng.lognormal(-4.5, 0.6, 9)
    mains = np.cos(np.pi * np.arange(SAMPLES))[:, None] * rng.exponential(0.0006, 9)  # 50 Hz, at the Nyquist frequency
    return wander + breath + muscle + mains


def _coloured(spectrum: Array, rng: np.random.Generator) -> Array:
    """Gaussian noise of unit variance with the amplitude spectrum `(1001,)`, nine channels `(1000, 9)`."""
    noise = rng.normal(size=(9, len(spectrum), 2)).view(np.complex128)[..., 0] * spectrum
    return np.fft.irfft(noise, axis=-1)[:, :SAMPLES].T * SAMPLES / np.sqrt(np.square(spectrum).sum())


def beat_intervals(heart: Heart, rhythm: Rhythm) -> list[dict[str, list[int]]]:
    """Per beat the samples of P, QRS, ST and T as `[first, last + 1]`, cut to the recording.

    Beats and waves that lie outside are left out. ST is the time from the end of QRS to the start of T.
    """
    waves = [wave for wave in heart.waves.values() if wave.kind == "P"]
    edges = {
        "P": (min(wave.start for wave in waves), max(wave.end for wave in waves)),
        "QRS": (0.0, heart.qrs),
        "ST": (heart.qrs, t_onset(heart)),
        "T": (t_onset(heart), heart.waves["t"].end),
    }
    beats: list[dict[str, Any]] = []
    for onset, stretch in zip(rhythm.onset, rhythm.stretch, strict=True):
        beat = {}
        for name, local in edges.items():
            late = [heart.qrs + (at - heart.qrs) * stretch if at > heart.qrs else at for at in local]
            first, end = (int(np.ceil((onset + at) * SAMPLING_RATE)) for at in late)
            if max(first, 0) < min(end, SAMPLES):
                beat[name] = [max(first, 0), min(end, SAMPLES)]
        if beat:
            beats.append(beat)
    return beats
