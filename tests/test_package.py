"""What is installed is whole."""

import configparser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_files_that_are_not_python_are_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    installed = {
        path
        for package, patterns in config["options.package_data"].items()
        for pattern in patterns.split()
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    rooms = [ROOT / "imlenet_jax", ROOT / "experiments", ROOT / "benchmarks" / "parts"]
    files = {path for room in rooms for path in room.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert installed == {path for path in files if path.suffix != ".py"}
