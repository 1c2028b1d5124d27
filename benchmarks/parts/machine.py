"""Where, when and with what a benchmark's figures were taken: they mean nothing without it."""

import datetime
import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from imlenet_jax.checkpoints.description import versions
from imlenet_jax.data.prepare import usable_cores


def machine(module: str) -> dict[str, Any]:
    """Date, command (of a module such as `benchmarks.parity`), processor, load, devices and versions, as JSON types."""
    devices = jax.local_devices()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command(module, sys.argv[1:]),
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "load": round(os.getloadavg()[0], 2),
        "devices": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "platform": platform.platform(),
        "python": platform.python_version(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": versions() | installed("wfdb"),
    }


def installed(package: str) -> dict[str, str]:
    """The version of a package that not every benchmark needs; nothing where it is not installed."""
    try:
        return {package: version(package)}
    except PackageNotFoundError:
        return {}


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name; that of its architecture where the system does not tell."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def command(module: str, arguments: list[str]) -> str:
    """The command as it is recorded: where things lie on this machine is nobody's business, so paths are shortened."""
    names = [Path(argument).name if "/" in argument else argument for argument in arguments]
    return shlex.join(["python", "-m", module, *names])
