"""Own recordings are prepared by processes of their own; the figures are for people."""

import json
import sys

import pytest

from benchmarks.recordings import main


def test_measures_a_few_recordings(tmp_path, monkeypatch, capsys):
    out = tmp_path / "recordings.json"
    monkeypatch.setattr(sys, "argv", ["x", "--records", "3", "5", "--workers", "1", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0, capsys.readouterr().err
    rows = json.loads(out.read_text())["rows"]
    assert [(row["records"], row["workers"]) for row in rows] == [(3, 1), (5, 1)]
    assert all(row["seconds"] > 0 and row["peak_mb"] > 10 for row in rows)
