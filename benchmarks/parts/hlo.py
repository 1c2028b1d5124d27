"""Reading a program in HLO, XLA's text form, as `lowered.as_text(dialect="hlo")` and `compiled.as_text()` give it."""

import math
import re
from dataclasses import dataclass, field
from typing import NamedTuple

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) (?:\(.*\) -> .* )?\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (.*)$")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_NAME = re.compile(r"%?([A-Za-z_][\w.-]*)$")


@dataclass(frozen=True)
class Instruction:
    """One line: `name = shape opcode(operands), attributes`.

    `shape` and `attributes` are as printed; `operands` are names in the same computation, and `literal` is what stood
    in the parentheses.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    literal: str
    attributes: str

    @property
    def dims(self) -> tuple[int, ...]:
        """The sizes of an array; of a tuple, those of its first array."""
        return _dims(_ARRAY.search(self.shape))

    @property
    def bytes(self) -> int:
        """The size of the result, over all arrays of a tuple."""
        return sum(math.prod(_dims(array)) * _width(array[1]) for array in _ARRAY.finditer(self.shape))

    def numbers(self, attribute: str) -> tuple[int, ...]:
        """An attribute such as `lhs_contracting_dims={0,2}`; empty where it is absent."""
        found = re.search(rf"\b{attribute}=\{{([\d,]*)\}}", self.attributes)
        return _integers(found[1]) if found else ()

    def text(self, attribute: str) -> str:
        """An attribute such as `body=%region_0` or `window={size=2 pad=0_1}`, bare; empty where it is absent."""
        found = re.search(rf"\b{attribute}=(?:\{{([^}}]*)\}}|%?([^\s,]+))", self.attributes)
        return (found[1] or found[2] or "") if found else ""


@dataclass
class Computation:
    """Instructions by name, in order, and the one whose value is returned."""

    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""

    def operand(self, instruction: Instruction, index: int) -> Instruction:
        """The instruction that makes an operand."""
        return self.instructions[instruction.operands[index]]


class Module(NamedTuple):
    """All computations of a program by name, and the name of the first to run."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Module:
    """Read a whole program; lines that are no instruction (tables of source lines) are passed over."""
    computations: dict[str, Computation] = {}
    entry = ""
    current = Computation()
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        found = _INSTRUCTION.match(line)
        if header:
            current = computations[header[2]] = Computation()
            entry = header[2] if header[1] else entry
        elif found:
            root, name, rest = found.groups()
            current.instructions[name] = _instruction(name, rest)
            current.root = name if root else current.root
    return Module(computations, entry)


def _instruction(name: str, rest: str) -> Instruction:
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    shape, call = rest[:end], rest[end:].lstrip()
    opcode, _, _ = call.partition("(")
    end = _closing(call[len(opcode) :]) + len(opcode)
    literal = call[len(opcode) + 1 : end - 1]
    matches = (_NAME.search(part) for part in re.sub(r"/\*.*?\*/", "", literal).split(","))
    operands = () if opcode in ("constant", "parameter") else tuple(match[1] for match in matches if match)
    return Instruction(name, shape, opcode, operands, literal, call[end:])


def _closing(text: str) -> int:
    """The position after the parenthesis that closes the first one of `text`."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position + 1
    return len(text)


def _dims(array: re.Match[str] | None) -> tuple[int, ...]:
    return _integers(array[2]) if array else ()


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


def _width(dtype: str) -> int:
    """Bytes of one element: `f32`, `bf16` and `s8` name their bits, `pred` takes a byte, a `token` nothing."""
    bits = re.search(r"\d+", dtype)
    return max(int(bits[0]) // 8, 1) if bits else int(dtype == "pred")
