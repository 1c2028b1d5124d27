"""What else a compiled program tells: messages between devices, library calls, a TPU's cycles, and what moves most."""

import re
from collections import Counter
from typing import Any, NamedTuple

from benchmarks.parts.cost import FREE, instruction_bytes, trip_count
from benchmarks.parts.hlo import Computation, Instruction, Module, parse

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_OP_NAME = re.compile(r'op_name="([^"]*)"')


class Mover(NamedTuple):
    """An instruction of the program: what it reads and writes, its result, and the layer that it is of."""

    bytes: int
    name: str
    shape: str
    layer: str


def collectives(text: str) -> dict[str, dict[str, int]]:
    """Per kind of message between devices: how many, and the bytes of the largest and of all."""
    found: dict[str, dict[str, int]] = {}
    for item in _all_instructions(parse(text)):
        kind = item.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            row = found.setdefault(kind, {"count": 0, "bytes": 0, "largest": 0})
            row["count"] += 1
            row["bytes"] += item.bytes
            row["largest"] = max(row["largest"], item.bytes)
    return found


def library_calls(text: str) -> dict[str, int]:
    """How often each library, or kernel of our own, is called in the text of the program."""
    calls = (item for item in _all_instructions(parse(text)) if item.opcode == "custom-call")
    return dict(Counter(item.text("custom_call_target").strip('"') for item in calls).most_common())


def estimated_cycles(text: str) -> int | None:
    """The cycles that a TPU's compiler expects, loops times their trips; None where the program says nothing of them."""
    if not _CYCLES.search(text):
        return None
    module = parse(text)

    def cycles(name: str) -> int:
        total = 0
        for item in module.computations[name].instructions.values():
            if item.opcode == "while":
                total += (trip_count(module, item) or 1) * cycles(item.text("body"))
            elif item.opcode == "call":
                total += cycles(item.text("to_apply"))
            elif found := _CYCLES.search(item.attributes):
                total += int(found[1])
        return total

    return cycles(module.entry)


def movers(text: str, count: int) -> list[Mover]:
    """The instructions that read and write most; those within loops are left out."""
    module = parse(text)
    entry = module.computations[module.entry]
    rows = [
        Mover(instruction_bytes(module, entry, item), item.name, item.shape, _layer(item))
        for item in entry.instructions.values()
        if item.opcode not in FREE and item.opcode not in ("while", "conditional", "call")
    ]
    return sorted(rows, reverse=True)[:count]


def _layer(item: Instruction) -> str:
    found = _OP_NAME.search(item.attributes)
    return "/".join(found[1].split("/")[1:]) if found else ""


def _all_instructions(module: Module) -> list[Instruction]:
    computations: list[Computation] = list(module.computations.values())
    return [item for computation in computations for item in computation.instructions.values()]


def by_program(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The rows of a `compiled.json` by what tells their programs apart."""
    key = ("target", "model", "mode", "dtype", "batchsize", "devices")
    return {tuple(row[name] for name in key): row for row in rows}


def differences(rows: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """For every program that both have: what it is, and its figures before and after, where they differ."""
    before = by_program(earlier)
    figures = (
        ("GB", "bytes", 1e9),
        ("kernels", "kernels", 1),
        ("peak GB", "peak_bytes", 1e9),
        ("Mcycles", "cycles", 1e6),
    )
    found = []
    for program, row in by_program(rows).items():
        was = before.get(program)
        if was is None:
            continue
        changes = [
            f"{label} {(was[name] or 0) / unit:,.5g} -> {(row[name] or 0) / unit:,.5g}"
            for label, name, unit in figures
            if was[name] != row[name]
        ]
        found.append((*map(str, program), ", ".join(changes) or "the same"))
    return found
