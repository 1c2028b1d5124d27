"""Turn a PTB-XL folder into int16 shards, once: resumable, atomic, the manifest last."""

import hashlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from imlenet_jax.data.convert import Job, Part, convert, finished
from imlenet_jax.data.manifest import MANIFEST, OWN, OldManifest, canonical, read_manifest, write_manifest
from imlenet_jax.data.ptbxl import (
    DATABASE,
    LEADS,
    SAMPLING_RATES,
    SECONDS,
    STATEMENTS,
    TRUTH,
    Metadata,
    read_metadata,
    read_statements,
)
from imlenet_jax.data.records import signal_files
from imlenet_jax.data.scaling import Moments
from imlenet_jax.data.tasks import SUPERCLASS, Task, ptbxl_tasks
from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.files import exclusive

# Samples per lead in a shard: 3 MB whatever the sampling rate. A shuffled batch touches, and so verifies, a shard per
# record; larger ones would make the first batch slow, smaller ones `prepare`.
SHARD_SAMPLES = 128 * 1000
SCALER_FOLDS = range(1, 9)


class Prepared(NamedTuple):
    """What a call of `prepare_shards` did.

    Attributes:
        path: the folder of shards.
        records: recordings converted by this call; 0 when all was done before.
        seconds: what that took.
    """

    path: Path
    records: int
    seconds: float


def prepare(data_dir: Path, *args: Any, **kwargs: Any) -> Path:
    """`prepare_shards` for those who only want to know the folder of shards."""
    return prepare_shards(data_dir, *args, **kwargs).path


def prepare_shards(
    data_dir: Path,
    out: Path | None = None,
    sampling_rate: int = 100,
    workers: int | None = None,
    allow_missing: bool = False,
    progress: bool = True,
) -> Prepared:
    """Convert the WFDB files of a PTB-XL folder to shards and a manifest. Shards that are up to date are left alone.

    Args:
        data_dir: folder with `ptbxl_database.csv`, `scp_statements.csv` and `records100` or `records500`.
        out: folder of shards, made as needed; by default `imlenet_shards_<rate>` under `data_dir`.
        sampling_rate: 100 or 500 Hz.
        workers: threads; by default one per usable core.
        allow_missing: go on without the records whose files are missing.
        progress: draw a progress bar.

    Raises:
        UserError: anything in the folder is not as PTB-XL has it; no manifest is written then.
        OSError: `out` cannot be written, or the disk is full.

    Warns:
        DataWarning: some leads are flat.
    """
    data_dir = Path(data_dir)
    out = default_out(data_dir, sampling_rate) if out is None else Path(out)
    source = source_checksums(data_dir)
    is_current = partial(_is_current, out, data_dir, sampling_rate, source, allow_missing)
    if is_current():
        return Prepared(out, 0, 0.0)
    metadata, missing = _present(data_dir, read_metadata(data_dir / DATABASE, sampling_rate), allow_missing)
    tasks = ptbxl_tasks(read_statements(data_dir / STATEMENTS))
    with shards_anew(out, is_current) as needed:
        if not needed:
            return Prepared(out, 0, 0.0)
        jobs = _jobs(data_dir, out, sampling_rate, metadata, tasks[SUPERCLASS], source)
        start = time.perf_counter()
        parts, converted = _convert_all(jobs, workers or usable_cores(), progress)
        seconds = time.perf_counter() - start
        for job in jobs:
            if not job.target.is_file():
                raise UserError(f"{job.target} was removed while the other shards were made: run the command again")
        content = _manifest(jobs, parts, metadata, tasks)
        name = "synthetic" if (data_dir / TRUTH).exists() else "PTB-XL"
        origin = {"name": name, "folder": data_dir.resolve().name, **source, "missing": missing}
        write_manifest(out, {**content, "source": origin})
        remove_other_shards(out, {job.target for job in jobs})
    return Prepared(out, converted, seconds)


@contextmanager
def shards_anew(out: Path, is_current: Callable[[], bool]) -> Iterator[bool]:
    """Hold the folder `out`, made as needed, for shards that are to be made; False where another process has made them.

    What is there says no more that it is whole, until a manifest is written.

    Raises:
        UserError: there can be no such folder.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{out} cannot be a folder, a file is in its way: choose another one with --out") from None
    with exclusive(out / ".lock"):
        needed = not is_current()
        if needed:
            (out / MANIFEST).unlink(missing_ok=True)
            _remove(out.glob(".*.tmp"))
        yield needed


def remove_other_shards(out: Path, kept: set[Path]) -> None:
    """Remove shards that are not of these, and what was only there to go on from."""
    _remove(path for path in out.glob("shard-*") if path not in kept)


def default_out(data_dir: Path, sampling_rate: int) -> Path:
    """Where the shards of a PTB-XL folder go unless another folder is named."""
    if sampling_rate not in SAMPLING_RATES:
        raise UserError(f"PTB-XL has no recordings at {sampling_rate} Hz: --sampling_rate must be 100 or 500")
    return Path(data_dir) / f"imlenet_shards_{sampling_rate}"


def source_checksums(data_dir: Path) -> dict[str, str]:
    """sha256 of both tables, by which a change of the source is noticed.

    Raises:
        UserError: there is no such folder, or a table is missing.
    """
    if not data_dir.is_dir():
        raise UserError(f"there is no folder {data_dir}: give --data_dir a PTB-XL folder or prepared shards")
    checksums = {}
    for name in (DATABASE, STATEMENTS):
        try:
            checksums[name] = hashlib.sha256((data_dir / name).read_bytes()).hexdigest()
        except FileNotFoundError:
            raise UserError(
                f"there is no {name} in {data_dir}: give --data_dir a PTB-XL folder or prepared shards"
            ) from None
    return checksums


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_current(out: Path, data_dir: Path, sampling_rate: int, source: dict[str, str], allow_missing: bool) -> bool:
    if not (out / MANIFEST).exists():
        return False
    try:
        content = read_manifest(out)
    except OldManifest:
        return False  # made anew, which takes seconds
    if content["sampling_rate"] != sampling_rate:
        raise UserError(f"{out} holds shards at {content['sampling_rate']} Hz: choose another folder with --out")
    before = content["source"]
    if before["name"] == OWN:
        raise UserError(f"{out} holds shards of {OWN}: give it as --data_dir to use them, or move it away")
    missing = before["missing"]
    if any(before.get(name) != checksum for name, checksum in source.items()):
        return False
    if not all((out / shard["file"]).is_file() for shard in content["shards"]):
        return False
    if any((data_dir / f"{stem}.hea").exists() and not _lacks_files(data_dir / stem) for stem in missing):
        return False
    if missing and not allow_missing:
        raise _missing_error(data_dir, missing, len(content["ecg_id"]) + len(missing))
    return True


def _present(data_dir: Path, metadata: Metadata, allow_missing: bool) -> tuple[Metadata, list[str]]:
    """The records whose files are there, and the stems of those whose files are not."""
    names: dict[str, set[str]] = {}  # of a folder's files: one look at each folder, not at each file
    present: list[int] = []
    missing: list[str] = []
    for row, stem in enumerate(metadata.stems):
        folder, _, name = stem.rpartition("/")
        if folder not in names:
            path = data_dir / folder
            names[folder] = set(os.listdir(path)) if path.is_dir() else set()
        if f"{name}.hea" in names[folder] and (f"{name}.dat" in names[folder] or not _lacks_files(data_dir / stem)):
            present.append(row)
        else:
            missing.append(stem)
    if missing and not allow_missing:
        raise _missing_error(data_dir, missing, len(metadata.stems))
    if not present:
        raise UserError(f"{data_dir} has the files of no record at all: restore them from PTB-XL")
    return metadata.take(present), missing


def _lacks_files(stem: Path) -> bool:
    return not all(path.is_file() for path in signal_files(stem))


def _missing_error(data_dir: Path, stems: list[str], total: int) -> UserError:
    return UserError(
        f"{len(stems)} of {total} records in {data_dir} lack files, the first is {stems[0]}: "
        "complete the folder, or go on with what is there with --allow_missing True"
    )


def _jobs(
    data_dir: Path,
    out: Path,
    sampling_rate: int,
    metadata: Metadata,
    usual: Task,
    source: dict[str, str],
) -> list[Job]:
    labelled = usual.labels(metadata.scp_codes).any(axis=1)
    fitted = labelled & np.isin(metadata.fold, SCALER_FOLDS)
    size = SHARD_SAMPLES // (SECONDS * sampling_rate)
    jobs = []
    for number, start in enumerate(range(0, len(metadata.stems), size)):
        rows = slice(start, start + size)
        target = out / f"shard-{number:05d}.npy"
        stems, ids = metadata.stems[rows], metadata.ecg_id[rows].tolist()
        jobs.append(Job(target, data_dir, sampling_rate, ids, stems, fitted[rows], source))
    return jobs


def _convert_all(jobs: list[Job], workers: int, progress: bool) -> tuple[list[Part], int]:
    """All parts, in order, and how many recordings had to be converted."""
    stop = threading.Event()
    lock = threading.Lock()
    converted = 0
    with tqdm(total=sum(len(job.stems) for job in jobs), desc="preparing", unit="record", disable=not progress) as bar:

        def advance(records: int) -> None:
            nonlocal converted
            if stop.is_set():
                raise InterruptedError("another shard has failed")
            with lock:
                converted += records
                bar.update(records)

        def run(job: Job) -> Part:
            part = finished(job)
            if part is None:
                return convert(job, advance)
            with lock:
                bar.update(len(job.stems))
            return part

        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(run, job) for job in jobs]
            try:
                return [future.result() for future in futures], converted
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise


def _manifest(jobs: list[Job], parts: list[Part], metadata: Metadata, tasks: dict[str, Task]) -> dict[str, Any]:
    flat = [entry for part in parts for entry in part.flat]
    if flat:
        ecg_id, lead = flat[0]
        warnings.warn(f"{len(flat)} leads are flat, the first is lead {lead} of ecg_id {ecg_id}", DataWarning, 4)
    data = {
        "sampling_rate": jobs[0].sampling_rate,
        "length": SECONDS * jobs[0].sampling_rate,
        "leads": LEADS,
        "ecg_id": metadata.ecg_id.tolist(),
        "patient_id": metadata.patient_id.tolist(),
        "fold": metadata.fold.tolist(),
        "scp_codes": metadata.scp_codes,
    }
    return {
        **described(data, [job.target for job in jobs], [part._asdict() for part in parts]),
        "flat_leads": flat,
        "tasks": {task.name: {"classes": task.classes, "statements": task.statements} for task in tasks.values()},
        "about": metadata.about,
    }


def described(data: dict[str, Any], shards: Sequence[Path], parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a manifest says of signals: `data`, the shards and calibrations of their parts, a fingerprint, and the scaler."""
    table: dict[bytes, int] = {}
    distinct: dict[bytes, Any] = {}
    calibration: list[int] = []
    for part in parts:
        keys = [canonical(entry) for entry in part["calibrations"]]
        numbers = [table.setdefault(key, len(table)) for key in keys]
        distinct |= dict(zip(keys, part["calibrations"], strict=True))
        calibration += [numbers[local] for local in part["calibration"]]
    scaler = Moments(entry for part in parts for entry in part["moments"]).scaler()
    data = {
        **data,
        "calibrations": [{"gain": distinct[key][0], "baseline": distinct[key][1]} for key in table],
        "calibration": calibration,
        "shards": [
            {"file": target.name, "records": len(part["calibration"]), "crc32": f"{part['crc32']:08x}"}
            for target, part in zip(shards, parts, strict=True)
        ],
    }
    return {
        "fingerprint": hashlib.sha256(canonical(data)).hexdigest(),
        "scaler": {"mean": scaler[0], "std": scaler[1]} if scaler else None,
        **data,
    }


def _remove(paths: Iterator[Path]) -> None:
    for path in list(paths):
        path.unlink(missing_ok=True)
