"""Turn a PTB-XL folder, or your own recordings and labels, into shards, once.

python -m experiments.prepare --data_dir data/ptb
python -m experiments.prepare --records records.csv --out shards
"""

import argparse
import csv
from collections import Counter
from pathlib import Path

import numpy as np

from experiments.cli import Parser, boolean, execute, lead_map, names, positive_float, positive_int
from imlenet_jax.data.ecg import SHORT
from imlenet_jax.data.leads import parse_lead
from imlenet_jax.data.listing import Listing, read_listing
from imlenet_jax.data.manifest import MAX_SECONDS
from imlenet_jax.data.open import shards_folder
from imlenet_jax.data.own import REPORT, Shape, prepare_own
from imlenet_jax.data.prepare import Prepared, prepare_shards
from imlenet_jax.data.ptbxl import LEADS, SAMPLING_RATES, SECONDS
from imlenet_jax.data.shards import Dataset, open_shards
from imlenet_jax.errors import UserError

OWN_RATES = (50, 1000)  # Hz that own recordings can be brought to
SPLITS = {"1-8": range(1, 9), "9": (9,), "10": (10,)}


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(
        prog="python -m experiments.prepare", description="PTB-XL, or your own recordings, to int16 shards."
    )
    parser.add_argument("--data_dir", type=Path, default=Path("data/ptb"), help="PTB-XL folder")
    parser.add_argument(
        "--out", type=Path, help="folder for the shards; imlenet_shards_<rate> beside what is prepared by default"
    )
    parser.add_argument(
        "--sampling_rate", type=positive_int, default=100, help="Hz of the shards; of PTB-XL 100 or 500"
    )
    parser.add_argument("--workers", type=positive_int, help="recordings read at a time; one per core by default")
    parser.add_argument("--allow_missing", type=boolean, default=False, help="go on without records that lack files")
    own = parser.add_argument_group("your own recordings")
    own.add_argument("--records", type=Path, help="records.csv: a row per recording, with its labels")
    own.add_argument("--root", type=Path, help="folder that its paths start from; its own by default")
    own.add_argument("--labels", type=names, help="labels that count, in this order, as A,B,C; all by default")
    own.add_argument("--seconds", type=positive_float, default=SECONDS, help="of each record; longer ones are cut")
    own.add_argument("--leads", type=names, default=LEADS, help="of each record, in this order")
    own.add_argument("--lead_map", type=lead_map, default={}, help="names to take for a standard lead, as MLII=II")
    own.add_argument("--short", choices=SHORT, default=SHORT[0], help="recordings of less than --seconds")
    return parser


def main() -> None:
    """Parse the flags and run."""
    execute(make_parser(), run)


def run(args: argparse.Namespace) -> None:
    """Prepare."""
    print("device: CPU (numpy only)")
    done, listing = (_prepare_ptbxl(args), None) if args.records is None else _prepare_own(args)
    dataset = open_shards(done.path)
    if done.records:
        rate = done.records / done.seconds
        total = len(listing or dataset)
        print(f"{done.records} of {total} records converted in {done.seconds:.1f} s ({rate:,.0f} records/s)")
    else:
        print(f"all {len(listing or dataset)} records were prepared before: nothing to do")
    print(f"shards: {done.path}")
    if listing:
        print_report(done.path / REPORT, listing, dataset)
    print_counts(dataset)


def _prepare_ptbxl(args: argparse.Namespace) -> Prepared:
    for flag, usual in (
        ("root", None),
        ("labels", None),
        ("seconds", SECONDS),
        ("leads", LEADS),
        ("lead_map", {}),
        ("short", SHORT[0]),
    ):
        if getattr(args, flag) != usual:
            raise UserError(f"--{flag} is for your own recordings: give --records, too, or leave it out")
    if args.sampling_rate not in SAMPLING_RATES:
        raise UserError(f"PTB-XL has no recordings at {args.sampling_rate} Hz: --sampling_rate must be 100 or 500")
    out = args.out or (shards_folder(args.data_dir, args.sampling_rate) if args.data_dir.is_dir() else None)
    return prepare_shards(args.data_dir, out, args.sampling_rate, args.workers, args.allow_missing)


def _prepare_own(args: argparse.Namespace) -> tuple[Prepared, Listing]:
    low, high = OWN_RATES
    if not low <= args.sampling_rate <= high:
        raise UserError(f"--sampling_rate {args.sampling_rate} is not from {low} to {high} Hz: choose one that is")
    if not 1 <= args.seconds <= MAX_SECONDS:
        raise UserError(f"--seconds {args.seconds:g} is not from 1 to {MAX_SECONDS}: choose a length that is")
    leads = tuple(parse_lead(name) or "" for name in args.leads)
    if "" in leads or len(set(leads)) < len(leads):
        raise UserError(f"--leads {','.join(args.leads)} is not a list of different leads among {', '.join(LEADS)}")
    listing = read_listing(args.records, args.root, args.labels)
    missing = [path for path in listing.files if not path.is_file()]
    if missing and not args.allow_missing:
        raise UserError(
            f"{len(missing)} of {len(listing)} recordings in {args.records} are not there, the first is {missing[0]}: "
            "correct the paths or --root, or go on with what is there with --allow_missing True"
        )
    out = args.out or args.records.parent / f"imlenet_shards_{args.sampling_rate}"
    shape = Shape(leads, args.sampling_rate, args.seconds, args.lead_map, args.short)
    return prepare_own(listing, out, shape, args.workers), listing


def print_report(path: Path, listing: Listing, dataset: Dataset) -> None:
    """Print what became of the recordings, with the commonest reason of each kind."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    unused = sum(row["windows"] == "0" for row in rows)
    print(f"{len(rows) - unused} recordings gave {len(dataset)} records, {unused} gave none; each is in {path}")
    for column in ("why_left_out", "changed", "implausible"):
        told = [row[column].replace(row["record"], "...") for row in rows if row[column]]
        if told:
            reason, count = Counter(told).most_common(1)[0]
            print(f"{column.replace('_', ' ')}: {len(told)} recordings; most often, {count} times: {reason}")
    if listing.dealt:
        print("folds were dealt by patient" if "patient_id" in dataset.about else "folds were dealt by recording")


def print_counts(dataset: Dataset) -> None:
    """Print how many records each class of the usual task has, in all and per group of folds."""
    task = dataset.task()
    labels = task.labels(dataset.scp_codes)
    known = task.takes(labels)
    groups = {name: np.isin(dataset.fold, numbers) for name, numbers in SPLITS.items()}
    sizes = " / ".join(str(np.count_nonzero(group & known)) for group in groups.values())
    counts = ", ".join(f"{name} {count}" for name, count in zip(task.classes, labels.sum(axis=0), strict=True))
    print(f"for task '{task.name}': {np.count_nonzero(known)} ({counts}); folds {' / '.join(groups)}: {sizes}")
    if task.unlabelled:
        for place, name in enumerate(task.classes):
            shares = " / ".join(_share(labels[group, place]) for group in groups.values())
            print(f"{name}: {shares} of the records in these folds")


def _share(values: np.ndarray) -> str:
    return f"{values.mean():.1%}" if len(values) else "none"


if __name__ == "__main__":
    main()
