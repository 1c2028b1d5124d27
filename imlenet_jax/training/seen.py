"""Which records trained a network: kept in its checkpoints, so that it is not tested on them."""

from collections.abc import Iterator

import numpy as np

from imlenet_jax.checkpoints.description import Meta, are_records, from_ranges, to_ranges
from imlenet_jax.data.loader import Split
from imlenet_jax.data.shards import Dataset

PTBXL = "PTB-XL"  # its ecg_id names one recording wherever the data set lies; those of other sources do not


def seen(train: Split) -> dict[str, str]:
    """The records of a split in JSON types: their source and, as `1-5,7`, their ecg_ids."""
    return {"source": train.dataset.source, "ecg_ids": to_ranges(train.ecg_id.tolist())}


def seen_records(meta: Meta, split: Split) -> np.ndarray:
    """The ecg_ids `(n,)` of a split that trained the checkpoint; none where the checkpoint does not know its records."""
    return split.ecg_id[trained_on(meta, split.dataset)[split.rows]]


def trained_on(meta: Meta, dataset: Dataset) -> np.ndarray:
    """Which records of a data set (n,) bool trained a checkpoint, or one that it started from, as far as these know it."""
    seen = np.zeros(len(dataset.ecg_id), bool)
    for records, fingerprint in _lineage(meta):
        if fingerprint == dataset.fingerprint or records["source"] == dataset.source == PTBXL:
            first, last = from_ranges(records["ecg_ids"])
            place = np.searchsorted(first, dataset.ecg_id, side="right") - 1
            seen |= (place >= 0) & (dataset.ecg_id <= last[place])
    return seen


def _lineage(meta: Meta) -> Iterator[tuple[dict[str, str], str | None]]:
    """The records and the data's fingerprint of a checkpoint and of all that it comes from."""
    if meta.records is not None:
        yield meta.records, meta.data_fingerprint
    ancestor = meta.training.get("started_from")
    while isinstance(ancestor, dict):
        records = ancestor.get("records")
        if are_records(records):
            yield records, ancestor.get("data_fingerprint")
        ancestor = ancestor.get("started_from")
