"""What a device does, in a few minutes: for whoever gets a GPU or TPU for a while.

    python -m benchmarks.device --out DIR [--minutes 8] [--golden DIR] [--reference CLONE] [--sections ...] [--models all]

The most valuable comes first, and each result is in DIR/device.json the moment it is there: a kill loses only what was
running. What the minutes left cannot hold is left out, and the results say so; so do they where a measurement failed.
Steps are timed as `fit` runs them: many are started, and the last is waited for. The originals in torch are timed as
`torch_train.py` runs them: each step fetches its loss.
"""

import argparse
import dataclasses
import itertools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.parity import compare, read_inputs
from benchmarks.parts.ceilings import Ceilings, measure_ceilings
from benchmarks.parts.convolutions import convolutions
from benchmarks.parts.cost import step_cost
from benchmarks.parts.kernels import longest_kernels
from benchmarks.parts.records import FOLDS, config_for, describe, first_batch, random_dataset, standardised
from benchmarks.parts.session import Row, Session, Task
from benchmarks.parts.side_by_side import IN_REFERENCE, Original, check_reference
from benchmarks.parts.steps import MODES, SEED, Step, make_step
from benchmarks.parts.timing import spread
from benchmarks.precision import open_splits, trained_auc
from benchmarks.seeds import measure as measure_seeds
from benchmarks.throughput import bounds, make_folder, models
from experiments.cli import Parser, execute, json_object, positive_float, positive_int
from imlenet_jax.data.loader import Batch, Split, select, train_batches
from imlenet_jax.data.open import open_dataset
from imlenet_jax.data.scaling import Scaler
from imlenet_jax.models import Config, entry
from imlenet_jax.training.loop import fit
from imlenet_jax.training.parallel import Devices, free_bytes, print_devices
from imlenet_jax.training.recipe import DTYPES, Recipe
from imlenet_jax.training.saving import Checkpoints

REPEATS = 5
SECONDS = 0.25  # of steps that are started before one is waited for
MOST = 200  # of them
STEPS_PER_CALL = 16
LONGEST = 20  # kernels, or convolutions
EPOCHS = 4
RECORDS = 17_084  # PTB-XL's of folds 1 to 8 with a superclass
SEEDS = 3  # of both types
NETWORKS = 8  # in one program
SAME = 20  # steps, twice: the same bits?
TURN = 1.0  # seconds of an original's steps
SLOW_TO_COMPILE = ("resnet101", "xresnet1d101")
# Steps of all networks take longest. Where one ran, so have its convolutions. The largest batches come last: one that a
# library does not bear can end the process.
SECTIONS = ("ceilings", "parity", "epochs", "profile", "steps", "originals", "training", "convolutions", "largest")


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.device", description="Measure a device, the most valuable first.")
    parser.add_argument("--out", type=Path, required=True, help="folder of device.json and device.md")
    parser.add_argument("--minutes", type=positive_float, default=8.0, help="after which nothing new is begun")
    parser.add_argument("--golden", type=Path, help="folder of the originals' stored outputs, for parity")
    parser.add_argument("--reference", type=Path, help="clone of the original repository, for its torch networks")
    parser.add_argument("--reference_python", default=sys.executable, help="interpreter that has torch")
    parser.add_argument("--data_dir", default="synthetic", help="what bfloat16 and float32 are trained on")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="what to measure")
    parser.add_argument("--models", type=models, default="all", help="all, or names with commas between")
    parser.add_argument("--config", type=json_object, default={}, help="constants of the networks, as JSON per network")
    parser.add_argument("--batchsize", type=positive_int, nargs="+", default=[32, 128, 512], help="records per step")
    parser.add_argument("--records", type=positive_int, default=RECORDS, help="random records, those of an epoch")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Measure section after section until the minutes are over."""
    if args.reference:
        check_reference(args.reference, args.reference_python, torch_networks(args.models), ["float32"])
    inputs = read_inputs(args.golden) if args.golden else None
    if "training" in args.sections and args.data_dir != "synthetic":
        open_dataset(args.data_dir)  # refused now, not after minutes
    print_devices()
    make_folder(args.out)
    session = Session("benchmarks.device", SECTIONS, args.out, args.minutes)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, select(random_dataset(Path(folder), args.records), FOLDS, "training"), inputs)
        for section in args.sections:
            session.work_through(section, getattr(bench, section)())
    print(f"\n{session.report()}\nwritten: device.json and device.md in {args.out}")


class Bench:
    """What the sections share: the device, its ceilings, and records to work on. Each section yields its tasks."""

    def __init__(self, args: argparse.Namespace, split: Split, inputs: tuple[np.ndarray, np.ndarray] | None = None):
        self._args, self._split, self._devices, self._inputs = args, split, Devices(1), inputs
        self._scaler = Scaler(*split.dataset.scaler)
        self._measured: dict[str, Ceilings] = {}
        self._steps: dict[tuple[str, str, str, int], Row] = {}

    def ceilings(self) -> Iterator[Task]:
        """What the device does at most, per type; a matrix product of float32 is TF32 where that is the default."""

        def measure(dtype: str, precision: str) -> Row:
            with jax.default_matmul_precision(precision):
                found = measure_ceilings(self._devices, [dtype])[dtype]
            self._measured.setdefault(dtype, found)
            return {"dtype": dtype, "precision": precision, **found._asdict()}

        for dtype, precision in (("bfloat16", "default"), ("float32", "default"), ("float32", "highest")):
            yield Task("ceilings", f"ceilings, {dtype}, {precision}", partial(measure, dtype, precision))

    def steps(self) -> Iterator[Task]:
        """Training and inference of all networks, the batch on the device; then several steps a call."""
        small, *_ = sizes = self._args.batchsize
        names = sorted(self._args.models, key=lambda name: name in SLOW_TO_COMPILE)
        for batchsize, mode, model, dtype in itertools.product(sizes, MODES, names, reversed(DTYPES)):
            what = f"{model} {mode}, {dtype}, batch {batchsize}"
            yield Task(f"{model} {mode}", what, partial(self._step, model, mode, dtype, batchsize))
        for model, dtype in itertools.product(names, reversed(DTYPES)):
            what = f"{model} train, {dtype}, batch {small}, {STEPS_PER_CALL} steps a call"
            yield Task(f"{model} train", what, partial(self._step, model, "train", dtype, small, STEPS_PER_CALL))

    def largest(self) -> Iterator[Task]:
        """Training steps of the largest batch that memory holds, as far as the steps of smaller ones tell."""
        for model, dtype in itertools.product(self._args.models, reversed(DTYPES)):
            row = self._steps.get((model, "train", dtype, max(self._args.batchsize)))
            if row and (batchsize := largest(row["batchsize"], row["peak_bytes"], free_bytes(), len(self._split))):
                what = f"{model} train, {dtype}, batch {batchsize}, the largest"
                yield Task(f"{model} train", what, partial(self._step, model, "train", dtype, batchsize))

    def _step(self, model: str, mode: str, dtype: str, batchsize: int, steps_per_call: int = 1) -> Row:
        batch = first_batch(self._split, batchsize)
        if steps_per_call > 1:
            batch = jax.tree.map(lambda array: np.stack([array] * steps_per_call), batch)
        batch = self._devices.put_batch(batch, axis=int(steps_per_call > 1))
        step = Step(model, mode, self._config(model), dtype, batch, self._scaler, self._devices, steps_per_call)
        times = spread([seconds / steps_per_call for seconds in step_times(step, batch)])
        row = {"model": model, "mode": mode, "dtype": dtype, "batchsize": batchsize, "steps_per_call": steps_per_call}
        row |= {"step_s": times, "records_per_s": batchsize / times["median"], "compile_s": step.compile_seconds}
        row["peak_bytes"] = step.peak_bytes
        if steps_per_call > 1:  # of a program that loops, the counts would be those of all its steps
            return row
        self._steps[model, mode, dtype, batchsize] = row
        try:
            cost, counted_in = step_cost(step.lowered, step.compiled)
        except Exception as error:  # a newer XLA's text may not be understood: what was timed stays
            return row | {"not_counted": f"{type(error).__name__}: {error}"[:200]}
        row |= {**cost._asdict(), "flops_counted_in": counted_in}
        if dtype in self._measured:
            row |= bounds(cost, self._measured[dtype], times["median"])
        return row

    def parity(self) -> Iterator[Task]:
        """The originals' stored outputs, with products in full float32 and as the device does them by default."""
        golden, inputs = self._args.golden, self._inputs
        if inputs is None:
            print("parity: not judged, for want of --golden", flush=True)
            return

        def measure(model: str, precision: str) -> Row:
            with jax.default_matmul_precision(precision):
                return {"model": model, "precision": precision, "rows": compare(model, golden, *inputs)}

        for precision, model in itertools.product(("highest", "default"), self._args.models):
            yield Task(f"parity of {model}", f"parity of {model}, {precision}", partial(measure, model, precision))

    def profile(self) -> Iterator[Task]:
        """The longest kernels of the training steps that are limited by bytes and by kernels."""

        def measure(model: str, dtype: str) -> Row:
            step, batch = self._train_step(model, dtype)
            return {"model": model, "dtype": dtype, **longest_kernels(lambda: step(batch), LONGEST)}

        for model, dtype in (("imle_net", "bfloat16"), ("ecgnet", "float32")):
            if model in self._args.models:
                yield Task(model, f"kernels of {model}, {dtype}", partial(measure, model, dtype))

    def epochs(self) -> Iterator[Task]:
        """Epochs as `fit` trains them: records on the device, validation and checkpoints included."""

        def measure(model: str, dtype: str) -> Row:
            ends: list[float] = []
            recipe = Recipe(self._args.batchsize[0], EPOCHS, dtype=dtype, data_on_device=True)
            meta = describe(model, self._config(model), self._split)
            few = dataclasses.replace(self._split, rows=self._split.rows[::8], labels=self._split.labels[::8])
            start = time.monotonic()
            with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder) / "run") as checkpoints:
                fit(meta, self._split, few, recipe, self._devices, checkpoints, lambda _: ends.append(time.monotonic()))
            later = spread(np.diff(ends).tolist())
            row = {"model": model, "dtype": dtype, "batchsize": recipe.batchsize, "epoch_s": later}
            return row | {"records": len(self._split), "validation": len(few), "first_epoch_s": ends[0] - start}

        model = self._args.models[0]
        for dtype in reversed(DTYPES):
            yield Task(model, f"epochs of {model}, {dtype}", partial(measure, model, dtype))

    def originals(self) -> Iterator[Task]:
        """The original torch networks on the same batch, as they are and through `torch.compile`."""

        def measure(model: str, dtype: str, *compiled: str) -> Row:
            batch = first_batch(self._split, batchsize)
            signals, rows = standardised(self._split, batch), {}
            reference, python = self._args.reference, self._args.reference_python
            with Original(python, reference, model, signals, batch.label, dtype, *compiled) as original:
                for mode in MODES:
                    original.turn(mode, 0)  # compiles
                    row = {"step_s": spread(original.turn(mode, TURN))}
                    if ours := self._steps.get((model, mode, dtype, batchsize)):
                        row["ours_faster"] = row["step_s"]["median"] / ours["step_s"]["median"]
                    rows[mode] = row
            how = compiled[0] if compiled else "eager"
            return {"model": model, "dtype": dtype, "how": how, "framework": original.framework, **rows}

        batchsize = self._args.batchsize[0]
        for model in torch_networks(self._args.models) if self._args.reference else []:
            for dtype, compiled in itertools.product(reversed(DTYPES), ((), ("compile",))):
                what = f"original {model}, {dtype}, {'compiled' if compiled else 'eager'}"
                yield Task(model, what, partial(measure, model, dtype, *compiled))

    def training(self) -> Iterator[Task]:
        """Does bfloat16 learn as float32 does, do several networks gain from one program, are two runs the same?"""
        model, batchsize = self._args.models[0], self._args.batchsize[0]

        def learned(seed: int) -> Row:
            config = config_for(model, self._splits["training"], self._args.config.get(model))
            meta = describe(model, config, self._splits["training"])
            recipes = {dtype: Recipe(batchsize, EPOCHS, seed, dtype=dtype, data_on_device=True) for dtype in DTYPES}
            areas = {dtype: trained_auc(meta, self._splits, recipe) for dtype, recipe in recipes.items()}
            return {"what": "test macro AUC", "model": model, "seed": seed, **areas}

        def together() -> Row:
            batches = list(itertools.islice(train_batches(self._split, batchsize, 0, 1), NETWORKS))
            row = measure_seeds(model, self._config(model), self._split, batches, REPEATS)
            return {"what": "one program", "networks": len(batches), **row}

        for seed in range(SEEDS):
            yield Task("learned", f"{model} trained in both types, seed {seed}", partial(learned, seed))
        yield Task("together", f"{NETWORKS} of {model} in one program", together)
        for deterministic in (True, False):
            what = f"bits of {model} twice, {'deterministic' if deterministic else 'as it comes'}"
            yield Task("bits", what, partial(self._same_bits, model, deterministic))

    def _same_bits(self, model: str, deterministic: bool) -> Row:
        step, batch = self._train_step(model, "float32", {"xla_gpu_deterministic_ops": deterministic})
        begin, ends = jax.device_get(step.state), []
        for _ in range(2):
            step.state = self._devices.put_everywhere(begin)
            for _ in range(SAME):
                step(batch)
            ends.append([np.asarray(array).tobytes() for array in jax.tree.leaves(step.state)])
        return {"what": "same bits", "model": model, "deterministic": deterministic, "same": ends[0] == ends[1]}

    def convolutions(self) -> Iterator[Task]:
        """Every convolution of every training step on its own: which do not compile or run, and the slowest."""

        def measure(model: str, dtype: str) -> Row:
            batch = self._devices.put_batch(first_batch(self._split, self._args.batchsize[0]))
            step, create, _ = make_step(model, "train", self._config(model), dtype, self._devices)
            calls = convolutions(step, jax.eval_shape(create, jax.random.key(0)), batch, None, self._scaler, SEED)
            times, failed = {}, {}
            for name, call in calls.items():
                try:
                    jax.block_until_ready(call())
                    times[name] = min(repeated(call, MOST // 10) for _ in range(2))
                except Exception as error:  # each is a question of its own
                    failed[name] = str(error)[:200]
            longest = sorted(times.items(), key=lambda item: -item[1])[:LONGEST]
            return {"model": model, "dtype": dtype, "shapes": len(calls), "failed": failed, "longest_s": dict(longest)}

        for model, dtype in itertools.product(self._args.models, reversed(DTYPES)):
            yield Task(model, f"convolutions of {model}, {dtype}", partial(measure, model, dtype))

    @cached_property
    def _splits(self) -> dict[str, Split]:
        """What both types are trained, validated and tested on."""
        return open_splits(self._args.data_dir)

    def _train_step(self, model: str, dtype: str, options: dict[str, Any] | None = None) -> tuple[Step, Batch]:
        batch = self._devices.put_batch(first_batch(self._split, self._args.batchsize[0]))
        step = Step(model, "train", self._config(model), dtype, batch, self._scaler, self._devices, options=options)
        return step, batch

    def _config(self, model: str) -> Config:
        return config_for(model, self._split, self._args.config.get(model))


def step_times(step: Step, batch: Batch) -> Iterator[float]:
    """Seconds per call, several times: calls are started one after the other, and the last is waited for."""
    several = partial(repeated, partial(step, batch))
    several(2)
    count = max(2, min(MOST, int(SECONDS / several(2))))
    for _ in range(REPEATS):
        yield several(count)


def repeated(call: Callable[[], Any], count: int) -> float:
    """Seconds per call, of `count` that are started one after the other."""
    start = time.perf_counter()
    for _ in range(count):
        pending = call()
    jax.block_until_ready(pending)
    return (time.perf_counter() - start) / count


def largest(batchsize: int, peak_bytes: int | None, free: int, records: int) -> int | None:
    """`batchsize` doubled as often as the free memory and the records allow; None where they do not."""
    times = min(free / peak_bytes if peak_bytes else 0, records / batchsize)
    return batchsize * 2 ** int(math.log2(times)) if times >= 2 else None


def torch_networks(names: list[str]) -> list[str]:
    """Those of the reference whose originals are in torch."""
    return [name for name in names if entry(name).framework == "torch" and name in IN_REFERENCE]


if __name__ == "__main__":
    main()
