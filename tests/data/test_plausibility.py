"""What is implausible is found, and real ECGs are left in peace."""

import numpy as np
import pytest

from imlenet_jax.data.plausibility import examine, find_qrs, implausible, wrong_source, wrong_unit
from imlenet_jax.data.ptbxl import LEADS, read_metadata
from imlenet_jax.data.shards import open_shards
from imlenet_jax.data.sources import read_source


def change(signal, lead, function):
    signal = signal.copy()
    signal[:, LEADS.index(lead)] = function(signal[:, LEADS.index(lead)])
    return signal


def swap(signal, one, other):
    order = list(range(12))
    one, other = LEADS.index(one), LEADS.index(other)
    order[one], order[other] = other, one
    return signal[:, order]


@pytest.mark.parametrize("rate", [100, 128, 250, 500, 1000])
def test_a_healthy_ecg_is_plausible_at_any_rate(healthy_ecg, rate):
    assert implausible(healthy_ecg(rate), rate, LEADS) == []


@pytest.mark.parametrize("rate", [100, 500])
def test_qrs_complexes_are_found_where_they_are(rate):
    time = np.arange(10 * rate) / rate
    beats = np.arange(0.5, 10, 0.8)
    spikes = np.exp(-0.5 * ((time[:, None] - beats) / 0.02) ** 2).sum(axis=1)
    t_waves = 0.3 * np.exp(-0.5 * ((time[:, None] - beats - 0.3) / 0.06) ** 2).sum(axis=1)
    peaks, widths = find_qrs((spikes + t_waves)[:, None] * np.ones(12), rate)
    assert len(peaks) == len(beats)
    np.testing.assert_allclose(peaks / rate, beats, atol=0.03)
    assert 0.05 <= np.nanmedian(widths) <= 0.12


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda x: change(x, "V2", lambda v: np.full_like(v, 0.1)), "flat: V2; was the electrode off?"),
        (lambda x: change(x, "V2", lambda v: 0.001 * v), "flat: V2; was the electrode off?"),
        (lambda x: change(x, "V2", lambda v: np.where(np.arange(len(v)) < 600, v[0], v)), "flat: V2"),
        (lambda x: change(x, "V5", lambda v: np.minimum(v, 0.4 * v.max())), "saturated: V5; peaks are cut off"),
        (lambda x: 1000 * x, "mV: is it in uV"),
        (lambda x: x / 1000, "mV: is it in V?"),
        (lambda x: 5 * x, "mV: is the gain in its header right?"),
        (lambda x: x / 5, "mV: is the gain in its header right?"),
        (lambda x: swap_arms(x), "are the electrodes of the arms swapped?"),
        (lambda x: swap(x, "I", "II"), "contradict I and II"),
        (lambda x: swap(x, "II", "III"), "contradict I and II"),
        (lambda x: change(x, "aVR", np.negative), "aVR contradicts I and II"),
        (lambda x: np.random.default_rng(0).normal(size=x.shape), "QRS"),
    ],
)
def test_what_is_wrong_is_said_alone_and_in_words(healthy_ecg, spoil, sentence):
    findings = implausible(spoil(healthy_ecg()), 500, LEADS)
    assert any(sentence in finding for finding in findings), findings
    assert len(findings) == 1 or sentence == "QRS"


@pytest.mark.parametrize(("true", "stated"), [(500, 100), (100, 500), (1000, 100), (250, 1000)])
def test_a_wrong_rate_shows_in_the_qrs_complexes(healthy_ecg, true, stated):
    (finding,) = implausible(healthy_ecg(true), stated, LEADS)
    assert f"at {stated} Hz the QRS complexes last" in finding and "is the sampling rate right?" in finding


def test_missing_samples_are_counted_and_end_the_search(healthy_ecg):
    signal = 1000 * healthy_ecg()
    signal[5:9, 3] = np.nan
    signal[2, 11] = np.inf
    assert implausible(signal, 500, LEADS) == ["samples are missing in aVR (4 samples), V6 (1 samples)"]


def test_an_ecg_that_is_flat_in_every_lead_is_flat_and_no_more():
    assert implausible(np.zeros((1000, 12)), 100, LEADS) == [f"flat: {', '.join(LEADS)}; was the electrode off?"]


def test_synthetic_records_raise_no_alarm(synthetic_shards):
    dataset = open_shards(synthetic_shards)
    signals = dataset.millivolts(np.arange(len(dataset)))
    assert [implausible(signal, 100, LEADS) for signal in signals] == [[]] * len(dataset)


def test_real_records_raise_no_alarm(ptbxl_folder):
    stems = [f"records100/{row // 1000:02d}000/{row:05d}_lr.hea" for row in range(1, 1999, 40)]
    stems += [f"records500/00000/{row:05d}_hr.hea" for row in range(1, 21)]
    files = [ptbxl_folder / stem for stem in stems if (ptbxl_folder / stem).is_file()]
    assert len(files) > 60
    for source in map(read_source, files):
        assert implausible(source.signal, source.sampling_rate, LEADS) == [], source.path


def swap_arms(signal):
    """As with the electrodes of the arms exchanged."""
    signal = swap(swap(signal, "II", "III"), "aVR", "aVL")
    return change(signal, "I", np.negative)


def test_few_true_records_and_most_scaled_ones_are_marked(ptbxl_folder):
    stems = read_metadata(ptbxl_folder / "ptbxl_database.csv").stems[::4]
    deflections = [examine(read_source(ptbxl_folder / stem).signal, 100, LEADS)[1] for stem in stems]
    marked = {factor: np.mean([bool(wrong_unit(factor * d)) for d in deflections]) for factor in (1, 5, 0.2, 4.88, 10)}
    assert marked[1] <= 1 / 250 and min(marked[factor] for factor in (5, 0.2, 4.88)) > 0.95 and marked[10] == 1


def test_a_source_of_one_wrong_gain_is_told_once_it_is_many():
    rng = np.random.default_rng(0)
    true = rng.lognormal(0, 0.4, 100)
    assert wrong_source(true) == "" and wrong_source(5 * true[:19]) == ""
    assert "these 100 recordings typically deflect by 5.15 mV" in wrong_source(5 * true)
    assert "is the gain in its header right?" in wrong_source(true / 5) and "uV" in wrong_source(1000 * true)
    assert wrong_source(np.array([np.nan] * 30)) == ""
