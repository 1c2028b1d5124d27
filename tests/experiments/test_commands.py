"""The commands as users call them: train, test, convert, and how they refuse."""

import json
import shlex
import signal

import numpy as np
import pandas as pd
import pytest

import experiments.convert
import experiments.test
import experiments.train
from benchmarks.parity import GOLDEN
from benchmarks.parts.drawn import draw
from imlenet_jax.checkpoints.reading import read_meta
from imlenet_jax.classifier import load
from imlenet_jax.data.shards import open_shards
from imlenet_jax.data.synthetic import write_dataset
from imlenet_jax.files import exclusive
from imlenet_jax.training.logs import RunLog
from tests.calls import call

SMALL = json.dumps({"filters": [4, 4], "blocks_per_stage": 1, "lstm_units": 4, "attention_dim": 4})


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_then_test(here, synthetic_shards, monkeypatch, capsys):
    flags = ["--data_dir", synthetic_shards, "--batchsize", 8]
    train = [
        "--epochs",
        2,
        "--config",
        SMALL,
        "--seed",
        1,
        "--loggr",
        "False",
        "--train_folds",
        "1-7",
        "--val_folds",
        "8",
    ]
    assert call(monkeypatch, experiments.train, *flags, *train) == 0
    logs = json.loads((here / "logs/imle_net_train_logs.json").read_text())
    assert logs["history"]["epoch"] == [1, 2]
    assert logs["history"]["train_loss"][1] < logs["history"]["train_loss"][0]
    assert list((here / "logs/imle_net_tensorboard").iterdir())

    test = ["--test_folds", "9,10", "--temperature", "True"]
    assert call(monkeypatch, experiments.test, *flags, *test) == 2
    assert "--val_folds shares fold 9 with --test_folds: choose folds that are apart" in capsys.readouterr().err
    test += ["--val_folds", 8, "--by", "sex", "age", "--coverage", 0.5]
    assert call(monkeypatch, experiments.test, *flags, *test) == 0
    shown = capsys.readouterr().out
    assert "macro_auc" in shown and "published" not in shown.casefold()  # the records are synthetic
    report = json.loads((here / "logs/imle_net_test_logs.json").read_text())
    predictions = pd.read_csv(here / "logs/imle_net_test_predictions.csv")
    before, after = report["calibration"].values()
    assert report["temperature"] != 1 and before["mean"]["ece"] != after["mean"]["ece"]
    rates = report["confusion"]["youden_thresholds"]["NORM"]
    assert rates["true_positive"] + rates["false_negative"] == report["metrics"]["positives"]["NORM"]
    assert (here / "logs/imle_net_test_reliability.png").stat().st_size > 10_000
    assert len(predictions) == report["records"] == report["metrics"]["n"]
    groups = json.loads((here / "logs/imle_net_test_groups.json").read_text())["by"]
    assert sum(group["n"] for group in groups["sex"].values()) == len(predictions)
    assert sum(group["n"] for group in groups["age"].values()) == len(predictions)
    sets = pd.read_csv(here / "logs/imle_net_test_sets.csv", keep_default_na=False)
    assert sets["ecg_id"].tolist() == predictions["ecg_id"].tolist()

    classifier = load(here / "checkpoints/imle_net")
    from imlenet_jax.data.shards import open_shards

    dataset = open_shards(synthetic_shards)
    rows = np.flatnonzero(np.isin(dataset.ecg_id, predictions["ecg_id"]))
    expected = predictions[[f"prob_{name}" for name in classifier.classes]]
    np.testing.assert_allclose(classifier.predict_proba(dataset.millivolts(rows)), expected, rtol=1e-3, atol=1e-5)

    assert call(monkeypatch, experiments.test, *flags, "--test_folds", "7,10") == 2
    assert "records of --test_folds trained this network, so it would look better" in capsys.readouterr().err
    assert call(monkeypatch, experiments.test, *flags, "--test_folds", "7,10", "--allow_seen", "True") == 0
    capsys.readouterr()

    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert call(monkeypatch, experiments.train, *flags, *train) == 0
    assert "imle_net: already finished after 2 epochs, nothing to do" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert call(monkeypatch, experiments.train, *flags, *train, "--lr", 0.1) == 2
    assert "holds a run with other flags (--lr was 0.001, is 0.1): give the same" in capsys.readouterr().err

    # Anew, and stopped by a signal on the way: same seed, same machine, same bits.
    log = RunLog.__call__
    monkeypatch.setattr(RunLog, "__call__", lambda self, row: [log(self, row), signal.raise_signal(signal.SIGTERM)])
    assert call(monkeypatch, experiments.train, *flags, *train, "--resume", "False") == 75
    shown = capsys.readouterr().out
    assert "moved to logs/imle_net_train_logs.json.old-1" in shown and "to checkpoints/imle_net.old-1" in shown
    command = shlex.split(shown.partition("to continue: python -m experiments.train ")[2])
    assert command == [*map(str, flags), *map(str, train)]
    monkeypatch.setattr(RunLog, "__call__", log)
    assert call(monkeypatch, experiments.train, *command) == 0
    assert "imle_net: goes on from epoch 1 (checkpoints/imle_net/1)" in capsys.readouterr().out
    again = json.loads((here / "logs/imle_net_train_logs.json").read_text())
    assert again["history"] == logs["history"]


def test_a_loss_that_is_no_number_names_its_records(here, synthetic_shards, monkeypatch, capsys):
    flags = ["--data_dir", synthetic_shards, "--batchsize", 8, "--config", SMALL, "--lr", 1e30]
    assert call(monkeypatch, experiments.train, *flags) == 2
    assert "the records of its batch are in logs/imle_net_not_finite.json" in capsys.readouterr().err
    told = json.loads((here / "logs/imle_net_not_finite.json").read_text())
    assert told["epoch"] == 1 and len(set(told["ecg_ids"])) == 8


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ["--sub", "True"],
            "--sub True starts from a trained 5-class network, and checkpoints/imle_net does not exist",
        ),
        (["--sub", "True", "--config", SMALL], "are those of the network that training starts from"),
        (["--sub_split", "reference"], "--sub_split reference is for the sub-diagnosis of MI: add --sub True"),
        (["--data_dir", "nowhere"], "--data_dir nowhere: no such folder"),
        (["--data_dir", "."], "ptbxl_database.csv"),
        (["--num_devices", "99"], "--num_devices 99: there are 8"),
        (["--config", '{"lstm_units": 10000000}'], "'lstm_units' takes whole numbers from 1 to 1000000"),
        (["--drop_last", "False", "--num_devices", "8", "--batchsize", "56"], "leaves a last batch of"),
        (["--checkpoint_dir", "file/x"], "Not a directory (file/x): a file is where"),
        (["--resume", "perhaps"], "'perhaps' is neither True nor False"),
        (["--resume", "True"], "--resume True: checkpoints/imle_net holds no checkpoint to continue"),
        (["--save_every_steps", "0"], "'0' is not a whole number of at least 1"),
    ],
)
def test_train_refuses_in_one_sentence(here, synthetic_shards, monkeypatch, capsys, flags, sentence):
    (here / "file").touch()
    data = [] if "--data_dir" in flags else ["--data_dir", synthetic_shards]
    assert call(monkeypatch, experiments.train, *data, *flags) == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error
    assert not (here / "checkpoints").exists() or not any((here / "checkpoints").rglob("variables"))


def test_an_interrupted_run_keeps_its_checkpoints(here, synthetic_shards, monkeypatch, capsys):
    def interrupt(self, row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunLog, "__call__", interrupt)
    assert (
        call(monkeypatch, experiments.train, "--data_dir", synthetic_shards, "--config", SMALL, "--batchsize", 8) == 130
    )
    assert capsys.readouterr().err.endswith("interrupted\n")
    assert read_meta(here / "checkpoints/imle_net", "latest")[0] == 2


def test_logs_that_cannot_be_written_leave_earlier_checkpoints_in_place(here, synthetic_shards, monkeypatch, capsys):
    (here / "checkpoints/imle_net/1").mkdir(parents=True)
    (here / "file").touch()
    flags = ["--data_dir", synthetic_shards, "--config", SMALL, "--log_dir", "file", "--resume", "False"]
    assert call(monkeypatch, experiments.train, *flags) == 2
    assert "error: File exists (file): a file is where" in capsys.readouterr().err
    assert (here / "checkpoints/imle_net/1").is_dir()


@pytest.mark.filterwarnings("always::imlenet_jax.errors.DataWarning")  # as users see them
def test_a_second_training_in_the_same_folders_is_refused(here, synthetic_shards, monkeypatch, capsys):
    flags = ["--data_dir", synthetic_shards, "--model", "mousavi", "--log_dir", "same", "--checkpoint_dir", "same"]
    (here / "same").mkdir()
    for flag in ("checkpoint_dir", "log_dir"):
        with exclusive(here / f"same/.mousavi.{flag}.lock"):
            assert call(monkeypatch, experiments.train, *flags) == 2
        error = capsys.readouterr().err
        assert f"another training of mousavi is writing to same: wait for its end, or choose another --{flag}" in error
    small = json.dumps({"filters": [4, 4], "lstm_units": 4, "hidden": 8})
    flags += ["--config", small, "--batchsize", 8, "--epochs", 1, "--test_folds", "10", "--min_likelihood", "50"]
    assert call(monkeypatch, experiments.train, *flags, "--train_folds", "1-7", "--val_folds", "8,9") == 0
    told = capsys.readouterr().out.splitlines()[-1]
    command = shlex.split(told.removeprefix("next: python -m experiments.test "))
    assert command[-4:] == ["--val_folds", "8,9", "--min_likelihood", "50"]
    assert call(monkeypatch, experiments.test, *command) == 0
    assert "chose this network" not in capsys.readouterr().err
    assert call(monkeypatch, experiments.test, *command, "--val_folds", 10, "--test_folds", 9) == 0
    assert "fold 9 chose this network's best epoch and its thresholds" in capsys.readouterr().err


def test_validation_records_that_are_all_alike_are_refused(here, monkeypatch, capsys):
    write_dataset(here / "data", 14, 0, progress=False)  # one of them in fold 9
    assert call(monkeypatch, experiments.train, "--data_dir", here / "data", "--batchsize", 8) == 2
    assert "all validation records have the same classes" in capsys.readouterr().err


def test_test_refuses_a_missing_checkpoint(here, synthetic_shards, monkeypatch, capsys):
    assert call(monkeypatch, experiments.test, "--data_dir", synthetic_shards) == 2
    assert "checkpoints/imle_net: no such checkpoint folder" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:no record has class")
def test_convert_for_crops_and_another_task(here, synthetic_shards, monkeypatch, capsys):
    task = open_shards(synthetic_shards).task("rhythm")
    spec = json.loads((GOLDEN / "xresnet1d101.spec.json").read_text())
    arrays = {name: draw(1, name, tuple(shape), norm) for name, shape, norm in spec}
    arrays |= {name: np.zeros((len(task.classes), *arrays[name].shape[1:])) for name in ("8.8.weight", "8.8.bias")}
    np.savez("w.npz", **arrays)
    flags = [
        "--model",
        "xresnet1d101",
        "--weights",
        "w.npz",
        "--out",
        "checkpoints/xresnet1d101_rhythm",
        "--task",
        "rhythm",
    ]
    assert call(monkeypatch, experiments.convert, *flags) == 2
    assert "--task rhythm needs --data_dir" in capsys.readouterr().err
    flags += ["--data_dir", synthetic_shards, "--crop", 2.5]
    assert call(monkeypatch, experiments.convert, *flags) == 0
    found = load("checkpoints/xresnet1d101_rhythm")
    assert (found.classes, found.samples, found.network.config.length) == (task.classes, 1000, 250)
    flags = ["--model", "xresnet1d101", "--task", "rhythm", "--data_dir", synthetic_shards, "--split", "val"]
    assert call(monkeypatch, experiments.test, *flags) == 0


@pytest.mark.filterwarnings("ignore:signals. the leads typically")  # its inputs are noise
def test_convert_makes_a_checkpoint_that_predicts(here, parity_folder, monkeypatch, capsys):
    weights = parity_folder / "mousavi.h5"
    flags = ["--model", "mousavi", "--weights", weights, "--out", "converted"]
    assert call(monkeypatch, experiments.convert, *flags, "--scaler_mean", 0, "--scaler_std", 1) == 0
    x = np.load(parity_folder / "inputs.npz")["x"]
    stored = np.load(parity_folder / "mousavi.npz")["probs"]
    np.testing.assert_allclose(load("converted").predict_proba(x), stored, atol=1e-4)
    assert call(monkeypatch, experiments.convert, *flags) == 2
    assert "--out converted exists and is not an empty folder" in capsys.readouterr().err
    other = ["--model", "imle_net", "--weights", weights, "--out", "other"]
    assert call(monkeypatch, experiments.convert, *other) == 2
    assert "is not a weight file of imle_net: layer 'conv1d_2'" in capsys.readouterr().err
