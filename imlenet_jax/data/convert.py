"""One shard's worth of recordings: read, check, write. A finished shard leaves a small JSON beside it to resume from."""

import hashlib
import io
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imlenet_jax.data.manifest import VERSION, canonical
from imlenet_jax.data.ptbxl import LEADS, SECONDS
from imlenet_jax.data.records import INVALID, Recording, read_recording
from imlenet_jax.data.scaling import Moments, sums_and_squares
from imlenet_jax.errors import UserError
from imlenet_jax.files import parse_json, write_atomically

_CHUNK = 64  # recordings checked at a time: they stay in the cache


class Job(NamedTuple):
    """One shard to make.

    Attributes:
        target: the `.npy` file.
        folder: the PTB-XL folder.
        sampling_rate: Hz.
        ecg_id: n integers.
        stems: n records relative to `folder`.
        fitted: (n,) bool, the records that count for the scaler.
        source: checksums of the metadata.
    """

    target: Path
    folder: Path
    sampling_rate: int
    ecg_id: list[int]
    stems: list[str]
    fitted: np.ndarray
    source: dict[str, str]

    @property
    def key(self) -> str:
        """sha256 of all that decides what the shard holds, as far as it is known before reading it."""
        parts = [VERSION, self.sampling_rate, self.ecg_id, self.stems, self.fitted.tolist(), self.source]
        return hashlib.sha256(canonical(parts)).hexdigest()


class Part(NamedTuple):
    """What the manifest needs to know of a finished shard.

    Attributes:
        key: `Job.key`.
        crc32: of the whole file.
        calibrations: the distinct (gain, baseline) of the shard, each 12 numbers.
        calibration: per record, which of them.
        moments: `Moments.entries` over the records that count for the scaler.
        flat: (ecg_id, lead) of each lead without any change.
    """

    key: str
    crc32: int
    calibrations: list[list[list[float]]]
    calibration: list[int]
    moments: list[list[float]]
    flat: list[list[Any]]


def finished(job: Job) -> Part | None:
    """The part of a shard that an interrupted run has completed and that is still whole, else None."""
    try:
        values = read_part(job.target, job.key)
        return None if values is None else Part(**values)
    except TypeError:
        return None


def read_part(target: Path, key: str) -> dict[str, Any] | None:
    """What `write_shard` left beside a shard; None unless it has this key and both are whole."""
    try:
        seal, _, body = target.with_suffix(".json").read_bytes().partition(b"\n")
        values = parse_json(body) if seal == _seal(body) else None
        whole = values is not None and values["key"] == key and zlib.crc32(target.read_bytes()) == values["crc32"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return values if whole else None


def write_shard(target: Path, data: memoryview, key: str, about: dict[str, Any]) -> dict[str, Any]:
    """Write a shard, and beside it a small JSON of `about` with its key and checksum to go on from; returns that."""
    write_atomically(target, data)
    values = {"key": key, "crc32": zlib.crc32(data), **about}
    body = canonical(values)
    write_atomically(target.with_suffix(".json"), _seal(body) + b"\n" + body)
    return values


def convert(job: Job, advance: Callable[[int], None]) -> Part:
    """Read the recordings of one shard, check them, and write it and its part.

    Args:
        job: which shard.
        advance: called with the number of recordings done since the last call; an exception from it ends the work.

    Raises:
        UserError: a record is missing, damaged or of another shape.
    """
    length = SECONDS * job.sampling_rate
    file, signals = empty_array((len(job.stems), length, len(LEADS)))
    table: dict[tuple, int] = {}
    index: list[int] = []
    moments = Moments()
    flat: list[list[Any]] = []
    for start in range(0, len(signals), _CHUNK):
        rows = slice(start, start + _CHUNK)
        stems = [job.folder / stem for stem in job.stems[rows]]
        recordings = [read_recording(stem, job.sampling_rate) for stem in stems]
        for target, recording in zip(signals[rows], recordings, strict=True):
            target[...] = recording.signal
        by_lead = np.ascontiguousarray(signals[rows].transpose(0, 2, 1))
        sums, squares = sums_and_squares(by_lead)
        still = _check_samples(by_lead, sums, recordings, stems)
        flat += [[job.ecg_id[start + row], LEADS[lead]] for row, lead in np.argwhere(still).tolist()]
        chunk = [table.setdefault((rec.gain, rec.baseline), len(table)) for rec in recordings]
        index += chunk
        for key, number in table.items():
            rows_of = job.fitted[rows] & (np.array(chunk) == number)
            moments.update(sums[rows_of], squares[rows_of], length, *key)
        advance(len(recordings))
    about = {
        "calibrations": [[list(gain), list(baseline)] for gain, baseline in table],
        "calibration": index,
        "moments": [list(entry) for entry in moments.entries() if entry[2]],
        "flat": flat,
    }
    return Part(**write_shard(job.target, file.data, job.key, about))


def _seal(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def _check_samples(by_lead: np.ndarray, sums: np.ndarray, recordings: list[Recording], stems: list[Path]) -> np.ndarray:
    """Refuse invalid samples and wrong header checksums; returns (n, leads) bool, where a lead is flat."""
    lowest = by_lead.min(axis=2)
    for row, lead in np.argwhere(lowest == INVALID).tolist():
        raise UserError(
            f"{stems[row]} has an invalid sample ({INVALID}, in effect NaN) in lead {LEADS[lead]}: "
            "restore the record from PTB-XL or take it out of ptbxl_database.csv"
        )
    flat = lowest == by_lead.max(axis=2)
    expected = np.array(
        [
            [total if checksum is None else checksum for checksum, total in zip(recording.checksum, row, strict=True)]
            for recording, row in zip(recordings, sums.tolist(), strict=True)
        ]
    )
    # A flat lead is reported as such, whatever its checksum.
    for row, lead in np.argwhere(((sums - expected) % 65536 != 0) & ~flat).tolist():
        raise UserError(
            f"the signal file of {stems[row]}.hea does not match that header's checksum of lead {LEADS[lead]}: "
            "restore the record from PTB-XL"
        )
    return flat


def empty_array(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of a `.npy` file of int16 and the array inside them, so that nothing is copied to write it."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i2", "fortran_order": False, "shape": shape})
    file = np.empty(header.tell() + 2 * math.prod(shape), np.uint8)
    file[: header.tell()] = np.frombuffer(header.getvalue(), np.uint8)
    return file, file[header.tell() :].view("<i2").reshape(shape)
