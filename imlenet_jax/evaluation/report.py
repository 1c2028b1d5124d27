"""From a network's logits to the published metrics: a dict for JSON, a table to read, a row per record."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from imlenet_jax.errors import UserError
from imlenet_jax.evaluation import metrics
from imlenet_jax.evaluation.bootstrap import Interval, bootstrap, percentile_interval
from imlenet_jax.evaluation.published import TORCH_MODELS, Figure, published
from imlenet_jax.evaluation.text import aligned, as_number, as_range

Array = NDArray[np.float64]

LEVEL = 0.95
"""Coverage of every interval."""

MANY = 12
"""With more classes than this, a table has a row per class, not per class and metric, and figures show the commonest."""

RARE = 0.01
"""Share of resamples without a macro AUC that is no reason to give another one beside it."""

_THRESHOLDED = ("max_f1_10_thresholds", "max_f1_101_thresholds", "max_f1_10_thresholds_of_logits")


def evaluate(
    labels: ArrayLike,
    logits: ArrayLike,
    classes: Sequence[str],
    thresholds: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
    exclusive: bool = False,
) -> dict[str, Any]:
    """Every metric with its bootstrap interval, as a dict that strict JSON can hold (None for what does not exist).

    ``labels`` (n, C) 0/1; ``logits`` (n, C), float; ``classes`` the C names in that order; ``thresholds`` (C,), one
    probability per class, chosen on fold 9 (`metrics.best_thresholds`), None or NaN for a class without one. A metric
    is of the probabilities, the float64 sigmoid of the logits, unless its name ends in ``_of_logits``; its name leads
    to its definition in `imlenet_jax.evaluation.metrics`.

    With ``exclusive`` classes a record has exactly one of them, the most probable one is predicted, and ``logits`` are
    log-odds (`Task.log_odds`).

    A metric is ``{value, low, high, n, left_out}``: its value on all ``n`` records, its 95 % interval, and the share of
    resamples in which it does not exist. Metrics named ``class_...`` hold one of these per class. A max F1 also has its
    ``threshold`` (each resample chooses its own), a class F1 the one it was given. Where the macro AUC does not exist, or not
    in more than 1 % of the resamples, ``macro_auc_present`` is the mean over those of the ``classes`` that have one. Beside the metrics stand ``n``,
    ``classes``, ``positives`` (records per class) and ``bootstrap`` (resamples, seed, level).

    Warns (`DataWarning`) of classes that no record, or every record, has. Raises `UserError` if there are no records or
    a logit is not finite, ValueError if shapes do not match.
    """
    truth, outputs = np.asarray(labels).astype(bool), np.asarray(logits, np.float64)
    limits = None if thresholds is None else np.asarray(thresholds, np.float64)
    _check(truth, outputs, limits, classes)
    metrics.warn_undefined_auc(truth, classes)

    statistics = statistics_of(truth, outputs, limits, exclusive)
    n = len(truth)
    values = statistics(None)
    samples = bootstrap(statistics, n, resamples, seed)
    report: dict[str, Any] = {
        "n": n,
        "classes": list(classes),
        "positives": dict(zip(classes, truth.sum(axis=0).tolist(), strict=True)),
        "bootstrap": {"resamples": resamples, "seed": seed, "level": LEVEL},
    }
    for name, value in values.items():
        if name.endswith("/threshold"):
            continue
        interval = percentile_interval(samples[name], LEVEL)
        entries = [metric_entry(value[at], interval, at, n) for at in np.ndindex(value.shape)]
        report[name] = dict(zip(classes, entries, strict=True)) if value.ndim else entries[0]
    if report["macro_auc"]["left_out"] > RARE:
        report["macro_auc_present"]["classes"] = int(np.isfinite(values["class_auc"]).sum())
    else:
        report.pop("macro_auc_present", None)
    for name in _THRESHOLDED:
        if name in report:
            report[name]["threshold"] = _number(values[f"{name}/threshold"])
    if limits is not None and not exclusive:
        for name, limit in zip(classes, limits, strict=True):
            report["class_f1_at_fold9_thresholds"][name]["threshold"] = _number(limit)
    return report


def format_table(report: Mapping[str, Any], model: str | None = None) -> str:
    """A report of `evaluate` as plain text: metric, value, 95 % interval, n, and the published figure of ``model``.

    The last column is left out without a model, as is right for other data than PTB-XL, or where nothing is published.
    """
    figures = published(model)
    theirs = {figure.metric: f"{figure.value:.4f}" for figure in figures}
    header, rows = ["metric", "value", "95 % interval", "n"] + ["published"] * bool(theirs), []
    many = len(report["classes"]) > MANY
    for name, entry in _entries(report, of_classes=not many):
        figure = [theirs.get(name, "-")] * bool(theirs)
        rows.append([name, as_number(entry["value"]), as_range(entry), str(entry["n"]), *figure])
    lines = aligned(header, rows)
    if many:
        lines += ["", *_class_table(report)]
    return "\n".join([*lines, "", *_footnotes(report, figures)])


def commonest(positives: Mapping[str, int], most: int = MANY) -> list[str]:
    """The classes that most records have, in the order given; of many only the first so many."""
    chosen = sorted(positives, key=lambda name: -positives[name])[:most]
    return [name for name in positives if name in chosen]


def predictions_frame(
    ecg_id: ArrayLike,
    labels: ArrayLike,
    probabilities: ArrayLike,
    classes: Sequence[str],
    record: ArrayLike | None = None,
) -> pd.DataFrame:
    """A row per record: ``ecg_id``, then ``label_<class>`` (0/1) and ``prob_<class>`` for each class, ``record`` where given.

    ``ecg_id`` (n,) int, ``labels`` (n, C) 0/1, ``probabilities`` (n, C) float, ``record`` (n,) the names of recordings.
    Raises ValueError if they do not match.
    """
    columns: dict[str, NDArray] = {"ecg_id": np.asarray(ecg_id)}
    for prefix, table in (("label", np.asarray(labels).astype(np.uint8)), ("prob", np.asarray(probabilities))):
        columns |= {f"{prefix}_{name}": column for name, column in zip(classes, table.T, strict=True)}
    return pd.DataFrame(columns | ({} if record is None else {"record": np.asarray(record)}))


def sigmoid(logits: ArrayLike) -> Array:
    """Probabilities of logits in float64, exact at both ends."""
    values = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1, small) / (1 + small)


def statistics_of(
    labels: NDArray[np.bool_], logits: Array, thresholds: Array | None = None, exclusive: bool = False
) -> Callable[[Array | None], dict[str, Array]]:
    """The metrics of `evaluate` of these records, as a function of the records' weights (..., n), for `bootstrap`."""
    return _exclusive_statistics(labels, logits) if exclusive else _statistics(labels, logits, thresholds)


def _statistics(
    labels: NDArray[np.bool_], logits: Array, thresholds: Array | None
) -> Callable[[Array | None], dict[str, Array]]:
    """The metrics of these records as a function of the records' weights (..., n)."""
    probabilities = sigmoid(logits)

    def statistics(weights: Array | None) -> dict[str, Array]:
        auc = metrics.class_auc(labels, probabilities, weights)
        accuracy = metrics.class_accuracy(labels, probabilities, 0.5, weights)
        f1_10, at_10 = metrics.max_f1(labels, probabilities, metrics.GRID_10, weights)
        f1_101, at_101 = metrics.max_f1(labels, probabilities, metrics.GRID_101, weights)
        f1_logits, at_logits = metrics.max_f1(labels, logits, metrics.GRID_10, weights)
        found = {
            "macro_auc": auc.mean(axis=-1),
            "macro_auc_present": metrics.mean_present(auc),
            "class_auc": auc,
            "mean_accuracy_at_0.5": accuracy.mean(axis=-1),
            "class_accuracy_at_0.5": accuracy,
            "max_f1_10_thresholds": f1_10,
            "max_f1_10_thresholds/threshold": at_10,
            "max_f1_101_thresholds": f1_101,
            "max_f1_101_thresholds/threshold": at_101,
            "mean_accuracy_at_0.5_of_logits": metrics.mean_accuracy(labels, logits, 0.5, weights),
            "max_f1_10_thresholds_of_logits": f1_logits,
            "max_f1_10_thresholds_of_logits/threshold": at_logits,
        }
        if thresholds is not None:
            class_f1 = metrics.class_f1_at(labels, probabilities, thresholds, weights)
            found["macro_f1_at_fold9_thresholds"] = class_f1.mean(axis=-1)
            found["class_f1_at_fold9_thresholds"] = class_f1
            found["sample_f1_at_fold9_thresholds"] = metrics.sample_f1_at(labels, probabilities, thresholds, weights)
        return found

    return statistics


def _exclusive_statistics(labels: NDArray[np.bool_], log_odds: Array) -> Callable[[Array | None], dict[str, Array]]:
    """Those of classes that exclude each other, where the most probable one is predicted."""
    predicted = metrics.most_probable(log_odds)
    halves = np.full(labels.shape[1], 0.5)

    def statistics(weights: Array | None) -> dict[str, Array]:
        auc = metrics.class_auc(labels, log_odds, weights)
        f1 = metrics.class_f1_at(labels, predicted, halves, weights)
        return {
            "macro_auc": auc.mean(axis=-1),
            "macro_auc_present": metrics.mean_present(auc),
            "class_auc": auc,
            "accuracy": metrics.accuracy(labels, predicted, weights),
            "macro_f1": f1.mean(axis=-1),
            "class_f1": f1,
        }

    return statistics


def _check(labels: NDArray[np.bool_], logits: Array, thresholds: Array | None, classes: Sequence[str]) -> None:
    width = len(classes)
    if labels.shape != logits.shape or labels.ndim != 2 or labels.shape[1] != width:
        raise ValueError(f"labels {labels.shape} and logits {logits.shape} must both be (records, {width} classes)")
    if thresholds is not None and thresholds.shape != (width,):
        raise ValueError(f"thresholds {thresholds.shape} must be one per class, ({width},)")
    if not len(labels):
        raise UserError("there are no records to evaluate")
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if bad.size:
        raise UserError(
            f"the network's output is not a finite number for {bad.size} of {len(logits)} records (the first is number "
            f"{bad[0]} of the split, counted from 0): check the checkpoint, training may have diverged"
        )


def metric_entry(value: Any, interval: Interval, at: tuple[int, ...], n: int) -> dict[str, float | int | None]:
    """``{value, low, high, n, left_out}`` of one metric, whose bounds lie at ``at`` in ``interval``."""
    return {
        "value": _number(value),
        "low": _number(interval.low[at]),
        "high": _number(interval.high[at]),
        "n": n,
        "left_out": _number(interval.left_out[at]),
    }


def _number(value: Any) -> float | None:
    """A float for strict JSON, which has no NaN."""
    number = float(value)
    return number if np.isfinite(number) else None


def _entries(report: Mapping[str, Any], of_classes: bool = True) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The metrics of a report in order, those of classes one by one with the class after the name."""
    for name, entry in report.items():
        if name.startswith("class_"):
            yield from ((f"{name} {label}", inner) for label, inner in entry.items() if of_classes)
        elif isinstance(entry, Mapping) and "value" in entry:
            classes = f" ({entry['classes']} of {len(report['classes'])} classes)" if "classes" in entry else ""
            yield name + classes, entry


def _class_table(report: Mapping[str, Any]) -> list[str]:
    """A line per class: its records, its AUC, and its F1 where there are thresholds."""
    columns = {"AUC": "class_auc", "F1 at fold 9's threshold": "class_f1_at_fold9_thresholds"}
    columns = {title: name for title, name in columns.items() if name in report}
    width = max(map(len, report["classes"]))
    lines = ["  ".join(["class".ljust(width), "records", *(title.ljust(25) for title in columns)]).rstrip()]
    for label, count in report["positives"].items():
        entries = (report[name][label] for name in columns.values())
        shown = (
            f"{as_number(entry['value'])} {as_range(entry)}" if entry["value"] is not None else "-" for entry in entries
        )
        lines.append("  ".join([label.ljust(width), f"{count:7d}", *(text.ljust(25) for text in shown)]).rstrip())
    return lines


def _footnotes(report: Mapping[str, Any], figures: Sequence[Figure]) -> list[str]:
    settings = report["bootstrap"]
    notes = [
        f"Interval: {settings['level']:.0%} percentile bootstrap, {settings['resamples']} resamples of records, "
        f"seed {settings['seed']}.",
    ]
    if "max_f1_10_thresholds" in report:
        notes.append("A max F1 chooses its threshold on the records that it scores.")
    if any(entry["left_out"] for _, entry in _entries(report)):
        notes.append(
            "Resamples in which a metric does not exist are left out of its interval (share: left_out, in the JSON)."
        )
    notes += [f"Published: {source}; all of PTB-XL." for source in dict.fromkeys(figure.source for figure in figures)]
    if figures and figures[0].model in TORCH_MODELS:
        notes.append(
            f"The published accuracy and max F1 of {figures[0].model} were computed on logits, not probabilities: "
            "compare them with the rows of logits."
        )
    return notes
