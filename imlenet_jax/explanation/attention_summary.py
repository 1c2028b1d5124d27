"""The attention of many records: mean weights of leads and windows per class, and how sharp each record's map is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imlenet_jax.evaluation.bootstrap import bootstrap, percentile_interval
from imlenet_jax.explanation.attention import Attention

Array = NDArray[np.float64]

ALL = "all"


@dataclass(frozen=True, eq=False)
class Weights:
    """What is kept of the attention of n records.

    Attributes:
        leads: (n, leads), the channel level; sums to one.
        windows: (n, windows), the rhythm level of all leads weighted by the channel level; sums to one.
        entropy: (n,), of the combined map, in nats.
        effective: (n,), exp(entropy) as a share of all samples: 1 for an even map, 0.1 for one that is as
            concentrated as an even map over a tenth of the samples.
    """

    leads: Array
    windows: Array
    entropy: Array
    effective: Array


def weights_of(parts: Iterable[Attention]) -> Weights:
    """Reduce the maps of records, given in parts so that few are held at once."""
    leads, windows, entropies, size = [], [], [], 1
    for part in parts:
        leads.append(part.channel)
        windows.append(np.einsum("nl,nlw->nw", part.channel, part.rhythm))
        entropies.append(entropy(part.combined))
        size = part.combined[0].size
    entropy_nats = np.concatenate(entropies)
    return Weights(np.concatenate(leads), np.concatenate(windows), entropy_nats, np.exp(entropy_nats) / size)


def entropy(maps: NDArray) -> Array:
    """Shannon entropy in nats of maps `(n, ...)` that each sum to one: log of the number of samples for an even one."""
    flat = np.asarray(maps, np.float64).reshape(len(maps), -1)
    return -np.sum(flat * np.log(np.where(flat > 0, flat, 1)), axis=1)


def mean_weights(
    weights: Array, labels: NDArray, classes: Sequence[str], names: Sequence[str], resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Mean weights `(n, k)` over all records and over those of each class, with 95 % bootstrap intervals over records.

    Rows: `class` ("all", then the classes), `name` (one of the k), `mean`, `low`, `high`, `n` (records of the class).
    A record with several labels counts in each of its classes; a class without records has NaN. The intervals speak of
    the choice of records, not of training once more.
    """
    members = np.column_stack([np.ones(len(labels)), np.asarray(labels, np.float64)]).T  # (groups, n)

    def means(counts: Array) -> dict[str, Array]:
        drawn = counts[:, None, :] * members  # (resamples, groups, n)
        with np.errstate(invalid="ignore"):
            return {"mean": drawn @ weights / drawn.sum(axis=-1, keepdims=True)}

    mean = means(np.ones((1, len(weights))))["mean"][0]
    interval = percentile_interval(bootstrap(means, len(weights), resamples, seed)["mean"])
    groups = [ALL, *classes]
    return pd.DataFrame(
        {
            "class": np.repeat(groups, len(names)),
            "name": np.tile(names, len(groups)),
            "mean": mean.ravel(),
            "low": interval.low.ravel(),
            "high": interval.high.ravel(),
            "n": np.repeat(members.sum(axis=1).astype(int), len(names)),
        }
    )


def per_record(
    weights: Weights, ecg_id: NDArray, labels: NDArray, classes: Sequence[str], leads: Sequence[str]
) -> pd.DataFrame:
    """A row per record, the sharpest map first: `ecg_id`, `labels`, `entropy`, `effective_share`, `top_lead`, `top_weight`."""
    named = [" ".join(np.array(classes)[row > 0]) for row in np.asarray(labels)]
    frame = pd.DataFrame(
        {
            "ecg_id": ecg_id,
            "labels": named,
            "entropy": weights.entropy,
            "effective_share": weights.effective,
            "top_lead": np.array(leads)[weights.leads.argmax(axis=1)],
            "top_weight": weights.leads.max(axis=1),
        }
    )
    return frame.sort_values(["entropy", "ecg_id"], ignore_index=True)


def as_json(frame: pd.DataFrame) -> dict[str, Any]:
    """`mean_weights` as class -> {n, weights: name -> {mean, low, high}}, with None where there is no number."""

    def number(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return {
        str(group): {
            "n": int(rows["n"].iloc[0]),
            "weights": {
                row["name"]: {key: number(row[key]) for key in ("mean", "low", "high")}
                for row in rows.to_dict("records")
            },
        }
        for group, rows in frame.groupby("class", sort=False)
    }
