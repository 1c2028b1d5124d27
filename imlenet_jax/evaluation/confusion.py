"""Which classes are taken for which: counts of right and wrong decisions, and the rates that follow."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from imlenet_jax.evaluation.bootstrap import bootstrap, percentile_interval
from imlenet_jax.evaluation.metrics import rates
from imlenet_jax.evaluation.report import LEVEL, metric_entry

COUNTS = ("true_positive", "false_positive", "false_negative", "true_negative")
RATES = ("sensitivity", "specificity", "precision")


def confusion(
    labels: ArrayLike,
    predicted: ArrayLike,
    classes: Sequence[str],
    thresholds: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Per class the counts of `COUNTS`, and sensitivity, specificity and precision with their bootstrap intervals.

    ``labels`` and ``predicted`` (n, C), boolean or 0/1. ``thresholds`` (C,) are those that led to ``predicted``; a
    class whose threshold is None or NaN has no decisions and is left out.
    """
    truth, chosen = np.asarray(labels).astype(bool), np.asarray(predicted).astype(bool)
    values = rates(truth, chosen)
    samples = bootstrap(lambda weights: rates(truth, chosen, weights), len(truth), resamples, seed)
    intervals = {name: percentile_interval(sample, LEVEL) for name, sample in samples.items()}
    counts = [(truth & chosen), (~truth & chosen), (truth & ~chosen), (~truth & ~chosen)]
    limits = None if thresholds is None else np.asarray(thresholds, np.float64)
    found: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(classes):
        if limits is not None and np.isnan(limits[place]):
            continue
        found[name] = {} if limits is None else {"threshold": float(limits[place])}
        found[name] |= {key: int(count[:, place].sum()) for key, count in zip(COUNTS, counts, strict=True)}
        found[name] |= {
            rate: metric_entry(value[place], intervals[rate], (place,), len(truth)) for rate, value in values.items()
        }
    return found


def matrix(labels: ArrayLike, predicted: ArrayLike, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Records by class (outer) and by predicted class (inner), for classes of which a record has exactly one."""
    table = np.asarray(labels).astype(int).T @ np.asarray(predicted).astype(int)
    return {name: dict(zip(classes, row.tolist(), strict=True)) for name, row in zip(classes, table, strict=True)}


def format_confusion(found: Mapping[str, Mapping[str, Any]], title: str) -> str:
    """`confusion` as plain text."""
    width = max(map(len, found), default=0)
    rates_of = "  ".join(rate.ljust(20) for rate in RATES).rstrip()
    lines = [title, f"{'class'.ljust(width)}  threshold    TP    FP    FN    TN  {rates_of}"]
    for name, entry in found.items():
        limit = f"{entry['threshold']:.4f}" if "threshold" in entry else "-"
        counts = "".join(f"{entry[key]:6d}" for key in COUNTS)
        shown = "  ".join(_rate(entry[rate]) for rate in RATES)
        lines.append(f"{name.ljust(width)}  {limit:>9}{counts}  {shown}".rstrip())
    return "\n".join(lines)


def _rate(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return "undefined".ljust(20)
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"
