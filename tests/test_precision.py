"""precision="tf32": where it is refused, and that the fully connected layer passes it to cuBLAS and nowhere else."""

import numpy as np
import pytest
from compare import absolute, assert_close, assert_same, assert_same_bits, normal, whole
from places import GPU

import gpuconv
from gpuconv import naive
from gpuconv.errors import DTypeError, ParamError, UnsupportedError
from gpuconv.ops import affine, conv

CUT_OFF = 2.0**-10  # what a factor is off by at most if cuBLAS cuts it off


def calls(array):
    """Return every function that takes precision, on good arrays."""
    x, w, dy, matrix = (array(np.ones(s, np.float32)) for s in ((1, 1, 3, 3), (1, 1, 1, 1), (1, 1, 3, 3), (9, 2)))
    return {
        "conv_forward": lambda **how: conv.conv_forward(x, w, **how),
        "input_gradient": lambda **how: conv.input_gradient(dy, w, x, **how),
        "weight_gradient": lambda **how: conv.weight_gradient(dy, x, w, **how),
        "affine_forward": lambda **how: affine.affine_forward(x, matrix, **how),
    }


each_call = pytest.mark.parametrize("name", calls(np.asarray))


@each_call
@pytest.mark.parametrize("value", ["TF32", "float32", "", 1, True, 32.0, ["tf32"]])
def test_another_precision_is_refused_by_name(name, value, device):
    with pytest.raises(ParamError, match=r'^precision must be None or "tf32", got '):
        calls(device.array)[name](precision=value)


@each_call
def test_it_is_refused_on_the_cpu(name):
    words = r'^precision="tf32" needs a GPU of compute capability 8\.0 or later, x is a NumPy array$'
    with pytest.raises(UnsupportedError, match=words):
        calls(np.asarray)[name](precision="tf32")


@each_call
def test_none_is_as_without(name, device):
    calls(device.array)[name](precision=None)


@pytest.mark.parametrize("dtype", ["float16", "float64", "complex64", "complex128"])
def test_other_dtypes_are_refused(dtype, device):
    x, w = (device.array(np.ones(shape, dtype)) for shape in ((1, 1, 3, 3), (1, 1, 2, 2)))
    with pytest.raises(DTypeError, match=rf'^precision="tf32" rounds the factors of float32 arrays, got {dtype}$'):
        gpuconv.conv_forward(x, w, precision="tf32")


def test_it_is_refused_where_tensor_cores_do_not_take_it(monkeypatch):
    emulate = pytest.importorskip("emulate")
    from gpuconv.cuda import device as cuda_device

    old = emulate.EmulatedDevice("emulated", arch=75)
    monkeypatch.setitem(cuda_device._REGISTERED, emulate.EmulatedArray, lambda array: old)
    words = r'^precision="tf32" needs a GPU of compute capability 8\.0 or later, emulated has 7\.5$'
    for call in calls(old.asarray).values():
        with pytest.raises(UnsupportedError, match=words):
            call(precision="tf32")
    assert not old.launches


# The fully connected layer --------------------------------------------------------------------------------------------


def expected(x, w, b, dy):
    return naive.affine_forward(x, w, b), *naive.affine_backward(dy, x, w, input_grad=True, bias_grad=True)


def test_the_fully_connected_layer_is_within_the_bound(gpu, rng):
    given = [normal(rng, shape, "float32") for shape in ((33, 40), (40, 17), (17,), (33, 17))]
    x, w, b, dy = map(gpu.array, given)
    y, cache = gpuconv.affine_forward(x, w, b, precision="tf32")
    assert cache.precision == "tf32"
    got = [gpu.numpy(a) for a in (y, *gpuconv.affine_backward(dy, cache))]
    refs, scales = expected(*given), expected(*absolute(*given))
    for actual, ref, scale in zip(got, refs, scales, strict=True):
        assert_close(actual, ref, scale=scale, dtype="float32", factors=CUT_OFF)


def test_its_factors_are_rounded_in_forward_and_in_both_gradients(gpu, rng):
    """Factors just beside a number of TF32 come out as that number."""
    x, w, dy = (whole(rng, shape, "float32") for shape in ((8, 6), (6, 5), (8, 5)))
    beside = [gpu.array(a * np.float32(1 + 2.0**-13)) for a in (x, w, dy)]
    y, cache = gpuconv.affine_forward(*beside[:2], precision="tf32")
    assert_same(gpu.numpy(y), x @ w)
    dx, dw, _ = gpuconv.affine_backward(beside[2], cache)
    assert_same(gpu.numpy(dx), dy @ w.T)
    assert_same(gpu.numpy(dw), x.T @ dy)


def test_it_holds_for_its_call_alone(gpu, rng):
    """What comes after it, of gpuconv and of CuPy, is float32 as before."""
    x, w = (gpu.array(normal(rng, shape, "float32")) for shape in ((8, 6), (6, 5)))
    before = gpu.numpy(gpuconv.affine_forward(x, w)[0])
    rounded = gpu.numpy(gpuconv.affine_forward(x, w, precision="tf32")[0])
    assert (rounded != before).any()
    assert_same_bits(gpu.numpy(gpuconv.affine_forward(x, w)[0]), before)


@pytest.mark.parametrize("gpu", [GPU], indirect=True)
def test_cublas_is_put_back_where_a_product_fails(gpu, monkeypatch):
    from cupy.cuda import cublas, device

    from gpuconv.cuda.device import current
    from gpuconv.cuda.products import Products

    a = gpu.array(np.ones((2, 2), np.float32))
    current().matmul(a, a, current().empty((2, 2), np.dtype(np.float32)))
    handle = device.get_cublas_handle()
    mode, call = cublas.getMathMode(handle), Products._call

    def failing(self, handle, name, *arguments):
        call(self, handle, name, *arguments)
        if name == "cublasSgemm_v2":
            assert cublas.getMathMode(handle) == 3
            raise RuntimeError

    monkeypatch.setattr(Products, "_call", failing)
    with pytest.raises(RuntimeError):
        current().matmul(a, a, current().empty((2, 2), np.dtype(np.float32)), tf32=True)
    assert cublas.getMathMode(handle) == mode


@pytest.mark.core
def test_a_recorded_call_rounds_at_each_replay(gpu, rng):
    from gpuconv.backend import record

    x, w = (gpu.array(normal(rng, shape, "float32")) for shape in ((8, 6), (6, 5)))
    eager = gpuconv.affine_forward(x, w, precision="tf32")[0]
    recording = record(lambda: gpuconv.affine_forward(x, w, precision="tf32")[0], x)
    recording.replay()
    assert_same_bits(gpu.numpy(recording.result), gpu.numpy(eager))
