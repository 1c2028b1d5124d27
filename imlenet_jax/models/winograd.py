"""Convolution of stride 1 on a CPU, with fewer multiplications than XLA's own, and its gradients.

Even and odd outputs need even and odd positions with even and odd taps: four convolutions of a quarter of the
multiplications each. Three do, by Winograd's F(2, 2) (Arithmetic Complexity of Computations, SIAM 1980; in networks: Lavin
and Gray, arXiv 1509.09308), where `*` is here a convolution:

    even outputs = (even - odd) * even taps + odd * (even taps + odd taps)
    odd outputs  = odd * (even taps + odd taps) + (next even - odd) * odd taps

Each of the three may be computed the same way again. The sums are passes over the arrays: `_pays` and `_fits` say
where that is less work. Measured in `docs/performance.md`.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata

Pads = tuple[int, int]

LEVELS = 2  # how often to split; once in training, where two take twice as long to compile and gain nothing
WORK = 256  # taps times features or filters; below, a matrix product is too narrow already
LEAST = 2**27  # multiplications; fewer are over before it pays
PASS = 20_000  # bytes that a pass over the signals may have per multiplication of each value; twice that for a kernel
PART = 3 * 2**19  # bytes of signals that a kernel's gradient is taken from at a time: they stay in a core's cache
ROWS = 32  # signals that it is taken from at least


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_unit(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """Convolve `x` `(n, positions, features)`, with `pads` zeros before and after, with `kernel` `(taps, features, filters)`."""
    return _convolve(x, kernel, pads, LEVELS if _pays(x, kernel.shape) and _fits(x, kernel) else 0)


def _forward(x: jax.Array, kernel: jax.Array, pads: Pads):
    return _convolve(x, kernel, pads, int(_pays(x, kernel.shape) and _fits(x, kernel))), (x, kernel)


def _backward(pads: Pads, saved: tuple[jax.Array, jax.Array], gradient: jax.Array):
    x, kernel = saved
    last = len(kernel) - 1
    to_x, _ = _forward(gradient, jnp.transpose(kernel[::-1], (0, 2, 1)), (last - pads[0], last - pads[1]))
    return to_x, _to_kernel(x, gradient, pads, kernel.shape)


convolve_unit.defvjp(_forward, _backward)


def plain(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """XLA's own convolution; only with its axes in this order is it fast on a CPU within a loop, too."""
    return lax.conv_general_dilated(x, kernel, (stride,), [pads], dimension_numbers=("NWC", "WIO", "NWC"))


def stored(x: jax.Array) -> jax.Array:
    """`x`, written to memory: on a CPU, XLA does not compute it again for each of its readers."""
    with set_xla_metadata(inlineable="false"):  # a call that is not inlined stops the fusion
        return jax.jit(lax.optimization_barrier)(x)


def _wide(kernel: tuple[int, ...]) -> bool:
    taps, features, filters = kernel
    return taps > 1 and taps * min(features, filters) >= WORK


def _pays(x: jax.Array, kernel: tuple[int, ...]) -> bool:
    """Whether fewer multiplications are worth the sums over a kernel of this shape."""
    positions, weights, size = x.shape[0] * x.shape[1], math.prod(kernel), x.dtype.itemsize
    exact = size >= 4  # sums of bfloat16 would be rounded
    return exact and _wide(kernel) and positions * weights >= LEAST and weights * size <= 2 * positions * PASS


def _fits(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether they are worth the sums over `x`."""
    taps, features, filters = kernel.shape
    return x.nbytes <= taps * min(features, filters) * PASS


def _convolve(x: jax.Array, kernel: jax.Array, pads: Pads, levels: int) -> jax.Array:
    if levels == 0 or not _wide(kernel.shape):
        return plain(x, kernel, 1, pads)
    outputs = x.shape[1] + sum(pads) - len(kernel) + 1
    pairs = zip(_of_positions(x, pads, outputs, len(kernel)), _of_taps(kernel), strict=True)
    first, both, second = (_convolve(part, taps, (0, 0), levels - 1) for part, taps in pairs)
    y = jnp.stack([first + both, both + second], axis=2)
    return y.reshape(len(x), -1, kernel.shape[2])[:, :outputs]


def _of_positions(x: jax.Array, pads: Pads, outputs: int, taps: int) -> tuple[jax.Array, ...]:
    """What the three kernels of `_of_taps` meet: as many positions as each needs for half of the outputs."""
    n, length, features = x.shape
    blocks, evens, odds = -(-outputs // 2), -(-taps // 2), taps // 2
    filled = 2 * (blocks + evens)
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (pads[0], filled - length - pads[0], 0), (0, 0, 0)))
    x = x.reshape(n, blocks + evens, 2, features)
    even, odd = x[:, :, 0], x[:, :, 1]
    first, second = blocks + evens - 1, blocks + odds - 1
    return even[:, :first] - odd[:, :first], odd[:, :first], even[:, 1 : second + 1] - odd[:, :second]


def _of_taps(kernel: jax.Array) -> tuple[jax.Array, ...]:
    even, odd = kernel[0::2], kernel[1::2]
    return even, even + jnp.pad(odd, ((0, len(even) - len(odd)), (0, 0), (0, 0))), odd


def _to_kernel(x: jax.Array, gradient: jax.Array, pads: Pads, kernel: tuple[int, ...]) -> jax.Array:
    """The kernel's gradient, summed over parts of the signals; no smaller than the kernel, which each part adds to."""
    n, size = len(x), x.dtype.itemsize
    products = partial(_fewer_products if _pays(x, kernel) else _products, pads=pads)
    rows = max(ROWS, max(PART, math.prod(kernel) * size) * n // x.nbytes)
    parts = max(count for count in range(1, -(-n // rows) + 1) if n % count == 0)
    if parts == 1 or size < 4:
        return products(x, gradient)
    # Parts alternate, so that signals that are spread over devices in order are so in every part.
    x, gradient = (array.reshape(n // parts, parts, *array.shape[1:]) for array in (x, gradient))

    def add(part: jax.Array, total: jax.Array) -> jax.Array:
        pick = partial(lax.dynamic_index_in_dim, index=part, axis=1, keepdims=False)
        return total + products(pick(x), pick(gradient))

    return lax.fori_loop(0, parts, add, jnp.zeros(kernel, x.dtype))


def _fewer_products(x: jax.Array, gradient: jax.Array, pads: Pads) -> jax.Array:
    n, outputs, filters = gradient.shape
    taps = x.shape[1] + sum(pads) - outputs + 1
    gradient = jnp.pad(gradient, ((0, 0), (0, outputs % 2), (0, 0))).reshape(n, -1, 2, filters)
    even, odd = stored(gradient[:, :, 0]), stored(gradient[:, :, 1])
    pairs = zip(map(stored, _of_positions(x, pads, outputs, taps)), (even, stored(even + odd), odd), strict=True)
    to_taps = tuple(_products(part, to_part, (0, 0)) for part, to_part in pairs)
    return jax.linear_transpose(_of_taps, jax.ShapeDtypeStruct((taps, x.shape[2], filters), x.dtype))(to_taps)[0]


def _products(x: jax.Array, gradient: jax.Array, pads: Pads) -> jax.Array:
    kernel = plain(jnp.transpose(x, (2, 1, 0)), jnp.transpose(gradient, (1, 0, 2)), 1, pads)
    return jnp.transpose(kernel, (1, 0, 2))
