"""JAX's persistent compilation cache: what one process has compiled, the next one reads.

A folder per platform, kind of CPU and version of JAX, since a program for a CPU is made of that CPU's instructions. Each
entry carries a checksum over itself, its name and the machine that it is for, and one that does not match is compiled
anew: neither JAX nor, without zstandard's own, the compression notices a flipped bit in machine code.
"""

import contextlib
import hashlib
import os
import platform
import re
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import jaxlib.version

from imlenet_jax.files import write_atomically
from imlenet_jax.version import __version__

try:  # the public face of JAX's cache cannot be given one of another make
    from jax._src import compilation_cache
    from jax._src.compilation_cache_interface import CacheInterface
except ImportError:  # a version that has them elsewhere: `use_cache` says that there is no cache with it
    compilation_cache, CacheInterface = None, object  # type: ignore[assignment,misc]

LIMIT = 2**31
"""Bytes in one folder; beyond it the entries that were not used for longest are removed."""

_SUFFIX, _DIGEST = ".compiled", 32
_DAY = 86400
_ADVICE = "choose another folder with --compilation_cache DIR, or False for none"


class CacheWarning(UserWarning):
    """The compilation cache cannot be used, or not all of it. Nothing but time is lost."""


class Entries(CacheInterface):
    """The compiled programs in one folder, as JAX asks for them. Nothing that is wrong with a file raises an error.

    Args:
        folder: where they are; made when the first is written.
        machine: what they are compiled for.

    Warns:
        CacheWarning: an entry is damaged, or the folder cannot be read or written; once for each.
    """

    def __init__(self, folder: Path, machine: str):
        self._path, self._machine, self._warned = folder, machine, set[str]()

    def get(self, key: str) -> bytes | None:
        """The program of this name, or None where there is none that is whole."""
        path = self._file(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn("read", f"the compilation cache {self._path} cannot be read ({_reason(error)}): {_ADVICE}")
            return None
        value = data[_DIGEST:]
        if data[:_DIGEST] != self._digest(key, value):
            self._warn("damaged", f"{path} in the compilation cache is damaged or of another machine: compiled anew")
            return None
        with contextlib.suppress(OSError):  # the folder may be read only
            os.utime(path)  # it was used
        return value

    def put(self, key: str, value: bytes) -> None:
        """Keep a program, in the place of any other of this name."""
        if "write" in self._warned:
            return
        try:
            if not self._path.is_dir():
                self._path.mkdir(mode=0o700, parents=True)  # whoever can write here can run code as this user
            write_atomically(self._file(key), self._digest(key, value) + value, sync=False)
            self._make_room()
        except OSError as error:
            self._warn("write", f"the compilation cache {self._path} cannot be written ({_reason(error)}): {_ADVICE}")

    def _file(self, key: str) -> Path:
        name, _, number = key.rpartition("-")
        return self._path / f"{re.sub(r'[^A-Za-z0-9_]', '_', name)[:100]}-{number}{_SUFFIX}"

    def _digest(self, key: str, value: bytes) -> bytes:
        start = hashlib.sha256(f"{self._machine}\n{key}\n".encode())
        start.update(value)
        return start.digest()

    def _make_room(self) -> None:
        found = []
        with os.scandir(self._path) as files:
            for file in files:
                with contextlib.suppress(FileNotFoundError):  # another process may remove them too
                    status = file.stat()
                    if file.name.endswith(_SUFFIX):
                        found.append((status.st_mtime, status.st_size, file.path))
                    elif file.name.endswith(".tmp") and time.time() - status.st_mtime > _DAY:
                        os.unlink(file.path)  # of a process that was killed
        size = sum(length for _, length, _ in found)
        for _, length, path in sorted(found):
            if size <= LIMIT:
                return
            Path(path).unlink(missing_ok=True)
            size -= length

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, CacheWarning, stacklevel=2)


_ours: Entries | None = None


def use_cache(where: str | Path | bool | None = None) -> Path | None:
    """Keep compiled programs from now on, in this process; returns the folder, None for no cache of ours.

    Args:
        where: a folder; False for none; None or True for the one in the user's cache folder, unless there is one
            already (of an earlier call, or of `JAX_COMPILATION_CACHE_DIR`). `JAX_ENABLE_COMPILATION_CACHE=false`
            switches all caches off.

    Warns:
        CacheWarning: there is no folder for it, or this version of JAX takes none.
    """
    global _ours
    if not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
        return None
    if where is False:
        if _ours is not None:
            compilation_cache.reset_cache()
            _ours = None
        return None
    if where is None or where is True:
        if _ours is not None or jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
            return None if _ours is None else _ours._path
        try:
            where = user_folder()
        except RuntimeError as error:
            warnings.warn(f"no compilation cache ({error}): {_ADVICE}", CacheWarning, stacklevel=2)
            return None
    machine = describe_machine()
    if not all(hasattr(compilation_cache, name) for name in ("_cache", "_cache_initialized", "reset_cache")):
        warnings.warn(f"no compilation cache with jax {jax.__version__}", CacheWarning, stacklevel=2)
        return None
    entries = Entries(Path(where).absolute() / _name(machine), machine)
    compilation_cache.reset_cache()
    compilation_cache._cache, compilation_cache._cache_initialized = entries, True  # type: ignore[assignment]
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # a network is hundreds of small programs too
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    _ours = entries
    return entries._path


def user_folder() -> Path:
    """`$XDG_CACHE_HOME/imlenet_jax/compiled`, in `~/.cache` where that is not set.

    Raises:
        RuntimeError: the user has no home.
    """
    start = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(start) if os.path.isabs(start) else Path.home() / ".cache") / "imlenet_jax" / "compiled"


def describe_machine() -> str:
    """What a compiled program is for: platform and device, the CPU's model and instructions, versions."""
    device = jax.local_devices()[0]
    versions = f"jax {jax.__version__}, jaxlib {jaxlib.version.__version__}, imlenet_jax {__version__}"
    return "\n".join([device.platform, device.device_kind, *_cpu(), versions])


def _cpu() -> list[str]:
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part")
    try:
        processor = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return [platform.machine(), platform.processor()]
    pairs = (line.partition(":")[::2] for line in processor.splitlines())
    return [platform.machine(), *(f"{name.strip()}:{value}" for name, value in pairs if name.strip() in wanted)]


def _name(machine: str) -> str:
    kind, model = machine.splitlines()[:2]
    told = re.sub(r"[^A-Za-z0-9.]+", "-", f"{kind}-{model}" if kind != model else kind).strip("-")[:60]
    return f"{told}-jax{jax.__version__}-jaxlib{jaxlib.version.__version__}-{hashlib.sha256(machine.encode()).hexdigest()[:12]}"


def _reason(error: OSError) -> Any:
    return os.strerror(error.errno) if error.errno else error
