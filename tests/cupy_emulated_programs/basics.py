"""Arrays, modules, products, memory, threads."""

import os
import signal
import threading

import cupy
import numpy as np
from checks import KERNELS, SCALE, add, filled, kernel, module, refused, run
from cupy.cuda import runtime


def check_arrays():
    host = np.arange(20, dtype=np.float32).reshape(4, 5)
    a = cupy.array(host)
    np.testing.assert_array_equal((a[:, ::-1].T + 1).get(), host[:, ::-1].T + 1)
    np.testing.assert_array_equal(a.astype(np.float16).get(), host.astype(np.float16))
    np.testing.assert_array_equal(a[cupy.asarray([2, 0])].get(), host[[2, 0]])
    assert float(a.sum()) == host.sum()


def check_arguments_of_a_module():
    x, y = cupy.asarray(np.arange(5, dtype=np.float32)), filled(0, 5)
    shape = np.zeros((), np.dtype([("n", "i4"), ("scale", "f4"), ("more", "i4", 2)], align=True))
    shape["n"], shape["scale"], shape["more"] = 5, 2, (7, 100)
    kernel(SCALE)((1,), (32,), (x, y, shape, np.float32(0.5), np.bool_(True), np.uint64(0)))
    np.testing.assert_array_equal(y.get(), -6 * np.arange(5, dtype=np.float32) + 100.5)


def check_more_shared_memory_is_asked_for():
    y, large = filled(0, 1), kernel("use_shared")
    refused(1, large, (1,), (1,), (y,), shared_mem=90_000)
    refused(1, setattr, large, "max_dynamic_shared_size_bytes", 300_000)
    large.max_dynamic_shared_size_bytes = 90_000
    large((1,), (1,), (y,), shared_mem=90_000)
    assert float(y.get()[0]) == 1


def check_launches_that_no_gpu_takes():
    y = filled(0)
    for grid, block in (((1 << 31,), (32,)), ((1,), (1025,)), ((1, 65536), (1,)), ((1,), (1, 1, 65))):
        refused(1, kernel("write_at"), grid, block, (y, np.int64(0), np.float32(1)))


def check_variables_of_a_module():
    first, other = module(), cupy.RawModule(code=KERNELS + "\n// another module\n", options=("-std=c++17",))
    y = filled(0, 8)
    factors = cupy.ndarray(2, np.int32, first.get_global("factor"))
    factors.set(np.array([0, 10], np.int32))
    first.get_function("use_table")((1,), (8,), (y,))
    np.testing.assert_array_equal(y.get(), 10 * np.tile([1, 2, 3, 4], 2))
    table = cupy.ndarray(4, np.float32, first.get_global("table"))
    table.set(table.get() * 2)
    first.get_function("use_table")((1,), (8,), (y,))
    np.testing.assert_array_equal(y.get(), 30 * np.tile([1, 2, 3, 4], 2))
    assert cupy.ndarray(1, np.int32, first.get_global("unused")).get()[0] == 7
    np.testing.assert_array_equal(cupy.ndarray(4, np.float32, other.get_global("table")).get(), [1, 2, 3, 4])
    refused(500, first.get_global, "nothing")


def _numbers(dtype, *shape):
    rng = np.random.default_rng(len(shape))
    made = rng.integers(-4, 5, shape)
    return (made + 1j * rng.integers(-4, 5, shape) if np.dtype(dtype).kind == "c" else made).astype(dtype)


def check_products_of_every_dtype():
    for dtype in "efdFDi":
        a, b = _numbers(dtype, 4, 5), _numbers(dtype, 5, 3)
        x, y = cupy.asarray(a), cupy.asarray(b)
        np.testing.assert_array_equal((x @ y).get(), a @ b, dtype)
        np.testing.assert_array_equal(cupy.dot(y.T, x.T).get(), np.dot(b.T, a.T), dtype)
        np.testing.assert_array_equal((x @ y[:, 0]).get(), a @ b[:, 0], dtype)
        np.testing.assert_array_equal(cupy.tensordot(x, y, ([1], [0])).get(), np.tensordot(a, b, ([1], [0])), dtype)
    np.testing.assert_array_equal((x[0] @ x[0]).get(), a[0] @ a[0])


def check_products_in_batches():
    for dtype in "fdFD":
        a, b = _numbers(dtype, 2, 4, 5), _numbers(dtype, 2, 5, 3)
        x, y = cupy.asarray(a), cupy.asarray(b)
        np.testing.assert_array_equal((x @ y).get(), a @ b)
    np.testing.assert_array_equal((x[:, None] @ y).get(), a[:, None] @ b)  # by pointers to each matrix


def check_float32_is_rounded_where_tf32_is_chosen_only():
    from cupy._core import set_compute_type

    default, tf32 = 1, 7  # of CuPy's compute types, which it does not show

    a = np.full((4, 4), 1 + 2**-12, np.float32)
    x = cupy.asarray(a)
    assert float((x @ x).get()[0, 0]) != 4
    set_compute_type(np.float32, tf32)
    try:
        assert float(cupy.dot(x, x).get()[0, 0]) == 4
    finally:
        set_compute_type(np.float32, default)


def check_fresh_memory_is_nan():
    assert np.isnan(cupy.empty(1 << 18, np.float32).get()).all()  # more than the pool has


def check_copies_stay_in_their_arrays():
    memory, host = runtime.malloc(400), np.zeros(200, np.float32)
    refused(1, runtime.memcpy, host.ctypes.data, memory, 401, runtime.memcpyDeviceToHost)
    refused(1, runtime.memcpy, memory + 4, host.ctypes.data, 400, runtime.memcpyHostToDevice)
    refused(1, runtime.memset, memory, 0, 401)
    refused(1, runtime.memcpy, memory, host.ctypes.data, 4, runtime.memcpyDeviceToHost)
    runtime.free(memory)
    refused(1, runtime.memset, memory, 0, 4)
    refused(1, runtime.free, memory)


def check_rows_are_copied():
    host, back = np.arange(24, dtype=np.float32).reshape(4, 6), np.zeros((4, 2), np.float32)
    x = cupy.asarray(host)
    runtime.memcpy2D(back.ctypes.data, 8, x.data.ptr + 4, 24, 8, 4, runtime.memcpyDeviceToHost)
    np.testing.assert_array_equal(back, host[:, 1:3])


def check_memory_ends():
    free, total = runtime.memGetInfo()
    refused(2, runtime.malloc, total)
    memory = runtime.malloc(1 << 20)
    assert runtime.memGetInfo() == (free - (1 << 20), total)
    runtime.free(memory)
    assert runtime.memGetInfo() == (free, total)


def check_what_is_not_emulated_is_refused():
    refused(801, runtime.mallocManaged, 100)


def check_a_forked_child_cannot_use_the_device():
    x = filled(1)
    child = os.fork()
    if child == 0:
        code = 0
        try:
            x.get()
        except runtime.CUDARuntimeError as error:
            code = error.status
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert float(x.get()[0]) == 1


def check_threads_launch_at_the_same_time():
    arrays = [filled(0) for _ in range(4)]

    def work(y):
        with cupy.cuda.Stream(non_blocking=True) as stream:
            for _ in range(50):
                add(y, y, 1)
            stream.synchronize()

    threads = [threading.Thread(target=work, args=(y,)) for y in arrays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [float(y.get()[0]) for y in arrays] == [50] * 4


def check_host_functions_do_not_need_a_lock_that_others_hold():
    """They need Python's lock, and another thread calls CUDA all the time, some of it without giving that away."""
    called, over = [], threading.Event()

    def busy():
        while not over.is_set():
            runtime.memGetInfo()
            runtime.streamQuery(0)

    thread = threading.Thread(target=busy)
    thread.start()
    stream = cupy.cuda.Stream(non_blocking=True)
    for i in range(20):
        stream.launch_host_func(called.append, i)
    stream.synchronize()
    over.set()
    thread.join()
    assert called == list(range(20))


def check_signals_during_launches():
    count = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: count.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    y = filled(0)
    try:
        while len(count) < 20:
            for _ in range(20):
                add(y, y, 1)
            number = float(y.get()[0])
            assert number % 20 == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


run(globals())
