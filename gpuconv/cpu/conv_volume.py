"""Convolution of volumes as that of images: the depth alone is unfolded, and taps of it become channels.

    y[n, :, o] is the image that filters of T C channels make of the T planes under output o, side by side
    dw         is their gradient, with the taps back on an axis of their own
    dx[n, :, d] is the gradient of one plane, to which the outputs that read it send through one tap each

In each group tap t of channel c is channel t C / groups + c, so groups stay together.  A gradient dx is gathered, not
scattered: each of its planes is one sum, rounded once, of the outputs that read it alone.  Planes of padding take part
in y and dw as zeros, for 0 * inf is NaN there; in dx they do only where filters are finite and add nothing.

Filters of one row and one plane make of a volume one tall image, of all its rows, and filters of one row and one column
an image with a row for each plane: there nothing is unfolded, for these images are views.

Blocks of planes are unfolded one after another, some tens of megabytes whatever the batch and the depth.  How they are
cut depends on sizes and memory format alone, so results are equal bit for bit for any number of threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from ..shapes import ConvSizes, VolumeConvSizes, is_channels_last
from .copies import copy
from .correlation import correlate, input_gradient, weight_gradient
from .layout import empty
from .parallel import for_each, ranges
from .reduce import all_finite
from .runs import run_length
from .windows import forward_windows

# Bytes of unfolded planes and of results in one block.
_BLOCK_BYTES = 32 * 1024 * 1024

# Bytes of planes and results of one volume up to which a call for it alone would cost more than copies of them.
_FEW_BYTES = 4 * 1024 * 1024
# Bytes of one volume's results from which a call for it alone costs less than a copy of them.
_MANY_BYTES = 1024 * 1024
# The share of products that are not with padding from which planes with other taps are done together.
_MOST = 0.75

# Some volumes of a batch, some rows of a table of planes.
_Block = tuple[slice, slice]


def volume_conv_forward(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, z: VolumeConvSizes, y: np.ndarray) -> None:
    """Fill y (N, K, Z, P, Q)."""
    folded = _folded(z, x, w, y)
    if folded is not None:
        sizes, x_image, filters, y_image = folded
        correlate(x_image, filters, b, y_image, forward_windows(sizes), z.groups)
        return
    planes, filters = _planes_under_outputs(z), _taps_as_channels(w)
    for volumes, outputs in _blocks(x, y, planes):
        images = _unfolded(x, volumes, planes[outputs], z.groups)
        windows = forward_windows(_image_sizes(z, len(images), C=z.C * z.T, K=z.K))
        with _as_images(y.swapaxes(1, 2)[volumes, outputs], images) as pairs:
            for source, result in pairs:
                correlate(source, filters, b, result, windows, z.groups)


def volume_weight_gradient(dy: np.ndarray, x: np.ndarray, w: np.ndarray, z: VolumeConvSizes) -> np.ndarray:
    """Return dw (K, C / groups, T, R, S), whose blocks are added up in float64."""
    folded = _folded(z, x, w, dy)
    if folded is not None:
        sizes, x_image, filters, dy_image = folded
        return weight_gradient(dy_image, x_image, filters, sizes).reshape(w.shape)
    planes, filters = _planes_under_outputs(z), _taps_as_channels(w)
    under = np.arange(z.Z)[:, None]
    blocks = _blocks(x, dy, planes)
    total = np.zeros(filters.shape)
    for first, last in ranges(len(blocks), max(1, run_length(len(blocks)))):
        run = np.zeros(filters.shape)
        for volumes, outputs in blocks[first:last]:
            gradients = _unfolded(dy, volumes, under[outputs], 1)
            images = _unfolded(x, volumes, planes[outputs], z.groups)
            run += weight_gradient(gradients, images, filters, _image_sizes(z, len(images), C=z.C * z.T, K=z.K))
        total += run
    return total.reshape(z.K, z.T, -1, z.R, z.S).swapaxes(1, 2)


def volume_input_gradient(dy: np.ndarray, w: np.ndarray, z: VolumeConvSizes, dx: np.ndarray) -> None:
    """Fill dx (N, C, D, H, W)."""
    folded = _folded(z, dx, w, dy)
    if folded is not None:
        sizes, dx_image, filters, dy_image = folded
        input_gradient(dy_image, filters, sizes, dx_image)
        return
    for depths, taps in _depths_by_taps(z, joined=all_finite(w)):
        by_depth = dx.swapaxes(1, 2)[:, depths.start : depths.stop : depths.step]
        if not taps:  # no window ever reads these planes
            by_depth[...] = 0
            continue
        reached = np.array(depths)[:, None] + z.pad[0] - z.dilation[0] * np.array(taps)
        outputs, filters = reached // z.stride[0], _taps_as_filters(w[:, :, taps], z.groups)
        for volumes, part in _blocks(dy, dx, outputs, few=z.T > 1):
            gradients = _unfolded(dy, volumes, outputs[part], z.groups)
            with _as_images(by_depth[volumes, part], gradients) as pairs:
                for source, result in pairs:
                    sizes = _image_sizes(z, len(source), C=z.C, K=z.K * len(taps))
                    input_gradient(source, filters, sizes, result)


def _folded(
    z: VolumeConvSizes, x: np.ndarray, w: np.ndarray, y: np.ndarray
) -> tuple[ConvSizes, np.ndarray, np.ndarray, np.ndarray] | None:
    """Return a convolution of images that is the same, its sizes, x, w and y as views; None where there is none."""
    (sd, sh, sw), (pd, ph, pw), (dd, dh, dw) = z.stride, z.pad, z.dilation
    if z.T == z.R == sd == sh == 1 and (z.Z, z.P) == (z.D, z.H):  # planes under each other
        axis, image, window, out = 2, (z.D * z.H, z.W), (1, z.S), (z.Z * z.P, z.Q)
        options = (sh, sw), (ph, pw), (dh, dw)
    elif z.R == z.S == sh == sw == 1 and (z.P, z.Q) == (z.H, z.W):  # each plane a row
        axis, image, window, out = 3, (z.D, z.H * z.W), (z.T, 1), (z.Z, z.P * z.Q)
        options = (sd, sh), (pd, ph), (dd, dh)
    else:
        return None
    if not (_in_one(x, axis) and _in_one(y, axis)):
        return None
    x, w, y = (array.reshape(*array.shape[:2], *pixels) for array, pixels in ((x, image), (w, window), (y, out)))
    return ConvSizes(z.N, z.C, *image, z.K, *window, *out, *options, z.groups), x, w, y


def _in_one(array: np.ndarray, axis: int) -> bool:
    """Return whether an axis and the next can be seen as one, without a copy."""
    outer, inner = array.shape[axis : axis + 2]
    return min(outer, inner) <= 1 or array.strides[axis] == inner * array.strides[axis + 1]


def _image_sizes(z: VolumeConvSizes, N: int, *, C: int, K: int) -> ConvSizes:
    """Return the sizes of a convolution of images that has taps for more channels, or for more filters."""
    stride, pad, dilation = (option[1:] for option in (z.stride, z.pad, z.dilation))
    return ConvSizes(N, C, z.H, z.W, K, z.R, z.S, z.P, z.Q, stride, pad, dilation, z.groups)


def _taps_as_channels(w: np.ndarray) -> np.ndarray:
    """Return filters of images, (K, T C / groups, R, S)."""
    K, _, _, R, S = w.shape
    return w.swapaxes(1, 2).reshape(K, -1, R, S)


def _taps_as_filters(w: np.ndarray, groups: int) -> np.ndarray:
    """Return filters of images for the way back, (T K, C / groups, R, S): those of a group stay together."""
    K, C_w, T, R, S = w.shape
    by_group = w.reshape(groups, K // groups, C_w, T, R, S).transpose(0, 3, 1, 2, 4, 5)
    return by_group.reshape(K * T, C_w, R, S)


def _planes_under_outputs(z: VolumeConvSizes) -> np.ndarray:
    """Return which plane of x tap t of output o reads, (Z, T); of planes outside x there is padding."""
    return np.arange(z.Z)[:, None] * z.stride[0] - z.pad[0] + np.arange(z.T) * z.dilation[0]


def _depths_by_taps(z: VolumeConvSizes, *, joined: bool) -> Iterator[tuple[range, list[int]]]:
    """Yield planes of x, and the taps by which outputs read each of them.

    A tap reads planes a stride apart.  The deeper a plane, the later its first and its last tap: so those of the same
    taps are a stride apart, too, without one between them that has others.

    joined: all planes a stride apart have the taps of any of them, if most have them all; there may be no such output.
    """
    for first in range(min(z.stride[0], z.D)):
        phase = range(first, z.D, z.stride[0])
        depths: dict[tuple[int, ...], list[int]] = {}
        for d in phase:
            reached = [d + z.pad[0] - t * z.dilation[0] for t in range(z.T)]
            read = (
                t for t, place in enumerate(reached) if place % z.stride[0] == 0 and 0 <= place // z.stride[0] < z.Z
            )
            depths.setdefault(tuple(read), []).append(d)
        every = sorted({t for taps in depths for t in taps})
        if joined and sum(len(taps) * len(planes) for taps, planes in depths.items()) > _MOST * len(every) * len(phase):
            yield phase, every
            continue
        for taps, planes in depths.items():
            yield range(planes[0], planes[-1] + 1, z.stride[0]), list(taps)


def _blocks(read: np.ndarray, written: np.ndarray, planes: np.ndarray, *, few: bool = False) -> list[_Block]:
    """Cut work on volumes into blocks: whole volumes, or rows of the table of planes for one of them.

    A row needs the planes of `read` that the table names and one of `written`.  With one tap only, planes of one volume
    need not be copied, and those of several only unless they lie one after another in both; few: where planes of one
    volume are few, to copy them is less work than to do without.
    """
    N, rows = len(read), len(planes)
    row_bytes = (planes.shape[1] * read[0, :, 0].size + written[0, :, 0].size) * read.itemsize if N else 1
    most = max(1, _BLOCK_BYTES // row_bytes)
    if most < rows:
        return [(slice(n, n + 1), slice(*block)) for n in range(N) for block in ranges(rows, most)]
    in_a_row = is_channels_last(read) and rows == read.shape[2] == written.shape[2]
    copied = few and rows * row_bytes <= _FEW_BYTES
    together = most // rows if planes.shape[1] > 1 or in_a_row or copied else 1
    return [(slice(*volumes), slice(0, rows)) for volumes in ranges(N, together)]


def _unfolded(array: np.ndarray, volumes: slice, planes: np.ndarray, groups: int) -> np.ndarray:
    """Return planes of volumes (N, C, D, H, W) as images: those of a row of the table become channels of one.

    planes: (rows, taps)   ->   (n rows, groups taps C / groups, H, W), in the memory format of the volumes.
    Of one tap without padding they are a view, if the volumes' strides allow it.
    """
    by_depth = array.swapaxes(1, 2)[volumes]
    (n, D, C, H, W), (rows, taps) = by_depth.shape, planes.shape
    first, last = int(planes[0, 0]), int(planes[-1, -1])
    if taps == 1 and 0 <= first <= last < D:
        view = _joined(by_depth[:, first : last + 1 : (last - first) // max(1, rows - 1) or 1])
        if view is not None:
            return view
    images = empty((n * rows, taps * C, H, W), array.dtype, channels_last=is_channels_last(array))
    source = by_depth.reshape(n, D, groups, C // groups, H, W)
    target = images.reshape(n, rows, groups, taps, C // groups, H, W)

    step = int(planes[-1, 0] - planes[0, 0]) // max(1, rows - 1) or 1

    def unfold(place: tuple[int, int]) -> None:
        volume, tap = place
        column = planes[:, tap]
        begin, end = (int(row) for row in np.searchsorted(column, (0, D)))
        plane = int(column[0]) + begin * step
        here = target[volume, :, :, tap]
        here[:begin] = here[end:] = 0
        here[begin:end] = source[volume, plane : plane + (end - begin) * step : step]

    for_each(unfold, list(np.ndindex(n, taps)), blas=False)
    return images


@contextlib.contextmanager
def _as_images(planes: np.ndarray, images: np.ndarray) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    """Give images beside memory for their results, to which planes (n, rows, K, P, Q) are set at the end.

    That memory is the planes themselves, where they can be seen as images all at once, or for many bytes one volume after
    another.
    """
    n, rows = planes.shape[:2]
    result = _joined(planes)
    if result is not None:
        yield [(images, result)]
    elif planes[0].nbytes >= _MANY_BYTES:
        yield list(zip(images.reshape(n, rows, *images.shape[1:]), planes, strict=True))
    else:
        like = planes.swapaxes(1, 2)
        result = empty((n * rows, *planes.shape[2:]), planes.dtype, channels_last=is_channels_last(like))
        yield [(images, result)]
        copy(result.reshape(planes.shape), planes)


def _joined(planes: np.ndarray) -> np.ndarray | None:
    """Return planes (n, rows, C, H, W) as images (n rows, C, H, W), or None where that would be a copy."""
    n, rows = planes.shape[:2]
    if n > 1 and rows > 1 and planes.strides[0] != rows * planes.strides[1]:
        return None
    return planes.reshape(n * rows, *planes.shape[2:])
