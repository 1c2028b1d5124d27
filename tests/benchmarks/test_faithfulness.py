"""The whole benchmark on a tiny trained network: what it writes, says and refuses."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest

import benchmarks.faithfulness
from benchmarks.parts.faithfulness_report import verdicts
from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.data.ptbxl import LEADS, SUPERCLASSES
from imlenet_jax.models import abstract_variables, create_model, make_config
from imlenet_jax.training.saving import Checkpoints
from tests.conftest import TINY


def call(monkeypatch, command, *flags):
    monkeypatch.setattr(sys, "argv", [command.__name__, *map(str, flags)])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return ended.value.code


def test_from_a_checkpoint_to_tables_json_and_figure(tmp_path, synthetic_shards, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, less in (("RANDOM_MAPS", 1), ("REDRAWS", 1), ("WINDOW_STEPS", 4)):
        monkeypatch.setattr(benchmarks.faithfulness, name, less)
    config = make_config("imle_net", TINY["imle_net"] | {"length": 1000, "window": 250})
    values = dataclasses.asdict(config)
    scaler, training = {"mean": 0.0, "std": 0.2}, {"train_folds": [1, 2, 3]}
    meta = Meta("imle_net", values, list(SUPERCLASSES), list(LEADS), 100, scaler, training=training)
    with Checkpoints(tmp_path / "checkpoints/imle_net") as checkpoints:
        rng, shapes = np.random.default_rng(0), abstract_variables(create_model("imle_net", config))
        checkpoints.save(meta, variables=jax.tree.map(lambda a: np.float32(rng.uniform(0.1, 0.3, a.shape)), shapes))
    flags = ["--data_dir", synthetic_shards, "--test_folds", "3-10", "--max_records", 4, "--steps", 2]
    methods = ["--methods", "attention", "amplitude"]
    assert call(monkeypatch, benchmarks.faithfulness, *flags, *methods) == 0
    shown = capsys.readouterr().out
    results = json.loads((tmp_path / "results/faithfulness/imle_net.json").read_text())
    assert (tmp_path / "results/faithfulness/imle_net.png").stat().st_size > 10_000

    assert set(results["curves"]["leads"]) == {"attention", "amplitude", "random"}
    for grid, points in (("leads", 13), ("windows", 5)):
        for kinds in results["curves"][grid].values():
            deletion, insertion = kinds["deletion"]["curve"], kinds["insertion"]["curve"]
            assert len(deletion) == len(insertion) == points
            # Nothing deleted is all inserted, and the other way round.
            assert deletion[0] == pytest.approx(insertion[-1], abs=1e-6)
            assert deletion[-1] == pytest.approx(insertion[0], abs=1e-6)
    assert results["sanity"]["attention"]["head"]["value"] == pytest.approx(1)
    assert list(results["localisation"]) and results["moved_infarct"]["pairs"] == 4
    for name, entry in results["localisation"].items():
        assert 0 < entry["chance"] < 1 and name in shown
    assert "fold 3, 4, 5, 6, 7, 8, 9, 10, scp_codes with ASMI and without IMI" in shown
    assert "note: records of fold 3 trained this network" in shown

    assert call(monkeypatch, benchmarks.faithfulness, *flags, "--model", "mousavi") == 2
    assert "checkpoints/mousavi: no such checkpoint folder" in capsys.readouterr().err
    assert call(monkeypatch, benchmarks.faithfulness, "--methods", "lime") == 2
    (tmp_path / "file").touch()
    assert call(monkeypatch, benchmarks.faithfulness, *flags, "--out", "file") == 2
    assert "--out file is a file, or below one" in capsys.readouterr().err


def test_verdicts_say_where_attention_loses():
    def entry(low, high):
        return {"value": (low + high) / 2, "low": low, "high": high}

    less = {"random": entry(-0.2, -0.1), "amplitude": entry(-0.1, 0.1), "gradient_x_input": entry(0.1, 0.2)}
    methods = {"attention": {"deletion": {"less": less}, "insertion": {"less": less}}, "random": {}}
    assert verdicts(methods) == [
        "deletion: attention is better than random; WORSE than gradient_x_input; not shown to differ from amplitude",
        "insertion: attention is better than gradient_x_input; WORSE than random; not shown to differ from amplitude",
    ]
    assert verdicts({"random": {}}) == []
