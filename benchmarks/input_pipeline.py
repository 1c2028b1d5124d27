"""Is the input pipeline right, and how fast is it?

    python -m benchmarks.input_pipeline --data_dir DIR [--full_csv FILE] [--out FILE]

DIR is a PTB-XL folder; nothing is written to it. Counts labels, compares every decoded record with `wfdb.rdsamp`, and
times `prepare`, opening, the loader, and the way to the device. Files are in the page cache when they are timed, except
by the loader's cold pass, before which the shards are dropped from it.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import wfdb

from benchmarks.parts.machine import machine
from benchmarks.parts.timing import timed
from experiments.cli import Parser, execute, positive_int
from imlenet_jax.data.loader import Split, eval_batches, prefetch, select, train_batches
from imlenet_jax.data.prepare import prepare_shards, usable_cores
from imlenet_jax.data.ptbxl import DATABASE, STATEMENTS, read_metadata, read_statements
from imlenet_jax.data.shards import Dataset, open_shards
from imlenet_jax.data.tasks import Task, ptbxl_tasks
from imlenet_jax.errors import UserError
from imlenet_jax.files import write_json
from imlenet_jax.training.parallel import Devices, print_devices

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
    print_devices()
    tasks = ptbxl_tasks(read_statements(args.data_dir / STATEMENTS))
    tables = {DATABASE: args.data_dir / DATABASE}
    if args.full_csv:
        tables[args.full_csv.name] = args.full_csv
    results: dict[str, Any] = {"machine": machine("benchmarks.input_pipeline")}
    results["labels"] = {name: label_counts(path, tasks) for name, path in tables.items()}
    for name, counts in results["labels"].items():
        for task, of in counts.items():
            classes = sorted(of["classes"].items(), key=lambda at: at[1])
            told = ", ".join(f"{key} {value}" for key, value in of.items() if key != "classes")
            rare = ", ".join(f"{key} {value}" for key, value in classes[:3])
            print(f"{name}, {task}: {told}; {len(classes)} classes, of which the rarest: {rare}")
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
        results |= loader_rates(path, args.batchsize, args.repeats)
    _print_rates(results)
    if args.out:
        write_json(args.out, results)
        print(f"written: {args.out}")
    if not results["decoding_max_abs_mv"] <= TOLERANCE:
        raise UserError(f"decoding differs from wfdb.rdsamp by more than {TOLERANCE:g} mV: report this as a bug")


def label_counts(csv_path: Path, tasks: Mapping[str, Task]) -> dict[str, dict[str, Any]]:
    """Per task: records with a class, in all and per group of folds, labels, and records per class."""
    metadata = read_metadata(csv_path)
    groups = {"folds 1-8": metadata.fold <= 8, "fold 9": metadata.fold == 9, "fold 10": metadata.fold == 10}
    counts = {}
    for task in tasks.values():
        labels = task.labels(metadata.scp_codes)
        labelled = labels.any(axis=1)
        counts[task.name] = {
            "rows": len(labels),
            "with a class": int(labelled.sum()),
            **{name: int((group & labelled).sum()) for name, group in groups.items()},
            "labels": int(labels.sum()),
            "classes": dict(zip(task.classes, labels.sum(axis=0, dtype=int).tolist(), strict=True)),
        }
    return counts


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


def loader_rates(path: Path, batchsize: int, repeats: int) -> dict[str, float | None]:
    """Records/s of the loader and of its parts; without a rate for cold shards where the cache cannot be dropped."""
    rates: dict[str, float | None] = {}
    if hasattr(os, "posix_fadvise"):
        before = bytes_read()
        rates["loader_cold_records_per_s"] = best(repeats, lambda: first_epoch_rate(path, batchsize, cold=True))
        rates["loader_cold_mb_read_from_disk"] = None if before is None else (bytes_read() - before) / repeats / 1e6
    rates["loader_first_epoch_records_per_s"] = best(repeats, lambda: first_epoch_rate(path, batchsize))
    split = select(open_shards(path), TRAIN_FOLDS, "training")
    for name, rate in (
        ("loader", loader_rate),
        ("loader_to_device", loader_to_device_rate),
        ("host_to_device", host_to_device_rate),
        ("memcpy", memcpy_rate),
    ):
        rates[f"{name}_records_per_s"] = best(repeats, lambda rate=rate: rate(split, batchsize))
    return rates


def first_epoch_rate(path: Path, batchsize: int, cold: bool = False) -> float:
    """Records/s of the first shuffled epoch after opening, in which every shard is verified; `cold` reads from the disk."""
    if cold:
        drop_from_cache(path)
    return loader_rate(select(open_shards(path), TRAIN_FOLDS, "training"), batchsize)


def drop_from_cache(folder: Path) -> None:
    """Ask the system to forget the pages of a folder's files. What a process has mapped stays, and so does all of tmpfs."""
    for path in folder.glob("shard-*"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bytes_read() -> int | None:
    """What this process has read from storage so far, page faults included; None where the system does not tell."""
    try:
        fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(fields["read_bytes"])
    except (OSError, KeyError):
        return None


def loader_rate(split: Split, batchsize: int) -> float:
    """Records/s of one shuffled epoch."""
    return len(split) / timed(lambda: sum(1 for _ in train_batches(split, batchsize, 0, 0, drop_last=False)))


def loader_to_device_rate(split: Split, batchsize: int) -> float:
    """Records/s of one shuffled epoch that arrives on the device as training gets it: prefetched by a thread."""

    def epoch() -> None:
        for batch in prefetch(train_batches(split, batchsize, 0, 0, drop_last=False), Devices(1).put_batch):
            jax.block_until_ready(batch)

    return len(split) / timed(epoch)


def host_to_device_rate(split: Split, batchsize: int) -> float:
    """Records/s of putting batches that lie in memory on the device. A CPU may take them without copying."""
    batches, put = list(eval_batches(split, batchsize)), Devices(1).put_batch

    def epoch() -> None:
        for batch in batches:
            jax.block_until_ready(put(batch))

    return len(batches) * batchsize / timed(epoch)


def memcpy_rate(split: Split, batchsize: int) -> float:
    """Records/s of copying the same batches from memory to memory: the most that a loader could do."""
    batches = [batch.signal for batch in eval_batches(split, batchsize)]
    return len(batches) * batchsize / timed(lambda: sum(batch.copy().size for batch in batches))


def best(repeats: int, measure: Callable[[], float]) -> float:
    """The highest of several measurements: other processes only ever slow one down."""
    return max(measure() for _ in range(repeats))


def _print_rates(results: dict[str, Any]) -> None:
    count, worst = results["decoding_records"], results["decoding_max_abs_mv"]
    print(f"decoding: {count} records, at most {worst:.1e} mV from wfdb.rdsamp")
    for workers, rate in results["prepare_records_per_s"].items():
        print(f"prepare with {workers} workers: {rate:,.0f} records/s")
    print(f"wfdb.rdsamp: {results['rdsamp_records_per_s']:,.0f} records/s")
    print(f"opening to first batch: {results['open_to_first_batch_s'] * 1000:.0f} ms")
    for name, label in (
        ("loader_cold", "loader, first epoch, cold shards"),
        ("loader_first_epoch", "loader, first epoch, warm shards"),
        ("loader", "loader, later epochs"),
        ("loader_to_device", "loader, later epochs, to the device"),
        ("host_to_device", "from memory to the device"),
        ("memcpy", "from memory to memory (memcpy)"),
    ):
        if f"{name}_records_per_s" in results:
            print(f"{label}: {results[f'{name}_records_per_s']:,.0f} records/s")
    if results.get("loader_cold_mb_read_from_disk") is not None:
        print(f"the cold epoch read {results['loader_cold_mb_read_from_disk']:.1f} MB from the disk")


if __name__ == "__main__":
    main()
