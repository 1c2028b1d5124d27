"""ECGNet (Murugesan et al., 2018, IEEE 8438739), as the reference's `models/ECGNet.py` builds it."""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from imlenet_jax.models.layers import (
    LSTM,
    BatchNorm,
    Conv,
    Dropout,
    Dtype,
    max_pool,
    mean_pool,
    single,
    symmetric_uniform,
    torch_uniform,
)


@dataclass(frozen=True)
class ECGNetConfig:
    """The reference's constants: every second block halves the positions, every fourth adds `filters` channels."""

    leads: int = 12
    length: int = 1000
    classes: int = 5
    stem_kernel_sizes: tuple[int, ...] = (15, 17, 19, 21)
    filters: int = 16
    kernel_size: int = 17
    blocks: int = 15
    dropout: float = 0.1
    pool_size: int = 8
    lstm_units: int = 40


class ResidualBlock(nn.Module):
    """A pre-activation block; where it halves the positions, both branches end in a pool."""

    filters: int
    kernel_size: int
    dropout: float
    halve: bool
    axis_name: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = partial(Conv, self.filters, use_bias=False, kernel_init=torch_uniform, dtype=self.dtype)
        y = x
        for index in (1, 2):
            y = nn.relu(BatchNorm("torch", self.axis_name, name=f"bn{index}")(y, train))
            y = Dropout(self.dropout)(y, train)
            y = conv(self.kernel_size, padding=self.kernel_size // 2, name=f"conv{index}")(y)
        if x.shape[-1] != self.filters:
            x = conv(1, name="downsample")(x)
        return max_pool(x, 2, summed=True) + max_pool(y, 2, summed=True) if self.halve else x + y


class ECGNet(nn.Module):
    """Maps standardised ECGs `(batch, length, leads)` to logits `(batch, classes)`; `aux` is empty."""

    config: ECGNetConfig
    axis_name: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        config = self.config
        conv = partial(Conv, config.filters, use_bias=False, kernel_init=torch_uniform, dtype=self.dtype)
        norm = partial(BatchNorm, "torch", self.axis_name)

        stems = [conv(k, padding="VALID", name=f"stem{i}")(x) for i, k in enumerate(config.stem_kernel_sizes)]
        y = jnp.concatenate(stems, axis=1)  # along time, as the reference does
        y = nn.relu(norm(name="bn1")(y, train))
        y = conv(config.kernel_size, 2, padding=2, name="conv1")(y)
        for index in range(config.blocks):
            filters = config.filters * (1 + (index + 1) // 4)
            halve = index % 2 == 1
            block = ResidualBlock(
                filters, config.kernel_size, config.dropout, halve, self.axis_name, self.dtype, name=f"block{index}"
            )
            y = block(y, train)
        y = nn.relu(norm(name="bn2")(y, train))
        y = mean_pool(single(y), config.pool_size, padding=2)
        if y.size == 0:
            raise ValueError("the pools leave no position")
        y = jnp.swapaxes(y, 1, 2).reshape(y.shape[0], -1)  # torch flattens (channel, time)

        last = LSTM(config.lstm_units, "torch", name="lstm")(x)[:, -1]
        y = jnp.concatenate([y, last], axis=-1)
        bias_init = symmetric_uniform(y.shape[-1] ** -0.5)
        return nn.Dense(config.classes, kernel_init=torch_uniform, bias_init=bias_init, name="head")(y), {}
