"""Is the input pipeline right, and how fast is it?

    python -m benchmarks.input_pipeline --data_dir DIR [--full_csv FILE] [--out FILE]

DIR is a PTB-XL folder; nothing is written to it. Counts labels, compares every decoded record with `wfdb.rdsamp`, and
times `prepare`, opening, and the loader. Files are in the page cache when they are timed.
"""

import argparse
import datetime
import os
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import wfdb

from experiments.cli import Parser, execute, positive_int
from imlenet_jax.data.loader import Split, eval_batches, select, train_batches
from imlenet_jax.data.prepare import prepare_shards, usable_cores
from imlenet_jax.data.ptbxl import DATABASE, STATEMENTS, SUPERCLASSES, read_metadata, read_statements, superclass_labels
from imlenet_jax.data.shards import Dataset, open_shards
from imlenet_jax.errors import UserError
from imlenet_jax.files import write_json

ALL_FOLDS = tuple(range(1, 11))
TRAIN_FOLDS = tuple(range(1, 9))
SAMPLE = 200  # records that wfdb's own rate is measured on
TOLERANCE = 1e-6  # mV between float32 and wfdb's float64, over the largest voltages of 32 mV


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(
        prog="python -m benchmarks.input_pipeline", description="The input pipeline: correctness and rates."
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="PTB-XL folder")
    parser.add_argument("--full_csv", type=Path, help="a full ptbxl_database.csv, to count labels without signals")
    parser.add_argument("--batchsize", type=positive_int, default=32, help="records per batch of the loader")
    parser.add_argument("--repeats", type=positive_int, default=3, help="of each timing; the best counts")
    parser.add_argument("--out", type=Path, help="write the results there as JSON")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    print("device: CPU (numpy only)")
    statements = read_statements(args.data_dir / STATEMENTS)
    tables = {DATABASE: args.data_dir / DATABASE}
    if args.full_csv:
        tables[args.full_csv.name] = args.full_csv
    results: dict[str, Any] = {"machine": machine()}
    results["labels"] = {name: label_counts(path, statements) for name, path in tables.items()}
    for name, counts in results["labels"].items():
        print(f"{name}: {', '.join(f'{key} {value}' for key, value in counts.items())}")
    with tempfile.TemporaryDirectory() as temporary:
        workers = sorted({1, 2, usable_cores()})
        results["prepare_records_per_s"] = {
            str(count): best(args.repeats, lambda count=count: prepare_rate(args.data_dir, temporary, count))
            for count in workers
        }
        path = prepare_shards(args.data_dir, Path(temporary) / "shards", progress=False).path
        stems = [args.data_dir / stem for stem in read_metadata(args.data_dir / DATABASE).stems]
        results["decoding_max_abs_mv"], results["decoding_records"] = decoding_difference(open_shards(path), stems)
        results["rdsamp_records_per_s"] = best(args.repeats, lambda: rdsamp_rate(stems[:SAMPLE]))
        results["open_to_first_batch_s"] = -best(args.repeats, lambda: -first_batch_seconds(path, args.batchsize))
        split = select(open_shards(path), TRAIN_FOLDS, "training")
        results["loader_records_per_s"] = best(args.repeats, lambda: loader_rate(split, args.batchsize))
        results["memcpy_records_per_s"] = best(args.repeats, lambda: memcpy_rate(split, args.batchsize))
    _print_rates(results)
    if args.out:
        write_json(args.out, results)
        print(f"written: {args.out}")
    if not results["decoding_max_abs_mv"] <= TOLERANCE:
        raise UserError(f"decoding differs from wfdb.rdsamp by more than {TOLERANCE:g} mV: report this as a bug")


def label_counts(csv_path: Path, statements: dict[str, str]) -> dict[str, int]:
    """Rows, rows with a superclass, rows per superclass, and labelled rows per group of folds."""
    metadata = read_metadata(csv_path)
    labels = superclass_labels(metadata.scp_codes, statements)
    labelled = labels.any(axis=1)
    groups = {"folds 1-8": metadata.fold <= 8, "fold 9": metadata.fold == 9, "fold 10": metadata.fold == 10}
    return {
        "rows": len(labels),
        "with a superclass": int(labelled.sum()),
        **dict(zip(SUPERCLASSES, labels.sum(axis=0, dtype=int).tolist(), strict=True)),
        **{name: int((group & labelled).sum()) for name, group in groups.items()},
    }


def decoding_difference(dataset: Dataset, stems: list[Path]) -> tuple[float, int]:
    """Largest difference in mV between our float32 and `wfdb.rdsamp`'s float64, and over how many records."""
    worst = 0.0
    for row, stem in enumerate(stems):
        expected, fields = wfdb.rdsamp(str(stem))
        names = [name.casefold() for name in fields["sig_name"]]
        order = [names.index(lead.casefold()) for lead in dataset.leads]
        # np.maximum, unlike max, keeps a NaN.
        worst = float(np.maximum(worst, np.abs(dataset.millivolts([row])[0] - expected[:, order]).max()))
    return worst, len(stems)


def prepare_rate(data_dir: Path, parent: str, workers: int) -> float:
    """Records/s of a whole `prepare` into a fresh folder, process start-up and reading of the tables excluded."""
    with tempfile.TemporaryDirectory(dir=parent) as out:
        done = prepare_shards(data_dir, Path(out), workers=workers, progress=False)
        return done.records / done.seconds


def rdsamp_rate(stems: list[Path]) -> float:
    """Records/s of `wfdb.rdsamp`, one thread."""
    seconds = timed(lambda: [wfdb.rdsamp(str(stem)) for stem in stems])
    return len(stems) / seconds


def first_batch_seconds(path: Path, batchsize: int) -> float:
    """Seconds from nothing open to the first shuffled batch."""
    return timed(lambda: next(train_batches(select(open_shards(path), TRAIN_FOLDS, "training"), batchsize, 0, 0)))


def loader_rate(split: Split, batchsize: int) -> float:
    """Records/s of one shuffled epoch."""
    return len(split) / timed(lambda: sum(1 for _ in train_batches(split, batchsize, 0, 0, drop_last=False)))


def memcpy_rate(split: Split, batchsize: int) -> float:
    """Records/s of copying the same batches from memory to memory: the most that a loader could do."""
    batches = [batch.signal for batch in eval_batches(split, batchsize)]
    return len(batches) * batchsize / timed(lambda: sum(batch.copy().size for batch in batches))


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def best(repeats: int, measure: Callable[[], float]) -> float:
    """The highest of several measurements: other processes only ever slow one down."""
    return max(measure() for _ in range(repeats))


def machine() -> dict[str, Any]:
    """Where and with what the figures were taken."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "cores": usable_cores(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "wfdb": version("wfdb"),
    }


def _print_rates(results: dict[str, Any]) -> None:
    count, worst = results["decoding_records"], results["decoding_max_abs_mv"]
    print(f"decoding: {count} records, at most {worst:.1e} mV from wfdb.rdsamp")
    for workers, rate in results["prepare_records_per_s"].items():
        print(f"prepare with {workers} workers: {rate:,.0f} records/s")
    print(f"wfdb.rdsamp: {results['rdsamp_records_per_s']:,.0f} records/s")
    print(f"opening to first batch: {results['open_to_first_batch_s'] * 1000:.0f} ms")
    print(f"loader: {results['loader_records_per_s']:,.0f} records/s (memcpy {results['memcpy_records_per_s']:,.0f})")


if __name__ == "__main__":
    main()
