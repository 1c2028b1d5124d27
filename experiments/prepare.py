"""Turn a PTB-XL folder into shards, once.

python -m experiments.prepare --data_dir data/ptb
"""

import argparse
from pathlib import Path

import numpy as np

from experiments.cli import Parser, boolean, execute, positive_int
from imlenet_jax.data.open import shards_folder
from imlenet_jax.data.prepare import prepare_shards
from imlenet_jax.data.ptbxl import SAMPLING_RATES
from imlenet_jax.data.shards import Dataset, open_shards


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m experiments.prepare", description="PTB-XL to int16 shards.")
    parser.add_argument("--data_dir", type=Path, default=Path("data/ptb"), help="PTB-XL folder")
    parser.add_argument("--out", type=Path, help="folder for the shards; imlenet_shards_<rate> in data_dir by default")
    parser.add_argument("--sampling_rate", type=int, choices=SAMPLING_RATES, default=100, help="Hz")
    parser.add_argument("--workers", type=positive_int, help="threads that read; one per core by default")
    parser.add_argument("--allow_missing", type=boolean, default=False, help="go on without records that lack files")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Prepare."""
    print("device: CPU (numpy only)")
    out = args.out or (shards_folder(args.data_dir, args.sampling_rate) if args.data_dir.is_dir() else None)
    done = prepare_shards(args.data_dir, out, args.sampling_rate, args.workers, args.allow_missing)
    dataset = open_shards(done.path)
    if done.records:
        rate = done.records / done.seconds
        print(f"{done.records} of {len(dataset)} records converted in {done.seconds:.1f} s ({rate:,.0f} records/s)")
    else:
        print(f"all {len(dataset)} records were prepared before: nothing to do")
    print(f"shards: {done.path}")
    print_counts(dataset)


def print_counts(dataset: Dataset) -> None:
    """Print how many records each class of the usual task and group of folds has, of those with a class."""
    task = dataset.task()
    labels = task.labels(dataset.scp_codes)
    with_class = labels.any(axis=1)
    counts = ", ".join(f"{name} {count}" for name, count in zip(task.classes, labels.sum(axis=0), strict=True))
    groups = [dataset.fold <= 8, dataset.fold == 9, dataset.fold == 10]
    folds = " / ".join(str(np.count_nonzero(group & with_class)) for group in groups)
    print(f"with a class of '{task.name}': {np.count_nonzero(with_class)} ({counts}); folds 1-8 / 9 / 10: {folds}")


if __name__ == "__main__":
    main()
