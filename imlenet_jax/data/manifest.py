"""The manifest of a folder of shards: strict JSON that carries its own checksum.

The first line is `{"checksum": "<sha256 of all that follows this line>",`, so that checking it needs no second parse.
Columns are lists, one entry per record: 22,000 records are read in about a tenth of a second.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from imlenet_jax.errors import UserError
from imlenet_jax.files import parse_json, read_limited, write_atomically

MANIFEST = "manifest.json"
OWN = "own recordings"  # the source of shards that are not of PTB-XL or synthetic
VERSION = 2
MAX_BYTES = 2**26  # some 200,000 records
MAX_SECONDS = 60  # of a record; at least one
_FORMAT = "imlenet_jax shards"
_HEAD = b'{"checksum": "'
_HEAD_END = b'",\n'
_REDO = "delete the folder and run python -m experiments.prepare again"


class OldManifest(UserError):
    """A manifest that an earlier version of this program wrote."""


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
        UserError: there is none, it is damaged, it is of another version, or its entries are not those of shards.
    """
    path = folder / MANIFEST
    try:
        data = read_limited(path, MAX_BYTES)
        content = parse_json(data)
        version = content["version"] if content["format"] == _FORMAT else None
    except FileNotFoundError:
        raise UserError(f"there is no {path}: run python -m experiments.prepare first") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not a manifest of imlenet_jax shards, or is damaged: {_REDO}") from None
    if version != VERSION:
        kind = OldManifest if type(version) is int and version < VERSION else UserError
        raise kind(f"{path} is of version {version!r}, but this program reads version {VERSION}: {_REDO}")
    head, _, body = data.partition(_HEAD_END)
    if head != _HEAD + hashlib.sha256(body).hexdigest().encode():
        raise UserError(f"{path} does not match its own checksum: {_REDO}")
    try:
        _check(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} has an entry that no shards have ({error}): {_REDO}") from None
    return content


def _check(content: dict[str, Any]) -> None:
    """Refuse what `prepare` does not write; the checksum tells of accidents, but anyone can compute it.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: an entry is absent or of another kind.
    """
    rate, leads, table = content["sampling_rate"], content["leads"], content["calibrations"]
    records = len(content["ecg_id"])
    _need("sampling_rate", _is_index(rate, 50_001) and rate > 0)
    _need("length", _is_index(content["length"], MAX_SECONDS * rate + 1) and content["length"] >= rate)
    _need("leads", _all(leads, lambda lead: isinstance(lead, str)) and len(set(leads)) == len(leads) > 0)
    _need("tasks", len(content["tasks"]) > 0)
    for task in content["tasks"].values():
        classes = task["classes"]
        _need("tasks", _all(classes, lambda name: isinstance(name, str)) and len(set(classes)) == len(classes) > 0)
        _need("tasks", type(task.get("unlabelled", False)) is bool)
        _need("tasks", set(task["statements"].values()) <= set(classes))
    for cells in content["about"].values():
        _need("about", _all(cells, lambda cell: isinstance(cell, str), records))
    for name, limit in (("ecg_id", 2**53), ("patient_id", 2**53), ("fold", 11), ("calibration", len(table))):
        _need(name, _all(content[name], partial(_is_index, limit=limit), records))
    for codes in content["scp_codes"]:
        _need("scp_codes", _all(codes.values(), _is_finite))
    _need("scp_codes", len(content["scp_codes"]) == records)
    for entry in table:
        _need("gain", _all(entry["gain"], lambda gain: _is_finite(gain) and gain != 0, len(leads)))
        _need("baseline", _all(entry["baseline"], lambda step: _is_index(abs(step), 2**31), len(leads)))
    scaler, source = content["scaler"], content["source"]
    _need("scaler", scaler is None or (_is_finite(scaler["mean"]) and _is_finite(scaler["std"]) and scaler["std"] >= 0))
    _need("source", _all(source["missing"], lambda stem: isinstance(stem, str)) and isinstance(source["name"], str))
    _need("fingerprint", isinstance(content["fingerprint"], str))
    _check_shards(content["shards"], records)


def _check_shards(shards: list[dict[str, Any]], records: int) -> None:
    """All shards but the last have as many records as the first, and each lies in the folder itself."""
    for shard in shards:
        _need("file", re.fullmatch(r"shard-\d{5}\.npy", shard["file"], re.ASCII) is not None)
        _need("crc32", re.fullmatch(r"[0-9a-f]{8}", shard["crc32"]) is not None)
        _need("records", _is_index(shard["records"], records + 1) and shard["records"] > 0)
    sizes = [shard["records"] for shard in shards]
    _need("records", sum(sizes) == records and len(set(sizes[:-1])) <= 1 and sizes[-1] <= sizes[0])


def _need(name: str, fulfilled: bool) -> None:
    if not fulfilled:
        raise ValueError(f"'{name}'")


def _all(values: Any, good: Callable[[Any], bool], count: int | None = None) -> bool:
    return (count is None or len(values) == count) and all(map(good, values))


def _is_index(value: Any, limit: int) -> bool:
    return type(value) is int and 0 <= value < limit


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def canonical(value: Any) -> bytes:
    """The one compact, strict JSON form of `value`."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
