"""What the labels of a data set are worth: how many, how sure, with which others, who validated them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from imlenet_jax.data.shards import Dataset
from imlenet_jax.data.tasks import Task

LIKELIHOODS = (15, 35, 50, 80, 100)
"""The likelihoods that PTB-XL states, in percent, but for 0, which means that none was."""

HEALTHY = "NORM"
NOT_STATED = "not stated"


def class_table(dataset: Dataset, task: Task, folds: Mapping[str, tuple[int, ...]]) -> pd.DataFrame:
    """A row per class: `records`, and of these how many are in each group of folds; how many have a stated likelihood.

    `not_stated` counts records whose statements of the class all have likelihood 0. `dropped_below_<p>` is what
    `--min_likelihood p` would take away. `validated_by_human`, `second_opinion`: records of which the data say so, where
    they say anything. `most_often_with` is the other class that most of the records have, too.
    """
    labels = task.labels(dataset.scp_codes).astype(bool)
    table = pd.DataFrame({"records": labels.sum(axis=0)}, index=pd.Index(task.classes, name="class"))
    for name, numbers in folds.items():
        table[name] = labels[np.isin(dataset.fold, numbers)].sum(axis=0)
    stated = [{code: p for code, p in codes.items() if p != 0} for codes in dataset.scp_codes]
    table["not_stated"] = (labels & ~task.labels(stated).astype(bool)).sum(axis=0)
    for likelihood in LIKELIHOODS:
        kept = task.labels(dataset.scp_codes, likelihood).astype(bool)
        table[f"dropped_below_{likelihood}"] = (labels & ~kept).sum(axis=0)
    for name in ("validated_by_human", "second_opinion"):
        if name in dataset.about:
            table[name] = labels[dataset.about[name] == "True"].sum(axis=0)
    others = together(labels)
    np.fill_diagonal(others, 0)
    table["most_often_with"] = [f"{task.classes[row.argmax()]} ({row.max()})" if row.max() else "" for row in others]
    return table


def together(labels: np.ndarray) -> np.ndarray:
    """How many records have each class (row) and each other (column): labels (n, C) -> (C, C) int64."""
    table = labels.astype(np.int64)
    return table.T @ table


def validators(dataset: Dataset, task: Task) -> pd.DataFrame:
    """A row per validator, of whom the data say nothing but a number: records, and records of each class."""
    if "validated_by" not in dataset.about:
        return pd.DataFrame(columns=["records", *task.classes], index=pd.Index([], name="validated_by"))
    labels = pd.DataFrame(task.labels(dataset.scp_codes), columns=task.classes)
    who = pd.Series(np.where(dataset.about["validated_by"] == "", NOT_STATED, dataset.about["validated_by"]))
    found = labels.groupby(who.rename("validated_by")).sum()
    found.insert(0, "records", who.value_counts())
    return found.sort_values("records", ascending=False)


def contradictions(dataset: Dataset) -> pd.DataFrame:
    """Records said to be normal and to have a diagnosis of another superclass, whatever the likelihoods: a row each."""
    task = next((task for task in dataset.tasks.values() if HEALTHY in task.classes), None)
    of = task.statements if task else {}
    rows = []
    for ecg_id, codes in zip(dataset.ecg_id.tolist(), dataset.scp_codes, strict=True):
        classes = {of[code] for code in codes if code in of}
        if HEALTHY in classes and len(classes) > 1:
            told = ", ".join(f"{code} {likelihood:g}" for code, likelihood in codes.items())
            rows.append((ecg_id, " ".join(sorted(classes)), told))
    return pd.DataFrame(rows, columns=["ecg_id", "classes", "statements"])


def patients_across_folds(dataset: Dataset) -> np.ndarray:
    """The patients (k,) with records in more than one fold."""
    pairs = np.unique(np.stack([dataset.patient_id, dataset.fold], axis=1), axis=0)
    patients, counts = np.unique(pairs[:, 0], return_counts=True)
    return patients[counts > 1]
