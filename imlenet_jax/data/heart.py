"""A beating heart as one moving dipole, and the 12 leads that see it.

The heart is a current dipole in mV, `(x, y, z)` = (left, foot, back), Frank's axes. Every wave (P, QRS, ST, T) is a
smooth bump in time that carries one vector, as in McSharry et al. 2003 (IEEE TBME 50:289), but in three dimensions: the
vectors of septum, free wall and base that succeed one another give the QRS loop, and with it R-wave progression, axis and
q waves. The leads are projections by Dower's matrix (Dower, Machado, Osborne 1980, J Electrocardiol 13:361). Nothing here
is drawn lead by lead: what V1 and V6 show is one loop seen from two sides.

Bumps have finite support, so that onset and end of each wave are known exactly and beats join without a step.

Normal ranges: Rijnbeek et al. 2014 (J Electrocardiol 47:914), AHA/ACCF/HRS 2009 parts III and IV (Circulation 119:e235,
e241), Mason et al. 2007 (J Electrocardiol 40:228). Times are in seconds, amplitudes in mV, angles in degrees.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imlenet_jax.data.ptbxl import LEADS, SECONDS

Array = NDArray[np.float64]

SAMPLING_RATE = 100
SAMPLES = SECONDS * SAMPLING_RATE

# Rows I, II, V1-V6; columns x, y, z. Limb lead III and the augmented leads follow from I and II.
DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)
# What I, aVF and V2 read determines the dipole: the way to state a vector in a cardiologist's terms.
_READINGS = np.linalg.inv(np.stack([DOWER[0], DOWER[1] - DOWER[0] / 2, DOWER[3]]))


class Wave(NamedTuple):
    """A bump that rises from `start` to `top`, stays until `hold` and is back at zero at `end` (s after QRS onset)."""

    kind: str
    start: float
    top: float
    hold: float
    end: float
    dipole: Array


@dataclass(frozen=True)
class Heart:
    """One patient's heart: its intervals in seconds and its waves by name; diseases return changed copies."""

    female: bool
    age: int
    rr: float  # mean RR interval, 60 / rate
    pr: float
    qrs: float
    qt: float
    waves: dict[str, Wave] = field(repr=False)
    lead_vectors: Array = field(repr=False)  # (8, 3), rows as DOWER

    def with_waves(self, **waves: Wave) -> "Heart":
        """A copy in which the named waves are new or replaced."""
        return replace(self, waves={**self.waves, **waves})

    def scaled(self, factors: dict[str, float]) -> "Heart":
        """A copy in which the named waves are `factors[name]` times as large."""
        return self.with_waves(
            **{name: self.waves[name]._replace(dipole=self.waves[name].dipole * k) for name, k in factors.items()}
        )


def aim(axis: float, size: float, front: float) -> Array:
    """The dipole `(3,)` that the limb leads see at `axis` degrees with `size` mV, and V2 as `front` mV.

    The axis is that of the hexaxial system: 0 is lead I, 90 is aVF, whose amplitude is sqrt(3)/2 of its projection.
    """
    angle = np.deg2rad(axis)
    return _READINGS @ np.array([size * np.cos(angle), np.sqrt(0.75) * size * np.sin(angle), front])


def normal_between(rng: np.random.Generator, mean: float, sd: float, low: float, high: float) -> float:
    """A normal draw, kept inside the limits."""
    return float(np.clip(rng.normal(mean, sd), low, high))


def healthy(rng: np.random.Generator) -> Heart:
    """A normal heart: all intervals, amplitudes and axes inside the limits of Rijnbeek 2014 and AHA/ACCF/HRS 2009.

    Rate 48-112, PR 120-200 ms, QRS 72-104 ms, QTc (Framingham) 360-450 ms, QRS axis -25..88 degrees, T axis within
    about 45 degrees of it, S in V1 plus R in V5 or V6 under 3.3 mV.
    """
    female = bool(rng.random() < 0.48)
    age = int(normal_between(rng, 58, 16, 18, 90))
    rr = 60 / normal_between(rng, 71, 13, 48, 112)
    pr = normal_between(rng, 0.158, 0.018, 0.122, 0.198)
    qrs = normal_between(rng, 0.088 if female else 0.094, 0.007, 0.072, 0.104)
    qt = normal_between(rng, 0.408 if female else 0.398, 0.016, 0.36, 0.45) - 0.154 * (1 - rr)
    axis = normal_between(rng, 44 - 0.4 * (age - 50), 20, -25, 85)
    size = normal_between(rng, 0.92, 0.22, 0.55, 1.5)
    t_axis = float(np.clip(axis + rng.normal(0, 14), 18, 65))
    t_size = size * rng.uniform(0.22, 0.38)
    t_front = rng.uniform(0.15, 0.45) if female else rng.uniform(0.25, 0.7)
    heart = Heart(female, age, rr, pr, qrs, qt, {}, _lead_vectors(rng))
    heart = heart.with_waves(
        **_atrium(pr, rng),
        septum=Wave(
            "QRS", 0, 0.18 * qrs, 0.18 * qrs, 0.45 * qrs,
            aim(axis + 180 + rng.normal(0, 22), size * rng.uniform(0.06, 0.22), rng.uniform(0.2, 0.5)),
        ),
        wall=Wave(
            "QRS", 0.08 * qrs, 0.46 * qrs, 0.46 * qrs, 0.84 * qrs,
            aim(axis, size, -rng.uniform(0.15, 0.75)),
        ),
        base=Wave(
            "QRS", 0.38 * qrs, 0.7 * qrs, 0.7 * qrs, qrs,
            aim(axis + 180 + rng.normal(0, 35), size * rng.uniform(0.08, 0.35), -rng.uniform(0.5, 1.1)),
        ),
        notch=_notch(qrs, size, rng),
        **recovery(qrs, qt, aim(55, rng.uniform(0, 0.025), rng.uniform(0, 0.06)), aim(t_axis, t_size, t_front)),
    )  # fmt: skip
    excess = sokolow_lyon(heart) / rng.uniform(2.3, 3.2)
    return (
        heart if excess < 1 else heart.scaled(dict.fromkeys(("septum", "wall", "base", "notch", "st", "t"), 1 / excess))
    )


def _notch(qrs: float, size: float, rng: np.random.Generator) -> Wave:
    """A small, brief vector of any direction inside the QRS: the slurs and notches that make every complex its own."""
    top, half = rng.uniform(0.3, 0.85) * qrs, 0.12 * qrs
    return Wave("QRS", top - half, top, top, top + half, rng.normal(0, 0.09 * size, 3))


def recovery(qrs: float, qt: float, st: Array, t: Array, symmetric: bool = False) -> dict[str, Wave]:
    """The waves `st` and `t` of a ventricle: a plateau that melts into the T wave, and a T wave that ends at QT.

    A T wave rises slowly and falls fast; `symmetric` is the narrow, even T wave of ischaemia. Its first, faint rise
    lies in the ST segment, whose end by the book is `t_onset`.
    """
    after = partial(_after_qrs, qrs, qt)
    start, top, end = (0.3, 0.65, 0.98) if symmetric else (0.08, 0.67, 1.0)
    return {
        "st": Wave("ST", 0.8 * qrs, 1.02 * qrs, after(0.12), after(0.66), st),
        "t": Wave("T", after(start), after(top), after(top), after(end), t),
    }


def t_onset(heart: Heart) -> float:
    """Where ST segment ends and T wave begins, s after QRS onset: a quarter of the way from J point to end of T."""
    return _after_qrs(heart.qrs, heart.qt, 0.25)


def _after_qrs(qrs: float, qt: float, part: float) -> float:
    return qrs + part * (qt - qrs)


def _atrium(pr: float, rng: np.random.Generator) -> dict[str, Wave]:
    """P wave, 85-115 ms: right atrium to the foot and front, then left atrium to the left and back (biphasic in V1)."""
    width = min(normal_between(rng, 0.102, 0.008, 0.085, 0.116), pr - 0.03)
    axis, size = rng.normal(58, 8), rng.uniform(0.05, 0.11)
    right = aim(axis + 12, size, rng.uniform(0.02, 0.07))
    left = aim(axis - 15, size * rng.uniform(0.6, 1), -rng.uniform(0.02, 0.07))
    return {
        "right_atrium": Wave("P", -pr, -pr + 0.38 * width, -pr + 0.38 * width, -pr + 0.8 * width, right),
        "left_atrium": Wave("P", -pr + 0.25 * width, -pr + 0.6 * width, -pr + 0.6 * width, -pr + width, left),
    }


def _lead_vectors(rng: np.random.Generator) -> Array:
    """Dower's matrix for one torso: precordial electrodes up to a third of a space off, with their own strength."""
    place = np.clip(np.arange(6) + rng.normal(0, 0.14, 6), 0, 5)
    precordial = np.stack([np.interp(place, np.arange(6), axis) for axis in DOWER[2:].T], axis=1)
    return np.concatenate([DOWER[:2], precordial * rng.normal(1, 0.07, (6, 1))])


class Rhythm(NamedTuple):
    """The beats of one recording; arrays of one value per beat."""

    onset: Array  # QRS onset, s from the start of the recording
    stretch: Array  # factor on the times after the QRS: QT follows RR
    phase: Array  # of respiration, radians


def sinus_rhythm(heart: Heart, seconds: float, rng: np.random.Generator) -> Rhythm:
    """Sinus beats from before the start to after the end, at a random phase.

    RR varies with respiration (0.18-0.32 Hz; less with age), with the 0.1 Hz wave of blood pressure, and from beat to
    beat; each QT adapts to its own RR by a part of Framingham's 0.154 s per s, as QT lags behind.
    """
    count = int(seconds / heart.rr * 1.3) + 5
    breath, offsets = rng.uniform(0.18, 0.32), rng.uniform(0, 2 * np.pi, 2)
    depth = rng.uniform(0.005, 0.07) * np.clip(1.6 - heart.age / 60, 0.25, 1.2)
    start = -heart.rr * (1 + rng.random())
    nominal = start + heart.rr * np.arange(count)
    variation = depth * np.sin(2 * np.pi * breath * nominal + offsets[0])
    variation += 0.3 * depth * np.sin(2 * np.pi * 0.1 * nominal + offsets[1]) + 0.006 * rng.normal(size=count)
    rr = heart.rr * (1 + variation)
    onset = start + np.concatenate([[0], np.cumsum(rr[:-1])])
    stretch = 1 + 0.06 * (rr - heart.rr) / (heart.qt - heart.qrs)
    return Rhythm(onset, stretch, 2 * np.pi * breath * onset + offsets[0])


def dipole(heart: Heart, rhythm: Rhythm, samples: int, rate: int, sway: float = 0.0) -> Array:
    """The heart's dipole over time, float64 `(samples, 3)` in mV.

    `sway`: with respiration the dipole turns in the frontal plane by 60 degrees times `sway`, and grows and shrinks by
    the fraction `sway`.
    """
    before, length = 0.25, int(np.ceil((0.25 + max(0.65, 1.1 * heart.qt)) * rate))
    first = np.ceil((rhythm.onset - before) * rate).astype(np.int64)
    index = first[:, None] + np.arange(length)  # (beats, length)
    local = index / rate - rhythm.onset[:, None]
    late = local > heart.qrs
    local = np.where(late, heart.qrs + (local - heart.qrs) / rhythm.stretch[:, None], local)
    beats = _bumps(heart, local) @ np.stack([wave.dipole for wave in heart.waves.values()])
    breathing = sway * np.sin(rhythm.phase)
    beats = np.einsum("bij,blj->bli", _frontal_turn(np.deg2rad(60) * breathing), beats) * (1 + breathing)[:, None, None]
    inside = (index >= 0) & (index < samples)
    total = np.zeros((samples, 3))
    np.add.at(total, index[inside], beats[inside])
    return total


def _bumps(heart: Heart, time: Array) -> Array:
    """Each wave's height at each time: `(..., time)` to `(..., time, waves)`, between 0 and 1."""
    start, top, hold, end = np.array([wave[1:5] for wave in heart.waves.values()]).T
    time = time[..., None]
    edge = np.minimum((time - start) / (top - start), (end - time) / (end - hold))
    return np.sin(np.pi / 2 * np.clip(edge, 0, 1)) ** 2


def _frontal_turn(angle: Array) -> Array:
    """Rotations `(n, 3, 3)` about the axis from front to back."""
    turn = np.zeros((len(angle), 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
    turn[:, 1, 0] = np.sin(angle)
    turn[:, 0, 1] = -turn[:, 1, 0]
    turn[:, 2, 2] = 1
    return turn


def twelve_leads(eight: ArrayLike) -> Array:
    """I, II, V1-V6 `(..., 8)` to all twelve leads `(..., 12)`, by Einthoven's and Goldberger's equations."""
    eight = np.asarray(eight, dtype=np.float64)
    one, two = eight[..., 0], eight[..., 1]
    limb = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2], axis=-1)
    return np.concatenate([limb, eight[..., 2:]], axis=-1)


def single_beat(heart: Heart, rate: int = 1000) -> tuple[Array, Array]:
    """One noiseless beat at rest: times `(n,)` in s from QRS onset, and the twelve leads `(n, 12)` in mV."""
    time = np.arange(-0.25, max(0.6, heart.qt + 0.05), 1 / rate)
    vectors = np.stack([wave.dipole for wave in heart.waves.values()])
    return time, twelve_leads(_bumps(heart, time) @ vectors @ heart.lead_vectors.T)


def sokolow_lyon(heart: Heart) -> float:
    """S in V1 plus the larger R of V5 and V6, in mV (Sokolow and Lyon 1949)."""
    time, leads = single_beat(heart, 250)
    qrs = leads[(time >= 0) & (time <= heart.qrs)]
    return float(-qrs[:, LEADS.index("V1")].min() + qrs[:, [LEADS.index("V5"), LEADS.index("V6")]].max())
