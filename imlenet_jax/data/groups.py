"""Groups of records by what is known of them beside the signal, such as sex, age or device."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from imlenet_jax.data.manifest import OWN
from imlenet_jax.data.shards import Dataset
from imlenet_jax.errors import UserError

Mask = NDArray[np.bool_]

NOT_STATED = "not stated"
AGES = (("under 40", 0, 40), ("40 to 59", 40, 60), ("60 to 79", 60, 80), ("80 and over", 80, 121))
OVER_89 = 300
"""What PTB-XL, and all that comes from it, gives as the age of a patient over 89."""

SEXES = {"0": "male", "1": "female"}
"""What PTB-XL's codes mean."""

MOST = 12  # different numbers that are taken as they are


def columns_of(dataset: Dataset, names: Sequence[str], rows: NDArray[np.int64]) -> dict[str, dict[str, Mask]]:
    """The groups of some records (n,) of a data set by the columns named: column -> group -> which of them (n,).

    Raises:
        UserError: the data have no such column.
    """
    unknown = [name for name in names if name not in dataset.about]
    if unknown:
        raise UserError(
            f"--by {' '.join(unknown)}: {dataset.path} has no such column; it has "
            f"{', '.join(dataset.about) or 'none at all'}"
        )
    sexes = SEXES if dataset.source != OWN else None
    return {name: group_records(dataset.about[name][rows].tolist(), name, sexes) for name in names}


def group_records(cells: Sequence[str], column: str, sexes: Mapping[str, str] | None = None) -> dict[str, Mask]:
    """The groups of a column: name -> which records (n,) are in it. Each record is in one of them.

    Ages in years go into `AGES`, other columns of more than `MOST` different numbers into quarters, and all else is taken
    as it is, the largest group first. ``sexes`` says what codes in a column `sex` mean.
    """
    texts = np.array([" ".join(str(cell).split()) for cell in cells])
    values = np.array([_number(text) for text in texts])
    if column.casefold() == "age":
        years = np.where(values == OVER_89, 90, values)
        return _with_rest({name: (years >= low) & (years < high) for name, low, high in AGES})
    stated = texts != ""
    if np.isfinite(values[stated]).all():
        if len(np.unique(values[stated])) > MOST:
            return _with_rest(_quarters(values))
        texts = np.array([_text(value) if known else "" for value, known in zip(values, stated, strict=True)])
    if column.casefold() == "sex" and sexes:
        texts = np.array([sexes.get(text, text) for text in texts])
    names, counts = np.unique(texts[stated], return_counts=True)
    return _with_rest(
        {str(names[place]): texts == names[place] for place in np.argsort(-counts, kind="stable")}, ~stated
    )


def _quarters(values: NDArray[np.float64]) -> dict[str, Mask]:
    """Four ranges of numbers (n,), each with about as many records; the last one holds its upper end, too."""
    edges = np.unique(np.nanquantile(values, [0, 0.25, 0.5, 0.75, 1]))
    found = {}
    for low, high in itertools.pairwise(edges):
        last = high == edges[-1]
        name = f"{_text(low)} to {_text(high)}" if last else f"{_text(low)} to under {_text(high)}"
        found[name] = (values >= low) & ((values <= high) if last else (values < high))
    return found


def _with_rest(groups: dict[str, Mask], rest: Mask | None = None) -> dict[str, Mask]:
    """The groups that have records, and those records that no group has."""
    rest = ~np.any(list(groups.values()), axis=0) if rest is None else rest
    return {name: mask for name, mask in {**groups, NOT_STATED: rest}.items() if mask.any()}


def _text(value: float) -> str:
    """So exact that numbers which differ are not called the same."""
    return f"{value:.15g}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
