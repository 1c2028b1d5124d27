"""Do maps of where a network looked say what its output depends on? Deletion, insertion, and re-drawn weights.

Maps are `(n, leads, length)`, as of `attention.py` and `saliency.py`. They are judged by parts: whole leads, or windows of
half a second. A part's score is the sum of the map over it; parts are taken in the order of their scores, the highest
first. A part that is taken away is replaced by the saliency's baseline, a flat line at the lead's median. The network was
never trained on such records, so that part of every fall is surprise: compare curves, do not read them alone.

Sources: Petsiuk et al. 2018, arXiv 1806.07421 (deletion, insertion); Adebayo et al. 2018, arXiv 1810.03292 (weights
re-drawn in a cascade).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from imlenet_jax.classifier import Classifier
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.bootstrap import bootstrap, percentile_interval
from imlenet_jax.explanation.attention import attention_maps
from imlenet_jax.explanation.saliency import baseline, batches, gradient_times_input, integrated_gradients
from imlenet_jax.models import init_variables

Array = NDArray[np.float64]

METHODS = ("attention", "gradient_x_input", "integrated_gradients", "amplitude")
"""What `explain` offers. `amplitude` is a control: the distance from the baseline, which knows nothing of the network."""

LEVELS = {
    "imle_net": {
        "head": ("head",),
        "channel": ("channel_attention",),
        "rhythm": ("rhythm_attention", "lstm"),
        "beat": ("beat_attention",),
    }
}
"""Modules from the output on, in the steps of the cascade; those not named come last, as "the rest"."""

FEWEST = 5
"""Records that an interval needs."""


class Curves(NamedTuple):
    """Probabilities of the explained class, `(n, steps + 1)` each, from no part changed to all of them.

    Attributes:
        deletion: parts of the record are taken away.
        insertion: parts of the record are put back on the flat baseline.
    """

    deletion: Array
    insertion: Array


def explain(
    method: str, classifier: Classifier, signals: NDArray, target: NDArray, steps: int = 32, batchsize: int = 32
) -> NDArray:
    """Maps `(n, leads, length)` of one of METHODS for ECGs `(n, length, leads)` in mV.

    `target` `(n,)` is the class that the gradients explain (attention knows none), `steps` those of integrated gradients.

    Raises:
        UserError: there is no such method, or the network has no attention.
    """
    if method == "attention":
        return attention_maps(classifier, signals, batchsize).combined
    if method == "gradient_x_input":
        return gradient_times_input(classifier.logits, signals, target, batchsize)
    if method == "integrated_gradients":
        return integrated_gradients(classifier.logits, signals, target, steps, batchsize)
    if method == "amplitude":
        return np.abs(signals - baseline(signals)).swapaxes(1, 2)
    raise UserError(f"there is no method '{method}': choose from {', '.join(METHODS)}")


def part_scores(maps: NDArray, windows: int) -> Array:
    """The sum of maps `(n, leads, length)` over each part: `(n, leads, windows)`; `windows` is 1 for whole leads."""
    n, leads, length = maps.shape
    if length % windows:
        raise ValueError(f"{length} samples do not divide into {windows} windows")
    return maps.reshape(n, leads, windows, -1).sum(axis=-1, dtype=np.float64)


def curves(
    logits: Partial, signals: NDArray, scores: Array, target: NDArray, steps: int, batchsize: int = 32
) -> Curves:
    """Deletion and insertion of the parts that `scores` `(n, leads, windows)` rank, in `steps` equal helpings.

    `signals` `(n, length, leads)` in mV; `target` `(n,)`, the class whose probability is followed. Equal scores are taken
    in the order of leads and windows.
    """
    n, leads, windows = scores.shape
    order = np.argsort(-scores.reshape(n, -1), axis=1, kind="stable")
    rank = np.argsort(order, axis=1).astype(np.int32).reshape(scores.shape)
    counts = np.rint(np.linspace(0, leads * windows, steps + 1)).astype(np.int32)
    parts: tuple[list, list] = ([], [])
    for size, x, ranks, classes in batches(batchsize, np.asarray(signals, np.float32), rank, target):
        x, flat, ranks, classes = jax.device_put((x, baseline(x), ranks, classes))
        for insert, part in enumerate(parts):
            values = [_probability(logits, x, flat, ranks, count, bool(insert), classes) for count in counts]
            part.append(np.stack(values, axis=1)[:size])
    return Curves(*(np.concatenate(part).astype(np.float64) for part in parts))


@jax.jit
def _probability(logits, signals, flat, rank, count, insert, target) -> jax.Array:
    """The target's probability, `(batch,)`, with the first `count` parts taken away, or with only these left."""
    kept = jnp.repeat((rank >= count) != insert, signals.shape[1] // rank.shape[2], axis=2)
    outputs = jax.nn.sigmoid(logits(jnp.where(jnp.swapaxes(kept, 1, 2), signals, flat)))
    return jnp.take_along_axis(outputs, target[:, None], axis=1)[:, 0]


def area(curve: ArrayLike) -> Array:
    """The area under curves `(..., steps + 1)` by trapezoids, over shares of the parts from 0 to 1."""
    values = np.asarray(curve, np.float64)
    return (values[..., 1:] + values[..., :-1]).mean(axis=-1) / 2


def compare(
    logits: Partial,
    signals: NDArray,
    ranked: Mapping[str, Sequence[Array]],
    target: NDArray,
    steps: int,
    batchsize: int = 32,
) -> dict[str, dict[str, Any]]:
    """Curves and areas of several rankings of the same parts, each beside the others.

    `ranked` holds the scores `(n, leads, windows)` of each method, several where it is random: their curves are averaged.
    Returns per method, for `deletion` and `insertion`: `curve`, the mean over records; `area`, its `mean_interval`; and
    `less`, for each other method the interval of the areas' paired difference.
    """
    found = {}
    for method, draws in ranked.items():
        each = [curves(logits, signals, scores, target, steps, batchsize) for scores in draws]
        found[method] = Curves(*(np.mean(kind, axis=0) for kind in zip(*each, strict=True)))
    areas = {method: Curves(*map(area, both)) for method, both in found.items()}
    return {
        method: {
            kind: {
                "curve": getattr(both, kind).mean(axis=0).tolist(),
                "area": mean_interval(getattr(areas[method], kind)),
                "less": {
                    other: mean_interval(getattr(areas[method], kind) - getattr(areas[other], kind))
                    for other in found
                    if other != method
                },
            }
            for kind in Curves._fields
        }
        for method, both in found.items()
    }


def cascade(classifier: Classifier, seed: int) -> Iterator[tuple[str, Classifier]]:
    """The network with its weights re-drawn from the output on, one level more each time, and the level's name.

    Weights and BatchNorm statistics of a re-drawn module are those of a network before training. Levels are LEVELS for
    imle_net; for the others fifths of the modules, from the last called to the first.
    """
    fresh = _drawn(classifier.network, jax.random.key(seed))
    drawn: set[str] = set()
    for name, level in _levels(classifier).items():
        drawn |= set(level)
        mixed = {
            kind: {module: (fresh if module in drawn else classifier.variables)[kind][module] for module in modules}
            for kind, modules in classifier.variables.items()
        }
        yield name, classifier.with_variables(mixed)


def _levels(classifier: Classifier) -> dict[str, tuple[str, ...]]:
    modules = _call_order(classifier)[::-1]
    named = LEVELS.get(classifier.meta.model)
    if named is None:
        parts = min(5, len(modules))
        return {f"{i}/{parts}": tuple(part) for i, part in enumerate(np.array_split(modules, parts), 1)}
    known = {module for level in named.values() for module in level}
    return named | {"the rest": tuple(module for module in modules if module not in known)}


_drawn = jax.jit(init_variables, static_argnums=0)


def _call_order(classifier: Classifier) -> list[str]:
    """The network's modules in the order it calls them (JAX itself sorts the names)."""
    config, names = classifier.network.config, []

    def note() -> None:
        x = jnp.zeros((1, config.length, config.leads))
        names.extend(classifier.network.init(jax.random.key(0), x)["params"])

    jax.eval_shape(note)
    return names


def rank_correlation(first: NDArray, second: NDArray) -> Array:
    """Spearman's correlation of the entries of two maps `(n, ...)` per record, `(n,)`; NaN where a map is constant."""
    a, b = (rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (first, second))
    a, b = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (a, b))
    norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=1) / norms


def mean_interval(values: ArrayLike, resamples: int = 1000, seed: int = 0) -> dict[str, float | int | None]:
    """The mean of `values` (n,) over records with its 95 % bootstrap interval: `value`, `low`, `high`, `n`.

    NaN is left out. Given differences of the same records, this is the paired bootstrap. There is no interval of fewer
    than FEWEST records, and no value of none (None).
    """
    kept = _numbers(values)
    return _entry(kept.mean() if len(kept) else None, len(kept), lambda: _means(kept, resamples, seed), len(kept))


def difference_interval(first: ArrayLike, second: ArrayLike, resamples: int = 1000) -> dict[str, float | int | None]:
    """The mean of `first` less that of `second`, other records, each resampled by itself; as `mean_interval`."""
    a, b = _numbers(first), _numbers(second)
    fewest = min(len(a), len(b))
    value = a.mean() - b.mean() if fewest else None
    return _entry(value, len(a) + len(b), lambda: _means(a, resamples, 0) - _means(b, resamples, 1), fewest)


def _numbers(values: ArrayLike) -> Array:
    numbers = np.asarray(values, np.float64)
    return numbers[~np.isnan(numbers)]


def _means(values: Array, resamples: int, seed: int) -> Array:
    return bootstrap(lambda counts: {"mean": counts @ values / len(values)}, len(values), resamples, seed)["mean"]


def _entry(value: float | None, n: int, samples: Callable[[], Array], fewest: int) -> dict[str, float | int | None]:
    if value is None or fewest < FEWEST:
        return {"value": None if value is None else float(value), "low": None, "high": None, "n": n}
    interval = percentile_interval(samples())
    return {"value": float(value), "low": float(interval.low), "high": float(interval.high), "n": n}
