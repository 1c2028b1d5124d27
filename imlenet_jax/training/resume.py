"""Continuing a run: whether what is in a checkpoint folder is the same run, and from where it goes on."""

import json
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from imlenet_jax.checkpoints.description import SCORE, Meta
from imlenet_jax.checkpoints.reading import first_whole, load_meta, restore, saved
from imlenet_jax.errors import UserError
from imlenet_jax.files import move_aside
from imlenet_jax.models import create_model, init_variables
from imlenet_jax.training.optimizers import courses, make_optimizer
from imlenet_jax.training.parallel import is_first_process, wait_for_processes
from imlenet_jax.training.recipe import Recipe
from imlenet_jax.training.saving import UNFINISHED
from imlenet_jax.training.step import TrainState, Unfinished, new_state

MIN_DELTA = 1e-4  # the reference's: a smaller gain in validation AUC does not renew the patience

# Flags that change no result, or (how the work is divided) only its rounding. `data_dir` counts by its fingerprint.
FREE_FLAGS = {
    *("resume", "save_every_steps", "save_every_minutes", "checkpoint_dir", "log_dir", "loggr", "debug_nans", "verify"),
    *("data_dir", "allow_missing", "test_folds", "seeds", "config", "epochs", "deterministic", "compilation_cache"),
    *("num_devices", "steps_per_call", "data_on_device"),
    *("coordinator_address", "num_processes", "process_id", "heartbeat"),
}
# What a flag was that a checkpoint does not name: `fit` knows fewer than `train`, and an earlier version knew fewer, too.
UNNAMED = {field.name: field.default for field in fields(Recipe)} | {
    **{"crop": None, "init_from": None, "min_likelihood": None, "parallel": "sharded", "precision": "default"}
}


class Selection:
    """The best epoch and the patience left, which follow from the metrics of all epochs so far."""

    def __init__(self, patience: int, history: list[dict[str, float]]):
        self.patience, self.best, self._reference, self._waited = patience, dict[str, float](), -np.inf, 0
        for row in history:
            self.add(row)

    def add(self, row: dict[str, float]) -> None:
        """One more epoch."""
        if not self.best or row[SCORE] >= self.best[SCORE]:  # of equals the latest, as the checkpoints keep it
            self.best = row
        if row[SCORE] > self._reference + MIN_DELTA:
            self._reference, self._waited = row[SCORE], 0
        else:
            self._waited += 1

    @property
    def over(self) -> bool:
        """Whether the patience is used up."""
        return self._waited >= self.patience


@dataclass(frozen=True)
class Start:
    """Where a run goes on: the checkpoint, its description and its state, on the host."""

    path: Path
    meta: Meta
    state: TrainState
    unfinished: Unfinished | None

    def finished(self, epochs: int, patience: int) -> bool:
        """Whether nothing is left to do."""
        return self.meta.epoch >= epochs or Selection(patience, self.meta.history).over

    def __str__(self) -> str:
        step = f", step {self.meta.step}" if self.meta.step else ""
        return f"epoch {self.meta.epoch + bool(self.meta.step)}{step} ({self.path})"


def find_start(folder: Path, meta: Meta, resume: bool | str = "auto") -> Start | None:
    """Where the run that `meta` describes goes on in its checkpoint folder; None where it starts anew.

    Damaged checkpoints are passed over with a warning, and moved aside. Every process of a run calls this.

    Args:
        folder: of the run's checkpoints.
        meta: of the run as it is wanted now.
        resume: `auto` (continue what is there), True (there must be something), False (start anew).

    Raises:
        UserError: the folder holds a run with other flags, no run at all, or only damaged checkpoints.
    """
    places = sorted([*saved(folder), *saved(folder / UNFINISHED)], key=_progress, reverse=True)
    if resume is False or not places:
        if resume is True:
            raise UserError(
                f"--resume True: {folder} holds no checkpoint to continue: leave it out, or check the folder"
            )
        return None
    start = first_whole(places, partial(_load, meta), "--resume False starts anew and keeps it aside")
    wait_for_processes("the checkpoint to continue is chosen")
    if is_first_process():
        for damaged in places[: places.index(start.path)]:
            move_aside(damaged)  # else the run that goes on would meet it
    wait_for_processes("damaged checkpoints are aside")
    return start


def differing_flags(old: Meta, new: Meta) -> list[str]:
    """The flags that make two runs different ones, each with both values, as `--lr was 0.1, is 0.2`."""
    before, now = old.training, json.loads(json.dumps(new.training))
    before, now = before | UNNAMED | before, now | UNNAMED | now  # in the order of the flags
    pairs = {f"--{flag}": (before[flag], now[flag]) for flag in now if flag in before and flag not in FREE_FLAGS}
    pairs["--model"] = old.model, new.model
    grows = now.get("epochs", 0) > before.get("epochs", 0)
    if now.get("epochs", 0) < before.get("epochs", 0) or (grows and now.get("schedule") == "onecycle"):
        pairs["--epochs"] = before["epochs"], now["epochs"]
    options = json.loads(json.dumps(new.config))
    changed = [key for key in {**old.config, **options} if old.config.get(key) != options.get(key)]
    pairs["--config"] = {k: old.config.get(k) for k in changed}, {k: options.get(k) for k in changed}
    found = [f"{flag} was {json.dumps(a)}, is {json.dumps(b)}" for flag, (a, b) in pairs.items() if a != b]
    if old.data_fingerprint != new.data_fingerprint:
        found.append(f"--data_dir was {before.get('data_dir')}, is {now.get('data_dir')}, with other records")
    return found


def _progress(path: Path) -> tuple[float, float]:
    try:
        meta = load_meta(path)
    except UserError:
        return np.inf, 0  # to be tried, and named
    return meta.epoch, meta.step


def _load(wanted: Meta, path: Path, meta: Meta) -> Start:
    if not meta.training or "converted_from" in meta.training:
        raise UserError(
            f"{path} is a converted network, not a run: choose another --checkpoint_dir, or --resume False "
            "to start anew and keep it aside"
        )
    differing = differing_flags(meta, wanted)
    if differing:
        raise UserError(
            f"{path.parent} holds a run with other flags ({'; '.join(differing)}): give the same to continue it, "
            "--resume False to start anew and keep it aside, or another --checkpoint_dir"
        )
    if len(meta.history) != meta.epoch:
        raise UserError(f"{path} was written by a version that could not continue: --resume False starts anew")
    flags = meta.training
    rate, b1 = courses(flags.get("schedule", "constant"), 1, 1)  # for the shapes of the optimizer's state
    optimizer = make_optimizer(meta.model, rate, meta.asked.exclusive, flags.get("weight_decay"), b1)
    network = create_model(meta.model, wanted.network_config)
    shapes = jax.eval_shape(lambda: new_state(init_variables(network, jax.random.key(0)), optimizer))
    leaves, structure = jax.tree.flatten(shapes.opt_state)
    variables = restore(path, meta, "variables", shapes.variables)
    held = restore(path, meta, "optimizer", {"step": shapes.step, "state": leaves})
    state = TrainState(held["step"], **variables, opt_state=jax.tree.unflatten(structure, held["state"]))
    unfinished = Unfinished(**restore(path, meta, "unfinished")) if meta.step else None
    return Start(path, meta, state, unfinished)


def command_to_continue(module: str, arguments: list[str]) -> list[str]:
    """The command that continues the run of this one: without a `--resume False`, which would start anew."""
    kept: list[Any] = []
    skip = False
    for argument in arguments:
        if skip or argument.startswith("--resume="):
            skip = False
            continue
        skip = argument == "--resume"
        if not skip:
            kept.append(argument)
    return ["python", "-m", module, *kept]
