"""Imports run one way: a room of the package is built on those before it, and on no other."""

import ast
from pathlib import Path

import pytest

import imlenet_jax

ROOMS = (
    ("version", "errors"),
    ("files",),
    ("runtime",),
    ("data",),
    ("models",),
    ("interop", "checkpoints"),
    ("evaluation",),
    ("classifier",),
    ("explanation", "training", "export"),
)
PACKAGE = Path(imlenet_jax.__file__).parent
PLACES = {name: place for place, names in enumerate(ROOMS) for name in names}


def imported(path):
    """The rooms that a file imports from, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "imlenet_jax":
            parts = node.module.split(".")[1:]
            yield from [parts[0]] if parts else (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("imlenet_jax."))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_earlier_rooms(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for other in imported(path):
        assert other == room or PLACES[other] < PLACES[room], f"{room} imports from {other}"
