"""Checkpoints: orbax's `CheckpointManager`, with a JSON that lets each checkpoint explain itself.

A folder holds one numbered sub-folder per kept epoch, the latest and the best by validation macro AUC, each complete
in itself: `variables` (parameters and BatchNorm statistics), `optimizer` (its state and the step; absent in converted
checkpoints), and `meta`, the fields of `Meta`. Saving is atomic and happens in the background.
"""

import contextlib
import dataclasses
import importlib.metadata
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import args as ocp_args
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from imlenet_jax.data.tasks import SUPERCLASS
from imlenet_jax.errors import UserError
from imlenet_jax.models import Config, abstract_variables, create_model, make_config
from imlenet_jax.training.step import Scaler, TrainState

FORMAT = 1
ITEMS = ("variables", "optimizer", "meta")
SCORE = "val_macro_auc"

# orbax narrates every save, and logs as tracebacks the very errors that it then raises.
logging.getLogger("absl").setLevel(logging.CRITICAL)


@dataclasses.dataclass(frozen=True)
class Meta:
    """What a checkpoint says of itself, in JSON types.

    `task` names what the network is asked (`imlenet_jax.data.tasks`). `config` holds the fields of the network's configuration, `thresholds` one per class (of the best F1 on the
    validation records; None where there is none), `youden` the same by Youden's index, `training` the flags of the run,
    `metrics` those of the epoch.
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
    task: str = SUPERCLASS.name
    versions: dict[str, str] = dataclasses.field(default_factory=lambda: versions())
    format: int = FORMAT

    @property
    def network_config(self) -> Config:
        """The network's configuration."""
        return make_config(self.model, self.config)

    @property
    def scaling(self) -> Scaler:
        """The scaler the network was trained with."""
        return Scaler(self.scaler["mean"], self.scaler["std"])


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
        UserError: on opening, in `save` or on leaving, the folder cannot be written. A checkpoint is whole or absent.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder).absolute()
        policy = AnyPreservationPolicy([LatestN(1), BestN(get_metric_fn=_score, n=1)])
        options = ocp.CheckpointManagerOptions(best_fn=_score, preservation_policy=policy)
        with self._writing():
            self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=ITEMS)

    def save(self, meta: Meta, state: TrainState | None = None, variables: Any = None) -> None:
        """Save an epoch: a whole training state, or variables alone (a converted network)."""
        items = {"meta": ocp_args.JsonSave(dataclasses.asdict(meta))}
        if state is not None:
            variables = state.variables
            optimizer = {"step": state.step, "state": jax.tree.leaves(state.opt_state)}
            items["optimizer"] = ocp_args.StandardSave(optimizer)
        items["variables"] = ocp_args.StandardSave(variables)
        score = {SCORE: meta.metrics.get(SCORE, 0.0)}
        with self._writing():  # also raises what went wrong in the background with the save before
            self._manager.save(meta.epoch, args=ocp_args.Composite(**items), metrics=score)

    def wait(self) -> None:
        """Wait until all that was saved is on the disk."""
        with self._writing():
            self._manager.wait_until_finished()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.wait()
        finally:
            self._manager.close()
            for partial in self.folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(partial, ignore_errors=True)

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


def _last_words(error: Exception) -> str:
    """The end of a message of tensorstore's, which goes from the general to the particular."""
    words = re.sub(r" \[os_error_code=.*", "", str(error).strip()).rpartition(": ")[2]
    return words[-200:] or type(error).__name__


def move_aside(folder: Path) -> Path | None:
    """Rename a folder of earlier checkpoints to `<folder>.old-<n>`, so that a new run deletes nothing."""
    folder = Path(folder)
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    number = 1
    while (target := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    return folder.rename(target)


def read_meta(folder: Path, which: str = "best") -> tuple[int, Meta]:
    """The epoch and the description of the `best` or `latest` checkpoint in a folder."""
    with _open(folder) as manager:
        epoch = _choose(manager, folder, which)
        return epoch, _read_meta(manager, folder, epoch)


def load_variables(folder: Path, which: str = "best") -> tuple[Meta, dict[str, Any]]:
    """The description and the network's variables (float32) of the `best` or `latest` checkpoint in a folder.

    Raises:
        UserError: there is no checkpoint, it is damaged, or of another format.
    """
    with _open(folder) as manager:
        epoch = _choose(manager, folder, which)
        meta = _read_meta(manager, folder, epoch)
        network = create_model(meta.model, meta.network_config)
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shapes = abstract_variables(network)
        abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), shapes)
        try:
            restored = manager.restore(epoch, args=ocp_args.Composite(variables=ocp_args.StandardRestore(abstract)))
        except Exception as error:  # orbax and tensorstore raise many types for a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{folder}/{epoch} is damaged ({reason[:200]}); train or convert it again") from None
        return meta, restored["variables"]


class _Reader:
    def __init__(self, folder: Path):
        options = ocp.CheckpointManagerOptions(read_only=True, best_fn=_score)
        handlers = {"variables": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()}
        self.manager = ocp.CheckpointManager(Path(folder).absolute(), options=options, item_handlers=handlers)

    def __enter__(self) -> ocp.CheckpointManager:
        return self.manager

    def __exit__(self, *error: object) -> None:
        self.manager.close()


def _open(folder: Path) -> _Reader:
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such checkpoint folder; train first, or check --checkpoint_dir")
    return _Reader(folder)


def _choose(manager: ocp.CheckpointManager, folder: Path, which: str) -> int:
    epoch = manager.best_step() if which == "best" else manager.latest_step()
    if epoch is None:
        raise UserError(f"{folder} holds no finished checkpoint; train first, or check --checkpoint_dir")
    return epoch


def _read_meta(manager: ocp.CheckpointManager, folder: Path, epoch: int) -> Meta:
    where = f"{folder}/{epoch}"
    try:
        values = manager.restore(epoch, args=ocp_args.Composite(meta=ocp_args.JsonRestore()))["meta"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{where} has no readable description ({error}); train or convert it again") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{where} is of another format than {FORMAT}; it was written by another version of imlenet_jax")
    try:
        return Meta(**values)
    except TypeError as error:
        raise UserError(f"{where} has a description of another shape ({error}); train or convert it again") from None
