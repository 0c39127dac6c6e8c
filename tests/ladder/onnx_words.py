"""ONNX's operators in gpuconv's words: for each, which of our operators computes it, called with what.

A new operator is a function here, entered in WORDS under ONNX's name.  It is given a Node and the node's inputs as NumPy
arrays (None for those left out), and returns an output or a tuple of them.  Whatever computes goes through `node.run`,
which calls an operator of gpuconv in the place that is tried; NumPy only brings arguments into another shape or order.
`node.take` reads an attribute: one that nobody takes is an error.  Where gpuconv has no words: Refused, with a reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod, sqrt
from typing import Any

import numpy as np

import gpuconv

from .outcomes import Refused
from .pool_indices import pool_indices

# Why a case may be refused, beside outcomes.INTEGERS.
DRAWS = "random numbers of another generator"
FRACTIONS = "a size that is no whole multiple"
PLACES = "pixels of another place, or more than two along an axis"
ROWS_OF_BIAS = "a bias of its own for each row"
MATRICES = "a batch of matrices, each times one of its own"


@dataclass
class Node:
    """A node of a graph: its kind, attributes, how many outputs are wanted, the opset, and the place that computes."""

    kind: str
    attributes: dict[str, Any]
    outputs: int
    opset: int
    place: Any
    taken: set[str] = field(default_factory=set)

    def take(self, name: str, default: Any) -> Any:
        """Return an attribute, or what it is where it is left out."""
        self.taken.add(name)
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def run(self, operator: str, *arrays: np.ndarray | None, **options: Any) -> Any:
        """Return what an operator of gpuconv returns of arrays, in the place that is tried; arrays as NumPy has them."""
        results = getattr(gpuconv, operator)(*map(self.place.array, arrays), **options)
        return tuple(map(self.numpy, results)) if isinstance(results, tuple) else self.numpy(results)

    def update(self, operator: str, *arrays: np.ndarray, **options: Any) -> tuple[np.ndarray, ...]:
        """Return the arrays as an operator of gpuconv leaves them that works in place."""
        given = [self.place.array(array.copy()) for array in arrays]
        getattr(gpuconv, operator)(*given, **options)
        return tuple(map(self.numpy, given))

    def numpy(self, result: Any) -> Any:
        """Return an array of the place as NumPy's; anything else, as a cache, as it is."""
        return self.place.numpy(result) if hasattr(result, "dtype") and hasattr(result, "strides") else result


# Windows ------------------------------------------------------------------------------------------------------------


def along(node: Node, size: tuple[int, ...], window: tuple[int, ...]) -> dict[str, Any]:
    """Return stride, pad and dilation of windows over an image of this size."""
    axes = len(size)
    stride, dilation = (tuple(node.take(name, [1] * axes)) for name in ("strides", "dilations"))
    pads = node.take("pads", [0] * 2 * axes)
    sides = tuple(zip(pads[:axes], pads[axes:], strict=True))
    auto = node.take("auto_pad", "NOTSET")
    if auto == "VALID":
        sides = ((0, 0),) * axes
    elif auto != "NOTSET":  # as many windows as steps of stride begin in the image
        reaches = (d * (r - 1) + 1 for d, r in zip(dilation, window, strict=True))
        totals = [max((-(-n // s) - 1) * s + reach - n, 0) for n, s, reach in zip(size, stride, reaches, strict=True)]
        sides = _shared(totals, auto)
    return {"stride": stride, "pad": sides, "dilation": dilation}


def _shared(totals: list[int], auto: str) -> tuple[tuple[int, int], ...]:
    """Return padding (before, after) of so many pixels in all; the odd one is where auto_pad says."""
    halves = [(total // 2, total - total // 2) for total in totals]
    return tuple(halves if auto == "SAME_UPPER" else [(after, before) for before, after in halves])


def _conv(node: Node, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    window = w.shape[2:]
    assert tuple(node.take("kernel_shape", window)) == window
    return node.run("conv_forward", x, w, b, **along(node, x.shape[2:], window), groups=node.take("group", 1))[0]


def _conv_transpose(node: Node, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    window, axes = w.shape[2:], x.ndim - 2
    assert tuple(node.take("kernel_shape", window)) == window
    stride, dilation = (tuple(node.take(name, [1] * axes)) for name in ("strides", "dilations"))
    more = tuple(node.take("output_padding", [0] * axes))
    pads, auto = node.take("pads", [0] * 2 * axes), node.take("auto_pad", "NOTSET")
    sides = tuple(zip(pads[:axes], pads[axes:], strict=True))
    wanted = node.take("output_shape", None)
    if wanted is None and auto.startswith("SAME"):
        wanted = [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
    if wanted is not None:
        sizes = zip(x.shape[2:], stride, dilation, window, more, wanted, strict=True)
        totals = [(n - 1) * s + m + d * (r - 1) + 1 - q for n, s, d, r, m, q in sizes]
        more = tuple(m + max(-total, 0) for m, total in zip(more, totals, strict=True))
        sides = _shared([max(total, 0) for total in totals], auto)
    options = {"stride": stride, "pad": sides, "output_pad": more, "dilation": dilation}
    return node.run("conv_transpose_forward", x, w, b, **options, groups=node.take("group", 1))[0]


def _max_pool(node: Node, x: np.ndarray) -> Any:
    window = tuple(node.take("kernel_shape", None))
    options = {"ceil": bool(node.take("ceil_mode", 0)), **along(node, x.shape[2:], window)}
    y, cache = node.run("max_pool_forward", x, window=window, **options)
    in_image = pool_indices(node.numpy(cache.argmax), cache.sizes, "F" if node.take("storage_order", 0) else "C")
    images = np.arange(prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
    return y, images * prod(x.shape[2:]) + in_image


def _average_pool(node: Node, x: np.ndarray) -> np.ndarray:
    window = tuple(node.take("kernel_shape", None))
    options = {"ceil": bool(node.take("ceil_mode", 0)), **along(node, x.shape[2:], window)}
    count_pad = bool(node.take("count_include_pad", 0))
    return node.run("average_pool_forward", x, window=window, **options, count_pad=count_pad)[0]


def _global_average_pool(node: Node, x: np.ndarray) -> np.ndarray:
    return node.run("global_average_pool_forward", x)[0].reshape(*x.shape[:2], *[1] * (x.ndim - 2))


def _global_max_pool(node: Node, x: np.ndarray) -> np.ndarray:
    return node.run("max_pool_forward", x, window=x.shape[2:])[0]


# Of a Resize: what makes `nearest` and `linear` ours where the size grows by a whole factor.  A pixel's middle is then
# nearest to its own copies, and half_pixel_symmetric has nothing to centre.
_MIDDLES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")


def _resize(node: Node, x: np.ndarray, *regions_and_sizes: np.ndarray | None) -> np.ndarray:
    """Inputs behind x: scales; from opset 11 on a region, scales and sizes.  What is left is of other modes or of smaller sizes."""
    scales, sizes = (*(regions_and_sizes if len(regions_and_sizes) == 1 else regions_and_sizes[1:]), None)[:2]
    policy, axes = node.take("keep_aspect_ratio_policy", "stretch"), node.take("axes", range(x.ndim))
    for name in ("antialias", "cubic_coeff_a", "exclude_outside", "extrapolation_value"):
        node.take(name, 0)
    factors = np.ones(x.ndim)
    factors[list(axes)] = scales if sizes is None else sizes / np.take(x.shape, axes)
    if policy != "stretch":
        of_axes = factors[list(axes)]
        factors[list(axes)] = of_axes.min() if policy == "not_larger" else of_axes.max()
    mode, places = node.take("mode", "nearest"), node.take("coordinate_transformation_mode", "half_pixel")
    rounding = node.take("nearest_mode", "round_prefer_floor")
    if (factors < 1).any() or (factors % 1 > 0).any() or (factors[:2] > 1).any():
        raise Refused(FRACTIONS)
    if mode == "nearest" and (
        (places in _MIDDLES and rounding.startswith("round")) or (places == "asymmetric" and rounding == "floor")
    ):
        how = {"mode": "nearest"}
    elif mode == "linear" and places in (*_MIDDLES, "align_corners"):
        how = {"mode": "linear", "align_corners": places == "align_corners"}
    else:
        raise Refused(PLACES)
    return node.run("upsample_forward", x, factor=tuple(map(int, factors[2:])), **how)[0]


def _upsample(node: Node, x: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Resize, of which there were these two modes alone, before it had that name."""
    node.attributes |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return _resize(node, x, scales)


# Normalisation ------------------------------------------------------------------------------------------------------


def _batch_norm(node: Node, x: np.ndarray, gamma: Any, beta: Any, mean: Any, var: Any) -> Any:
    in_training = node.opset < 7 and not node.take("is_test", 0)
    options = {
        "training": bool(node.take("training_mode", in_training)),
        "momentum": node.take("momentum", 0.9),
        "eps": node.take("epsilon", 1e-5),
    }
    running = [node.place.array(vector.copy()) for vector in (mean, var)]
    operator = gpuconv.batchnorm_forward if x.ndim == 2 else gpuconv.spatial_batchnorm_forward
    y, _ = operator(*map(node.place.array, (x, gamma, beta)), *running, **options)
    return node.numpy(y), *map(node.numpy, running)


def _group_norm(node: Node, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    node.take("stash_type", 1)  # the type of the statistics: ours are at least float32
    groups = node.take("num_groups", None)
    return node.run("groupnorm_forward", x, gamma, beta, groups=groups, eps=node.take("epsilon", 1e-5))[0]


def _instance_norm(node: Node, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    return node.run("groupnorm_forward", x, gamma, beta, groups=x.shape[1], eps=node.take("epsilon", 1e-5))[0]


def _layer_norm(node: Node, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> Any:
    node.take("stash_type", 1)
    axis = node.take("axis", -1) % x.ndim
    rows = x.reshape(prod(x.shape[:axis]), -1)
    y, cache = node.run("layernorm_forward", rows, gamma.ravel(), beta.ravel(), eps=node.take("epsilon", 1e-5))
    each_row = x.shape[:axis] + (1,) * (x.ndim - axis)
    return y.reshape(x.shape), *(node.numpy(kept).reshape(each_row) for kept in (cache.mean, cache.inv_std))


# Single elements, products, losses ------------------------------------------------------------------------------------


def _relu(node: Node, x: np.ndarray) -> np.ndarray:
    return node.run("relu_forward", x)[0]


def _leaky_relu(node: Node, x: np.ndarray) -> np.ndarray:
    return node.run("leaky_relu_forward", x, slope=node.take("alpha", 0.01))[0]


def _gelu(node: Node, x: np.ndarray) -> np.ndarray:
    return node.run("gelu_forward", x, approximate=node.take("approximate", "none"))[0]


def _swish(node: Node, x: np.ndarray) -> np.ndarray:
    alpha = node.take("alpha", 1.0)
    return node.run("silu_forward", alpha * x)[0] / alpha


def _dropout(node: Node, x: np.ndarray, rate: Any = None, training: Any = None) -> Any:
    node.take("seed", 0)
    rate = node.take("ratio", 0.5) if rate is None else float(rate)
    if training is not None and training and rate > 0:
        raise Refused(DRAWS)
    options = {"rate": rate, "training": False if training is None else bool(training)}
    y, kept = (node.run("dropout_forward", array, **options)[0] for array in (x, np.ones_like(x)))
    return y, kept != 0


def _gemm(node: Node, a: np.ndarray, b: np.ndarray, c: np.ndarray | None = None) -> np.ndarray:
    node.take("broadcast", 1)
    a, b = (matrix.T if node.take(f"trans{name}", 0) else matrix for name, matrix in (("A", a), ("B", b)))
    alpha, beta = node.take("alpha", 1.0), node.take("beta", 1.0)
    if c is not None and c.ndim == 2 and len(c) > 1:
        raise Refused(ROWS_OF_BIAS)
    bias = None if c is None else np.array(np.broadcast_to(c, (1, b.shape[1]))[0] * c.dtype.type(beta))
    return node.run("affine_forward", a * a.dtype.type(alpha), b, bias)[0]


def _matmul(node: Node, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if b.ndim > 2:
        raise Refused(MATRICES)
    w = b if b.ndim == 2 else b[:, None]
    y = node.run("affine_forward", a.reshape(-1, a.shape[-1]), w)[0]
    return y.reshape(a.shape[:-1] + b.shape[1:])


def _softmax_cross_entropy(node: Node, scores: np.ndarray, labels: np.ndarray, weights: Any = None) -> Any:
    rows = np.ascontiguousarray(np.moveaxis(scores, 1, -1)).reshape(-1, scores.shape[1])
    how = {"reduction": node.take("reduction", "mean"), "ignore": node.take("ignore_index", None)}
    if weights is not None:
        how["class_weights"] = node.place.array(weights)
    loss = node.run("softmax_cross_entropy", rows, labels.ravel(), **how)[0]
    loss = loss.reshape(labels.shape if how["reduction"] == "none" else ())
    if node.outputs == 1:
        return loss
    each = (np.full(len(rows), label) for label in range(scores.shape[1]))  # the loss, were that the label
    logs = [-node.run("softmax_cross_entropy", rows, label, reduction="none")[0] for label in each]
    return loss, np.moveaxis(np.stack(logs, -1).reshape(*labels.shape, -1), -1, 1)


# Optimisers -----------------------------------------------------------------------------------------------------------


def _each_tensor(arrays: tuple[np.ndarray, ...], count: int) -> list[tuple[np.ndarray, ...]]:
    """Return (X, G, state, ...) of each tensor; arrays has all X, then all G, and so on."""
    several = len(arrays) // count
    return [arrays[place::several] for place in range(several)]


def _in_turn(tensors: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Return all new X, then the first state of all, and so on."""
    return tuple(array for arrays in zip(*tensors, strict=True) for array in arrays)


def _momentum(node: Node, rate: Any, step: Any, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    mode, decay = node.take("mode", None), node.take("norm_coefficient", None)
    beta = node.take("beta", None)
    beta = beta if step > 0 else 1.0
    if mode == "nesterov":
        assert beta == 1.0  # there ONNX adds the gradient itself, not beta of it
    options = {"lr": float(rate), "momentum": node.take("alpha", None), "nesterov": mode == "nesterov"}
    stepped = []
    for x, g, v in _each_tensor(arrays, 3):
        w, _, velocity = node.update("sgd_update", x, g.dtype.type(beta) * g, v, **options, weight_decay=beta * decay)
        stepped.append((w, velocity))
    return _in_turn(stepped)


def _adam(node: Node, rate: Any, step: Any, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    beta2, after = node.take("beta", 0.999), node.take("norm_coefficient_post", 0.0)
    # ONNX adds epsilon before the second moment is corrected, and corrects nothing in step 0: in a late step of ours.
    late = step == 0
    eps = node.take("epsilon", 0.0) / (1.0 if late else sqrt(1 - beta2 ** int(step)))
    options = {"step": 10**9 if late else int(step), "lr": float(rate), "eps": eps}
    options |= {"beta1": node.take("alpha", 0.9), "beta2": beta2, "weight_decay": node.take("norm_coefficient", 0.0)}
    stepped = []
    for tensor in _each_tensor(arrays, 4):
        w, _, m, v = node.update("adam_update", *tensor, **options)
        stepped.append((w.dtype.type(1 - after) * w, m, v))
    return _in_turn(stepped)


def _adagrad(node: Node, rate: Any, step: Any, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    # RMSprop that keeps half of old and new alike adds up halves of the squares: everything under the root, and with it
    # the rate and epsilon, is that of Adagrad times a half.
    lr = float(rate) / (1 + float(step) * node.take("decay_factor", 0.0))
    options = {"lr": lr * sqrt(0.5), "eps": node.take("epsilon", 0.0) * sqrt(0.5), "smoothing": 0.5}
    options["weight_decay"] = node.take("norm_coefficient", 0.0)
    stepped = [node.update("rmsprop_update", *tensor, **options) for tensor in _each_tensor(arrays, 3)]
    return _in_turn([(w, 2 * square) for w, _, square in stepped])


WORDS: dict[str, Callable[..., Any]] = {
    "Adagrad": _adagrad,
    "Adam": _adam,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Dropout": _dropout,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky_relu,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Momentum": _momentum,
    "Relu": _relu,
    "Resize": _resize,
    "SoftmaxCrossEntropyLoss": _softmax_cross_entropy,
    "Swish": _swish,
    "Upsample": _upsample,
}
