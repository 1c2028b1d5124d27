"""The manifest of a folder of shards: strict JSON that carries its own checksum.

The first line is `{"checksum": "<sha256 of all that follows this line>",`, so that checking it needs no second parse.
Columns are lists, one entry per record: 22,000 records are read in about a tenth of a second.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from imlenet_jax.errors import UserError
from imlenet_jax.files import write_atomically

MANIFEST = "manifest.json"
VERSION = 1
_FORMAT = "imlenet_jax shards"
_HEAD = b'{"checksum": "'
_HEAD_END = b'",\n'
_REDO = "delete the folder and run python -m experiments.prepare again"


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write `content` as the manifest of `folder`, atomically.

    Raises:
        ValueError: a number is NaN or infinite.
        OSError: the folder cannot be written.
    """
    everything = {"format": _FORMAT, "version": VERSION, **content}
    body = canonical(everything)[1:] + b"\n"
    head = _HEAD + hashlib.sha256(body).hexdigest().encode() + _HEAD_END
    write_atomically(folder / MANIFEST, head + body)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and verify the manifest of `folder`.

    Raises:
        UserError: there is none, it is damaged, or it is of another version.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"there is no {path}: run python -m experiments.prepare first") from None
    try:
        content = json.loads(data)
        version = content["version"] if content["format"] == _FORMAT else None
    except (ValueError, RecursionError, KeyError, TypeError):
        raise UserError(f"{path} is not a manifest of imlenet_jax shards, or is damaged: {_REDO}") from None
    if version != VERSION:
        raise UserError(f"{path} is of version {version!r}, but this program reads version {VERSION}: {_REDO}")
    head, _, body = data.partition(_HEAD_END)
    if head != _HEAD + hashlib.sha256(body).hexdigest().encode():
        raise UserError(f"{path} does not match its own checksum: {_REDO}")
    return content


def canonical(value: Any) -> bytes:
    """The one compact, strict JSON form of `value`."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
