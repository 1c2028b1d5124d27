"""Exported networks: one file that holds a whole trained network, read as a checkpoint is.

Two kinds. A safetensors file holds the weights, and in its metadata a JSON that says all else. A `.stablehlo` file is a
zip archive, not compressed, of `about.json`, `weights.safetensors`, `card.md` and `program.bin`: what
`jax.export` has made of the network, a function of the weights by name and of ECGs in mV.
"""

import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from jax.tree_util import DictKey, tree_flatten_with_path
from safetensors import SafetensorError

from imlenet_jax.checkpoints.description import Meta, check_meta
from imlenet_jax.checkpoints.reading import checksum
from imlenet_jax.errors import UserError
from imlenet_jax.files import parse_json, read_limited
from imlenet_jax.models import abstract_variables, create_model

FORMAT, VERSION = "imlenet_jax export", 1
ABOUT, CARD, PROGRAM, WEIGHTS = "about.json", "card.md", "program.bin", "weights.safetensors"
MAX_ABOUT = 2**24  # bytes of JSON
MAX_BYTES = 2**32  # resnet101 has 0.6 GB
_REDO = "make it anew with python -m experiments.export"


@dataclasses.dataclass(frozen=True, eq=False)
class Exported:
    """A network from a file.

    Attributes:
        meta: its description.
        variables: its weights and statistics, numpy arrays.
        about: the JSON, with the thresholds, the card and what was checked.
        program: of a `.stablehlo` file, the program of `jax.export`.
    """

    meta: Meta
    variables: dict[str, Any]
    about: dict[str, Any]
    program: bytes | None = None


def by_name(variables: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a tree of dictionaries by their path, as `params/conv/kernel`."""
    leaves = tree_flatten_with_path(variables)[0]
    return {"/".join(str(key.key) for key in path if isinstance(key, DictKey)): array for path, array in leaves}


def nested(arrays: dict[str, Any]) -> dict[str, Any]:
    """What `by_name` was made of."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *folders, last = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = array
    return tree


def pack_safetensors(about: dict[str, Any], variables: dict[str, Any]) -> bytes:
    """The bytes of a safetensors file."""
    arrays = {name: np.asarray(array) for name, array in by_name(variables).items()}
    return safetensors.numpy.save(arrays, {"imlenet_jax": json.dumps(about, allow_nan=False)})


def pack_stablehlo(about: dict[str, Any], variables: dict[str, Any], program: bytes) -> bytes:
    """The bytes of a `.stablehlo` file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        text = json.dumps(about, allow_nan=False)
        for name, content in (
            (ABOUT, text.encode()),
            (CARD, about["card"].encode()),
            (PROGRAM, program),
            (WEIGHTS, pack_safetensors(about, variables)),
        ):
            archive.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


def read_exported(path: Path) -> Exported:
    """Read a file of either kind, told by its content.

    Raises:
        UserError: it is of neither kind, damaged, of another version, or not of a network that this program has.
        OSError: it cannot be read.
    """
    path = Path(path)
    try:
        return parse_exported(read_limited(path, MAX_BYTES))
    except (ValueError, LookupError, TypeError, zipfile.BadZipFile, SafetensorError, AttributeError) as error:
        kind = "ONNX files are for onnxruntime" if path.suffix == ".onnx" else f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is no exported network, or is damaged ({kind[:200]}): {_REDO}") from None


def parse_exported(data: bytes) -> Exported:
    """A file in memory; raises `ValueError`, and what its libraries raise, for all but an exported network."""
    return _from_archive(data) if data[:4] == b"PK\x03\x04" else _from_safetensors(data)


def _from_archive(data: bytes) -> Exported:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        if set(sizes) != {ABOUT, CARD, PROGRAM, WEIGHTS} or sum(sizes.values()) > len(data):
            raise ValueError("its parts are not those of a network")
        found = _from_safetensors(archive.read(WEIGHTS))
        return dataclasses.replace(found, program=archive.read(PROGRAM))


def _from_safetensors(data: bytes) -> Exported:
    size = int.from_bytes(data[:8], "little")
    if not 2 <= size <= min(len(data) - 8, 2 * MAX_ABOUT):
        raise ValueError("it has no header")
    header = parse_json(data[8 : 8 + size])
    about = parse_json(header["__metadata__"]["imlenet_jax"])
    if about["format"] != FORMAT or about["version"] != VERSION:
        raise ValueError(f"it is of version {about['version']!r}, and this program reads {VERSION}")
    meta = Meta(**about["meta"])
    check_meta(meta)
    wanted = abstract_variables(create_model(meta.model, meta.network_config))
    empty: dict[str, Any] = {name: {} for name in wanted}  # a network without BatchNorm has no statistics
    variables = empty | nested(safetensors.numpy.load(data))
    if (len(meta.classes), len(meta.leads)) != (meta.network_config.classes, meta.network_config.leads):
        raise ValueError("it names other numbers of classes or leads than its network has")
    if jax.tree.map(lambda array: (array.shape, array.dtype), variables) != jax.tree.map(
        lambda array: (array.shape, array.dtype), wanted
    ):
        raise ValueError("its arrays are not those of its network")
    if checksum(variables) != meta.checksums.get("variables"):
        raise ValueError("its weights do not match their checksum")
    return Exported(meta, variables, about)
