"""The definition of every operator in float64, at a few hundred places of each result: what all sides are held to.

The loops of gpuconv.naive would take hours at these sizes; the same sums at sampled places take milliseconds.  A test
holds this file to those loops.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cases import OPERATORS, of_axes, sides
from .inputs import Inputs, draw

_PLACES = 400  # sampled in each result
_LONG_PLACES = 60  # in the gradient of the filters, where each is a sum over the whole batch
TRAIN_STEPS = 3

# Unit roundoff of what enters the products of a regime.  float16 sums are kept in float32 by most, not by all.
_UNITS = {"float32": 2.0**-24, "tf32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_SUM_UNIT = 2.0**-24  # of sums that are kept in float32
# Losses of the first steps: most sides keep within 1e-6, but Adam divides a gradient by its own size, so that its first
# step moves even weights whose gradient is rounding noise.  What a wrong gradient changes is percents.
_LOSS_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Reference:
    """One result at its sampled places: values, and the largest error that rounding explains.

    dropped: the share of the values that each side replaces by zero, at places of its own choice.
    promised: the largest error where sums are kept in float32, factors are rounded in TF32 alone, and a result once.
    """

    name: str
    shape: tuple[int, ...]
    values: np.ndarray
    allowed: float
    dropped: float = 0.0
    promised: float = 0.0

    def error(self, sample: Sample) -> float:
        """Return the largest difference to a sample, relative to the largest value; infinite if it cannot be right."""
        if sample.shape != self.shape or not sample.finite:
            return math.inf
        if not self.values.size:
            return 0.0
        zeros = sample.values == 0
        # Five standard deviations of the share of zeros: one draw in two million lies further off.
        if self.dropped and abs(zeros.mean() - self.dropped) > 5 * math.sqrt(
            self.dropped * (1 - self.dropped) / zeros.size
        ):
            return math.inf
        difference = np.where(zeros, 0, sample.values - self.values) if self.dropped else sample.values - self.values
        return float(np.abs(difference).max() / max(np.abs(self.values).max(), 1e-30))

    def agrees(self, sample: Sample) -> bool:
        """Return whether the difference is one of rounding."""
        return bool(self._off(sample) <= self.allowed)

    def as_promised(self, sample: Sample) -> bool:
        """Return whether the difference is within what gpuconv promises of convolution, stricter in 16 bits and TF32."""
        return bool(self._off(sample) <= self.promised)

    def _off(self, sample: Sample) -> float:
        return self.error(sample) * float(max(np.abs(self.values).max(initial=0.0), 1e-30))


@dataclass(frozen=True)
class Sample:
    """What a side got, at the places of its Reference; finite says it of the whole array."""

    shape: tuple[int, ...]
    values: np.ndarray
    finite: bool


def sample(result: np.ndarray, name: str) -> Sample:
    """Return the values of a whole result at the places that its name and shape choose."""
    places = tuple(places_of(name, result.shape).T)
    return Sample(result.shape, result[places].astype(wide(result.dtype)), bool(np.isfinite(result).all()))


def wide(dtype: np.dtype) -> np.dtype:
    """Return the dtype that numbers of this one are compared in: float64, or two of them."""
    return np.promote_types(dtype, np.float64)


def places_of(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the sampled places of a result as rows of indices: all of them where they are few."""
    most, total = _LONG_PLACES if name == "dw" else _PLACES, math.prod(shape)
    if not shape:
        return np.zeros((1, 0), np.int64)
    flat = np.arange(total) if total <= most else np.random.default_rng(total).choice(total, most, replace=False)
    return np.stack(np.unravel_index(flat, shape), axis=1)


def result_names(op: str, direction: str) -> tuple[str, ...]:
    """Return the names of an operator's results, in the order in which every side returns them."""
    if direction == "loss":
        return "loss", "dx"
    if direction != "backward":
        return ("losses",) if direction == "step" else ("y",)
    return OPERATORS[op].gradients


def references(inputs: Inputs) -> dict[str, list[Reference]]:
    """Return the references of each direction of a case."""
    case = inputs.case
    if case.op == "train_step":
        losses = _losses(inputs)
        return {"step": [Reference("losses", losses.shape, losses, _LOSS_TOLERANCE * float(losses.max()))]}
    definition = _DEFINITIONS[case.op](inputs)
    return {
        direction: [_reference(definition, name, inputs) for name in result_names(case.op, direction)]
        for direction in case.directions
    }


def _reference(definition: Any, name: str, inputs: Inputs) -> Reference:
    shape = _shape_of(name, inputs)
    terms: list[tuple[float, float, int]] = [
        definition(name, tuple(place)) for place in places_of(name, shape).tolist()
    ]
    values = np.array([term[0] for term in terms])
    # tests/compare.py bounds an error by the terms of its own sum.  Winograd's method and FFTs share roundings among
    # neighbouring outputs, so here the largest sum of absolute terms stands for all: c u S with c = 4 + 2 sqrt(K).
    scale, length = max(term[1] for term in terms), max(term[2] for term in terms)
    factor, unit = 4 + 2 * length**0.5, _UNITS[inputs.regime]
    promised = (factor * _SUM_UNIT + (3 * unit + unit**2 if inputs.regime == "tf32" else 0)) * scale
    rounded = _SUM_UNIT if inputs.regime == "tf32" else unit
    promised += rounded * float(np.abs(values).max(initial=0))
    return Reference(name, shape, values, factor * unit * scale, definition.dropped, promised)


def _shape_of(name: str, inputs: Inputs) -> tuple[int, ...]:
    case = inputs.case
    channels = (case.x[1],)
    return {
        "loss": (),
        "y": case.y,
        "dx": case.x,
        "dw": case.w,
        "db": case.y[1:2],
        "dgamma": channels,
        "dbeta": channels,
    }[name] or ()


class _Sums:
    """A definition gives (value, sum of absolute terms, number of terms) of a result at a place."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs, self.case = inputs, inputs.case
        options = inputs.case.options
        self.size, self.positions = inputs.case.x[2:], inputs.case.y[2:]
        axes = len(self.size)
        self.stride = of_axes(options.get("stride", 1), axes)
        self.pad = tuple(before for before, _ in sides(options.get("pad", 0), axes))
        self.dilation = of_axes(options.get("dilation", 1), axes)
        assert inputs.dy is not None
        self.x, self.dy = inputs.x, inputs.dy

    def __call__(self, name: str, place: tuple[int, ...]) -> tuple[float, float, int]:
        return getattr(self, name)(*place)

    def taps(self, p: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Yield (r, i): the taps of window position p, and the pixels i under them, that lie in the image."""
        for r in np.ndindex(*self.window):
            steps = zip(p, r, self.stride, self.dilation, self.pad, strict=True)
            i = tuple(at * stride + tap * dilation - pad for at, tap, stride, dilation, pad in steps)
            if all(0 <= pixel < size for pixel, size in zip(i, self.size, strict=True)):
                yield r, i

    def windows(self, i: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Yield (r, p): the window positions p that have the pixel i under their tap r."""
        for r in np.ndindex(*self.window):
            steps = zip(i, r, self.stride, self.dilation, self.pad, strict=True)
            starts = [divmod(pixel + pad - tap * dilation, stride) for pixel, tap, stride, dilation, pad in steps]
            p = tuple(at for at, _ in starts)
            if not any(odd for _, odd in starts) and all(
                0 <= at < count for at, count in zip(p, self.positions, strict=True)
            ):
                yield r, p

    window: tuple[int, ...] = ()
    dropped = 0.0


class _Affine(_Sums):
    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        assert inputs.w is not None
        assert inputs.b is not None
        self.w, self.b = inputs.w.astype(np.float64), inputs.b.astype(np.float64)
        self.rows = inputs.x.reshape(len(inputs.x), -1)

    def y(self, n: int, m: int) -> tuple[float, float, int]:
        return _total(np.append(self.rows[n] * self.w[:, m], self.b[m]))

    def dx(self, n: int, *place: int) -> tuple[float, float, int]:
        return _total(self.dy[n] * self.w[np.ravel_multi_index(place, self.case.x[1:])])

    def dw(self, d: int, m: int) -> tuple[float, float, int]:
        return _total(self.rows[:, d].astype(np.float64) * self.dy[:, m])

    def db(self, m: int) -> tuple[float, float, int]:
        return _total(self.dy[:, m].astype(np.float64))


class _Conv(_Sums):
    """Of complex numbers, too: gradients are those of the real and the imaginary part, so that factors are conjugated."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        assert inputs.w is not None
        assert inputs.b is not None
        self.w, self.b = inputs.w.astype(wide(inputs.dtype)), inputs.b.astype(wide(inputs.dtype))
        self.window = inputs.w.shape[2:]
        groups = self.case.options.get("groups", 1)
        self.C_g, self.K_g = self.case.x[1] // groups, self.w.shape[0] // groups

    def y(self, n: int, k: int, *p: int) -> tuple[float, float, int]:
        first = k // self.K_g * self.C_g
        terms = [self.x[n, first : first + self.C_g, *i] * self.w[k, :, *r] for r, i in self.taps(p)]
        return _total(np.append(np.concatenate(terms) if terms else np.zeros(0), self.b[k]))

    def dx(self, n: int, c: int, *i: int) -> tuple[float, float, int]:
        group, own = divmod(c, self.C_g)
        filters = slice(group * self.K_g, (group + 1) * self.K_g)
        terms = [self.dy[n, filters, *p] * self.w[filters, own, *r].conj() for r, p in self.windows(i)]
        return _total(np.concatenate(terms) if terms else np.zeros(0))

    def dw(self, k: int, c: int, *r: int) -> tuple[float, float, int]:
        overlaps = [
            _overlap(tap * self.dilation[a] - self.pad[a], self.stride[a], self.size[a], self.positions[a])
            for a, tap in enumerate(r)
        ]
        x = self.x[:, k // self.K_g * self.C_g + c, *(pixels for _, pixels in overlaps)].astype(self.w.dtype)
        return _total(x.conj() * self.dy[:, k, *(windows for windows, _ in overlaps)])

    def db(self, k: int) -> tuple[float, float, int]:
        return _total(self.dy[:, k].astype(self.w.dtype))


class _ConvTranspose(_Sums):
    """The convolution of y to x turned round: x is in the place of its dy, and y in that of its dx."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        assert inputs.w is not None
        assert inputs.b is not None
        self.w, self.b = inputs.w.astype(np.float64), inputs.b.astype(np.float64)
        self.window = inputs.w.shape[2:]
        self.size, self.positions = self.positions, self.size
        groups = self.case.options.get("groups", 1)
        self.C_g, self.K_g = self.case.x[1] // groups, self.w.shape[1]

    def y(self, n: int, k: int, *i: int) -> tuple[float, float, int]:
        group, own = divmod(k, self.K_g)
        channels = slice(group * self.C_g, (group + 1) * self.C_g)
        terms = [self.x[n, channels, *p] * self.w[channels, own, *r] for r, p in self.windows(i)]
        return _total(np.append(np.concatenate(terms) if terms else np.zeros(0), self.b[k]))

    def dx(self, n: int, c: int, *p: int) -> tuple[float, float, int]:
        first = c // self.C_g * self.K_g
        terms = [self.dy[n, first : first + self.K_g, *i] * self.w[c, :, *r] for r, i in self.taps(p)]
        return _total(np.concatenate(terms) if terms else np.zeros(0))

    def dw(self, c: int, k: int, *r: int) -> tuple[float, float, int]:
        overlaps = [
            _overlap(tap * self.dilation[a] - self.pad[a], self.stride[a], self.size[a], self.positions[a])
            for a, tap in enumerate(r)
        ]
        dy = self.dy[:, c // self.C_g * self.K_g + k, *(pixels for _, pixels in overlaps)]
        return _total(dy.astype(np.float64) * self.x[:, c, *(windows for windows, _ in overlaps)])

    def db(self, k: int) -> tuple[float, float, int]:
        return _total(self.dy[:, k].astype(np.float64))


def _overlap(start: int, stride: int, size: int, count: int) -> tuple[slice, slice]:
    """Return the window positions whose tap lies in the image, and the pixels under that tap, along one axis."""
    inside = [p for p in range(count) if 0 <= start + p * stride < size]
    if not inside:
        return slice(0, 0), slice(0, 0)
    first, last = inside[0], inside[-1]
    return slice(first, last + 1), slice(start + first * stride, start + last * stride + 1, stride)


class _Pool(_Sums):
    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.window = of_axes(self.case.options.get("window", 2), len(self.size))
        self.stride = of_axes(self.case.options.get("stride", self.window), len(self.size))


class _MaxPool(_Pool):
    def largest(self, n: int, c: int, p: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        value, _, i = max((float(self.x[n, c, *i]), tuple(-tap for tap in r), i) for r, i in self.taps(p))
        return value, i

    def y(self, n: int, c: int, *p: int) -> tuple[float, float, int]:
        value = self.largest(n, c, p)[0]
        return value, abs(value), 1

    def dx(self, n: int, c: int, *i: int) -> tuple[float, float, int]:
        won = [self.dy[n, c, *p] for _, p in self.windows(i) if self.largest(n, c, p)[1] == i]
        return _total(np.array(won, np.float64))


class _AveragePool(_Pool):
    def count(self, p: tuple[int, ...]) -> int:
        """Return how many taps of a window lie in the padded image."""
        both = sides(self.case.options.get("pad", 0), len(self.size))
        axes = zip(p, self.stride, self.dilation, self.window, self.size, both, strict=True)
        return math.prod(
            sum(at * stride + tap * apart < size + sum(pad) for tap in range(taps))
            for at, stride, apart, taps, size, pad in axes
        )

    def y(self, n: int, c: int, *p: int) -> tuple[float, float, int]:
        taps = np.array([self.x[n, c, *i] for _, i in self.taps(p)], np.float64)
        return _total(taps / self.count(p))

    def dx(self, n: int, c: int, *i: int) -> tuple[float, float, int]:
        shares = np.array([float(self.dy[n, c, *p]) / self.count(p) for _, p in self.windows(i)])
        return _total(shares)


class _AdaptiveAveragePool(_Sums):
    def ranges(self, n: int, c: int, p: tuple[int, ...]) -> list[range]:
        """Return the pixels of a window along each axis."""
        axes = zip(p, self.size, self.dy.shape[2:], strict=True)
        return [range(at * size // windows, -(-(at + 1) * size // windows)) for at, size, windows in axes]

    def y(self, n: int, c: int, *p: int) -> tuple[float, float, int]:
        pixels = self.x[n, c][np.ix_(*self.ranges(n, c, p))].astype(np.float64)
        return _total(pixels.reshape(-1) / pixels.size)

    def dx(self, n: int, c: int, *i: int) -> tuple[float, float, int]:
        windows = [(p, self.ranges(n, c, p)) for p in np.ndindex(*self.dy.shape[2:])]
        over = [(p, ranges) for p, ranges in windows if all(at in pixels for at, pixels in zip(i, ranges, strict=True))]
        return _total(np.array([float(self.dy[n, c, *p]) / math.prod(map(len, ranges)) for p, ranges in over]))


class _Upsample(_Sums):
    """Weights are those of a tent over each pixel, one pixel wide on either side; nearest: of a box."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        options = self.case.options
        factors = of_axes(options.get("factor", 2), len(self.size))
        axes = zip(self.size, factors, strict=True)
        self.weights = [_weights(n, f, options["mode"], options.get("align_corners", False)) for n, f in axes]

    def y(self, n: int, c: int, *p: int) -> tuple[float, float, int]:
        return self.weighed(self.x[n, c], [weights[at] for weights, at in zip(self.weights, p, strict=True)])

    def dx(self, n: int, c: int, *i: int) -> tuple[float, float, int]:
        return self.weighed(self.dy[n, c], [weights[:, at] for weights, at in zip(self.weights, i, strict=True)])

    def weighed(self, values: np.ndarray, axes: list[np.ndarray]) -> tuple[float, float, int]:
        some = [np.flatnonzero(weights) for weights in axes]
        of_each = math.prod(np.ix_(*(weights[taken] for weights, taken in zip(axes, some, strict=True))))
        return _total((values[np.ix_(*some)].astype(np.float64) * of_each).reshape(-1))


def _weights(size: int, factor: int, mode: str, align_corners: bool) -> np.ndarray:
    """Return what each result along an axis takes of each pixel, (factor size, size)."""
    place, pixel = np.arange(size * factor), np.arange(size)
    if mode == "nearest":
        return (place[:, None] // factor == pixel).astype(np.float64)
    if align_corners:
        above, below = place * (size - 1), max(1, size * factor - 1)
    else:
        above, below = np.clip(2 * place + 1 - factor, 0, 2 * factor * (size - 1)), 2 * factor
    return np.maximum(below - np.abs(above[:, None] - pixel * below), 0) / below


class _GlobalAveragePool(_Sums):
    def y(self, n: int, c: int) -> tuple[float, float, int]:
        return _total(self.x[n, c].astype(np.float64) / math.prod(self.size))

    def dx(self, n: int, c: int, *i: int) -> tuple[float, float, int]:
        return _total(self.dy[n, c : c + 1].astype(np.float64) / math.prod(self.size))


class _Norm(_Sums):
    """Channels normalised together, each group of them by its mean and variance, over all images or image by image."""

    over_images = False

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        assert inputs.w is not None
        assert inputs.b is not None
        self.gamma, self.beta = inputs.w.astype(np.float64), inputs.b.astype(np.float64)
        self.known: dict[int, dict[str, Any]] = {}

    def channels(self, c: int) -> slice:
        """Return the channels that are normalised together with channel c."""
        raise NotImplementedError

    def group(self, c: int) -> dict[str, Any]:
        """Return what the results of a channel's group are made of, a number for each image, or one for all."""
        channels = self.channels(c)
        if channels.start not in self.known:
            x, dy = self.x[:, channels].astype(np.float64), self.dy[:, channels].astype(np.float64)
            axes = tuple(range(0 if self.over_images else 1, x.ndim))
            mean, inv_std = x.mean(axes, keepdims=True), 1 / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
            scaled = dy * self.gamma[channels].reshape(-1, *(1,) * (x.ndim - 2))
            turned = scaled * (x - mean) * inv_std
            numbers = {"mean": mean, "inv_std": inv_std, "scaled": scaled.mean(axes), "turned": turned.mean(axes)}
            numbers |= {"scaled_size": np.abs(scaled).mean(axes), "turned_size": np.abs(turned).mean(axes)}
            self.known[channels.start] = {name: values.reshape(-1) for name, values in numbers.items()}
            self.known[channels.start]["count"] = x.size // mean.size
        return self.known[channels.start]

    def normal(self, c: int) -> np.ndarray:
        """Return channel c, normalised."""
        mean, inv_std = (self.group(c)[name].reshape(-1, *(1,) * (self.x.ndim - 2)) for name in ("mean", "inv_std"))
        return (self.x[:, c].astype(np.float64) - mean) * inv_std

    def of(self, n: int, c: int) -> dict[str, float]:
        """Return the numbers of a channel's group in image n."""
        known, image = self.group(c), 0 if self.over_images else n
        return {name: float(values[image]) for name, values in known.items() if name != "count"}

    def y(self, n: int, c: int, *pixel: int) -> tuple[float, float, int]:
        known, x = self.of(n, c), float(self.x[n, c, *pixel])
        scale = float(self.gamma[c]) * known["inv_std"]
        size = abs(scale) * (abs(x) + abs(known["mean"])) + abs(float(self.beta[c]))
        return (x - known["mean"]) * scale + float(self.beta[c]), size, self.group(c)["count"]

    def dx(self, n: int, c: int, *pixel: int) -> tuple[float, float, int]:
        known, scaled = self.of(n, c), float(self.gamma[c]) * float(self.dy[n, c, *pixel])
        normal = (float(self.x[n, c, *pixel]) - known["mean"]) * known["inv_std"]
        size = abs(scaled) + known["scaled_size"] + abs(normal) * known["turned_size"]
        value = scaled - known["scaled"] - normal * known["turned"]
        return known["inv_std"] * value, known["inv_std"] * size, self.group(c)["count"]

    def dgamma(self, c: int) -> tuple[float, float, int]:
        return _total(self.dy[:, c] * self.normal(c))

    def dbeta(self, c: int) -> tuple[float, float, int]:
        return _total(self.dy[:, c].astype(np.float64))


class _BatchNorm(_Norm):
    over_images = True

    def channels(self, c: int) -> slice:
        return slice(c, c + 1)


class _GroupNorm(_Norm):
    def channels(self, c: int) -> slice:
        size = self.case.x[1] // self.case.options.get("groups", 1)
        return slice(c // size * size, (c // size + 1) * size)


class _Relu(_Sums):
    def y(self, *place: int) -> tuple[float, float, int]:
        return _total(np.maximum(self.x[place], 0).astype(np.float64))

    def dx(self, *place: int) -> tuple[float, float, int]:
        return _total(np.float64(self.dy[place] if self.x[place] > 0 else 0))


class _LeakyRelu(_Sums):
    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.slope = self.case.options.get("slope", 0.01)

    def y(self, *place: int) -> tuple[float, float, int]:
        x = np.float64(self.x[place])
        return _total(x if x > 0 else self.slope * x)

    def dx(self, *place: int) -> tuple[float, float, int]:
        dy = np.float64(self.dy[place])
        return _total(dy if self.x[place] > 0 else self.slope * dy)


class _Gelu(_Sums):
    def y(self, *place: int) -> tuple[float, float, int]:
        x = float(self.x[place])
        return x * _normal_below(x), abs(x), 4

    def dx(self, *place: int) -> tuple[float, float, int]:
        x, dy = float(self.x[place]), float(self.dy[place])
        density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        return dy * (_normal_below(x) + x * density), abs(dy) * (1 + abs(x)), 4


class _Silu(_Sums):
    def y(self, *place: int) -> tuple[float, float, int]:
        x = float(self.x[place])
        return x / (1 + math.exp(-x)), abs(x), 4

    def dx(self, *place: int) -> tuple[float, float, int]:
        x, dy = float(self.x[place]), float(self.dy[place])
        share = 1 / (1 + math.exp(-x))
        return dy * share * (1 + x * (1 - share)), abs(dy) * (1 + abs(x)), 4


class _Loss:
    """A mean over `count` rows or elements, and its gradient; each is a few terms that e^s enters."""

    dropped = 0.0

    def __init__(self, inputs: Inputs) -> None:
        assert inputs.labels is not None
        self.x, self.labels = inputs.x.astype(np.float64), inputs.labels

    def __call__(self, name: str, place: tuple[int, ...]) -> tuple[float, float, int]:
        return getattr(self, name)(*place)


class _SoftmaxCrossEntropy(_Loss):
    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        raised = np.exp(self.x - self.x.max(axis=1, keepdims=True))
        self.shares = raised / raised.sum(axis=1, keepdims=True)

    def loss(self) -> tuple[float, float, int]:
        rows = np.arange(len(self.x))
        size = float(np.abs(self.x).max(axis=1).mean()) + math.log(self.x.shape[1])
        return float(-np.log(self.shares[rows, self.labels]).mean()), size, len(rows) + self.x.shape[1]

    def dx(self, n: int, c: int) -> tuple[float, float, int]:
        hit = float(self.labels[n] == c)
        share, rows = float(self.shares[n, c]), len(self.x)
        size = share * (1 + float(np.abs(self.x[n]).max())) + hit
        return (share - hit) / rows, size / rows, self.x.shape[1]


class _SigmoidCrossEntropy(_Loss):
    def loss(self) -> tuple[float, float, int]:
        s = self.x
        terms = np.maximum(s, 0) - s * self.labels + np.log1p(np.exp(-np.abs(s)))
        return float(terms.mean()), float((2 * np.abs(s) + math.log(2)).mean()), s.size

    def dx(self, *place: int) -> tuple[float, float, int]:
        s, target = float(self.x[place]), float(self.labels[place])
        share = 1 / (1 + math.exp(-s))
        return (share - target) / self.x.size, (share * (1 + abs(s)) + target) / self.x.size, 4


class _Dropout(_Sums):
    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.dropped = self.case.options["rate"]

    def y(self, *place: int) -> tuple[float, float, int]:
        return _total(np.float64(self.x[place]) / (1 - self.dropped))

    def dx(self, *place: int) -> tuple[float, float, int]:
        return _total(np.float64(self.dy[place]) / (1 - self.dropped))


def _normal_below(x: float) -> float:
    """Return the probability that a standard normal number is below x."""
    return math.erfc(-x / math.sqrt(2)) / 2


def _total(terms: np.ndarray) -> tuple[float, float, int]:
    return np.sum(terms).item(), float(np.abs(terms).sum()), int(np.size(terms))


_DEFINITIONS = {
    "adaptive_average_pool": _AdaptiveAveragePool,
    "affine": _Affine,
    "average_pool": _AveragePool,
    "batchnorm": _BatchNorm,
    "conv": _Conv,
    "conv_transpose": _ConvTranspose,
    "dropout": _Dropout,
    "gelu": _Gelu,
    "global_average_pool": _GlobalAveragePool,
    "groupnorm": _GroupNorm,
    "layernorm": _GroupNorm,
    "leaky_relu": _LeakyRelu,
    "max_pool": _MaxPool,
    "relu": _Relu,
    "sigmoid_cross_entropy": _SigmoidCrossEntropy,
    "silu": _Silu,
    "softmax_cross_entropy": _SoftmaxCrossEntropy,
    "spatial_batchnorm": _BatchNorm,
    "upsample": _Upsample,
}


def _losses(inputs: Inputs) -> np.ndarray:
    """Return the losses of the first steps of training, in float64: gpuconv's own net, held to PyTorch's by the run."""
    from .peers.ours import TrainStep

    wide = draw(inputs.case, inputs.layout)
    step = TrainStep(wide, dtype="float64")
    return np.array([float(step()) for _ in range(TRAIN_STEPS)])
