"""A network exported, in other runtimes beside ours: how long one record waits, and how many records a second.

    python -m benchmarks.runtimes [--models mousavi ecgnet] [--batchsize 1 64] [--out FILE]

Three programs of the same weights take turns on the CPU, each with a call before that does not count: `Classifier.predict_proba` of a checkpoint, the same of the
exported `.stablehlo`, and onnxruntime on the exported `.onnx`. Ratios are of onnxruntime's and the exported program's
speed to ours. Each export was checked before.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import onnxruntime

from benchmarks.latency import fresh_weights
from benchmarks.parts.machine import machine
from benchmarks.parts.timing import spread, timed
from experiments.cli import Parser, execute, positive_int
from imlenet_jax.classifier import Classifier, load
from imlenet_jax.export.files import describe, to_onnx, to_stablehlo
from imlenet_jax.export.verify import run_onnx, synthetic_ecgs
from imlenet_jax.files import write_json
from imlenet_jax.models import MODELS
from imlenet_jax.training.parallel import print_devices

OURS, EXPORTED, ONNX = "ours", "stablehlo", "onnxruntime"


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.runtimes", description="Exported networks in other runtimes.")
    parser.add_argument(
        "--models", choices=MODELS, nargs="+", default=list(MODELS), help="networks, with fresh weights"
    )
    parser.add_argument("--batchsize", type=positive_int, nargs="+", default=[1, 64], help="records at a time")
    parser.add_argument("--repeats", type=positive_int, default=20, help="turns; the median counts")
    parser.add_argument("--out", type=Path, help="write the results there as JSON")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    print_devices()
    about = machine("benchmarks.runtimes") | {"onnxruntime": onnxruntime.__version__}
    results: dict[str, Any] = {"machine": about, "rows": []}
    for model in args.models:
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(load(fresh_weights(model, Path(folder)), compilation_cache=False), folder, args)
        for row in rows:
            results["rows"].append(row)
            ratios = ", ".join(f"{name} {row['ratio'][name]:.2f}" for name in (EXPORTED, ONNX))
            ours = row["seconds"][OURS]["median"]
            print(
                f"{model}, {row['batchsize']}: {1000 * ours:.2f} ms, {row['batchsize'] / ours:,.0f} records/s; {ratios}",
                flush=True,
            )
        if args.out:
            write_json(args.out, results)


def measure(classifier: Classifier, folder: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row per number of records."""
    ecgs = synthetic_ecgs(classifier, max(64, *args.batchsize))
    about = describe(classifier, {})
    path = Path(folder) / "network.stablehlo"
    content, checked = to_stablehlo(classifier, about, ecgs)
    path.write_bytes(content)
    exported = load(path, compilation_cache=False)
    model, checked_onnx = to_onnx(classifier, about, ecgs)
    in_onnxruntime = run_onnx(model)
    rows = []
    for size in args.batchsize:
        batch = ecgs[:size]
        programs = {
            OURS: lambda batch=batch: classifier.predict_proba(batch, len(batch)),
            EXPORTED: lambda batch=batch: exported.predict_proba(batch, len(batch)),
            ONNX: lambda batch=batch: in_onnxruntime(batch),
        }
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(args.repeats):
            for name, program in programs.items():
                program()  # compiles, and gets back the memory that the others have taken
                seconds[name].append(timed(program))
        spreads = {name: spread(values) for name, values in seconds.items()}
        ours = spreads[OURS]["median"]
        rows.append(
            {
                "model": classifier.meta.model,
                "batchsize": size,
                "seconds": spreads,
                "ratio": {name: ours / spreads[name]["median"] for name in (EXPORTED, ONNX)},
                "largest_difference": {
                    EXPORTED: checked["largest_difference"],
                    ONNX: checked_onnx["largest_difference"],
                },
                "bytes": {"stablehlo": len(content), "onnx": len(model)},
            }
        )
    return rows


if __name__ == "__main__":
    main()
