"""What a device does, in a few minutes: for whoever gets a GPU or TPU for a while.

    python -m benchmarks.device --out DIR [--minutes 8] [--golden DIR] [--sections ...] [--models all]

The most valuable comes first, and each result is in DIR/device.json the moment it is there: a kill loses only what was
running. What the minutes left cannot hold is left out, and the results say so; so do they where a measurement failed.
Steps are timed as `fit` runs them: many are started, and the last is waited for.
"""

import argparse
import dataclasses
import itertools
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.parity import compare, read_inputs
from benchmarks.parts.ceilings import Ceilings, measure_ceilings
from benchmarks.parts.cost import step_cost
from benchmarks.parts.device_report import device_report
from benchmarks.parts.kernels import longest_kernels
from benchmarks.parts.machine import machine
from benchmarks.parts.records import FOLDS, config_for, describe, first_batch, random_dataset
from benchmarks.parts.steps import MODES, Step
from benchmarks.parts.timing import spread
from benchmarks.throughput import bounds, make_folder, models
from experiments.cli import Parser, execute, json_object, positive_float, positive_int
from imlenet_jax.data.loader import Batch, Split, select
from imlenet_jax.files import write_atomically, write_json
from imlenet_jax.models import Config, entry
from imlenet_jax.training.checkpoint import Checkpoints
from imlenet_jax.training.loop import DTYPES, Recipe, fit
from imlenet_jax.training.parallel import Devices, print_devices
from imlenet_jax.training.step import Scaler

REPEATS = 5
SECONDS = 0.25  # of steps that are started before one is waited for
MOST = 200  # of them
LONGEST = 20  # kernels
EPOCHS = 4
RECORDS = 17_084  # PTB-XL's of folds 1 to 8 with a superclass
SECTIONS = ("ceilings", "steps", "parity", "profile", "epochs")

Row = dict[str, Any]
Task = tuple[str, Callable[[], Row]]


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.device", description="Measure a device, the most valuable first.")
    parser.add_argument("--out", type=Path, required=True, help="folder of device.json and device.md")
    parser.add_argument("--minutes", type=positive_float, default=8.0, help="after which nothing new is begun")
    parser.add_argument("--golden", type=Path, help="folder of the originals' stored outputs, for parity")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="what to measure")
    parser.add_argument("--models", type=models, default="all", help="all, or names with commas between")
    parser.add_argument("--config", type=json_object, default={}, help="constants of the networks, as JSON per network")
    parser.add_argument("--batchsize", type=positive_int, nargs="+", default=[32, 512], help="records per step")
    parser.add_argument("--records", type=positive_int, default=RECORDS, help="random records, those of an epoch")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Measure section after section until the minutes are over."""
    print_devices()
    make_folder(args.out)
    session = Session(args.out, args.minutes)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, select(random_dataset(Path(folder), args.records), FOLDS, "training"))
        for section in args.sections:
            session.work_through(section, getattr(bench, section)())
    print(f"\n{device_report(session.results)}\nwritten: device.json and device.md in {args.out}")


class Session:
    """One run: how much time is left, and where results go."""

    def __init__(self, out: Path, minutes: float):
        self._out, self._end, self._slowest = out, time.monotonic() + 60 * minutes, 0.0
        self.results: dict[str, Any] = {
            "machine": machine("benchmarks.device") | {"driver": driver()},
            **{name: [] for name in (*SECTIONS, "left_out", "failed")},
        }

    def work_through(self, section: str, tasks: Iterable[Task]) -> None:
        """One measurement after the other, as long as there is time for one that takes as long as the slowest so far."""
        self._slowest = 0.0
        for what, measure in tasks:
            left = self._end - time.monotonic()
            if left <= self._slowest:
                self.results["left_out"].append({"section": section, "what": what, "seconds_left": left})
                print(f"left out: {what} ({max(left, 0):.0f} s are left)", flush=True)
            else:
                self._take(section, what, measure)
            write_json(self._out / "device.json", self.results)
            write_atomically(self._out / "device.md", device_report(self.results).encode())

    def _take(self, section: str, what: str, measure: Callable[[], Row]) -> None:
        start = time.monotonic()
        try:
            row = measure()
        except Exception as error:  # whatever becomes of one measurement, the others go on
            reason = f"{type(error).__name__}: {str(error)[:500]}"
            self.results["failed"].append({"section": section, "what": what, "reason": reason})
            print(f"failed: {what}: {reason}", flush=True)
            return
        seconds = time.monotonic() - start
        self._slowest = max(self._slowest, seconds)
        self.results[section].append(row | {"took_s": seconds})
        print(f"{what}: done in {seconds:.1f} s", flush=True)


class Bench:
    """What the sections share: the device, its ceilings, and records to work on. Each section yields its tasks."""

    def __init__(self, args: argparse.Namespace, split: Split):
        self._args, self._split, self._devices = args, split, Devices(1)
        self._scaler = Scaler(*split.dataset.scaler)
        self._measured: dict[str, Ceilings] = {}

    def ceilings(self) -> Iterator[Task]:
        """What the device does at most, per type; a matrix product of float32 is TF32 where that is the default."""

        def measure(dtype: str, precision: str) -> Row:
            with jax.default_matmul_precision(precision):
                found = measure_ceilings(self._devices, [dtype])[dtype]
            self._measured.setdefault(dtype, found)
            return {"dtype": dtype, "precision": precision, **found._asdict()}

        for dtype, precision in (("bfloat16", "default"), ("float32", "default"), ("float32", "highest")):
            yield f"ceilings, {dtype}, {precision}", partial(measure, dtype, precision)

    def steps(self) -> Iterator[Task]:
        """Training and inference of all networks, the batch on the device."""
        order = itertools.product(self._args.batchsize, MODES, self._args.models, reversed(DTYPES))
        for batchsize, mode, model, dtype in order:
            what = f"{model} {mode}, {dtype}, batch {batchsize}"
            yield what, partial(self._step, model, mode, dtype, batchsize)

    def _step(self, model: str, mode: str, dtype: str, batchsize: int) -> Row:
        batch = self._devices.put_batch(first_batch(self._split, batchsize))
        step = Step(model, mode, self._config(model), dtype, batch, self._scaler, self._devices)
        times = spread(list(step_times(step, batch)))
        row = {"model": model, "mode": mode, "dtype": dtype, "batchsize": batchsize, "step_s": times}
        row |= {"records_per_s": batchsize / times["median"], "compile_s": step.compile_seconds}
        cost, counted_in = step_cost(step.lowered, step.compiled)
        row |= {**cost._asdict(), "flops_counted_in": counted_in, "peak_bytes": step.peak_bytes}
        if dtype in self._measured:
            row |= bounds(cost, self._measured[dtype], times["median"])
        return row

    def parity(self) -> Iterator[Task]:
        """The originals' stored outputs, with products in full float32 and as the device does them by default."""
        if self._args.golden is None:
            return
        inputs = read_inputs(self._args.golden)

        def measure(model: str, precision: str) -> Row:
            with jax.default_matmul_precision(precision):
                return {"model": model, "precision": precision, "rows": compare(model, self._args.golden, *inputs)}

        for precision, model in itertools.product(("highest", "default"), self._args.models):
            if has_golden(model, self._args.golden):
                yield f"parity of {model}, {precision}", partial(measure, model, precision)

    def profile(self) -> Iterator[Task]:
        """The longest kernels of the training steps that are limited by bytes and by kernels."""

        def measure(model: str, dtype: str) -> Row:
            batch = self._devices.put_batch(first_batch(self._split, self._args.batchsize[0]))
            step = Step(model, "train", self._config(model), dtype, batch, self._scaler, self._devices)
            return {"model": model, "dtype": dtype, **longest_kernels(lambda: step(batch), LONGEST)}

        for model, dtype in (("imle_net", "bfloat16"), ("ecgnet", "float32")):
            if model in self._args.models:
                yield f"kernels of {model}, {dtype}", partial(measure, model, dtype)

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

        for dtype in reversed(DTYPES):
            yield f"epochs of {self._args.models[0]}, {dtype}", partial(measure, self._args.models[0], dtype)

    def _config(self, model: str) -> Config:
        return config_for(model, self._split, self._args.config.get(model))


def step_times(step: Step, batch: Batch) -> Iterator[float]:
    """Seconds per step, several times: the steps are started one after the other, and the last is waited for."""

    def several(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            pending = step(batch)
        jax.block_until_ready(pending)
        return (time.perf_counter() - start) / count

    several(2)
    count = max(2, min(MOST, int(SECONDS / several(2))))
    for _ in range(REPEATS):
        yield several(count)


def has_golden(model: str, golden: Path) -> bool:
    """Whether the folder has a network's outputs and its weights, or (for torch's) what they are drawn by."""
    weights = [".h5", ".weights.npz", ".pt", *([".spec.json"] if entry(model).framework == "torch" else [])]
    files = {suffix for suffix in weights if (golden / f"{model}{suffix}").is_file()}
    return (golden / f"{model}.npz").is_file() and bool(files)


def driver() -> str | None:
    """What `nvidia-smi` says of the card and its driver; None where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


if __name__ == "__main__":
    main()
