"""Where the metrics of each epoch go: the terminal, a JSON file, TensorBoard, and wandb if asked."""

from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from imlenet_jax.errors import UserError
from imlenet_jax.files import write_json


class RunLog:
    """The log of one run: call it with each epoch's metrics. Use as a context manager.

    Writes `<log_dir>/<model>_train_logs.json`, a list of values per metric, anew after every epoch, and TensorBoard
    files under `<log_dir>/<model>_tensorboard`.
    """

    def __init__(self, log_dir: Path, model: str, settings: dict[str, Any], use_wandb: bool = False):
        self.path = Path(log_dir) / f"{model}_train_logs.json"
        self._history: dict[str, list[float]] = {}
        self._settings = settings
        self._wandb = _start_wandb(model, settings) if use_wandb else None
        folder = Path(log_dir) / f"{model}_tensorboard"
        try:
            self._tensorboard = SummaryWriter(str(folder))
        except OSError as error:
            raise UserError(f"--log_dir {log_dir} cannot be written ({error.strerror}); choose another") from None

    def __call__(self, row: dict[str, float]) -> None:
        """Log one epoch."""
        for name, value in row.items():
            self._history.setdefault(name, []).append(value)
            if name != "epoch":
                self._tensorboard.add_scalar(name, value, int(row["epoch"]))
        self._tensorboard.flush()
        write_json(self.path, {"settings": self._settings, "history": self._history})
        if self._wandb is not None:
            self._wandb.log(row)
        print(
            f"epoch {row['epoch']}: loss {row['train_loss']:.4f}, val loss {row['val_loss']:.4f}, "
            f"val macro AUC {row['val_macro_auc']:.4f}, val accuracy {row['val_mean_accuracy']:.4f}, "
            f"{row['records_per_second']:.1f} records/s"
        )

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *error: object) -> None:
        self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def _start_wandb(model: str, settings: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError:
        raise UserError("--loggr True needs wandb: pip install 'imlenet_jax[wandb]'") from None
    return wandb.init(project="imlenet_jax", name=model, config=settings)
