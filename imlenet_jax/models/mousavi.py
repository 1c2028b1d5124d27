"""The convolutional and recurrent network of Mousavi et al. (MINA's baseline in the IMLE-Net paper), as the reference builds it."""

from dataclasses import dataclass
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from imlenet_jax.models.layers import LSTM, Conv, Dtype, max_pool, single

Layout = Literal["reference", "by_lead"]
LAYOUTS: tuple[str, ...] = get_args(Layout)


@dataclass(frozen=True)
class MousaviConfig:
    """The reference's constants (`configs/mousavi_config.py`).

    `layout` is how a window is cut. `reference` reshapes `(leads, length)` straight to `(windows, window, leads)`, so
    that a "channel" is one of 12 consecutive samples of a lead: a defect, but the published figure has it.
    `by_lead` cuts windows of `window` samples with the leads as channels.
    """

    leads: int = 12
    length: int = 1000
    classes: int = 5
    window: int = 50
    kernel_size: int = 2
    pool_size: int = 2
    filters: tuple[int, ...] = (32, 64, 128)
    lstm_units: int = 128
    hidden: int = 128
    layout: Layout = "reference"


class Mousavi(nn.Module):
    """Maps standardised ECGs `(batch, length, leads)` to logits `(batch, classes)`; `aux` is empty."""

    config: MousaviConfig
    axis_name: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        config = self.config
        batch, windows = x.shape[0], config.length // config.window
        glorot = nn.initializers.glorot_uniform()

        if config.layout == "reference":
            x = jnp.swapaxes(x, 1, 2)
        x = x.reshape(batch * windows, config.window, config.leads)
        for index, filters in enumerate(config.filters):
            if index > 0:
                x = max_pool(x, config.pool_size)
            conv = Conv(filters, config.kernel_size, kernel_init=glorot, dtype=self.dtype, name=f"conv{index}")
            x = nn.relu(conv(x))
        x = single(x).reshape(batch, windows, -1)
        x = LSTM(config.lstm_units, "keras", bidirectional=True, unroll=windows, name="lstm")(x)
        hidden = nn.Dense(config.hidden, kernel_init=glorot, dtype=self.dtype, name="hidden")
        x = single(nn.relu(hidden(x.reshape(batch, -1))))
        return nn.Dense(config.classes, kernel_init=glorot, name="head")(x), {}
