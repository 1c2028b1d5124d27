"""`records.csv`: anybody's recordings and labels, a row each.

Columns: `record`, the path of any file that `read_ecg` takes; the labels, either columns of 0 and 1 or one column `labels`
with names between semicolons; and, where they are known, `patient_id`, `fold` (1 to 10) or `split` (train, val, test), and
for `.csv` and `.npy` files `sampling_rate`, `leads` and `unit`. All other columns are kept as they are.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imlenet_jax.data.ptbxl import ABOUT, MAX_TABLE_BYTES, parse_cell
from imlenet_jax.data.records import UNITS_PER_MV
from imlenet_jax.data.sources import TableFormat, file_of, is_table
from imlenet_jax.errors import UserError
from imlenet_jax.files import read_limited

RECORD, PATIENT, FOLD, SPLIT, LABELS = "record", "patient_id", "fold", "split", "labels"
FOLDS = {"train": 1, "val": 9, "test": 10}
"""The fold that a `split` means: train is on folds 1-8, validation on 9, test on 10, unless flags say otherwise."""

_FORMAT = ("sampling_rate", "leads", "unit")
_NO_LABELS = {RECORD, PATIENT, FOLD, SPLIT, *_FORMAT, *ABOUT}


@dataclass(frozen=True)
class Listing:
    """The rows of a `records.csv`.

    Attributes:
        path: the table.
        root: the folder that `record` is relative to.
        checksum: sha256 of it.
        record: n paths as the table has them.
        files: n files to read: of WFDB records the header.
        formats: n descriptions of `.csv` and `.npy` files.
        patient: n texts; the record where the table names no patients.
        fold: (n,) int64 from 1 to 10; no patient is in two.
        dealt: whether the folds were dealt here, and not given.
        classes: the labels that there are.
        labels: n lists of the labels that a record has.
        about: all other columns, n texts each.
    """

    path: Path
    root: Path
    checksum: str
    record: list[str]
    files: list[Path]
    formats: list[TableFormat]
    patient: list[str]
    fold: np.ndarray
    dealt: bool
    classes: tuple[str, ...]
    labels: list[list[str]]
    about: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.record)


def read_listing(path: Path, root: Path | None = None, classes: Sequence[str] | None = None) -> Listing:
    """Read a `records.csv`.

    Args:
        path: the table, with commas, semicolons or tabs between cells, in UTF-8.
        root: the folder that records lie in; that of the table unless given.
        classes: the labels that count, in this order. Else all names in the column `labels`, or all columns that hold
            nothing but 0 and 1.

    Raises:
        UserError: the table, or a cell, is not as above; a record is listed twice; or a patient is in two folds. The
            message names the line.
    """
    data = _read(path)
    columns, lines = _columns(path, data)
    if RECORD not in columns:
        raise UserError(f"{path} has no column '{RECORD}' with the paths of the recordings: add it")
    where = [f"line {line} of {path}" for line in lines]
    record = [_parse(_record, cell, RECORD, at) for cell, at in zip(columns[RECORD], where, strict=True)]
    _check_once(record, lines, path)
    root = path.parent if root is None else root
    files = [file_of(root / name) for name in record]
    names, labels = _labels(columns, where, path, classes)
    patient = columns.get(PATIENT, record)
    if "" in patient:
        raise UserError(f"{PATIENT} of {where[patient.index('')]} is empty: fill the column, or leave it out")
    fold, dealt = _folds(columns, where, patient)
    _check_folds(patient, fold, path)
    kept = [name for name in columns if name not in {RECORD, FOLD, SPLIT, LABELS, *_FORMAT, *names}]
    return Listing(
        path=path,
        root=root,
        checksum=hashlib.sha256(data).hexdigest(),
        record=record,
        files=files,
        formats=[_format(columns, row, at, file) for row, (at, file) in enumerate(zip(where, files, strict=True))],
        patient=patient,
        fold=fold,
        dealt=dealt,
        classes=names,
        labels=labels,
        about={name: columns[name] for name in kept},
    )


def deal_fold(patient: str) -> int:
    """The fold, 1 to 10, of a patient of whom nothing but a name is known: the same on every machine."""
    return int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "big") % 10 + 1


def _read(path: Path) -> bytes:
    try:
        data = read_limited(path, MAX_TABLE_BYTES)
    except FileNotFoundError:
        raise UserError(f"there is no {path}: --records takes a table with a row per recording") from None
    except ValueError:
        raise UserError(f"{path} has more than {MAX_TABLE_BYTES // 2**20} MiB: cut it into parts") from None
    return data


def _columns(path: Path, data: bytes) -> tuple[dict[str, list[str]], list[int]]:
    """The columns by name, cells without spaces around them, and the number of each row's line."""
    try:
        rows = _rows(data.decode("utf-8-sig"))
        names = next(rows, (0, []))[1]
        table = list(rows)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file in UTF-8: save it as such") from None
    except csv.Error as error:
        raise UserError(f"{path} is not a readable CSV file ({error}): mend it") from None
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} has {names.count(twice)} columns called {twice!r}: give each its own name")
    if not table:
        raise UserError(f"{path} lists no recordings: add a row for each")
    for line, cells in table:
        if len(cells) != len(names):
            raise UserError(
                f"line {line} of {path} has {len(cells)} cells, but there are {len(names)} columns: mend it"
            )
    columns = {name: [cells[place] for _, cells in table] for place, name in enumerate(names)}
    return columns, [line for line, _ in table]


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    first = text.partition("\n")[0]
    separator = next((mark for mark in "\t," if mark in first), ";" if ";" in first else ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    for cells in reader:
        if any(cells):
            yield reader.line_num, [cell.strip() for cell in cells]


def _parse(parse: Callable[[str], Any], cell: str, column: str, where: str) -> Any:
    return parse_cell(cell, parse, f"{column} of {where}", "mend it")


def _record(text: str) -> str:
    parts = text.split("/")
    if "" in parts or ".." in parts or "\\" in text or "\0" in text:
        raise ValueError("the path of a recording inside --root")
    return text


def _check_once(record: list[str], lines: list[int], path: Path) -> None:
    first: dict[str, int] = {}
    for name, line in zip(record, lines, strict=True):
        if name in first:
            raise UserError(f"{path} lists {name} twice, in lines {first[name]} and {line}: keep one of them")
        first[name] = line


def _labels(
    columns: dict[str, list[str]], where: list[str], path: Path, wanted: Sequence[str] | None
) -> tuple[tuple[str, ...], list[list[str]]]:
    """The classes, and those of each row."""
    if LABELS in columns:
        found = [list(dict.fromkeys(filter(None, map(str.strip, cell.split(";"))))) for cell in columns[LABELS]]
        known = sorted({name for names in found for name in names})
        if lacking := [name for name in wanted or () if name not in known]:
            raise UserError(
                f"no record of {path} has the label {lacking[0]}: its labels are {', '.join(known) or 'none'}"
            )
        classes = tuple(wanted or known)
        found = [[name for name in names if name in classes] for names in found]
    else:
        if lacking := [name for name in wanted or () if name not in columns]:
            raise UserError(f"{path} has no column {lacking[0]!r}: its columns are {', '.join(columns)}")
        usual = (name for name, cells in columns.items() if name not in _NO_LABELS and set(cells) <= {"0", "1"})
        classes = tuple(wanted or usual)
        for name in classes:
            for cell, at in zip(columns[name], where, strict=True):
                _parse(_flag, cell, name, at)
        found = [[name for name in classes if columns[name][row] == "1"] for row in range(len(where))]
    if not classes:
        raise UserError(
            f"{path} has no labels: add columns of 0 and 1, or one '{LABELS}' with names between semicolons"
        )
    if len(set(classes)) < len(classes):
        raise UserError(f"--labels names {next(c for c in classes if classes.count(c) > 1)} twice: keep one of them")
    return classes, found


def _flag(text: str) -> str:
    if text not in ("0", "1"):
        raise ValueError("0 or 1")
    return text


def _folds(columns: dict[str, list[str]], where: list[str], patient: list[str]) -> tuple[np.ndarray, bool]:
    """The fold of each row, and whether it was dealt."""
    if FOLD in columns and SPLIT in columns:
        raise UserError(f"{where[0].partition(' of ')[2]} has both columns, '{FOLD}' and '{SPLIT}': keep one of them")
    if FOLD in columns:
        given = [_parse(_fold, cell, FOLD, at) for cell, at in zip(columns[FOLD], where, strict=True)]
    elif SPLIT in columns:
        given = [_parse(_split, cell, SPLIT, at) for cell, at in zip(columns[SPLIT], where, strict=True)]
    else:
        return np.array([deal_fold(name) for name in patient], np.int64), True
    return np.array(given, np.int64), False


def _fold(text: str) -> int:
    if text not in map(str, range(1, 11)):
        raise ValueError("a fold from 1 to 10")
    return int(text)


def _split(text: str) -> int:
    if text not in FOLDS:
        raise ValueError(f"one of {', '.join(FOLDS)}")
    return FOLDS[text]


def _check_folds(patient: list[str], fold: np.ndarray, path: Path) -> None:
    first: dict[str, int] = {}
    for name, number in zip(patient, fold.tolist(), strict=True):
        if first.setdefault(name, number) != number:
            raise UserError(
                f"{path} has records of patient {name!r} in folds {first[name]} and {number}: "
                "give all records of a patient the same fold"
            )


def _format(columns: dict[str, list[str]], row: int, where: str, file: Path) -> TableFormat:
    cells = {name: columns[name][row] for name in _FORMAT if name in columns}
    if not is_table(file):
        return TableFormat()
    rate = _parse(_rate, cells["sampling_rate"], "sampling_rate", where) if cells.get("sampling_rate") else None
    unit = _parse(_unit, cells["unit"], "unit", where) if cells.get("unit") else None
    leads = tuple(cells["leads"].replace(";", " ").replace(",", " ").split()) if cells.get("leads") else None
    return TableFormat(rate, leads, unit)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0
    if not 0 < rate < float("inf"):
        raise ValueError("a rate in Hz")
    return rate


def _unit(text: str) -> str:
    if text.casefold() not in UNITS_PER_MV:
        raise ValueError("mV, uV or V")
    return text
