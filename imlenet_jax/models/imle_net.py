"""IMLE-Net: attention at beat, rhythm and channel level (Reddy et al., IEEE SMC 2021, doi 10.1109/SMC52423.2021.9658706)."""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from imlenet_jax.models.layers import LSTM, AttentionPooling, BatchNorm, Conv, Dtype


@dataclass(frozen=True)
class IMLENetConfig:
    """The reference's constants (`configs/imle_config.py`). `length` is in samples and a multiple of `window`."""

    leads: int = 12
    length: int = 1000
    classes: int = 5
    window: int = 50
    kernel_size: int = 8
    filters: tuple[int, ...] = (32, 64, 128)
    blocks_per_stage: int = 2
    lstm_units: int = 64
    attention_dim: int = 64


class ResidualBlock(nn.Module):
    """Conv, ReLU, BatchNorm, conv, add, ReLU, BatchNorm: the ReLU comes before the normalisation."""

    filters: int
    kernel_size: int
    downsample: bool
    axis_name: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        stride = 2 if self.downsample else 1
        conv = partial(Conv, self.filters, kernel_init=glorot, dtype=self.dtype)
        y = conv(self.kernel_size, stride, name="conv1")(x)
        y = BatchNorm("keras", self.axis_name, name="bn1")(nn.relu(y), train)
        y = conv(self.kernel_size, name="conv2")(y)
        if self.downsample:
            x = conv(1, 2, name="shortcut")(x)
        return BatchNorm("keras", self.axis_name, name="bn2")(nn.relu(x + y), train)


class IMLENet(nn.Module):
    """Maps standardised ECGs `(batch, length, leads)` to logits `(batch, classes)` and the attention of each level.

    `aux` holds `beat` `(batch, leads, windows, positions)`, `rhythm` `(batch, leads, windows)` and `channel`
    `(batch, leads)`, each summing to one over its last axis. Windows are fixed half-seconds, not heart beats.
    """

    config: IMLENetConfig
    axis_name: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        config = self.config
        batch, windows = x.shape[0], config.length // config.window

        x = jnp.swapaxes(x, 1, 2).reshape(batch * config.leads * windows, config.window, 1)
        stem = Conv(config.filters[0], config.kernel_size, kernel_init=glorot, dtype=self.dtype, name="stem")
        x = nn.relu(stem(x))
        for stage, filters in enumerate(config.filters):
            for block in range(config.blocks_per_stage):
                downsample = stage > 0 and block == 0
                name = f"stage{stage}_block{block}"
                x = ResidualBlock(filters, config.kernel_size, downsample, self.axis_name, self.dtype, name=name)(
                    x, train
                )
        x, beat = AttentionPooling(config.attention_dim, name="beat_attention")(x)

        x = x.reshape(batch * config.leads, windows, -1)
        x = LSTM(config.lstm_units, "keras", bidirectional=True, unroll=windows, name="lstm")(x)
        x, rhythm = AttentionPooling(config.attention_dim, name="rhythm_attention")(x)

        x = x.reshape(batch, config.leads, -1)
        x, channel = AttentionPooling(config.attention_dim, name="channel_attention")(x)
        logits = nn.Dense(config.classes, kernel_init=glorot, name="head")(x)
        return logits, {
            "beat": beat.reshape(batch, config.leads, windows, -1),
            "rhythm": rhythm.reshape(batch, config.leads, windows),
            "channel": channel,
        }


glorot = nn.initializers.glorot_uniform()
