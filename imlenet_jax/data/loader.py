"""From shards to batches: which records, in what order, in what shapes. Numpy only.

The order of an epoch depends on (seed, epoch) alone, and every batch of an epoch has one shape, so that a compiled
step is compiled once.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from imlenet_jax.data.infarction import reference_split
from imlenet_jax.data.shards import Dataset
from imlenet_jax.data.tasks import SUB, Task
from imlenet_jax.errors import UserError

T = TypeVar("T")
Part = tuple[int, int]

_FLAGS = {"training": "--train_folds", "validation": "--val_folds", "test": "--test_folds"}


class Batch(NamedTuple):
    """Records as they lie in the shards, with what turns them into mV.

    Attributes:
        signal: (batch, length, leads) int16 steps; mV are (signal - baseline) / gain.
        gain: (batch, leads) float32, steps per mV.
        baseline: (batch, leads) float32, the step of 0 mV.
        label: (batch, classes) float32, 0 or 1.
        mask: (batch,) float32, 1 for a record, 0 for padding.
    """

    signal: Any
    gain: Any
    baseline: Any
    label: Any
    mask: Any


@dataclass(frozen=True, eq=False)
class Split:
    """The records of some folds that have a class.

    Attributes:
        dataset: where they are.
        rows: (n,) int64 into the dataset, in its order.
        labels: (n, classes) float32, 0 or 1.
    """

    dataset: Dataset
    rows: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ecg_id(self) -> np.ndarray:
        """(n,) int64."""
        return self.dataset.ecg_id[self.rows]

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds that the records are of, in order."""
        return tuple(np.unique(self.dataset.fold[self.rows]).tolist())


def select(
    dataset: Dataset,
    folds: tuple[int, ...],
    name: str,
    min_likelihood: float | None = None,
    task: Task | None = None,
) -> Split:
    """The records of `folds` that have a class; labels are made here, so a change of policy needs no `prepare`.

    Args:
        dataset: prepared records.
        folds: numbers from 1 to 10.
        name: `training`, `validation` or `test`, for the error.
        min_likelihood: see `Task.labels`.
        task: what the labels are; the usual task of the data unless given.

    Raises:
        UserError: there are no such records.
    """
    task = task or dataset.task()
    labels = task.labels(dataset.scp_codes, min_likelihood)
    rows = np.flatnonzero(np.isin(dataset.fold, folds) & task.takes(labels))
    if not len(rows):
        numbers = ", ".join(map(str, folds))
        classes = ", ".join(task.classes[:5]) + (", ..." if len(task.classes) > 5 else "")
        raise UserError(
            f"{dataset.path} has no {name} records with a class ({classes}) in folds {numbers}: change {_FLAGS[name]}"
        )
    return Split(dataset, rows, labels[rows].astype(np.float32))


def select_reference(dataset: Dataset, name: str, min_likelihood: float | None = None) -> Split:
    """The records of the reference's own split for the sub-diagnosis, whose validation and test are one (`reference_split`).

    Raises:
        UserError: there are no such records.
    """
    labels = SUB.labels(dataset.scp_codes, min_likelihood)
    rows = reference_split(labels, dataset.fold, training=name == "training")
    if not len(rows):
        raise UserError(f"{dataset.path} has no {name} records for --sub_split reference: take --sub_split clean")
    return Split(dataset, rows, labels[rows].astype(np.float32))


def epoch_order(records: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits `records` records: a permutation that depends on (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(records)


def check_batchsize(split: Split, batchsize: int) -> None:
    """Refuse a batch that is larger than the training data."""
    if batchsize > len(split):
        raise UserError(
            f"--batchsize {batchsize} is larger than the {len(split)} training records: choose a smaller one"
        )


def train_rows(
    split: Split, batchsize: int, seed: int, epoch: int, start_step: int = 0, drop_last: bool = True
) -> Iterator[np.ndarray]:
    """The rows of `split` in each batch of one training epoch, `(batch,)` int32, from `start_step` on.

    With `drop_last` a last, partial batch is left out (the next epoch is shuffled anew); without, it is smaller.

    Raises:
        UserError: the batch is larger than the data.
    """
    check_batchsize(split, batchsize)
    order = epoch_order(len(split), seed, epoch).astype(np.int32)
    stop = len(order) - len(order) % batchsize if drop_last else len(order)
    for start in range(start_step * batchsize, stop, batchsize):
        yield order[start : start + batchsize]


def train_batches(
    split: Split,
    batchsize: int,
    seed: int,
    epoch: int,
    start_step: int = 0,
    drop_last: bool = True,
    part: Part = (0, 1),
) -> Iterator[Batch]:
    """The batches of one training epoch, as `train_rows` chooses them; `part` (i, n) reads the i-th of n equal parts."""
    for rows in train_rows(split, batchsize, seed, epoch, start_step, drop_last):
        yield read_batch(split, _share(rows, part))


def eval_batches(split: Split, batchsize: int, part: Part = (0, 1)) -> Iterator[Batch]:
    """All records in stored order; the last batch is filled up with its last record, masked out."""
    for start in range(0, len(split), batchsize):
        rows = _share(np.arange(start, start + batchsize), part)
        mask = (rows < len(split)).astype(np.float32)
        yield read_batch(split, np.minimum(rows, len(split) - 1))._replace(mask=mask)


def _share(rows: np.ndarray, part: Part) -> np.ndarray:
    index, count = part
    return rows[len(rows) * index // count : len(rows) * (index + 1) // count]


def read_batch(split: Split, rows: np.ndarray) -> Batch:
    """The given rows of a split."""
    stored, dataset = split.rows[rows], split.dataset
    mask = np.ones(len(rows), np.float32)
    return Batch(dataset.signals(stored), dataset.gain[stored], dataset.baseline[stored], split.labels[rows], mask)


def prefetch(batches: Iterator[T], put: Callable[[T], T], size: int = 2) -> Iterator[T]:
    """Read `batches` in a background thread, `put` each (on a device) and keep up to `size` ready.

    An exception of the thread is raised here; closing this iterator ends the thread.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=size)
    closed = threading.Event()

    def offer(item: T | None, error: BaseException | None) -> None:
        while not closed.is_set():
            try:
                return ready.put((item, error), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in batches:
                if closed.is_set():
                    return
                offer(put(batch), None)
            offer(None, None)
        except BaseException as error:
            offer(None, error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        closed.set()
        thread.join()
