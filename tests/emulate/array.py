"""Arrays of the emulated device: NumPy arrays that refuse what CuPy arrays refuse.

Kernels are what computes on a GPU.  A launcher that calls a NumPy function on a device array, or reads one of its
values, would fail or synchronise there, so it fails here.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from .thread import active


def _refuse(what: str) -> NoReturn:
    msg = f"{what} of an EmulatedArray: it stands for device memory, use a kernel, or device.asnumpy first"
    raise TypeError(msg)


def _shares(a: np.ndarray, b: np.ndarray) -> bool:
    return np.may_share_memory(a.view(np.ndarray), b.view(np.ndarray))


class EmulatedArray(np.ndarray):
    """An array in emulated device memory: shape, strides, views and copies; no arithmetic and no values."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> NoReturn:
        _refuse(f"NumPy's {ufunc.__name__}")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> NoReturn:
        _refuse(f"NumPy's {func.__name__}")

    def __getitem__(self, key: Any) -> Any:
        # As in CuPy, one element is an array of no dimensions, not a number.
        keys = key if isinstance(key, tuple) else (key,)
        found = super().__getitem__(key if any(k is Ellipsis for k in keys) else (*keys, Ellipsis))
        if active() is not None and found.size and not _shares(found, self):
            _refuse("choosing elements by an array, while work is recorded,")
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        if (recording := active()) is None:
            super().__setitem__(key, value)
        else:
            recording.assign(self[key], value)

    def copy(self, order: Any = "C") -> EmulatedArray:
        return self.astype(self.dtype, order=order)

    def astype(
        self, dtype: Any, order: Any = "K", casting: Any = "unsafe", subok: bool = True, copy: bool = True
    ) -> Any:
        made = super().astype(dtype, order, casting, subok, copy)
        recording = active()
        if recording is None or made is self:
            return made
        array = recording.empty(
            made.shape, made.dtype, tuple(np.argsort([-step for step in made.strides], kind="stable"))
        )
        recording.assign(array, self)
        return array

    def reshape(self, *shape: Any, **options: Any) -> Any:
        made = super().reshape(*shape, **options)
        if active() is not None and self.size and not _shares(made, self):
            return self.copy().reshape(*shape, **options)
        return made

    def fill(self, value: Any) -> None:
        self[...] = value

    def __bool__(self) -> NoReturn:
        _refuse("bool()")

    def __int__(self) -> NoReturn:
        _refuse("int()")

    def __float__(self) -> NoReturn:
        _refuse("float()")

    def __index__(self) -> NoReturn:
        _refuse("the value")

    def item(self, *_: Any) -> NoReturn:
        _refuse("item()")

    def tolist(self) -> NoReturn:
        _refuse("tolist()")

    def __repr__(self) -> str:
        return f"EmulatedArray(shape={self.shape}, dtype={self.dtype}, strides={self.strides})"

    __str__ = __repr__
