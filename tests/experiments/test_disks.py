"""Disks that are full, closed or gone: one sentence, exit status 2, and what was there stays as it was."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

import experiments.compare
import experiments.prepare
import experiments.synthesize
from imlenet_jax.data.prepare import prepare
from imlenet_jax.data.synthetic import write_dataset

PREDICTIONS = "ecg_id,label_A,prob_A\n" + "".join(f"{row},{row % 2},0.{row}\n" for row in range(1, 9))


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command: exit status, and what it said on stderr."""

    def run(module, *flags):
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, flags)])
        with pytest.raises(SystemExit) as ended:
            module.main()
        return ended.value.code, capsys.readouterr().err

    return run


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_full_disk_is_one_sentence_and_leaves_results_as_they_were(call, tmp_path, file_size_limit):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(PREDICTIONS)
    compare = [
        experiments.compare,
        tmp_path / "a.csv",
        tmp_path / "b.csv",
        "--resamples",
        10,
        "--out",
        tmp_path / "out",
    ]
    assert call(*compare)[0] == 0
    before = files(tmp_path)
    file_size_limit(200)
    status, error = call(*compare, "--seed", 1)
    assert status == 2 and error.endswith("comparison.json): free space there or choose another folder\n")
    assert error.startswith("error: File too large (") and error.count("\n") == 1
    assert files(tmp_path) == before


def test_a_full_disk_leaves_no_half_data_set(call, tmp_path, file_size_limit):
    file_size_limit(3000)
    status, error = call(experiments.synthesize, "--records", 20, "--out", tmp_path / "data")
    assert status == 2 and "File too large" in error.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def closed_folder():
    """A folder that may be read and not written to; root, who may write anywhere, gives that up meanwhile."""
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, whose parents only its owner may enter
        folder = Path(name) / "closed"
        Path(name).chmod(0o755)
        write_dataset(folder, 20, 0, progress=False)
        prepare(folder, Path(name) / "elsewhere", progress=False)  # imports what it needs while that may be read
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


def test_a_closed_folder_is_one_sentence_and_nothing_is_written(call, closed_folder):
    before = files(closed_folder)
    status, error = call(experiments.prepare, "--data_dir", closed_folder, "--out", closed_folder / "shards")
    assert (status, error) == (
        2,
        f"error: Permission denied ({closed_folder}/shards): choose a folder that you may write to\n",
    )
    assert files(closed_folder) == before
