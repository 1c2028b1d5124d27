"""Prepared recordings: gathering, decoding, scaling, and damage that is noticed."""

import os
import shutil
import zlib

import numpy as np
import pytest

from imlenet_jax.data.loader import prefetch, select, train_batches
from imlenet_jax.data.prepare import prepare
from imlenet_jax.data.shards import OpenShard, Shard, open_shards
from imlenet_jax.errors import UserError
from imlenet_jax.files import write_atomically


@pytest.fixture
def shards(tiny_ptbxl, records_per_shard, tmp_path):
    return prepare(tiny_ptbxl.path, tmp_path / "shards", progress=False)


def test_records_come_in_any_order_from_all_shards(tiny_ptbxl, shards):
    dataset = open_shards(shards)
    assert (len(dataset), len(dataset.shards), dataset.length, dataset.sampling_rate) == (24, 5, 1000, 100)
    rows = np.array([23, 0, 7, 7, 5, 4])
    signals = dataset.signals(rows)
    assert signals.dtype == np.int16
    np.testing.assert_array_equal(signals, tiny_ptbxl.signals[rows])
    assert dataset.signals([]).shape == (0, 1000, 12)


@pytest.mark.parametrize("rows", [[-1], [24]])
def test_rows_outside_are_an_error(shards, rows):
    with pytest.raises(IndexError):
        open_shards(shards).signals(rows)


def test_millivolts_honour_each_leads_calibration(tiny_ptbxl, tmp_path):
    tiny_ptbxl.edit(tiny_ptbxl.file(3, ".hea"), "1000.0(0)/mV", "204.8(-7)/mV", 1)
    dataset = open_shards(prepare(tiny_ptbxl.path, tmp_path / "out", progress=False))
    expected = tiny_ptbxl.signals[[2, 3]] / 1000
    expected[1, :, 0] = (tiny_ptbxl.signals[3, :, 0] + 7) / 204.8
    decoded = dataset.millivolts([2, 3])
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, expected, rtol=2e-7)
    assert dataset.gain[3, 0] == np.float32(204.8)
    assert dataset.baseline[3, 0] == -7


def test_fit_scaler_is_the_mean_and_population_deviation(tiny_ptbxl, tmp_path):
    tiny_ptbxl.edit(tiny_ptbxl.file(3, ".hea"), "1000.0(0)/mV", "250.0(40)/mV")
    dataset = open_shards(prepare(tiny_ptbxl.path, tmp_path / "out", progress=False))
    rows = np.array([9, 3, 1])
    values = tiny_ptbxl.signals[rows] / 1000
    values[1] = (tiny_ptbxl.signals[3] - 40) / 250
    np.testing.assert_allclose(dataset.fit_scaler(rows), (values.mean(), values.std()), rtol=1e-12)


def test_no_records_no_scaler(shards):
    with pytest.raises(UserError, match="no records with a class in the chosen folds"):
        open_shards(shards).fit_scaler(np.array([], int))


def test_a_damaged_shard_is_named_at_its_first_use(shards):
    data = bytearray((shards / "shard-00001.npy").read_bytes())
    data[-1] ^= 1
    (shards / "shard-00001.npy").write_bytes(data)
    dataset = open_shards(shards)
    dataset.signals([0, 10])
    with pytest.raises(UserError, match=r"shard-00001\.npy does not match its checksum: delete the folder"):
        dataset.signals([5])
    with pytest.raises(UserError, match=r"shard-00001\.npy does not match its checksum"):
        dataset.verify()


@pytest.mark.parametrize("size", [0, 50, 1000])
def test_a_truncated_shard_is_named(shards, size):
    data = (shards / "shard-00001.npy").read_bytes()
    (shards / "shard-00001.npy").write_bytes(data[:size])
    with pytest.raises(UserError, match=r"shard-00001\.npy does not match its checksum"):
        open_shards(shards).signals([5])


def test_a_missing_shard_is_named(shards):
    (shards / "shard-00001.npy").unlink()
    with pytest.raises(UserError, match=r"there is no shard .*shard-00001\.npy"):
        open_shards(shards).verify()


def test_verify_accepts_whole_shards(shards):
    open_shards(shards).verify()


def test_the_fingerprint_is_of_the_data_not_of_the_place(tiny_ptbxl, shards, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(tiny_ptbxl.path, moved)
    assert open_shards(prepare(moved, progress=False)).fingerprint == open_shards(shards).fingerprint
    tiny_ptbxl.write(0, tiny_ptbxl.signals[0] + 1)
    changed = open_shards(prepare(tiny_ptbxl.path, tmp_path / "changed", progress=False))
    assert changed.fingerprint != open_shards(shards).fingerprint


def _other_samples(path):
    """The shard's bytes with other samples."""
    data = bytearray(path.read_bytes())
    data[-1000:] = bytes(1000)
    return bytes(data)


@pytest.mark.parametrize("change", ["replaced", "removed", "folder removed"])
def test_a_shard_in_use_that_is_replaced_or_removed_holds(tiny_ptbxl, shards, change):
    dataset, path = open_shards(shards), shards / "shard-00000.npy"
    dataset.signals([0])
    if change == "replaced":
        write_atomically(path, _other_samples(path))
    elif change == "removed":
        path.unlink()
    else:
        shutil.rmtree(shards)
    np.testing.assert_array_equal(dataset.signals([4, 0]), tiny_ptbxl.signals[[4, 0]])


@pytest.mark.parametrize("content", ["other samples", "cut", "empty"])
def test_a_shard_in_use_that_is_written_to_says_so(shards, content):
    dataset, path = open_shards(shards), shards / "shard-00000.npy"
    dataset.signals([0])
    data = {"other samples": _other_samples(path), "cut": path.read_bytes()[:-1], "empty": b""}[content]
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"shard-00000\.npy was written to while it was in use: delete the folder"):
        dataset.signals([4])


def test_training_says_that_a_shard_was_written_to(shards):
    split = select(open_shards(shards), tuple(range(1, 9)), "training")
    batches = prefetch(train_batches(split, 1, 0, 0), lambda batch: batch, size=1)
    next(batches)
    for path in shards.glob("shard-*"):
        with open(path, "r+b") as file:  # not cut: a record may be read at this moment
            file.seek(-100, os.SEEK_END)
            file.write(bytes(range(100)))
    with pytest.raises(UserError, match=r"was written to while|does not match its checksum"):
        list(batches)


@pytest.mark.parametrize(
    "array",
    [np.zeros((5, 1000, 12), "<i4"), np.zeros((4, 1000, 12), "<i2"), np.asfortranarray(np.zeros((5, 1000, 12), "<i2"))],
)
def test_a_shard_whose_checksum_holds_must_be_what_the_manifest_says(shards, array):
    np.save(shards / "shard-00000.npy", array)
    shard = Shard("shard-00000.npy", 5, zlib.crc32((shards / "shard-00000.npy").read_bytes()))
    with pytest.raises(UserError, match=r"shard-00000\.npy is not 5 records of 1000 samples"):
        OpenShard(shards, shard, 1000, 12)


def test_a_shard_that_is_a_pickle_is_not_loaded(shards, tmp_path):
    array = np.array([{"a": 1}], dtype=object)
    np.save(shards / "shard-00000.npy", array, allow_pickle=True)
    shard = Shard("shard-00000.npy", 5, zlib.crc32((shards / "shard-00000.npy").read_bytes()))
    with pytest.raises(UserError, match="is not 5 records"):
        OpenShard(shards, shard, 1000, 12)
