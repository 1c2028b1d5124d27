"""Training a network: epochs, validation, selection of the best, early stopping."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from imlenet_jax.checkpoints.description import SCORE, Meta
from imlenet_jax.data.loader import Split
from imlenet_jax.data.tasks import Task
from imlenet_jax.evaluation.metrics import (
    best_thresholds,
    macro_auc_present,
    mean_accuracy,
    warn_undefined_auc,
    youden_thresholds,
)
from imlenet_jax.evaluation.report import sigmoid
from imlenet_jax.models import create_model
from imlenet_jax.training.logs import RATE
from imlenet_jax.training.parallel import Devices, is_first_process
from imlenet_jax.training.predictor import Predictor
from imlenet_jax.training.recipe import DTYPES, Recipe
from imlenet_jax.training.resume import Selection, Start
from imlenet_jax.training.saving import Checkpoints
from imlenet_jax.training.step import TrainState, Unfinished, record_losses
from imlenet_jax.training.stopping import Watch
from imlenet_jax.training.trainer import Row, Trainer


def fit(
    meta: Meta,
    train: Split,
    validation: Split,
    recipe: Recipe,
    devices: Devices,
    checkpoints: Checkpoints,
    report: Callable[[Row], None] = lambda row: None,
    start: Start | None = None,
    watch: Watch | None = None,
    variables: dict[str, Any] | None = None,
) -> Row:
    """Train the network that `meta` describes, save every epoch (the latest and the best stay), return the best row.

    Selection and early stopping both go by the exact macro AUC of the validation records. `report` is given the
    metrics of every epoch. A run goes on at `start`, to the bit, and saves within an epoch and stops when `watch` says.
    One that does not go on starts from `variables`, drawn anew where there are none.

    Raises:
        UserError: the batch does not fit the data or the devices.
        NotFinite: the loss or a weight stopped being a number; the checkpoints before it are kept.
        Stopped: a signal ended the run after a step, and that step is saved.
    """
    warn_undefined_auc(validation.labels, meta.classes)
    trainer = Trainer(meta, train, recipe, devices)
    task = meta.asked
    network = create_model(meta.model, meta.network_config, dtype=DTYPES[recipe.dtype])
    predict = Predictor(network, devices, task.exclusive)
    state, unfinished = trainer.start(start, variables), start.unfinished if start else None
    history = list(start.meta.history) if start else []
    selection = Selection(recipe.patience, history)
    watch = watch or Watch()
    watch.start(int(start.state.step) if start else 0)

    def save_unfinished(state: TrainState, so_far: Unfinished) -> None:
        checkpoints.save_unfinished(under_way(meta, history, len(so_far.losses)), devices.get_state(state), so_far)

    for epoch in range(len(history) + 1, 1 + (len(history) if selection.over else recipe.epochs)):
        if recipe.freeze_epochs and epoch == recipe.freeze_epochs + 1 and unfinished is None:
            state = trainer.with_new_optimizer(state)
        state, row, rate = trainer.epoch(state, epoch, unfinished, watch, save_unfinished)
        unfinished = None
        whole = devices.get_state(state)
        logits = predict(whole.variables, validation, meta.scaling, recipe.batchsize)
        row |= _validation_row(task, logits, validation)
        history.append(row)
        limits = {} if task.exclusive else _thresholds(logits, validation)
        checkpoints.save(dataclasses.replace(under_way(meta, history), **limits), whole)
        watch.saved()
        report(row | {RATE: rate})
        selection.add(row)
        if selection.over:
            if is_first_process():
                print(f"stopped early: no better validation AUC for {recipe.patience} epochs")
            break
        if epoch < recipe.epochs:
            watch.stop_between_epochs()
    checkpoints.finish()
    return selection.best


def under_way(meta: Meta, history: list[Row], step: int = 0) -> Meta:
    """What a checkpoint says of itself after these epochs, and so many steps of the next."""
    return dataclasses.replace(
        meta, epoch=len(history), step=step, metrics=history[-1] if history else {}, history=list(history)
    )


def _validation_row(task: Task, logits: np.ndarray, validation: Split) -> Row:
    losses = np.asarray(record_losses(logits, validation.labels, task.exclusive))  # type: ignore[arg-type]
    log_odds = task.log_odds(logits)
    return {
        "val_loss": float(np.mean(losses)),
        SCORE: float(macro_auc_present(validation.labels, log_odds)),
        "val_mean_accuracy": float(mean_accuracy(validation.labels, sigmoid(log_odds))),
    }


def _thresholds(logits: np.ndarray, validation: Split) -> dict[str, Any]:
    choices = {"thresholds": best_thresholds, "youden": youden_thresholds}
    found = {name: choose(validation.labels, sigmoid(logits)) for name, choose in choices.items()}
    return {name: [None if np.isnan(t) else float(t) for t in limits] for name, limits in found.items()}
