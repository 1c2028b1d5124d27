"""Where the metrics of each epoch go: the terminal, a JSON file, TensorBoard, and wandb if asked."""

import contextlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imlenet_jax.errors import UserError
from imlenet_jax.files import write_json
from imlenet_jax.runtime.memory import peak_bytes

RATE, PEAK = "records_per_second", "peak_memory_bytes"


class RunLog:
    """The log of one run: call it with each epoch's metrics. Use as a context manager.

    Writes `<log_dir>/<name>_train_logs.json` (`<name>_disease.json` of a sub-diagnosis), a list of values per metric (null where one does not exist), anew after
    every epoch, TensorBoard files under `<log_dir>/<name>_tensorboard`, and `<log_dir>/<name>_train_times.json`, the
    rates and the peak memory by then, which no two runs share. Both of the others are made from `history`, so they hold
    each epoch once.

    Args:
        log_dir: made as needed.
        name: of the run.
        settings: the flags of the run.
        use_wandb: log to wandb too.
        history: the metrics of the epochs before, where a run goes on.

    Raises:
        UserError: on opening, wandb cannot be used.
        OSError: on opening or in a call, `log_dir` cannot be written; the error names the file.
    """

    def __init__(
        self,
        log_dir: Path,
        name: str,
        settings: dict[str, Any],
        use_wandb: bool = False,
        history: Sequence[dict[str, float]] = (),
    ):
        self.path, self._folder, self._times_path = run_files(log_dir, name)
        self._history: dict[str, list[float | None]] = {}
        self._settings = settings
        self._times = read_times(log_dir, name)[: len(history)]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._wandb = _start_wandb(name, settings) if use_wandb else None  # may fail: nothing is open yet
        before = list(self._folder.glob("events.out.tfevents.*"))
        from tensorboardX.event_file_writer import EventsWriter  # here: training itself works without it

        # Not SummaryWriter: it writes in a thread, where a full disk is a traceback and then a wait without end.
        self._events = EventsWriter(str(self._folder / "events"), f".{time.time_ns()}")
        for row in history:
            self._add(row)
        if history:
            self._write()
        for path in before:  # the new file holds all that they did
            path.unlink()

    def __call__(self, row: dict[str, float]) -> None:
        """Log one epoch."""
        rate = row[RATE]
        row = {name: value for name, value in row.items() if name != RATE}
        self._add(row)
        self._times.append({"epoch": row["epoch"], RATE: rate, PEAK: peak_bytes()})
        self._write()
        print(
            f"epoch {row['epoch']}: loss {row['train_loss']:.4f}, val loss {row['val_loss']:.4f}, "
            f"val macro AUC {row['val_macro_auc']:.4f}, val accuracy {row['val_mean_accuracy']:.4f}, "
            f"{rate:.1f} records/s"
        )

    def _add(self, row: dict[str, float]) -> None:
        for name, value in row.items():
            self._history.setdefault(name, []).append(value if math.isfinite(value) else None)
        self._write_event(row)
        if self._wandb is not None:
            self._wandb.log(row)

    def _write(self) -> None:
        write_json(self._times_path, self._times)
        write_json(self.path, {"settings": self._settings, "history": self._history})

    def _write_event(self, row: dict[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items() if name != "epoch"]
        try:
            self._events.write_event(
                Event(wall_time=time.time(), step=int(row["epoch"]), summary=Summary(value=values))
            )
            self._events.flush()
        except OSError as error:
            error.filename = str(self._folder)
            raise

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # every call has flushed: only what failed then can fail again
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish()


def run_files(log_dir: Path, name: str) -> tuple[Path, Path, Path]:
    """What the log of a run consists of: metrics, TensorBoard's folder, rates."""
    metrics = f"{name}_disease.json" if name.endswith("_sub") else f"{name}_train_logs.json"  # the reference's names
    stems = (metrics, f"{name}_tensorboard", f"{name}_train_times.json")
    logs, events, times = (Path(log_dir) / stem for stem in stems)
    return logs, events, times


def is_complete(log_dir: Path, name: str, history: Sequence[dict[str, float]]) -> bool:
    """Whether the log of a run holds just these epochs."""
    try:
        logged = json.loads(run_files(log_dir, name)[0].read_bytes())["history"]["epoch"]
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return logged == [row["epoch"] for row in history]


def read_times(log_dir: Path, name: str) -> list[dict[str, float]]:
    """Per epoch of a run its rate and the peak memory of its process by then; empty where none are readable."""
    try:
        times = json.loads(run_files(log_dir, name)[2].read_bytes())
    except (OSError, ValueError):
        return []
    return times if isinstance(times, list) else []


def _start_wandb(model: str, settings: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError:
        raise UserError("--loggr True needs wandb: pip install 'imlenet_jax[wandb]'") from None
    try:
        return wandb.init(project="imlenet_jax", name=model, config=settings)
    except Exception as error:  # wandb raises many types where it is not logged in or cannot be reached
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--loggr True: wandb does not start ({reason}): run wandb login or leave it out") from None
