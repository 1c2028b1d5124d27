"""The comparison of bfloat16 with float32: a tiny run, and its arithmetic."""

import json
import sys

import numpy as np
import pytest

from benchmarks.precision import compared, main
from benchmarks.readme import precision_table


def test_differences_are_taken_seed_by_seed():
    found = compared({"float32": [0.7, 0.8, 0.9], "bfloat16": [0.71, 0.80, 0.92]})
    assert found["difference"]["mean"] == pytest.approx(0.01) and found["difference"]["n"] == 3
    assert found["difference"]["std"] == pytest.approx(0.01) and found["float32_std"] == pytest.approx(0.1)


def test_both_types_are_trained_from_each_seed(synthetic_shards, tmp_path, monkeypatch, capsys):
    config = json.dumps({"filters": [4, 4], "lstm_units": 4, "hidden": 8})
    flags = ["--model", "mousavi", "--config", config, "--data_dir", synthetic_shards, "--out", tmp_path / "p.json"]
    monkeypatch.setattr(sys, "argv", ["x", *map(str, flags), "--seeds", "2", "--epochs", "1", "--batchsize", "8"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0, capsys.readouterr().err
    results = json.loads((tmp_path / "p.json").read_text())
    runs = results["runs"]
    assert runs.keys() == {"float32", "bfloat16"} and len({*runs["float32"], *runs["bfloat16"]}) > 1
    assert results["difference"]["mean"] == pytest.approx(np.mean(runs["bfloat16"]) - np.mean(runs["float32"]))
    assert f"| 1 | {runs['float32'][1]:.4f} | {runs['bfloat16'][1]:.4f} |" in precision_table(results)
