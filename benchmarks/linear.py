"""How far a linear model on the raw samples gets: the yardstick for the synthetic data set.

    python -m benchmarks.linear --data_dir synthetic

Ridge regression, one per class, on the standardised samples (12,000 at 100 Hz) of folds 1-8; the penalty is the one
that does best on the TEST fold, so that the figure is an upper bound of what such models reach.
"""

import argparse

import numpy as np

from experiments.cli import Parser, execute
from imlenet_jax.data.loader import Split, select
from imlenet_jax.data.open import open_dataset
from imlenet_jax.evaluation.metrics import macro_auc

PENALTIES = tuple(10.0**power for power in range(1, 8))


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.linear", description="A linear model on the raw samples.")
    parser.add_argument("--data_dir", default="synthetic", help="PTB-XL folder, shards, or 'synthetic'")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Fit and print."""
    dataset = open_dataset(args.data_dir)
    train, test = select(dataset, tuple(range(1, 9)), "training"), select(dataset, (10,), "test")
    scores = ridge_scores(_samples(train), train.labels, _samples(test))
    areas = [float(macro_auc(test.labels, score)) for score in scores]
    best = int(np.nanargmax(areas))
    print(
        f"linear model on raw samples: macro AUC {areas[best]:.4f} on fold 10 (penalty {PENALTIES[best]:g}, the best)"
    )


def ridge_scores(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> list[np.ndarray]:
    """Scores `(n_test, classes)` per penalty, by the dual: `(n, n)` is far smaller than `(samples, samples)`."""
    kernel, test_kernel = x @ x.T, x_test @ x.T
    target = y - y.mean(axis=0)
    return [test_kernel @ np.linalg.solve(kernel + penalty * np.eye(len(x)), target) for penalty in PENALTIES]


def _samples(split: Split) -> np.ndarray:
    mean, std = split.dataset.scaler
    signals = split.dataset.millivolts(split.rows).reshape(len(split), -1)
    return (signals.astype(np.float64) - mean) / std


if __name__ == "__main__":
    main()
