"""Test a trained network: every metric of the field with its interval, beside the published figures.

python -m experiments.test --model imle_net --data_dir data/ptb
"""

import argparse
import warnings
from typing import Any

import numpy as np

from experiments.cli import (
    Parser,
    add_cache_flag,
    add_checkpoint_flags,
    add_data_flags,
    add_precision_flag,
    add_run_flags,
    boolean,
    check_folds,
    execute,
    run_name,
)
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
from imlenet_jax.data.loader import Split
from imlenet_jax.data.open import open_dataset, usual_task
from imlenet_jax.data.shards import Dataset
from imlenet_jax.data.tasks import SUPERCLASS, Task
from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.evaluation.attention_report import png
from imlenet_jax.evaluation.calibration import calibration, fit_temperature, format_calibration, reliability, tempered
from imlenet_jax.evaluation.confusion import confusion, format_confusion, matrix
from imlenet_jax.evaluation.diagrams import draw_reliability
from imlenet_jax.evaluation.metrics import most_probable
from imlenet_jax.evaluation.report import MANY, commonest, evaluate, format_table, predictions_frame, sigmoid
from imlenet_jax.evaluation.seeds import format_seeds, over_seeds
from imlenet_jax.files import write_atomically, write_json
from imlenet_jax.models import MODELS, create_model, entry
from imlenet_jax.training.checkpoint import Meta, load_variables
from imlenet_jax.training.compilation import use_cache
from imlenet_jax.training.loop import Predictor
from imlenet_jax.training.parallel import Devices, print_devices
from imlenet_jax.training.precision import set_precision
from imlenet_jax.training.seen import seen_records


def main() -> None:
    """Parse the flags and run."""
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
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Test."""
    entry(args.model)
    if args.split == "test":
        check_folds(val_folds=args.val_folds, test_folds=args.test_folds)
    elif args.temperature:
        raise UserError("--temperature True is fitted on --val_folds: test on other folds, with --split test")
    check_task_flags(args)
    if args.sub_split == REFERENCE:
        if args.temperature:
            raise UserError("--temperature True needs validation records apart from the test: take --sub_split clean")
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
    task, temperature = task_of(args, dataset), None
    check(meta, args.model, dataset, task)
    if args.sub and (trained_with := meta.training.get("sub_split")) != args.sub_split:
        raise UserError(f"{name} was trained with --sub_split {trained_with}: test it with the same")
    split = choose(dataset, args)
    check_unseen(meta, split, args)

    predictor, variables = (
        Predictor(create_model(meta.model, meta.network_config), devices),
        devices.put_everywhere(variables),
    )
    logits = predictor(variables, split, meta.scaling, args.batchsize, progress="testing")
    if args.temperature:
        validation = choose_records(args, dataset, "validation")
        outputs = predictor(variables, validation, meta.scaling, args.batchsize, progress="temperature")
        temperature = fit_temperature(task, validation.labels, outputs)

    report = evaluate(
        split.labels, task.log_odds(logits), meta.classes, _limits(meta.thresholds), exclusive=task.exclusive
    )
    published = dataset.source == "PTB-XL" and task.name == SUPERCLASS
    print(format_table(report, args.model if published else None), end="\n\n")
    decisions = decide(meta, task, split.labels, logits)
    probabilities = {"as trained": tempered(task, logits)}
    if temperature is not None:
        probabilities[f"temperature {temperature:.3f}"] = tempered(task, logits, temperature)
    calibrations = {name: calibration(split.labels, p, meta.classes) for name, p in probabilities.items()}
    few = len(meta.classes) <= MANY
    print(
        format_calibration(calibrations if few else {name: {"mean": of["mean"]} for name, of in calibrations.items()})
    )

    start = f"{name}_{args.split}"
    metrics, predictions = args.log_dir / f"{start}_logs.json", args.log_dir / f"{start}_predictions.csv"
    figure = args.log_dir / f"{start}_reliability.png"
    about = {
        "model": meta.model,
        "task": meta.task,
        "epoch": meta.epoch,
        "split": args.split,
        "folds": list(split.folds),
        "records": len(split.rows),
        "precision": args.precision or meta.precision,
        **({"sub_split": args.sub_split} if args.sub else {}),
        "data": dataset.source,
        "data_fingerprint": dataset.fingerprint,
    }
    found = {"metrics": report, "confusion": decisions, "temperature": temperature, "calibration": calibrations}
    write_json(metrics, about | found)
    frame = predictions_frame(split.ecg_id, split.labels, probabilities["as trained"], meta.classes)
    write_atomically(predictions, frame.to_csv(index=False).encode())
    curves = {name: reliability(split.labels, p) for name, p in probabilities.items()}
    shown = commonest(report["positives"])
    kept = "" if few else f", the {len(shown)} commonest of {len(meta.classes)} classes"
    title = f"Reliability of {name}, {args.split}, {len(split):,} records{kept}"
    write_atomically(figure, png(draw_reliability(curves, meta.classes, title, shown)))
    print(f"metrics: {metrics}   predictions: {predictions}   reliability: {figure}")
    return report


def decide(meta: Meta, task: Task, labels: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    """Print and return right and wrong decisions: at each choice of thresholds, or of the most probable class."""
    if task.exclusive:
        predicted = most_probable(logits)
        found = confusion(labels, predicted, meta.classes)
        print(f"{format_confusion(found, 'decisions: the most probable class')}\n")
        return {"most_probable": found, "matrix": matrix(labels, predicted, meta.classes)}
    decisions = {}
    for name, title, stored in (
        ("max_f1_thresholds", "decisions at the thresholds of the best F1 on the validation folds", meta.thresholds),
        (
            "youden_thresholds",
            "decisions at the thresholds of the best sensitivity + specificity there (Youden)",
            meta.youden,
        ),
    ):
        if (limits := _limits(stored)) is not None:
            decisions[name] = confusion(labels, sigmoid(logits) >= limits, meta.classes, limits)
            if len(meta.classes) <= MANY:
                print(f"{format_confusion(decisions[name], title)}\n")
    return decisions


def _limits(stored: list[float | None] | None) -> np.ndarray | None:
    return None if stored is None else np.array(stored, float)


def choose(dataset: Dataset, args: argparse.Namespace) -> Split:
    """The records that `--split` means."""
    return choose_records(args, dataset, "test" if args.split == "test" else "validation")


def check_unseen(meta: Meta, split: Split, args: argparse.Namespace) -> None:
    """Refuse to score a network on records that trained it, or the one it started from; the reference's split is warned of."""
    count = len(seen_records(meta, split)) if args.sub_split != REFERENCE else 0
    if count and not args.allow_seen:
        raise UserError(
            f"{count} of the {len(split)} records to test on trained this network, so it would look better than it is: "
            f"choose other {'--test_folds' if args.split == 'test' else '--val_folds'}, or --allow_seen True"
        )


if __name__ == "__main__":
    main()
