"""The command for a lent device, end to end on a CPU with tiny networks, and what it does when things go wrong."""

import json
import sys

import pytest

import benchmarks.device
from benchmarks.device import SECTIONS, Session, has_golden
from benchmarks.parts.kernels import kernel_events, summary

TINY = {"mousavi": {"filters": [4], "lstm_units": 4, "hidden": 8}}

PARITY = {name: {"error": 0.5, "pass": True} for name in ("forward", "gradient norms", "training loss")}


def test_every_section_leaves_its_rows(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("benchmarks.parts.ceilings.MATRIX_SIZE", {"cpu": 64})
    monkeypatch.setattr("benchmarks.parts.ceilings.COPY_BYTES", 2**16)
    monkeypatch.setattr(benchmarks.device, "SECONDS", 0.01)
    monkeypatch.setattr(benchmarks.device, "compare", lambda *_: PARITY)
    monkeypatch.setattr(benchmarks.device, "read_inputs", lambda golden: (0, 0))
    for name in ("mousavi.npz", "mousavi.h5"):
        (tmp_path / name).touch()
    flags = ["--models", "mousavi", "--config", json.dumps(TINY), "--batchsize", 8, "--records", 320]
    flags += ["--golden", tmp_path, "--out", tmp_path / "out", "--sections", "ceilings", "steps", "parity", "epochs"]
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
    steps = [(row["mode"], row["dtype"]) for row in results["steps"]]
    assert steps == [("train", "bfloat16"), ("train", "float32"), ("infer", "bfloat16"), ("infer", "float32")]
    assert all(row["records_per_s"] > 0 and row["kernels"] > 0 for row in results["steps"])
    assert [row["precision"] for row in results["parity"]] == ["highest", "default"]
    assert [row["records"] for row in results["epochs"]] == [320, 320]
    report = (tmp_path / "out" / "device.md").read_text()
    assert "| `mousavi` | train | bfloat16 | 8 |" in report and "all hold" in report


def _results(out):
    return json.loads((out / "device.json").read_text())


def _broken():
    raise RuntimeError("no cuDNN configuration")


def test_what_fails_is_recorded_and_the_next_goes_on(tmp_path, capsys):
    session = Session(tmp_path, minutes=1)
    session.work_through(
        "parity", [("one", _broken), ("two", lambda: {"model": "two", "precision": "x", "rows": PARITY})]
    )
    results = _results(tmp_path)
    assert results["failed"] == [{"section": "parity", "what": "one", "reason": "RuntimeError: no cuDNN configuration"}]
    assert [row["model"] for row in results["parity"]] == ["two"]
    assert "no cuDNN configuration" in (tmp_path / "device.md").read_text()


def test_what_there_is_no_time_for_is_left_out(tmp_path, capsys):
    Session(tmp_path, minutes=0).work_through("steps", [("one", _broken)])
    results = _results(tmp_path)
    assert [row["what"] for row in results["left_out"]] == ["one"] and results["failed"] == []
    assert "Left out for want of time: one" in (tmp_path / "device.md").read_text()


def test_a_kill_loses_only_what_was_running(tmp_path):
    def killed():
        raise KeyboardInterrupt

    session = Session(tmp_path, minutes=1)
    row = {"model": "imle_net", "precision": "highest", "rows": PARITY}
    with pytest.raises(KeyboardInterrupt):
        session.work_through("parity", [("one", lambda: row), ("two", killed)])
    assert [found["model"] for found in _results(tmp_path)["parity"]] == ["imle_net"]


def test_sections_are_methods_and_lists_of_results(tmp_path):
    assert all(callable(getattr(benchmarks.device.Bench, name)) for name in SECTIONS)


def test_golden_files_are_looked_for(tmp_path):
    assert not has_golden("resnet101", tmp_path)
    for name in ("resnet101.npz", "resnet101.spec.json", "mousavi.npz", "mousavi.spec.json"):
        (tmp_path / name).touch()
    assert has_golden("resnet101", tmp_path)  # drawn by rule
    assert not has_golden("mousavi", tmp_path)


def test_kernels_of_a_trace_are_summed_by_kind():
    def named(kind, pid, name, tid=0):
        return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}

    def ran(pid, tid, name, dur):
        return {"ph": "X", "pid": pid, "tid": tid, "name": name, "dur": dur}

    events = [
        named("process_name", 1, "/device:GPU:0"),
        named("process_name", 2, "/host:CPU"),
        named("thread_name", 1, "Stream #13(Compute)", 7),
        named("thread_name", 1, "XLA Ops", 8),
        ran(1, 7, "loop_fusion_3", 10),
        ran(1, 7, "loop_fusion_4", 30),
        ran(1, 7, "conv", 5),
        ran(1, 8, "conv", 5),
        ran(2, 7, "python", 99),
    ]
    found = summary(kernel_events(events), 1)
    assert found == {"us": 9, "started": 0.6, "longest": [{"kernel": "loop_fusion", "us": 8, "started": 0.4}]}
