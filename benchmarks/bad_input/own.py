"""Bad input where recordings and labels are the user's own."""

from collections.abc import Callable
from typing import Any

from benchmarks.bad_input.data import Case
from benchmarks.bad_input.use import command
from benchmarks.bad_input.world import World
from experiments import index, labels, prepare
from imlenet_jax.data.index import challenge_rows, folder_rows, read_names
from imlenet_jax.data.listing import read_listing
from imlenet_jax.data.own import Shape, prepare_own
from imlenet_jax.data.sources import TableFormat

TABLE = "records.csv"


def _listing(text: str | bytes, **arguments: Any) -> Callable[[World], Any]:
    return lambda w: read_listing(w.write(TABLE, text), **arguments)


def _prepared(text: str) -> Callable[[World], Any]:
    return lambda w: prepare_own(read_listing(w.write(TABLE, text)), w.root / "own", Shape(), 1, progress=False)


def _names(text: str) -> Callable[[World], Any]:
    return lambda w: read_names(w.write("codes.csv", text))


OWN = (
    Case(TABLE, "is not there", "--records takes a table", lambda w: read_listing(w.root / TABLE)),
    Case(TABLE, "is empty", "records.csv lists no recordings: add", _listing("")),
    Case(TABLE, "has no rows", "a row for each", _listing("record,A\n")),
    Case(TABLE, "names no recordings", "with the paths of the recordings", _listing("name,B\na,1\n")),
    Case(TABLE, "has ten columns of one name", "has 10 columns called 'A'", _listing(
        "record" + ",A" * 10 + "\nx" + ",1" * 10 + "\n")),
    Case(TABLE, "a row is too short", "line 3 of .* has 1 cells", _listing("record,A\nx,1\ny\n")),
    Case(TABLE, "a recording twice", "lists x twice, in lines 2 and 3", _listing("record,A\nx,1\nx,0\n")),
    Case(TABLE, "a path outside the root", "'../x', which is not the path", _listing("record,A\n../x,1\n")),
    Case(TABLE, "an absolute path", "'/etc/passwd', which is not the path", _listing("record,A\n/etc/passwd,1\n")),
    Case(TABLE, "a label outside 0 and 1", "A of line 2 .* is '2', which is not 0 or 1", _listing(
        "record,A\nx,2\n", classes=("A",))),
    Case(TABLE, "no labels", "has no labels", _listing("record,age\nx,50\n")),
    Case(TABLE, "a patient in two folds", "records of patient 'p' in folds 1 and 2", _listing(
        "record,patient_id,fold,A\nx,p,1,1\ny,p,2,0\n")),
    Case(TABLE, "a patient without a name", "patient_id of line 3 .* is empty", _listing(
        "record,patient_id,A\nx,p,1\ny,,0\n")),
    Case(TABLE, "fold 0", "'0', which is not a fold from 1 to 10", _listing("record,fold,A\nx,0,1\n")),
    Case(TABLE, "a split of another name", "'dev', which is not one of train", _listing("record,split,A\nx,dev,1\n")),
    Case(TABLE, "both fold and split", "has both columns, 'fold' and 'split'", _listing(
        "record,fold,split,A\nx,1,val,1\n")),
    Case(TABLE, "a rate in words", "'fast', which is not a rate in Hz", _listing(
        "record,sampling_rate,A\nx.csv,fast,1\n")),
    Case(TABLE, "a unit of pressure", "'mmHg', which is not mV, uV or V", _listing("record,unit,A\nx.csv,mmHg,1\n")),
    Case(TABLE, "in Latin-1", r"records\.csv is not a text file in UTF-8", _listing("record,Größe\nx,1\n".encode("latin-1"))),
    Case(TABLE, "an open quote", r"records\.csv is not a readable CSV file", _listing('record,A\n"x,1\n')),
    Case(TABLE, "nothing that can be read", "no recording of .* can be used", _prepared("record,A\nx,1\n")),
    Case("--records", "recordings that are not there", "1 of 1 recordings in .* are not there, the first is", lambda w: (
        command(prepare, "--records", str(w.write(TABLE, "record,A\nlost,1\n")))(w))),
    Case("--labels", "one that no column is", "has no column 'B'", _listing("record,A\nx,1\n", classes=("B",))),
    Case("--labels", "one that no record has", "has the label B", _listing("record,labels\nx,A\n", classes=("B",))),
    Case("--leads", "a lead of another name", "is not a list of different leads", lambda w: (
        command(prepare, "--records", str(w.write(TABLE, "record,A\nx,1\n")), "--leads", "I,MLII")(w))),
    Case("--seconds", "without records", "--seconds is for your own recordings", command(prepare, "--seconds", "5")),
    Case("--task", "unknown", "has no task 'colour'", lambda w: (
        command(labels, "--data_dir", str(w.shards), "--task", "colour")(w))),
    Case("--dx_map", "is not there", "--dx_map takes a table", lambda w: read_names(w.root / "none.csv")),
    Case("--dx_map", "a code twice", "row 2 of .* is not a new code", _names("1,a\n1,b\n")),
    Case("--dx_map", "for folders", "--dx_map is for --format challenge", command(
        index, "--format", "folders", "x", "--dx_map", "y")),
    Case("Challenge folder", "without diagnoses", "has a line such as '#Dx", lambda w: challenge_rows(w.data)),
    Case("Challenge folder", "without headers", r"holds no \*\.hea file", lambda w: (
        (w.root / "bare").mkdir(), challenge_rows(w.root / "bare"))),
    Case("folder of classes", "without folders", "it must have one for each class", lambda w: (
        (w.root / "bare").mkdir(), folder_rows(w.root / "bare", TableFormat()))),
)  # fmt: skip
