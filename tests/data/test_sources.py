"""Files as users have them, and those that nobody should read."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imlenet_jax.data.ptbxl import LEADS
from imlenet_jax.data.sources import MAX_VALUES, TableFormat, find_records, read_source
from imlenet_jax.errors import UserError

SIGNAL = np.random.default_rng(0).normal(size=(30, 3)).round(4)
TABLE = TableFormat(250, ("I", "II", "V1"))


def write_csv(path, signal=SIGNAL, names=None, separator=","):
    rows = [separator.join(names)] if names else []
    path.write_text("\n".join([*rows, *(separator.join(map(repr, map(float, row))) for row in signal)]))
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", " ", ", "])
@pytest.mark.parametrize("names", [None, ["I", "'lead II'", "V1 (uV)"]])
def test_csv_in_any_separator_with_or_without_names(tmp_path, separator, names):
    if names and separator == " ":
        names = ["I", "II", "V1"]
    source = read_source(write_csv(tmp_path / "a.csv", names=names, separator=separator), TABLE)
    np.testing.assert_array_equal(source.signal, SIGNAL)
    assert source.sampling_rate == 250
    assert source.leads == ("I", "II", "V1")
    assert source.units == ("mV", "mV", "uV" if names and separator != " " else "mV")
    assert source.name == "a"


def test_csv_with_decimal_commas_and_names_of_its_own(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeffZeit;I;II\r\n0,1;1,5;-2,25\r\n0,2;1e-3;nan\r\n\r\n")
    source = read_source(path, TableFormat(250))
    assert source.leads == ("Zeit", "I", "II")
    np.testing.assert_array_equal(source.signal, [[0.1, 1.5, -2.25], [0.2, 0.001, np.nan]])


def test_numbered_columns_are_names(tmp_path):
    source = read_source(write_csv(tmp_path / "a.csv", names=["0", "1", "2"]), TABLE)
    np.testing.assert_array_equal(source.signal, SIGNAL)


@given(
    st.lists(st.lists(st.floats(allow_infinity=False), min_size=3, max_size=3), min_size=1, max_size=5),
    st.sampled_from([",", ";", "\t"]),
)
def test_any_numbers_survive_the_csv(tmp_path_factory, rows, separator):
    path = write_csv(tmp_path_factory.mktemp("csv") / "a.csv", np.array(rows), ["I", "II", "V1"], separator)
    np.testing.assert_array_equal(read_source(path, TableFormat(250)).signal, rows)


@given(st.binary(max_size=100) | st.text("0123456789.,;-+eIV \t\n\"'", max_size=100).map(str.encode))
def test_any_csv_is_numbers_or_a_user_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(data)
    try:
        source = read_source(path, TableFormat(250, ("I", "II")))
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert source.signal.shape[1] == 2 and source.signal.dtype == np.float64


@pytest.mark.parametrize("dtype", ["f2", ">f4", "f8", "i2", "u1"])
def test_npy_of_numbers_either_way_round(tmp_path, dtype):
    signal = (10 * SIGNAL**2).astype(dtype)
    for array, notes in ((signal, ()), (signal.T, ("rows were taken for leads",))):
        np.save(tmp_path / "a.npy", array)
        source = read_source(tmp_path / "a.npy", TableFormat(250, TABLE.leads, "uV"))
        np.testing.assert_array_equal(source.signal, signal.astype(np.float64))
        assert source.units == ("uV",) * 3
        assert source.notes == notes


def npy_claiming(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


@pytest.mark.parametrize(
    "data",
    [
        npy_claiming((10**12, 3)),
        npy_claiming((10**30, 3)),
        npy_claiming((10, 3), "|O") + b"\x80\x04.",
        npy_claiming((10, 3)),
        npy_claiming((0, 3)),
        npy_claiming((2, 5, 3)) + bytes(240),
        npy_claiming((10, 3), "<c16") + bytes(480),
        npy_claiming((10, 3), "<U2") + bytes(240),
        b"",
        b"PK\x03\x04",
        b"\x80\x04.",
    ],
)
def test_npy_of_anything_else_is_refused(tmp_path, data):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.npy"):
        read_source(tmp_path / "a.npy", TABLE)


def test_a_large_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.npy"
    rows = MAX_VALUES // 3 + 1
    path.write_bytes(npy_claiming((rows, 3), "|i1"))
    with open(path, "r+b") as file:
        file.truncate(128 + 3 * rows)  # sparse
    with pytest.raises(UserError, match="cut it into parts"):
        read_source(path, TABLE)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (None, r"does not say its sampling rate: give --sampling_rate"),
        (TableFormat(250), r"does not name its leads: give --leads"),
        (TableFormat(250, ("I", "II")), r"has 3 columns, but --leads names 2"),
        (TableFormat(1e9, ("I", "II", "V1")), r"says 1e\+09 Hz"),
    ],
)
def test_what_a_table_does_not_say_is_asked_for(tmp_path, table, sentence):
    with pytest.raises(UserError, match=sentence):
        read_source(write_csv(tmp_path / "a.csv"), table)


HEADER = "rec 3 250 30\n" + "".join(f"rec.dat 16 200(0)/mV 16 0 0 0 0 {lead}\n" for lead in ("I", "II", "V1"))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("rec.dat", "../rec.dat", r"rec\.hea"),
        ("rec.dat", "..", r"rec\.hea"),
        ("rec.dat", 100 * "\u20ac" + ".dat", "which is not in its own folder"),
        ("rec.dat", "re\0c.dat", r"refers to the file 're\\x00c\.dat', which is not in its own folder"),
        ("rec.dat", "other.dat", r"there is no .*other\.dat, which .*rec\.hea refers to"),
        ("250 30\n", "250 30000000000\n", "cut it into parts"),
        ("250 30\n", "250 31\n", r"rec\.dat holds 30 of 31 samples per lead"),
        ("rec.dat 16 ", "rec.dat 16+5 ", r"rec\.dat holds 29 of 30 samples per lead"),
        (
            HEADER,
            HEADER.replace("250 30", "250").replace(" 16 200", " 16+5 200"),
            "is cut off within a sample of all leads",
        ),
        ("250 30\n", "0 30\n", "rec.hea"),
        ("250 30\n", "100000 30\n", "says 100000 Hz"),
        (HEADER, "rec/1 3 250 30\nother 30\n", "several segments"),
        ("rec 3", "rec 9", "rec.hea"),
        (" 0 V1", " 0 ", "the name of a lead"),
    ],
)
def test_a_record_that_is_damaged_or_points_elsewhere_is_refused(tmp_path, old, new, sentence):
    folder = tmp_path / "folder"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "rec.dat").write_bytes(bytes(2 * 3 * 30))
    (folder / "rec.hea").write_text(HEADER)
    assert read_source(folder / "rec.hea").signal.shape == (30, 3)
    (folder / "rec.hea").write_text(HEADER.replace(old, new))
    with pytest.raises(UserError, match=sentence):
        read_source(folder / "rec.hea")


@pytest.mark.parametrize(("name", "missing"), [("rec", "rec.hea"), ("a.csv", "a.csv"), ("a.npy", "a.npy")])
def test_a_missing_file_is_named(tmp_path, name, missing):
    with pytest.raises(UserError, match=f"there is no .*/{missing}$"):
        read_source(tmp_path / name, TABLE)


def test_a_missing_sample_is_nan(tmp_path):
    samples = np.ones((30, 3), "<i2")
    samples[4, 1] = -32768
    (tmp_path / "rec.dat").write_bytes(samples.tobytes())
    (tmp_path / "rec.hea").write_text(HEADER)
    signal = read_source(tmp_path / "rec.hea").signal
    assert np.argwhere(np.isnan(signal)).tolist() == [[4, 1]]
    assert signal[0, 0] == 1 / 200


def test_records_of_the_challenges_lie_in_mat_files(tmp_path):
    samples = np.arange(90, dtype="<i2").reshape(30, 3)
    (tmp_path / "rec.mat").write_bytes(bytes(24) + samples.tobytes())
    (tmp_path / "rec.hea").write_text(HEADER.replace("rec.dat 16 ", "rec.mat 16+24 "))
    np.testing.assert_allclose(read_source(tmp_path / "rec.hea").signal, samples / 200)


def test_find_records(tmp_path):
    for name in ("a/one.hea", "a/b/one.hea", "a/ptb.csv", "tables/x.csv", "tables/y.npy", "empty/readme.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def found(*names):
        return [str(path.relative_to(tmp_path)) for path in find_records(tmp_path / name for name in names)]

    assert found("a/one") == found("a/one.hea") == found("a/one.dat") == ["a/one.hea"]
    assert found("a/one", "a") == ["a/one.hea", "a/b/one.hea"]
    assert found("tables", "a/ptb.csv") == ["tables/x.csv", "tables/y.npy", "a/ptb.csv"]
    for name, sentence in (("a/two", r"there is no .*two\.hea"), ("empty", "holds no"), ("a/no.csv", "there is no")):
        with pytest.raises(UserError, match=sentence):
            find_records([tmp_path / name])


def test_leads_of_a_record_keep_their_names(ptbxl_folder):
    source = read_source(ptbxl_folder / "records500/00000/00001_hr.hea")
    assert [lead.casefold() for lead in source.leads] == [lead.casefold() for lead in LEADS]
    assert (source.sampling_rate, source.signal.shape, set(source.units)) == (500, (5000, 12), {"mV"})


@given(
    st.binary(max_size=200)
    | st.tuples(st.integers(0, len(HEADER) - 1), st.integers(0, 9), st.binary(max_size=9)).map(
        lambda cut: HEADER.encode()[: cut[0]] + cut[2] + HEADER.encode()[cut[0] + cut[1] :]
    )
)
@pytest.mark.filterwarnings("ignore")
def test_any_header_is_a_recording_or_a_user_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("wfdb")
    (folder / "rec.dat").write_bytes(bytes(2 * 3 * 30))
    (folder / "rec.hea").write_bytes(data)
    try:
        source = read_source(folder / "rec.hea")
    except UserError as error:
        assert str(folder) in str(error)
    else:
        assert source.signal.shape == (len(source.signal), len(source.leads)) and len(source.signal)


@given(st.integers(0, 127), st.integers(0, 9), st.binary(max_size=9))
def test_any_npy_is_numbers_or_a_user_error(tmp_path_factory, at, length, new):
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    np.save(path, SIGNAL)
    data = path.read_bytes()
    path.write_bytes(data[:at] + new + data[at + length :])
    try:
        source = read_source(path, TABLE)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert source.signal.shape[1] == 3 and source.signal.dtype == np.float64


def test_a_csv_of_too_many_values_is_refused_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("imlenet_jax.data.sources.MAX_VALUES", 50)
    with pytest.raises(UserError, match=r"a\.csv has more than 50 values: cut it into parts"):
        read_source(write_csv(tmp_path / "a.csv"), TABLE)
