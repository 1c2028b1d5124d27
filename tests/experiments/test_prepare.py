"""The command `python -m experiments.prepare`."""

import pytest

import experiments.prepare
from imlenet_jax.data.synthetic import write_dataset
from tests.calls import call


@pytest.fixture
def command(monkeypatch, capsys):
    """Run with flags; returns (exit status, standard output, standard error)."""
    return lambda *flags: (call(monkeypatch, experiments.prepare, *flags), *capsys.readouterr())


def test_converts_once_and_counts(command, tmp_path):
    write_dataset(tmp_path / "data", 20, 0, progress=False)
    status, text, _ = command("--data_dir", tmp_path / "data", "--out", tmp_path / "out", "--workers", 2)
    assert status == 0
    assert text.startswith("device: CPU (numpy only)\n20 of 20 records converted in ")
    assert f"shards: {tmp_path / 'out'}\n" in text
    assert "for task 'superclass': 20 (CD " in text
    status, text, _ = command("--data_dir", tmp_path / "data", "--out", tmp_path / "out")
    assert status == 0
    assert "all 20 records were prepared before: nothing to do" in text


def test_missing_records(command, tmp_path):
    write_dataset(tmp_path / "data", 20, 0, progress=False)
    next(iter(sorted((tmp_path / "data").glob("records100/*/*.dat")))).unlink()
    status, _, error = command("--data_dir", tmp_path / "data")
    assert status == 2
    assert "error: 1 of 20 records in" in error
    assert error.count("\n") == 1
    status, text, _ = command("--data_dir", tmp_path / "data", "--allow_missing", "True")
    assert status == 0
    assert "19 of 19 records converted" in text


@pytest.mark.parametrize(
    "flags", [["--sampling_rate", "250"], ["--workers", "0"], ["--allow_missing", "maybe"], ["--data_dir", "nowhere"]]
)
def test_a_bad_flag_is_one_sentence_and_status_2(command, flags):
    status, _, error = command(*flags)
    assert status == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
