"""Training as a function gives what the command gives."""

import dataclasses
import json

import numpy as np
import pytest

import experiments.attention
import experiments.test
import experiments.train
import imlenet_jax
from imlenet_jax.classifier import load
from imlenet_jax.data.shards import open_shards
from imlenet_jax.errors import UserError
from imlenet_jax.training.parallel import Devices
from tests.calls import call

SMALL = {"filters": [4, 4], "lstm_units": 4, "hidden": 8}


def test_five_lines_are_the_command(tmp_path, synthetic_shards, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = {"epochs": 2, "batchsize": 8, "seed": np.int64(3), "config": SMALL, "train_folds": np.arange(1, 9)}
    classifier = imlenet_jax.fit("mousavi", synthetic_shards, num_devices=1, **given)
    assert [row["epoch"] for row in load("checkpoints/mousavi", "latest").meta.history] == [1, 2]
    assert (tmp_path / "checkpoints/mousavi/card.md").read_text().startswith("# mousavi, superclass")
    flags = ("--model", "mousavi", "--data_dir", synthetic_shards, "--epochs", 2, "--batchsize", 8, "--seed", 3)
    flags += ("--config", json.dumps(SMALL), "--num_devices", 1)
    assert call(monkeypatch, experiments.train, *flags, "--checkpoint_dir", "other") == 0
    signals = open_shards(synthetic_shards).millivolts(np.arange(4))
    expected = load("other/mousavi").predict_proba(signals)
    np.testing.assert_array_equal(classifier.predict_proba(signals), expected)

    # Each goes on with what the other has begun, and neither trains again what is finished.
    capsys.readouterr()
    assert call(monkeypatch, experiments.train, *flags) == 0
    assert "already finished" in capsys.readouterr().out or (tmp_path / "logs").is_dir()
    (tmp_path / "other/mousavi/card.md").write_text("of a test")
    again = imlenet_jax.fit("mousavi", synthetic_shards, "other/mousavi", num_devices=1, **given)
    assert (tmp_path / "other/mousavi/card.md").read_text() == "of a test"
    np.testing.assert_array_equal(again.predict_proba(signals), expected)
    with pytest.raises(UserError, match=r"--lr was 0.001, is 0.1"):
        imlenet_jax.fit("mousavi", synthetic_shards, num_devices=1, lr=0.1, **given)


def test_a_network_of_crops_takes_whole_records(tmp_path, synthetic_shards, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = {"filters": [4, 4], "blocks_per_stage": 1, "lstm_units": 4, "attention_dim": 4}
    plain = ("--data_dir", synthetic_shards, "--epochs", 1, "--batchsize", 8, "--num_devices", 1)
    flags = (*plain, "--config", json.dumps(small), "--crop", 2.5, "--schedule", "onecycle")
    assert call(monkeypatch, experiments.train, *flags) == 0
    given = {"epochs": 1, "batchsize": 8, "crop": 2.5, "schedule": "onecycle", "config": small, "num_devices": 1}
    classifier = imlenet_jax.fit("imle_net", synthetic_shards, **given)  # finds the command's
    assert (classifier.samples, classifier.network.config.length, classifier.attends) == (1000, 250, False)
    signals = open_shards(synthetic_shards).millivolts(np.arange(2))
    windows = np.stack([signals[:, start : start + 250] for start in range(0, 751, 125)], axis=1)
    alone = imlenet_jax.Classifier(dataclasses.replace(classifier.meta, samples=None), classifier.variables)
    each = alone.predict_proba(windows.reshape(-1, 250, 12)).reshape(2, 7, 5)
    np.testing.assert_allclose(classifier.predict_proba(signals), each.mean(axis=1), atol=1e-6)
    card = (tmp_path / "checkpoints/imle_net/card.md").read_text()
    assert "--schedule onecycle --crop 2.5" in card and "| windows | of 2.5 s, half of one apart" in card

    with pytest.raises(UserError, match=r"imle_net over windows \(--crop 2.5\) has no attention"):
        classifier.attend(signals)
    capsys.readouterr()
    assert call(monkeypatch, experiments.attention, "--data_dir", synthetic_shards) == 2
    assert "imle_net takes records in windows (--crop)" in capsys.readouterr().err
    tests = (
        "--data_dir",
        synthetic_shards,
        "--num_devices",
        1,
        "--test_folds",
        "9,10",
        "--val_folds",
        8,
        "--allow_seen",
        True,
    )
    assert call(monkeypatch, experiments.test, *tests) == 0
    more = ("--init_from", "checkpoints/imle_net", "--checkpoint_dir", "more")
    assert call(monkeypatch, experiments.train, *plain, *more) == 0
    assert load("more/imle_net").samples == 1000
    capsys.readouterr()
    assert call(monkeypatch, experiments.train, *plain, "--crop", 5, *more) == 2
    assert "--crop 5: the network to start from takes 2.5 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"model": "cnn"}, "--model 'cnn' is unknown"),
        ({"val_folds": (8, 9)}, "train_folds and val_folds share fold 8"),
        ({"epoch": 3}, r"fit\(\) has no argument 'epoch': a recipe has .*epochs"),
        ({"task": "colour"}, "has no task 'colour'"),
        ({"crop": 10.0}, "--crop 10: the records have 10 s"),
        ({"batchsize": 10**6}, "is larger than the"),
        ({"batchsize": 0}, "batchsize is 0: it must be 1 or more"),
        ({"epochs": 0}, "epochs is 0: it must be 1 or more"),
        ({"dtype": "float16"}, "dtype is 'float16': choose one of float32, bfloat16"),
        ({"seed": -1}, "seed is -1: it must be from 0"),
        ({"lr": float("nan")}, "lr is nan: it must be a number above 0"),
    ],
)
def test_mistakes_are_one_sentence(arguments, sentence, tmp_path, synthetic_shards, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(Devices()) == 8
    with pytest.raises(UserError, match=sentence):
        imlenet_jax.fit(**{"model": "mousavi", "data_dir": synthetic_shards, "batchsize": 8, **arguments})
    assert not list(tmp_path.iterdir())


def test_networks_are_listed():
    assert imlenet_jax.list_models() == [
        "imle_net",
        "mousavi",
        "rajpurkar",
        "ecgnet",
        "resnet101",
        "xresnet1d101",
        "s4",
    ]
    assert set(imlenet_jax.__all__) <= {*dir(imlenet_jax), *imlenet_jax._WHERE}
