"""Runs on numpy what jax gives Triton for a kernel: the one step that an interpreted kernel leaves out.

Between a kernel's jaxpr, which Pallas interprets, and the GPU lie jax's lowering to Triton's own operations and Triton.
The lowering has had faults that no interpreted kernel shows. Here its result is carried out, operation by operation.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jaxlib.mlir import ir
from jaxlib.triton import dialect

from tests.conftest import skip_where_kernels_do_not_lower

CALL = "__gpu$xla.gpu.triton"
BINARY: dict[str, Callable[..., Any]] = {
    **{
        f"arith.{kind}{type_}": f
        for kind, f in (("add", np.add), ("sub", np.subtract), ("mul", np.multiply))
        for type_ in "if"
    },
    "arith.divf": np.divide,
    "arith.divui": np.floor_divide,
    "arith.remui": np.remainder,
    "arith.maxsi": np.maximum,
    "arith.minsi": np.minimum,
}
COMPARISONS = {0: np.equal, 1: np.not_equal, 2: np.less, 3: np.less_equal, 4: np.greater, 5: np.greater_equal}
FUNCTIONS = {"__nv_tanhf": np.tanh, "__nv_expf": np.exp}


class Pointer(NamedTuple):
    """Places in an array."""

    array: np.ndarray
    offset: Any


def run_for_gpu(call: Callable[..., Any], *arguments: np.ndarray) -> list[np.ndarray]:
    """The results of the one kernel that `call` starts, from the operations that Triton would be given."""
    skip_where_kernels_do_not_lower()
    module = jax.jit(call).trace(*arguments).lower(lowering_platforms=("cuda",)).compiler_ir()
    [start] = [op for op in _walk(module.operation) if _attribute(op, "call_target_name", "") == CALL] or [None]
    if start is None:
        pytest.skip("this jax compiles a kernel before it says what it is")
    config = start.attributes["mhlo.backend_config"]
    inputs = [np.ascontiguousarray(argument).reshape(-1) for argument in arguments]
    shapes = [ir.RankedTensorType(result.type).shape for result in start.results]
    outputs = [np.full(int(np.prod(shape)), np.nan, np.float32) for shape in shapes]
    with ir.Context() as context, ir.Location.unknown():
        dialect.register_dialect(context)
        kernel = ir.Module.parse(ir.StringAttr(config["ir"]).value_bytes)
        [function] = [op for op in _walk(kernel.operation) if op.name == "tt.func"]
        grid = [range(ir.IntegerAttr(config[f"grid_{axis}"]).value) for axis in "xyz"]
        for program in itertools.product(*grid):
            _run(function.regions[0].blocks[0], [Pointer(array, 0) for array in (*inputs, *outputs)], program, {})
    return [output.reshape(shape) for output, shape in zip(outputs, shapes, strict=True)]


def _walk(operation: Any) -> Iterator[Any]:
    for block in itertools.chain.from_iterable(operation.regions):
        for inner in block.operations:
            yield inner.operation
            yield from _walk(inner.operation)


def _attribute(operation: Any, name: str, default: Any = None) -> Any:
    return operation.attributes[name].value if name in operation.attributes else default


def _run(block: Any, arguments: list[Any], program: tuple[int, ...], outer: dict[Any, Any]) -> list[Any]:
    """What a block of operations ends with; `outer` are the values that it sees."""
    values = outer | dict(zip(block.arguments, arguments, strict=True))
    for operation in (inner.operation for inner in block.operations):
        operands = [values[operand] for operand in operation.operands]
        if operation.name in ("scf.yield", "tt.return"):
            return operands
        for result, value in zip(operation.results, _results(operation, operands, program, values), strict=True):
            values[result] = value
    raise AssertionError("a block without an end")


def _results(operation: Any, operands: list[Any], program: tuple[int, ...], values: dict[Any, Any]) -> list[Any]:
    if operation.name == "scf.for":
        low, high, by, *carried = operands
        for index in range(low, high, by):
            carried = _run(operation.regions[0].blocks[0], [index, *carried], program, values)
        return carried
    if operation.name == "tt.store":
        pointer, value = operands
        pointer.array[_inside(pointer)] = value
        return []
    return [_result(operation, operands, program)]


def _result(operation: Any, operands: list[Any], program: tuple[int, ...]) -> Any:
    name, of_type = operation.name, operation.results[0].type
    if name in BINARY:
        return BINARY[name](*operands)
    match name:
        case "arith.constant":
            return _attribute(operation, "value")
        case "tt.get_program_id":
            return program[_attribute(operation, "axis")]
        case "tt.make_range":
            return np.arange(_attribute(operation, "start"), _attribute(operation, "end"))
        case "tt.splat" | "tt.broadcast":
            return _broadcast(operands[0], ir.RankedTensorType(of_type).shape)
        case "tt.expand_dims":
            return np.expand_dims(operands[0], _attribute(operation, "axis"))
        case "tt.addptr":
            return operands[0]._replace(offset=operands[0].offset + operands[1])
        case "tt.load":
            return operands[0].array[_inside(operands[0])]
        case "arith.cmpi":
            return COMPARISONS[_attribute(operation, "predicate")](*operands)
        case "arith.select":
            return np.where(*operands)
        case "arith.extui":  # of booleans
            return np.abs(np.int32(operands[0]))
        case "arith.sitofp":  # a boolean's one bit is its sign
            return -np.float32(operands[0]) if np.asarray(operands[0]).dtype == bool else np.float32(operands[0])
        case "tt.extern_elementwise":
            return FUNCTIONS[_attribute(operation, "symbol")](*operands)
        case "tt.reduce":
            assert next(_walk(operation)).name == "arith.addf"
            return np.sum(operands[0], axis=_attribute(operation, "axis"))
    raise NotImplementedError(f"{name}: add it here, with what Triton's documentation says it does")


def _inside(pointer: Pointer) -> Any:
    """The offset, which must lie in the array: numpy would count a negative one from the end."""
    assert np.min(pointer.offset) >= 0 and np.max(pointer.offset) < pointer.array.size
    return pointer.offset


def _broadcast(value: Any, shape: list[int]) -> Any:
    if isinstance(value, Pointer):
        return value._replace(offset=np.broadcast_to(value.offset, shape))
    return np.broadcast_to(np.float32(value) if isinstance(value, float) else value, shape)
