"""The host's share is measured on epochs of several lengths; its figures are for people."""

import json
import sys

import pytest

from benchmarks.host import main


def test_measures_both_ways_of_feeding(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.parts.records.SECONDS", 1)
    out = tmp_path / "host.json"
    monkeypatch.setattr(sys, "argv", ["x", "--steps", "3", "4", "--turns", "1", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["data_on_device"], row["steps"]) for row in rows] == [(True, 3), (True, 4), (False, 3), (False, 4)]
    for row in rows:
        assert row["host_us"] == row["loop_us"] - row["bare_us"] and min(row["bare_us"], row["alone_us"]) > 0
    assert "host alone" in capsys.readouterr().out
