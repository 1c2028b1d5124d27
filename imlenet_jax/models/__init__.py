"""The five networks. Each is a Flax Linen module that returns `(logits, aux)`, and one frozen dataclass of constants."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn

from imlenet_jax.errors import UserError
from imlenet_jax.models.ecgnet import ECGNet, ECGNetConfig
from imlenet_jax.models.imle_net import IMLENet, IMLENetConfig
from imlenet_jax.models.layers import Framework
from imlenet_jax.models.mousavi import Mousavi, MousaviConfig
from imlenet_jax.models.rajpurkar import Rajpurkar, RajpurkarConfig
from imlenet_jax.models.resnet101 import ResNet101, ResNet101Config

Config: TypeAlias = IMLENetConfig | MousaviConfig | RajpurkarConfig | ECGNetConfig | ResNet101Config


class Entry(NamedTuple):
    """A network's module, its configuration class, and the framework it was published in."""

    module: type[nn.Module]
    config: type[Config]
    framework: Framework


MODELS: dict[str, Entry] = {
    "imle_net": Entry(IMLENet, IMLENetConfig, "keras"),
    "mousavi": Entry(Mousavi, MousaviConfig, "keras"),
    "rajpurkar": Entry(Rajpurkar, RajpurkarConfig, "keras"),
    "ecgnet": Entry(ECGNet, ECGNetConfig, "torch"),
    "resnet101": Entry(ResNet101, ResNet101Config, "torch"),
}


def entry(name: str) -> Entry:
    """The entry of a network by name; `UserError` lists the five names where there is none."""
    if name not in MODELS:
        raise UserError(f"--model '{name}' is unknown: choose one of {', '.join(MODELS)}")
    return MODELS[name]


def make_config(name: str, values: Mapping[str, Any] | None = None) -> Config:
    """A network's configuration, with `values` (JSON types) in place of the reference's constants.

    Raises `UserError` for an unknown field, a value of another type, or a length the network cannot be built for.
    """
    config_class = entry(name).config
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    changed = {}
    for key, value in (values or {}).items():
        if key not in fields:
            raise UserError(f"{name} has no option '{key}': its options are {', '.join(fields)}")
        default = fields[key].default
        value = tuple(value) if isinstance(value, list) else value
        if type(value) is not type(default):
            raise UserError(f"{name}'s option '{key}' takes a value like {default!r}, not {value!r}")
        changed[key] = value
    config = config_class(**changed)
    window = getattr(config, "window", None)
    if window and config.length % window:
        raise UserError(f"{name} cuts a record in windows of {window} samples, and {config.length} is not a multiple")
    return config


def create_model(name: str, config: Config | None = None, axis_name: str | None = None) -> nn.Module:
    """A network by name: one of `imle_net`, `mousavi`, `rajpurkar`, `ecgnet`, `resnet101`.

    `config` defaults to the reference's constants; `axis_name` names the device axis under `jax.pmap`.
    """
    module, config_class, _ = entry(name)
    return module(config or config_class(), axis_name=axis_name)


__all__ = ["MODELS", "Config", "Entry", "create_model", "entry", "make_config"]
