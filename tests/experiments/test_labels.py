"""The command `python -m experiments.labels`."""

import pandas as pd
import pytest

import experiments.labels
from tests.calls import call


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run with flags in a folder of its own; returns (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    return lambda *flags: (call(monkeypatch, experiments.labels, *flags), *capsys.readouterr())


def test_counts_draws_and_writes(command, synthetic_shards, tmp_path):
    status, text, _ = command("--data_dir", synthetic_shards, "--task", "rhythm")
    assert status == 0
    folder = tmp_path / "results" / "labels" / "rhythm"
    table = pd.read_csv(folder / "classes.csv", index_col="class")
    counts = pd.read_csv(folder / "together.csv", index_col="class")
    assert table["records"].to_dict() == {name: counts.loc[name, name] for name in table.index}
    assert (table[["train", "val", "test"]].sum(axis=1) == table["records"]).all()
    assert (table["not_stated"] == table["records"]).all()  # every rhythm of these has likelihood 0
    assert f"'rhythm': {len(table)} classes" in text
    assert (folder / "labels.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in folder.glob("*.csv")} == {
        "classes.csv",
        "together.csv",
        "validators.csv",
        "contradictions.csv",
    }


def test_an_unknown_task_is_named(command, synthetic_shards):
    status, _, error = command("--data_dir", synthetic_shards, "--task", "colour")
    assert status == 2
    assert "has no task 'colour': choose --task superclass or subclass or diagnostic or all or" in error
