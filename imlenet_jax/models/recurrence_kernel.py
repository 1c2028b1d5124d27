"""The recurrence of LSTMs as one GPU kernel forward and one backward (Pallas with the Triton backend).

A scan starts several kernels for each time step: for ecgnet's 1,000 steps they take far longer than its
multiplications. Here every program of a kernel takes one record and one direction through all time steps, with states
and recurrent weights in registers.

Inside, gates are `(units, 4)`: the four gates of a unit lie side by side, so that they meet within a warp, and the sum
over hidden units lies within a thread. Units are filled up with zeros to a power of two, as Triton wants them; the
zeros stay zero.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental import pallas as pl
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from imlenet_jax.models.platform import platform_taken

triton: Any
try:
    from jax.experimental.pallas import triton
except ImportError:  # a jax without that backend: there is no kernel, and the scan serves a GPU, too
    triton = None

LARGEST = 128  # units up to which the recurrent weights are at hand fast enough
IN_REGISTERS = 64  # units up to which they stay in registers; more are read again at every step
FEWEST = 16  # units that are worth a kernel's program
INPUT, FORGET, CELL, OUTPUT = range(4)  # the order of the gates

Arrays = tuple[jax.Array, ...]


def fits(x: jax.Array, recurrent: jax.Array) -> bool:
    """Whether there is a kernel for these: float32 (any type where kernels are interpreted), few enough units."""
    return (
        triton is not None
        and recurrent.shape[1] <= LARGEST
        and (x.dtype == jnp.float32 or platform_taken() is not None)
    )


def hidden_states_in_one_kernel(x: jax.Array, kernel: jax.Array, bias: jax.Array, recurrent: jax.Array) -> jax.Array:
    """What `recurrence.hidden_states` computes."""
    (n, time, features), (directions, units, _) = x.shape, recurrent.shape
    missing = max(FEWEST, pl.next_power_of_2(units)) - units

    def by_unit(weights: jax.Array) -> jax.Array:  # (..., 4 units) to (..., units, 4)
        weights = jnp.swapaxes(weights.reshape(*weights.shape[:-1], 4, units), -1, -2)
        return jnp.pad(weights, ((0, 0),) * (weights.ndim - 2) + ((0, missing), (0, 0)))

    # The weights are small: they are brought into the order of the kernel, so that the gates are born in it.
    kernel, bias = (by_unit(weights.reshape(-1, directions, 4 * units)) for weights in (kernel, bias))
    recurrent = jnp.pad(by_unit(recurrent), ((0, 0), (0, missing), (0, 0), (0, 0)))
    gates = x @ kernel.reshape(features, -1) + bias.reshape(-1)
    hidden = _recur(gates.reshape(n, time, 1, directions, -1, 4), recurrent[None])
    return hidden[:, :, 0, :, :units].reshape(n, time, directions * units)


@jax.custom_vjp
def _recur(gates: jax.Array, recurrent: jax.Array) -> jax.Array:
    """Hidden states `(n, time, networks, directions, units)` from the inputs' share of the gates, and the weights
    `(networks, directions, units, units, 4)`. The second direction goes from the last time step to the first."""
    return _hidden(recurrent, gates)[0]


def _recur_forward(gates: jax.Array, recurrent: jax.Array):
    hidden, *saved = _hidden_and_saved(recurrent, gates)
    return hidden, (tuple(saved), recurrent)


def _recur_backward(residuals: tuple[Arrays, jax.Array], gradient: jax.Array):
    (opened, before, cell), recurrent = residuals
    [to_gates] = _to_gates(jnp.swapaxes(recurrent, 2, 3), gradient, opened, cell)
    # One product over all time steps, and of each direction with each: so nothing has to be brought into another order.
    products = jnp.einsum("ntsdu,ntsevg->sdeuvg", before, to_gates)
    return to_gates, jnp.stack([products[:, d, d] for d in range(before.shape[3])], axis=1)


_recur.defvjp(_recur_forward, _recur_backward)


def _forward_kernel(recurrent_ref: Any, gates_ref: Any, hidden_ref: Any, *saved_refs: Any) -> None:
    steps, units = hidden_ref.shape
    weights, at, gate = _weights(recurrent_ref), _in_order(steps), _gate(units)

    def step(count, carried):
        hidden, cell, gates = carried
        later = gates_ref[at(jnp.minimum(count + 1, steps - 1))]  # on their way while this step computes
        gates += jnp.sum(hidden[:, None, None] * weights(), axis=0)
        opened = jnp.where(gate == CELL, jnp.tanh(gates), jax.nn.sigmoid(gates))
        i, f, g, o = _apart(opened, gate)
        t = at(count)
        for ref, value in zip(saved_refs, (opened, hidden, cell)[: len(saved_refs)], strict=True):
            ref[t] = value
        cell = f * cell + i * g
        hidden = o * jnp.tanh(cell)
        hidden_ref[t] = hidden
        return hidden, cell, later

    zeros = jnp.zeros(units, gates_ref.dtype)
    lax.fori_loop(0, steps, step, (zeros, zeros, gates_ref[at(0)]))


def _backward_kernel(transposed_ref: Any, gradient_ref: Any, opened_ref: Any, cell_ref: Any, to_gates_ref: Any) -> None:
    steps, units = gradient_ref.shape
    weights, at, gate = _weights(transposed_ref), _in_order(steps), _gate(units)

    def read(count):
        t = at(jnp.maximum(steps - 1 - count, 0))
        return gradient_ref[t], opened_ref[t], cell_ref[t]

    def step(count, carried):
        to_hidden, to_cell, (outer, opened, cell) = carried
        earlier = read(count + 1)
        i, f, g, o = _apart(opened, gate)
        squashed = jnp.tanh(f * cell + i * g)
        to_hidden = to_hidden + outer
        to_cell = to_cell + to_hidden * o * (1 - squashed * squashed)
        opening = (to_cell * g, to_cell * cell, to_cell * i, to_hidden * squashed)
        slope = jnp.where(gate == CELL, 1 - opened * opened, opened * (1 - opened))
        to_gates = _together(opening, gate) * slope
        to_gates_ref[at(steps - 1 - count)] = to_gates
        to_hidden = jnp.sum(jnp.sum(to_gates[:, None, :] * weights(), axis=0), axis=1)
        return to_hidden, to_cell * f, earlier

    zeros = jnp.zeros(units, gradient_ref.dtype)
    lax.fori_loop(0, steps, step, (zeros, zeros, read(0)))


def _weights(ref: Any) -> Callable[[], jax.Array]:
    """The recurrent weights `(units, units, 4)`: kept, or read at every use."""
    if ref.shape[0] > IN_REGISTERS:
        return lambda: ref[...]
    kept = ref[...]
    return lambda: kept


def _in_order(steps: int) -> Callable[[Any], Any]:
    """Which time step comes when: the program's direction is the last axis of the grid."""
    direction = pl.program_id(2)
    # No `where` of two constants: jax 0.10 and 0.11 lower it for Triton as if they were booleans.
    return lambda count: count + direction * (steps - 1 - 2 * count)


def _gate(units: int) -> jax.Array:
    return lax.broadcasted_iota(jnp.int32, (units, 4), 1)


def _apart(values: jax.Array, gate: jax.Array) -> list[jax.Array]:
    """The four gates `(units,)` of `(units, 4)`; a kernel cannot slice."""
    return [jnp.sum(jnp.where(gate == k, values, 0), axis=1) for k in (INPUT, FORGET, CELL, OUTPUT)]


def _together(values: Arrays, gate: jax.Array) -> jax.Array:
    """`(units, 4)` of the four gates `(units,)`."""
    i, f, g, o = (value[:, None] for value in values)
    return jnp.where(gate == INPUT, i, jnp.where(gate == FORGET, f, jnp.where(gate == CELL, g, o)))


def _call(
    kernel: Callable[..., None],
    interpret: bool,
    recurrent: jax.Array,
    arrays: Arrays,
    outputs: list[tuple[int, ...]],
) -> Arrays:
    """Start a kernel over records, networks and directions; `outputs` are the axes after `(n, time, s, d)`."""
    n, steps, networks, directions = arrays[0].shape[:4]
    units = recurrent.shape[2]

    def block(last: tuple[int, ...]) -> pl.BlockSpec:
        return pl.BlockSpec((None, steps, None, None, *last), lambda r, s, d: (r, 0, s, d, *[0] * len(last)))

    start = pl.pallas_call(
        kernel,
        grid=(n, networks, directions),
        in_specs=[
            pl.BlockSpec((None, None, units, units, 4), lambda r, s, d: (s, d, 0, 0, 0)),
            *(block(array.shape[4:]) for array in arrays),
        ],
        out_specs=[block(last) for last in outputs],
        out_shape=[jax.ShapeDtypeStruct((*arrays[0].shape[:4], *last), arrays[0].dtype) for last in outputs],
        # A thread for each gate of each unit.
        compiler_params=triton.CompilerParams(num_warps=units * 4 // 32, num_stages=1),
        interpret=interpret,
        name=kernel.__name__.strip("_"),
    )
    return tuple(start(recurrent, *arrays))


def _per_device(call: Callable[..., Arrays], rule: str) -> Callable[..., Arrays]:
    """`call(interpret, recurrent, *arrays)` where records stay on their device, and vmap adds networks.

    A kernel is opaque to XLA's partitioner, which would gather the records of all devices on each; and vmap would add
    an axis that the kernel does not expect. Arrays are `(n, time, networks, directions, ...)`.
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
        over_records = NamedSharding(mesh, PartitionSpec(spec[0] if len(spec) > 0 else None))
        everywhere = NamedSharding(mesh, PartitionSpec())
        return mesh, on_one, (over_records,) * len(results), (everywhere, *(over_records,) * len(arguments[1:]))

    partitioned = custom_partitioning(on_one)
    replicated = ("s", "d", "v", "u", "g", "t")  # all but the records, n, in the order of the rules
    partitioned.def_partition(partition=partition, sharding_rule=rule, need_replication_factors=replicated)
    return partitioned


def _batched(call: Callable[..., Arrays]) -> Callable[..., Arrays]:
    batched = custom_vmap(lambda *arguments: call(*arguments))

    @batched.def_vmap
    def _(size: int, is_batched: list[bool], recurrent: jax.Array, *arrays: jax.Array):
        def all_batched(array: jax.Array, has_axis: bool) -> jax.Array:
            return array if has_axis else jnp.broadcast_to(array, (size, *array.shape))

        recurrent, *rest = map(all_batched, (recurrent, *arrays), is_batched)
        networks = recurrent.shape[1]
        merged = [jnp.moveaxis(a, 0, 2).reshape(*a.shape[1:3], size * networks, *a.shape[4:]) for a in rest]
        results = batched(recurrent.reshape(size * networks, *recurrent.shape[2:]), *merged)
        split = (r.reshape(*r.shape[:2], size, networks, *r.shape[3:]) for r in results)
        return tuple(jnp.moveaxis(r, 2, 0) for r in split), (True,) * len(results)

    return batched


def _forward(saves: bool) -> Callable[..., Arrays]:
    def call(interpret: bool, recurrent: jax.Array, gates: jax.Array) -> Arrays:
        units = gates.shape[4:5]
        outputs = [units, (*units, 4), units, units] if saves else [units]
        return _call(_forward_kernel, interpret, recurrent, (gates,), outputs)

    saved = ", n t s d u g, n t s d u, n t s d u" if saves else ""
    return _per_device(call, f"s d v u g, n t s d u g -> n t s d u{saved}")


def _backward(interpret: bool, transposed: jax.Array, *arrays: jax.Array) -> Arrays:
    return _call(_backward_kernel, interpret, transposed, arrays, [(*transposed.shape[2:3], 4)])


_hidden, _hidden_and_saved = _forward(False), _forward(True)
_to_gates = _per_device(_backward, "s d v u g, n t s d u, n t s d u g, n t s d u -> n t s d u g")
