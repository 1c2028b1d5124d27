"""Training a network: epochs, validation, selection of the best, early stopping."""

import dataclasses
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from tqdm import tqdm

from imlenet_jax.data.loader import Split, epoch_order, eval_batches, prefetch, train_batches
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.metrics import best_thresholds, macro_auc_present, mean_accuracy, warn_undefined_auc
from imlenet_jax.evaluation.report import sigmoid
from imlenet_jax.models import create_model, init_variables
from imlenet_jax.training.checkpoint import SCORE, Checkpoints, Meta
from imlenet_jax.training.optimizers import make_optimizer
from imlenet_jax.training.parallel import Devices
from imlenet_jax.training.step import (
    Scaler,
    TrainState,
    new_state,
    predict_step,
    record_losses,
    train_step,
)

MIN_DELTA = 1e-4  # the reference's: a smaller gain in validation AUC does not renew the patience


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a run is trained; the defaults are the reference's."""

    batchsize: int = 32
    epochs: int = 60
    seed: int = 42
    lr: float = 1e-3
    patience: int = 20
    drop_last: bool = True


Row = dict[str, float]


def fit(
    meta: Meta,
    train: Split,
    validation: Split,
    recipe: Recipe,
    devices: Devices,
    checkpoints: Checkpoints,
    report: Callable[[Row], None] = lambda row: None,
) -> Row:
    """Train the network that `meta` describes, save every epoch (the latest and the best stay), return the best row.

    Selection and early stopping both go by the exact macro AUC of the validation records. `report` is given the
    metrics of every epoch.

    Raises:
        UserError: the batch does not fit the data or the devices, or the loss stopped being a number.
    """
    devices.check(recipe.batchsize)
    warn_undefined_auc(validation.labels, meta.classes)
    network = create_model(meta.model, meta.network_config)
    optimizer = make_optimizer(meta.model, recipe.lr)
    variables = jax.jit(partial(init_variables, network))(jax.random.key(recipe.seed))
    state = devices.put_everywhere(new_state(variables, optimizer))
    step = jax.jit(partial(train_step, network, optimizer), donate_argnums=0)
    predict = Predictor(network, devices)

    best: Row = {}
    reference, waited = -math.inf, 0
    for epoch in range(1, recipe.epochs + 1):
        state, row = _train_epoch(step, state, train, meta.scaling, recipe, devices, epoch)
        logits = predict(state.variables, validation, meta.scaling, recipe.batchsize)
        row |= _validation_row(logits, validation)
        thresholds = [None if np.isnan(t) else float(t) for t in best_thresholds(validation.labels, sigmoid(logits))]
        checkpoints.save(dataclasses.replace(meta, epoch=epoch, metrics=row, thresholds=thresholds), state)
        report(row)
        if not best or row[SCORE] >= best[SCORE]:  # of equals the latest, as the checkpoints keep it
            best = row
        waited = 0 if row[SCORE] > reference + MIN_DELTA else waited + 1
        reference = max(reference, row[SCORE]) if waited == 0 else reference
        if waited >= recipe.patience:
            print(f"stopped early: no better validation AUC for {recipe.patience} epochs")
            break
    return best


class Predictor:
    """Logits of a whole split, compiled once."""

    def __init__(self, network: nn.Module, devices: Devices):
        self._devices = devices
        self._step = jax.jit(partial(predict_step, network))

    def __call__(
        self, variables: Any, split: Split, scaler: Scaler, batchsize: int, progress: str | None = None
    ) -> np.ndarray:
        """Logits `(records, classes)` float32, in the split's order; `progress` names the bar, if one is wanted."""
        self._devices.check(batchsize)
        batches = prefetch(eval_batches(split, batchsize), self._devices.put_batch)
        total = -(-len(split.rows) // batchsize)
        bar = tqdm(batches, desc=progress, total=total, unit="batch", disable=progress is None)
        outputs = [self._step(variables, batch, scaler) for batch in bar]
        return np.concatenate([np.asarray(output) for output in outputs])[: len(split.rows)]


def _train_epoch(
    step: Callable[..., Any],
    state: TrainState,
    train: Split,
    scaler: Scaler,
    recipe: Recipe,
    devices: Devices,
    epoch: int,
) -> tuple[TrainState, Row]:
    batches = prefetch(
        train_batches(train, recipe.batchsize, recipe.seed, epoch, drop_last=recipe.drop_last), devices.put_batch
    )
    rounded = math.floor if recipe.drop_last else math.ceil
    bar = tqdm(batches, desc=f"epoch {epoch}/{recipe.epochs}", total=rounded(len(train.rows) / recipe.batchsize))
    start = time.perf_counter()
    outcomes = []
    losses: list[float] = []
    seed = np.uint32(recipe.seed)
    for batch in bar:
        state, outcome = step(state, batch, scaler, seed)
        outcomes.append(outcome)
        if len(outcomes) > 1:  # one step late, so that the device never waits for the host
            losses.append(_finite(float(outcomes[-2].loss), epoch, len(losses)))
            bar.set_postfix(loss=f"{np.mean(losses):.4f}", refresh=False)
    losses.append(_finite(float(outcomes[-1].loss), epoch, len(losses)))
    seconds = time.perf_counter() - start

    logits = np.concatenate([np.asarray(outcome.logits) for outcome in outcomes])
    labels = train.labels[epoch_order(len(train.rows), recipe.seed, epoch)[: len(logits)]]
    row = {
        "epoch": epoch,
        "train_loss": float(np.mean(losses)),
        "train_macro_auc": float(macro_auc_present(labels, logits)),
        "train_mean_accuracy": float(mean_accuracy(labels, sigmoid(logits))),
        "records_per_second": len(logits) / seconds,
    }
    return state, row


def _validation_row(logits: np.ndarray, validation: Split) -> Row:
    losses = np.asarray(record_losses(logits, validation.labels))  # type: ignore[arg-type]
    return {
        "val_loss": float(np.mean(losses)),
        SCORE: float(macro_auc_present(validation.labels, logits)),
        "val_mean_accuracy": float(mean_accuracy(validation.labels, sigmoid(logits))),
    }


def _finite(loss: float, epoch: int, step: int) -> float:
    if not math.isfinite(loss):
        raise UserError(
            f"the loss became {loss} in epoch {epoch}, step {step}; the checkpoints before it are kept: try a lower --lr"
        )
    return loss
