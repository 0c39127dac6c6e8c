"""One row per operator: what the tests that look at every operator know of it.  A new operator adds its row here.

Read a row that is like yours: `relu` for single elements, `max_pool` for windows, `groupnorm` for sums over channels.
From a row are made

    test_errors.py             arrays and gradients wrong in every way, caches of other calls, inputs changed since
    test_naive.py              the oracle's results are float64
    test_elementwise.py        oracle, memory layouts, threads, PyTorch: where the row says `elementwise`
    test_cuda_bits.py          the same bits however it is launched: where the row says `rounds`
    test_bench_oracle.py       the bench's definition and every peer, at tiny sizes
    ladder/kernel_calls.py     its calls: those of the row, those whose arrays begin anywhere, random ones
    ladder/kernel_counters.py  the calls whose accesses of memory are counted

and test_complete.py says what else an operator is written in.  What is special about one, its own bad input, calls
that one of its kernels is chosen for, stands in those files by name.

Sizes of a call are a dictionary: shapes of arrays by name (None: that array is not given), options of the operator, and
`layout`, one of places.LAYOUTS for all arrays or by name.  What is left out is the row's: a shape follows from others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from random import Random
from typing import Any

import numpy as np
from compare import normal, whole
from norm_scales import batchnorm_scales, groupnorm_scales

import gpuconv
from gpuconv.errors import ArgTypeError, ParamError, ShapeError
from gpuconv.random import Stream, words

Shape = tuple[int, ...]
Shapes = dict[str, Any]  # a Shape of each array, or None
Sizes = Mapping[str, Any]
# How a call draws an array: by a method of kernel_calls.Inputs, or a function of (inputs, shapes, layout).
Draw = str | Callable[[Any, Shapes, str | None], Any]


@dataclass(frozen=True)
class Array:
    """One argument: its shape in a small good call, or the shape that follows from those of others, and its numbers."""

    shape: Shape | Callable[[Shapes], Shape]
    drawn: Draw = "normal"
    dtype: str = "float32"  # floats: those of the call
    optional: bool = False

    @property
    def is_float(self) -> bool:
        return np.dtype(self.dtype).kind == "f"


@dataclass(frozen=True)
class Elementwise:
    """How an operator of single elements is held to its oracle.

    numbers: (rng, shape) to an x that meets what is special about it.  scales: (|x|, |dy|) to the sizes of the terms of
    y and dx, as compare.assert_close takes them; without, results are exact.  torch: its name in torch.nn.functional;
    torch_options: the names that options have there, where they are others.
    """

    numbers: Callable[[np.random.Generator, Shape], np.ndarray]
    scales: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None
    torch: str | None = None
    torch_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Operator:
    """One operator.

    arrays: its arguments by name, in the order in which calls draw them.
    options: what the good call needs beside, or a function of the shapes that returns it.
    ways: options that lead another way through it, by name.
    dy: how calls draw the gradient from above; whole numbers make sums exact, so that each wrong term shows.
    refers: arrays, and "y", that the cache refers to: a change of theirs before the backward must be noticed.
    writes: arrays that are updated in place.
    sums: each result is a sum of products of its arrays, and what it makes of their absolute values the size of the terms.
    scales: (arrays, dy, options, unit roundoff of sums) to the sizes of the terms of each result, where they may cancel.
    calls: sizes by the name of the call: odd and tiny, for one call takes the emulator's check mode long.  "drawn" says
        how arrays, or dy, are drawn instead: "special" has infinities, NaN, zeros of both signs, the smallest numbers.
    anywhere: sizes at which x, then dy, begin where no 16 bytes are aligned.
    rounds: the shape of images to the sizes of a call on them, for kernels whose threads go round over elements.
    random: sizes from a random generator (kernel_calls draws those of convolutions, pools and norms by family).
    stored: (kernel_calls.Inputs) to the options that say how a result is stored, where an operator has any.
    counted: sizes by the name of the call whose accesses are counted: rows are whole numbers of 32 bytes.
    bench: tiny sizes by the name of the case.
    refused: options that it must not take, by the name of the fault, with the error and words of its message.
    """

    name: str
    arrays: dict[str, Array]
    options: Sizes | Callable[[Shapes], Sizes] = field(default_factory=dict)
    ways: dict[str, Sizes] = field(default_factory=dict)
    dy: Draw = "normal"
    refers: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    sums: bool = False
    scales: Callable[[dict[str, Any], Any, dict[str, Any], float], Iterable[Any]] | None = None
    calls: dict[str, Sizes] = field(default_factory=dict)
    anywhere: Sizes | None = None
    rounds: Callable[[Shape], Sizes] | None = None
    random: Callable[[Random], Sizes] | None = None
    stored: Callable[[Any], Sizes] | None = None
    counted: dict[str, Sizes] = field(default_factory=dict)
    bench: dict[str, Sizes] = field(default_factory=dict)
    refused: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    elementwise: Elementwise | None = None

    @property
    def has_backward(self) -> bool:
        return hasattr(gpuconv, f"{self.name}_backward")

    @property
    def all_ways(self) -> dict[str, Sizes]:
        """The options of each way through it, by name; that of the good call has none."""
        return {"": {}, **self.ways}

    @property
    def function(self) -> str:
        """The name by which the user calls it forward."""
        return f"{self.name}_forward" if self.has_backward else self.name

    def forward(self, arrays: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """Call it: (y, cache) where there is a backward."""
        return getattr(gpuconv, self.function)(**arrays, **options)

    def backward(self, dy: Any, cache: Any) -> tuple[Any, ...]:
        """Return its gradients."""
        gradients = getattr(gpuconv, f"{self.name}_backward")(dy, cache)
        return gradients if isinstance(gradients, tuple) else (gradients,)

    def shapes(self, sizes: Sizes) -> Shapes:
        """Return the shape of every array, those first that no other follows from."""
        known = {name: sizes.get(name, one.shape) for name, one in self.arrays.items()}
        given = {name: shape for name, shape in known.items() if not callable(shape)}
        return {name: shape(given) if callable(shape) else shape for name, shape in known.items()}

    def options_of(self, sizes: Sizes) -> dict[str, Any]:
        """Return the options of a call: those of the good call, then what the sizes say."""
        own = self.options(self.shapes(sizes)) if callable(self.options) else self.options
        return {**own, **{name: value for name, value in sizes.items() if name not in (*self.arrays, "layout")}}

    def good(self, sizes: Sizes | None = None, make: Callable[[Shape, str], Any] = np.zeros) -> dict[str, Any]:
        """Return the arrays of the small good call, or of one of other sizes."""
        shapes = self.shapes(sizes or {})
        return {name: None if s is None else make(s, self.arrays[name].dtype) for name, s in shapes.items()}


def _any_shape(rng: Random) -> Shape:
    return tuple(rng.randint(1, 9) for _ in range(rng.randint(1, 5)))


def _any_conv_transpose(rng: Random) -> Sizes:
    groups, axes = rng.choice((1, 1, 2)), rng.choice((1, 2, 2, 2, 3))
    C, K = groups * rng.choice((1, 3, 8, 9)), rng.choice((1, 2, 5, 16, 19))
    window, stride, dilation = (tuple(rng.randint(1, most) for _ in range(axes)) for most in (3, 3, 2))
    more = tuple(rng.randint(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True))
    pad = tuple(rng.randint(0, min(1, d * (r - 1))) for r, d in zip(window, dilation, strict=True))
    x = rng.randint(1, 2), C, *(rng.randint(2, 4) for _ in range(axes))
    options = {"stride": stride, "pad": pad, "output_pad": more, "dilation": dilation, "groups": groups}
    return {"x": x, "w": (C, K, *window), "b": rng.choice((None, (groups * K,))), **options}


def _any_adaptive_pool(rng: Random) -> Sizes:
    axes = rng.choice((1, 2, 2, 2, 3))
    x = rng.randint(1, 3), rng.choice((1, 3, 8, 16)), *(rng.randint(1, 12 // axes) for _ in range(axes))
    return {"x": x, "size": tuple(rng.choice((None, *range(1, 8))) for _ in range(axes))}


def _any_upsample(rng: Random) -> Sizes:
    axes, mode = rng.choice((1, 2, 2, 2, 3)), rng.choice(("nearest", "linear"))
    x = rng.randint(1, 2), rng.choice((1, 3, 4, 8)), *(rng.randint(1, 5) for _ in range(axes))
    factor = tuple(rng.randint(1, 4) for _ in range(axes))
    return {"x": x, "factor": factor, "mode": mode, "align_corners": mode == "linear" and rng.random() < 0.5}


def _rows(rng: Random) -> Shape:
    return rng.randint(1, 20), rng.randint(2, 70)


def _vector(rng: Random) -> Shape:
    return (rng.randint(1, 300),)


# Arrays that several operators have ---------------------------------------------------------------------------------


def _channels(shapes: Shapes) -> Shape:
    return shapes["x"][1:2]


def _as_w(shapes: Shapes) -> Shape:
    return shapes["w"]


def labels(dtype: str) -> Array:
    """Return the argument of a loss that says which class is right."""

    def drawn(d: Any, shapes: Shapes, layout: str | None) -> Any:
        array = d.integers(0, shapes["scores"][1], shapes["labels"], dtype, layout)
        array[0] = 0
        return array

    return Array(lambda shapes: shapes["scores"][:1], drawn, dtype)


def _batchnorm(x: Shape) -> dict[str, Array]:
    return {
        "running_mean": Array(_channels),
        "running_var": Array(_channels, "positive"),
        "x": Array(x, "around_two"),
        "gamma": Array(_channels),
        "beta": Array(_channels),
    }


def _groupnorm(x: Shape) -> dict[str, Array]:
    return {"x": Array(x, "around_two"), "gamma": Array(_channels), "beta": Array(_channels)}


def _scales_of_batchnorm(arrays: dict[str, Any], dy: Any, options: dict[str, Any], unit: float) -> Iterable[Any]:
    return batchnorm_scales(**arrays, dy=dy, unit=unit, **options)


def _scales_of_groupnorm(arrays: dict[str, Any], dy: Any, options: dict[str, Any], unit: float) -> Iterable[Any]:
    return groupnorm_scales(**arrays, dy=dy, **options)[:4]


_PARAMETERS = {"w": Array((5,)), "dw": Array(_as_w)}  # of an update: all flat vectors of one length

# The rows -----------------------------------------------------------------------------------------------------------

_ROWS = (
    Operator(
        "relu",
        {"x": Array((2, 3))},
        refers=("y",),  # positive exactly where x was
        # A fifth of the numbers are 0, where the slope jumps.
        elementwise=Elementwise(lambda rng, shape: whole(rng, shape) * normal(rng, shape), torch="relu"),
        calls={
            "relu_rows": {"x": (3, 701)},  # more than a block of threads, and no whole number of packs
            "relu_special": {"x": (5, 41), "drawn": {"x": "special", "dy": "whole"}},
        },
        anywhere={"x": (2, 41)},
        rounds=lambda x: {"x": x},
        random=lambda rng: {
            "x": _any_shape(rng),
            "layout": rng.choice(("c_order", "fortran", "negative_strides")),
        },
        counted={"relu": {"x": (4, 16, 8, 8)}},
        bench={"relu": {"x": (2, 3, 4, 5)}},
    ),
    Operator(
        "gelu",
        {"x": Array((2, 3))},
        ways={"tanh": {"approximate": "tanh"}},
        refers=("x",),
        # Phi(x) and x Phi'(x) are at most about 1, and are known to a few units of the numbers they are made of.
        elementwise=Elementwise(
            lambda rng, shape: 3 * normal(rng, shape), lambda x, dy: (x, dy * (1 + x)), torch="gelu"
        ),
        calls={"gelu": {"x": (3, 701)}, "gelu_tanh": {"x": (2, 3, 5, 3), "approximate": "tanh"}},
        anywhere={"x": (2, 41)},
        rounds=lambda x: {"x": x},
        random=lambda rng: {"x": _any_shape(rng), "approximate": rng.choice(("none", "tanh"))},
        counted={"gelu": {"x": (4, 16, 8, 8)}},
        bench={"gelu": {"x": (2, 3, 4, 5)}},
        refused={
            "unknown_approximation": (
                {"approximate": "sigmoid"},
                ParamError,
                'approximate must be "none" or "tanh", got \'sigmoid\'',
            ),
            "approximation_a_flag": ({"approximate": True}, ParamError, "approximate must be", "True"),
        },
    ),
    Operator(
        "silu",
        {"x": Array((2, 3))},
        refers=("x",),
        # s(x) and x s (1 - s) are at most about 1, and are known to a few units of the numbers they are made of.
        elementwise=Elementwise(
            lambda rng, shape: 4 * normal(rng, shape), lambda x, dy: (x, dy * (1 + x)), torch="silu"
        ),
        calls={"silu": {"x": (3, 701)}, "silu_special": {"x": (2, 3, 5, 3), "drawn": {"x": "special", "dy": "whole"}}},
        anywhere={"x": (2, 41)},
        rounds=lambda x: {"x": x},
        random=lambda rng: {"x": _any_shape(rng)},
        counted={"silu": {"x": (4, 16, 8, 8)}},
        bench={"silu": {"x": (2, 3, 4, 5)}},
    ),
    Operator(
        "leaky_relu",
        {"x": Array((2, 3))},
        ways={"steep": {"slope": 3.0}, "of 0": {"slope": 0.0}},
        refers=("y",),  # positive exactly where x was
        # A fifth of the numbers are 0.  The slope is rounded, and its product: 6 units of x for a slope of 3.
        elementwise=Elementwise(
            lambda rng, shape: whole(rng, shape) * normal(rng, shape),
            lambda x, dy: (x, dy),
            torch="leaky_relu",
            torch_options={"slope": "negative_slope"},
        ),
        calls={
            "leaky_relu_rows": {"x": (3, 701)},
            "leaky_relu_special": {"x": (5, 41), "slope": 0.25, "drawn": {"x": "special", "dy": "whole"}},
            "leaky_relu_beyond_float32": {"x": (2, 3, 5, 3), "slope": 1e39},  # products in float64
        },
        anywhere={"x": (2, 41)},
        rounds=lambda x: {"x": x},
        random=lambda rng: {"x": _any_shape(rng), "slope": rng.choice((0.01, 0.3, 2.0))},
        counted={"leaky_relu": {"x": (4, 16, 8, 8)}},
        bench={"leaky_relu": {"x": (2, 3, 4, 5)}},
        refused={
            "slope_negative": ({"slope": -0.01}, ParamError, "slope must be", "slope=-0.01"),
            "slope_nan": ({"slope": float("nan")}, ParamError, "slope must be finite", "slope=nan"),
            "slope_infinite": ({"slope": float("inf")}, ParamError, "at least 0, got slope=inf"),
            "slope_of_each_channel": ({"slope": np.zeros(3)}, ArgTypeError, "slope must be a number"),
            "slope_text": ({"slope": "0.1"}, ArgTypeError, "slope must be a number, got '0.1'"),
            "slope_a_flag": ({"slope": True}, ArgTypeError, "slope must be a number, got True"),
        },
    ),
    Operator(
        "dropout",
        {"x": Array((2, 3))},
        ways={"without a mask": {"rate": 0.0}},
        calls={
            "dropout_one_run": {"x": (2, 3), "rate": 0.5},
            "dropout_two_runs_a_plane": {"x": (2, 6, 3, 5), "rate": 0.3},
            "dropout_rows": {"x": (3, 701), "rate": 0.3, "seed": 7, "step": 2},
            "dropout_images": {"x": (3, 5, 3, 7), "rate": 0.6, "seed": 2**63 + 5, "step": 2**40},
            "dropout_of_a_part": {"x": (2, 5, 3, 3), "rate": 0.4, "offset": 43},
            "dropout_of_nothing": {"x": (2, 5, 3, 3), "rate": 0.0},
        },
        anywhere={"x": (2, 41), "rate": 0.4},
        rounds=lambda x: {"x": x, "rate": 0.4, "seed": 3},
        random=lambda rng: {
            "x": _any_shape(rng),
            "rate": rng.random() * 0.9,
            "seed": rng.getrandbits(63),
            "step": rng.getrandbits(40),
            "offset": rng.choice((0, rng.randrange(60), rng.getrandbits(50))),
        },
        counted={"dropout": {"x": (4, 16, 8, 8), "rate": 0.5}},
        bench={"dropout": {"x": (2, 3, 4, 5), "rate": 0.3}, "dropout_of_rows": {"x": (9, 11), "rate": 0.75}},
        refused={
            "of_everything": ({"rate": 1.0}, ParamError, "rate must be below 1, got rate=1.0"),
            "offset_negative": ({"offset": -1}, ParamError, "offset must be", "offset=-1"),
            "offset_a_float": ({"offset": 8.0}, ArgTypeError, "offset must be an int, got 8.0"),
            "rate_negative": ({"rate": -0.1}, ParamError, "rate must be", "rate=-0.1"),
            "rate_above_one": ({"rate": 1.5}, ParamError, "rate must be", "rate=1.5"),
            "rate_nan": ({"rate": float("nan")}, ParamError, "rate must be", "rate=nan"),
            "rate_none": ({"rate": None}, ArgTypeError, "rate must be a number, got None"),
            "seed_negative": ({"seed": -1}, ParamError, "seed must be", "seed=-1"),
            "seed_too_large": ({"seed": 2**64}, ParamError, "seed must be", f"seed={2**64}"),
            "seed_float": ({"seed": 1.0}, ArgTypeError, "seed must be an int, got 1.0"),
            "step_negative": ({"step": -1}, ParamError, "step must be", "step=-1"),
            "step_bool": ({"step": True}, ArgTypeError, "step must be an int, got True"),
            "training_a_word": ({"training": "no"}, ArgTypeError, "training must be True or False"),
        },
    ),
    Operator(
        "max_pool",
        {"x": Array((2, 3, 8, 8), "whole")},
        ways={"of ties": {"ties": "split"}},
        dy="whole",
        calls={
            "max_pool_halves": {"x": (2, 3, 5, 16), "window": 2},
            "max_pool_signals": {"x": (2, 3, 9), "window": (3,), "stride": 2, "pad": 1},
            "max_pool_volumes": {"x": (2, 3, 4, 5, 6), "window": 2},
            "max_pool_dilated": {
                "x": (2, 3, 7, 6),
                "window": (2, 3),
                "stride": (2, 1),
                "pad": ((0, 1), (2, 1)),
                "dilation": (3, 2),
                "ceil": True,
            },
            "max_pool_ceil": {"x": (2, 3, 6, 4), "window": 3, "stride": 2, "pad": ((0, 1), 0), "ceil": True},
            "max_pool_padded_by_all_but_a_tap": {
                "x": (1, 8, 3, 4),
                "window": 3,
                "stride": (1, 2),
                "pad": 2,
                "ceil": True,
            },
            "max_pool_dilated_ties_split": {
                "x": (1, 3, 5, 4),
                "window": 2,
                "stride": 1,
                "pad": 1,
                "dilation": (2, 3),
                "ties": "split",
            },
            "max_pool_volumes_dilated": {"x": (1, 2, 4, 5, 4), "window": 2, "stride": 2, "dilation": 2, "ceil": True},
            "max_pool_volumes_dilated_ties_split": {
                "x": (1, 2, 4, 5, 4),
                "window": 2,
                "stride": 1,
                "pad": (1, 1, 0),
                "dilation": (2, 3, 2),
                "ties": "split",
            },
            "max_pool_volumes_ties_split": {"x": (1, 3, 4, 3, 4), "window": 2, "stride": (1, 2, 1), "ties": "split"},
        },
        anywhere={"x": (2, 8, 4, 8)},
        counted={
            "max_pool 2x2": {"x": (2, 32, 8, 32), "window": 2},
            "max_pool 3x3 s2": {"x": (2, 32, 16, 16), "window": 3, "stride": 2, "pad": 1},
            "max_pool 2x2x2": {"x": (1, 32, 4, 8, 16), "window": 2},
        },
        bench={
            "max_pool_overlapping": {"x": (2, 2, 7, 6), "window": 3, "stride": 2, "pad": 1},
            "max_pool_of_odd_windows": {
                "x": (2, 2, 8, 7),
                "window": (3, 2),
                "stride": 2,
                "pad": ((0, 1), 0),
                "dilation": (1, 2),
                "ceil": True,
            },
            "max_pool_of_signals": {"x": (2, 2, 9), "window": (3,), "stride": 2, "pad": 1},
            "max_pool_of_volumes": {"x": (1, 2, 4, 5, 3), "window": (2, 3, 2), "stride": (1, 2, 1)},
        },
    ),
    Operator(
        "average_pool",
        {"x": Array((2, 3, 8, 8), "whole")},
        dy="whole",
        sums=True,
        calls={
            "average_pool_two": {"x": (2, 8, 5, 6), "window": 2},
            "average_pool_count_pad": {"x": (2, 3, 7, 6), "window": 3, "stride": 2, "pad": 1},
            "average_pool_signals": {"x": (2, 3, 9), "window": (2,), "stride": 1, "pad": 1, "count_pad": False},
            "average_pool_ceil": {"x": (2, 8, 7, 5), "window": (3, 2), "stride": 2, "pad": ((0, 1), 0), "ceil": True},
            "average_pool_padded_by_all_but_a_tap": {"x": (1, 8, 3, 4), "window": 3, "pad": 2, "count_pad": False},
            "average_pool_dilated": {
                "x": (2, 3, 7, 6),
                "window": (2, 3),
                "stride": (2, 1),
                "pad": ((0, 1), (2, 1)),
                "dilation": (3, 2),
                "ceil": True,
                "count_pad": False,
            },
            "average_pool_volumes_dilated": {
                "x": (1, 2, 4, 5, 4),
                "window": 2,
                "stride": 3,
                "pad": (0, 1, 0),
                "dilation": 2,
                "ceil": True,
            },
            "average_pool_volumes": {"x": (2, 3, 4, 5, 3), "window": (2, 3, 2), "stride": (1, 2, 1), "pad": (1, 1, 0)},
            "average_pool_volumes_padded_by_all_but_a_tap": {
                "x": (1, 2, 2, 3, 3),
                "window": 3,
                "stride": (2, 1, 1),
                "pad": 2,
            },
            "average_pool_volumes_real_pixels": {
                "x": (2, 3, 3, 4, 5),
                "window": (3, 2, 2),
                "stride": (2, 1, 2),
                "pad": 1,
                "count_pad": False,
            },
        },
        anywhere={"x": (2, 8, 4, 6)},
        counted={
            "average_pool 2x2": {"x": (2, 32, 8, 32), "window": 2},
            "average_pool 2x2x2": {"x": (1, 32, 4, 8, 16), "window": 2},
        },
        bench={
            "average_pool_padded": {"x": (2, 2, 5, 6), "window": (3, 2), "stride": (1, 2), "pad": 1},
            "average_pool_ceil": {"x": (2, 2, 6, 5), "window": (3, 2), "stride": 2, "pad": ((0, 1), 0), "ceil": True},
            "average_pool_of_signals": {"x": (2, 2, 9), "window": (3,), "stride": 2, "pad": 1},
            "average_pool_of_volumes": {"x": (1, 2, 4, 5, 3), "window": (2, 3, 2), "stride": (1, 2, 1)},
        },
    ),
    Operator(
        "adaptive_average_pool",
        {"x": Array((2, 3, 7, 5), "whole")},
        {"size": (3, 2)},
        ways={"whole images": {"size": 1}, "even windows": {"size": (1, 5)}},
        dy="whole",
        sums=True,
        calls={
            "adaptive_average_pool": {"x": (2, 3, 7, 5), "size": (3, 2)},
            "adaptive_average_pool_in_packs": {"x": (2, 8, 5, 7), "size": (2, 3)},
            "adaptive_average_pool_to_more": {"x": (1, 8, 3, 4), "size": (5, 6)},
            "adaptive_average_pool_signals": {"x": (2, 3, 11), "size": (4,)},
            "adaptive_average_pool_volumes": {"x": (2, 3, 4, 5, 3), "size": (3, None, 2)},
            "adaptive_average_pool_volumes_in_packs": {"x": (1, 16, 3, 2, 5), "size": (2, 3, 3)},
        },
        anywhere={"x": (2, 8, 5, 6), "size": (3, 4)},
        random=_any_adaptive_pool,
        counted={
            "adaptive_average_pool": {"x": (2, 32, 9, 32), "size": (7, 24)},
            "adaptive_average_pool of volumes": {"x": (1, 32, 4, 8, 16), "size": (3, 5, 8)},
        },
        bench={
            "adaptive_average_pool": {"x": (2, 2, 7, 5), "size": (3, 4)},
            "adaptive_average_pool_of_signals": {"x": (2, 2, 9), "size": (4,)},
            "adaptive_average_pool_of_volumes": {"x": (1, 2, 4, 5, 3), "size": (3, 2, 4)},
        },
        refused={
            "size_of_nothing": ({"size": 0}, ParamError, "size must be an int from 1", "size=0"),
            "size_negative": ({"size": (3, -1)}, ParamError, "size must be an int from 1", "size=-1"),
            "size_a_float": ({"size": 2.0}, ArgTypeError, "size must be an int, got 2.0"),
            "size_none": ({"size": None}, ArgTypeError, "size must be an int, got None"),
            "size_a_word": ({"size": "same"}, ArgTypeError, "size must be an int", "same"),
            "size_of_three_axes": ({"size": (2, 2, 2)}, ParamError, "size must be an int or a pair", "3 values"),
        },
    ),
    Operator(
        "global_average_pool",
        {"x": Array((2, 3, 8, 8), "whole")},
        dy="whole",
        sums=True,
        calls={
            "global_pool_small_planes": {"x": (3, 5, 7, 5)},
            "global_pool_wide_planes": {"x": (3, 40, 2, 4)},
            "global_pool_large_planes": {"x": (1, 3, 25, 23)},
            "global_pool_volumes": {"x": (2, 5, 3, 2, 4)},
        },
        anywhere={"x": (2, 8, 4, 4)},
        counted={"global_average_pool": {"x": (4, 32, 8, 8)}},
        bench={"global_average_pool": {"x": (2, 3, 4, 5)}},
    ),
    Operator(
        "upsample",
        {"x": Array((2, 3, 4, 4), "whole")},
        ways={"linear": {"mode": "linear"}, "of corners": {"mode": "linear", "align_corners": True}},
        dy="whole",
        sums=True,
        calls={
            "upsample": {"x": (2, 8, 3, 4)},
            "upsample_each_axis": {"x": (2, 3, 3, 5), "factor": (3, 1)},
            "upsample_signals": {"x": (2, 3, 5), "factor": 3},
            "upsample_volumes": {"x": (1, 3, 2, 3, 2), "factor": (2, 1, 3)},
            "upsample_linear": {"x": (2, 8, 4, 3), "mode": "linear"},
            "upsample_linear_each_axis": {"x": (2, 3, 3, 5), "factor": (3, 4), "mode": "linear"},
            "upsample_linear_signals": {"x": (2, 3, 5), "factor": 5, "mode": "linear"},
            "upsample_linear_volumes": {"x": (1, 3, 2, 3, 4), "factor": (3, 2, 2), "mode": "linear"},
            "upsample_linear_special": {
                "x": (2, 3, 3, 4),
                "factor": (3, 3),
                "mode": "linear",
                "drawn": {"x": "special", "dy": "special"},
            },
            "upsample_corners": {"x": (2, 4, 3, 4), "factor": (2, 3), "mode": "linear", "align_corners": True},
            "upsample_corners_of_one_pixel": {
                "x": (2, 3, 1, 3),
                "factor": (3, 2),
                "mode": "linear",
                "align_corners": True,
            },
            "upsample_corners_volumes": {
                "x": (1, 3, 3, 2, 4),
                "factor": (2, 3, 1),
                "mode": "linear",
                "align_corners": True,
            },
        },
        anywhere={"x": (2, 8, 3, 4), "mode": "linear"},
        rounds=lambda x: {"x": x},
        random=_any_upsample,
        counted={
            "upsample 2x2": {"x": (2, 32, 8, 16)},
            "upsample linear 2x2": {"x": (2, 32, 8, 16), "mode": "linear"},
            "upsample linear 2x2x2": {"x": (1, 32, 4, 4, 8), "mode": "linear"},
        },
        bench={
            "upsample": {"x": (2, 2, 3, 4), "factor": (3, 2), "mode": "nearest"},
            "upsample_linear": {"x": (2, 2, 3, 4), "factor": 2, "mode": "linear"},
            "upsample_of_corners": {"x": (2, 2, 4, 3), "factor": (2, 3), "mode": "linear", "align_corners": True},
            "upsample_of_signals": {"x": (2, 2, 5), "factor": 3, "mode": "linear"},
            "upsample_of_volumes": {"x": (1, 2, 2, 3, 2), "factor": (2, 1, 3), "mode": "linear"},
        },
        refused={
            "factor_zero": ({"factor": 0}, ParamError, "factor must be an int from 1", "factor=0"),
            "factor_a_fraction": ({"factor": 1.5}, ArgTypeError, "factor must be an int, got 1.5"),
            "factor_of_other_axes": (
                {"factor": (2,)},
                ParamError,
                "factor must be an int or a pair (vertical, horizontal), got 1 value: (2,)",
            ),
            "mode_of_two_axes": (
                {"mode": "bilinear"},
                ParamError,
                'mode must be "nearest" or "linear"',
                "got 'bilinear'",
            ),
            "unknown_mode": ({"mode": "bicubic"}, ParamError, 'mode must be "nearest" or "linear", got \'bicubic\''),
            "corners_of_nearest": ({"align_corners": True}, ParamError, 'align_corners=True needs mode="linear"'),
            "corners_a_number": ({"align_corners": 1}, ArgTypeError, "align_corners must be True or False, got 1"),
        },
    ),
    Operator(
        "batchnorm",
        _batchnorm((2, 3)),
        ways={"in evaluation": {"training": False}},
        refers=("x", "gamma"),
        writes=("running_mean", "running_var"),
        scales=_scales_of_batchnorm,
        calls={"batchnorm_rows": {"x": (37, 5)}},
        anywhere={"x": (9, 8)},
        bench={"batchnorm": {"x": (6, 4)}},
    ),
    Operator(
        "spatial_batchnorm",
        _batchnorm((2, 3, 8, 8)),
        ways={"in evaluation": {"training": False}},
        refers=("x", "gamma"),
        writes=("running_mean", "running_var"),
        scales=_scales_of_batchnorm,
        calls={
            "batchnorm_images": {"x": (3, 5, 5, 7), "momentum": 0.7, "eps": 1e-3},
            "batchnorm_images_in_packs": {"x": (2, 8, 4, 8)},
            "batchnorm_signals": {"x": (3, 5, 7)},
            "batchnorm_volumes": {"x": (2, 3, 3, 4, 5)},
        },
        anywhere={"x": (2, 8, 4, 4)},
        rounds=lambda x: {"x": x},
        counted={"spatial_batchnorm": {"x": (4, 32, 16, 16)}},
        bench={
            "spatial_batchnorm": {"x": (3, 2, 4, 5)},
            "spatial_batchnorm_of_signals": {"x": (3, 2, 7)},
            "spatial_batchnorm_of_volumes": {"x": (2, 2, 3, 2, 4)},
        },
    ),
    Operator(
        "groupnorm",
        _groupnorm((2, 6, 4, 4)),
        {"groups": 3},
        refers=("x", "gamma"),
        scales=_scales_of_groupnorm,
        calls={
            "groupnorm_images": {"x": (3, 6, 5, 7), "groups": 2, "eps": 1e-3},
            "groupnorm_in_packs": {"x": (2, 24, 4, 8), "groups": 8},
            "groupnorm_volumes": {"x": (2, 6, 3, 2, 5), "groups": 2},
        },
        anywhere={"x": (2, 8, 4, 4), "groups": 2},
        rounds=lambda x: {"x": x, "groups": 1},
        bench={"groupnorm": {"x": (3, 6, 4, 5)}, "groupnorm_of_images": {"x": (2, 3, 4, 5), "groups": 1}},
    ),
    Operator(
        "layernorm",
        _groupnorm((2, 6)),
        refers=("x", "gamma"),
        scales=_scales_of_groupnorm,
        calls={"layernorm_rows": {"x": (37, 5)}},
        bench={"layernorm": {"x": (4, 7)}},
    ),
    Operator(
        "conv",
        {
            "x": Array((2, 3, 8, 8), "whole"),
            "w": Array((4, 3, 3, 3), "whole"),
            "b": Array(lambda shapes: shapes["w"][:1], "whole", optional=True),
        },
        dy="whole",
        sums=True,
        refers=("x", "w"),
        calls={
            "conv_first_layer": {"x": (2, 3, 6, 5), "w": (17, 3, 3, 3), "pad": 1},
            "conv_signals": {"x": (2, 3, 9), "w": (4, 3, 3), "stride": 2, "pad": 1},
            "conv_volumes": {"x": (2, 3, 3, 4, 5), "w": (3, 3, 2, 3, 2), "pad": 1},
            "conv_padded_behind": {"x": (2, 3, 4, 5), "w": (3, 3, 2, 2), "pad": ((0, 2), (1, 3)), "stride": (1, 2)},
            "conv_tiles_padded_behind": {"x": (1, 9, 4, 3), "w": (17, 9, 3, 2), "pad": ((0, 2), (0, 3))},
            "conv_volumes_padded_behind": {"x": (1, 2, 2, 3, 3), "w": (3, 2, 2, 2, 2), "pad": ((0, 2), (0, 1), 0)},
        },
        counted={
            "conv 3x3, 16->32": {"x": (2, 16, 16, 16), "w": (32, 16, 3, 3), "pad": 1},
            "conv 3x3 s2, 16->32": {"x": (2, 16, 16, 16), "w": (32, 16, 3, 3), "stride": 2, "pad": 1},
            "conv 3x3, 3->32": {"x": (2, 3, 16, 16), "w": (32, 3, 3, 3), "pad": 1},
            "conv 3x3x3, 16->32": {"x": (1, 16, 8, 8, 8), "w": (32, 16, 3, 3, 3), "pad": 1},
            "conv 3x3x3 s2, 16->32": {"x": (1, 16, 8, 8, 8), "w": (32, 16, 3, 3, 3), "stride": 2, "pad": 1},
            "conv 3x3x3, 1->32": {"x": (1, 1, 8, 8, 8), "w": (32, 1, 3, 3, 3), "pad": 1},
        },
        bench={
            "conv": {"x": (2, 3, 5, 6), "w": (4, 3, 3, 3), "pad": 1},
            "conv_every_option": {
                "x": (2, 4, 7, 8),
                "w": (6, 2, 3, 2),
                "stride": (2, 1),
                "pad": (1, 2),
                "dilation": (1, 2),
                "groups": 2,
            },
            "conv_of_signals": {"x": (2, 4, 9), "w": (6, 2, 3), "stride": 2, "pad": 1, "dilation": 2, "groups": 2},
            "conv_of_volumes": {"x": (1, 2, 4, 5, 3), "w": (3, 2, 2, 3, 2), "stride": (1, 2, 1), "pad": (1, 0, 1)},
            "conv_padded_behind": {"x": (2, 3, 6, 5), "w": (4, 3, 3, 3), "stride": 2, "pad": ((0, 1), (1, 2))},
            "conv_tap_always_in_padding": {"x": (1, 1, 2, 2), "w": (1, 1, 3, 3), "pad": 2, "stride": 3},
        },
    ),
    Operator(
        "conv_transpose",
        {
            "x": Array((2, 3, 4, 4), "whole"),
            "w": Array((3, 4, 3, 3), "whole"),
            "b": Array(lambda shapes: (shapes["w"][1],), "whole", optional=True),
        },
        dy="whole",
        sums=True,
        refers=("x", "w"),
        calls={
            "conv_transpose_few_channels": {"x": (2, 3, 4, 5), "w": (3, 4, 4, 4), "stride": 2, "pad": 1},
            "conv_transpose_tiles": {"x": (2, 9, 4, 3), "w": (9, 17, 3, 3), "stride": 2, "pad": 1, "output_pad": 1},
            "conv_transpose_tensor": {"x": (2, 16, 4, 3), "w": (16, 24, 2, 2), "stride": 2},
            "conv_transpose_signals": {"x": (2, 3, 5), "w": (3, 4, 3), "stride": 2},
            "conv_transpose_volumes": {"x": (1, 9, 2, 2, 3), "w": (9, 17, 2, 2, 2), "stride": 2},
            "conv_transpose_volumes_few_channels": {"x": (1, 2, 2, 3, 2), "w": (2, 3, 2, 3, 2), "stride": (1, 2, 2)},
            "conv_transpose_cut_behind": {"x": (1, 2, 3, 3), "w": (2, 3, 3, 3), "stride": 2, "pad": ((0, 1), (0, 2))},
        },
        random=_any_conv_transpose,
        bench={
            "conv_transpose": {"x": (2, 3, 4, 5), "w": (3, 4, 4, 4), "stride": 2, "pad": 1},
            "conv_transpose_every_option": {
                "x": (2, 4, 3, 4),
                "w": (4, 3, 3, 2),
                "b": (6,),
                "stride": (2, 3),
                "pad": (1, 0),
                "output_pad": (1, 2),
                "dilation": (1, 2),
                "groups": 2,
            },
            "conv_transpose_cut_on_one_side": {
                "x": (1, 3, 3, 4),
                "w": (3, 2, 3, 3),
                "stride": 2,
                "pad": ((0, 1), (2, 1)),
            },
        },
        refused={
            "output_pad_of_a_whole_stride": (
                {"stride": 2, "output_pad": 2},
                ParamError,
                "output_pad must be less than stride or dilation: output_pad=(2, 2), stride=(2, 2)",
            ),
            "output_pad_negative": ({"output_pad": -1}, ParamError, "output_pad must be"),
            "stride_zero": ({"stride": 0}, ParamError, "stride must be"),
            "groups_that_do_not_divide": (
                {"groups": 2},
                ParamError,
                "groups must divide the channels of x, got groups=2, C=3",
            ),
            "pad_that_leaves_nothing": (
                {"pad": 3},
                ParamError,
                "pad must leave something of the output, 6x6 before it is cut: pad=(3, 3)",
            ),
        },
    ),
    Operator(
        "affine",
        {
            "w": Array((5, 4), "whole"),
            "x": Array((2, 5), "whole"),
            "b": Array(lambda shapes: shapes["w"][1:], "whole", optional=True),
        },
        dy="whole",
        sums=True,
        refers=("x", "w"),
        calls={"affine": {"x": (5, 7), "w": (7, 3)}, "affine_in_packs": {"x": (5, 3), "w": (3, 16)}},
        rounds=lambda x: {"x": x, "w": (prod(x[1:]), 5)},
        random=lambda rng: {
            "x": (rng.randint(1, 20), features := rng.randint(1, 9)),
            "w": (features, rng.randint(2, 70)),
            **({} if rng.random() < 0.5 else {"b": None}),
        },
        bench={"affine": {"x": (3, 8), "w": (8, 5)}, "affine_of_images": {"x": (3, 2, 3, 4), "w": (24, 5)}},
    ),
    Operator(
        "softmax_cross_entropy",
        {
            "scores": Array((2, 3)),
            "labels": labels("int64"),
            "class_weights": Array(lambda shapes: shapes["scores"][1:], "positive", optional=True),
        },
        calls={
            "softmax": {"scores": (5, 10), "class_weights": None},
            "softmax_smoothed": {"scores": (5, 10), "class_weights": None, "label_smoothing": 0.2},
            "softmax_weighted": {"scores": (5, 40), "label_smoothing": 0.1},
            "softmax_ignored_in_a_mean": {"scores": (7, 5), "ignore": 0},
            "softmax_ignored": {"scores": (9, 4), "class_weights": None, "ignore": 1, "reduction": "sum"},
            "softmax_each": {"scores": (9, 4), "ignore": 2, "reduction": "none"},
        },
        rounds=lambda _: {"scores": (300, 7), "label_smoothing": 0.1, "ignore": 3},
        random=lambda rng: {
            "scores": _rows(rng),
            "label_smoothing": rng.choice((0.0, 0.1)),
            "ignore": rng.choice((None, 0, 1)),
            "reduction": rng.choice(("mean", "sum", "none")),
            **rng.choice(({}, {"class_weights": None})),
        },
        refused={
            "unknown_reduction": ({"reduction": "average"}, ParamError, 'reduction must be "mean", "sum" or "none"'),
            "class_weights_of_other_classes": (
                {"class_weights": np.ones(4, np.float32)},
                ShapeError,
                "class_weights must have one entry per class, (3,), got (4,)",
            ),
            "ignore_a_float": ({"ignore": 1.0}, ArgTypeError, "ignore must be an int, got 1.0"),
        },
    ),
    Operator(
        "sigmoid_cross_entropy",
        {"scores": Array((2, 3)), "targets": Array(lambda shapes: shapes["scores"], "positive")},
        calls={
            "sigmoid_one_run": {"scores": (5, 10)},
            "sigmoid_runs": {"scores": (3, 701), "reduction": "sum"},
            "sigmoid_each": {"scores": (2, 3, 4, 5), "reduction": "none"},
        },
        rounds=lambda _: {"scores": (300, 7)},
        random=lambda rng: {"scores": _any_shape(rng), "reduction": rng.choice(("mean", "sum", "none"))},
        refused={
            "unknown_reduction": ({"reduction": None}, ParamError, 'reduction must be "mean", "sum" or "none"'),
            "targets_of_another_shape": (
                {"targets": np.ones((2, 4), np.float32)},
                ShapeError,
                "targets must have the shape of scores, (2, 3), got (2, 4)",
            ),
        },
    ),
    Operator(
        "svm_loss",
        {"scores": Array((2, 3)), "labels": labels("int32")},
        calls={"svm": {"scores": (5, 10)}},
        rounds=lambda _: {"scores": (300, 7)},
        random=lambda rng: {"scores": _rows(rng), "margin": rng.choice((1.0, 0.3))},
    ),
    Operator(
        "augment",
        {
            "images": Array(
                (2, 3, 4, 4), lambda d, shapes, layout: d.integers(0, 256, shapes["images"], "uint8", layout), "uint8"
            ),
            "draws": Array(
                lambda shapes: shapes["images"][:1],
                lambda d, shapes, _: d.put(words(*shapes["draws"], seed=1, stream=Stream.AUGMENT)),
                "uint64",
                optional=True,
            ),
        },
        lambda shapes: {"mean": [0.5, 0.4, 0.3][: shapes["images"][1]], "std": [0.25, 0.2, 0.3][: shapes["images"][1]]},
        stored=lambda d: {"dtype": d.dtype, "channels_last": d.channels_last},
        calls={
            "augment": {"images": (5, 3, 6, 5), "pad": 2, "flip": True},
            "augment_far": {"images": (7, 2, 4, 3), "pad": 4, "layout": {"images": "negative_strides"}},
            "augment_as_it_is": {"images": (2, 3, 4, 4), "draws": None},
            "augment_reflected": {"images": (9, 2, 4, 5), "pad": 3, "flip": True, "pad_mode": "reflect"},
            "augment_cut_out": {"images": (9, 2, 5, 6), "pad": 1, "flip": True, "cutout": 3},
            "augment_reflected_and_cut": {"images": (6, 1, 6, 4), "pad": 2, "pad_mode": "reflect", "cutout": 4},
        },
        rounds=lambda _: {"images": (7, 3, 11, 9), "pad": 3, "flip": True},
        random=lambda rng: {
            "images": (rng.randint(1, 20), 3, rng.randint(1, 9), rng.randint(1, 9)),
            "pad": rng.randint(0, 4),
            "flip": rng.random() < 0.5,
        },
    ),
    Operator(
        "sgd_update",
        {**_PARAMETERS, "velocity": Array(_as_w, "positive", optional=True)},
        {"lr": 0.1, "momentum": 0.9},
        writes=("w", "velocity"),
        calls={
            "sgd": {"w": (2101,), "velocity": None, "momentum": 0.0, "weight_decay": 0.1},
            "sgd_momentum": {"w": (37,), "weight_decay": 0.01},
            "sgd_nesterov_view": {"w": (37,), "nesterov": True, "layout": "every_second_column"},
        },
        rounds=lambda _: {"w": (3001,)},
        random=lambda rng: {"w": _vector(rng), "nesterov": rng.random() < 0.5},
    ),
    Operator(
        "rmsprop_update",
        {**_PARAMETERS, "square": Array(_as_w, "positive")},
        {"lr": 0.1},
        writes=("w", "square"),
        calls={
            "rmsprop": {"w": (2101,), "weight_decay": 0.01},
            "rmsprop_view": {"w": (37,), "layout": "every_second_column"},
        },
        rounds=lambda _: {"w": (3001,)},
        random=lambda rng: {"w": _vector(rng), "weight_decay": rng.choice((0.0, 0.1))},
    ),
    Operator(
        "adam_update",
        {**_PARAMETERS, "m": Array(_as_w, "positive"), "v": Array(_as_w, "positive")},
        {"lr": 0.1, "step": 3},
        writes=("w", "m", "v"),
        calls={
            "adam": {"w": (37,), "weight_decay": 0.1},
            "adam_decoupled_view": {
                "w": (37,),
                "weight_decay": 0.1,
                "decoupled": True,
                "layout": "every_second_column",
            },
        },
        rounds=lambda _: {"w": (3001,)},
        random=lambda rng: {"w": _vector(rng), "step": rng.randint(1, 1000), "weight_decay": 0.1},
    ),
)
OPERATORS = {row.name: row for row in _ROWS}
