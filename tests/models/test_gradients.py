"""Hand-written gradients against the ones that JAX derives, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from imlenet_jax.models import layers, recurrence
from imlenet_jax.models.platform import as_if_on


def _same(found, wanted):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_batch_normalisation(platform):
    rng = np.random.default_rng(0)

    def plain(x, scale, bias):
        mean = jnp.mean(x, (0, 1))
        var = jnp.mean(jnp.square(x - mean), (0, 1))
        return (x - mean) * scale / jnp.sqrt(var + 1e-3) + bias

    with jax.enable_x64(True):
        arguments = (
            jnp.asarray(rng.normal(3, 2, (4, 7, 5))),
            jnp.asarray(rng.normal(size=5)),
            jnp.asarray(rng.normal(size=5)),
        )
        expected, expected_transposed = jax.vjp(plain, *arguments)
        near = jnp.full(5, 2.5)
        with as_if_on(platform):
            output, transposed = jax.vjp(lambda *a: layers._normalise(*a, near, 1e-3, None)[0], *arguments)
        gradient = jnp.asarray(rng.normal(size=expected.shape))
        _same((output, transposed(gradient)), (expected, expected_transposed(gradient)))


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("platform, unroll", [("cpu", 1), ("cpu", 6), ("cuda", 1)])
def test_recurrence(directions, platform, unroll):
    rng = np.random.default_rng(1)

    def plain(x, kernel, bias, recurrent):
        def step(state, gates):
            _, *state = recurrence._cell_step(tuple(state), gates, recurrent)
            return tuple(state), state[0]

        gates = jnp.transpose((x @ kernel + bias).reshape(3, 6, directions, 16), (1, 2, 0, 3))
        gates = jnp.concatenate([gates[:, :1], gates[::-1, 1:]], axis=1)  # the second direction from the end
        zeros = jnp.zeros((directions, 3, 4))
        hidden = lax.scan(step, (zeros, zeros), gates)[1]
        hidden = jnp.concatenate([hidden[:, :1], hidden[::-1, 1:]], axis=1)
        return jnp.transpose(hidden, (2, 0, 1, 3)).reshape(3, 6, directions * 4)

    with jax.enable_x64(True):
        shapes = (3, 6, 2), (2, directions * 16), (directions * 16,), (directions, 4, 16)
        arguments = tuple(jnp.asarray(rng.normal(size=shape)) for shape in shapes)
        expected, expected_transposed = jax.vjp(plain, *arguments)
        gradient = jnp.asarray(rng.normal(size=expected.shape))
        with as_if_on(platform):
            output, transposed = jax.vjp(lambda *a: recurrence.hidden_states(*a, unroll), *arguments)
            found = output, transposed(gradient)
        _same(found, (expected, expected_transposed(gradient)))


def test_bias_of_bfloat16_is_summed_in_float32():
    x = jnp.ones((64, 128, 2), jnp.bfloat16)  # 8,192 ones: added up in bfloat16 they stop at 256
    output, transposed = jax.vjp(layers.add_bias, x, jnp.array([0.5, 1], jnp.float32))
    assert output.dtype == jnp.bfloat16
    to_x, to_bias = transposed(jnp.ones_like(output))
    assert to_x.dtype == jnp.bfloat16
    np.testing.assert_array_equal(to_bias, [8192, 8192])
