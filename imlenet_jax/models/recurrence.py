"""The recurrence of an LSTM: one kernel on an NVIDIA GPU (`recurrence_kernel.py`), a scan elsewhere."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from imlenet_jax.models.platform import by_platform
from imlenet_jax.models.recurrence_kernel import fits, hidden_states_in_one_kernel

MOST = 20
"""Steps written out one after the other: all windows of ten seconds at 100 Hz. Of a minute at 500 Hz there are 600, which XLA
takes many minutes to compile."""


def hidden_states(x: jax.Array, kernel: jax.Array, bias: jax.Array, recurrent: jax.Array, unroll: int) -> jax.Array:
    """Hidden states `(n, time, directions * units)` of LSTMs that start from zeros, from inputs `(n, time, features)`.

    `kernel` `(features, directions * 4 units)`, `bias` `(directions * 4 units,)` and `recurrent` `(directions, units, 4
    units)` make the gates i f g o. A second direction goes through time backward. `unroll` is that of `jax.lax.scan`, up to `MOST`.
    """
    by_scan = partial(_hidden_states_by_scan, unroll=min(unroll, MOST))
    if not fits(x, recurrent):
        return by_scan(x, kernel, bias, recurrent)
    return by_platform(x, kernel, bias, recurrent, cuda=hidden_states_in_one_kernel, default=by_scan)


def _hidden_states_by_scan(x: jax.Array, kernel: jax.Array, bias: jax.Array, recurrent: jax.Array, unroll: int):
    # One matrix product projects the inputs of all time steps and both directions, which share one scan.
    forward, *backward = jnp.split(x @ kernel + bias, len(recurrent), axis=-1)
    projected = jnp.stack([forward, *(jnp.flip(half, axis=1) for half in backward)])
    hidden = _scan(jnp.moveaxis(projected, 2, 0), recurrent, unroll)
    forward, *backward = jnp.transpose(hidden, (1, 2, 0, 3))  # (direction, n, time, units)
    return jnp.concatenate([forward, *(jnp.flip(half, axis=1) for half in backward)], axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _scan(gates: jax.Array, recurrent: jax.Array, unroll: int) -> jax.Array:
    """Hidden states `(time, directions, n, units)` from the inputs' share of the gates `(time, directions, n, 4 units)`."""

    def step(state, gates):
        _, hidden, cell = _cell_step(state, gates, recurrent)
        return (hidden, cell), hidden

    zeros = jnp.zeros((*gates.shape[1:-1], recurrent.shape[1]), gates.dtype)
    return jax.lax.scan(step, (zeros, zeros), gates, unroll=unroll)[1]


def _cell_step(state: tuple[jax.Array, jax.Array], gates: jax.Array, recurrent: jax.Array):
    hidden, cell = state
    i, f, g, o = jnp.split(gates + jnp.einsum("dnu,duv->dnv", hidden, recurrent), 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    cell = f * cell + i * g
    return (i, f, g, o), o * jnp.tanh(cell), cell


def _scan_forward(gates: jax.Array, recurrent: jax.Array, unroll: int):
    def step(state, gates):
        opened, hidden, cell = _cell_step(state, gates, recurrent)
        return (hidden, cell), (hidden, (opened, state))

    zeros = jnp.zeros((*gates.shape[1:-1], recurrent.shape[1]), gates.dtype)
    _, (hidden, saved) = jax.lax.scan(step, (zeros, zeros), gates, unroll=unroll)
    return hidden, (saved, recurrent)


def _scan_backward(unroll: int, saved: Any, gradient: jax.Array):
    # The recurrent weights' gradient is one product over all time steps; derived by JAX it is one small sum per step.
    (opened, before), recurrent = saved

    def step(carried, inputs):
        to_hidden, to_cell = carried
        outer, (i, f, g, o), (_, cell) = inputs
        squashed = jnp.tanh(f * cell + i * g)
        to_hidden = to_hidden + outer
        to_cell = to_cell + to_hidden * o * (1 - squashed * squashed)
        to_i, to_f = to_cell * g * i * (1 - i), to_cell * cell * f * (1 - f)
        to_g, to_o = to_cell * i * (1 - g * g), to_hidden * squashed * o * (1 - o)
        to_gates = jnp.concatenate([to_i, to_f, to_g, to_o], axis=-1)
        return (jnp.einsum("dnv,duv->dnu", to_gates, recurrent), to_cell * f), to_gates

    zeros = jnp.zeros_like(gradient[0])
    _, to_gates = jax.lax.scan(step, (zeros, zeros), (gradient, opened, before), reverse=True, unroll=unroll)
    return to_gates, jnp.einsum("tdnu,tdnv->duv", before[0], to_gates)


_scan.defvjp(_scan_forward, _scan_backward)
