"""The Python module that builds a net from torch.nn: text for people, with the net spelled out layer by layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .. import nn
from ..errors import UnsupportedError
from ..nn import geometry
from . import walk
from .torch_names import TAKEN

_WIDTH = 120
_Writer = Callable[[set[str], str, Any, tuple[int, ...], int], str]

_HEAD = '''\
"""A net that gpuconv has trained, as PyTorch modules; its weights lie beside this file.

load() returns the net ready for use.   input: {input} {dtype}, normalised{normalize}   ->   scores: {output}
Batch norm: training here updates running_var by the unbiased variance, gpuconv by the biased one.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

WEIGHTS = Path(__file__).with_name({weights})
'''

_NORMALIZE = '''
def normalize(pictures):
    """Return pictures as they are stored, (N, C, H, W) from 0 to 255, as the net takes them."""
    mean, std = (torch.tensor(values, device=pictures.device).view(-1, 1, 1) for values in (MEAN, STD))
    return ((pictures / 255 - mean) / std).to({dtype})
'''

_BUILD = '''
def build():
    """Return the net with PyTorch's own first weights, in training mode."""
    return {body}
'''

_LOAD = '''
def load(path=WEIGHTS):
    """Return the net with the weights of a safetensors file, in evaluation mode."""
    net = build()
    net.load_state_dict(load_file(path))
    return net.eval()
'''

_HELPERS = {
    "Residual": '''
class Residual(nn.Module):
    """body(x) + shortcut(x), or body(x) + x."""

    def __init__(self, body, shortcut=None):
        super().__init__()
        self.body = body
        if shortcut is not None:
            self.shortcut = shortcut

    def forward(self, x):
        return self.body(x) + (self.shortcut(x) if hasattr(self, "shortcut") else x)
''',
    "Scale": '''
class Scale(nn.Module):
    """factor x."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x
''',
    "GlobalAveragePool": '''
class GlobalAveragePool(nn.Module):
    """Mean of every channel: (N, C, H, W) -> (N, C)."""

    def forward(self, x):
        return x.mean((2, 3))
''',
    "PaddedConv2d": '''
class PaddedConv2d(nn.Conv2d):
    """Convolution with zeros of (left, right, top, bottom) around its images."""

    def __init__(self, *sizes, zeros, **settings):
        super().__init__(*sizes, **settings)
        self.zeros = zeros

    def forward(self, x):
        return super().forward(nn.functional.pad(x, self.zeros))
''',
    "CutConvTranspose2d": '''
class CutConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution with (left, right, top, bottom) cut off its results."""

    def __init__(self, *sizes, cut, **settings):
        super().__init__(*sizes, **settings)
        self.cut = cut

    def forward(self, x):
        return nn.functional.pad(super().forward(x), [-n for n in self.cut])
''',
    "Rows": '''
class Rows(nn.Linear):
    """Fully connected layer on flattened samples."""

    def forward(self, x):
        return super().forward(x.flatten(1))
''',
    "frozen": '''
def frozen(module, *names):
    """Return a module with some parameters that do not learn."""
    for name in names:
        getattr(module, name).requires_grad_(False)
    return module
''',
}


def module_source(net: nn.Net, facts: walk.Facts, weights_name: str) -> str:
    """Return the text of the module."""
    used: set[str] = set()
    body = _expression(used, "", net.body, net.input_shape, 1)
    dtype = f"torch.{net.dtype.name}"
    if net.dtype != "float32":
        body = f"{body}.to({dtype})"
    with_mean = facts.mean is not None and len(net.input_shape) == 3
    head = _HEAD.format(
        normalize=" by normalize()" if with_mean else "",
        input=_samples(net.input_shape),
        dtype=net.dtype.name,
        output=_samples(net.output_shape),
        weights=_quoted(weights_name),
    )
    constants = {"CLASSES": facts.classes, "MEAN": facts.mean, "STD": facts.std}
    head += "".join(
        f"{name} = {_call('', [_quoted(v) if isinstance(v, str) else repr(v) for v in value], 0, comma=True)}\n"
        for name, value in constants.items()
        if value is not None
    )
    head += "" if facts.scaling is None else f"SCALING = {_quoted(facts.scaling)}\n"
    if "OrderedDict" not in body:
        head = head.replace("from collections import OrderedDict\n", "")
    build = _BUILD.format(body=body)
    helpers = [text for name, text in _HELPERS.items() if name in used]
    parts = [head, *helpers, build, _LOAD]
    if with_mean:
        parts.append(_NORMALIZE.format(dtype=dtype))
    return "\n".join(parts)


def _samples(shape: tuple[int, ...]) -> str:
    return f"(N, {', '.join(map(str, shape))})"


def _quoted(text: str) -> str:
    """Return text as a Python string in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _call(function: str, arguments: list[str], depth: int, *, comma: bool = False) -> str:
    """Return a call in one line if it fits, else with a line for each argument; comma: one in a tuple of one."""
    last = "," if comma and len(arguments) == 1 else ""
    line = f"{function}({', '.join(arguments)}{last})"
    if "\n" not in line and 4 * depth + len(line) <= _WIDTH - 20:
        return line
    inner, outer = "    " * (depth + 1), "    " * depth
    return f"{function}(\n" + "".join(f"{inner}{argument},\n" for argument in arguments) + f"{outer})"


def _expression(used: set[str], name: str, layer: nn.Layer, shape: tuple[int, ...], depth: int) -> str:
    """Return the expression that makes a layer, and remember the helpers that it needs."""
    writer = walk.entry(_WRITERS, name, layer, "a module of PyTorch")
    text = writer(used, name, layer, shape, depth)
    if frozen := walk.frozen(layer):
        used.add("frozen")
        names = {"w": "weight", "gamma": "weight", "b": "bias", "beta": "bias"}
        return f"frozen({text}, {', '.join(_quoted(names[key]) for key in frozen)})"
    return text


def _sequential(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    pad = "    " * (depth + 2)
    lines = []
    for key, child in layer.children().items():
        if not key or key in TAKEN or key.startswith("_"):
            msg = f"layer {walk.dotted(name, key)!r} cannot be called so in torch.nn.Sequential: rename it"
            raise UnsupportedError(msg)
        lines.append(f"{pad}({_quoted(key)}, {_expression(used, walk.dotted(name, key), child, shape, depth + 2)}),\n")
        shape = child.output_shape(shape)
    outer, inner = "    " * depth, "    " * (depth + 1)
    return f"nn.Sequential(\n{inner}OrderedDict([\n{''.join(lines)}{inner}])\n{outer})"


def _residual(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    used.add("Residual")
    branches = [
        f"{key}={_expression(used, walk.dotted(name, key), child, shape, depth + 1)}"
        for key, child in layer.children().items()
    ]
    return _call("Residual", branches, depth)


def _settings(**values: tuple[Any, Any]) -> str:
    """Return the keyword arguments that differ from PyTorch's default: name = (value, default)."""
    return "".join(f", {name}={value!r}" for name, (value, default) in values.items() if value != default)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _framed(layer: Any) -> tuple[int, int, int, int] | None:
    """Return a pool's padding as (left, right, top, bottom), or None where PyTorch takes it: on both sides, half a window at most."""
    (top, bottom), (left, right) = geometry.sides(layer.settings)
    R, S = geometry.pair(layer.settings["window"])
    taken = (top, left) == (bottom, right) and 2 * top <= R and 2 * left <= S
    return None if taken else (left, right, top, bottom)


def _padding(layer: Any) -> Any:
    """Return the padding of a layer that has as much on both sides, as torch.nn takes it."""
    (top, _), (left, _) = geometry.sides(layer.settings)
    return _plain(geometry.plain(top, left))


def _conv(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    s, around = {key: _plain(value) for key, value in layer.settings.items()}, geometry.around(layer.settings)
    module = "nn.Conv2d" if around is None else "PaddedConv2d"
    used.add(module)
    settings = _settings(
        zeros=(around, None),
        stride=(s["stride"], 1),
        padding=(0 if around else _padding(layer), 0),
        dilation=(s["dilation"], 1),
        groups=(s["groups"], 1),
        bias=(s["bias"], True),
    )
    return f"{module}({s['in_channels']}, {s['filters']}, {s['window']!r}{settings})"


def _conv_transpose(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    s, around = {key: _plain(value) for key, value in layer.settings.items()}, geometry.around(layer.settings)
    module = "nn.ConvTranspose2d" if around is None else "CutConvTranspose2d"
    used.add(module)
    settings = _settings(
        cut=(around, None),
        stride=(s["stride"], 1),
        padding=(0 if around else _padding(layer), 0),
        output_padding=(s["output_pad"], 0),
        groups=(s["groups"], 1),
        bias=(s["bias"], True),
        dilation=(s["dilation"], 1),
    )
    return f"{module}({s['in_channels']}, {s['filters']}, {s['window']!r}{settings})"


def _affine(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    s = layer.settings
    cls = "nn.Linear"
    if len(shape) > 1:
        used.add("Rows")
        cls = "Rows"
    return f"{cls}({s['in_features']}, {s['out_features']}{_settings(bias=(s['bias'], True))})"


def _batch_norm(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    s = layer.settings
    # 15 digits: 1 - 0.9 is to be read as 0.1, and decides nothing that is compared to the bit.
    momentum = float(f"{1 - s['momentum']:.15g}")
    settings = _settings(eps=(s["eps"], 1e-5), momentum=(momentum, 0.1))
    return f"nn.BatchNorm{'1d' if len(shape) == 1 else '2d'}({s['channels']}{settings})"


def _group_norm(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    s = layer.settings
    return f"nn.GroupNorm({s['groups']}, {s['channels']}{_settings(eps=(s['eps'], 1e-5))})"


def _layer_norm(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    s = layer.settings
    return f"nn.LayerNorm({s['features']}{_settings(eps=(s['eps'], 1e-5))})"


def _pool(layer: Any, module: str, padding: Any, ceil: bool, **more: tuple[Any, Any]) -> str:
    s = {key: _plain(value) for key, value in layer.settings.items()}
    settings = _settings(
        stride=(s["stride"], None),
        padding=(padding, 0),
        dilation=(s.get("dilation", 1), 1),
        ceil_mode=(ceil, False),
        **more,
    )
    return f"nn.{module}({s['window']!r}{settings})"


def _max_pool(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    framed = _framed(layer)
    if framed is None:
        return _pool(layer, "MaxPool2d", _padding(layer), layer.settings.get("ceil", False))
    (left, right, top, bottom), (down, across) = framed, geometry.beyond(layer, shape)
    border = f'nn.ConstantPad2d({(left, right + across, top, bottom + down)}, float("-inf"))'
    return f"nn.Sequential({border}, {_pool(layer, 'MaxPool2d', 0, False)})"


def _average_pool(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    framed, count, ceil = _framed(layer), layer.settings["count_pad"], layer.settings.get("ceil", False)
    more = {"count_include_pad": (count, True)}
    if "dilation" in layer.settings:
        msg = f"layer {name or 'pool'} is an average pool with dilation, which PyTorch does not have"
        raise UnsupportedError(msg)
    if framed is None:
        return _pool(layer, "AvgPool2d", _padding(layer), ceil, **more)
    amid = f"amid padding {'of one side' if geometry.around(layer.settings) else 'above half the window'}"
    if not count:
        msg = f"layer {name or 'pool'} is an average of real pixels {amid}, which PyTorch does not have"
        raise UnsupportedError(msg)
    ceil = any(geometry.beyond(layer, shape))
    if ceil and geometry.framed_out(layer, shape) != layer.output_shape(shape)[1:]:
        msg = f"layer {name or 'pool'} is an average with ceil {amid}, of which PyTorch keeps a window more"
        raise UnsupportedError(msg)
    return f"nn.Sequential(nn.ZeroPad2d({framed}), {_pool(layer, 'AvgPool2d', 0, ceil, **more)})"


def _adaptive_average_pool(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    return f"nn.AdaptiveAvgPool2d({_plain(layer.settings['size'])!r})"


def _global_average_pool(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    used.add("GlobalAveragePool")
    return "GlobalAveragePool()"


def _upsample(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    factor, mode = _plain(layer.settings["factor"]), layer.settings["mode"]
    if mode == "nearest":
        return f'nn.Upsample(scale_factor={factor!r}, mode="nearest-exact")'
    corners = _settings(align_corners=(layer.settings["align_corners"], False))
    return f'nn.Upsample(scale_factor={factor!r}, mode="bilinear"{corners})'


def _leaky_relu(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    return f"nn.LeakyReLU({layer.settings['slope']!r})"


def _gelu(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    way = layer.settings["approximate"]
    return "nn.GELU()" if way == "none" else f"nn.GELU(approximate={_quoted(way)})"


def _dropout(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    return f"nn.Dropout({layer.settings['rate']!r})"


def _plainly(module: str) -> _Writer:
    """Return the writer of a module that has no arguments."""
    return lambda used, name, layer, shape, depth: f"nn.{module}()"


def _scale(used: set[str], name: str, layer: Any, shape: tuple[int, ...], depth: int) -> str:
    used.add("Scale")
    return f"Scale({layer.settings['factor']!r})"


# By the names of the classes in gpuconv.nn.
_WRITERS: dict[str, _Writer] = {
    "AdaptiveAveragePool": _adaptive_average_pool,
    "Affine": _affine,
    "AveragePool": _average_pool,
    "BatchNorm": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Dropout": _dropout,
    "Flatten": _plainly("Flatten"),
    "Gelu": _gelu,
    "GlobalAveragePool": _global_average_pool,
    "GroupNorm": _group_norm,
    "LayerNorm": _layer_norm,
    "LeakyRelu": _leaky_relu,
    "MaxPool": _max_pool,
    "Relu": _plainly("ReLU"),
    "Residual": _residual,
    "Scale": _scale,
    "Sequential": _sequential,
    "Silu": _plainly("SiLU"),
    "Upsample": _upsample,
}
