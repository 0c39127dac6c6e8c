"""Kernels that go wrong.  Each leaves the device with an error, so each has a process of its own."""

import cupy
import numpy as np
from checks import filled, kernel, refused, run
from cupy.cuda import runtime


def alone_illegal_access():
    x = filled(1)
    kernel("write_at")((2,), (3,), (x, np.int64(1 << 40), np.float32(0)))
    refused(700, runtime.deviceSynchronize)
    refused(700, runtime.malloc, 512)  # from now on
    refused(700, runtime.memcpy, x.data.ptr, x.data.ptr, 4, runtime.memcpyDeviceToDevice)
    refused(700, x.get)


def alone_freed_memory():
    memory = runtime.malloc(128)
    x = cupy.ndarray(32, np.float32, cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(memory, 128, None), 0))
    kernel("write_at")((1,), (1,), (x, np.int64(0), np.float32(0)))
    runtime.free(memory)
    kernel("write_at")((1,), (1,), (x, np.int64(0), np.float32(0)))
    refused(700, runtime.deviceSynchronize)


def alone_endless():
    kernel("endless")((1,), (1,), (cupy.asarray(np.zeros(1, np.int32)),))
    refused(702, runtime.deviceSynchronize)


def alone_trap():
    kernel("give_up")((1,), (1,), ())
    refused(719, runtime.deviceSynchronize)


run(globals())
