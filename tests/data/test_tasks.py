"""Labels: the six tasks of PTB-XL, counted on its metadata, and the rules for one record."""

import csv

import numpy as np
import pytest

from imlenet_jax.data.ptbxl import SUPERCLASSES, Statement, read_metadata, read_statements
from imlenet_jax.data.tasks import PTBXL_TASKS, Task, ptbxl_tasks

COUNTS = {  # classes, records, folds 1-8, 9, 10, labels, the rarest three
    "all": (71, 21799, 17418, 2183, 2198, 61007, {"PRC(S)": 10, "2AVB": 14, "INJIL": 15}),
    "diagnostic": (44, 21388, 17084, 2146, 2158, 30721, {"2AVB": 14, "INJIL": 15, "3AVB": 16}),
    "subclass": (23, 21388, 17084, 2146, 2158, 30267, {"PMI": 17, "SEHYP": 29, "ILBBB": 77}),
    "superclass": (5, 21388, 17084, 2146, 2158, 27765, {"HYP": 2649, "CD": 4898, "STTC": 5235}),
    "form": (19, 8978, 7197, 901, 880, 12002, {"PRC(S)": 10, "STE_": 28, "TAB_": 35}),
    "rhythm": (12, 21030, 16832, 2100, 2098, 21174, {"TRIGU": 20, "PSVT": 24, "SVTAC": 27}),
}


def test_counts_are_those_of_the_benchmark(ptbxl_folder):
    tasks = ptbxl_tasks(read_statements(ptbxl_folder / "scp_statements.csv"))
    metadata = read_metadata(ptbxl_folder / "ptbxl_database_full.csv")
    assert tuple(tasks) == PTBXL_TASKS
    for name, task in tasks.items():
        labels = task.labels(metadata.scp_codes)
        fold = metadata.fold[labels.any(axis=1)]
        folds = [int(np.isin(fold, group).sum()) for group in (range(1, 9), [9], [10])]
        held = sorted(zip(task.classes, labels.sum(axis=0, dtype=int).tolist(), strict=True), key=lambda pair: pair[1])
        assert (len(task.classes), len(fold), *folds, int(labels.sum()), dict(held[:3])) == COUNTS[name]


@pytest.mark.parametrize(
    "table, rows, labelled, classes, folds",
    [
        ("ptbxl_database.csv", 1987, 1965, (410, 215, 370, 1051, 467), (1481, 232, 252)),
        ("ptbxl_database_full.csv", 21799, 21388, (4898, 2649, 5469, 9514, 5235), (17084, 2146, 2158)),
    ],
)
def test_superclasses_are_those_of_the_reference(ptbxl_folder, table, rows, labelled, classes, folds):
    with open(ptbxl_folder / "scp_statements.csv", newline="") as file:
        of = {row[""]: row["diagnostic_class"] for row in csv.DictReader(file) if row["diagnostic"] == "1.0"}
    task = ptbxl_tasks(read_statements(ptbxl_folder / "scp_statements.csv"))["superclass"]
    metadata = read_metadata(ptbxl_folder / table)
    labels = task.labels(metadata.scp_codes)
    known = labels.any(axis=1)
    fold = metadata.fold[known]
    assert task.classes == SUPERCLASSES == ("CD", "HYP", "MI", "NORM", "STTC")
    assert (len(labels), int(known.sum())) == (rows, labelled)
    assert tuple(labels.sum(axis=0, dtype=int)) == classes
    assert (int((fold <= 8).sum()), int((fold == 9).sum()), int((fold == 10).sum())) == folds
    for codes, label in zip(metadata.scp_codes, labels, strict=True):
        assert {SUPERCLASSES[column] for column in np.flatnonzero(label)} == {of[code] for code in codes if code in of}


def test_likelihood_zero_means_not_stated_and_stays():
    codes = [{"IMI": 0.0}, {"IMI": 14.0}, {"IMI": 15.0}, {"IMI": 15.0, "NORM": 10.0}, {}]
    task = Task("two", ("MI", "NORM"), {"IMI": "MI", "NORM": "NORM"})
    assert task.labels(codes)[:, 0].tolist() == [1, 1, 1, 1, 0]
    assert task.labels(codes, 15).tolist() == [[1, 0], [0, 0], [1, 0], [1, 0], [0, 0]]


def test_a_table_without_forms_and_rhythms_has_the_other_tasks():
    tasks = ptbxl_tasks([Statement("IMI", True, superclass="MI"), Statement("SR"), Statement("XYZ", True)])
    assert list(tasks) == ["superclass", "diagnostic", "all"]
    assert dict(tasks["superclass"].statements) == {"IMI": "MI"}
    assert tasks["superclass"].classes == SUPERCLASSES
    assert tasks["diagnostic"].classes == tasks["all"].classes == ("IMI", "XYZ")


def test_statements_that_share_a_class_make_one_label():
    task = Task("two", ("A", "B"), {"a": "A", "b": "A", "c": "B"})
    assert task.labels([{"a": 100, "b": 0}, {"c": 50, "other": 100}]).tolist() == [[1, 0], [0, 1]]
