"""Hold gradients to the derivatives of their functions, by central differences: of functions as of layers.

A central difference (L(x + h) - L(x - h)) / 2h of L = sum(dy * y) is off by c h^2, and by what rounding does to y,
divided by h.  With twice the step the first error is four times as large: so what a difference changes by when its step
is doubled is three times that error, and says how far to trust it.  The largest such change among the entries of an array
is what its gradient may be off by, and for rounding 8 u max|y| sum|dy| / h, u = 2^-53, of the outputs that an entry moves.
The usual step, u^(1/3) max(1, |x|), makes both errors small.  An array whose changes are not small beside its slopes is
refused: it has entries near a kink or a tie.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import checks
from .backend import asarray, asnumpy, backend_of, copy
from .errors import ArgTypeError, DTypeError, GradientError, ParamError, ShapeError
from .nn.layer import Layer
from .plural import counted
from .typing import AnyArray

__all__ = ["gradcheck", "gradcheck_layer"]

_U = 2.0**-53
_SMALL = 1e-3  # of the largest slope of an array: what a difference may change by when its step is doubled


def gradcheck(
    function: Callable[..., Any],
    arrays: Sequence[AnyArray],
    gradients: Sequence[AnyArray | None] | None = None,
    *,
    backward: Callable[[Any, Any], Any] | None = None,
    dy: AnyArray | None = None,
    h: float | None = None,
    entries: int | None = None,
    seed: int = 0,
) -> bool:
    """Return True if gradients are the derivatives of a function for all its arrays; raise GradientError if not.

    function(*arrays) returns (y, cache), and backward(dy, cache) a gradient for each array, as gpuconv's operators do; or
    it returns y alone, and the gradients of sum(dy * y) are given.  Options of the function go in by functools.partial
    or a lambda.  An array whose gradient is None is not looked at.

    arrays: float64, NumPy's or CuPy's; of other dtypes a difference keeps too few digits.  They are not changed.
    dy: by default drawn from the seed, and 1 where y is a scalar.
    h: of the differences, the same for all entries; by default about 5e-6 max(1, |x|).
    entries: how many of each array are looked at, drawn from the seed; None: all.

    The error names the array, the entry and both values.  How far they may differ says the head of gpuconv/testing.py.
    Raises DTypeError, ParamError for a function whose y is not the same each time or changes the arrays, ShapeError.

    >>> x, w = np.arange(32.0).reshape(1, 2, 4, 4), np.ones((3, 2, 3, 3))
    >>> testing.gradcheck(gpuconv.conv_forward, [x, w], backward=gpuconv.conv_backward)
    True
    >>> testing.gradcheck(lambda x: (3 * x).sum(), [np.ones(2)], [np.array([3.0, 4.0])], h=1.0)
    Traceback (most recent call last):
        ...
    gpuconv.errors.GradientError: the gradient is not the derivative:
      x[1]: gradient 4.0, central difference 3, at most 8e-15 off; 1 of 2 entries
    """
    if (gradients is None) == (backward is None):
        msg = "gradcheck needs either gradients or backward, which returns them"
        raise ParamError(msg)
    if hasattr(arrays, "dtype"):
        msg = "arrays must be a list of arrays, got one array: put it into a list"
        raise ArgTypeError(msg)
    return _check(_names(function, len(arrays)), function, arrays, gradients, backward, dy, h, entries, seed)


def gradcheck_layer(
    layer: Layer,
    x: AnyArray,
    *,
    step: int = 0,
    dy: AnyArray | None = None,
    h: float | None = None,
    entries: int | None = None,
    seed: int = 0,
) -> bool:
    """Return True if a layer's backward gives the derivatives for x and for all its parameters; else GradientError.

    layer: with parameters of float64; of a Net its body.  They, its gradients and its state are afterwards as before.
    step: that of forward, which numbers the draws of dropout.   The rest as of `gradcheck`.

    >>> layer = nn.Sequential(nn.Conv(2, 3), nn.Gelu()).create(dtype="float64")
    >>> testing.gradcheck_layer(layer, np.arange(32.0).reshape(1, 2, 4, 4) / 32)
    True
    """
    kept = [(array, array.copy()) for held in (layer.params, layer.grads, layer.state) for array in held.values()]

    def function(x: Any, *params: Any) -> tuple[Any, None]:
        for array, value in zip(layer.params.values(), params, strict=True):
            copy(value, array)
        return layer.forward(x, training=True, step=step), None

    def backward(dy: Any, cache: None) -> list[Any]:
        dx = layer.backward(dy)
        return [dx, *(layer.grads[name].copy() for name in layer.params)]

    arrays = [x, *(array.copy() for array in layer.params.values())]
    try:
        return _check(["x", *layer.params], function, arrays, None, backward, dy, h, entries, seed)
    finally:
        for array, value in kept:
            copy(value, array)


def _check(
    names: list[str],
    function: Callable[..., Any],
    arrays: Sequence[Any],
    gradients: Any,
    backward: Callable[[Any, Any], Any] | None,
    dy: Any,
    h: float | None,
    entries: int | None,
    seed: int,
) -> bool:
    """Do what gradcheck does, with arrays under names of their own."""
    call = _Call(function, list(arrays), names, has_cache=backward is not None)
    entries = None if entries is None else checks.integer("entries", entries, least=1)
    h = None if h is None else checks.real("h", h, low=0.0, open_low=True)
    rng = np.random.default_rng(checks.word("seed", seed))
    y, cache = call()
    call.check(y)
    weights = _weights(dy, y, rng, given=gradients is not None)
    if backward is not None:
        gradients = backward(asarray(weights, beside=call.arrays[0]), cache)
        gradients = gradients if isinstance(gradients, (tuple, list)) else (gradients,)
    found = _checked(gradients, call)
    wrong = []
    for k, gradient in enumerate(found):
        if gradient is not None:
            wrong += _compare(call, k, gradient, weights, h, _places(gradient.shape, entries, rng))
    if wrong:
        lines = "\n  ".join(wrong)
        msg = f"the gradient is not the derivative:\n  {lines}"
        raise GradientError(msg)
    return True


@dataclass
class _Call:
    """A function with its arrays, on the host as they are moved, entry by entry."""

    function: Callable[..., Any]
    arrays: list[Any]
    names: list[str]
    has_cache: bool

    def __post_init__(self) -> None:
        if not self.arrays:
            msg = "arrays must hold at least one array"
            raise ParamError(msg)
        for name, array in zip(self.names, self.arrays, strict=True):
            backend_of(**{name: array})
            if array.dtype != np.float64:
                msg = f"{name} must be float64, of which differences keep enough digits, got {array.dtype}"
                raise DTypeError(msg)
        self.host = [asnumpy(array).copy(order="K") for array in self.arrays]

    def __call__(self) -> tuple[np.ndarray, Any]:
        """Return y on the host, and the cache."""
        result = self.function(
            *(asarray(host, beside=array) for host, array in zip(self.host, self.arrays, strict=True))
        )
        cache = None
        if self.has_cache:
            if not isinstance(result, tuple) or len(result) != 2:
                msg = f"a function with a backward must return (y, cache), got {checks.shown(type(result))}"
                raise ArgTypeError(msg)
            result, cache = result
        elif isinstance(result, tuple):
            msg = (
                "function must return y alone where gradients are given, got a tuple: take its first, or pass backward"
            )
            raise ArgTypeError(msg)
        y = np.array(asnumpy(result))  # a copy, for it may be a view of what is moved
        if y.dtype != np.float64:
            msg = f"y must be float64, of which differences keep enough digits, got {y.dtype}"
            raise DTypeError(msg)
        return y, cache

    def moved(self, k: int, place: tuple[int, ...], step: float) -> tuple[np.ndarray, float]:
        """Return y with an entry of an array moved by about a step, and how far it was."""
        before = float(self.host[k][place])
        try:
            self.host[k][place] = before + step
            return self()[0], float(self.host[k][place]) - before
        finally:
            self.host[k][place] = before

    def check(self, y: np.ndarray) -> None:
        """Raise ParamError where differences of the function would say nothing."""
        for name, host, array in zip(self.names, self.host, self.arrays, strict=True):
            if not np.array_equal(host, asnumpy(array), equal_nan=True):
                msg = f"function changed {name} in place: let it work on a copy"
                raise ParamError(msg)
        if not np.isfinite(y).all():
            msg = "y must be finite, got NaN or infinity in it"
            raise ParamError(msg)
        if not np.array_equal(y, self()[0]):
            msg = "function returned another y when it was called again: hold its random numbers and its state fixed"
            raise ParamError(msg)


def _names(function: Callable[..., Any], count: int) -> list[str]:
    """Return what messages call the arrays: as the function does, if it says."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [plain[k] if k < len(plain) else f"array{k}" for k in range(count)]


def _weights(dy: Any, y: np.ndarray, rng: np.random.Generator, *, given: bool) -> np.ndarray:
    """Return dy on the host."""
    if dy is None:
        if given and y.ndim:
            msg = f"dy must be given with gradients of a y that is no scalar, got y of shape {y.shape}"
            raise ParamError(msg)
        return np.asarray(rng.standard_normal(y.shape)) if y.ndim else np.ones(())
    weights = np.asarray(asnumpy(dy), np.float64)
    checks.same_shape("dy", weights, y.shape, "the shape of y")
    return weights


def _checked(gradients: Any, call: _Call) -> list[np.ndarray | None]:
    """Return gradients on the host, when there is one for each array, in its shape."""
    count = len(call.arrays)
    if all(gradient is None for gradient in gradients[count:]):  # as of an operator without its optional last array
        gradients = gradients[:count]
    if len(gradients) != count:
        msg = f"there must be a gradient for each of {counted(count, 'array')}, got {len(gradients)}"
        raise ShapeError(msg)
    if all(gradient is None for gradient in gradients):
        msg = "every gradient is None: there is nothing to check"
        raise ParamError(msg)
    found = [None if gradient is None else np.array(asnumpy(gradient)) for gradient in gradients]
    for name, host, gradient in zip(call.names, call.host, found, strict=True):
        if gradient is not None:
            checks.same_shape(f"the gradient of {name}", gradient, host.shape, f"the shape of {name}")
    return found


def _places(shape: tuple[int, ...], entries: int | None, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Return the entries to look at: all, or some drawn at random."""
    places = list(np.ndindex(shape))
    if entries is None or entries >= len(places):
        return places
    return [places[k] for k in sorted(rng.choice(len(places), entries, replace=False))]


@dataclass
class _Slope:
    """A central difference, what it changes by with twice the step, and what rounding may do to it."""

    value: float
    change: float
    rounding: float


def _step(call: _Call, k: int, place: tuple[int, ...], h: float | None) -> float:
    return _U ** (1 / 3) * max(1.0, abs(float(call.host[k][place]))) if h is None else h


def _slope(call: _Call, k: int, place: tuple[int, ...], weights: np.ndarray, h: float | None) -> _Slope:
    step = _step(call, k, place, h)
    values = []
    for size in (step, 2 * step):
        (up, above), (down, below) = (call.moved(k, place, signed) for signed in (size, -size))
        values.append(float((weights * (up - down)).sum()) / (above - below))
        if size == step:
            largest = max(np.abs(up).max(initial=0.0), np.abs(down).max(initial=0.0))
            rounding = 8 * _U * float(largest * np.abs(weights[up != down]).sum()) / step
    return _Slope(values[0], abs(values[1] - values[0]), rounding)


def _one_sided(
    call: _Call, k: int, place: tuple[int, ...], weights: np.ndarray, h: float | None
) -> tuple[float, float]:
    """Return the slopes below and above an entry."""
    y, step = call()[0], _step(call, k, place, h)
    (up, above), (down, below) = (call.moved(k, place, signed) for signed in (step, -step))
    return float((weights * (down - y)).sum()) / below, float((weights * (up - y)).sum()) / above


def _compare(
    call: _Call, k: int, gradient: np.ndarray, weights: np.ndarray, h: float | None, places: list[tuple[int, ...]]
) -> list[str]:
    """Return a line if a gradient is not the derivative, else none."""
    name = call.names[k]
    slopes = {place: _slope(call, k, place, weights, h) for place in places}
    if not slopes:
        return []
    trusted = _SMALL * max(abs(slope.value) for slope in slopes.values())
    change = 0.0
    for place, slope in slopes.items():
        if not slope.change <= trusted + 2 * slope.rounding:
            twice = f"{slope.value:g}, and with twice the step it changes by {slope.change:.1g}"
            msg = f"the slope at {_entry(name, place)} cannot be told: it is {twice}: is there a kink or a tie near it?"
            raise GradientError(msg)
        change = max(change, slope.change)
    beyond = {
        place: abs(float(gradient[place]) - slope.value) - (change + slope.rounding) for place, slope in slopes.items()
    }
    wrong = [place for place, error in beyond.items() if not error <= 0]
    if not wrong:
        return []
    worst = max(wrong, key=lambda place: (np.isnan(beyond[place]), beyond[place]))
    slope, (below, above) = slopes[worst], _one_sided(call, k, worst, weights, h)
    kink = abs(above - below) > _SMALL * max(abs(above), abs(below)) + 2 * slope.rounding
    sides = f" ({below + 0.0:g} below it and {above + 0.0:g} above: a kink?)" if kink else ""
    values = f"gradient {float(gradient[worst])}, central difference {slope.value:.9g}{sides}"
    off = f"at most {change + slope.rounding:.1g} off"
    count = f"{len(wrong)} of {counted(len(places), 'entry', 'entries')}"
    return [f"{_entry(name, worst)}: {values}, {off}; {count}"]


def _entry(name: str, place: tuple[int, ...]) -> str:
    return f"{name}[{', '.join(map(str, place))}]" if place else name
