"""What a compiled step has to do: multiplications, bytes and kernels, read off the compiled program itself.

XLA's own `cost_analysis()` counts the body of a loop once; here it counts as often as it runs.
"""

from functools import cache
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.parts.hlo import Computation, Instruction, Module, parse

# They move or compute nothing.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "async-done"} | {
    f"{kind}-done" for kind in ("all-reduce", "all-gather", "collective-permute", "copy", "send", "recv")
}
# They read no more of their first operand than they return.
SLICING = {"slice", "dynamic-slice", "gather"}
# Libraries that XLA may call for products; what they compute cannot be read off the call.
PRODUCT_LIBRARIES = ("gemm", "matmul", "conv", "dnn", "blas")


class Cost(NamedTuple):
    """What one run of a program does.

    Attributes:
        flops: two per useful multiplication of convolutions and matrix products. Zeros do not count, neither padding
            nor those that a dilation puts in, but for those in kernels over blocks of positions (`convolution.py`);
            elementwise work does not count either. On a CPU, `winograd.py` leaves fewer than the network's own.
        bytes: read and written by all kernels, each reading its operands once. What stays in a cache is counted.
        kernels: operations started one after the other, fused ones as one.
        unknown_loops: loops whose trip count is not known; their bodies are counted once.
    """

    flops: int = 0
    bytes: int = 0
    kernels: int = 0
    unknown_loops: int = 0

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, count: int) -> "Cost":
        """The cost of so many runs."""
        return Cost(self.flops * count, self.bytes * count, self.kernels * count, self.unknown_loops)


def step_cost(lowered: jax.stages.Lowered, compiled: jax.stages.Compiled, devices: int = 1) -> tuple[Cost, str]:
    """The cost of a program over all its devices, and where the multiplications were counted.

    That is the `compiled` program, unless it calls libraries for them: then it is the `lowered` one, as JAX wrote it.
    """
    text = compiled.as_text() or ""
    cost = program_cost(text)  # a compiled program is that of one device; all run at the same time
    cost = cost._replace(flops=cost.flops * devices, bytes=cost.bytes * devices)
    if not calls_product_library(text):
        return cost, "compiled"
    return cost._replace(flops=program_cost(lowered.as_text(dialect="hlo")).flops), "lowered"


def calls_product_library(text: str) -> bool:
    """Whether a compiled program leaves matrix products or convolutions to a library."""
    targets = (line.partition('custom_call_target="')[2].partition('"')[0] for line in text.splitlines())
    return any(name in target.lower() for target in targets if target for name in PRODUCT_LIBRARIES)


def program_cost(text: str) -> Cost:
    """The cost of a program in HLO text."""
    module = parse(text)

    @cache
    def cost_of(name: str) -> Cost:
        computation = module.computations[name]
        return sum((instruction_cost(computation, item) for item in computation.instructions.values()), Cost())

    def instruction_cost(computation: Computation, item: Instruction) -> Cost:
        if item.opcode in FREE:
            return Cost()
        if item.opcode == "while":
            count = trip_count(module, item)
            once = cost_of(item.text("body")) + cost_of(item.text("condition"))
            return once.times(1 if count is None else count) + Cost(unknown_loops=count is None)
        if item.opcode == "conditional":
            return max((cost_of(name) for name in _branches(item)), key=lambda cost: cost.flops)
        if item.opcode == "call":
            return cost_of(item.text("to_apply"))
        if item.opcode == "async-start":
            return cost_of(item.text("calls"))
        if item.opcode == "fusion":
            fused = module.computations[item.text("calls")]
            return Cost(cost_of(item.text("calls")).flops, _fusion_bytes(fused), 1)
        return Cost(_flops(computation, item), _bytes(computation, item), 1)

    return cost_of(module.entry)


def trip_count(module: Module, loop: Instruction) -> int | None:
    """How often a `while` runs its body: what XLA found out, else the constant that it counts to from 0."""
    _, _, known = loop.attributes.partition('"known_trip_count":{"n":"')
    if known:
        return int(known.partition('"')[0])
    condition = module.computations[loop.text("condition")]
    root = condition.instructions[condition.root]
    if root.opcode != "compare" or root.text("direction") != "LT":
        return None
    limit = condition.operand(root, 1)
    return int(limit.literal) if limit.opcode == "constant" else None


def convolution_flops(computation: Computation, item: Instruction) -> int:
    """Two per multiplication of a sample by a weight: `2 * batch * out * in * pairs`, per spatial axis the pairs of
    an output position and a tap that meet a sample.

    Its gradients are convolutions too, with a dilated input (strides) or with a batch that plays the features.
    """
    image, kernel = computation.operand(item, 0).dims, computation.operand(item, 1).dims
    labels, _, out_labels = item.text("dim_labels").partition("->")
    in_labels, _, kernel_labels = labels.partition("_")
    window = _window(item.text("window"))
    products = item.dims[out_labels.index("b")] * item.dims[out_labels.index("f")] * kernel[kernel_labels.index("i")]
    for axis in range(len(in_labels) - 2):
        label = str(axis)
        products *= meeting_pairs(
            samples=image[in_labels.index(label)],
            positions=item.dims[out_labels.index(label)],
            taps=kernel[kernel_labels.index(label)],
            stride=window["stride"][axis] if "stride" in window else 1,
            pad=window["pad"][axis] if "pad" in window else 0,
            lhs_dilate=window["lhs_dilate"][axis] if "lhs_dilate" in window else 1,
            rhs_dilate=window["rhs_dilate"][axis] if "rhs_dilate" in window else 1,
        )
    return 2 * products


def meeting_pairs(
    samples: int, positions: int, taps: int, stride: int, pad: int, lhs_dilate: int, rhs_dilate: int
) -> int:
    """How many pairs of an output position and a tap lie on a sample, not on padding or between dilated samples."""
    place = np.arange(positions)[:, None] * stride + np.arange(taps) * rhs_dilate - pad
    inside = (place >= 0) & (place <= (samples - 1) * lhs_dilate)
    return int(np.sum(inside & (place % lhs_dilate == 0)))


def _flops(computation: Computation, item: Instruction) -> int:
    if item.opcode == "convolution":
        return convolution_flops(computation, item)
    if item.opcode == "dot":
        left = computation.operand(item, 0).dims
        summed = [left[axis] for axis in item.numbers("lhs_contracting_dims")]
        return 2 * int(np.prod(item.dims + tuple(summed), dtype=np.int64))
    return 0


def instruction_bytes(module: Module, computation: Computation, item: Instruction) -> int:
    """What one instruction reads and writes, fused or not."""
    if item.opcode == "fusion":
        return _fusion_bytes(module.computations[item.text("calls")])
    return _bytes(computation, item)


def _bytes(computation: Computation, item: Instruction) -> int:
    if item.opcode in SLICING:
        return 2 * item.bytes
    if item.opcode == "dynamic-update-slice":  # in place: only the slice is read and written
        return 2 * computation.operand(item, 1).bytes
    return item.bytes + sum(computation.instructions[name].bytes for name in item.operands)


def _fusion_bytes(fused: Computation) -> int:
    """What a fused kernel reads of its parameters and writes; of slices and updates in place only the slice."""
    users: dict[str, list[tuple[Instruction, int]]] = {}
    for item in fused.instructions.values():
        for position, name in enumerate(item.operands):
            users.setdefault(name, []).append((item, position))
    total = 0
    for item in fused.instructions.values():
        if item.opcode == "parameter":
            total += min(item.bytes, sum(_read(item, *use) for use in users.get(item.name, [])))
    root = fused.instructions[fused.root]
    results = [fused.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
    return total + sum(_written(fused, result) for result in results)


def _read(item: Instruction, user: Instruction, position: int) -> int:
    """What a user reads of an array that it takes as its operand number `position`."""
    if position == 0 and user.opcode in SLICING:
        return user.bytes
    return 0 if position == 0 and user.opcode == "dynamic-update-slice" else item.bytes


def _written(fused: Computation, result: Instruction) -> int:
    while result.opcode == "bitcast":
        result = fused.operand(result, 0)
    return fused.operand(result, 1).bytes if result.opcode == "dynamic-update-slice" else result.bytes


def _branches(item: Instruction) -> list[str]:
    names = item.text("branch_computations") or f"{item.text('true_computation')},{item.text('false_computation')}"
    return [name.strip().lstrip("%") for name in names.split(",")]


def _window(text: str) -> dict[str, list[int]]:
    """`size=3x3 pad=1_0x1_0` as numbers per axis; of a padding, its lower half."""
    pairs = (part.partition("=") for part in text.split())
    return {key: [int(number.partition("_")[0]) for number in value.split("x")] for key, _, value in pairs}
