"""The recurrence of an LSTM as one GPU kernel forward and one backward (Pallas with the Triton backend).

A scan starts several kernels for each time step: for ecgnet's 1,000 steps they take far longer than its
multiplications. Here every program of a kernel takes a few records of one direction through all time steps, with
the states in registers. Shapes inside are powers of two, as Triton wants them: units are filled up with zeros, which
stay zero, and so are records.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental import pallas as pl
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.pallas import triton
from jax.sharding import NamedSharding, PartitionSpec

from imlenet_jax.models.platform import platform_taken

ROWS = 16  # records of a program: the fewest that Triton multiplies at once
LARGEST = 128  # units up to which the recurrent weights are at hand fast enough
IN_REGISTERS = 64  # units up to which they stay in registers; more are read again at every step
WARPS = 8
GATES = range(4)

Arrays = tuple[jax.Array, ...]
Dot = Callable[[jax.Array, jax.Array], jax.Array]


def fits(gates: jax.Array, recurrent: jax.Array) -> bool:
    """Whether there is a kernel for these: float32 (any type where kernels are interpreted), few enough units."""
    return recurrent.shape[1] <= LARGEST and (gates.dtype == jnp.float32 or platform_taken() is not None)


@jax.custom_vjp
def recur_in_one_kernel(gates: jax.Array, recurrent: jax.Array) -> jax.Array:
    """What `recur` computes."""
    gates, weights = _padded(gates, recurrent)
    return _hidden(weights, gates)[0][..., : recurrent.shape[1]]


def _recur_forward(gates: jax.Array, recurrent: jax.Array):
    gates, weights = _padded(gates, recurrent)
    hidden, *saved = _hidden_and_saved(weights, gates)
    return hidden[..., : recurrent.shape[1]], (tuple(saved), weights)


def _recur_backward(residuals: tuple[Arrays, jax.Array], gradient: jax.Array):
    (*of_gates, before, cell), recurrent = residuals
    units, padded_units = gradient.shape[-1], before.shape[-1]
    gradient = jnp.pad(gradient, ((0, 0),) * 3 + ((0, padded_units - units),))
    [to_gates] = _to_gates(jnp.swapaxes(recurrent, 2, 3), gradient, *of_gates, cell)
    # One product over all time steps; the other way round it is one small sum per step.
    to_recurrent = jnp.einsum("tdnu,tdngv->dugv", before, to_gates)[:, :units, :, :units]
    to_gates = to_gates[..., :units]
    return to_gates.reshape(*to_gates.shape[:3], -1), to_recurrent.reshape(*to_recurrent.shape[:2], -1)


recur_in_one_kernel.defvjp(_recur_forward, _recur_backward)


def _padded(gates: jax.Array, recurrent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gates `(time, directions, n, 4, units)` and weights `(directions, 4, units, units)`, units a power of two."""
    units = recurrent.shape[1]
    missing = max(ROWS, pl.next_power_of_2(units)) - units
    gates = gates.reshape(*gates.shape[:-1], 4, units)
    recurrent = jnp.swapaxes(recurrent.reshape(*recurrent.shape[:-1], 4, units), 1, 2)
    return (
        jnp.pad(gates, ((0, 0),) * 4 + ((0, missing),)),
        jnp.pad(recurrent, ((0, 0),) * 2 + ((0, missing),) * 2),
    )


def _forward_kernel(dot: Dot, recurrent_ref: Any, gates_ref: Any, hidden_ref: Any, *saved_refs: Any) -> None:
    units, steps = recurrent_ref.shape[-1], gates_ref.shape[0]
    weights = _weights(recurrent_ref)

    def step(t, carried):
        hidden, cell, gates = carried
        later = _gates_at(gates_ref, jnp.minimum(t + 1, steps - 1))  # on their way while this step computes
        i, f, g, o = (gate + dot(hidden, weights(k)) for k, gate in zip(GATES, gates, strict=True))
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        for ref, value in zip(saved_refs, (i, f, g, o, hidden, cell)[: len(saved_refs)], strict=True):
            ref[t] = value
        cell = f * cell + i * g
        hidden = o * jnp.tanh(cell)
        hidden_ref[t] = hidden
        return hidden, cell, later

    zeros = jnp.zeros((ROWS, units), gates_ref.dtype)
    lax.fori_loop(0, steps, step, (zeros, zeros, _gates_at(gates_ref, 0)))


def _backward_kernel(dot: Dot, transposed_ref: Any, *refs: Any) -> None:
    *read, to_gates_ref = refs
    units, steps = transposed_ref.shape[-1], to_gates_ref.shape[0]
    weights = _weights(transposed_ref)

    def step(count, carried):
        to_hidden, to_cell, (outer, i, f, g, o, cell) = carried
        t = steps - 1 - count
        earlier = tuple(ref[jnp.maximum(t - 1, 0)] for ref in read)
        squashed = jnp.tanh(f * cell + i * g)
        to_hidden = to_hidden + outer
        to_cell = to_cell + to_hidden * o * (1 - squashed * squashed)
        to_i, to_f = to_cell * g * i * (1 - i), to_cell * cell * f * (1 - f)
        to_g, to_o = to_cell * i * (1 - g * g), to_hidden * squashed * o * (1 - o)
        to_hidden = jnp.zeros_like(to_hidden)
        for k, to_gate in zip(GATES, (to_i, to_f, to_g, to_o), strict=True):
            to_gates_ref[t, :, k] = to_gate
            to_hidden += dot(to_gate, weights(k))
        return to_hidden, to_cell * f, earlier

    zeros = jnp.zeros((ROWS, units), to_gates_ref.dtype)
    lax.fori_loop(0, steps, step, (zeros, zeros, tuple(ref[steps - 1] for ref in read)))


def _weights(ref: Any) -> Callable[[int], jax.Array]:
    """The square matrix of a gate: kept, or read at every use."""
    if ref.shape[-1] > IN_REGISTERS:
        return lambda k: ref[k]
    return [ref[k] for k in GATES].__getitem__


def _gates_at(ref: Any, t: Any) -> Arrays:
    return tuple(ref[t, :, k] for k in GATES)


def _call(
    kernel: Callable[..., None],
    interpret: bool,
    recurrent: jax.Array,
    arrays: Arrays,
    outputs: list[tuple[int, ...]],
) -> Arrays:
    """Start a kernel over directions and groups of records; `outputs` are the axes after `(time, directions, n)`."""
    steps, directions, n = arrays[0].shape[:3]
    filled = -(-n // ROWS) * ROWS
    padded = [jnp.pad(a, ((0, 0), (0, 0), (0, filled - n)) + ((0, 0),) * (a.ndim - 3)) for a in arrays]
    # Tensor cores in three passes, which together are as precise as float32: its own multiplications are slow.
    precision = lax.Precision.HIGHEST if interpret else lax.DotAlgorithmPreset.TF32_TF32_F32_X3

    def block(*last: int) -> pl.BlockSpec:
        return pl.BlockSpec((steps, None, ROWS, *last), lambda d, group: (0, d, group, *[0] * len(last)))

    results = pl.pallas_call(
        partial(kernel, partial(jnp.dot, precision=precision)),
        grid=(directions, filled // ROWS),
        in_specs=[
            pl.BlockSpec((None, *recurrent.shape[1:]), lambda d, group: (d, 0, 0, 0)),
            *(block(*array.shape[3:]) for array in arrays),
        ],
        out_specs=[block(*last) for last in outputs],
        out_shape=[jax.ShapeDtypeStruct((steps, directions, filled, *last), arrays[0].dtype) for last in outputs],
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
        interpret=interpret,
        name=kernel.__name__.strip("_"),
    )(recurrent, *padded)
    return tuple(result[:, :, :n] for result in results)


def _per_device(call: Callable[..., Arrays], rule: str) -> Callable[..., Arrays]:
    """`call(interpret, recurrent, *arrays)` where records stay on their device, and vmap adds directions.

    A kernel is opaque to XLA's partitioner, which would gather the records of all devices on each; and vmap would add
    an axis that the kernel does not expect. Arrays are `(time, directions, n, ...)`.
    """
    compiled, interpreted = (_batched(_partitioned(call, interpret, rule)) for interpret in (False, True))

    def chosen(*arguments: jax.Array) -> Arrays:
        # Here, not in `call`: the partitioner asks for it in a thread that knows of no switch.
        return compiled(*arguments) if platform_taken() is None else interpreted(*arguments)

    return chosen


def _partitioned(call: Callable[..., Arrays], interpret: bool, rule: str) -> Callable[..., Arrays]:
    def on_one(recurrent: jax.Array, *arrays: jax.Array) -> Arrays:
        return call(interpret, recurrent, *arrays)

    def partition(mesh: Any, arguments: Any, results: Any):
        spec = arguments[1].sharding.spec
        over_records = NamedSharding(mesh, PartitionSpec(None, None, spec[2] if len(spec) > 2 else None))
        everywhere = NamedSharding(mesh, PartitionSpec())
        return mesh, on_one, (over_records,) * len(results), (everywhere, *(over_records,) * len(arguments[1:]))

    partitioned = custom_partitioning(on_one)
    replicated = ("d", "g", "u", "v", "t")  # all but the records, n
    partitioned.def_partition(partition=partition, sharding_rule=rule, need_replication_factors=replicated)
    return partitioned


def _batched(call: Callable[..., Arrays]) -> Callable[..., Arrays]:
    batched = custom_vmap(lambda *arguments: call(*arguments))

    @batched.def_vmap
    def _(size: int, is_batched: list[bool], recurrent: jax.Array, *arrays: jax.Array):
        def all_batched(array: jax.Array, has_axis: bool) -> jax.Array:
            return array if has_axis else jnp.broadcast_to(array, (size, *array.shape))

        recurrent, *rest = map(all_batched, (recurrent, *arrays), is_batched)
        directions = recurrent.shape[1]
        merged = [jnp.moveaxis(a, 0, 1).reshape(a.shape[1], size * directions, *a.shape[3:]) for a in rest]
        results = batched(recurrent.reshape(size * directions, *recurrent.shape[2:]), *merged)
        split = (r.reshape(len(r), size, directions, *r.shape[2:]) for r in results)
        return tuple(jnp.moveaxis(r, 1, 0) for r in split), (True,) * len(results)

    return batched


def _forward(outputs: int) -> Callable[..., Arrays]:
    def call(interpret: bool, recurrent: jax.Array, gates: jax.Array) -> Arrays:
        return _call(_forward_kernel, interpret, recurrent, (gates,), [recurrent.shape[-1:]] * outputs)

    return _per_device(call, f"d g u v, t d n g u -> {', '.join(['t d n u'] * outputs)}")


def _backward(interpret: bool, transposed: jax.Array, *arrays: jax.Array) -> Arrays:
    return _call(_backward_kernel, interpret, transposed, arrays, [transposed.shape[1:3]])


_hidden, _hidden_and_saved = _forward(1), _forward(7)
_to_gates = _per_device(_backward, f"d g u v, {', '.join(['t d n u'] * 6)} -> t d n g u")
