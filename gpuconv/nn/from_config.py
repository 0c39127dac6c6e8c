"""Nets from their configs, the plain values that a checkpoint holds; optimisers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .. import checks
from ..errors import ConfigError
from . import choice
from .layer import build_layer, split_config
from .models import VGG, ConvNet, ResNet9, ResNet18, SpeedrunNet, ThreeLayerConvNet
from .muon import Muon
from .net import Net
from .optim import SGD, Adam, AdamW, Optimiser, RMSprop


def build(config: Mapping[str, Any]) -> Net:
    """Return the net whose `config` this is, with its initial weights; raise ConfigError if there is none."""
    try:
        return choice.make("net", _NETS, *split_config("net", config))
    except RecursionError:
        msg = "the config of a net has layers too deep inside each other"
        raise ConfigError(msg) from None


def optimiser(name: str, net: Any, /, **settings: Any) -> Optimiser:
    """Return an optimiser by name: "sgd", "rmsprop", "adam", "adamw" or "muon".

    Raises ConfigError for an unknown name or setting.
    """
    return choice.make("optimiser", _OPTIMISERS, name, settings, net)


def _net(body: Any, **settings: Any) -> Net:
    return choice.call("net 'Net'", Net, settings, build_layer(body))


def _by_widths(net: Callable[..., Net]) -> Callable[..., Net]:
    """Return the maker of a net whose positional arguments are its widths."""

    def make(widths: Any, **settings: Any) -> Net:
        if not isinstance(widths, (list, tuple)):
            msg = f"widths must be a list, got {checks.shown(widths)}"
            raise ConfigError(msg)
        return choice.call(f"net {net.__name__!r}", net, settings, *widths)

    return make


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
