"""The training of one epoch: the compiled step, the batches it is given, and where a NaN came from."""

import itertools
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.data.loader import Split, epoch_order, prefetch, read_batch, train_batches, train_rows
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.metrics import macro_auc_present, mean_accuracy
from imlenet_jax.evaluation.report import sigmoid
from imlenet_jax.models import create_model, init_variables
from imlenet_jax.training.optimizers import courses, make_optimizer
from imlenet_jax.training.outcomes import GROUP, Outcomes
from imlenet_jax.training.parallel import Devices, is_first_process
from imlenet_jax.training.progress import compiling
from imlenet_jax.training.recipe import DTYPES, Recipe
from imlenet_jax.training.resume import Start
from imlenet_jax.training.step import Outcome, TrainState, Unfinished, new_state, several_steps, train_step
from imlenet_jax.training.stopping import NotFinite, Stopped, Watch

Row = dict[str, float]


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
        return state, row, (len(logits) - (0 if unfinished is None else len(unfinished.logits))) / seconds

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


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    """Looked at where the arrays are: one answer comes to the host, not they."""
    return jnp.stack([jnp.isfinite(array).all() for array in jax.tree.leaves(tree)]).all()


def _origin(error: FloatingPointError) -> str:
    """The operation that made the first NaN, and where in the networks or the step it is."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "imlenet_jax" in frame.filename]
    where = f" ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else ""
    return f"{str(error).splitlines()[0]}{where}"
