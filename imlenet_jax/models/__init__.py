"""The networks. Each is a Flax Linen module that returns `(logits, aux)`, and one frozen dataclass of constants."""

import dataclasses
import json
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from imlenet_jax.errors import UserError
from imlenet_jax.models.ecgnet import ECGNet, ECGNetConfig
from imlenet_jax.models.imle_net import IMLENet, IMLENetConfig
from imlenet_jax.models.layers import Dtype, Framework
from imlenet_jax.models.mousavi import LAYOUTS, Mousavi, MousaviConfig
from imlenet_jax.models.rajpurkar import Rajpurkar, RajpurkarConfig
from imlenet_jax.models.resnet101 import ResNet101, ResNet101Config
from imlenet_jax.models.s4 import S4, S4Config
from imlenet_jax.models.xresnet1d101 import XResNet1d101, XResNet1d101Config

Config: TypeAlias = (
    IMLENetConfig | MousaviConfig | RajpurkarConfig | ECGNetConfig | ResNet101Config | XResNet1d101Config | S4Config
)


LARGEST = 10**6  # value of an option: far beyond what any machine holds, and within what JAX can compute shapes of


class Entry(NamedTuple):
    """A network's module, its configuration class, and the framework, weight decay and betas of Adam it was published with."""

    module: type[nn.Module]
    config: type[Config]
    framework: Framework
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)


MODELS: dict[str, Entry] = {
    "imle_net": Entry(IMLENet, IMLENetConfig, "keras"),
    "mousavi": Entry(Mousavi, MousaviConfig, "keras"),
    "rajpurkar": Entry(Rajpurkar, RajpurkarConfig, "keras"),
    "ecgnet": Entry(ECGNet, ECGNetConfig, "torch"),
    "resnet101": Entry(ResNet101, ResNet101Config, "torch"),
    "xresnet1d101": Entry(XResNet1d101, XResNet1d101Config, "torch", weight_decay=1e-2, betas=(0.9, 0.99)),
    "s4": Entry(S4, S4Config, "torch", weight_decay=1e-3),
}


def entry(name: str) -> Entry:
    """The entry of a network by name; `UserError` lists the names where there is none."""
    if name not in MODELS:
        raise UserError(f"--model '{name}' is unknown: choose one of {', '.join(MODELS)}")
    return MODELS[name]


def make_config(name: str, values: Mapping[str, Any] | None = None) -> Config:
    """A network's configuration, with `values` (JSON types) in place of the reference's constants.

    Raises `UserError` for an unknown option, a value it cannot take, or a length the network cannot be built for.
    """
    config_class = entry(name).config
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    changed: dict[str, Any] = {}
    for key, value in (values or {}).items():
        if key not in fields:
            raise UserError(f"{name} has no option '{key}': its options are {', '.join(fields)}")
        value = tuple(value) if isinstance(value, list) else value
        _check_option(f"{name}'s option '{key}'", value, fields[key].default)
        changed[key] = value
    config = config_class(**changed)
    window = getattr(config, "window", None)
    if window and config.length % window:
        raise UserError(
            f"{name} cuts a record in windows of {window} samples, and {config.length} is not a multiple: choose another "
            "length (--crop) or option (--config)"
        )
    _check_length(name, config)
    return config


def _check_option(option: str, value: Any, default: Any) -> None:
    if type(value) is not type(default):
        raise UserError(f"{option} takes a value like {json.dumps(default)}, not {json.dumps(value)}")
    if isinstance(value, str):
        if value not in LAYOUTS:
            raise UserError(f"{option} is one of {', '.join(LAYOUTS)}, not {value}")
    elif isinstance(value, float):
        if not 0 <= value < 1:
            raise UserError(f"{option} is a rate from 0 to below 1, not {value}")
    else:
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or any(type(number) is not int or not 1 <= number <= LARGEST for number in numbers):
            raise UserError(f"{option} takes whole numbers from 1 to {LARGEST}, not {json.dumps(value)}")


def _check_length(name: str, config: Config) -> None:
    too_short = f"{config.length} samples are too short for {name} with these options"
    advice = "take more (a longer --crop, or none), or other options (--config)"
    try:
        sizes = [array.size for array in jax.tree.leaves(abstract_variables(create_model(name, config)))]
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{too_short} ({error}): {advice}") from None
    if 0 in sizes:
        raise UserError(f"{too_short}: {advice}")


def create_model(
    name: str, config: Config | None = None, axis_name: str | None = None, dtype: Dtype = None
) -> nn.Module:
    """A network by name, one of `MODELS`.

    `config` defaults to the reference's constants; `axis_name` names the device axis under `jax.pmap`; `dtype` is what
    activations and their gradients are stored in, and multiplied in by convolutions (`jnp.bfloat16`; parameters, sums,
    statistics, recurrences, softmax and loss stay in float32).
    """
    found = entry(name)
    return found.module(config or found.config(), axis_name=axis_name, dtype=dtype)


def init_variables(network: nn.Module, key: jax.Array) -> dict[str, Any]:
    """A network's variables, drawn anew: `params`, and `batch_stats`, which is empty without BatchNorm."""
    config: Config = network.config  # type: ignore[attr-defined]
    return {"batch_stats": {}, **network.init(key, jnp.zeros((1, config.length, config.leads)))}


HEAD = "head"
"""What every network calls its last layer, a column of which belongs to each class."""


def with_new_head(
    network: nn.Module, variables: dict[str, Any], key: jax.Array, kept: Mapping[int, int] | None = None
) -> dict[str, Any]:
    """The variables of a network that differs from `network` in its classes alone, with a last layer drawn anew.

    `kept` says which columns of the new layer are columns of the old one.
    """
    drawn = jax.jit(partial(init_variables, network))(key)["params"][HEAD]
    new, old = list(kept or {}), list((kept or {}).values())

    def column(array: jax.Array, before: jax.Array) -> jax.Array:
        return array.at[..., jnp.array(new)].set(before[..., jnp.array(old)]) if new else array

    head = jax.tree.map(column, drawn, variables["params"][HEAD])
    return {**variables, "params": {**variables["params"], HEAD: head}}


def abstract_variables(network: nn.Module) -> dict[str, Any]:
    """The shapes and types of a network's variables, without any array."""
    return _abstract_variables(network, jax.config.jax_enable_x64)  # type: ignore[attr-defined]


@lru_cache(maxsize=16)  # to trace resnet101 takes half a second, and loading a checkpoint asks three times
def _abstract_variables(network: nn.Module, x64: bool) -> dict[str, Any]:
    return jax.eval_shape(lambda: init_variables(network, jax.random.key(0)))


__all__ = [
    "HEAD",
    "MODELS",
    "Config",
    "Entry",
    "abstract_variables",
    "create_model",
    "entry",
    "init_variables",
    "make_config",
    "with_new_head",
]
