"""How gpuconv calls CuPy: on the stream that is current, on the GPU that holds the arrays, with what a kernel declares."""

import numpy as np
import pytest
from compare import assert_same, normal, whole
from places import Cuda, place

import gpuconv
from gpuconv.cuda import device as cuda_device
from gpuconv.errors import DeviceMismatchError
from tests.ladder.kernel_calls import CALLS, assert_as_expected

pytestmark = [pytest.mark.gpu, pytest.mark.core]

# Between them: arrays made in each way, sums in parts, products, structs, null pointers, tables of the host.
CHOSEN = [
    CALLS[name]
    for name in ("conv_in_tiles", "max_pool_halves_special", "batchnorm_several_chunks", "affine", "augment", "adam")
]


@pytest.fixture
def cupy():
    place("cuda")
    import cupy

    return cupy


@pytest.fixture
def two_gpus(cupy):
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two GPUs")
    with cupy.cuda.Device(0):
        yield
        assert cupy.cuda.Device().id == 0


class Second:
    """The second GPU, while the first one is current."""

    @staticmethod
    def array(a):
        import cupy

        with cupy.cuda.Device(1):
            return Cuda.array(a)

    @staticmethod
    def numpy(a):
        import cupy

        assert cupy.cuda.Device().id == 0
        assert a is None or a.device.id == 1
        with cupy.cuda.Device(1):
            return Cuda.numpy(a)


@pytest.mark.parametrize("call", CHOSEN, ids=lambda call: call.name)
def test_calls_run_where_the_arrays_are(call, two_gpus):
    assert_as_expected(call.on(Second, "float32", "NCHW"), call.expected("float32", "NCHW"))
    assert_as_expected(call.on(Cuda, "float32", "NCHW"), call.expected("float32", "NCHW"))


def test_two_gpus_in_one_call_are_refused_by_name(two_gpus, rng):
    here, there = Cuda.array(normal(rng, (2, 3, 4, 4))), Second.array(normal(rng, (5, 3, 3, 3)))
    with pytest.raises(DeviceMismatchError, match=r"x is on <CUDA Device 0> but w is on <CUDA Device 1>"):
        gpuconv.conv_forward(here, there)
    y, cache = gpuconv.conv_forward(here, Cuda.array(normal(rng, (5, 3, 3, 3))))
    with pytest.raises(DeviceMismatchError, match="dy"):
        gpuconv.conv_backward(Second.array(np.ones(y.shape)), cache)


def test_a_net_s_arrays_are_made_on_the_current_gpu(two_gpus, cupy):
    with cupy.cuda.Device(1):
        assert cuda_device.current().zeros((2,), np.float32).device.id == 1
        assert cuda_device.current().asarray(np.ones(2)).device.id == 1


@pytest.mark.parametrize("call", CHOSEN, ids=lambda call: call.name)
def test_calls_run_on_the_current_stream(call, cupy):
    """Work waits behind what is before it on its stream, and is behind nothing else."""
    with cupy.cuda.Stream(non_blocking=True):
        assert_as_expected(call.on(Cuda, "float32", "NHWC"), call.expected("float32", "NHWC"))


def test_a_captured_call_runs_when_it_is_replayed(cupy, rng):
    """Only work on the captured stream is recorded: what ran elsewhere would not come again with other numbers."""
    x, w = (whole(rng, shape, "float32") for shape in ((2, 3, 6, 6), (4, 3, 3, 3)))
    there, filters = cupy.asarray(x), cupy.asarray(w)
    gpuconv.conv_forward(there, filters, pad=1)  # compiles
    cupy.cuda.get_current_stream().synchronize()  # which another stream does not wait for
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.Stream(non_blocking=True) as stream, cupy.cuda.using_allocator(pool.malloc):
        gpuconv.conv_forward(there, filters, pad=1)
        stream.begin_capture()
        y, _ = gpuconv.conv_forward(there, filters, pad=1)
        graph = stream.end_capture()
        for factor in (1, -2):
            there[...] = cupy.asarray(factor * x)
            graph.launch(stream)
            expected, _ = gpuconv.conv_forward(factor * x, w, pad=1)
            assert_same(cupy.asnumpy(y), expected)


KERNEL = """
struct Sizes { int count; float scale; long long more[2]; };

template <typename T>
__global__ void spread(const T* x, const T* absent, T* y, const Sizes z, const bool negative, const short step) {
  extern __shared__ double room[];
  T* const copy = (T*)room;
  const int i = threadIdx.x;
  if (i < z.count) copy[i * step] = x[i];
  __syncthreads();
  if (i < z.count) y[i] = (negative ? -1 : 1) * (T)z.scale * copy[(z.count - 1 - i) * step] + z.more[1] + (absent ? 1 : 0);
}
"""


@pytest.mark.parametrize("step", [1, 2000], ids=["little_shared_memory", "more_than_is_allowed_without_asking"])
def test_a_kernel_gets_what_it_declares(step, cupy):
    """A pointer, none, a struct, a bool and a short by value, and dynamic shared memory."""
    device = cuda_device.current()
    function = device.compile(KERNEL, "spread.cu", ("spread<float>",), ("-std=c++17",))["spread<float>"]
    sizes = np.zeros((), np.dtype([("count", "i4"), ("scale", "f4"), ("more", "i8", 2)], align=True))
    sizes["count"], sizes["scale"], sizes["more"] = 10, 0.5, (7, 100)
    x, y = device.asarray(np.arange(10, dtype=np.float32)), device.empty((10,), np.float32)
    args = x, None, y, sizes[()], np.bool_(True), np.int16(step)
    device.launch(function, (1, 1, 1), (32, 1, 1), args, 4 * 10 * step)
    assert_same(device.asnumpy(y), 100 - np.arange(10)[::-1] / 2, dtype="float32")


def test_the_device_is_waited_for(cupy):
    device = cuda_device.current()
    begun, ended = cupy.cuda.Event(), cupy.cuda.Event()
    begun.record()
    zeros = device.zeros((1 << 16,), np.float64)
    ended.record()
    device.synchronize()
    assert ended.done
    assert not device.asnumpy(zeros).any()
