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

import numpy as np
from compare import U_SUM, assert_close
from emulate import EmulatedArray, EmulatedDevice
from operators import OPERATORS, Draw, Operator, Shapes, Sizes, labels
from places import LAYOUTS

import gpuconv
from gpuconv import backend, naive, nn
from gpuconv.cuda import conv, kernel, outcome, reduce, step, update
from gpuconv.cuda import device as cuda_device
from gpuconv.nn import vectors
from gpuconv.ops.augmentation import augment_batch
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


def _infinite_tap(d: Inputs, shapes: Shapes, _: str | None) -> Any:
    """Return filters with one infinite tap: dx is NaN or infinite just where that tap reaches it."""
    w = d.whole(*shapes["w"])
    w[0, 0, 0, 0] = np.inf
    return w


def _infinite_pixel(d: Inputs, shapes: Shapes, _: str | None) -> Any:
    """Return images with an infinite pixel in the last row: no window above reaches it."""
    x = d.whole(*shapes["x"])
    x[0, 0, -1, 0] = np.inf
    return x


def _minus_infinity(d: Inputs, shapes: Shapes, _: str | None) -> Any:
    """Return images of which no pixel beats the start: the first in the image is the maximum."""
    return d.put(np.full(shapes["x"], -np.inf, d.narrow))


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
    images, _ = gpuconv.dropout_forward(d.normal(2, 3, 2, 2), rate=word / 2**32, seed=5)
    return y, gpuconv.dropout_backward(d.normal(4, 6), cache), images


def _constant_channels(d: Inputs) -> Results:
    """Two chunks a channel of one value so large that sums must be those of deviations from it."""
    values = np.array([0.1, float(np.finfo(d.narrow).max) / 4, -3.3]).reshape(1, 3, 1, 1)
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


def _sums_by_place(d: Inputs) -> Results:
    """A multiple of a vector is added, and nothing in a step that does not go ahead."""
    x, y, z, dx = d.normal(2101), d.normal(21), d.normal(5), d.normal(2101)
    vectors.add_scaled(x, dx, _placed(d, 0.7))
    vectors.move_towards(y, dx[:21], _placed(d, 0.3))
    if not d.wide:
        stays = Number(d.put(np.array([0.5])), go=d.put(np.zeros(1, np.uint64)))
        vectors.add_scaled(z, dx[:5], stays)
    return x, y, z


def _rmsprop_by_place(d: Inputs) -> Results:
    w, dw, square = d.normal(21), d.normal(21), d.positive(21)
    settings = {"smoothing": 0.9, "eps": 1e-8, "weight_decay": 0.1}
    backend.backend_of(w=w).rmsprop_update(w, dw, square, lr=_placed(d, 0.01), **settings)
    return w, square


def _adam_by_place(d: Inputs) -> Results:
    w, dw, m, v = d.normal(21), d.normal(21), d.normal(21), d.positive(21)
    settings = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
    if d.wide:
        decoupled = {"step": 3, "lr": 0.01, "weight_decay": 0.1, "decoupled": True}
        backend.backend_of(w=w).adam_update(w, dw, m, v, **settings, **decoupled)
    else:
        told = {"rate": 0.01 / (1 - 0.9**3), "second": 1 - 0.99**3, "shrink": 1 - 0.001}
        by_place = {name: _placed(d, number) for name, number in told.items()}
        update.adam_step(w, dw, m, v, **by_place, **settings, weight_decay=0.0)
    return w, m, v


def _dropout_by_place(d: Inputs) -> Results:
    x, y = d.normal(2, 3, 5, 7), d.normal(9)
    step = 23 if d.wide else Count(d.put(np.array([7], np.uint64))) * 3 + 2
    return tuple(gpuconv.dropout_forward(each, rate=0.5, seed=4, step=step)[0] for each in (x, y))


def _steps(d: Inputs) -> Results:
    """Five steps: as planned, skipped, with gradients that are too long, with a loss of NaN, with a scale of 1."""
    rates, parts, first = 2, 3, 5
    table = np.arange(1.0, 26.0).reshape(5, 5)
    corrections = np.array([[0.5, 0.25], [0.75, 0.5], [0.375, 0.625], [0.25, 0.125], [2.0, 3.0]])
    plain, bad, long, other, last = (d.normal(count) for count in (41, 300, 2101, 20, 20))
    for array in (bad, last):
        array[array.size - 1] = np.inf
    kept = bad.copy()
    norm = math.sqrt(float((d.place.numpy(long).astype(np.float64) ** 2).sum()))
    # Gradients, how long they may be, a loss, and whether they are finite.
    steps = (
        (plain, 1e9, 1.0, True),
        (bad, 1.0, 2.0, False),
        (long, norm / 2, 3.0, True),
        (other, 0.0, np.nan, True),
        (last, 0.0, 5.0, False),
    )
    if d.wide:
        long *= 0.5
        outcomes = np.zeros((3, 2 * parts + 6))
        updates, good, skips, scale = 2, 6, 0, 2.0
        numbers = np.zeros(0)
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
            numbers = np.array([scale, unscale, clip, second, share, one / divisor, two / divisor, *shrinks])
            row = [loss, *[0.0] * (2 * parts - 1), finite, skipped, updates, good, skips, scale]
            outcomes[(turn + 1) % 3] = row
            scale = 1.0 if turn == 3 else scale
        epoch = first - 1
        counts = [first + 5, parts * (first + 4), updates, good, skips, 0, 2, first, 2, epoch, first + 4 - epoch]
        return plain, kept, long, other, np.array(counts), numbers, outcomes
    run = step.StepNumbers(plain, rates=rates, parts=parts, rows=3, steps=5, scaled=True)
    run.place(step=first, updates=2, good=6, skips=0, scale=2.0, row=1, table=table, corrections=corrections)
    run.enter(first - 1)
    for turn, (gradients, longest, loss, _) in enumerate(steps):
        run.begin()
        run.outcomes[(turn + 1) % 3, 0:1][...] = d.put(np.array([loss]))
        if turn == 4:
            run.numbers[step.SCALE : step.SCALE + 1][...] = d.put(np.ones(1))
            run.numbers[step.UNSCALE : step.UNSCALE + 1][...] = d.put(np.full(1, 1 / parts))
        run.judge(gradients, longest=longest, grow_after=7)
        if gradients is bad:
            gradients[:1][...] = d.normal(1)
            step.restore(gradients, kept, run.go)
        step.restore(plain, d.normal(41), d.put(np.ones(1, np.uint64)))
    return plain, bad, long, other, run.counts.astype(np.int64), run.numbers, run.outcomes


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


def _arithmetic(d: Inputs) -> Results:
    """Sums, multiples and copies of arrays that begin anywhere and end within a pack."""
    a, b, v = d.normal(2, 3, 5, 7), d.shifted(2, 3, 5, 7), d.normal(2111)
    copied, inner = d.normal(37), v[1:2102]
    backend.scale(inner, 0.5)
    backend.copy(d.shifted(37), copied)
    return backend.add(a, b), backend.add(b, a), backend.multiple(a, 0.25), backend.multiple(b, 0.25), v, copied


def _muon(d: Inputs) -> Results:
    """Steps on a bank of several tiles and runs, a small one, a tall one; affine weights in front."""
    shapes = {"affine": (3, 4), "wide": (66, 2, 8, 5), "small": (2, 3, 1, 2), "tall": (20, 3, 2, 1)}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = sum(sizes.values())
    w, dw, params, start = d.normal(total + 5), d.normal(total + 5), {}, 0
    for name, shape in shapes.items():
        params[name] = w[start : start + sizes[name]].reshape(shape)
        start += sizes[name]
    net = SimpleNamespace(params=params, flat_params=w, flat_grads=dw, decayed=total)
    velocities = []
    for settings in ({"iterations": 2}, {"iterations": 1, "nesterov": False, "renormalise": False}):
        optimiser = nn.Muon(net, **settings)
        optimiser.step(0.1)
        velocities.append(optimiser.state["velocity"])
    return w, *velocities


_ONE_THREAD_MERGES_LITTLE: Settings = ((reduce, "_MERGED_BY_ONE_THREAD", 1),)
_LARGEST_TILES: Settings = ((conv, "_ENOUGH_BLOCKS", 0),)
_FEW_SLICES: Settings = ((conv, "_PARTIAL_SUMS", 256),)


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
    of("conv", "conv_in_tiles", x=(2, 8, 7, 5), w=(16, 8, 3, 3), pad=1),
    of("conv", "conv_in_tiles_many_filters", x=(2, 8, 4, 6), w=(72, 8, 1, 1), quick=False),
    of("conv", "conv_few_channels_longest_table", x=(1, 2, 17, 16), w=(8, 2, 16, 16), quick=False),
    of("conv", "conv_few_channels_infinite_pixel", x=(1, 2, 8, 5), w=(17, 2, 3, 3), drawn={"x": _infinite_pixel}),
    of("conv", "conv_in_tiles_groups_of_several", x=(1, 16, 3, 4), w=(144, 8, 1, 1), groups=2, quick=False),
    of("conv", "conv_in_tiles_phases_of_nothing", x=(1, 16, 2, 7), w=(8, 16, 1, 1), stride=3, quick=False),
    of("conv", "conv_in_tiles_odd", x=(3, 17, 8, 7), w=(19, 17, 3, 2), b=None, stride=2, pad=1),
    of("conv", "conv_in_tiles_groups", x=(2, 32, 4, 6), w=(48, 16, 1, 3), pad=(0, 1), groups=2, quick=False),
    of("conv", "conv_in_tiles_one_by_one", x=(3, 16, 5, 7), w=(40, 16, 1, 1), quick=False),
    of("conv", "conv_in_tiles_dilated", x=(2, 8, 9, 11), w=(16, 8, 3, 3), stride=(1, 2), dilation=(2, 1), quick=False),
    of("conv", "conv_in_tiles_by_threes", x=(2, 16, 10, 8), w=(16, 16, 3, 2), stride=3, pad=(2, 1)),
    of(
        "conv",
        "conv_in_tiles_infinite_filters",
        drawn={"w": "special"},
        x=(2, 17, 5, 4),
        w=(8, 17, 2, 2),
        pad=1,
        stride=(1, 2),
    ),
    of(
        "conv",
        "conv_in_tiles_infinite_tap",
        drawn={"w": _infinite_tap},
        x=(2, 17, 5, 4),
        w=(9, 17, 2, 2),
        stride=(1, 2),
    ),
    of("conv", "conv_large_tiles", x=(2, 9, 7, 5), w=(70, 9, 3, 3), pad=1, quick=False, settings=_LARGEST_TILES),
    of("conv", "conv_slim_tiles", x=(2, 8, 6, 5), w=(36, 8, 3, 3), pad=1, quick=False, settings=_LARGEST_TILES),
    of("conv", "conv_narrow_tiles", x=(2, 8, 6, 5), w=(20, 8, 2, 3), quick=False, settings=_LARGEST_TILES),
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
    of("conv", "conv_volumes_infinite_tap", x=(1, 2, 3, 4, 3), w=(3, 2, 2, 2, 2), pad=1, drawn={"w": _infinite_tap}),
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
        drawn={"w": _infinite_tap},
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
        settings=_LARGEST_TILES,
    ),
    of(
        "conv",
        "conv_volumes_slim_tiles",
        x=(1, 33, 4, 3, 5),
        w=(36, 33, 3, 2, 1),
        pad=1,
        quick=False,
        settings=_LARGEST_TILES,
    ),
    of(
        "conv",
        "conv_volumes_narrow_tiles",
        x=(2, 17, 4, 5, 4),
        w=(20, 17, 2, 1, 3),
        quick=False,
        settings=_LARGEST_TILES,
    ),
    Call("conv_relu", _conv_relu, "conv"),
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
    of("spatial_batchnorm", "batchnorm_two_chunks", x=(4, 1, 36, 36), quick=False),
    of("spatial_batchnorm", "batchnorm_chunks_of_one_plane", x=(1, 2, 130, 64), quick=False),
    Call("batchnorm_constant_channels", _constant_channels, "spatial_batchnorm", quick=False),
    of("spatial_batchnorm", "batchnorm_stored_moments", x=(2, 3, 4, 5), training=False),
    of("groupnorm", "groupnorm_several_chunks", x=(4, 2, 33, 35), groups=1, settings=_ONE_THREAD_MERGES_LITTLE),
    of("layernorm", "layernorm_wide_rows", x=(5, 1030), quick=False),
    of("relu", "relu_images", x=(2, 3, 5, 7), quick=False),
    Call("augment_batch", _augment_batch, "augment"),
    Call("muon", _muon, "muon", formats=("NCHW",)),
    Call("dropout_word_at_the_threshold", _dropout_at_the_threshold, "dropout"),
    of(
        "conv",
        "conv_in_tiles_x_anywhere",
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
    window, stride, dilation, pad = (
        tuple(rng.randint(least, most) for _ in range(axes)) for least, most in ((1, 3), (1, 3), (1, 2), (0, 2))
    )
    sizes = [max(1, (w - 1) * d + 1 - 2 * p) + rng.randint(0, 4) for w, d, p in zip(window, dilation, pad, strict=True)]
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
            for dtype in set(dtypes) & set(call.dtypes):
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
