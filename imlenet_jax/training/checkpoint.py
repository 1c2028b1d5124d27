"""Checkpoints: orbax's `CheckpointManager`, with a JSON that lets each checkpoint explain itself.

A folder holds one numbered sub-folder per kept epoch, the latest and the best by validation macro AUC, each complete
in itself: `variables` (parameters and BatchNorm statistics), `optimizer` (its state and the step; absent in converted
checkpoints), and `meta`, the fields of `Meta`. While a run is under way its sub-folder `unfinished` may hold one more
like these, numbered by step, taken within an epoch, with what that epoch's metrics are computed from. Saving is atomic
and happens in the background.
"""

import contextlib
import dataclasses
import importlib.metadata
import logging
import math
import os
import re
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, get_type_hints

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import args as ocp_args
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from imlenet_jax.data.tasks import SUB, SUPERCLASS, Task
from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.files import conforms, read_json
from imlenet_jax.models import Config, abstract_variables, create_model, make_config
from imlenet_jax.training.precision import PRECISIONS
from imlenet_jax.training.step import Scaler, TrainState, Unfinished

T = TypeVar("T")

FORMAT = 1
ITEMS = ("variables", "optimizer", "unfinished", "meta")
SCORE = "val_macro_auc"
UNFINISHED = "unfinished"
ATTEMPTS = 20  # to read a checkpoint that a training keeps replacing
_RANGES = re.compile(r"\d{1,15}(-\d{1,15})?(,\d{1,15}(-\d{1,15})?)*", re.ASCII)
_DELETED = ".deleted"  # orbax moves there, in one step, what it deletes: a kill leaves nothing half deleted

# orbax narrates every save, and logs as tracebacks the very errors that it then raises.
logging.getLogger("absl").setLevel(logging.CRITICAL)


@dataclasses.dataclass(frozen=True)
class Meta:
    """What a checkpoint says of itself, in JSON types.

    `task` names what the network is asked (`imlenet_jax.data.tasks`). `config` holds the fields of the network's
    configuration, `thresholds` one per class (of the best F1 on the validation records; None where there is none),
    `youden` the same by Youden's index, `training` the flags of the run and, for the sub-diagnosis, the network that it
    started from, `metrics` those of the epoch, `history` those of all epochs up to it, and `step` the steps made in the
    next one. `records` says which records trained it (`imlenet_jax.training.seen`), `checksums` is the CRC-32 of each
    item of arrays. Old checkpoints have none of the last four.
    """

    model: str
    config: dict[str, Any]
    classes: list[str]
    leads: list[str]
    sampling_rate: int
    scaler: dict[str, float]
    thresholds: list[float | None] | None = None
    youden: list[float | None] | None = None
    epoch: int = 0
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    data_fingerprint: str | None = None
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    task: str = SUPERCLASS
    step: int = 0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    records: dict[str, str] | None = None
    checksums: dict[str, int] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=lambda: versions())
    format: int = FORMAT

    @property
    def network_config(self) -> Config:
        """The network's configuration."""
        return make_config(self.model, self.config)

    @property
    def asked(self) -> Task:
        """What the network is asked, without the statements that make labels: those are the data's."""
        return Task(self.task, tuple(self.classes), exclusive=self.task == SUB.name)

    @property
    def scaling(self) -> Scaler:
        """The scaler the network was trained with."""
        return Scaler(self.scaler["mean"], self.scaler["std"])

    @property
    def precision(self) -> str:
        """The precision that it was trained with: `default` where it says nothing, as old and converted ones do."""
        return self.training.get("precision", "default")


def versions() -> dict[str, str]:
    """Versions of the packages that decide a run's numbers."""
    names = ("imlenet_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _score(metrics: dict[str, float]) -> float:
    return metrics[SCORE]


class Checkpoints:
    """The checkpoints of one run under `folder`, for writing. Use as a context manager: leaving waits for the last save.

    Raises:
        UserError: on opening, in a save or on leaving, the folder cannot be written. A checkpoint is whole or absent.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder).absolute()
        epochs = AnyPreservationPolicy([LatestN(1), BestN(get_metric_fn=_score, n=1)])
        with self._writing():
            self._epochs = self._open(self.folder, epochs)
        self._unfinished: ocp.CheckpointManager | None = None

    def save(self, meta: Meta, state: TrainState | None = None, variables: Any = None) -> None:
        """Save an epoch: a whole training state, or variables alone (a converted network)."""
        items = {"variables": variables} if state is None else _items(state)
        score = {SCORE: meta.metrics.get(SCORE, 0.0)}
        with self._writing():  # also raises what went wrong in the background with the save before
            self._save(self._epochs, meta.epoch, meta, items, score)

    def save_unfinished(self, meta: Meta, state: TrainState, unfinished: Unfinished) -> None:
        """Save within an epoch; it takes the place of the one before."""
        items = _items(state) | {"unfinished": unfinished._asdict()}
        with self._writing():
            if self._unfinished is None:
                self._unfinished = self._open(self.folder / UNFINISHED, LatestN(1))
            self._save(self._unfinished, int(state.step), meta, items)

    def wait(self) -> None:
        """Wait until all that was saved is on the disk."""
        with self._writing():
            for manager in self._managers():
                manager.wait_until_finished()

    def finish(self) -> None:
        """The run is over: keep the epochs only."""
        self.wait()
        if self._unfinished is not None:
            self._unfinished.close()
            self._unfinished = None
        if jax.process_index() == 0:
            shutil.rmtree(self.folder / UNFINISHED, ignore_errors=True)

    def _managers(self) -> list[ocp.CheckpointManager]:
        return [self._epochs] if self._unfinished is None else [self._epochs, self._unfinished]

    def _open(self, folder: Path, policy: Any) -> ocp.CheckpointManager:
        _sweep(folder)
        options = ocp.CheckpointManagerOptions(best_fn=_score, preservation_policy=policy, todelete_subdir=_DELETED)
        return ocp.CheckpointManager(folder, options=options, item_names=ITEMS)

    def _save(self, manager: ocp.CheckpointManager, number: int, meta: Meta, items: Any, score: Any = None) -> None:
        manager.wait_until_finished()
        _sweep(Path(manager.directory))
        meta = dataclasses.replace(meta, checksums={name: checksum(tree) for name, tree in items.items()})
        saved: dict[str, Any] = {name: ocp_args.StandardSave(tree) for name, tree in items.items()}
        saved["meta"] = ocp_args.JsonSave(dataclasses.asdict(meta))
        manager.save(number, args=ocp_args.Composite(**saved), metrics=score)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.wait()
        finally:
            for manager in self._managers():
                manager.close()
                _sweep(Path(manager.directory))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError is what tensorstore makes of errors of the file system
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else _last_words(error)
            raise UserError(
                f"no checkpoint can be written to {self.folder} ({reason}), those that are there are whole: "
                "free space there or choose another folder"
            ) from error


def _items(state: TrainState) -> dict[str, Any]:
    optimizer = {"step": state.step, "state": jax.tree.leaves(state.opt_state)}
    return {"variables": state.variables, "optimizer": optimizer}


def _sweep(folder: Path) -> None:
    """Remove what a run that was killed left half saved or half deleted."""
    if jax.process_index() == 0:
        for left in [folder / _DELETED, *folder.glob("*.orbax-checkpoint-tmp*")]:
            shutil.rmtree(left, ignore_errors=True)


def checksum(tree: Any) -> int:
    """CRC-32 of all arrays of a tree, in its order. tensorstore does not notice a flipped bit in an array."""
    value = 0
    for array in jax.tree.leaves(tree):
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return value


def _last_words(error: Exception) -> str:
    """The end of a message of tensorstore's, which goes from the general to the particular."""
    words = re.sub(r" \[os_error_code=.*", "", str(error).strip()).rpartition(": ")[2]
    return words[-200:] or type(error).__name__


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
        _check(meta)
    except (TypeError, ValueError) as error:
        raise Damaged(f"{path} has a description of another shape ({error})") from None
    return meta


def _check(meta: Meta) -> None:
    """Refuse entries that `Meta` does not have so: the file may be anyone's."""
    wrong = [name for name, kind in get_type_hints(Meta).items() if not conforms(getattr(meta, name), kind)]
    scaler = meta.scaler
    if not wrong and not (
        set(scaler) == {"mean", "std"} and all(map(math.isfinite, scaler.values())) and scaler["std"] > 0
    ):
        wrong.append("scaler")
    if not wrong and meta.records and not are_records(meta.records):
        wrong.append("records")
    if not wrong and any(limits and len(limits) != len(meta.classes) for limits in (meta.thresholds, meta.youden)):
        wrong.append("thresholds")
    if not wrong and meta.precision not in tuple(PRECISIONS):
        wrong.append("precision")
    if wrong:
        raise ValueError(f"its '{wrong[0]}' cannot be")


def are_records(value: Any) -> TypeGuard[dict[str, str]]:
    """Whether this says which records trained a network."""
    if not isinstance(value, dict) or set(value) != {"source", "ecg_ids"}:
        return False
    return all(isinstance(text, str) for text in value.values()) and _RANGES.fullmatch(value["ecg_ids"]) is not None


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
