"""Nets from their configs, the plain values that a checkpoint holds; optimisers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from .. import checks
from ..errors import ConfigError, ShapeError
from . import choice
from .layer import build_layer, split_config
from .models import VGG, ConvNet, ResNet9, ResNet18, SpeedrunNet, ThreeLayerConvNet
from .muon import Muon
from .net import Net
from .optim import SGD, Adam, AdamW, Optimiser, RMSprop


def build(config: Mapping[str, Any]) -> Net:
    """Return the net whose `config` this is, with its initial weights; raise ConfigError if there is none.

    >>> net = nn.ConvNet(4, 8, classes=5)
    >>> again = nn.build(net.config)
    >>> all(np.array_equal(again.params[name], net.params[name]) for name in net.params)
    True
    """
    try:
        return choice.make("net", _NETS, *split_config("net", config))
    except RecursionError:
        msg = "the config of a net has layers too deep inside each other"
        raise ConfigError(msg) from None


def build_for(config: Mapping[str, Any], *, input_shape: Any, classes: int, seed: int, dtype: Any) -> Net:
    """Return a net like that of a config, with initial weights, for samples of a shape and so many classes.

    Of a net that is described by its layers the last affine layer or convolution is made anew, if that is needed.
    Raises ConfigError or ShapeError if such a net cannot be.
    """
    values = {**config, "input_shape": list(input_shape), "seed": seed, "dtype": dtype}
    if "body" not in config:
        return build({**values, "classes": classes})
    try:
        net = build(values)
        if net.output_shape == (classes,):
            return net
    except ShapeError:
        pass
    net = build({**values, "body": _with_head(config["body"], tuple(input_shape), classes)})
    if net.output_shape != (classes,):
        msg = f"the net gives a sample the shape {net.output_shape}, but {classes} classes need ({classes},)"
        raise ShapeError(msg)
    return net


def _with_head(config: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> dict[str, Any]:
    """Return the config of a layer that is given a shape, with its head made for so many classes."""
    match config["layer"]:
        case "Affine":
            return {**config, "in_features": prod(shape), "out_features": classes}
        case "Conv":
            return {**config, "in_channels": shape[0], "filters": classes}
        case "Sequential":
            layers = [list(entry) for entry in config["layers"]]
            heads = [number for number, (_, inner) in enumerate(layers) if inner["layer"] in _HEADS]
            if heads and not any(inner["layer"] == "Residual" for _, inner in layers[heads[-1] :]):
                for _, inner in layers[: heads[-1]]:
                    shape = build_layer(inner).output_shape(shape)
                layers[heads[-1]][1] = _with_head(layers[heads[-1]][1], shape, classes)
                return {**config, "layers": layers}
    msg = "the net has no affine layer or convolution at its end that could be made for other classes or pictures"
    raise ConfigError(msg)


def optimiser(name: str, net: Net, /, **settings: Any) -> Optimiser:
    """Return an optimiser by name: "sgd", "rmsprop", "adam", "adamw" or "muon".

    Raises ConfigError for an unknown name or setting.

    >>> nn.optimiser("sgd", nn.ConvNet(4), momentum=0.5)
    SGD(momentum=0.5, nesterov=False, weight_decay=0.0)
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


_HEADS = ("Affine", "Conv", "Sequential")  # what may be or hold the layer that gives the scores

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
