"""Training that starts from a trained network, whatever its task."""

import json
import shutil

import jax
import numpy as np
import pytest

import experiments.test
import experiments.train
from imlenet_jax.checkpoints.reading import load_variables
from imlenet_jax.data.shards import open_shards
from imlenet_jax.training.seen import trained_on
from tests.calls import call as run

SMALL = json.dumps({"kernel_size": 2, "filters": 2, "blocks": 1, "widen_every": 1})
pytestmark = pytest.mark.filterwarnings("always::imlenet_jax.errors.DataWarning")  # as users see them


@pytest.fixture(scope="module")
def base(tmp_path_factory, synthetic_shards):
    """A folder with a tiny rajpurkar, trained for an epoch on the superclasses of folds 1 to 4."""
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        flags = ("--config", SMALL, "--batchsize", 8, "--epochs", 1, "--train_folds", "1-4")
        assert run(patch, experiments.train, "--model", "rajpurkar", "--data_dir", synthetic_shards, *flags) == 0
    return folder


@pytest.fixture
def call(base, tmp_path, synthetic_shards, monkeypatch):
    """Calls a command in an empty folder with the network in `base`."""
    shutil.copytree(base / "checkpoints/rajpurkar", tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    return lambda command, *flags: run(
        monkeypatch, command, "--model", "rajpurkar", "--data_dir", synthetic_shards, *flags
    )


def parameters(folder):
    return load_variables(folder, "latest")[1]


TRAIN = ("--init_from", "base", "--batchsize", 8, "--train_folds", "5-8")


def test_the_head_is_kept_for_classes_that_it_has(call, tmp_path):
    flags = (*TRAIN, "--task", "diagnostic", "--epochs", 1, "--lr", 1e-9)
    assert call(experiments.train, *flags) == 0
    before, after = parameters(tmp_path / "base"), parameters(tmp_path / "checkpoints/rajpurkar_diagnostic")
    classes = load_variables(tmp_path / "checkpoints/rajpurkar_diagnostic")[0].classes
    old, new = before["params"].pop("head"), after["params"].pop("head")
    assert "NORM" in classes and "CRBBB" in classes  # the first is a superclass, too
    place = classes.index("NORM")
    np.testing.assert_allclose(new["kernel"][:, place], old["kernel"][:, 3], atol=1e-6)
    assert np.abs(new["kernel"][:, classes.index("CRBBB")] - old["kernel"][:, 0]).max() > 0.01
    for ours, theirs in zip(jax.tree.leaves(after["params"]), jax.tree.leaves(before["params"]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    meta = load_variables(tmp_path / "checkpoints/rajpurkar_diagnostic")[0]
    assert meta.scaler == load_variables(tmp_path / "base")[0].scaler


@pytest.mark.parametrize("more", [(), ("--parallel", "pmap"), ("--steps_per_call", 2)])
def test_a_frozen_network_stays_as_it_is_but_for_its_head(call, tmp_path, more):
    flags = (*TRAIN, "--task", "rhythm", "--epochs", 2, "--freeze_epochs", 2, "--lr", 0.01, *more)
    assert call(experiments.train, *flags) == 0
    before, after = parameters(tmp_path / "base"), parameters(tmp_path / "checkpoints/rajpurkar_rhythm")
    before["params"].pop("head"), after["params"].pop("head")
    jax.tree.map(np.testing.assert_array_equal, after, before)
    losses = json.loads((tmp_path / "logs/rajpurkar_rhythm_train_logs.json").read_text())["history"]["train_loss"]
    assert losses[1] < losses[0]


def test_after_the_frozen_epochs_all_is_trained_and_a_stop_changes_nothing(call, tmp_path):
    flags = (*TRAIN, "--task", "rhythm", "--freeze_epochs", 1, "--backbone_lr", 0.5)
    assert call(experiments.train, *flags, "--epochs", 2, "--checkpoint_dir", "whole", "--log_dir", "a") == 0
    for epochs in (1, 2):
        assert call(experiments.train, *flags, "--epochs", epochs, "--checkpoint_dir", "parts", "--log_dir", "b") == 0
    whole, parts = (parameters(tmp_path / name / "rajpurkar_rhythm") for name in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    before = parameters(tmp_path / "base")["params"]
    before.pop("head"), whole["params"].pop("head")
    moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (whole["params"], before)), strict=True)]
    assert min(moved) > 0
    # The first steps of Adam, with moments that are new, move by at most the rate.
    steps = len(np.flatnonzero(np.isin(open_shards(_shards(tmp_path)).fold, (5, 6, 7, 8)))) // 8
    assert max(moved) < 1.2 * 0.5 * 1e-3 * steps


def _shards(folder):
    meta = load_variables(folder / "whole/rajpurkar_rhythm")[0]
    return meta.training["data_dir"]


def test_records_of_the_base_are_known(call, tmp_path, synthetic_shards, capsys):
    assert call(experiments.train, *TRAIN, "--task", "rhythm", "--epochs", 1) == 0
    dataset = open_shards(synthetic_shards)
    meta = load_variables(tmp_path / "checkpoints/rajpurkar_rhythm")[0]
    assert set(dataset.fold[trained_on(meta, dataset)]) == {1, 2, 3, 4, 5, 6, 7, 8}
    capsys.readouterr()
    assert call(experiments.test, "--task", "rhythm", "--test_folds", "1") == 2
    assert "records of --test_folds trained this network" in capsys.readouterr().err
    assert call(experiments.train, *TRAIN[:4], "--train_folds", "5-7", "--val_folds", "4,9") == 2
    assert "the network in base was trained on fold 4: choose other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--init_from", "none"), "--init_from none, and none does not exist"),
        (("--init_from", "base", "--sub", "True"), "--sub True starts from the 5-class network"),
        (("--init_from", "base", "--config", SMALL), "leave --config out"),
        (("--freeze_epochs", 1), "--freeze_epochs is for a network that was trained before"),
        (("--backbone_lr", 0.1), "--backbone_lr is for a network that was trained before"),
        (("--init_from", "base", "--model", "mousavi"), "the checkpoint is of rajpurkar, not mousavi"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(call, capsys, flags, sentence):
    assert call(experiments.train, "--batchsize", 8, *flags) == 2
    assert sentence in capsys.readouterr().err
