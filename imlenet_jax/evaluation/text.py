"""How figures are written: numbers, intervals, columns."""

from collections.abc import Mapping, Sequence
from typing import Any


def as_number(value: float | None, sign: str = "") -> str:
    """Four decimals, after a plus where ``sign`` is ``+``; ``undefined`` where there is none."""
    return "undefined" if value is None else f"{value:{sign}.4f}"


def as_range(entry: Mapping[str, Any], sign: str = "") -> str:
    """The ``low`` and ``high`` of an entry, as `as_number` writes them."""
    return "undefined" if entry["low"] is None else f"[{entry['low']:{sign}.4f}, {entry['high']:{sign}.4f}]"


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of columns, the first ``left`` of them to the left, with a rule below the header."""
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join([*map(str.ljust, row[:left], widths), *map(str.rjust, row[left:], widths[left:])]) for row in table
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
