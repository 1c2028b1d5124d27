"""Does a recording at 500 Hz, resampled as inference does it, get the answers of PTB-XL's own 100 Hz version?

    python -m benchmarks.resampling --model imle_net --data_dir D [--out benchmarks/results/resampling.json]

All pairs of which D, a PTB-XL folder, holds both files. Fold and training do not matter: a network is compared with itself.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parts.machine import machine
from experiments.cli import CHECKPOINTS, Parser, execute, positive_int
from experiments.task import check_kind
from imlenet_jax.classifier import Classifier, load
from imlenet_jax.data.ecg import read_ecg
from imlenet_jax.data.ptbxl import DATABASE, SAMPLING_RATES, read_metadata
from imlenet_jax.data.tasks import SUPERCLASS
from imlenet_jax.errors import UserError
from imlenet_jax.files import write_json
from imlenet_jax.models import MODELS, entry
from imlenet_jax.training.parallel import print_devices

HELD = 0.2  # s: at their very end PTB-XL's 500 Hz files repeat one sample, where the 100 Hz files go on


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.resampling", description="500 Hz against 100 Hz of the same records.")
    parser.add_argument("--model", default="imle_net", help=f"one of {', '.join(MODELS)}")
    parser.add_argument("--data_dir", type=Path, default=Path("data/ptb"), help="PTB-XL folder with both rates")
    parser.add_argument("--checkpoint_dir", type=Path, default=CHECKPOINTS, help="<model>/ lies below it")
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="which checkpoint")
    parser.add_argument("--max_records", type=positive_int, default=100, help="pairs to compare, the first ones")
    parser.add_argument("--out", type=Path, help="JSON to write")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Compare, print, write."""
    entry(args.model)
    print_devices()
    classifier = load(args.checkpoint_dir / args.model, args.which)
    check_kind(classifier.meta, args.model, SUPERCLASS)
    pairs = find_pairs(args.data_dir)[: args.max_records]
    found = compare(classifier, pairs)
    worst, at = found["probability"]["max"], found["probability"]["at"]
    print(
        f"{len(pairs)} records at {SAMPLING_RATES[1]} Hz and {SAMPLING_RATES[0]} Hz: probabilities differ by "
        f"{found['probability']['mean']:.4f} on average, {worst:.4f} at most ({at}); decisions by "
        f"{found['decisions']['differ']} of {found['decisions']['of']}; signals by {found['signal_mv']['rms']:.4f} mV RMS (without the last {HELD:g} s)"
    )
    if args.out:
        about = {"model": args.model, "epoch": classifier.meta.epoch, "pairs": len(pairs)}
        write_json(args.out, machine("benchmarks.resampling") | about | found)
        print(f"written: {args.out}")


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """The records of a PTB-XL folder of which both versions are there, at 100 and at 500 Hz, as their header files."""
    low, high = (read_metadata(folder / DATABASE, rate).stems for rate in SAMPLING_RATES)
    paths = [tuple(folder / f"{stem}.hea" for stem in stems) for stems in zip(low, high, strict=True)]
    pairs = [(first, second) for first, second in paths if first.is_file() and second.is_file()]
    if not pairs:
        raise UserError(f"--data_dir {folder} has no record at both {SAMPLING_RATES[0]} and {SAMPLING_RATES[1]} Hz")
    return pairs


def compare(classifier: Classifier, pairs: list[tuple[Path, Path]]) -> dict[str, Any]:
    """How far signals, probabilities and decisions of the two versions are apart, in JSON types."""
    signals = np.stack(
        [[read_ecg(path, classifier.leads, classifier.sampling_rate)[0].signal_mv for path in pair] for pair in pairs]
    )
    inside = np.diff(signals[:, :, : -round(HELD * classifier.sampling_rate)], axis=1)
    first, second = (classifier.predict_proba(signals[:, version]) for version in (0, 1))
    gaps = np.abs(first - second)
    row, column = np.unravel_index(gaps.argmax(), gaps.shape)
    thresholds = np.array(classifier.meta.thresholds or [np.nan] * len(classifier.classes), float)
    decided = np.isfinite(thresholds)
    differ = ((first >= thresholds) != (second >= thresholds))[:, decided]
    return {
        "probability": {
            "mean": float(gaps.mean()),
            "max": float(gaps.max()),
            "at": f"{classifier.classes[column]} of {pairs[row][0].stem}",
            "by_class": dict(zip(classifier.classes, gaps.mean(axis=0).tolist(), strict=True)),
        },
        "decisions": {"differ": int(differ.sum()), "of": int(differ.size)},
        "signal_mv": {"rms": float(np.sqrt(np.mean(inside**2)))},
    }


if __name__ == "__main__":
    main()
