"""The sub-diagnosis of MI, from a trained 5-class network to its test."""

import json
import shutil

import jax
import numpy as np
import pandas as pd
import pytest

import experiments.test
import experiments.train
from imlenet_jax.checkpoints.reading import load_variables
from imlenet_jax.classifier import load
from imlenet_jax.data.loader import select, select_reference
from imlenet_jax.data.shards import open_shards
from imlenet_jax.data.tasks import SUB
from tests.calls import call as run

SMALL = json.dumps({"filters": [2, 2], "lstm_units": 2, "hidden": 4})
TRAIN, TEST = (1, 3, 4, 6, 9, 10), (2, 5)  # each with all three classes
FOLDS = ("--train_folds", "1,3,4,6,9,10", "--val_folds", "7,8", "--test_folds", "2,5")


pytestmark = pytest.mark.filterwarnings("always::imlenet_jax.errors.DataWarning")  # as users see them


@pytest.fixture(scope="module")
def base(tmp_path_factory, synthetic_shards):
    """A folder with a tiny 5-class mousavi, trained for an epoch."""
    folder = tmp_path_factory.mktemp("sub")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        flags = ("--data_dir", synthetic_shards, "--config", SMALL, "--batchsize", 8, "--epochs", 1, *FOLDS)
        assert run(patch, experiments.train, "--model", "mousavi", *flags) == 0
    return folder


@pytest.fixture
def call(base, tmp_path, synthetic_shards, monkeypatch):
    """Calls a command with the network in an empty folder."""
    shutil.copytree(base / "checkpoints", tmp_path / "checkpoints")
    monkeypatch.chdir(tmp_path)
    return lambda command, *flags: run(
        monkeypatch, command, "--model", "mousavi", "--data_dir", synthetic_shards, *flags
    )


def test_train_then_test(call, tmp_path, synthetic_shards, capsys):
    train = ("--sub", "True", "--batchsize", 8, "--epochs", 2, *FOLDS)
    assert call(experiments.train, *train) == 0
    out = capsys.readouterr().out
    assert "mousavi_sub: " in out and "--sub True" in out
    history = json.loads((tmp_path / "logs/mousavi_sub_disease.json").read_text())["history"]
    assert history["train_loss"][1] < history["train_loss"][0] < 1.5 * np.log(3)

    dataset = open_shards(synthetic_shards)
    records = {name: select(dataset, folds, name, task=SUB) for name, folds in (("training", TRAIN), ("test", TEST))}
    meta = load_variables(tmp_path / "checkpoints/mousavi_sub")[0]
    assert meta.classes == ["ASMI", "IMI", "NORM"] and meta.config["hidden"] == 4 and meta.thresholds is None
    assert (meta.scaler["mean"], meta.scaler["std"]) == dataset.fit_scaler(records["training"].rows)
    assert meta.training["sub_split"] == "clean" and meta.training["started_from"]["train_folds"] == list(TRAIN)

    assert call(experiments.test, "--sub", "True", *FOLDS[2:]) == 0
    assert "decisions: the most probable class" in capsys.readouterr().out
    report = json.loads((tmp_path / "logs/mousavi_sub_test_logs.json").read_text())
    predictions = pd.read_csv(tmp_path / "logs/mousavi_sub_test_predictions.csv")
    assert report["task"] == "sub-diagnosis of MI" and report["records"] == len(records["test"]) == len(predictions)
    shown = predictions[["prob_ASMI", "prob_IMI", "prob_NORM"]].to_numpy()
    np.testing.assert_allclose(shown.sum(axis=1), 1)
    expected = load("checkpoints/mousavi_sub").predict_proba(dataset.millivolts(records["test"].rows))
    np.testing.assert_allclose(shown, expected, rtol=1e-3, atol=1e-5)

    assert call(experiments.test, "--sub", "True", "--sub_split", "reference") == 2
    assert "mousavi_sub was trained with --sub_split clean" in capsys.readouterr().err


def test_training_starts_from_the_trained_layers(call, tmp_path):
    assert call(experiments.train, "--sub", "True", "--batchsize", 8, "--epochs", 1, "--lr", 1e-9, *FOLDS) == 0
    base, sub = (load_variables(tmp_path / f"checkpoints/{name}")[1]["params"] for name in ("mousavi", "mousavi_sub"))
    assert base.pop("head")["kernel"].shape[1] == 5 and sub.pop("head")["kernel"].shape[1] == 3
    for ours, theirs in zip(jax.tree.leaves(sub), jax.tree.leaves(base), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_reference_split_says_that_it_leaks(call, tmp_path, synthetic_shards, capsys):
    flags = ("--sub", "True", "--sub_split", "reference", "--batchsize", 8)
    assert call(experiments.train, *flags, "--epochs", 1) == 0
    assert call(experiments.test, *flags) == 0
    assert capsys.readouterr().err.count("its scores flatter") == 2
    report = json.loads((tmp_path / "logs/mousavi_sub_test_logs.json").read_text())
    split = select_reference(open_shards(synthetic_shards), "test")
    assert report["sub_split"] == "reference" and report["records"] == len(split) and 3 in report["folds"]
    assert pd.read_csv(tmp_path / "logs/mousavi_sub_test_predictions.csv")["ecg_id"].tolist() == split.ecg_id.tolist()
    assert call(experiments.test, *flags, "--temperature", "True") == 2


@pytest.mark.parametrize(
    ("command", "flags", "sentence"),
    [
        (
            experiments.train,
            ("--sub", "True", "--batchsize", 8, "--train_folds", "1-6", "--val_folds", "7-9"),
            "was trained on fold 9, 10",
        ),
        (experiments.test, ("--sub", "True"), "checkpoints/mousavi_sub: no such checkpoint folder"),
        (experiments.test, ("--sub", "True", "--checkpoint_dir", "swapped"), "for the task 'superclass' (CD, HYP,"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(call, tmp_path, capsys, command, flags, sentence):
    shutil.copytree(tmp_path / "checkpoints/mousavi", tmp_path / "swapped/mousavi_sub")
    assert call(command, *flags) == 2
    assert sentence in capsys.readouterr().err
