"""Whether probabilities mean what they say: of records given 30 %, do 30 in 100 have the class?

Definitions: Guo et al. 2017 (arXiv 1706.04599) for the expected calibration error and the temperature, class by class
as the classes are told apart one by one; Brier 1950 for the score. Arguments are those of
`imlenet_jax.evaluation.metrics`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from imlenet_jax.data.tasks import Task
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.bootstrap import bootstrap, percentile_interval
from imlenet_jax.evaluation.report import LEVEL, metric_entry, sigmoid

Array = NDArray[np.float64]

BINS = 10
COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of a temperature: beyond them probabilities are 0, 1 or one half whatever the record."""


class Reliability(NamedTuple):
    """Records of each class by their probability, in `BINS` bins of equal width; all (C, bins).

    Attributes:
        records: how many.
        predicted: their mean probability, NaN in an empty bin.
        observed: the share of them that have the class, NaN in an empty bin.
    """

    records: Array
    predicted: Array
    observed: Array

    @property
    def ece(self) -> Array:
        """Expected calibration error (C,): the mean over records of |predicted - observed| of their bin."""
        gaps = np.nan_to_num(np.abs(self.predicted - self.observed))
        return (gaps * self.records).sum(axis=1) / self.records.sum(axis=1)


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> Reliability:
    """Sort records (n, C) into bins of their probability, class by class."""
    truth, values = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    places = np.minimum((values * bins).astype(int), bins - 1)

    def summed(weights: Array) -> Array:
        columns = [np.bincount(places[:, c], weights[:, c], bins) for c in range(values.shape[1])]
        return np.array(columns)

    records = summed(np.ones_like(values))
    per_record = np.where(records > 0, 1 / np.maximum(records, 1), np.nan)
    return Reliability(records, summed(values) * per_record, summed(truth) * per_record)


def calibration(
    labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str], resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """How well probabilities are calibrated: ``mean`` over the classes, and each class by name.

    Each is ``ece``, a number (a resample's is larger by chance, so that a bootstrap interval would not cover it);
    ``brier``, the mean squared distance of probability and label; ``bias``, the mean probability less the share of
    records with the class. The last two have bootstrap intervals, as in `evaluate`.
    """
    truth, values = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    per_record = {"brier": (values - truth) ** 2, "bias": values - truth}

    def statistics(weights: Array) -> dict[str, Array]:
        means = {name: weights @ table / weights.sum(axis=-1, keepdims=True) for name, table in per_record.items()}
        return {name: np.concatenate([m.mean(axis=-1, keepdims=True), m], axis=-1) for name, m in means.items()}

    n = len(truth)
    whole = statistics(np.ones(n))
    intervals = {name: percentile_interval(s, LEVEL) for name, s in bootstrap(statistics, n, resamples, seed).items()}
    ece = reliability(truth, values).ece
    ece = np.append(ece.mean(), ece)
    return {
        group: {"ece": float(ece[place])}
        | {name: metric_entry(whole[name][place], intervals[name], (place,), n) for name in per_record}
        for place, group in enumerate(("mean", *classes))
    }


def fit_temperature(task: Task, labels: ArrayLike, logits: ArrayLike) -> float:
    """The number that logits (n, C) are to be divided by for the least cross-entropy on these records.

    One for all classes, so that it changes no AUC of classes that may occur together. Above 1 the network was too sure of itself.

    Raises:
        UserError: no temperature is the best, as where every record is told apart.
    """
    truth, values = np.asarray(labels).astype(bool), np.asarray(logits, np.float64)

    def cross_entropy(log_temperature: float) -> float:
        log_odds = task.log_odds(values / np.exp(log_temperature))
        own = log_odds[truth] if task.exclusive else np.where(truth, log_odds, -log_odds)
        return float(np.logaddexp(0, -own).mean())

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    found = float(minimize_scalar(cross_entropy, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)
    if min(found - bounds[0], bounds[1] - found) < 1e-3:
        raise UserError(
            f"--temperature True finds no best temperature from {COLDEST:g} to {HOTTEST:g} on the {len(truth)} "
            "validation records: give it more of them with --val_folds, or leave it out"
        )
    return float(np.exp(found))


def tempered(task: Task, logits: ArrayLike, temperature: float = 1.0) -> Array:
    """Probabilities (n, C) of logits divided by a temperature."""
    return sigmoid(task.log_odds(np.asarray(logits, np.float64) / temperature))


def format_calibration(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """One or more results of `calibration`, by name, as plain text."""
    width = max(map(len, found))
    of_class = max(len(group) for groups in found.values() for group in ("class", *groups))
    lines = [f"{'calibration'.ljust(width)}  {'class'.ljust(of_class)}  ECE     Brier score              bias"]
    for name, groups in found.items():
        for group, entry in groups.items():
            shown = f"{_range(entry['brier'])}  {_range(entry['bias'], '+')}"
            lines.append(f"{name.ljust(width)}  {group.ljust(of_class)}  {entry['ece']:.4f}  {shown}")
    return "\n".join(lines)


def _range(entry: Mapping[str, Any], sign: str = "") -> str:
    return f"{entry['value']:{sign}.4f} [{entry['low']:{sign}.4f}, {entry['high']:{sign}.4f}]"
