"""Tries every case of the table and prints how it ended.

python -m benchmarks.bad_input --out benchmarks/results/bad_input.json
"""

import argparse
from pathlib import Path

from benchmarks import bad_input
from benchmarks.parts.machine import machine
from experiments.cli import Parser, execute
from imlenet_jax.errors import UserError
from imlenet_jax.files import write_json


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.bad_input", description="How bad input is met.")
    parser.add_argument("--out", type=Path, help="JSON to write")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Try, print, write."""
    results = bad_input.run()
    for case in results["cases"]:
        mark = "" if case["expected"] else "UNEXPECTED "
        print(f"{mark}{case['how']:8} {case['file']}: {case['defect']}: {case['said']}")
    print(f"\n{results['tried']} tried: " + ", ".join(f"{results[how]} {how}" for how in bad_input.ENDS))
    print(f"slowest: {results['slowest_seconds']:.2f} s")
    if args.out:
        write_json(args.out, {"machine": machine("benchmarks.bad_input"), **results})
        print(f"written: {args.out}")
    if results["as_expected"] < results["tried"]:
        raise UserError(f"{results['tried'] - results['as_expected']} did not end as they should")


if __name__ == "__main__":
    main()
