"""xresnet1d101, the best convolutional network of the PTB-XL benchmark (Strodthoff et al., 2021).

Source: `code/models/xresnet1d.py` of helme/ecg_ptbxl_benchmarking, with the constants of `fastai_xresnet1d101`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from imlenet_jax.models.layers import BatchNorm, Conv, Dropout, Dtype, max_pool, single

kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


@dataclass(frozen=True)
class XResNet1d101Config:
    """Features of the stem, inner width and number of bottlenecks per stage, the expansion of their output, the head.

    `dropout` is that before the last layer; before the hidden one it is half of that.
    """

    leads: int = 12
    length: int = 1000
    classes: int = 5
    stem: tuple[int, ...] = (32, 32, 64)
    filters: int = 64
    blocks: tuple[int, ...] = (3, 4, 23, 3)
    expansion: int = 4
    kernel_size: int = 5
    hidden: int = 128
    dropout: float = 0.5


def _conv(features: int, kernel_size: int, stride: int = 1, **options: Any) -> Conv:
    padding = (kernel_size - 1) // 2
    return Conv(features, kernel_size, stride, padding, use_bias=False, kernel_init=kaiming_normal, **options)


class Bottleneck(nn.Module):
    """Convolutions of 1, `kernel_size` (which carries the stride) and 1 taps; the shortcut takes means before its own."""

    filters: int
    expansion: int
    kernel_size: int
    stride: int
    axis_name: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        norm, conv = partial(BatchNorm, "torch", self.axis_name), partial(_conv, dtype=self.dtype)
        width = self.filters * self.expansion
        y = nn.relu(norm(name="bn1")(conv(self.filters, 1, name="conv1")(x), train))
        y = nn.relu(norm(name="bn2")(conv(self.filters, self.kernel_size, self.stride, name="conv2")(y), train))
        y = norm(name="bn3")(conv(width, 1, name="conv3")(y), train)
        if self.stride != 1:
            x = _mean_of_pairs(x)
        if x.shape[-1] != width:
            x = norm(name="shortcut_bn")(conv(width, 1, name="shortcut")(x), train)
        return nn.relu(x + y)


def _mean_of_pairs(x: jax.Array) -> jax.Array:
    """Means of two positions of `(n, positions, features)`; a last one without a neighbour stays as it is."""
    if x.shape[1] % 2:
        x = jnp.concatenate([x, x[:, -1:]], axis=1)
    return (x[:, ::2] + x[:, 1::2]) / 2


class XResNet1d101(nn.Module):
    """Maps standardised ECGs `(batch, length, leads)` to logits `(batch, classes)`; `aux` is empty."""

    config: XResNet1d101Config
    axis_name: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        config, norm = self.config, partial(BatchNorm, "torch", self.axis_name)
        for index, features in enumerate(config.stem):
            x = _conv(features, 5, 1 if index else 2, dtype=self.dtype, name=f"stem{index}")(x)
            x = nn.relu(norm(name=f"stem{index}_bn")(x, train))
        x = max_pool(x, 3, (1, 1), stride=2)
        for stage, blocks in enumerate(config.blocks):
            for index in range(blocks):
                x = Bottleneck(
                    config.filters,
                    config.expansion,
                    config.kernel_size,
                    2 if stage > 0 and index == 0 else 1,
                    self.axis_name,
                    self.dtype,
                    name=f"stage{stage}_block{index}",
                )(x, train)
        # Not jnp.max: its gradient divides by how many values equal the maximum, and XLA may compute x again, differently.
        highest = max_pool(x, x.shape[1])[:, 0]
        x = jnp.concatenate([single(highest), jnp.mean(single(x), axis=1)], axis=1)
        dense = partial(nn.Dense, kernel_init=kaiming_normal)
        x = Dropout(config.dropout / 2)(norm(name="hidden_bn")(x, train), train)
        x = nn.relu(dense(config.hidden, name="hidden")(x))
        x = Dropout(config.dropout)(norm(name="head_bn")(x, train), train)
        return dense(config.classes, name="head")(x), {}
