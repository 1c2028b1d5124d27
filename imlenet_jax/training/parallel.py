"""Devices and processes: what there is, how much of it is used, and how a batch and a state lie on it.

Data parallelism is `jax.jit` over a one-dimensional mesh: a batch is split along its first axis, everything else is
on every device. BatchNorm and the loss are then those of the global batch by themselves. `Replicas` does the same
with `jax.pmap`, where they are averaged by name.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from imlenet_jax.errors import UserError
from imlenet_jax.runtime.start import devices as all_devices
from imlenet_jax.runtime.start import unseen_accelerator
from imlenet_jax.training.step import Outcome


class Devices:
    """The devices of a run, over all its processes."""

    axis_name: str | None = None
    """The name that a network and its training step average over; none, where jit sees the whole batch."""

    def __init__(self, count: int | None = None):
        available = all_devices()
        count = count or len(available)
        if count > len(available):
            raise UserError(f"--num_devices {count}: there are {len(available)} {available[0].platform} device(s)")
        if jax.process_count() > 1 and count < len(available):
            raise UserError(f"--num_devices {count}: several processes use all of their {len(available)} devices")
        # Explicit axes, the newer default, refuse the reshapes that cut a record into windows.
        self.mesh = Mesh(np.array(available[:count]), ("data",), axis_types=(AxisType.Auto,))
        self._everywhere = NamedSharding(self.mesh, PartitionSpec())

    def __len__(self) -> int:
        return self.mesh.size

    def check(self, batchsize: int) -> None:
        """Refuse a batch that does not divide."""
        if batchsize % len(self):
            lower, upper = batchsize // len(self) * len(self), -(-batchsize // len(self)) * len(self)
            sizes = f"{lower} or {upper}" if lower else f"{upper}"
            raise UserError(f"--batchsize {batchsize} does not divide over {len(self)} devices: take {sizes}")

    def put_batch(self, batch: Any, axis: int = 0) -> Any:
        """This process's part of a batch, split along `axis` over the devices."""
        return _put(batch, NamedSharding(self.mesh, PartitionSpec(*[None] * axis, "data")))

    def put_everywhere(self, tree: Any) -> Any:
        """Arrays copied to every device; every process must give the same."""
        return _put(tree, self._everywhere)

    def put_state(self, state: Any) -> Any:
        """A training state as `compile_step`'s function takes it."""
        return self.put_everywhere(state)

    def get_state(self, state: Any) -> Any:
        """A training state as `Checkpoints` and `Predictor` take it."""
        return state

    def compile_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """`step(state, batch, records, scaler, seed)`, jitted; the state is donated, and results are on every device."""
        return jax.jit(step, donate_argnums=0, out_shardings=self._everywhere)

    def compile_predict(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """`step(variables, batch, scaler)`, jitted."""
        return jax.jit(step, out_shardings=self._everywhere)


def _put(tree: Any, sharding: NamedSharding) -> Any:
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    # Not device_put, which asks all processes about every array in turn whether it is the same.
    put = partial(jax.make_array_from_process_local_data, sharding)
    return jax.tree.map(lambda array: put(np.asarray(array)), tree)


class Replicas(Devices):
    """Training by `jax.pmap`: every array of the state has a leading axis of devices."""

    axis_name = "data"

    def put_state(self, state: Any) -> Any:
        """A copy of the state per device."""
        return self.put_batch(jax.tree.map(lambda array: np.broadcast_to(array, (len(self), *array.shape)), state))

    def get_state(self, state: Any) -> Any:
        """The first device's copy, on every device."""
        return self.put_everywhere(jax.tree.map(lambda array: array[0], state))

    def compile_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """`step` on every device with its share of the batch; results are put together."""
        axes, devices = (0, 0, None, None, None), list(self.mesh.devices.flat)
        # The loss is the same on every device; to index it afterwards would send the index to the device.
        out = (0, Outcome(loss=None, logits=0))  # type: ignore[arg-type]
        mapped = jax.pmap(step, "data", in_axes=axes, out_axes=out, donate_argnums=0, devices=devices)

        def call(state: Any, batch: Any, *rest: Any) -> Any:
            shares = jax.tree.map(lambda array: array.reshape(len(self), -1, *array.shape[1:]), batch)
            state, outcome = mapped(state, shares, *rest)
            return state, outcome._replace(logits=outcome.logits.reshape(-1, outcome.logits.shape[-1]))

        return call


def make_devices(parallel: str = "sharded", count: int | None = None) -> Devices:
    """The devices of a run, used through `jax.jit` (`sharded`) or `jax.pmap` (`pmap`)."""
    if parallel == "pmap" and jax.process_count() > 1:
        raise UserError("--parallel pmap runs in one process: take --parallel sharded for several")
    return Replicas(count) if parallel == "pmap" else Devices(count)


def join_processes(
    address: str | None = None, count: int | None = None, index: int | None = None, heartbeat: int = 100
) -> None:
    """Join the other processes of a run, before anything else is asked of JAX.

    Without `address`, `count` and `index` this does what `jax.distributed` detects: SLURM, Open MPI, Kubernetes and
    TPU pods, or a single process. A process that is silent for `heartbeat` seconds, or ends and leaves the others
    behind for as long, ends all of them.

    Raises:
        UserError: only some of the three are given, or the others were not there in time.
    """
    given = [value is not None for value in (address, count, index)]
    if any(given) and not all(given):
        raise UserError("--coordinator_address, --num_processes and --process_id belong together: give all three")
    if jax.distributed.is_initialized():
        return
    try:
        jax.distributed.initialize(
            address, count, index, heartbeat_timeout_seconds=heartbeat, shutdown_timeout_seconds=heartbeat
        )
    except ValueError as error:
        if any(given):
            raise UserError(f"--coordinator_address {address}: {error}") from None
    except RuntimeError as error:
        if not any(given) and "before any JAX calls" in str(error):
            return  # JAX works already, as in a notebook: alone, or joined before
        reason = str(error).splitlines()[0]
        raise UserError(f"the {count} processes at {address} did not all arrive ({reason}): start them again") from None


def is_first_process() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


def wait_for_processes(name: str) -> None:
    """Return when every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def free_bytes() -> int:
    """The free memory of a device, as far as it tells; 0 where it does not."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)


def print_devices() -> None:
    """Print the devices that JAX runs on; warn where there is a GPU or TPU that JAX does not see.

    Raises:
        UserError: JAX does not start.
    """
    devices = all_devices()
    kinds = sorted({device.device_kind for device in devices})
    cores = f", {os.cpu_count()} cores" if devices[0].platform == "cpu" else ""
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    print(
        f"device: {len(devices)} x {', '.join(kinds)} ({devices[0].platform}{cores}){processes}, jax {jax.__version__}"
    )
    if devices[0].platform == "cpu" and os.environ.get("JAX_PLATFORMS") != "cpu" and (told := unseen_accelerator()):
        print(f"warning: {told}", file=sys.stderr)
