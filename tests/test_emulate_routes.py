"""The emulator's two routes to the CPU give right results, in every mode and thread order, and agree."""

import re
from dataclasses import replace

import numpy as np
import pytest
from emulate import (
    MODES,
    ORDERS,
    BuildError,
    EmulatedArray,
    EmulatedDevice,
    EmulationError,
    EmulatorUnavailableError,
    build,
    nvrtc,
)
from emulate.examples import PROBLEMS, Out, Problem, bfloat16, edited, from_bfloat16

pytestmark = pytest.mark.compilers

_I32 = np.int32


@pytest.fixture(params=["emulated", "emulated-check", "emulated-ptx", "emulated-ptx-check"], scope="module")
def device(request):
    return EmulatedDevice(request.param)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS.keys())
def test_right_results_by_both_routes(device, problem):
    problem().check(device)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS.keys())
def test_routes_agree(problem):
    by_gcc, by_ptx = (problem().run(EmulatedDevice(name)) for name in ("emulated", "emulated-ptx"))
    for a, b in zip(by_gcc, by_ptx, strict=True):
        # The same algorithm in the same order; only fused multiply-adds and rounded quotients may differ.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["shared_tiles_and_float4", "warp_shuffles", "mma_ldmatrix_cp_async"])
def test_right_results_in_every_thread_order(name, order):
    PROBLEMS[name]().check(EmulatedDevice("emulated", order=order, seed=7))


@pytest.mark.parametrize("block_order", ["reverse", "random"])
def test_right_results_in_every_block_order(block_order):
    PROBLEMS["atomics_between_blocks"]().check(EmulatedDevice("emulated", block_order=block_order))


def test_workers_share_the_blocks():
    device = EmulatedDevice("emulated", workers=3)
    PROBLEMS["atomics_between_blocks"]().check(device)
    assert device.launches[-1].counts["blocks"] == 56


SHAPES = {
    "tile_sizes_do_not_divide": ("shared_tiles_and_float4", {"m": 65, "n": 68, "k": 20}),
    "one_row": ("shared_tiles_and_float4", {"m": 1, "n": 4, "k": 4}),
    "odd_image": ("template_halo_and_dynamic_shared", {"n": 1, "c": 2, "h": 17, "w": 19, "k": 5}),
    "four_stages": ("mma_ldmatrix_cp_async", {"m": 64, "n": 64, "k": 32, "stages": 4}),
}


@pytest.mark.parametrize(("name", "sizes"), SHAPES.values(), ids=SHAPES.keys())
def test_other_shapes(name, sizes):
    PROBLEMS[name](**sizes).check(EmulatedDevice("emulated"))


# Features ------------------------------------------------------------------------------------------------------------

_RNG = np.random.default_rng(3)


def _half(n):
    return _RNG.standard_normal(n).astype(np.float16)


def _float(n):
    return _RNG.standard_normal(n).astype(np.float32)


_FEATURE_KERNELS = re.findall(r"__global__ void (\w+)\(", edited("features.cu"))


def _feature(kernel, args, *, grid=(1,), block=(64,), shared=0, tolerance=0.0):
    return Problem("features.cu", kernel, grid, block, args, shared, tolerance, tuple(_FEATURE_KERNELS))


def _half_pairs():
    a, b = _half(400), _half(400)
    want = a.astype(float) * b + (a + b)
    return _feature("half_pairs", (a, b, Out(want, np.float16), _I32(200)), grid=(4,), tolerance=3e-3)


def _halves():
    a = _half(200)
    want = (a * np.float16(2)).astype(np.float16) + a * a
    return _feature("halves", (a, Out(want, np.float16), _I32(200)), tolerance=3e-3)


def _bfloats():
    a = bfloat16(_float(64))
    v = from_bfloat16(a)
    gelu = 0.5 * v * (1 + np.tanh(0.7978845608 * (v + 0.044715 * v**3)))
    scaled = bfloat16((v * np.float32(1.5)).astype(np.float32))
    return _feature("bfloats", (a, Out(gelu, np.float32), Out(scaled, np.uint16), _I32(64)), tolerance=1e-5)


def _max_pool():
    fields = [("n", "i4"), ("c", "i4"), ("h", "i4"), ("w", "i4"), ("scale", "f4"), ("stride", "i8")]
    shape = np.array((2, 3, 8, 10, 2.0, 80), np.dtype(fields, align=True))
    x = _float(480)
    windows = x.reshape(6, 4, 2, 5, 2).transpose(0, 1, 3, 2, 4).reshape(120, 4)
    outs = Out(windows.max(-1) * 2, np.float32), Out(windows.argmax(-1), np.uint8)
    return _feature("max_pool", (x, *outs, shape), block=(128,))


def _bytes():
    x = _RNG.integers(0, 256, 64).astype(np.uint8)
    outs = Out((x // 2).astype(np.int8) - 64, np.int8), Out((x.astype(np.int64) * 257).astype(np.uint16), np.uint16)
    return _feature("bytes", (x, *outs, _I32(64)))


def _histogram():
    x = _RNG.integers(0, 10, 1000).astype(np.int32)
    out = Out(np.bincount(x, minlength=10), np.int32, zeros=True)
    return _feature("histogram", (x, out, _I32(1000), _I32(10)), grid=(3,), shared=40)


def _votes():
    x = _RNG.integers(-5, 9, 256).astype(np.int32)
    ballots = np.packbits(x.reshape(8, 32) > 3, axis=1, bitorder="little").view(np.uint32).ravel()
    counts = [int(b).bit_count() + 100 * (32 - int(b).bit_length()) for b in ballots]
    outs = Out(ballots, np.uint32), Out(np.array(counts), np.int32)
    return _feature("votes", (x, *outs, _I32(256)), grid=(2,), block=(128,))


def _block_votes():
    x = _RNG.integers(-5, 9, 96).astype(np.int32)
    want = np.full(96, (x > 3).sum() * 4 + (x > 8).any() * 2 + (x > -9).all())
    return _feature("block_votes", (x, Out(want, np.int32)), block=(96,))


def _warp_reductions():
    x = _RNG.integers(-5, 9, 64).astype(np.int32)
    rows = x.reshape(2, 32)
    want = np.repeat(rows.sum(1) * 100 + rows.max(1) * 10 + rows.min(1), 32)
    return _feature("warp_reductions", (x, Out(want, np.int32)))


def _scan():
    x = _RNG.integers(-5, 9, 256).astype(np.int32)
    want = np.cumsum(x.reshape(2, 128), axis=1).ravel()
    return _feature("scan", (x, Out(want, np.int32)), grid=(2,), block=(128,))


def _local_array():
    x, order = _float(512), _RNG.integers(0, 8, 6).astype(np.int32)
    rows = x.reshape(64, 8).astype(float)
    for j in order:
        rows[:, j & 7] += rows[:, (j + 3) & 7]
    out = Out(rows[:, order[0] & 7], np.float32)
    return _feature("local_array", (x, order, out, _I32(6)), tolerance=1e-6)


def _functions():
    which, x = (np.arange(64) % 10).astype(np.int32), np.abs(_float(64)) + np.float32(0.1)
    taps = np.array([0.25, 0.5, -1, 2])[np.arange(64) & 3]
    rows = [
        x + 1,
        x * 3,
        np.exp(x),
        np.log(np.abs(x) + 1),
        np.sqrt(x),
        np.floor(x),
        np.trunc(x),
        taps,
        np.exp(x),
        1 / x,
    ]
    return _feature("functions", (which, x, Out(np.choose(which, rows), np.float32)), tolerance=1e-5)


def _doubles():
    a = _RNG.standard_normal(64)
    sums = np.array([(a * np.roll(a, -t)).sum() for t in range(32)])
    outs = Out(sums / 64, np.float64), Out(np.sqrt(np.abs(sums)), np.float32)
    return _feature("doubles", (a, *outs, _I32(64)), block=(32,), tolerance=1e-6)


def _wide_integers():
    x = _RNG.integers(1, 2**63, 64, dtype=np.uint64)

    def want(v):
        low = v & 0xFFFFFFFF
        rotated = (v << 7 | v >> 57) & (2**64 - 1)
        high = v * 0xD2E7470EE14C6C93 >> 64
        return (high ^ rotated) + v.bit_count() + (64 - v.bit_length()) + ((low << 5 | low >> 27) & 0xFFFFFFFF)

    wanted = np.array([want(int(v)) % 2**64 for v in x], np.uint64)
    return _feature("wide_integers", (x, Out(wanted, np.uint64)))


FEATURES = {
    "pairs_of_halves": _half_pairs,
    "halves": _halves,
    "bfloat16": _bfloats,
    "struct_by_value_and_64_bit_index": _max_pool,
    "narrow_integers": _bytes,
    "shared_atomics": _histogram,
    "ballot": _votes,
    "barrier_that_counts": _block_votes,
    "warp_reductions": _warp_reductions,
    "shuffles_up": _scan,
    "local_array_with_variable_index": _local_array,
    "switch_and_constant_memory": _functions,
    "float64": _doubles,
    "wide_products_and_rotations": _wide_integers,
}


@pytest.mark.parametrize("make", FEATURES.values(), ids=FEATURES.keys())
def test_features_of_cuda(device, make):
    make().check(device)


def test_last_block_is_ordered_by_fence_and_counter(device):
    x = _float(1000)
    out = Out(np.array([x.sum(dtype=float)]), np.float32)
    parts, finished = Out(np.zeros(4), np.float32, zeros=True), np.zeros(1, np.uint32)
    problem = _feature("last_block", (x, parts, finished, out, _I32(1000)), grid=(4,), block=(128,))
    allowed = EmulatedDevice(device.name, between_blocks=False)
    *_, total = problem.run(allowed)
    np.testing.assert_allclose(total, x.sum(dtype=float), rtol=1e-5)


# Arrays, arguments, texts ----------------------------------------------------------------------------------------------

_SCALE = """
template <typename T>
__global__ void scale(const T* __restrict__ x, T* __restrict__ y, int n, T by, int step) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i * step] = x[i * step] * by;
}
"""
_EXPRESSION = "scale<float>"


@pytest.fixture(scope="module")
def scale():
    device = EmulatedDevice("emulated-check")
    return device, device.compile(_SCALE, "scale.cu", (_EXPRESSION,), ())[_EXPRESSION]


def test_empty_is_filled_with_ones_and_zeros_with_zeros():
    device = EmulatedDevice()
    assert np.isnan(device.asnumpy(device.empty((2, 3), np.float16))).all()
    assert (device.asnumpy(device.empty(5, np.int64)) == -1).all()
    assert not device.asnumpy(device.zeros((2, 0, 3), np.float64)).size
    assert device.empty((0, 4), np.float32).shape == (0, 4)


def test_asarray_copies_and_keeps_the_order_of_axes():
    device = EmulatedDevice()
    host = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4).transpose(0, 3, 1, 2)
    array = device.asarray(host)
    assert type(array) is EmulatedArray
    assert array.strides == host.strides
    host[...] = 0
    assert device.asnumpy(array).max() == 23
    assert type(device.asnumpy(array)) is np.ndarray


def test_same_layout_keeps_gaps_and_negative_strides():
    device = EmulatedDevice()
    host = np.arange(24, dtype=np.float32).reshape(4, 6)[::-2, ::3]
    array = device.same_layout(host)
    assert array.strides == host.strides
    np.testing.assert_array_equal(device.asnumpy(array), host)


REFUSED = {
    "ufunc": lambda a: a + 1,
    "reduction": lambda a: a.sum(),
    "function": lambda a: np.concatenate([a, a]),
    "truth": bool,
    "number": lambda a: float(a[0]),
    "item": lambda a: a.item(0),
    "list": lambda a: a.tolist(),
}


@pytest.mark.parametrize("use", REFUSED.values(), ids=REFUSED.keys())
def test_device_arrays_refuse_what_cupy_refuses(use):
    with pytest.raises(TypeError, match="EmulatedArray"):
        use(EmulatedDevice().zeros(1 if use is bool else 3, np.float32))


def test_one_element_is_an_array():
    array = EmulatedDevice().zeros((2, 3), np.float32)
    assert type(array[1, 2]) is EmulatedArray
    assert array[1, 2].shape == ()


def test_views_of_one_array_are_one_memory(scale):
    device, function = scale
    both = device.asarray(np.arange(10, dtype=np.float32))
    device.launch(function, (1,), (32,), (both, both, _I32(10), np.float32(2), _I32(1)))
    np.testing.assert_array_equal(device.asnumpy(both), 2 * np.arange(10))
    # Interleaved views: their spans overlap, their elements do not.
    device.launch(function, (1,), (32,), (both[::2], both[1::2], _I32(5), np.float32(1), _I32(2)))
    np.testing.assert_array_equal(device.asnumpy(both), [0, 0, 4, 4, 8, 8, 12, 12, 16, 16])


def test_a_view_with_negative_strides_starts_at_its_first_element(scale):
    device, function = scale
    x = device.asarray(np.arange(4, dtype=np.float32))
    y = device.empty(4, np.float32)
    device.launch(function, (1,), (4,), (x[::-1], y[::-1], _I32(4), np.float32(1), _I32(-1)))
    np.testing.assert_array_equal(device.asnumpy(y), [0, 1, 2, 3])


def test_null_pointers_and_empty_arrays_reach_the_kernel(scale):
    device, function = scale
    empty = device.empty(0, np.float32)
    device.launch(function, (1,), (4,), (None, empty, _I32(0), np.float32(1), _I32(1)))


ARGUMENTS = {
    "wrong_dtype": (lambda x: (x.astype(np.float64), x, _I32(3), np.float32(1), _I32(1)), "pointer to 4-byte 'f'"),
    "python_int": (lambda x: (x, x, 3, np.float32(1), _I32(1)), "4-byte 'i'"),
    "wide_float": (lambda x: (x, x, _I32(3), np.float64(1), _I32(1)), "4-byte 'f'"),
    "number_for_pointer": (lambda x: (x, np.uint64(0), _I32(3), np.float32(1), _I32(1)), "expected an array"),
    "too_few": (lambda x: (x, x, _I32(3), np.float32(1)), "takes 5 arguments, 4 given"),
}


@pytest.mark.parametrize(("make", "message"), ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_wrong_arguments_are_refused(scale, make, message):
    device, function = scale
    x = device.zeros(3, np.float32)
    with pytest.raises(TypeError, match=message):
        device.launch(function, (1,), (32,), make(x))


SHAPES_OF_LAUNCHES = {
    "no_blocks": ((0,), (32,), 0),
    "too_many_threads": ((1,), (1025,), 0),
    "too_many_threads_in_z": ((1,), (1, 1, 65), 0),
    "grid_too_high": ((1, 65_536), (32,), 0),
    "too_much_shared_memory": ((1,), (32,), 232_449),
}


@pytest.mark.parametrize(("grid", "block", "shared"), SHAPES_OF_LAUNCHES.values(), ids=SHAPES_OF_LAUNCHES.keys())
def test_impossible_launches_are_refused(scale, grid, block, shared):
    device, function = scale
    x = device.zeros(3, np.float32)
    with pytest.raises(EmulationError, match=r"launch configuration|dynamic shared memory"):
        device.launch(function, grid, block, (x, x, _I32(3), np.float32(1), _I32(1)), shared)


def test_shared_memory_is_the_architectures():
    problem = PROBLEMS["template_halo_and_dynamic_shared"]()
    static = 18 * 19 * 4
    for arch, most in ((75, 65_536), (80, 166_912)):
        device = EmulatedDevice("emulated", arch=arch)
        replace(problem, shared=most - static).check(device)
        with pytest.raises(EmulationError, match=f"sm_{arch} has at most {most}"):
            replace(problem, shared=most - static + 4).run(device)


@pytest.mark.parametrize("name", ["emulated", "emulated-ptx"])
def test_compiler_errors_name_the_line(name):
    text = '#line 1 "kernels/wrong.cu"\n__global__ void f(float* y) {\n  y[0] = missing;\n}\n'
    with pytest.raises(BuildError, match=r"kernels/wrong\.cu.*2.*missing"):
        EmulatedDevice(name).compile(text, "wrong.cu", ("f",), ())


def test_ptx_headers_give_way_to_host_functions():
    header = '#line 1 "kernels/ptx.cuh"\nnamespace ptx { this is not C++ }\n'
    kernel = "__global__ void f(unsigned short* y) { y[0] = ptx::float_to_half(1.5f); }"
    text = f'#line 1 "kernels/h.cu"\n{header}#line 2 "kernels/h.cu"\n{kernel}'
    device = EmulatedDevice()
    y = device.zeros(1, np.uint16)
    device.launch(device.compile(text, "h.cu", ("f",), ())["f"], (1,), (1,), (y,))
    assert device.asnumpy(y).view(np.float16)[0] == 1.5


def test_the_architecture_is_the_devices(device):
    text = "__global__ void f(int* y) { y[0] = __CUDA_ARCH__; }"
    for arch in (75, 90):
        on = EmulatedDevice(device.name, arch=arch)
        y = on.zeros(1, np.int32)
        on.launch(on.compile(text, "arch.cu", ("f",), ())["f"], (1,), (1,), (y,))
        assert on.asnumpy(y)[0] == arch * 10


def test_unknown_device_is_refused():
    with pytest.raises(ValueError, match="emulated-check"):
        EmulatedDevice("emulate")
    assert set(MODES) == {EmulatedDevice(name).name for name in MODES}


def test_missing_tools_are_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(EmulatorUnavailableError, match="no-such-compiler"):
        build.compiler.__wrapped__()
    monkeypatch.setattr(nvrtc, "cuda_roots", list)
    with pytest.raises(EmulatorUnavailableError, match="nvidia-cuda-nvrtc"):
        nvrtc.nvrtc.__wrapped__()


@pytest.mark.long
def test_libraries_are_kept_by_content(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUCONV_EMULATE_CACHE", str(tmp_path))
    made = [build.library(_SCALE, "scale.cu", (_EXPRESSION,), options, "fast") for options in ((), (), ("-DX",))]
    assert made[0] == made[1] != made[2]
    assert sorted(tmp_path.glob("*.so")) == sorted(set(made))
    assert not list(tmp_path.glob("build-*"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_and_sums_of_a_named_rounding_stay_two_operations(dtype, device):
    """Taken as one they would round once, and 1 + u would not lose its square."""
    name, kind = ("__fmul_rn", "float") if dtype == np.float32 else ("__dmul_rn", "double")
    text = f"""extern "C" __global__ void square_and_add(const {kind}* a, const {kind}* b, {kind}* out) {{
      out[threadIdx.x] = {name}(a[threadIdx.x], a[threadIdx.x]) + b[threadIdx.x];
    }}"""
    function = device.compile(text, "square_and_add.cu", ("square_and_add",), ())["square_and_add"]
    a = np.array([1 + np.finfo(dtype).eps], dtype)
    arrays = device.asarray(a), device.asarray(-(a * a)), device.empty((1,), dtype)
    device.launch(function, (1, 1, 1), (1, 1, 1), arrays, 0)
    assert device.asnumpy(arrays[2]) == 0
