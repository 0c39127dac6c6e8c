"""What torch_samples.py holds gpuconv to: PyTorch in float64, forward and backward, by other arrays than a sample's too."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

# Functions by the number of axes behind the channels, and the names of those without it.
_KINDS = ("adaptive_avg_pool", "avg_pool", "conv", "conv_transpose", "max_pool")
AXES = {f"{kind}{axes}d": axes for kind in _KINDS for axes in (1, 2, 3)}

GRADIENTS = {"x": "dx", "w": "dw", "b": "db", "gamma": "dgamma", "beta": "dbeta"}


@dataclass(frozen=True)
class Sample:
    """One call of torch.nn.functional: arrays, in the order of its arguments, and options by name; an array may be None."""

    name: str
    arrays: dict[str, Any]
    options: dict[str, Any]

    @property
    def x(self) -> np.ndarray:
        return self.arrays["x"]

    @property
    def unbatched(self) -> bool:
        """True if x has only the axes of one image."""
        return self.name in AXES and self.x.ndim == AXES[self.name] + 1

    @property
    def window(self) -> tuple[int, ...]:
        """The window of a pool."""
        return along(self.options["kernel_size"], AXES[self.name])

    def __str__(self) -> str:
        shapes = {name: None if array is None else array.shape for name, array in self.arrays.items()}
        return f"{self.name} of {self.x.dtype}: {shapes}, {self.options}"


def along(value: Any, axes: int) -> tuple[int, ...]:
    """Return an option as PyTorch reads it: one number, alone or in a tuple, is that of every axis."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values * axes if len(values) == 1 else values


def wide(array: np.ndarray) -> np.ndarray:
    """Return an array in float64, or complex128; integers as they are."""
    return array if array.dtype.kind in "iu" else array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute in one thread: of arrays this small, others only wait."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def by_torch(sample: Sample, arrays: Mapping[str, Any], dy: np.ndarray) -> dict[str, np.ndarray]:
    """Return y and the gradients by PyTorch, of other arrays in the place of a sample's."""
    import torch

    tensors = {name: torch.tensor(array) for name, array in arrays.items() if array is not None}
    leaves = {name: tensor for name, tensor in tensors.items() if name in GRADIENTS}
    if sample.x.dtype.kind == "c":
        return _complex_by_torch(sample, leaves, dy)
    for leaf in leaves.values():
        leaf.requires_grad_()
    y, *indices = _call(sample, tensors)
    gradients = torch.autograd.grad(y, list(leaves.values()), torch.tensor(dy.reshape(y.shape)))
    results = {"y": y.detach(), **{GRADIENTS[name]: g for name, g in zip(leaves, gradients, strict=True)}}
    results |= zip(("indices",), indices, strict=False)
    return {name: result.numpy() for name, result in results.items()}


def by_absolute_values(sample: Sample, dy: np.ndarray) -> dict[str, np.ndarray]:
    """Return the sizes of the terms of each result that is a sum of products: the same of absolute values.

    Those of complex numbers are complex, of either part its own.
    """
    arrays = {name: array for name, array in sample.arrays.items() if array is not None}
    if sample.x.dtype.kind != "c":
        return by_torch(sample, {name: np.abs(wide(array)) for name, array in arrays.items()}, np.abs(wide(dy)))

    def sizes_with(sign_x: int, sign_w: int) -> dict[str, np.ndarray]:
        signs = {"x": sign_x, "w": sign_w}
        return by_torch(sample, {name: _parts(array, signs.get(name, 1)) for name, array in arrays.items()}, _parts(dy))

    # Signs that let the terms of a part of a result add up.  Gradients take x and w conjugate.
    straight, turned, mixed = sizes_with(1, 1), sizes_with(-1, -1), sizes_with(-1, 1)
    scales = {"y": mixed["y"].real + 1j * straight["y"].imag}
    for name in ("dx", "dw"):
        scales[name] = straight[name].real + 1j * turned[name].imag
    return scales | ({"db": straight["db"]} if "db" in straight else {})


def _call(sample: Sample, tensors: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return y of a sample's function, and what more it returns, of other tensors in the place of its arrays."""
    import torch.nn.functional as F

    ordered = [tensors.get(name) for name in sample.arrays]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # padding="same" with unequal sides makes a copy
        returned = getattr(F, sample.name)(*ordered, **sample.options)
    return returned if isinstance(returned, tuple) else (returned,)


def _complex_by_torch(sample: Sample, leaves: Mapping[str, Any], dy: np.ndarray) -> dict[str, np.ndarray]:
    """Return y and the gradients of a complex convolution by real ones of its parts.

    PyTorch's own saves one of four products and takes the difference of large sums instead, which loses digits: no
    reference for numbers of the same precision.
    """
    import torch

    real = {name: leaf.real.clone().requires_grad_() for name, leaf in leaves.items()}
    imaginary = {name: leaf.imag.clone().requires_grad_() for name, leaf in leaves.items()}

    def product(x: Mapping[str, Any], w: Mapping[str, Any], b: Any = None) -> Any:
        return _call(sample, {"x": x["x"], "w": w["w"], "b": b})[0]

    y = [
        product(real, real, real.get("b")) - product(imaginary, imaginary),
        product(real, imaginary, imaginary.get("b")) + product(imaginary, real),
    ]
    upstream = [torch.tensor(np.ascontiguousarray(part.reshape(y[0].shape))) for part in (dy.real, dy.imag)]
    gradients = torch.autograd.grad(y, [*real.values(), *imaginary.values()], upstream)
    results = {"y": torch.complex(*y).detach()}
    for name, re, im in zip(leaves, gradients[: len(real)], gradients[len(real) :], strict=True):
        results[GRADIENTS[name]] = torch.complex(re, im)
    return {name: result.numpy() for name, result in results.items()}


def _parts(array: np.ndarray, sign: int = 1) -> np.ndarray:
    """Return |Re| + i |Im|, or its conjugate."""
    return np.abs(wide(array).real) + sign * 1j * np.abs(wide(array).imag)
