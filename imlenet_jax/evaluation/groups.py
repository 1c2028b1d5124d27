"""For whom does a network work? Every metric in groups of records, such as by sex, and its difference to the others.

A group and the others are different records, so they are resampled apart (Efron & Tibshirani 1993, chapter 8).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from tqdm.auto import tqdm

from imlenet_jax.evaluation.bootstrap import bootstrap, percentile_interval
from imlenet_jax.evaluation.metrics import most_probable, possible, rates
from imlenet_jax.evaluation.report import LEVEL, MANY, metric_entry, sigmoid, statistics_of

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

FEWEST = 20
"""Records that a group needs for any metric."""

FEWEST_OF_CLASS = 10
"""Records with a class, and without it, that a group needs for a metric of that class."""

HEADLINES = ("macro_auc", "macro_sensitivity", "macro_coverage")
"""The metrics printed, as far as there are; the files have all."""

SHOWN = 12  # clear differences that are printed


def evaluate_groups(
    labels: ArrayLike,
    logits: ArrayLike,
    classes: Sequence[str],
    columns: Mapping[str, Mapping[str, Mask]],
    thresholds: ArrayLike | None = None,
    exclusive: bool = False,
    limits: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """The metrics of every group of every column (`group_records`), in JSON types.

    Arguments are those of `evaluate`; ``limits`` (C,) are of sets (`conformal`). ``by`` of the result leads from column and
    group to ``n``, ``positives`` (records per class) and ``metrics``, None in a group of fewer than `FEWEST` records.

    A metric is ``{value, low, high, n, left_out, difference}``, those named ``class_...`` hold one per class, None where
    fewer than `FEWEST_OF_CLASS` of the group's records have the class, or lack it. ``difference`` is ``{value, low, high}``
    of the group's value less that of all other records, None where these are too few. ``macro_...`` is the mean over
    ``classes`` of the group: those that are frequent enough here and, if there is a difference, among the others.

    Beside the metrics of `evaluate` there are the rates of the decisions, ``brier`` and ``bias`` of `calibration`, and
    ``coverage``, the share of the records with a class for which it is not ruled out.
    """
    truth, outputs = np.asarray(labels).astype(bool), np.asarray(logits, np.float64)
    decisions = None if thresholds is None else np.asarray(thresholds, np.float64)
    bounds = None if limits is None else np.asarray(limits, np.float64)

    def part(rows: Mask, seed: int) -> _Part:
        statistics = _statistics(truth[rows], outputs[rows], decisions, exclusive, bounds)
        held = truth[rows].sum(axis=0)
        frequent = np.minimum(held, rows.sum() - held) >= FEWEST_OF_CLASS
        return _Part(
            int(rows.sum()), frequent, statistics(None), bootstrap(statistics, int(rows.sum()), resamples, seed)
        )

    def group(rows: Mask) -> dict[str, Any]:
        positives = dict(zip(classes, truth[rows].sum(axis=0).tolist(), strict=True))
        n = int(rows.sum())
        about = {"n": n, "positives": positives, "classes": [], "metrics": None}
        if n < FEWEST:
            return about
        own = part(rows, seed)
        others = part(~rows, seed + 1) if (~rows).sum() >= FEWEST else None
        compared = own.frequent if others is None else own.frequent & others.frequent
        names = [name for name, good in zip(classes, compared, strict=True) if good]
        return about | {"classes": names, "metrics": dict(_metrics(own, others, compared, classes))}

    count = sum(map(len, columns.values()))
    with tqdm(total=count, desc="groups", unit="group", disable=not progress) as bar:
        by: dict[str, dict[str, Any]] = {column: {} for column in columns}
        for column, groups in columns.items():
            for name, rows in groups.items():
                by[column][name] = group(rows)
                bar.update()
    return {
        "fewest": FEWEST,
        "fewest_of_class": FEWEST_OF_CLASS,
        "bootstrap": {"resamples": resamples, "seed": seed, "level": LEVEL},
        "by": by,
    }


class _Part(NamedTuple):
    """Some records: how many, which classes (C,) are frequent enough, their metrics and those of their resamples."""

    n: int
    frequent: Mask
    values: dict[str, Array]
    samples: dict[str, Array]


def _statistics(
    truth: Mask, outputs: Array, decisions: Array | None, exclusive: bool, bounds: Array | None
) -> Callable[[Array | None], dict[str, Array]]:
    """The metrics of these records as a function of the records' weights (..., n)."""
    probabilities = sigmoid(outputs)
    base = statistics_of(truth, outputs, decisions, exclusive)
    per_record = {"class_brier": (probabilities - truth) ** 2, "class_bias": probabilities - truth}
    chosen, judged = None, np.ones(truth.shape[1], bool)
    if exclusive:
        chosen = most_probable(outputs)
    elif decisions is not None:
        chosen, judged = probabilities >= decisions, ~np.isnan(decisions)

    def statistics(weights: Array | None) -> dict[str, Array]:
        counts = np.ones(len(truth)) if weights is None else weights
        found = {name: value for name, value in base(weights).items() if _is_kept(name)}
        if chosen is not None:
            of_decisions = rates(truth, chosen, weights)
            found |= {f"class_{name}": np.where(judged, value, np.nan) for name, value in of_decisions.items()}
        if bounds is not None:
            covered = rates(truth, possible(probabilities, bounds), weights)["sensitivity"]
            found["class_coverage"] = np.where(np.isnan(bounds), np.nan, covered)
        total = counts.sum(axis=-1, keepdims=True)
        return found | {name: counts @ table / total for name, table in per_record.items()}

    return statistics


def _is_kept(name: str) -> bool:
    """Not what compares with published figures, nor means over all classes: those of the frequent ones take their place."""
    return not (name.startswith(("macro_", "mean_")) or name.endswith(("_of_logits", "/threshold")))


def _metrics(own: _Part, others: _Part | None, compared: Mask, classes: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The entries of a group, with differences to the others; means over classes are of those ``compared``."""

    def entry(name: str, pick: Callable[[Array], Array], differs: bool = True) -> dict[str, Any]:
        value, samples = pick(own.values[name]), pick(own.samples[name])
        found: dict[str, Any] = metric_entry(value, percentile_interval(samples, LEVEL), (), own.n)
        gap = None
        if others is not None and differs:
            apart = percentile_interval(samples - pick(others.samples[name]), LEVEL)
            whole = metric_entry(value - pick(others.values[name]), apart, (), own.n + others.n)
            gap = {key: whole[key] for key in ("value", "low", "high")}
        return found | {"difference": gap}

    for name, values in own.values.items():
        if not values.ndim:
            yield name, entry(name, np.asarray)
            continue
        if compared.any():
            yield name.replace("class_", "macro_", 1), entry(name, lambda array: array[..., compared].mean(axis=-1))
        entries = (
            entry(name, partial(np.take, indices=place, axis=-1), bool(compared[place])) if frequent else None
            for place, frequent in enumerate(own.frequent)
        )
        yield name, dict(zip(classes, entries, strict=True))


def groups_frame(report: Mapping[str, Any]) -> pd.DataFrame:
    """A row per column, group, metric and class of a result of `evaluate_groups`; empty cells for what there is not.

    Columns: by, group, metric, class, records, with_class, value, low, high, difference, difference_low,
    difference_high. A group of too few records has one row, without a metric.
    """
    rows: list[list[Any]] = []
    for column, groups in report["by"].items():
        for name, group in groups.items():
            for metric, found in (group["metrics"] or {"": None}).items():
                of_class = found if metric.startswith("class_") else {"": found}
                for label, entry in of_class.items():
                    held = group["positives"].get(label)
                    rows.append([column, name, metric, label, group["n"], held, *_bounds(entry)])
    columns = ["by", "group", "metric", "class", "records", "with_class", "value", "low", "high"]
    columns += ["difference", "difference_low", "difference_high"]
    return pd.DataFrame(rows, columns=columns).astype({"with_class": "Int64"})


def _bounds(entry: Mapping[str, Any] | None) -> list[float | None]:
    """Value and interval, then those of the difference."""
    gap = entry["difference"] if entry else None
    return [part[key] if part else None for part in (entry, gap) for key in ("value", "low", "high")]


def format_groups(report: Mapping[str, Any]) -> str:
    """A result of `evaluate_groups` as plain text: headline metrics, records per class, and which differences are clear."""
    lines = []
    for column, groups in report["by"].items():
        lines += [*_table(column, groups), ""]
    frame = groups_frame(report).dropna(subset=["difference_low"])
    frame = frame[~frame["metric"].str.startswith("macro_")]  # they follow from those of classes
    clear = frame[(frame["difference_low"] > 0) | (frame["difference_high"] < 0)]
    lines.append(
        f"{len(clear)} of {len(frame)} differences to the others have an interval without zero; were there none, "
        f"about {(1 - LEVEL) * len(frame):.0f} would by chance"
    )
    largest = clear.reindex(clear["difference"].abs().sort_values(ascending=False).index)[:SHOWN]
    for row in largest.to_dict("records"):
        gap = f"{row['difference']:+.3f} [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
        lines.append(f"  {row['by']} {row['group']}: {row['metric']} {row['class']} {row['value']:.3f}, {gap}")
    if len(clear) > len(largest):
        lines.append(f"  and {len(clear) - len(largest)} smaller ones")
    lines.append(
        f"A metric takes {report['fewest']} records in a group, and one of a class {report['fewest_of_class']} with the class "
        "and as many without; a macro metric is the mean over the classes that have them here and among the others."
    )
    return "\n".join(lines)


def _table(column: str, groups: Mapping[str, Any]) -> Iterator[str]:
    """A line per group; those of too few records in one line."""
    large = {name: group for name, group in groups.items() if group["metrics"] is not None}
    few = [f"{name} ({group['n']})" for name, group in groups.items() if name not in large]
    metrics = [name for name in HEADLINES if any(name in group["metrics"] for group in large.values())]
    classes = next(iter(groups.values()))["positives"]
    classes = list(classes) if len(classes) <= MANY else []
    rows = [
        [
            f"by {column}",
            "records",
            *classes,
            "of classes",
            *(cell for name in metrics for cell in (name, "to the others")),
        ]
    ]
    for name, group in large.items():
        counts = [str(group["positives"][label]) for label in classes]
        cells = [text for metric in metrics for text in _cells(group["metrics"].get(metric))]
        rows.append([name, str(group["n"]), *counts, str(len(group["classes"])), *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
        yield "  ".join(cells).rstrip()
    if few:
        yield f"under {FEWEST} records, no metrics: {', '.join(few)}"


def _cells(entry: Mapping[str, Any] | None) -> tuple[str, str]:
    value, low, high, gap, gap_low, gap_high = _bounds(entry)
    return (
        "-" if value is None else f"{value:.3f} [{low:.3f}, {high:.3f}]",
        "-" if gap is None else f"{gap:+.3f} [{gap_low:+.3f}, {gap_high:+.3f}]",
    )
