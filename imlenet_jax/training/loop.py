"""Training a network: epochs, validation, selection of the best, early stopping."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from imlenet_jax.data.loader import (
    Split,
    epoch_order,
    eval_batches,
    prefetch,
    read_batch,
    train_batches,
    train_rows,
)
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.metrics import (
    best_thresholds,
    macro_auc_present,
    mean_accuracy,
    warn_undefined_auc,
    youden_thresholds,
)
from imlenet_jax.evaluation.report import sigmoid
from imlenet_jax.models import create_model, init_variables
from imlenet_jax.training.checkpoint import SCORE, Checkpoints, Meta
from imlenet_jax.training.optimizers import make_optimizer
from imlenet_jax.training.parallel import Devices, is_first_process
from imlenet_jax.training.step import (
    Scaler,
    TrainState,
    new_state,
    predict_step,
    record_losses,
    several_steps,
    train_step,
)

MIN_DELTA = 1e-4  # the reference's: a smaller gain in validation AUC does not renew the patience
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a run is trained; the defaults are the reference's.

    `dtype` is what convolutions and hidden dense layers compute in. `steps_per_call` training steps are one compiled
    program. With `data_on_device` the training records lie on every device, and a step is given rows only.
    """

    batchsize: int = 32
    epochs: int = 60
    seed: int = 42
    lr: float = 1e-3
    patience: int = 20
    drop_last: bool = True
    dtype: str = "float32"
    steps_per_call: int = 1
    data_on_device: bool = False


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
    warn_undefined_auc(validation.labels, meta.classes)
    trainer = Trainer(meta, train, recipe, devices)
    predict = Predictor(create_model(meta.model, meta.network_config, dtype=DTYPES[recipe.dtype]), devices)
    state = trainer.start()

    best: Row = {}
    reference, waited = -math.inf, 0
    for epoch in range(1, recipe.epochs + 1):
        state, row = trainer.epoch(state, epoch)
        whole = devices.get_state(state)
        logits = predict(whole.variables, validation, meta.scaling, recipe.batchsize)
        row |= _validation_row(logits, validation)
        limits = _thresholds(logits, validation)
        checkpoints.save(dataclasses.replace(meta, epoch=epoch, metrics=row, **limits), whole)
        report(row)
        if not best or row[SCORE] >= best[SCORE]:  # of equals the latest, as the checkpoints keep it
            best = row
        waited = 0 if row[SCORE] > reference + MIN_DELTA else waited + 1
        reference = max(reference, row[SCORE]) if waited == 0 else reference
        if waited >= recipe.patience:
            if is_first_process():
                print(f"stopped early: no better validation AUC for {recipe.patience} epochs")
            break
    return best


class Trainer:
    """The compiled training step of one run, and what it is fed."""

    def __init__(self, meta: Meta, train: Split, recipe: Recipe, devices: Devices):
        devices.check(recipe.batchsize)
        if devices.axis_name and (recipe.steps_per_call > 1 or recipe.data_on_device):
            raise UserError("--parallel pmap takes neither --steps_per_call nor --data_on_device: choose sharded")
        if jax.process_count() > 1 and recipe.data_on_device:
            raise UserError("--data_on_device True: each of several processes reads only its part; choose False")
        self._meta, self._train, self._recipe, self._devices = meta, train, recipe, devices
        self._optimizer = make_optimizer(meta.model, recipe.lr)
        network = create_model(meta.model, meta.network_config, devices.axis_name, DTYPES[recipe.dtype])
        step = partial(train_step, network, self._optimizer, axis_name=devices.axis_name)
        self._step = devices.compile_step(partial(several_steps, step) if recipe.steps_per_call > 1 else step)
        # On the devices once: a step is then given nothing but a batch.
        self._constants = devices.put_everywhere((self._records(), Scaler(*meta.scaling), np.uint32(recipe.seed)))

    def start(self) -> TrainState:
        """The state before the first step."""
        network = create_model(self._meta.model, self._meta.network_config)
        variables = jax.jit(partial(init_variables, network))(jax.random.key(self._recipe.seed))
        return self._devices.put_state(new_state(variables, self._optimizer))

    def epoch(self, state: TrainState, epoch: int) -> tuple[TrainState, Row]:
        """Train for one epoch; the state given is used up."""
        recipe, records = self._recipe, len(self._train)
        steps = records // recipe.batchsize if recipe.drop_last else -(-records // recipe.batchsize)
        start = time.perf_counter()
        outcomes: list[Any] = []
        losses: list[float] = []
        with tqdm(total=steps, desc=f"epoch {epoch}/{recipe.epochs}", disable=not is_first_process()) as bar:
            for batch in self._batches(epoch):
                state, outcome = self._step(state, batch, *self._constants)
                outcomes.append(outcome)
                bar.update(np.size(outcome.loss))
                if len(outcomes) > 1:  # one call late, so that the device never waits for the host
                    losses += _finite(outcomes[-2].loss, epoch, len(losses))
                    bar.set_postfix(loss=f"{np.mean(losses):.4f}", refresh=False)
        losses += _finite(outcomes[-1].loss, epoch, len(losses))
        seconds = time.perf_counter() - start

        logits = np.concatenate([_rows(outcome.logits) for outcome in outcomes])
        labels = self._train.labels[epoch_order(records, recipe.seed, epoch)[: len(logits)]]
        row = {
            "epoch": epoch,
            "train_loss": float(np.mean(losses)),
            "train_macro_auc": float(macro_auc_present(labels, logits)),
            "train_mean_accuracy": float(mean_accuracy(labels, sigmoid(logits))),
            "records_per_second": len(logits) / seconds,
        }
        return state, row

    def _records(self) -> Any:
        return read_batch(self._train, np.arange(len(self._train))) if self._recipe.data_on_device else None

    def _batches(self, epoch: int) -> Iterator[Any]:
        recipe = self._recipe
        order = (self._train, recipe.batchsize, recipe.seed, epoch, 0, recipe.drop_last)
        batches: Iterator[Any] = (
            train_rows(*order)
            if recipe.data_on_device
            else train_batches(*order, part=(jax.process_index(), jax.process_count()))
        )
        if recipe.steps_per_call == 1:
            return prefetch(batches, self._devices.put_batch)
        return prefetch(_stacked(batches, recipe.steps_per_call), partial(self._devices.put_batch, axis=1))


class Predictor:
    """Logits of a whole split, compiled once."""

    def __init__(self, network: nn.Module, devices: Devices):
        self._devices = devices
        self._step = devices.compile_predict(partial(predict_step, network))

    def __call__(
        self, variables: Any, split: Split, scaler: Scaler, batchsize: int, progress: str | None = None
    ) -> np.ndarray:
        """Logits `(records, classes)` float32, in the split's order; `progress` names the bar, if one is wanted."""
        self._devices.check(batchsize)
        scaler = self._devices.put_everywhere(scaler)
        part = (jax.process_index(), jax.process_count())
        batches = prefetch(eval_batches(split, batchsize, part), self._devices.put_batch)
        total = -(-len(split.rows) // batchsize)
        bar = tqdm(batches, desc=progress, total=total, unit="batch", disable=progress is None)
        outputs = [self._step(variables, batch, scaler) for batch in bar]
        return np.concatenate([np.asarray(output) for output in outputs])[: len(split.rows)]


def _stacked(batches: Iterator[Any], count: int) -> Iterator[Any]:
    """`count` batches at a time, stacked along a new first axis; fewer at the end, and a batch of another size alone."""
    sizes = itertools.groupby(batches, lambda batch: len(jax.tree.leaves(batch)[0]))
    for _, alike in sizes:
        while group := list(itertools.islice(alike, count)):
            yield jax.tree.map(lambda *arrays: np.stack(arrays), *group)


def _rows(logits: Any) -> np.ndarray:
    values = np.asarray(logits)
    return values.reshape(-1, values.shape[-1])


def _validation_row(logits: np.ndarray, validation: Split) -> Row:
    losses = np.asarray(record_losses(logits, validation.labels))  # type: ignore[arg-type]
    return {
        "val_loss": float(np.mean(losses)),
        SCORE: float(macro_auc_present(validation.labels, logits)),
        "val_mean_accuracy": float(mean_accuracy(validation.labels, sigmoid(logits))),
    }


def _thresholds(logits: np.ndarray, validation: Split) -> dict[str, Any]:
    choices = {"thresholds": best_thresholds, "youden": youden_thresholds}
    found = {name: choose(validation.labels, sigmoid(logits)) for name, choose in choices.items()}
    return {name: [None if np.isnan(t) else float(t) for t in limits] for name, limits in found.items()}


def _finite(loss: Any, epoch: int, step: int) -> list[float]:
    values = np.ravel(np.asarray(loss)).tolist()
    for place, value in enumerate(values):
        if not math.isfinite(value):
            raise UserError(
                f"the loss became {value} in epoch {epoch}, step {step + place}; "
                "the checkpoints before it are kept: try a lower --lr"
            )
    return values
