"""Two devices: each has its memory, its streams, its modules, its errors."""

import cupy
import numpy as np
from checks import add, filled, kernel, refused, run, seen
from cupy.cuda import driver, runtime


def check_there_are_two():
    assert runtime.getDeviceCount() == 2
    with cupy.cuda.Device(1):
        x = filled(1)
        assert x.device.id == 1
        add(x, x, 1)
        assert runtime.pointerGetAttributes(x.data.ptr).device == 1
    assert seen(x) == 2
    refused(101, runtime.setDevice, 2)


def check_what_belongs_to_another_device():
    x = filled(1)
    with cupy.cuda.Device(1):
        stream, function = cupy.cuda.Stream(non_blocking=True), kernel("add").kernel.ptr
        event = cupy.cuda.Event()
        own = filled(1)
        add(own, own, 0)
    refused(400, runtime.eventRecord, event.ptr, cupy.cuda.Stream(non_blocking=True).ptr)
    refused(400, _launch_add, function, 0, x)
    refused(400, _launch_add, kernel("add").kernel.ptr, stream.ptr, x)
    with cupy.cuda.Device(1), stream:
        add(own, own, 1)
    stream.synchronize()
    assert (seen(x), seen(own)) == (1, 2)


def _launch_add(function, stream, x):
    """Launch a function as it is: CuPy would take the one of the current device."""
    address, value = np.array([x.data.ptr], np.uint64), np.ones(1, np.float32)
    pointers = np.array([address.ctypes.data, address.ctypes.data, value.ctypes.data], np.uint64)
    driver.launchKernel(function, 1, 1, 1, 32, 1, 1, 0, stream, pointers.ctypes.data, 0)


def check_streams_wait_for_events_of_the_other_device():
    x = filled(1)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        add(x, x, 1)
        event = stream.record()
    with cupy.cuda.Device(1):
        other, y = cupy.cuda.Stream(non_blocking=True), filled(0)
        other.wait_event(event)
        runtime.memcpyPeerAsync(y.data.ptr, 1, x.data.ptr, 0, 128, other.ptr)
        other.synchronize()
    assert seen(y) == 2


def check_copies_between_them():
    x = filled(3)
    with cupy.cuda.Device(1):
        y = filled(0)
        runtime.memcpyPeer(y.data.ptr, 1, x.data.ptr, 0, 128)
        assert float(y.get()[0]) == 3
        assert float(x.copy().get()[0]) == 3
    refused(1, runtime.memcpyPeer, y.data.ptr, 0, x.data.ptr, 1, 128)


def check_peer_access():
    x = filled(5)
    assert runtime.deviceCanAccessPeer(1, 0) == 1
    with cupy.cuda.Device(1):
        y = filled(0, 1)
        runtime.deviceEnablePeerAccess(0)
        refused(704, runtime.deviceEnablePeerAccess, 0)
        _read(y, x)
        assert float(y.get()[0]) == 5
        runtime.deviceDisablePeerAccess(0)
        refused(705, runtime.deviceDisablePeerAccess, 0)
        _read(y, x)
        refused(700, runtime.deviceSynchronize)
    runtime.deviceSynchronize()  # the first device is well
    add(x, x, 1)
    assert float(x.get()[0]) == 6


def _read(y, x):
    """Read x by its address: CuPy would enable the access by itself."""
    kernel("read_at")((1,), (1,), (y, np.uint64(x.data.ptr), np.int64(0)))


run(globals())
