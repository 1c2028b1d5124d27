"""Where each array of the original networks belongs in ours.

A network is a list of layers in the order the original stores them. For the keras networks that is the order of
`layer_names` in the h5 file (a strided block's shortcut comes before its second convolution); for the torch networks
the layers are found by `source`, the prefix of their state-dict names.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np


class Layer(NamedTuple):
    """One layer that holds weights: its kind, our module path, and its state-dict prefix (torch only)."""

    kind: str
    path: tuple[str, ...]
    source: str = ""


class Leaf(NamedTuple):
    """One array of a layer: its original name, and our collection, name and axis order."""

    source: str
    collection: str
    name: str
    axes: tuple[int, ...] | None = None

    def convert(self, array: np.ndarray) -> np.ndarray:
        """The array in our axis order."""
        return array if self.axes is None else np.transpose(array, self.axes)


_BATCH_NORM = (("params", "scale"), ("params", "bias"), ("batch_stats", "mean"), ("batch_stats", "var"))

KERAS_LEAVES: dict[str, tuple[Leaf, ...]] = {
    "conv": (Leaf("kernel", "params", "kernel"), Leaf("bias", "params", "bias")),
    "dense": (Leaf("kernel", "params", "kernel"), Leaf("bias", "params", "bias")),
    "batch_norm": tuple(
        Leaf(source, *target)
        for source, target in zip(("gamma", "beta", "moving_mean", "moving_variance"), _BATCH_NORM, strict=True)
    ),
    "attention": (
        Leaf("att_weight", "params", "weight"),
        Leaf("att_bias", "params", "bias"),
        Leaf("Vatt", "params", "score"),
    ),
    "bidirectional": tuple(
        Leaf(source, "params", f"{direction}_{name}")
        for direction in ("forward", "backward")
        for source, name in (("kernel", "kernel"), ("recurrent_kernel", "recurrent"), ("bias", "bias"))
    ),
}

TORCH_LEAVES: dict[str, tuple[Leaf, ...]] = {
    "conv": (Leaf("weight", "params", "kernel", (2, 1, 0)),),
    "conv_with_bias": (Leaf("weight", "params", "kernel", (2, 1, 0)), Leaf("bias", "params", "bias")),
    "dense": (Leaf("weight", "params", "kernel", (1, 0)), Leaf("bias", "params", "bias")),
    "layer_norm": (Leaf("weight", "params", "scale"), Leaf("bias", "params", "bias")),
    "state_space": (
        Leaf("D", "params", "D"),
        Leaf("kernel.kernel.C", "params", "C"),
        *(Leaf(f"kernel.kernel.{name}", "batch_stats", name) for name in ("log_dt", "w", "B", "P", "Q")),
        Leaf("output_linear.0.weight", "params", "kernel", (1, 0)),
        Leaf("output_linear.0.bias", "params", "bias"),
    ),
    "batch_norm": tuple(
        Leaf(source, *target)
        for source, target in zip(("weight", "bias", "running_mean", "running_var"), _BATCH_NORM, strict=True)
    ),
    "lstm": (
        Leaf("weight_ih_l0", "params", "forward_kernel", (1, 0)),
        Leaf("weight_hh_l0", "params", "forward_recurrent", (1, 0)),
        Leaf("bias_ih_l0", "params", "forward_bias"),
        Leaf("bias_hh_l0", "params", "forward_recurrent_bias"),
    ),
}


def _imle_net(config: Any) -> Iterator[Layer]:
    yield Layer("conv", ("stem",))
    for stage in range(len(config.filters)):
        for block in range(config.blocks_per_stage):
            name = f"stage{stage}_block{block}"
            yield Layer("conv", (name, "conv1"))
            yield Layer("batch_norm", (name, "bn1"))
            if stage > 0 and block == 0:
                yield Layer("conv", (name, "shortcut"))
            yield Layer("conv", (name, "conv2"))
            yield Layer("batch_norm", (name, "bn2"))
    yield Layer("attention", ("beat_attention",))
    yield Layer("bidirectional", ("lstm",))
    yield Layer("attention", ("rhythm_attention",))
    yield Layer("attention", ("channel_attention",))
    yield Layer("dense", ("head",))


def _mousavi(config: Any) -> Iterator[Layer]:
    for index in range(len(config.filters)):
        yield Layer("conv", (f"conv{index}",))
    yield Layer("bidirectional", ("lstm",))
    yield Layer("dense", ("hidden",))
    yield Layer("dense", ("head",))


def _rajpurkar(config: Any) -> Iterator[Layer]:
    yield Layer("conv", ("stem",))
    yield Layer("batch_norm", ("stem_bn",))
    for index in range(config.blocks):
        if index > 0:
            yield Layer("batch_norm", (f"block{index}_bn1",))
        yield Layer("conv", (f"block{index}_conv1",))
        yield Layer("batch_norm", (f"block{index}_bn2",))
        yield Layer("conv", (f"block{index}_conv2",))
    yield Layer("batch_norm", ("final_bn",))
    yield Layer("dense", ("head",))


def _ecgnet(config: Any) -> Iterator[Layer]:
    for index in range(len(config.stem_kernel_sizes)):
        yield Layer("conv", (f"stem{index}",), f"parallel_conv.{index}")
    yield Layer("batch_norm", ("bn1",), "bn1")
    yield Layer("conv", ("conv1",), "conv1")
    for index in range(config.blocks):
        for layer in (1, 2):
            yield Layer("batch_norm", (f"block{index}", f"bn{layer}"), f"block.{index}.bn{layer}")
            yield Layer("conv", (f"block{index}", f"conv{layer}"), f"block.{index}.conv{layer}")
        if (index + 1) % 4 == 0:
            yield Layer("conv", (f"block{index}", "downsample"), f"block.{index}.downsample.0")
    yield Layer("batch_norm", ("bn2",), "bn2")
    yield Layer("lstm", ("lstm",), "rnn")
    yield Layer("dense", ("head",), "fc")


def _resnet101(config: Any) -> Iterator[Layer]:
    yield Layer("conv", ("conv1",), "conv1")
    yield Layer("batch_norm", ("bn1",), "bn1")
    for stage, blocks in enumerate(config.blocks):
        for index in range(blocks):
            ours, theirs = f"stage{stage}_block{index}", f"layer{stage + 1}.{index}"
            for layer in (1, 2, 3):
                yield Layer("conv", (ours, f"conv{layer}"), f"{theirs}.conv{layer}")
                yield Layer("batch_norm", (ours, f"bn{layer}"), f"{theirs}.bn{layer}")
            if index == 0:
                yield Layer("conv", (ours, "downsample"), f"{theirs}.downsample.0")
                yield Layer("batch_norm", (ours, "downsample_bn"), f"{theirs}.downsample.1")
    yield Layer("dense", ("head",), "fc")


def _xresnet1d101(config: Any) -> Iterator[Layer]:
    def convolution(ours: tuple[str, ...], norm: tuple[str, ...], theirs: str) -> Iterator[Layer]:
        yield Layer("conv", ours, f"{theirs}.0")
        yield Layer("batch_norm", norm, f"{theirs}.1")

    for index in range(len(config.stem)):
        yield from convolution((f"stem{index}",), (f"stem{index}_bn",), str(index))
    first = len(config.stem) + 1  # a pool without weights comes between
    features = config.stem[-1]
    for stage, blocks in enumerate(config.blocks):
        for index in range(blocks):
            ours, theirs = f"stage{stage}_block{index}", f"{first + stage}.{index}"
            for layer in range(3):
                yield from convolution((ours, f"conv{layer + 1}"), (ours, f"bn{layer + 1}"), f"{theirs}.convs.{layer}")
            if features != (features := config.filters * config.expansion):
                path = "idpath.1" if stage else "idpath.0"
                yield from convolution((ours, "shortcut"), (ours, "shortcut_bn"), f"{theirs}.{path}")
    head = first + len(config.blocks)
    for index, name in ((2, "hidden"), (6, "head")):
        yield Layer("batch_norm", (f"{name}_bn",), f"{head}.{index}")
        yield Layer("dense", (name,), f"{head}.{index + 2}")


def _s4(config: Any) -> Iterator[Layer]:
    yield Layer("conv_with_bias", ("encoder",), "encoder")
    for index in range(config.blocks):
        yield Layer("state_space", (f"block{index}",), f"s4_layers.{index}")
        yield Layer("layer_norm", (f"norm{index}",), f"norms.{index}")
    yield Layer("dense", ("head",), "decoder")


REPEATED = re.compile(r"\.num_batches_tracked$|\.convpath\.")
"""Arrays of a state dict that need no place: counters, and a second name that xresnet1d101 has for its convolutions."""

NODES = (".kernel.kernel.omega", ".kernel.kernel.z")
"""Arrays of s4 that follow from the length it was built for; their first axis is length // 2 + 1."""

LAYOUTS: dict[str, Callable[[Any], Iterator[Layer]]] = {
    "imle_net": _imle_net,
    "mousavi": _mousavi,
    "rajpurkar": _rajpurkar,
    "ecgnet": _ecgnet,
    "resnet101": _resnet101,
    "xresnet1d101": _xresnet1d101,
    "s4": _s4,
}
