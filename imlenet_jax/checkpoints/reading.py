"""Reading checkpoints, which anyone may have written or damaged.

A folder holds one numbered sub-folder per kept epoch, the latest and the best by validation macro AUC, each complete
in itself: `variables` (parameters and BatchNorm statistics), `optimizer` (its state and the step; absent in converted
checkpoints), and `meta`, the fields of `Meta`.
"""

import contextlib
import logging
import warnings
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import args as ocp_args

from imlenet_jax.checkpoints.description import FORMAT, SCORE, Meta, check_meta
from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.files import read_json
from imlenet_jax.models import abstract_variables, create_model

T = TypeVar("T")

ATTEMPTS = 20  # to read a checkpoint that a training keeps replacing

# orbax narrates every save, and logs as tracebacks the very errors that it then raises.
logging.getLogger("absl").setLevel(logging.CRITICAL)


class Damaged(UserError):
    """A checkpoint that cannot be used; another one may do."""


class Replaced(Damaged):
    """A checkpoint that a training has taken away while it was read."""


def read_meta(folder: Path, which: str = "best") -> tuple[int, Meta]:
    """The epoch and the description of the `best` or `latest` checkpoint in a folder."""
    meta = _read(folder, which, lambda path, meta: meta)
    return meta.epoch, meta


def load_variables(folder: Path, which: str = "best") -> tuple[Meta, dict[str, Any]]:
    """The description and the network's variables (float32) of the `best` or `latest` checkpoint in a folder.

    Where that one is damaged the next one is taken, with a warning.

    Raises:
        UserError: there is no checkpoint, all are damaged, or of another format.
    """

    def load(path: Path, meta: Meta) -> tuple[Meta, dict[str, Any]]:
        config = meta.network_config
        if (len(meta.classes), len(meta.leads)) != (config.classes, config.leads):
            raise Damaged(f"{path} names other numbers of classes or leads than its network has")
        shapes = abstract_variables(create_model(meta.model, config))
        return meta, jax.device_put(restore(path, meta, "variables", shapes), jax.local_devices()[0])

    return _read(folder, which, load)


def _read(folder: Path, which: str, use: Callable[[Path, Meta], T]) -> T:
    """`use` of the checkpoint wanted; where a training replaces it meanwhile, of the one that is wanted then."""
    for _ in range(ATTEMPTS - 1):
        try:
            return first_whole(_candidates(folder, which), use)
        except Replaced:
            continue
    return first_whole(_candidates(folder, which), use)


def saved(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    numbered = (path for path in Path(folder).glob("[0-9]*") if path.name.isdecimal() and path.is_dir())
    return sorted(numbered, key=lambda path: int(path.name), reverse=True)


def _candidates(folder: Path, which: str) -> list[Path]:
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such checkpoint folder; train first, or check --checkpoint_dir")
    paths = saved(folder)
    if not paths:
        raise UserError(f"{folder} holds no finished checkpoint; train first, or check --checkpoint_dir")
    return sorted(paths, key=_stored_score, reverse=True) if which == "best" else paths


def _stored_score(path: Path) -> float:
    try:
        return load_meta(path).metrics.get(SCORE, 0.0)
    except Damaged:
        return np.inf  # it may have been the best: whoever wants that is to hear of it


def first_whole(paths: Iterable[Path], use: Callable[[Path, Meta], T], advice: str = "train or convert it again") -> T:
    """`use` of the first checkpoint that is not damaged; a warning names those before it.

    Raises:
        Damaged: all are; `advice` says what to do then.
        Replaced: one is no longer there.
    """
    problems: list[str] = []
    for path in paths:
        try:
            result = use(path, load_meta(path))
        except Damaged as error:
            if not path.is_dir():
                raise Replaced(f"{path} was replaced while it was read") from error
            problems.append(str(error))
            continue
        if problems:
            warnings.warn(f"{'; '.join(problems)}; {path} is used instead", DataWarning, stacklevel=3)
        return result
    raise Damaged(f"{'; '.join(problems)}: {advice}")


def load_meta(path: Path) -> Meta:
    """The description of one checkpoint, such as `checkpoints/imle_net/7`; `Damaged` where it has none that we know."""
    try:
        values = read_json(path / "meta" / "metadata")
    except (OSError, ValueError) as error:
        raise Damaged(f"{path} has no readable description ({error})") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise Damaged(f"{path} is of another format than {FORMAT}: it was written by another version of imlenet_jax")
    try:
        meta = Meta(**values)
        check_meta(meta)
    except (TypeError, ValueError) as error:
        raise Damaged(f"{path} has a description of another shape ({error})") from None
    return meta


def restore(path: Path, meta: Meta, item: str, shapes: Any = None) -> Any:
    """An item of one checkpoint, as numpy arrays; of `shapes`, where given.

    Raises:
        Damaged: a file is missing, cut or changed, or the arrays are not those of the network.
    """
    abstract = jax.tree.map(lambda a: np.broadcast_to(np.zeros((), a.dtype), a.shape), shapes)
    try:
        with contextlib.closing(ocp.Checkpointer(ocp.StandardCheckpointHandler())) as reader:
            arrays = reader.restore(path.absolute() / item, args=ocp_args.StandardRestore(abstract))
    except Exception as error:  # orbax and tensorstore raise many types for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Damaged(f"{path} is damaged ({reason[:200]})") from None
    for found, wanted in zip(jax.tree.leaves(arrays), jax.tree.leaves(abstract), strict=shapes is not None):
        if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            raise Damaged(f"{path} is damaged: an array is {found.shape} where its network has {wanted.shape}")
    if item in meta.checksums and checksum(arrays) != meta.checksums[item]:
        raise Damaged(f"{path} is damaged: its {item} do not match their checksum")
    return arrays


def checksum(tree: Any) -> int:
    """CRC-32 of all arrays of a tree, in its order. tensorstore does not notice a flipped bit in an array."""
    value = 0
    for array in jax.tree.leaves(tree):
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return value
