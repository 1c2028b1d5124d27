"""Diseases as changes of the heart's dipole, and where their signs are to be seen.

Each function takes a `Heart` and returns the diseased one with its `Sign`s. No lead is drawn by hand: an infarct is an
early vector that points away from dead muscle and an ST vector that points at the injured one, so that the reciprocal
signs come by themselves; a bundle branch block is a late vector towards the side that is activated last. Criteria:
AHA/ACCF/HRS 2009 parts III (conduction), IV (ST, T, QT), V (hypertrophy), VI (ischaemia) (Circulation 119:e235-e270)
and the Fourth Universal Definition of Myocardial Infarction (2018, Circulation 138:e618).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from imlenet_jax.data.heart import (
    Array,
    Heart,
    Wave,
    aim,
    normal_between,
    recovery,
    single_beat,
    sokolow_lyon,
    t_onset,
)
from imlenet_jax.data.ptbxl import LEADS

Generator = np.random.Generator

ANTEROSEPTAL = ("V1", "V2", "V3", "V4")
INFERIOR = ("II", "III", "aVF")
HIGH_LATERAL = ("I", "aVL")
LATERAL = ("I", "aVL", "V5", "V6")


@dataclass(frozen=True)
class Sign:
    """One finding: the SCP-ECG statement it belongs to, what it is, in which wave and which leads.

    `reciprocal` marks the mirror image of an injury, seen from the other side.
    """

    statement: str
    finding: str
    wave: str
    leads: tuple[str, ...]
    reciprocal: bool = False


Change = Callable[[Heart, Generator], tuple[Heart, list[Sign]]]


def anterior_infarction(heart: Heart, rng: Generator) -> tuple[Heart, list[Sign]]:
    """ASMI: the septal vector is lost and the first 45-55 ms point back: Q or QS in V1-V4; ST vector to the front."""
    deep = rng.uniform(0.5, 1.0)
    length = max(0.05, rng.uniform(0.5, 0.62) * heart.qrs)
    scar = Wave("QRS", 0, 0.45 * length, 0.5 * length, length, aim(0, rng.uniform(0.02, 0.1), -deep))
    heart = heart.scaled({"septum": rng.uniform(0, 0.1)}).with_waves(scar=scar)
    elevation, inverted = _stage(rng, 0.16, 0.38)
    t_front = -rng.uniform(0.25, 0.7) if inverted else rng.uniform(0.45, 0.9)
    st, t = aim(-10, 0.2 * elevation, elevation), aim(25, rng.uniform(0.08, 0.2), t_front)
    heart = heart.with_waves(**recovery(heart.qrs, heart.qt, st, t, symmetric=inverted))
    return heart, _infarct_signs("ASMI", ANTEROSEPTAL, (), inverted)


def inferior_infarction(heart: Heart, rng: Generator) -> tuple[Heart, list[Sign]]:
    """IMI: the first 60-75 ms lack the part that points down: Q in II, III, aVF; ST vector to the foot, so ST down in aVL."""
    length = max(0.06, rng.uniform(0.6, 0.7) * heart.qrs)
    size = max(0.5, 0.85 * heart.waves["wall"].dipole[1]) * rng.uniform(0.95, 1.5)
    up = aim(-80 + rng.normal(0, 6), size, rng.uniform(0.1, 0.4))
    scar = Wave("QRS", 0, 0.42 * length, 0.5 * length, length, up)
    heart = heart.scaled({"septum": 0.1, "notch": 0.2}).with_waves(scar=scar)
    elevation, inverted = _stage(rng, 0.13, 0.32)
    t_axis = rng.normal(-52, 8) if inverted else rng.normal(85, 8)
    st, t = (
        aim(rng.normal(102, 7), elevation, -0.1 * elevation),
        aim(t_axis, rng.uniform(0.2, 0.42), rng.uniform(0.2, 0.5)),
    )
    heart = heart.with_waves(**recovery(heart.qrs, heart.qt, st, t, symmetric=inverted))
    return heart, _infarct_signs("IMI", INFERIOR, HIGH_LATERAL, inverted)


def _stage(rng: Generator, low: float, high: float) -> tuple[float, bool]:
    """ST elevation in mV and whether the T wave is inverted: acute, evolving or old infarction."""
    stage = rng.choice(3, p=(0.35, 0.35, 0.3))
    if stage == 0:
        return rng.uniform(low, high), False
    if stage == 1:
        return rng.uniform(0.8 * low, 0.6 * high), True
    return rng.uniform(0.02, 0.05), True


def _infarct_signs(statement: str, leads: tuple[str, ...], opposite: tuple[str, ...], inverted: bool) -> list[Sign]:
    signs = [
        Sign(statement, "Q wave", "QRS", leads),
        Sign(statement, "ST elevation", "ST", leads),
    ]
    if inverted:
        signs.append(Sign(statement, "T inversion", "T", leads))
    if opposite:
        signs.append(Sign(statement, "ST depression", "ST", opposite, reciprocal=True))
    return signs


def left_bundle_branch_block(heart: Heart, rng: Generator) -> tuple[Heart, list[Sign]]:
    """CLBBB: QRS 126-166 ms, no septal q, the left ventricle late; ST and T discordant.

    Broad, notched R in I, aVL, V5, V6; rS or QS in V1, V2.
    """
    heart = _widened(heart, rng.uniform(0.126, 0.166))
    qrs, axis, size = heart.qrs, rng.uniform(-35, 35), rng.uniform(0.5, 0.9)
    back = rng.uniform(1.6, 2.6)
    first, second = rng.uniform(0.85, 1.1), rng.uniform(0.85, 1.1)
    qrs_waves = {
        "notch": heart.waves["notch"]._replace(dipole=np.zeros(3)),
        "septum": Wave("QRS", 0, 0.16 * qrs, 0.16 * qrs, 0.34 * qrs, aim(axis, 0.2 * size, rng.uniform(0, 0.3))),
        "wall": Wave("QRS", 0.04 * qrs, 0.34 * qrs, 0.36 * qrs, 0.78 * qrs, first * aim(axis, size, -back)),
        "base": Wave("QRS", 0.42 * qrs, 0.69 * qrs, 0.7 * qrs, qrs, second * aim(axis - 15, 0.8 * size, -0.4 * back)),
    }
    discordant = rng.uniform(0.22, 0.36)
    st = aim(axis + 180, 0.35 * discordant * size, 0.4 * discordant * back)
    t = aim(axis + 180 + rng.normal(0, 8), discordant * size, discordant * back)
    heart = heart.with_waves(**qrs_waves, **recovery(qrs, heart.qt, st, t))
    return heart, [
        Sign("CLBBB", "broad notched R", "QRS", LATERAL),
        Sign("CLBBB", "rS or QS", "QRS", ("V1", "V2")),
        Sign("CLBBB", "ST elevation", "ST", ("V1", "V2")),
        Sign("CLBBB", "T inversion", "T", LATERAL),
    ]


def right_bundle_branch_block(heart: Heart, rng: Generator) -> tuple[Heart, list[Sign]]:
    """CRBBB: the normal loop, then the right ventricle alone until 124-158 ms.

    Late R' (rsR') in V1, V2; broad S in I, V6; T inverted in V1.
    """
    normal = heart.qrs
    heart = _widened(heart, rng.uniform(0.124, 0.158))
    axis, size = rng.uniform(150, 200), rng.uniform(0.2, 0.42)
    top = 0.35 * normal + 0.65 * max(heart.qrs - 0.03, normal)
    late = Wave("QRS", 0.5 * normal, top, top + 0.005, heart.qrs, aim(axis, size, rng.uniform(0.5, 1.1)))
    less_back = aim(0, 0, rng.uniform(0.1, 0.5))
    wall = heart.waves["wall"]._replace(dipole=heart.waves["wall"].dipole + less_back)
    t = heart.waves["t"].dipole + aim(axis + 180, 0.15 * size, -rng.uniform(0.4, 0.75))
    heart = heart.scaled({"base": 0.4}).with_waves(late=late, wall=wall)
    heart = heart.with_waves(**recovery(heart.qrs, heart.qt, heart.waves["st"].dipole, t))
    return heart, [
        Sign("CRBBB", "late R'", "QRS", ("V1", "V2")),
        Sign("CRBBB", "broad S", "QRS", ("I", "V6")),
        Sign("CRBBB", "T inversion", "T", ("V1", "V2")),
    ]


def _widened(heart: Heart, qrs: float) -> Heart:
    """A longer QRS, and QT longer by most of what it gained (its JT hardly changes; Bogossian et al. 2014)."""
    return replace(heart, qrs=qrs, qt=heart.qt + 0.7 * (qrs - heart.qrs))


def hypertrophy(heart: Heart, rng: Generator) -> tuple[Heart, list[Sign]]:
    """LVH: S in V1 plus R in V5 or V6 of 3.7-5.3 mV (Sokolow-Lyon: over 3.5), axis to the left, QRS up to 112 ms."""
    axis = rng.uniform(-25, 35)
    wall = heart.waves["wall"]._replace(dipole=aim(axis, 1.0, -rng.uniform(0.9, 1.5)))
    base = heart.waves["base"]._replace(dipole=aim(axis - 160, 0.15, -rng.uniform(0.8, 1.3)))
    longer = normal_between(rng, 1.1, 0.05, 1.0, 0.112 / heart.qrs)
    heart = replace(heart.with_waves(wall=wall, base=base), qrs=heart.qrs * longer)
    heart = heart.with_waves(**{n: _slower(w, longer) for n, w in heart.waves.items() if w.kind == "QRS"})
    heart = heart.with_waves(
        **recovery(heart.qrs, heart.qt, heart.waves["st"].dipole, heart.waves["t"].dipole),
    )
    grown = rng.uniform(3.8, 5.2) / sokolow_lyon(heart)
    heart = heart.scaled({"wall": grown, "base": grown, "septum": 0.7 * grown})
    return heart, [Sign("LVH", "deep S", "QRS", ("V1", "V2")), Sign("LVH", "tall R", "QRS", ("V5", "V6"))]


def _slower(wave: Wave, factor: float) -> Wave:
    return wave._replace(
        start=wave.start * factor, top=wave.top * factor, hold=wave.hold * factor, end=wave.end * factor
    )


def strain(heart: Heart, rng: Generator) -> tuple[Heart, list[Sign]]:
    """Strain: ST depression that slopes into an asymmetric inverted T in I, aVL, V5, V6; ST-T up in V1, V2."""
    st = aim(rng.uniform(165, 200), rng.uniform(0.07, 0.16), rng.uniform(0.05, 0.15))
    t = aim(rng.uniform(160, 195), rng.uniform(0.14, 0.36), rng.uniform(0.25, 0.6))
    heart = heart.with_waves(**recovery(heart.qrs, heart.qt, st, t))
    return heart, [Sign("ISC_", "ST depression", "ST", LATERAL), Sign("ISC_", "T inversion", "T", LATERAL)]


def anterolateral_ischaemia(heart: Heart, rng: Generator) -> tuple[Heart, list[Sign]]:
    """ISCAL: ST depression of at least 0.05 mV and symmetric T inversion in I, aVL, V4-V6."""
    st = aim(rng.uniform(175, 215), rng.uniform(0.07, 0.15), -rng.uniform(0, 0.06))
    t = aim(rng.uniform(165, 195), rng.uniform(0.12, 0.3), rng.uniform(-0.2, 0.2))
    heart = heart.with_waves(**recovery(heart.qrs, heart.qt, st, t, symmetric=True))
    leads = ("I", "aVL", "V4", "V5", "V6")
    return heart, [Sign("ISCAL", "ST depression", "ST", leads), Sign("ISCAL", "T inversion", "T", leads)]


def anterior_ischaemia(heart: Heart, rng: Generator) -> tuple[Heart, list[Sign]]:
    """ISCAN: deep symmetric T inversion in V2-V4 with R waves kept and an isoelectric ST segment."""
    t = aim(rng.uniform(60, 110), rng.uniform(0.05, 0.15), -rng.uniform(0.4, 0.9))
    heart = heart.with_waves(**recovery(heart.qrs, heart.qt, 0 * t, t, symmetric=True))
    return heart, [Sign("ISCAN", "T inversion", "T", ("V2", "V3", "V4"))]


def inferior_ischaemia(heart: Heart, rng: Generator) -> tuple[Heart, list[Sign]]:
    """ISCIN: symmetric T inversion, slight ST depression in II, III, aVF, without Q waves."""
    st = aim(rng.uniform(-90, -70), rng.uniform(0.04, 0.1), rng.uniform(0, 0.05))
    t = aim(rng.uniform(-75, -50), rng.uniform(0.25, 0.45), rng.uniform(0.1, 0.4))
    heart = heart.with_waves(**recovery(heart.qrs, heart.qt, st, t, symmetric=True))
    return heart, [Sign("ISCIN", "ST depression", "ST", INFERIOR), Sign("ISCIN", "T inversion", "T", INFERIOR)]


def flat_t_waves(heart: Heart, rng: Generator) -> tuple[Heart, list[Sign]]:
    """NDT: T waves flat or slightly inverted where they should be upright, ST segments normal."""
    t = aim(rng.uniform(150, 230), rng.uniform(0.03, 0.1), -rng.uniform(0, 0.12))
    heart = heart.with_waves(**recovery(heart.qrs, heart.qt, heart.waves["st"].dipole, t))
    return heart, [Sign("NDT", "flat or inverted T", "T", ("I", "II", "V4", "V5", "V6"))]


@dataclass(frozen=True)
class Case:
    """A kind of patient: the statements of the report and the changes that make the heart so, in order."""

    statements: tuple[str, ...]
    changes: tuple[Change, ...] = ()


NORMAL = Case(("NORM",))
ASMI = Case(("ASMI",), (anterior_infarction,))
IMI = Case(("IMI",), (inferior_infarction,))
CLBBB = Case(("CLBBB",), (left_bundle_branch_block,))
CRBBB = Case(("CRBBB",), (right_bundle_branch_block,))
LVH = Case(("LVH",), (hypertrophy,))
LVH_STRAIN = Case(("LVH", "ISC_"), (hypertrophy, strain))
ISCAL = Case(("ISCAL",), (anterolateral_ischaemia,))
ISCAN = Case(("ISCAN",), (anterior_ischaemia,))
ISCIN = Case(("ISCIN",), (inferior_ischaemia,))
NDT = Case(("NDT",), (flat_t_waves,))
MIXED = (
    Case(("IMI", "CRBBB"), (inferior_infarction, right_bundle_branch_block)),
    Case(("ASMI", "CRBBB"), (anterior_infarction, right_bundle_branch_block)),
    Case(("LVH", "IMI"), (hypertrophy, inferior_infarction)),
)


def diseased(heart: Heart, case: Case, rng: Generator) -> tuple[Heart, list[Sign]]:
    """The heart with all of a case's changes, and the signs in those of their leads where they can be seen."""
    signs: list[Sign] = []
    for change in case.changes:
        heart, new = change(heart, rng)
        signs += new
    return heart, _visible(heart, signs)


def _visible(heart: Heart, signs: list[Sign]) -> list[Sign]:
    """The signs, each in the leads whose noiseless beat reaches its threshold; patterns of a whole QRS stay as they are."""
    time, leads = single_beat(heart)
    st = leads[np.searchsorted(time, heart.qrs + 0.04)]
    t = leads[(time >= t_onset(heart)) & (time <= heart.qt)]
    shown = {
        "Q wave": _q_duration(leads[(time >= 0) & (time <= heart.qrs)]) >= 20,
        "ST elevation": st >= 0.03,
        "ST depression": st <= -0.03,
        "T inversion": (t.min(axis=0) <= -0.05) & (-t.min(axis=0) > t.max(axis=0)),
        "flat or inverted T": t.max(axis=0) < 0.1,
    }
    everywhere = np.ones(len(LEADS), bool)
    cut = [
        replace(
            sign, leads=tuple(lead for lead in sign.leads if shown.get(sign.finding, everywhere)[LEADS.index(lead)])
        )
        for sign in signs
    ]
    return [sign for sign in cut if sign.leads]


def _q_duration(qrs: Array) -> Array:
    """Samples of each column of `(samples, leads)` from the first below -0.04 mV to an R; 0 where an R comes first."""
    negative, positive = qrs < -0.04, qrs > 0.04
    start = np.where(negative.any(axis=0), negative.argmax(axis=0), len(qrs))
    r = np.where(positive.any(axis=0), positive.argmax(axis=0), len(qrs))
    return np.maximum(r - start, 0)


def deck(rng: Generator) -> list[Case]:
    """Forty patients in random order, in fixed proportions, so that small data sets have every class too."""
    cases = 12 * [NORMAL] + 4 * [ASMI] + 4 * [IMI] + 3 * [CLBBB] + 4 * [CRBBB] + 2 * [LVH] + 4 * [LVH_STRAIN]
    cases += 2 * [ISCAL] + [ISCAN, ISCIN] + 2 * [NDT] + [MIXED[rng.integers(len(MIXED))]]
    return [cases[i] for i in rng.permutation(len(cases))]
