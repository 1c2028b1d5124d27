"""Convolution of stride 1 with fewer multiplications equals XLA's own: outputs and both gradients, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.parts.cost import program_cost
from imlenet_jax.models import winograd
from imlenet_jax.models.winograd import convolve_unit, plain


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Arrays of any size pay, and are taken few signals at a time."""
    for name, value in {
        "SAVED": -9,
        "SAVED_BACKWARD": -9,
        "LEAST": 0,
        "POSITIONS_LEAST": 0,
        "PART": 1,
        "ROWS": 2,
    }.items():
        monkeypatch.setattr(winograd, name, value)


def random(*shape):
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape))


@pytest.mark.parametrize(
    ("n", "length", "taps", "pads"),
    [
        (4, 12, 8, (3, 4)),
        (4, 13, 7, (3, 3)),
        (5, 9, 4, (0, 0)),  # five signals do not divide into parts
        (6, 8, 3, (0, 2)),
        (4, 9, 2, (3, 4)),  # more zeros than taps
        (4, 9, 9, (0, 0)),  # a single output
        (4, 9, 1, (0, 0)),
    ],
)
def test_outputs_and_gradients_are_those_of_xla(n, length, taps, pads):
    with jax.enable_x64(True):
        x, kernel = random(n, length, 3), random(taps, 3, 4)
        expected, expected_transposed = jax.vjp(lambda *args: plain(*args, 1, pads), x, kernel)
        output, transposed = jax.vjp(lambda *args: convolve_unit(*args, pads), x, kernel)
        gradient = random(*expected.shape) + 1
        found = output, convolve_unit(x, kernel, pads), *transposed(gradient)
        for one, wanted in zip(found, (expected, expected, *expected_transposed(gradient)), strict=True):
            np.testing.assert_allclose(one, wanted, rtol=1e-12, atol=1e-12)


def multiplications(function, *args):
    return program_cost(jax.jit(function).lower(*args).compile().as_text()).flops / 2


def test_multiplications_are_fewer():
    x, kernel = jnp.ones((4, 38, 6)), jnp.ones((7, 6, 6))
    gradient = jnp.ones((4, 32, 6))

    def train(x, kernel):
        return jax.vjp(lambda *args: convolve_unit(*args, (0, 0)), x, kernel)[1](gradient)

    tiles, groups = 4 * 32 // 4, 2
    products = tiles * groups * 7 * 6 * 6
    assert multiplications(lambda *args: convolve_unit(*args, (0, 0)), x, kernel) == products
    assert multiplications(lambda x, kernel: train(x, kernel)[1], x, kernel) == products


def test_exact_outputs_are_xlas_own_and_gradients_as_ever():
    x, kernel = random(4, 38, 6).astype(jnp.float32), random(7, 6, 6).astype(jnp.float32)

    def train(exact):
        output, transposed = jax.vjp(lambda *args: convolve_unit(*args, (3, 3), exact), x, kernel)
        return output, *transposed(output)

    (output, *gradients), (_, *as_ever) = train(exact=True), train(exact=False)
    np.testing.assert_array_equal(output, plain(x, kernel, 1, (3, 3)))
    for one, other in zip(gradients, as_ever, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_signals_on_several_devices_give_the_same_gradient():
    with jax.enable_x64(True):
        x, kernel = random(16, 9, 3), random(4, 3, 4)
        gradient = random(16, 9, 4)

        def train(x, kernel, gradient):
            return jax.vjp(lambda *args: convolve_unit(*args, (1, 2)), x, kernel)[1](gradient)

        expected = jax.jit(train)(x, kernel, gradient)
        spread = NamedSharding(Mesh(np.array(jax.devices()[:4]), ("data",)), PartitionSpec("data"))
        found = jax.jit(train)(jax.device_put(x, spread), kernel, jax.device_put(gradient, spread))
        for one, several in zip(expected, found, strict=True):
            np.testing.assert_allclose(several, one, rtol=1e-12, atol=1e-12)


def test_bfloat16_is_left_to_xla():
    x, kernel = jnp.ones((4, 9, 3), jnp.bfloat16), jnp.ones((4, 3, 4), jnp.bfloat16)
    output, transposed = jax.vjp(lambda *args: convolve_unit(*args, (1, 2)), x, kernel)
    expected, expected_transposed = jax.vjp(lambda *args: plain(*args, 1, (1, 2)), x, kernel)
    for found, wanted in zip((output, *transposed(output)), (expected, *expected_transposed(expected)), strict=True):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(float), wanted.astype(float), rtol=1e-2)
