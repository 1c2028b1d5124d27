"""The time to the first step is that of real trainings, stopped there; its figures are for people."""

import json
import sys

import pytest

from benchmarks.start import main


def test_a_second_start_finds_what_the_first_has_compiled(tmp_path, monkeypatch, capsys):
    out = tmp_path / "start.json"
    config = '{"kernel_size": 2, "filters": 1, "blocks": 1, "widen_every": 1}'
    flags = ["--models", "rajpurkar", "--batchsize", "8", "--turns", "1", "--config", config, "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["x", *flags])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0, capsys.readouterr().err
    (row,) = json.loads(out.read_text())["rows"]
    assert row["cold_s"] > row["imports_s"] > 0 and row["warm_s"] > row["imports_s"]


def test_a_training_that_does_not_start_is_told_of(monkeypatch, capsys):
    flags = ["--models", "rajpurkar", "--batchsize", "8", "--turns", "1", "--config", '{"colour": 1}']
    monkeypatch.setattr(sys, "argv", ["x", *flags])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "the training ended before its first step (error: " in capsys.readouterr().err
