"""Train a network on PTB-XL.

python -m experiments.train --model imle_net --data_dir data/ptb --batchsize 32 --epochs 60
"""

import argparse
import contextlib
import dataclasses
import os
import shlex
import sys
import warnings
from pathlib import Path

import jax
import numpy as np

from experiments.cli import (
    CHECKPOINTS,
    LOGS,
    Parser,
    add_cache_flag,
    add_data_flags,
    add_precision_flag,
    add_run_flags,
    auto_or_boolean,
    boolean,
    check_folds,
    execute,
    folds,
    json_object,
    non_negative_float,
    positive_float,
    positive_int,
    run_name,
)
from experiments.results import read_tests
from experiments.task import (
    LEAKS,
    REFERENCE,
    add_base_flags,
    add_task_flags,
    check_base_flags,
    check_task_flags,
    choose_records,
    load_base,
    suffix,
    task_of,
)
from imlenet_jax.checkpoints.card import write_card
from imlenet_jax.checkpoints.description import SCORE, Meta
from imlenet_jax.checkpoints.reading import read_meta
from imlenet_jax.data.loader import Split
from imlenet_jax.data.open import open_dataset
from imlenet_jax.data.shards import Dataset
from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.files import exclusive, move_aside, write_json
from imlenet_jax.models import MODELS, entry
from imlenet_jax.runtime.compilation import use_cache
from imlenet_jax.runtime.precision import set_precision
from imlenet_jax.training.api import TRAIN_FOLDS, check, scaler_of
from imlenet_jax.training.api import describe as describe_run
from imlenet_jax.training.logs import RunLog, is_complete, run_files
from imlenet_jax.training.loop import fit
from imlenet_jax.training.optimizers import SCHEDULES
from imlenet_jax.training.parallel import (
    Devices,
    free_bytes,
    is_first_process,
    join_processes,
    make_devices,
    print_devices,
    wait_for_processes,
)
from imlenet_jax.training.recipe import DTYPES, Recipe
from imlenet_jax.training.resume import Start, command_to_continue, find_start
from imlenet_jax.training.saving import Checkpoints
from imlenet_jax.training.stopping import NotFinite, Stopped, Watch


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(prog="python -m experiments.train", description="Train a network on PTB-XL.")
    parser.add_argument("--model", default="imle_net", help=f"one of {', '.join(MODELS)}")
    add_data_flags(parser)
    add_run_flags(parser)
    parser.add_argument("--train_folds", type=folds, default=TRAIN_FOLDS, help="folds that are trained on")
    parser.add_argument("--epochs", type=positive_int, default=Recipe.epochs, help="passes over the training records")
    parser.add_argument("--lr", type=positive_float, default=Recipe.lr, help="Adam's learning rate")
    parser.add_argument(
        "--schedule",
        choices=SCHEDULES,
        default=Recipe.schedule,
        help="of learning rate and momentum; onecycle peaks at --lr",
    )
    parser.add_argument(
        "--weight_decay", type=non_negative_float, help="of AdamW; unless given, what the network was published with"
    )
    parser.add_argument(
        "--crop",
        type=positive_float,
        metavar="SECONDS",
        help="train on so much of each record, from a random start; predict by the mean over windows",
    )
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
    add_task_flags(parser)
    add_base_flags(parser)
    _add_resume_flags(parser)
    _add_machine_flags(parser)
    return parser


def main() -> None:
    """Parse the flags and run."""
    execute(make_parser(), run)


def _add_resume_flags(parser: Parser) -> None:
    parser.add_argument(
        "--resume",
        type=auto_or_boolean,
        default="auto",
        help="auto: continue what is in the checkpoint folder; True: there must be something; False: start anew",
    )
    parser.add_argument("--save_every_steps", type=positive_int, help="save within epochs too, every so many steps")
    parser.add_argument("--save_every_minutes", type=positive_float, help="save within epochs too, every so often")
    parser.add_argument("--deterministic", type=boolean, default=False, help="on a GPU: the same bits every time")
    parser.add_argument("--debug_nans", type=boolean, default=False, help="name the operation that makes a NaN (slow)")


def _add_machine_flags(parser: Parser) -> None:
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="of activations; sums and parameters stay in float32"
    )
    add_precision_flag(parser, "default")
    add_cache_flag(parser)
    parser.add_argument("--parallel", choices=("sharded", "pmap"), default="sharded", help="jax.jit on a mesh, or pmap")
    parser.add_argument("--steps_per_call", type=positive_int, default=1, help="training steps per compiled program")
    parser.add_argument(
        "--data_on_device",
        type=auto_or_boolean,
        default="auto",
        help="keep the training records on every device; auto: where they fit in a third of an accelerator's memory",
    )
    parser.add_argument("--coordinator_address", help="HOST:PORT of the first of several processes")
    parser.add_argument("--num_processes", type=positive_int, help="processes in all; detected on a cluster")
    parser.add_argument("--process_id", type=int, help="number of this process, from 0; detected on a cluster")
    parser.add_argument("--heartbeat", type=positive_int, default=100, help="seconds of silence that end all processes")


def run(args: argparse.Namespace) -> None:
    """Train, and say how to go on."""
    try:
        train_all(args)
    except Stopped:
        command = shlex.join(command_to_continue("experiments.train", sys.argv[1:]))
        print(f"stopped and saved; to continue: {command}")
        sys.exit(os.EX_TEMPFAIL)
    if is_first_process():
        print(f"next: {shlex.join(_command_to_test(args))}")


def train_all(args: argparse.Namespace) -> None:
    """Train the network of every seed.

    Raises:
        Stopped: a signal ended it, and what was done is saved.
    """
    entry(args.model)
    check_task_flags(args)
    check_base_flags(args)
    check_folds(train_folds=args.train_folds, val_folds=args.val_folds, test_folds=args.test_folds)
    if args.deterministic:  # XLA reads its flags when it starts, which it has not yet
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
    jax.config.update("jax_debug_nans", args.debug_nans)
    set_precision(args.precision)
    join_processes(args.coordinator_address, args.num_processes, args.process_id, args.heartbeat)
    devices = make_devices(args.parallel, args.num_devices)
    devices.check(args.batchsize)
    use_cache(args.compilation_cache)
    if is_first_process():
        print_devices()
    if args.dtype != "float32" and jax.default_backend() == "cpu":
        warnings.warn("--dtype bfloat16 does not pay on a CPU: it is slower than float32", DataWarning, stacklevel=2)
    dataset = _open(args)
    if args.sub_split == REFERENCE:
        warnings.warn(LEAKS, DataWarning, stacklevel=2)
    train, validation = (choose_records(args, dataset, name) for name in ("training", "validation"))
    check(train, validation, args.batchsize, args.drop_last, devices)
    args.data_on_device = _place(args.data_on_device, train, devices)
    for seed in range(args.seed, args.seed + args.seeds):
        train_one(args, seed, dataset, train, validation, devices)


def _command_to_test(args: argparse.Namespace) -> list[str]:
    command = ["python", "-m", "experiments.test", "--model", args.model, "--data_dir", str(args.data_dir)]
    if args.checkpoint_dir != CHECKPOINTS:
        command += ["--checkpoint_dir", str(args.checkpoint_dir)]
    if args.log_dir != LOGS:
        command += ["--log_dir", str(args.log_dir)]
    if args.task:
        command += ["--task", args.task]
    for flag, value in (("val_folds", args.val_folds), ("test_folds", args.test_folds)):
        if value != make_parser().get_default(flag):
            command += [f"--{flag}", ",".join(map(str, value))]
    if args.min_likelihood is not None:
        command += ["--min_likelihood", f"{args.min_likelihood:g}"]
    if args.allow_missing:
        command += ["--allow_missing", "True"]
    if args.sub:
        command += ["--sub", "True"] + ["--sub_split", REFERENCE] * (args.sub_split == REFERENCE)
    if args.seeds > 1:
        command += ["--seed", str(args.seed), "--seeds", str(args.seeds)]
    return command


def train_one(
    args: argparse.Namespace, seed: int, dataset: Dataset, train: Split, validation: Split, devices: Devices
) -> None:
    """Train the network of one seed, or the rest of it, with checkpoints and logs of its own."""
    number, asked = seed if args.seeds > 1 else None, suffix(args, dataset.task().name)
    base_name, name = run_name(args.model, number), run_name(args.model, number, asked)
    args = argparse.Namespace(**vars(args) | {"seed": seed})
    start_from = args.checkpoint_dir / base_name if args.sub else args.init_from
    base, variables = load_base(start_from, args, dataset, task_of(args, dataset)) if start_from else (None, None)
    meta, folder = describe(args, dataset, train, base), args.checkpoint_dir / name
    recipe = Recipe(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Recipe)})
    with contextlib.ExitStack() as stack:
        if is_first_process():
            _claim(stack, args, name)
        start, watch = find_start(folder, meta, args.resume), Watch(args.save_every_steps, args.save_every_minutes)
        history = start.meta.history if start else []
        finished = start is not None and start.finished(recipe.epochs, recipe.patience)
        if finished and is_complete(args.log_dir, name, history):
            print(f"{name}: already finished after {len(history)} epochs, nothing to do (--resume False starts anew)")
            return
        stack.enter_context(watch.signals())
        log = _begin(stack, args, name, meta, folder, start) if is_first_process() else None
        wait_for_processes("earlier checkpoints are aside")
        if log:
            print(f"{name}: {len(train.rows)} records to train on, {len(validation.rows)} to validate on")
        checkpoints = stack.enter_context(Checkpoints(folder))
        say = log or (lambda row: None)
        try:
            best = fit(meta, train, validation, recipe, devices, checkpoints, say, start, watch, variables)
        except NotFinite as error:
            raise UserError(_explain(error, args.log_dir, name, train)) from error
    if log:
        print(f"best: epoch {best['epoch']}, validation macro AUC {best[SCORE]:.4f}")
        meta = read_meta(folder)[1]
        write_card(folder, meta, read_tests(args.log_dir, name, meta))
        print(f"checkpoints: {folder}   logs: {log.path}")


def _claim(stack: contextlib.ExitStack, args: argparse.Namespace, name: str) -> None:
    """Keep a second training of this name out of both folders until this one ends."""
    for flag in ("checkpoint_dir", "log_dir"):
        folder = getattr(args, flag)
        folder.mkdir(parents=True, exist_ok=True)
        taken = f"another training of {name} is writing to {folder}: wait for its end, or choose another --{flag}"
        stack.enter_context(exclusive(folder / f".{name}.{flag}.lock", taken))


def _begin(
    stack: contextlib.ExitStack, args: argparse.Namespace, name: str, meta: Meta, folder: Path, start: Start | None
) -> RunLog:
    """Open the log; a run that starts anew moves aside what another has left."""
    if start is None and (old := move_aside(*run_files(args.log_dir, name))):
        print(f"earlier logs moved to {old} and beside it")
    history = start.meta.history if start else []
    log = stack.enter_context(RunLog(args.log_dir, name, meta.training, args.loggr, history))  # before checkpoints move
    if args.resume is False and (old := move_aside(folder)):
        print(f"earlier checkpoints moved to {old}")
    if start is not None:
        print(f"{name}: goes on from {start}")
    return log


def _explain(error: NotFinite, log_dir: Path, name: str, train: Split) -> str:
    """Write down the records of the batch that made a NaN, and say what can be done."""
    path = log_dir / f"{name}_not_finite.json"
    if is_first_process():
        ecg_ids = train.ecg_id[error.rows].tolist()
        write_json(path, {"what": str(error), "epoch": error.epoch, "step": error.step, "ecg_ids": ecg_ids})
    return (
        f"{error}; the records of its batch are in {path} and the checkpoints before it are kept: the same command "
        "tries again from the last, --resume False with a lower --lr starts anew, --debug_nans True names the operation"
    )


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


def describe(args: argparse.Namespace, dataset: Dataset, train: Split, base: Meta | None = None) -> Meta:
    """What the run's checkpoints say of themselves; `base` is the network that training starts from."""
    task = task_of(args, dataset)
    if base and not args.sub:  # it sees mV as it was trained to; the reference's sub-diagnosis scales anew
        scaler = base.scaler["mean"], base.scaler["std"]
    else:
        scaler = scaler_of(train, args.train_folds, args.min_likelihood, task)
    flags = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    if base:
        known = {"epoch": base.epoch, "data_fingerprint": base.data_fingerprint, "records": base.records}
        started_from = {**base.training, **known}
        flags |= {"started_from": started_from}
    crop = args.crop
    if base:
        window = base.config["length"] / base.sampling_rate if base.samples else None
        if crop not in (None, window):
            raise UserError(f"--crop {crop:g}: the network to start from takes {_span(window)}; leave it out")
        crop = window
    return describe_run(args.model, dataset, task, train, scaler, flags, base.config if base else args.config, crop)


def _span(seconds: float | None) -> str:
    return "whole records" if seconds is None else f"{seconds:g} s"


if __name__ == "__main__":
    main()
