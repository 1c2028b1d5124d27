"""`imlenet`, the one command for all."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import __main__ as module
from experiments.cli import AS_COMMAND
from imlenet_jax.version import __version__
from tests.calls import call


def test_every_command_is_on_the_map_with_its_own_description():
    files = {path.stem for path in Path(module.__file__).parent.glob("*.py")}
    assert set(module.DESCRIPTIONS) == files - {"__init__", "__main__", "cli", "results", "runs", "task"}
    for name, text in module.DESCRIPTIONS.items():
        assert importlib.import_module(f"experiments.{name}").make_parser().description == text


def test_help_version_and_mistakes(monkeypatch, capsys):
    assert call(monkeypatch, module) == 0
    assert capsys.readouterr().out == module.describe() + "\n"
    assert call(monkeypatch, module, "--version") == 0
    assert capsys.readouterr().out.startswith(f"imlenet {__version__} (jax ")
    assert call(monkeypatch, module, "trian") == 2
    assert "'trian' is no command: choose one of prepare, index" in capsys.readouterr().err
    assert call(monkeypatch, module, "completion", "fish") == 2
    assert "takes the name of a shell: bash, zsh, tcsh" in capsys.readouterr().err


def test_the_map_names_all():
    text = module.describe()
    assert all(f"\n  {name} " in text for name in module.DESCRIPTIONS)


def test_a_command_runs_in_its_place_whatever_lies_here(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "train.py").write_text("raise SystemExit('not this one')")
    environment = {name: value for name, value in os.environ.items() if name != AS_COMMAND}
    command = [sys.executable, "-P", "-m", "experiments", "synthesize", "--records", "0", "--out", "x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr == (
        "error: argument --records: '0' is not a whole number of at least 1 (see imlenet synthesize --help)\n"
    )


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_complete_commands_and_flags(shell, tmp_path, monkeypatch, capsys):
    pytest.importorskip("shtab")
    assert call(monkeypatch, module, "completion", shell) == 0
    script = capsys.readouterr().out
    for word in ("inference", "--val_folds", "--format", "stablehlo"):
        assert word in script
    if shutil.which(shell):
        path = tmp_path / "completion"
        path.write_text(script)
        assert subprocess.run([shell, "-n", path]).returncode == 0


def test_without_the_extra_it_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert call(monkeypatch, module, "completion", "bash") == 2
    assert "needs shtab: pip install 'imlenet_jax[completion]'" in capsys.readouterr().err
