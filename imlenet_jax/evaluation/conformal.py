"""Sets of classes with a guarantee: which classes cannot be ruled out for a record (split conformal prediction).

A class is ruled out where its probability lies below a threshold, chosen for each class by itself among the validation
records that have it (Vovk 2012, arXiv 1209.2673, label-conditional; Sadinle, Lei & Wasserman 2019, arXiv 1609.00451).
Of records to come that have the class, it is then not ruled out for at least the share `coverage`, whatever the network.

This holds where records to come could have been validation records as well: the same kind of patients and devices
(exchangeability). It holds on average over the validation records that one may have; `expected_range` says what a
given number of them leaves open.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.bootstrap import bootstrap, percentile_interval
from imlenet_jax.evaluation.metrics import possible, rates
from imlenet_jax.evaluation.report import LEVEL, metric_entry

Array = NDArray[np.float64]

ASSUMED = (
    "Holds for records of the same kind as the validation records (exchangeable), for each class by itself, on average "
    "over validation records."
)


def fewest(coverage: float) -> int:
    """How many records with a class it takes to guarantee `coverage`, 0 to 1: 9 for 0.9."""
    count = 1
    while _rank(count, coverage) < 1:
        count += 1
    return count


def rule_out_thresholds(labels: ArrayLike, probabilities: ArrayLike, coverage: float) -> Array:
    """The probability (C,) below which a class is ruled out; NaN for a class that too few of these records have.

    ``labels`` (n, C) 0/1 and ``probabilities`` (n, C) of records that the network was not trained on. The thresholds
    are float32 numbers, so that they part float32 probabilities as they part these.
    """
    truth, values = np.asarray(labels).astype(bool), np.asarray(probabilities, np.float32)
    limits = np.full(truth.shape[1], np.nan)
    for place, held in enumerate(truth.T):
        rank = _rank(int(held.sum()), coverage)
        if rank >= 1:
            limits[place] = np.partition(values[held, place], rank - 1)[rank - 1]
    return limits


def expected_range(count: int, coverage: float) -> tuple[float, float]:
    """Where the true coverage lies for 95 of 100 sets of ``count`` validation records with the class.

    It is Beta(n + 1 - k, k) where the k-th smallest of n distinct probabilities is the threshold (Vovk 2012).
    """
    rank = _rank(count, coverage)
    tail = (1 - LEVEL) / 2
    low, high = stats.beta.ppf([tail, 1 - tail], count + 1 - rank, rank)
    return float(low), float(high)


def evaluate_sets(
    calibration: tuple[ArrayLike, ArrayLike],
    test: tuple[ArrayLike, ArrayLike],
    classes: Sequence[str],
    coverage: float,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Choose thresholds on some records and measure their sets on others; each are labels (n, C) 0/1 and probabilities.

    ``classes`` of the result holds, per class with a threshold, the ``threshold``, how many records it was
    ``calibrated_on``, the coverage ``expected`` (`expected_range`), and measured, as ``{value, low, high, n, left_out}``
    of `evaluate`: ``coverage``, the share of the records with the class for which it is not ruled out, and
    ``ruled_out``, the share of the others for which it is. ``size`` is the mean number of classes in a set, ``empty``
    the share of sets with none, ``all_covered`` the share of records of which no class is ruled out; all three are of
    classes with a threshold. ``without`` names the others.

    Raises:
        UserError: too few records have the class, for every class.
    """
    limits = rule_out_thresholds(*calibration, coverage)
    known = np.flatnonzero(~np.isnan(limits)).tolist()
    if not known:
        raise UserError(
            f"--coverage {coverage:g} takes {fewest(coverage)} validation records with a class, and no class has so many: "
            "give it more with --val_folds, or ask for less"
        )
    positives = np.asarray(calibration[0]).astype(bool).sum(axis=0).tolist()
    truth, kept = np.asarray(test[0]).astype(bool)[:, known], possible(test[1], limits)[:, known]
    of_record = {"size": kept.sum(axis=1), "empty": ~kept.any(axis=1), "all_covered": ~(truth & ~kept).any(axis=1)}

    def statistics(weights: Array | None) -> dict[str, Array]:
        counts = np.ones(len(truth)) if weights is None else weights
        found = rates(truth, kept, weights)
        means = {name: counts @ values / counts.sum(axis=-1) for name, values in of_record.items()}
        return {"coverage": found["sensitivity"], "ruled_out": found["specificity"], **means}

    whole = statistics(None)
    samples = bootstrap(statistics, len(truth), resamples, seed)
    intervals = {name: percentile_interval(sample, LEVEL) for name, sample in samples.items()}

    def entry(name: str, at: tuple[int, ...] = ()) -> dict[str, Any]:
        return metric_entry(whole[name][at], intervals[name], at, len(truth))

    of_class = {
        classes[place]: {
            "threshold": float(limits[place]),
            "calibrated_on": positives[place],
            "expected": expected_range(positives[place], coverage),
            **{name: entry(name, (column,)) for name in ("coverage", "ruled_out")},
        }
        for column, place in enumerate(known)
    }
    return {
        "asked": coverage,
        "assumed": ASSUMED,
        **{name: entry(name) for name in of_record},
        "classes": of_class,
        "without": [name for name in classes if name not in of_class],
    }


def thresholds_of(found: Mapping[str, Any], classes: Sequence[str]) -> Array:
    """The thresholds (C,) in a result of `evaluate_sets`; NaN for a class without."""
    return np.array([found["classes"].get(name, {}).get("threshold", np.nan) for name in classes])


def sets_frame(
    ecg_id: ArrayLike,
    labels: ArrayLike,
    probabilities: ArrayLike,
    limits: ArrayLike,
    classes: Sequence[str],
    record: ArrayLike | None = None,
) -> pd.DataFrame:
    """A row per record: ``ecg_id``, its classes and those not ruled out, with ; between; ``record`` where given."""
    names = np.array(classes)
    columns = {"labels": np.asarray(labels).astype(bool), "set": possible(probabilities, limits)}
    texts: dict[str, Any] = {column: [";".join(names[row]) for row in table] for column, table in columns.items()}
    return pd.DataFrame({"ecg_id": np.asarray(ecg_id), **texts} | ({} if record is None else {"record": record}))


def format_sets(found: Mapping[str, Any]) -> str:
    """A result of `evaluate_sets` as plain text."""
    width = max(map(len, ["class", *found["classes"]]))
    lines = [
        f"classes that cannot be ruled out, at a coverage of {found['asked']:g} of each class",
        f"{'class'.ljust(width)}  calibrated on  ruled out below  coverage to expect  measured              "
        "ruled out where absent",
    ]
    for name, entry in found["classes"].items():
        low, high = entry["expected"]
        lines.append(
            f"{name.ljust(width)}  {entry['calibrated_on']:13d}  {entry['threshold']:15.4f}  "
            f"{f'{low:.3f} to {high:.3f}':>18}  {_range(entry['coverage'])}  {_range(entry['ruled_out'])}".rstrip()
        )
    lines.append(
        f"classes in a set: {_range(found['size'])}; empty sets: {_range(found['empty'])}; no class of the record "
        f"ruled out: {_range(found['all_covered'])}"
    )
    if found["without"]:
        lines.append(
            f"not judged, since under {fewest(found['asked'])} validation records have it: {', '.join(found['without'])}"
        )
    return "\n".join([*lines, found["assumed"]])


def _rank(count: int, coverage: float) -> int:
    """Which of the sorted probabilities of ``count`` records is the threshold, from 1; 0 where there are too few."""
    # In millionths: in floating point (1 - 0.9) * 10 is less than 1.
    return round((1 - coverage) * 1_000_000) * (count + 1) // 1_000_000


def _range(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return "undefined".ljust(20)
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"
