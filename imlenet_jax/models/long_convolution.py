"""Convolution with kernels as long as the signal, one per feature, both ways in time: by FFT."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from imlenet_jax.models.platform import by_platform

Spectra = tuple[jax.Array, jax.Array]


def convolve_both_ways(u: jax.Array, forward: jax.Array, backward: jax.Array) -> jax.Array:
    """`y[t] = sum_s forward[s] u[t - s] + sum_s backward[s] u[t + 1 + s]` along the last axis.

    `u` `(batch, features, length)` float32 or float64; both kernels `(features, length)`. A portable program, which has no
    complex numbers, adds the products up.
    """
    return by_platform(u, forward, backward, portable=_by_products, default=_by_fft)


def _by_products(u: jax.Array, forward: jax.Array, backward: jax.Array) -> jax.Array:
    features, length = forward.shape
    kernel = jnp.concatenate([forward[:, ::-1], backward], axis=-1)  # forward[0] is at `length - 1`
    return jax.lax.conv_general_dilated(
        u, kernel[:, None], (1,), [(length - 1, length)], feature_group_count=features, precision="highest"
    )


@jax.custom_vjp
def _by_fft(u: jax.Array, forward: jax.Array, backward: jax.Array) -> jax.Array:
    return _fft_and_spectra(u, forward, backward)[0]


def _fft_and_spectra(u: jax.Array, forward: jax.Array, backward: jax.Array) -> tuple[jax.Array, Spectra]:
    kernel = jnp.fft.rfft(jnp.concatenate([forward, backward[:, ::-1]], axis=-1))
    inputs = _alone(_spectrum)(u)
    return _alone(_signal)(inputs * kernel), (inputs, kernel)


def _gradients(spectra: Spectra, gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of `u` and both kernels: correlations of the gradient with the kernel and with the inputs."""
    inputs, kernel = spectra
    outputs = _alone(_spectrum)(gradient)
    of_forward, of_backward = jnp.split(jnp.fft.irfft(jnp.sum(outputs * inputs.conj(), axis=0)), 2, axis=-1)
    return _alone(_signal)(outputs * kernel.conj()), of_forward, of_backward[:, ::-1]


_by_fft.defvjp(_fft_and_spectra, _gradients)


def _spectrum(rows: jax.Array) -> jax.Array:
    return jnp.fft.rfft(rows, 2 * rows.shape[-1])


def _signal(spectrum: jax.Array) -> jax.Array:
    return jnp.fft.irfft(spectrum)[..., : spectrum.shape[-1] - 1]


def _alone(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """A function of the last axis, computed where each row is: XLA's partitioner would gather all rows for an FFT."""

    def partition(mesh: Any, arguments: Any, result: Any):
        spec = arguments[0].sharding.spec
        rows = NamedSharding(mesh, PartitionSpec(*spec[: arguments[0].ndim - 1]))
        return mesh, function, rows, (rows,)

    partitioned = custom_partitioning(function)
    partitioned.def_partition(partition=partition, sharding_rule="... i -> ... o", need_replication_factors=("i", "o"))
    batched = custom_vmap(lambda rows: partitioned(rows))

    @batched.def_vmap
    def _(size: int, is_batched: list[bool], rows: jax.Array) -> tuple[jax.Array, bool]:
        return batched(rows), True

    # The partitioner asks in a thread that does not know of 64 bits.
    return lambda rows: function(rows) if rows.dtype.itemsize > 4 * (1 + jnp.iscomplexobj(rows)) else batched(rows)
