"""How does the time of a training epoch grow with records, batch size and devices?

    python -m benchmarks.scaling [--model mousavi] [--config JSON] [--data_dir DIR] [--out DIR]

Each sweep varies one of the three and keeps the others at the largest number of records, the first batch size and the
first number of devices. Every number of devices has its own process, since JAX fixes it at its start; on a CPU the
devices are virtual, share its cores and make nothing faster: that sweep then shows what sharding costs. An epoch is
timed as `fit` trains it, loader included; the first, which compiles, is left out.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.parts.figures import check_matplotlib
from benchmarks.parts.machine import machine
from benchmarks.parts.records import config_for, describe, open_split
from experiments.cli import Parser, execute, json_object, positive_int
from imlenet_jax.data.loader import Split
from imlenet_jax.errors import UserError
from imlenet_jax.files import write_atomically, write_json
from imlenet_jax.models import MODELS, make_config
from imlenet_jax.training.loop import fit
from imlenet_jax.training.parallel import Devices
from imlenet_jax.training.recipe import Recipe

SWEEPS = ("records", "batchsize", "devices")
BEND = 0.2  # change of the exponent from which on a bend is reported: half of it is within the noise of a busy machine


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.scaling", description="Time per epoch against size.")
    parser.add_argument("--model", choices=MODELS, default="mousavi", help="network to train")
    parser.add_argument("--config", type=json_object, default={}, help="constants of the network to change, as JSON")
    parser.add_argument(
        "--data_dir", help="PTB-XL folder, shards or 'synthetic', repeated as needed; random by default"
    )
    parser.add_argument("--records", type=positive_int, nargs="+", default=[256, 512, 1024, 2048, 4096], help="sweep")
    parser.add_argument("--batchsize", type=positive_int, nargs="+", default=[32, 8, 16, 64, 128], help="sweep")
    parser.add_argument("--devices", type=positive_int, nargs="+", default=[1, 2, 4, 8], help="sweep")
    parser.add_argument("--epochs", type=positive_int, default=3, help="timed epochs per point; the median counts")
    parser.add_argument("--out", type=Path, help="folder for scaling.json, scaling.md and scaling.png")
    parser.add_argument("--points", type=json.loads, help=argparse.SUPPRESS)  # for the process of one number of devices
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Measure all sweeps, print the table, write."""
    if args.points:
        print(json.dumps(measure(args)))
        return
    check(args)
    sweeps = plan(args.records, args.batchsize, args.devices)
    seconds = {}
    for devices in sorted(set(args.devices)):
        points = sorted({point for sweep in sweeps.values() for point in sweep if point[2] == devices})
        print(f"{devices} device(s): {len(points)} point(s), one compilation each", flush=True)
        seconds |= dict(zip(points, measure_in_a_process(devices, points), strict=True))
    results: dict[str, Any] = {
        "machine": machine("benchmarks.scaling"),
        "model": args.model,
        "config": args.config,
        "epochs": args.epochs,
    }
    results["sweeps"] = {name: summary(name, points, seconds) for name, points in sweeps.items()}
    table = format_table(results)
    print(table)
    if args.out:
        write_json(args.out / "scaling.json", results)
        write_atomically(args.out / "scaling.md", table.encode())
        write_plot(args.out / "scaling.png", results)
        print(f"written: {args.out}")


Point = tuple[int, int, int]  # records, batch size, devices


def check(args: argparse.Namespace) -> None:
    """Refuse sizes that cannot be measured, before the first process starts."""
    if max(args.batchsize) > max(args.records) or args.batchsize[0] > min(args.records):
        raise UserError("--batchsize has a batch that is larger than --records: leave it out")
    for batchsize, devices in [(size, args.devices[0]) for size in args.batchsize] + [
        (args.batchsize[0], count) for count in args.devices
    ]:
        if batchsize % devices:
            raise UserError(f"--batchsize {batchsize} does not divide over --devices {devices}: leave one out")
    make_config(args.model, args.config)
    if args.out:
        check_matplotlib()


def plan(records: list[int], batchsize: list[int], devices: list[int]) -> dict[str, list[Point]]:
    """The points of each sweep, in rising order."""
    most = max(records)
    return {
        "records": [(n, batchsize[0], devices[0]) for n in sorted(set(records))],
        "batchsize": [(most, size, devices[0]) for size in sorted(set(batchsize))],
        "devices": [(most, batchsize[0], count) for count in sorted(set(devices))],
    }


def measure_in_a_process(devices: int, points: list[Point]) -> list[list[float]]:
    """Seconds of each timed epoch per point, from this very command in a process with so many devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "benchmarks.scaling", *sys.argv[1:], "--points", json.dumps(points)]
    done = subprocess.run(command, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1].removeprefix("error: ")
        raise UserError(f"measuring with {devices} device(s) failed: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(args: argparse.Namespace) -> list[list[float]]:
    """Seconds of each timed epoch per point, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        split = open_split(args.data_dir, Path(folder), max(args.records))
        return [epoch_seconds(args, resized(split, records), *rest) for records, *rest in args.points]


def resized(split: Split, records: int) -> Split:
    """The split cut, or repeated, to so many records."""
    index = np.resize(np.arange(len(split)), records)
    return Split(split.dataset, split.rows[index], split.labels[index])


def epoch_seconds(args: argparse.Namespace, train: Split, batchsize: int, devices: int) -> list[float]:
    """Seconds of each epoch of `fit` but the first: its training part, without validation and checkpoints."""
    rows: list[dict[str, float]] = []
    meta = describe(args.model, config_for(args.model, train, args.config), train)
    recipe = Recipe(batchsize=batchsize, epochs=args.epochs + 1, patience=args.epochs + 1)
    nowhere: Any = SimpleNamespace(save=lambda *_: None, finish=lambda: None)
    fit(meta, train, resized(train, batchsize), recipe, Devices(devices), nowhere, rows.append)
    used = len(train) - len(train) % batchsize
    return [used / row["records_per_second"] for row in rows[1:]]


def summary(sweep: str, points: list[Point], seconds: dict[Point, list[float]]) -> dict[str, Any]:
    """The rows of a sweep and the exponent with which its time grows."""
    rows = []
    for point in points:
        times, used = seconds[point], point[0] - point[0] % point[1]
        median = statistics.median(times)
        rows.append(
            dict(zip(SWEEPS, point, strict=True))
            | {"median_s": median, "min_s": min(times), "max_s": max(times), "records_per_s": used / median}
        )
    sizes = [point[SWEEPS.index(sweep)] for point in points]
    return {"rows": rows, "growth": growth(sizes, [row["median_s"] for row in rows])}


def growth(sizes: list[int], seconds: list[float]) -> dict[str, float | None]:
    """Least-squares exponents of seconds ~ size^exponent, and where it bends.

    `exponent` is that of all sizes: 1 is proportional, 0 constant, -1 inverse. The bend is the inner size that leaves the
    least error to a line broken there (in logarithms), with the exponents `before` and `after` it; None where there
    are under four sizes or the exponents differ by less than `BEND`.
    """
    found: dict[str, float | None] = dict.fromkeys(("exponent", "bend", "before", "after"))
    if len(sizes) < 2:
        return found
    x, y = np.log(sizes), np.log(seconds)
    found["exponent"] = float(np.polyfit(x, y, 1)[0])
    if len(sizes) < 4:
        return found
    fits = []
    for knot in range(1, len(sizes) - 1):
        terms = np.stack([np.ones_like(x), x, np.maximum(x - x[knot], 0)], axis=1)
        values = np.linalg.lstsq(terms, y, rcond=None)[0]
        fits.append((float(np.square(terms @ values - y).sum()), knot, values))
    _, knot, (_, slope, change) = min(fits, key=lambda fit: fit[:2])
    if abs(change) >= BEND:
        found |= {"bend": sizes[knot], "before": float(slope), "after": float(slope + change)}
    return found


def format_table(results: dict[str, Any]) -> str:
    """The sweeps as markdown, with a sentence on the growth of each."""
    about = results["machine"]
    lines = [
        f"`{about['command']}`",
        "",
        f"{results['model']}, {about['cpu']}, {about['cores']} cores, {about['devices']}, jax {about['versions']['jax']}, "
        f"{about['date'][:10]}, load {about['load']}; median of {results['epochs']} epochs.",
    ]
    for name, sweep in results["sweeps"].items():
        lines += [
            "",
            "| records | batch size | devices | s per epoch | lowest - highest | records/s |",
            "|---|---|---|---|---|---|",
        ]
        for row in sweep["rows"]:
            lines.append(
                f"| {row['records']:,} | {row['batchsize']} | {row['devices']} | {row['median_s']:.3f} | "
                f"{row['min_s']:.3f} - {row['max_s']:.3f} | {row['records_per_s']:,.0f} |"
            )
        lines += ["", _sentence(name, sweep["growth"])]
    return "\n".join(lines) + "\n"


def _sentence(sweep: str, growth: dict[str, float | None]) -> str:
    if growth["exponent"] is None:
        return f"One point says nothing of how time grows with {sweep}."
    text = f"Time grows with {sweep} to the power of {growth['exponent']:.2f}"
    if growth["bend"] is None:
        return f"{text}, without a bend."
    return f"{text}; it bends at {growth['bend']:,}, from {growth['before']:.2f} to {growth['after']:.2f}."


def write_plot(path: Path, results: dict[str, Any]) -> None:
    """A panel per sweep, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (name, sweep) in zip(
        figure.subplots(1, len(SWEEPS), sharey=True), results["sweeps"].items(), strict=True
    ):
        rows = sweep["rows"]
        sizes = [row[name] for row in rows]
        middle = np.array([row["median_s"] for row in rows])
        spread = [middle - [row["min_s"] for row in rows], [row["max_s"] for row in rows] - middle]
        axes.errorbar(sizes, middle, yerr=spread, marker="o", capsize=3)
        axes.set(xscale="log", yscale="log", xlabel=name)
        axes.set_title(
            _sentence(name, sweep["growth"]).replace("; ", ";\n").replace(", without", ",\nwithout"), fontsize=8
        )
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.xaxis.minorticks_off()
        axes.grid(alpha=0.3)
        if sweep["growth"]["bend"]:
            axes.axvline(sweep["growth"]["bend"], color="grey", linestyle=":")
    figure.axes[0].set_ylabel("seconds per epoch")
    figure.suptitle(f"{results['model']}: time per epoch ({results['machine']['devices']})")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    write_atomically(path, image.getvalue())


if __name__ == "__main__":
    main()
