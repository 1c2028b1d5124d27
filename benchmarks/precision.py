"""Does a network trained with `--dtype bfloat16` reach what it reaches in float32?

    python -m benchmarks.precision [--data_dir synthetic] [--seeds 3] [--epochs 5] [--out FILE]

Trains a small network from several seeds in both types and compares the test macro AUC of the best epoch by
validation, seed by seed: the two share weights, order of records and dropout, and differ in the type alone. Inference
is in float32, as `experiments.test` does it.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parts.machine import machine
from benchmarks.parts.records import FOLDS, config_for, describe
from experiments.cli import Parser, add_cache_flag, execute, json_object, positive_float, positive_int
from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.checkpoints.reading import load_variables
from imlenet_jax.data.loader import Split, select
from imlenet_jax.data.open import open_dataset
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.metrics import macro_auc
from imlenet_jax.evaluation.seeds import over_seeds
from imlenet_jax.files import write_json
from imlenet_jax.models import MODELS, create_model
from imlenet_jax.runtime.compilation import use_cache
from imlenet_jax.training.loop import fit
from imlenet_jax.training.parallel import make_devices, print_devices
from imlenet_jax.training.predictor import Predictor
from imlenet_jax.training.recipe import DTYPES, Recipe
from imlenet_jax.training.saving import Checkpoints

SMALL = {"filters": [8, 16], "lstm_units": 8, "hidden": 16}


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.precision", description="bfloat16 against float32.")
    parser.add_argument("--model", choices=MODELS, default="mousavi", help="network to train")
    parser.add_argument("--config", type=json_object, default=SMALL, help="constants of the network to change, as JSON")
    parser.add_argument("--data_dir", default="synthetic", help="PTB-XL folder, shards, or 'synthetic'")
    parser.add_argument("--seeds", type=positive_int, default=3, help="from 0 on; two at least")
    parser.add_argument("--epochs", type=positive_int, default=5, help="passes over the training records")
    parser.add_argument("--batchsize", type=positive_int, default=32, help="records per step")
    parser.add_argument("--lr", type=positive_float, default=0.01, help="Adam's learning rate")
    parser.add_argument("--out", type=Path, help="write the results there as JSON")
    add_cache_flag(parser)
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Train, compare, print, write."""
    if args.seeds < 2:
        raise UserError("--seeds 1 has no interval: take two at least")
    print_devices()
    use_cache(args.compilation_cache)
    splits = open_splits(args.data_dir)
    meta = describe(args.model, config_for(args.model, splits["training"], args.config), splits["training"])
    results: dict[str, Any] = {
        "machine": machine("benchmarks.precision"),
        **{name: getattr(args, name) for name in ("model", "config", "epochs", "batchsize", "lr")},
        "data": splits["training"].dataset.source,
        "train_records": len(splits["training"]),
        "test_records": len(splits["test"]),
        "seeds": list(range(args.seeds)),
        "runs": {dtype: [] for dtype in DTYPES},
    }
    for seed in results["seeds"]:
        for dtype, areas in results["runs"].items():
            recipe = Recipe(args.batchsize, args.epochs, seed, args.lr, dtype=dtype)
            areas.append(trained_auc(meta, splits, recipe))
            print(f"seed {seed}, {dtype}: test macro AUC {areas[-1]:.4f}", flush=True)
    results |= compared(results["runs"])
    found = results["difference"]
    print(f"bfloat16 less float32: {found['mean']:+.4f}, 95 % interval [{found['low']:+.4f}, {found['high']:+.4f}]")
    if args.out:
        write_json(args.out, results)
        print(f"written: {args.out}")


def open_splits(data_dir: str) -> dict[str, Split]:
    """Training, validation and test records."""
    dataset, folds = open_dataset(data_dir), {"training": FOLDS, "validation": (9,), "test": (10,)}
    return {name: select(dataset, numbers, name) for name, numbers in folds.items()}


def trained_auc(meta: Meta, splits: dict[str, Split], recipe: Recipe) -> float:
    """The test macro AUC of the best epoch of one run."""
    devices = make_devices()
    with tempfile.TemporaryDirectory() as folder:
        with Checkpoints(Path(folder) / "run") as checkpoints:
            fit(meta, splits["training"], splits["validation"], recipe, devices, checkpoints)
        _, variables = load_variables(Path(folder) / "run")
    predict = Predictor(create_model(meta.model, meta.network_config), devices)
    logits = predict(devices.put_everywhere(variables), splits["test"], meta.scaling, recipe.batchsize)
    return float(macro_auc(splits["test"].labels, logits))


def compared(runs: dict[str, list[float]]) -> dict[str, Any]:
    """The mean difference over the seeds with its interval, and how much float32 alone varies."""
    pairs = zip(runs["bfloat16"], runs["float32"], strict=True)
    difference = over_seeds([{"macro_auc": {"value": half - full}} for half, full in pairs])["macro_auc"]
    return {"difference": difference, "float32_std": float(np.std(runs["float32"], ddof=1))}


if __name__ == "__main__":
    main()
