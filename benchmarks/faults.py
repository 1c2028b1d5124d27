"""What a run survives: kills at random moments, long trainings, many readers at once.

python -m benchmarks.faults --kills 30 --out benchmarks/results/faults.json
"""

import argparse
import contextlib
import json
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from tensorboardX.proto.event_pb2 import Event

from benchmarks import bad_input
from benchmarks.parts.machine import machine
from experiments.cli import Parser, execute, positive_int
from imlenet_jax.checkpoints.reading import load_meta, saved
from imlenet_jax.data.synthetic import write_dataset
from imlenet_jax.errors import UserError
from imlenet_jax.files import write_json
from imlenet_jax.training.saving import UNFINISHED

MODEL = "rajpurkar"  # has BatchNorm, dropout and clipped gradients
CONFIG = {"kernel_size": 4, "filters": 4, "blocks": 3, "widen_every": 2}
RECORDS, BATCHSIZE, EPOCHS = 400, 8, 20
MOMENTS = ("any time", "in a step", "in a save")
PREDICT = """
import hashlib, sys, numpy, imlenet_jax
classifier = imlenet_jax.load(sys.argv[1])
signals = numpy.random.default_rng(0).normal(size=(32, classifier.samples, 12))
print(hashlib.sha256(classifier.predict_proba(signals).tobytes()).hexdigest())
"""


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.faults", description="What a run survives.")
    parser.add_argument("--kills", type=positive_int, default=30, help="SIGKILLs at random moments")
    parser.add_argument("--steps", type=positive_int, default=2000, help="of the training whose memory is watched")
    parser.add_argument("--readers", type=positive_int, default=8, help="inference processes at once")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Measure every section and print it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "data", RECORDS, seed=0, progress=False)
        results = {
            "machine": machine("benchmarks.faults"),
            "kills": kills(folder, args.kills, random.Random(args.seed)),
            "memory": memory(folder, args.steps),
            "readers": readers(folder / "whole/checkpoints" / MODEL, args.readers),
            "bad_input": bad_input.run(),
        }
    print_results(results)
    if args.out:
        write_json(args.out, results)
        print(f"written: {args.out}")


def print_results(results: dict[str, Any]) -> None:
    """One line per promise."""
    kills, memory, readers = results["kills"], results["memory"], results["readers"]
    moments = ", ".join(f"{number} {moment}" for moment, number in kills["moments"].items())
    print(
        f"kills survived: {kills['kills']} ({moments}) in {kills['runs']} run(s) of {kills['steps_of_a_run']:,} steps"
    )
    print(f"bit-identical: {'yes' if kills['bit_identical'] else 'no'} ({kills['compared']})")
    print(f"bytes lost: {kills['bytes_lost']} of {kills['bytes_compared']:,}")
    print(
        f"memory: {memory['slope_mb_per_1000_steps']:+.2f} MB per 1,000 steps over {memory['steps']:,} steps "
        f"({memory['first_mb']:.0f} MB at step {memory['from_step']}, {memory['last_mb']:.0f} MB at the end)"
    )
    print(f"readers at once: {readers['processes']}, different answers: {readers['different_answers']}")
    tried = results["bad_input"]
    print(f"bad inputs tried: {tried['tried']} ({', '.join(f'{tried[how]} {how}' for how in bad_input.ENDS)})")
    hostile = bad_input.hostile_endings(tried)
    print(f"hostile files refused: {hostile.count('refused')} of {len(hostile)}")


def kills(folder: Path, count: int, rng: random.Random) -> dict[str, Any]:
    """Kill trainings `count` times in all, let them end, and compare each with one that was never stopped."""
    _finish(folder, "whole")
    moments: Counter[str] = Counter()
    runs = ["killed-1"]
    while moments.total() < count:
        checkpoints = folder / runs[-1] / "checkpoints" / MODEL
        process = _train(folder, runs[-1], EPOCHS)
        if _wait_for(MOMENTS[moments.total() % len(MOMENTS)], process, checkpoints, rng):
            process.send_signal(signal.SIGKILL)
            process.wait()
            moments[_where(checkpoints)] += 1
        else:  # it went on to its end in between
            _finish(folder, runs[-1])
            runs.append(f"killed-{len(runs) + 1}")
    _finish(folder, runs[-1])
    compared = [compare(folder / "whole", folder / run, what) for run in runs for what in ("checkpoints", "logs")]
    different, sizes = (sum(numbers) for numbers in zip(*compared, strict=True))
    return {
        "kills": count,
        "moments": dict(moments),
        "runs": len(runs),
        "steps_of_a_run": _steps(folder / "whole"),
        "bit_identical": different == 0,
        "compared": "parameters, optimizer state, BatchNorm statistics, metric history, TensorBoard",
        "bytes_lost": different,
        "bytes_compared": sizes,
    }


def _finish(folder: Path, name: str) -> None:
    if _train(folder, name, EPOCHS).wait():
        raise UserError(f"the training {name} fails: {_last_line(folder / name)}")


def _train(folder: Path, name: str, epochs: int, *flags: str) -> subprocess.Popen:
    """Start a training with checkpoints and logs below `folder/name`; what it says goes to a file there."""
    here = folder / name
    here.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "experiments.train", "--data_dir", folder / "data", "--model", MODEL]
    command += ["--config", json.dumps(CONFIG), "--batchsize", BATCHSIZE, "--epochs", epochs, "--patience", epochs]
    command += ["--save_every_steps", 5, "--checkpoint_dir", here / "checkpoints", "--log_dir", here / "logs", *flags]
    with open(here / "output.txt", "w") as output:
        return subprocess.Popen(list(map(str, command)), stdout=output, stderr=output)


def _wait_for(moment: str, process: subprocess.Popen, folder: Path, rng: random.Random) -> bool:
    """Wait until a training that goes on has made progress and is at such a moment; False if it ended."""
    if moment == "any time":  # the start too
        time.sleep(rng.uniform(0, 15))
        return process.poll() is None
    before, end = _newest(folder), None
    while process.poll() is None:
        if end is None and _newest(folder) != before:
            end = time.monotonic() + rng.uniform(0, 2)
        if end is not None and time.monotonic() > end and bool(_half_saved(folder)) == (moment == "in a save"):
            return True
        time.sleep(0.001)
    return False


def _newest(folder: Path) -> list[str]:
    return [path.name for place in (folder, folder / UNFINISHED) for path in saved(place)]


def _half_saved(folder: Path) -> list[Path]:
    return [path for place in (folder, folder / UNFINISHED) for path in place.glob("*.orbax-checkpoint-tmp*")]


def _where(folder: Path) -> str:
    """What a kill has interrupted, by what it left."""
    if _half_saved(folder):
        return "in a save"
    return "in a deletion" if any(folder.rglob(".deleted/*")) else "in a step or between"


def _last_line(folder: Path) -> str:
    return ((folder / "output.txt").read_text().splitlines() or ["without a word"])[-1]


def compare(one: Path, other: Path, what: str) -> tuple[int, int]:
    """Bytes of the first run's results that the second has not, and all of them."""
    read = read_checkpoints if what == "checkpoints" else read_logs
    expected, found = read(one / what), read(other / what)
    different = sum(_different(found.get(name, b""), content) for name, content in expected.items())
    different += sum(len(content) for name, content in found.items() if name not in expected)
    return different, sum(map(len, expected.values()))


def _different(found: bytes, expected: bytes) -> int:
    if len(found) != len(expected):
        return max(len(found), len(expected))
    return int(np.count_nonzero(np.frombuffer(found, np.uint8) != np.frombuffer(expected, np.uint8)))


def read_checkpoints(folder: Path) -> dict[str, bytes]:
    """Every array of the kept epochs of a run, its metric history and thresholds, by name, as bytes."""
    found = {}
    for path in saved(folder / MODEL):
        meta = load_meta(path)
        told = {"history": meta.history, "thresholds": meta.thresholds, "youden": meta.youden, "metrics": meta.metrics}
        found |= {f"{path.name}/{key}": json.dumps(value).encode() for key, value in told.items()}
        for item in ("variables", "optimizer"):
            with contextlib.closing(ocp.Checkpointer(ocp.StandardCheckpointHandler())) as reader:
                arrays = reader.restore(path.absolute() / item)
            for place, array in jax.tree_util.tree_leaves_with_path(arrays):
                found[f"{path.name}/{item}{jax.tree_util.keystr(place)}"] = np.asarray(array).tobytes()
    return found


def read_logs(folder: Path) -> dict[str, bytes]:
    """The metric history of a run as its JSON and its TensorBoard files tell it, as bytes."""
    history = json.loads((folder / f"{MODEL}_train_logs.json").read_bytes())["history"]
    events = sorted(read_events(folder / f"{MODEL}_tensorboard"))
    return {"json": json.dumps(history).encode(), "tensorboard": json.dumps(events).encode()}


def read_events(folder: Path) -> Iterator[tuple[int, str, float]]:
    """Every (step, tag, value) in all event files of a folder."""
    for path in folder.iterdir():
        data, place = path.read_bytes(), 0
        while place < len(data):  # a record: its length, a checksum, itself, a checksum
            (length,) = struct.unpack_from("<Q", data, place)
            event = Event.FromString(data[place + 12 : place + 12 + length])
            yield from ((event.step, value.tag, value.simple_value) for value in event.summary.value)
            place += length + 16


def memory(folder: Path, steps: int) -> dict[str, Any]:
    """The resident memory of a training in the second half of its steps; it saves within epochs once in 100 steps."""
    epochs = 1 + steps // (_steps(folder / "whole") // _epochs(folder / "whole"))
    process, points = _train(folder, "long", epochs, "--save_every_steps", "100"), []
    output = folder / "long/output.txt"
    while process.poll() is None:
        done = re.findall(r"^epoch (\d+): ", output.read_text(), re.MULTILINE)
        with contextlib.suppress(OSError, StopIteration):  # it has just ended
            status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            kilobytes = int(next(line for line in status if line.startswith("VmRSS")).split()[1])
            points.append((int(done[-1]) if done else 0, kilobytes / 1e3))
        time.sleep(0.2)
    if process.returncode:
        raise UserError(f"the long training failed: {_last_line(folder / 'long')}")
    per_epoch = _steps(folder / "long") / epochs
    late = np.array([(epoch * per_epoch, size) for epoch, size in points if epoch >= epochs / 2])
    return {
        "steps": _steps(folder / "long"),
        "from_step": int(late[0, 0]),
        "samples": len(late),
        "first_mb": float(late[0, 1]),
        "last_mb": float(late[-1, 1]),
        "slope_mb_per_1000_steps": float(1000 * np.polyfit(late[:, 0], late[:, 1], 1)[0]),
    }


def _steps(run: Path) -> int:
    newest = saved(run / "checkpoints" / MODEL)[0]
    with contextlib.closing(ocp.Checkpointer(ocp.StandardCheckpointHandler())) as reader:
        return int(reader.restore(newest.absolute() / "optimizer")["step"])


def _epochs(run: Path) -> int:
    return load_meta(saved(run / "checkpoints" / MODEL)[0]).epoch


def readers(checkpoints: Path, count: int) -> dict[str, Any]:
    """Ask one checkpoint the same from many processes at once, and from one alone."""

    def start() -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", PREDICT, checkpoints], stdout=subprocess.PIPE, text=True)

    alone = start().communicate()[0]
    answers = [process.communicate()[0] for process in [start() for _ in range(count)]]
    if not alone:
        raise UserError(f"{checkpoints} gives no answer")
    return {"processes": count, "different_answers": sum(answer != alone for answer in answers)}


if __name__ == "__main__":
    main()
