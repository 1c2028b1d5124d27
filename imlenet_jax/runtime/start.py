"""JAX's start: why it failed, in one sentence, and the accelerators that it does not see. JAX itself is imported late."""

import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from imlenet_jax.errors import UserError

ROOT = Path("/")
CUDA_13_DRIVER = 580  # the oldest that knows CUDA 13
# Of Google's devices on the PCI bus those that are TPUs, from v2 on; its network card has the same vendor.
TPUS = ("0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076")
_EXTRAS = {"cuda": "cuda", "gpu": "cuda", "tpu": "tpu"}


def devices() -> list[Any]:
    """All devices of the run, over all its processes; JAX starts here if it has not yet.

    Raises:
        UserError: JAX does not start.
    """
    import jax

    logger = logging.getLogger("jax._src.xla_bridge")
    logger.addFilter(_not_said_by_us)
    try:
        return jax.devices()
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        raise UserError(sentence) from error
    finally:
        logger.removeFilter(_not_said_by_us)


def _not_said_by_us(record: logging.LogRecord) -> bool:
    return "may be present on this machine" not in record.msg and "backend failed to initialize" not in record.msg


def explain(error: BaseException) -> str | None:
    """Why JAX does not start and what to do, where that is what the error is; None for any other error."""
    frames = traceback.extract_tb(error.__traceback__)
    if _while_importing(error, frames):
        return f"JAX cannot be imported ({_first_line(error)}): mend the setting that it names, or install jax anew"
    starting = ("backends", "_init_backend")
    if not any(Path(frame.filename).name == "xla_bridge.py" and frame.name in starting for frame in frames):
        return None
    wanted = _wanted_platforms()
    if not wanted:
        return f"JAX does not start ({_first_line(error)}): set JAX_PLATFORMS=cpu to run on the CPU"
    extra = next((_EXTRAS[name] for name in wanted.split(",") if name in _EXTRAS), None)
    reason = "it sees no NVIDIA GPU" if isinstance(error, AssertionError) else _first_line(error)
    install = f", or pip install 'imlenet_jax[{extra}]' for it" if extra else ""
    if isinstance(error, AssertionError):
        install = ", or see with nvidia-smi why there is none"
    return f"JAX does not start with JAX_PLATFORMS={wanted} ({reason}): leave that out or choose cpu{install}"


def _while_importing(error: BaseException, frames: traceback.StackSummary) -> bool:
    names = ("jax", "jaxlib")
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] in names:
        return True
    found = [importlib.util.find_spec(name) for name in names]
    places = [place for spec in found if spec for place in spec.submodule_search_locations or ()]
    return any(frame.name == "<module>" and frame.filename.startswith(tuple(places)) for frame in frames)


def _wanted_platforms() -> str:
    config = getattr(sys.modules.get("jax"), "config", None)
    return getattr(config, "jax_platforms", None) or os.environ.get("JAX_PLATFORMS", "")


def _first_line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    line = re.sub(r"\s*\((set JAX_PLATFORMS|you may need to).*", "", line)
    return re.sub(r"^Unable to initialize backend '[^']*': ", "", line).rstrip(". ")[:300]


def unseen_accelerator() -> str:
    """What accelerator is in the machine and how to install JAX for it; empty where none is. For when JAX sees none."""
    if _has_nvidia_gpu():
        failed = _failure("cuda")
        if failed:
            return f"an NVIDIA GPU is in this machine, but JAX runs on the CPU: CUDA failed to start ({failed})"
        return f"an NVIDIA GPU is in this machine, but JAX runs on the CPU: {_install_cuda()}"
    if _has_tpu():
        failed = _failure("tpu")
        if failed:
            return f"a TPU is in this machine, but JAX runs on the CPU: it failed to start ({failed})"
        return "a TPU is in this machine, but JAX runs on the CPU: pip install 'imlenet_jax[tpu]' to use it"
    return ""


def _has_nvidia_gpu() -> bool:
    if any((ROOT / path).exists() for path in ("dev/nvidia0", "dev/nvidiactl", "proc/driver/nvidia/version")):
        return True
    program = shutil.which("nvidia-smi")  # all that there is of a GPU under WSL; but it may be there without one
    if program is None:
        return False
    try:
        told = subprocess.run([program, "-L"], capture_output=True, text=True, errors="replace", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return told.returncode == 0 and "GPU " in told.stdout


def _install_cuda() -> str:
    try:
        told = (ROOT / "proc/driver/nvidia/version").read_text(errors="replace")
    except OSError:
        told = ""
    version = re.search(r"Kernel Module.*?\s(\d+)\.\d", told)
    if version and int(version[1]) < CUDA_13_DRIVER:
        return f"pip install 'jax[cuda12]' to use it (its driver {version[1]} is too old for CUDA 13)"
    return "pip install 'imlenet_jax[cuda]' to use it"


def _has_tpu() -> bool:
    if any((ROOT / "dev").glob("accel[0-9]*")):
        return True
    for vendor in (ROOT / "sys/bus/pci/devices").glob("*/vendor"):
        try:
            if vendor.read_text().strip() == "0x1ae0" and vendor.with_name("device").read_text().strip() in TPUS:
                return True
        except OSError:
            continue
    return False


def _failure(platform: str) -> str:
    """Why a platform that JAX has is not used, as far as JAX tells."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    told = (getattr(bridge, "_backend_errors", None) or {}).get(platform, "")
    return "" if not told or "libtpu.so" in told else (told.strip().splitlines() or [""])[0].rstrip(". ")[:300]


def explain_instead_of_traceback() -> None:
    """Let this process end with one sentence and status 2 where importing JAX fails, before a command can see to it."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, frames: Any) -> None:
        sentence = explain(error)
        if sentence is None:
            before(kind, error, frames)
            return
        print(f"error: {sentence}", file=sys.stderr)
        raise SystemExit(2)

    sys.excepthook = hook
