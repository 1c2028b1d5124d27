"""Convolution of stride 1 on a CPU, with fewer multiplications than XLA's own, and its gradients.

Four neighbouring outputs of four taps are 16 multiplications, or 7 by Winograd's F(4, 4) (Arithmetic Complexity of
Computations, SIAM 1980; in networks: Lavin and Gray, arXiv 1509.09308):

    outputs 0 to 3 = OUTPUTS @ ((POSITIONS @ positions 0 to 6) * (TAPS @ taps 0 to 3))

Here every fourth position and every fourth tap take the places of the numbers, and seven convolutions those of the
multiplications. The sums around them are passes over the arrays, which cost little where those stay in a core's cache:
the signals are taken in parts. Measured in `docs/performance.md`.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata

Pads = tuple[int, int]

SAVED = 70  # multiplications saved for every value read or written, from which the sums pay
SAVED_BACKWARD = 40  # the same for the gradient of a kernel
LEAST = 2**26  # multiplications from which it pays to compile more
POSITIONS_LEAST = 256  # positions of all signals from which the sums over a kernel pay
PART = 2**21  # bytes of signals taken at a time: a core's cache holds them
ROWS = 8  # signals taken at a time at least
STRETCHES = 8  # of the signals, from each of which a part takes its share

TILE = 4

# Interpolation at 0, 1, -1, 2, -2, 1/2 and infinity. Its outputs are rounded four times as much as those of 16 products.
TAPS = np.array([
    [1 / 4, 0, 0, 0],
    [1 / 6, 1 / 6, 1 / 6, 1 / 6],
    [1 / 9, -1 / 9, 1 / 9, -1 / 9],
    [1 / 36, 1 / 18, 1 / 9, 2 / 9],
    [1 / 60, -1 / 30, 1 / 15, -2 / 15],
    [32 / 45, 16 / 45, 8 / 45, 4 / 45],
    [0, 0, 0, 1 / 2],
])  # fmt: skip
POSITIONS = np.array([
    [4, -8, -5, 10, 1, -2, 0],
    [0, -4, 4, 9, -1, -2, 0],
    [0, -2, 6, -3.5, -1.5, 1, 0],
    [0, 1, -1.5, -2, 1.5, 1, 0],
    [0, 1, -2.5, 0, 2.5, -1, 0],
    [0, 4, 0, -5, 0, 1, 0],
    [0, -4, 8, 5, -10, -1, 2],
])  # fmt: skip
OUTPUTS = np.array([
    [1, 1, 1, 1, 1, 1, 0],
    [0, 1, -1, 2, -2, 1 / 2, 0],
    [0, 1, 1, 4, 4, 1 / 4, 0],
    [0, 1, -1, 8, -8, 1 / 8, 1],
])  # fmt: skip


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve_unit(x: jax.Array, kernel: jax.Array, pads: Pads, exact: bool = False) -> jax.Array:
    """Convolve `x` `(n, positions, features)`, with `pads` zeros before and after, with `kernel` `(taps, features, filters)`.

    `exact` leaves the outputs to XLA, with its rounding, where they are differentiated; the gradients are as ever.
    """
    if not _pays(x, kernel.shape, SAVED):
        return plain(x, kernel, 1, pads)
    taps, _, filters = kernel.shape
    outputs, of_taps = x.shape[1] + sum(pads) - taps + 1, _of_taps(kernel)
    x = _divided(x, _parts(x, kernel.shape))

    def convolve_part(part: jax.Array, y: jax.Array) -> jax.Array:
        of_positions = _of_positions(_taken(x, part), pads, outputs, taps)
        products = [plain(*pair, 1, (0, 0)) for pair in zip(of_positions, of_taps, strict=True)]
        tiles = jnp.stack(_sums(OUTPUTS, products), axis=2)
        some = tiles.reshape(len(tiles), -1, filters)[:, :outputs]
        return lax.dynamic_update_index_in_dim(y, some.reshape(len(y), *y.shape[2:]), part, 1)

    y = lax.empty((*x.shape[:3], outputs, filters), x.dtype)
    return lax.fori_loop(0, x.shape[1], convolve_part, y).reshape(-1, outputs, filters)


def _forward(x: jax.Array, kernel: jax.Array, pads: Pads, exact: bool):
    return plain(x, kernel, 1, pads) if exact else convolve_unit(x, kernel, pads), (x, kernel)


def _backward(pads: Pads, exact: bool, saved: tuple[jax.Array, jax.Array], gradient: jax.Array):
    x, kernel = saved
    last = len(kernel) - 1
    to_x = convolve_unit(gradient, jnp.transpose(kernel[::-1], (0, 2, 1)), (last - pads[0], last - pads[1]))
    return to_x, _to_kernel(x, gradient, pads, kernel.shape)


convolve_unit.defvjp(_forward, _backward)


def plain(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """XLA's own convolution; only with its axes in this order is it fast on a CPU within a loop, too."""
    return lax.conv_general_dilated(x, kernel, (stride,), [pads], dimension_numbers=("NWC", "WIO", "NWC"))


def stored(x: jax.Array) -> jax.Array:
    """`x`, written to memory: on a CPU, XLA does not compute it again for each of its readers."""
    with set_xla_metadata(inlineable="false"):  # a call that is not inlined stops the fusion
        return jax.jit(lax.optimization_barrier)(x)


def _pays(x: jax.Array, kernel: tuple[int, ...], least: int) -> bool:
    """Whether fewer multiplications are worth the sums, and their compilation."""
    taps, features, filters = kernel
    saved = (taps - len(TAPS) / TILE * -(-taps // TILE)) * features * filters / (features + filters)
    positions = x.shape[0] * x.shape[1]
    return _precise(x) and saved >= least and positions >= POSITIONS_LEAST and positions * math.prod(kernel) >= LEAST


def _precise(x: jax.Array) -> bool:
    """Whether sums keep enough of their terms: in bfloat16 they would not."""
    return x.dtype.itemsize >= 4


def _parts(x: jax.Array, kernel: tuple[int, ...]) -> int:
    """In how many equal parts the signals are taken; none smaller than the kernel, which each of them reads."""
    n, size = len(x), x.dtype.itemsize
    rows = max(ROWS, max(PART, math.prod(kernel) * size) * n // x.nbytes)
    return max(count for count in range(1, -(-n // rows) + 1) if n % count == 0)


def _divided(x: jax.Array, parts: int) -> jax.Array:
    """`(n, ...)` as `(stretches, parts, rows, ...)`: signals that are spread over devices in order are so in every part."""
    return x.reshape(math.gcd(STRETCHES, len(x) // parts), parts, -1, *x.shape[1:])


def _taken(x: jax.Array, part: jax.Array) -> jax.Array:
    return lax.dynamic_index_in_dim(x, part, 1, keepdims=False).reshape(-1, *x.shape[3:])


def _sums(weights: np.ndarray, arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """`weights @ arrays`."""
    return [reduce(jnp.add, (float(w) * a for w, a in zip(row, arrays, strict=True) if w)) for row in weights]


def _of_taps(kernel: jax.Array) -> list[jax.Array]:
    taps, *channels = kernel.shape
    kernel = jnp.pad(kernel, ((0, -taps % TILE), (0, 0), (0, 0))).reshape(-1, TILE, *channels)
    return _sums(TAPS, [kernel[:, tap] for tap in range(TILE)])


def _of_positions(x: jax.Array, pads: Pads, outputs: int, taps: int) -> list[jax.Array]:
    n, length, features = x.shape
    tiles = -(-outputs // TILE) + -(-taps // TILE)
    ends = (pads[0], TILE * tiles - length - pads[0], 0)  # negative where taps do not reach the end
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), ends, (0, 0, 0))).reshape(n, tiles, TILE, features)
    each = [x[:, :-1, position] for position in range(TILE)] + [x[:, 1:, position] for position in range(TILE - 1)]
    return _sums(POSITIONS, each)


def _of_outputs(gradient: jax.Array) -> list[jax.Array]:
    n, outputs, filters = gradient.shape
    gradient = jnp.pad(gradient, ((0, 0), (0, -outputs % TILE), (0, 0))).reshape(n, -1, TILE, filters)
    return _sums(OUTPUTS.T, [gradient[:, :, output] for output in range(TILE)])


def _to_kernel(x: jax.Array, gradient: jax.Array, pads: Pads, kernel: tuple[int, ...]) -> jax.Array:
    taps, outputs = kernel[0], gradient.shape[1]
    if not _pays(x, kernel, SAVED_BACKWARD):
        return _summed(lambda x, gradient: [_products(x, gradient, pads)], x, gradient, kernel, [kernel])[0]

    def seven_products(x: jax.Array, gradient: jax.Array) -> list[jax.Array]:
        pairs = zip(_of_positions(x, pads, outputs, taps), _of_outputs(gradient), strict=True)
        return [_products(stored(a), stored(b), (0, 0)) for a, b in pairs]

    shape = (-(-taps // TILE), *kernel[1:])
    of_taps = _summed(seven_products, x, gradient, kernel, [shape] * len(TAPS))
    return jnp.stack(_sums(TAPS.T, of_taps), axis=1).reshape(-1, *kernel[1:])[:taps]


def _summed(
    products: Callable[[jax.Array, jax.Array], list[jax.Array]],
    x: jax.Array,
    gradient: jax.Array,
    kernel: tuple[int, ...],
    shapes: Sequence[tuple[int, ...]],
) -> list[jax.Array]:
    """`products`, of the given shapes, summed over the parts of the signals."""
    parts = _parts(x, kernel) if _precise(x) else 1
    x, gradient = _divided(x, parts), _divided(gradient, parts)

    def add_part(part: jax.Array, totals: list[jax.Array]) -> list[jax.Array]:
        return list(map(jnp.add, totals, products(_taken(x, part), _taken(gradient, part))))

    return lax.fori_loop(0, parts, add_part, [jnp.zeros(shape, x.dtype) for shape in shapes])


def _products(x: jax.Array, gradient: jax.Array, pads: Pads) -> jax.Array:
    """The kernel's gradient as a convolution: of features with filters, over positions, with signals for channels."""
    kernel = plain(jnp.transpose(x, (2, 1, 0)), jnp.transpose(gradient, (1, 0, 2)), 1, pads)
    return jnp.transpose(kernel, (1, 0, 2))
