"""The log of a run: what is written, and what happens where it cannot be."""

import errno
import json
import sys
import types

import pytest

from benchmarks.faults import read_events
from imlenet_jax.errors import UserError
from imlenet_jax.training.logs import PEAK, RATE, RunLog, is_complete, read_times

ROW = {
    "epoch": 1,
    "train_loss": 0.5,
    "val_loss": 0.6,
    "val_macro_auc": 0.7,
    "val_mean_accuracy": 0.8,
    "records_per_second": 9.0,
}


def test_every_epoch_is_in_the_json_and_for_tensorboard(tmp_path, capsys):
    with RunLog(tmp_path, "mousavi", {"lr": 0.1}) as log:
        log(ROW)
        log(ROW | {"epoch": 2, "train_loss": float("nan")})
    content = json.loads((tmp_path / "mousavi_train_logs.json").read_text())
    assert content["settings"] == {"lr": 0.1}
    assert content["history"]["epoch"] == [1, 2] and content["history"]["train_loss"] == [0.5, None]
    (events,) = (tmp_path / "mousavi_tensorboard").iterdir()
    assert events.read_bytes().count(b"val_macro_auc") == 2
    assert "epoch 1: loss 0.5000, val loss 0.6000, val macro AUC 0.7000" in capsys.readouterr().out


def test_a_log_that_goes_on_holds_each_epoch_once(tmp_path):
    second = ROW | {"epoch": 2, "train_loss": 0.25}
    for row in (ROW, second):  # the second was logged, but its checkpoint was lost
        with RunLog(tmp_path, "mousavi", {}, history=[ROW][: row["epoch"] - 1]) as log:
            log(row)
    metrics = {name: value for name, value in ROW.items() if name != RATE}
    assert not is_complete(tmp_path, "mousavi", [metrics])
    with RunLog(tmp_path, "mousavi", {}, history=[metrics]) as log:
        assert is_complete(tmp_path, "mousavi", [metrics])
        log(second)
    history = json.loads((tmp_path / "mousavi_train_logs.json").read_text())["history"]
    assert history["train_loss"] == [0.5, 0.25] and RATE not in history
    events = sorted(read_events(tmp_path / "mousavi_tensorboard"))
    assert [(step, value) for step, tag, value in events if tag == "train_loss"] == [(1, 0.5), (2, 0.25)]
    times = json.loads((tmp_path / "mousavi_train_times.json").read_text())
    assert [(row["epoch"], row[RATE]) for row in times] == [(1, 9.0), (2, 9.0)]
    assert times == read_times(tmp_path, "mousavi") and 2**20 < times[0][PEAK] <= times[1][PEAK]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "logs").touch()
    with pytest.raises(NotADirectoryError, match="mousavi_tensorboard"):
        RunLog(tmp_path / "logs", "mousavi", {})


def test_a_full_disk_is_an_error_at_once_and_names_the_folder(tmp_path, file_size_limit):
    with pytest.raises(OSError) as error, RunLog(tmp_path, "mousavi", {}) as log:
        file_size_limit(100)
        log(ROW)
    assert error.value.errno == errno.EFBIG
    assert error.value.filename == str(tmp_path / "mousavi_tensorboard")
    assert not (tmp_path / "mousavi_train_logs.json").exists()


def test_wandb_that_is_absent_or_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="--loggr True needs wandb: pip install"):
        RunLog(tmp_path, "mousavi", {}, use_wandb=True)

    def init(**_):
        raise RuntimeError("api_key not configured (no-tty)\nmore")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    with pytest.raises(UserError, match=r"wandb does not start \(api_key not configured \(no-tty\)\): run wandb login"):
        RunLog(tmp_path, "mousavi", {}, use_wandb=True)
