"""Convolutions equal XLA's own, whatever program computes them: outputs and both gradients, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from imlenet_jax.models.convolution import convolve


@pytest.mark.parametrize(
    ("length", "taps", "stride", "padding"),
    [
        (9, 4, 1, "SAME"),
        (9, 4, 2, "SAME"),
        (10, 3, 3, "SAME"),
        (30, 17, 2, [(2, 2)]),
        (31, 15, 2, [(7, 7)]),
        (20, 15, 1, "VALID"),
        (6, 16, 1, "SAME"),  # the kernel is longer than the signal
        (6, 16, 2, "SAME"),
        (7, 1, 1, "SAME"),
        (7, 1, 2, "SAME"),
        (8, 1, 2, [(0, 0)]),
    ],
)
def test_outputs_and_gradients_are_those_of_xla(length, taps, stride, padding):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, kernel = jnp.asarray(rng.normal(size=(5, length, 3))), jnp.asarray(rng.normal(size=(taps, 3, 4)))

        def plain(x, kernel):
            return lax.conv_general_dilated(x, kernel, (stride,), padding, dimension_numbers=("NWC", "WIO", "NWC"))

        def ours(x, kernel):
            return convolve(x, kernel, stride, padding if isinstance(padding, str) else padding[0])

        expected, expected_transposed = jax.vjp(plain, x, kernel)
        output, transposed = jax.jit(lambda x, kernel: jax.vjp(ours, x, kernel))(x, kernel)
        gradient = jnp.asarray(rng.normal(size=expected.shape))
        for found, wanted in zip(
            (output, *transposed(gradient)), (expected, *expected_transposed(gradient)), strict=True
        ):
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_bfloat16_stays_bfloat16():
    x, kernel = jnp.ones((2, 8, 3), jnp.bfloat16), jnp.ones((4, 3, 2), jnp.bfloat16)
    output, transposed = jax.vjp(lambda x, kernel: convolve(x, kernel, 2, "SAME"), x, kernel)
    assert output.dtype == jnp.bfloat16
    assert [gradient.dtype for gradient in transposed(output)] == [jnp.bfloat16, jnp.bfloat16]
