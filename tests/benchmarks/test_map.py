"""The two docstrings that tell a newcomer what there is leave nothing out."""

import re
from pathlib import Path

import pytest

import benchmarks
from benchmarks import parts
from benchmarks.parts.absent import DEVICES, TARGETS


@pytest.mark.parametrize("package", [benchmarks, parts])
def test_names_every_module_and_no_other(package):
    folder = Path(package.__file__).parent
    there = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert set(re.findall("`([a-z_]+)`", package.__doc__)) == there - {"__init__"}


def test_each_absent_gpu_is_described():
    gpus = {name for name, target in DEVICES.items() if target.platform == "cuda"}
    assert {path.stem for path in TARGETS.glob("*.txtpb")} == gpus
