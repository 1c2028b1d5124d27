"""`--seeds N` is N runs, each as if it were alone."""

import json

import jax
import numpy as np

import experiments.test
import experiments.train
from imlenet_jax.checkpoints.reading import load_variables
from tests.calls import call

CONFIG = json.dumps({"filters": [4, 4], "lstm_units": 4, "hidden": 8})


def test_several_seeds_are_as_many_separate_runs(tmp_path, synthetic_shards, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["--model", "mousavi", "--data_dir", synthetic_shards, "--batchsize", 8]
    train = [*common, "--config", CONFIG, "--epochs", 2, "--val_folds", "8", "--train_folds", "1-7"]
    assert call(monkeypatch, experiments.train, *train, "--seed", 1, "--seeds", 2) == 0
    assert call(monkeypatch, experiments.train, *train, "--seed", 2) == 0
    (one, first), (two, second), (three, alone) = (
        load_variables(tmp_path / "checkpoints" / name) for name in ("mousavi_seed1", "mousavi_seed2", "mousavi")
    )
    assert (one.training["seed"], two.training["seed"], three.training["seed"]) == (1, 2, 2)
    jax.tree.map(np.testing.assert_array_equal, second, alone)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))

    test = [*common, "--seed", 1, "--seeds", 2, "--val_folds", 8, "--test_folds", "9,10"]
    assert call(monkeypatch, experiments.test, *test) == 0
    summary = json.loads((tmp_path / "logs/mousavi_test_seeds.json").read_text())["metrics"]["macro_auc"]
    values = [
        json.loads((tmp_path / f"logs/mousavi_seed{seed}_test_logs.json").read_text())["metrics"]["macro_auc"]["value"]
        for seed in (1, 2)
    ]
    assert summary["n"] == 2 and summary["low"] <= summary["mean"] <= summary["high"]
    np.testing.assert_allclose(summary["mean"], np.mean(values))
