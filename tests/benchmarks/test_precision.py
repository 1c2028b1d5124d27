"""The comparison of bfloat16 with float32: a tiny run, and its arithmetic."""

import json
import sys

import pytest

import benchmarks.precision
from benchmarks.precision import compared
from benchmarks.readme import precision_table


def test_differences_are_taken_seed_by_seed():
    found = compared({"float32": [0.7, 0.8, 0.9], "bfloat16": [0.71, 0.80, 0.92]})
    assert found["difference"]["mean"] == pytest.approx(0.01) and found["difference"]["n"] == 3
    assert found["difference"]["std"] == pytest.approx(0.01) and found["float32_std"] == pytest.approx(0.1)


def test_both_types_are_trained_from_each_seed(synthetic_shards, tmp_path, monkeypatch, capsys):
    areas = {("float32", 0): 0.7, ("bfloat16", 0): 0.72, ("float32", 1): 0.8, ("bfloat16", 1): 0.81}
    monkeypatch.setattr(
        benchmarks.precision, "trained_auc", lambda meta, splits, recipe: areas.pop((recipe.dtype, recipe.seed))
    )
    flags = ["--data_dir", synthetic_shards, "--seeds", 2, "--out", tmp_path / "precision.json"]
    monkeypatch.setattr(sys, "argv", ["x", *map(str, flags)])
    with pytest.raises(SystemExit) as ended:
        benchmarks.precision.main()
    assert ended.value.code == 0 and not areas, capsys.readouterr().err
    results = json.loads((tmp_path / "precision.json").read_text())
    assert results["runs"] == {"float32": [0.7, 0.8], "bfloat16": [0.72, 0.81]}
    assert results["difference"]["mean"] == pytest.approx(0.015)
    assert "| 1 | 0.8000 | 0.8100 |" in precision_table(results)
