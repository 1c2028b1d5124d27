"""From any source to windows as a network takes them."""

import warnings

import numpy as np
import pytest

from imlenet_jax.data.ecg import read_ecg, resample
from imlenet_jax.data.ptbxl import LEADS
from imlenet_jax.data.sources import TableFormat
from imlenet_jax.errors import UserError

with warnings.catch_warnings():  # at import, wfdb 4.3 meets a deprecation of pandas 3.1
    warnings.simplefilter("ignore")
    import wfdb


@pytest.fixture
def write(tmp_path):
    """Write a WFDB record of given physical values, and return its header's path."""

    def make(signal, leads=LEADS, rate=500, units="mV", name="rec"):
        units = [units] * len(leads) if isinstance(units, str) else units
        fmt = ["32"] * len(leads)
        wfdb.wrsamp(name, rate, units, list(leads), p_signal=signal, fmt=fmt, write_dir=str(tmp_path))
        return tmp_path / f"{name}.hea"

    return make


def test_a_record_that_fits_is_left_as_it_is(write, healthy_ecg):
    signal = healthy_ecg(100)
    (ecg,) = read_ecg(write(signal, rate=100).with_suffix(""))
    assert (ecg.name, ecg.path.name, ecg.notes, ecg.findings, ecg.complete) == ("rec", "rec.hea", (), (), True)
    assert ecg.signal_mv.dtype == np.float32
    np.testing.assert_allclose(ecg.signal_mv, signal, atol=1e-6)


def test_leads_units_and_order_are_put_right(write, healthy_ecg):
    signal = healthy_ecg(100)
    names = [f"Lead {lead.upper()}" for lead in LEADS[::-1]]
    units = ["uV"] * 4 + ["V"] * 4 + ["mV"] * 4
    factors = np.repeat([1000, 0.001, 1], 4)
    (ecg,) = read_ecg(write(signal[:, ::-1] * factors, names, 100, units))
    np.testing.assert_allclose(ecg.signal_mv, signal, atol=1e-6)
    assert ecg.notes == ("leads put in order, from " + ", ".join(LEADS[::-1]), "converted from V, uV to mV")


@pytest.mark.parametrize("kept", [("I", "II"), ("II", "III"), ("aVR", "aVL"), ("III", "aVF"), LEADS[:6]])
def test_missing_limb_leads_are_computed(write, healthy_ecg, kept):
    signal = healthy_ecg(100)
    leads = (*kept, *LEADS[6:])
    (ecg,) = read_ecg(write(signal[:, [LEADS.index(lead) for lead in leads]], leads, 100))
    np.testing.assert_allclose(ecg.signal_mv, signal, atol=1e-5)
    computed = [note for note in ecg.notes if "was missing and computed as" in note]
    assert len(computed) == 6 - len(kept)
    if kept == ("I", "II"):
        assert computed[0] == "lead III was missing and computed as -1 I +1 II"


def test_leads_that_cannot_be_had_are_named(write, healthy_ecg):
    signal = healthy_ecg(100)
    with pytest.raises(UserError, match=r"rec\.hea has no lead V1, V6 \(its leads are I, II, .*--lead_map"):
        read_ecg(write(signal[:, [0, 1, 7, 8, 9, 10]], ("I", "II", "V2", "V3", "V4", "V5"), 100))
    with pytest.raises(UserError, match=r"has no lead II, III, aVR, aVL, aVF \(its leads are I, MLII"):
        read_ecg(path := write(signal[:, [0, 1, *range(6, 12)]], ("I", "MLII", *LEADS[6:]), 100))
    (ecg,) = read_ecg(path, lead_map={"mlii": "II"})
    np.testing.assert_allclose(ecg.signal_mv, signal, atol=1e-5)
    assert ecg.notes[0] == "taken as was asked for: MLII as II"


def test_channels_that_are_no_leads_are_left_out(write, healthy_ecg):
    signal = healthy_ecg(100)
    with_breath = np.concatenate([signal[:, :1], 40 * signal], axis=1)
    path = write(with_breath, ("RESP", *LEADS), 100, ["NU"] + ["mV"] * 12)
    assert read_ecg(path)[0].notes == ("not used: RESP",)
    path = write(with_breath, ("RESP", *LEADS), 100, ["mV"] + ["mmHg"] * 12)
    with pytest.raises(UserError, match="has lead I in 'mmHg', not in mV, uV or V"):
        read_ecg(path)


def test_other_leads_rates_and_lengths_can_be_asked_for(write, healthy_ecg):
    signal = healthy_ecg(100)
    windows = read_ecg(write(signal, rate=100), leads=("V1", "II"), sampling_rate=50, seconds=4)
    assert [window.name for window in windows] == ["rec[0-4s]", "rec[4-8s]"]
    assert windows[1].signal_mv.shape == (200, 2)
    for lead, column in enumerate((6, 1)):
        assert np.corrcoef(windows[1].signal_mv[:, lead], signal[400:800:2, column])[0, 1] > 0.98


def test_long_recordings_are_cut_and_short_ones_refused(write, healthy_ecg):
    signal = healthy_ecg(500, 25)
    windows = read_ecg(write(signal))
    assert [window.name for window in windows] == ["rec[0-10s]", "rec[10-20s]"]
    assert windows[0].notes[0] == "the last 5 s were dropped, as they fill no window of 10 s"
    alone = read_ecg(write(signal[5000:10000], name="alone"))[0]
    assert alone.name == "alone"
    np.testing.assert_allclose(windows[1].signal_mv, alone.signal_mv, atol=1e-5)
    with pytest.raises(UserError, match=r"rec\.hea lasts 9\.998 s, less than 10 s"):
        read_ecg(write(signal[:4999]))


def test_a_gap_spoils_its_own_window_only(write, healthy_ecg):
    signal = healthy_ecg(500, 20)
    signal[4990:4999, 2] = np.nan
    first, second = read_ecg(write(signal))
    assert not first.complete and second.complete
    assert first.findings == ("samples are missing in III (9 samples)",) and second.findings == ()


@pytest.mark.parametrize("rate", [50, 99.96, 128, 200, 257, 360, 500, 977.52, 1000])
def test_every_rate_gives_the_same_ecg(write, rate):
    def slow_waves(rate, samples):
        time = np.arange(samples) / rate
        return np.stack([np.sin(2 * np.pi * (1 + lead / 3) * time + lead) + lead for lead in range(12)], axis=1)

    (ecg,) = read_ecg(write(slow_waves(rate, int(np.ceil(10 * rate))), rate=rate))
    assert ecg.signal_mv.shape == (1000, 12)
    np.testing.assert_allclose(ecg.signal_mv[50:-50], slow_waves(100, 1000)[50:-50], atol=0.01)
    assert np.abs(ecg.signal_mv - slow_waves(100, 1000)).max() < 0.5  # an offset of 11 mV makes no step at the ends
    assert ecg.notes == (f"resampled from {rate:g} to 100 Hz",)


def test_what_would_alias_is_kept_out():
    time = np.arange(5000) / 500
    assert np.abs(resample(np.sin(2 * np.pi * 120 * time)[:, None], 500, 100))[50:-50].max() < 0.01


def test_tables_say_the_same_as_records(tmp_path, write, healthy_ecg):
    signal = healthy_ecg(500)
    (expected,) = read_ecg(write(signal))
    np.save(tmp_path / "a.npy", signal.T)
    np.savetxt(tmp_path / "b.csv", 1000 * signal, delimiter=";", header=";".join(LEADS), comments="")
    (npy,) = read_ecg(tmp_path / "a.npy", table=TableFormat(500, LEADS))
    (csv,) = read_ecg(tmp_path / "b.csv", table=TableFormat(500, unit="uV"))
    np.testing.assert_allclose(npy.signal_mv, expected.signal_mv, atol=1e-6)
    np.testing.assert_allclose(csv.signal_mv, expected.signal_mv, atol=1e-6)
    assert npy.notes == ("rows were taken for leads", *expected.notes)
    assert csv.notes == ("converted from uV to mV", *expected.notes)


def test_real_records_equal_wfdb_and_their_500_hz_twins(ptbxl_folder):
    for row in range(1, 21):
        low = ptbxl_folder / f"records100/00000/{row:05d}_lr"
        (ecg,) = read_ecg(f"{low}.hea")
        np.testing.assert_allclose(ecg.signal_mv, wfdb.rdsamp(str(low))[0], rtol=1e-6, atol=1e-9)
        (twin,) = read_ecg(ptbxl_folder / f"records500/00000/{row:05d}_hr.hea")
        # PTB-XL's 500 Hz records hold their last value for 0.1 s, and are 2 ms late.
        for lead in range(12):
            assert np.corrcoef(ecg.signal_mv[:980, lead], twin.signal_mv[:980, lead])[0, 1] > 0.985
