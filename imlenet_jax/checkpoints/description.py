"""What a checkpoint says of itself."""

import dataclasses
import importlib.metadata
import math
import re
from collections.abc import Iterable
from typing import Any, TypeGuard, get_type_hints

import numpy as np

from imlenet_jax.data.scaling import Scaler
from imlenet_jax.data.tasks import SUB, SUPERCLASS, Task
from imlenet_jax.files import conforms
from imlenet_jax.models import LARGEST, Config, make_config
from imlenet_jax.runtime.precision import PRECISIONS

FORMAT = 1
SCORE = "val_macro_auc"  # what the best checkpoint is best by
_RANGES = re.compile(r"\d{1,15}(-\d{1,15})?(,\d{1,15}(-\d{1,15})?)*", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Meta:
    """What a checkpoint says of itself, in JSON types.

    `task` names what the network is asked (`imlenet_jax.data.tasks`). `config` holds the fields of the network's
    configuration, `thresholds` one per class (of the best F1 on the validation records; None where there is none),
    `youden` the same by Youden's index, `training` the flags of the run and, for the sub-diagnosis, the network that it
    started from, `metrics` those of the epoch, `history` those of all epochs up to it, and `step` the steps made in the
    next one. `records` says which records trained it (`imlenet_jax.training.seen`), `checksums` is the CRC-32 of each
    item of arrays. `samples` are those of a record where the network takes it in windows of `config["length"]`. Old
    checkpoints have none of the last five.
    """

    model: str
    config: dict[str, Any]
    classes: list[str]
    leads: list[str]
    sampling_rate: int
    scaler: dict[str, float]
    thresholds: list[float | None] | None = None
    youden: list[float | None] | None = None
    epoch: int = 0
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    data_fingerprint: str | None = None
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    task: str = SUPERCLASS
    step: int = 0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    records: dict[str, str] | None = None
    samples: int | None = None
    checksums: dict[str, int] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=lambda: versions())
    format: int = FORMAT

    @property
    def network_config(self) -> Config:
        """The network's configuration."""
        return make_config(self.model, self.config)

    @property
    def record_samples(self) -> int:
        """Samples of a record, whether the network takes it whole or in windows."""
        return self.samples or self.network_config.length

    @property
    def asked(self) -> Task:
        """What the network is asked, without the statements that make labels: those are the data's."""
        return Task(self.task, tuple(self.classes), exclusive=self.task == SUB.name)

    @property
    def scaling(self) -> Scaler:
        """The scaler the network was trained with."""
        return Scaler(self.scaler["mean"], self.scaler["std"])

    @property
    def precision(self) -> str:
        """The precision that it was trained with: `default` where it says nothing, as old and converted ones do."""
        return self.training.get("precision", "default")


def versions() -> dict[str, str]:
    """Versions of the packages that decide a run's numbers."""
    names = ("imlenet_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def check_meta(meta: Meta) -> None:
    """Refuse entries that `Meta` does not have so: the file may be anyone's.

    Raises:
        ValueError: names the first of them.
    """
    wrong = [name for name, kind in get_type_hints(Meta).items() if not conforms(getattr(meta, name), kind)]
    scaler = meta.scaler
    if not wrong and not (
        set(scaler) == {"mean", "std"} and all(map(math.isfinite, scaler.values())) and scaler["std"] > 0
    ):
        wrong.append("scaler")
    if not wrong and meta.records and not are_records(meta.records):
        wrong.append("records")
    if not wrong and any(limits and len(limits) != len(meta.classes) for limits in (meta.thresholds, meta.youden)):
        wrong.append("thresholds")
    if not wrong and meta.samples is not None and not 0 < meta.config.get("length", 0) < meta.samples <= LARGEST:
        wrong.append("samples")
    if not wrong and meta.precision not in tuple(PRECISIONS):
        wrong.append("precision")
    if wrong:
        raise ValueError(f"its '{wrong[0]}' cannot be")


def are_records(value: Any) -> TypeGuard[dict[str, str]]:
    """Whether this says which records trained a network."""
    if not isinstance(value, dict) or set(value) != {"source", "ecg_ids"}:
        return False
    return all(isinstance(text, str) for text in value.values()) and _RANGES.fullmatch(value["ecg_ids"]) is not None


def to_ranges(numbers: Iterable[int]) -> str:
    """Integers as `1-5,7`, sorted."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def from_ranges(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last number `(n,)` int64 of each range."""
    pairs = [part.partition("-") for part in text.split(",")]
    first = np.array([int(a) for a, _, _ in pairs], np.int64)
    return first, np.array([int(b or a) for a, _, b in pairs], np.int64)
