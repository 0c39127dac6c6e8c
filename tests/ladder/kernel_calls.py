"""Small calls of every operator that between them launch every kernel: what the ladder runs, in each of its ways.

A call is a function of the inputs that it draws; it returns the operator's results.  The same call on the CPU backend
in float64 tells what they must be, and, where terms may cancel, how large these are.  Shapes are odd and tiny, since one call takes the emulator's check mode long.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
from compare import U_SUM, assert_close
from emulate import EmulatedArray, EmulatedDevice
from norm_scales import batchnorm_scales, groupnorm_scales
from places import LAYOUTS

import gpuconv
from gpuconv import backend
from gpuconv.cuda import conv, kernel, reduce
from gpuconv.cuda import device as cuda_device
from gpuconv.random import Stream, words

DTYPES = ("float32", "float16", "float64")
FORMATS = ("NCHW", "NHWC")


class Inputs:
    """Draws the inputs of a call, rounded to a dtype, and stores them where and how the call is to run.

    place: makes and reads arrays, one of places.py's.  wide: the same numbers as float64.
    """

    def __init__(self, place: Any, dtype: str, memory: str, *, wide: bool = False) -> None:
        self.place, self.memory, self.wide = place, memory, wide
        self.narrow = np.dtype(dtype)
        self.dtype = np.dtype(np.float64) if wide else self.narrow
        self._rng = np.random.default_rng(3)

    @property
    def channels_last(self) -> bool:
        return self.memory == "NHWC"

    def put(self, host: np.ndarray, layout: str | None = None) -> Any:
        """Store an array: images in the memory format of this run, unless one of LAYOUTS is named."""
        if host.dtype == self.narrow:
            host = host.astype(self.dtype)
        chosen = layout or ("channels_last" if self.channels_last and host.ndim == 4 else "c_order")
        return self.place.array(LAYOUTS[chosen](host))

    def normal(self, *shape: int, layout: str | None = None) -> Any:
        return self.put(self._rng.standard_normal(shape).astype(self.narrow), layout)

    def whole(self, *shape: int, layout: str | None = None) -> Any:
        """Return whole numbers from -4 to 4, whose sums are exact in any order: each wrong term shows."""
        return self.put(self._rng.integers(-4, 5, shape).astype(self.narrow), layout)

    def positive(self, *shape: int, layout: str | None = None) -> Any:
        return self.put((0.5 + self._rng.random(shape)).astype(self.narrow), layout)

    def special(self, *shape: int) -> Any:
        """Return whole numbers with ties, NaN, infinities and both zeros among them."""
        host = self._rng.integers(-2, 3, shape).astype(self.narrow)
        flat = host.reshape(-1)
        for value in (np.nan, np.inf, -np.inf, -0.0):
            flat[self._rng.integers(0, flat.size, max(1, flat.size // 15))] = value
        return self.put(host)

    def shifted(self, *shape: int) -> Any:
        """Return random numbers stored from the second element of an allocation on: no pack of 16 bytes is aligned."""
        last = self.channels_last and len(shape) == 4
        kept = (shape[0], *shape[2:], shape[1]) if last else shape
        flat = self._rng.standard_normal(int(np.prod(shape)) + 1).astype(self.narrow)
        array = self.put(flat)[1:].reshape(kept)
        return array.transpose(0, 3, 1, 2) if last else array

    def integers(self, low: int, high: int, shape: tuple[int, ...], dtype: str, layout: str | None = None) -> Any:
        return self.put(self._rng.integers(low, high, shape, dtype), layout)


@dataclass(frozen=True)
class Scaled:
    """An expected result whose terms may cancel, and what their sizes add up to: `scale` of compare.assert_close."""

    values: Any
    scale: np.ndarray


Results = tuple[Any, ...]
Expected = list["np.ndarray | Scaled | None"]


@dataclass(frozen=True)
class Call:
    """One named call; `quick` ones run at each change, all of them in the ladder."""

    name: str
    run: Callable[[Inputs], Results]
    quick: bool = True
    dtypes: tuple[str, ...] = DTYPES
    formats: tuple[str, ...] = FORMATS
    settings: tuple[tuple[Any, str, int], ...] = ()  # (module, name, value) of launchers, for small shapes

    def on(self, place: Any, dtype: str, memory: str) -> list[np.ndarray | None]:
        """Run at one of the places of places.py; return the results on the host."""
        return self._host(Inputs(place, dtype, memory))

    def expected(self, dtype: str, memory: str) -> Expected:
        """Run on the CPU backend in float64, from the same rounded inputs."""
        return self._host(Inputs(_Host, dtype, memory, wide=True))

    def by_oracle(self, dtype: str, memory: str) -> Expected:
        """Run on the oracle, plain loops in float64, from the same rounded inputs."""
        with mock.patch.dict(backend._PACKAGE_OF, {"NumPy": "gpuconv.naive"}):
            return self.expected(dtype, memory)

    def _host(self, inputs: Inputs) -> list[Any]:
        with ExitStack() as stack:
            for module, name, value in self.settings:
                stack.enter_context(mock.patch.object(module, name, value))
            results = self.run(inputs)
            return [r if r is None or isinstance(r, Scaled) else inputs.place.numpy(r) for r in results]


class _Host:
    @staticmethod
    def array(a: np.ndarray) -> np.ndarray:
        return a

    @staticmethod
    def numpy(a: np.ndarray) -> np.ndarray:
        return a


# Relative to the largest result: several roundings of each dtype, far less than one wrong term.  For results without a
# scale: sums of whole numbers, which are exact but for how they are stored, and of terms that do not cancel.
_TOLERANCE = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-13}


def assert_as_expected(got: Sequence[np.ndarray | None], expected: Sequence[np.ndarray | Scaled | None]) -> None:
    """Hold results to those of the CPU backend: NaN and infinities, indices and masks exactly, numbers nearly."""
    assert len(got) == len(expected)
    for i, (actual, wanted) in enumerate(zip(got, expected, strict=True)):
        assert (actual is None) == (wanted is None), f"result {i}"
        if actual is None or wanted is None:
            continue
        if isinstance(wanted, Scaled):
            try:
                assert_close(actual, wanted.values, scale=wanted.scale, dtype=actual.dtype)
            except AssertionError as error:
                msg = f"result {i}: {error}"
                raise AssertionError(msg) from None
            continue
        assert actual.shape == wanted.shape, f"result {i}: shape {actual.shape}, expected {wanted.shape}"
        if wanted.dtype.kind != "f":
            np.testing.assert_array_equal(actual, wanted, f"result {i}")
            continue
        with np.errstate(over="ignore"):
            stored = wanted.astype(actual.dtype).astype(np.float64)  # beyond its range, a float16 result is infinite
        finite = np.isfinite(stored)
        beside = [np.where(finite, 0.0, values.astype(np.float64)) for values in (actual, stored)]
        np.testing.assert_array_equal(*beside, f"result {i}")
        size = np.abs(wanted[finite]).max(initial=0.0)
        allowed = _TOLERANCE[actual.dtype.name] * size
        np.testing.assert_allclose(
            actual[finite].astype(np.float64), wanted[finite], rtol=0, atol=allowed, err_msg=f"result {i}"
        )


# The calls ----------------------------------------------------------------------------------------------------------


def _conv(
    x: tuple[int, ...],
    w: tuple[int, ...],
    *,
    bias: bool = True,
    special: bool = False,
    special_filters: bool = False,
    infinite_filter: bool = False,
    infinite_pixel: bool = False,
    **options: Any,
) -> Callable[[Inputs], Results]:
    def run(d: Inputs) -> Results:
        image = d.special(*x) if special else d.whole(*x)
        filters = d.special(*w) if special_filters else d.whole(*w)
        if infinite_filter:  # one tap of one channel: dx is NaN or infinite just where that tap reaches it
            filters[0, 0, 0, 0] = np.inf
        if infinite_pixel:  # in the last row: no window above reaches it
            image[0, 0, -1, 0] = np.inf
        y, cache = gpuconv.conv_forward(image, filters, d.whole(w[0]) if bias else None, **options)
        return y, *gpuconv.conv_backward(d.whole(*y.shape), cache)

    return run


def _anywhere_conv(d: Inputs) -> Results:
    y, cache = gpuconv.conv_forward(d.shifted(2, 16, 5, 4), d.whole(16, 16, 2, 2))
    return y, *gpuconv.conv_backward(d.shifted(*y.shape), cache)


def _conv_relu(d: Inputs) -> Results:
    """The epilogue with ReLU, which no operator of the public face asks for."""
    x, w, b = d.whole(2, 3, 5, 4), d.whole(4, 3, 2, 2), d.whole(4)
    if isinstance(x, np.ndarray) and type(x) is np.ndarray:
        return (gpuconv.relu_forward(gpuconv.conv_forward(x, w, b)[0])[0],)
    _, cache = gpuconv.conv_forward(x, w, b)
    return (conv.convolve(x, w, b, cache.sizes, relu=True),)


def _dropout_at_the_threshold(d: Inputs) -> Results:
    """One element's random word is the threshold itself: it is kept."""
    word = int(words(12, seed=5, stream=Stream.DROPOUT)[3] >> 32)
    y, cache = gpuconv.dropout_forward(d.normal(4, 6), rate=word / 2**32, seed=5)
    return y, gpuconv.dropout_backward(d.normal(4, 6), cache)


def _max_pool_of_nothing(d: Inputs) -> Results:
    """No pixel beats the start: the first in the image is the maximum."""
    y, cache = gpuconv.max_pool_forward(d.put(np.full((1, 2, 6, 7), -np.inf, d.narrow)), window=3, stride=2, pad=1)
    return y, cache.argmax, gpuconv.max_pool_backward(d.whole(*y.shape), cache)


def _pool(name: str, shape: tuple[int, ...], *, special: bool = False, **options: Any) -> Callable[[Inputs], Results]:
    def run(d: Inputs) -> Results:
        y, cache = getattr(gpuconv, f"{name}_forward")(d.special(*shape) if special else d.whole(*shape), **options)
        dx = getattr(gpuconv, f"{name}_backward")(d.whole(*y.shape), cache)
        return (y, dx, cache.argmax) if hasattr(cache, "argmax") else (y, dx)

    return run


def _scaled(d: Inputs, results: Results, scales: Callable[[], Sequence[Any]]) -> Results:
    """Return the results, those that others will be held to with their scales."""
    if not d.wide:
        return results
    return tuple(Scaled(values, scale) for values, scale in zip(results, scales(), strict=True))


def _norm(name: str, d: Inputs, x: Any, vectors: Sequence[Any], dy: Callable[[], Any], **options: Any) -> Results:
    """Run a normalisation forward and backward: y, dx, dgamma, dbeta and batch norm's running mean and variance."""
    before = [v.copy() for v in vectors] if d.wide else []
    y, cache = getattr(gpuconv, f"{name}_forward")(x, *vectors, **options)
    gradient = dy()
    results = y, *getattr(gpuconv, f"{name}_backward")(gradient, cache)
    if name in ("groupnorm", "layernorm"):
        return _scaled(d, results, lambda: groupnorm_scales(x, *before, gradient, **options)[:4])
    unit = U_SUM[d.narrow.name]
    return _scaled(d, (*results, *vectors[2:]), lambda: batchnorm_scales(x, *before, gradient, unit=unit, **options))


def _batchnorm(shape: tuple[int, ...], *, mean: float = 2.0, **options: Any) -> Callable[[Inputs], Results]:
    def run(d: Inputs) -> Results:
        C = shape[1]
        running_mean, running_var = d.normal(C), d.positive(C)
        x = d.put((d._rng.standard_normal(shape) + mean).astype(d.narrow))
        vectors = d.normal(C), d.normal(C), running_mean, running_var
        name = "spatial_batchnorm" if len(shape) == 4 else "batchnorm"
        return _norm(name, d, x, vectors, lambda: d.normal(*shape), **options)

    return run


def _constant_channels(d: Inputs) -> Results:
    """Two chunks a channel of one value so large that sums must be those of deviations from it."""
    values = np.array([0.1, float(np.finfo(d.narrow).max) / 4, -3.3]).reshape(1, 3, 1, 1)
    x = d.put(np.broadcast_to(values, (1, 3, 130, 64)).astype(d.narrow))
    vectors = [d.positive(3) for _ in range(4)]
    return (gpuconv.spatial_batchnorm_forward(x, *vectors)[0],)


def _groupnorm(shape: tuple[int, ...], *, mean: float = 2.0, **options: Any) -> Callable[[Inputs], Results]:
    def run(d: Inputs) -> Results:
        name = "groupnorm" if len(shape) == 4 else "layernorm"
        x = d.put((d._rng.standard_normal(shape) + mean).astype(d.narrow))
        vectors = d.normal(shape[1]), d.normal(shape[1])
        return _norm(name, d, x, vectors, lambda: d.normal(*shape), **options)

    return run


def _elementwise(
    name: str, shape: tuple[int, ...], *, layout: str | None = None, **options: Any
) -> Callable[[Inputs], Results]:
    def run(d: Inputs) -> Results:
        y, cache = getattr(gpuconv, f"{name}_forward")(d.normal(*shape, layout=layout), **options)
        return y, getattr(gpuconv, f"{name}_backward")(d.normal(*shape, layout=layout), cache)

    return run


def _anywhere(name: str, shape: tuple[int, ...], which: str, **options: Any) -> Callable[[Inputs], Results]:
    """Return a call whose x, dy or both lie where no 16 bytes are aligned."""

    def run(d: Inputs) -> Results:
        def make(part: str, *sizes: int) -> Any:
            return d.shifted(*sizes) if part in which else d.normal(*sizes)

        vectors = {"batchnorm": 4, "spatial_batchnorm": 4, "groupnorm": 2}.get(name, 0)
        extra = [d.positive(shape[1]) for _ in range(vectors)]
        if vectors:
            return _norm(name, d, make("x", *shape), extra, lambda: make("dy", *shape), **options)
        y, cache = getattr(gpuconv, f"{name}_forward")(make("x", *shape), **options)
        back = getattr(gpuconv, f"{name}_backward")(make("dy", *y.shape), cache)
        return y, *(back if isinstance(back, tuple) else (back,))

    return run


def _relu_special(d: Inputs) -> Results:
    y, cache = gpuconv.relu_forward(d.special(5, 41))
    return y, gpuconv.relu_backward(d.whole(5, 41), cache)


def _loss(
    name: str, shape: tuple[int, int], labels: str, *, layout: str | None = None, **options: Any
) -> Callable[[Inputs], Results]:
    def run(d: Inputs) -> Results:
        scores, found = d.normal(*shape), d.integers(0, shape[1], (shape[0],), labels, layout)
        found[0] = 0
        return tuple(getattr(gpuconv, name)(scores, found, **options))

    return run


def _bad_labels(d: Inputs) -> Results:
    """A label out of range gives NaN on a GPU, which cannot raise; the CPU raises."""
    scores, labels = d.normal(3, 4), d.put(np.array([1, 4, -1]))
    if type(scores) is np.ndarray:
        good = gpuconv.softmax_cross_entropy(scores, np.array([1, 0, 0]))[1]
        good[1:] = np.nan
        return np.full((), np.nan), good
    loss, dscores = gpuconv.softmax_cross_entropy(scores, labels)
    return loss, dscores


def _update(
    name: str, count: int, states: int, *, layout: str | None = None, **options: Any
) -> Callable[[Inputs], Results]:
    def run(d: Inputs) -> Results:
        vectors = [d.normal(count, layout=layout), d.normal(count, layout=layout)]
        vectors += [d.positive(count, layout=layout) for _ in range(states)]
        getattr(gpuconv, name)(*vectors, **options)
        return tuple(vectors)

    return run


def _affine(x: tuple[int, ...], out: int, *, bias: bool = True, turned: bool = False) -> Callable[[Inputs], Results]:
    def run(d: Inputs) -> Results:
        w = d.whole(int(np.prod(x[1:])), out, layout="fortran" if turned else None)
        y, cache = gpuconv.affine_forward(d.whole(*x), w, d.whole(out) if bias else None)
        return y, *gpuconv.affine_backward(d.whole(*y.shape), cache)

    return run


def _augment(
    shape: tuple[int, ...], pad: int, *, flip: bool, drawn: bool = True, layout: str | None = None, **moves: Any
) -> Callable[[Inputs], Results]:
    def run(d: Inputs) -> Results:
        images = d.integers(0, 256, shape, "uint8", layout)
        draws = d.put(words(shape[0], seed=1, stream=Stream.AUGMENT)) if drawn else None
        levels = {"mean": [0.5, 0.4, 0.3][: shape[1]], "std": [0.25, 0.2, 0.3][: shape[1]]}
        form = {"dtype": d.dtype, "channels_last": d.channels_last}
        return (gpuconv.augment(images, draws, **levels, pad=pad, flip=flip, **moves, **form),)

    return run


def _all_finite(d: Inputs) -> Results:
    arrays = [d.normal(5, 41), d.special(5, 41), *(d.normal(20) for _ in range(8))]
    for place, array in enumerate(arrays[2:]):  # of a pack
        array[8 + place] = np.nan
    return tuple(np.array(backend.all_finite(x)) for x in arrays)


_ONE_THREAD_MERGES_LITTLE = ((reduce, "_MERGED_BY_ONE_THREAD", 1),)
_LARGEST_TILES = ((conv, "_ENOUGH_BLOCKS", 0),)
_FEW_SLICES = ((conv, "_PARTIAL_SUMS", 256),)

CALLS = {
    call.name: call
    for call in (
        Call("conv_first_layer", _conv((2, 3, 6, 5), (17, 3, 3, 3), pad=1)),
        Call(
            "conv_everything_differs",
            _conv((3, 4, 9, 8), (6, 2, 3, 2), bias=False, stride=(2, 1), pad=(1, 2), dilation=(2, 3), groups=2),
        ),
        Call("conv_strides_in_both", _conv((2, 3, 8, 9), (2, 3, 2, 3), stride=(3, 2), pad=(0, 1))),
        Call("conv_many_filters", _conv((3, 1, 7, 9), (35, 1, 1, 1)), quick=False),
        Call("conv_long_slices", _conv((3, 2, 15, 13), (3, 2, 3, 3)), settings=_FEW_SLICES),
        Call("conv_long_slices_of_small_planes", _conv((101, 1, 2, 3), (7, 1, 1, 1)), settings=_FEW_SLICES),
        Call("conv_depthwise", _conv((2, 5, 6, 7), (5, 1, 3, 3), pad=1, groups=5), quick=False),
        Call("conv_in_tiles", _conv((2, 8, 7, 5), (16, 8, 3, 3), pad=1)),
        Call("conv_in_tiles_many_filters", _conv((2, 8, 4, 6), (72, 8, 1, 1)), quick=False),
        Call("conv_few_channels_longest_table", _conv((1, 2, 17, 16), (8, 2, 16, 16)), quick=False),
        Call("conv_few_channels_infinite_pixel", _conv((1, 2, 8, 5), (17, 2, 3, 3), infinite_pixel=True)),
        Call("conv_in_tiles_groups_of_several", _conv((1, 16, 3, 4), (144, 8, 1, 1), groups=2), quick=False),
        Call("conv_in_tiles_phases_of_nothing", _conv((1, 16, 2, 7), (8, 16, 1, 1), stride=3), quick=False),
        Call("conv_in_tiles_odd", _conv((3, 17, 8, 7), (19, 17, 3, 2), stride=2, pad=1, bias=False)),
        Call("conv_in_tiles_groups", _conv((2, 32, 4, 6), (48, 16, 1, 3), pad=(0, 1), groups=2), quick=False),
        Call("conv_in_tiles_one_by_one", _conv((3, 16, 5, 7), (40, 16, 1, 1)), quick=False),
        Call("conv_in_tiles_dilated", _conv((2, 8, 9, 11), (16, 8, 3, 3), stride=(1, 2), dilation=(2, 1)), quick=False),
        Call("conv_in_tiles_by_threes", _conv((2, 16, 10, 8), (16, 16, 3, 2), stride=3, pad=(2, 1))),
        Call(
            "conv_in_tiles_infinite_filters",
            _conv((2, 17, 5, 4), (8, 17, 2, 2), special_filters=True, pad=1, stride=(1, 2)),
        ),
        Call(
            "conv_in_tiles_infinite_tap",
            _conv((2, 17, 5, 4), (9, 17, 2, 2), infinite_filter=True, stride=(1, 2)),
        ),
        Call("conv_large_tiles", _conv((2, 9, 7, 5), (70, 9, 3, 3), pad=1), quick=False, settings=_LARGEST_TILES),
        Call("conv_slim_tiles", _conv((2, 8, 6, 5), (36, 8, 3, 3), pad=1), quick=False, settings=_LARGEST_TILES),
        Call("conv_narrow_tiles", _conv((2, 8, 6, 5), (20, 8, 2, 3)), quick=False, settings=_LARGEST_TILES),
        Call("conv_nan_and_inf", _conv((1, 2, 6, 5), (2, 2, 3, 3), pad=1, special=True)),
        Call("conv_relu", _conv_relu),
        Call("max_pool_halves", _pool("max_pool", (2, 3, 5, 16), window=2)),
        Call("max_pool_halves_special", _pool("max_pool", (1, 3, 6, 8), special=True, window=2)),
        Call("max_pool_two_odd_width", _pool("max_pool", (2, 8, 5, 7), window=2)),
        Call("max_pool_three_overlapping", _pool("max_pool", (2, 8, 8, 7), special=True, window=3, stride=2, pad=1)),
        Call(
            "max_pool_any_window",
            _pool("max_pool", (2, 3, 9, 8), special=True, window=(2, 5), stride=(3, 1), pad=(1, 2)),
        ),
        Call("max_pool_minus_infinity", _max_pool_of_nothing),
        Call("max_pool_large_window", _pool("max_pool", (1, 3, 19, 21), special=True, window=(17, 16), stride=2)),
        Call("max_pool_ties_split", _pool("max_pool", (2, 3, 5, 8), window=2, ties="split")),
        Call(
            "max_pool_ties_every",
            _pool("max_pool", (2, 8, 8, 7), special=True, window=3, stride=2, pad=1, ties="every"),
        ),
        Call(
            "max_pool_ties_split_overlapping",
            _pool("max_pool", (1, 3, 9, 8), special=True, window=(2, 5), stride=(3, 1), pad=(1, 2), ties="split"),
            quick=False,
        ),
        Call("average_pool_two", _pool("average_pool", (2, 8, 5, 6), window=2)),
        Call("average_pool_count_pad", _pool("average_pool", (2, 3, 7, 6), window=3, stride=2, pad=1)),
        Call(
            "average_pool_real_pixels",
            _pool("average_pool", (2, 8, 7, 5), window=(3, 2), stride=(1, 2), pad=(1, 1), count_pad=False),
        ),
        Call(
            "average_pool_real_pixels_odd",
            _pool("average_pool", (1, 3, 8, 5), window=3, pad=1, count_pad=False),
            quick=False,
        ),
        Call("global_pool_small_planes", _pool("global_average_pool", (3, 5, 7, 5))),
        Call("global_pool_wide_planes", _pool("global_average_pool", (3, 40, 2, 4))),
        Call("global_pool_large_planes", _pool("global_average_pool", (1, 3, 25, 23))),
        Call("batchnorm_rows", _batchnorm((37, 5))),
        Call("batchnorm_rows_in_packs", _batchnorm((70, 24)), settings=_ONE_THREAD_MERGES_LITTLE),
        Call("batchnorm_many_rows", _batchnorm((600, 40)), quick=False, settings=_ONE_THREAD_MERGES_LITTLE),
        Call("batchnorm_images", _batchnorm((3, 5, 5, 7), momentum=0.7, eps=1e-3)),
        Call("batchnorm_images_in_packs", _batchnorm((2, 8, 4, 8))),
        Call("batchnorm_several_chunks", _batchnorm((4, 2, 33, 35)), settings=_ONE_THREAD_MERGES_LITTLE),
        Call("batchnorm_two_chunks", _batchnorm((4, 1, 36, 36)), quick=False),
        Call("batchnorm_chunks_of_one_plane", _batchnorm((1, 2, 130, 64)), quick=False),
        Call("batchnorm_constant_channels", _constant_channels, quick=False),
        Call("batchnorm_stored_moments", _batchnorm((2, 3, 4, 5), training=False)),
        Call("batchnorm_stored_moments_rows", _batchnorm((9, 8), training=False)),
        Call("groupnorm_images", _groupnorm((3, 6, 5, 7), groups=2, eps=1e-3)),
        Call("groupnorm_in_packs", _groupnorm((2, 24, 4, 8), groups=8)),
        Call("groupnorm_several_chunks", _groupnorm((4, 2, 33, 35), groups=1), settings=_ONE_THREAD_MERGES_LITTLE),
        Call("layernorm_rows", _groupnorm((37, 5))),
        Call("layernorm_wide_rows", _groupnorm((5, 1030)), quick=False),
        Call("relu_rows", _elementwise("relu", (3, 701))),
        Call("relu_images", _elementwise("relu", (2, 3, 5, 7)), quick=False),
        Call("relu_special", _relu_special),
        Call("gelu", _elementwise("gelu", (3, 701))),
        Call("gelu_tanh", _elementwise("gelu", (2, 3, 5, 3), approximate="tanh")),
        Call("dropout_one_run", _elementwise("dropout", (2, 3), rate=0.5)),
        Call("dropout_word_at_the_threshold", _dropout_at_the_threshold),
        Call("dropout_two_runs_a_plane", _elementwise("dropout", (2, 6, 3, 5), rate=0.3)),
        Call("dropout_rows", _elementwise("dropout", (3, 701), rate=0.3, seed=7, step=2)),
        Call("dropout_images", _elementwise("dropout", (3, 5, 3, 7), rate=0.6, seed=2**63 + 5, step=2**40)),
        Call("dropout_of_nothing", _elementwise("dropout", (2, 5, 3, 3), rate=0.0)),
        *(
            Call(f"{name}_{which}_anywhere", _anywhere(name, shape, which, **options))
            for name, shape, options in (
                ("relu", (2, 41), {}),
                ("gelu", (2, 41), {}),
                ("dropout", (2, 41), {"rate": 0.4}),
                ("batchnorm", (9, 8), {}),
                ("spatial_batchnorm", (2, 8, 4, 4), {}),
                ("groupnorm", (2, 8, 4, 4), {"groups": 2}),
                ("max_pool", (2, 8, 4, 8), {}),
                ("average_pool", (2, 8, 4, 6), {}),
                ("global_average_pool", (2, 8, 4, 4), {}),
            )
            for which in ("x", "dy")
        ),
        Call("conv_in_tiles_x_anywhere", _anywhere_conv),
        Call("copy_of_strided_rows", _elementwise("relu", (4, 3, 5), layout="fortran")),
        Call("copy_backwards", _elementwise("relu", (3, 2, 4, 5), layout="negative_strides")),
        Call("copy_every_second", _elementwise("relu", (3, 4, 5), layout="every_second_column")),
        Call("copy_seven_axes", _elementwise("relu", (2, 2, 3, 2, 2, 2, 3), layout="fortran")),
        Call("copy_between_formats", _batchnorm((2, 37, 5, 7))),
        Call("copy_of_one_format", _elementwise("dropout", (2, 35, 5, 7), rate=0.0)),
        Call("softmax", _loss("softmax_cross_entropy", (5, 10), "int64")),
        Call("softmax_smoothed", _loss("softmax_cross_entropy", (9, 67), "int32", label_smoothing=0.2)),
        Call("softmax_of_a_view", _loss("softmax_cross_entropy", (300, 3), "int64", layout="negative_strides")),
        Call("softmax_bad_labels", _bad_labels),
        Call("svm", _loss("svm_loss", (5, 10), "int32")),
        Call("svm_many_classes", _loss("svm_loss", (9, 67), "int64", margin=0.5)),
        Call("sgd", _update("sgd_update", 2101, 0, lr=0.1, weight_decay=0.1)),
        Call("sgd_momentum", _update("sgd_update", 37, 1, lr=0.1, momentum=0.9, weight_decay=0.01)),
        Call(
            "sgd_nesterov_view",
            _update("sgd_update", 37, 1, layout="every_second_column", lr=0.1, momentum=0.9, nesterov=True),
        ),
        Call("rmsprop", _update("rmsprop_update", 2101, 1, lr=0.1, weight_decay=0.01)),
        Call("rmsprop_view", _update("rmsprop_update", 37, 1, layout="every_second_column", lr=0.1)),
        Call("adam", _update("adam_update", 37, 2, lr=0.1, step=3, weight_decay=0.1)),
        Call(
            "adam_decoupled_view",
            _update(
                "adam_update", 37, 2, layout="every_second_column", lr=0.1, step=3, weight_decay=0.1, decoupled=True
            ),
        ),
        Call("all_finite", _all_finite),
        Call("affine", _affine((5, 7), 3)),
        Call("affine_many_rows", _affine((1100, 2), 3), quick=False),
        Call("affine_in_packs", _affine((5, 3), 16)),
        Call("affine_of_images", _affine((5, 3, 2, 3), 9, turned=True)),
        Call("affine_without_bias", _affine((5, 8), 4, bias=False)),
        Call("augment", _augment((5, 3, 6, 5), 2, flip=True)),
        Call("augment_far", _augment((7, 2, 4, 3), 4, flip=False, layout="negative_strides")),
        Call("augment_as_it_is", _augment((2, 3, 4, 4), 0, flip=False, drawn=False)),
        Call("augment_reflected", _augment((9, 2, 4, 5), 3, flip=True, pad_mode="reflect")),
        Call("augment_cut_out", _augment((9, 2, 5, 6), 1, flip=True, cutout=3)),
        Call("augment_reflected_and_cut", _augment((6, 1, 6, 4), 2, flip=False, pad_mode="reflect", cutout=4)),
    )
}


# Random calls -------------------------------------------------------------------------------------------------------


def random_call(seed: int) -> tuple[Call, str, str]:
    """Return a call of a random operator at a random small size, with a dtype and a memory format."""
    rng = random.Random(seed)
    make = rng.choice([_random_conv] * 4 + [_random_pool] * 3 + [_random_norm] * 2 + [_random_rest])
    call = Call(f"random {seed}", make(rng))
    return call, rng.choice(DTYPES), rng.choice(FORMATS)


def _random_conv(rng: random.Random) -> Callable[[Inputs], Results]:
    groups = rng.choice((1, 1, 1, 2, 3))
    C, K = groups * rng.choice((1, 2, 3, 4, 8, 9)), groups * rng.choice((1, 2, 5, 16, 19))
    window = rng.randint(1, 3), rng.randint(1, 3)
    stride, dilation = (rng.randint(1, 3), rng.randint(1, 3)), (rng.randint(1, 2), rng.randint(1, 2))
    pad = rng.randint(0, 2), rng.randint(0, 2)
    sizes = [max(1, (w - 1) * d + 1 - 2 * p) + rng.randint(0, 4) for w, d, p in zip(window, dilation, pad, strict=True)]
    return _conv(
        (rng.randint(1, 3), C, *sizes),
        (K, C // groups, *window),
        bias=rng.random() < 0.5,
        stride=stride,
        pad=pad,
        dilation=dilation,
        groups=groups,
    )


def _random_pool(rng: random.Random) -> Callable[[Inputs], Results]:
    N, C = rng.randint(1, 3), rng.choice((1, 3, 8, 16))
    name = rng.choice(("max_pool", "average_pool", "global_average_pool"))
    if name == "global_average_pool":
        return _pool(name, (N, C, rng.randint(1, 30), rng.randint(1, 30)))
    window = rng.choice(((2, 2), (3, 3), (rng.randint(1, 4), rng.randint(1, 4))))
    pad = rng.randint(0, window[0] // 2), rng.randint(0, window[1] // 2)
    options: dict[str, Any] = {"window": window, "pad": pad}
    if rng.random() < 0.6:
        options["stride"] = rng.randint(1, 3), rng.randint(1, 3)
    if name == "average_pool":
        options["count_pad"] = rng.random() < 0.5
    if name == "max_pool":
        options["ties"] = rng.choice(("first", "first", "split", "every"))
    shape = N, C, window[0] + rng.randint(0, 6), rng.choice((8, 16, window[1] + rng.randint(0, 6)))
    return _pool(name, shape, special=name == "max_pool" and rng.random() < 0.5, **options)


def _random_norm(rng: random.Random) -> Callable[[Inputs], Results]:
    if rng.random() < 0.3:
        groups, members = rng.choice((1, 2, 3, 8)), rng.choice((1, 2, 3, 4))
        if rng.random() < 0.3:
            return _groupnorm((rng.randint(1, 20), rng.choice((2, 7, 40, 300))))
        return _groupnorm((rng.randint(1, 3), groups * members, rng.randint(1, 9), rng.randint(2, 9)), groups=groups)
    C = rng.choice((1, 3, 8, 24, 33))
    shape = (
        (rng.randint(2, 40), C) if rng.random() < 0.4 else (rng.randint(1, 3), C, rng.randint(2, 9), rng.randint(2, 9))
    )
    return _batchnorm(shape, training=rng.random() < 0.8, momentum=rng.random(), eps=rng.choice((1e-5, 1e-3)))


def _random_rest(rng: random.Random) -> Callable[[Inputs], Results]:
    shape = tuple(rng.randint(1, 9) for _ in range(rng.randint(1, 5)))
    rows, classes, count = rng.randint(1, 20), rng.randint(2, 70), rng.randint(1, 300)
    labels = rng.choice(("int32", "int64"))
    return rng.choice(
        [
            _elementwise("relu", shape, layout=rng.choice(("c_order", "fortran", "negative_strides"))),
            _elementwise("gelu", shape, approximate=rng.choice(("none", "tanh"))),
            _elementwise("dropout", shape, rate=rng.random() * 0.9, seed=rng.getrandbits(63), step=rng.getrandbits(40)),
            _loss("softmax_cross_entropy", (rows, classes), labels, label_smoothing=rng.choice((0.0, 0.1))),
            _loss("svm_loss", (rows, classes), labels, margin=rng.choice((1.0, 0.3))),
            _update("adam_update", count, 2, lr=0.1, step=rng.randint(1, 1000), weight_decay=0.1),
            _update("sgd_update", count, 1, lr=0.1, momentum=0.9, nesterov=rng.random() < 0.5),
            _affine((rows, rng.randint(1, 9)), classes, bias=rng.random() < 0.5),
            _augment((rows, 3, rng.randint(1, 9), rng.randint(1, 9)), rng.randint(0, 4), flip=rng.random() < 0.5),
        ]
    )


# Where they run -----------------------------------------------------------------------------------------------------


class Place:
    """One emulated device as a place."""

    def __init__(self, device: EmulatedDevice) -> None:
        self.device = device

    def array(self, a: np.ndarray) -> EmulatedArray:
        return self.device.same_layout(a)

    def numpy(self, a: EmulatedArray) -> np.ndarray:
        return self.device.asnumpy(a)


@contextmanager
def emulated_on(device: EmulatedDevice, *, blocks: int | None = None) -> Iterator[Place]:
    """Let emulated arrays run on a device; with `blocks`, loops over elements get no more than that many."""
    before = cuda_device._REGISTERED.get(EmulatedArray)
    cuda_device.register(EmulatedArray, lambda array: device)
    backend.register_array(EmulatedArray.__module__.partition(".")[0], EmulatedArray.__qualname__, "CuPy")
    try:
        with ExitStack() as stack:
            if blocks is not None:
                stack.enter_context(mock.patch.object(kernel, "_BLOCKS_PER_SM", blocks))
                stack.enter_context(mock.patch.object(device, "sm_count", 1))
            yield Place(device)
    finally:
        if before is not None:
            cuda_device.register(EmulatedArray, before)


@dataclass(frozen=True)
class Launched:
    """A kernel with the template arguments and the most dynamic shared memory that some call launches it with."""

    kernel: kernel.Kernel
    templates: tuple[Any, ...]
    expression: str
    shared: int


class _Recorder(EmulatedDevice):
    """Runs nothing: notes what is launched."""

    def __init__(self) -> None:
        super().__init__("emulated")
        self.shared: dict[str, int] = {}

    def compile(self, text: str, file: str, expressions: Sequence[str], options: Sequence[str] = ()) -> dict[str, Any]:
        return {e: e for e in expressions}

    def launch(self, function: Any, grid: Any, block: Any, args: Any, shared: int = 0) -> None:
        self.shared[function] = max(shared, self.shared.get(function, 0))


def launched(
    calls: Iterable[Call] = (), dtypes: Sequence[str] = DTYPES, formats: Sequence[str] = FORMATS
) -> dict[str, Launched]:
    """Return what the calls (default: all) launch, by C++ name; nothing is run."""
    recorder = _Recorder()
    with emulated_on(recorder) as place:
        for call in calls or CALLS.values():
            for dtype in set(dtypes) & set(call.dtypes):
                for memory in set(formats) & set(call.formats):
                    call.on(place, dtype, memory)
    found = {}
    for known in kernel.Kernel.all.values():
        for device, templates in known._ready:
            if device is recorder:
                expression = known.expression(templates)
                found[expression] = Launched(known, templates, expression, recorder.shared.get(expression, 0))
    for known in kernel.Kernel.all.values():  # the recorder is done: let it go
        for key in [key for key in known._ready if key[0] is recorder]:
            del known._ready[key]
    return dict(sorted(found.items()))


class GroupedDevice(EmulatedDevice):
    """An emulated device that builds all the kernels of a file at once: g++ needs little more time than for one."""

    def __init__(self, name: str, expressions: Iterable[Launched], **settings: Any) -> None:
        super().__init__(name, **settings)
        self._of_file: dict[str, tuple[str, ...]] = {}
        for found in expressions:
            self._of_file[found.kernel.file] = (*self._of_file.get(found.kernel.file, ()), found.expression)
        self._built: dict[str, dict[str, Any]] = {}

    def compile(self, text: str, file: str, expressions: Sequence[str], options: Sequence[str] = ()) -> dict[str, Any]:
        if not set(expressions) <= set(self._of_file.get(file, ())):
            return super().compile(text, file, expressions, options)
        if file not in self._built:
            self._built[file] = super().compile(text, file, self._of_file[file], options)
        return {e: self._built[file][e] for e in expressions}
