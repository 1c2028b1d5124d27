"""From a PTB-XL folder to int16 shards and a manifest, once.

Records are read by threads, a shard each: reading and checking happen in system calls and numpy, which let other
threads run. Every shard is followed by a note of what was learned from it, so that an interrupted run resumes; the
manifest comes last and makes the folder valid.
"""

import fcntl
import hashlib
import io
import json
import os
import threading
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from imlenet_jax.data.manifest import MANIFEST, canonical, read_manifest, write_manifest
from imlenet_jax.data.ptbxl import (
    DATABASE,
    LEADS,
    SAMPLING_RATES,
    SECONDS,
    STATEMENTS,
    SUPERCLASSES,
    Metadata,
    read_metadata,
    read_statements,
    superclass_labels,
)
from imlenet_jax.data.records import INVALID, Recording, read_recording, signal_files
from imlenet_jax.data.scaling import Moments, sums_and_squares
from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.files import write_atomically, write_json

RECORDS_PER_SHARD = 1024  # 24 MB at 100 Hz
SCALER_FOLDS = range(1, 9)
_CHUNK = 64  # records checked at a time: 6 MB of float64 at 100 Hz


class Job(NamedTuple):
    """One shard to make: where, from which records (`scaled`: those that enter the scaler), and for which source."""

    folder: Path
    number: int
    stems: list[Path]
    scaled: np.ndarray
    sampling_rate: int
    source: str

    @property
    def file(self) -> str:
        """The shard's name."""
        return f"shard-{self.number:05d}.npy"

    @property
    def note(self) -> Path:
        """Where what was learned from the shard is kept until the manifest is written."""
        return self.folder / f"shard-{self.number:05d}.json"


def prepare(
    data_dir: Path,
    out: Path | None = None,
    sampling_rate: int = 100,
    workers: int | None = None,
    allow_missing: bool = False,
    progress: bool = True,
) -> Path:
    """Write shards and manifest of a PTB-XL folder to `out` (by default `imlenet_shards_<rate>` in it).

    Does nothing where they are there already and the source's tables have not changed.

    Raises:
        UserError: the tables or a record cannot be used, or files of records are missing and not `allow_missing`.
    """
    data_dir = Path(data_dir)
    if sampling_rate not in SAMPLING_RATES:
        raise UserError(f"--sampling_rate {sampling_rate}: PTB-XL has {' and '.join(map(str, SAMPLING_RATES))} Hz")
    if not data_dir.is_dir():
        raise UserError(f"{data_dir}: no such folder; --data_dir must be a PTB-XL folder")
    metadata = read_metadata(data_dir / DATABASE, sampling_rate)
    statements = read_statements(data_dir / STATEMENTS)
    present = _present(data_dir, metadata, allow_missing)
    missing = metadata.ecg_id[~present].tolist()
    metadata = _take(metadata, np.flatnonzero(present))
    source = _source(data_dir, sampling_rate, missing)
    out = Path(out) if out else default_out(data_dir, sampling_rate)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        if not _is_current(out, source):
            _build(data_dir, out, metadata, statements, missing, sampling_rate, source, workers, progress)
    return out


def default_out(data_dir: Path, sampling_rate: int) -> Path:
    """Where the shards of a PTB-XL folder go unless told otherwise."""
    return Path(data_dir) / f"imlenet_shards_{sampling_rate}"


def _build(
    data_dir: Path,
    out: Path,
    metadata: Metadata,
    statements: dict[str, str],
    missing: list[int],
    sampling_rate: int,
    source: str,
    workers: int | None,
    progress: bool,
) -> None:
    (out / MANIFEST).unlink(missing_ok=True)
    labelled = superclass_labels(metadata.scp_codes, statements).any(axis=1)
    scaled = labelled & np.isin(metadata.fold, SCALER_FOLDS)
    stems = [data_dir / stem for stem in metadata.stems]
    jobs = [
        Job(out, number, stems[start : start + RECORDS_PER_SHARD], scaled[start : start + RECORDS_PER_SHARD],
            sampling_rate, source)
        for number, start in enumerate(range(0, len(stems), RECORDS_PER_SHARD))
    ]  # fmt: skip
    notes = _run(jobs, workers or os.cpu_count() or 1, progress)

    _warn_flat([ecg_id for note, job in zip(notes, jobs, strict=True) for ecg_id in _flat_ids(note, job, metadata)])
    scaler = Moments(entry for note in notes for entry in note["moments"]).scaler()
    table = sorted({tuple(map(tuple, calibration)) for note in notes for calibration in note["calibrations"]})
    position = {calibration: index for index, calibration in enumerate(table)}
    calibration = [
        position[tuple(map(tuple, note["calibrations"][index]))] for note in notes for index in note["calibration"]
    ]
    columns = {
        "ecg_id": metadata.ecg_id.tolist(),
        "patient_id": metadata.patient_id.tolist(),
        "fold": metadata.fold.tolist(),
        "scp_codes": metadata.scp_codes,
        "calibration": calibration,
    }
    shards = [
        {"file": job.file, "records": len(job.stems), "crc32": note["crc32"]}
        for job, note in zip(jobs, notes, strict=True)
    ]
    content = {
        "source": {"folder": str(data_dir), "sha256": source, "missing": missing},
        "sampling_rate": sampling_rate,
        "length": SECONDS * sampling_rate,
        "leads": LEADS,
        "classes": SUPERCLASSES,
        "statements": statements,
        "scaler": None if scaler is None else {"mean": scaler[0], "std": scaler[1]},
        "calibrations": [{"gain": gain, "baseline": baseline} for gain, baseline in table],
        "shards": shards,
        **columns,
    }
    identity = {key: content[key] for key in ("sampling_rate", "leads", "statements", "calibrations", "shards", *columns)}
    write_manifest(out, content | {"fingerprint": hashlib.sha256(canonical(identity)).hexdigest()})
    _sweep(out, {job.file for job in jobs})


def _run(jobs: list[Job], workers: int, progress: bool) -> list[dict[str, Any]]:
    total = sum(len(job.stems) for job in jobs)
    stop = threading.Event()
    with (
        tqdm(total=total, desc="preparing", unit="record", disable=not progress) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        try:
            return list(pool.map(lambda job: _make_shard(job, bar, stop), jobs))
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _make_shard(job: Job, bar: Any, stop: threading.Event) -> dict[str, Any]:
    """Write one shard and its note, or take those of an interrupted run."""
    finished = _finished_note(job)
    if finished is not None:
        bar.update(len(job.stems))
        return finished
    signals = np.empty((len(job.stems), SECONDS * job.sampling_rate, len(LEADS)), np.int16)
    moments, flat = Moments(), []
    calibrations: dict[tuple, int] = {}
    calibration: list[int] = []
    for start in range(0, len(job.stems), _CHUNK):
        if stop.is_set():
            break
        stems = job.stems[start : start + _CHUNK]
        recordings = [read_recording(stem, job.sampling_rate) for stem in stems]
        chunk = signals[start : start + _CHUNK]
        np.stack([recording.signal for recording in recordings], out=chunk)
        by_lead = np.ascontiguousarray(chunk.transpose(0, 2, 1))
        sums, squares = sums_and_squares(by_lead)
        _check_samples(by_lead, sums, recordings, stems)
        flat += (start + np.flatnonzero((by_lead.max(2) == by_lead.min(2)).any(1))).tolist()
        scaled = job.scaled[start : start + _CHUNK]
        for index, recording in enumerate(recordings):
            key = (recording.gain, recording.baseline)
            calibration.append(calibrations.setdefault(key, len(calibrations)))
            if scaled[index]:
                rows = slice(index, index + 1)
                moments.update(sums[rows], squares[rows], chunk.shape[1], *key)
        bar.update(len(stems))
    if stop.is_set():
        return {}
    buffer = io.BytesIO()
    np.save(buffer, signals)
    data = buffer.getbuffer()
    write_atomically(job.folder / job.file, data)
    note = {
        "source": job.source,
        "crc32": f"{zlib.crc32(data):08x}",
        "calibrations": list(calibrations),
        "calibration": calibration,
        "moments": moments.entries(),
        "flat": flat,
    }
    write_json(job.note, note)
    return note


def _finished_note(job: Job) -> dict[str, Any] | None:
    try:
        note = json.loads(job.note.read_bytes())
        intact = note["source"] == job.source and len(note["calibration"]) == len(job.stems)
        return note if intact and f"{zlib.crc32((job.folder / job.file).read_bytes()):08x}" == note["crc32"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_samples(signals: np.ndarray, sums: np.ndarray, recordings: list[Recording], stems: list[Path]) -> None:
    """Refuse missing samples and sums that are not those of the headers; `signals` is (n, leads, length)."""
    if signals.min() == INVALID:
        record, lead, _ = np.argwhere(signals == INVALID)[0]
        raise UserError(f"{stems[record]}.dat has missing samples (NaN) in lead {LEADS[lead]}: restore or leave it out")
    for recording, stem, row in zip(recordings, stems, (sums % 65536).tolist(), strict=True):
        for lead, expected, found in zip(LEADS, recording.checksum, row, strict=True):
            if expected is not None and expected % 65536 != found:
                raise UserError(
                    f"{stem}.dat is damaged: lead {lead} does not add up to the checksum in its header; "
                    "restore the record from PTB-XL"
                )


def _flat_ids(note: dict[str, Any], job: Job, metadata: Metadata) -> list[int]:
    return metadata.ecg_id[job.number * RECORDS_PER_SHARD + np.array(note["flat"], np.int64)].tolist()


def _warn_flat(ecg_ids: list[int]) -> None:
    if ecg_ids:
        warnings.warn(f"{len(ecg_ids)} records have a flat lead, the first is ecg_id {ecg_ids[0]}", DataWarning, 2)


def _present(data_dir: Path, metadata: Metadata, allow_missing: bool) -> np.ndarray:
    """Which records have their files, (n,) bool."""
    stems = [data_dir / stem for stem in metadata.stems]
    present = np.array([stem.with_name(stem.name + ".hea").is_file() and _has_signals(stem) for stem in stems])
    if not present.all() and not allow_missing:
        raise UserError(
            f"{data_dir} lacks the files of {np.count_nonzero(~present)} of {len(present)} records, "
            f"the first is {stems[np.argmin(present)]}: complete the folder or pass --allow_missing True"
        )
    if not present.any():
        raise UserError(f"{data_dir} has no files of any record: complete the folder or check --sampling_rate")
    return present


def _has_signals(stem: Path) -> bool:
    # The name that PTB-XL gives; only where it is absent is the header asked.
    if stem.with_name(stem.name + ".dat").is_file():
        return True
    return all(file.is_file() for file in signal_files(stem))


def _take(metadata: Metadata, rows: np.ndarray) -> Metadata:
    return Metadata(
        metadata.ecg_id[rows],
        metadata.patient_id[rows],
        metadata.fold[rows],
        [metadata.scp_codes[row] for row in rows],
        [metadata.stems[row] for row in rows],
    )


def _source(data_dir: Path, sampling_rate: int, missing: list[int]) -> str:
    """What the shards depend on: the tables, the rate, and which records were left out."""
    digest = hashlib.sha256(canonical([RECORDS_PER_SHARD, sampling_rate, missing]))
    for name in (DATABASE, STATEMENTS):
        digest.update((data_dir / name).read_bytes())
    return digest.hexdigest()


def _is_current(out: Path, source: str) -> bool:
    try:
        content = read_manifest(out)
    except UserError:
        return False
    files = all((out / shard["file"]).is_file() for shard in content["shards"])
    return files and content["source"]["sha256"] == source


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """One `prepare` at a time in a folder; a second one says that it waits."""
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process is preparing {out}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep(out: Path, keep: set[str]) -> None:
    for path in out.glob("shard-*"):
        if path.name not in keep:
            path.unlink()
