"""One step of training and of prediction, as pure functions of their arguments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental.layout import Layout, with_layout_constraint

from imlenet_jax.data.loader import Batch
from imlenet_jax.data.scaling import Scaler
from imlenet_jax.models import HEAD, windows
from imlenet_jax.models.platform import by_platform

CROP = 1  # apart from the dropout of the same step


class TrainState(NamedTuple):
    """Everything a training step changes. `step` counts the updates made."""

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState

    @property
    def variables(self) -> dict[str, Any]:
        """What a network is applied with: parameters and BatchNorm statistics."""
        return {"params": self.params, "batch_stats": self.batch_stats}


class Outcome(NamedTuple):
    """What a training step reports: the loss of the batch and its logits `(batch, classes)`, before the update."""

    loss: jax.Array
    logits: jax.Array


class Unfinished(NamedTuple):
    """What an epoch under way has come to, and its metrics are computed from, in the order of training, on the host.

    Attributes:
        losses: (steps,) float32.
        logits: (records, classes) float32, before the update of their step.
    """

    losses: np.ndarray
    logits: np.ndarray


def new_state(variables: dict[str, Any], optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step, from a network's variables."""
    params = variables["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, variables["batch_stats"], optimizer.init(params))


def standardise(batch: Batch, scaler: Scaler) -> jax.Array:
    """The digital signals `(batch, length, leads)` in mV, less the scaler's mean, over its standard deviation."""
    millivolts = (batch.signal.astype(batch.gain.dtype) - batch.baseline[:, None]) / batch.gain[:, None]
    return (millivolts - scaler.mean) / scaler.std


def record_losses(logits: jax.Array, label: jax.Array, exclusive: bool = False) -> jax.Array:
    """Cross-entropy per record, `(batch,)`, from logits: the mean of binary ones, or of a softmax for exclusive classes."""
    if exclusive:
        return optax.softmax_cross_entropy(logits, label)
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, label), axis=-1)


def loss_and_gradient(
    network: nn.Module,
    state: TrainState,
    x: jax.Array,
    label: jax.Array,
    key: jax.Array,
    exclusive: bool = False,
    frozen: bool = False,
):
    """`((loss, (logits, batch_stats)), gradient)` in training mode; `key` draws the dropout.

    Where all but the head is `frozen`, the network runs as in inference, and only the head has a gradient that is not 0.
    """

    def loss_fn(params):
        if frozen:
            params = {**jax.lax.stop_gradient(params), HEAD: params[HEAD]}
            logits, _ = network.apply({"params": params, "batch_stats": state.batch_stats}, x, train=False)
            return jnp.mean(record_losses(logits, label, exclusive)), (logits, state.batch_stats)
        variables = {"params": params, "batch_stats": state.batch_stats}
        (logits, _), changed = network.apply(variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": key})
        return jnp.mean(record_losses(logits, label, exclusive)), (logits, changed.get("batch_stats", {}))

    return jax.value_and_grad(loss_fn, has_aux=True)(state.params)


def update(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    x: jax.Array,
    label: jax.Array,
    key: jax.Array,
    axis_name: str | None = None,
    exclusive: bool = False,
    frozen: bool = False,
    backbone_rate: float = 1.0,
) -> tuple[TrainState, Outcome]:
    """One optimizer step on standardised signals `x` `(batch, length, leads)` and labels `(batch, classes)`.

    Under `jax.pmap`, `axis_name` is what the loss and its gradient are averaged over. Updates of all but the head are
    multiplied by `backbone_rate`, and there are none where that is `frozen`.
    """
    (loss, (logits, batch_stats)), gradient = loss_and_gradient(network, state, x, label, key, exclusive, frozen)
    if axis_name is not None:
        loss, gradient = jax.lax.pmean((loss, gradient), axis_name)
    gradient = jax.tree.map(_as_kernels_lie, gradient)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    rate = 0.0 if frozen else backbone_rate
    if rate != 1:
        updates = {**jax.tree.map(lambda value: rate * value, updates), HEAD: updates[HEAD]}
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, batch_stats, opt_state), Outcome(loss, logits)


def _as_kernels_lie(gradient: jax.Array) -> jax.Array:
    """On a GPU, a convolution's gradient is brought into the order of its kernel before the optimizer gets it.

    Left to XLA, the optimizer's own GPU kernel does that too, and then cannot work where the parameters lie: they and
    both moments are copied at every step.
    """

    def in_rows(gradient: jax.Array) -> jax.Array:
        rows = with_layout_constraint(gradient, Layout(tuple(range(gradient.ndim))))
        return jax.lax.optimization_barrier(rows)

    return gradient if gradient.ndim < 3 else by_platform(gradient, cuda=in_rows, default=lambda gradient: gradient)


def train_step(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Batch | jax.Array,
    records: Batch | None,
    scaler: Scaler,
    seed: jax.Array,
    axis_name: str | None = None,
    exclusive: bool = False,
    frozen: bool = False,
    backbone_rate: float = 1.0,
) -> tuple[TrainState, Outcome]:
    """One step on a batch as the loader makes it, or on the rows `batch` `(batch,)` int32 of `records` on the device.

    Records that are longer than the network's are cropped at random. That and dropout are drawn from (seed, step), so a
    run can be resumed.
    """
    batch = _gather(batch, records)
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    if axis_name is not None:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    length: int = network.config.length  # type: ignore[attr-defined]
    if batch.signal.shape[1] > length:
        batch = batch._replace(signal=windows.crop(batch.signal, length, jax.random.fold_in(key, CROP)))
    x = standardise(batch, scaler)
    return update(network, optimizer, state, x, batch.label, key, axis_name, exclusive, frozen, backbone_rate)


def _gather(batch: Batch | jax.Array, records: Batch | None) -> Batch:
    if isinstance(batch, Batch):
        return batch
    if records is None:
        raise ValueError("rows need the records that they are of")
    return Batch(*(array[batch] for array in records))


def several_steps(step: Callable[..., Any], state: TrainState, batches: Any, *rest: Any) -> tuple[TrainState, Outcome]:
    """`step` on each of `batches`, stacked along a first axis, in one program; so are the outcomes."""
    return jax.lax.scan(lambda state, batch: step(state, batch, *rest), state, batches)


def predict_step(
    network: nn.Module, variables: dict[str, Any], batch: Batch, scaler: Scaler, exclusive: bool = False
) -> jax.Array:
    """Logits `(batch, classes)` in inference mode; of records that are longer than the network's, over windows."""
    return windows.apply(network, variables, standardise(batch, scaler), exclusive)[0]
