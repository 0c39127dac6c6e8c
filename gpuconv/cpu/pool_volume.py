"""Max and average pooling of volumes: windows are boxes, so the passes of images over planes, then over their depth.

Volumes of float32 have loops of their own, loops/max_pool.py and loops/average_pool.py.

A volume is seen in two ways, as its memory lies, without a copy: as images of its planes, which are pooled to P x Q, and
then as images of D rows, each a whole pooled plane, under windows T high and 1 wide.

The maximum of a box is the largest of its planes' maxima.  The first of those that are as large lies in the first plane
that has one, and its place in that plane is the first there: so the order is that of the definition, plane by plane, and
NaN, which wins in its plane, wins among planes.  No plane of a window is padding alone: it has a real pixel on each axis.
"""

from __future__ import annotations

import numpy as np

from ..pool_shapes import PoolSizes, VolumePoolSizes
from ..shapes import is_channels_last
from .compiled import passes
from .layout import accumulator, empty, places_type, scratch_like
from .parallel import BLOCK_ELEMENTS, for_each, quiet
from .runs import RunningSum
from .taps import first_taps, image_ranges, taps

_BOOL = np.dtype(bool)


def max_pool_forward(x: np.ndarray, best: np.ndarray, place: np.ndarray, z: VolumePoolSizes) -> None:
    """Fill best with the maxima and place with where in their windows they lie."""
    last, kind = is_channels_last(best), x.dtype
    planes, depths = _planes(z, last), _depths(z, last)
    pooled, inner = (_pooled_planes(z, dtype, last) for dtype in (kind, places_type(planes.places)))
    winner = empty(z.out, places_type(z.T), channels_last=last)
    passes("max_pool", kind).forward(*(_as_planes(array, last) for array in (x, pooled, inner)), planes)
    passes("max_pool", kind).forward(*(_as_rows(array, last) for array in (pooled, best, winner)), depths)
    _join(planes.places, depths, *(_as_rows(array, last) for array in (winner, inner, place)))


def max_pool_backward(dy: np.ndarray, place: np.ndarray, dx: np.ndarray, z: VolumePoolSizes) -> None:
    """Fill dx: each entry of dy goes to the place of its maximum."""
    last, kind = is_channels_last(place), accumulator(dy.dtype)
    planes, depths = _planes(z, last), _depths(z, last)
    gradient, inner = (_pooled_planes(z, dtype, last) for dtype in (kind, places_type(planes.places)))
    # Planes that no window takes its maximum from get a gradient of 0, and the loops a place for it in the image.
    _as_planes(inner, last)[...] = first_taps(planes)
    _part(planes.places, depths, *(_as_rows(array, last) for array in (dy, place, gradient, inner)))
    total = dx if dx.dtype == kind else empty(z.image, kind, channels_last=last)
    passes("max_pool", kind).backward(*(_as_planes(array, last) for array in (gradient, inner, total)), planes)
    if total is not dx:
        np.copyto(dx, total, casting="same_kind")


def average_pool_forward(x: np.ndarray, y: np.ndarray, share: np.ndarray, z: VolumePoolSizes) -> None:
    """Fill y with the sums of x over windows, times share (Z, P, Q)."""
    last, kind = is_channels_last(y), accumulator(x.dtype)
    planes, depths = _planes(z, last), _depths(z, last)
    sums = _pooled_planes(z, kind, last)
    total = y if y.dtype == kind else empty(z.out, kind, channels_last=last)
    pixels = x.astype(kind, copy=False)
    run = passes("average_pool", kind)
    run.forward(_as_planes(pixels, last), _as_planes(sums, last), np.ones((z.P, z.Q), kind), planes)
    run.forward(_as_rows(sums, last), _as_rows(total, last), _over_depths(share, z, last), depths)
    if total is not y:
        np.copyto(y, total, casting="same_kind")


def average_pool_backward(dy: np.ndarray, dx: np.ndarray, share: np.ndarray, z: VolumePoolSizes) -> None:
    """Fill dx: each pixel gets the sum of dy times share (Z, P, Q) over the windows it lies in."""
    last, kind = is_channels_last(dx), accumulator(dy.dtype)
    planes, depths = _planes(z, last), _depths(z, last)
    sums = _pooled_planes(z, kind, last)
    total = dx if dx.dtype == kind else empty(z.image, kind, channels_last=last)
    gradient = dy.astype(kind, copy=False)
    run = passes("average_pool", kind)
    run.backward(_as_rows(gradient, last), _as_rows(sums, last), _over_depths(share, z, last), depths)
    run.backward(_as_planes(sums, last), _as_planes(total, last), np.ones((z.P, z.Q), kind), planes)
    if total is not dx:
        np.copyto(dx, total, casting="same_kind")


# How a volume is seen ---------------------------------------------------------------------------------------------------


def _planes(z: VolumePoolSizes, last: bool) -> PoolSizes:
    """Return the sizes of pooling every plane of a volume; last: it is stored as (N, D, H, W, C)."""
    N, C = (z.N * z.D, z.C) if last else (z.N * z.C, z.D)
    (_, *stride), (_, *pad), (_, *behind), (_, *dilation) = z.stride, z.pad, z.behind, z.dilation
    options = tuple(stride), tuple(pad), tuple(behind), tuple(dilation)
    return PoolSizes(N, C, z.H, z.W, z.R, z.S, z.P, z.Q, *options)  # type: ignore[arg-type]


def _depths(z: VolumePoolSizes, last: bool) -> PoolSizes:
    """Return the sizes of pooling pooled planes over their depth."""
    N, row = (z.N, z.P * z.Q * z.C) if last else (z.N * z.C, z.P * z.Q)
    options = (z.stride[0], 1), (z.pad[0], 0), (z.behind[0], 0), (z.dilation[0], 1)
    return PoolSizes(N, 1, z.D, row, z.T, 1, z.Z, row, *options)


def _pooled_planes(z: VolumePoolSizes, dtype: np.dtype, last: bool) -> np.ndarray:
    """Return an uninitialised volume of pooled planes."""
    return empty((z.N, z.C, z.D, z.P, z.Q), dtype, channels_last=last)


def _as_planes(volume: np.ndarray, last: bool) -> np.ndarray:
    """Return a volume as images of its planes, in the same memory format."""
    N, C, D, H, W = volume.shape
    if last:
        return _stored(volume, last).reshape(N * D, H, W, C).transpose(0, 3, 1, 2)
    return _stored(volume, last).reshape(N * C, D, H, W)


def _as_rows(volume: np.ndarray, last: bool) -> np.ndarray:
    """Return a volume as images of one channel, with a row for each plane."""
    N, C, D, H, W = volume.shape
    return _stored(volume, last).reshape((N, 1, D, H * W * C) if last else (N * C, 1, D, H * W))


def _stored(volume: np.ndarray, last: bool) -> np.ndarray:
    """Return a volume's axes in their order of storage, without gaps: copied if need be."""
    return np.ascontiguousarray(volume.transpose(0, 2, 3, 4, 1) if last else volume)


def _over_depths(share: np.ndarray, z: VolumePoolSizes, last: bool) -> np.ndarray:
    """Return the shares of windows as they lie over depths."""
    return np.repeat(share.reshape(z.Z, -1), z.C if last else 1, axis=1)


# What the passes of images leave to be done ------------------------------------------------------------------------------


@quiet
def _join(places: int, depths: PoolSizes, plane: np.ndarray, place: np.ndarray, argmax: np.ndarray) -> None:
    """Fill argmax with the places of maxima in their boxes, from the planes they are in and the places there."""

    def work(images: slice) -> None:
        winner, inner, result = plane[images], place[images], argmax[images]
        for t, source, target in taps(depths):
            hit = scratch_like("hit", winner[target], _BOOL)
            np.equal(winner[target], winner.dtype.type(t), out=hit)
            number = scratch_like("number", hit, result.dtype)
            np.add(inner[source], result.dtype.type(t * places), out=number, casting="same_kind")
            np.copyto(result[target], number, where=hit)

    for_each(work, image_ranges(place, BLOCK_ELEMENTS))


@quiet
def _part(
    places: int, depths: PoolSizes, dy: np.ndarray, argmax: np.ndarray, gradient: np.ndarray, place: np.ndarray
) -> None:
    """Fill gradient with dy where planes have the maxima of boxes, and place with where those lie in them."""

    def work(images: slice) -> None:
        above, inner, total = dy[images], place[images], gradient[images]
        plane, where = (scratch_like(name, above, np.dtype(np.int32)) for name in ("plane", "where"))
        np.divmod(argmax[images], np.int32(places), out=(plane, where))
        total.fill(0)
        added = RunningSum(total, depths.R)
        for t, source, target in taps(depths):
            hit = scratch_like("hit", above[target], _BOOL)
            np.equal(plane[target], t, out=hit)
            np.copyto(inner[source], where[target], where=hit, casting="unsafe")  # into a byte, where that has room
            pixels = added.next()[source]
            np.add(pixels, above[target], out=pixels, where=hit)
        added.close()

    for_each(work, image_ranges(place, BLOCK_ELEMENTS))
