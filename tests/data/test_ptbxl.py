"""The two tables: labels, folds, and every way in which they can be wrong."""

import tempfile
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imlenet_jax.data.ptbxl import (
    Statement,
    parse_scp_codes,
    read_metadata,
    read_statements,
)
from imlenet_jax.errors import UserError


def test_columns_are_read_in_order(tiny_ptbxl):
    metadata = read_metadata(tiny_ptbxl.path / "ptbxl_database.csv")
    assert metadata.ecg_id.tolist() == list(range(1, 25))
    assert metadata.patient_id.tolist()[:4] == [0, 0, 1, 1]
    assert metadata.fold.tolist()[18:22] == [10, 10, 1, 1]
    assert metadata.scp_codes[0] == {"NORM": 100.0, "SR": 0.0}
    assert metadata.about == {}
    assert metadata.stems[-1] == "records100/00000/00024_lr"
    assert read_metadata(tiny_ptbxl.path / "ptbxl_database.csv", 500).stems[0] == "records500/00000/00001_hr"


def test_what_else_is_known_of_a_record_is_kept(ptbxl_folder):
    metadata = read_metadata(ptbxl_folder / "ptbxl_database.csv")
    first = {name: cells[0] for name, cells in metadata.about.items()}
    assert first == {
        "age": "56.0",
        "sex": "1",
        "site": "0.0",
        "device": "CS-12 E",
        "validated_by": "",
        "validated_by_human": "True",
        "second_opinion": "False",
    }
    assert metadata.take([5, 0]).about["age"] == [metadata.about["age"][5], "56.0"]


def test_a_statement_is_diagnostic_of_form_or_of_rhythm(tiny_ptbxl, ptbxl_folder):
    statements = {each.code: each for each in read_statements(ptbxl_folder / "scp_statements.csv")}
    assert len(statements) == 71
    assert statements["NDT"] == Statement("NDT", True, True, False, "STTC", "STTC")
    assert statements["AFIB"] == Statement("AFIB", rhythm=True)
    assert read_statements(tiny_ptbxl.path / "scp_statements.csv")[-1] == Statement("SR")


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
