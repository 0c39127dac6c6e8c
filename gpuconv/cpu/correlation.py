"""Correlations of images and their gradients: the method; the passes over memory are in arrays/ and loops/.

Forward and both gradients are built from two sums over windows: `correlate` (windows times filters) and
`weight_gradient` (windows times dy).  The gradient of the input is a correlation too, of dy with the filters turned
round: one for each phase of the stride, so that no zero is ever multiplied.  What a call adds in memory is a few
megabytes a thread, whatever the batch.
"""

from __future__ import annotations

import numpy as np

from ..shapes import ConvSizes
from .compiled import passes
from .layout import accumulator
from .reduce import all_finite
from .windows import Windows, forward_windows, phases

# Below these, the transforms of Winograd's method cost more than they save.
_LEAST_CHANNELS = 16
_LEAST_PIXELS = 2048  # outputs of all images: what the transform of the filters is shared by
# Up to this many input channels, the gradient of the input goes a way of its own.
_FEW_CHANNELS = 4
# Up to this many phases of a stride are computed together, with their outputs side by side in scratch memory.
_MOST_PHASES = 16


def correlate(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray, windows: Windows, groups: int) -> None:
    """Fill y[n, k, p, q] with b[k] + the sum over c, r, s of w[k, c, r, s] times tap (r, s) of window (p, q) of x.

    Pixels outside x are 0.  x and y may have any strides.
    """
    bias = None if b is None else b.astype(accumulator(x.dtype))
    method, pieces = _method(w, windows, groups, y), None
    if method == "depthwise":
        passes("depthwise", x.dtype, served=len(w) == groups).correlate(x, w, bias, y, windows)
        return
    if method == "winograd":
        pieces = passes("winograd", x.dtype).correlate(x, w, bias, y, windows)
        if pieces == []:
            return
    passes("conv", x.dtype).correlate(x, w, bias, y, windows, groups, pieces)


def input_gradient(dy: np.ndarray, w: np.ndarray, z: ConvSizes, dx: np.ndarray, bias: np.ndarray | None = None) -> None:
    """Fill dx (N, C, H, W), of any strides, with bias and the sums of what each output sends to its window's pixels."""
    if not all_finite(w):  # a correlation would multiply them with zeros around dy
        passes("few_channels", dy.dtype, served=False).input_gradient(dy, w, z, dx)
    elif z.groups == 1 and z.C <= _FEW_CHANNELS:
        passes("few_channels", dy.dtype).input_gradient(dy, w, z, dx)
    else:
        _gradient_by_phases(dy, w, z, dx, bias)
        return
    if bias is not None:
        dx += bias.reshape(-1, 1, 1)


def _gradient_by_phases(dy: np.ndarray, w: np.ndarray, z: ConvSizes, dx: np.ndarray, bias: np.ndarray | None) -> None:
    """Fill dx as input_gradient, by a correlation of dy for each phase of the stride."""
    # (K, C / groups, R, S) -> (C, K / groups, R, S): in each group, filters and channels change places.
    grouped = w.reshape(z.groups, z.K // z.groups, z.C // z.groups, z.R, z.S)
    swapped = grouped.swapaxes(1, 2).reshape(z.C, z.K // z.groups, z.R, z.S)
    parts = list(phases(z))
    read = [(phase, phase.windows) for phase in parts if phase.windows is not None]
    methods = {_method(swapped[phase.taps], windows, z.groups, dx[phase.pixels]) for phase, windows in read}
    if 1 < len(parts) == len(read) <= _MOST_PHASES and methods == {"conv"}:
        passes("phases", dy.dtype).correlate(dy, swapped, bias, dx, parts, z.groups)
        return
    for phase in parts:
        if phase.windows is None:  # no window ever reads these pixels
            dx[phase.pixels] = 0 if bias is None else bias.reshape(-1, 1, 1)
        else:
            correlate(dy, swapped[phase.taps], bias, dx[phase.pixels], phase.windows, z.groups)


def weight_gradient(dy: np.ndarray, x: np.ndarray, w: np.ndarray, z: ConvSizes) -> np.ndarray:
    """Return dw[k, c, r, s]: the sum over n, p, q of dy[n, k, p, q] times tap (r, s) of window (p, q) of x.

    It has the type that sums are kept in.
    """
    windows = forward_windows(z)
    if w.shape[:2] == (z.groups, 1):
        dw: np.ndarray = passes("depthwise", x.dtype).weight_gradient(dy, x, w, windows)
        return dw
    if _method(w, windows, z.groups, dy) == "winograd":
        return _winograd_weight_gradient(dy, x, w, windows)
    dw = passes("conv", x.dtype).weight_gradient(dy, x, w, windows, z.groups)
    return dw


def _winograd_weight_gradient(dy: np.ndarray, x: np.ndarray, w: np.ndarray, windows: Windows) -> np.ndarray:
    """Return dw by Winograd's method, but for the filters and the channels that it is not exact enough for."""
    dw, filters, channels = passes("winograd", x.dtype).weight_gradient(dy, x, w, windows)
    one_by_one = passes("conv", x.dtype).weight_gradient
    if len(filters) * w.shape[1] + len(channels) * w.shape[0] > w[:, :, 0, 0].size // 2:
        return one_by_one(dy, x, w, windows, 1)
    if len(filters):
        dw[filters] = one_by_one(dy[:, filters], x, w[filters], windows, 1)
    if len(channels):
        dw[:, channels] = one_by_one(dy, x[:, channels], w[:, channels], windows, 1)
    return dw


def _method(w: np.ndarray, windows: Windows, groups: int, y: np.ndarray) -> str:
    """Return how sums over windows with filters w (K, C / groups, R, S) are best done, for outputs as large as y."""
    if w.shape[1] == 1 and groups > 1:
        return "depthwise"
    plain = windows.R == windows.S == 3 and windows.stride == windows.dilation == (1, 1) and groups == 1
    worth_it = min(w.shape[:2]) >= _LEAST_CHANNELS and y[:, 0].size >= _LEAST_PIXELS
    return "winograd" if plain and worth_it and accumulator(y.dtype) == np.float32 else "conv"
