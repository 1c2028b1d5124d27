"""The leaderboard as users call it: to the end, killed on the way, stopped, and asked for what cannot be."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

import experiments.leaderboard
from experiments.runs import Processes, Run, speed
from imlenet_jax.files import exclusive
from tests.calls import call

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 180  # seconds: far more than is needed on a busy machine
NETWORKS = [
    f"{label}=rajpurkar --config '{json.dumps({'kernel_size': size, 'filters': 4, 'blocks': 1})}'"
    for label, size in (("narrow", 4), ("wide", 8))
]
FLAGS = ["--batchsize", 8, "--train_folds", "1-7", "--val_folds", 8, "--test_folds", "9,10", "--num_devices", 1]
MEASURED = ["records_per_second", "seconds", "peak_memory_bytes"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs without a process of their own, which takes its time to start; returns the list of those that were done."""
    done = []

    def run(self, command):
        done.append(Run.read(command[command.index("experiments.runs") + 1 :]))
        done[-1].train_and_test()
        return 0

    monkeypatch.setattr(Processes, "__call__", run)
    return done


@pytest.mark.filterwarnings("always::imlenet_jax.errors.DataWarning")
def test_a_table_is_the_same_after_a_kill(here, synthetic_shards, monkeypatch, capsys, in_this_process):
    flags = ["--models", *NETWORKS, "--data_dir", synthetic_shards, *FLAGS, "--epochs", 2, "--resamples", 50]
    assert call(monkeypatch, experiments.leaderboard, *flags, "--seeds", 2, "--out", "whole", "--published") == 0
    shown, error = capsys.readouterr()
    assert "not to be compared with published figures: the data are 80 records (synthetic), not PTB-XL's" in error
    assert [(run.folder.parent.name, run.folder.name) for run in in_this_process] == [
        *(("narrow", "seed42"), ("wide", "seed42"), ("narrow", "seed43"), ("wide", "seed43"))
    ]
    assert shown.count("in our interval") + shown.count("above it") + shown.count("below it") >= 6
    whole = pd.read_csv("whole/table.csv")
    assert sorted(whole["network"]) == ["narrow", "wide"] and whole["seeds"].tolist() == [2, 2]
    assert (whole[MEASURED] > 0).all(axis=None) and (whole["peak_memory_bytes"] > 2**20).all()
    assert whole["difference_value"][1] == pytest.approx(whole["auc_value"][1] - whole["auc_value"][0])
    for name in ("table.txt", "table.md", "table.tex", "table.json", "figure.png"):
        assert (here / "whole" / name).stat().st_size > 500
    assert (here / "whole/wide/seed43/checkpoints/rajpurkar/card.md").is_file()  # for all the other commands

    in_this_process.clear()
    shutil.rmtree("whole/wide/seed42/checkpoints")  # a record and predictions are all that a finished run is asked for
    record = json.loads((path := here / "whole/wide/seed42/rajpurkar.json").read_text())
    del record["flags"]["backbone_lr"]  # as a version before that flag wrote it
    path.write_text(json.dumps(record))
    assert call(monkeypatch, experiments.leaderboard, *flags, "--seeds", 2, "--out", "whole") == 0
    assert not in_this_process  # all are finished

    shutil.copytree("whole", "killed")
    shutil.rmtree("killed/wide/seed43")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "experiments.leaderboard", *map(str, flags), "--seeds", "2", "--out", "killed"]
    with open("output", "w") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as one:
        logs, end = here / "killed/wide/seed43/logs/rajpurkar_train_logs.json", time.monotonic() + PATIENCE
        while not logs.exists() and one.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        one.kill()
    assert logs.exists(), Path("output").read_text()[-3000:]
    lock = here / "killed/wide/seed43/checkpoints/.rajpurkar.checkpoint_dir.lock"
    with exclusive(lock):  # its run ends with it
        pass
    assert pd.read_csv("killed/table.csv")["seeds"].tolist() in ([2, 1], [1, 2])
    assert call(monkeypatch, experiments.leaderboard, *flags, "--seeds", 2, "--out", "killed") == 0
    assert [run.folder.parent.name for run in in_this_process] == ["wide"]
    pd.testing.assert_frame_equal(pd.read_csv("killed/table.csv").drop(columns=MEASURED), whole.drop(columns=MEASURED))

    capsys.readouterr()
    for _ in range(2):
        assert call(monkeypatch, experiments.leaderboard, *flags, "--out", "whole", "--lr", 0.1) == 2
        assert "whole/narrow/seed42 holds a run with other flags (--lr was 0.001, is 0.1)" in capsys.readouterr().err
        shutil.rmtree("whole/narrow/seed42/checkpoints", ignore_errors=True)  # its record says the same


def test_speed_is_that_of_epochs_that_were_timed():
    epochs = [{"records_per_second": rate} for rate in (1.0, 8.0, 0.0, 10.0)]
    assert (
        speed(epochs) == 9.0 and speed(epochs[:1]) == speed([epochs[0], epochs[2]]) == 1.0 and speed(epochs[2:3]) == 0
    )


def test_a_run_that_fails_does_not_end_the_others(here, synthetic_shards, monkeypatch, capsys):
    flags = ["--models", "mousavi", "imle_net", "--data_dir", synthetic_shards, "--seeds", 1, "--out", "out"]
    monkeypatch.setattr(Processes, "__call__", lambda self, command: -9 if "--model=mousavi" in command else 2)
    assert call(monkeypatch, experiments.leaderboard, *flags) == 2
    error = capsys.readouterr().err
    assert "2 of 2 runs failed, as is said above (mousavi, superclass, seed 42, ended by SIGKILL; imle_net, " in error
    assert pd.read_csv("out/table.csv")["seeds"].tolist() == [0, 0]


def test_a_signal_stops_it_and_tells_how_to_go_on(here, synthetic_shards, monkeypatch, capsys):
    flags = ["--models", "mousavi", "--data_dir", synthetic_shards, "--seeds", 2, "--out", "out"]
    monkeypatch.setattr(Processes, "__call__", lambda self, command: [signal.raise_signal(signal.SIGTERM), -15][1])
    before = signal.getsignal(signal.SIGTERM)
    assert call(monkeypatch, experiments.leaderboard, *flags) == os.EX_TEMPFAIL
    told = capsys.readouterr().out.partition("to continue: ")[2]
    assert shlex.split(told) == ["python", "-m", "experiments.leaderboard", *map(str, flags)]
    assert signal.getsignal(signal.SIGTERM) == before


def test_signals_reach_the_run_and_its_input_ends_with_its_parent():
    program = "import signal, time; signal.signal(15, lambda *_: exit(75)); print(flush=True); time.sleep(100)"
    with Processes() as start:
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
        assert start([sys.executable, "-c", program]) == 75 or start.stopped
        assert start.stopped
        assert start([sys.executable, "-c", "import time; time.sleep(100)"]) == -signal.SIGTERM  # none begins any more
    waits = "import threading, experiments.runs as r; threading.Thread(target=r._end_with_parent).start()"
    ended = subprocess.run(
        [sys.executable, "-c", waits], stdin=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": ROOT}
    )
    assert ended.returncode == 1


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--models", "mousvi"], "'mousvi' is not [LABEL=]MODEL: a label is of letters, digits and ._+-, a model one"),
        (["--models", "../x=mousavi"], "'../x=mousavi' is not [LABEL=]MODEL"),
        (["--models", ""], "'' is not [LABEL=]MODEL"),
        (["--models", "mousavi --config '{"], "mousavi --config '{ lacks a quotation mark"),
        (["--models", "mousavi", "mousavi --lr 0.1"], "--models has 'mousavi' twice: give one a label of its own"),
        (["--models", "mousavi --data_dir x"], "--data_dir is no flag that a network can have of its own"),
        (["--models", "mousavi --lr x"], "argument --lr: 'x' is not a finite number (see python -m experiments.train"),
        (["--models", "mousavi --config '{\"x\": 1}'"], "mousavi has no option 'x'"),
        (["--tasks", "rythm"], "has no task 'rythm': choose --task"),
        (["--data_dir", "nowhere"], "--data_dir nowhere: no such folder"),
        (["--train_folds", "1-9"], "--train_folds shares fold 9 with --val_folds"),
        (["--init_from", "nowhere"], "nowhere: no such checkpoint folder"),
        (["--out", "file"], "File exists (file): a file is where a folder is needed"),
        (["--out", "taken"], "another leaderboard is writing to taken: wait for its end, or choose another --out"),
    ],
)
def test_refused_in_one_sentence(here, synthetic_shards, monkeypatch, capsys, flags, sentence):
    (here / "file").touch()
    (here / "taken").mkdir()
    usual = {"--models": ["mousavi"], "--data_dir": [synthetic_shards], flags[0]: flags[1:]}
    with exclusive(here / "taken/.leaderboard.lock"):
        given = [word for flag, values in usual.items() for word in (flag, *values)]
        assert call(monkeypatch, experiments.leaderboard, *given) == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error and error.count("\n") == 1
    assert not (here / "results").exists()
