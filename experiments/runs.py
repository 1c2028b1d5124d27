"""A run of the leaderboard: one training and its test, in a process of its own.

A process of its own, because only so can the memory of one training be told from that of another, and because a network
that exhausts it, or crashes, then does not end the night. The process trains and tests as `experiments.train` and
`experiments.test` do, to the same files, and at last writes the run's record: a run with a record is finished. It ends
with the process that started it, whatever ended that.
"""

import contextlib
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import experiments.test
import experiments.train
from experiments.cli import Parser, execute, run_name
from experiments.task import choose_records, suffix
from imlenet_jax.checkpoints.reading import read_meta
from imlenet_jax.data.open import open_dataset
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.leaderboard import Cost
from imlenet_jax.files import read_json, write_json
from imlenet_jax.training.logs import PEAK, RATE, read_times, run_files
from imlenet_jax.training.resume import FREE_FLAGS
from imlenet_jax.training.stopping import SIGNALS, Stopped

# Flags that change no result. Training goes on with other epochs, and does not ask for the folds of the test.
FREE = FREE_FLAGS - {"epochs", "config", "test_folds"}
UNREADABLE = (OSError, ValueError, TypeError, AttributeError, LookupError)  # a record that is absent or damaged


@dataclass(frozen=True)
class Run:
    """A training and its test.

    Attributes:
        folder: of its checkpoints, logs and record.
        flags: of `train`, as typed, such as `{"--lr": "0.01"}`; `test` is given those that it has, too.
    """

    folder: Path
    flags: Mapping[str, str]

    @classmethod
    def read(cls, arguments: Sequence[str]) -> "Run":
        """From what `command` ends with."""
        folder, *flags = arguments
        return cls(Path(folder), {flag: value for flag, _, value in (each.partition("=") for each in flags)})

    @cached_property
    def args(self) -> Any:
        """The flags of the training."""
        return experiments.train.make_parser().parse_args(self._flags(experiments.train.make_parser()))

    @property
    def name(self) -> str:
        """Of its checkpoints and logs."""
        return run_name(self.args.model, asked=suffix(self.args))

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.args.checkpoint_dir / self.name

    @property
    def predictions(self) -> Path:
        """The file of what it said of the test records."""
        return self.args.log_dir / f"{self.name}_test_predictions.csv"

    @property
    def unusual(self) -> list[str]:
        """The flags, as typed, that make another training than train's defaults do."""
        usual = experiments.train.make_parser().get_default
        args = {name: value for name, value in vars(self.args).items() if name not in FREE | {"model", "task", "seed"}}
        return [f"--{name} {self.flags[f'--{name}']}" for name, value in args.items() if value != usual(name)]

    def finished(self, fingerprint: str) -> Cost | None:
        """What it took, where it is trained and tested on the data of this fingerprint; None where it is not."""
        try:
            record = self._read()
            cost = Cost(**record.pop("cost"))
            return cost if record == self._identity(fingerprint) else None
        except UNREADABLE:
            return None

    def differing(self, fingerprint: str) -> list[str]:
        """What its record has otherwise, flags and data; nothing where there is no record."""
        try:
            record = self._read()
            before, now = record["flags"], _deciding(self.args)
            found = [f"--{name} was {before[name]}, is {now[name]}" for name in now if before[name] != now[name]]
            return found + ["--data_dir has other records"] * (record["data_fingerprint"] != fingerprint)
        except UNREADABLE:
            return []

    def train_and_test(self) -> None:
        """Do it, or the rest of it, and write the record.

        Raises:
            Stopped: a signal ended the training, and what was done is saved.
        """
        experiments.train.train_all(self.args)
        test = experiments.test.make_parser()
        with contextlib.redirect_stdout(io.StringIO()):  # its tables are in files, too
            experiments.test.run(test.parse_args(self._flags(test)))
        fingerprint = read_meta(self.checkpoints)[1].data_fingerprint
        write_json(self._record, {**self._identity(fingerprint), "cost": asdict(self._cost())})

    def command(self) -> list[str]:
        """That runs it in another process."""
        flags = [f"{flag}={value}" for flag, value in self.flags.items()]
        isolated = ["-P"] * sys.flags.safe_path  # it finds its modules as this process does
        return [sys.executable, *isolated, "-m", "experiments.runs", str(self.folder), *flags]

    @property
    def _record(self) -> Path:
        return self.folder / f"{self.name}.json"

    def _read(self) -> dict[str, Any]:
        record = read_json(self._record)
        usual = experiments.train.make_parser().parse_args([])
        return record | {"flags": _deciding(usual) | record["flags"]}  # train may have got a flag since

    def _flags(self, parser: Parser) -> list[str]:
        known = {option for action in parser._actions for option in action.option_strings}
        flags = {**self.flags, "--checkpoint_dir": self.folder / "checkpoints", "--log_dir": self.folder / "logs"}
        return [f"{flag}={value}" for flag, value in flags.items() if flag in known]

    def _identity(self, fingerprint: str | None) -> dict[str, Any]:
        """What a record says of the run: the flags that decide its result, the data, the file of predictions."""
        predictions = zlib.crc32(self.predictions.read_bytes())
        return {"flags": _deciding(self.args), "data_fingerprint": fingerprint, "predictions_crc32": predictions}

    def _cost(self) -> Cost:
        args, times = self.args, read_times(self.args.log_dir, self.name)
        if not times or any(name not in row for row in times for name in (RATE, PEAK)):
            path = run_files(args.log_dir, self.name)[2]
            raise UserError(f"{path} is gone or damaged, so what the run took is not known: move {self.folder} away")
        train = choose_records(args, open_dataset(args.data_dir, allow_missing=args.allow_missing), "training")
        records = len(train) - (len(train) % args.batchsize if args.drop_last else 0)
        rate = speed(times)
        if not rate:
            raise UserError(
                f"{self.folder} was stopped at the end of its only epoch, so its speed is not known: move it away"
            )
        epochs = read_meta(self.checkpoints, "latest")[0]
        return Cost(epochs, rate, epochs * records / rate, int(max(row[PEAK] for row in times)))


def speed(times: Sequence[Mapping[str, float]]) -> float:
    """Median records/s of the epochs but the first, which compiles; one that was stopped at its end had no step left."""
    later, first = ([row[RATE] for row in rows if row[RATE]] for rows in (times[1:], times[:1]))
    return statistics.median(later or first or [0.0])


def _deciding(args: Any) -> dict[str, Any]:
    """The flags that decide a run's result, in JSON types."""
    flags = {name: value for name, value in vars(args).items() if name not in FREE}
    return json.loads(json.dumps(flags, default=str))


class Processes:
    """Runs in processes of their own, one after the other. Within it SIGTERM and SIGINT stop the one under way.

    Attributes:
        stopped: whether a signal has come.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Processes":
        self._before = {number: signal.signal(number, self._pass_on) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self, command: list[str]) -> int:
        """The exit status of a command, whose standard input ends with this process; less than 0 by a signal."""
        # In a process group of its own: a terminal sends Ctrl-C to all of a group, and the run is to hear of it once.
        with subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0) as self._process:
            if self.stopped:
                self._process.terminate()
            status = self._process.wait()
        self._process = None
        return status

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        if self._process is not None:
            self._process.terminate()


def main() -> NoReturn:
    """The process of a run: `python -m experiments.runs FOLDER [--flag=value ...]`."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    run = Run.read(sys.argv[1:])

    def train_and_test(_: Any) -> None:
        try:
            run.train_and_test()
        except Stopped:
            sys.exit(os.EX_TEMPFAIL)

    execute(Parser(prog="python -m experiments.runs"), train_and_test, [])


def _end_with_parent() -> None:
    """What holds the other end of standard input writes nothing: it ends when that process does, by SIGKILL, too."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    main()
