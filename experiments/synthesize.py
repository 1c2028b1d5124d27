"""Make a synthetic ECG data set in PTB-XL's layout, with the truth about its signs of disease beside it.

python -m experiments.synthesize --out data/synthetic
"""

import argparse
from pathlib import Path

from experiments.cli import Parser, execute, positive_int, seed
from imlenet_jax.data.synthetic import is_finished, write_dataset


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(prog="python -m experiments.synthesize", description="Synthetic ECGs in PTB-XL's layout.")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--records", type=positive_int, default=1500, help="how many recordings of 10 s")
    parser.add_argument("--seed", type=seed, default=0, help="same seed, same bytes")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parse the flags and run."""
    execute(make_parser(), run, argv)


def run(args: argparse.Namespace) -> None:
    """Write the data set."""
    print("device: CPU (numpy only)")
    if is_finished(args.out, args.records, args.seed):
        print(f"all {args.records} records were made before (seed {args.seed}): nothing to do")
    else:
        write_dataset(args.out, args.records, args.seed)
    print(f"synthetic data set: {args.out}")


if __name__ == "__main__":
    main()
