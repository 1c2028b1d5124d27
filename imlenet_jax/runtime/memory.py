"""Huge pages for the C library's allocator: on a Linux CPU most of a training step's elementwise time is page faults."""

import os
import sys
from pathlib import Path

_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TUNABLE = "glibc.malloc.hugetlb"


def use_huge_pages() -> None:
    """Start this `python -m` program again with huge pages, where Linux gives them to those who ask.

    XLA allocates a program's buffers anew for every call, and glibc reads its settings only when a process starts.
    Does nothing outside `python -m`, on other systems, or where `GLIBC_TUNABLES` names the setting already
    (`GLIBC_TUNABLES=glibc.malloc.hugetlb=0` turns this off).
    """
    running_module = sys.argv[0] == "-m"  # so it is while Python looks for the module
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if not running_module or _TUNABLE in tunables or not _PAGES.exists() or "[madvise]" not in _PAGES.read_text():
        return
    settings = ":".join(filter(None, [tunables, f"{_TUNABLE}=1"]))
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"GLIBC_TUNABLES": settings})
