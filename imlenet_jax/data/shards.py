"""Prepared recordings: int16 shards, memory-mapped, and what the manifest says of them."""

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imlenet_jax.data.manifest import read_manifest
from imlenet_jax.data.ptbxl import check_patients
from imlenet_jax.data.scaling import Moments, sums_and_squares
from imlenet_jax.errors import UserError

_REDO = "delete the folder and run python -m experiments.prepare again"
_CHUNK = 64  # recordings summed at a time: 6 MB of float64 at 100 Hz


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
        classes: superclasses, in the order of label columns.
        ecg_id, patient_id, fold: (n,) int64.
        scp_codes: n dictionaries, SCP statement -> likelihood in percent.
        statements: diagnostic statement -> superclass.
        gain: (n, leads) float32, steps per mV.
        baseline: (n, leads) float32, the step of 0 mV.
        source: `PTB-XL`, or what else the records are, such as `synthetic`.
        fingerprint: sha256 of the metadata and signals; it does not depend on where the folder is.
    """

    path: Path
    sampling_rate: int
    length: int
    leads: tuple[str, ...]
    classes: tuple[str, ...]
    ecg_id: np.ndarray
    patient_id: np.ndarray
    fold: np.ndarray
    scp_codes: list[dict[str, float]]
    statements: dict[str, str]
    gain: np.ndarray
    baseline: np.ndarray
    source: str
    fingerprint: str
    calibrations: Calibrations = field(repr=False)
    shards: tuple[Shard, ...] = field(repr=False)
    manifest_scaler: tuple[float, float] | None = field(repr=False)
    _maps: dict[int, np.ndarray] = field(default_factory=dict, repr=False, init=False)

    def __len__(self) -> int:
        return len(self.ecg_id)

    @property
    def scaler(self) -> tuple[float, float]:
        """Mean and population standard deviation in mV over folds 1-8, from the manifest.

        Raises:
            UserError: these folds have no record with a superclass, or only flat signals.
        """
        return self._usable(self.manifest_scaler, "folds 1-8")

    def signals(self, rows: np.ndarray) -> np.ndarray:
        """Gather records in any order.

        Args:
            rows: (m,) integers from 0 to len(self) - 1.

        Returns:
            (m, length, leads) int16, a copy.

        Raises:
            UserError: a shard is missing or does not match its checksum.
        """
        rows = np.asarray(rows, np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows must be from 0 to {len(self) - 1}")
        out = np.empty((len(rows), self.length, len(self.leads)), np.int16)
        shard, place = np.divmod(rows, self.shards[0].records)
        for target, number, row in zip(out, shard.tolist(), place.tolist(), strict=True):
            target[...] = self._map(number)[row]
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
            self._maps.pop(number, None)
            self._map(number)

    def _map(self, number: int) -> np.ndarray:
        if number not in self._maps:
            self._maps[number] = open_shard(self.path, self.shards[number], self.length, len(self.leads))
        return self._maps[number]

    def _chunks_by_calibration(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, list[float], list[int]]]:
        number, gain, baseline = self.calibrations
        for calibration in np.unique(number[rows]).tolist():
            same = rows[number[rows] == calibration]
            for start in range(0, len(same), _CHUNK):
                yield same[start : start + _CHUNK], gain[calibration].tolist(), baseline[calibration].tolist()

    def _usable(self, scaler: tuple[float, float] | None, which: str) -> tuple[float, float]:
        if scaler is None:
            raise UserError(f"{self.path} has no records with a superclass in {which}, so no scaler: add such records")
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
        classes=tuple(content["classes"]),
        ecg_id=np.array(content["ecg_id"], np.int64),
        patient_id=np.array(content["patient_id"], np.int64),
        fold=np.array(content["fold"], np.int64),
        scp_codes=content["scp_codes"],
        statements=content["statements"],
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


def open_shard(folder: Path, shard: Shard, length: int, leads: int) -> np.ndarray:
    """Memory-map one shard, after its checksum.

    Returns:
        (records, length, leads) int16, read-only.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    path = folder / shard.file
    try:
        checksum = crc32(path)
    except FileNotFoundError:
        raise UserError(f"there is no shard {path}: {_REDO}") from None
    if checksum != shard.crc32:
        raise UserError(f"the shard {path} does not match its checksum: {_REDO}")
    mapped = np.load(path, mmap_mode="r")
    if mapped.shape != (shard.records, length, leads) or mapped.dtype != np.dtype("<i2"):
        raise UserError(f"the shard {path} is not {shard.records} records of {length} samples: {_REDO}")
    return np.asarray(mapped)


def crc32(path: Path) -> int:
    """CRC-32 of a whole file (3 GB/s: a shard can be checked whenever it is opened)."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return zlib.crc32(np.memmap(file, np.uint8, mode="r").data) if size else 0
