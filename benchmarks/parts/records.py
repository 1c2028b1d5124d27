"""The records that speed is measured on: random ones by default, in a shard on disk as `prepare` leaves them."""

import dataclasses
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.data.loader import Batch, Split, select, train_batches
from imlenet_jax.data.open import open_dataset
from imlenet_jax.data.ptbxl import LEADS, SECONDS, SUPERCLASSES
from imlenet_jax.data.shards import Calibrations, Dataset, Shard
from imlenet_jax.data.tasks import SUPERCLASS, Task
from imlenet_jax.models import Config, make_config

FOLDS = tuple(range(1, 9))
SAMPLING_RATE = 100
GAIN = 1000  # steps per mV, as in PTB-XL
STD = 0.25  # mV, about that of PTB-XL


def open_split(data_dir: str | None, folder: Path, records: int) -> Split:
    """The training records of `data_dir`, or `records` random ones in a shard that is written to `folder`."""
    dataset = open_dataset(data_dir) if data_dir else random_dataset(folder, records)
    return select(dataset, FOLDS, "training")


def random_dataset(folder: Path, records: int, seed: int = 0) -> Dataset:
    """Noise in one shard below `folder`, each record with one superclass at random."""
    generator = np.random.default_rng(seed)
    shape = (records, SECONDS * SAMPLING_RATE, len(LEADS))
    path = folder / "shard-00000.npy"
    np.save(path, np.round(GAIN * STD * generator.standard_normal(shape, np.float32)).astype("<i2"))
    numbers = np.arange(records, dtype=np.int64)
    leads = np.ones((1, len(LEADS)), np.int64)
    return Dataset(
        path=folder,
        sampling_rate=SAMPLING_RATE,
        length=shape[1],
        leads=LEADS,
        ecg_id=numbers + 1,
        patient_id=numbers + 1,
        fold=np.ones_like(numbers),
        scp_codes=[{name: 100.0} for name in generator.choice(SUPERCLASSES, records).tolist()],
        tasks={SUPERCLASS: Task(SUPERCLASS, SUPERCLASSES, {name: name for name in SUPERCLASSES})},
        about={},
        gain=np.full((records, len(LEADS)), GAIN, np.float32),
        baseline=np.zeros((records, len(LEADS)), np.float32),
        source="random",
        fingerprint="random",
        calibrations=Calibrations(np.zeros(records, np.int64), GAIN * leads.astype(np.float64), 0 * leads),
        shards=(Shard(path.name, records, zlib.crc32(path.read_bytes())),),
        manifest_scaler=(0.0, STD),
    )


def config_for(model: str, split: Split, values: Mapping[str, Any] | None = None) -> Config:
    """A network's published configuration with `values` changed, for records of this shape."""
    dataset = split.dataset
    sizes = {"leads": len(dataset.leads), "length": dataset.length, "classes": split.labels.shape[1]}
    return make_config(model, {**(values or {}), **sizes})


def describe(model: str, config: Config, split: Split) -> Meta:
    """What a checkpoint of a network for these records says of itself."""
    dataset = split.dataset
    return Meta(
        model=model,
        config=dataclasses.asdict(config),
        classes=list(dataset.task().classes),
        leads=list(dataset.leads),
        sampling_rate=dataset.sampling_rate,
        scaler=dict(zip(("mean", "std"), dataset.scaler, strict=True)),
    )


def first_batch(split: Split, batchsize: int) -> Batch:
    """The batch that all networks are timed on."""
    return next(train_batches(split, batchsize, 0, 0))


def standardised(split: Split, batch: Batch) -> np.ndarray:
    """The signals of a batch as the original networks take them: (batch, length, leads) float32."""
    mean, std = split.dataset.scaler
    millivolts = (batch.signal - batch.baseline[:, None]) / batch.gain[:, None]
    return ((millivolts - mean) / std).astype(np.float32)
