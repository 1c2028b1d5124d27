"""The heart model against published limits: intervals, amplitudes, axes, and the textbook signs in the right leads."""

import numpy as np
import pytest

from imlenet_jax.data import pathology
from imlenet_jax.data.electrodes import beat_intervals, electrode_noise, record
from imlenet_jax.data.heart import DOWER, aim, dipole, healthy, single_beat, sinus_rhythm, sokolow_lyon, twelve_leads
from imlenet_jax.data.pathology import diseased
from imlenet_jax.data.ptbxl import LEADS

LEAD = {name: index for index, name in enumerate(LEADS)}


def hearts(case, count=40):
    """`count` patients with the disease: (heart, signs, QRS, level at J + 40 ms, extreme of T), leads last."""
    for seed in range(count):
        rng = np.random.default_rng([seed, 7])
        heart, signs = diseased(healthy(rng), case, rng)
        time, leads = single_beat(heart)
        qrs = leads[(time >= 0) & (time <= heart.qrs)]
        st = leads[np.searchsorted(time, heart.qrs + 0.04)]
        t = leads[(time > heart.qrs + 0.1) & (time <= heart.qt)]
        yield heart, signs, qrs, st, t[np.abs(t).argmax(axis=0), np.arange(12)]


def of(values, *leads):
    return np.stack([values[..., LEAD[lead]] for lead in leads], axis=-1)


def test_limb_leads_obey_einthoven_and_goldberger():
    leads = twelve_leads(np.random.default_rng(0).normal(size=(50, 8)))
    one, two, three, avr, avl, avf = leads[:, :6].T
    np.testing.assert_allclose(one + three, two, atol=1e-12)
    np.testing.assert_allclose(avr + avl + avf, 0, atol=1e-12)
    np.testing.assert_allclose(avl, one - two / 2, atol=1e-12)


@pytest.mark.parametrize("axis", [-60, 0, 45, 110])
def test_aim_is_what_the_limb_leads_and_v2_read(axis):
    leads = twelve_leads(aim(axis, 0.8, 0.3) @ DOWER.T)
    read = np.rad2deg(np.arctan2(leads[LEAD["aVF"]] / np.sqrt(0.75), leads[LEAD["I"]]))
    assert read == pytest.approx(axis)
    assert leads[LEAD["V2"]] == pytest.approx(0.3)


def test_normal_hearts_are_within_published_limits():
    for heart, signs, qrs, st, t in hearts(pathology.NORMAL, 150):
        assert signs == []
        assert 48 <= 60 / heart.rr <= 112 and 0.12 <= heart.pr <= 0.2 and 0.07 <= heart.qrs <= 0.105
        assert 0.35 <= heart.qt + 0.154 * (1 - heart.rr) <= 0.451
        area = qrs.sum(axis=0)
        assert -30 <= np.rad2deg(np.arctan2(area[LEAD["aVF"]] / np.sqrt(0.75), area[LEAD["I"]])) <= 95
        assert sokolow_lyon(heart) < 3.5
        time, leads = single_beat(heart)
        p = leads[(time > -heart.pr) & (time < 0)][:, LEAD["II"]]
        assert 0.04 < p.max() <= 0.25 and p.min() > -0.01
        assert (of(t, "I", "II", "V3", "V4", "V5", "V6") > 0.04).all() and t[LEAD["aVR"]] < 0
        assert np.abs(st).max() < 0.15


def test_r_wave_progresses_from_v1_to_v5():
    ratios = []
    for _, _, qrs, _, _ in hearts(pathology.NORMAL):
        r, s = qrs.max(axis=0), -qrs.min(axis=0)
        ratios.append(of(r / (r + s), "V1", "V2", "V3", "V4", "V5"))
        assert r[LEAD["V1"]] < s[LEAD["V1"]] and r[LEAD["V5"]] > s[LEAD["V5"]]
    assert (np.diff(np.mean(ratios, axis=0)) > 0).all()


def test_left_bundle_branch_block():
    for heart, signs, qrs, st, t in hearts(pathology.CLBBB):
        assert 0.12 <= heart.qrs <= 0.17
        assert {"rS or QS", "broad notched R", "T inversion"} <= {sign.finding for sign in signs}
        assert (-qrs.min(axis=0)[LEAD["V1"]] > 3 * qrs.max(axis=0)[LEAD["V1"]]) and (of(st, "V1", "V2") > 0.05).all()
        assert (of(t, "I", "aVL", "V5", "V6") < -0.03).all() and (of(t, "V1", "V2") > 0.1).all()
        early = qrs[: len(qrs) // 4]
        assert of(early, "V5", "V6").min() > -0.07  # no septal q


def test_right_bundle_branch_block():
    for heart, _, qrs, _, t in hearts(pathology.CRBBB):
        late = qrs[round(0.6 * len(qrs)) :]
        assert 0.12 <= heart.qrs <= 0.16
        assert of(late, "V1").max() > 0.3  # R'
        assert (of(late, "I", "V6").min(axis=0) < -0.12).all()  # broad S
        assert t[LEAD["V1"]] < 0


@pytest.mark.parametrize("case", [pathology.LVH, pathology.LVH_STRAIN])
def test_hypertrophy_meets_sokolow_lyon(case):
    for heart, _, _, st, t in hearts(case):
        assert 3.5 < sokolow_lyon(heart) < 5.6 and heart.qrs <= 0.113
        if case is pathology.LVH_STRAIN:
            assert (of(st, "I", "V5", "V6") < -0.03).all() and (of(t, "I", "aVL", "V5", "V6") < -0.03).all()


def test_anterior_infarction_has_q_and_st_elevation_in_front():
    for _, signs, qrs, st, _ in hearts(pathology.ASMI):
        r, s = qrs.max(axis=0), -qrs.min(axis=0)
        assert (of(r, "V1", "V2") < of(s, "V1", "V2")).all() and of(qrs[:20], "V1", "V2").max() < 0.06
        assert st[LEAD["V2"]] > st[LEAD["V6"]] - 0.01
        q = next(sign for sign in signs if sign.finding == "Q wave")
        assert {"V1", "V2"} <= set(q.leads) <= {"V1", "V2", "V3", "V4"}


def test_inferior_infarction_has_q_and_reciprocal_st():
    for _, signs, qrs, st, _ in hearts(pathology.IMI):
        q = next(sign for sign in signs if sign.finding == "Q wave")
        assert "III" in q.leads and set(q.leads) <= {"II", "III", "aVF"}
        assert of(qrs[:30], "III").min() < -0.1
        assert st[LEAD["III"]] > 0 > st[LEAD["aVL"]]
        assert all(set(sign.leads) <= {"I", "aVL"} for sign in signs if sign.reciprocal)


@pytest.mark.parametrize("case", [pathology.ISCAL, pathology.ISCAN, pathology.ISCIN])
def test_ischaemia_inverts_t_in_its_leads_and_keeps_the_qrs(case):
    for seed, (heart, signs, qrs, _, t) in enumerate(hearts(case)):
        before = healthy(np.random.default_rng([seed, 7]))
        time, leads = single_beat(before)
        np.testing.assert_allclose(qrs[:50], leads[(time >= 0) & (time <= before.qrs)][:50], atol=0.01)
        inverted = [sign.leads for sign in signs if sign.finding == "T inversion"]
        assert inverted and (of(t, *inverted[0]) <= -0.05).all()
        assert heart.qrs == before.qrs


def test_signs_name_only_leads_that_show_them():
    for case in (pathology.ASMI, pathology.IMI, *pathology.MIXED):
        for _, signs, _, st, t in hearts(case, 20):
            for sign in signs:
                values = {"ST elevation": st >= 0.03, "ST depression": st <= -0.03, "T inversion": t <= -0.05}
                assert sign.leads and of(values.get(sign.finding, np.ones(12, bool)), *sign.leads).all(), sign


def test_beats_join_without_a_step():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        heart = healthy(rng)
        moment = dipole(heart, sinus_rhythm(heart, 10, rng), 10_000, 1000, sway=0.07)
        assert np.abs(np.diff(moment, axis=0)).max() < 0.15  # mV per ms: the QRS itself
        assert np.abs(np.diff(moment, 2, axis=0)).max() < 0.03


def test_intervals_are_where_the_waves_are():
    rng = np.random.default_rng(3)
    heart = healthy(rng)
    rhythm = sinus_rhythm(heart, 10, rng)
    moment = np.linalg.norm(dipole(heart, rhythm, 1000, 100), axis=1)
    beats = beat_intervals(heart, rhythm)
    inside = np.zeros(1000, bool)
    for beat in beats:
        for start, end in beat.values():
            assert 0 <= start < end <= 1000
            inside[start:end] = True
        if "QRS" in beat and beat["QRS"][0] > 0 and beat["QRS"][1] < 1000:
            assert abs((beat["QRS"][1] - beat["QRS"][0]) / 100 - heart.qrs) <= 0.01
    assert moment[~inside].max() < 1e-9
    assert len(beats) == pytest.approx(10 / heart.rr, abs=2)


def test_noise_is_small_and_keeps_einthoven():
    rng = np.random.default_rng(5)
    heart = healthy(rng)
    noise = np.concatenate([electrode_noise(sinus_rhythm(heart, 10, rng), rng) for _ in range(30)])
    assert 0.01 < noise.std() < 0.15
    signal, _ = record(heart, rng)
    assert signal.shape == (1000, 12) and signal.dtype == np.int16
    assert (signal[:, 0].astype(int) + signal[:, 2] == signal[:, 1]).all()
    assert np.abs(signal[:, 3].astype(int) + (signal[:, 0].astype(int) + signal[:, 1]) / 2).max() <= 0.5
