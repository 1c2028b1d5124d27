"""Reading one recording: PTB-XL's format fast, all others by wfdb, and a sentence for what is damaged."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imlenet_jax.data.ptbxl import LEADS
from imlenet_jax.data.records import parse_header, read_recording, signal_files
from imlenet_jax.errors import UserError

with warnings.catch_warnings():  # at import, wfdb 4.3 meets a deprecation of pandas 3.1
    warnings.simplefilter("ignore")
    import wfdb
    from wfdb.io import _header


def stem_of(tiny, record=0):
    return tiny.file(record, "")


def physical(recording):
    return (recording.signal - np.array(recording.baseline)) / np.array(recording.gain)


def test_reads_the_samples_as_they_were_written(tiny_ptbxl):
    recording = read_recording(stem_of(tiny_ptbxl), 100)
    np.testing.assert_array_equal(recording.signal, tiny_ptbxl.signals[0])
    assert recording.gain == (1000.0,) * 12
    assert recording.baseline == (0,) * 12
    assert recording.checksum == tuple(tiny_ptbxl.signals[0].sum(0, np.int64) % 65536)


def test_each_lead_has_its_own_gain_and_baseline(tiny_ptbxl):
    header = tiny_ptbxl.file(0, ".hea")
    tiny_ptbxl.edit(header, "1000.0(0)/mV", "204.8(-7)/mV", 1)
    tiny_ptbxl.edit(header, "1000.0(0)/mV", "500/mV", 1)
    recording = read_recording(stem_of(tiny_ptbxl), 100)
    assert recording.gain[:3] == (204.8, 500.0, 1000.0)
    assert recording.baseline[:3] == (-7, 0, 0)
    np.testing.assert_array_equal(physical(recording), wfdb.rdsamp(str(stem_of(tiny_ptbxl)))[0])


def test_leads_in_another_order_are_reordered(tiny_ptbxl):
    names = [lead.upper() for lead in LEADS]
    tiny_ptbxl.write(0, tiny_ptbxl.signals[0][:, ::-1], tuple(names[::-1]))
    recording = read_recording(stem_of(tiny_ptbxl), 100)
    np.testing.assert_array_equal(recording.signal, tiny_ptbxl.signals[0])
    assert recording.checksum == tuple(tiny_ptbxl.signals[0].sum(0, np.int64) % 65536)


@pytest.mark.parametrize("fmt", ["16", "24", "32", "80", "212"])
@pytest.mark.parametrize("unit, factor", [("mV", 1), ("uV", 1000), ("V", 0.001)])
def test_other_formats_and_units_are_read_by_wfdb(tmp_path, fmt, unit, factor):
    steps = np.random.default_rng(1).integers(-100, 100, (1000, 12))
    gains = [200.0 / factor + lead / factor for lead in range(12)]
    wfdb.wrsamp(
        "other",
        fs=100,
        units=[unit] * 12,
        sig_name=list(LEADS),
        d_signal=steps,
        fmt=[fmt] * 12,
        adc_gain=gains,
        baseline=[3] * 12,
        write_dir=str(tmp_path),
    )
    recording = read_recording(tmp_path / "other", 100)
    np.testing.assert_array_equal(recording.signal, steps)
    np.testing.assert_allclose(physical(recording) * factor, wfdb.rdsamp(str(tmp_path / "other"))[0], rtol=1e-12)


@pytest.mark.parametrize(
    "old, new, sentence",
    [
        (" 12 100 1000\n", " 12 250 1000\n", "says 250 Hz instead of 100 Hz"),
        (" 12 100 1000\n", " 12 100 999\n", "says 999 samples instead of 1000"),
        ("0 AVR\n", "0 AVQ\n", "has no lead aVR (its leads are I, II, III, AVQ"),
        ("0 AVR\n", "0 II\n", "has no lead aVR"),
        ("/mV", "/mmHg", "a lead is in 'mmHg', which is no voltage"),
        ("00001_lr.dat", "../00002_lr.dat", "00001_lr.hea"),
        ("00001_lr.dat", "00002_xx.dat", "there is no"),
    ],
)
def test_a_header_that_is_not_ptbxl_is_refused(tiny_ptbxl, old, new, sentence):
    tiny_ptbxl.edit(tiny_ptbxl.file(0, ".hea"), old, new)
    with pytest.raises(UserError) as error:
        read_recording(stem_of(tiny_ptbxl), 100)
    assert sentence in str(error.value)
    assert "restore the record from PTB-XL" in str(error.value)


def test_a_missing_lead_is_refused(tiny_ptbxl):
    names = tuple(lead.upper() for lead in LEADS[:11])
    tiny_ptbxl.write(0, tiny_ptbxl.signals[0][:, :11], names)
    with pytest.raises(UserError, match=r"00001_lr\.hea has 11 leads instead of 12"):
        read_recording(stem_of(tiny_ptbxl), 100)


@pytest.mark.parametrize("change, kind", [(-2, "short"), (-1, "short"), (2, "long")])
@pytest.mark.parametrize("fast", [True, False])
def test_a_signal_file_of_another_size_is_refused(tiny_ptbxl, change, kind, fast):
    dat = tiny_ptbxl.file(0, ".dat")
    data = dat.read_bytes()
    dat.write_bytes(data[:change] if change < 0 else data + b"\0" * change)
    if not fast:
        tiny_ptbxl.edit(tiny_ptbxl.file(0, ".hea"), " 12 100 1000\n", " 12 100.0 1000\n")
    with pytest.raises(UserError, match=rf"00001_lr\.dat is too {kind} \({24000 + change} bytes instead of 24000\)"):
        read_recording(stem_of(tiny_ptbxl), 100)


@pytest.mark.parametrize("suffix", [".hea", ".dat"])
def test_a_missing_file_is_named(tiny_ptbxl, suffix):
    tiny_ptbxl.file(0, suffix).unlink()
    with pytest.raises(UserError, match=rf"there is no .*00001_lr{suffix}"):
        read_recording(stem_of(tiny_ptbxl), 100)


def test_signal_files_are_those_of_the_header(tiny_ptbxl):
    assert set(signal_files(stem_of(tiny_ptbxl))) == {tiny_ptbxl.file(0, ".dat")}


numbers = st.integers(-40000, 70000)
signal_lines = st.builds(
    "{}.dat 16 {}{}/mV 16 {} {} {} 0 {}".format,
    st.sampled_from(["a", "a-b_1"]),
    st.sampled_from(["1000.0", "1000", "204.8", "0", "0.0", "1e3", "-5"]),
    st.sampled_from(["", "(0)", "(-12)", "(7)"]),
    numbers,
    numbers,
    numbers,
    st.sampled_from(["I", "AVR", "V6", "lead 3"]),
)


@given(st.lists(signal_lines, min_size=1, max_size=3), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_the_fast_header_parser_agrees_with_wfdb(lines, end, comment):
    text = end.join([f"rec {len(lines)} 100 1000", *lines, *(["# a comment"] if comment else []), ""])
    header = parse_header(text.encode())
    if header is None:
        return
    expected = _header._parse_signal_lines(lines)
    assert not comment
    assert (header.sampling_rate, header.length) == (100, 1000)
    assert list(header.gain) == expected["adc_gain"]
    assert list(header.baseline) == expected["baseline"]
    assert list(header.checksum) == expected["checksum"]
    assert list(header.leads) == expected["sig_name"]
    assert list(header.files) == expected["file_name"]


def test_the_fast_header_parser_takes_ptbxls_headers(tiny_ptbxl):
    assert parse_header(tiny_ptbxl.file(0, ".hea").read_bytes()) is not None


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzed")
    (folder / "rec.dat").write_bytes(bytes(24000))
    return SimpleNamespace(stem=folder / "rec", header=folder / "rec.hea")


VALID = "rec 12 100 1000\n" + "".join(f"rec.dat 16 1000.0(0)/mV 16 0 0 0 0 {lead}\n" for lead in LEADS)


@given(
    st.binary(max_size=200)
    | st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 3), st.binary(max_size=3)).map(
        lambda cut: VALID.encode()[: cut[0]] + cut[2] + VALID.encode()[cut[0] + cut[1] :]
    )
)
def test_any_header_is_a_recording_or_a_user_error(fuzzed, data):
    fuzzed.header.write_bytes(data)
    try:
        recording = read_recording(fuzzed.stem, 100)
    except UserError as error:
        assert str(fuzzed.stem.parent) in str(error)
    else:
        assert recording.signal.shape == (1000, 12)
        assert np.isfinite(physical(recording)).all()


def test_real_records_equal_wfdb(ptbxl_folder):
    for stem, rate in (("records100/01000/01234_lr", 100), ("records500/00000/00007_hr", 500)):
        recording = read_recording(ptbxl_folder / stem, rate)
        np.testing.assert_array_equal(physical(recording), wfdb.rdsamp(str(ptbxl_folder / stem))[0])
