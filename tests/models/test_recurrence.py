"""The recurrence as one kernel, interpreted on a CPU, against the scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from imlenet_jax.models.platform import as_if_on
from imlenet_jax.models.recurrence import recur
from imlenet_jax.models.recurrence_kernel import LARGEST, fits
from imlenet_jax.training.parallel import Devices


def _arguments(time=5, directions=2, n=18, units=6, seed=0):
    rng = np.random.default_rng(seed)
    gates = jnp.asarray(rng.normal(size=(time, directions, n, 4 * units)), jnp.float32)
    recurrent = jnp.asarray(rng.normal(size=(directions, units, 4 * units)) / units**0.5, jnp.float32)
    return gates, recurrent


def _loss(gates, recurrent):
    hidden = recur(gates, recurrent, 1)
    return jnp.sum(hidden * jnp.sin(jnp.arange(hidden.size)).reshape(hidden.shape))


def _gradients(platform, function, *arguments):
    with as_if_on(platform):
        return jax.jit(function)(*arguments)


def _close(found, wanted):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 2, 18, 6), (3, 1, 16, 40), (2, 2, 3, LARGEST)])
def test_outputs_and_gradients_are_those_of_the_scan(shape):
    both = jax.value_and_grad(_loss, (0, 1))
    arguments = _arguments(*shape)
    _close(_gradients("cuda", both, *arguments), _gradients("cpu", both, *arguments))


def test_outputs_without_gradient():
    arguments = _arguments()
    found, wanted = (_gradients(platform, lambda g, r: recur(g, r, 1), *arguments) for platform in ("cuda", "cpu"))
    _close(found, wanted)


def test_several_networks_at_once():
    several = [_arguments(seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *several)
    gradient = jax.grad(_loss, (0, 1))
    _close(_gradients("cuda", jax.vmap(gradient), *stacked), _gradients("cpu", jax.vmap(gradient), *stacked))
    # one set of weights, several inputs
    inputs, recurrent = stacked[0], several[0][1]
    alike = jax.vmap(gradient, (0, None))
    _close(_gradients("cuda", alike, inputs, recurrent), _gradients("cpu", alike, inputs, recurrent))


def test_a_batch_over_devices_stays_where_it_is():
    devices = Devices(4)
    gates, recurrent = _arguments(n=24)
    sharded = jax.device_put(
        (gates, recurrent),
        tuple(
            jax.sharding.NamedSharding(devices.mesh, spec)
            for spec in (PartitionSpec(None, None, "data"), PartitionSpec())
        ),
    )
    both = jax.jit(jax.value_and_grad(_loss, (0, 1)))
    with as_if_on("cuda"):
        compiled = both.lower(*sharded).compile()
        found = compiled(*sharded)
    _close(found, _gradients("cpu", jax.value_and_grad(_loss, (0, 1)), gates, recurrent))
    text = compiled.as_text() or ""
    assert "all-gather" not in text
    assert "all-reduce" in text  # of the weights' gradient


def test_too_many_units_and_other_types_take_the_scan():
    assert fits(*_arguments(units=LARGEST))
    assert not fits(*_arguments(units=LARGEST + 1))
    assert not fits(*(array.astype(jnp.bfloat16) for array in _arguments()))
