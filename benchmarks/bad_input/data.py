"""Bad input on the way to shards: PTB-XL folders, WFDB records, tables of numbers, shards."""

import gzip
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.bad_input.world import World, npy_claiming
from imlenet_jax.data.open import open_dataset
from imlenet_jax.data.ptbxl import LEADS, read_metadata, read_statements
from imlenet_jax.data.records import read_recording
from imlenet_jax.data.shards import open_shards
from imlenet_jax.data.sources import TableFormat, find_records, read_source
from imlenet_jax.evaluation.comparison import read_predictions


class Case(NamedTuple):
    """One thing that is wrong.

    Attributes:
        file: what is spoiled.
        defect: how.
        sentence: a pattern in what is said of it.
        use: spoils it and uses it, as a user would.
    """

    file: str
    defect: str
    sentence: str
    use: Callable[[World], Any]


TABLE = TableFormat(100, LEADS)
DATABASE, STATEMENTS = "ptbxl_database.csv", "scp_statements.csv"


def _cell(column: str, value: str) -> Callable[[World], Any]:
    return lambda w: read_metadata(w.cell(column, value))


def _header(old: str, new: str, count: int = -1) -> Callable[[World], Any]:
    """Spoil the header of a record of the data set, then prepare it."""
    return lambda w: read_recording(w.edit(w.header(), old, new, count).with_suffix(""), 100)


def _own(old: str, new: str, count: int = -1) -> Callable[[World], Any]:
    """Spoil the header of a record that inference is asked about."""
    return lambda w: read_source(w.edit(w.header(), old, new, count))


def _file(name: str, content: bytes | str, table: TableFormat | None = TABLE) -> Callable[[World], Any]:
    return lambda w: read_source(w.write(name, content), table)


def _manifest(**changes: Any) -> Callable[[World], Any]:
    return lambda w: open_shards(w.manifest(**changes))


FOLDER = (
    Case("data folder", "is not there", "no such folder", lambda w: open_dataset(w.root / "x", progress=False)),
    Case("data folder", "holds something else", "has neither", lambda w: open_dataset(w.root, progress=False)),
    Case("data folder", "without its records", "lack files, the first is", lambda w: (
        [path.unlink() for path in w.data.rglob("*.dat")], w.prepare())),
    Case(DATABASE, "is not there", "there is no ptbxl_database.csv in", lambda w: (
        (w.data / DATABASE).unlink(), read_metadata(w.data / DATABASE))),
    Case(DATABASE, "is empty", "has no column 'ecg_id'", lambda w: read_metadata(w.cut(w.data / DATABASE, 0))),
    Case(DATABASE, "has names of columns only", "has no records", lambda w: read_metadata(
        w.cut(w.data / DATABASE, (w.data / DATABASE).read_bytes().index(b"\n") + 1))),
    Case(DATABASE, "lacks a column", "has no column 'strat_fold'", lambda w: read_metadata(
        w.edit(w.data / DATABASE, "strat_fold", "fold", 1))),
    Case(DATABASE, "a quote is never closed", "is not a readable CSV|has no column", lambda w: read_metadata(
        w.write("data/" + DATABASE, '"' + "x" * 200_000))),
    Case(DATABASE, "names no recordings at 500 Hz", "names no recordings at 500 Hz", lambda w: read_metadata(
        w.data / DATABASE, 500)),
    Case(DATABASE, "ecg_id 2.5", "ecg_id of data row 3 .* is '2.5', which is not a whole", _cell("ecg_id", "2.5")),
    Case(DATABASE, "an ecg_id twice", "has ecg_id 1 more than once", _cell("ecg_id", "1")),
    Case(DATABASE, "patient_id is a name", "patient_id .* is 'Smith', which", _cell("patient_id", "Smith")),
    Case(DATABASE, "a fold 11", "strat_fold of ecg_id 3 .* not a fold from 1 to 10", _cell("strat_fold", "11")),
    Case(DATABASE, "scp_codes cut off", "scp_codes .* not a dictionary such as", _cell("scp_codes", "{'NORM': 1")),
    Case(DATABASE, "scp_codes call a function", "is \"__import__", _cell("scp_codes", "__import__('os').getcwd()")),
    Case(DATABASE, "a likelihood in words", "values are likelihoods", _cell("scp_codes", "{'NORM': 'high'}")),
    Case(DATABASE, "an infinite likelihood", "finite likelihoods", _cell("scp_codes", "{'NORM': 1e999}")),
    Case(DATABASE, "a statement that is a number", "keys are statements", _cell("scp_codes", "{1: 100.0}")),
    Case(DATABASE, "a record outside the folder", "'../../etc/x', which is not the path of a record", _cell(
        "filename_lr", "../../etc/x")),
    Case(DATABASE, "a record without a name", "filename_lr .* is '', which is not the path", _cell("filename_lr", "")),
    Case(DATABASE, "a patient in two folds", "patient .* has records in folds", lambda w: (
        w.cell("patient_id", "1", 0), w.cell("patient_id", "1", 1), w.cell("strat_fold", "1", 0),
        read_metadata(w.cell("strat_fold", "2", 1)))),
    Case(STATEMENTS, "is not there", "there is no scp_statements.csv", lambda w: (
        (w.data / STATEMENTS).unlink(), w.prepare())),
    Case(STATEMENTS, "a class that is none", "unknown diagnostic_class 'XYZ'", lambda w: read_statements(
        w.cell("diagnostic_class", "XYZ", 0, STATEMENTS))),
)  # fmt: skip

RECORD = (
    Case(".hea", "is empty", "is not a usable WFDB header", lambda w: read_recording(
        w.cut(w.header(), 0).with_suffix(""), 100)),
    Case(".hea", "is not there", r"there is no .*00001_lr\.hea", lambda w: (
        w.header().unlink(), read_recording(w.header().with_suffix(""), 100))),
    Case(".hea", "is of a megabyte", "too large for a WFDB header", lambda w: (
        w.header().write_bytes(b"#" * (2**20 + 1)), read_recording(w.header().with_suffix(""), 100))),
    Case(".hea", "another rate", "says 250 Hz instead of 100 Hz", _header(" 12 100 1000", " 12 250 1000")),
    Case(".hea", "another length", "says 999 samples instead of 1000", _header(" 12 100 1000", " 12 100 999")),
    Case(".hea", "eleven leads", "has 11 leads instead of 12", lambda w: (
        w.edit(w.header(), " 12 100 1000", " 11 100 1000"),
        w.header().write_text("\n".join(w.header().read_text().splitlines()[:12])),
        read_recording(w.header().with_suffix(""), 100))),
    Case(".hea", "a lead twice", "has no lead II ", _header(" II\n", " I\n", 1)),
    Case(".hea", "pressure in mmHg", "'mmHg', which is no voltage", _header("/mV", "/mmHg")),
    Case(".hea", "an infinite gain", "a lead without a gain", _header("1000.0(0)/mV", "1e999(0)/mV", 1)),
    Case(".hea", "several samples per frame", "its leads have several rates", _header(".dat 16 ", ".dat 16x2 ")),
    Case(".hea", "a file above its folder", "'../00001_lr.dat', which is not in its own", _header(
        "00001_lr.dat", "../00001_lr.dat", 1)),
    Case(".hea", "a file that is not there", r"there is no .*lost\.dat", _header("00001_lr.dat", "lost.dat")),
    Case(".hea", "a lead delayed by years", "speaks of .* samples, not 1 to", _header(".dat 16 ", ".dat 16:99999999 ")),
    Case(".dat", "cut off", r"00001_lr\.dat is too short \(23998 bytes", lambda w: (
        w.cut(w.header().with_suffix(".dat"), 23998), read_recording(w.header().with_suffix(""), 100))),
    Case(".dat", "too long", r"00001_lr\.dat is too long \(24001 bytes", lambda w: (
        w.write(f"{w.header().with_suffix('.dat')}", bytes(24001)), read_recording(w.header().with_suffix(""), 100))),
    Case(".dat", "a flipped bit", "does not match that header's checksum of lead", lambda w: (
        w.flip(w.header().with_suffix(".dat"), 1234), w.prepare())),
    Case(".dat", "an invalid sample", r"an invalid sample \(-32768", lambda w: (
        w.header().with_suffix(".dat").write_bytes(
            w.header().with_suffix(".dat").read_bytes()[:-2] + b"\x00\x80"), w.prepare())),
)  # fmt: skip

OWN_RECORD = (
    Case("--dir", "names nothing", "--dir .*nothing: there is no", lambda w: find_records([w.root / "nothing"])),
    Case("--dir", "an empty folder", "holds no .hea, .csv, .npy file", lambda w: (
        (w.root / "empty").mkdir(), find_records([w.root / "empty"]))),
    Case("own .hea", "no length, and another format", "does not say how many samples it has", lambda w: (
        w.edit(w.header(), " 12 100 1000", " 12 100"), w.edit(w.header(), ".dat 16 ", ".dat 212 "),
        read_source(w.header()))),
    Case("own .hea", "of several segments", "is a record of several segments", lambda w: (
        w.write("rec.hea", "rec/1 12 100 1000\nx 1000\n"), read_source(w.root / "rec"))),
    Case("own .hea", "10 Hz", "says 10 Hz; an ECG has between 50 and", _own(" 12 100 1000", " 12 10 1000")),
    Case("own .hea", "points out of its folder", "'/etc/passwd', which is not in its", _own("00001_lr.dat", "/etc/passwd")),
    Case("own .hea", "30 billion samples", "speaks of 360,000,000,000 samples", _own("100 1000", "100 30000000000")),
    Case("own .hea", "more than its file holds", "holds 1,000 of 1,001 samples per lead", _own("100 1000", "100 1001")),
    Case("own .hea", "counts leads it does not have", "is not a usable|describes 12 leads, but counts 13", _own(
        " 12 100", " 13 100")),
    Case(".csv", "no sampling rate", "does not say its sampling rate", _file("a.csv", "I,II\n1,2\n", None)),
    Case(".csv", "no names of leads", "does not name its leads", _file("a.csv", "1,2\n3,4\n", TableFormat(100))),
    Case(".csv", "another number of columns", "has 2 columns, but --leads names 12", _file("a.csv", "1,2\n3,4\n")),
    Case(".csv", "is empty", r"a\.csv is empty", _file("a.csv", "\n\n")),
    Case(".csv", "names and nothing more", "a row of names and no other", _file("a.csv", "I,II\n")),
    Case(".csv", "words", "is not a table of numbers", _file("a.csv", "I,II\n1,two\n")),
    Case(".csv", "a row too long", "is not a table of numbers .*column", _file("a.csv", "I,II\n1,2\n1,2,3\n")),
    Case(".csv", "an image", "is not a text file in UTF-8", _file("a.csv", b"\x89PNG\r\n\xff")),
    Case(".csv", "a first row without end", "the first row of .* has more than", _file("a.csv", "1," * 2**16)),
    Case(".npy", "a pickle", "is not a .npy file of numbers", _file("a.npy", npy_claiming((9, 12), "|O") + b"\x80.")),
    Case(".npy", "claims a terabyte", "is not a .npy file .*mmap", _file("a.npy", npy_claiming((10**11, 12)))),
    Case(".npy", "complex numbers", "holds complex128 of shape", _file("a.npy", npy_claiming((1, 12), "<c16") + bytes(192))),
    Case(".npy", "four axes", r"holds float64 of shape \(2, 1, 1, 1\)", _file("a.npy", npy_claiming((2, 1, 1, 1)) + bytes(16))),
    Case(".csv.gz", "is cut off", r"a\.csv\.gz is not a whole gzip file", _file("a.csv.gz", gzip.compress(b"1,2\n" * 9999)[:40])),
    Case(".csv.gz", "is no gzip", r"a\.csv\.gz is not a whole gzip file \(Not", _file("a.csv.gz", "1,2\n3,4\n")),
)  # fmt: skip

SHARDS = (
    Case("shard", "a flipped bit", r"shard-00000\.npy does not match its checksum", lambda w: (
        w.flip(w.shards / "shard-00000.npy", 5000), w.read_all())),
    Case("shard", "cut off", r"shard-00000\.npy does not match its", lambda w: (
        w.cut(w.shards / "shard-00000.npy", 9000), w.read_all())),
    Case("shard", "is not there", r"there is no shard .*shard-00000\.npy", lambda w: (
        (w.shards / "shard-00000.npy").unlink(), w.read_all())),
    Case("shard", "of another shape than the manifest says", "is not 20 records of 5000 samples", lambda w: (
        w.manifest(sampling_rate=500, length=5000), w.read_all())),
    Case("shard", "written to while it is in use", "was written to while it was in use", lambda w: _write_into(w)),
    Case("shard", "cut off while it is in use", "written to while it was in use", lambda w: _write_into(w, b"")),
    Case("manifest.json", "is not there", r"there is no .*manifest\.json", lambda w: (
        (w.shards / "manifest.json").unlink(), open_shards(w.shards))),
    Case("manifest.json", "cut off", "is not a manifest of imlenet_jax shards, or is damaged", lambda w: (
        w.cut(w.shards / "manifest.json", 900), open_shards(w.shards))),
    Case("manifest.json", "edited by hand", "does not match its own checksum", lambda w: (
        w.edit(w.shards / "manifest.json", '"fold":[', '"fold":[ '), open_shards(w.shards))),
    Case("manifest.json", "of a later version", "is of version 99, but this program reads", _manifest(version=99)),
    Case("manifest.json", "a shard outside the folder", "has an entry that no shards have .*'file'", _manifest(
        shards=[{"file": "../x.npy", "records": 20, "crc32": "00000000"}])),
    Case("manifest.json", "fewer patients than records", "no shards have .*'patient_id'", _manifest(patient_id=[1])),
    Case("manifest.json", "a gain of 0", "no shards have .*'gain'", _manifest(
        calibrations=[{"gain": [0] * 12, "baseline": [0] * 12}], calibration=[0] * 20)),
    Case("manifest.json", "a patient in two folds", "patient 1 in .* has records in folds", _manifest(
        patient_id=[1] * 20, fold=[1] * 19 + [2])),
    Case("predictions.csv", "is not there", "there is no file .*: make it with", lambda w: read_predictions(w.root / "p.csv")),
    Case("predictions.csv", "a probability of 2", "a probability is not from 0 to 1", lambda w: read_predictions(
        w.write("p.csv", "ecg_id,label_A,prob_A\n1,0,2\n"))),
    Case("predictions.csv", "a record twice", "an ecg_id more than once", lambda w: read_predictions(
        w.write("p.csv", "ecg_id,label_A,prob_A\n1,0,0\n1,0,0\n"))),
)  # fmt: skip


def _write_into(world: World, content: bytes | None = None) -> None:
    """Change a shard in place, as no command of ours does, after it has been verified."""
    dataset, path = open_shards(world.shards), world.shards / "shard-00000.npy"
    dataset.signals([0])
    path.write_bytes(bytes(len(path.read_bytes())) if content is None else content)
    dataset.signals([0])


DATA = FOLDER + RECORD + OWN_RECORD + SHARDS
