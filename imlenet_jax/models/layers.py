"""Layers that Flax lacks or that its originals define differently.

Everything here is channel-last: `(batch, positions, features)`. Two families of constants run through the package,
named after the framework that a network was published in: `keras` and `torch`.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

Framework = Literal["keras", "torch"]
Initializer = Callable[..., jax.Array]

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

        if train:
            mean, var, count = self._batch_statistics(x)
            if not self.is_initializing():
                stored = var * (count / (count - 1)) if self.framework == "torch" else var
                running_mean.value = momentum * running_mean.value + (1 - momentum) * mean
                running_var.value = momentum * running_var.value + (1 - momentum) * stored
        else:
            mean, var = running_mean.value, running_var.value
        factor = scale * jax.lax.rsqrt(var + epsilon)
        return x * factor + (bias - mean * factor)

    def _batch_statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array, int]:
        axes = tuple(range(x.ndim - 1))
        count = x.size // x.shape[-1]
        mean = jnp.mean(x, axes)
        if self.axis_name is not None:
            mean = jax.lax.pmean(mean, self.axis_name)
            count *= jax.lax.axis_size(self.axis_name)
        var = jnp.mean(jnp.square(x - mean), axes)
        if self.axis_name is not None:
            var = jax.lax.pmean(var, self.axis_name)
        return mean, var, count


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
        energy = (jnp.tanh(x @ weight + bias) @ score)[..., 0]
        attention = jax.nn.softmax(energy, axis=1)
        return jnp.einsum("npf,np->nf", x, attention), attention


class LSTM(nn.Module):
    """A long short-term memory over `(n, time, features)`, one direction or both.

    Returns the hidden states `(n, time, units)`, or `(n, time, 2 * units)` with the backward half put back in time
    order. Gates are ordered i f g o in both frameworks. keras has one bias per direction, with 1 for the forget gate;
    torch trains two biases that are only ever added. The input projection is one matrix product for all time steps,
    and both directions share one recurrence; `unroll` is that of `jax.lax.scan`.
    """

    units: int
    framework: Framework
    bidirectional: bool = False
    unroll: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        directions = ("forward", "backward") if self.bidirectional else ("forward",)
        weights = [self._weights(direction, x.shape[-1]) for direction in directions]
        inputs = [x, jnp.flip(x, axis=1)][: len(directions)]
        projected = jnp.stack([i @ kernel + bias for i, (kernel, _, bias) in zip(inputs, weights, strict=True)])
        recurrent = jnp.stack([recurrent for _, recurrent, _ in weights])

        def step(state, gates):
            hidden, cell = state
            i, f, g, o = jnp.split(gates + jnp.einsum("dnu,duv->dnv", hidden, recurrent), 4, axis=-1)
            cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
            return (hidden, cell), hidden

        zeros = jnp.zeros((len(directions), x.shape[0], self.units), x.dtype)
        _, hidden = jax.lax.scan(step, (zeros, zeros), jnp.moveaxis(projected, 2, 0), unroll=self.unroll)
        hidden = jnp.transpose(hidden, (1, 2, 0, 3))  # (direction, n, time, units)
        if not self.bidirectional:
            return hidden[0]
        return jnp.concatenate([hidden[0], jnp.flip(hidden[1], axis=1)], axis=-1)

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


def _forget_bias(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    units = shape[0] // 4
    return jnp.zeros(shape, dtype).at[units : 2 * units].set(1)


def max_pool(x: jax.Array, size: int, padding: str | tuple[int, int] = "VALID", stride: int | None = None) -> jax.Array:
    """Maximum over `size` positions of `(n, positions, features)`, padded with -inf; the stride is `size` by default."""
    pads = padding if isinstance(padding, str) else [padding]
    return nn.max_pool(x, (size,), strides=(stride or size,), padding=pads)


Conv = partial(nn.Conv, padding="SAME")
