"""Devices that are not there: XLA compiles a step for them all the same, and the program tells what it would do.

The compilers come with `jax[cuda13]` and `jax[tpu]`, in environments of their own: `make accelerators`.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from benchmarks.parts.steps import make_step
from imlenet_jax.data.loader import Batch
from imlenet_jax.data.ptbxl import LEADS
from imlenet_jax.data.scaling import Scaler
from imlenet_jax.errors import UserError
from imlenet_jax.models import Config
from imlenet_jax.training.parallel import Devices

TARGETS = Path(__file__).with_name("targets")
SETTINGS = {"JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "TPU_SKIP_MDS_QUERY": "1"}


class Target(NamedTuple):
    """What a device does at most, by its maker's figures.

    Attributes:
        platform: `cuda` or `tpu`.
        flops_per_s: dense products, per type of the network; float32 as it is multiplied by default (TF32; on a TPU
            bfloat16).
        bytes_per_s: of its memory.
        kernel_s: seconds to start a kernel; 0 where the host does not start them one by one.
        memory_bytes: of one device.
    """

    platform: str
    flops_per_s: dict[str, float]
    bytes_per_s: float
    kernel_s: float
    memory_bytes: float


DEVICES = {
    "h100": Target("cuda", {"float32": 495e12, "bfloat16": 989e12}, 3.35e12, 2.5e-6, 80e9),
    "a100": Target("cuda", {"float32": 156e12, "bfloat16": 312e12}, 2.04e12, 2.5e-6, 80e9),
    "v5e": Target("tpu", {"float32": 197e12, "bfloat16": 197e12}, 819e9, 0, 16e9),
}


def prepare() -> None:
    """Keep the compilers from looking for their device; before JAX starts."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")


class AbsentDevices(Devices):
    """So many devices of a kind that is not there: steps can be compiled for them, not run."""

    def __init__(self, target: str, count: int):
        try:
            if DEVICES[target].platform == "cuda":
                config = (TARGETS / f"{target}.txtpb").read_text()
                topology = topologies.get_topology_desc(platform="cuda", topology=f"1x1x{count}", target_config=config)
            else:
                topology = topologies.get_topology_desc(platform="tpu", topology_name=f"{target}:{_grid(count)}")
        except Exception as error:  # each compiler has its own
            raise UserError(
                f"--target {target}: its compiler does not start ({str(error).splitlines()[0][:120]}); "
                "run 'make accelerators' and use the environment that it names"
            ) from None
        chosen = np.array(topology.devices[:count])
        self.mesh = Mesh(chosen, ("data",), axis_types=(AxisType.Auto,))
        self._everywhere = NamedSharding(self.mesh, PartitionSpec())


def _grid(count: int) -> str:
    return {1: "2x2", 2: "2x2", 4: "2x2", 8: "2x4"}.get(count, f"1x{count}")


def compile_absent(
    model: str, mode: str, config: Config, dtype: str, batchsize: int, devices: AbsentDevices
) -> tuple[jax.stages.Lowered, jax.stages.Compiled]:
    """The project's own step for a batch of so many records, lowered and compiled for devices that are not there."""
    step, create, training = make_step(model, mode, config, dtype, devices)
    everywhere = partial(_abstract, NamedSharding(devices.mesh, PartitionSpec()))
    spread = partial(_abstract, NamedSharding(devices.mesh, PartitionSpec("data")))
    state = everywhere(jax.eval_shape(create, jax.random.key(0)))
    per_lead = np.zeros((batchsize, len(LEADS)), np.float32)
    batch = Batch(
        signal=np.zeros((batchsize, config.length, config.leads), np.int16),
        gain=per_lead[:, : config.leads],
        baseline=per_lead[:, : config.leads],
        label=np.zeros((batchsize, config.classes), np.float32),
        mask=np.zeros(batchsize, np.float32),
    )
    scaler = Scaler(np.float32(0), np.float32(1))
    rest = (None, scaler, np.uint32(0)) if training else (scaler,)
    lowered = step.lower(state, spread(batch), *everywhere(rest))
    return lowered, lowered.compile()


def _abstract(sharding: NamedSharding, tree: Any) -> Any:
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding), tree)
