"""WFDB headers that archives have: read as wfdb reads them, or where it does not, as they are meant."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imlenet_jax.data.headers import Signal, WfdbHeader, parse_wfdb
from imlenet_jax.data.sources import read_source
from imlenet_jax.errors import UserError

with warnings.catch_warnings():  # at import, wfdb 4.3 meets a deprecation of pandas 3.1
    warnings.simplefilter("ignore")
    import wfdb

LINE = "r.dat 16 1000(5)/mV 16 3 -7 99 0 aVR"


@pytest.mark.parametrize(
    ("line", "signal"),
    [
        (LINE, Signal("r.dat", 0, 1000.0, 5, "mV", 99, "aVR")),
        ("r.mat 16+24 1000/mV 16 3 -7 -99 0 V1", Signal("r.mat", 24, 1000.0, 3, "mV", -99, "V1")),
        ("r.dat 16 200 12 0 0 0 0 Lead II", Signal("r.dat", 0, 200.0, 0, "mV", 0, "Lead II")),
        ("r.dat 16 0/uV 16 0 0 0 0 I", Signal("r.dat", 0, None, 0, "uV", 0, "I")),
        ("r.dat 16", Signal("r.dat", 0, None, 0, "mV", None, "")),
    ],
)
def test_lines_of_leads(line, signal):
    assert parse_wfdb(f"r 1 500 5000\n{line}\n# a comment".encode()) == WfdbHeader(500.0, 5000, (signal,))


@pytest.mark.parametrize(
    ("line", "rate", "length"),
    [
        ("E00009.mat 1 500 5000 05-May-2020 14:50:55", 500.0, 5000),
        ("r 1 500 5000 12:00:00 2006", 500.0, 5000),
        ("r 1 360/360(0) 650000", 360.0, 650000),
        ("r 1 257.5", 257.5, None),
        ("r 1 500 0", 500.0, None),
        ("r 1", 250.0, None),
    ],
)
def test_record_lines(line, rate, length):
    assert parse_wfdb(f"{line}\n{LINE}".encode())[:2] == (rate, length)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "r",
        "r 2 500 5000\n" + LINE,
        "r/3 1 500 5000\nr1 100",
        "r 1 500 5000\nr.dat 212 200 12 0 0 0 0 I",
        "r 1 500 5000\nr.dat 16x2 200 12 0 0 0 0 I",
        "r 1 500 5000\nr.dat 16:3 200 12 0 0 0 0 I",
        "r 1 0 5000\n" + LINE,
    ],
)
def test_headers_of_another_kind_are_left_to_wfdb(text):
    assert parse_wfdb(text.encode()) is None


@given(st.binary(max_size=60) | st.text("r 1250/.+():x-#\n16mVI", max_size=60).map(str.encode))
def test_any_bytes_are_a_header_or_none(data):
    header = parse_wfdb(data)
    assert header is None or (header.sampling_rate > 0 and len(header.signals) > 0)


@pytest.fixture
def record(tmp_path):
    """A record of 500 samples of three leads, a sample of which is missing, in two files."""
    steps = np.random.default_rng(0).integers(-3000, 3000, (500, 3)).astype("<i2")
    steps[7, 1] = -32768
    (tmp_path / "a.dat").write_bytes(steps[:, :2].tobytes())
    (tmp_path / "b.dat").write_bytes(bytes(24) + steps[:, 2:].tobytes())
    sums = steps.sum(axis=0, dtype=int) % 65536
    lines = ["r 3 250 500", f"a.dat 16 1000(10)/mV 16 0 0 {sums[0]} 0 I", f"a.dat 16 200/mV 16 4 0 {sums[1]} 0 II"]
    lines += [f"b.dat 16+24 500(-2)/uV 16 0 0 {sums[2]} 0 V1"]
    (tmp_path / "r.hea").write_text("\n".join(lines) + "\n")
    return tmp_path / "r.hea"


def test_samples_are_those_of_wfdb(record):
    source = read_source(record)
    expected = wfdb.rdrecord(str(record.with_suffix("")))
    np.testing.assert_allclose(source.signal, expected.p_signal, rtol=1e-12)
    assert np.isnan(source.signal[7, 1]) and source.notes == ()
    assert (list(source.leads), list(source.units)) == (expected.sig_name, expected.units)


def test_the_size_of_the_file_says_what_the_header_does_not(record):
    whole = read_source(record).signal
    record.write_text(record.read_text().replace("r 3 250 500", "r.x 3 250"))
    np.testing.assert_array_equal(read_source(record).signal, whole)
    path = record.with_name("b.dat")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"b\.dat is cut off within a sample of all leads"):
        read_source(record)


def test_an_assumed_gain_and_a_wrong_checksum_are_noted(record):
    text = record.read_text()
    record.write_text(text.replace(" 200/mV", " 0/mV").replace(" 500(-2)/uV 16 0 0 ", " 500(-2)/uV 16 0 0 1"))
    notes = read_source(record).notes
    assert notes[0].startswith("1 of 3 leads have no gain in the header: 200 steps per mV were assumed")
    assert notes[1] == "the header's checksum of V1 is not that of the samples: is the file whole?"
