"""The 33-layer residual network of Rajpurkar et al., 2017 (arXiv 1707.01836), with the reference's constants."""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from imlenet_jax.models.layers import BatchNorm, Conv, Dropout, Dtype, max_pool, single


@dataclass(frozen=True)
class RajpurkarConfig:
    """The reference's constants (`configs/rajpurkar_config.py`); every second block halves the positions."""

    leads: int = 12
    length: int = 1000
    classes: int = 5
    kernel_size: int = 16
    filters: int = 32
    blocks: int = 16
    widen_every: int = 4
    dropout: float = 0.2


class Rajpurkar(nn.Module):
    """Maps standardised ECGs `(batch, length, leads)` to logits `(batch, classes)`; `aux` is empty."""

    config: RajpurkarConfig
    axis_name: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        config = self.config
        norm = partial(BatchNorm, "keras", self.axis_name)
        he_normal = nn.initializers.he_normal()
        conv = partial(Conv, kernel_size=config.kernel_size, kernel_init=he_normal, dtype=self.dtype)

        x = conv(config.filters, name="stem")(x)
        x = nn.relu(norm(name="stem_bn")(x, train))
        for index in range(config.blocks):
            filters = config.filters * 2 ** (index // config.widen_every)
            stride = 2 if index % 2 else 1
            y = x
            if index > 0:  # block 0 follows the stem's own normalisation
                y = nn.relu(norm(name=f"block{index}_bn1")(y, train))
            y = conv(filters, stride=stride, name=f"block{index}_conv1")(y)
            y = nn.relu(norm(name=f"block{index}_bn2")(y, train))
            y = Dropout(config.dropout)(y, train)
            y = conv(filters, name=f"block{index}_conv2")(y)
            shortcut = max_pool(x, stride, "SAME") if stride > 1 else x
            if index > 0 and index % config.widen_every == 0:
                shortcut = jnp.pad(shortcut, ((0, 0), (0, 0), (0, shortcut.shape[-1])))
            x = shortcut + y
        x = nn.relu(norm(name="final_bn")(x, train))
        glorot = nn.initializers.glorot_uniform()
        return nn.Dense(config.classes, kernel_init=glorot, name="head")(single(x).reshape(x.shape[0], -1)), {}
