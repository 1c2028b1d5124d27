"""A run that is short of time, or fails, or is killed."""

import json

import pytest

from benchmarks.parts import session as sessions
from benchmarks.parts.session import Session, Task

PARITY = {name: {"error": 0.5, "pass": True} for name in ("forward", "gradient norms", "training loss")}


def _results(out):
    return json.loads((out / "device.json").read_text())


def _broken():
    raise RuntimeError("no cuDNN configuration")


def test_what_fails_is_recorded_and_the_next_goes_on(tmp_path, capsys):
    session = Session("x", ["parity", "steps"], tmp_path, minutes=1)
    session.work_through(
        "parity",
        [Task("", "one", _broken), Task("", "two", lambda: {"model": "two", "precision": "x", "rows": PARITY})],
    )
    results = _results(tmp_path)
    assert results["failed"] == [{"section": "parity", "what": "one", "reason": "RuntimeError: no cuDNN configuration"}]
    assert [row["model"] for row in results["parity"]] == ["two"]
    assert "no cuDNN configuration" in (tmp_path / "device.md").read_text()


def test_what_there_is_no_time_for_is_left_out(tmp_path, capsys):
    Session("x", ["parity", "steps"], tmp_path, minutes=0).work_through("steps", [Task("", "one", _broken)])
    results = _results(tmp_path)
    assert [row["what"] for row in results["left_out"]] == ["one"] and results["failed"] == []
    assert "Left out for want of time: one" in (tmp_path / "device.md").read_text()


def test_a_kill_loses_only_what_was_running(tmp_path):
    def killed():
        raise KeyboardInterrupt

    session = Session("x", ["parity", "steps"], tmp_path, minutes=1)
    row = {"model": "imle_net", "precision": "highest", "rows": PARITY}
    with pytest.raises(KeyboardInterrupt):
        session.work_through("parity", [Task("", "one", lambda: row), Task("", "two", killed)])
    assert [found["model"] for found in _results(tmp_path)["parity"]] == ["imle_net"]


def test_what_is_like_something_slow_is_left_out_and_the_rest_is_not(tmp_path, monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(sessions.time, "monotonic", lambda: clock[0])

    def takes(seconds):
        def measure():
            clock[0] += seconds
            return {"model": "x", "precision": "x", "rows": PARITY}

        return measure

    tasks = [("slow", "first", 35), ("quick", "second", 1), ("slow", "third", 35), ("quick", "fourth", 5)]
    tasks += [("like none", "fifth", 1)]
    Session("x", ["parity"], tmp_path, minutes=1).work_through("parity", [Task(a, b, takes(c)) for a, b, c in tasks])
    assert [row["what"] for row in _results(tmp_path)["left_out"]] == ["third", "fifth"]
    assert [row["took_s"] for row in _results(tmp_path)["parity"]] == [35, 1, 5]


def test_numbers_that_are_none_and_rows_that_no_report_tells_are_written_too(tmp_path):
    session = Session("x", ["parity", "steps"], tmp_path, minutes=1)
    wrong = PARITY | {"forward": {"error": float("nan"), "pass": False, "ours": [1.0, float("inf")]}}
    row = {"model": "imle_net", "precision": "highest", "rows": wrong}
    session.work_through("parity", [Task("", "one", lambda: row)])
    found = _results(tmp_path)["parity"][0]["rows"]["forward"]
    assert found == {"error": None, "pass": False, "ours": [1.0, None]}
    assert "| no number | " in (tmp_path / "device.md").read_text()
    session.work_through("steps", [Task("", "two", lambda: {"model": "imle_net"})])
    assert _results(tmp_path)["steps"][0]["model"] == "imle_net"
    assert "see device.json" in (tmp_path / "device.md").read_text()


def test_a_device_that_is_broken_ends_the_session(tmp_path):
    def broken():
        raise RuntimeError("INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered")

    session = Session("x", ["parity"], tmp_path, minutes=1)
    session.work_through("parity", [Task("", "one", broken), Task("", "two", broken)])
    results = _results(tmp_path)
    assert [row["what"] for row in results["failed"]] == ["one"] and [row["what"] for row in results["left_out"]] == [
        "two"
    ]
