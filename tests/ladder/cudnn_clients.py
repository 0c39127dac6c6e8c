"""Run programs that import cupy.cudnn on gpuconv.cudnn, and count what is right.

    python -m tests.cupy_emulated -m tests.ladder.cudnn_clients CLIENT [--every N]
    python -m tests.cupy_emulated -m tests.ladder.cudnn_clients tests FILE ... [-k EXPRESSION]

CLIENT is one of:

  sigpy     SigPy, unmodified: convolve and both adjoints on the device, beside what it computes with SciPy on the CPU
  svetoch   the calls of svetoch's cuda.py, which needs a compiler itself: upstream gradients that are broadcast, ReLU,
            the logarithm of softmax, beside the same functions on NumPy arrays

and `tests` runs test files of such a program, brought for the run, by pytest with the arguments that follow.  Their
random numbers on the device are NumPy's where cuRAND is missing, as it is with tests.cupy_emulated.

CuPy is needed, and for sigpy `pip install sigpy==0.1.27`; neither is a requirement of gpuconv.  On a machine with a GPU
the same runs without tests.cupy_emulated.  --every N runs each N-th case.  Exit status 1: something was wrong.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from gpuconv import cudnn

# A case is its name, and a function of a device's asarray: on the CPU it is NumPy's.
Case = tuple[str, Callable[[Callable[[Any], Any]], Any]]

# Data, filter: in full and valid mode SigPy wants the filter no larger than the data.
SIZES = {1: ((9,), (4,)), 2: ((7, 6), (3, 2)), 3: ((4, 5, 4), (2, 3, 2))}
DTYPES = ("float32", "float64", "complex64", "complex128")
FREE = {"auto_tune": True, "tensor_core": "auto"}


def sigpy_cases() -> Iterator[Case]:
    """Yield the three functions in every mode, with and without strides and channels, in each dtype."""
    sigpy = importlib.import_module("sigpy")
    rng = np.random.default_rng(0)
    axes = itertools.product(SIZES, DTYPES, ("full", "valid"), (1, 2), (False, True))
    for dimensions, dtype, mode, stride, multi_channel in axes:
        data_size, filter_size = SIZES[dimensions]
        data = _random(rng, (2, *((3,) if multi_channel else ()), *data_size), dtype)
        filters = _random(rng, (*((4, 3) if multi_channel else ()), *filter_size), dtype)
        options = {"mode": mode, "strides": (stride,) * dimensions, "multi_channel": multi_channel}
        output = _random(rng, sigpy.convolve(data, filters, **options).shape, dtype)
        name = f"{dimensions}-D {dtype} {mode} stride {stride}{' channels' if multi_channel else ''}"
        yield f"convolve {name}", _call(sigpy.convolve, data, filters, **options)
        adjoint = _call(sigpy.convolve_data_adjoint, output, filters, shape=data.shape, **options)
        yield f"convolve_data_adjoint {name}", adjoint
        adjoint = _call(sigpy.convolve_filter_adjoint, output, data, shape=filters.shape, **options)
        yield f"convolve_filter_adjoint {name}", adjoint


def svetoch_cases() -> Iterator[Case]:
    """Yield the calls that svetoch makes: images, float32 and float64."""
    rng = np.random.default_rng(0)
    for dtype, stride, pad in itertools.product(("float32", "float64"), (1, 2), (0, 1)):
        x, w, scale = (_random(rng, shape, dtype) for shape in ((2, 3, 7, 7), (4, 3, 3, 3), (4, 1, 1)))
        options = ((pad, pad), (stride, stride), (1, 1), 1)
        size = (7 + 2 * pad - 3) // stride + 1
        y = _random(rng, (2, 4, size, size), dtype)

        def forward(asarray: Any, x: Any = x, w: Any = w, y: Any = y, options: Any = options) -> Any:
            out = asarray(np.full_like(y, np.nan))
            cudnn.convolution_forward(asarray(x), asarray(w), None, out, *options, **FREE)
            return out

        def of_data(asarray: Any, x: Any = x, w: Any = w, y: Any = y, g: Any = scale, options: Any = options) -> Any:
            out, upstream = asarray(np.full_like(x, np.nan)), np.broadcast_to(asarray(g), y.shape)
            cudnn.convolution_backward_data(asarray(w), upstream, None, out, *options, deterministic=False, **FREE)
            return out

        def of_filters(asarray: Any, x: Any = x, w: Any = w, y: Any = y, g: Any = scale, options: Any = options) -> Any:
            out, upstream = asarray(np.full_like(w, np.nan)), np.broadcast_to(asarray(g), y.shape)
            cudnn.convolution_backward_filter(asarray(x), upstream, out, *options, deterministic=False, **FREE)
            return out

        name = f"{dtype} stride {stride} pad {pad}"
        yield f"convolution_forward {name}", forward
        yield f"convolution_backward_data {name}", of_data
        yield f"convolution_backward_filter {name}", of_filters
    for dtype in ("float32", "float64"):
        x, y, gy = (_random(rng, (5, 4), dtype) for _ in range(3))
        yield f"activation_forward {dtype}", _call(cudnn.activation_forward, x, mode=cudnn.CUDNN_ACTIVATION_RELU)
        yield (
            f"activation_backward {dtype}",
            _call(cudnn.activation_backward, x, y, gy, mode=cudnn.CUDNN_ACTIVATION_RELU),
        )
        softmax: dict[str, Any] = {"axis": 1, "algorithm": cudnn.CUDNN_SOFTMAX_LOG}
        yield f"softmax_forward {dtype}", _call(cudnn.softmax_forward, x, **softmax)
        yield f"softmax_backward {dtype}", _call(cudnn.softmax_backward, y, gy, **softmax)


CLIENTS = {"sigpy": sigpy_cases, "svetoch": svetoch_cases}


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    parts = rng.standard_normal((2, *shape))
    return (parts[0] + 1j * parts[1]).astype(dtype) if dtype.startswith("complex") else parts[0].astype(dtype)


def _call(function: Any, *arrays: Any, shape: tuple[int, ...] | None = None, **options: Any) -> Callable:
    """Return a call of a function with its arrays on a device, and a shape after them where it is given."""
    return lambda asarray: function(*map(asarray, arrays), *(() if shape is None else (shape,)), **options)


def _fault(case: Callable, asarray: Any, asnumpy: Any) -> str | None:
    """Return what is wrong with a case on the device, or None."""
    reference = case(np.asarray)
    try:
        result = case(asarray)
    except Exception as error:  # noqa: BLE001 - whatever a client meets is counted
        return f"{type(error).__name__}: {error}"
    if type(result) is np.ndarray:
        return "the result is an array of NumPy"
    result = asnumpy(result)
    if (result.shape, result.dtype) != (reference.shape, reference.dtype):
        return f"got {result.shape} {result.dtype}, expected {reference.shape} {reference.dtype}"
    bound = 64 * np.finfo(reference.dtype).eps * max(1.0, float(np.abs(reference).max()))
    error = float(np.abs(result - reference).max())
    return None if error <= bound else f"error {error:.3g}, allowed {bound:.3g}"


class _Random:
    """Stands in for cupy.random, as far as clients' tests draw from it."""

    def __init__(self, asarray: Callable) -> None:
        self._asarray, self._draws = asarray, np.random.default_rng(0)

    def normal(self, *, size: Any, scale: float) -> Any:
        return self._asarray(self._draws.normal(size=size, scale=scale))


def own_tests(arguments: list[str], cupy: Any) -> int:
    """Run a client's own test files; return pytest's exit status."""
    try:
        cupy.random.normal(size=1, scale=1.0)
    except ImportError:
        cupy.random = _Random(cupy.asarray)
    return int(pytest.main(["-q", "-rs", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "/", *arguments]))


def main(arguments: list[str] | None = None) -> int:
    """Run one client's cases; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("client", choices=[*CLIENTS, "tests"])
    parser.add_argument("--every", type=int, default=1, metavar="N")
    chosen, rest = parser.parse_known_args(arguments)
    cudnn.install()
    cupy: Any = importlib.import_module("cupy")
    if chosen.client == "tests":
        return own_tests(rest, cupy)
    if rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    right = wrong = 0
    for name, case in itertools.islice(CLIENTS[chosen.client](), 0, None, chosen.every):
        fault = _fault(case, cupy.asarray, cupy.asnumpy)
        right, wrong = right + (fault is None), wrong + (fault is not None)
        if fault is not None:
            print(f"{name}: {fault}", flush=True)
    print(f"{chosen.client}: {right} right, {wrong} wrong")
    return 1 if wrong or not right else 0


if __name__ == "__main__":
    sys.exit(main())
