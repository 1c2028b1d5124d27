"""What a run is trained by."""

from dataclasses import dataclass

import jax.numpy as jnp

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
