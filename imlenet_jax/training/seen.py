"""Which records trained a network: kept in its checkpoints, so that it is not tested on them."""

from collections.abc import Iterable

import numpy as np

from imlenet_jax.data.loader import Split
from imlenet_jax.training.checkpoint import Meta

PTBXL = "PTB-XL"  # its ecg_id names one recording wherever the data set lies; those of other sources do not


def seen(train: Split) -> dict[str, str]:
    """The records of a split in JSON types: their source and, as `1-5,7`, their ecg_ids."""
    return {"source": train.dataset.source, "ecg_ids": to_ranges(train.ecg_id.tolist())}


def seen_records(meta: Meta, split: Split) -> np.ndarray:
    """The ecg_ids `(n,)` of a split that trained the checkpoint; none where the checkpoint does not know its records."""
    same = meta.data_fingerprint == split.dataset.fingerprint
    if meta.records is None or not (same or meta.records["source"] == split.dataset.source == PTBXL):
        return np.empty(0, np.int64)
    first, last = from_ranges(meta.records["ecg_ids"])
    place = np.searchsorted(first, split.ecg_id, side="right") - 1
    return split.ecg_id[(place >= 0) & (split.ecg_id <= last[place])]


def to_ranges(numbers: Iterable[int]) -> str:
    """Integers as `1-5,7`, sorted."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def from_ranges(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last number `(n,)` int64 of each range."""
    pairs = [part.partition("-") for part in text.split(",")]
    first = np.array([int(a) for a, _, _ in pairs], np.int64)
    return first, np.array([int(b or a) for a, _, b in pairs], np.int64)
