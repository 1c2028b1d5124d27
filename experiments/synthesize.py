"""Make a synthetic ECG data set in PTB-XL's layout, with the truth about its signs of disease beside it."""

import argparse
from pathlib import Path

from experiments.cli import Parser, execute, positive_int, seed
from imlenet_jax.data.synthetic import write_dataset


def parser() -> Parser:
    """The command's flags."""
    flags = Parser(prog="python -m experiments.synthesize", description=__doc__)
    flags.add_argument("--out", type=Path, required=True, help="folder to make")
    flags.add_argument("--records", type=positive_int, default=1500, help="how many recordings of 10 s")
    flags.add_argument("--seed", type=seed, default=0, help="same seed, same bytes")
    return flags


def run(args: argparse.Namespace) -> None:
    """Write the data set."""
    write_dataset(args.out, args.records, args.seed)
    print(f"synthetic data set: {args.out}")


if __name__ == "__main__":
    execute(parser(), run)
