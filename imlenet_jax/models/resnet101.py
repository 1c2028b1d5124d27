"""A one-dimensional ResNet-101 (He et al., 2016), as the reference's `models/resnet101.py` builds it."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from imlenet_jax.models.layers import (
    BatchNorm,
    Conv,
    Dropout,
    Dtype,
    max_pool,
    single,
    symmetric_uniform,
    torch_uniform,
)


@dataclass(frozen=True)
class ResNet101Config:
    """The reference's constants: bottlenecks per stage, their inner width, and the expansion of their output."""

    leads: int = 12
    length: int = 1000
    classes: int = 5
    filters: int = 64
    blocks: tuple[int, ...] = (3, 4, 23, 3)
    expansion: int = 4
    dropout: float = 0.2


def _conv_init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    # The reference squares the kernel size although the convolution is one-dimensional.
    kernel_size, _, features = shape
    return jax.random.normal(key, shape, dtype) * math.sqrt(2 / (kernel_size**2 * features))


def _conv(features: int, kernel_size: int, stride: int = 1, **options: Any) -> Conv:
    return Conv(
        features,
        kernel_size,
        stride,
        padding=kernel_size // 2,
        use_bias=False,
        kernel_init=_conv_init,
        exact=True,  # in a hundred in a row, rounding grows
        **options,
    )


class Bottleneck(nn.Module):
    """Convolutions of 7, 11 (which carries the stride) and 7 taps, around a shortcut."""

    filters: int
    expansion: int
    stride: int
    dropout: float
    axis_name: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        norm = partial(BatchNorm, "torch", self.axis_name)
        conv = partial(_conv, dtype=self.dtype)
        width = self.filters * self.expansion
        y = nn.relu(norm(name="bn1")(conv(self.filters, 7, name="conv1")(x), train))
        y = nn.relu(norm(name="bn2")(conv(self.filters, 11, self.stride, name="conv2")(y), train))
        y = Dropout(self.dropout)(y, train)
        y = norm(name="bn3")(conv(width, 7, name="conv3")(y), train)
        if self.stride != 1 or x.shape[-1] != width:
            x = norm(name="downsample_bn")(conv(width, 1, self.stride, name="downsample")(x), train)
        return nn.relu(x + y)


class ResNet101(nn.Module):
    """Maps standardised ECGs `(batch, length, leads)` to logits `(batch, classes)`; `aux` is empty."""

    config: ResNet101Config
    axis_name: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        config = self.config
        x = _conv(config.filters, 15, 2, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(BatchNorm("torch", self.axis_name, name="bn1")(x, train))
        x = max_pool(x, 3, (1, 1), stride=2)
        for stage, blocks in enumerate(config.blocks):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                x = Bottleneck(
                    config.filters * 2**stage,
                    config.expansion,
                    stride,
                    config.dropout,
                    self.axis_name,
                    self.dtype,
                    name=f"stage{stage}_block{index}",
                )(x, train)
        x = jnp.mean(single(x), axis=1)
        bias_init = symmetric_uniform(x.shape[-1] ** -0.5)
        return nn.Dense(config.classes, kernel_init=torch_uniform, bias_init=bias_init, name="head")(x), {}
