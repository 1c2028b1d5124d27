"""The latency benchmark on one tiny checkpoint."""

import json
import sys

import pytest

from benchmarks.latency import main
from benchmarks.readme import latency_table
from imlenet_jax.models import make_config
from imlenet_jax.training.saving import Checkpoints
from tests.checkpoints.test_checkpoints import _meta, _variables
from tests.conftest import TINY


def test_a_checkpoint_is_timed_warm_and_in_a_fresh_process(tmp_path, monkeypatch):
    config = make_config("mousavi", TINY["mousavi"])
    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(_meta("mousavi", config), variables=_variables("mousavi", config))
    out = tmp_path / "latency.json"
    flags = ["--checkpoint", tmp_path / "run", "--repeats", 3, "--fresh", 1, "--out", out]
    monkeypatch.setattr(sys, "argv", ["x", *map(str, flags)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    results = json.loads(out.read_text())
    (row,) = results["rows"]
    assert row["model"] == "mousavi" and row["ratio"] == row["predict_s"]["median"] / row["step_s"]["median"]
    assert row["load_to_answer_s"] > row["predict_s"]["third_quartile"] >= row["predict_s"]["median"] > 0
    assert f"| `mousavi` | {1000 * row['predict_s']['median']:.3g}"[:16] in latency_table(results)
