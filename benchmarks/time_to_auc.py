"""How many seconds of training until a network reaches an AUC on the validation records?

    python -m benchmarks.time_to_auc --model mousavi --target 0.80 --epochs 10 [--runs 5] [--data_dir DIR]
        [--recipe '{"lr": 0.003, "batchsize": 16}'] [--config JSON] [--out benchmarks/records]

Each run trains a new network, from the seeds 0, 1, 2, ..., on folds 1-8, for all of `--epochs`, and validates on fold 9 after
every epoch. What is claimed: the mean seconds of a whole run, and that the mean AUC of its last epoch is above the target
(a t-test over the runs). The seconds until the target is first reached are told beside it. `records/README.md` has the rules.

The clock counts training steps only: what `Trainer.epoch` times, which waits for the device at each epoch's end. The training
recordings lie on the device before. Compilation comes first, in steps on a copy of the network that are thrown away;
it and validation are timed apart.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import jax
import numpy as np

from benchmarks.parts.machine import machine
from benchmarks.parts.speedrun import claims, format_claims, why_no_record
from benchmarks.parts.timing import timed
from experiments.cli import (
    Parser,
    add_cache_flag,
    add_precision_flag,
    coverage,
    execute,
    json_object,
    positive_float,
    positive_int,
)
from imlenet_jax.checkpoints.description import SCORE, Meta
from imlenet_jax.data.loader import Split, select
from imlenet_jax.data.open import open_dataset
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.metrics import macro_auc_present, warn_undefined_auc
from imlenet_jax.files import conforms, write_json
from imlenet_jax.models import MODELS, create_model
from imlenet_jax.runtime.compilation import use_cache
from imlenet_jax.runtime.precision import set_precision
from imlenet_jax.training.api import TRAIN_FOLDS, check, describe
from imlenet_jax.training.optimizers import SCHEDULES
from imlenet_jax.training.parallel import Devices, print_devices
from imlenet_jax.training.predictor import Predictor
from imlenet_jax.training.recipe import DTYPES, Recipe
from imlenet_jax.training.step import TrainState, Unfinished
from imlenet_jax.training.stopping import NotFinite, Stopped, Watch
from imlenet_jax.training.trainer import Trainer

CHOICES = {"dtype": tuple(DTYPES), "schedule": SCHEDULES}
OURS = ("epochs", "seed", "patience", "data_on_device", "freeze_epochs")  # fields of a recipe that the rules decide
CLOCK = (
    "seconds are those of training steps, until the device has done them; compile_s (compilation, in steps that are thrown "
    "away), validation_s, and the way of the recordings to the device before the first step are not among them"
)


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.time_to_auc", description="Seconds of training to a validation AUC.")
    parser.add_argument("--model", choices=MODELS, required=True, help="network to train")
    parser.add_argument("--target", type=coverage, required=True, help="validation macro AUC to reach, such as 0.8")
    parser.add_argument("--epochs", type=positive_int, required=True, help="of every run: fixed, none stops early")
    parser.add_argument("--runs", type=positive_int, default=5, help="seeds, from 0 on; two at least")
    parser.add_argument("--data_dir", default="synthetic", help="PTB-XL folder, shards, or 'synthetic'")
    parser.add_argument(
        "--recipe", type=json_object, default={}, help="fields of Recipe to change, as JSON: '{\"lr\": 0.003}'"
    )
    parser.add_argument("--config", type=json_object, default={}, help="constants of the network to change, as JSON")
    parser.add_argument("--crop", type=positive_float, metavar="SECONDS", help="train on so much of each record")
    parser.add_argument("--out", type=Path, help="write the result into this folder, as JSON")
    add_precision_flag(parser, "default")
    add_cache_flag(parser)
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Train from every seed, print, write."""
    if args.runs < 2:
        raise UserError("--runs 1 has no interval: take two at least")
    recipe = make_recipe(args.recipe, args.epochs)
    set_precision(args.precision)
    print_devices()
    use_cache(args.compilation_cache)
    dataset, devices = open_dataset(args.data_dir), Devices()
    devices.check(recipe.batchsize)
    train, validation = select(dataset, TRAIN_FOLDS, "training"), select(dataset, (9,), "validation")
    check(train, validation, recipe.batchsize, recipe.drop_last, devices)
    warn_undefined_auc(validation.labels, dataset.task().classes)
    told = {name: value for name, value in dataclasses.asdict(recipe).items() if name not in ("seed", "patience")}
    meta = describe(args.model, dataset, dataset.task(), train, dataset.scaler, told, args.config, args.crop)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)  # rather now than after all runs
    result = what_is_run(args, meta, train, validation)
    for seed in range(args.runs):
        found = train_one(meta, train, validation, dataclasses.replace(recipe, seed=seed), devices)
        result["runs"].append(found)
        print(describe_run(found, args.target), flush=True)
    print(format_claims(result))
    result |= {"claims": claims(result["runs"], args.target), "why_no_record": why_no_record(result)}
    if args.out:
        begun = result["machine"]["date"][:19].replace(":", "")
        path = args.out / f"{dataset.source}_{args.target:g}_{args.model}_{begun}.json"
        write_json(path, result)
        print(f"written: {path}")


def what_is_run(args: argparse.Namespace, meta: Meta, train: Split, validation: Split) -> dict[str, Any]:
    """All that a result says before the first of its `runs`, in JSON types."""
    dataset = train.dataset
    return {
        "machine": machine("benchmarks.time_to_auc"),
        "clock": CLOCK,
        "data": {
            "source": dataset.source,
            "fingerprint": dataset.fingerprint,
            "sampling_rate": dataset.sampling_rate,
            "classes": meta.classes,
            "train_records": len(train),
            "validation_records": len(validation),
        },
        **{name: getattr(args, name) for name in ("target", "model", "precision")},
        "config": meta.config,
        "recipe": meta.training,
        "changed": {**args.recipe, **args.config, **({"crop": args.crop} if args.crop else {})},
        "runs": [],
    }


def make_recipe(values: dict[str, Any], epochs: int) -> Recipe:
    """The recipe of every run but for its seed, with `values` (JSON types) in place of the defaults.

    Raises:
        UserError: a field is unknown or not free, or cannot have this value.
    """
    kinds = {name: kind for name, kind in get_type_hints(Recipe).items() if name not in OURS}
    for name, value in values.items():
        if name not in kinds:
            raise UserError(f"--recipe has no '{name}' to choose: take {', '.join(kinds)}")
        default = getattr(Recipe, name)
        if not conforms(value, kinds[name]):
            raise UserError(f"--recipe '{name}' takes a value like {json.dumps(default)}, not {json.dumps(value)}")
        least = 1 if type(default) is int and default > 0 else 0
        if isinstance(value, int | float) and not least <= value < math.inf:
            raise UserError(f"--recipe '{name}' takes a finite number from {least} on, not {json.dumps(value)}")
        if name in CHOICES and value not in CHOICES[name]:
            raise UserError(f"--recipe '{name}' is one of {', '.join(CHOICES[name])}, not {value}")
    return Recipe(**values, epochs=epochs, data_on_device=True)


def train_one(meta: Meta, train: Split, validation: Split, recipe: Recipe, devices: Devices) -> dict[str, Any]:
    """Train from one seed for all epochs: its log, with the training `seconds` so far after every epoch.

    Raises:
        UserError: the loss or a weight stopped being a number, so that there is no result.
    """
    trainer = Trainer(meta, train, recipe, devices)
    network = create_model(meta.model, meta.network_config, dtype=DTYPES[recipe.dtype])
    predict = Predictor(network, devices, meta.asked.exclusive)
    state = trainer.start()

    def compile_ahead() -> None:
        compile_steps(trainer, lambda: devices.put_state(jax.tree.map(np.array, state)), recipe, train.labels.shape)
        one = dataclasses.replace(validation, rows=validation.rows[:1], labels=validation.labels[:1])
        predict(state.variables, one, meta.scaling, recipe.batchsize)

    records, seconds, epochs = min(trainer.steps * recipe.batchsize, len(train)), 0.0, []
    try:
        compile_s = timed(compile_ahead)
        for epoch in range(1, recipe.epochs + 1):
            state, row, rate = trainer.epoch(state, epoch)
            seconds += records / rate
            begun = time.perf_counter()
            logits = predict(state.variables, validation, meta.scaling, recipe.batchsize)
            auc = float(macro_auc_present(validation.labels, meta.asked.log_odds(logits)))
            validation_s = time.perf_counter() - begun
            log = {"epoch": epoch, "seconds": seconds, "validation_s": validation_s, SCORE: auc}
            epochs.append(log | {"train_loss": row["train_loss"]})
    except NotFinite as error:
        raise UserError(f"seed {recipe.seed}: {error}: choose a lower lr in --recipe") from error
    return {"seed": recipe.seed, "compile_s": compile_s, "epochs": epochs}


class OneCall(Watch):
    """Stops a training after the first call of its step."""

    def after(self, step: int) -> tuple[bool, bool]:
        """Not to save, but to stop."""
        return False, True


def compile_steps(trainer: Trainer, copy: Callable[[], TrainState], recipe: Recipe, shape: tuple[int, ...]) -> None:
    """Compile all that an epoch calls, by steps on copies of the first state.

    Args:
        trainer: of the run.
        copy: makes a state that may be used up.
        recipe: of the run.
        shape: of the training labels, (records, classes).
    """
    with contextlib.suppress(Stopped):
        trainer.epoch(copy(), 1, watch=OneCall())
    # The calls at the end of an epoch may be smaller ones: those after the last full call are made too.
    full = shape[0] // recipe.batchsize // recipe.steps_per_call * recipe.steps_per_call
    if full < trainer.steps:
        before = Unfinished(np.zeros(full, np.float32), np.zeros((full * recipe.batchsize, shape[1]), np.float32))
        trainer.epoch(copy(), 1, before)


def describe_run(found: dict[str, Any], target: float) -> str:
    """A run in one line."""
    last, validation_s = found["epochs"][-1], sum(row["validation_s"] for row in found["epochs"])
    first = next((row for row in found["epochs"] if row[SCORE] >= target), None)
    reached = (
        f"{target:g} first after {first['seconds']:.3g} s (epoch {first['epoch']})"
        if first
        else f"{target:g} never reached"
    )
    return (
        f"seed {found['seed']}: {last['seconds']:.3g} s of training, final AUC {last[SCORE]:.4f}, {reached}; "
        f"compilation {found['compile_s']:.1f} s, validation {validation_s:.1f} s"
    )


if __name__ == "__main__":
    main()
