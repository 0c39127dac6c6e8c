"""What rounding may do to a result that many operators make one after another.

A sum that an operator computes with errors of c u S, as the suite's rule allows with c = 8, is the exact sum of terms
that are off by c u of themselves.  So everything is computed again a few times, in float64, where each operator gets
arrays whose elements are all off by 8 u, up or down at random.  How far that moves a result, twice the farthest of a few
times, is how far rounding may; plus 8 u of the largest entry, for what happens to be exact.  A number alone, a loss, has
no farthest of many elements to go by: it may be eight times the root mean square of its moves away, which Student's
distribution exceeds 13 times in 10,000 with four degrees of freedom, and 4 times in 100,000 with eight.

Where arrays are kept in 16 bits and summed in float32, each is off by one u of these: what storing it has cost.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from compare import U_OUT

from gpuconv import backend, cpu

_TIMES = {"float32": 4, "float16": 8, "bfloat16": 8}  # in 16 bits it is far enough to matter
_SUMS = 8 * U_OUT["float32"]
# What an operator writes into must be the array itself: the places of arguments that may be another one.
_READ = {"sgd_update": (1,), "adam_update": (1,), "rmsprop_update": (1,), "batchnorm_forward": (0, 1, 2)}


def off(array: Any, rng: np.random.Generator, share: float = _SUMS) -> Any:
    """Return an array of floats with each element off by a share, in the same memory format; others as they are."""
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        return array
    moved = array.copy(order="K")
    moved *= 1 + share * rng.choice([-1.0, 1.0], array.shape)
    return moved


def allowed(
    exact: Mapping[str, Any], again: Callable[[np.random.Generator], Mapping[str, Any]], dtype: str = "float32"
) -> dict[str, float]:
    """Return how far a dtype may be from exact results; again(rng) computes them with arrays that are off."""
    runs = [again(np.random.default_rng(seed)) for seed in range(_TIMES[dtype])]
    bounds = {}
    for name, array in exact.items():
        moves = [float(np.abs(run[name] - array).max()) for run in runs]
        moved = 2 * max(moves) if array.ndim else 8 * float(np.sqrt(np.mean(np.square(moves))))
        bounds[name] = moved + 8 * U_OUT[dtype] * float(np.abs(array).max())
    return bounds


def assert_allowed(found: Mapping[str, Any], exact: Mapping[str, Any], bounds: Mapping[str, float], dtype: str) -> None:
    """Hold results to exact ones; in float64, where both sides lose, to 2 2^-29 of what float32 may be off."""
    assert found.keys() == exact.keys()
    for name, array in found.items():
        error, bound = np.abs(array - exact[name]).max(), bounds[name]
        if dtype == "float64":
            bound = 2 * 2.0**-29 * bound
        assert error <= bound, f"{name} in {dtype}: {error:.3g} away, allowed {bound:.3g}"


@contextmanager
def lossy_cpu(rng: np.random.Generator, dtype: str = "float32") -> Iterator[None]:
    """Let each operator of the CPU backend get arrays that are off by what a dtype costs."""
    real, lossy = backend._load, _Lossy(rng, _SUMS if dtype == "float32" else U_OUT[dtype])

    def load(package: str) -> Any:
        return lossy if package == cpu.__name__ else real(package)

    with mock.patch.object(backend, "_load", load):
        yield


class _Lossy:
    """The CPU backend, whose operators are handed inexact arrays."""

    def __init__(self, rng: np.random.Generator, share: float) -> None:
        self._rng, self._share = rng, share
        self._for_pictures = rng.spawn(1)[0]  # batches are made in a thread of their own, in order

    def __getattr__(self, name: str) -> Callable[..., Any]:
        real, read = getattr(cpu, name), _READ.get(name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            taken = [
                off(value, self._rng, self._share) if read is None or place in read else value
                for place, value in enumerate(arguments)
            ]
            made = real(*taken, **keywords)
            return off(made, self._for_pictures, self._share) if name == "augment" else made  # its pictures are exact

        return call
