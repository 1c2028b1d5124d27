"""PTB-XL's two tables: which records there are, whose they are, and what they show."""

import ast
import csv
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imlenet_jax.errors import UserError

SUPERCLASSES = ("CD", "HYP", "MI", "NORM", "STTC")
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SAMPLING_RATES = (100, 500)
SECONDS = 10
DATABASE = "ptbxl_database.csv"
STATEMENTS = "scp_statements.csv"
TRUTH = "truth.json"  # what only the synthetic data set has (synthetic.py)
MAX_TRUTH_BYTES = 2**26

MAX_TABLE_BYTES = 2**26  # ten times PTB-XL's larger table

ABOUT = ("age", "sex", "site", "device", "validated_by", "validated_by_human", "second_opinion")
"""What the shards keep of a record beside its signal and statements: for whom a network works, who validated a label."""

_FILENAME_COLUMN = {100: "filename_lr", 500: "filename_hr"}


class Statement(NamedTuple):
    """A row of `scp_statements.csv`: what kind of statement it is, and its classes where it is diagnostic."""

    code: str
    diagnostic: bool = False
    form: bool = False
    rhythm: bool = False
    superclass: str = ""
    subclass: str = ""


class Metadata(NamedTuple):
    """The rows of `ptbxl_database.csv` that the pipeline uses, in the file's order.

    Attributes:
        ecg_id: (n,) int64, each once.
        patient_id: (n,) int64.
        fold: (n,) int64 from 1 to 10; no patient is in two folds.
        scp_codes: n dictionaries, SCP statement -> likelihood in percent (0 means "not stated").
        stems: n paths of WFDB records relative to the folder, without suffix.
        about: what else the table says of each record, n cells per column of ABOUT that it has.
    """

    ecg_id: np.ndarray
    patient_id: np.ndarray
    fold: np.ndarray
    scp_codes: list[dict[str, float]]
    stems: list[str]
    about: dict[str, list[str]]

    def take(self, rows: Sequence[int]) -> "Metadata":
        """These rows only, in this order."""
        return Metadata(
            self.ecg_id[rows],
            self.patient_id[rows],
            self.fold[rows],
            [self.scp_codes[row] for row in rows],
            [self.stems[row] for row in rows],
            {name: [cells[row] for row in rows] for name, cells in self.about.items()},
        )


def read_metadata(csv_path: Path, sampling_rate: int = 100) -> Metadata:
    """Read `ptbxl_database.csv` of PTB-XL 1.0.1 to 1.0.3.

    Raises:
        UserError: no such file, a missing column, a cell that cannot be read (names the ecg_id), a repeated ecg_id,
            or a patient in two folds.
    """
    filename = _FILENAME_COLUMN[sampling_rate]
    rows = _read_table(csv_path, ("ecg_id", "patient_id", "scp_codes", "strat_fold", filename), ABOUT)
    ids: list[int] = []
    patients: list[int] = []
    folds: list[int] = []
    codes: list[dict[str, float]] = []
    stems: list[str] = []
    about: dict[str, list[str]] = {}
    for number, row in enumerate(rows, start=1):
        ids.append(_cell(row, "ecg_id", _whole, f"data row {number} of {csv_path}"))
        where = f"ecg_id {ids[-1]} in {csv_path}"
        patients.append(_cell(row, "patient_id", _whole, where))
        folds.append(_cell(row, "strat_fold", _fold, where))
        codes.append(_cell(row, "scp_codes", parse_scp_codes, where))
        stems.append(_cell(row, filename, _stem, where))
        for name in filter(row.__contains__, ABOUT):
            about.setdefault(name, []).append(" ".join(row[name].split()))
    if not ids:
        raise UserError(f"{csv_path} has no records: restore it from PTB-XL")
    if not any(stems):
        raise UserError(
            f"{csv_path} names no recordings at {sampling_rate} Hz: use other data or another sampling rate"
        )
    if "" in stems:
        where = f"{filename} of ecg_id {ids[stems.index('')]} in {csv_path}"
        raise UserError(f"{where} is '', which is not the path of a record inside the folder: restore the file")
    ecg_id = np.array(ids, np.int64)
    values, counts = np.unique(ecg_id, return_counts=True)
    if counts.max() > 1:
        raise UserError(f"{csv_path} has ecg_id {values[counts > 1][0]} more than once: restore it from PTB-XL")
    patient_id, fold = np.array(patients, np.int64), np.array(folds, np.int64)
    check_patients(patient_id, fold, csv_path)
    return Metadata(ecg_id, patient_id, fold, codes, stems, about)


def read_statements(csv_path: Path) -> list[Statement]:
    """Read `scp_statements.csv`. Columns other than `diagnostic` and `diagnostic_class` may be absent.

    Raises:
        UserError: no such file, a missing column, or a class that is none of SUPERCLASSES.
    """
    statements = []
    for row in _read_table(csv_path, ("", "diagnostic", "diagnostic_class"), ("form", "rhythm", "diagnostic_subclass")):
        flags = {name: row.get(name) in ("1", "1.0") for name in ("diagnostic", "form", "rhythm")}
        superclass, subclass = (_name(row.get(name, "")) for name in ("diagnostic_class", "diagnostic_subclass"))
        if flags["diagnostic"] and superclass and superclass not in SUPERCLASSES:
            raise UserError(
                f"{csv_path} gives statement {row['']!r} the unknown diagnostic_class {superclass!r}: "
                f"it must be one of {', '.join(SUPERCLASSES)}"
            )
        statements.append(Statement(row[""], superclass=superclass, subclass=subclass, **flags))
    return statements


def parse_scp_codes(text: str) -> dict[str, float]:
    """Parse a cell such as `{'NORM': 100.0, 'SR': 0.0}`.

    Raises:
        ValueError: it is not a dictionary of names and finite numbers.
    """
    try:
        value: Any = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError("a dictionary such as {'NORM': 100.0}")
    return {_code(code): _likelihood(likelihood) for code, likelihood in value.items()}


def check_patients(patient_id: np.ndarray, fold: np.ndarray, source: Path) -> None:
    """Refuse data in which a patient's records are in two folds: training would know test patients.

    Raises:
        UserError: names the first such patient.
    """
    order = np.argsort(patient_id, kind="stable")
    patients, folds = patient_id[order], fold[order]
    crossing = np.flatnonzero((patients[1:] == patients[:-1]) & (folds[1:] != folds[:-1]))
    if len(crossing):
        first = crossing[0]
        raise UserError(
            f"patient {patients[first]} in {source} has records in folds {folds[first]} and {folds[first + 1]}: "
            "give all records of a patient the same strat_fold"
        )


def _read_table(path: Path, columns: tuple[str, ...], more: tuple[str, ...] = ()) -> Iterator[dict[str, str]]:
    """The rows, one at a time: the first that is wrong ends the work before the memory is full of others.

    Of `more` columns a row has those that the table has.
    """
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise UserError(f"{path} has more than {MAX_TABLE_BYTES // 2**20} MiB: restore it from PTB-XL")
        # Only ASCII columns are used; reports in another encoding must not stop the work.
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.reader(file)
            names = next(reader, [])
            for column in columns:
                if column not in names:
                    raise UserError(f"{path} has no column {column!r}: restore it from PTB-XL 1.0.1 to 1.0.3")
            places = {column: names.index(column) for column in (*columns, *filter(names.__contains__, more))}
            for cells in filter(None, reader):
                yield {column: cells[place] if place < len(cells) else "" for column, place in places.items()}
    except FileNotFoundError:
        raise UserError(f"there is no {path.name} in {path.parent}: --data_dir must be a PTB-XL folder") from None
    except csv.Error as error:
        raise UserError(f"{path} is not a readable CSV file ({error}): restore it from PTB-XL") from None


def parse_cell(text: str, parse: Callable[[str], Any], what: str, advice: str = "restore the file") -> Any:
    """What `parse` makes of a cell of a table; its `ValueError` says what the cell should be.

    Raises:
        UserError: it is not that; names `what`, as in `fold of line 3 of records.csv`, and gives the advice.
    """
    try:
        return parse(text)
    except ValueError as error:
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise UserError(f"{what} is {shown!r}, which is not {error}: {advice}") from None


def _cell(row: dict[str, str], column: str, parse: Callable[[str], Any], where: str) -> Any:
    return parse_cell(row[column], parse, f"{column} of {where}")


def _whole(text: str) -> int:
    try:
        value = float(text)  # PTB-XL writes patient_id as 15709.0
    except ValueError:
        value = math.nan
    if not (0 <= value < 2**53 and value == int(value)):
        raise ValueError("a whole number")
    return int(value)


def _fold(text: str) -> int:
    try:
        fold = _whole(text)
    except ValueError:
        fold = 0
    if not 1 <= fold <= 10:
        raise ValueError("a fold from 1 to 10")
    return fold


def _stem(text: str) -> str:
    parts = text.split("/")
    if (text and "" in parts) or ".." in parts or "\\" in text or "\0" in text:
        raise ValueError("the path of a record inside the folder")
    return text


def _name(text: str) -> str:
    return "" if text in ("nan", "NaN") else text


def _code(code: Any) -> str:
    if not isinstance(code, str):
        raise ValueError("a dictionary whose keys are statements")
    return code


def _likelihood(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a dictionary whose values are likelihoods")
    try:
        likelihood = float(value)
    except OverflowError:
        likelihood = math.inf
    if not math.isfinite(likelihood):
        raise ValueError("a dictionary whose values are finite likelihoods")
    return likelihood
