"""One-dimensional convolution, with other programs for the same sums where XLA's own are slow on a CPU.

Measured in `docs/performance.md`. `layers.Conv` is its user.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from imlenet_jax.models.platform import by_platform
from imlenet_jax.models.winograd import Pads, convolve_unit, plain, stored

THIN = 16  # features and filters up to which a matrix product is too narrow to be fast on a CPU


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: str | Pads = "SAME",
    exact: bool = False,
) -> jax.Array:
    """Convolve `x` `(batch, positions, features)` with `kernel` `(taps, features, filters)`.

    `padding` is `SAME`, `VALID`, or the zeros `(before, after)`. `exact` keeps XLA's own rounding of the outputs in
    training on a CPU, at the price of more multiplications.
    """
    if isinstance(padding, str):
        [padding] = lax.padtype_to_pads(x.shape[1:2], kernel.shape[:1], (stride,), padding)
    before, after = padding
    return _convolve(x, kernel, stride, (int(before), int(after)), exact)


@partial(jax.jit, static_argnums=(2, 3, 4))  # a network has few shapes: each is traced once
def _convolve(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, exact: bool) -> jax.Array:
    if len(kernel) == 1 and stride > 1 and pads == (0, 0):
        x, stride = x[:, ::stride], 1
    on_cpu = partial(_on_cpu, stride=stride, pads=pads, exact=exact)
    default = partial(plain, stride=stride, pads=pads)
    return by_platform(written(x), kernel, cpu=on_cpu, cuda=partial(_on_gpu, stride=stride, pads=pads), default=default)


def _on_gpu(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    before, after = pads
    if after == before + 1:
        # cuDNN pads both sides alike; what it cannot pad is written out once more. So a tap that is zero comes first.
        kernel, before = jnp.pad(kernel, ((1, 0), (0, 0), (0, 0))), after
    return plain(x, kernel, stride, (before, after))


def _on_cpu(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, exact: bool) -> jax.Array:
    if len(kernel) > x.shape[1]:
        return _by_product(x, kernel, stride, pads)
    if stride > 1:
        # XLA's gradient spreads the outputs' out with zeros and multiplies them all; in blocks each meets its own taps.
        return _by_blocks(x, kernel, stride, pads, stride, exact)
    if max(kernel.shape[1:]) <= THIN:
        return _by_blocks(x, kernel, stride, pads, 2, exact)
    return convolve_unit(x, kernel, pads, exact)


@jax.custom_vjp
def written(x: jax.Array) -> jax.Array:
    """`x` `(batch, positions, features)`; in training on a CPU, whoever reads it does not compute it again."""
    return x


def _written_forward(x: jax.Array):
    # XLA computes cheap operations again for each of their readers. For a kernel's gradient it transposes x and fuses
    # into it, element by element against the grain, the whole chain of normalisation and activation before.
    return by_platform(x, cpu=stored, default=lambda x: x), None


written.defvjp(_written_forward, lambda _, gradient: (gradient,))


def _by_product(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    # XLA leaves its fast convolution on a CPU where the kernel is longer than the signal: up to 100 times slower.
    taps, features, filters = kernel.shape
    x = jnp.pad(x, ((0, 0), pads, (0, 0)))
    last = x.shape[1] - taps + 1
    shifted = [x[:, tap : tap + last : stride] for tap in range(taps)]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(taps * features, filters)


def _by_blocks(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, block: int, exact: bool) -> jax.Array:
    """The same convolution over blocks of positions, side by side as features: `block // stride` outputs at a time."""
    taps, features, filters = kernel.shape
    (before, after), length = pads, x.shape[1]
    positions, outputs = (length + before + after - taps) // stride + 1, block // stride
    blocks, groups = -(-positions // outputs), -(-(taps + block - stride) // block)
    filled = block * (blocks + groups - 1)
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (before, filled - length - before, 0), (0, 0, 0)))
    x = x.reshape(x.shape[0], filled // block, block * features)
    starts = range(0, block, stride)
    each = [jnp.pad(kernel, ((start, block * groups - taps - start), (0, 0), (0, 0))) for start in starts]
    kernel = jnp.stack(each, axis=2).reshape(groups, block * features, outputs * filters)
    return convolve_unit(x, kernel, (0, 0), exact).reshape(x.shape[0], blocks * outputs, filters)[:, :positions]
