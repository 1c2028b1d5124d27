"""Memory: huge pages for the C library's allocator, and how much a process has needed."""

import os
import re
import resource
import sys
from pathlib import Path

_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_STATUS = Path("/proc/self/status")
_TUNABLE = "glibc.malloc.hugetlb"


def use_huge_pages() -> None:
    """Start this `python -m` program again with huge pages, where Linux gives them to those who ask.

    On a Linux CPU most of a training step's elementwise time is page faults: XLA allocates a program's buffers anew for
    every call, and glibc reads its settings only when a process starts.
    Does nothing outside `python -m`, on other systems, or where `GLIBC_TUNABLES` names the setting already
    (`GLIBC_TUNABLES=glibc.malloc.hugetlb=0` turns this off).
    """
    running_module = sys.argv[0] == "-m"  # so it is while Python looks for the module
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if not running_module or _TUNABLE in tunables or not _PAGES.exists() or "[madvise]" not in _PAGES.read_text():
        return
    settings = ":".join(filter(None, [tunables, f"{_TUNABLE}=1"]))
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"GLIBC_TUNABLES": settings})


def peak_bytes() -> int:
    """The most memory so far: on the fullest accelerator in use, or, on a CPU, of this process since it started."""
    import jax

    used = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
    if any(used):
        return max(used)
    # Not getrusage on Linux: its figure is at least what the process had that started this one.
    if _STATUS.exists() and (found := re.search(r"^VmHWM:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE)):
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
