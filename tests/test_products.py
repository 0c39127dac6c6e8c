"""Matrix products on a GPU: what cuBLAS is asked for, of every shape and either order in memory."""

import threading
import types

import numpy as np
import pytest
from compare import assert_same, whole
from places import GPU

from gpuconv.cuda.device import current
from gpuconv.cuda.products import Products
from gpuconv.errors import RecordingError, SizeLimitError

SIZES = {
    "all differ": (3, 5, 7),
    "one row": (1, 4, 2),
    "one column": (6, 3, 1),
    "one term": (4, 1, 5),
    "one": (1, 1, 1),
}


@pytest.mark.core
@pytest.mark.parametrize("gpu", [GPU], indirect=True)
@pytest.mark.parametrize("turned", ["neither", "a", "b", "both"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_product_is_numpy_s(kind, sizes, turned, gpu, rng):
    rows, inner, columns = sizes
    hosts, arrays = [], []
    for name, shape in (("a", (rows, inner)), ("b", (inner, columns))):
        turn = turned in (name, "both")
        hosts.append(whole(rng, shape, kind))
        arrays.append(gpu.array(np.ascontiguousarray(hosts[-1].T)).T if turn else gpu.array(hosts[-1]))
    out = current().empty((rows, columns), np.dtype(kind))
    current().matmul(*arrays, out)
    assert_same(gpu.numpy(out), hosts[0] @ hosts[1])


@pytest.mark.core
@pytest.mark.parametrize("gpu", [GPU], indirect=True)
def test_what_cublas_worked_in_is_not_used_by_cupy_s_own_products(gpu):
    import cupy

    a = gpu.array(np.ones((2, 2), np.float32))
    current().matmul(a, a, current().empty((2, 2), np.dtype(np.float32)))
    beside = [gpu.array(np.full(2**20, 7, np.float32)) for _ in range(2)]  # where it was, perhaps
    assert_same(gpu.numpy(cupy.matmul(a, a)), np.full((2, 2), 2, np.float32))
    assert all(bool((array == 7).all()) for array in beside)


@pytest.mark.core
@pytest.mark.parametrize("gpu", [GPU], indirect=True)
def test_the_first_product_of_a_thread_is_not_recorded(gpu):
    device, a = current(), gpu.array(np.ones((2, 2), np.float32))
    out, said = device.empty((2, 2), np.dtype(np.float32)), []

    def elsewhere():
        try:
            device.record(lambda: device.matmul(a, a, out))
        except RecordingError as error:
            said.append(str(error))
        device.matmul(a, a, out)
        device.record(lambda: device.matmul(a, a, out)).replay()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert said == [
        "the first matrix product of a thread, which starts cuBLAS, cannot be recorded: do the work once before"
    ]
    assert_same(gpu.numpy(out), np.full((2, 2), 2, np.float32))


def test_a_size_beyond_what_cublas_counts_is_refused():
    a, b = (types.SimpleNamespace(shape=shape) for shape in ((2, 2**31), (2**31, 3)))
    with pytest.raises(SizeLimitError, match=r"counts to 2147483647, got \(2, 2147483648\) @ \(2147483648, 3\)"):
        Products(None, 90).write(a, b, None)
