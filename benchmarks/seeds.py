"""Would training several seeds in one vmapped program be faster than one after the other, as `--seeds N` does it?

    python -m benchmarks.seeds [--models mousavi ecgnet] [--seeds 4] [--config JSON] [--out FILE]

A step of each seed's network, each on a batch of its own: as many calls of the compiled step, and one call of that step
under `jax.vmap`, in turns. A ratio above 1 is in favour of one program.
"""

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.parts.machine import machine
from benchmarks.parts.records import config_for, open_split
from benchmarks.parts.timing import timed
from experiments.cli import Parser, add_cache_flag, execute, json_object, positive_int
from imlenet_jax.data.loader import Batch, Split, train_batches
from imlenet_jax.data.scaling import Scaler
from imlenet_jax.files import write_json
from imlenet_jax.models import MODELS, Config, create_model, init_variables
from imlenet_jax.runtime.compilation import use_cache
from imlenet_jax.training.optimizers import make_optimizer
from imlenet_jax.training.parallel import print_devices
from imlenet_jax.training.step import new_state, train_step


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.seeds", description="Several seeds in one program, or in turn.")
    parser.add_argument("--models", choices=MODELS, nargs="+", default=list(MODELS), help="networks to train")
    parser.add_argument("--config", type=json_object, default={}, help="constants of the network to change, as JSON")
    parser.add_argument("--seeds", type=positive_int, default=4, help="networks trained at once")
    parser.add_argument("--batchsize", type=positive_int, default=32, help="records per step and network")
    parser.add_argument("--turns", type=positive_int, default=5, help="of each; the medians count")
    parser.add_argument("--out", type=Path, help="write the results there as JSON")
    add_cache_flag(parser)
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    print_devices()
    use_cache(args.compilation_cache)
    results: dict[str, Any] = {
        "machine": machine("benchmarks.seeds"),
        **{name: getattr(args, name) for name in ("config", "seeds", "batchsize")},
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        split = open_split(None, Path(folder), args.seeds * args.batchsize)
        batches = list(train_batches(split, args.batchsize, 0, 1))
        for model in args.models:
            row = measure(model, config_for(model, split, args.config), split, batches, args.turns)
            results["rows"].append(row)
            print(
                f"{model}: {1000 * row['in_turn_s']:.1f} ms in turn, {1000 * row['together_s']:.1f} ms in one program, "
                f"ratio {row['ratio']:.2f}",
                flush=True,
            )
    if args.out:
        write_json(args.out, results)
        print(f"written: {args.out}")


def measure(model: str, config: Config, split: Split, batches: list[Batch], turns: int) -> dict[str, Any]:
    """Median seconds of a step of all networks, one per batch, in turn and together."""
    network, optimizer = create_model(model, config), make_optimizer(model)
    create = jax.jit(lambda seed: new_state(init_variables(network, jax.random.key(seed)), optimizer))
    states = [create(seed) for seed in range(len(batches))]
    step = partial(train_step, network, optimizer)
    one = jax.jit(step, donate_argnums=0)
    all_at_once = jax.jit(jax.vmap(step, in_axes=(0, 0, None, None, 0)), donate_argnums=0)
    scaler = Scaler(*map(np.float32, split.dataset.scaler))
    seeds = np.arange(len(batches), dtype=np.uint32)
    stacked, batch = (jax.tree.map(lambda *arrays: np.stack(arrays), *trees) for trees in (states, batches))

    def in_turn() -> list[jax.Array]:
        losses = []
        for index, seed in enumerate(seeds):
            states[index], outcome = one(states[index], batches[index], None, scaler, seed)
            losses.append(outcome.loss)
        return jax.block_until_ready(losses)

    def together() -> jax.Array:
        nonlocal stacked
        stacked, outcome = all_at_once(stacked, batch, None, scaler, seeds)
        return jax.block_until_ready(outcome.loss)

    first = [np.asarray(call()).tolist() for call in (in_turn, together)]  # compiles
    seconds = [(timed(in_turn), timed(together)) for _ in range(turns)]
    turn, at_once = (statistics.median(times) for times in zip(*seconds, strict=True))
    losses = dict(zip(("first_losses_in_turn", "first_losses_together"), first, strict=True))
    return {"model": model, "in_turn_s": turn, "together_s": at_once, "ratio": turn / at_once, **losses}


if __name__ == "__main__":
    main()
