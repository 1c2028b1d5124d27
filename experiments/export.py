"""Write a trained network as a file for other programs, and check that it says the same.

python -m experiments.export --model imle_net --format onnx --out imle_net.onnx
"""

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.cli import LOGS, Parser, add_cache_flag, execute, folds
from experiments.results import read_tests
from experiments.task import add_network_flags, check_shape, check_task_flags, load_network
from imlenet_jax.classifier import Classifier
from imlenet_jax.data.open import open_dataset
from imlenet_jax.errors import UserError
from imlenet_jax.export.files import FORMATS, describe
from imlenet_jax.export.verify import BATCHES, synthetic_ecgs
from imlenet_jax.files import write_atomically
from imlenet_jax.models import entry
from imlenet_jax.training.parallel import print_devices


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(prog="python -m experiments.export", description="A trained network as a file, checked.")
    add_network_flags(parser)
    parser.add_argument(
        "--log_dir", type=Path, default=LOGS, help="what experiments.test has found is taken from there"
    )
    parser.add_argument("--format", choices=FORMATS, required=True, help="onnx needs the extra imlenet_jax[onnx]")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--data_dir", help="records to check the file on; synthetic ones unless given")
    parser.add_argument("--test_folds", type=folds, default=(10,), help="folds of --data_dir to take them from")
    add_cache_flag(parser)
    return parser


def main() -> None:
    """Parse the flags and run."""
    execute(make_parser(), run)


def run(args: argparse.Namespace) -> None:
    """Export."""
    entry(args.model)
    check_task_flags(args)
    if args.out.is_dir():
        raise UserError(f"--out {args.out} is a folder: name a file in it")
    print_devices()
    place, classifier = load_network(args)
    ecgs = real_ecgs(args, classifier) if args.data_dir else synthetic_ecgs(classifier)
    kind = (
        f"records of fold {', '.join(map(str, args.test_folds))} of {args.data_dir}"
        if args.data_dir
        else "synthetic records"
    )
    tests = read_tests(args.log_dir, place.name, classifier.meta)

    start = time.monotonic()
    about = describe(classifier, tests) | {"checked_on": kind}
    content, checked = FORMATS[args.format](classifier, about, ecgs)
    write_atomically(args.out, content)
    print(f"checked on {len(ecgs)} {kind}, in batches of {', '.join(map(str, BATCHES))}; largest differences:")
    for output, difference in checked["largest_difference"].items():
        print(f"  {output:13}  {difference:.1e}")
    print(f"found of its tests in {args.log_dir}: {', '.join(tests) or 'none'}")
    print(f"{args.out}: {len(content) / 2**20:,.1f} MiB in {time.monotonic() - start:.0f} s")


def real_ecgs(args: argparse.Namespace, classifier: Classifier) -> NDArray[np.float32]:
    """The first records of the test folds, in mV, one after the other until there are enough."""
    dataset = open_dataset(args.data_dir, classifier.sampling_rate)
    check_shape(classifier.meta, dataset)
    rows = np.flatnonzero(np.isin(dataset.fold, args.test_folds))
    if not len(rows):
        raise UserError(
            f"{dataset.path} has no records in fold {', '.join(map(str, args.test_folds))}: change --test_folds"
        )
    return dataset.millivolts(np.resize(rows, max(BATCHES))).astype(np.float32)


if __name__ == "__main__":
    main()
