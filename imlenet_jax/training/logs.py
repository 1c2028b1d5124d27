"""Where the metrics of each epoch go: the terminal, a JSON file, TensorBoard, and wandb if asked."""

import contextlib
import math
import time
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from imlenet_jax.errors import UserError
from imlenet_jax.files import write_json


class RunLog:
    """The log of one run: call it with each epoch's metrics. Use as a context manager.

    Writes `<log_dir>/<model>_train_logs.json`, a list of values per metric (null where one does not exist), anew after every epoch, and TensorBoard
    files under `<log_dir>/<model>_tensorboard`.

    Raises:
        UserError: on opening, wandb cannot be used.
        OSError: on opening or in a call, `log_dir` cannot be written; the error names the file.
    """

    def __init__(self, log_dir: Path, model: str, settings: dict[str, Any], use_wandb: bool = False):
        self.path = Path(log_dir) / f"{model}_train_logs.json"
        self._history: dict[str, list[float | None]] = {}
        self._settings = settings
        self._folder = Path(log_dir) / f"{model}_tensorboard"
        self._folder.mkdir(parents=True, exist_ok=True)
        # Not SummaryWriter: it writes in a thread, where a full disk is a traceback and then a wait without end.
        self._events = EventsWriter(str(self._folder / "events"))
        self._wandb = _start_wandb(model, settings) if use_wandb else None

    def __call__(self, row: dict[str, float]) -> None:
        """Log one epoch."""
        for name, value in row.items():
            self._history.setdefault(name, []).append(value if math.isfinite(value) else None)
        self._write_event(row)
        write_json(self.path, {"settings": self._settings, "history": self._history})
        if self._wandb is not None:
            self._wandb.log(row)
        print(
            f"epoch {row['epoch']}: loss {row['train_loss']:.4f}, val loss {row['val_loss']:.4f}, "
            f"val macro AUC {row['val_macro_auc']:.4f}, val accuracy {row['val_mean_accuracy']:.4f}, "
            f"{row['records_per_second']:.1f} records/s"
        )

    def _write_event(self, row: dict[str, float]) -> None:
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
