"""A tiny PTB-XL folder, written by means of its own, and hooks to spoil one thing in it."""

import csv
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

with warnings.catch_warnings():  # at import, wfdb 4.3 meets a deprecation of pandas 3.1
    warnings.simplefilter("ignore")
    import wfdb  # noqa: F401

RECORDS = 24
# As PTB-XL's headers spell them.
HEADER_LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
CODES = ("{'NORM': 100.0, 'SR': 0.0}", "{'IMI': 50.0}", "{'NDT': 0.0, 'LVH': 15.0}", "{'CRBBB': 80.0}", "{'SR': 0.0}")
STATEMENTS = (
    ("NDT", "1.0", "STTC"),
    ("NORM", "1.0", "NORM"),
    ("IMI", "1.0", "MI"),
    ("LVH", "1.0", "HYP"),
    ("CRBBB", "1.0", "CD"),
    ("SR", "", ""),
)


@dataclass(frozen=True)
class TinyPtbxl:
    """A folder in PTB-XL's layout and the samples that were written to it.

    Attributes:
        path: the folder.
        signals: (RECORDS, 1000, 12) int16, at 1000 steps per mV around 0.
    """

    path: Path
    signals: np.ndarray

    def file(self, record: int, suffix: str) -> Path:
        """`.hea` or `.dat` of the record in row `record` of the table."""
        return self.path / f"{stem(record)}{suffix}"

    def edit(self, path: Path | str, old: str, new: str, count: int = -1) -> None:
        """Replace text in a file."""
        path = self.path / path
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, count))

    def write(self, record: int, samples: np.ndarray, leads: tuple[str, ...] = HEADER_LEADS, rate: int = 100) -> None:
        """Write a record anew, header and samples in agreement."""
        write_record(self.path / stem(record), samples, leads, rate)

    def rewrite_table(self, column: str, values: dict[int, str]) -> None:
        """Change cells of one column of ptbxl_database.csv, by row."""
        path = self.path / "ptbxl_database.csv"
        with open(path, newline="") as file:
            rows = list(csv.reader(file))
        for row, value in values.items():
            rows[row + 1][rows[0].index(column)] = value
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows(rows)


def stem(record: int) -> str:
    return f"records100/00000/{record + 1:05d}_lr"


def write_record(path: Path, samples: np.ndarray, leads=HEADER_LEADS, rate: int = 100) -> None:
    name = path.name
    lines = [f"{name} {len(leads)} {rate} {len(samples)}"]
    for lead, column in zip(leads, samples.T, strict=True):
        checksum = int(column.astype(np.int64).sum()) % 65536
        lines.append(f"{name}.dat 16 1000.0(0)/mV 16 0 {column[0]} {checksum} 0 {lead}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(name + ".hea").write_text("\n".join(lines) + "\n")
    path.with_name(name + ".dat").write_bytes(samples.astype("<i2").tobytes())


def write_tables(folder: Path, records: int) -> None:
    """Two records per patient; folds 1 to 10 in turn, and classes that change from record to record."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "ptbxl_database.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("ecg_id", "patient_id", "report", "scp_codes", "strat_fold", "filename_lr", "filename_hr"))
        for row in range(records):
            patient = row // 2
            codes = CODES[(row + patient) % len(CODES)]
            high = stem(row).replace("records100", "records500").replace("_lr", "_hr")
            cells = (row + 1, f"{patient}.0", "Überleitungsstörung, sonst normal", codes, patient % 10 + 1)
            writer.writerow((*cells, stem(row), high))
    with open(folder / "scp_statements.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("", "description", "diagnostic", "diagnostic_class"))
        writer.writerows((code, "", diagnostic, superclass) for code, diagnostic, superclass in STATEMENTS)


@pytest.fixture
def tiny_ptbxl(tmp_path) -> TinyPtbxl:
    """24 records of 12 patients, each with noise of its own size; row r has fold (r // 2) % 10 + 1."""
    folder = tmp_path / "ptbxl"
    write_tables(folder, RECORDS)
    generator = np.random.default_rng(0)
    signals = np.clip(generator.normal(0, 300, (RECORDS, 1000, 12)), -2000, 2000).astype(np.int16)
    signals += np.arange(RECORDS, dtype=np.int16)[:, None, None]
    for row in range(RECORDS):
        write_record(folder / stem(row), signals[row])
    return TinyPtbxl(folder, signals)


@pytest.fixture
def records_per_shard(monkeypatch) -> int:
    """Shards of 5 records, so that 24 make 5 shards."""
    monkeypatch.setattr("imlenet_jax.data.prepare.SHARD_SAMPLES", 5 * 1000)
    return 5
