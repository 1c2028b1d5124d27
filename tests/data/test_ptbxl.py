"""The two tables: labels, folds, and every way in which they can be wrong."""

import csv
import tempfile
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imlenet_jax.data.ptbxl import (
    SUPERCLASSES,
    parse_scp_codes,
    read_metadata,
    read_statements,
    superclass_labels,
)
from imlenet_jax.errors import UserError


@pytest.mark.parametrize(
    "table, rows, labelled, classes, folds",
    [
        ("ptbxl_database.csv", 1987, 1965, (410, 215, 370, 1051, 467), (1481, 232, 252)),
        ("ptbxl_database_full.csv", 21799, 21388, (4898, 2649, 5469, 9514, 5235), (17084, 2146, 2158)),
    ],
)
def test_counts_are_those_of_the_data_set(ptbxl_folder, table, rows, labelled, classes, folds):
    metadata = read_metadata(ptbxl_folder / table)
    labels = superclass_labels(metadata.scp_codes, read_statements(ptbxl_folder / "scp_statements.csv"))
    known = labels.any(axis=1)
    fold = metadata.fold[known]
    assert SUPERCLASSES == ("CD", "HYP", "MI", "NORM", "STTC")
    assert (len(labels), int(known.sum())) == (rows, labelled)
    assert tuple(labels.sum(axis=0, dtype=int)) == classes
    assert (int((fold <= 8).sum()), int((fold == 9).sum()), int((fold == 10).sum())) == folds


def test_labels_follow_the_reference_definition(ptbxl_folder):
    with open(ptbxl_folder / "scp_statements.csv", newline="") as file:
        classes = {row[""]: row["diagnostic_class"] for row in csv.DictReader(file) if row["diagnostic"] == "1.0"}
    metadata = read_metadata(ptbxl_folder / "ptbxl_database.csv")
    labels = superclass_labels(metadata.scp_codes, read_statements(ptbxl_folder / "scp_statements.csv"))
    for codes, label in zip(metadata.scp_codes, labels, strict=True):
        present = {classes[code] for code in codes if code in classes}
        assert {SUPERCLASSES[column] for column in np.flatnonzero(label)} == present


def test_columns_are_read_in_order(tiny_ptbxl):
    metadata = read_metadata(tiny_ptbxl.path / "ptbxl_database.csv")
    assert metadata.ecg_id.tolist() == list(range(1, 25))
    assert metadata.patient_id.tolist()[:4] == [0, 0, 1, 1]
    assert metadata.fold.tolist()[18:22] == [10, 10, 1, 1]
    assert metadata.scp_codes[0] == {"NORM": 100.0, "SR": 0.0}
    assert metadata.stems[-1] == "records100/00000/00024_lr"
    assert read_metadata(tiny_ptbxl.path / "ptbxl_database.csv", 500).stems[0] == "records500/00000/00001_hr"


def test_likelihood_zero_means_not_stated_and_stays():
    codes = [{"IMI": 0.0}, {"IMI": 14.0}, {"IMI": 15.0}, {"IMI": 15.0, "NORM": 10.0}, {}]
    statements = {"IMI": "MI", "NORM": "NORM"}
    mi, norm = SUPERCLASSES.index("MI"), SUPERCLASSES.index("NORM")
    assert superclass_labels(codes, statements)[:, mi].tolist() == [1, 1, 1, 1, 0]
    assert superclass_labels(codes, statements, 15)[:, [mi, norm]].tolist() == [[1, 0], [0, 0], [1, 0], [1, 0], [0, 0]]


def test_only_diagnostic_statements_with_a_class_count(tiny_ptbxl):
    statements = read_statements(tiny_ptbxl.path / "scp_statements.csv")
    assert statements == {"NDT": "STTC", "NORM": "NORM", "IMI": "MI", "LVH": "HYP", "CRBBB": "CD"}


@pytest.mark.parametrize("column", ["ecg_id", "patient_id", "scp_codes", "strat_fold", "filename_lr"])
def test_a_missing_column_is_named(tiny_ptbxl, column):
    tiny_ptbxl.edit("ptbxl_database.csv", column, "other", 1)
    with pytest.raises(UserError, match=rf"ptbxl_database.csv has no column '{column}': restore it from PTB-XL"):
        read_metadata(tiny_ptbxl.path / "ptbxl_database.csv")


@pytest.mark.parametrize(
    "column, value, sentence",
    [
        ("scp_codes", "{'NORM': ", r"scp_codes of ecg_id 3 in .* is \"\{'NORM': \", which is not a dictionary such as"),
        ("scp_codes", "", "scp_codes of ecg_id 3 in .* is '', which is not a dictionary"),
        ("strat_fold", "", "which is not a fold from 1 to 10"),
        ("patient_id", "nan", "patient_id of ecg_id 3 in .* is 'nan', which is not a whole number"),
        ("filename_lr", "/etc/passwd", "not the path of a record inside the folder"),
    ],
)
def test_an_unreadable_cell_is_named(tiny_ptbxl, column, value, sentence):
    tiny_ptbxl.rewrite_table(column, {2: value})
    with pytest.raises(UserError, match=sentence):
        read_metadata(tiny_ptbxl.path / "ptbxl_database.csv")


def test_a_long_cell_is_cut_in_the_message(tiny_ptbxl):
    tiny_ptbxl.rewrite_table("scp_codes", {0: "x" * 1000})
    with pytest.raises(UserError) as error:
        read_metadata(tiny_ptbxl.path / "ptbxl_database.csv")
    assert "x" * 57 + "..." in str(error.value) and "x" * 58 not in str(error.value)


def test_a_patient_in_two_folds_is_refused(tiny_ptbxl):
    tiny_ptbxl.rewrite_table("strat_fold", {5: "9"})
    with pytest.raises(UserError, match=r"patient 2 in .* has records in folds 3 and 9"):
        read_metadata(tiny_ptbxl.path / "ptbxl_database.csv")


def test_a_table_without_rows_and_a_missing_one(tiny_ptbxl):
    path = tiny_ptbxl.path / "ptbxl_database.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match="has no records: restore it"):
        read_metadata(path)
    path.unlink()
    with pytest.raises(UserError, match=r"there is no ptbxl_database.csv in .*: --data_dir must be a PTB-XL folder"):
        read_metadata(path)


def test_a_table_of_junk_rows_is_refused_at_its_first(tiny_ptbxl):
    path = tiny_ptbxl.path / "ptbxl_database.csv"
    with open(path, "a") as file:
        file.write("x\n" * 1_000_000)  # all of them as dictionaries would take a gigabyte
    tracemalloc.start()
    with pytest.raises(UserError, match=r"ecg_id of data row 25 of .* is 'x', which is not a whole number"):
        read_metadata(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_table_far_larger_than_ptbxls_is_not_read(tiny_ptbxl):
    with open(tiny_ptbxl.path / "ptbxl_database.csv", "r+b") as file:
        file.truncate(2**26 + 1)  # sparse
    with pytest.raises(UserError, match="has more than 64 MiB"):
        read_metadata(tiny_ptbxl.path / "ptbxl_database.csv")


def test_a_table_without_recordings_at_a_rate_says_so(tiny_ptbxl):
    tiny_ptbxl.rewrite_table("filename_hr", dict.fromkeys(range(24), ""))
    with pytest.raises(UserError, match=r"names no recordings at 500 Hz: use other data or another sampling rate"):
        read_metadata(tiny_ptbxl.path / "ptbxl_database.csv", 500)


def test_an_unknown_class_is_named(tiny_ptbxl):
    tiny_ptbxl.edit("scp_statements.csv", ",STTC", ",XYZ")
    with pytest.raises(
        UserError, match="gives statement 'NDT' the unknown diagnostic_class 'XYZ': it must be one of CD"
    ):
        read_statements(tiny_ptbxl.path / "scp_statements.csv")


@given(st.text() | st.text("{}'\":,.0123456789eNORM()[]*\\- \n").map("{{{}}}".format))
def test_any_text_is_scp_codes_or_a_value_error(text):
    try:
        codes = parse_scp_codes(text)
    except ValueError:
        return
    assert all(isinstance(code, str) for code in codes)
    assert all(isinstance(value, float) and np.isfinite(value) for value in codes.values())


@given(st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.integers(-1000, 1000)))
def test_scp_codes_round_trip(codes):
    assert parse_scp_codes(repr(codes)) == codes


_HEADER = b"ecg_id,patient_id,scp_codes,strat_fold,filename_lr\n"
_CELLS = st.lists(
    st.sampled_from(["1", "2.0", "{'A': 1}", "{}", "a/b", "", '"', "11", "-1", "x", "\x00", "inf"]), max_size=7
)


@given(
    st.binary(max_size=300)
    | st.binary(max_size=100).map(_HEADER.__add__)
    | st.lists(_CELLS, max_size=5).map(lambda rows: _HEADER + "\n".join(",".join(row) for row in rows).encode())
)
def test_any_bytes_are_a_table_or_a_user_error(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ptbxl_database.csv"
        path.write_bytes(data)
        try:
            metadata = read_metadata(path)
        except UserError as error:
            assert "\n" not in str(error)
            return
    assert max(Counter(metadata.ecg_id.tolist()).values()) == 1
    assert len(metadata.ecg_id) == len(metadata.stems) == len(metadata.scp_codes) == len(metadata.fold)
    assert set(metadata.fold.tolist()) <= set(range(1, 11))
