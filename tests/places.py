"""The places that compute, and the ways in which an array can lie in memory: what tests are crossed with.

A place makes arrays for a backend and reads them back; strides are kept.  The CUDA backend has two: the emulator of
tests/emulate, and CuPy on a GPU (or, under `python -m tests.cupy_emulated`, CuPy on the CPU).
"""

import os
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
from emulate import EmulatedArray, EmulatedDevice

from gpuconv import backend
from gpuconv.cuda import device as cuda_device


class Cpu:
    """How a test makes arrays for a backend and reads them back; strides are kept on every device."""

    name = "cpu"

    @staticmethod
    def array(a):
        return a

    @staticmethod
    def numpy(a):
        return a


class Emulated:
    """The CUDA backend with the emulator for a GPU.

    GPUCONV_EMULATED names the emulated device (emulated, emulated-check, emulated-ptx, ...), GPUCONV_EMULATED_ORDER the
    order of its threads.
    """

    name = "cuda-emulated"
    device = EmulatedDevice(
        os.environ.get("GPUCONV_EMULATED", "emulated"), order=os.environ.get("GPUCONV_EMULATED_ORDER", "forward")
    )

    @classmethod
    def array(cls, a):
        return None if a is None else cls.device.same_layout(a)

    @classmethod
    def numpy(cls, a):
        return None if a is None else cls.device.asnumpy(a)


cuda_device.register(EmulatedArray, lambda array: Emulated.device)
backend.register_array(EmulatedArray.__module__.partition(".")[0], EmulatedArray.__qualname__, "CuPy")


class Cuda:
    """The CUDA backend on a GPU."""

    name = "cuda"

    @staticmethod
    def array(a):
        import cupy

        if a is None or not a.size:
            return None if a is None else cupy.asarray(a)
        low, high = np.lib.array_utils.byte_bounds(a)
        memory = cupy.full(high - low, 0xFF, np.uint8)  # NaN between the elements
        start = memory.data + (a.__array_interface__["data"][0] - low)
        array = cupy.ndarray(a.shape, a.dtype, start, a.strides)
        array[...] = cupy.asarray(np.ascontiguousarray(a))
        return array

    @staticmethod
    def numpy(a):
        import cupy

        if a is None:
            return None
        order = sorted(range(a.ndim), key=lambda axis: -abs(a.strides[axis]))  # as its axes lie in memory
        return cupy.asnumpy(a.transpose(order)).transpose(np.argsort(order))


PLACES = {place.name: place for place in (Cpu, Emulated, Cuda)}

# pytest chooses cases by the marks of their place, -m emulated or -m gpu.
MARKS = {Cpu.name: (), Emulated.name: (pytest.mark.emulated,), Cuda.name: (pytest.mark.gpu,)}
CPU = Cpu.name  # parameters of fixtures
EMULATED, GPU = (pytest.param(name, marks=MARKS[name]) for name in (Emulated.name, Cuda.name))


def place(name):
    """Return the place of this name; without a GPU, skip what needs it, or fail where GPUCONV_REQUIRE_GPU=1."""
    if name == Cuda.name:
        usable, reason = cuda_device.gpu_status()
        if not usable:
            if os.environ.get("GPUCONV_REQUIRE_GPU") == "1":
                pytest.fail(f"GPUCONV_REQUIRE_GPU=1, but: {reason}")
            pytest.skip(reason)
    return PLACES[name]


@contextmanager
def device_cuda(name):
    """Let gpuconv's device "cuda" be the emulator or a GPU; yield the place."""
    found = place(name)
    if name != Emulated.name:
        yield found
        return
    with (
        mock.patch.object(cuda_device, "gpu_status", return_value=(True, "1 emulated GPU")),
        mock.patch.object(cuda_device, "current", return_value=Emulated.device),
    ):
        Emulated.device.launches.clear()
        yield found


# Memory layouts: each takes an array and returns a view with the same values, stored in another way.


def _c_order(a):
    return np.ascontiguousarray(a)


def _channels_last(a):
    if a.ndim not in (4, 5):
        return np.asfortranarray(a)
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def _fortran(a):
    return np.asfortranarray(a)


def _last_axes_swapped(a):
    return np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2) if a.ndim > 1 else a


def _every_second(a):
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), np.nan, a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def _every_second_image(a):
    wide = np.full((2 * a.shape[0], *a.shape[1:]), np.nan, a.dtype)
    wide[::2] = a
    return wide[::2]


def _backwards(a):
    everywhere = (slice(None, None, -1),) * a.ndim
    return np.ascontiguousarray(a[everywhere])[everywhere]


def _offset(a):
    room = np.full((*a.shape[:-1], a.shape[-1] + 3), np.nan, a.dtype)
    room[..., 2:-1] = a
    return room[..., 2:-1]


def _unaligned(a):
    memory = np.zeros(a.nbytes + 1, np.uint8)
    view = memory[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def _read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def _odd_strides_of_size_one(a):
    steps = [12345 * a.itemsize if size == 1 else step for size, step in zip(a.shape, a.strides, strict=True)]
    return np.lib.stride_tricks.as_strided(a, strides=steps)


LAYOUTS = {
    "c_order": _c_order,
    "channels_last": _channels_last,
    "fortran": _fortran,
    "last_axes_swapped": _last_axes_swapped,
    "every_second_column": _every_second,
    "every_second_image": _every_second_image,
    "negative_strides": _backwards,
    "offset_start": _offset,
    "unaligned": _unaligned,
    "read_only": _read_only,
    "odd_strides_of_size_one": _odd_strides_of_size_one,
}
