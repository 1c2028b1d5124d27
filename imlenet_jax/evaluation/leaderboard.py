"""A leaderboard: what the networks of a task reach, how sure that is, and what they cost.

Every trained network is scored by itself, on resamples that are the same for all (`bootstrap` draws alike for as many
records), so that those of any two may be subtracted: the paired bootstrap of `comparison`, whichever network is the best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imlenet_jax.evaluation import metrics
from imlenet_jax.evaluation.bootstrap import bootstrap, percentile_interval
from imlenet_jax.evaluation.comparison import Predictions, check_same_records, two_sided_p
from imlenet_jax.evaluation.published import Figure, published
from imlenet_jax.evaluation.report import LEVEL, RARE, sigmoid
from imlenet_jax.evaluation.seeds import over_seeds

Array = NDArray[np.float64]

AUC, PRESENT = "macro_auc", "macro_auc_present"


@dataclass(frozen=True, eq=False)
class Score:
    """How one trained network does on the test records.

    Attributes:
        predictions: what it said.
        values: per metric (as `report.evaluate` names them) its value on all records.
        samples: per metric its values in all resamples, (resamples,); NaN where it does not exist.
    """

    predictions: Predictions
    values: dict[str, float]
    samples: dict[str, Array]


@dataclass(frozen=True)
class Cost:
    """What one training took.

    Attributes:
        epochs: that were trained.
        records_per_second: the median over its epochs.
        seconds: of all epochs at that rate, without compiling, validating and saving.
        peak_memory_bytes: on the accelerator, or of the process where there is none.
    """

    epochs: int
    records_per_second: float
    seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True, eq=False)
class Contestant:
    """A network of a leaderboard: its label, what it is, how many seeds are wanted, and the runs there are."""

    label: str
    model: str
    parameters: int
    wanted: int
    runs: Sequence[tuple[Score, Cost]] = ()


def score(predictions: Predictions, resamples: int = 2000, seed: int = 0) -> Score:
    """Score a network: on all records, and on resamples that depend on the number of records and `seed` alone."""
    labels, p = predictions.labels, predictions.probabilities

    def statistics(weights: Array | None) -> dict[str, Array]:
        auc = metrics.class_auc(labels, p, weights)
        found = {AUC: auc.mean(axis=-1), PRESENT: metrics.mean_present(auc)}
        # A logit reaches a threshold where its probability reaches the threshold's.
        for ending, reach in (("", lambda threshold: threshold), ("_of_logits", sigmoid)):
            found[f"mean_accuracy_at_0.5{ending}"] = metrics.mean_accuracy(labels, p, float(reach(0.5)), weights)
            found[f"max_f1_10_thresholds{ending}"] = metrics.max_f1(labels, p, reach(metrics.GRID_10), weights)[0]
        return found

    values = {name: float(value) for name, value in statistics(None).items()}
    return Score(predictions, values, bootstrap(statistics, len(labels), resamples, seed))


def ranking(
    task: str, contestants: Sequence[Contestant], settings: Mapping[str, int], with_published: bool = False
) -> dict[str, Any]:
    """The leaderboard of a task, in JSON types: the best by mean macro AUC first, those without a run last.

    ``{task, records, classes, auc, bootstrap, rows}``. ``auc`` names the metric: where some class is missing in more
    than 1 % of the resamples it is the mean over the classes present, as in `evaluate`. A row has the network, its
    ``seeds`` so far of those ``wanted``, and None for what is not known yet:

    - ``auc``: ``{value, low, high}``, the mean over seeds and its interval over records;
    - ``of_seeds``, ``over_seeds``: the value of each seed, and ``{mean, low, high, std, n}`` of two or more;
    - ``difference``: ``{value, low, high, p}`` from the best, of the same records; None for the best itself;
    - ``epochs``, ``records_per_second``, ``seconds``, ``peak_memory_bytes``: means over seeds, of memory the greatest;
    - ``published``: per figure ``{metric, published, source, value, low, high, verdict}``.

    Args:
        task: its name.
        contestants: whose scores are all of ``settings``.
        settings: ``resamples`` and ``seed`` of the bootstrap.
        with_published: add ``published``.

    Raises:
        UserError: the predictions are not of the same records, labels and classes.
    """
    scores = [score for contestant in contestants for score, _ in contestant.runs]
    report: dict[str, Any] = {"task": task, "records": 0, "classes": [], "auc": AUC}
    if scores:
        first = scores[0].predictions
        check_same_records([each.predictions for each in scores])
        held = first.labels.sum(axis=0)
        report["records"] = len(first.ecg_id)
        report["classes"] = [c for c, n in zip(first.classes, held, strict=True) if 0 < n < len(first.ecg_id)]
        report["auc"] = PRESENT if np.isnan(scores[0].samples[AUC]).mean() > RARE else AUC
    report["bootstrap"] = {**settings, "level": LEVEL}
    name = report["auc"]
    ordered = sorted(contestants, key=lambda each: -np.nan_to_num(_mean(each, name)[0]) if each.runs else 1.0)
    best = ordered[0] if ordered[0].runs else None
    report["rows"] = [_row(each, best, name, task, with_published) for each in ordered]
    return report


def _row(contestant: Contestant, best: Contestant | None, name: str, task: str, with_published: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "network": contestant.label,
        "model": contestant.model,
        "parameters": contestant.parameters,
        "seeds": len(contestant.runs),
        "wanted": contestant.wanted,
        **dict.fromkeys(("auc", "of_seeds", "over_seeds", "difference")),
        **dict.fromkeys(("epochs", "records_per_second", "seconds", "peak_memory_bytes")),
    }
    if not contestant.runs or best is None:
        return row
    value, samples = _mean(contestant, name)
    costs = [cost for _, cost in contestant.runs]
    of_seeds = [score.values[name] for score, _ in contestant.runs if np.isfinite(score.values[name])]
    row |= {"auc": _entry(value, samples), "of_seeds": of_seeds}
    if len(of_seeds) > 1:
        row["over_seeds"] = over_seeds([{name: {"value": each}} for each in of_seeds])[name]
    if contestant is not best:
        best_value, best_samples = _mean(best, name)
        gaps = samples - best_samples
        row["difference"] = _entry(value - best_value, gaps) | {"p": two_sided_p(gaps)}
    for key in ("epochs", "records_per_second", "seconds"):
        row[key] = float(np.mean([getattr(cost, key) for cost in costs]))
    row["peak_memory_bytes"] = max(cost.peak_memory_bytes for cost in costs)
    if with_published:
        row["published"] = [_beside(figure, contestant) for figure in published(contestant.model, task)]
    return row


def _mean(contestant: Contestant, name: str) -> tuple[float, Array]:
    """The mean over seeds of a metric: on all records, and in every resample (resamples,)."""
    scores = [score for score, _ in contestant.runs]
    value = float(np.mean([each.values[name] for each in scores]))
    return value, np.mean([each.samples[name] for each in scores], axis=0)


def _entry(value: float, samples: Array) -> dict[str, float | None]:
    interval = percentile_interval(samples, LEVEL)
    numbers = {"value": value, "low": float(interval.low), "high": float(interval.high)}
    return {key: number if np.isfinite(number) else None for key, number in numbers.items()}


def _beside(figure: Figure, contestant: Contestant) -> dict[str, Any]:
    """A published figure, ours, and where it lies by our interval."""
    ours = _entry(*_mean(contestant, figure.metric))
    low, high, verdict = ours["low"], ours["high"], None
    if low is not None and high is not None:
        verdict = "above it" if figure.value > high else "below it" if figure.value < low else "in our interval"
    return {"metric": figure.metric, "published": figure.value, "source": figure.source, **ours, "verdict": verdict}
