"""Prepared recordings: int16 shards, memory-mapped, and what the manifest says of them."""

import io
import math
import mmap
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from imlenet_jax.data.manifest import read_manifest
from imlenet_jax.data.ptbxl import check_patients
from imlenet_jax.data.scaling import Moments, sums_and_squares
from imlenet_jax.data.tasks import Task
from imlenet_jax.errors import UserError

_REDO = "delete the folder and run python -m experiments.prepare again"
_CHUNK = 64  # recordings summed at a time: 6 MB of float64 at 100 Hz
_MAX_NPY_HEADER = 10_000  # bytes, as numpy reads


class Shard(NamedTuple):
    """One `.npy` file of (records, length, leads) int16 and the CRC-32 of the whole file."""

    file: str
    records: int
    crc32: int


class Calibrations(NamedTuple):
    """The distinct calibrations of a data set and which of them each record has.

    Attributes:
        number: (n,) int64 into the tables.
        gain: (k, leads) float64, steps per mV.
        baseline: (k, leads) int64, the step of 0 mV.
    """

    number: np.ndarray
    gain: np.ndarray
    baseline: np.ndarray


@dataclass(frozen=True, eq=False)
class Dataset:
    """Prepared recordings. Signals stay on disk until they are asked for; a shard is verified at its first use.

    Attributes:
        path: the folder of shards.
        sampling_rate: Hz.
        length: samples per lead of a record.
        leads: lead names, in the order of the last axis of signals.
        ecg_id, patient_id, fold: (n,) int64.
        scp_codes: n dictionaries, SCP statement -> likelihood in percent.
        tasks: what can be asked of these records, by name; the first is the usual one.
        about: what else is known of the records: (n,) texts per column, such as `age` and `sex`.
        gain: (n, leads) float32, steps per mV.
        baseline: (n, leads) float32, the step of 0 mV.
        source: `PTB-XL`, or what else the records are, such as `synthetic`.
        fingerprint: sha256 of the metadata and signals; it does not depend on where the folder is.
    """

    path: Path
    sampling_rate: int
    length: int
    leads: tuple[str, ...]
    ecg_id: np.ndarray
    patient_id: np.ndarray
    fold: np.ndarray
    scp_codes: list[dict[str, float]]
    tasks: dict[str, Task]
    about: dict[str, np.ndarray]
    gain: np.ndarray
    baseline: np.ndarray
    source: str
    fingerprint: str
    calibrations: Calibrations = field(repr=False)
    shards: tuple[Shard, ...] = field(repr=False)
    manifest_scaler: tuple[float, float] | None = field(repr=False)
    _open: dict[int, "OpenShard"] = field(default_factory=dict, repr=False, init=False)

    def __len__(self) -> int:
        return len(self.ecg_id)

    @property
    def scaler(self) -> tuple[float, float]:
        """Mean and population standard deviation in mV over folds 1-8, from the manifest.

        Raises:
            UserError: these folds have no record with a class, or only flat signals.
        """
        return self._usable(self.manifest_scaler, "folds 1-8")

    def task(self, name: str | None = None) -> Task:
        """A task by name, or the usual one.

        Raises:
            UserError: these records have no such task.
        """
        name = next(iter(self.tasks)) if name is None else name
        if name not in self.tasks:
            raise UserError(f"{self.path} has no task '{name}': choose --task {' or '.join(self.tasks)}")
        return self.tasks[name]

    def signals(self, rows: np.ndarray) -> np.ndarray:
        """Gather records in any order.

        Args:
            rows: (m,) integers from 0 to len(self) - 1.

        Returns:
            (m, length, leads) int16, a copy.

        Raises:
            UserError: a shard is missing, does not match its checksum, or was written to while it was in use.
        """
        rows = np.asarray(rows, np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows must be from 0 to {len(self) - 1}")
        out = np.empty((len(rows), self.length, len(self.leads)), np.int16)
        shard, place = np.divmod(rows, self.shards[0].records)
        numbers = shard.tolist()
        shards = {number: self._shard(number) for number in set(numbers)}
        for opened in shards.values():
            opened.check_length()
        for target, number, row in zip(out, numbers, place.tolist(), strict=True):
            target[...] = shards[number].records[row]
        for opened in shards.values():  # once for all that was read: a check costs as much as reading a record
            opened.check_unchanged()
        return out

    def millivolts(self, rows: np.ndarray) -> np.ndarray:
        """Like `signals`, as (m, length, leads) float32 in mV."""
        rows = np.asarray(rows, np.int64)
        return (self.signals(rows) - self.baseline[rows, None]) / self.gain[rows, None]

    def fit_scaler(self, rows: np.ndarray) -> tuple[float, float]:
        """Mean and population standard deviation in mV over all samples of these records, from exact integer sums.

        Raises:
            UserError: there are no records, or only flat signals.
        """
        moments = Moments()
        for chunk, gain, baseline in self._chunks_by_calibration(np.asarray(rows, np.int64)):
            signals = np.ascontiguousarray(self.signals(chunk).transpose(0, 2, 1))
            moments.update(*sums_and_squares(signals), self.length, gain, baseline)
        return self._usable(moments.scaler(), "the chosen folds")

    def verify(self) -> None:
        """Read every shard and compare it with its checksum, even those verified before.

        Raises:
            UserError: names the first shard that is missing or damaged.
        """
        for number in range(len(self.shards)):
            self._open.pop(number, None)
            self._shard(number)

    def _shard(self, number: int) -> "OpenShard":
        if number not in self._open:
            self._open[number] = OpenShard(self.path, self.shards[number], self.length, len(self.leads))
        return self._open[number]

    def _chunks_by_calibration(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, list[float], list[int]]]:
        number, gain, baseline = self.calibrations
        for calibration in np.unique(number[rows]).tolist():
            same = rows[number[rows] == calibration]
            for start in range(0, len(same), _CHUNK):
                yield same[start : start + _CHUNK], gain[calibration].tolist(), baseline[calibration].tolist()

    def _usable(self, scaler: tuple[float, float] | None, which: str) -> tuple[float, float]:
        if scaler is None:
            raise UserError(f"{self.path} has no records with a class in {which}, so no scaler: add such records")
        if scaler[1] == 0:
            raise UserError(f"all signals of {which} in {self.path} are flat: restore the records from PTB-XL")
        return scaler


def open_shards(path: Path) -> Dataset:
    """Open a folder that `prepare` has written.

    Raises:
        UserError: there is no manifest, it is damaged or of another version, or a patient is in two folds.
    """
    path = Path(path)
    content = read_manifest(path)
    table = content["calibrations"]
    calibrations = Calibrations(
        np.array(content["calibration"], np.int64),
        np.array([entry["gain"] for entry in table], np.float64),
        np.array([entry["baseline"] for entry in table], np.int64),
    )
    scaler = content["scaler"]
    dataset = Dataset(
        path=path,
        sampling_rate=content["sampling_rate"],
        length=content["length"],
        leads=tuple(content["leads"]),
        ecg_id=np.array(content["ecg_id"], np.int64),
        patient_id=np.array(content["patient_id"], np.int64),
        fold=np.array(content["fold"], np.int64),
        scp_codes=content["scp_codes"],
        tasks={
            name: Task(name, tuple(of["classes"]), of["statements"], unlabelled=of.get("unlabelled", False))
            for name, of in content["tasks"].items()
        },
        about={name: np.array(cells, str) for name, cells in content["about"].items()},
        gain=calibrations.gain.astype(np.float32)[calibrations.number],
        baseline=calibrations.baseline.astype(np.float32)[calibrations.number],
        source=content["source"].get("name", "PTB-XL"),
        fingerprint=content["fingerprint"],
        calibrations=calibrations,
        shards=tuple(Shard(entry["file"], entry["records"], int(entry["crc32"], 16)) for entry in content["shards"]),
        manifest_scaler=(scaler["mean"], scaler["std"]) if scaler else None,
    )
    check_patients(dataset.patient_id, dataset.fold, path)
    return dataset


class OpenShard:
    """One shard: verified, mapped into memory, and watched.

    Where another program replaces or removes its file, the mapping stays what it was. Where one writes into the file,
    the mapping changes with it, and the checks say so.

    Attributes:
        records: (records, length, leads) int16, read-only.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """

    def __init__(self, folder: Path, shard: Shard, length: int, leads: int):
        self._path = str(folder / shard.file)
        try:
            with open(self._path, "rb", buffering=0) as file:
                self._state = _state(os.fstat(file.fileno()))
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise UserError(f"there is no shard {self._path}: {_REDO}") from None
        except ValueError:  # what is empty cannot be mapped
            self._map = mmap.mmap(-1, 1)
        if zlib.crc32(self._map) != shard.crc32:  # 3 GB/s: a shard can be checked whenever it is opened
            raise UserError(f"the shard {self._path} does not match its checksum: {_REDO}")
        self.records = self._array((shard.records, length, leads))

    def _array(self, shape: tuple[int, int, int]) -> np.ndarray:
        file = io.BytesIO(self._map[:_MAX_NPY_HEADER])
        try:
            np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0(file)
        except ValueError:
            header = None
        size = math.prod(shape)
        if header != (shape, False, np.dtype("<i2")) or len(self._map) != file.tell() + 2 * size:
            raise UserError(f"the shard {self._path} is not {shape[0]} records of {shape[1]} samples: {_REDO}")
        return np.frombuffer(self._map, "<i2", size, file.tell()).reshape(shape)

    def check_length(self) -> None:
        """Refuse to read a file that was cut off: the memory behind its end is gone."""
        if self._map.size() != len(self._map):
            self._refuse()

    def check_unchanged(self) -> None:
        """Refuse what was read of a file that was written to since it was opened."""
        self.check_length()
        try:
            state = _state(os.stat(self._path))
        except FileNotFoundError:
            return
        if state != self._state and state[:2] == self._state[:2]:  # another file in its place leaves this one alone
            self._refuse()

    def _refuse(self) -> NoReturn:
        raise UserError(f"the shard {self._path} was written to while it was in use: {_REDO}")


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_dev, status.st_ino, status.st_mtime_ns
