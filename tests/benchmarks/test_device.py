"""The command for a lent device, end to end on a CPU with tiny networks, and what it does when things go wrong."""

import argparse
import json
import sys

import numpy as np
import pytest

import benchmarks.device
from benchmarks.device import SECTIONS, largest
from benchmarks.parts.device_report import device_report
from benchmarks.parts.machine import machine
from benchmarks.parts.records import random_dataset
from imlenet_jax.data.loader import select

TINY = {"mousavi": {"filters": [4], "lstm_units": 4, "hidden": 8}}

PARITY = {name: {"error": 0.5, "pass": True} for name in ("forward", "gradient norms", "training loss")}


def test_every_section_leaves_its_rows(monkeypatch, capsys, tmp_path, synthetic_shards):
    monkeypatch.setattr("benchmarks.parts.ceilings.MATRIX_SIZE", {"cpu": 64})
    monkeypatch.setattr("benchmarks.parts.ceilings.COPY_BYTES", 2**16)
    fewer = {
        "SECONDS": 0.01,
        "EPOCHS": 2,
        "REPEATS": 2,
        "MOST": 10,
        "STEPS_PER_CALL": 2,
        "SEEDS": 1,
        "NETWORKS": 2,
        "SAME": 2,
    }
    for name, value in fewer.items():
        monkeypatch.setattr(benchmarks.device, name, value)
    monkeypatch.setattr(benchmarks.device, "free_bytes", lambda: 10**12)
    monkeypatch.setattr(benchmarks.device, "compare", lambda *_: PARITY)
    monkeypatch.setattr(benchmarks.device, "read_inputs", lambda golden: (0, 0))
    flags = ["--models", "mousavi", "--config", json.dumps(TINY), "--batchsize", 8, "--records", 320]
    flags += ["--golden", tmp_path, "--out", tmp_path / "out", "--data_dir", synthetic_shards]
    flags += ["--sections", *(name for name in SECTIONS if name != "profile")]  # a CPU's trace has no kernels
    monkeypatch.setattr(sys, "argv", ["x", *map(str, flags)])
    with pytest.raises(SystemExit) as ended:
        benchmarks.device.main()
    assert ended.value.code == 0, capsys.readouterr().err
    results = json.loads((tmp_path / "out" / "device.json").read_text())
    assert results["failed"] == [] and results["left_out"] == []
    assert [(row["dtype"], row["precision"]) for row in results["ceilings"]] == [
        ("bfloat16", "default"),
        ("float32", "default"),
        ("float32", "highest"),
    ]
    steps = [(row["mode"], row["batchsize"], row["steps_per_call"]) for row in results["steps"]]
    assert steps[::2] == [("train", 8, 1), ("infer", 8, 1), ("train", 8, 2)]
    assert steps[1::2] == steps[::2] and [row["dtype"] for row in results["steps"]] == ["bfloat16", "float32"] * 3
    assert [row["batchsize"] for row in results["largest"]] == [256, 256]
    assert all(row["records_per_s"] > 0 for row in results["steps"])
    assert [row["precision"] for row in results["parity"]] == ["highest", "default"]
    assert [row["records"] for row in results["epochs"]] == [320, 320]
    learned, together, *bits = results["training"]
    assert all(0 <= learned[dtype] <= 1 for dtype in ("bfloat16", "float32"))
    np.testing.assert_allclose(together["first_losses_together"], together["first_losses_in_turn"], rtol=1e-5)
    assert [(row["deterministic"], row["same"]) for row in bits] == [(True, True), (False, True)]
    for row in results["convolutions"]:
        assert row["shapes"] == len(row["longest_s"]) > 1 and row["failed"] == {}
    report = (tmp_path / "out" / "device.md").read_text()
    assert "| `mousavi` | train | bfloat16 | 8 |" in report and "all hold" in report


def test_sections_are_methods_and_lists_of_results(tmp_path):
    assert all(callable(getattr(benchmarks.device.Bench, name)) for name in SECTIONS)


def test_a_program_that_is_not_understood_keeps_its_times(monkeypatch, tmp_path):
    def unknown(*_):
        raise ValueError("no such instruction")

    monkeypatch.setattr(benchmarks.device, "step_cost", unknown)
    monkeypatch.setattr(benchmarks.device, "SECONDS", 0.01)
    args = argparse.Namespace(models=["mousavi"], batchsize=[8], config=TINY)
    bench = benchmarks.device.Bench(args, select(random_dataset(tmp_path, 8), (1,), "training"))
    row = next(bench.steps()).measure()
    assert row["step_s"]["median"] > 0 and row["not_counted"] == "ValueError: no such instruction"


def test_the_largest_batch_is_what_memory_and_records_hold():
    assert largest(512, 10, 79, 10**6) == 2048
    assert largest(512, 10, 79, 1500) == 1024
    assert largest(512, 10, 19, 10**6) is None and largest(512, None, 79, 10**6) is None


def test_the_originals_are_timed_beside_ours(monkeypatch, tmp_path):
    class Slow:
        """Two seconds a step in training, one in inference."""

        framework = "torch 0.0"

        def __init__(self, python, repository, model, x, y, *how):
            assert x.shape == (8, 1000, 12) and y.shape == (8, 5) and how in (("float32",), ("float32", "compile"))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def turn(self, mode, seconds):
            return [{"train": 2.0, "infer": 1.0}[mode]]

    monkeypatch.setattr(benchmarks.device, "Original", Slow)
    monkeypatch.setattr(benchmarks.device, "DTYPES", {"float32": None})
    args = argparse.Namespace(
        models=["mousavi", "ecgnet"], batchsize=[8], reference=tmp_path, reference_python="python"
    )
    bench = benchmarks.device.Bench(args, select(random_dataset(tmp_path, 8), (1,), "training"))
    bench._steps["ecgnet", "train", "float32", 8] = {"step_s": {"median": 0.5}}
    eager, compiled = [task.measure() for task in bench.originals()]
    assert (eager["model"], eager["how"], compiled["how"]) == ("ecgnet", "eager", "compile")
    assert eager["train"]["ours_faster"] == 4 and "ours_faster" not in eager["infer"]
    assert eager["infer"]["step_s"]["median"] == 1
    report = device_report(
        {"machine": machine("x") | {"driver": None}, "originals": [eager], "left_out": [], "failed": []}
    )
    assert (
        "| `ecgnet` | float32 | eager | 2,000 (2,000, 2,000) | 4.00 | 1,000 (1,000, 1,000) | - | torch 0.0 |" in report
    )
