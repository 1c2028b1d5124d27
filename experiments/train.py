"""Train a network on PTB-XL.

python -m experiments.train --model imle_net --data_dir data/ptb --batchsize 32 --epochs 60
"""

import argparse
import contextlib
import dataclasses
import warnings
from pathlib import Path

import jax
import numpy as np

from experiments.cli import (
    Parser,
    add_data_flags,
    add_run_flags,
    boolean,
    check_folds,
    execute,
    folds,
    json_object,
    positive_float,
    positive_int,
    run_name,
)
from imlenet_jax.data.loader import Split, check_batchsize, select
from imlenet_jax.data.open import open_dataset
from imlenet_jax.data.shards import Dataset
from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.evaluation.metrics import macro_auc_present
from imlenet_jax.models import MODELS, entry, make_config
from imlenet_jax.training.checkpoint import SCORE, Checkpoints, Meta, move_aside
from imlenet_jax.training.logs import RunLog
from imlenet_jax.training.loop import DTYPES, Recipe, fit
from imlenet_jax.training.parallel import (
    Devices,
    free_bytes,
    is_first_process,
    join_processes,
    make_devices,
    print_devices,
    wait_for_processes,
)

SCALER_FOLDS = tuple(range(1, 9))  # those that `prepare` computed the stored scaler from


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m experiments.train", description="Train a network on PTB-XL.")
    parser.add_argument("--model", default="imle_net", help=f"one of {', '.join(MODELS)}")
    add_data_flags(parser)
    add_run_flags(parser)
    parser.add_argument("--train_folds", type=folds, default=SCALER_FOLDS, help="folds that are trained on")
    parser.add_argument("--epochs", type=positive_int, default=Recipe.epochs, help="passes over the training records")
    parser.add_argument("--lr", type=positive_float, default=Recipe.lr, help="Adam's learning rate")
    parser.add_argument(
        "--patience",
        type=positive_int,
        default=Recipe.patience,
        help="epochs without a better validation AUC to stop at",
    )
    parser.add_argument(
        "--drop_last",
        type=boolean,
        default=True,
        help="leave the last, partial batch of an epoch out (it is reshuffled)",
    )
    parser.add_argument(
        "--config",
        type=json_object,
        default={},
        help="constants of the network to change, as JSON: '{\"lstm_units\": 32}'",
    )
    parser.add_argument("--loggr", type=boolean, default=False, help="log to wandb too")
    parser.add_argument("--sub", type=boolean, default=False, help="sub-diagnosis of MI (not available yet)")
    _add_machine_flags(parser)
    execute(parser, run)


def _add_machine_flags(parser: Parser) -> None:
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of convolutions and hidden dense layers")
    parser.add_argument("--parallel", choices=("sharded", "pmap"), default="sharded", help="jax.jit on a mesh, or pmap")
    parser.add_argument("--steps_per_call", type=positive_int, default=1, help="training steps per compiled program")
    parser.add_argument(
        "--data_on_device",
        type=lambda text: text if text == "auto" else boolean(text),
        default="auto",
        help="keep the training records on every device; auto: where they fit in a third of an accelerator's memory",
    )
    parser.add_argument("--coordinator_address", help="HOST:PORT of the first of several processes")
    parser.add_argument("--num_processes", type=positive_int, help="processes in all; detected on a cluster")
    parser.add_argument("--process_id", type=int, help="number of this process, from 0; detected on a cluster")
    parser.add_argument("--heartbeat", type=positive_int, default=100, help="seconds of silence that end all processes")


def run(args: argparse.Namespace) -> None:
    """Train."""
    entry(args.model)
    if args.sub:
        raise UserError("--sub True, the sub-diagnosis of MI, is not available in this version: leave it out")
    check_folds(train_folds=args.train_folds, val_folds=args.val_folds, test_folds=args.test_folds)
    join_processes(args.coordinator_address, args.num_processes, args.process_id, args.heartbeat)
    devices = make_devices(args.parallel, args.num_devices)
    devices.check(args.batchsize)
    if is_first_process():
        print_devices()
    if args.dtype != "float32" and jax.default_backend() == "cpu":
        warnings.warn("--dtype bfloat16 does not pay on a CPU: it is slower than float32", DataWarning, stacklevel=2)
    dataset = _open(args)
    train = select(dataset, args.train_folds, "training", args.min_likelihood)
    validation = select(dataset, args.val_folds, "validation", args.min_likelihood)
    check(args, train, validation, devices)
    args.data_on_device = _place(args.data_on_device, train, devices)
    for seed in range(args.seed, args.seed + args.seeds):
        train_one(args, seed, dataset, train, validation, devices)
    if is_first_process():
        again = f" --seed {args.seed} --seeds {args.seeds}" if args.seeds > 1 else ""
        print(f"next: python -m experiments.test --model {args.model} --data_dir {args.data_dir}{again}")


def train_one(
    args: argparse.Namespace, seed: int, dataset: Dataset, train: Split, validation: Split, devices: Devices
) -> None:
    """Train the network of one seed, with checkpoints and logs of its own."""
    name = run_name(args.model, seed if args.seeds > 1 else None)
    args = argparse.Namespace(**vars(args) | {"seed": seed})
    meta, folder = describe(args, dataset, train), args.checkpoint_dir / name
    recipe = Recipe(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Recipe)})
    with contextlib.ExitStack() as stack:
        log = None
        if is_first_process():
            log = stack.enter_context(RunLog(args.log_dir, name, meta.training, args.loggr))  # before anything is moved
            old = move_aside(folder)
            if old:
                print(f"earlier checkpoints moved to {old}")
            print(f"{name}: {len(train.rows)} records to train on, {len(validation.rows)} to validate on")
        wait_for_processes("earlier checkpoints are aside")
        checkpoints = stack.enter_context(Checkpoints(folder))
        best = fit(meta, train, validation, recipe, devices, checkpoints, log or (lambda row: None))
    if log:
        print(f"best: epoch {best['epoch']}, validation macro AUC {best[SCORE]:.4f}")
        print(f"checkpoints: {folder}   logs: {log.path}")


def _open(args: argparse.Namespace) -> Dataset:
    if not is_first_process():
        wait_for_processes("the data are prepared")
    dataset = open_dataset(args.data_dir, allow_missing=args.allow_missing, verify=args.verify)
    if is_first_process():
        wait_for_processes("the data are prepared")
    return dataset


def _place(wanted: bool | str, train: Split, devices: Devices) -> bool:
    if wanted != "auto":
        return bool(wanted)
    dataset = train.dataset
    size = len(train) * dataset.length * len(dataset.leads) * np.dtype(np.int16).itemsize
    plain = devices.axis_name is None and jax.process_count() == 1
    return plain and jax.default_backend() != "cpu" and size <= free_bytes() / 3


def check(args: argparse.Namespace, train: Split, validation: Split, devices: Devices) -> None:
    """Refuse, before anything is written, records that cannot be trained or validated on."""
    check_batchsize(train, args.batchsize)
    rest = len(train) % args.batchsize
    if not args.drop_last and rest % len(devices):
        raise UserError(
            f"--drop_last False leaves a last batch of {rest} records, which does not divide over {len(devices)} "
            "devices: leave it out, or take another --batchsize or --num_devices"
        )
    if np.isnan(macro_auc_present(validation.labels, validation.labels)):
        raise UserError("all validation records have the same classes, so no epoch is the best: change --val_folds")


def describe(args: argparse.Namespace, dataset: Dataset, train: Split) -> Meta:
    """What the run's checkpoints say of themselves."""
    sizes = {"leads": len(dataset.leads), "length": dataset.length, "classes": len(dataset.classes)}
    usual = args.train_folds == SCALER_FOLDS and args.min_likelihood is None
    mean, std = dataset.scaler if usual else dataset.fit_scaler(train.rows)
    flags = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    return Meta(
        model=args.model,
        config=dataclasses.asdict(make_config(args.model, args.config | sizes)),
        classes=list(dataset.classes),
        leads=list(dataset.leads),
        sampling_rate=dataset.sampling_rate,
        scaler={"mean": mean, "std": std},
        data_fingerprint=dataset.fingerprint,
        training=flags,
    )


if __name__ == "__main__":
    main()
