"""What a run is trained by."""

import math
from dataclasses import dataclass, fields

import jax.numpy as jnp
import numpy as np

from imlenet_jax.errors import UserError

DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


@dataclass(frozen=True)
class Recipe:
    """How a run is trained; the defaults are the reference's.

    `dtype` is that of activations (`create_model`). `steps_per_call` training steps are one compiled
    program. With `data_on_device` the training records lie on every device, and a step is given rows only. For the first
    `freeze_epochs` only the head is trained; after them the learning rate of all before it is `backbone_lr` times `lr`.
    `weight_decay` is the network's own unless given, and `schedule` how the learning rate goes (`courses`).
    """

    batchsize: int = 32
    epochs: int = 60
    seed: int = 42
    lr: float = 1e-3
    patience: int = 20
    drop_last: bool = True
    dtype: str = "float32"
    steps_per_call: int = 1
    data_on_device: bool = False
    freeze_epochs: int = 0
    backbone_lr: float = 1.0
    weight_decay: float | None = None
    schedule: str = "constant"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):  # JSON, in which checkpoints describe themselves, has Python's own only
                object.__setattr__(self, field.name, value.item())
        if self.dtype not in DTYPES:
            raise UserError(f"dtype is {self.dtype!r}: choose one of {', '.join(DTYPES)}")
        for name in ("batchsize", "epochs", "patience", "steps_per_call"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed is {self.seed}: it must be from 0 to {2**32 - 1}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UserError(f"lr is {self.lr}: it must be a number above 0")
