"""The calls that launch every kernel, by CuPy: held to the oracle's loops in each dtype and memory format.

What runs on every change without a GPU (core) follows one rule: the calls of an operator take the dtypes in turns, and
the memory formats in turns, and an operator with fewer calls than dtypes takes its calls in turns, too.  So each call
runs, and each operator meets each dtype and each format.  What a launcher chooses for one dtype or format alone, and
the turns leave out, is named in _MORE.
"""

import pytest
from kernel_calls import CALLS, DTYPES, FORMATS, assert_as_expected, launched
from places import GPU

_OPERATORS = (
    *("conv", "max_pool", "average_pool", "global_pool", "global_average_pool"),
    *("batchnorm", "spatial_batchnorm", "groupnorm", "layernorm", "relu", "gelu", "dropout", "copy"),
    *("softmax", "svm", "sgd", "rmsprop", "adam", "all_finite", "affine", "augment"),
)
_MORE = {
    ("conv_first_layer", "float32", "NHWC"),
    ("conv_large_tiles", "float32", "NCHW"),
    ("conv_large_tiles", "float16", "NHWC"),
    ("conv_narrow_tiles", "float32", "NHWC"),
    ("conv_relu", "float64", "NHWC"),
    ("conv_slim_tiles", "float32", "NCHW"),
    ("average_pool_real_pixels", "float16", "NHWC"),
    ("batchnorm_stored_moments", "float16", "NCHW"),
    ("batchnorm_stored_moments", "float32", "NCHW"),
    ("batchnorm_stored_moments_rows", "float32", "NHWC"),
    ("dropout_two_runs_a_plane", "float16", "NHWC"),
    ("global_pool_small_planes", "float64", "NHWC"),
    ("groupnorm_in_packs", "float32", "NCHW"),
    ("groupnorm_in_packs", "float64", "NHWC"),
    ("max_pool_large_window", "float16", "NHWC"),
    ("max_pool_minus_infinity", "float32", "NHWC"),
    ("max_pool_three_overlapping", "float16", "NHWC"),
    ("max_pool_ties_every", "float32", "NHWC"),
    ("max_pool_ties_split", "float64", "NCHW"),
    ("max_pool_two_odd_width", "float32", "NHWC"),
}
# Held to the CPU backend: the oracle has no word for all_finite, and its sums of the largest float64 overflow.
_NOT_BY_LOOPS = ("all_finite", "batchnorm_constant_channels")


def _operator(name):
    """Return the operator whose call this is."""
    return max((operator for operator in _OPERATORS if f"{name}_".startswith(f"{operator}_")), key=len)


def _core():
    """Return the (call, dtype, format) that run on every change."""
    chosen = set(_MORE)
    for operator in _OPERATORS:
        names = [name for name in CALLS if _operator(name) == operator]
        for turn in range(max(len(names), len(DTYPES))):
            chosen.add((names[turn % len(names)], DTYPES[turn % len(DTYPES)], FORMATS[turn % len(FORMATS)]))
    return chosen


_CORE = _core()


_CASES = [(name, dtype, memory) for name, call in CALLS.items() for dtype in call.dtypes for memory in call.formats]


@pytest.mark.parametrize("gpu", [GPU], indirect=True)
@pytest.mark.parametrize(
    ("name", "dtype", "memory"),
    [pytest.param(*case, marks=pytest.mark.core if case in _CORE else (), id="-".join(case)) for case in _CASES],
)
def test_a_call_by_cupy_is_the_oracle_s(name, dtype, memory, gpu):
    call = CALLS[name]
    expected = call.expected if name in _NOT_BY_LOOPS else call.by_oracle
    assert_as_expected(call.on(gpu, dtype, memory), expected(dtype, memory))


def _kernels(cases):
    """Return what cases launch: kernels with their template arguments, element types and sizes of packs aside."""
    found = set()
    for name, dtype, memory in cases:
        for one in launched([CALLS[name]], (dtype,), (memory,)).values():
            templates = (str(argument) for argument in one.templates)
            aside = ("type" if text in DTYPES else "pack" if text in ("2", "4", "8") else text for text in templates)
            found.add((one.kernel.name, *aside))
    return found


def test_the_calls_of_every_change_meet_every_branch():
    assert {name for name, _, _ in _CORE} == set(CALLS)
    for operator in _OPERATORS:
        of_it = [case for case in _CORE if _operator(case[0]) == operator]
        assert {dtype for _, dtype, _ in of_it} == set(DTYPES), operator
        assert {memory for _, _, memory in of_it} == set(FORMATS), operator
    assert _kernels(_CASES) - _kernels(_CORE) == set()
