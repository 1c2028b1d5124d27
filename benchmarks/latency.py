"""How long does one record wait: for a network that is loaded, and for one that is not?

    python -m benchmarks.latency [--models mousavi ecgnet] [--checkpoint DIR] [--out FILE]

Warm: `Classifier.predict_proba` on one record, from numpy in to probabilities out, and the compiled step alone with the
record on the device already, in turns. Fresh: `imlenet_jax.load` to the first answer in a new process, with the imports
and the compilation that this takes. Without `--checkpoint` each network has the weights it is initialised with.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.parts.machine import machine
from benchmarks.parts.records import config_for, describe, open_split
from benchmarks.parts.timing import spread, timed
from experiments.cli import Parser, execute, positive_int
from imlenet_jax.classifier import Classifier, load
from imlenet_jax.errors import UserError
from imlenet_jax.files import write_json
from imlenet_jax.models import MODELS, create_model, init_variables
from imlenet_jax.training.parallel import print_devices
from imlenet_jax.training.saving import Checkpoints

FRESH = """
import sys, time
import numpy as np
import imlenet_jax
signals = np.load(sys.argv[2])
start = time.perf_counter()
imlenet_jax.load(sys.argv[1], compilation_cache=False).predict_proba(signals)
print(time.perf_counter() - start)
"""


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.latency", description="Latency of one record.")
    parser.add_argument(
        "--models", choices=MODELS, nargs="+", default=list(MODELS), help="networks, with fresh weights"
    )
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint folder to measure instead")
    parser.add_argument("--repeats", type=positive_int, default=50, help="of each warm timing; the median counts")
    parser.add_argument("--fresh", type=positive_int, default=3, help="fresh processes; the median counts")
    parser.add_argument("--out", type=Path, help="write the results there as JSON")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    print_devices()
    results: dict[str, Any] = {"machine": machine("benchmarks.latency"), "rows": []}
    with tempfile.TemporaryDirectory() as temporary:
        folders = [args.checkpoint] if args.checkpoint else (fresh_weights(m, Path(temporary)) for m in args.models)
        for folder in folders:
            results["rows"].append(row := measure(folder, Path(temporary), args.repeats, args.fresh))
            print(
                f"{row['model']}: {1000 * row['predict_s']['median']:.2f} ms, {row['ratio']:.2f} times the compiled step; "
                f"from load to the first answer {row['load_to_answer_s']:.1f} s",
                flush=True,
            )
    if args.out:
        write_json(args.out, results)
        print(f"written: {args.out}")


def fresh_weights(model: str, parent: Path) -> Path:
    """A checkpoint of the published network as it is initialised."""
    split = open_split(None, parent, 1)
    config = config_for(model, split)
    variables = jax.jit(partial(init_variables, create_model(model, config)))(jax.random.key(0))
    with Checkpoints(parent / model) as checkpoints:
        checkpoints.save(describe(model, config, split), variables=variables)
    return parent / model


def measure(folder: Path, temporary: Path, repeats: int, fresh: int) -> dict[str, Any]:
    """The row of one checkpoint."""
    classifier = load(folder, compilation_cache=False)
    config: Any = classifier.network.config
    signals = np.random.default_rng(0).normal(0, 0.25, (1, config.length, config.leads)).astype(np.float32)
    path = temporary / "signals.npy"
    np.save(path, signals)
    predict, step = warm(classifier, signals, repeats)
    return {
        "model": classifier.meta.model,
        "predict_s": predict,
        "step_s": step,
        "ratio": predict["median"] / step["median"],
        "load_to_answer_s": statistics.median(load_to_answer(folder, path) for _ in range(fresh)),
    }


def warm(classifier: Classifier, signals: np.ndarray, repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of `predict_proba`, and of the compiled step on the device, in turns."""
    placed = jax.device_put(signals)
    step = partial(classifier._apply, classifier.variables, placed)
    answers = {
        "predict": lambda: classifier.predict_proba(signals),
        "step": lambda: jax.block_until_ready(step()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in answers}
    for _ in range(repeats + 1):
        for name, answer in answers.items():
            seconds[name].append(timed(answer))
    predict, alone = (spread(values[1:]) for values in seconds.values())  # the first compiles
    return predict, alone


def load_to_answer(folder: Path, signals: Path) -> float:
    """Seconds from `imlenet_jax.load` to the first answer, in a process of its own, as a user's script is one."""
    # Without the huge pages that `python -m` asks for: a script does not, and filling them takes longer once.
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", FRESH, str(folder), str(signals)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise UserError(f"{folder} in a fresh process: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    return float(done.stdout)


if __name__ == "__main__":
    main()
