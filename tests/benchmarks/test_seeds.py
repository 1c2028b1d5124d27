"""Several seeds in one program do what they do in turn."""

import json
import sys

import numpy as np
import pytest

from benchmarks.readme import seeds_table
from benchmarks.seeds import main
from tests.conftest import TINY


def test_both_ways_train_the_same_networks(tmp_path, monkeypatch):
    config = {name: value for name, value in TINY["mousavi"].items() if name != "length"}
    flags = ["--models", "mousavi", "--config", json.dumps(config), "--seeds", 2, "--batchsize", 4, "--turns", 1]
    monkeypatch.setattr(sys, "argv", ["x", *map(str, flags), "--out", str(tmp_path / "seeds.json")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    results = json.loads((tmp_path / "seeds.json").read_text())
    (row,) = results["rows"]
    in_turn, together = row["first_losses_in_turn"], row["first_losses_together"]
    np.testing.assert_allclose(in_turn, together, rtol=1e-5)
    assert len(set(in_turn)) == 2 and row["ratio"] == row["in_turn_s"] / row["together_s"]
    assert f"| {row['ratio']:.2f} |" in seeds_table(results)
