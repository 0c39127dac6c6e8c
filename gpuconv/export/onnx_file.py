"""A net as an ONNX graph; onnx_reading.py is the way back.

Opset 17, IR version 8: what programs of 2022 and later read.  Initialisers keep gpuconv's names and layouts, "conv1.w"
and the like; a node has the name of its layer.  Dropout is the identity and leaves no node.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import nn
from ..checks import float_dtype, shown
from ..errors import ConfigError, ParamError, UnsupportedError
from ..nn import geometry
from ..pool_shapes import adaptive_sizes
from . import walk
from .onnx_graph import OUTPUT, Graph, library

OPSET, IR_VERSION = 17, 8
INPUT = "images"
INPUTS = ("normalized", "unit", "uint8")

_LARGEST = (1 << 31) - 1  # bytes of one protobuf message


def to_onnx(
    net: nn.Net,
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scaling: str | None = None,
    input: str = "normalized",
    dtype: npt.DTypeLike | None = None,
    overwrite: bool = False,
) -> None:
    """Write a net as an ONNX file; see onnx_model.

    Raises ConfigError, before anything is written, for a path that does not end in .onnx or whose folder is missing,
    and for a file that is there, unless overwrite=True.

    >>> export.to_onnx(nn.ConvNet(4, input_shape=(3, 8, 8)), "net.onnx")
    >>> export.from_onnx("net.onnx").input_shape
    (3, 8, 8)
    """
    path = walk.target(path, ".onnx")
    content = encode(onnx_model(net, classes=classes, mean=mean, std=std, scaling=scaling, input=input, dtype=dtype))
    walk.write({path: content}, overwrite=overwrite)


def onnx_model(
    net: nn.Net,
    *,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scaling: str | None = None,
    input: str = "normalized",
    dtype: npt.DTypeLike | None = None,
) -> Any:
    """Return a net, as it is used (running statistics, no dropout), as an onnx.ModelProto.

    images: (N, *input_shape)   ->   scores: (N, classes), N free

    input: what the graph takes.  "normalized" is what net.forward takes: the graph is the net and nothing else.
    "unit": pictures from 0 to 1.   "uint8": pictures as they are stored.  Both need mean and std, and normalise inside:
    (v - mean[c]) / std[c], of v / 255 for uint8, in float32 or wider.
    dtype: of the weights, the scores and what lies between; None is the net's.  ONNX Runtime has no float64
    convolution on the CPU: write such a net with dtype="float32".
    classes, mean, std and scaling, which says how pictures of other sizes are scaled, go into the metadata as JSON.
    Raises UnsupportedError for a layer without a writer here, and without the package onnx.

    >>> model = export.onnx_model(nn.ConvNet(4, input_shape=(3, 8, 8)))
    >>> [node.op_type for node in model.graph.node]
    ['Conv', 'BatchNormalization', 'MaxPool', 'Relu', 'Flatten', 'Gemm']
    """
    walk.check_net(net)
    if input not in INPUTS:
        msg = f"input must be one of {', '.join(INPUTS)}, got {shown(input)}"
        raise ParamError(msg)
    facts = walk.facts(net, classes, mean, std, scaling)
    if input != "normalized" and (facts.mean is None or len(net.input_shape) != 3):
        msg = f'input="{input}" needs mean and std, and a net that takes images (C, H, W); it takes {net.input_shape}'
        raise ConfigError(msg)
    onnx = library()
    dtype = net.dtype if dtype is None else float_dtype(dtype)
    graph = Graph(dtype)
    value = _normalise(graph, facts, input)
    value, shape = _write(graph, "", net.body, value, net.input_shape)
    graph.finish(value)
    tensor_type = onnx.helper.np_dtype_to_tensor_dtype
    input_type = np.dtype(np.uint8) if input == "uint8" else _input_dtype(input, dtype)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            type(net).__name__,
            [onnx.helper.make_tensor_value_info(INPUT, tensor_type(input_type), ["N", *net.input_shape])],
            [onnx.helper.make_tensor_value_info(OUTPUT, tensor_type(dtype), ["N", *shape])],
            [onnx.numpy_helper.from_array(array, name) for name, array in graph.initialisers.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="gpuconv",
    )
    values = {"gpuconv": walk.record(net, dtype), "input": input}
    values |= facts.as_json()
    onnx.helper.set_model_props(model, values)
    if model.ByteSize() > _LARGEST:
        msg = f"an ONNX file holds at most {_LARGEST} bytes, the net needs {model.ByteSize()}"
        raise UnsupportedError(msg)
    onnx.checker.check_model(model, full_check=True)
    return model


def encode(model: Any) -> bytes:
    """Return the bytes of a model; equal models give equal bytes."""
    return model.SerializeToString(deterministic=True)


def scores_dtype(model: Any) -> np.dtype:
    """Return the dtype of a model's scores."""
    return np.dtype(library().helper.tensor_dtype_to_np_dtype(model.graph.output[0].type.tensor_type.elem_type))


# Writing ------------------------------------------------------------------------------------------------------------


_Step = tuple[str, tuple[int, ...]]  # a value of the graph and the shape of one sample of it


def _write(graph: Graph, name: str, layer: nn.Layer, value: str, shape: tuple[int, ...]) -> _Step:
    """Add a layer and those inside it; return its output."""
    writer = walk.entry(_WRITERS, name, layer, "ONNX")
    return writer(graph, name, layer, value, shape), layer.output_shape(shape)


def _input_dtype(input: str, dtype: np.dtype) -> np.dtype:
    """Return the dtype in which pictures are normalised; float16 would be too coarse for that."""
    return dtype if input == "normalized" or dtype == np.float64 else np.dtype(np.float32)


def _normalise(graph: Graph, facts: walk.Facts, input: str) -> str:
    """Add what turns pictures into the net's input."""
    if input == "normalized":
        return INPUT
    dtype, value = _input_dtype(input, graph.dtype), INPUT
    tensor_type = library().helper.np_dtype_to_tensor_dtype
    if input == "uint8":
        value = graph.node("Cast", "input.float", value, to=tensor_type(dtype))
        value = graph.node("Div", "input.unit", value, graph.array("input.255", 255.0, dtype))
    for op, name in (("Sub", "mean"), ("Div", "std")):
        column = np.reshape(getattr(facts, name), (-1, 1, 1))
        value = graph.node(op, f"input.by_{name}", value, graph.array(f"input.{name}", column, dtype))
    return value if dtype == graph.dtype else graph.node("Cast", "input.cast", value, to=tensor_type(graph.dtype))


def _sequential(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    for key, child in layer.children().items():
        value, shape = _write(graph, walk.dotted(name, key), child, value, shape)
    return value


def _residual(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    branches = [
        _write(graph, walk.dotted(name, key), child, value, shape)[0] for key, child in layer.children().items()
    ]
    if len(branches) == 1:
        branches.append(value)
    return graph.node("Add", walk.dotted(name, "sum"), *branches)


def _weights(graph: Graph, name: str, layer: Any, *keys: str) -> list[str]:
    """Add those of a layer's arrays that it has."""
    arrays = walk.arrays(layer)
    return [graph.array(walk.dotted(name, key), arrays[key]) for key in keys if key in arrays]


def _constant(graph: Graph, number: float) -> str:
    """Add a number, once for all who use it."""
    return graph.array(f"constant {number!r}", number)


def _sizes(graph: Graph, *sizes: int) -> str:
    """Add the shape of a Reshape: 0 keeps a size, -1 stands for what is left."""
    return graph.array(f"sizes {' '.join(map(str, sizes))}", sizes, np.dtype(np.int64))


def _window(settings: dict[str, Any]) -> dict[str, list[int]]:
    """Return window, stride and pad as ONNX wants them."""
    window, (vertical, horizontal) = _pair(settings["window"]), geometry.sides(settings)
    stride = window if settings["stride"] is None else _pair(settings["stride"])
    before, after = zip(vertical, horizontal, strict=True)
    return {"kernel_shape": window, "strides": stride, "pads": [*before, *after]}


def _conv(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    settings = layer.settings
    windows = {**_window(settings), "dilations": _pair(settings["dilation"]), "group": settings["groups"]}
    return graph.node("Conv", name or "conv", value, *_weights(graph, name, layer, "w", "b"), **windows)


def _conv_transpose(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    settings = layer.settings
    windows = {**_window(settings), "dilations": _pair(settings["dilation"]), "group": settings["groups"]}
    windows["output_padding"] = _pair(settings["output_pad"])
    weights = _weights(graph, name, layer, "w", "b")
    return graph.node("ConvTranspose", name or "conv-transpose", value, *weights, **windows)


def _affine(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    if len(shape) > 1:
        value = graph.node("Flatten", walk.dotted(name, "rows"), value, axis=1)
    return graph.node("Gemm", name or "affine", value, *_weights(graph, name, layer, "w", "b"))


def _batch_norm(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    inputs, eps = _weights(graph, name, layer, "gamma", "beta", *walk.RUNNING), layer.settings["eps"]
    if graph.dtype == np.float64:  # an attribute is a float32, too coarse: eps comes as a node's input
        inputs[-1] = graph.node("Add", walk.dotted(name, "var_eps"), inputs[-1], _constant(graph, eps))
        eps = 0.0
    return graph.node("BatchNormalization", name or "bn", value, *inputs, epsilon=eps)


def _group_norm(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    """Each group as one channel of an instance norm, then gamma and beta: opset 17 has no node for it."""

    def node(op: str, part: str, *inputs: str) -> str:
        return graph.node(op, walk.dotted(name, part), *inputs)

    groups, eps = layer.settings["groups"], layer.settings["eps"]
    rows = node("Reshape", "groups", value, _sizes(graph, 0, groups, -1))
    if graph.dtype == np.float64:
        normal = _normalised(graph, name, rows, eps)
    else:
        unit = [
            graph.array(walk.dotted(name, part), np.full(groups, number))
            for part, number in (("ones", 1), ("zeros", 0))
        ]
        normal = graph.node("InstanceNormalization", walk.dotted(name, "normal"), rows, *unit, epsilon=eps)
    images = node("Reshape", "images", normal, _sizes(graph, 0, *shape))
    column = _sizes(graph, -1, 1, 1)
    gamma, beta = (
        node("Reshape", f"{weights}.column", weights, column)
        for weights in _weights(graph, name, layer, "gamma", "beta")
    )
    return graph.node("Add", name or "norm", node("Mul", "scaled", images, gamma), beta)


def _layer_norm(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    weights, eps = _weights(graph, name, layer, "gamma", "beta"), layer.settings["eps"]
    if graph.dtype != np.float64:
        return graph.node("LayerNormalization", name or "norm", value, *weights, epsilon=eps)
    scaled = graph.node("Mul", walk.dotted(name, "scaled"), _normalised(graph, name, value, eps), weights[0])
    return graph.node("Add", name or "norm", scaled, weights[1])


def _normalised(graph: Graph, name: str, value: str, eps: float) -> str:
    """Subtract the mean over the last axis, divide by the standard deviation.

    For float64, which the nodes of norms round to float32: eps, an attribute, and the mean and deviation on the way.
    """

    def node(op: str, part: str, *inputs: str, **attributes: Any) -> str:
        return graph.node(op, walk.dotted(name, part), *inputs, **attributes)

    centred = node("Sub", "centred", value, node("ReduceMean", "mean", value, axes=[-1]))
    var = node("ReduceMean", "var", node("Mul", "square", centred, centred), axes=[-1])
    return node("Div", "normal", centred, node("Sqrt", "std", node("Add", "var_eps", var, _constant(graph, eps))))


def _max_pool(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    windows: dict[str, Any] = _window(layer.settings)
    if any(geometry.beyond(layer, shape)):  # else, where a window would begin behind the image, only PyTorch drops it
        windows["ceil_mode"] = 1
    if "dilation" in layer.settings:
        windows["dilations"] = _pair(layer.settings["dilation"])
    return graph.node("MaxPool", name or "pool", value, **windows)


def _average_pool(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    """What ceil adds is padding that is never counted: where other padding is, that becomes part of the image."""
    if "dilation" in layer.settings:
        msg = (
            f"layer {name or 'pool'} is an average pool with dilation, which ONNX has from opset 19 on, not in {OPSET}"
        )
        raise UnsupportedError(msg)
    windows, count, added = _window(layer.settings), int(layer.settings["count_pad"]), geometry.beyond(layer, shape)
    before, after = windows["pads"][:2], windows["pads"][2:]
    if any(added) and count:
        if any(windows["pads"]):
            pads = graph.array(walk.dotted(name, "zeros"), [0, 0, *before, 0, 0, *after], np.dtype(np.int64))
            value, before, after = graph.node("Pad", walk.dotted(name, "padded"), value, pads), [0, 0], [0, 0]
        count = 0
    windows["pads"] = [*before, *(sum(both) for both in zip(after, added, strict=True))]
    return graph.node("AveragePool", name or "pool", value, **windows, count_include_pad=count)


def _adaptive_average_pool(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    """Uneven windows as products with matrices of their shares, in which NaN and infinities reach every window."""
    z = adaptive_sizes(geometry.stand_in(1, *shape), layer.settings["size"])
    if z.whole:
        return graph.node("GlobalAveragePool", name or "pool", value)
    if z.even:
        window = list(z.windows.window)
        return graph.node("AveragePool", name or "pool", value, kernel_shape=window, strides=window)
    (H, W), (P, Q) = z.image[2:], z.out[2:]
    if W != Q:
        columns = graph.array(walk.dotted(name, "columns"), _shares(W, Q).T)
        value = graph.node("MatMul", walk.dotted(name, "by_columns") if H != P else name or "pool", value, columns)
    if H != P:
        value = graph.node("MatMul", name or "pool", graph.array(walk.dotted(name, "rows"), _shares(H, P)), value)
    return value


def _shares(pixels: int, windows: int) -> np.ndarray:
    """Return the share of each pixel along an axis in each window, (windows, pixels)."""
    number, pixel = np.arange(windows)[:, None], np.arange(pixels)
    under = (number * pixels < (pixel + 1) * windows) & (pixel * windows < (number + 1) * pixels)
    return under / under.sum(axis=1, keepdims=True)


def _global_average_pool(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    value = graph.node("GlobalAveragePool", walk.dotted(name, "mean"), value)
    return graph.node("Flatten", name or "pool", value, axis=1)


def _upsample(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    settings = layer.settings
    if settings["mode"] == "nearest":
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        corners = settings["align_corners"]
        how = {"mode": "linear", "coordinate_transformation_mode": "align_corners" if corners else "half_pixel"}
    scales = graph.array(walk.dotted(name, "scales"), [1, 1, *_pair(settings["factor"])], np.dtype(np.float32))
    return graph.node("Resize", name or "upsample", value, "", scales, **how)


def _relu(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    return graph.node("Relu", name or "relu", value)


def _leaky_relu(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    slope = layer.settings["slope"]
    if graph.dtype == np.float64:  # attributes are float32
        return graph.node("PRelu", name or "relu", value, _constant(graph, slope))
    return graph.node("LeakyRelu", name or "relu", value, alpha=slope)


def _silu(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    share = graph.node("Sigmoid", walk.dotted(name, "share"), value)
    return graph.node("Mul", name or "silu", value, share)


def _gelu(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    """x/2 (1 + erf(x / sqrt 2)), or x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): opset 17 has no node for it."""

    def node(op: str, part: str, *inputs: str) -> str:
        return graph.node(op, walk.dotted(name, part), *inputs)

    if layer.settings["approximate"] == "tanh":
        square = node("Mul", "square", value, value)
        slope = node("Mul", "slope", square, _constant(graph, 0.044715))
        growth = node("Mul", "growth", node("Add", "one_more", slope, _constant(graph, 1.0)), value)
        curve = node("Tanh", "tanh", node("Mul", "inner", growth, _constant(graph, math.sqrt(2 / math.pi))))
    else:
        curve = node("Erf", "erf", node("Mul", "inner", value, _constant(graph, math.sqrt(0.5))))
    half = node("Mul", "half", value, _constant(graph, 0.5))
    return graph.node("Mul", name or "gelu", half, node("Add", "share", curve, _constant(graph, 1.0)))


def _nothing(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    return value


def _flatten(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    return graph.node("Flatten", name or "flatten", value, axis=1)


def _scale(graph: Graph, name: str, layer: Any, value: str, shape: tuple[int, ...]) -> str:
    return graph.node("Mul", name or "scale", value, graph.array(walk.dotted(name, "factor"), layer.settings["factor"]))


_Writer = Callable[[Graph, str, Any, str, tuple[int, ...]], str]

# By the names of the classes in gpuconv.nn.
_WRITERS: dict[str, _Writer] = {
    "AdaptiveAveragePool": _adaptive_average_pool,
    "Affine": _affine,
    "AveragePool": _average_pool,
    "BatchNorm": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Dropout": _nothing,
    "Flatten": _flatten,
    "Gelu": _gelu,
    "GlobalAveragePool": _global_average_pool,
    "GroupNorm": _group_norm,
    "LayerNorm": _layer_norm,
    "LeakyRelu": _leaky_relu,
    "MaxPool": _max_pool,
    "Relu": _relu,
    "Residual": _residual,
    "Scale": _scale,
    "Sequential": _sequential,
    "Silu": _silu,
    "Upsample": _upsample,
}


def _pair(value: Any) -> list[int]:
    return list(value) if isinstance(value, (list, tuple)) else [value, value]
