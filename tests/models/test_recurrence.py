"""The recurrence as one kernel, interpreted on a CPU, against the scan."""

from functools import partial

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.parts.convolutions import equations
from imlenet_jax.models.platform import as_if_on
from imlenet_jax.models.recurrence import hidden_states
from imlenet_jax.models.recurrence_kernel import (
    LARGEST,
    _backward_kernel,
    _call,
    _forward_kernel,
    fits,
    hidden_states_in_one_kernel,
)
from imlenet_jax.training.parallel import Devices
from tests.models.triton_program import run_for_gpu


def _arguments(time=5, directions=2, n=5, units=6, features=3, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (n, time, features), (features, directions * 4 * units), (directions * 4 * units,)
    recurrent = rng.normal(size=(directions, units, 4 * units)) / units**0.5
    return *(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes), jnp.asarray(recurrent, jnp.float32)


def _loss(*arguments):
    hidden = hidden_states(*arguments, 1)
    return jnp.sum(hidden * jnp.sin(jnp.arange(hidden.size)).reshape(hidden.shape))


ALL = (0, 1, 2, 3)


def _on(platform, function, *arguments):
    with as_if_on(platform):
        return jax.jit(function)(*arguments)


def _close(found, wanted):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 2, 5, 6), (3, 1, 4, 40), (2, 2, 3, LARGEST)])
def test_outputs_and_gradients_are_those_of_the_scan(shape):
    both = jax.value_and_grad(_loss, ALL)
    arguments = _arguments(*shape)
    _close(_on("cuda", both, *arguments), _on("cpu", both, *arguments))


def test_outputs_without_gradient():
    arguments = _arguments()
    found, wanted = (_on(platform, lambda *a: hidden_states(*a, 1), *arguments) for platform in ("cuda", "cpu"))
    assert found.shape == (5, 5, 12)
    _close(found, wanted)


def test_several_networks_at_once():
    several = [_arguments(seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *several)
    gradient = jax.grad(_loss, ALL)
    _close(_on("cuda", jax.vmap(gradient), *stacked), _on("cpu", jax.vmap(gradient), *stacked))
    # one set of weights, several inputs
    alike = jax.vmap(gradient, (0, None, None, None))
    arguments = stacked[0], *several[0][1:]
    _close(_on("cuda", alike, *arguments), _on("cpu", alike, *arguments))


def test_a_batch_over_devices_stays_where_it_is():
    devices = Devices(4)
    arguments = _arguments(n=24)
    specs = (PartitionSpec("data"), *[PartitionSpec()] * 3)
    sharded = jax.device_put(arguments, tuple(NamedSharding(devices.mesh, spec) for spec in specs))
    both = jax.jit(jax.value_and_grad(_loss, ALL))
    with as_if_on("cuda"):
        compiled = both.lower(*sharded).compile()
        found = compiled(*sharded)
    _close(found, _on("cpu", jax.value_and_grad(_loss, ALL), *arguments))
    text = compiled.as_text() or ""
    assert "all-gather" not in text
    assert "all-reduce" in text  # of the weights' gradient


def test_too_many_units_and_other_types_take_the_scan():
    x, *_, recurrent = _arguments(units=LARGEST)
    assert fits(x, recurrent)
    assert not fits(x, _arguments(units=LARGEST + 1)[-1])
    assert not fits(x.astype(jnp.bfloat16), recurrent)


@pytest.mark.parametrize("n, networks, units", [(2, 2, 16), (1, 1, LARGEST)])
def test_what_triton_is_given_computes_the_same(n, networks, units):
    rng = np.random.default_rng(0)
    time, directions = 5, 2
    recurrent = (rng.normal(size=(networks, directions, units, units, 4)) / units**0.5).astype(np.float32)
    gates = rng.normal(size=(n, time, networks, directions, units, 4)).astype(np.float32)
    gradient = rng.normal(size=gates.shape[:-1]).astype(np.float32)

    def forward(interpret, recurrent, gates):
        return _call(_forward_kernel, interpret, recurrent, (gates,), [(units,), (units, 4), (units,), (units,)])

    def backward(interpret, *arguments):
        return _call(_backward_kernel, interpret, arguments[0], arguments[1:], [(units, 4)])

    hidden, opened, before, cell = outputs = forward(True, recurrent, gates)
    _close(run_for_gpu(partial(forward, False), recurrent, gates), list(outputs))
    assert np.ptp(hidden[:, 0, :, 1]) > np.ptp(before[:, -1, :, 1]) == 0  # the second direction begins at the end
    arguments = np.swapaxes(recurrent, 2, 3), gradient, np.asarray(opened), np.asarray(cell)
    _close(run_for_gpu(partial(backward, False), *arguments), list(backward(True, *arguments)))


def test_no_kernel_chooses_between_constants():
    """Triton would be given booleans for them; only a GPU would show it."""

    def chosen_from(jaxpr):
        for equation in equations(jaxpr):
            if equation.primitive.name == "select_n" or equation.params.get("name") == "_where":
                yield [not isinstance(operand, jax.extend.core.Literal) for operand in equation.invars[1:]]

    def choices(function, *arguments):
        return list(chosen_from(jax.make_jaxpr(function)(*arguments).jaxpr))

    assert [False, False] in choices(lambda x: jnp.where(x, 19, 0), True)
    arguments = _arguments(time=20, units=16)
    found = choices(jax.grad(lambda *a: jnp.sum(hidden_states_in_one_kernel(*a))), *arguments)
    assert [True, True] in found and [False, False] not in found


def test_long_recordings_are_not_written_out_step_by_step():
    """600 windows of a minute at 500 Hz took minutes to compile; no more than `MOST` steps are written out."""
    arguments = _arguments(time=45)
    with as_if_on("cpu"):
        programs = [jax.make_jaxpr(partial(hidden_states, unroll=unroll))(*arguments) for unroll in (45, 20, 5)]
    unrolled = [
        {equation.params["unroll"] for equation in equations(program.jaxpr) if equation.primitive.name == "scan"}
        for program in programs
    ]
    assert unrolled == [{20}, {20}, {5}]
    np.testing.assert_allclose(hidden_states(*arguments, 45), hidden_states(*arguments, 1), atol=1e-6)
