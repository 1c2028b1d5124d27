"""The pipeline benchmark: what it counts and compares; its timings are for people."""

import json
import sys
import warnings

import pytest

from imlenet_jax.data.synthetic import write_dataset

with warnings.catch_warnings():  # at import, wfdb 4.3 meets a deprecation of pandas 3.1
    warnings.simplefilter("ignore")
    from benchmarks.input_pipeline import label_counts, main
from imlenet_jax.data.ptbxl import read_statements


def test_label_counts_are_those_of_the_full_metadata(ptbxl_folder):
    counts = label_counts(
        ptbxl_folder / "ptbxl_database_full.csv", read_statements(ptbxl_folder / "scp_statements.csv")
    )
    assert list(counts.values()) == [21799, 21388, 4898, 2649, 5469, 9514, 5235, 17084, 2146, 2158]


def test_measures_a_small_data_set(tmp_path, monkeypatch, capsys):
    write_dataset(tmp_path / "data", 40, 0, progress=False)
    before = sorted(path.name for path in (tmp_path / "data").iterdir())
    out = tmp_path / "results.json"
    command = ["x", "--data_dir", str(tmp_path / "data"), "--out", str(out), "--batchsize", "4", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0, capsys.readouterr().err
    results = json.loads(out.read_text())
    assert results["decoding_records"] == 40
    assert results["decoding_max_abs_mv"] < 1e-6
    assert results["labels"]["ptbxl_database.csv"]["rows"] == 40
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == before
