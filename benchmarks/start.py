"""How long from the command to the first training step: with an empty compilation cache, and with what that has left there?

    python -m benchmarks.start [--models all] [--batchsize 32] [--turns 3] [--config JSON] [--out FILE]

Each start is a process of its own, `python -m experiments.train` on a few synthetic records that are prepared before. The
clock stops when the bar counts the first step, and the process is told to stop. Medians of the turns, each with a cache
of its own. `imports` is what a start takes before anything of it is ours: Python, JAX and its first device.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.parts.machine import machine
from benchmarks.throughput import models
from experiments.cli import Parser, execute, json_object, positive_int
from imlenet_jax.data.prepare import prepare
from imlenet_jax.data.synthetic import write_dataset
from imlenet_jax.errors import UserError
from imlenet_jax.files import write_json

FIRST_STEP = re.compile(rb"\| [1-9]\d*/\d+ \[")
RECORDS = 320  # so that every fold has every class; more where batches are larger


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.start", description="From the command to the first step, cold and warm.")
    parser.add_argument("--models", type=models, default="all", help="all, or names with commas between")
    parser.add_argument("--batchsize", type=positive_int, default=32, help="records per step")
    parser.add_argument("--turns", type=positive_int, default=3, help="cold and warm starts of each network")
    parser.add_argument("--config", type=json_object, default={}, help="constants of the networks to change, as JSON")
    parser.add_argument("--out", type=Path, help="write the results there as JSON")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    results: dict[str, Any] = {"machine": machine("benchmarks.start"), "batchsize": args.batchsize, "rows": []}
    print(f"{'network':<12}{'cold, s':>9}{'warm, s':>9}{'imports, s':>12}")
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder, "data"), max(RECORDS, 4 * args.batchsize), 0, progress=False)
        shards = prepare(Path(folder, "data"), progress=False)
        for model in args.models:
            row = measure(model, shards, args)
            results["rows"].append(row)
            print(f"{model:<12}{row['cold_s']:>9.1f}{row['warm_s']:>9.1f}{row['imports_s']:>12.1f}", flush=True)
    if args.out:
        write_json(args.out, results)
        print(f"written: {args.out}")


def measure(model: str, shards: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Median seconds to the first step with an empty cache, and with what the start before has left in it."""
    times: dict[str, list[float]] = {"cold": [], "warm": [], "imports": []}
    for _ in range(args.turns):
        with tempfile.TemporaryDirectory() as folder:
            flags = ["--model", model, "--data_dir", str(shards), "--batchsize", str(args.batchsize)]
            flags += ["--compilation_cache", str(Path(folder, "cache"))]
            if args.config:
                flags += ["--config", json.dumps(args.config)]
            for name in ("cold", "warm"):
                times[name].append(seconds_to_first_step(Path(folder, name), flags))
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], check=True)
        times["imports"].append(time.perf_counter() - begun)
    return {"model": model, "turns": args.turns} | {f"{name}_s": statistics.median(t) for name, t in times.items()}


def seconds_to_first_step(folder: Path, flags: list[str]) -> float:
    """Start a training that logs and saves in `folder`; when its first step is counted, stop it.

    Raises:
        UserError: it ended before.
    """
    command = [sys.executable, "-m", "experiments.train", *flags]
    command += ["--checkpoint_dir", str(folder / "checkpoints"), "--log_dir", str(folder / "logs")]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        told = b""
        while not FIRST_STEP.search(told):
            more = os.read(process.stderr.fileno(), 4096)
            if not more:
                reason = told.decode(errors="replace").strip().splitlines() or ["it said nothing"]
                raise UserError(f"the training ended before its first step ({reason[-1][:300]}): mend that first")
            told += more
        seconds = time.perf_counter() - begun
        process.send_signal(signal.SIGTERM)
        process.communicate()
    return seconds


if __name__ == "__main__":
    main()
