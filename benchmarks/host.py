"""What does the host add to a training step: batches, results, progress bar, the look for NaN?

    python -m benchmarks.host [--batchsize 2] [--steps 512 2048] [--turns 5] [--out FILE]

A network of a few weights is trained for epochs of several lengths, once by the training loop itself and once by nothing
but its compiled step, called again and again on one batch. The difference, per step, is what the host adds where the device
does not hide it. Beside it is the processor time, of all threads, of the loop with a step that returns at once: all that the host does by
itself, on a busy machine too. Medians of turns, which alternate.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from benchmarks.parts.machine import machine
from benchmarks.parts.records import config_for, describe, open_split
from experiments.cli import Parser, execute, positive_int
from imlenet_jax.data.loader import Split
from imlenet_jax.files import write_json
from imlenet_jax.training.parallel import Devices, print_devices
from imlenet_jax.training.recipe import Recipe
from imlenet_jax.training.trainer import Trainer

CONFIG = {"kernel_size": 2, "filters": 1, "blocks": 1, "widen_every": 1}


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.host", description="What the host adds to a training step.")
    parser.add_argument("--batchsize", type=positive_int, default=2, help="records per step")
    parser.add_argument("--steps", type=positive_int, nargs="+", default=[512, 2048], help="lengths of the epochs")
    parser.add_argument("--turns", type=positive_int, default=5, help="epochs of each kind, in turn")
    parser.add_argument("--out", type=Path, help="write the results there as JSON")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    print_devices()
    results: dict[str, Any] = {
        "machine": machine("benchmarks.host"),
        **{name: getattr(args, name) for name in ("batchsize", "turns")},
        "rows": [],
    }
    print(f"{'data':<10}{'steps':>7}{'loop':>10}{'bare step':>12}{'host adds':>12}{'host alone':>13}   us per step")
    for on_device in (True, False):
        for steps in args.steps:
            with tempfile.TemporaryDirectory() as folder:
                split = open_split(None, Path(folder), steps * args.batchsize)
                row = measure(split, args.batchsize, on_device, args.turns)
            results["rows"].append(row)
            print(
                f"{'on device' if on_device else 'read':<10}{steps:>7}{row['loop_us']:>10.1f}{row['bare_us']:>12.1f}"
                f"{row['host_us']:>12.1f}{row['alone_us']:>13.1f}",
                flush=True,
            )
    if args.out:
        write_json(args.out, results)
        print(f"written: {args.out}")


def measure(split: Split, batchsize: int, on_device: bool, turns: int) -> dict[str, Any]:
    """Microseconds per step by the loop, by the compiled step alone, and by the loop with a step that does nothing."""
    config = config_for("rajpurkar", split, CONFIG)
    recipe = Recipe(batchsize=batchsize, epochs=2 * turns + 1, data_on_device=on_device)
    trainer = Trainer(describe("rajpurkar", config, split), split, recipe, Devices(1))
    compiled, batch = trainer._step, next(trainer._batches(1, 0))
    state, _, _ = trainer.epoch(trainer.start(), 1)  # compiles
    _, outcome = compiled(jax.tree.map(lambda array: array + 0, state), batch, *trainer._constants)
    ready = jax.block_until_ready(outcome)

    def bare(state: Any) -> tuple[Any, float]:
        start = time.perf_counter()
        for _ in range(trainer.steps):
            state, outcome = compiled(state, batch, *trainer._constants)
        jax.block_until_ready((state, outcome))
        return state, time.perf_counter() - start

    def loop(state: Any, step: Callable[..., Any], epoch: int) -> tuple[Any, float]:
        trainer._step = step
        state, _, rate = trainer.epoch(state, epoch)
        return state, len(split) / rate

    times: dict[str, list[float]] = {"loop": [], "bare": [], "alone": []}
    for turn in range(turns):
        state, seconds = bare(state)
        times["bare"].append(seconds)
        state, seconds = loop(state, compiled, 2 + 2 * turn)
        times["loop"].append(seconds)
        begun = time.process_time()
        state, _ = loop(state, lambda state, batch, *rest: (state, ready), 3 + 2 * turn)
        times["alone"].append(time.process_time() - begun)
    medians = {f"{name}_us": 1e6 * statistics.median(found) / trainer.steps for name, found in times.items()}
    return {
        "data_on_device": on_device,
        "steps": trainer.steps,
        **medians,
        "host_us": medians["loop_us"] - medians["bare_us"],
    }


if __name__ == "__main__":
    main()
