"""What would an accelerator run? Compiles the project's steps for a device that is not there, and reads the programs.

    python -m benchmarks.compiled [--target h100] [--models all] [--dtype float32 bfloat16] [--devices 1]
        [--top N] [--out DIR] [--against FILE]

No speed is measured: bytes, kernels, memory and messages are counts of the compiled program. The least times beside
them come from the maker's figures, which are printed. Needs `make accelerators`.
"""

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

from benchmarks.parts.absent import DEVICES, AbsentDevices, compile_absent, prepare
from benchmarks.parts.cost import step_cost
from benchmarks.parts.machine import machine
from benchmarks.parts.program import collectives, differences, estimated_cycles, library_calls, movers
from benchmarks.parts.steps import MODES, peak_bytes
from benchmarks.parts.tables import case, markdown
from benchmarks.throughput import make_folder, models
from experiments.cli import Parser, execute, positive_int
from imlenet_jax.errors import UserError
from imlenet_jax.files import parse_json, write_atomically, write_json
from imlenet_jax.models import make_config
from imlenet_jax.training.recipe import DTYPES

Row = dict[str, Any]


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.compiled", description="Programs for devices that are not there.")
    parser.add_argument("--target", choices=DEVICES, default="h100", help="device to compile for")
    parser.add_argument("--models", type=models, default="all", help="all, or names with commas between")
    parser.add_argument("--mode", nargs="+", choices=MODES, default=list(MODES), help="steps to compile")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES), help="what the networks compute in")
    parser.add_argument("--batchsize", type=positive_int, nargs="+", default=[32], help="records per step")
    parser.add_argument("--devices", type=positive_int, nargs="+", default=[1], help="devices that share a batch")
    parser.add_argument("--top", type=positive_int, default=0, help="list so many instructions that move most bytes")
    parser.add_argument("--out", type=Path, default=Path("results/compiled"), help="folder for JSON and table")
    parser.add_argument("--against", type=Path, help="an earlier compiled.json: print what changed")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Compile every step; print a line and rewrite `compiled.json` and `.md` after each."""
    prepare()
    earlier = read_rows(args.against) if args.against else []
    make_folder(args.out)
    results: dict[str, Any] = {
        "machine": machine("benchmarks.compiled"),
        "constants": {args.target: DEVICES[args.target]._asdict()},
        "rows": [],
    }
    devices = {count: AbsentDevices(args.target, count) for count in args.devices}
    for count, model, mode, dtype, batchsize in itertools.product(
        args.devices, args.models, args.mode, args.dtype, args.batchsize
    ):
        if batchsize % count:
            raise UserError(f"--batchsize {batchsize} does not divide over {count} devices")
        row = measure(args.target, model, mode, dtype, batchsize, devices[count], args.top)
        results["rows"].append(row)
        print(summary(row), flush=True)
        for mover in row.pop("movers"):
            print(f"  {mover.bytes / 1e6:9.1f} MB  {mover.layer[-70:]:<70} {mover.name} {mover.shape[:60]}")
        write_json(args.out / "compiled.json", results)
        write_atomically(args.out / "compiled.md", compiled_table(results).encode())
    print(f"\n{compiled_table(results)}\nwritten: compiled.json and compiled.md in {args.out}")
    for *what, changes in differences(results["rows"], earlier):
        print(f"{' '.join(what)}: {changes}")


def measure(target: str, model: str, mode: str, dtype: str, batchsize: int, devices: AbsentDevices, top: int) -> Row:
    """Compile one step and read its program; figures are per device, but for the multiplications."""
    start = time.perf_counter()
    lowered, compiled = compile_absent(model, mode, make_config(model), dtype, batchsize, devices)
    seconds, text, constants = time.perf_counter() - start, compiled.as_text() or "", DEVICES[target]
    cost, counted_in = step_cost(lowered, compiled)
    peak = peak_bytes(compiled)
    return {
        "target": target,
        "model": model,
        "mode": mode,
        "dtype": dtype,
        "batchsize": batchsize,
        "devices": len(devices),
        **cost._asdict(),
        "flops_counted_in": counted_in,
        "peak_bytes": peak,
        "fits": peak is not None and peak <= constants.memory_bytes,
        "library_calls": library_calls(text),
        "collectives": collectives(text),
        "cycles": estimated_cycles(text),
        "least_s": {
            "memory": cost.bytes / constants.bytes_per_s,
            "compute": cost.flops / len(devices) / constants.flops_per_s[dtype],
            "dispatch": cost.kernels * constants.kernel_s,
        },
        "compile_s": seconds,
        "movers": movers(text, top),
    }


def summary(row: Row) -> str:
    """A row in one line, to watch the progress by."""
    cycles = f", {row['cycles'] / 1e6:.2f} M cycles" if row["cycles"] else ""
    return (
        f"{row['model']} {row['mode']} {row['dtype']}, batch {row['batchsize']} on {row['devices']} x {row['target']}: "
        f"{row['bytes'] / 1e9:.2f} GB, {row['kernels']:,} kernels{cycles} (compiled in {row['compile_s']:.0f} s)"
    )


def compiled_page(results: dict[str, Any]) -> str:
    """Date, versions and command, then the table."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("jax", "jaxlib", "flax"))
    return f"{machine['date'][:10]}, {versions}:\n\n```\n{machine['command']}\n```\n\n{compiled_table(results)}"


def compiled_table(results: dict[str, Any]) -> str:
    """The constants, then a line per program."""
    lines = [
        f"{name}: {c['bytes_per_s'] / 1e12:g} TB/s, "
        + ", ".join(f"{rate / 1e12:g} TFLOP/s ({dtype})" for dtype, rate in c["flops_per_s"].items())
        + f", {1e6 * c['kernel_s']:g} us per kernel, {c['memory_bytes'] / 1e9:g} GB"
        for name, c in results["constants"].items()
    ]
    header = ("network", "step", "type", "batch", "devices", "GFLOP", "GB", "kernels", "peak, GB", "Mcycles")
    header += ("messages (MB)", "least by bytes, products, kernels, ms")
    rows = (
        (
            *case(row),
            f"{row['devices']} x {row['target']}",
            f"{row['flops'] / 1e9:,.1f}",
            f"{row['bytes'] / 1e9:.2f}",
            f"{row['kernels']:,}",
            "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e9:.2f}{'' if row['fits'] else ', too much'}",
            f"{row['cycles'] / 1e6:.2f}" if row["cycles"] else "-",
            "; ".join(f"{c['count']} {kind} ({c['bytes'] / 1e6:.1f})" for kind, c in row["collectives"].items()) or "-",
            ", ".join(f"{1e3 * row['least_s'][name]:.2f}" for name in ("memory", "compute", "dispatch")),
        )
        for row in results["rows"]
    )
    return "\n".join([*lines, "", markdown(header, rows)])


def read_rows(path: Path) -> list[Row]:
    """The rows of an earlier `compiled.json`."""
    try:
        rows: list[Row] = parse_json(path.read_text())["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"--against {path} is no compiled.json of this benchmark: name an earlier one") from None
    return rows


if __name__ == "__main__":
    main()
