"""Captures and graphs: what is captured, what is replayed, and what a capture forbids."""

import cupy
import numpy as np
from checks import add, filled, refused, run, seen
from cupy.cuda import runtime


def _stream():
    return cupy.cuda.Stream(non_blocking=True)


def check_a_graph_is_replayed():
    stream, x, y = _stream(), filled(1), filled(0)
    with stream:
        stream.begin_capture()
        assert stream.is_capturing()
        add(y, x, 1)
        add(y, y, 1)
        graph = stream.end_capture()
        assert not stream.is_capturing()
        stream.synchronize()
        assert seen(y) == 0  # captured, not run
        graph.upload(stream)
        graph.launch(stream)
        stream.synchronize()
        assert seen(y) == 3
        add(x, x, 10)
        for _ in range(3):
            graph.launch(stream)
        stream.synchronize()
        assert seen(y) == 13
    other = _stream()
    graph.launch(other)
    other.synchronize()


def check_copies_and_host_functions_are_captured():
    stream, found = _stream(), []
    x, y, z = filled(1), filled(0), filled(0)
    with stream:
        stream.begin_capture()
        add(y, x, 1)
        z.data.copy_from_device_async(y.data, y.nbytes, stream)
        stream.launch_host_func(found.append, "called")
        graph = stream.end_capture()
        x.set(np.full(32, 10, np.float32))
        graph.launch(stream)
        graph.launch(stream)
        stream.synchronize()
    assert (seen(z), found) == (11, ["called"] * 2)


def check_a_second_stream_joins():
    first, second, x, y = _stream(), _stream(), filled(1), filled(0)
    first.begin_capture()
    with first:
        add(y, x, 1)
    second.wait_event(first.record())
    assert second.is_capturing()
    with second:
        add(y, y, 10)
    first.wait_event(second.record())
    with first:
        add(y, y, 100)
    graph = first.end_capture()
    assert not second.is_capturing()
    for _ in range(2):
        graph.launch(first)
        first.synchronize()
        assert seen(y) == 112


def check_a_stream_that_does_not_come_back():
    first, second, x = _stream(), _stream(), filled(1)
    first.begin_capture()
    second.wait_event(first.record())
    with second:
        add(x, x, 1)
    refused(904, first.end_capture)
    assert not second.is_capturing()


def check_waiting_for_a_captured_stream():
    for wait in (runtime.streamSynchronize, runtime.streamQuery, lambda ptr: runtime.deviceSynchronize()):
        stream = _stream()
        stream.begin_capture()
        if wait is runtime.streamQuery:
            assert wait(stream.ptr) == 900
        else:
            refused(900, wait, stream.ptr)
        refused(901, stream.end_capture)


def check_pageable_copies():
    stream, x, host = _stream(), filled(1), np.zeros(32, np.float32)
    for target, source, kind in (
        (x.data.ptr, host.ctypes.data, runtime.memcpyHostToDevice),
        (host.ctypes.data, x.data.ptr, runtime.memcpyDeviceToHost),
    ):
        stream.begin_capture()
        refused(900, runtime.memcpyAsync, target, source, 128, kind, stream.ptr)
        refused(901, stream.end_capture)


def check_the_default_stream_beside_a_blocking_one():
    stream, x = cupy.cuda.Stream(), filled(1)
    stream.begin_capture()
    refused(906, add, x, x, 1)
    refused(901, stream.end_capture)
    stream = _stream()
    stream.begin_capture()
    add(x, x, 1)  # of another stream, which waits for nothing
    stream.end_capture()
    runtime.deviceSynchronize()
    assert seen(x) == 2


def check_events_of_a_capture():
    stream = _stream()
    stream.begin_capture()
    event = stream.record()
    refused(907, event.synchronize)
    assert runtime.eventQuery(event.ptr) == 907
    refused(901, stream.end_capture)
    before = cupy.cuda.Event()
    before.record(stream)
    stream.begin_capture()
    refused(905, stream.wait_event, before)
    refused(901, stream.end_capture)
    first, second = _stream(), _stream()
    first.begin_capture()
    second.begin_capture()
    refused(902, second.wait_event, first.record())
    refused(901, first.end_capture)
    refused(901, second.end_capture)


def check_memory_is_allocated_as_the_mode_allows():
    stream = _stream()
    stream.begin_capture()
    memory = runtime.malloc(512)
    stream.end_capture()
    stream.begin_capture(runtime.streamCaptureModeGlobal)
    refused(900, runtime.malloc, 512)
    refused(901, stream.end_capture)
    runtime.free(memory)


def check_beginnings_and_ends():
    stream, other = _stream(), _stream()
    refused(401, runtime.streamEndCapture, stream.ptr)
    refused(900, runtime.streamBeginCapture, 0, runtime.streamCaptureModeRelaxed)
    stream.begin_capture()
    refused(401, runtime.streamBeginCapture, stream.ptr, runtime.streamCaptureModeRelaxed)
    other.wait_event(stream.record())
    refused(903, runtime.streamEndCapture, other.ptr)
    refused(901, stream.end_capture)


run(globals())
