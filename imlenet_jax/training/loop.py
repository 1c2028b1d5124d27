"""Training a network: epochs, validation, selection of the best, early stopping."""

import dataclasses
import itertools
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from imlenet_jax.checkpoints.description import SCORE, Meta
from imlenet_jax.data.loader import (
    Split,
    epoch_order,
    eval_batches,
    prefetch,
    read_batch,
    train_batches,
    train_rows,
)
from imlenet_jax.data.scaling import Scaler
from imlenet_jax.data.tasks import Task
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
from imlenet_jax.runtime.fetching import fetched
from imlenet_jax.training.logs import RATE
from imlenet_jax.training.optimizers import courses, make_optimizer
from imlenet_jax.training.outcomes import GROUP, Outcomes
from imlenet_jax.training.parallel import Devices, is_first_process
from imlenet_jax.training.progress import compiling
from imlenet_jax.training.resume import Selection, Start
from imlenet_jax.training.saving import Checkpoints
from imlenet_jax.training.step import (
    Outcome,
    TrainState,
    Unfinished,
    new_state,
    predict_step,
    record_losses,
    several_steps,
    train_step,
)
from imlenet_jax.training.stopping import NotFinite, Stopped, Watch

DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a run is trained; the defaults are the reference's.

    `dtype` is that of activations (`create_model`). `steps_per_call` training steps are one compiled
    program. With `data_on_device` the training records lie on every device, and a step is given rows only. For the first
    `freeze_epochs` only the head is trained; after them the learning rate of all before it is `backbone_lr` times `lr`.
    `weight_decay` is the network's own unless given, and `schedule` how the learning rate goes (`courses`).
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
    freeze_epochs: int = 0
    backbone_lr: float = 1.0
    weight_decay: float | None = None
    schedule: str = "constant"


Row = dict[str, float]


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

    for epoch in range(len(history) + 1, recipe.epochs + 1):
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


class Trainer:
    """The compiled training step of one run, and what it is fed."""

    def __init__(self, meta: Meta, train: Split, recipe: Recipe, devices: Devices):
        devices.check(recipe.batchsize)
        if devices.axis_name and (recipe.steps_per_call > 1 or recipe.data_on_device):
            raise UserError("--parallel pmap takes neither --steps_per_call nor --data_on_device: choose sharded")
        if jax.process_count() > 1 and recipe.data_on_device:
            raise UserError("--data_on_device True: each of several processes reads only its part; choose False")
        if recipe.schedule == "onecycle" and recipe.freeze_epochs:
            raise UserError("--schedule onecycle is one course of the whole run: leave --freeze_epochs out")
        self._meta, self._train, self._recipe, self._devices = meta, train, recipe, devices
        self._task = meta.asked
        rate, b1 = courses(recipe.schedule, recipe.lr, recipe.epochs * self.steps)
        self._optimizer = make_optimizer(meta.model, rate, self._task.exclusive, recipe.weight_decay, b1)
        network = create_model(meta.model, meta.network_config, devices.axis_name, DTYPES[recipe.dtype])
        exclusive = self._task.exclusive
        step = partial(train_step, network, self._optimizer, axis_name=devices.axis_name, exclusive=exclusive)
        self._steps = {
            frozen: partial(step, frozen=frozen, backbone_rate=recipe.backbone_lr) for frozen in (False, True)
        }
        self._choose_step(frozen=recipe.freeze_epochs > 0)
        # On the devices once: a step is then given nothing but a batch.
        scaler = jax.tree.map(np.float32, meta.scaling)  # several processes compare what they put, in float32
        self._constants = devices.put_everywhere((self._records(), scaler, np.uint32(recipe.seed)))

    def start(self, at: Start | None = None, variables: dict[str, Any] | None = None) -> TrainState:
        """The state before the first step, from `variables` or new ones, or that of a checkpoint."""
        if at is not None:
            return self._devices.put_state(at.state)
        if variables is None:
            network = create_model(self._meta.model, self._meta.network_config)
            variables = jax.jit(partial(init_variables, network))(jax.random.key(self._recipe.seed))
        return self._devices.put_state(new_state(variables, self._optimizer))

    def with_new_optimizer(self, state: TrainState) -> TrainState:
        """The state as the head's own epochs leave it, with moments that begin anew: those of all else are 0 by then."""
        state = self._devices.get_state(state)
        fresh = new_state(state.variables, self._optimizer)
        return self._devices.put_state(fresh._replace(step=state.step))

    def _choose_step(self, frozen: bool) -> None:
        step = self._steps[frozen]
        self._frozen = frozen
        self._plain_step = partial(several_steps, step) if self._recipe.steps_per_call > 1 else step
        self._step = self._devices.compile_step(self._plain_step)
        self._compiled: set[Any] = set()

    def epoch(
        self,
        state: TrainState,
        epoch: int,
        unfinished: Unfinished | None = None,
        watch: Watch | None = None,
        save: Callable[[TrainState, Unfinished], None] = lambda state, so_far: None,
    ) -> tuple[TrainState, Row, float]:
        """Train for one epoch, or the rest of one; the state given is used up. Returns metrics and records per second.

        Raises:
            NotFinite: the loss or a weight stopped being a number.
            Stopped: `watch` wanted it; `save` was called before.
        """
        recipe, steps, watch = self._recipe, self.steps, watch or Watch()
        if self._frozen != (epoch <= recipe.freeze_epochs):
            self._choose_step(frozen=not self._frozen)
        outcomes = Outcomes(unfinished, lambda loss, at: self._not_finite(f"the loss became {loss}", epoch, at))
        begun, first = time.perf_counter(), len(unfinished.losses) if unfinished is not None else 0
        done, before = first, (epoch - 1) * steps
        debug = jax.config.jax_debug_nans  # type: ignore[attr-defined]
        call = partial(self._checked_step, epoch) if debug else self._plain_call
        title = f"epoch {epoch}/{recipe.epochs}"
        with tqdm(total=steps, initial=first, desc=title, disable=not is_first_process()) as bar:
            for batch in self._batches(epoch, first):
                with compiling(bar, self._compiled, batch):
                    state, outcome = call(state, batch, done)
                done += (count := outcome.loss.size)
                bar.update(count)
                if outcomes.add(outcome):
                    bar.set_postfix(loss=f"{outcomes.mean_loss:.4f}", refresh=False)
                wants_save, wants_stop = watch.after(before + done)
                if wants_stop or (wants_save and done < steps):
                    outcomes.read()
                    self._check_weights(state, epoch, done - 1)
                    save(state, outcomes.joined())
                    watch.saved()
                if wants_stop:
                    raise Stopped
            outcomes.read()
            bar.set_postfix(loss=f"{outcomes.mean_loss:.4f}", refresh=False)
        self._check_weights(state, epoch, steps - 1)
        seconds = time.perf_counter() - begun

        losses, logits = outcomes.joined()
        labels = self._train.labels[self._order(epoch)[: len(logits)]]
        log_odds = self._task.log_odds(logits)
        row = {
            "epoch": epoch,
            "train_loss": float(np.mean(losses, dtype=float)),
            "train_macro_auc": float(macro_auc_present(labels, log_odds)),
            "train_mean_accuracy": float(mean_accuracy(labels, sigmoid(log_odds))),
        }
        return state, row, (len(logits) - first * recipe.batchsize) / seconds

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        records, size = len(self._train), self._recipe.batchsize
        return records // size if self._recipe.drop_last else -(-records // size)

    def _order(self, epoch: int) -> np.ndarray:
        return epoch_order(len(self._train), self._recipe.seed, epoch)

    def _plain_call(self, state: TrainState, batch: Any, step: int) -> tuple[TrainState, Outcome]:
        return self._step(state, batch, *self._constants)

    def _checked_step(self, epoch: int, state: TrainState, batch: Any, step: int) -> tuple[TrainState, Outcome]:
        try:
            after, outcome = self._step(state, batch, *self._constants)  # under jax_debug_nans the state is not used up
            # JAX itself does not look at the results of every compiled function.
            if _all_finite((outcome, after)):
                return after, outcome
            with jax.disable_jit():
                self._plain_step(state, batch, *self._constants)
        except FloatingPointError as error:
            raise self._not_finite(_origin(error), epoch, step) from error
        raise self._not_finite("a value became infinite, or NaN in the compiled step only,", epoch, step)

    def _check_weights(self, state: TrainState, epoch: int, step: int) -> None:
        if not _all_finite(state):
            raise self._not_finite("a weight or a statistic became NaN or infinite", epoch, step)

    def _not_finite(self, what: str, epoch: int, step: int) -> NotFinite:
        size = self._recipe.batchsize
        return NotFinite(what, epoch, step, self._order(epoch)[step * size : (step + 1) * size])

    def _records(self) -> Any:
        return read_batch(self._train, np.arange(len(self._train))) if self._recipe.data_on_device else None

    def _batches(self, epoch: int, first: int) -> Iterator[Any]:
        recipe = self._recipe
        order = (self._train, recipe.batchsize, recipe.seed, epoch, first, recipe.drop_last)
        batches: Iterator[Any] = (
            train_rows(*order)
            if recipe.data_on_device
            else train_batches(*order, part=(jax.process_index(), jax.process_count()))
        )
        several = recipe.steps_per_call > 1
        batches = _stacked(batches, recipe.steps_per_call) if several else batches
        put = partial(self._devices.put_batch, axis=int(several))
        return _put_in_groups(batches, put) if recipe.data_on_device else prefetch(batches, put)


class Predictor:
    """Logits of a whole split, compiled once."""

    def __init__(self, network: nn.Module, devices: Devices, exclusive: bool = False):
        self._devices = devices
        self._step = devices.compile_predict(partial(predict_step, network, exclusive=exclusive))
        self._compiled: set[Any] = set()

    def __call__(
        self, variables: Any, split: Split, scaler: Scaler, batchsize: int, progress: str | None = None
    ) -> np.ndarray:
        """Logits `(records, classes)` float32, in the split's order; `progress` names the bar, if one is wanted."""
        self._devices.check(batchsize)
        scaler = self._devices.put_everywhere(scaler)
        part = (jax.process_index(), jax.process_count())
        batches = prefetch(eval_batches(split, batchsize, part), self._devices.put_batch)
        total = -(-len(split.rows) // batchsize)
        with tqdm(total=total, desc=progress, unit="batch", disable=progress is None) as bar:

            def outputs() -> Iterator[jax.Array]:
                for batch in batches:
                    with compiling(bar, self._compiled, batch):
                        output = self._step(variables, batch, scaler)
                    yield output
                    bar.update()

            return np.concatenate(list(fetched(outputs())))[: len(split.rows)]


def _stacked(batches: Iterator[Any], count: int) -> Iterator[Any]:
    """`count` batches at a time, stacked along a new first axis; fewer at the end, and a batch of another size alone."""
    sizes = itertools.groupby(batches, lambda batch: len(jax.tree.leaves(batch)[0]))
    for _, alike in sizes:
        while group := list(itertools.islice(alike, count)):
            yield jax.tree.map(lambda *arrays: np.stack(arrays), *group)


def _put_in_groups(batches: Iterator[Any], put: Callable[[Any], Any]) -> Iterator[Any]:
    """Rows of records are small: many batches of them go to the devices at once, without a thread."""
    while group := list(itertools.islice(batches, GROUP)):
        yield from put(group)


def under_way(meta: Meta, history: list[Row], step: int = 0) -> Meta:
    """What a checkpoint says of itself after these epochs, and so many steps of the next."""
    return dataclasses.replace(
        meta, epoch=len(history), step=step, metrics=history[-1] if history else {}, history=list(history)
    )


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    """Looked at where the arrays are: one answer comes to the host, not they."""
    return jnp.stack([jnp.isfinite(array).all() for array in jax.tree.leaves(tree)]).all()


def _origin(error: FloatingPointError) -> str:
    """The operation that made the first NaN, and where in the networks or the step it is."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "imlenet_jax" in frame.filename]
    where = f" ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else ""
    return f"{str(error).splitlines()[0]}{where}"


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
