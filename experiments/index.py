"""Write a records.csv for recordings that come without one.

python -m experiments.index --format challenge data/georgia --dx_map codes.csv
python -m experiments.index --format folders data/classes
"""

import argparse
import shlex
from collections import Counter
from pathlib import Path

from experiments.cli import Parser, execute, names, positive_float
from imlenet_jax.data.index import challenge_rows, folder_rows, listing_text, read_names
from imlenet_jax.data.sources import TableFormat
from imlenet_jax.errors import UserError
from imlenet_jax.files import write_atomically


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(prog="python -m experiments.index", description="A records.csv for recordings without one.")
    parser.add_argument("folder", type=Path, help="with the recordings, at any depth")
    parser.add_argument(
        "--format", choices=("challenge", "folders"), required=True, help="PhysioNet Challenge, or a folder per class"
    )
    parser.add_argument("--dx_map", type=Path, help="challenge: a table of codes and names; other codes are left out")
    parser.add_argument("--sampling_rate", type=positive_float, help="folders: of .csv and .npy files, Hz")
    parser.add_argument("--leads", type=names, help="folders: columns of .csv and .npy files, as I,II,V1")
    parser.add_argument("--unit", choices=("mV", "uV", "V"), help="folders: of .csv and .npy files")
    parser.add_argument("--out", type=Path, help="the table; records.csv in the folder by default")
    return parser


def main() -> None:
    """Parse the flags and run."""
    execute(make_parser(), run)


def run(args: argparse.Namespace) -> None:
    """Look, count, write."""
    table = TableFormat(args.sampling_rate, args.leads, args.unit)
    unnamed: Counter[str] = Counter()
    if args.format == "challenge":
        if table != TableFormat():
            raise UserError("--sampling_rate, --leads and --unit are for --format folders: WFDB headers have their own")
        rows, unnamed = challenge_rows(args.folder, read_names(args.dx_map) if args.dx_map else None)
    else:
        if args.dx_map:
            raise UserError("--dx_map is for --format challenge: folders are named after their classes")
        rows = folder_rows(args.folder, table)
    counts = Counter(label for row in rows for label in row.labels)
    without = sum(not row.labels for row in rows)
    print(f"{len(rows)} recordings, {without} of them without a label")
    print(", ".join(f"{label} {count}" for label, count in counts.most_common()))
    if unnamed:
        print(f"not in {args.dx_map}: {', '.join(f'{code} {count}' for code, count in unnamed.most_common())}")
    out = args.out or args.folder / "records.csv"
    write_atomically(out, listing_text(rows).encode())
    print(f"written: {out}")
    command = ["python", "-m", "experiments.prepare", "--records", str(out)]
    if out.parent.resolve() != args.folder.resolve():
        command += ["--root", str(args.folder)]
    print(f"next: {shlex.join(command)}")


if __name__ == "__main__":
    main()
