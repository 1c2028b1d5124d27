"""Devices: what there is, how many are used, and how a batch and a state lie on them.

Data parallelism is `jax.jit` over a one-dimensional mesh: a batch is split along its first axis, everything else is
on every device. BatchNorm and the loss are then those of the global batch by themselves.
"""

import os
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from imlenet_jax.errors import UserError


class Devices:
    """The devices of a run. `batch` and `everywhere` are the two shardings in use."""

    def __init__(self, count: int | None = None):
        available = jax.local_devices()
        count = count or len(available)
        if count > len(available):
            raise UserError(
                f"--num_devices {count}: this machine offers {len(available)} {available[0].platform} device(s)"
            )
        # Explicit axes, the newer default, refuse the reshapes that cut a record into windows.
        self.mesh = Mesh(np.array(available[:count]), ("data",), axis_types=(AxisType.Auto,))
        self.batch = NamedSharding(self.mesh, PartitionSpec("data"))
        self.everywhere = NamedSharding(self.mesh, PartitionSpec())

    def __len__(self) -> int:
        return self.mesh.size

    def check(self, batchsize: int) -> None:
        """Refuse a batch that does not divide."""
        if batchsize % len(self):
            lower, upper = batchsize // len(self) * len(self), -(-batchsize // len(self)) * len(self)
            sizes = f"{lower} or {upper}" if lower else f"{upper}"
            raise UserError(f"--batchsize {batchsize} does not divide over {len(self)} devices: take {sizes}")

    def put_batch(self, batch: Any) -> Any:
        """Arrays split along their first axis over the devices."""
        return jax.device_put(batch, self.batch)

    def put_everywhere(self, tree: Any) -> Any:
        """Arrays copied to every device."""
        return jax.device_put(tree, self.everywhere)


def print_devices() -> None:
    """Print the devices that JAX runs on; warn where there is a GPU or TPU that JAX does not see."""
    devices = jax.local_devices()
    kinds = sorted({device.device_kind for device in devices})
    cores = f", {os.cpu_count()} cores" if devices[0].platform == "cpu" else ""
    print(f"device: {len(devices)} x {', '.join(kinds)} ({devices[0].platform}{cores}), jax {jax.__version__}")
    unseen = unseen_accelerator()
    if devices[0].platform == "cpu" and unseen and os.environ.get("JAX_PLATFORMS") != "cpu":
        print(f"warning: {unseen}, but JAX runs on the CPU", file=sys.stderr)


def unseen_accelerator() -> str:
    """What accelerator the machine shows and how to install JAX for it; empty where it shows none."""
    if Path("/dev/nvidiactl").exists() or Path("/proc/driver/nvidia/version").exists():
        return "an NVIDIA GPU is present (pip install 'imlenet_jax[cuda]' for it)"
    if any(Path("/dev").glob("accel*")) or Path("/dev/vfio/0").exists():
        return "a TPU is present (pip install 'imlenet_jax[tpu]' for it)"
    return ""
