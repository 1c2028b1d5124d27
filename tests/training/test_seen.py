"""Which records trained a network."""

from types import SimpleNamespace

import numpy as np
import pytest

from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.training.seen import from_ranges, seen, seen_records, to_ranges


def test_ranges_are_short_and_read_back():
    assert to_ranges([7, 1, 2, 3, 9, 10]) == "1-3,7,9-10"
    first, last = from_ranges("1-3,7,9-10")
    assert first.tolist() == [1, 7, 9] and last.tolist() == [3, 7, 10]


def _split(ecg_ids, source="PTB-XL", fingerprint="a"):
    """Some records of a data set that has one more before them."""
    every = np.array([1000, *ecg_ids])
    dataset = SimpleNamespace(source=source, fingerprint=fingerprint, ecg_id=every)
    return SimpleNamespace(dataset=dataset, rows=np.arange(1, len(every)), ecg_id=every[1:])


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (_split([3, 4, 5, 6, 12]), [3, 5]),
        (_split([0, 2]), [2]),
        (_split([4, 99]), []),
        (_split([3, 4], fingerprint="b"), [3]),  # PTB-XL at another rate, or a part of it
        (_split([3, 4], "synthetic", "b"), []),  # other records of the same numbers
    ],
)
def test_records_that_trained_are_found(split, expected):
    meta = Meta("mousavi", {}, [], [], 100, {}, data_fingerprint="a", records=seen(_split([1, 2, 3, 5, 10])))
    assert seen_records(meta, split).tolist() == expected
    assert not seen_records(Meta("mousavi", {}, [], [], 100, {}, data_fingerprint="a"), split).size


def test_the_records_of_networks_before_count_too():
    first = {"records": {"source": "PTB-XL", "ecg_ids": "1-2"}, "data_fingerprint": "z"}
    second = {"records": {"source": "synthetic", "ecg_ids": "3"}, "data_fingerprint": "z", "started_from": first}
    known = {"data_fingerprint": "a", "records": seen(_split([5])), "training": {"started_from": second}}
    meta = Meta("mousavi", {}, [], [], 100, {}, **known)
    assert seen_records(meta, _split([1, 2, 3, 4, 5])).tolist() == [1, 2, 5]
    second["records"] = {"source": "PTB-XL", "ecg_ids": "all of them"}  # as no network of ours has it
    assert seen_records(meta, _split([1, 2, 3, 4, 5])).tolist() == [1, 2, 5]
