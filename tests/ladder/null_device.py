"""A device on which nothing is computed: what a step launches there is noted, at its real sizes, in next to no memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np

from gpuconv import backend
from gpuconv.cuda import device as cuda_device
from gpuconv.cuda.kernel import Kernel

_SMALL = 2**16  # bytes of an array whose numbers are noted: the host's tables are such


class NullArray(np.ndarray):
    """Memory of the device, of whose pages none is touched; what NumPy does with it is a launch of CuPy's own."""

    def __setitem__(self, key: Any, value: Any) -> None:
        target = self.view(np.ndarray)[key]
        _here().note("copy", {"source": getattr(value, "nbytes", 0), "target": target.nbytes})
        if target.nbytes <= _SMALL:
            self.view(np.ndarray)[key] = value

    def astype(self, dtype: Any, *args: Any, **keywords: Any) -> NullArray:
        out = _here().empty(self.shape, dtype)
        _here().note("copy", {"source": self.nbytes, "target": out.nbytes})
        return out


@dataclass(frozen=True, slots=True)
class NullMap:
    """How bulk copies find boxes in an array."""

    array: NullArray
    form: Any


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch: kernel, C++ name and template arguments, blocks, bytes of its arrays, and what comes by value.

    Of arrays of up to 64 KB the numbers are among the values.  `product` is a product of matrices by the device's
    library, "memset" and "copy" are CUDA's and CuPy's.
    """

    name: str
    sizes: dict[str, int]
    expression: str = ""
    templates: dict[str, str] = field(default_factory=dict)
    grid: tuple[int, int, int] = (1, 1, 1)
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        x, y, z = self.grid
        return x * y * z


class NullDevice:
    """Takes launches and notes them; arrays hold nothing but what the host put there."""

    name = "no device"

    def __init__(self, arch: int, sm_count: int) -> None:
        self.arch, self.sm_count = arch, sm_count
        self.launches: list[Launch] = []

    def note(self, name: str, sizes: dict[str, int], **more: Any) -> None:
        self.launches.append(Launch(name, sizes, **more))

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NullArray:
        return np.empty(shape, dtype).view(NullArray)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> NullArray:
        made = np.zeros(shape, dtype).view(NullArray)
        self.note("memset", {"target": made.nbytes})
        return made

    def asarray(self, host: np.ndarray) -> NullArray:
        return np.array(host).view(NullArray)

    def asnumpy(self, array: NullArray) -> np.ndarray:
        return np.array(array.view(np.ndarray))

    def compile(self, text: str, file: str, expressions: tuple[str, ...], options: tuple[str, ...]) -> dict[str, Any]:
        del text, file, options
        return {expression: expression for expression in expressions}

    def tensor_map(self, array: NullArray, form: Any) -> NullMap:
        return NullMap(array, form)

    def launch(
        self, function: str, grid: tuple[int, int, int], block: tuple[int, int, int], args: tuple[Any, ...], shared: int
    ) -> None:
        del block, shared
        name, _, templates = function.rstrip(">").partition("<")
        signature = Kernel.all[name].signature
        sizes: dict[str, int] = {}
        values: dict[str, Any] = {}
        for parameter, value in zip(signature.parameters, args, strict=True):
            if isinstance(value, NullMap):
                sizes[parameter.name] = value.array.nbytes
                values[parameter.name] = value.form
                continue
            if isinstance(value, NullArray):
                sizes[parameter.name] = value.nbytes
            if not isinstance(value, NullArray):
                values[parameter.name] = value
            elif value.nbytes <= _SMALL:
                values[parameter.name] = self.asnumpy(value)
        names = [template for _, template in signature.templates]
        made = dict(zip(names, templates.split(", ") if templates else [], strict=True))
        self.note(name, sizes, expression=function, templates=made, grid=grid, values=values)

    def matmul(self, a: NullArray, b: NullArray, out: NullArray, *, tf32: bool = False) -> None:
        del tf32
        sizes = {name: array.nbytes for name, array in (("a", a), ("b", b), ("out", out))}
        self.note("product", sizes, values={"rows": a.shape[0], "inner": a.shape[1], "columns": b.shape[1]})

    def synchronize(self) -> None:
        pass

    def holds(self, array: Any) -> bool:
        return isinstance(array, NullArray)

    def is_aligned(self, array: NullArray, size: int) -> bool:
        owner: Any = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        return (_address(array) - _address(owner)) % size == 0  # as if a new array began at a multiple of anything


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


_current: list[NullDevice] = []


def _here() -> NullDevice:
    return _current[-1]


@contextmanager
def nowhere(arch: int, sm_count: int) -> Iterator[NullDevice]:
    """Let gpuconv's device "cuda" be one on which nothing is computed, with so many multiprocessors."""
    device = NullDevice(arch, sm_count)
    backend.register_array(NullArray.__module__.partition(".")[0], NullArray.__qualname__, "CuPy")
    cuda_device.register(NullArray, lambda array: device)
    _current.append(device)
    try:
        with (
            mock.patch.object(cuda_device, "gpu_status", return_value=(True, device.name)),
            mock.patch.object(cuda_device, "current", return_value=device),
            backend.using("cuda"),
        ):
            yield device
    finally:
        _current.pop()
        for kernel in Kernel.all.values():
            for key in [key for key in kernel._ready if key[0] is device]:
                del kernel._ready[key]
