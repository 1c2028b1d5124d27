"""Which records are in a batch, in what order and shape."""

import dataclasses
import itertools
import threading

import numpy as np
import pytest

from imlenet_jax.data.loader import epoch_order, eval_batches, prefetch, select, select_reference, train_batches
from imlenet_jax.data.prepare import prepare
from imlenet_jax.data.shards import open_shards
from imlenet_jax.data.tasks import SUB
from imlenet_jax.errors import UserError

TRAIN = tuple(range(1, 9))


@pytest.fixture
def dataset(tiny_ptbxl, records_per_shard, tmp_path):
    return open_shards(prepare(tiny_ptbxl.path, tmp_path / "out", progress=False))


@pytest.fixture
def split(dataset):
    return select(dataset, TRAIN, "training")


def test_select_takes_labelled_records_of_the_folds(dataset, split):
    expected = [
        row for row in range(24) if dataset.fold[row] in TRAIN and set(dataset.scp_codes[row]) - {"SR"}
    ]  # fmt: skip
    assert split.rows.tolist() == expected
    np.testing.assert_array_equal(split.ecg_id, np.array(expected) + 1)
    assert split.labels.dtype == np.float32
    assert split.labels[0].tolist() == [0, 0, 0, 1, 0]


def test_the_task_decides_labels_and_records(dataset):
    everyone = tuple(range(1, 11))
    found = select(dataset, everyone, "test", task=SUB)
    normal = [row for row in range(24) if "NORM" in dataset.scp_codes[row]]  # the IMI are 50 % likely
    assert found.rows.tolist() == normal and found.labels.tolist() == len(normal) * [[0, 0, 1]]
    assert found.folds == tuple(sorted({int(dataset.fold[row]) for row in normal}))
    with pytest.raises(UserError, match=r"no test records with a class .ASMI, IMI, NORM. in folds 1, 2: change --test"):
        select(dataclasses.replace(dataset, fold=np.full(24, 3)), (1, 2), "test", task=SUB)
    reference = select_reference(dataset, "training")
    assert reference.rows.tolist() == [row for row in normal if dataset.fold[row] <= 2]
    with pytest.raises(UserError, match="no test records for --sub_split reference: take --sub_split clean"):
        select_reference(dataclasses.replace(dataset, fold=np.full(24, 1)), "test")


def test_min_likelihood_drops_stated_ones_only(dataset):
    row = dataset.scp_codes.index({"NDT": 0.0, "LVH": 15.0})
    strict = select(dataset, tuple(range(1, 11)), "training", min_likelihood=50)
    assert strict.labels[strict.rows.tolist().index(row)].tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    "name, flag", [("training", "--train_folds"), ("validation", "--val_folds"), ("test", "--test_folds")]
)
def test_no_records_names_the_flag(dataset, name, flag):
    with pytest.raises(
        UserError, match=f"no {name} records with a class .CD, HYP, MI, NORM, STTC. in folds 9: change {flag}"
    ):
        select(dataclasses.replace(dataset, fold=np.where(dataset.fold == 9, 8, dataset.fold)), (9,), name)


def test_epoch_order_is_a_permutation_of_seed_and_epoch():
    orders = [epoch_order(100, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0))]
    for order in orders:
        assert sorted(order) == list(range(100))
    assert (orders[0] == orders[3]).all()
    assert (orders[0] != orders[1]).any()
    assert (orders[0] != orders[2]).any()
    # Pinned: a checkpoint resumes in this order.
    assert epoch_order(5, 7, 3).tolist() == np.random.default_rng([7, 3]).permutation(5).tolist()


def test_batches_hold_what_the_records_are(tiny_ptbxl, split):
    order = split.rows[epoch_order(len(split), 3, 2)]
    batches = list(train_batches(split, 4, seed=3, epoch=2))
    assert len(batches) == len(split) // 4
    for number, batch in enumerate(batches):
        rows = order[4 * number : 4 * number + 4]
        np.testing.assert_array_equal(batch.signal, tiny_ptbxl.signals[rows])
        assert (batch.signal.dtype, batch.signal.shape) == (np.int16, (4, 1000, 12))
        assert (batch.gain == 1000).all()
        assert (batch.baseline == 0).all()
        assert batch.mask.tolist() == [1] * 4
        assert {array.dtype for array in (batch.gain, batch.baseline, batch.label, batch.mask)} == {np.dtype("f4")}
        labels = dict(zip(split.rows.tolist(), split.labels, strict=True))
        np.testing.assert_array_equal(batch.label, [labels[row] for row in rows.tolist()])


def test_the_last_partial_batch_is_dropped_or_smaller(split):
    assert len(split) == 16
    kept = list(train_batches(split, 5, 0, 0, drop_last=False))
    assert [len(batch.mask) for batch in kept] == [5, 5, 5, 1]
    assert [len(batch.mask) for batch in train_batches(split, 5, 0, 0)] == [5, 5, 5]


def test_starting_later_gives_the_rest_of_the_epoch(split):
    whole = list(train_batches(split, 3, 0, 5))
    rest = list(train_batches(split, 3, 0, 5, start_step=2))
    assert len(rest) == len(whole) - 2
    np.testing.assert_array_equal(rest[0].signal, whole[2].signal)


def test_a_batch_larger_than_the_data_is_refused(split):
    with pytest.raises(UserError, match=f"--batchsize 99 is larger than the {len(split)} training records"):
        next(train_batches(split, 99, 0, 0))


@pytest.mark.parametrize("batchsize", [1, 4, 7, 100])
def test_evaluation_covers_all_once_in_one_shape(tiny_ptbxl, split, batchsize):
    batches = list(eval_batches(split, batchsize))
    assert {batch.signal.shape for batch in batches} == {(batchsize, 1000, 12)}
    mask = np.concatenate([batch.mask for batch in batches]) > 0
    assert mask.tolist() == [True] * len(split) + [False] * (len(mask) - len(split))
    np.testing.assert_array_equal(
        np.concatenate([batch.signal for batch in batches])[mask], tiny_ptbxl.signals[split.rows]
    )
    np.testing.assert_array_equal(np.concatenate([batch.label for batch in batches])[mask], split.labels)


def test_prefetch_keeps_the_order_and_puts_each():
    assert list(prefetch(iter(range(20)), lambda item: item * 2)) == list(range(0, 40, 2))
    assert list(prefetch(iter(()), lambda item: item)) == []


def test_prefetch_raises_what_the_thread_met():
    def batches():
        yield 1
        raise UserError("a shard is damaged")

    stream = prefetch(batches(), lambda item: item)
    assert next(stream) == 1
    with pytest.raises(UserError, match="a shard is damaged"):
        next(stream)


def test_closing_prefetch_ends_its_thread():
    before = threading.active_count()
    taken = []
    stream = prefetch((taken.append(item) or item for item in itertools.count()), lambda item: item)
    assert next(stream) == 0
    stream.close()
    assert threading.active_count() == before
    assert len(taken) < 10
