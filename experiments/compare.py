"""Compare tested networks on the same records: differences, intervals, p.

python -m experiments.compare imle_net rajpurkar ecgnet
"""

import argparse
from pathlib import Path

from experiments.cli import LOGS, Parser, execute, positive_int, seed
from imlenet_jax.evaluation.comparison import check_same_records, compare, format_comparison, read_predictions
from imlenet_jax.evaluation.diagrams import draw_comparison, png
from imlenet_jax.files import write_atomically, write_json


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(prog="python -m experiments.compare", description="Paired bootstrap of tested networks.")
    parser.add_argument(
        "networks",
        nargs="+",
        metavar="NETWORK",
        help="a file of predictions that experiments.test wrote, or its network's name; the first is the baseline",
    )
    parser.add_argument("--log_dir", type=Path, default=LOGS, help="where a name's predictions are looked for")
    parser.add_argument("--split", choices=("test", "val"), default="test", help="which of its predictions")
    parser.add_argument("--resamples", type=positive_int, default=2000, help="of the bootstrap")
    parser.add_argument("--seed", type=seed, default=0, help="of the bootstrap")
    parser.add_argument("--out", type=Path, default=Path("results/comparison"), help="folder for table and figure")
    return parser


def main() -> None:
    """Parse the flags and run."""
    execute(make_parser(), run)


def run(args: argparse.Namespace) -> None:
    """Read, compare, write."""
    paths = [_path(text, args) for text in args.networks]
    predictions = [read_predictions(path) for path in paths]
    check_same_records(predictions)
    args.out.mkdir(parents=True, exist_ok=True)  # before the work, so that a mistake in --out costs none
    report = compare(predictions, args.resamples, args.seed)
    print(format_comparison(report))
    write_json(args.out / "comparison.json", report | {"files": [str(path) for path in paths]})
    write_atomically(args.out / "comparison.png", png(draw_comparison(report)))
    print(f"table: {args.out / 'comparison.json'}   figure: {args.out / 'comparison.png'}")


def _path(text: str, args: argparse.Namespace) -> Path:
    if text.endswith(".csv"):
        return Path(text)
    return args.log_dir / f"{text}_{args.split}_predictions.csv"


if __name__ == "__main__":
    main()
