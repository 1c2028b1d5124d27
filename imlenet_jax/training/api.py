"""Training as a function: what a notebook calls."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imlenet_jax.checkpoints.card import write_card
from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.checkpoints.reading import read_meta
from imlenet_jax.classifier import Classifier, load
from imlenet_jax.data.loader import Split, check_batchsize, select
from imlenet_jax.data.open import open_dataset
from imlenet_jax.data.shards import Dataset
from imlenet_jax.data.tasks import SUPERCLASS, Task
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.metrics import macro_auc_present
from imlenet_jax.files import exclusive
from imlenet_jax.models import entry, make_config
from imlenet_jax.runtime.compilation import use_cache
from imlenet_jax.training import loop
from imlenet_jax.training.parallel import Devices
from imlenet_jax.training.recipe import Recipe
from imlenet_jax.training.resume import find_start
from imlenet_jax.training.saving import Checkpoints
from imlenet_jax.training.seen import seen

TRAIN_FOLDS = tuple(range(1, 9))
"""Those that `prepare` computes the stored scaler from."""


def fit(
    model: str,
    data_dir: str | Path,
    checkpoint_dir: str | Path | None = None,
    *,
    task: str | None = None,
    train_folds: Sequence[int] = TRAIN_FOLDS,
    val_folds: Sequence[int] = (9,),
    min_likelihood: float | None = None,
    config: dict[str, Any] | None = None,
    crop: float | None = None,
    num_devices: int | None = None,
    **recipe: Any,
) -> Classifier:
    """Train a network and return the best epoch's, as `python -m experiments.train` does.

        classifier = imlenet_jax.fit("mousavi", "synthetic", epochs=3)
        classifier.meta.history  # the metrics of every epoch

    A call with the same arguments goes on where an earlier one was interrupted, and one that is finished returns at once.

    Args:
        model: one of `imlenet_jax.list_models()`.
        data_dir: a PTB-XL folder, shards, or `synthetic`.
        checkpoint_dir: of this run; `checkpoints/<model>` unless given, with the task after it where that is not the
            superclasses.
        task: of the data; their first unless given.
        train_folds: from 1 to 10.
        val_folds: that choose the best epoch, apart from those; the other folds stay unseen.
        min_likelihood: see `Task.labels`.
        config: constants of the network to change.
        crop: seconds to train on at a time, from a random start in each record; other records are judged by the mean over
            windows of so many. The whole record unless given.
        num_devices: all unless given.
        recipe: fields of `imlenet_jax.training.recipe.Recipe`: `epochs`, `batchsize`, `lr`, `seed`, `patience`, `dtype`...

    Raises:
        UserError: the data, folds, task or network cannot be used so, or the folder holds another run.
    """
    entry(model)
    folds = tuple(sorted(set(map(int, train_folds)))), tuple(sorted(set(map(int, val_folds))))
    if shared := set(folds[0]) & set(folds[1]):
        raise UserError(f"train_folds and val_folds share fold {min(shared)}: choose folds that are apart")
    fields = {field.name for field in dataclasses.fields(Recipe)}
    if unknown := set(recipe) - fields:
        raise UserError(f"fit() has no argument '{min(unknown)}': a recipe has {', '.join(sorted(fields))}")
    chosen, devices = Recipe(**recipe), Devices(num_devices)
    devices.check(chosen.batchsize)
    use_cache(None)
    dataset = open_dataset(data_dir)
    asked = dataset.task(task)
    train, validation = (
        select(dataset, numbers, name, min_likelihood, asked)
        for numbers, name in zip(folds, ("training", "validation"), strict=True)
    )
    check(train, validation, chosen.batchsize, chosen.drop_last, devices)
    name = model if asked.name == SUPERCLASS else f"{model}_{asked.name}"
    folder = Path(checkpoint_dir or Path("checkpoints") / name)
    flags = {
        "model": model,
        "data_dir": str(data_dir),
        "task": task,
        "train_folds": list(folds[0]),
        "val_folds": list(folds[1]),
        "min_likelihood": min_likelihood,
        "crop": crop,
        **dataclasses.asdict(chosen),
    }
    scaler = scaler_of(train, folds[0], min_likelihood, asked)
    meta = describe(model, dataset, asked, train, scaler, flags, config or {}, crop)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.parent / f".{folder.name}.checkpoint_dir.lock", f"another training is writing to {folder}"):
        start = find_start(folder, meta)
        if start is None or not start.finished(chosen.epochs, chosen.patience):
            with Checkpoints(folder) as checkpoints:
                loop.fit(meta, train, validation, chosen, devices, checkpoints, start=start)
            write_card(folder, read_meta(folder)[1])
    return load(folder)


def check(train: Split, validation: Split, batchsize: int, drop_last: bool, devices: Devices) -> None:
    """Refuse, before anything is written, records that cannot be trained or validated on."""
    check_batchsize(train, batchsize)
    rest = len(train) % batchsize
    if not drop_last and rest % len(devices):
        raise UserError(
            f"--drop_last False leaves a last batch of {rest} records, which does not divide over {len(devices)} "
            "devices: leave it out, or take another --batchsize or --num_devices"
        )
    if np.isnan(macro_auc_present(validation.labels, validation.labels)):
        raise UserError("all validation records have the same classes, so no epoch is the best: change --val_folds")


def scaler_of(
    train: Split, train_folds: tuple[int, ...], min_likelihood: float | None, task: Task
) -> tuple[float, float]:
    """Mean and standard deviation in mV of the records to train on: the data set's own where it is of these very records."""
    dataset = train.dataset
    usual = train_folds == TRAIN_FOLDS and min_likelihood is None and task.name == dataset.task().name
    return dataset.scaler if usual else dataset.fit_scaler(train.rows)


def describe(
    model: str,
    dataset: Dataset,
    task: Task,
    train: Split,
    scaler: tuple[float, float],
    flags: dict[str, Any],
    constants: dict[str, Any],
    crop: float | None = None,
) -> Meta:
    """What a run's checkpoints say of themselves.

    Args:
        model, dataset, task, train: the network, the data, what is asked, and the records to train on.
        scaler: mean and standard deviation, mV.
        flags: of the run, in JSON types.
        constants: of the network; its sizes follow the data.
        crop: seconds of a record that the network takes; the whole unless given.

    Raises:
        UserError: a record is no longer than `crop`.
    """
    length, samples = cropped(crop, dataset.length, dataset.sampling_rate)
    sizes = {"leads": len(dataset.leads), "length": length, "classes": len(task.classes)}
    return Meta(
        model=model,
        config=dataclasses.asdict(make_config(model, constants | sizes)),
        classes=list(task.classes),
        leads=list(dataset.leads),
        sampling_rate=dataset.sampling_rate,
        scaler={"mean": scaler[0], "std": scaler[1]},
        data_fingerprint=dataset.fingerprint,
        training=flags,
        records=seen(train),
        task=task.name,
        samples=samples,
    )


def cropped(crop: float | None, samples: int, sampling_rate: int) -> tuple[int, int | None]:
    """Samples that a network takes of a record of so many, and `Meta.samples`: None where it takes records whole.

    Raises:
        UserError: a record is no longer than `crop` seconds, or those are not one sample.
    """
    if crop is None:
        return samples, None
    length = round(crop * sampling_rate)
    if not 0 < length < samples:
        raise UserError(
            f"--crop {crop:g}: the records have {samples / sampling_rate:g} s; choose less, but at least one sample, or "
            "leave it out"
        )
    return length, samples
