"""Layers that Flax lacks or that its originals define differently.

Everything here is channel-last: `(batch, positions, features)`. Two families of constants run through the package,
named after the framework that a network was published in: `keras` and `torch`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from imlenet_jax.models.convolution import convolve, written
from imlenet_jax.models.platform import by_platform
from imlenet_jax.models.recurrence import hidden_states

Framework = Literal["keras", "torch"]
Initializer = Callable[..., jax.Array]
Dtype = Any
"""What activations are stored in and products taken in: `jnp.bfloat16`, or None for the type of the inputs."""

# torch's default for convolutions and dense layers: kaiming uniform with a = sqrt(5), that is U(+-1 / sqrt(fan_in)).
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def symmetric_uniform(bound: float) -> Initializer:
    """An initialiser that draws from U(-bound, bound)."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


class BatchNorm(nn.Module):
    """Batch normalisation over every axis but the last, with the constants of `keras` or `torch`.

    keras keeps 0.99 of the running statistics per step, epsilon 1e-3, and stores the biased variance; torch keeps
    0.9, epsilon 1e-5, and stores the unbiased one. Both normalise with the biased variance of the batch. Under
    `jax.pmap`, `axis_name` makes the statistics those of the global batch.
    """

    framework: Framework
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        features = x.shape[-1]
        momentum, epsilon = (0.99, 1e-3) if self.framework == "keras" else (0.9, 1e-5)
        scale = self.param("scale", nn.initializers.ones, (features,))
        bias = self.param("bias", nn.initializers.zeros, (features,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (features,))

        if not train:
            factor = scale * jax.lax.rsqrt(running_var.value + epsilon)
            return (x * factor + (bias - running_mean.value * factor)).astype(x.dtype)
        y, mean, var, count = _normalise(written(x), scale, bias, running_mean.value, epsilon, self.axis_name)
        if not self.is_initializing():
            stored = var * (count / jnp.maximum(count - 1, 1)) if self.framework == "torch" else var
            running_mean.value = momentum * running_mean.value + (1 - momentum) * mean
            running_var.value = momentum * running_var.value + (1 - momentum) * stored
        return y


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _normalise(x: jax.Array, scale: jax.Array, bias: jax.Array, near: jax.Array, epsilon: float, axis_name: str | None):
    """`x` normalised over every axis but the last; also the mean and variance used, and over how many values.

    `near` is about the mean. The statistics are for keeping: no gradient passes through them.
    """
    moments = partial(_moments_at_once, axis_name=axis_name)
    mean, var = by_platform(x, near, cpu=partial(_moments, axis_name=axis_name), default=moments)
    factor, count = scale * jax.lax.rsqrt(var + epsilon), x.size // x.shape[-1]
    if axis_name is not None:
        count *= jax.lax.axis_size(axis_name)
    return (x * factor + (bias - mean * factor)).astype(x.dtype), mean, var, count


def _moments(x: jax.Array, near: jax.Array, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
    x, axes = single(x), tuple(range(x.ndim - 1))
    mean = _over_devices(jnp.mean(x, axes), axis_name)
    return mean, _over_devices(jnp.mean(jnp.square(x - mean), axes), axis_name)


def _moments_at_once(x: jax.Array, near: jax.Array, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
    """Mean and variance in one pass over `x` and one message between devices; `near` keeps the digits of the variance."""
    away, axes = single(x) - near, tuple(range(x.ndim - 1))
    mean, square = _over_devices(jnp.stack([jnp.mean(away, axes), jnp.mean(jnp.square(away), axes)]), axis_name)
    return near + mean, jnp.maximum(square - jnp.square(mean), 0)


def _normalise_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, near: jax.Array, epsilon: float, axis_name: str | None
):
    outputs = _normalise(x, scale, bias, near, epsilon, axis_name)
    _, mean, var, _ = outputs
    return outputs, (x, scale, mean, jax.lax.rsqrt(var + epsilon))


def _normalise_backward(epsilon: float, axis_name: str | None, saved: tuple[jax.Array, ...], gradients: Any):
    # Written out, and in sums of x rather than of x - mean: XLA stores and reads fewer arrays of the size of x.
    x, scale, mean, inverse = saved
    kept, (x, gradient) = x.dtype, map(single, (x, gradients[0]))
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    to_bias = jnp.sum(gradient, axes)
    to_scale = (jnp.sum(gradient * x, axes) - mean * to_bias) * inverse
    mean_bias, mean_scale = _over_devices(jnp.stack([to_bias, to_scale]) / count, axis_name)
    factor = scale * inverse
    slope = factor * inverse * mean_scale
    to_x = factor * gradient - slope * x + (slope * mean - factor * mean_bias)
    return to_x.astype(kept), to_scale, to_bias, None


_normalise.defvjp(_normalise_forward, _normalise_backward)


def _over_devices(value: jax.Array, axis_name: str | None) -> jax.Array:
    return value if axis_name is None else jax.lax.pmean(value, axis_name)


class AttentionPooling(nn.Module):
    """Weighted mean over positions: `a = softmax(tanh(x W + b) V)`, with one row of `b` per position.

    Maps `(n, positions, features)` to the context `(n, features)` and the weights `a` `(n, positions)`, which sum to
    one. Source: the `attention` layer in `models/IMLENet.py` of the reference.
    """

    dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        _, positions, features = x.shape
        normal = nn.initializers.normal(0.05)
        weight = self.param("weight", normal, (features, self.dim))
        bias = self.param("bias", nn.initializers.zeros, (positions, self.dim))
        score = self.param("score", normal, (self.dim, 1))
        hidden = jnp.tanh(single(x @ weight.astype(x.dtype)) + bias)
        attention = jax.nn.softmax(jnp.sum(hidden * score[:, 0], axis=-1), axis=1)
        return jnp.einsum("npf,np->nf", single(x), attention), attention


class LSTM(nn.Module):
    """A long short-term memory over `(n, time, features)`, one direction or both.

    Returns the hidden states `(n, time, units)`, or `(n, time, 2 * units)` with the backward half put back in time
    order. Gates are ordered i f g o in both frameworks. keras has one bias per direction, with 1 for the forget gate;
    torch trains two biases that are only ever added. `unroll` is that of `jax.lax.scan`.
    """

    units: int
    framework: Framework
    bidirectional: bool = False
    unroll: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        directions = ("forward", "backward") if self.bidirectional else ("forward",)
        weights = [self._weights(direction, x.shape[-1]) for direction in directions]
        kernels, recurrent, biases = zip(*weights, strict=True)
        kernel, bias = jnp.concatenate(kernels, axis=1), jnp.concatenate(biases)
        return hidden_states(x, kernel, bias, jnp.stack(recurrent), self.unroll)

    def _weights(self, direction: str, features: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        gates = 4 * self.units
        if self.framework == "keras":
            kernel_init: Initializer = nn.initializers.glorot_uniform()
            recurrent_init: Initializer = nn.initializers.orthogonal()
            bias_init: Initializer = _forget_bias
        else:
            kernel_init = recurrent_init = bias_init = symmetric_uniform(self.units**-0.5)
        kernel = self.param(f"{direction}_kernel", kernel_init, (features, gates))
        recurrent = self.param(f"{direction}_recurrent", recurrent_init, (self.units, gates))
        bias = self.param(f"{direction}_bias", bias_init, (gates,))
        if self.framework == "torch":
            # Two parameters, not one: merged, they would move at half the rate.
            bias = bias + self.param(f"{direction}_recurrent_bias", bias_init, (gates,))
        return kernel, recurrent, bias


class Conv(nn.Module):
    """One-dimensional convolution of `(n, positions, features)`; parameters as in `flax.linen.Conv`.

    `padding` is `SAME`, `VALID` or the zeros on both sides; `exact` is that of `convolve`. With `dtype` in bfloat16
    inputs and outputs are in it, and so are the gradients of both, but not those of the parameters.
    """

    features: int
    kernel_size: int
    stride: int = 1
    padding: str | int = "SAME"
    use_bias: bool = True
    exact: bool = False
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (self.kernel_size, x.shape[-1], self.features))
        x = x.astype(self.dtype or x.dtype)
        padding = (self.padding, self.padding) if isinstance(self.padding, int) else self.padding
        x = convolve(x, kernel.astype(x.dtype), self.stride, padding, self.exact)
        return add_bias(x, self.param("bias", self.bias_init, (self.features,))) if self.use_bias else x


@jax.custom_vjp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """`x` `(n, positions, features)` plus a `bias` `(features,)`, in the type of `x`."""
    return x + bias.astype(x.dtype)


def _add_bias_backward(_: None, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    return gradient, jnp.sum(single(gradient), (0, 1))  # derived by JAX, it would be a sum of bfloat16


add_bias.defvjp(lambda x, bias: (add_bias(x, bias), None), _add_bias_backward)


class Dropout(nn.Module):
    """Zeros a value with probability `rate` (to 1/65536) in training, and scales the others by `1 / (1 - rate)`.

    As in both frameworks, but two values share one random number of 32 bits: numbers cost more than the layer's sums.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if not train or self.rate == 0:
            return x
        *positions, features = x.shape
        bits = jax.random.bits(self.make_rng("dropout"), (*positions, -(-features // 2)))
        halves = jax.lax.bitcast_convert_type(bits, jnp.uint16).reshape(*positions, -1)[..., :features]
        return jnp.where(halves >= round(self.rate * 2**16), x / (1 - self.rate), 0)


def single(x: jax.Array) -> jax.Array:
    """`x` in at least float32: what sums, statistics, recurrences, softmax and loss are computed in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _forget_bias(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    units = shape[0] // 4
    return jnp.zeros(shape, dtype).at[units : 2 * units].set(1)


def max_pool(
    x: jax.Array,
    size: int,
    padding: str | tuple[int, int] = "VALID",
    stride: int | None = None,
    summed: bool = False,
) -> jax.Array:
    """Maximum over `size` positions of `(n, positions, features)`, padded with -inf; the stride is `size` by default.

    `summed` says that the output goes into a sum, with which comparisons become one pass on a TPU, too.
    """
    if isinstance(padding, str) and stride in (None, size):
        compare = partial(_block_max, size=size, fill=padding == "SAME")
        pool = partial(_windows_max, size=size, stride=size, padding=padding)
        if summed:
            return by_platform(x, portable=pool, default=compare)
        return by_platform(x, tpu=pool, portable=pool, default=compare)
    return _windows_max(x, size, stride or size, padding if isinstance(padding, str) else ((0, 0), padding, (0, 0)))


def _windows_max(x: jax.Array, size: int, stride: int, padding: Any) -> jax.Array:
    found: jax.Array = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, 1), (1, stride, 1), padding)
    return found


def mean_pool(x: jax.Array, size: int, padding: int) -> jax.Array:
    """Mean over `size` positions of `(n, positions, features)`, padded with zeros that count; the stride is `size`."""
    window, pads = (1, size, 1), ((0, 0), (padding, padding), (0, 0))
    total: jax.Array = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, window, pads)
    return total / size


def _block_max(x: jax.Array, size: int, fill: bool) -> jax.Array:
    # Windows that do not overlap: comparisons, whose gradient XLA fuses, where that of its own pool is a scatter. On a
    # TPU bringing two neighbours apart is a copy, and XLA's pool takes fewer cycles unless it parts two others.
    n, positions, features = x.shape
    blocks = -(-positions // size) if fill else positions // size
    missing = blocks * size - positions
    if missing:
        edges = (missing // 2, missing - missing // 2) if fill else (0, missing)
        x = jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), ((0, 0, 0), (*edges, 0), (0, 0, 0)))
    x = x.reshape(n, blocks, size, features)
    highest = x[:, :, 0]
    for index in range(1, size):
        highest = jnp.where(highest >= x[:, :, index], highest, x[:, :, index])  # of equals the first has the gradient
    return highest
