"""Writing checkpoints: orbax's `CheckpointManager`, with a JSON that lets each checkpoint explain itself.

The folder is that of `imlenet_jax.checkpoints.reading`. While a run is under way its sub-folder `unfinished` may hold
one more checkpoint, numbered by step, taken within an epoch, with what that epoch's metrics are computed from. Saving
is atomic and happens in the background.
"""

import contextlib
import dataclasses
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

from imlenet_jax.checkpoints.description import SCORE, Meta
from imlenet_jax.checkpoints.reading import checksum
from imlenet_jax.errors import UserError
from imlenet_jax.training.step import TrainState, Unfinished

ITEMS = ("variables", "optimizer", "unfinished", "meta")
UNFINISHED = "unfinished"
_DELETED = ".deleted"  # orbax moves there, in one step, what it deletes: a kill leaves nothing half deleted


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


def _last_words(error: Exception) -> str:
    """The end of a message of tensorstore's, which goes from the general to the particular."""
    words = re.sub(r" \[os_error_code=.*", "", str(error).strip()).rpartition(": ")[2]
    return words[-200:] or type(error).__name__
