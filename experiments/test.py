"""Test a trained network: every metric of the field with its interval, beside the published figures.

python -m experiments.test --model imle_net --data_dir data/ptb
"""

import argparse
import warnings
from dataclasses import replace
from functools import partial
from typing import Any

from experiments.cli import (
    Parser,
    add_cache_flag,
    add_checkpoint_flags,
    add_data_flags,
    add_precision_flag,
    add_run_flags,
    boolean,
    check_folds,
    coverage,
    execute,
    run_name,
)
from experiments.results import Files, Tested, read_tests, write_groups, write_metrics, write_sets
from experiments.task import (
    LEAKS,
    REFERENCE,
    add_task_flags,
    check,
    check_task_flags,
    choose_records,
    suffix,
    task_of,
)
from imlenet_jax.checkpoints.card import write_card
from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.checkpoints.reading import load_variables
from imlenet_jax.data.groups import columns_of
from imlenet_jax.data.loader import Split
from imlenet_jax.data.open import open_dataset, usual_task
from imlenet_jax.data.shards import Dataset
from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.evaluation.seeds import format_seeds, over_seeds
from imlenet_jax.files import write_json
from imlenet_jax.models import MODELS, create_model, entry
from imlenet_jax.runtime.compilation import use_cache
from imlenet_jax.runtime.precision import set_precision
from imlenet_jax.training.parallel import Devices, print_devices
from imlenet_jax.training.predictor import Predictor
from imlenet_jax.training.seen import seen_records


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(prog="python -m experiments.test", description="Test a trained network.")
    parser.add_argument("--model", default="imle_net", help=f"one of {', '.join(MODELS)}")
    add_data_flags(parser)
    add_run_flags(parser)
    add_checkpoint_flags(parser)
    add_task_flags(parser)
    add_precision_flag(parser)
    add_cache_flag(parser)
    parser.add_argument(
        "--allow_seen", type=boolean, default=False, help="test even on records that trained the network"
    )
    parser.add_argument(
        "--temperature",
        type=boolean,
        default=False,
        help="calibrate: divide logits by a number fitted on the validation folds, and report both",
    )
    parser.add_argument(
        "--coverage",
        type=coverage,
        metavar="SHARE",
        help="add sets of the classes that cannot be ruled out, which hold this share of the records of each class: 0.9",
    )
    parser.add_argument(
        "--by",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="add metrics in groups of records: sex age device site ...",
    )
    return parser


def main() -> None:
    """Parse the flags and run."""
    execute(make_parser(), run)


def run(args: argparse.Namespace) -> None:
    """Test."""
    entry(args.model)
    if args.split == "test":
        check_folds(val_folds=args.val_folds, test_folds=args.test_folds)
    check_task_flags(args)
    for flag, given in (("--temperature True", args.temperature), ("--coverage", args.coverage)):
        if given and args.split != "test":
            raise UserError(f"{flag} is fitted on --val_folds: test on other folds, with --split test")
        if given and args.sub_split == REFERENCE:
            raise UserError(f"{flag} needs validation records apart from the test: take --sub_split clean")
    if args.sub_split == REFERENCE:
        warnings.warn(LEAKS, DataWarning, stacklevel=2)
    print_devices()
    use_cache(args.compilation_cache)
    devices = Devices(args.num_devices)
    asked = suffix(args, usual_task(args.data_dir))
    if args.seeds == 1:
        test_one(args, run_name(args.model, asked=asked), devices)
        return
    names = [run_name(args.model, seed, asked) for seed in range(args.seed, args.seed + args.seeds)]
    reports = [test_one(args, name, devices) for name in names]
    summary = over_seeds(reports)
    print(f"\nover {args.seeds} seeds:\n{format_seeds(summary)}")
    path = args.log_dir / f"{run_name(args.model, asked=asked)}_{args.split}_seeds.json"
    write_json(path, {"runs": names, "metrics": summary})
    print(f"over seeds: {path}")


def test_one(args: argparse.Namespace, name: str, devices: Devices) -> dict[str, Any]:
    """Test one checkpoint folder, write its files, and return its report."""
    meta, variables = load_variables(args.checkpoint_dir / name, args.which)
    set_precision(args.precision or meta.precision)
    dataset = open_dataset(args.data_dir, meta.sampling_rate, allow_missing=args.allow_missing, verify=args.verify)
    task = task_of(args, dataset)
    check(meta, args.model, dataset, task)
    if args.sub and (trained_with := meta.training.get("sub_split")) != args.sub_split:
        raise UserError(f"{name} was trained with --sub_split {trained_with}: test it with the same")
    split = choose(dataset, args)
    check_unseen(meta, split, args, "--test_folds" if args.split == "test" else "--val_folds")
    groups = columns_of(dataset, args.by, split.rows)
    validation = choose_records(args, dataset, "validation") if args.temperature or args.coverage else None
    if validation is not None:
        check_unseen(meta, validation, args, "--val_folds")

    predict = partial(
        Predictor(create_model(meta.model, meta.network_config), devices, task.exclusive),
        devices.put_everywhere(variables),
    )
    logits = predict(split, meta.scaling, args.batchsize, progress="testing")
    tested = Tested(name, meta, task, split, logits, args.split, args.precision or meta.precision)
    if validation is not None:
        outputs = predict(validation, meta.scaling, args.batchsize, progress="validation")
        tested = replace(tested, validation=validation, validated=outputs)

    files = Files(args.log_dir, f"{name}_{args.split}")
    report = write_metrics(tested, files, args.temperature)
    sets = write_sets(tested, files, args.coverage) if args.coverage else None
    if groups:
        write_groups(tested, files, groups, sets)
    if args.split == "test":
        write_card(args.checkpoint_dir / name, meta, read_tests(args.log_dir, name, meta))
    print(files)
    return report


def choose(dataset: Dataset, args: argparse.Namespace) -> Split:
    """The records that `--split` means."""
    return choose_records(args, dataset, "test" if args.split == "test" else "validation")


def check_unseen(meta: Meta, split: Split, args: argparse.Namespace, flag: str) -> None:
    """Refuse to score a network on records that trained it, or the one it started from; the reference's split is warned of."""
    count = len(seen_records(meta, split)) if args.sub_split != REFERENCE else 0
    if count and not args.allow_seen:
        raise UserError(
            f"{count} of the {len(split)} records of {flag} trained this network, so it would look better than it is: "
            f"choose other {flag}, or --allow_seen True"
        )
    chosen_by = set(meta.training.get("val_folds") or ()) & set(args.test_folds)
    if (
        flag == "--test_folds"
        and chosen_by
        and not args.allow_seen
        and meta.data_fingerprint == split.dataset.fingerprint
    ):
        warnings.warn(
            f"fold {min(chosen_by)} chose this network's best epoch and its thresholds, so it looks better here than it is",
            DataWarning,
            stacklevel=2,
        )


if __name__ == "__main__":
    main()
