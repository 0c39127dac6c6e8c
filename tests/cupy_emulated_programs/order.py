"""Streams and events.  Run in lazy mode, too: then nothing is done before somebody waits for it."""

import threading

import cupy
import numpy as np
from checks import LAZY, add, filled, refused, run, seen
from cupy.cuda import runtime


def _stream():
    return cupy.cuda.Stream(non_blocking=True)


def check_work_is_done_when_it_is_waited_for():
    stream, x, y = _stream(), filled(1), filled(0)
    with stream:
        add(y, x, 1)
    assert seen(y) == (0 if LAZY else 2)
    stream.synchronize()
    assert seen(y) == 2


def check_a_stream_waits_for_an_event():
    first, second, x, y = _stream(), _stream(), filled(1), filled(0)
    with first:
        add(x, x, 4)
        event = first.record()
        add(x, x, 100)
    second.wait_event(event)
    with second:
        add(y, x, 0)
    second.synchronize()
    assert seen(y) == (5 if LAZY else 105)  # of first, what comes after the event has not been waited for
    first.synchronize()
    assert seen(x) == 105


def check_without_a_wait_streams_have_no_order():
    first, second, x, y = _stream(), _stream(), filled(1), filled(0)
    with first:
        add(x, x, 4)
    with second:
        add(y, x, 0)
    second.synchronize()
    assert seen(y) == (1 if LAZY else 5)
    first.synchronize()


def check_the_default_stream_waits_for_blocking_streams():
    blocking, x, y = cupy.cuda.Stream(), filled(1), filled(0)
    with blocking:
        add(x, x, 4)
    add(y, x, 0)
    with blocking:
        add(x, y, 10)  # and they for it
    blocking.synchronize()
    assert (seen(y), seen(x)) == (5, 15)
    with blocking:
        add(x, x, 1)
    cupy.cuda.Stream.null.synchronize()
    assert seen(x) == 16


def check_every_thread_has_a_default_stream():
    x, own = filled(1), cupy.cuda.Stream.ptds

    def other():
        with own:
            add(x, x, 4)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    own.synchronize()  # this thread's, which has nothing to do
    assert seen(x) == (1 if LAZY else 5)
    runtime.deviceSynchronize()
    assert seen(x) == 5


def check_who_asks_again_and_again_gets_on():
    stream, x = _stream(), filled(1)
    with stream:
        for _ in range(5):
            add(x, x, 1)
        event = stream.record()
    asked = 1
    while not event.done:
        asked += 1
    assert (seen(x), asked > 1) == (6, LAZY)
    while not stream.done:
        asked += 1


def check_times_of_events():
    first, last, x = cupy.cuda.Event(), cupy.cuda.Event(), filled(1)
    refused(400, cupy.cuda.get_elapsed_time, first, last)
    first.record()
    add(x, x, 1)
    last.record()
    if LAZY:
        refused(600, cupy.cuda.get_elapsed_time, first, last)
    last.synchronize()
    assert cupy.cuda.get_elapsed_time(first, last) > 0
    assert cupy.cuda.get_elapsed_time(last, first) < 0
    untimed = cupy.cuda.Event(disable_timing=True)
    untimed.record()
    untimed.synchronize()
    refused(400, cupy.cuda.get_elapsed_time, first, untimed)


def check_pageable_memory_is_read_at_once_and_pinned_memory_late():
    stream, x, y = _stream(), filled(0), filled(0)
    pageable = np.full(32, 1, np.float32)
    memory = cupy.cuda.alloc_pinned_memory(128)
    pinned = np.frombuffer(memory, np.float32, 32)
    pinned[...] = 1
    for target, host in ((x, pageable), (y, pinned)):
        runtime.memcpyAsync(target.data.ptr, host.ctypes.data, 128, runtime.memcpyHostToDevice, stream.ptr)
        host[...] = 2
    stream.synchronize()
    assert (seen(x), seen(y)) == (1, 2 if LAZY else 1)


def check_host_functions_are_called_in_order():
    stream, x, found = _stream(), filled(1), []
    with stream:
        add(x, x, 1)
        stream.launch_host_func(lambda _: found.append("first"), None)
        stream.launch_host_func(lambda _: found.append("second"), None)
        add(x, x, 1)
    stream.synchronize()
    assert (found, seen(x)) == (["first", "second"], 3)


def check_a_host_function_may_not_call_cuda():
    stream, found = _stream(), []

    def function(_):
        try:
            runtime.deviceSynchronize()
        except runtime.CUDARuntimeError as error:
            found.append(error.status)

    stream.launch_host_func(function, None)
    stream.synchronize()
    assert found == [800]


def check_a_stream_that_ends_does_its_work():
    stream, x = _stream(), filled(1)
    with stream:
        add(x, x, 1)
    del stream
    runtime.deviceSynchronize()
    assert seen(x) == 2


def check_memory_in_the_order_of_a_stream():
    stream = _stream()
    memory = runtime.mallocAsync(128, stream.ptr)
    x = cupy.ndarray(32, np.float32, cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(memory, 128, None), 0))
    y = filled(1)
    with stream:
        add(x, y, 1)
        runtime.freeAsync(memory, stream.ptr)
    stream.synchronize()
    refused(1, runtime.memset, memory, 0, 4)


def check_handles_that_do_not_exist():
    refused(400, runtime.streamSynchronize, 12345)
    refused(400, runtime.eventRecord, cupy.cuda.Event().ptr, 12345)


run(globals())
