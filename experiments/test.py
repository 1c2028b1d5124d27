"""Test a trained network: every metric of the field with its interval, beside the published figures.

python -m experiments.test --model imle_net --data_dir data/ptb
"""

import argparse
from typing import Any

import numpy as np

from experiments.cli import Parser, add_checkpoint_flags, add_data_flags, add_run_flags, execute, run_name
from imlenet_jax.data.loader import Split, select
from imlenet_jax.data.open import open_dataset
from imlenet_jax.data.shards import Dataset
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.report import evaluate, format_table, predictions_frame, sigmoid
from imlenet_jax.evaluation.seeds import format_seeds, over_seeds
from imlenet_jax.files import write_atomically, write_json
from imlenet_jax.models import MODELS, create_model, entry
from imlenet_jax.training.checkpoint import Meta, load_variables
from imlenet_jax.training.loop import Predictor
from imlenet_jax.training.parallel import Devices, print_devices


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m experiments.test", description="Test a trained network.")
    parser.add_argument("--model", default="imle_net", help=f"one of {', '.join(MODELS)}")
    add_data_flags(parser)
    add_run_flags(parser)
    add_checkpoint_flags(parser)
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Test."""
    entry(args.model)
    print_devices()
    devices = Devices(args.num_devices)
    if args.seeds == 1:
        test_one(args, run_name(args.model), devices)
        return
    names = [run_name(args.model, seed) for seed in range(args.seed, args.seed + args.seeds)]
    reports = [test_one(args, name, devices) for name in names]
    summary = over_seeds(reports)
    print(f"\nover {args.seeds} seeds:\n{format_seeds(summary)}")
    path = args.log_dir / f"{args.model}_{args.split}_seeds.json"
    write_json(path, {"runs": names, "metrics": summary})
    print(f"over seeds: {path}")


def test_one(args: argparse.Namespace, name: str, devices: Devices) -> dict[str, Any]:
    """Test one checkpoint folder, write its files, and return its report."""
    meta, variables = load_variables(args.checkpoint_dir / name, args.which)
    dataset = open_dataset(args.data_dir, meta.sampling_rate, allow_missing=args.allow_missing)
    check(meta, args.model, dataset)
    folds, split = choose(dataset, args)

    predict = Predictor(create_model(meta.model, meta.network_config), devices)
    logits = predict(devices.put_everywhere(variables), split, meta.scaling, args.batchsize, progress="testing")
    thresholds = None if meta.thresholds is None else np.array(meta.thresholds, float)
    report = evaluate(split.labels, logits, meta.classes, thresholds)
    print(format_table(report, args.model if dataset.source == "PTB-XL" else None))

    metrics = args.log_dir / f"{name}_{args.split}_logs.json"
    predictions = args.log_dir / f"{name}_{args.split}_predictions.csv"
    about = {
        "model": meta.model,
        "epoch": meta.epoch,
        "split": args.split,
        "folds": list(folds),
        "records": len(split.rows),
        "data": dataset.source,
    }
    write_json(metrics, about | {"data_fingerprint": dataset.fingerprint, "metrics": report})
    frame = predictions_frame(split.ecg_id, split.labels, sigmoid(logits), meta.classes)
    write_atomically(predictions, frame.to_csv(index=False).encode())
    print(f"metrics: {metrics}   predictions: {predictions}")
    return report


def choose(dataset: Dataset, args: argparse.Namespace) -> tuple[tuple[int, ...], Split]:
    """The folds that `--split` means and their records."""
    folds, name = (args.test_folds, "test") if args.split == "test" else (args.val_folds, "validation")
    return folds, select(dataset, folds, name, args.min_likelihood)


def check(meta: Meta, model: str, dataset: Dataset) -> None:
    """Refuse a checkpoint that does not belong to the model or the data."""
    if meta.model != model:
        raise UserError(f"the checkpoint is of {meta.model}, not {model}: change --model or --checkpoint_dir")
    for name, ours, theirs in (
        ("classes", meta.classes, dataset.classes),
        ("leads", meta.leads, dataset.leads),
        ("samples per second", [meta.sampling_rate], [dataset.sampling_rate]),
        ("samples per record", [meta.network_config.length], [dataset.length]),
    ):
        if list(ours) != list(theirs):
            raise UserError(
                f"the checkpoint was trained on {name} {', '.join(map(str, ours))}, "
                f"but the data has {', '.join(map(str, theirs))}: choose another --data_dir or --checkpoint_dir"
            )


if __name__ == "__main__":
    main()
