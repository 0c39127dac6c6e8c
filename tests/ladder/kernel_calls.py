"""Small calls of every operator that between them launch every kernel: what the ladder runs, in each of its ways.

A call is a function of the inputs that it draws; it returns the operator's results.  The same call on the CPU backend
in float64 tells what they must be, and, where terms may cancel, how large these are.  Shapes are odd and tiny, since one call takes the emulator's check mode long.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import ml_dtypes
import numpy as np
from compare import U_SUM, assert_close
from emulate import EmulatedArray, EmulatedDevice
from norm_scales import batchnorm_scales
from operators import OPERATORS, Draw, Operator, Shapes, Sizes, labels
from places import LAYOUTS

import gpuconv
from gpuconv import backend, naive, nn
from gpuconv.cuda import (
    conv,
    conv_slices,
    conv_tensor,
    conv_tiles,
    conv_weight_tensor,
    conv_weight_tensor_float,
    kernel,
    outcome,
    reduce,
    step,
    turned,
    update,
)
from gpuconv.cuda import device as cuda_device
from gpuconv.nn import vectors
from gpuconv.ops import batchnorm_fused
from gpuconv.ops.augmentation import augment_batch
from gpuconv.ops.conv import conv_backward_into
from gpuconv.ops.conv_fused import conv_forward_fused
from gpuconv.placed import Count, Number
from gpuconv.random import Stream, words
from tests.ladder import across_calls

DTYPES = ("float32", "float16", "float64")
FORMATS = ("NCHW", "NHWC")


class Inputs:
    """Draws the inputs of a call, rounded to a dtype, and stores them where and how the call is to run.

    place: makes and reads arrays, one of places.py's.  wide: the same numbers as float64.
    """

    def __init__(self, place: Any, dtype: str, memory: str, *, wide: bool = False, seed: int = 3) -> None:
        self.place, self.memory, self.wide = place, memory, wide
        self.narrow = np.dtype(dtype)
        self.dtype = np.dtype(np.float64) if wide else self.narrow
        self._rng = np.random.default_rng(seed)

    @property
    def channels_last(self) -> bool:
        return self.memory == "NHWC"

    def put(self, host: np.ndarray, layout: str | None = None) -> Any:
        """Store an array: images in the memory format of this run, unless one of LAYOUTS is named."""
        if host.dtype == self.narrow:
            host = host.astype(self.dtype)
        chosen = layout or ("channels_last" if self.channels_last and host.ndim in (4, 5) else "c_order")
        return self.place.array(LAYOUTS[chosen](host))

    def normal(self, *shape: int, layout: str | None = None) -> Any:
        return self.put(self._rng.standard_normal(shape).astype(self.narrow), layout)

    def whole(self, *shape: int, layout: str | None = None) -> Any:
        """Return whole numbers from -4 to 4, whose sums are exact in any order: each wrong term shows."""
        return self.put(self._rng.integers(-4, 5, shape).astype(self.narrow), layout)

    def positive(self, *shape: int, layout: str | None = None) -> Any:
        return self.put((0.5 + self._rng.random(shape)).astype(self.narrow), layout)

    def around_two(self, *shape: int, layout: str | None = None) -> Any:
        """Return random numbers whose mean is far from 0 beside their deviation."""
        return self.put((self._rng.standard_normal(shape) + 2.0).astype(self.narrow), layout)

    def special(self, *shape: int, layout: str | None = None) -> Any:
        """Return whole numbers with ties, NaN, infinities and both zeros among them."""
        host = self._rng.integers(-2, 3, shape).astype(self.narrow)
        flat = host.reshape(-1)
        for value in (np.nan, np.inf, -np.inf, -0.0):
            flat[self._rng.integers(0, flat.size, max(1, flat.size // 15))] = value
        return self.put(host, layout)

    def shifted(self, *shape: int, layout: str | None = None) -> Any:
        """Return random numbers stored from the second element of an allocation on: no pack of 16 bytes is aligned."""
        assert layout is None
        last = self.channels_last and len(shape) in (4, 5)
        kept = (shape[0], *shape[2:], shape[1]) if last else shape
        flat = self._rng.standard_normal(int(np.prod(shape)) + 1).astype(self.narrow)
        array = self.put(flat)[1:].reshape(kept)
        return array.transpose(0, len(shape) - 1, *range(1, len(shape) - 1)) if last else array

    def integers(self, low: int, high: int, shape: tuple[int, ...], dtype: str, layout: str | None = None) -> Any:
        return self.put(self._rng.integers(low, high, shape, dtype), layout)


@dataclass(frozen=True)
class Scaled:
    """An expected result whose terms may cancel, and what their sizes add up to: `scale` of compare.assert_close."""

    values: Any
    scale: np.ndarray


Results = tuple[Any, ...]
Settings = tuple[tuple[Any, str, Any], ...]  # (module, name, value) of launchers, for small shapes
Expected = list["np.ndarray | Scaled | None"]


@dataclass(frozen=True)
class Call:
    """One named call; `quick` ones run at each change, all of them in the ladder."""

    name: str
    run: Callable[[Inputs], Results]
    operator: str  # a row of operators.py, or what else gpuconv computes
    quick: bool = True
    dtypes: tuple[str, ...] = DTYPES
    formats: tuple[str, ...] = FORMATS
    settings: Settings = ()
    arch: int = 80  # of the emulated device that has its kernels

    def takes(self, dtype: str) -> bool:
        """Return whether it runs in a dtype: in bfloat16, of which the CPU knows nothing, wherever in float16."""
        return ("float16" if dtype == "bfloat16" else dtype) in self.dtypes

    def on(self, place: Any, dtype: str, memory: str, seed: int = 3) -> list[np.ndarray | None]:
        """Run at one of the places of places.py; return the results on the host."""
        return self._host(Inputs(place, dtype, memory, seed=seed))

    def expected(self, dtype: str, memory: str) -> Expected:
        """Run on the CPU backend in float64, from the same rounded inputs."""
        return self._host(Inputs(_Host, dtype, memory, wide=True))

    def by_oracle(self, dtype: str, memory: str) -> Expected:
        """Run on the oracle, plain loops in float64, from the same rounded inputs."""
        with on_the_oracle():
            return self.expected(dtype, memory)

    def _host(self, inputs: Inputs) -> list[Any]:
        with ExitStack() as stack:
            for module, name, value in self.settings:
                stack.enter_context(mock.patch.object(module, name, value))
            results = self.run(inputs)
            return [r if r is None or isinstance(r, Scaled) else inputs.place.numpy(r) for r in results]


@contextmanager
def on_the_oracle() -> Iterator[None]:
    """Let arrays of NumPy run on the oracle, whose means are exact here: else they round more than float64 results may."""
    plain = naive.batchnorm._mean

    def mean(values: list[float]) -> float:
        try:
            return math.fsum(values) / len(values)
        except (OverflowError, ValueError):  # beyond float64, or infinities of both signs
            return plain(values)

    with (
        mock.patch.dict(backend._PACKAGE_OF, {"NumPy": "gpuconv.naive"}),
        mock.patch.object(naive.batchnorm, "_mean", mean),
    ):
        yield


class _Host:
    @staticmethod
    def array(a: np.ndarray) -> np.ndarray:
        return a

    @staticmethod
    def numpy(a: np.ndarray) -> np.ndarray:
        return a


# Relative to the largest result: several roundings of each dtype, far less than one wrong term.  For results without a
# scale: sums of whole numbers, which are exact but for how they are stored, and of terms that do not cancel.
_TOLERANCE = {"bfloat16": 1.6e-2, "float16": 2e-3, "float32": 2e-6, "float64": 1e-13}


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


def of(
    operator: str,
    name: str,
    *,
    drawn: Mapping[str, Draw] | None = None,
    quick: bool = True,
    settings: Settings = (),
    **sizes: Any,
) -> Call:
    """Return a call of an operator at sizes as operators.py has them; `drawn` says how arrays, or dy, are drawn instead."""
    row = OPERATORS[operator]
    how = {**{array: one.drawn for array, one in row.arrays.items()}, "dy": row.dy, **(drawn or {})}
    return Call(name, lambda d: _results(d, row, sizes, how), operator, quick, settings=settings)


def rough(operator: str, name: str, *, drawn: Mapping[str, Draw] | None = None, **sizes: Any) -> Call:
    """Return a call on numbers whose sums are rounded: x and dy are normal, other floats positive."""
    floats = {array: "positive" for array, one in OPERATORS[operator].arrays.items() if one.is_float}
    return of(operator, name, drawn={**floats, "x": "normal", "dy": "normal", **(drawn or {})}, **sizes)


def _results(d: Inputs, row: Operator, sizes: Sizes, how: Mapping[str, Draw]) -> Results:
    """Return all that a call computes: outputs, gradients, arrays that it updates, places of maxima."""
    shapes, options = row.shapes(sizes), row.options_of(sizes)
    arrays = {name: _drawn(d, name, shapes, sizes, how[name]) for name in shapes}
    before = {name: array.copy() for name, array in arrays.items()} if d.wide and row.scales else None
    result = row.forward(arrays, {**options, **(row.stored(d) if row.stored else {})})
    if result is None:
        return tuple(arrays.values())
    if not row.has_backward:
        return result if isinstance(result, tuple) else (result,)
    y, cache = result
    dy = _drawn(d, "dy", {"dy": y.shape}, sizes, how["dy"])
    results = y, *row.backward(dy, cache), *(arrays[name] for name in row.writes)
    if before is not None and row.scales:
        scales = row.scales(before, dy, options, U_SUM[d.narrow.name])
        return tuple(Scaled(values, scale) for values, scale in zip(results, scales, strict=True))
    return (*results, cache.argmax) if hasattr(cache, "argmax") else results


def _drawn(d: Inputs, name: str, shapes: Shapes, sizes: Sizes, how: Draw) -> Any:
    if shapes[name] is None:
        return None
    layout = sizes.get("layout")
    if isinstance(layout, Mapping):
        layout = layout.get(name)
    return how(d, shapes, layout) if callable(how) else getattr(d, how)(*shapes[name], layout=layout)


def infinite_tap(d: Inputs, shapes: Shapes, _: str | None) -> Any:
    """Return filters with one infinite tap: dx is NaN or infinite just where that tap reaches it."""
    w = d.whole(*shapes["w"])
    w[0, 0, 0, 0] = np.inf
    return w


def _infinite_last_tap(d: Inputs, shapes: Shapes, _: str | None) -> Any:
    """Return filters whose last tap of all is infinite."""
    w = d.whole(*shapes["w"])
    w[-1, -1, -1, -1] = np.inf
    return w


def _infinite_pixel(d: Inputs, shapes: Shapes, _: str | None) -> Any:
    """Return images with an infinite pixel in the last row: no window above reaches it."""
    x = d.whole(*shapes["x"])
    x[0, 0, -1, 0] = np.inf
    return x


def _infinite_corner(d: Inputs, shapes: Shapes, _: str | None) -> Any:
    """Return gradients infinite in the last pixel of all, where windows reach over the border: no weight's is finite."""
    dy = d.whole(*shapes["dy"])
    dy[-1, :, -1, -1] = np.inf
    return dy


def _first_image_apart(d: Inputs, shapes: Shapes, _: str | None) -> Any:
    """Return images of which the first is constant, far from the others: a centre taken from it is far from their mean."""
    x = d.normal(*shapes["x"])
    x[0] = 30.0
    return x


def _minus_infinity(d: Inputs, shapes: Shapes, _: str | None) -> Any:
    """Return images of which no pixel beats the start: the first in the image is the maximum."""
    return d.put(np.full(shapes["x"], -np.inf, d.narrow))


def conv_relu(d: Inputs, filters: int = 4) -> Results:
    """The epilogue with ReLU, which no operator of the public face asks for."""
    x, w, b = d.whole(2, 3, 5, 4), d.whole(filters, 3, 2, 2), d.whole(filters)
    if isinstance(x, np.ndarray) and type(x) is np.ndarray:
        return (gpuconv.relu_forward(gpuconv.conv_forward(x, w, b)[0])[0],)
    _, cache = gpuconv.conv_forward(x, w, b)
    return (conv.convolve(x, w, b, cache.sizes, relu=True),)


def _gelu_far_out(d: Inputs) -> Results:
    """Where x squared is infinite in float32, tanh is 1 and its slope 0."""
    far = min(float(ml_dtypes.finfo(d.narrow).max), 1e30)
    x = d.put(np.array([far, -far, far / 4, -far / 4, 1.5, -1.5, 0.0], d.narrow))
    _, cache = gpuconv.gelu_forward(x, approximate="tanh")
    return (gpuconv.gelu_backward(d.put(np.full(7, 3, d.narrow)), cache),)


def fused(
    shape: tuple[int, ...],
    *,
    activation: str,
    pool: bool = False,
    join: str = "alone",
    drawn: str = "normal",
    lost: bool = False,
) -> Callable[[Inputs], Results]:
    """Return a batch norm with what follows it, as the units of nets on a GPU, and on the host the layers one by one.

    lost: every other channel is NaN, by its beta.
    """

    def run(d: Inputs) -> Results:
        x, other = getattr(d, drawn)(*shape), d.normal(*shape)
        out = (*shape[:2], shape[2] // 2, shape[3] // 2) if pool else shape
        dy, masked = getattr(d, drawn)(*out), d.normal(*out)
        gamma, mean, var = (d.positive(shape[1]) for _ in range(3))
        beta = (d.normal if pool else d.positive)(shape[1])  # of positive ones next to no maximum is below 0
        if lost:
            beta = d.put(np.where(np.arange(shape[1]) % 2, np.nan, 0.5).astype(d.narrow))
        settings = {"training": True, "momentum": 0.9, "eps": 1e-5}
        if d.wide:
            return _in_layers(d, activation, pool, join, (x, gamma, beta, mean, var), other, dy, masked)
        how = {"activation": activation, "pool": pool, "other": None if join == "alone" else other, "join": join}
        y, cache = batchnorm_fused.fused_forward(x, gamma, beta, mean, var, **settings, **how)
        dgamma, dbeta = gamma.copy(), gamma.copy()
        dx = batchnorm_fused.fused_backward_into(dy, cache, dgamma, dbeta)
        results = y, dx, dgamma, dbeta, mean, var
        if activation != "relu" or pool:
            return results
        sums = batchnorm_fused.joined(masked, cache.told), batchnorm_fused.joined(dy, cache.told, masked)
        return (*results, *sums)

    return run


def _in_layers(
    d: Inputs, activation: str, pool: bool, join: str, arrays: Results, other: Any, dy: Any, masked: Any
) -> Results:
    """Return what `fused` does, layer by layer, with the layers' results as the dtype stores them, and scales."""

    def stored(values: np.ndarray) -> np.ndarray:
        return values.astype(d.narrow).astype(np.float64)

    before = [array.copy() for array in arrays]
    forward, backward = gpuconv.spatial_batchnorm_forward, gpuconv.spatial_batchnorm_backward
    if len(arrays[0].shape) == 2:
        forward, backward = gpuconv.batchnorm_forward, gpuconv.batchnorm_backward
    z, norm = forward(*arrays)
    h = stored(stored(z) + other) if join == "before" else stored(z)
    dz, above = dy, np.ones(h.shape, bool)
    size = np.abs(h) + (0 if join == "alone" else np.abs(other))
    if activation == "relu":
        h, relu = gpuconv.relu_forward(h)
        above = h > 0
    elif activation != "identity":
        h, gelu = gpuconv.gelu_forward(h, approximate="tanh" if activation == "gelu-tanh" else "none")
        dz = stored(gpuconv.gelu_backward(dz, gelu))
    y = stored(stored(h) + other) if join == "after" else stored(h)
    if pool:
        y, places = gpuconv.max_pool_forward(y)
        size, _ = gpuconv.max_pool_forward(size)
        dz = gpuconv.max_pool_backward(dz, places)
    if activation == "relu":
        dz = gpuconv.relu_backward(dz, relu)
    scales = batchnorm_scales(*before, dz, unit=U_SUM[d.narrow.name])
    room = scales.y if not pool else gpuconv.max_pool_forward(scales.y)[0]
    gradients = (Scaled(values, scale) for values, scale in zip(backward(dz, norm), scales[1:4], strict=True))
    statistics = Scaled(arrays[3], scales.mean), Scaled(arrays[4], scales.var)
    results = Scaled(y, room + size), *gradients, *statistics
    if activation != "relu" or pool:
        return results
    return (*results, np.where(above, masked, 0.0), stored(np.where(above, dy, 0.0) + masked))


def _dropout_at_the_threshold(d: Inputs) -> Results:
    """One element's random word is the threshold itself: it is kept."""
    word = int(words(12, seed=5, stream=Stream.DROPOUT)[3] >> 32)
    y, cache = gpuconv.dropout_forward(d.normal(4, 6), rate=word / 2**32, seed=5)
    images, _ = gpuconv.dropout_forward(d.normal(2, 3, 2, 2), rate=word / 2**32, seed=5)
    return y, gpuconv.dropout_backward(d.normal(4, 6), cache), images


def _constant_channels(d: Inputs) -> Results:
    """Two chunks a channel of one value so large that sums must be those of deviations from it."""
    values = np.array([0.1, float(ml_dtypes.finfo(d.narrow).max) / 4, -3.3]).reshape(1, 3, 1, 1)
    x = d.put(np.broadcast_to(values, (1, 3, 130, 64)).astype(d.narrow))
    vectors = [d.positive(3) for _ in range(4)]
    return (gpuconv.spatial_batchnorm_forward(x, *vectors)[0],)


def _bad_labels(d: Inputs) -> Results:
    """A label out of range gives NaN on a GPU, which cannot raise; the CPU raises."""
    scores, labels = d.normal(3, 4), d.put(np.array([1, 4, -1]))
    if type(scores) is np.ndarray:
        good = gpuconv.softmax_cross_entropy(scores, np.array([1, 0, 0]))[1]
        good[1:] = np.nan
        return np.full((), np.nan), good
    loss, dscores = gpuconv.softmax_cross_entropy(scores, labels)
    return loss, dscores


def _placed(d: Inputs, number: float) -> Any:
    """Return a number by its place, on the host the number itself."""
    return number if d.wide else Number(d.put(np.array([number])))


def _held_back(d: Inputs) -> Number:
    """Return a rate of a step that does not go ahead."""
    return Number(d.put(np.array([0.5])), go=d.put(np.zeros(1, np.uint64)))


def _sums_by_place(d: Inputs) -> Results:
    """A multiple of a vector is added, and nothing in a step that does not go ahead."""
    x, y, z, dx = d.normal(2101), d.normal(21), d.normal(5), d.normal(2101)
    vectors.add_scaled(x, dx, _placed(d, 0.7))
    vectors.move_towards(y, dx[:21], _placed(d, 0.3))
    if not d.wide:
        vectors.add_scaled(z, dx[:5], _held_back(d))
    return x, y, z


def _rmsprop_by_place(d: Inputs) -> Results:
    """And nothing in a step that does not go ahead."""
    w, dw, square, kept, of_kept = d.normal(21), d.normal(21), d.positive(21), d.normal(21), d.positive(21)
    settings = {"smoothing": 0.9, "eps": 1e-8, "weight_decay": 0.1}
    backend.backend_of(w=w).rmsprop_update(w, dw, square, lr=_placed(d, 0.01), **settings)
    if not d.wide:
        backend.backend_of(w=w).rmsprop_update(kept, dw, of_kept, lr=_held_back(d), **settings)
    return w, square, kept, of_kept


def _adam_by_place(d: Inputs) -> Results:
    """And nothing in a step that does not go ahead."""
    w, dw, m, v = d.normal(21), d.normal(21), d.normal(21), d.positive(21)
    kept = d.normal(21), d.normal(21), d.positive(21)
    settings = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
    if d.wide:
        decoupled = {"step": 3, "lr": 0.01, "weight_decay": 0.1, "decoupled": True}
        backend.backend_of(w=w).adam_update(w, dw, m, v, **settings, **decoupled)
    else:
        told = {"rate": 0.01 / (1 - 0.9**3), "second": 1 - 0.99**3, "shrink": 1 - 0.001}
        by_place = {name: _placed(d, number) for name, number in told.items()}
        update.adam_step(w, dw, m, v, **by_place, **settings, weight_decay=0.0)
        stays = by_place | {"rate": _held_back(d)}
        update.adam_step(kept[0], dw, *kept[1:], **stays, **settings, weight_decay=0.0)
    return w, m, v, *kept


def _updates_with_copies(d: Inputs) -> Results:
    """Steps that leave the weights in another dtype, too: whole vectors, and from within one on."""
    results = []
    for kind in ("float16", "bfloat16"):
        for where in (slice(0, 21), slice(3, 2104)):
            w, dw, first = (d.normal(2200) for _ in range(3))
            square, second = d.positive(2200), d.positive(2200)
            copy = w if d.wide else d.place.array(np.zeros(2200, kind))
            told = {} if d.wide else {"copy": copy[where]}
            of_w, of_dw, *state = (array[where] for array in (w, dw, first, square, second))
            on = backend.backend_of(w=w)
            sgd, rmsprop = (on.sgd_update, on.rmsprop_update) if d.wide else (update.sgd_step, update.rmsprop_step)
            sgd(of_w, of_dw, state[0], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, **told)
            results.append(copy[where].copy())
            rmsprop(of_w, of_dw, state[1], lr=0.1, smoothing=0.9, eps=1e-2, weight_decay=0.1, **told)
            results.append(copy[where].copy())
            settings = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-2, "weight_decay": 0.1}
            if d.wide:
                on.adam_update(of_w, of_dw, *state[::2], step=1, lr=0.1 * (1 - 0.9), decoupled=False, **settings)
            else:
                update.adam_step(of_w, of_dw, *state[::2], rate=0.1, second=1 - 0.99, shrink=1.0, **settings, **told)
            results += [copy[where].copy(), w]
    return tuple(results)


def _dropout_by_place(d: Inputs) -> Results:
    x, y = d.normal(2, 3, 5, 7), d.normal(9)
    step = 23 if d.wide else Count(d.put(np.array([7], np.uint64))) * 3 + 2
    return tuple(gpuconv.dropout_forward(each, rate=0.5, seed=4, step=step)[0] for each in (x, y))


def _steps(d: Inputs) -> Results:
    """Six steps: as planned, skipped, with gradients that are too long, with a loss of NaN, with a scale of 1, of any length."""
    rates, parts, first = 2, 3, 5
    table = np.arange(1.0, 31.0).reshape(6, 5)
    corrections = np.array([[0.5, 0.25], [0.75, 0.5], [0.375, 0.625], [0.25, 0.125], [2.0, 3.0], [1.5, 0.75]])
    plain, bad, long, other, last = (d.normal(count) for count in (41, 300, 2101, 20, 20))
    for array in (bad, last):
        array[array.size - 1] = np.inf
    norm = math.sqrt(float((d.place.numpy(long).astype(np.float64) ** 2).sum()))
    # Gradients, how long they may be, a loss, and whether they are finite.
    steps = (
        (plain, 1e9, 1.0, True),
        (bad, 1.0, 2.0, False),
        (long, norm / 2, 3.0, True),
        (other, 0.0, np.nan, True),
        (last, 0.0, 5.0, False),
        (plain, 0.0, 6.0, True),
    )
    if d.wide:
        long *= 0.5
        outcomes = np.zeros((3, 2 * parts + 6))
        updates, good, skips, scale = 2, 6, 0, 2.0
        counts, numbers, epoch = [], [], first - 1
        for turn, (_, _, loss, finite) in enumerate(steps):
            unscale, known, skipped = 1 / (scale * parts), not math.isnan(loss), False
            if known and finite:
                good += 1
                if good == 7:
                    good, scale = 0, 2 * scale
            elif known and scale > 1:
                skipped, skips, good, scale = True, skips + 1, 0, scale / 2
            share, one, two, *shrinks = table[turn]
            divisor, second = corrections[updates - 2]
            updates += known and finite
            clip = 0.5 if turn == 2 else 1.0
            numbers.append(np.array([scale, unscale, clip, second, share, one / divisor, two / divisor, *shrinks]))
            done = [first + turn + 1, parts * (first + turn), updates, good, skips, known and finite, (turn + 1) % 3]
            counts.append(np.array([*done, first, 2, epoch, first + turn - epoch]))
            row = [loss, *[0.0] * (2 * parts - 1), finite, skipped, updates, good, skips, scale]
            outcomes[(turn + 1) % 3] = row
            scale = 1.0 if turn == 3 else scale
        return plain, long, other, *counts, *numbers, outcomes
    run = step.StepNumbers(plain, rates=rates, parts=parts, rows=3, steps=6, scaled=True)
    run.place(step=first, updates=2, good=6, skips=0, scale=2.0, row=1, table=table, corrections=corrections)
    run.enter(first - 1)
    counts, numbers = [], []
    for turn, (gradients, longest, loss, _) in enumerate(steps):
        run.begin()
        run.outcomes[(turn + 1) % 3, 0:1][...] = d.put(np.array([loss]))
        run.outcomes[(turn + 1) % 3, 2 * parts :][...] = d.put(np.full(6, np.nan))  # what is judged are losses alone
        if turn == 4:
            run.numbers[step.SCALE : step.SCALE + 1][...] = d.put(np.ones(1))
            run.numbers[step.UNSCALE : step.UNSCALE + 1][...] = d.put(np.full(1, 1 / parts))
        run.judge(gradients, longest=longest, grow_after=7)
        counts.append(run.counts.astype(np.int64))
        numbers.append(run.numbers.copy())
    return plain, long, other, *counts, *numbers, run.outcomes


def _outcomes(d: Inputs) -> Results:
    """Hits among scores with ties, some with NaN, in rows of few classes and of more than a warp has lanes."""
    results = []
    for turn, (draw, N, classes) in enumerate(((d.special, 70, 3), (d.whole, 9, 67))):
        scores = draw(N, classes, layout="c_order")
        best = d.place.numpy(scores).argmax(axis=1)
        labels = d.put(np.where(np.arange(N) % 3 == 2, (best + 1) % classes, best))
        if d.wide:
            hits = float(N - N // 3)
            results.append(np.array([[-1.0] * 4, [-1.0] * 2 * turn + [0.75, hits] + [-1.0] * 2 * (1 - turn)]))
            continue
        table, row = d.put(np.full((2, 4), -1.0)), d.put(np.ones(1, np.uint64))
        loss = d.put(np.array(0.75, np.float64 if d.narrow == np.float64 else np.float32))
        outcome.note_part(turn, loss, scores, labels, outcomes=table, row=row)
        results.append(table)
    return tuple(results)


def _all_finite(d: Inputs) -> Results:
    arrays = [d.normal(5, 41), d.special(5, 41), *(d.normal(20) for _ in range(8))]
    for i, array in enumerate(arrays[2:]):  # each place of a pack
        array[8 + i] = np.nan
    return tuple(np.array(backend.all_finite(x)) for x in arrays)


def _augment_batch(d: Inputs) -> Results:
    """A batch from the middle of an order, its place by value and by address, into new arrays and given ones."""
    images = d.integers(0, 256, (9, 3, 5, 6), "uint8", layout="negative_strides")
    labels, draws = d.put(np.arange(9) * 7), d.put(words(9, seed=1, stream=Stream.AUGMENT))
    order = d.put(np.array([4, 0, 8, 3, 5, 1, 7, 2, 6]))
    options = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.3], "dtype": d.dtype, "channels_last": d.channels_last}
    moves = {"pad": 1, "flip": True, "cutout": 2}
    batch = augment_batch(images, labels, order, draws, place=2, count=4, **options, **moves)
    out = d.normal(4, 3, 5, 6), d.put(np.zeros(4, np.int64))
    augment_batch(
        images,
        labels,
        order,
        None,
        place=Count(d.put(np.array([2], np.uint64)), times=2, plus=1),
        count=4,
        out=out,
        **options,
    )
    return (*batch, *out)


_CAST_TO = ("float16", "bfloat16", "float32")


def _arithmetic(d: Inputs) -> Results:
    """Sums, multiples and copies of arrays that begin anywhere and end within a pack."""
    a, b, v = d.normal(2, 3, 5, 7), d.shifted(2, 3, 5, 7), d.normal(2111)
    copied, inner = d.normal(37), v[1:2102]
    backend.scale(inner, 0.5)
    backend.copy(d.shifted(37), copied)
    sums = backend.add(a, b), backend.add(b, a), backend.multiple(a, 0.25), backend.multiple(b, 0.25)
    if d.narrow == np.float64:
        return *sums, v, copied
    there = []  # in the other dtypes with sums of its type, where it is rounded; then back
    for kind in map(np.dtype, _CAST_TO):
        there += [(4 * x).astype(kind).astype(x.dtype) if d.wide else backend.cast(x, kind, 4.0) for x in (a, b, v)]
    back = [backend.cast(each, d.dtype, _placed(d, 0.25)) for each in there]
    return *sums, v, copied, *there, *back


def conv_behind(d: Inputs, *, pool: bool = True, N: int = 2) -> Results:
    """A convolution, or its maxima, and a batch norm by moments made with it; gradients and another array, added up.

    The norm whose mask is taken gives beta: 1 for the first half of the channels, -1 for the others.
    """
    x, plus = (d.whole(N, 16, 5, 7, layout="channels_last") for _ in range(2))
    w, b, dy = d.whole(24, 16, 1, 2), d.whole(24), d.whole(N, 24, 5, 6)
    ones, zeros = (d.put(np.full(24, value, d.narrow)) for value in (1.0, 0.0))
    running = [d.put(np.zeros(24, d.narrow)) for _ in range(2)]
    settings: dict[str, Any] = {"training": True, "momentum": 0.5, "eps": 1e-5}
    y, cache = gpuconv.conv_forward(x, w, b)
    if d.wide:
        maxima, of_maxima = gpuconv.max_pool_forward(y) if pool else (y, None)
        z, _ = gpuconv.spatial_batchnorm_forward(maxima, ones, zeros, *running, **settings)
        dx, _, _ = gpuconv.conv_backward(dy, cache)
        masked = plus * (np.arange(16) < 8).reshape(16, 1, 1)
        places = of_maxima.argmax if of_maxima else None
        return maxima, places, np.maximum(z, 0.0), *running, dx + plus, dx + masked
    how = {"precision": None, "pool": pool, "training": True, "moments": True}
    maxima, _, of_maxima, moments = conv_forward_fused(x, w, b, **how)
    assert moments is not None
    assert (of_maxima is not None) == pool
    z, _ = batchnorm_fused.fused_forward(maxima, ones, zeros, *running, **settings, activation="relu", given=moments)
    signs = d.put(np.where(np.arange(16) < 8, 1.0, -1.0).astype(d.narrow))
    vectors = [d.put(np.full(16, value, d.narrow)) for value in (0.0, 0.0, 1.0)]
    _, norm = batchnorm_fused.fused_forward(plus, vectors[0], signs, *vectors[1:], **settings, activation="relu")
    sums = (conv_backward_into(dy, cache, None, None, plus=plus, mask=mask) for mask in (None, norm.told))
    return maxima, of_maxima.argmax if of_maxima else None, z, *running, *sums


def _turned(d: Inputs) -> Results:
    """Filters of three layers, channels-last, from a flat vector in which they begin anywhere; of 16 bits."""
    shapes = {3: (16, 8, 3, 3), 1160: (8, 24, 1, 2), 1549: (8, 8, 1, 1)}
    flat = d.normal(1620)
    if d.wide or d.narrow.itemsize != 2:
        return tuple(flat[start:][: math.prod(shape)].reshape(shape) for start, shape in shapes.items())
    copies = turned.turned(flat, shapes)
    assert copies is not None
    copies.fill()
    return tuple(copies.filters[start] for start in shapes)


def _muon(d: Inputs) -> Results:
    """Steps on a bank of several tiles, slices and runs, a small one, a tall one; affine weights in front; float32 copied, too.

    The first goes ahead where its place says so; one that its place holds back leaves everything as it was.
    """
    shapes = {"affine": (3, 4), "wide": (66, 5, 8, 7), "small": (2, 3, 1, 2), "tall": (20, 3, 2, 1)}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = sum(sizes.values())
    w, dw, params, start = d.normal(total + 5), d.normal(total + 5), {}, 0
    for name, shape in shapes.items():
        params[name] = w[start : start + sizes[name]].reshape(shape)
        start += sizes[name]
    copies = None
    if d.narrow == np.float32:
        flat = w if d.wide else d.place.array(np.zeros(total + 5, np.float16))
        copies = SimpleNamespace(flat=flat, renew=lambda: None)
    net = SimpleNamespace(params=params, flat_params=w, flat_grads=dw, decayed=total, copies=copies)
    velocities = []
    for settings in ({"iterations": 2}, {"iterations": 1, "nesterov": False, "renormalise": False}):
        optimiser = nn.Muon(net, **settings)
        optimiser.step(0.1)
        velocities.append(optimiser.state["velocity"])
    if not d.wide:
        rule = {"momentum": 0.6, "nesterov": True, "renormalise": True, "iterations": 1, "quintic": (2.0, -1.5, 0.5)}
        held_back = Number(d.put(np.ones(1)), go=d.put(np.zeros(1, np.uint64)))
        optimiser._on_gpu.step(*optimiser._vectors, lr=held_back, **rule)
    banks = slice(sizes["affine"], total)
    return w, *velocities, None if copies is None else copies.flat[banks]


_ONE_THREAD_MERGES_LITTLE: Settings = ((reduce, "_MERGED_BY_ONE_THREAD", 1),)
_PARTS_IN_A_BLOCK: Settings = ((reduce, "_ENOUGH_BLOCKS", 3),)
WITHOUT_TENSOR_CORES: Settings = ((conv_tensor, "LEAST_ARCH", 1_000), (conv_tensor, "FLOAT32_ARCHS", frozenset()))


def _in_tiles(tile: conv_tiles.Tile, of_weights: conv_tiles.WeightTile) -> Settings:
    """Return settings by which convolutions of float32 and float16 run in these tiles: of float64 there is one of each."""

    def of_dtype(_device: Any, dtype: Any, *, large: bool = True, **_sizes: int) -> conv_tiles.Tile:
        if dtype == np.float64:
            return conv_tiles.SMALL
        return tile if large or tile != conv_tiles.LARGE else conv_tiles.SLIM

    def of_weights_of_dtype(_filters: int, _columns: int, dtype: Any, volumes: bool) -> conv_tiles.WeightTile:
        if dtype == np.float64:
            return conv_tiles.SMALL_WEIGHT
        large = of_weights == conv_tiles.LARGE_WEIGHT
        return conv_tiles.FLAT_WEIGHT if large and (volumes or dtype != np.float32) else of_weights

    return (conv, "tile_of", of_dtype), (conv, "weight_tile_of", of_weights_of_dtype), *WITHOUT_TENSOR_CORES


_LARGE_TILES = _in_tiles(conv_tiles.LARGE, conv_tiles.LARGE_WEIGHT)
_SLIM_TILES = _in_tiles(conv_tiles.SLIM, conv_tiles.FLAT_WEIGHT)
_NARROW_TILES = _in_tiles(conv_tiles.NARROW, conv_tiles.SMALL_WEIGHT)
_SMALL_TILES = _in_tiles(conv_tiles.SMALL, conv_tiles.SMALL_WEIGHT)
_FEW_SLICES: Settings = ((conv_slices, "_PARTIAL_SUMS", 256),)


def _on_tensor_cores(name: str, *, tile: conv_tensor.TensorTile | None = None, **sizes: Any) -> Call:
    """Return a convolution that tensor cores take, in 16 bits by this tile if one is named."""
    call = of("conv", name, quick=False, **sizes)
    if tile is None:
        return dataclasses.replace(call, dtypes=("float16", "float32"))
    return dataclasses.replace(call, dtypes=("float16",), settings=((conv_tensor, "_SPEED", {tile: 1.0}),))


def _two_slices(pixels: int, _: int, tile: conv_weight_tensor.WeightTensorTile, __: int) -> tuple[int, int]:
    """Stand in for conv_weight_tensor.slices_of: whole steps, the last slice shorter."""
    return 2, -(-pixels // (2 * tile.depth)) * tile.depth


def _filters_on_tensor_cores(name: str, tile: conv_weight_tensor.WeightTensorTile, **sizes: Any) -> Call:
    """Return the same of a tile of the gradient of the filters, in two slices of short runs."""
    settings: Settings = (
        (conv_weight_tensor, "_CYCLES", {tile: 1}),
        (conv_weight_tensor, "slices_of", _two_slices),
        (conv_weight_tensor, "run_of", lambda _, tile: 2 * tile.depth),
    )
    return dataclasses.replace(_on_tensor_cores(name, **sizes), dtypes=("float16",), settings=settings)


def _of_float32(products: int, tile: conv_tensor.TensorTile) -> Settings:
    """Return what lets tensor cores serve each convolution of float32, by so many products and this tile."""
    return (
        (conv, "products_of", lambda *_: products),
        (conv_tensor, "_TERMS", {products: (1, 2**13)}),
        (conv_tensor, "_SPEED", {tile: 1.0}),
        (conv_tensor, "_OF_THREE_PRODUCTS", (tile,)),
        (conv_weight_tensor_float, "_LEAST_PIXELS", 1),
        (conv_weight_tensor_float, "slices_of", _two_slices_of_float32),
    )


def _two_slices_of_float32(pixels: int, _: int, depth: int, __: int) -> tuple[int, int]:
    """Stand in for conv_weight_tensor_float.slices_of: whole steps, the last slice shorter."""
    return 2, -(-pixels // (2 * depth)) * depth


def _float32_on_tensor_cores(
    name: str,
    products: int,
    tile: conv_tensor.TensorTile,
    weight_tile: conv_weight_tensor_float.WeightTensorTile,
    *,
    drawn: Mapping[str, Draw] | None = None,
    **sizes: Any,
) -> Call:
    """Return a convolution of float32 on tensor cores; of whole numbers, which one product rounds to themselves."""
    settings = (*_of_float32(products, tile), (conv_weight_tensor_float, "tile_of", lambda *_: weight_tile))
    numbers: dict[str, Draw] = {"x": "whole", "w": "whole", "b": "whole", "dy": "whole", **(drawn or {})}
    call = of("conv", name, quick=False, settings=settings, drawn=numbers, **sizes)
    return dataclasses.replace(call, dtypes=("float32",))


def _copy(name: str, *x: int, layout: str) -> Call:
    """Return a call of ReLU whose arrays must be copied first."""
    return dataclasses.replace(of("relu", name, x=x, layout=layout), operator="copy")


# Calls that are there for one kernel, or for numbers that only they have; plain ones stand in the rows of operators.py.
_SPECIAL = (
    of(
        "conv",
        "conv_everything_differs",
        x=(3, 4, 9, 8),
        w=(6, 2, 3, 2),
        b=None,
        stride=(2, 1),
        pad=(1, 2),
        dilation=(2, 3),
        groups=2,
    ),
    of("conv", "conv_strides_in_both", x=(2, 3, 8, 9), w=(2, 3, 2, 3), stride=(3, 2), pad=(0, 1)),
    of("conv", "conv_many_filters", x=(3, 1, 7, 9), w=(35, 1, 1, 1), quick=False),
    of("conv", "conv_long_slices", x=(3, 2, 15, 13), w=(3, 2, 3, 3), settings=_FEW_SLICES),
    of("conv", "conv_long_slices_of_small_planes", x=(101, 1, 2, 3), w=(7, 1, 1, 1), settings=_FEW_SLICES),
    of("conv", "conv_depthwise", x=(2, 5, 6, 7), w=(5, 1, 3, 3), pad=1, groups=5, quick=False),
    of("conv", "conv_in_tiles", x=(2, 8, 7, 5), w=(16, 8, 3, 3), pad=1, settings=WITHOUT_TENSOR_CORES),
    of(
        "conv",
        "conv_in_tiles_many_filters",
        x=(2, 8, 4, 6),
        w=(72, 8, 1, 1),
        quick=False,
        settings=WITHOUT_TENSOR_CORES,
    ),
    of(
        "conv",
        "conv_few_channels_longest_table",
        x=(1, 2, 17, 16),
        w=(8, 2, 16, 16),
        quick=False,
        settings=WITHOUT_TENSOR_CORES,
    ),
    of(
        "conv",
        "conv_few_channels_infinite_pixel",
        x=(1, 2, 8, 5),
        w=(17, 2, 3, 3),
        drawn={"x": _infinite_pixel},
        settings=WITHOUT_TENSOR_CORES,
    ),
    of(
        "conv",
        "conv_in_tiles_groups_of_several",
        x=(1, 16, 3, 4),
        w=(144, 8, 1, 1),
        groups=2,
        quick=False,
        settings=WITHOUT_TENSOR_CORES,
    ),
    of(
        "conv",
        "conv_in_tiles_phases_of_nothing",
        x=(1, 16, 2, 7),
        w=(8, 16, 1, 1),
        stride=3,
        quick=False,
        settings=WITHOUT_TENSOR_CORES,
    ),
    of(
        "conv",
        "conv_in_tiles_odd",
        x=(3, 17, 8, 7),
        w=(19, 17, 3, 2),
        b=None,
        stride=2,
        pad=1,
        settings=WITHOUT_TENSOR_CORES,
    ),
    of(
        "conv",
        "conv_in_tiles_groups",
        x=(2, 32, 4, 6),
        w=(48, 16, 1, 3),
        pad=(0, 1),
        groups=2,
        quick=False,
        settings=WITHOUT_TENSOR_CORES,
    ),
    of(
        "conv",
        "conv_in_tiles_one_by_one",
        x=(3, 16, 5, 7),
        w=(40, 16, 1, 1),
        quick=False,
        settings=WITHOUT_TENSOR_CORES,
    ),
    of(
        "conv",
        "conv_in_tiles_dilated",
        x=(2, 8, 9, 11),
        w=(16, 8, 3, 3),
        stride=(1, 2),
        dilation=(2, 1),
        quick=False,
        settings=WITHOUT_TENSOR_CORES,
    ),
    of(
        "conv",
        "conv_in_tiles_by_threes",
        x=(2, 16, 10, 8),
        w=(16, 16, 3, 2),
        stride=3,
        pad=(2, 1),
        settings=WITHOUT_TENSOR_CORES,
    ),
    of(
        "conv",
        "conv_in_tiles_infinite_filters",
        settings=WITHOUT_TENSOR_CORES,
        drawn={"w": "special"},
        x=(2, 17, 5, 4),
        w=(8, 17, 2, 2),
        pad=1,
        stride=(1, 2),
    ),
    of(
        "conv",
        "conv_in_tiles_infinite_tap",
        settings=WITHOUT_TENSOR_CORES,
        drawn={"w": infinite_tap},
        x=(2, 17, 5, 4),
        w=(9, 17, 2, 2),
        stride=(1, 2),
    ),
    of("conv", "conv_large_tiles", x=(1, 17, 7, 5), w=(70, 17, 3, 3), pad=1, quick=False, settings=_LARGE_TILES),
    of("conv", "conv_slim_tiles", x=(2, 16, 6, 5), w=(40, 16, 3, 3), pad=1, quick=False, settings=_SLIM_TILES),
    of("conv", "conv_narrow_tiles", x=(2, 17, 6, 5), w=(20, 17, 2, 3), quick=False, settings=_NARROW_TILES),
    of("conv", "conv_nan_and_inf", x=(1, 2, 6, 5), w=(2, 2, 3, 3), pad=1, drawn={"x": "special"}),
    of(
        "conv",
        "conv_volumes_everything_differs",
        x=(2, 4, 4, 5, 3),
        w=(6, 2, 3, 2, 2),
        b=None,
        stride=(1, 2, 3),
        pad=(1, 0, 2),
        dilation=(1, 2, 3),
        groups=2,
    ),
    of(
        "conv", "conv_volumes_strides_prime_to_dilations", x=(1, 2, 6, 5, 7), w=(2, 2, 3, 2, 3), stride=(3, 2, 2), pad=1
    ),
    of("conv", "conv_volumes_long_slices", x=(3, 2, 5, 7, 4), w=(3, 2, 3, 2, 1), settings=_FEW_SLICES),
    of("conv", "conv_volumes_depthwise", x=(2, 5, 3, 4, 3), w=(5, 1, 2, 3, 1), pad=1, groups=5, quick=False),
    of("conv", "conv_volumes_nan_and_inf", x=(1, 2, 3, 4, 3), w=(2, 2, 2, 3, 2), pad=1, drawn={"x": "special"}),
    of("conv", "conv_volumes_infinite_tap", x=(1, 2, 3, 4, 3), w=(3, 2, 2, 2, 2), pad=1, drawn={"w": infinite_tap}),
    of("conv", "conv_volumes_in_tiles", x=(2, 17, 3, 5, 4), w=(19, 17, 2, 3, 2), b=None, stride=2, pad=1),
    of("conv", "conv_volumes_one_channel", x=(2, 1, 3, 5, 4), w=(17, 1, 3, 3, 3), pad=1),
    of(
        "conv",
        "conv_volumes_few_channels",
        x=(1, 3, 5, 6, 4),
        w=(18, 3, 2, 3, 2),
        stride=(2, 1, 3),
        pad=(1, 2, 0),
        dilation=(1, 2, 3),
    ),
    of("conv", "conv_volumes_few_infinite_voxel", x=(1, 2, 4, 5, 3), w=(17, 2, 3, 3, 2), drawn={"x": _infinite_pixel}),
    of(
        "conv",
        "conv_volumes_few_longest_table",
        x=(1, 2, 9, 9, 5),
        w=(16, 2, 8, 8, 4),
        quick=False,
    ),
    of(
        "conv",
        "conv_volumes_in_tiles_everything_differs",
        x=(1, 16, 5, 8, 9),
        w=(16, 8, 3, 2, 2),
        stride=(1, 3, 2),
        pad=(2, 0, 1),
        dilation=(2, 1, 3),
        groups=2,
    ),
    of("conv", "conv_volumes_in_tiles_groups", x=(1, 32, 3, 2, 5), w=(48, 16, 2, 1, 3), groups=2, quick=False),
    of("conv", "conv_volumes_in_tiles_by_threes", x=(1, 16, 7, 5, 6), w=(16, 16, 3, 2, 2), stride=3, pad=(2, 1, 0)),
    of("conv", "conv_volumes_in_tiles_small_volumes", x=(13, 16, 3, 2, 2), w=(16, 16, 1, 1, 2), pad=(0, 0, 1)),
    of(
        "conv", "conv_volumes_in_tiles_phases_of_nothing", x=(1, 16, 1, 2, 5), w=(8, 16, 1, 1, 1), stride=3, quick=False
    ),
    of(
        "conv",
        "conv_volumes_in_tiles_infinite_filters",
        drawn={"w": "special"},
        x=(2, 17, 3, 4, 3),
        w=(8, 17, 2, 2, 2),
        pad=1,
        stride=(2, 1, 2),
    ),
    of(
        "conv",
        "conv_volumes_in_tiles_infinite_tap",
        drawn={"w": infinite_tap},
        x=(1, 17, 4, 4, 3),
        w=(9, 17, 2, 2, 2),
        stride=(1, 2, 1),
    ),
    of(
        "conv",
        "conv_volumes_in_tiles_x_anywhere",
        drawn={"x": "shifted", "dy": "shifted"},
        x=(1, 16, 3, 4, 4),
        w=(16, 16, 2, 2, 1),
        b=None,
    ),
    of(
        "conv",
        "conv_volumes_large_tiles",
        x=(1, 66, 4, 3, 3),
        w=(70, 66, 2, 2, 1),
        pad=1,
        quick=False,
        settings=_LARGE_TILES,
    ),
    of(
        "conv",
        "conv_volumes_slim_tiles",
        x=(1, 33, 4, 3, 5),
        w=(36, 33, 3, 2, 1),
        pad=1,
        quick=False,
        settings=_SLIM_TILES,
    ),
    of(
        "conv",
        "conv_volumes_narrow_tiles",
        x=(2, 17, 4, 5, 4),
        w=(20, 17, 2, 1, 3),
        quick=False,
        settings=_NARROW_TILES,
    ),
    Call("conv_relu", conv_relu, "conv"),
    _on_tensor_cores("conv_tensor", x=(2, 16, 7, 5), w=(24, 16, 3, 3), pad=1),
    _on_tensor_cores("conv_tensor_padded_channels", x=(2, 19, 6, 7), w=(21, 19, 3, 2), stride=2, pad=1),
    _on_tensor_cores("conv_tensor_groups", x=(1, 48, 5, 4), w=(48, 16, 2, 3), b=None, stride=(1, 2), groups=3),
    _on_tensor_cores(
        "conv_tensor_dilated", x=(2, 24, 9, 11), w=(16, 24, 3, 2), stride=(3, 2), pad=(2, 1), dilation=(2, 3)
    ),
    _on_tensor_cores("conv_tensor_factors", x=(1, 16, 13, 12), w=(16, 16, 3, 3), stride=4, pad=1, dilation=2),
    _on_tensor_cores("conv_tensor_largest_window", x=(1, 16, 10, 9), w=(16, 16, 15, 15), pad=3),
    _on_tensor_cores("conv_tensor_phases_of_nothing", x=(3, 16, 2, 7), w=(16, 16, 1, 1), stride=3),
    _on_tensor_cores(
        "conv_tensor_infinite_tap", x=(2, 17, 5, 4), w=(17, 17, 2, 2), stride=(1, 2), drawn={"w": infinite_tap}
    ),
    _on_tensor_cores(
        "conv_tensor_infinite_last_tap", x=(1, 24, 5, 4), w=(40, 24, 3, 3), pad=1, drawn={"w": _infinite_last_tap}
    ),
    _on_tensor_cores(
        "conv_tensor_anywhere", x=(1, 16, 5, 4), w=(16, 16, 2, 2), drawn={"x": "shifted", "dy": "shifted"}
    ),
    _on_tensor_cores("conv_tensor_large", tile=conv_tensor.LARGE, x=(3, 16, 7, 7), w=(136, 16, 1, 1)),
    _on_tensor_cores("conv_tensor_tall", tile=conv_tensor.TALL, x=(7, 24, 6, 7), w=(72, 24, 1, 1)),
    _on_tensor_cores("conv_tensor_slim", tile=conv_tensor.SLIM, x=(4, 24, 6, 7), w=(72, 24, 2, 1), pad=(1, 0)),
    _on_tensor_cores("conv_tensor_infinite_pixel", x=(1, 17, 4, 5), w=(18, 17, 2, 2), drawn={"x": _infinite_pixel}),
    _filters_on_tensor_cores("conv_tensor_filters_large", conv_weight_tensor.LARGE, x=(5, 24, 9, 7), w=(136, 24, 2, 3)),
    _filters_on_tensor_cores(
        "conv_tensor_filters_flat", conv_weight_tensor.FLAT, x=(7, 16, 9, 7), w=(24, 16, 3, 3), b=None, pad=1
    ),
    _filters_on_tensor_cores(
        "conv_tensor_filters_tall",
        conv_weight_tensor.TALL,
        x=(6, 16, 11, 13),
        w=(144, 8, 3, 2),
        stride=(2, 1),
        groups=2,
    ),
    _filters_on_tensor_cores(
        "conv_tensor_filters_small", conv_weight_tensor.SMALL, x=(3, 3, 13, 12), w=(19, 3, 3, 3), dilation=(1, 2), pad=1
    ),
    Call("conv_tensor_relu", lambda d: conv_relu(d, 17), "conv", quick=False, dtypes=("float16",)),
    _float32_on_tensor_cores(
        "conv_tensor_tf32_large",
        1,
        conv_tensor.LARGE,
        conv_weight_tensor_float.LARGE,
        x=(3, 16, 7, 7),
        w=(136, 16, 3, 3),
        stride=2,
        pad=1,
    ),
    _float32_on_tensor_cores(
        "conv_tensor_tf32_tall",
        1,
        conv_tensor.TALL,
        conv_weight_tensor_float.FLAT,
        x=(7, 24, 6, 7),
        w=(20, 24, 2, 3),
        pad=(1, 0),
        dilation=(2, 1),
    ),
    _float32_on_tensor_cores(
        "conv_tensor_tf32_slim",
        1,
        conv_tensor.SLIM,
        conv_weight_tensor_float.SLIM,
        drawn={"x": _infinite_pixel},
        x=(4, 24, 6, 7),
        w=(144, 12, 2, 1),
        groups=2,
    ),
    _float32_on_tensor_cores(
        "conv_tensor_tf32_small",
        1,
        conv_tensor.SMALL,
        conv_weight_tensor_float.SMALL,
        x=(2, 3, 9, 8),
        w=(19, 3, 3, 3),
        b=None,
    ),
    _float32_on_tensor_cores(
        "conv_tensor_tf32_infinite_corner",
        1,
        conv_tensor.SMALL,
        conv_weight_tensor_float.SMALL,
        drawn={"dy": _infinite_corner},
        x=(2, 16, 5, 6),
        w=(32, 8, 3, 3),
        b=None,
        pad=1,
        groups=2,
    ),
    _float32_on_tensor_cores(
        "conv_tensor_float32_slim",
        3,
        conv_tensor.SLIM,
        conv_weight_tensor_float.SLIM,
        drawn={"x": "normal", "w": "normal", "b": "normal", "dy": "normal"},
        x=(4, 24, 6, 7),
        w=(72, 24, 2, 2),
        pad=1,
    ),
    _float32_on_tensor_cores(
        "conv_tensor_float32_small",
        3,
        conv_tensor.SMALL,
        conv_weight_tensor_float.SMALL,
        drawn={"x": _infinite_pixel},
        x=(2, 19, 5, 8),
        w=(21, 19, 3, 2),
        stride=(1, 2),
        pad=(1, 0),
    ),
    _float32_on_tensor_cores(
        "conv_tensor_float32_flat",
        3,
        conv_tensor.SMALL,
        conv_weight_tensor_float.FLAT,
        drawn={"w": infinite_tap},
        x=(3, 32, 6, 5),
        w=(40, 16, 3, 3),
        b=None,
        stride=3,
        pad=2,
        groups=2,
    ),
    *(
        Call(
            f"conv_tensor_relu_by_{products}",
            lambda d: conv_relu(d, 17),
            "conv",
            quick=False,
            dtypes=("float32",),
            settings=_of_float32(products, conv_tensor.SMALL),
        )
        for products in (1, 3)
    ),
    of("max_pool", "max_pool_halves_special", drawn={"x": "special"}, x=(1, 3, 6, 8), window=2),
    of("max_pool", "max_pool_two_odd_width", x=(2, 8, 5, 7), window=2),
    of(
        "max_pool",
        "max_pool_three_overlapping",
        drawn={"x": "special"},
        x=(2, 8, 8, 7),
        window=3,
        stride=2,
        pad=1,
    ),
    of(
        "max_pool",
        "max_pool_any_window",
        drawn={"x": "special"},
        x=(2, 3, 9, 8),
        window=(2, 5),
        stride=(3, 1),
        pad=(1, 2),
    ),
    of(
        "max_pool",
        "max_pool_minus_infinity",
        drawn={"x": _minus_infinity},
        x=(1, 2, 6, 7),
        window=3,
        stride=2,
        pad=1,
    ),
    of("max_pool", "max_pool_large_window", drawn={"x": "special"}, x=(1, 3, 19, 21), window=(17, 16), stride=2),
    of("max_pool", "max_pool_ties_split", x=(2, 3, 5, 8), window=2, ties="split"),
    of(
        "max_pool",
        "max_pool_ties_every",
        drawn={"x": "special"},
        x=(2, 8, 8, 7),
        window=3,
        stride=2,
        pad=1,
        ties="every",
    ),
    of(
        "max_pool",
        "max_pool_ties_split_overlapping",
        drawn={"x": "special"},
        x=(1, 3, 9, 8),
        window=(2, 5),
        stride=(3, 1),
        pad=(1, 2),
        ties="split",
        quick=False,
    ),
    of(
        "max_pool",
        "max_pool_volumes_special",
        drawn={"x": "special"},
        x=(2, 3, 4, 5, 4),
        window=(2, 3, 2),
        stride=(1, 2, 1),
        pad=(1, 1, 0),
    ),
    of("max_pool", "max_pool_volumes_minus_infinity", drawn={"x": _minus_infinity}, x=(1, 2, 3, 4, 3), window=3, pad=1),
    of("max_pool", "max_pool_volumes_large_window", drawn={"x": "special"}, x=(1, 3, 5, 10, 9), window=(4, 9, 8)),
    of(
        "max_pool",
        "max_pool_volumes_ties_every",
        drawn={"x": "special"},
        x=(2, 3, 3, 4, 5),
        window=(3, 2, 2),
        stride=(2, 1, 2),
        pad=1,
        ties="every",
    ),
    of(
        "max_pool",
        "max_pool_volumes_ties_split_padded",
        drawn={"x": "special"},
        x=(1, 3, 4, 3, 3),
        window=3,
        stride=(1, 2, 1),
        pad=1,
        ties="split",
    ),
    of(
        "average_pool",
        "average_pool_real_pixels",
        x=(2, 8, 7, 5),
        window=(3, 2),
        stride=(1, 2),
        pad=(1, 1),
        count_pad=False,
    ),
    of("average_pool", "average_pool_real_pixels_odd", x=(1, 3, 8, 5), window=3, pad=1, count_pad=False, quick=False),
    of("batchnorm", "batchnorm_rows_in_packs", x=(70, 24), settings=_ONE_THREAD_MERGES_LITTLE),
    of("batchnorm", "batchnorm_many_rows", x=(600, 40), quick=False, settings=_ONE_THREAD_MERGES_LITTLE),
    of("batchnorm", "batchnorm_stored_moments_rows", x=(9, 8), training=False),
    of("spatial_batchnorm", "batchnorm_several_chunks", x=(4, 2, 33, 35), settings=_ONE_THREAD_MERGES_LITTLE),
    of("spatial_batchnorm", "batchnorm_several_parts", x=(9, 2, 33, 35), settings=_PARTS_IN_A_BLOCK),
    of(
        "spatial_batchnorm",
        "batchnorm_first_part_apart",
        drawn={"x": _first_image_apart},
        x=(3, 2, 64, 64),
        quick=False,
        settings=((reduce, "_ENOUGH_BLOCKS", 1),),
    ),
    of("batchnorm", "batchnorm_rows_in_several_parts", x=(520, 40), quick=False, settings=_PARTS_IN_A_BLOCK),
    of("spatial_batchnorm", "batchnorm_two_chunks", x=(4, 1, 36, 36), quick=False),
    of("spatial_batchnorm", "batchnorm_chunks_of_one_plane", x=(1, 2, 130, 64), quick=False),
    *(
        Call(f"batchnorm_fused_{name}", fused(shape, **how), "spatial_batchnorm", quick)
        for name, shape, how, quick in (
            ("identity_after", (2, 3, 5, 7), {"activation": "identity", "join": "after"}, True),
            ("relu", (3, 8, 4, 6), {"activation": "relu"}, True),
            ("relu_before", (3, 5, 3, 5), {"activation": "relu", "join": "before"}, True),
            ("relu_before_in_packs", (2, 16, 4, 4), {"activation": "relu", "join": "before"}, False),
            ("relu_after", (2, 8, 4, 4), {"activation": "relu", "join": "after"}, True),
            ("relu_anywhere", (2, 8, 4, 4), {"activation": "relu", "join": "after", "drawn": "shifted"}, False),
            ("relu_rows", (70, 24), {"activation": "relu"}, False),
            ("relu_of_nan", (2, 8, 4, 4), {"activation": "relu", "lost": True}, False),
            ("gelu", (3, 5, 5, 3), {"activation": "gelu"}, True),
            ("gelu_after", (2, 8, 4, 4), {"activation": "gelu", "join": "after"}, False),
            ("gelu_tanh", (2, 8, 4, 4), {"activation": "gelu-tanh"}, True),
            ("gelu_tanh_after", (2, 3, 5, 3), {"activation": "gelu-tanh", "join": "after"}, False),
            ("pool", (2, 3, 5, 7), {"activation": "identity", "pool": True}, True),
            ("pool_in_packs", (2, 8, 5, 8), {"activation": "identity", "pool": True}, False),
            ("pool_relu", (2, 8, 6, 8), {"activation": "relu", "pool": True}, True),
            ("pool_relu_odd", (2, 3, 4, 6), {"activation": "relu", "pool": True}, False),
            ("pool_relu_of_nan", (2, 8, 6, 8), {"activation": "relu", "pool": True, "lost": True}, False),
            ("pool_relu_anywhere", (1, 8, 5, 8), {"activation": "relu", "pool": True, "drawn": "shifted"}, False),
        )
    ),
    Call("gelu_far_out", _gelu_far_out, "gelu"),
    Call("batchnorm_constant_channels", _constant_channels, "spatial_batchnorm", quick=False),
    of("spatial_batchnorm", "batchnorm_stored_moments", x=(2, 3, 4, 5), training=False),
    of("groupnorm", "groupnorm_several_chunks", x=(4, 2, 33, 35), groups=1, settings=_ONE_THREAD_MERGES_LITTLE),
    of("groupnorm", "groupnorm_several_parts", x=(9, 2, 33, 35), groups=2, quick=False, settings=_PARTS_IN_A_BLOCK),
    of("affine", "affine_bias_of_several_parts", x=(4200, 3), w=(3, 8), b=(8,), settings=_PARTS_IN_A_BLOCK),
    of("layernorm", "layernorm_wide_rows", x=(5, 1030), quick=False),
    of("relu", "relu_images", x=(2, 3, 5, 7), quick=False),
    Call("augment_batch", _augment_batch, "augment"),
    Call("muon", _muon, "muon", formats=("NCHW",)),
    Call("conv_turned", _turned, "conv", quick=False, dtypes=("float16",), formats=("NCHW",)),
    Call(
        "conv_behind",
        conv_behind,
        "conv",
        dtypes=("float16", "float32"),
        formats=("NHWC",),
        settings=(
            (conv, "products_of", lambda dtype, *_: 3 if dtype.itemsize == 4 else 1),
            (conv_tensor, "_TERMS", {3: (1, 2**13)}),
        ),
    ),
    Call("dropout_word_at_the_threshold", _dropout_at_the_threshold, "dropout"),
    of(
        "conv",
        "conv_in_tiles_x_anywhere",
        settings=WITHOUT_TENSOR_CORES,
        drawn={"x": "shifted", "dy": "shifted"},
        x=(2, 16, 5, 4),
        w=(16, 16, 2, 2),
        b=None,
    ),
    _copy("copy_of_strided_rows", 4, 3, 5, layout="fortran"),
    _copy("copy_backwards", 3, 2, 4, 5, layout="negative_strides"),
    _copy("copy_every_second", 3, 4, 5, layout="every_second_column"),
    _copy("copy_seven_axes", 2, 2, 3, 2, 2, 2, 3, layout="fortran"),
    dataclasses.replace(of("spatial_batchnorm", "copy_between_formats", x=(2, 37, 5, 7)), operator="copy"),
    dataclasses.replace(of("dropout", "copy_of_one_format", x=(2, 35, 5, 7), rate=0.0), operator="copy"),
    of(
        "softmax_cross_entropy",
        "softmax_smoothed",
        drawn={"labels": labels("int32").drawn},
        scores=(9, 67),
        label_smoothing=0.2,
    ),
    of("softmax_cross_entropy", "softmax_of_a_view", scores=(300, 3), layout={"labels": "negative_strides"}),
    Call("softmax_bad_labels", _bad_labels, "softmax_cross_entropy"),
    of("svm_loss", "svm_many_classes", drawn={"labels": labels("int64").drawn}, scores=(9, 67), margin=0.5),
    Call("sums_by_place", _sums_by_place, "sgd_update"),
    Call("rmsprop_by_place", _rmsprop_by_place, "rmsprop_update"),
    Call("adam_by_place", _adam_by_place, "adam_update"),
    Call("updates_with_copies", _updates_with_copies, "sgd_update", dtypes=("float32",)),
    Call("dropout_by_place", _dropout_by_place, "dropout"),
    Call("steps", _steps, "step"),
    Call("outcomes", _outcomes, "outcome"),
    Call("across_images", lambda d: across_calls.normalised(d, 3, 5), "across"),
    Call("across_rows", across_calls.normalised, "across"),
    Call("across_sums", across_calls.summed, "across"),
    Call("all_finite", _all_finite, "all_finite"),
    Call("arithmetic", _arithmetic, "arithmetic"),
    of("affine", "affine_many_rows", x=(1100, 2), w=(2, 3), quick=False),
    of("affine", "affine_of_images", x=(5, 3, 2, 3), w=(18, 9), layout={"w": "fortran"}),
    of("affine", "affine_without_bias", x=(5, 8), w=(8, 4), b=None),
)

_CALLS = (
    *(of(row.name, name, **sizes) for row in OPERATORS.values() for name, sizes in row.calls.items()),
    *_SPECIAL,
    *(
        rough(row.name, f"{row.name}_{array}_anywhere", drawn={array: "shifted"}, **row.anywhere)
        for row in OPERATORS.values()
        if row.anywhere
        for array in ("x", "dy")
    ),
)
CALLS = {call.name: call for call in _CALLS}


# Random calls -------------------------------------------------------------------------------------------------------


def random_call(seed: int) -> tuple[Call, str, str]:
    """Return a call of a random operator at a random small size, with a dtype and a memory format."""
    rng = random.Random(seed)
    make = rng.choice([_random_conv] * 4 + [_random_pool] * 3 + [_random_norm] * 2 + [_random_of_a_row])
    call = make(rng, f"random {seed}")
    return call, rng.choice(DTYPES), rng.choice(FORMATS)


def _random_conv(rng: random.Random, name: str) -> Call:
    groups = rng.choice((1, 1, 1, 2, 3))
    C, K = groups * rng.choice((1, 2, 3, 4, 8, 9)), groups * rng.choice((1, 2, 5, 16, 19))
    axes = rng.choice((1, 2, 2, 2, 2, 3))
    window, stride, dilation, pad, behind = (
        tuple(rng.randint(least, most) for _ in range(axes)) for least, most in ((1, 3), (1, 3), (1, 2), (0, 2), (0, 2))
    )
    pad = pad if rng.random() < 0.6 else tuple(zip(pad, behind, strict=True))
    spans = [
        (w - 1) * d + 1 - (sum(p) if isinstance(p, tuple) else 2 * p)
        for w, d, p in zip(window, dilation, pad, strict=True)
    ]
    sizes = [max(1, span) + rng.randint(0, 4) for span in spans]
    x, w = (rng.randint(1, 3), C, *sizes), (K, C // groups, *window)
    bias = {} if rng.random() < 0.5 else {"b": None}
    return of("conv", name, x=x, w=w, **bias, stride=stride, pad=pad, dilation=dilation, groups=groups)


def _random_pool(rng: random.Random, name: str) -> Call:
    N, C = rng.randint(1, 3), rng.choice((1, 3, 8, 16))
    operator = rng.choice(("max_pool", "average_pool", "global_average_pool"))
    if operator == "global_average_pool":
        return of(operator, name, x=(N, C, rng.randint(1, 30), rng.randint(1, 30)))
    axes = rng.choice((1, 2, 2, 2, 3, 3))
    window = rng.choice(((2,) * axes, (3,) * axes, tuple(rng.randint(1, 4) for _ in range(axes))))
    pad = tuple(rng.randint(0, size // 2) for size in window)
    options: dict[str, Any] = {"window": window, "pad": pad}
    if rng.random() < 0.3:
        options["pad"] = tuple((before, rng.randint(0, size // 2)) for before, size in zip(pad, window, strict=True))
    options["ceil"] = rng.random() < 0.3
    dilation = (1,) * axes if rng.random() < 0.7 else tuple(rng.randint(1, 3) for _ in range(axes))
    options["dilation"] = dilation
    window = tuple((size - 1) * apart + 1 for size, apart in zip(window, dilation, strict=True))
    if rng.random() < 0.6:
        options["stride"] = tuple(rng.randint(1, 3) for _ in range(axes))
    if operator == "average_pool":
        options["count_pad"] = rng.random() < 0.5
    if operator == "max_pool":
        options["ties"] = rng.choice(("first", "first", "split", "every"))
    *others, last = window
    x = N, C, *(size + rng.randint(0, 6 // axes) for size in others), rng.choice((8, 16, last + rng.randint(0, 6)))
    drawn = {"x": "special"} if operator == "max_pool" and rng.random() < 0.5 else {}
    return of(operator, name, drawn=drawn, x=x, **options)


def _random_norm(rng: random.Random, name: str) -> Call:
    if rng.random() < 0.3:
        groups, members = rng.choice((1, 2, 3, 8)), rng.choice((1, 2, 3, 4))
        if rng.random() < 0.3:
            return of("layernorm", name, x=(rng.randint(1, 20), rng.choice((2, 7, 40, 300))))
        x = rng.randint(1, 3), groups * members, rng.randint(1, 9), rng.randint(2, 9)
        return of("groupnorm", name, x=x, groups=groups)
    C = rng.choice((1, 3, 8, 24, 33))
    rows = rng.random() < 0.4
    pixels = tuple(rng.randint(2, 9) for _ in range(rng.choice((1, 2, 2, 2, 3))))
    x = (rng.randint(2, 40), C) if rows else (rng.randint(1, 3), C, *pixels)
    operator = "batchnorm" if rows else "spatial_batchnorm"
    training = rng.random() < 0.8
    return of(operator, name, x=x, training=training, momentum=rng.random(), eps=rng.choice((1e-5, 1e-3)))


def _random_of_a_row(rng: random.Random, name: str) -> Call:
    row, make = rng.choice([(row, row.random) for row in OPERATORS.values() if row.random])
    return of(row.name, name, **make(rng))


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
            recorder.arch = call.arch
            for dtype in filter(call.takes, dtypes):
                for memory in set(formats) & set(call.formats):
                    call.on(place, dtype, memory)
    instances = {}
    for known in kernel.Kernel.all.values():
        for device, templates in known._ready:
            if device is recorder:
                expression = known.expression(templates)
                instances[expression] = Launched(known, templates, expression, recorder.shared.get(expression, 0))
    for known in kernel.Kernel.all.values():  # the recorder is done: let it go
        for key in [key for key in known._ready if key[0] is recorder]:
            del known._ready[key]
    return dict(sorted(instances.items()))


# Channels and filters: few channels; a step of every tile, in packs of 4; packs of dy alone, and no packs.
_OF_TILES = ((3, 16), (16, 16), (17, 16), (17, 17))
TILED_DTYPES = ("float32", "float16")  # of float64 there is one tile


def calls_of_tiles() -> Iterator[Call]:
    """Yield calls that between them launch every tiled convolution with each of its tiles, on each way of reading."""
    for i, settings in enumerate((_LARGE_TILES, _SLIM_TILES, _NARROW_TILES, _SMALL_TILES)):
        for C, K in _OF_TILES:
            for x, w in (((1, C, 6, 8), (K, C, 3, 3)), ((1, C, 2, 6, 4), (K, C, 2, 3, 3))):
                name = f"conv of {len(w) - 2} axes from {C} to {K} channels in tiles {i}"
                yield dataclasses.replace(rough("conv", name, x=x, w=w, pad=1, settings=settings), dtypes=TILED_DTYPES)


class GroupedDevice(EmulatedDevice):
    """An emulated device that builds all the kernels of a file at once: g++ needs little more time than for one."""

    def __init__(self, name: str, expressions: Iterable[Launched], **settings: Any) -> None:
        super().__init__(name, **settings)
        self._of_file: dict[str, tuple[str, ...]] = {}
        for one in expressions:
            self._of_file[one.kernel.file] = (*self._of_file.get(one.kernel.file, ()), one.expression)
        self._built: dict[str, dict[str, Any]] = {}

    def compile(self, text: str, file: str, expressions: Sequence[str], options: Sequence[str] = ()) -> dict[str, Any]:
        if not set(expressions) <= set(self._of_file.get(file, ())):
            return super().compile(text, file, expressions, options)
        if file not in self._built:
            self._built[file] = super().compile(text, file, self._of_file[file], options)
        return {e: self._built[file][e] for e in expressions}
