"""Nets and layers from their configs, the plain values that a checkpoint holds; optimisers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ArgTypeError, ConfigError
from . import choice, layers
from .containers import Residual, Sequential
from .layer import Layer
from .models import VGG, ConvNet, ResNet9, ResNet18, SpeedrunNet, ThreeLayerConvNet
from .muon import Muon
from .net import Net
from .optim import SGD, Adam, AdamW, Optimiser, RMSprop


def build(config: Mapping[str, Any]) -> Net:
    """Return the net whose `config` this is, with its initial weights; raise ConfigError if there is none."""
    try:
        return choice.make("net", _NETS, *_split("net", config))
    except RecursionError:
        msg = "the config of a net has layers too deep inside each other"
        raise ConfigError(msg) from None


def build_layer(config: Mapping[str, Any]) -> Layer:
    """Return the layer whose `config` this is, without parameters yet; raise ConfigError if there is none."""
    return choice.make("layer", _LAYERS, *_split("layer", config))


def optimiser(name: str, net: Any, /, **settings: Any) -> Optimiser:
    """Return an optimiser by name: "sgd", "rmsprop", "adam", "adamw" or "muon".

    Raises ConfigError for an unknown name or setting.
    """
    return choice.make("optimiser", _OPTIMISERS, name, settings, net)


def _split(key: str, config: Any) -> tuple[Any, dict[str, Any]]:
    """Return the name and the settings in a config."""
    if not isinstance(config, Mapping):
        msg = f"the config of a {key} must be a dict, got {config!r}"
        raise ArgTypeError(msg)
    if key not in config:
        msg = f'the config of a {key} must have an entry "{key}", got {", ".join(config) or "none"}'
        raise ConfigError(msg)
    return config[key], {name: value for name, value in config.items() if name != key}


def _net(body: Any, **settings: Any) -> Net:
    return choice.call("net 'Net'", Net, settings, build_layer(body))


def _by_widths(net: Callable[..., Net]) -> Callable[..., Net]:
    """Return the maker of a net whose positional arguments are its widths."""

    def make(widths: Any, **settings: Any) -> Net:
        if not isinstance(widths, (list, tuple)):
            msg = f"widths must be a list, got {widths!r}"
            raise ConfigError(msg)
        return choice.call(f"net {net.__name__!r}", net, settings, *widths)

    return make


def _sequential(layers: Any) -> Layer:
    if not isinstance(layers, (list, tuple)):
        msg = f"layers must be a list of [name, config], got {layers!r}"
        raise ConfigError(msg)
    named = {}
    for entry in layers:
        if not isinstance(entry, (list, tuple)) or len(entry) != 2 or not isinstance(entry[0], str):
            msg = f"layers must be a list of [name, config], got the entry {entry!r}"
            raise ConfigError(msg)
        named[entry[0]] = build_layer(entry[1])
    return Sequential(**named)


def _residual(body: Any, shortcut: Any = None) -> Layer:
    return Residual(build_layer(body), None if shortcut is None else build_layer(shortcut))


_OPTIMISERS: dict[str, Callable[..., Optimiser]] = {
    "sgd": SGD,
    "rmsprop": RMSprop,
    "adam": Adam,
    "adamw": AdamW,
    "muon": Muon,
}
_NETS: dict[str, Callable[..., Net]] = {
    "ConvNet": _by_widths(ConvNet),
    "Net": _net,
    "ResNet18": _by_widths(ResNet18),
    "ResNet9": _by_widths(ResNet9),
    "SpeedrunNet": _by_widths(SpeedrunNet),
    "ThreeLayerConvNet": ThreeLayerConvNet,
    "VGG": _by_widths(VGG),
}
_LAYERS: dict[str, Callable[..., Layer]] = {
    "Affine": layers.Affine,
    "AveragePool": layers.AveragePool,
    "BatchNorm": layers.BatchNorm,
    "Conv": layers.Conv,
    "Dropout": layers.Dropout,
    "Flatten": layers.Flatten,
    "Gelu": layers.Gelu,
    "GlobalAveragePool": layers.GlobalAveragePool,
    "MaxPool": layers.MaxPool,
    "Relu": layers.Relu,
    "Residual": _residual,
    "Scale": layers.Scale,
    "Sequential": _sequential,
}
