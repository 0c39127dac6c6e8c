"""The layers of predictions.json, the regimes in which each is measured, and our passes of them on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

import gpuconv
from bench.cases import Case
from gpuconv import bfloat16
from gpuconv.cuda import conv_tensor, conv_wgmma
from gpuconv.ops.conv import input_gradient, weight_gradient

# float32 as the launchers choose, on an H200 by three products of TF32, and by FFMA alone; TF32 by name; 16 bits.
FFMA = "float32 FFMA"
WGMMA = "bfloat16 wgmma"  # bfloat16 by warpgroups, off by default: measured apart, by warpgroups.py
REGIMES = ("bfloat16", "float32", "tf32", "float16", FFMA)
PASS_REGIMES = ("bfloat16", "float32", "float16")  # of layers without products

Passes = dict[str, tuple[str, Callable[[], Any]]]  # pass: its result as bench/oracle.py names it, and the call


@dataclass(frozen=True)
class Arrays:
    """What the passes of a layer take; vectors: gamma, beta, running mean and variance of a norm."""

    x: Any
    dy: Any
    w: Any
    vectors: list[Any]


def case_of(layer: dict[str, Any]) -> Case:
    """Return a line of predictions.json as bench/ knows it."""
    shape = tuple(layer["x"])
    if "op" in layer:
        options = {"window": 2} if layer["op"] == "max_pool" else {}
        return Case(layer["name"], layer["op"], shape, options=options)
    options = {"stride": layer["stride"], "pad": layer["pad"]}
    return Case(layer["name"], "conv", shape, tuple(layer["w"]), options)


def regimes_of(layer: dict[str, Any]) -> tuple[str, ...]:
    """Return the regimes in which a layer is measured."""
    return PASS_REGIMES if "op" in layer else REGIMES


def passes_of(layer: dict[str, Any]) -> tuple[str, ...]:
    """Return the passes of a layer that a net needs: of pictures there is no gradient, nor of frozen filters."""
    if "op" in layer:
        return "forward", "backward"
    dx, dw = () if layer["x"][1] == 3 else ("dx",), () if layer.get("frozen") else ("dw",)
    return "forward", *dx, *dw


def dtype_of(regime: str) -> np.dtype:
    """Return the dtype that arrays have in a regime."""
    kind = "bfloat16" if regime == WGMMA else regime
    return bfloat16.narrow_dtype(kind) if kind in ("float16", "bfloat16") else np.dtype(np.float32)


@contextmanager
def in_regime(regime: str) -> Iterator[None]:
    """Let launchers choose among the kernels of a regime: without tensor cores where float32 is to go by FFMA."""
    archs: frozenset[int] = frozenset() if regime == FFMA else conv_tensor.FLOAT32_ARCHS
    with (
        mock.patch.object(conv_tensor, "FLOAT32_ARCHS", archs),
        mock.patch.object(conv_wgmma, "ON", conv_wgmma.ON or regime == WGMMA),
    ):
        yield


def ours(case: Case, arrays: Arrays, regime: str) -> Passes:
    """Return our passes of a layer."""
    x, dy, w = arrays.x, arrays.dy, arrays.w
    if case.op == "conv":
        how = {**case.options, "precision": "tf32" if regime == "tf32" else None}
        return {
            "forward": ("y", lambda: gpuconv.conv_forward(x, w, **how)[0]),
            "dx": ("dx", lambda: input_gradient(dy, w, x, **how)),
            "dw": ("dw", lambda: weight_gradient(dy, x, w, **how)),
        }
    if case.op == "max_pool":
        _, pooled = gpuconv.max_pool_forward(x, **case.options)
        return {
            "forward": ("y", lambda: gpuconv.max_pool_forward(x, **case.options)[0]),
            "backward": ("dx", lambda: gpuconv.max_pool_backward(dy, pooled)),
        }
    _, normed = gpuconv.spatial_batchnorm_forward(x, *arrays.vectors)
    return {
        "forward": ("y", lambda: gpuconv.spatial_batchnorm_forward(x, *arrays.vectors)[0]),
        "backward": ("dx", lambda: gpuconv.spatial_batchnorm_backward(dy, normed)[0]),
    }
