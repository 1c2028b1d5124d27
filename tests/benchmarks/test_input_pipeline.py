"""The pipeline benchmark: what it counts and compares; its timings are for people."""

import json
import os
import sys
import warnings

import pytest

from imlenet_jax.data.synthetic import write_dataset

with warnings.catch_warnings():  # at import, wfdb 4.3 meets a deprecation of pandas 3.1
    warnings.simplefilter("ignore")
    from benchmarks.input_pipeline import drop_from_cache, label_counts, main
from imlenet_jax.data.ptbxl import read_statements
from imlenet_jax.data.tasks import ptbxl_tasks


def test_label_counts_are_those_of_the_full_metadata(ptbxl_folder):
    tasks = ptbxl_tasks(read_statements(ptbxl_folder / "scp_statements.csv"))
    counts = label_counts(ptbxl_folder / "ptbxl_database_full.csv", tasks)["superclass"]
    assert list(counts.pop("classes").values()) == [4898, 2649, 5469, 9514, 5235]
    assert list(counts.values()) == [21799, 21388, 17084, 2146, 2158, 27765]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system keeps its page cache to itself")
def test_a_cold_pass_drops_the_shards_and_nothing_else(tmp_path, monkeypatch):
    dropped = []
    monkeypatch.setattr(os, "posix_fadvise", lambda descriptor, *_: dropped.append(os.fstat(descriptor).st_size))
    (tmp_path / "shard-00000.npy").write_bytes(b"12345")
    (tmp_path / "manifest.json").write_bytes(b"1")
    drop_from_cache(tmp_path)
    assert dropped == [5]


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
    rates = ("cold", "first_epoch", "to_device")
    assert all(results[f"loader_{name}_records_per_s"] > 0 for name in rates)
    assert results["host_to_device_records_per_s"] > 0 and results["machine"]["versions"]["wfdb"]
    assert results["labels"]["ptbxl_database.csv"]["superclass"]["rows"] == 40
    assert sum(results["labels"]["ptbxl_database.csv"]["rhythm"]["classes"].values()) == 40
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == before
