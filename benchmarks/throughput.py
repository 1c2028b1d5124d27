"""How fast are training and inference, what bounds them, and how do the original networks do on the same machine?

    python -m benchmarks.throughput [--models all] [--batchsize 32] [--mode train infer] [--out DIR]
    python -m benchmarks.throughput --reference CLONE --reference_python PYTHON

Steps are timed with their batch on the device already, in turns: with `--reference` ours and the original's alternate,
the other one idle. Then they are timed with the input pipeline. What a step has to do is counted in its compiled
program and held against what the machine does at most.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.parts.ceilings import Ceilings, measure_ceilings
from benchmarks.parts.cost import Cost, step_cost
from benchmarks.parts.figures import check_matplotlib, draw
from benchmarks.parts.machine import machine
from benchmarks.parts.records import config_for, first_batch, open_split, standardised
from benchmarks.parts.reference import turn
from benchmarks.parts.side_by_side import IN_REFERENCE, Original, Turn, check_reference, time_in_turn
from benchmarks.parts.steps import MODES, Step
from benchmarks.parts.tables import digits, milliseconds, throughput_tables
from benchmarks.parts.timing import spread
from experiments.cli import Parser, add_precision_flag, execute, positive_int
from imlenet_jax.data.loader import Batch, Split, eval_batches, prefetch, train_batches
from imlenet_jax.data.scaling import Scaler
from imlenet_jax.errors import UserError
from imlenet_jax.files import write_atomically, write_json
from imlenet_jax.models import MODELS
from imlenet_jax.runtime.precision import set_precision
from imlenet_jax.training.parallel import Devices, print_devices
from imlenet_jax.training.recipe import DTYPES

TURN_SECONDS = 0.5
BUSY = 0.5  # load per core
EPOCH_BATCHES = 4  # of random records


class Case(NamedTuple):
    """One line of the table."""

    model: str
    mode: str
    dtype: str
    batchsize: int


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.throughput", description="Speed of training and inference.")
    parser.add_argument("--models", type=models, default="all", help="all, or names with commas between")
    parser.add_argument("--batchsize", type=positive_int, nargs="+", default=[32], help="records per step")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32"], help="what the networks compute in")
    add_precision_flag(parser, "default")
    parser.add_argument("--mode", nargs="+", choices=MODES, default=list(MODES), help="steps to measure")
    parser.add_argument("--devices", type=positive_int, help="devices that share a batch; all of them by default")
    parser.add_argument("--turns", type=positive_int, default=10, help=f"of {TURN_SECONDS} s or one step, per figure")
    parser.add_argument("--data_dir", help="PTB-XL folder, shards or 'synthetic'; random records by default")
    parser.add_argument("--reference", type=Path, help="clone of the original repository, to measure beside ours")
    parser.add_argument("--reference_python", default=sys.executable, help="interpreter with tensorflow and torch")
    parser.add_argument("--out", type=Path, default=Path("results/throughput"), help="folder for JSON, table, plot")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Measure every case; print a line and rewrite `throughput.json` and `.md` after each; draw `throughput.png`."""
    check_matplotlib()
    make_folder(args.out)
    devices = open_devices(args.devices, args.batchsize)
    if args.reference:
        check_reference(args.reference, args.reference_python, args.models, args.dtype)
    print_devices()
    set_precision(args.precision)
    results: dict[str, Any] = {"machine": machine("benchmarks.throughput"), "precision": args.precision, "rows": []}
    if results["machine"]["load"] > BUSY * results["machine"]["cores"]:
        print(f"warning: the machine is busy (load {results['machine']['load']}): all figures suffer", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        split = open_split(args.data_dir, Path(folder), EPOCH_BATCHES * max(args.batchsize))
        ceilings = measure_ceilings(devices, args.dtype)
        results["ceilings"] = {dtype: values._asdict() for dtype, values in ceilings.items()}
        for row in measure_all(args, split, devices, ceilings):
            results["rows"].append(row)
            print(summary(row), flush=True)
            write_json(args.out / "throughput.json", results)
            write_atomically(args.out / "throughput.md", throughput_tables(results).encode())
    draw(results, args.out / "throughput.png")
    print(f"\n{throughput_tables(results)}\nwritten: throughput.json, throughput.md and throughput.png in {args.out}")


def measure_all(
    args: argparse.Namespace, split: Split, devices: Devices, ceilings: dict[str, Ceilings]
) -> Iterator[dict[str, Any]]:
    """A row per model, batch size, data type and mode. The originals know float32 only."""
    for model, batchsize in itertools.product(args.models, args.batchsize):
        batch = first_batch(split, batchsize)
        with ExitStack() as stack:
            original = None
            if args.reference and model in IN_REFERENCE:
                x = standardised(split, batch)
                original = stack.enter_context(Original(args.reference_python, args.reference, model, x, batch.label))
            for dtype, mode in itertools.product(args.dtype, args.mode):
                case = Case(model, mode, dtype, batchsize)
                beside = original if dtype == "float32" else None
                yield measure(case, split, batch, devices, ceilings[dtype], args.turns, beside)


def measure(
    case: Case,
    split: Split,
    batch: Batch,
    devices: Devices,
    ceilings: Ceilings,
    turns: int,
    original: Original | None = None,
) -> dict[str, Any]:
    """Compile one step, time it alone and with the input pipeline, and hold it against the ceilings."""
    batch = devices.put_batch(batch)
    config, scaler = config_for(case.model, split), Scaler(*split.dataset.scaler)
    step = Step(case.model, case.mode, config, case.dtype, batch, scaler, devices)
    sides: list[Turn] = [lambda seconds: turn(lambda: jax.block_until_ready(step(batch)), seconds)]
    if original:
        sides.append(partial(original.turn, case.mode))
    ours, *theirs = [spread(times) for times in time_in_turn(sides, turns, TURN_SECONDS)]
    cost, counted_in = step_cost(step.lowered, step.compiled, len(devices))
    row = {
        **case._asdict(),
        "devices": len(devices),
        "compile_s": step.compile_seconds,
        "step_s": ours,
        "records_per_s": case.batchsize / ours["median"],
        "records_per_s_with_input": rate_with_input(step, case, split, devices, steps=int(ours["count"])),
        **cost._asdict(),
        "flops_counted_in": counted_in,
        "peak_bytes": step.peak_bytes,
        **bounds(cost, ceilings, ours["median"]),
    }
    if original:
        row |= comparison(ours, theirs[0], row["least_s"]["compute"]) | {"framework": original.framework}
    return row


def bounds(cost: Cost, ceilings: Ceilings, seconds: float) -> dict[str, Any]:
    """The least times that a step's multiplications, bytes and kernels could take, each by itself.

    A step waits for the longest of them. The roofline is that of the first two; a share above 1 for `memory` means
    that what the kernels read was still in a cache.
    """
    least = {
        "compute": cost.flops / ceilings.flops_per_s,
        "memory": cost.bytes / ceilings.bytes_per_s,
        "dispatch": cost.kernels * ceilings.kernel_s,
    }
    return {
        "least_s": least,
        "flops_per_byte": cost.flops / cost.bytes,
        "roofline_fraction": max(least["compute"], least["memory"]) / seconds,
        "waits_for": max(least, key=least.__getitem__),
    }


def comparison(ours: dict[str, float], original: dict[str, float], least: float) -> dict[str, Any]:
    """The original's time over ours, and over the least that our step's multiplications could take."""
    ratio = original["median"] / ours["median"]
    return {"original_step_s": original, "ratio": ratio, "highest_ratio": original["median"] / least}


def rate_with_input(step: Step, case: Case, split: Split, devices: Devices, steps: int) -> float:
    """Records/s from shards to results on the host, as in training: batches prefetched, results fetched a step late."""
    batches: Any = prefetch(endless_batches(split, case), devices.put_batch)
    with closing(batches):
        pending = step(next(batches))
        np.asarray(pending)
        start = time.perf_counter()
        for batch in itertools.islice(batches, steps):
            previous, pending = pending, step(batch)
            np.asarray(previous)
        np.asarray(pending)
    return steps * case.batchsize / (time.perf_counter() - start)


def endless_batches(split: Split, case: Case) -> Iterator[Batch]:
    """Epoch after epoch, as training or inference reads them."""
    for epoch in itertools.count():
        if case.mode == "train":
            yield from train_batches(split, case.batchsize, 0, epoch)
        else:
            yield from eval_batches(split, case.batchsize)


def summary(row: dict[str, Any]) -> str:
    """A row in one line, to watch the progress by."""
    ratio = f", the original takes {row['ratio']:.2f} times as long" if "ratio" in row else ""
    case = f"{row['model']} {row['mode']} {row['dtype']}, batch {row['batchsize']}"
    return f"{case}: {milliseconds(row['step_s'])} ms, {digits(row['records_per_s'])} records/s{ratio}"


def open_devices(count: int | None, batchsizes: list[int]) -> Devices:
    """So many devices, by default all, over which every batch must divide."""
    available = jax.local_device_count()
    if count and count > available:
        raise UserError(
            f"--devices {count}: there are {available}; for a trial on a CPU set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={count}"
        )
    devices = Devices(count)
    for batchsize in batchsizes:
        devices.check(batchsize)
    return devices


def models(text: str) -> list[str]:
    """`all`, or names of networks with commas between."""
    names = list(MODELS) if text == "all" else text.split(",")
    for name in names:
        if name not in MODELS:
            raise argparse.ArgumentTypeError(f"'{name}' is neither all nor one of {', '.join(MODELS)}")
    return names


def make_folder(path: Path) -> None:
    """Make the folder of results, before anything is measured for it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--out {path}: a file is in its way, choose another folder") from None


if __name__ == "__main__":
    main()
