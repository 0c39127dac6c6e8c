"""Guard mode: arrays are allocations of their own, fresh and full of NaN, and gone when they are freed."""

import cupy
import numpy as np
from checks import add, filled, kernel, refused, run, seen
from cupy.cuda import runtime


def check_memory_is_nan_again():
    for _ in range(3):
        x = cupy.empty(100, np.float32)
        assert np.isnan(x.get()).all()
        x.set(np.zeros(100, np.float32))
        del x


def check_the_limit_of_the_pool_holds():
    pool = cupy.get_default_memory_pool()
    pool.set_limit(size=1 << 20)
    try:
        x = cupy.empty(1 << 19, np.uint8)
        try:
            cupy.empty((1 << 19) + 1, np.uint8)
        except cupy.cuda.memory.OutOfMemoryError:
            del x
        else:
            raise AssertionError
        cupy.empty((1 << 19) + 1, np.uint8)
    finally:
        pool.set_limit(size=0)


def check_freed_memory_lasts_as_long_as_the_work_of_its_stream():
    stream = cupy.cuda.Stream(non_blocking=True)
    y = filled(0)
    with stream:
        x = filled(1)
        add(x, x, 1)
        add(y, x, 1)
        del x
    stream.synchronize()
    assert seen(y) == 3


def check_a_graph_keeps_what_was_freed_in_its_capture():
    stream, y = cupy.cuda.Stream(non_blocking=True), filled(1)
    with stream:
        stream.begin_capture()
        x = cupy.empty(32, np.float32)
        add(x, y, 1)
        add(y, x, 1)
        del x
        graph = stream.end_capture()
        for _ in range(2):
            graph.launch(stream)
        stream.synchronize()
    assert seen(y) == 5
    free, _ = runtime.memGetInfo()
    del graph
    assert runtime.memGetInfo()[0] == free + 512


# What follows leaves the device with an error: each has a process of its own.


def alone_reading_past_the_end():
    x, y = filled(1, 100), filled(0, 1)
    kernel("read_at")((1,), (1,), (y, x, np.int64(100)))
    refused(700, runtime.deviceSynchronize)


def alone_writing_past_the_end():
    x = filled(1, 99)  # three more fit before the page ends
    kernel("write_at")((1,), (1,), (x, np.int64(99), np.float32(0)))
    refused(700, runtime.deviceSynchronize)


def alone_writing_before_the_start():
    x = filled(1, 100)
    kernel("write_at")((1,), (1,), (x, np.int64(-3), np.float32(0)))
    refused(700, runtime.deviceSynchronize)


def alone_freeing_while_another_stream_works():
    one, other, y = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True), filled(0)
    with one:
        x = filled(1)
    with other:
        add(y, x, 1)
    with one:
        del x  # nobody has waited for the other stream
    one.synchronize()
    refused(700, other.synchronize)


run(globals())
