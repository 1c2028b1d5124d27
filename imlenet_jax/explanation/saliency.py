"""What a class's logit owes to each sample: gradient x input and integrated gradients, for any of the networks.

Both measure from a baseline: a flat line at each lead's own median, the record as if nothing had happened in it. Both
are signed: positive where a sample's departure from the baseline speaks for the class, negative where it speaks
against it. A network is given as its logits, `classifier.logits`: a `jax.tree_util.Partial` of ECGs in mV.

Memory is that of one batch, forward and back, whatever the number of records and steps; beside it stand the maps,
48 KB per record at 100 Hz.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from numpy.typing import NDArray

Signals = NDArray[np.float32]


def baseline(signals: NDArray) -> Signals:
    """The flat line each record is measured from: each lead's median, `(n, 1, leads)` of `(n, length, leads)`."""
    return np.median(signals, axis=1, keepdims=True).astype(np.float32)


def gradient_times_input(
    logits: Partial, signals: NDArray, target: int | NDArray | None = None, batchsize: int = 32
) -> Signals:
    """The gradient of the explained logit times the departure from the baseline: `(n, leads, length)` float32, in logits.

    Source: Shrikumar et al. 2016, arXiv 1605.01713. Exact for a linear network.

    Args:
        logits: a network, as `Classifier.logits`.
        signals: `(n, length, leads)` in mV.
        target: the class to explain, one for all or `(n,)`; the most probable of each record where left out.
        batchsize: records per call of the compiled gradient.

    Raises ValueError for a class that does not exist.
    """
    return _attribute(logits, signals, target, (1.0,), batchsize)


def integrated_gradients(
    logits: Partial, signals: NDArray, target: int | NDArray | None = None, steps: int = 32, batchsize: int = 32
) -> Signals:
    """As `gradient_times_input`, with the gradient's mean along the straight line from the baseline to the record.

    The map's sum is the logit of the record less that of the baseline (completeness), as nearly as `steps` midpoints
    give the mean. Source: Sundararajan et al. 2017, arXiv 1703.01365.
    """
    return _attribute(logits, signals, target, [(step + 0.5) / steps for step in range(steps)], batchsize)


def class_logits(logits: Partial, signals: NDArray, batchsize: int = 32) -> Signals:
    """Logits `(n, classes)` of signals `(n, length, leads)` in mV."""
    return np.concatenate([np.asarray(_forward(logits, x))[:n] for n, x in batches(batchsize, signals)])


def explained_class(
    logits: Partial, signals: NDArray, target: int | NDArray | None = None, batchsize: int = 32
) -> NDArray[np.int32]:
    """The class to explain, `(n,)`: `target`, or the most probable of each record. ValueError if it does not exist."""
    if target is None:
        return class_logits(logits, signals, batchsize).argmax(axis=1).astype(np.int32)
    classes = _forward.eval_shape(logits, jax.ShapeDtypeStruct((1, *signals.shape[1:]), np.float32)).shape[1]
    chosen = np.broadcast_to(np.asarray(target, np.int32), len(signals))
    if chosen.size and not 0 <= chosen.min() <= chosen.max() < classes:
        raise ValueError(f"the classes to explain are numbered 0 to {classes - 1}, not {target}")
    return chosen


def batches(batchsize: int, *arrays: NDArray) -> Iterator[tuple]:
    """Slices of equally long arrays, each of one size: the number that counts, then the slices.

    The last is filled up with its last record, so that a compiled function meets one shape; but a short input is not
    filled up beyond its own size.
    """
    total = len(arrays[0])
    size = min(batchsize, total)
    for start in range(0, total, size):
        rows = np.minimum(np.arange(start, start + size), total - 1)
        yield min(size, total - start), *(array[rows] for array in arrays)


def _attribute(
    logits: Partial, signals: NDArray, target: int | NDArray | None, shares: Sequence[float], batchsize: int
) -> Signals:
    """The mean gradient at `shares` of the way from the baseline, times the departure from it."""
    signals = np.asarray(signals, np.float32)
    targets = explained_class(logits, signals, target, batchsize)
    maps = np.empty((len(signals), signals.shape[2], signals.shape[1]), np.float32)
    done = 0
    for count, x, classes in batches(batchsize, signals, targets):
        flat = baseline(x)
        start, departure, number = jax.device_put((flat, x - flat, classes))
        # A loop here and not inside the compiled function: XLA:CPU is slow at gradients of convolutions in a loop.
        gradient = sum(_gradient(logits, start, departure, np.float32(share), number) for share in shares)
        product = (x - flat) * np.asarray(gradient) / len(shares)
        maps[done : done + count] = product[:count].swapaxes(1, 2)
        done += count
    return maps


@jax.jit
def _forward(logits: Partial, signals: jax.Array) -> jax.Array:
    return jnp.asarray(logits(signals))


@jax.jit
def _gradient(logits: Partial, flat: jax.Array, departure: jax.Array, share: jax.Array, target: jax.Array) -> jax.Array:
    def explained(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(logits(x), target[:, None], axis=1).sum()  # records do not touch each other

    return jax.grad(explained)(flat + share * departure)
