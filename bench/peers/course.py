"""The course's fast layers as we understand them, in our own words: im2col over the whole batch and one product.

A strided view of the padded images is copied to a matrix with a column per output pixel, multiplied by the filters,
and kept for backward, whose product is added back tap by tap (where the course has compiled loops).  Pools whose
windows tile the image are reshaped, others unfolded.  `xp` is NumPy or CuPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..cases import Sides, pair, sides
from ..inputs import Inputs
from ..memory import Meter, numpy_meter
from .base import Calls, NotOffered, Peer

_MOST_BYTES = 2**31  # of the matrix of columns


class Course(Peer):
    label = "course im2col"
    metered = ("cpu",)

    def start(self, device: str, threads: int) -> str:
        return f"NumPy {np.__version__}"

    def calls(self, inputs: Inputs) -> Calls:
        return layers(np, inputs, lambda array: array)

    def meter(self) -> Meter:
        return numpy_meter()


def layers(xp: Any, inputs: Inputs, put: Callable[[Any], Any]) -> Calls:
    """Return the calls of a case; `put` brings an array to where xp computes."""
    case, options = inputs.case, inputs.case.options
    if inputs.channels_last:
        msg = "knows NCHW only"
        raise NotOffered(msg)
    if inputs.regime != "float32":
        msg = "knows float32 only"
        raise NotOffered(msg)
    if len(case.x) not in (2, 4):
        msg = "knows rows and images only"
        raise NotOffered(msg)
    x, dy = put(inputs.x), None if inputs.dy is None else put(inputs.dy)
    match case.op:
        case "conv":
            if options.get("groups", 1) != 1 or pair(options.get("dilation", 1)) != (1, 1):
                msg = "has no groups and no dilation"
                raise NotOffered(msg)
            assert case.w is not None
            needed = 4 * case.w[1] * case.w[2] * case.w[3] * case.x[0] * case.y[2] * case.y[3]
            if needed > _MOST_BYTES:
                msg = f"its columns would take {needed / 1e9:.1f} GB"
                raise NotOffered(msg)
            w, b = put(inputs.w), put(inputs.b)
            stride, pad = pair(options.get("stride", 1)), sides(options.get("pad", 0), 2)
            _, columns = conv_forward(xp, x, w, b, stride, pad)
            return {
                "forward": lambda: conv_forward(xp, x, w, b, stride, pad)[:1],
                "backward": lambda: conv_backward(xp, dy, x.shape, w, columns, stride, pad),
            }
        case "max_pool":
            window = pair(options["window"])
            stride, pad = pair(options.get("stride", window)), sides(options.get("pad", 0), 2)
            if pad != ((0, 0), (0, 0)) or options.get("ceil") or pair(options.get("dilation", 1)) != (1, 1):
                msg = "pools without padding, windows that stick out and dilation"
                raise NotOffered(msg)
            tiled = window == stride and not (x.shape[2] % window[0] or x.shape[3] % window[1])
            forward, backward = (_tiled_forward, _tiled_backward) if tiled else (_pool_forward, _pool_backward)
            _, kept = forward(xp, x, window, stride)
            return {
                "forward": lambda: forward(xp, x, window, stride)[:1],
                "backward": lambda: (backward(xp, dy, x, kept, window, stride),),
            }
        case "affine":
            w, b = put(inputs.w), put(inputs.b)
            return {
                "forward": lambda: (x.reshape(len(x), -1) @ w + b,),
                "backward": lambda: ((dy @ w.T).reshape(x.shape), x.reshape(len(x), -1).T @ dy, dy.sum(axis=0)),
            }
        case "batchnorm" | "spatial_batchnorm":
            gamma, beta = put(inputs.w), put(inputs.b)
            running = [xp.zeros_like(gamma), xp.ones_like(gamma)]
            _, kept = batchnorm_forward(x, gamma, beta, running)
            return {
                "forward": lambda: batchnorm_forward(x, gamma, beta, running)[:1],
                "backward": lambda: batchnorm_backward(dy, gamma, kept),
            }
        case "groupnorm" | "layernorm":
            gamma, beta = (put(vector).reshape(-1, *(1,) * (x.ndim - 2)) for vector in (inputs.w, inputs.b))
            groups = options.get("groups", 1)
            _, kept = groupnorm_forward(x, gamma, beta, groups)
            return {
                "forward": lambda: groupnorm_forward(x, gamma, beta, groups)[:1],
                "backward": lambda: groupnorm_backward(dy, gamma, kept, groups),
            }
        case "dropout":
            rate = options["rate"]
            _, mask = dropout_forward(xp, x, rate)
            return {"forward": lambda: dropout_forward(xp, x, rate)[:1], "backward": lambda: (dy * mask,)}
        case "relu":
            return {"forward": lambda: (xp.maximum(x, 0),), "backward": lambda: (dy * (x > 0),)}
    msg = f"has no {case.op}"
    raise NotOffered(msg)


def _unfold(xp: Any, x: Any, window: tuple[int, int], stride: tuple[int, int]) -> Any:
    """Return the view (C, R, S, N, P, Q) of padded images."""
    N, C, H, W = x.shape
    P, Q = ((size - reach) // step + 1 for size, reach, step in zip((H, W), window, stride, strict=True))
    n, c, h, w = x.strides
    return xp.lib.stride_tricks.as_strided(x, (C, *window, N, P, Q), (c, h, w, n, stride[0] * h, stride[1] * w))


def _fold(xp: Any, taps: Any, shape: tuple[int, ...], stride: tuple[int, int]) -> Any:
    """Return images (N, C, H, W) in which every tap of (C, R, S, N, P, Q) is added to its pixel."""
    images = xp.zeros(shape, taps.dtype)
    _, R, S, _, P, Q = taps.shape
    for r in range(R):
        for s in range(S):
            rows = slice(r, r + (P - 1) * stride[0] + 1, stride[0])
            columns = slice(s, s + (Q - 1) * stride[1] + 1, stride[1])
            images[:, :, rows, columns] += taps[:, r, s].transpose(1, 0, 2, 3)
    return images


def _padded(xp: Any, x: Any, pad: Sides) -> Any:
    return xp.pad(x, ((0, 0), (0, 0), *pad))


def conv_forward(xp: Any, x: Any, w: Any, b: Any, stride: tuple[int, int], pad: Sides) -> tuple[Any, Any]:
    """Return (y, columns)."""
    K, C, R, S = w.shape
    view = _unfold(xp, _padded(xp, x, pad), (R, S), stride)
    N, P, Q = view.shape[3:]
    columns = xp.ascontiguousarray(view).reshape(C * R * S, N * P * Q)
    y = w.reshape(K, -1) @ columns + b[:, None]
    return xp.ascontiguousarray(y.reshape(K, N, P, Q).transpose(1, 0, 2, 3)), columns


def conv_backward(
    xp: Any, dy: Any, shape: tuple[int, ...], w: Any, columns: Any, stride: tuple[int, int], pad: Sides
) -> tuple[Any, Any, Any]:
    """Return (dx, dw, db)."""
    (N, C, H, W), (K, _, R, S), (P, Q) = shape, w.shape, dy.shape[2:]
    rows = dy.transpose(1, 0, 2, 3).reshape(K, -1)
    dw = (rows @ columns.T).reshape(w.shape)
    taps = (w.reshape(K, -1).T @ rows).reshape(C, R, S, N, P, Q)
    (top, bottom), (left, right) = pad
    padded = _fold(xp, taps, (N, C, top + H + bottom, left + W + right), stride)
    return padded[:, :, top : top + H, left : left + W], dw, dy.sum((0, 2, 3))


def _tiled_forward(xp: Any, x: Any, window: tuple[int, int], stride: tuple[int, int]) -> tuple[Any, Any]:
    N, C, H, W = x.shape
    tiles = x.reshape(N, C, H // window[0], window[0], W // window[1], window[1])
    y = tiles.max(axis=3).max(axis=4)
    return y, (tiles, y)


def _tiled_backward(xp: Any, dy: Any, x: Any, kept: Any, window: tuple[int, int], stride: tuple[int, int]) -> Any:
    tiles, y = kept
    won = tiles == y[:, :, :, None, :, None]
    shared = won * dy[:, :, :, None, :, None] / won.sum(axis=(3, 5), keepdims=True, dtype=dy.dtype)
    return shared.reshape(x.shape)


def _pool_forward(xp: Any, x: Any, window: tuple[int, int], stride: tuple[int, int]) -> tuple[Any, Any]:
    view = _unfold(xp, x, window, stride)
    C, _, _, N, P, Q = view.shape
    columns = xp.ascontiguousarray(view).reshape(C, window[0] * window[1], N, P, Q)
    place = columns.argmax(axis=1)
    y = xp.take_along_axis(columns, place[:, None], axis=1)[:, 0]
    return xp.ascontiguousarray(y.transpose(1, 0, 2, 3)), place


def _pool_backward(xp: Any, dy: Any, x: Any, kept: Any, window: tuple[int, int], stride: tuple[int, int]) -> Any:
    N, C, P, Q = dy.shape
    taps = xp.zeros((C, window[0] * window[1], N, P, Q), dy.dtype)
    xp.put_along_axis(taps, kept[:, None], dy.transpose(1, 0, 2, 3)[:, None], axis=1)
    return _fold(xp, taps.reshape(C, *window, N, P, Q), x.shape, stride)


def _rows(images: Any) -> Any:
    """Return images as rows of pixels, as the course's spatial batch norm has them; rows as they are."""
    return images.transpose(0, 2, 3, 1).reshape(-1, images.shape[1]) if images.ndim == 4 else images


def _like(rows: Any, images: Any) -> Any:
    """Return rows of pixels as images again."""
    if images.ndim == 2:
        return rows
    N, C, H, W = images.shape
    return rows.reshape(N, H, W, C).transpose(0, 3, 1, 2)


def batchnorm_forward(x: Any, gamma: Any, beta: Any, running: list[Any]) -> tuple[Any, Any]:
    """Return (y, what backward needs)."""
    rows = _rows(x)
    mean, var = rows.mean(axis=0), rows.var(axis=0)
    inv_std = 1 / (var + 1e-5) ** 0.5
    normal = (rows - mean) * inv_std
    running[0] = 0.9 * running[0] + 0.1 * mean
    running[1] = 0.9 * running[1] + 0.1 * var
    return _like(gamma * normal + beta, x), (normal, inv_std)


def batchnorm_backward(dy: Any, gamma: Any, kept: Any) -> tuple[Any, Any, Any]:
    """Return (dx, dgamma, dbeta)."""
    normal, inv_std = kept
    rows = _rows(dy)
    dbeta, dgamma = rows.sum(axis=0), (rows * normal).sum(axis=0)
    count = rows.shape[0]
    dx = gamma * inv_std / count * (count * rows - dbeta - normal * dgamma)
    return _like(dx, dy), dgamma, dbeta


def groupnorm_forward(x: Any, gamma: Any, beta: Any, groups: int) -> tuple[Any, Any]:
    """Return (y, what backward needs); gamma and beta are columns, one entry a channel."""
    rows = x.reshape(len(x) * groups, -1)
    inv_std = 1 / (rows.var(axis=1, keepdims=True) + 1e-5) ** 0.5
    normal = (rows - rows.mean(axis=1, keepdims=True)) * inv_std
    return gamma * normal.reshape(x.shape) + beta, (normal, inv_std)


def groupnorm_backward(dy: Any, gamma: Any, kept: Any, groups: int) -> tuple[Any, Any, Any]:
    """Return (dx, dgamma, dbeta)."""
    normal, inv_std = kept
    others = (0, *range(2, dy.ndim))  # all axes but that of the channels
    rows = (gamma * dy).reshape(normal.shape)
    count = rows.shape[1]
    along = rows.sum(axis=1, keepdims=True) + normal * (rows * normal).sum(axis=1, keepdims=True)
    dx = inv_std / count * (count * rows - along)
    return dx.reshape(dy.shape), (dy * normal.reshape(dy.shape)).sum(axis=others), dy.sum(axis=others)


def dropout_forward(xp: Any, x: Any, rate: float) -> tuple[Any, Any]:
    """Return (y, mask): drawn anew at each call."""
    mask = ((xp.random.random(x.shape) >= rate) / (1 - rate)).astype(x.dtype)
    return x * mask, mask
