"""Anybody's recordings to int16 shards, through the code that inference reads them with: parallel, resumable, nothing dropped silently."""

import contextlib
import csv
import hashlib
import io
import itertools
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from imlenet_jax.data.convert import empty_array, read_part, write_shard
from imlenet_jax.data.ecg import read_ecg
from imlenet_jax.data.listing import Listing
from imlenet_jax.data.manifest import MANIFEST, OWN, VERSION, OldManifest, canonical, read_manifest, write_manifest
from imlenet_jax.data.plausibility import wrong_source
from imlenet_jax.data.prepare import (
    SCALER_FOLDS,
    SHARD_SAMPLES,
    Prepared,
    described,
    remove_other_shards,
    shards_anew,
    usable_cores,
)
from imlenet_jax.data.ptbxl import LEADS, SECONDS
from imlenet_jax.data.records import signal_files
from imlenet_jax.data.scaling import Moments, sums_and_squares
from imlenet_jax.data.sources import TableFormat
from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.files import write_atomically

TASK = "labels"
REPORT = "prepare_report.csv"
STEPS_PER_MV = 1000  # of the shards: half a microvolt of rounding, as PTB-XL has
_TASK_SIZE = 8  # recordings that a worker is given at a time
_REPORT_COLUMNS = ("record", "windows", "why_left_out", "changed", "implausible", "deflection_mv")


@dataclass(frozen=True)
class Shape:
    """What every record of the shards is: leads, Hz, seconds, which names stand for a lead, what becomes of short ones."""

    leads: tuple[str, ...] = LEADS
    sampling_rate: int = 100
    seconds: float = SECONDS
    lead_map: Mapping[str, str] = field(default_factory=dict)
    short: str = "refuse"

    @property
    def length(self) -> int:
        """Samples per lead."""
        return round(self.seconds * self.sampling_rate)


class Taken(NamedTuple):
    """What was made of one recording.

    Attributes:
        signals: (windows, length, leads) int16.
        calibrations: per window (gain, baseline), each a number per lead.
        names: of the windows, such as `[0-10s]`; empty where there is but one.
        why: why it, or a window of it, was left out; empty where it was not.
        changed: what was changed to get here.
        implausible: what does not look like an ECG as its file describes it.
        deflection: mV that its leads typically deflect by; NaN where it could not be read.
    """

    signals: np.ndarray
    calibrations: list[tuple[tuple[float, ...], tuple[int, ...]]]
    names: list[str]
    why: str
    changed: str
    implausible: str
    deflection: float


def prepare_own(
    listing: Listing, out: Path, shape: Shape, workers: int | None = None, progress: bool = True
) -> Prepared:
    """Convert the recordings of a listing to shards, a manifest and a report. What is up to date is left alone.

    A recording is read by `read_ecg`, as inference reads it: leads in order or computed, mV, resampled, cut into windows,
    which keep the fold of the recording. What cannot be used is left out, and the report says why. A run that was ended
    goes on after its last finished shard. Memory does not grow with the recordings.

    Raises:
        UserError: no recording can be used, or `out` is in use, or no folder.
        OSError: `out` cannot be written, or the disk is full.
    """
    key = _key(listing, shape)
    is_current = partial(_is_current, out, key)
    if is_current():
        return Prepared(out, 0, 0.0)
    with shards_anew(out, is_current) as needed:
        if not needed:
            return Prepared(out, 0, 0.0)
        start = time.perf_counter()
        writer = Writer(listing, out, shape, key)
        resumed = writer.position[0]
        with tqdm(total=len(listing), initial=resumed, desc="preparing", unit="record", disable=not progress) as bar:
            for number, taken in _take_all(listing, shape, resumed, workers or usable_cores()):
                writer.add(number, taken)
                bar.update()
        writer.finish()
        return Prepared(out, len(listing) - resumed, time.perf_counter() - start)


def take(path: Path, table: TableFormat, shape: Shape) -> Taken:
    """Read one recording; what cannot be read is no error here, but said in the result."""
    nothing = np.empty((0, shape.length, len(shape.leads)), np.int16)
    try:
        windows = read_ecg(path, shape.leads, shape.sampling_rate, shape.seconds, table, shape.lead_map, shape.short)
    except (UserError, OSError) as error:
        return Taken(nothing, [], [], str(error), "", "", float("nan"))
    whole = [window for window in windows if window.complete]
    stored = [quantise(window.signal_mv) for window in whole]
    if any(abs(step) >= 2**31 for *_, baseline in stored for step in baseline):
        return Taken(
            nothing, [], [], "a lead lies millions of mV from 0: correct its unit, or its gain", "", "", float("nan")
        )
    findings = dict.fromkeys(itertools.chain(*(window.findings for window in windows)))
    left_out = len(windows) - len(whole)
    return Taken(
        np.stack([signal for signal, *_ in stored]) if stored else nothing,
        [(gain, baseline) for _, gain, baseline in stored],
        [window.span for window in whole],
        f"{left_out} of {len(windows)} windows lack samples" if left_out else "",
        "; ".join(windows[0].notes),
        "; ".join(findings),
        float(np.median([window.deflection_mv for window in windows])),
    )


def quantise(signal_mv: np.ndarray) -> tuple[np.ndarray, tuple[float, ...], tuple[int, ...]]:
    """Millivolts (length, leads) as int16 steps, with gain (steps per mV) and baseline (the step of 0 mV) of each lead.

    Steps are of 1 uV. A lead that is far from 0 mV has a baseline, one that spans more than 65 mV coarser steps.
    """
    low, high = signal_mv.min(axis=0).astype(float), signal_mv.max(axis=0).astype(float)
    gain = np.minimum(STEPS_PER_MV, 65_000 / np.maximum(high - low, 1e-9))
    fits = np.maximum(-low, high) * gain <= 32_500
    baseline = np.where(fits, 0, -np.round((low + high) / 2 * gain)).astype(np.int64)
    steps = np.round(signal_mv * gain + baseline).astype(np.int16)
    return steps, tuple(gain.tolist()), tuple(baseline.tolist())


class Writer:
    """Windows in the order of the listing to shards of one size, each with a small JSON to go on from.

    Attributes:
        position: the recording to go on with, and how many of its windows are in finished shards.
    """

    def __init__(self, listing: Listing, out: Path, shape: Shape, key: str):
        self.listing, self.out, self.shape, self.key = listing, out, shape, key
        self.size = max(1, SHARD_SAMPLES // shape.length)
        self.parts: list[dict[str, Any]] = []
        self.position = (0, 0)
        while part := read_part(self._target(len(self.parts)), key):
            self.parts.append(part)
            self.position = tuple(part["next"])
        self._rows: list[tuple[int, str, np.ndarray, Any]] = []  # that are in no shard yet
        self._report: list[list[Any]] = []

    def add(self, number: int, taken: Taken) -> None:
        """Take the windows of a recording, and write the shards that these fill."""
        known = self.position[1] if number == self.position[0] else 0
        entries = zip(taken.names, taken.signals, taken.calibrations, strict=True)
        rows = [(number, *entry) for entry in entries]
        line = [number, len(rows), taken.why, taken.changed, taken.implausible, taken.deflection]
        for place, row in enumerate(rows[known:], start=known + 1):
            self._rows.append(row)
            last = place == len(rows)
            if last:
                self._report.append(line)
            if len(self._rows) == self.size:
                self._write((number + 1, 0) if last else (number, place))
        if len(rows) == known:
            self._report.append(line)

    def finish(self) -> None:
        """Write the last shard, the report and the manifest; remove what was only there to go on from."""
        if self._rows or self._report:
            self._write((len(self.listing), 0))
        report = [line for part in self.parts for line in part["report"]]
        write_report(self.out / REPORT, self.listing, report)
        shards = [part for part in self.parts if part["rows"]]
        if not shards:
            remove_other_shards(self.out, set())  # once the recordings are mended, nothing is there to go on from
            raise UserError(f"no recording of {self.listing.path} can be used: {self.out / REPORT} says why")
        write_manifest(self.out, self._manifest(shards))
        told = wrong_source(np.array([line[-1] for line in report], float))
        if told:
            warnings.warn(f"{self.listing.path}: {told}", DataWarning, 4)
        remove_other_shards(self.out, {self._target(number) for number in range(len(shards))})

    def _target(self, number: int) -> Path:
        return self.out / f"shard-{number:05d}.npy"

    def _write(self, following: tuple[int, int]) -> None:
        """The windows at hand as a shard; with it all that a run needs to go on after it."""
        file, signals = empty_array((len(self._rows), self.shape.length, len(self.shape.leads)))
        table: dict[Any, int] = {}
        moments = Moments()
        for target, (number, _, signal_, calibration) in zip(signals, self._rows, strict=True):
            target[...] = signal_
            table.setdefault(calibration, len(table))
            if self.listing.fold[number] in SCALER_FOLDS:
                sums, squares = sums_and_squares(np.ascontiguousarray(signal_.T)[None])
                moments.update(sums, squares, self.shape.length, *calibration)
        about = {
            "rows": [(number, name) for number, name, *_ in self._rows],
            "calibrations": list(table),
            "calibration": [table[calibration] for *_, calibration in self._rows],
            "moments": [list(entry) for entry in moments.entries() if entry[2]],
            "report": [[None if value != value else value for value in line] for line in self._report],
            "next": following,
        }
        self.parts.append(write_shard(self._target(len(self.parts)), file.data, self.key, about))
        self._rows, self._report = [], []

    def _manifest(self, shards: list[dict[str, Any]]) -> dict[str, Any]:
        listing, shape = self.listing, self.shape
        rows = [row for part in shards for row in part["rows"]]
        numbers = [number for number, _ in rows]
        patients = {name: place for place, name in enumerate(sorted(set(listing.patient)))}
        about = {"record": listing.record, **listing.about}
        data = {
            "sampling_rate": shape.sampling_rate,
            "length": shape.length,
            "leads": shape.leads,
            "ecg_id": list(range(1, len(rows) + 1)),
            "patient_id": [patients[listing.patient[number]] for number in numbers],
            "fold": listing.fold[numbers].tolist(),
            "scp_codes": [dict.fromkeys(listing.labels[number], 100.0) for number in numbers],
        }
        return {
            **described(data, [self._target(place) for place in range(len(shards))], shards),
            "tasks": {
                TASK: {"classes": listing.classes, "statements": {c: c for c in listing.classes}, "unlabelled": True}
            },
            "about": {
                "window": [name for _, name in rows],
                **{name: [cells[number] for number in numbers] for name, cells in about.items()},
            },
            "source": {"name": OWN, "folder": listing.path.resolve().parent.name, "missing": [], "key": self.key},
        }


def write_report(path: Path, listing: Listing, lines: list[list[Any]]) -> None:
    """A row per recording: windows that were taken, what was changed, what is implausible, why it was left out."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(_REPORT_COLUMNS)
    for number, *rest, deflection in lines:
        writer.writerow([listing.record[number], *rest, "" if deflection is None else f"{deflection:.4g}"])
    write_atomically(path, file.getvalue().encode())


def _key(listing: Listing, shape: Shape) -> str:
    """sha256 of all that decides what the shards hold, of the recordings' files only the sizes; it moves with the folder."""
    sizes = [[part.stat().st_size if part.is_file() else None for part in _parts(file)] for file in listing.files]
    root = os.path.relpath(listing.root.resolve(), listing.path.resolve().parent)
    settings = [
        SHARD_SAMPLES,
        shape.leads,
        shape.sampling_rate,
        float(shape.seconds),
        sorted(shape.lead_map.items()),
        shape.short,
    ]
    return hashlib.sha256(canonical([VERSION, listing.checksum, listing.classes, root, sizes, *settings])).hexdigest()


def _parts(file: Path) -> list[Path]:
    """The files of a recording: a WFDB header, and those that it refers to."""
    if file.suffix == ".hea":
        with contextlib.suppress(UserError, OSError):
            return [file, *signal_files(file.with_suffix(""))]
    return [file]


def _is_current(out: Path, key: str) -> bool:
    if not (out / MANIFEST).exists():
        return False
    try:
        content = read_manifest(out)
    except OldManifest:
        return False
    if content["source"]["name"] != OWN:
        raise UserError(f"{out} holds shards of {content['source']['name']}: choose another folder with --out")
    return content["source"].get("key") == key and all((out / shard["file"]).is_file() for shard in content["shards"])


def _take_all(listing: Listing, shape: Shape, start: int, workers: int) -> Iterator[tuple[int, Taken]]:
    """Every recording from `start` on, in order; read by several processes, a few ahead of what is asked for."""
    jobs = [range(first, min(first + _TASK_SIZE, len(listing))) for first in range(start, len(listing), _TASK_SIZE)]
    work = [([listing.files[n] for n in job], [listing.formats[n] for n in job], shape) for job in jobs]
    if workers == 1 or len(jobs) < 2:
        for job, arguments in zip(jobs, work, strict=True):
            yield from zip(job, _take_several(*arguments), strict=True)
        return
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _follow_the_parent) as pool:
        try:
            for job, taken in zip(jobs, _in_order(pool, work, 2 * workers), strict=True):
                yield from zip(job, taken, strict=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _in_order(pool: Executor, work: Sequence[Any], ahead: int) -> Iterator[list[Taken]]:
    waiting: deque[Future[list[Taken]]] = deque()
    for arguments in work:
        waiting.append(pool.submit(_take_several, *arguments))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _take_several(files: Sequence[Path], formats: Sequence[TableFormat], shape: Shape) -> list[Taken]:
    return [take(file, table, shape) for file, table in zip(files, formats, strict=True)]


def _follow_the_parent() -> None:
    """In a process that reads: an interrupt is the parent's to handle, and where that is killed, this one ends, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
