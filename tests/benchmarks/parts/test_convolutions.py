"""The convolutions of a step, wherever they are nested."""

import jax
import jax.export
import jax.numpy as jnp
from jax import lax

from benchmarks.parts.convolutions import convolutions
from imlenet_jax.models.platform import by_platform


def _convolve(x, kernel, stride=1):
    return lax.conv_general_dilated(x, kernel, (stride,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))


def test_finds_each_once_with_its_gradients():
    @jax.jit
    def step(x, first, second):
        def loss(first, second):
            x_after, _ = lax.scan(lambda x, _: (_convolve(x, first), None), x, None, length=3)
            return _convolve(_convolve(x_after, first), second, stride=2).sum()

        return jax.grad(loss, argnums=(0, 1))(first, second)

    found = convolutions(step, jnp.zeros((2, 16, 4)), jnp.zeros((3, 4, 4)), jnp.zeros((3, 4, 8)))
    strided = [name for name in found if "window_strides" in name]
    assert len(found) == 6 and len(strided) == 1  # two layers, forward, and both gradients of each
    assert found[strided[0]]().shape == (2, 8, 8)
    assert all(jnp.isfinite(call()).all() for call in found.values())


def test_an_nvidia_gpu_has_its_own_program(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # as jax calls it there
    monkeypatch.setattr(jax.export, "default_export_platform", lambda: "cuda")

    @jax.jit
    def step(x, kernel):
        return by_platform(x, kernel, cuda=_convolve, default=lambda x, kernel: x)

    assert len(convolutions(step, jnp.zeros((2, 16, 4)), jnp.zeros((3, 4, 4)))) == 1
