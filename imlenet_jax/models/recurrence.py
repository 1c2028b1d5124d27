"""The recurrence of an LSTM: one kernel on an NVIDIA GPU (`recurrence_kernel.py`), a scan elsewhere."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from imlenet_jax.models.platform import by_platform
from imlenet_jax.models.recurrence_kernel import fits, recur_in_one_kernel


def recur(gates: jax.Array, recurrent: jax.Array, unroll: int) -> jax.Array:
    """Hidden states `(time, directions, n, units)` of LSTMs that start from zeros.

    `gates` `(time, directions, n, 4 units)` is what the inputs contribute to the gates i f g o, `recurrent`
    `(directions, units, 4 units)` what the hidden state is multiplied by, and `unroll` that of `jax.lax.scan`.
    """
    scan = partial(_scan, unroll=unroll)
    if not fits(gates, recurrent):
        return scan(gates, recurrent)
    return by_platform(gates, recurrent, cuda=recur_in_one_kernel, default=scan)


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
