"""What machine this is, and the most it can do: the ceilings that a step is held against."""

import datetime
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.cost import program_cost
from imlenet_jax.data.prepare import usable_cores
from imlenet_jax.training.parallel import Devices

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
REPEATS = 5
COPY_BYTES = 2**28  # far larger than a cache
LOOP = 4096


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


def measure_ceilings(devices: Devices, dtype: str) -> Ceilings:
    """Measure them, each on all devices at once, the best of several runs."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    matrices = _on_each(devices, (size, size), dtype)
    product = best_seconds(jax.jit(lambda a: jnp.einsum("dij,djk->dik", a, a)), matrices)
    values = _on_each(devices, (COPY_BYTES // 4,), "float32")
    copy = best_seconds(jax.jit(lambda a: a + 1), values)
    loop = jax.jit(lambda a: jax.lax.fori_loop(0, LOOP, lambda _, b: jnp.sin(b), a))
    few = _on_each(devices, (8,), "float32")
    kernels = program_cost(loop.lower(few).compile().as_text() or "").kernels
    return Ceilings(
        flops_per_s=2 * size**3 * len(devices) / product,
        bytes_per_s=2 * COPY_BYTES * len(devices) / copy,
        kernel_s=best_seconds(loop, few) / kernels,
    )


def best_seconds(function: Callable[[jax.Array], jax.Array], argument: jax.Array) -> float:
    """The shortest of several runs after the first: other processes only ever slow one down."""
    jax.block_until_ready(function(argument))
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(function(argument))
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def describe_machine(devices: Devices) -> dict[str, Any]:
    """Where, when and with what the figures were taken."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": f"{len(devices)} x {jax.devices()[0].device_kind}",
        "processor": _processor(),
        "cores": usable_cores(),
        "load": round(os.getloadavg()[0], 2),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _on_each(devices: Devices, shape: tuple[int, ...], dtype: str) -> jax.Array:
    """An array of this shape on every device, as one array with a leading axis for the devices."""
    make = jax.jit(lambda: jnp.full((len(devices), *shape), 0.5, dtype), out_shardings=devices.batch)
    return make()
