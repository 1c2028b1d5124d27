"""Writing files so that a reader never meets half of one, and reading no more of one than it should hold."""

import contextlib
import fcntl
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from imlenet_jax.errors import UserError

MAX_JSON_BYTES = 2**24  # sixteen times the manifest of PTB-XL; in Python's objects at worst half a gigabyte


def write_atomically(path: Path, data: bytes | memoryview, sync: bool = True) -> None:
    """Write to a temporary name beside `path`, flush to the disk, rename. Folders are made as needed.

    Without `sync` it is not waited for the disk: for what may be lost, and carries a checksum.

    Raises:
        OSError: the disk is full or the folder cannot be written (it names `path`); `path` is then as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        # Not tempfile: its files are private, and a shard is for everyone the umask allows.
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


@contextlib.contextmanager
def exclusive(path: Path, refusal: str | None = None) -> Iterator[None]:
    """Hold the lock file `path`, which the system frees when the process ends, however that is.

    Where another process holds it: wait for that, and say so, or raise a `UserError` with the words of `refusal`.
    """
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if refusal:
                raise UserError(refusal) from None
            print(f"another process is writing to {path.parent}: waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_limited(path: Path, limit: int) -> bytes:
    """All bytes of a file.

    Raises:
        ValueError: it has more than `limit` bytes; no more than that are read.
        OSError: it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return data


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> Any:
    """The JSON in a file.

    Raises:
        ValueError: it has more than `limit` bytes, or is no JSON that could be read.
        OSError: it cannot be read.
    """
    return parse_json(read_limited(path, limit))


def parse_json(data: bytes | str) -> Any:
    """JSON in memory; ValueError for all else, be it too deeply nested."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def conforms(value: Any, kind: Any) -> bool:
    """Whether a value from JSON is of a kind such as `dict[str, list[float] | None]`; a whole number is a float too."""
    inner = get_args(kind)
    if kind is Any:
        return True
    if get_origin(kind) is UnionType:
        return any(conforms(value, one) for one in inner)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(conforms(item, inner[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(conforms(item, inner[1]) for item in value.values())
    return type(value) is kind or (kind is float and type(value) is int)


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON (NaN is an error) atomically."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def move_aside(*paths: Path) -> Path | None:
    """Rename what an earlier run left to `<name>.old-<n>`, so that a new run deletes nothing; return the first's name."""
    there = [path for path in paths if path.is_file() or (path.is_dir() and any(path.iterdir()))]
    number = 1
    while any(path.with_name(f"{path.name}.old-{number}").exists() for path in there):
        number += 1
    moved = [path.rename(path.with_name(f"{path.name}.old-{number}")) for path in there]
    return moved[0] if moved else None
