"""Is a map's mass where the disease is? Against the truth of synthetic records, and between kinds of infarction.

A lead's share is the map's magnitude over that lead, the shares of a record summing to one; for attention these are the
lead weights. A map that prefers no lead puts (affected leads / all leads) on the affected ones: that is chance.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imlenet_jax.data.electrodes import record
from imlenet_jax.data.heart import healthy
from imlenet_jax.data.pathology import ANTEROSEPTAL, ASMI, IMI, INFERIOR, diseased
from imlenet_jax.data.ptbxl import MAX_TRUTH_BYTES
from imlenet_jax.errors import UserError
from imlenet_jax.explanation.faithfulness import difference_interval, mean_interval
from imlenet_jax.files import read_json

Array = NDArray[np.float64]
Truth = dict[str, dict[str, Any]]


def lead_shares(maps: NDArray) -> Array:
    """The share of each lead in the magnitude of maps `(n, leads, length)`: `(n, leads)`; NaN where a map is zero."""
    magnitude = np.abs(maps).sum(axis=2, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return magnitude / magnitude.sum(axis=1, keepdims=True)


def find_truth(data_dir: Path) -> Path | None:
    """`truth.json` of a synthetic data set that `data_dir` is, or whose shards it is; None for real data."""
    candidates = (data_dir / "truth.json", data_dir.resolve().parent / "truth.json")
    return next((path for path in candidates if path.is_file()), None)


def read_truth(path: Path) -> Truth:
    """Per ecg_id, as text, the entry of `truth.json` (see `imlenet_jax.data.synthetic`).

    Raises:
        UserError: it cannot be read.
    """
    try:
        truth: Truth = read_json(path, MAX_TRUTH_BYTES)["ecgs"]
        return truth
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): make the data set again with experiments.synthesize"
        ) from None


def affected_leads(
    truth: Truth, ecg_ids: NDArray, leads: tuple[str, ...], statement: str
) -> dict[str, NDArray[np.bool_]]:
    """Where the signs of a statement are to be seen: name -> `(n, leads)`, false all over where a record has none.

    The names are the statement itself (the leads of any of its signs, reciprocal ones included) and
    `<statement>: <finding>`, such as `IMI: Q wave`. `ecg_ids` is (n,).

    Raises:
        UserError: a record is not in the truth.
    """
    masks = {statement: np.zeros((len(ecg_ids), len(leads)), bool)}
    for row, ecg_id in enumerate(ecg_ids.tolist()):
        if str(ecg_id) not in truth:
            raise UserError(f"truth.json has no record {ecg_id}: it belongs to another data set")
        for sign in truth[str(ecg_id)]["signs"]:
            if sign["statement"] != statement:
                continue
            for name in (statement, f"{statement}: {sign['finding']}"):
                mask = masks.setdefault(name, np.zeros_like(masks[statement]))
                mask[row] |= np.isin(leads, sign["leads"])
    return masks


def localised(mask: NDArray[np.bool_], shares: Mapping[str, Array]) -> dict[str, Any]:
    """Each method's share on the affected leads beside chance, over the records that `mask` `(n, leads)` has any in.

    `shares` holds `(n, leads)` per method. Returns `records`, the mean `chance`, and per method the intervals of `share`
    and of `less_chance`, the share less the record's own chance.
    """
    shown = mask.any(axis=1)
    chance = mask[shown].mean(axis=1)
    found = {method: (values * mask)[shown].sum(axis=1) for method, values in shares.items()}
    return {
        "records": int(shown.sum()),
        "chance": float(chance.mean()),
        "methods": {
            method: {"share": mean_interval(values), "less_chance": mean_interval(values - chance)}
            for method, values in found.items()
        },
    }


def contrast(
    anterior: Mapping[str, Array], inferior: Mapping[str, Array], leads: tuple[str, ...], paired: bool
) -> dict[str, dict[str, Any]]:
    """Lead shares `(n, leads)` of anterior and of inferior infarctions, and their difference, per method.

    For the leads of each kind together (V1-V4; II, III, aVF) and for every lead alone: the intervals of `anterior`, of
    `inferior` and of the `difference`, which is that of the same records where they are `paired`.
    """
    groups = {"V1-V4": ANTEROSEPTAL, "II, III, aVF": INFERIOR} | {lead: (lead,) for lead in leads}
    results: dict[str, dict[str, Any]] = {}
    for method in anterior:
        results[method] = {}
        for name, group in groups.items():
            a, b = (shares[method][:, np.isin(leads, group)].sum(axis=1) for shares in (anterior, inferior))
            difference = mean_interval(a - b) if paired else difference_interval(a, b)
            results[method][name] = {
                "anterior": mean_interval(a),
                "inferior": mean_interval(b),
                "difference": difference,
            }
    return results


def moved_infarcts(pairs: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The same synthetic hearts with an anterior and with an inferior infarction: two arrays `(pairs, 1000, 12)` in mV.

    Electrodes and their noise are the same in both; the hearts are none of a data set that `experiments.synthesize` makes.
    """
    moved = np.empty((2, pairs, 1000, 12), np.float32)
    for pair in range(pairs):
        for signals, case in zip(moved, (ASMI, IMI), strict=True):
            traits = np.random.default_rng([seed, pair, 2])
            heart, _ = diseased(healthy(traits), case, traits)
            signals[pair] = record(heart, np.random.default_rng([seed, pair, 3]))[0] / 1000
    return moved[0], moved[1]
