"""A `records.csv` for recordings that come without one: PhysioNet Challenge folders, and a folder per class."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from imlenet_jax.data.manifest import MANIFEST
from imlenet_jax.data.records import read_header
from imlenet_jax.data.sources import TableFormat, find_records, is_table
from imlenet_jax.errors import UserError

_COMMENT = re.compile(r"#\s*(Dx|Age|Sex)\s*:\s*(.*?)\s*", re.IGNORECASE)
_SEX = {"m": "0", "male": "0", "f": "1", "female": "1"}  # as PTB-XL codes it


class Row(NamedTuple):
    """A recording: its path below the folder that was indexed, its labels, and what else is known."""

    record: str
    labels: tuple[str, ...]
    age: str = ""
    sex: str = ""
    format: TableFormat = TableFormat()


def challenge_rows(folder: Path, names: Mapping[str, str] | None = None) -> tuple[list[Row], Counter[str]]:
    """The WFDB records of a PhysioNet Challenge folder (2020, 2021), at any depth, by the comments of their headers.

    `#Dx:` holds SNOMED codes, which are the labels, or what `names` calls them; several codes may have one name. Codes that
    it does not name are left out, and counted in the second result.

    Raises:
        UserError: the folder has no header, or none with diagnoses.
    """
    rows: list[Row] = []
    unnamed: Counter[str] = Counter()
    for header in _headers(folder):
        text = read_header(str(header)).decode("utf-8", errors="replace")
        found = {match[1].casefold(): match[2] for line in text.splitlines() if (match := _COMMENT.fullmatch(line))}
        codes = [code.strip() for code in found.get("dx", "").split(",") if code.strip()]
        if names is not None:
            unnamed.update(code for code in codes if code not in names)
            codes = [names[code] for code in codes if code in names]
        record = header.relative_to(folder).with_suffix("").as_posix()
        rows.append(Row(record, tuple(dict.fromkeys(codes)), _age(found.get("age", "")), _sex(found.get("sex", ""))))
    if not any(row.labels for row in rows):
        raise UserError(f"no header in {folder} has a line such as '#Dx: 426783006' with a code that is wanted")
    return rows, unnamed


def folder_rows(folder: Path, table: TableFormat) -> list[Row]:
    """The recordings of a folder that has a folder per class, at any depth below that; its name is the label.

    `table` is what `.csv` and `.npy` files do not say of themselves.

    Raises:
        UserError: there are no such folders, or a class has nothing to read.
    """
    inside = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    classes = [path for path in inside if not (path / MANIFEST).exists()]  # shards may lie beside them
    if not classes:
        raise UserError(f"{folder} holds no folders: it must have one for each class, named after it")
    rows = []
    for place in classes:
        for file in find_records([place]):
            record = file.relative_to(folder)
            name = (record.with_suffix("") if file.suffix == ".hea" else record).as_posix()
            rows.append(Row(name, (place.name,), format=table if is_table(file) else TableFormat()))
    return rows


def read_names(path: Path) -> dict[str, str]:
    """A table of codes and names, without or with a first row that says so: code -> name.

    Raises:
        UserError: there is no such file, or a row is not of two cells, or names a code again.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in cells] for cells in csv.reader(file) if any(cells)]
    except FileNotFoundError:
        raise UserError(f"there is no {path}: --dx_map takes a table of codes and names") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8 ({error}): save it as such") from None
    names: dict[str, str] = {}
    for number, cells in enumerate(rows, start=1):
        if number == 1 and [cell.casefold() for cell in cells] == ["code", "name"]:
            continue
        if len(cells) != 2 or not all(cells) or cells[0] in names or ";" in cells[1]:
            raise UserError(f"row {number} of {path} is not a new code and a name without semicolons: mend it")
        names[cells[0]] = cells[1]
    if not names:
        raise UserError(f"{path} names no code: write a row for each, the code and its name")
    return names


def listing_text(rows: Iterable[Row]) -> str:
    """A `records.csv` of these rows; columns that nobody fills are left out."""
    rows = list(rows)
    columns = {
        "record": [row.record for row in rows],
        "labels": [";".join(row.labels) for row in rows],
        "age": [row.age for row in rows],
        "sex": [row.sex for row in rows],
        "sampling_rate": ["" if row.format.sampling_rate is None else f"{row.format.sampling_rate:g}" for row in rows],
        "leads": [" ".join(row.format.leads or ()) for row in rows],
        "unit": [row.format.unit or "" for row in rows],
    }
    columns = {name: cells for name, cells in columns.items() if name in ("record", "labels") or any(cells)}
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return file.getvalue()


def _headers(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name one with recordings")
    found = sorted(folder.rglob("*.hea"))
    if not found:
        raise UserError(f"{folder} holds no *.hea file: name a folder with recordings")
    return found


def _age(text: str) -> str:
    try:
        age = float(text)
    except ValueError:
        return ""
    return f"{age:g}" if 0 <= age <= 130 else ""


def _sex(text: str) -> str:
    return _SEX.get(text.casefold(), "")
