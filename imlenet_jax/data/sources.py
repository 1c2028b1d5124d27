"""Recordings as they lie on disk, in whatever leads, units and rate: WFDB records, `.csv`, `.npy` and files of ECG machines."""

import csv
import gzip
import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from imlenet_jax.data.clinical import SUFFIXES, read_clinical
from imlenet_jax.data.headers import GAIN, Signal, WfdbHeader, parse_wfdb
from imlenet_jax.data.leads import unit_of
from imlenet_jax.data.records import (
    INVALID,
    MAX_VALUES,
    brief,
    check_files,
    check_memory,
    check_values,
    read_header,
    read_wfdb_header,
)
from imlenet_jax.errors import UserError

MAX_CSV_BYTES = 2**30
MAX_ROW = 2**16  # characters in the first row of a .csv
SAMPLING_RATES = (50, 50_000)  # Hz: less holds no QRS complex, more no ECG has
TABLES = (".csv", ".npy", ".csv.gz")
WFDB = (".hea", ".dat", ".mat")
_RESTORE = "restore the record or leave it out"


@dataclass(frozen=True)
class TableFormat:
    """What a `.csv` or `.npy` file does not say of itself.

    Attributes:
        sampling_rate: Hz; needed.
        leads: the columns, in their order; needed unless the first row of a `.csv` names them.
        unit: mV, uV or V; by default what the column's name says in brackets, else mV.
    """

    sampling_rate: float | None = None
    leads: Sequence[str] | None = None
    unit: str | None = None


class Source(NamedTuple):
    """A recording as its file has it: `signal` is `(samples, columns)`, numbers in `units`; NaN where samples are missing.

    `notes` say what had to be assumed; `part` is which of several recordings in a file it is, as `[3]`.
    """

    path: Path
    signal: np.ndarray
    sampling_rate: float
    leads: tuple[str, ...]
    units: tuple[str, ...]
    notes: tuple[str, ...] = ()
    part: str = ""

    @property
    def name(self) -> str:
        """The record's name: that of its file without suffix; machines write files without any, or numbers with dots."""
        path = Path(self.path.name.removesuffix(".gz"))
        return (path.stem if path.suffix.lower() in (*WFDB, *TABLES, *SUFFIXES) else path.name) + self.part


def is_table(path: Path) -> bool:
    """Whether a file is a table of numbers, which does not say what they are, and no WFDB record."""
    return path.name.endswith(TABLES)


def file_of(path: Path) -> Path:
    """The file that a recording is read from: of a WFDB record with or without suffix its header, of all else itself."""
    if is_table(path) or is_clinical(path):
        return path
    return path.with_suffix(".hea") if path.suffix in WFDB else Path(f"{path}.hea")


def is_clinical(path: Path) -> bool:
    """Whether this is a file, but neither a table nor of a WFDB record: what ECG machines write has any suffix."""
    if is_table(path) or path.suffix in WFDB or not path.is_file():
        return False
    return path.suffix.lower() in SUFFIXES or not Path(f"{path}.hea").is_file()


def find_records(paths: Iterable[Path]) -> list[Path]:
    """The files that `paths` mean, each once: of WFDB records the header.

    A path is a WFDB record with or without suffix, a `.csv`, `.csv.gz` or `.npy` file, one of an ECG machine, or a folder: of
    that all WFDB records at any depth, or if there is none all `.csv` and `.npy` files, or if there is none those that ECG
    machines write.

    Raises:
        UserError: there is nothing of that name, or nothing to read in the folder.
    """
    found: dict[Path, None] = {}
    for path in paths:
        file = file_of(path)
        if file.is_file():
            files = [file]
        elif path.is_dir():
            files = sorted(path.rglob("*.hea")) or sorted(file for end in TABLES for file in path.rglob(f"*{end}"))
            files = files or sorted(
                file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()
            )
            if not files:
                raise UserError(f"--dir {path}: this folder holds no .hea, .csv, .npy file, nor one of an ECG machine")
        else:
            raise UserError(
                f"--dir {path}: there is no {file}; name a WFDB record, another file of an ECG, or a folder"
            )
        found |= dict.fromkeys(files)
    return list(found)


def read_source(path: Path, table: TableFormat | None = None) -> Source:
    """The recording of a file that holds but one: `read_sources`."""
    sources = read_sources(path, table)
    if len(sources) != 1:
        raise UserError(f"{path} holds {len(sources)} recordings, not one")
    return sources[0]


def read_sources(path: Path, table: TableFormat | None = None) -> list[Source]:
    """Read a WFDB record (with or without `.hea`), a `.csv`, `.csv.gz` or `.npy` file, or one of an ECG machine, as it is.

    Several recordings are only in a `.npy` of shape (n, samples, leads) or (n, leads, samples).

    Raises:
        UserError: the file is missing, damaged or too large, refers to files outside its folder, or `table` lacks
            something; the message names the file.
    """
    clinical = is_clinical(path)
    path = path if is_table(path) or clinical or path.suffix == ".hea" else Path(f"{path}.hea")
    if not path.is_file():
        raise UserError(f"there is no {path}")
    if is_table(path):
        sources = _read_table(path, table or TableFormat())
    else:
        sources = [_read_clinical(path) if clinical else _read_wfdb(path)]
    low, high = SAMPLING_RATES
    rate = sources[0].sampling_rate
    if not low <= rate <= high:
        raise UserError(f"{path} says {rate:g} Hz; an ECG has between {low} and {high:,}")
    return sources


def _read_table(path: Path, table: TableFormat) -> list[Source]:
    if table.sampling_rate is None:
        raise UserError(f"{path} does not say its sampling rate: give --sampling_rate in Hz")
    names, signals = (None, _read_npy(path)) if path.suffix == ".npy" else _read_csv(path)
    leads = table.leads or names
    if leads is None:
        raise UserError(f"{path} does not name its leads: give --leads, such as I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6")
    notes: tuple[str, ...] = ()
    rows, columns = signals.shape[-2:]
    if path.suffix == ".npy" and columns != len(leads) == rows:
        signals, notes = signals.swapaxes(-1, -2), ("rows were taken for leads",)
    elif columns != len(leads):
        raise UserError(f"{path} has {columns} columns, but --leads names {len(leads)}: correct it")
    leads = [name or f"column {place}" for place, name in enumerate(leads, start=1)]
    units = tuple(table.unit or unit_of(name) or "mV" for name in names or leads)
    parts = [""] if signals.ndim == 2 else [f"[{number}]" for number in range(len(signals))]
    found = signals[None] if signals.ndim == 2 else signals
    rate = table.sampling_rate
    return [Source(path, each, rate, tuple(leads), units, notes, part) for each, part in zip(found, parts, strict=True)]


def _read_clinical(path: Path) -> Source:
    found = read_clinical(path)
    units = ("mV",) * len(found.leads)
    return Source(path, found.signal, found.sampling_rate, found.leads, units, found.notes)


def _read_wfdb(path: Path) -> Source:
    header = parse_wfdb(read_header(str(path)))
    return _read_by_wfdb(path) if header is None else _read_plain(path, header)


def _read_plain(path: Path, header: WfdbHeader) -> Source:
    """A record in format 16, which nearly all are: a tenth of the time that wfdb takes, and headers that it refuses."""
    if not all(each.name for each in header.signals):
        raise UserError(f"{path} lacks the name of a lead: {_RESTORE}")
    check_files([each.file for each in header.signals], str(path), _RESTORE)
    files: dict[str, list[int]] = {}
    for place, each in enumerate(header.signals):
        files.setdefault(each.file, []).append(place)
    frames = {name: _frames(path, name, [header.signals[place] for place in places]) for name, places in files.items()}
    length = header.length or min(count for count, _ in frames.values())
    check_values(length * len(header.signals), str(path), _RESTORE)
    by_lead = np.empty((len(header.signals), length), np.int16)
    for name, places in files.items():
        held, rest = frames[name]
        if header.length is None and rest:
            raise UserError(f"{path.parent / name} is cut off within a sample of all leads: {_RESTORE}")
        if held < length:
            raise UserError(f"{path.parent / name} holds {held:,} of {length:,} samples per lead: {_RESTORE}")
        offset, count = header.signals[places[0]].offset, length * len(places)
        steps = np.fromfile(path.parent / name, "<i2", count, offset=offset).reshape(length, len(places))
        by_lead[slice(None) if len(files) == 1 else places] = steps.T
    gain = np.array([each.gain or GAIN for each in header.signals])[:, None]
    signal = (by_lead - np.array([each.baseline for each in header.signals], float)[:, None]) / gain
    if (missing := by_lead == INVALID).any():
        signal[missing] = np.nan
    leads, units = (tuple(getattr(each, what) for each in header.signals) for what in ("name", "unit"))
    stated = [each.checksum for each in header.signals]
    notes = assumed_gain([each.gain for each in header.signals]) + wrong_sums(leads, stated, by_lead)
    return Source(path, signal.T, header.sampling_rate, leads, units, tuple(notes))


def _frames(path: Path, name: str, signals: Sequence[Signal]) -> tuple[int, int]:
    """How many samples of each of these leads their file holds, and how many bytes are left over."""
    try:
        size = (path.parent / name).stat().st_size
    except FileNotFoundError:
        raise UserError(f"there is no {path.parent / name}, which {path} refers to: {_RESTORE}") from None
    offsets = {each.offset for each in signals}
    if len(offsets) > 1:
        raise UserError(f"{path} lets the samples of {name} begin at several places: {_RESTORE}")
    return divmod(max(0, size - offsets.pop()), 2 * len(signals))


def assumed_gain(gains: Sequence[float | None]) -> list[str]:
    """A note where a header does not say how many steps a mV has; WFDB's default is seldom what was meant."""
    unsaid = sum(not gain for gain in gains)
    if not unsaid:
        return []
    which = "no lead" if unsaid == len(gains) else f"{unsaid} of {len(gains)} leads"
    told = f"{which} has a gain" if unsaid == len(gains) else f"{which} have no gain"
    return [f"{told} in the header: {GAIN:g} steps per mV were assumed, so amplitudes may be wrong"]


def wrong_sums(leads: Sequence[str], stated: Sequence[int | None], steps: np.ndarray) -> list[str]:
    """A note where the samples (leads, length) are not those that the header's checksums were made of."""
    sums = steps.sum(axis=1, dtype=np.int64)
    wrong = [
        lead
        for lead, total, found in zip(leads, stated, sums.tolist(), strict=True)
        if total is not None and (found - total) % 65536
    ]
    return (
        [f"the header's checksum of {', '.join(wrong)} is not that of the samples: is the file whole?"] if wrong else []
    )


def _read_by_wfdb(path: Path) -> Source:
    import wfdb  # slow to import

    stem = str(path.with_suffix(""))
    raw = read_wfdb_header(stem, str(path), _RESTORE)
    if isinstance(raw, wfdb.MultiRecord):
        raise UserError(f"{path} is a record of several segments: name its segments one by one")
    if raw.n_sig and raw.sig_len is None:
        raise UserError(
            f"{path} does not say how many samples it has, and only of format 16 the file tells: {_RESTORE}"
        )
    if not raw.n_sig or not raw.sig_len or not all(raw.sig_name or [None]) or not raw.fs:
        raise UserError(f"{path} lacks its sampling rate, its length or the name of a lead: {_RESTORE}")
    if len(raw.file_name) != raw.n_sig:
        raise UserError(f"{path} describes {len(raw.file_name)} leads, but counts {raw.n_sig}: {_RESTORE}")
    check_files(raw.file_name, str(path), _RESTORE)
    for name in raw.file_name:
        if not (path.parent / name).is_file():
            raise UserError(f"there is no {path.parent / name}, which {path} refers to: {_RESTORE}")
    check_memory(raw, str(path), _RESTORE)
    try:
        record: Any = wfdb.rdrecord(stem, physical=False)
        signal = record.dac()
    except Exception as error:
        raise UserError(f"the signals of {path} are not readable ({brief(error)}): {_RESTORE}") from None
    if signal.shape != (raw.sig_len, raw.n_sig):
        raise UserError(f"the signals of {path} are not {raw.sig_len} samples of {raw.n_sig} leads: {_RESTORE}")
    notes = wrong_sums(raw.sig_name, raw.checksum, record.d_signal.T)
    return Source(path, signal, float(raw.fs), tuple(raw.sig_name), tuple(raw.units), tuple(notes))


def _read_csv(path: Path) -> tuple[list[str] | None, np.ndarray]:
    """The names in the first row, if it has any, and the numbers `(rows, columns)`.

    Cells are separated by commas, semicolons, tabs or spaces; beside semicolons and tabs a decimal comma is understood.
    """
    if path.stat().st_size > MAX_CSV_BYTES:
        raise UserError(f"{path} has more than {MAX_CSV_BYTES // 2**20} MiB: cut it into parts")
    with _open_text(path) as file:
        try:
            start = next((line for line in iter(lambda: file.readline(MAX_ROW), "") if line.strip()), None)
            if start is None:
                raise UserError(f"{path} is empty")
            if len(start) == MAX_ROW:
                raise UserError(f"the first row of {path} has more than {MAX_ROW:,} characters: it is no recording")
            separator = next((mark for mark in "\t;," if mark in start), None)
            first = start.split() if separator is None else next(csv.reader([start], delimiter=separator))
            # pandas numbers the columns of a table without names: 0,1,2 is a row of names too.
            named = not all(map(_is_number, first)) or first == [str(place) for place in range(len(first))] != ["0"]
            body = _rows(path, file if named else itertools.chain([start], file), separator, len(first))
            signal = np.loadtxt(body, delimiter=separator, ndmin=2, comments=None, quotechar='"')
        except UnicodeDecodeError:
            raise UserError(f"{path} is not a text file in UTF-8: save it as such") from None
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{path} is not a whole gzip file ({brief(error)}): {_RESTORE}") from None
        except (ValueError, csv.Error) as error:
            raise UserError(
                f"{path} is not a table of numbers ({brief(error)}; rows are counted after the names)"
            ) from None
    if signal.shape[1] != len(first):
        raise UserError(f"{path} has {len(first)} cells in its first row and {signal.shape[1]} in the others")
    return ([name.strip() for name in first] if named else None), signal


def _open_text(path: Path) -> TextIO:
    """A `.csv`, or what a `.csv.gz` holds: no more of it than `_rows` takes is unpacked."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return open(path, encoding="utf-8-sig")


def _rows(path: Path, lines: Iterable[str], separator: str | None, columns: int) -> Iterator[str]:
    """The lines that hold anything, with decimal points; no more of them than `MAX_VALUES` allows."""
    count = 0
    for line in lines:
        if line.strip():
            count += 1
            if count * columns > MAX_VALUES:
                raise UserError(f"{path} has more than {MAX_VALUES:,} values: cut it into parts")
            yield line.replace(",", ".") if separator in ("\t", ";") else line
    if not count:
        raise UserError(f"{path} has a row of names and no other: it is empty")


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _read_npy(path: Path) -> np.ndarray:
    try:
        # Mapped: neither a pickle is run nor memory taken before the shape is known.
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # numpy evaluates and splits the header in ways that fail in any way
        raise UserError(f"{path} is not a .npy file of numbers ({brief(error)})") from None
    if array.dtype.kind not in "fiu" or array.ndim not in (2, 3):
        raise UserError(
            f"{path} holds {array.dtype} of shape {array.shape}, not numbers (samples, leads) or (n, samples, leads)"
        )
    _check_count(path, array.size // max(1, array.shape[-1]), array.shape[-1])
    return np.array(array, np.float64)


def _check_count(path: Path, samples: int, columns: int) -> None:
    if not 0 < samples * columns <= MAX_VALUES:
        advice = "cut it into parts" if samples * columns else "it is empty"
        raise UserError(f"{path} has {samples:,} samples of {columns} leads, not 1 to {MAX_VALUES:,} values: {advice}")
