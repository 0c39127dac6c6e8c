"""bfloat16: every kernel once in it, what it rounds to, and what the CPU says of it."""

from unittest import mock

import ml_dtypes
import numpy as np
import pytest
from compare import assert_same_bits
from operators import OPERATORS
from places import EMULATED, GPU, Emulated

import gpuconv
from gpuconv import backend, bfloat16, checks, nn
from gpuconv.errors import DTypeError, UnsupportedError
from tests.ladder.kernel_calls import CALLS, FORMATS, GroupedDevice, assert_as_expected, emulated_on, launched

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# What launches a kernel that the first call of no operator does, as few as are found one after another.
_MORE = {
    ("across_sums", "NCHW"),
    ("average_pool_volumes", "NCHW"),
    ("batchnorm_fused_gelu", "NHWC"),
    ("batchnorm_fused_pool_relu", "NHWC"),
    ("batchnorm_fused_relu", "NHWC"),
    ("batchnorm_stored_moments_rows", "NCHW"),
    ("conv_few_channels_infinite_pixel", "NCHW"),
    ("conv_in_tiles", "NCHW"),
    ("conv_in_tiles_phases_of_nothing", "NCHW"),
    ("conv_tensor_padded_channels", "NCHW"),
    ("conv_turned", "NCHW"),
    ("conv_volumes", "NCHW"),
    ("conv_volumes_in_tiles", "NCHW"),
    ("conv_volumes_one_channel", "NCHW"),
    ("dropout_two_runs_a_plane", "NHWC"),
    ("global_pool_small_planes", "NHWC"),
    ("max_pool_halves", "NHWC"),
    ("max_pool_ties_split", "NCHW"),
    ("max_pool_volumes", "NCHW"),
    ("max_pool_volumes_ties_split", "NCHW"),
    ("softmax_weighted", "NCHW"),
    ("upsample_linear", "NCHW"),
}


def _cases():
    """Return calls (name, format) that between them launch each kernel that there is in 16 bits."""
    first = {}
    for name, call in CALLS.items():
        if call.takes("bfloat16"):
            first.setdefault(call.operator, (name, call.formats[0]))
    return sorted({*first.values(), *_MORE})


CASES = _cases()
each_case = pytest.mark.parametrize(("name", "memory"), CASES, ids=map("-".join, CASES))


@pytest.fixture(scope="module")
def checked():
    """The emulator in its check mode, with every kernel that the cases launch."""
    kernels = launched([CALLS[name] for name, _ in CASES], ("bfloat16",)).values()
    with emulated_on(GroupedDevice("emulated-check", kernels, timeout=60)) as place:
        yield place


@pytest.mark.emulated
@each_case
def test_a_call_is_that_of_the_cpu_in_float64(name, memory, checked):
    call = CALLS[name]
    assert_as_expected(call.on(checked, "bfloat16", memory), call.expected("bfloat16", memory))


@pytest.mark.core
@pytest.mark.parametrize("gpu", [GPU], indirect=True)
@each_case
def test_a_call_by_cupy(name, memory, gpu):
    call = CALLS[name]
    assert_as_expected(call.on(gpu, "bfloat16", memory), call.expected("bfloat16", memory))


@pytest.mark.ladder
@pytest.mark.emulated
@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.takes("bfloat16")])
def test_all_calls(name, memory):
    call = CALLS[name]
    assert_as_expected(call.on(Emulated, "bfloat16", memory), call.expected("bfloat16", memory))


@pytest.mark.emulated
def test_the_cases_launch_every_kernel_that_float16_has():
    def kernels(cases, dtype):
        return {
            one.kernel.name for name, memory in cases for one in launched([CALLS[name]], (dtype,), (memory,)).values()
        }

    every = kernels([(name, memory) for name, call in CALLS.items() for memory in call.formats], "float16")
    missing = sorted(every - kernels(CASES, "bfloat16"))
    assert not missing, f"add a call that launches {', '.join(missing)} to _MORE"


def _near(bits):
    """Return float32 numbers at, just below, halfway and just above each bfloat16 of these bits."""
    low = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return ((bits.astype(np.uint32) << 16)[:, None] | low).view(np.float32).reshape(-1)


@pytest.mark.parametrize(
    "gpu", [EMULATED, pytest.param(*GPU.values, marks=[*GPU.marks, pytest.mark.core])], indirect=True
)
def test_every_number_is_widened_exactly_and_narrowed_to_the_nearest(gpu):
    """Ties to even; NaN stays NaN, what is too large becomes infinite, the smallest numbers are kept."""
    bits = np.arange(2**16, dtype=np.uint16)
    every = bits.view(BFLOAT16)
    wide = gpu.numpy(backend.cast(gpu.array(every), np.dtype(np.float32)))
    assert_same_bits(wide, (bits.astype(np.uint32) << 16).view(np.float32))
    numbers = _near(bits)
    with np.errstate(all="ignore"):
        expected = np.where(np.isnan(numbers), np.float32(np.nan), numbers.astype(BFLOAT16).astype(np.float32))
    narrow = gpu.numpy(backend.cast(gpu.array(numbers), BFLOAT16))
    assert narrow.dtype == BFLOAT16
    assert_same_bits(narrow.astype(np.float32), expected)


@pytest.mark.parametrize("row", OPERATORS.values(), ids=lambda row: row.name)
def test_the_cpu_says_by_name_what_it_cannot_do(row):
    def made(shape, dtype):
        return np.zeros(shape, BFLOAT16 if np.dtype(dtype).kind == "f" else dtype)

    options = row.options_of({})
    if not any(one.is_float for one in row.arrays.values()):
        options["dtype"] = "bfloat16"
    with pytest.raises(
        DTypeError, match=r"^\w+ is bfloat16: bfloat16 arrays are computed on a GPU; on the CPU use float32$"
    ):
        row.forward(row.good(make=made), options)


def test_two_dtypes_of_16_bits_do_not_meet(gpu):
    x, w = gpu.array(np.zeros((1, 1, 3, 3), BFLOAT16)), gpu.array(np.zeros((1, 1, 2, 2), np.float16))
    with pytest.raises(DTypeError, match="arrays must share one dtype, got x bfloat16, w float16"):
        gpuconv.conv_forward(x, w)


@pytest.mark.parametrize(
    "make", [lambda: nn.Net(nn.Relu(), (3,), dtype="bfloat16"), lambda: checks.float_dtype(BFLOAT16)]
)
def test_nets_and_files_have_other_dtypes(make):
    with pytest.raises(DTypeError, match="dtype must be float16, float32 or float64, got bfloat16"):
        make()


def test_without_ml_dtypes_it_says_what_to_install(gpu):
    images = gpu.array(np.zeros((1, 1, 2, 2), np.uint8))
    with (
        mock.patch.object(bfloat16, "found", return_value=None),
        pytest.raises(UnsupportedError, match=r"bfloat16 needs the package ml_dtypes.*pip install .*\[bfloat16\]"),
    ):
        gpuconv.augment(images, mean=[0], std=[1], dtype="bfloat16")
