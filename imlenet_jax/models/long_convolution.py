"""Convolution with kernels as long as the signal, one per feature, both ways in time: by FFT or its matrices."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from imlenet_jax.models.platform import by_platform

STEP = 64  # samples: the matrices are as wide as a TPU's unit, 2 x 64
Spectra = tuple[jax.Array, jax.Array]


def convolve_both_ways(u: jax.Array, forward: jax.Array, backward: jax.Array) -> jax.Array:
    """`y[t] = sum_s forward[s] u[t - s] + sum_s backward[s] u[t + 1 + s]` along the last axis.

    `u` `(batch, features, length)` float32 or float64; both kernels `(features, length)`. By FFT, but for a TPU, on which that
    takes four times as many cycles, and for a portable program, which has no complex numbers: there by matrix products.
    """
    return by_platform(u, forward, backward, tpu=_by_matrices, portable=_by_matrices, default=_by_fft)


def _by_matrices(u: jax.Array, forward: jax.Array, backward: jax.Array) -> jax.Array:
    """An FFT's first and last factors as matrices: samples t = STEP t1 + t2 to frequencies k = k1 + 2 parts k2.

    Of k1 the lower half is enough, signals being real. A complex number is a pair of real ones (axis -2), a frequency
    stands at (k1, pair, k2). Transposed, the same two matrices lead back.
    """
    length = u.shape[-1]
    parts = -(-length // STEP)
    first, second, weights = (jnp.asarray(matrix, u.dtype) for matrix in _dft_matrices(parts))
    product = partial(jnp.einsum, precision="highest")

    def transform(rows: jax.Array) -> jax.Array:
        rows = rows.reshape(*rows.shape[:-1], -1, STEP)
        pairs = product("...ts,tkc->...kcs", rows, first[: rows.shape[-2]])
        return product("...kcs,kcsdr->...kdr", pairs, second)

    inside = [(0, 0)] * (u.ndim - 1) + [(0, STEP * parts - length)]
    gap = jnp.zeros((len(forward), 2 * (STEP * parts - length)), u.dtype)
    of_kernel = transform(jnp.concatenate([forward, gap, backward[:, ::-1]], axis=-1)) * weights[:, None, None]
    of_inputs = transform(jnp.pad(u, inside))
    real, imaginary = of_kernel[..., :1, :], of_kernel[..., 1:, :]
    turned = jnp.concatenate([-of_inputs[..., 1:, :], of_inputs[..., :1, :]], axis=-2)
    pairs = product("...kdr,kcsdr->...kcs", of_inputs * real + turned * imaginary, second)
    rows = product("...kcs,tkc->...ts", pairs, first[:parts])
    return rows.reshape(*u.shape[:-1], -1)[..., :length]


def _dft_matrices(parts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(t1, k1, pair)`, `(k1, pair, t2, pair, k2)`, and what each k1 counts for in the inverse."""
    count = 2 * parts
    t1, k1, t2 = np.arange(count), np.arange(parts + 1), np.arange(STEP)
    turns = np.exp(-2j * np.pi * np.outer(t1, k1) / count)
    first = np.stack([turns.real, turns.imag], axis=-1)
    frequency = k1[:, None] + count * t2
    turns = np.exp(-2j * np.pi * t2[:, None] * frequency[:, None] / (count * STEP))
    second = np.stack([np.stack([turns.real, turns.imag], 2), np.stack([-turns.imag, turns.real], 2)], axis=1)
    return first, second, np.where((k1 == 0) | (k1 == parts), 1, 2) / (count * STEP)


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
