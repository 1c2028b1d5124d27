"""Convolution with kernels as long as the signal, one per feature, both ways in time: by FFT."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from imlenet_jax.models.platform import by_platform


def convolve_both_ways(u: jax.Array, forward: jax.Array, backward: jax.Array) -> jax.Array:
    """`y[t] = sum_s forward[s] u[t - s] + sum_s backward[s] u[t + 1 + s]` along the last axis.

    `u` `(batch, features, length)` float32 or float64; both kernels `(features, length)`. A portable program, which has no
    complex numbers, adds the products up.
    """
    return by_platform(u, forward, backward, portable=_by_products, default=_by_fft)


def _by_products(u: jax.Array, forward: jax.Array, backward: jax.Array) -> jax.Array:
    features, length = forward.shape
    kernel = jnp.concatenate([backward[:, ::-1], forward], axis=-1)[
        :, ::-1
    ]  # its middle, at `length - 1`, is forward[0]
    return jax.lax.conv_general_dilated(
        u, kernel[:, None], (1,), [(length - 1, length)], feature_group_count=features, precision="highest"
    )


def _by_fft(u: jax.Array, forward: jax.Array, backward: jax.Array) -> jax.Array:
    length = u.shape[-1]
    kernel = jnp.concatenate([forward, backward[:, ::-1]], axis=-1)
    return _from_spectrum(length, _spectrum(length, u) * jnp.fft.rfft(kernel))


def _padded_fft(u: jax.Array, length: int) -> jax.Array:
    return jnp.fft.rfft(u, 2 * length)


def _cut_inverse(spectrum: jax.Array, length: int) -> jax.Array:
    return jnp.fft.irfft(spectrum, 2 * length)[..., :length]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _spectrum(length: int, u: jax.Array) -> jax.Array:
    return _alone(partial(_padded_fft, length=length))(u)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _from_spectrum(length: int, spectrum: jax.Array) -> jax.Array:
    return _alone(partial(_cut_inverse, length=length))(spectrum)


def _transposed(function: Callable[..., jax.Array], like: Callable[[int, Any], Any]) -> Callable[..., Any]:
    """The backward pass of a linear function of rows: its transpose."""

    def backward(length: int, _: None, gradient: jax.Array) -> tuple[jax.Array]:
        def transpose(gradient: jax.Array) -> jax.Array:
            shape, dtype = like(length, gradient)
            of = jax.ShapeDtypeStruct((*gradient.shape[:-1], shape), dtype)
            return jax.linear_transpose(partial(function, length=length), of)(gradient)[0]

        return (_alone(transpose)(gradient),)

    return backward


def _real(length: int, gradient: jax.Array) -> tuple[int, Any]:
    return length, gradient.real.dtype


def _complex(length: int, gradient: jax.Array) -> tuple[int, Any]:
    return length + 1, jnp.result_type(gradient.dtype, jnp.complex64)


_spectrum.defvjp(lambda length, u: (_spectrum(length, u), None), _transposed(_padded_fft, _real))
_from_spectrum.defvjp(lambda length, s: (_from_spectrum(length, s), None), _transposed(_cut_inverse, _complex))


def _alone(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """A function of the last axis, computed where each row is: XLA's partitioner would gather all rows for an FFT."""

    def partition(mesh: Any, arguments: Any, result: Any):
        spec = arguments[0].sharding.spec
        rows = NamedSharding(mesh, PartitionSpec(*spec[: arguments[0].ndim - 1]))
        return mesh, function, rows, (rows,)

    partitioned = custom_partitioning(lambda rows: function(rows))  # it wants a signature without defaults
    partitioned.def_partition(partition=partition, sharding_rule="... i -> ... o", need_replication_factors=("i", "o"))
    batched = custom_vmap(lambda rows: partitioned(rows))

    @batched.def_vmap
    def _(size: int, is_batched: list[bool], rows: jax.Array) -> tuple[jax.Array, bool]:
        return batched(rows), True

    # The partitioner asks in a thread that does not know of 64 bits.
    return lambda rows: function(rows) if rows.dtype.itemsize > 4 * (1 + jnp.iscomplexobj(rows)) else batched(rows)
