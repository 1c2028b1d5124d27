"""The most that a machine can do: the ceilings that a step is held against."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.parts.cost import program_cost
from imlenet_jax.training.parallel import Devices

REPEATS = 10
RUN = 0.02  # seconds of runs that are waited for together, so that the waiting does not count
MOST = 100  # of them
MATRIX_SIZE = {"cpu": 2048}
COPY_BYTES = 2**28  # far larger than a cache
LOOP = 4096
LOOP_BYTES = 4096  # XLA compiles a loop over still less data to one kernel


class Ceilings(NamedTuple):
    """The most that the devices of a run reach together.

    Attributes:
        flops_per_s: of a large matrix product, two operations per multiplication.
        bytes_per_s: of a large copy, read and written.
        kernel_s: seconds per operation in a loop of operations too small to take any time themselves.
    """

    flops_per_s: float
    bytes_per_s: float
    kernel_s: float


def measure_ceilings(devices: Devices, dtypes: Sequence[str]) -> dict[str, Ceilings]:
    """Measure them per data type, each on all devices at once, the best of several runs."""
    copy, _ = best_run(lambda a: a + 1, _on_each(devices, (COPY_BYTES // 4,)))
    loop, kernels = best_run(
        lambda a: jax.lax.fori_loop(0, LOOP, lambda _, b: jnp.cos(b), a), _on_each(devices, (LOOP_BYTES // 4,))
    )
    size = MATRIX_SIZE.get(jax.default_backend(), 8192)
    ceilings = {}
    for dtype in dtypes:
        matrices = _on_each(devices, (size, size), dtype, 1 / size)
        product, _ = best_run(lambda a: jnp.einsum("dij,djk->dik", a, a), matrices)
        ceilings[dtype] = Ceilings(
            flops_per_s=2 * size**3 * len(devices) / product,
            bytes_per_s=2 * COPY_BYTES * len(devices) / copy,
            kernel_s=loop / max(kernels, LOOP),  # should a newer XLA's program not tell its trips
        )
    return ceilings


def best_run(function: Callable[[jax.Array], jax.Array], value: jax.Array) -> tuple[float, int]:
    """The shortest of several runs, as other processes only ever slow one down, and the kernels that one starts.

    Each run takes what the one before returned, in the same memory: fresh pages would be timed too.
    """
    compiled = jax.jit(function, donate_argnums=0).lower(value).compile()
    value = jax.block_until_ready(compiled(value))
    seconds, count = [], 1
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        for _ in range(count):
            value = compiled(value)
        jax.block_until_ready(value)
        seconds.append((time.perf_counter() - start) / count)
        count = max(1, min(MOST, int(RUN / seconds[0])))
    return min(seconds[1:]), program_cost(compiled.as_text() or "").kernels


def _on_each(devices: Devices, shape: tuple[int, ...], dtype: str = "float32", value: float = 0.5) -> jax.Array:
    """An array of this shape on every device, as one array with a leading axis for the devices."""
    return devices.put_batch(jnp.full((len(devices), *shape), value, dtype))
