"""Audit the labels of a data set: how many of each class, how sure, with which others, who validated them.

python -m experiments.labels --data_dir data/ptb --task rhythm
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.cli import Parser, boolean, check_folds, execute, folds
from imlenet_jax.data.audit import (
    NOT_STATED,
    class_table,
    contradictions,
    patients_across_folds,
    together,
    validators,
)
from imlenet_jax.data.open import open_dataset
from imlenet_jax.data.shards import Dataset
from imlenet_jax.data.tasks import PTBXL_TASKS, Task
from imlenet_jax.evaluation.diagrams import draw_labels, png
from imlenet_jax.files import write_atomically

SPLITS = ("train", "val", "test")


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(prog="python -m experiments.labels", description="Audit the labels of a data set.")
    parser.add_argument(
        "--data_dir",
        default="data/ptb",
        help="PTB-XL folder, prepared shards, or 'synthetic' for the embedded data set",
    )
    parser.add_argument(
        "--task", help=f"of PTB-XL: {', '.join(PTBXL_TASKS)}; the first, or the data's own, unless given"
    )
    for name, numbers in zip(SPLITS, (tuple(range(1, 9)), (9,), (10,)), strict=True):
        parser.add_argument(f"--{name}_folds", type=folds, default=numbers, help="folds that are counted together")
    parser.add_argument(
        "--allow_missing", type=boolean, default=False, help="go on without records whose files are missing"
    )
    parser.add_argument("--out", type=Path, default=Path("results/labels"), help="<task>/ is made below it")
    return parser


def main() -> None:
    """Parse the flags and run."""
    execute(make_parser(), run)


def run(args: argparse.Namespace) -> None:
    """Count, print, draw, write."""
    groups = {f"{name}_folds": getattr(args, f"{name}_folds") for name in SPLITS}
    check_folds(**groups)
    dataset = open_dataset(args.data_dir, allow_missing=args.allow_missing)
    task = dataset.task(args.task)
    out = args.out / task.name
    out.mkdir(parents=True, exist_ok=True)
    table = class_table(dataset, task, dict(zip(SPLITS, groups.values(), strict=True)))
    labels = task.labels(dataset.scp_codes)
    counts = pd.DataFrame(together(labels), index=table.index, columns=task.classes)
    contradicting, who = contradictions(dataset), validators(dataset, task)

    with pd.option_context("display.max_rows", None, "display.max_columns", None, "display.width", None):
        print(table.rename(columns=lambda name: name.replace("dropped_below_", "<")).to_string())
    for line in summary(args, dataset, task, labels, len(contradicting), who):
        print(line)
    tables = {
        "classes": table,
        "together": counts,
        "validators": who,
        "contradictions": contradicting.set_index("ecg_id"),
    }
    for name, frame in tables.items():
        write_atomically(out / f"{name}.csv", frame.to_csv().encode())
    title = f"{dataset.source}, task '{task.name}': {int(labels.any(axis=1).sum()):,} records with a class"
    write_atomically(out / "labels.png", png(draw_labels(table[list(SPLITS)], counts.to_numpy(), title)))
    print(f"written: {', '.join(f'{name}.csv' for name in tables)} and labels.png in {out}")


def summary(
    args: argparse.Namespace,
    dataset: Dataset,
    task: Task,
    labels: np.ndarray,
    contradicting: int,
    who: pd.DataFrame,
) -> Iterator[str]:
    """The lines below the table."""
    inside = {name: np.isin(dataset.fold, getattr(args, f"{name}_folds")) for name in SPLITS}
    known = labels.any(axis=1)
    sizes = " / ".join(str(np.count_nonzero(known & rows)) for rows in inside.values())
    yield (
        f"'{task.name}': {len(task.classes)} classes, {np.count_nonzero(known)} of {len(dataset)} records have one; "
        f"{sizes} in train / val / test"
    )
    yield "<15 to <100: records that --min_likelihood so high would take from the class"
    for name, rows in inside.items():
        held = labels[rows].any(axis=0)
        if not held.all():
            lacking = ", ".join(itertools.compress(task.classes, ~held))
            what = "no network can learn them" if name == "train" else "their metrics do not exist there"
            yield f"no record of {name} has {lacking}: {what}"
    if len(who):
        unknown = int(who["records"].get(NOT_STATED, 0))
        yield f"validated by {len(who.index.drop(NOT_STATED, errors='ignore'))} people; by whom is not stated of {unknown} records"
    yield f"{contradicting} records are said to be normal and to have another diagnosis"
    across = patients_across_folds(dataset)
    yield f"{len(np.unique(dataset.patient_id))} patients, {len(across)} of them with records in several folds"


if __name__ == "__main__":
    main()
