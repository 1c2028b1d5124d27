"""Several processes train one network, and none outlives another."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from imlenet_jax.classifier import load
from imlenet_jax.data.loader import select, train_batches
from imlenet_jax.data.shards import open_shards

CONFIG = json.dumps({"filters": [4, 4], "lstm_units": 4, "hidden": 8})
PATIENCE = 180  # seconds: far more than is needed on a busy machine


@pytest.fixture
def train(tmp_path, synthetic_shards):
    """Starts `experiments.train` in `tmp_path`, on so many devices."""
    started = []

    def start(devices, *flags):
        flags = ["--data_dir", synthetic_shards, "--config", CONFIG, "--model", "mousavi", "--batchsize", 8, *flags]
        environment = os.environ | {
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        }
        command = [sys.executable, "-m", "experiments.train", *map(str, flags)]
        with open(tmp_path / f"output{len(started)}", "w") as output:
            started.append(subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=output, stderr=output))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def _history(path, epochs, processes):
    """What is logged of the first epochs, once it is."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if path.exists() and len((history := json.loads(path.read_text())["history"])["epoch"]) >= epochs:
            return {name: values[:epochs] for name, values in history.items() if "per_second" not in name}
        if any(process.poll() for process in processes):
            break
        time.sleep(0.1)
    raise AssertionError([file.read_text()[:3000] for file in sorted(path.parents[1].glob("output*"))])


def test_two_processes_train_stop_and_end_as_one(train, tmp_path, synthetic_shards):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    together = ["--coordinator_address", address, "--num_processes", 2, "--heartbeat", 15, "--epochs", 10**4]
    together += ["--patience", 10**4, "--checkpoint_dir", "two"]

    def start_both():
        return [train(2, *together, "--process_id", i, "--log_dir", f"logs{i}") for i in range(2)]

    first, second = start_both()
    alone = train(4, "--epochs", 2, "--log_dir", "alone")
    found, expected = (
        _history(tmp_path / logs / "mousavi_train_logs.json", 2, (first, second, alone)) for logs in ("logs0", "alone")
    )
    assert found.keys() == expected.keys() and expected["train_loss"][1] < expected["train_loss"][0]
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, err_msg=name)
    assert alone.wait(PATIENCE) == 0

    second.send_signal(signal.SIGTERM)  # one is told, and all stop after the same step
    assert [process.wait(PATIENCE) for process in (first, second)] == [os.EX_TEMPFAIL] * 2
    before = json.loads((tmp_path / "logs0/mousavi_train_logs.json").read_text())["history"]["train_loss"]
    first, second = start_both()
    after = _history(tmp_path / "logs0/mousavi_train_logs.json", len(before) + 2, (first, second))
    assert after["train_loss"][: len(before)] == before
    assert after["epoch"] == list(range(1, len(before) + 3))

    second.send_signal(signal.SIGKILL)
    assert first.wait(PATIENCE) != 0
    assert not (tmp_path / "logs1").exists()
    dataset = open_shards(synthetic_shards)
    signals = dataset.millivolts(np.arange(3))
    one, several = (load(tmp_path / folder / "mousavi", "latest") for folder in ("checkpoints", "two"))
    assert one.meta.epoch == 2 and several.meta.epoch >= 1
    assert several.predict_proba(signals).shape == (3, 5)


def test_the_parts_of_a_batch_are_the_batch(synthetic_shards):
    split = select(open_shards(synthetic_shards), (1, 2), "training")
    whole, *parts = (next(train_batches(split, 8, 0, 1, part=part)) for part in ((0, 1), (0, 2), (1, 2)))
    assert [len(part.signal) for part in parts] == [4, 4]
    for array, *halves in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(np.concatenate(halves), array)
