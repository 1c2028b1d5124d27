"""The metrics of multi-label ECG classification, each defined once and for any weighting of the records.

Arguments common to all functions:

- ``labels`` (n, C), boolean or 0/1 of any dtype; ``scores`` (n, C), any real dtype, compared as float64, higher is
  more likely. Scores may be probabilities or logits: a threshold is compared with whatever is given.
- ``weights`` (..., n), how often each record counts; left out, each counts once. Leading axes, such as one of
  bootstrap resamples, come first in the result. A statistic that does not exist is NaN, and nothing here warns:
  `warn_undefined_auc` does, where it is wanted.

The definitions are those of IMLE-Net (Reddy et al., SMC 2021: ``utils/metrics.py`` of its repository) and of the
PTB-XL benchmark (Strodthoff et al., 2021, doi 10.1109/JBHI.2020.3022989).
"""

import math
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imlenet_jax.errors import DataWarning

Array = NDArray[np.float64]

GRID_10: Array = np.arange(0, 1.01, 1 / 9)
"""The 10 thresholds of IMLE-Net, 0 to 1."""

GRID_101: Array = np.arange(0, 1.01, 0.01)
"""The 101 thresholds of the PTB-XL benchmark, 0 to 1."""


def class_auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """ROC AUC of each class, (..., C): the Mann-Whitney statistic, where a tie counts one half.

    NaN for a class that no record or every record has, and for a class with a NaN score.
    """
    positive, values, counts = _prepared(labels, scores, weights)
    by_record = np.ascontiguousarray(counts.reshape(math.prod(counts.shape[:-1]), len(values)).T)
    columns = [_auc(positive[:, c], values[:, c], by_record) for c in range(values.shape[1])]
    return np.stack(columns, axis=-1).reshape(*counts.shape[:-1], values.shape[1])


def macro_auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Unweighted mean of the class AUCs, (...); NaN when any of them is undefined."""
    return class_auc(labels, scores, weights).mean(axis=-1)


def macro_auc_present(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Unweighted mean of the AUCs of those classes that some records have and some have not, (...).

    It equals `macro_auc` when that exists. It serves to select a model on a small validation fold, where one missing
    class should not stop the work; it is not comparable between folds that lack different classes. NaN when no class
    has an AUC, and when a score of a class that has one is NaN, so that a network that diverged is never selected.
    """
    positive, values, counts = _prepared(labels, scores, weights)
    held = counts @ positive
    defined = (held > 0) & (held < counts.sum(axis=-1, keepdims=True))
    total = np.where(defined, class_auc(positive, values, counts), 0).sum(axis=-1)
    return _ratio(total, defined.sum(axis=-1))


def mean_present(of_classes: Array) -> Array:
    """Mean over those classes (..., C) whose value exists, (...); NaN where none does."""
    exists = ~np.isnan(of_classes)
    return _ratio(np.where(exists, of_classes, 0).sum(axis=-1), exists.sum(axis=-1))


def class_accuracy(
    labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5, weights: ArrayLike | None = None
) -> Array:
    """Share of records where (score >= threshold) equals the label, for each class, (..., C)."""
    positive, values, counts = _prepared(labels, scores, weights)
    return _mean((values >= threshold) == positive, counts)


def mean_accuracy(
    labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5, weights: ArrayLike | None = None
) -> Array:
    """Mean of the class accuracies, (...). Predicting nothing at all scores about 0.74 on PTB-XL's fold 10."""
    return class_accuracy(labels, scores, threshold, weights).mean(axis=-1)


def sample_precision_recall(
    labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike, weights: ArrayLike | None = None
) -> tuple[Array, Array]:
    """Sample-centric precision and recall at T thresholds, each (..., T).

    Each record has a precision over the classes predicted for it (score >= threshold) and a recall over its own
    classes; both are averaged over records. A record without a prediction is left out of the average of precision, one
    without a class out of that of recall. NaN where no record is left.

    ``thresholds`` is (T,), one for all classes, or (T, C), one per class.
    """
    positive, values, counts = _prepared(labels, scores, weights)
    limits = np.asarray(thresholds, np.float64)
    limits = limits[:, None] if limits.ndim == 1 else limits
    predicted = values[:, None, :] >= limits
    hits = (predicted & positive[:, None, :]).sum(axis=-1)
    return _mean_ratio(hits, predicted.sum(axis=-1), counts), _mean_ratio(hits, positive.sum(axis=-1)[:, None], counts)


def max_f1(
    labels: ArrayLike, scores: ArrayLike, grid: ArrayLike = GRID_10, weights: ArrayLike | None = None
) -> tuple[Array, Array]:
    """The greatest sample-centric F1 over the thresholds of ``grid`` (T,), (...), and that threshold, (...).

    F1 is the harmonic mean of the two averages of `sample_precision_recall`. Of equal values the lowest threshold is
    given. The choice is made on the very records that are scored, as in the literature, so the value flatters. Both
    are NaN when nothing is predicted at any threshold.
    """
    limits = np.asarray(grid, np.float64)
    f1 = _harmonic_mean(*sample_precision_recall(labels, scores, limits, weights))
    best = np.where(np.isnan(f1), -1.0, f1).argmax(axis=-1)
    value = np.take_along_axis(f1, best[..., None], axis=-1)[..., 0]
    return value, np.where(np.isnan(value), np.nan, limits[best])


def sample_f1_at(
    labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike, weights: ArrayLike | None = None
) -> Array:
    """Sample-centric F1, as in `max_f1`, at one given threshold per class (C,): (...). NaN if a threshold is NaN."""
    limits = np.asarray(thresholds, np.float64)
    f1 = _harmonic_mean(*sample_precision_recall(labels, scores, limits[None], weights))[..., 0]
    return np.where(np.isnan(limits).any(), np.nan, f1)


def class_f1_at(labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """F1 of each class over the records, 2 TP / (2 TP + FP + FN), at one given threshold per class (C,): (..., C).

    NaN for a class that no record has, and where the threshold is NaN.
    """
    positive, values, counts = _prepared(labels, scores, weights)
    limits = np.asarray(thresholds, np.float64)
    predicted = values >= limits
    held = counts @ positive
    f1 = _ratio(2 * (counts @ (predicted & positive)), counts @ predicted + held)
    return np.where((held > 0) & ~np.isnan(limits), f1, np.nan)


def macro_f1_at(labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Unweighted mean of the class F1s of `class_f1_at`, (...); NaN when any of them is undefined."""
    return class_f1_at(labels, scores, thresholds, weights).mean(axis=-1)


def best_thresholds(labels: ArrayLike, scores: ArrayLike) -> Array:
    """The threshold of each class (C,) that maximises its own F1 (`class_f1_at`) on these records.

    Candidates are the scores that occur (predicted means score >= threshold), which reach every possible F1. Of equal
    F1 the highest threshold is taken. NaN for a class that no record has.
    """
    positive, values, _ = _prepared(labels, scores, None)
    return np.array([_best_threshold(positive[:, c], values[:, c]) for c in range(values.shape[1])], np.float64)


def youden_thresholds(labels: ArrayLike, scores: ArrayLike) -> Array:
    """The threshold of each class (C,) that maximises sensitivity + specificity - 1 (Youden 1950) on these records.

    Candidates and ties are those of `best_thresholds`. NaN for a class that no record or every record has.
    """
    positive, values, _ = _prepared(labels, scores, None)
    return np.array([_youden_threshold(positive[:, c], values[:, c]) for c in range(values.shape[1])], np.float64)


def most_probable(scores: ArrayLike) -> NDArray[np.bool_]:
    """The class of the highest score (n, C) of each record, as (n, C); of equals the first."""
    values = np.asarray(scores)
    return np.arange(values.shape[1]) == values.argmax(axis=1)[:, None]


def possible(probabilities: ArrayLike, limits: ArrayLike) -> NDArray[np.bool_]:
    """Which classes (..., C) are not ruled out (`conformal`), bool; False where a class has no threshold (NaN)."""
    return np.asarray(probabilities, np.float32) >= np.asarray(limits, np.float64)


def accuracy(labels: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Share of records whose predicted classes (n, C), boolean or 0/1, are exactly those of the labels, (...)."""
    positive, chosen, counts = _prepared(labels, predicted, weights)
    right = (positive == chosen.astype(bool)).all(axis=1)
    return _mean(right[:, None], counts)[..., 0]


def rates(labels: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None) -> dict[str, Array]:
    """`sensitivity`, `specificity` and `precision` of each class, (..., C), of predictions (n, C), boolean or 0/1.

    NaN where none of the records that the rate is of is there.
    """
    positive, chosen, counts = _prepared(labels, predicted, weights)
    yes = chosen.astype(bool)
    hits = counts @ (positive & yes)
    return {
        "sensitivity": _ratio(hits, counts @ positive),
        "specificity": _ratio(counts @ ~(positive | yes), counts @ ~positive),
        "precision": _ratio(hits, counts @ yes),
    }


def warn_undefined_auc(labels: ArrayLike, classes: Sequence[str]) -> None:
    """Issue one `DataWarning` naming the classes that no record, or every record, of ``labels`` (n, C) has."""
    truth = np.asarray(labels).astype(bool)
    held = dict(zip(classes, truth.sum(axis=0).tolist(), strict=True))
    absent = [name for name, count in held.items() if count == 0]
    constant = [name for name, count in held.items() if 0 < count == len(truth)]
    problems = [f"no record has class {', '.join(absent)}"] if absent else []
    problems += [f"every record has class {', '.join(constant)}"] if constant else []
    if problems:
        message = f"{' and '.join(problems)}: its AUC and the macro AUC do not exist (NaN, in JSON null)"
        warnings.warn(message, DataWarning, stacklevel=2)


def _prepared(
    labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None
) -> tuple[NDArray[np.bool_], Array, Array]:
    """Labels as bool (n, C), scores as float64 (n, C), weights as float64 (..., n)."""
    positive, values = np.asarray(labels).astype(bool), np.asarray(scores, np.float64)
    if positive.ndim != 2 or positive.shape != values.shape:
        raise ValueError(f"labels {positive.shape} and scores {values.shape} must both be (records, classes)")
    return positive, values, np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)


def _auc(positive: NDArray[np.bool_], scores: Array, counts: Array) -> Array:
    """AUC of one class, (r,), from labels (n,), scores (n,) and counts (n, r), in O(n) per resample.

    The records come first, so that rows are added and copied whole: three times as fast as the other way round.
    """
    if scores.size == 0 or np.isnan(scores).any():
        return np.full(counts.shape[1], np.nan)
    absent = np.flatnonzero(~positive)
    absent = absent[np.argsort(scores[absent])]
    passed = np.zeros((len(absent) + 1, counts.shape[1]))  # by one that scores above the k lowest
    np.cumsum(counts[absent], axis=0, out=passed[1:])
    positives = counts[positive]
    # Half of the negatives of the same score count as passed.
    places = [np.searchsorted(scores[absent], scores[positive], side) for side in ("left", "right")]
    won = (positives * (passed[places[0]] + passed[places[1]])).sum(axis=0) / 2
    return _ratio(won, positives.sum(axis=0) * passed[-1])


def _best_threshold(positive: NDArray[np.bool_], scores: Array) -> float:
    if not positive.any():
        return np.nan
    candidates, hits, chosen = _candidates(positive, scores)
    return float(candidates[(2 * hits / (chosen + positive.sum())).argmax()])


def _youden_threshold(positive: NDArray[np.bool_], scores: Array) -> float:
    held = positive.sum()
    if not 0 < held < len(positive):
        return np.nan
    candidates, hits, chosen = _candidates(positive, scores)
    # In whole numbers: equal indices must tie, and the first of them wins.
    return float(candidates[(hits * (len(positive) - held) - (chosen - hits) * held).argmax()])


def _candidates(positive: NDArray[np.bool_], scores: Array) -> tuple[Array, NDArray, NDArray]:
    """Each score that occurs, falling; how many records with the class reach it, and how many in all."""
    order = np.argsort(-scores)
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # a threshold takes all of a run of ties
    return ranked[ends], np.cumsum(positive[order])[ends], ends + 1


def _mean(values: NDArray[np.bool_], counts: Array) -> Array:
    """Weighted mean over records: values (n, K), counts (..., n) -> (..., K)."""
    return _ratio(counts @ values, counts.sum(axis=-1, keepdims=True))


def _mean_ratio(numerators: NDArray[np.int_], denominators: NDArray[np.int_], counts: Array) -> Array:
    """Weighted mean over records of the ratios (n, K) that exist: (..., K)."""
    return _ratio(counts @ (numerators / np.maximum(denominators, 1)), counts @ (denominators > 0))


def _harmonic_mean(precision: Array, recall: Array) -> Array:
    """F1, which is 0 when precision and recall both are and NaN when either is."""
    total = precision + recall
    return 2 * precision * recall / np.where(total == 0, 1, total)


def _ratio(numerator: Array, denominator: NDArray) -> Array:
    """numerator / denominator, NaN where the denominator is 0."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), np.nan)
