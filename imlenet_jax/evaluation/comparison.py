"""Is one network better than another? Paired bootstrap of their predictions on the same records.

Every resample scores all networks on the same drawn records, so that how hard those records are cancels in the
difference (Efron & Tibshirani 1993, chapter 16). It speaks of the records drawn, not of another training.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imlenet_jax.errors import UserError
from imlenet_jax.evaluation import metrics
from imlenet_jax.evaluation.bootstrap import bootstrap, percentile_interval
from imlenet_jax.evaluation.report import LEVEL
from imlenet_jax.evaluation.text import aligned, as_number, as_range
from imlenet_jax.files import read_limited

Array = NDArray[np.float64]

MAX_BYTES = 2**26  # of a file of predictions: ten times what all of PTB-XL has

METRICS = ("macro_auc", "mean_accuracy_at_0.5", "max_f1_10_thresholds", "max_f1_101_thresholds", "mean_brier")
"""Those compared; all but the Brier score are better when higher."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network said of some records.

    Attributes:
        name: of the network, for tables.
        ecg_id: (n,) int64, rising.
        labels: (n, C) bool.
        probabilities: (n, C) float64, 0 to 1.
        classes: the C names.
    """

    name: str
    ecg_id: NDArray[np.int64]
    labels: NDArray[np.bool_]
    probabilities: Array
    classes: tuple[str, ...]


def read_predictions(path: Path) -> Predictions:
    """Read a file that `predictions_frame` has written.

    Raises:
        UserError: there is no such file, or it is not such a file.
    """
    path = Path(path)
    name = path.name.removesuffix(".csv").removesuffix("_predictions")
    try:
        return _parse(read_limited(path, MAX_BYTES), name)
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(
            f"there is no file {path}: make it with python -m experiments.test, or correct its name"
        ) from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a file of predictions ({error}): make it anew with experiments.test") from None


def _parse(data: bytes, name: str) -> Predictions:
    header, *rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)) or [[]]
    if header[-1:] == ["record"]:  # the names of own recordings
        header, rows = header[:-1], [row[:-1] for row in rows]
    classes = tuple(column.removeprefix("label_") for column in header if column.startswith("label_"))
    if not classes or header != ["ecg_id", *(f"label_{c}" for c in classes), *(f"prob_{c}" for c in classes)]:
        raise ValueError("its columns are not ecg_id, label_<class>..., prob_<class>...")
    if not rows:
        raise ValueError("it has no records")
    values = np.array([_numbers(row, len(header), f"data row {place}") for place, row in enumerate(rows, start=1)])
    ids, labels, probabilities = np.split(values, [1, 1 + len(classes)], axis=1)
    if (ids != np.round(ids)).any() or (np.abs(ids) > 2**53).any():
        raise ValueError("an ecg_id is not a whole number")
    if len(np.unique(ids)) < len(ids):
        raise ValueError("it has an ecg_id more than once")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("a label is neither 0 nor 1")
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise ValueError("a probability is not from 0 to 1")
    order = np.argsort(ids[:, 0])
    return Predictions(name, ids[order, 0].astype(np.int64), labels[order] == 1, probabilities[order], classes)


def _numbers(cells: list[str], count: int, where: str) -> list[float]:
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{where} is not {count} numbers")
    return numbers


def check_same_records(predictions: Sequence[Predictions]) -> None:
    """Refuse predictions of different classes, records or labels.

    Raises:
        UserError: names the first two that differ, and in what.
    """
    first = predictions[0]
    for other in predictions[1:]:
        pair = f"{first.name} and {other.name} cannot be compared: "
        if other.classes != first.classes:
            raise UserError(f"{pair}their classes are {', '.join(first.classes)} and {', '.join(other.classes)}")
        apart = np.setxor1d(first.ecg_id, other.ecg_id)
        if apart.size:
            raise UserError(
                f"{pair}{apart.size} records are in one file only, the first is ecg_id {apart[0]}; "
                "test both on the same folds"
            )
        differ = np.flatnonzero((first.labels != other.labels).any(axis=1))
        if differ.size:
            raise UserError(
                f"{pair}{differ.size} records have other labels, the first is ecg_id {first.ecg_id[differ[0]]}; "
                "test both with the same flags"
            )


def distinct_names(predictions: Sequence[Predictions]) -> list[Predictions]:
    """The same with a number after each name that several have."""
    names = [p.name for p in predictions]
    numbered = [n if names.count(n) == 1 else f"{n} ({names[: i + 1].count(n)})" for i, n in enumerate(names)]
    return [replace(p, name=name) for p, name in zip(predictions, numbered, strict=True)]


def compare(predictions: Sequence[Predictions], resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Every network against the first, in JSON types.

    ``{n, classes, bootstrap, values, differences}``; ``values`` holds per metric and network ``{value, low, high}``,
    ``differences`` per metric and every network but the first ``{value, low, high, p}``: its value less the first's,
    a 95 % percentile interval, and the two-sided bootstrap p of no difference, at least 2 / (resamples + 1). Resamples
    without a metric are left out; None where there is no number.

    Raises:
        UserError: the predictions are not of the same records, labels and classes, or there are fewer than two.
    """
    if len(predictions) < 2:
        raise UserError("a comparison needs the predictions of two networks at least: name another file")
    check_same_records(predictions)
    predictions = distinct_names(predictions)
    first = predictions[0]
    metrics.warn_undefined_auc(first.labels, first.classes)

    def statistics(weights: Array | None) -> dict[str, Array]:
        found = [_metrics(p, weights) for p in predictions]
        return {name: np.stack([one[name] for one in found], axis=-1) for name in METRICS}

    whole = statistics(None)
    samples = bootstrap(statistics, len(first.ecg_id), resamples, seed)
    report: dict[str, Any] = {
        "n": len(first.ecg_id),
        "classes": list(first.classes),
        "baseline": first.name,
        "bootstrap": {"resamples": resamples, "seed": seed, "level": LEVEL},
        "values": {},
        "differences": {},
    }
    for name in METRICS:
        gaps = samples[name][:, 1:] - samples[name][:, :1]
        report["values"][name] = _entries(predictions, whole[name], samples[name])
        report["differences"][name] = _entries(predictions[1:], whole[name][1:] - whole[name][0], gaps)
        for p, gap in zip(predictions[1:], gaps.T, strict=True):
            report["differences"][name][p.name]["p"] = two_sided_p(gap)
    return report


def two_sided_p(differences: Array) -> float | None:
    """Twice the share of resampled differences on the rarer side of zero, at most 1; None if none exists."""
    known = differences[~np.isnan(differences)]
    if not known.size:
        return None
    rarer = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (rarer + 1) / (known.size + 1)))


def format_comparison(report: Mapping[str, Any]) -> str:
    """A result of `compare` as plain text."""
    header, rows = ("metric", "network", "value", "95 % interval", "difference", "95 % interval", "p"), []
    for name in METRICS:
        for network, entry in report["values"][name].items():
            gap = report["differences"][name].get(network)
            shown = (
                ["-", "-", "-"]
                if gap is None
                else [as_number(gap["value"], "+"), as_range(gap, "+"), as_number(gap["p"])]
            )
            rows.append([name, network, as_number(entry["value"]), as_range(entry), *shown])
    settings = report["bootstrap"]
    return "\n".join(
        [
            *aligned(header, rows, left=2),
            "",
            f"Differences: from {report['baseline']}, paired bootstrap of {report['n']} records, {settings['resamples']} "
            f"resamples, seed {settings['seed']}; p is two-sided and not corrected for several comparisons.",
            "They speak of other records, not of another training. mean_brier is better when lower.",
        ]
    )


def _metrics(p: Predictions, weights: Array | None) -> dict[str, Array]:
    squares = ((p.probabilities - p.labels) ** 2).mean(axis=1)
    counts = np.ones(len(squares)) if weights is None else weights
    return {
        "macro_auc": metrics.macro_auc(p.labels, p.probabilities, weights),
        "mean_accuracy_at_0.5": metrics.mean_accuracy(p.labels, p.probabilities, 0.5, weights),
        "max_f1_10_thresholds": metrics.max_f1(p.labels, p.probabilities, metrics.GRID_10, weights)[0],
        "max_f1_101_thresholds": metrics.max_f1(p.labels, p.probabilities, metrics.GRID_101, weights)[0],
        "mean_brier": counts @ squares / counts.sum(axis=-1),
    }


def _entries(predictions: Sequence[Predictions], values: Array, samples: Array) -> dict[str, dict[str, Any]]:
    interval = percentile_interval(samples, LEVEL)
    columns = zip(predictions, values, interval.low, interval.high, strict=True)
    return {p.name: {"value": _known(v), "low": _known(low), "high": _known(high)} for p, v, low, high in columns}


def _known(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
