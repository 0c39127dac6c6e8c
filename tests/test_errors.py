"""Bad input: every case raises its own error, before any work, with the argument and both facts in the message.

Cases take `A`, which makes an array for the backend under test, so the words are the same everywhere.
"""

import dataclasses
import inspect
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from operators import OPERATORS
from places import Cpu

import gpuconv
from gpuconv import checks, errors, nn, shapes
from gpuconv.cuda import device as cuda_device
from gpuconv.errors import (
    AliasError,
    ArgTypeError,
    CacheError,
    ConfigError,
    DeviceMismatchError,
    DTypeError,
    GpuconvError,
    GpuLaunchError,
    GpuUnavailableError,
    ParamError,
    ShapeError,
    SizeLimitError,
    UnsupportedError,
)

BUILT_IN = {
    AliasError: ValueError,
    ArgTypeError: TypeError,
    CacheError: ValueError,
    ConfigError: ValueError,
    DTypeError: TypeError,
    DeviceMismatchError: ValueError,
    GpuLaunchError: RuntimeError,
    GpuUnavailableError: RuntimeError,
    ParamError: ValueError,
    ShapeError: ValueError,
    SizeLimitError: OverflowError,
    UnsupportedError: NotImplementedError,
}


def zeros(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


def call_of(operator):
    """Return the good call of a row of operators.py: a function of what makes arrays, and of what is not as in the row.

    That is a shape or an array in the place of one, or an option.
    """
    row = OPERATORS[operator]

    def call(A, **other):
        given = {name: value for name, value in other.items() if isinstance(value, np.ndarray) and name in row.arrays}
        sizes = {name: value for name, value in other.items() if name not in given}
        arrays = {**row.good(sizes), **given}
        return row.forward({name: None if a is None else A(a) for name, a in arrays.items()}, row.options_of(sizes))

    return call


conv, pool, average, affine = map(call_of, ("conv", "max_pool", "average_pool", "affine"))
norm, norm_of_rows = map(call_of, ("spatial_batchnorm", "batchnorm"))
group_norm, layer_norm = map(call_of, ("groupnorm", "layernorm"))
softmax, svm = map(call_of, ("softmax_cross_entropy", "svm_loss"))
augment = call_of("augment")
sgd, rmsprop, adam = map(call_of, ("sgd_update", "rmsprop_update", "adam_update"))


def backward(operator, A, dy, **options):
    """Return the gradients of a row's good call for a dy."""
    row = OPERATORS[operator]
    return row.backward(A(dy), call_of(operator)(A, **options)[1])


CONV = {
    "x_without_batch_axis": (lambda A: conv(A, x=(3, 8, 8)), ShapeError, "x must be (N, C, H, W)", "(3, 8, 8)"),
    "output_beyond_any_array": (
        lambda A: conv(A, x=(1, 3, 4, 4), pad=2**30),
        SizeLimitError,
        "y would be (1, 4, 2147483650, 2147483650) with pad=(1073741824, 1073741824)",
    ),
    "padded_input_beyond_any_array": (
        lambda A: conv(A, x=(1, 3, 4, 4), pad=2**30, stride=2**31 - 1),
        SizeLimitError,
        "the padded x would be (1, 3, 2147483652, 2147483652) with pad=(1073741824, 1073741824)",
    ),
    "x_with_five_axes": (lambda A: conv(A, x=(1, 2, 3, 8, 8)), ShapeError, "x must be", "(1, 2, 3, 8, 8)"),
    "x_without_axes": (lambda A: conv(A, x=()), ShapeError, "x must be (N, C, H, W)", "()"),
    "w_with_three_axes": (lambda A: conv(A, w=(3, 3, 3)), ShapeError, "w must be (K, C / groups, R, S)", "(3, 3, 3)"),
    "w_with_five_axes": (lambda A: conv(A, w=(4, 3, 1, 3, 3)), ShapeError, "w must be", "(4, 3, 1, 3, 3)"),
    "signal_with_filters_of_volumes": (
        lambda A: conv(A, x=(2, 3, 8), w=(4, 3, 3, 3, 3)),
        ShapeError,
        "w must be (K, C / groups, S)",
        "(4, 3, 3, 3, 3)",
    ),
    "volume_with_filters_of_two_axes": (
        lambda A: conv(A, x=(2, 3, 4, 8, 8), w=(4, 3)),
        ShapeError,
        "w must be (K, C / groups, T, R, S)",
        "(4, 3)",
    ),
    "filters_of_volumes_with_rows": (
        lambda A: conv(A, x=(2, 3), w=(4, 3, 3, 3, 3)),
        ShapeError,
        "x must be (N, C, D, H, W)",
        "(2, 3)",
    ),
    "filters_of_signals_with_rows": (
        lambda A: conv(A, x=(2, 3), w=(4, 3, 3)),
        ShapeError,
        "x must be (N, C, L)",
        "(2, 3)",
    ),
    "channels_of_a_signal_differ": (
        lambda A: conv(A, x=(1, 3, 8), w=(2, 5, 3), b=None),
        ShapeError,
        "x has 3 channels but w expects 5: x (1, 3, 8), w (2, 5, 3)",
    ),
    "channels_of_a_volume_differ": (
        lambda A: conv(A, x=(1, 3, 4, 4, 4), w=(2, 5, 3, 3, 3), b=None),
        ShapeError,
        "x has 3 channels but w expects 5: x (1, 3, 4, 4, 4), w (2, 5, 3, 3, 3)",
    ),
    "filter_longer_than_padded_signal": (
        lambda A: conv(A, x=(1, 3, 4), w=(4, 3, 7), pad=1),
        ShapeError,
        "filter 7 does not fit the padded input 6",
    ),
    "dilated_filter_longer_than_signal": (
        lambda A: conv(A, x=(1, 3, 4), w=(4, 3, 3), dilation=2),
        ShapeError,
        "filter 3 (dilated to 5) does not fit the padded input 4",
    ),
    "filter_deeper_than_volume": (
        lambda A: conv(A, x=(1, 3, 2, 9, 9), w=(4, 3, 3, 3, 3)),
        ShapeError,
        "filter 3x3x3 does not fit the padded input 2x9x9",
    ),
    "signal_without_samples": (
        lambda A: conv(A, x=(2, 3, 0), w=(4, 3, 3), pad=2),
        ShapeError,
        "x must have no axis of size 0 but the batch (N, C, L)",
    ),
    "volume_without_planes": (
        lambda A: conv(A, x=(2, 3, 0, 8, 8), w=(4, 3, 3, 3, 3), pad=2),
        ShapeError,
        "x must have no axis of size 0 but the batch (N, C, D, H, W)",
    ),
    "filter_of_volumes_without_taps": (
        lambda A: conv(A, x=(2, 3, 4, 8, 8), w=(4, 3, 0, 3, 3)),
        ShapeError,
        "w must have no axis of size 0",
        "(4, 3, 0, 3, 3)",
    ),
    "stride_pair_of_a_signal": (
        lambda A: conv(A, x=(2, 3, 8), w=(4, 3, 3), stride=(1, 2)),
        ParamError,
        "stride must be an int or a tuple of one, got 2 values: (1, 2)",
    ),
    "pad_pair_of_a_volume": (
        lambda A: conv(A, x=(2, 3, 4, 8, 8), w=(4, 3, 3, 3, 3), pad=(1, 2)),
        ParamError,
        "pad must be an int or a triple (depth, vertical, horizontal), each an int or a pair (before, after), got 2 values: (1, 2)",
    ),
    "dilation_tuple_of_one_of_a_volume": (
        lambda A: conv(A, x=(2, 3, 4, 8, 8), w=(4, 3, 3, 3, 3), dilation=(1,)),
        ParamError,
        "dilation must be an int or a triple (depth, vertical, horizontal), got 1 value: (1,)",
    ),
    "stride_of_a_volume_with_zero": (
        lambda A: conv(A, x=(2, 3, 4, 8, 8), w=(4, 3, 3, 3, 3), stride=(0, 1, 1)),
        ParamError,
        "stride must be",
        "stride=0",
    ),
    "complex_output_beyond_any_array": (
        lambda A: conv(
            A,
            x=zeros(1, 1, 4, 4, dtype="complex64"),
            w=zeros(2, 1, 3, 3, dtype="complex64"),
            b=None,
            pad=2**28,
        ),
        SizeLimitError,
        "parts of y would be (1, 4, 536870914, 536870914) with x (1, 1, 4, 4), and an array holds fewer than 2^60",
    ),
    "complex_transposed_output_beyond_any_array": (
        lambda A: call_of("conv_transpose")(
            A,
            x=zeros(1, 1, 4, 4, dtype="complex64"),
            w=zeros(1, 1, 3, 3, dtype="complex64"),
            b=None,
            stride=2**28,
        ),
        SizeLimitError,
        "parts of y would be (1, 2, 805306371, 805306371) with x (1, 1, 4, 4), and an array holds fewer than 2^60",
    ),
    "output_of_a_volume_beyond_any_array": (
        lambda A: conv(A, x=(1, 3, 4, 4, 4), w=(4, 3, 3, 3, 3), pad=2**20),
        SizeLimitError,
        "y would be (1, 4, 2097154, 2097154, 2097154) with pad=(1048576, 1048576, 1048576)",
    ),
    "channels_differ": (
        lambda A: conv(A, x=(1, 3, 4, 4), w=(2, 5, 3, 3), b=None),
        ShapeError,
        "x has 3 channels but w expects 5: x (1, 3, 4, 4), w (2, 5, 3, 3)",
    ),
    "channels_of_a_group_differ": (
        lambda A: conv(A, x=(1, 6, 4, 4), w=(2, 6, 3, 3), b=None, groups=2),
        ShapeError,
        "x has 6 channels but w expects 6 in each of 2 groups",
    ),
    "b_too_long": (lambda A: conv(A, b=(5,)), ShapeError, "w has 4 filters but b has 5 entries"),
    "b_of_one_entry_is_not_broadcast": (lambda A: conv(A, b=(1,)), ShapeError, "w has 4 filters but b has 1 entry"),
    "b_with_two_axes": (lambda A: conv(A, b=(4, 1)), ShapeError, "b must be (K,)", "(4, 1)"),
    "b_a_scalar": (lambda A: conv(A, b=()), ShapeError, "b must be (K,)", "()"),
    "filter_larger_than_image": (
        lambda A: conv(A, x=(1, 3, 2, 9), b=None),
        ShapeError,
        "filter 3x3 does not fit the padded input 2x9",
    ),
    "filter_wider_than_padded_image": (
        lambda A: conv(A, x=(1, 3, 9, 2), w=(4, 3, 3, 7), pad=(0, 2)),
        ShapeError,
        "filter 3x7 does not fit the padded input 9x6",
    ),
    "filter_larger_than_image_with_stride": (  # -1 / 2 must be -1, not 0
        lambda A: conv(A, x=(1, 3, 2, 2), stride=2),
        ShapeError,
        "filter 3x3 does not fit the padded input 2x2",
    ),
    "filter_larger_than_image_with_large_stride": (
        lambda A: conv(A, x=(1, 3, 2, 2), w=(4, 3, 9, 9), stride=100),
        ShapeError,
        "filter 9x9 does not fit the padded input 2x2",
    ),
    "dilated_filter_larger_than_image": (
        lambda A: conv(A, x=(1, 3, 6, 6), dilation=3),
        ShapeError,
        "filter 3x3 (dilated to 7x7) does not fit the padded input 6x6",
    ),
    "filter_without_rows": (
        lambda A: conv(A, w=(4, 3, 0, 3)),
        ShapeError,
        "w must have no axis of size 0",
        "(4, 3, 0, 3)",
    ),
    "filter_without_columns": (lambda A: conv(A, w=(4, 3, 3, 0)), ShapeError, "w must have no axis", "(4, 3, 3, 0)"),
    "no_filters": (lambda A: conv(A, w=(0, 3, 3, 3), b=(0,)), ShapeError, "w must have no axis", "(0, 3, 3, 3)"),
    "image_without_rows": (
        lambda A: conv(A, x=(2, 3, 0, 8)),
        ShapeError,
        "x must have no axis of size 0",
        "(2, 3, 0, 8)",
    ),
    "image_without_columns": (
        lambda A: conv(A, x=(2, 3, 8, 0), pad=2),
        ShapeError,
        "x must have no axis",
        "(2, 3, 8, 0)",
    ),
    "image_without_channels": (lambda A: conv(A, x=(2, 0, 8, 8), w=(4, 0, 3, 3)), ShapeError, "x must have no axis"),
    "stride_zero": (lambda A: conv(A, stride=0), ParamError, "stride must be", "stride=0"),
    "stride_negative": (lambda A: conv(A, stride=-1), ParamError, "stride must be", "stride=-1"),
    "stride_pair_with_zero": (lambda A: conv(A, stride=(1, 0)), ParamError, "stride", "stride=0"),
    "stride_float": (lambda A: conv(A, stride=1.5), ArgTypeError, "stride must be an int", "1.5"),
    "stride_integral_float": (lambda A: conv(A, stride=2.0), ArgTypeError, "stride must be an int", "2.0"),
    "stride_string": (lambda A: conv(A, stride="2"), ArgTypeError, "stride must be an int", "'2'"),
    "stride_none": (lambda A: conv(A, stride=None), ArgTypeError, "stride must be an int", "None"),
    "stride_bool": (lambda A: conv(A, stride=True), ArgTypeError, "stride must be an int", "True"),
    "stride_numpy_bool": (lambda A: conv(A, stride=np.True_), ArgTypeError, "stride must be an int", "True"),
    "stride_array": (lambda A: conv(A, stride=np.array([1, 2])), ArgTypeError, "stride must be an int"),
    "stride_tuple_of_one": (lambda A: conv(A, stride=(2,)), ParamError, "stride", "1 value: (2,)"),
    "stride_tuple_of_three": (lambda A: conv(A, stride=(1, 2, 3)), ParamError, "stride", "3 values: (1, 2, 3)"),
    "stride_empty_tuple": (lambda A: conv(A, stride=()), ParamError, "stride", "0 values: ()"),
    "stride_pair_of_floats": (lambda A: conv(A, stride=(1, 1.0)), ArgTypeError, "stride must be an int", "1.0"),
    "stride_enormous": (lambda A: conv(A, stride=2**64), ParamError, "stride", f"stride={2**64}"),
    "pad_negative": (lambda A: conv(A, pad=-1), ParamError, "pad must be", "pad=-1"),
    "pad_2_to_the_31": (lambda A: conv(A, pad=2**31), ParamError, "pad must be", f"pad={2**31}"),
    "pad_2_to_the_62": (lambda A: conv(A, pad=2**62), ParamError, "pad must be", f"pad={2**62}"),
    "pad_word": (lambda A: conv(A, pad="valid"), ParamError, "pad must be numbers or \"same\", got 'valid'"),
    "pad_same_with_a_stride": (
        lambda A: conv(A, pad="same", stride=(1, 2)),
        ParamError,
        'pad="same" needs stride=1',
        "got stride=(1, 2)",
    ),
    "pad_of_three_sides": (
        lambda A: conv(A, pad=((1, 1, 1), 0)),
        ParamError,
        "pad must be an int or a pair (before, after) along an axis, got 3 values: (1, 1, 1)",
    ),
    "pad_of_one_side_negative": (lambda A: conv(A, pad=((0, -1), 0)), ParamError, "pad must be", "pad=-1"),
    "pad_per_side": (lambda A: conv(A, pad=(1, 1, 1, 1)), ParamError, "pad", "4 values: (1, 1, 1, 1)"),
    "dilation_zero": (lambda A: conv(A, dilation=0), ParamError, "dilation must be", "dilation=0"),
    "dilation_negative": (lambda A: conv(A, dilation=(1, -1)), ParamError, "dilation must be", "dilation=-1"),
    "dilation_enormous": (
        lambda A: conv(A, dilation=2**31 - 1),
        ShapeError,
        "filter 3x3 (dilated to 4294967295x4294967295)",
    ),
    "groups_zero": (lambda A: conv(A, groups=0), ParamError, "groups must be", "groups=0"),
    "groups_negative": (lambda A: conv(A, groups=-1), ParamError, "groups must be", "groups=-1"),
    "groups_pair": (lambda A: conv(A, groups=(1, 1)), ArgTypeError, "groups must be an int", "(1, 1)"),
    "groups_do_not_divide_channels": (lambda A: conv(A, groups=2), ParamError, "groups=2, C=3, K=4"),
    "groups_do_not_divide_filters": (lambda A: conv(A, w=(4, 1, 3, 3), groups=3), ParamError, "groups=3, C=3, K=4"),
}

POOL = {
    "x_with_three_axes": (lambda A: pool(A, x=(3, 8, 8)), ShapeError, "x must be (N, C, H, W)", "(3, 8, 8)"),
    "window_of_more_places_than_are_counted": (
        lambda A: pool(A, window=2**31 - 1, pad=2**30 - 1),
        SizeLimitError,
        "window must have at most 2^31 - 1 elements",
        "window=(2147483647, 2147483647)",
    ),
    "window_of_one_place_more_than_is_counted": (
        lambda A: pool(A, window=(2**16, 2**15)),
        SizeLimitError,
        "window must have at most 2^31 - 1 elements",
        "window=(65536, 32768)",
    ),
    "window_of_as_many_places_as_are_counted": (lambda A: pool(A, window=(1, 2**31 - 1)), ShapeError, "does not fit"),
    "x_with_six_axes": (lambda A: pool(A, x=(1, 2, 2, 2, 2, 2)), ShapeError, "x must be (N, C, H, W)"),
    "signals_with_an_int": (
        lambda A: pool(A, x=(2, 3, 8), window=2),
        ShapeError,
        "x must be (N, C, H, W), got shape (2, 3, 8), or, to pool (N, C, L), window must be a tuple of one, as in (2,)",
    ),
    "average_of_signals_with_an_int": (
        lambda A: average(A, x=(2, 3, 8), window=2),
        ShapeError,
        "to pool (N, C, L), window must be a tuple of one",
    ),
    "window_of_one_for_images": (
        lambda A: pool(A, window=(2,)),
        ParamError,
        "window must be an int or a pair (vertical, horizontal), got 1 value: (2,)",
    ),
    "stride_of_two_for_signals": (
        lambda A: pool(A, x=(2, 3, 8), window=(2,), stride=(1, 2)),
        ParamError,
        "stride must be an int or a tuple of one, got 2 values: (1, 2)",
    ),
    "window_of_two_for_volumes": (
        lambda A: pool(A, x=(2, 3, 4, 4, 4), window=(2, 2)),
        ParamError,
        "window must be an int or a triple (depth, vertical, horizontal), got 2 values: (2, 2)",
    ),
    "pad_as_deep_as_the_window": (
        lambda A: pool(A, x=(2, 3, 4, 4, 4), window=(1, 2, 2), pad=1),
        ParamError,
        "pad=(1, 1, 1), window=(1, 2, 2)",
    ),
    "pad_as_long_as_a_signals_window": (
        lambda A: average(A, x=(2, 3, 8), window=(3,), pad=3),
        ParamError,
        "pad must be less than the window, so that no window lies in the padding: pad=(3,), window=(3,)",
    ),
    "pad_as_wide_as_a_dilated_window": (
        lambda A: pool(A, window=2, pad=((0, 0), (0, 5)), dilation=4),
        ParamError,
        "pad must be less than the window",
        "pad=(0, (0, 5)), window=(2, 2) (dilated to 5x5)",
    ),
    "dilated_window_around_the_image": (
        lambda A: pool(A, x=(2, 3, 8, 2), window=2, pad=(0, 1), dilation=(1, 3)),
        ParamError,
        "a window would have the whole image between its taps",
        "dilation=(1, 3), pad=(0, 1)",
    ),
    "dilated_window_larger_than_the_image": (
        lambda A: average(A, x=(2, 3, 4, 8), window=3, dilation=2),
        ShapeError,
        "window 3x3 (dilated to 5x5) does not fit the padded input 4x8",
    ),
    "dilation_of_no_step": (lambda A: pool(A, dilation=0), ParamError, "dilation must be", "dilation=0"),
    "ceil_a_number": (lambda A: pool(A, ceil=1), ArgTypeError, "ceil must be True or False, got 1"),
    "pool_same_with_the_window_for_a_stride": (
        lambda A: pool(A, window=3, pad="same"),
        ParamError,
        'pad="same" needs stride=1',
    ),
    "window_deeper_than_the_volume": (
        lambda A: pool(A, x=(2, 3, 1, 4, 4)),
        ShapeError,
        "window 2x2x2 does not fit the padded input 1x4x4",
    ),
    "volumes_without_depth": (lambda A: pool(A, x=(2, 3, 0, 4, 4)), ShapeError, "x must have no axis of size 0"),
    "global_average_of_six_axes": (
        lambda A: call_of("global_average_pool")(A, x=(2, 3, 1, 1, 4, 4)),
        ShapeError,
        "x must be (N, C, H, W)",
    ),
    "global_average_of_empty_volumes": (
        lambda A: call_of("global_average_pool")(A, x=(2, 3, 0, 4, 4)),
        ShapeError,
        "x must have no axis of size 0",
    ),
    "window_zero": (lambda A: pool(A, window=0), ParamError, "window must be", "window=0"),
    "window_negative": (lambda A: pool(A, window=(2, -1)), ParamError, "window must be", "window=-1"),
    "window_float": (lambda A: pool(A, window=2.0), ArgTypeError, "window must be an int", "2.0"),
    "window_none": (lambda A: pool(A, window=None), ArgTypeError, "window must be an int", "None"),
    "window_of_three": (lambda A: pool(A, window=(2, 2, 2)), ParamError, "window", "3 values: (2, 2, 2)"),
    "window_larger_than_image": (
        lambda A: pool(A, window=(9, 2)),
        ShapeError,
        "window 9x2 does not fit the padded input 8x8",
    ),
    "window_larger_than_image_with_stride": (lambda A: pool(A, window=9, stride=100), ShapeError, "window 9x9", "8x8"),
    "stride_zero": (lambda A: pool(A, stride=0), ParamError, "stride must be", "stride=0"),
    "stride_negative": (lambda A: pool(A, stride=-2), ParamError, "stride must be", "stride=-2"),
    "stride_float": (lambda A: pool(A, stride=1.5), ArgTypeError, "stride must be an int", "1.5"),
    "pad_negative": (lambda A: pool(A, pad=-1), ParamError, "pad must be", "pad=-1"),
    "pad_as_wide_as_the_window": (
        lambda A: pool(A, window=3, pad=3),
        ParamError,
        "pad must be less than the window",
        "pad=(3, 3), window=(3, 3)",
    ),
    "pad_as_wide_as_the_window_on_one_axis": (
        lambda A: pool(A, window=(4, 3), pad=3),
        ParamError,
        "pad=(3, 3), window=(4, 3)",
    ),
    "pad_enormous": (lambda A: pool(A, pad=2**62), ParamError, "pad must be", f"pad={2**62}"),
    "image_without_rows": (lambda A: pool(A, x=(2, 3, 0, 8)), ShapeError, "x must have no axis", "(2, 3, 0, 8)"),
    "image_without_channels": (lambda A: pool(A, x=(2, 0, 8, 8)), ShapeError, "x must have no axis", "(2, 0, 8, 8)"),
    "average_window_zero": (lambda A: average(A, window=0), ParamError, "window must be", "window=0"),
    "average_pad_as_wide_as_the_window": (lambda A: average(A, pad=2), ParamError, "pad=(2, 2), window=(2, 2)"),
    "average_count_pad_not_a_flag": (
        lambda A: average(A, count_pad=1),
        ArgTypeError,
        "count_pad must be True or False, got 1",
    ),
    "global_average_of_rows": (
        lambda A: call_of("global_average_pool")(A, x=(2, 3)),
        ShapeError,
        "x must be (N, C, H, W)",
        "(2, 3)",
    ),
    "global_average_of_no_pixels": (
        lambda A: call_of("global_average_pool")(A, x=(2, 3, 0, 4)),
        ShapeError,
        "x must have no axis of size 0",
        "(2, 3, 0, 4)",
    ),
}

NORM = {
    **{
        f"{name}_too_{word}": (
            lambda A, name=name, n=n: norm(A, **{name: (n,)}),
            ShapeError,
            f"{name} must have one entry per channel of x, (3,), got ({n},)",
        )
        for name in ("gamma", "beta", "running_mean", "running_var")
        for word, n in (("short", 1), ("long", 4))
    },
    "images_to_the_row_function": (
        lambda A: norm_of_rows(A, x=(2, 3, 4, 4)),
        ShapeError,
        "x must be (N, C), got shape (2, 3, 4, 4)",
    ),
    "rows_to_the_image_function": (
        lambda A: norm(A, x=(2, 3)),
        ShapeError,
        "x must be (N, C, H, W), got shape (2, 3)",
    ),
    "six_axes": (lambda A: norm(A, x=(2, 3, 1, 1, 2, 2)), ShapeError, "x must be (N, C, H, W)", "(2, 3, 1, 1, 2, 2)"),
    "volumes_without_depth": (lambda A: norm(A, x=(2, 3, 0, 4, 4)), ShapeError, "x must have no axis of size 0"),
    "one_value_per_channel_of_a_signal": (
        lambda A: norm(A, x=(1, 3, 1)),
        ShapeError,
        "more than one value per channel, got x (1, 3, 1)",
    ),
    "images_without_pixels": (lambda A: norm(A, x=(2, 3, 0, 4)), ShapeError, "x must have no axis", "(2, 3, 0, 4)"),
    "one_value_per_channel": (
        lambda A: norm(A, x=(1, 3, 1, 1)),
        ShapeError,
        "more than one value per channel, got x (1, 3, 1, 1)",
    ),
    "one_row": (lambda A: norm_of_rows(A, x=(1, 3)), ShapeError, "more than one value per channel, got x (1, 3)"),
    "eps_zero_in_training": (lambda A: norm(A, eps=0), ParamError, "eps must be finite, above 0, got eps=0.0"),
    "eps_negative": (lambda A: norm(A, eps=-1e-5), ParamError, "eps must be", "eps=-1e-05"),
    "eps_negative_in_evaluation": (lambda A: norm(A, eps=-1e-5, training=False), ParamError, "eps", "at least 0"),
    "eps_nan": (lambda A: norm(A, eps=float("nan")), ParamError, "eps must be finite", "eps=nan"),
    "eps_infinite": (lambda A: norm(A, eps=float("inf")), ParamError, "eps must be finite", "eps=inf"),
    "eps_string": (lambda A: norm(A, eps="1e-5"), ArgTypeError, "eps must be a number, got '1e-5'"),
    "eps_none": (lambda A: norm(A, eps=None), ArgTypeError, "eps must be a number, got None"),
    "eps_array": (lambda A: norm(A, eps=np.ones(3)), ArgTypeError, "eps must be a number"),
    "momentum_negative": (lambda A: norm(A, momentum=-0.1), ParamError, "momentum must be", "momentum=-0.1"),
    "momentum_above_one": (lambda A: norm(A, momentum=1.1), ParamError, "at most 1, got momentum=1.1"),
    "momentum_nan": (lambda A: norm(A, momentum=float("nan")), ParamError, "momentum must be", "momentum=nan"),
    "momentum_bool": (lambda A: norm(A, momentum=True), ArgTypeError, "momentum must be a number, got True"),
    "training_a_word": (lambda A: norm(A, training="test"), ArgTypeError, "training must be True or False, got 'test'"),
    "training_a_number": (lambda A: norm(A, training=1), ArgTypeError, "training must be True or False, got 1"),
    "running_mean_of_integers": (
        lambda A: norm(A, running_mean=zeros(3, dtype="int64")),
        DTypeError,
        "running_mean must be float16, float32 or float64",
        "int64",
    ),
    "running_var_of_another_float": (
        lambda A: norm(A, running_var=zeros(3, dtype="float64")),
        DTypeError,
        "running_var float64",
        "gamma float32",
    ),
    "all_vectors_of_another_float": (
        lambda A: norm(
            A, **{name: zeros(3, dtype="float64") for name in ("gamma", "beta", "running_mean", "running_var")}
        ),
        DTypeError,
        "float32 like x",
        "float64",
    ),
}

REST = {
    "affine_x_with_one_axis": (lambda A: affine(A, x=(5,)), ShapeError, "x must be (N, d1, ..., dk)", "(5,)"),
    "affine_features_differ": (
        lambda A: affine(A, w=(6, 4)),
        ShapeError,
        "x has 5 features but w expects 6: x (2, 5), w (6, 4)",
    ),
    "affine_features_of_images": (
        lambda A: affine(A, x=(2, 3, 4, 4), w=(47, 4)),
        ShapeError,
        "x has 48 features but w expects 47",
    ),
    "affine_features_of_an_empty_batch": (lambda A: affine(A, x=(0, 3, 4), w=(13, 4)), ShapeError, "x has 12 features"),
    "affine_w_with_three_axes": (lambda A: affine(A, w=(5, 4, 1)), ShapeError, "w must be (D, M)", "(5, 4, 1)"),
    "affine_w_without_columns": (lambda A: affine(A, w=(5, 0), b=(0,)), ShapeError, "(5, 0)"),
    "affine_b_of_another_length": (lambda A: affine(A, b=(5,)), ShapeError, "b must have", "(4,), got (5,)"),
    "affine_b_a_row": (lambda A: affine(A, b=(1, 4)), ShapeError, "b must have", "(1, 4)"),
    "affine_no_features": (lambda A: affine(A, x=(2, 0), w=(0, 4)), ShapeError, "x must have no axis", "(2, 0)"),
    "softmax_scores_of_one_axis": (
        lambda A: softmax(A, scores=(3,)),
        ShapeError,
        "scores must be (N, classes)",
        "(3,)",
    ),
    "softmax_no_classes": (lambda A: softmax(A, scores=(2, 0)), ShapeError, "scores must have no axis", "(2, 0)"),
    "softmax_too_few_labels": (lambda A: softmax(A, labels=(1,)), ShapeError, "labels must have", "(2,), got (1,)"),
    "softmax_one_hot_labels": (lambda A: softmax(A, labels=(2, 3)), ShapeError, "labels must have", "(2, 3)"),
    "softmax_labels_of_floats": (
        lambda A: softmax(A, labels=zeros(2, dtype="float32")),
        DTypeError,
        "labels must be an integer array",
        "float32",
    ),
    "softmax_labels_of_bools": (
        lambda A: softmax(A, labels=zeros(2, dtype="bool")),
        DTypeError,
        "labels must be an integer array",
        "bool",
    ),
    "softmax_smoothing_above_one": (lambda A: softmax(A, label_smoothing=1.5), ParamError, "label_smoothing=1.5"),
    "svm_labels_of_floats": (
        lambda A: svm(A, labels=zeros(2, dtype="float64")),
        DTypeError,
        "labels must be an integer array",
        "float64",
    ),
    "svm_margin_negative": (lambda A: svm(A, margin=-1), ParamError, "margin must be", "margin=-1.0"),
    "augment_floats": (lambda A: augment(A, images=zeros(2, 3, 4, 4)), DTypeError, "images must be uint8, got float32"),
    "augment_one_picture": (
        lambda A: augment(A, images=(3, 4, 4)),
        ShapeError,
        "images must be (N, C, H, W)",
        "(3, 4, 4)",
    ),
    "augment_pictures_without_pixels": (
        lambda A: augment(A, images=(2, 3, 4, 0)),
        ShapeError,
        "images must have no axis",
    ),
    "augment_signed_draws": (
        lambda A: augment(A, draws=zeros(2, dtype="int64")),
        DTypeError,
        "draws must be uint64, got int64",
    ),
    "augment_too_few_draws": (lambda A: augment(A, draws=(1,)), ShapeError, "draws must have", "(2,), got (1,)"),
    "augment_pad_negative": (lambda A: augment(A, pad=-1), ParamError, "pad must be", "pad=-1"),
    "augment_pad_pair": (lambda A: augment(A, pad=(1, 1)), ArgTypeError, "pad must be an int", "(1, 1)"),
    "augment_pad_mode_unknown": (lambda A: augment(A, pad_mode="edge"), ParamError, "pad_mode must be", "'edge'"),
    "augment_reflects_nothing": (
        lambda A: augment(A, pad=4, pad_mode="reflect"),
        ParamError,
        "pad must be less than the height and width",
        "pad=4, images are 4 x 4",
    ),
    "augment_cutout_negative": (lambda A: augment(A, cutout=-1), ParamError, "cutout must be", "cutout=-1"),
    "augment_cutout_beyond_the_picture": (
        lambda A: augment(A, cutout=5),
        ParamError,
        "cutout must be at most the height and width",
        "cutout=5, images are 4 x 4",
    ),
    "augment_flip_a_number": (lambda A: augment(A, flip=1), ArgTypeError, "flip must be True or False, got 1"),
    "augment_format_a_word": (
        lambda A: augment(A, channels_last="NHWC"),
        ArgTypeError,
        "channels_last must be",
        "'NHWC'",
    ),
    "augment_to_integers": (
        lambda A: augment(A, dtype="uint8"),
        DTypeError,
        "dtype must be float16, float32 or float64, got uint8",
    ),
    "augment_to_nonsense": (lambda A: augment(A, dtype="real"), ArgTypeError, "dtype must name", "'real'"),
    "augment_mean_too_short": (lambda A: augment(A, mean=(0.0,)), ShapeError, "one entry per channel (3), got 1 and 3"),
    "augment_mean_a_number": (lambda A: augment(A, mean=0.5), ArgTypeError, "mean must be", "0.5"),
    "augment_mean_a_set": (
        lambda A: augment(A, mean={0.0, 0.25, 0.5}),
        ArgTypeError,
        "mean must be a sequence of one number per channel",
    ),
    "augment_mean_of_words": (
        lambda A: augment(A, mean=("a", "b", "c")),
        ArgTypeError,
        "mean must be a number, got 'a'",
    ),
    "augment_mean_nan": (lambda A: augment(A, mean=(0.0, float("nan"), 0.0)), ParamError, "mean must be finite", "nan"),
    "augment_std_zero": (lambda A: augment(A, std=(1.0, 0.0, 1.0)), ParamError, "std must be", "std=0.0"),
    "update_with_two_axes": (
        lambda A: sgd(A, w=(2, 3), velocity=None),
        ShapeError,
        "w must be one flat vector",
        "(2, 3)",
    ),
    "update_gradient_of_another_length": (
        lambda A: sgd(A, dw=(4,)),
        ShapeError,
        "dw must have the shape of w (5,), got (4,)",
    ),
    "update_velocity_of_another_length": (
        lambda A: sgd(A, velocity=(6,)),
        ShapeError,
        "velocity must have",
        "(5,), got (6,)",
    ),
    "sgd_momentum_without_velocity": (
        lambda A: sgd(A, velocity=None, momentum=0.9),
        ParamError,
        "momentum=0.9 needs a velocity",
    ),
    "sgd_lr_negative": (lambda A: sgd(A, lr=-0.1), ParamError, "lr must be", "lr=-0.1"),
    "sgd_lr_nan": (lambda A: sgd(A, lr=float("nan")), ParamError, "lr must be", "lr=nan"),
    "sgd_lr_none": (lambda A: sgd(A, lr=None), ArgTypeError, "lr must be a number, got None"),
    "sgd_momentum_above_one": (lambda A: sgd(A, momentum=1.01), ParamError, "momentum=1.01"),
    "sgd_nesterov_a_number": (lambda A: sgd(A, nesterov=1), ArgTypeError, "nesterov must be True or False, got 1"),
    "sgd_decay_negative": (lambda A: sgd(A, weight_decay=-1e-4), ParamError, "weight_decay=-0.0001"),
    "rmsprop_square_of_another_length": (
        lambda A: rmsprop(A, square=(4,)),
        ShapeError,
        "square must have",
        "(5,), got (4,)",
    ),
    "rmsprop_smoothing_above_one": (lambda A: rmsprop(A, smoothing=2), ParamError, "smoothing=2.0"),
    "rmsprop_eps_zero": (lambda A: rmsprop(A, eps=0), ParamError, "eps must be", "eps=0.0"),
    "adam_step_zero": (lambda A: adam(A, step=0), ParamError, "step must be", "step=0"),
    "adam_step_float": (lambda A: adam(A, step=1.0), ArgTypeError, "step must be an int, got 1.0"),
    "adam_beta1_one": (lambda A: adam(A, beta1=1.0), ParamError, "beta1 must be below 1, got beta1=1.0"),
    "adam_beta2_one": (lambda A: adam(A, beta2=1), ParamError, "beta2 must be below 1, got beta2=1.0"),
    "adam_beta_negative": (lambda A: adam(A, beta1=-0.1), ParamError, "beta1=-0.1"),
    "adam_eps_zero": (lambda A: adam(A, eps=0.0), ParamError, "eps must be", "eps=0.0"),
    "adam_moments_of_another_length": (lambda A: adam(A, m=(4,)), ShapeError, "m must have", "(5,), got (4,)"),
}

_FORWARDS = [  # (row, name of a way through it, its options) of all that have a backward
    (row, way, options) for row in OPERATORS.values() if row.has_backward for way, options in row.all_ways.items()
]


def _wide(shape, dtype):
    """Make an array that no compiled loops serve: tests are collected before anything is compiled."""
    return np.zeros(shape, "float64" if dtype == "float32" else dtype)


def _bad_gradients():
    """Yield, for each backward, a gradient of another shape and one of another dtype."""
    for row, way, options in _FORWARDS:
        shape = row.forward(row.good(make=_wide), row.options_of(options))[0].shape
        name, wrong = "_".join([row.name, *way.split()]), (*shape[:-1], shape[-1] + 1)

        def call(A, dy, row=row, options=options):
            return backward(row.name, A, dy, **options)

        bad = {
            "shape": (zeros(*wrong), ShapeError, f"the shape of the forward's output {shape}, got {wrong}"),
            "dtype": (zeros(*shape, dtype="float64"), DTypeError, "the forward's dtype float32, got float64"),
        }
        for what, (dy, error, words) in bad.items():
            yield f"{name}_dy_of_another_{what}", (lambda A, f=call, dy=dy: f(A, dy), error, f"dy must have {words}")


BACKWARD = {
    **dict(_bad_gradients()),
    "conv_dy_of_another_batch": (
        lambda A: backward("conv", A, zeros(3, 4, 6, 6)),
        ShapeError,
        "(2, 4, 6, 6), got (3, 4, 6, 6)",
    ),
    "conv_dy_of_a_signal_as_an_image": (
        lambda A: backward("conv", A, zeros(2, 4, 1, 6), x=(2, 3, 8), w=(4, 3, 3)),
        ShapeError,
        "dy must have the shape of the forward's output (2, 4, 6), got (2, 4, 1, 6)",
    ),
    "conv_weight_grad_a_number": (
        lambda A: gpuconv.conv_backward(A(zeros(2, 4, 6, 6)), conv(A)[1], weight_grad=1),
        ArgTypeError,
        "weight_grad must be True or False, got 1",
    ),
    "conv_input_grad_a_number": (
        lambda A: gpuconv.conv_backward(A(zeros(2, 4, 6, 6)), conv(A)[1], input_grad=0),
        ArgTypeError,
        "input_grad must be True or False, got 0",
    ),
    "affine_input_grad_none": (
        lambda A: gpuconv.affine_backward(A(zeros(2, 4)), affine(A)[1], input_grad=None),
        ArgTypeError,
        "input_grad must be True or False, got None",
    ),
    "max_pool_dy_broadcast": (
        lambda A: backward("max_pool", A, zeros(1, 3, 4, 4)),
        ShapeError,
        "(2, 3, 4, 4), got (1, 3, 4, 4)",
    ),
    "max_pool_dy_of_a_volume": (
        lambda A: backward("max_pool", A, zeros(2, 3, 1, 4, 4)),
        ShapeError,
        "(2, 3, 4, 4), got (2, 3, 1, 4, 4)",
    ),
    "max_pool_dy_of_a_signal": (
        lambda A: backward("max_pool", A, zeros(2, 3, 4)),
        ShapeError,
        "(2, 3, 4, 4), got (2, 3, 4)",
    ),
    "max_pool_dy_of_an_image_for_a_signal": (
        lambda A: backward("max_pool", A, zeros(2, 3, 1, 4), x=(2, 3, 8), window=(2,)),
        ShapeError,
        "(2, 3, 4), got (2, 3, 1, 4)",
    ),
    "average_pool_dy_of_an_image_for_a_volume": (
        lambda A: backward("average_pool", A, zeros(2, 3, 2, 4), x=(2, 3, 4, 4, 8)),
        ShapeError,
        "(2, 3, 2, 2, 4), got (2, 3, 2, 4)",
    ),
    "batchnorm_dy_of_an_image_for_a_volume": (
        lambda A: backward("spatial_batchnorm", A, zeros(2, 3, 8, 4), x=(2, 3, 4, 2, 4)),
        ShapeError,
        "(2, 3, 4, 2, 4), got (2, 3, 8, 4)",
    ),
    "global_average_pool_dy_with_image_axes": (
        lambda A: backward("global_average_pool", A, zeros(2, 3, 1, 1)),
        ShapeError,
        "(2, 3), got (2, 3, 1, 1)",
    ),
    "relu_dy_turned": (lambda A: backward("relu", A, zeros(3, 2)), ShapeError, "(2, 3), got (3, 2)"),
    "dropout_dy_of_another_shape_in_evaluation": (
        lambda A: backward("dropout", A, zeros(2, 4), training=False),
        ShapeError,
        "(2, 3), got (2, 4)",
    ),
}

GROUPNORM = {
    "rows_to_groupnorm": (lambda A: group_norm(A, x=(2, 6)), ShapeError, "x must be (N, C, H, W)", "(2, 6)"),
    "images_to_layernorm": (lambda A: layer_norm(A, x=(2, 6, 4, 4)), ShapeError, "x must be (N, D)", "(2, 6, 4, 4)"),
    "no_channels": (lambda A: group_norm(A, x=(2, 0, 4, 4)), ShapeError, "x must have no axis of size 0"),
    "no_columns": (lambda A: layer_norm(A, x=(2, 0)), ShapeError, "x must have no axis of size 0"),
    "gamma_too_short": (
        lambda A: group_norm(A, gamma=(1,)),
        ShapeError,
        "gamma must have one entry per channel of x, (6,), got (1,)",
    ),
    "beta_too_long": (
        lambda A: layer_norm(A, beta=(7,)),
        ShapeError,
        "beta must have one entry per column of x, (6,), got (7,)",
    ),
    "vectors_of_another_dtype": (
        lambda A: group_norm(A, gamma=zeros(6, dtype="float64"), beta=zeros(6, dtype="float64")),
        DTypeError,
        "gamma and beta must be float32 like x (float32 if x has 16 bits), got float64",
    ),
    "vectors_of_two_dtypes": (lambda A: group_norm(A, gamma=zeros(6, dtype="float64")), DTypeError, "share one dtype"),
    "groups_do_not_divide": (
        lambda A: group_norm(A, groups=4),
        ParamError,
        "groups must divide the channels of x, got groups=4, C=6",
    ),
    "groups_above_channels": (lambda A: group_norm(A, groups=12), ParamError, "got groups=12, C=6"),
    "groups_zero": (lambda A: group_norm(A, groups=0), ParamError, "groups must be an int from 1", "groups=0"),
    "groups_float": (lambda A: group_norm(A, groups=2.0), ArgTypeError, "groups must be an int, got 2.0"),
    "group_of_one_value": (
        lambda A: group_norm(A, x=(2, 6, 1, 1), groups=6),
        ShapeError,
        "more than one value per group, got x (2, 6, 1, 1) with groups=6",
    ),
    "row_of_one_value": (
        lambda A: layer_norm(A, x=(2, 1)),
        ShapeError,
        "more than one value per row, got x (2, 1)",
    ),
    "eps_zero": (lambda A: group_norm(A, eps=0), ParamError, "eps must be finite, above 0, got eps=0.0"),
    "eps_nan": (lambda A: layer_norm(A, eps=float("nan")), ParamError, "eps must be finite", "nan"),
}


def _lying_over_one_another(A, name):
    """Return the good arrays of an update, one of which has elements of eight bytes that begin every four."""
    arrays = {name: A(np.zeros(5)) for name in ("w", "dw", "m", "v")}
    arrays[name] = np.lib.stride_tricks.as_strided(np.zeros(5), (5,), (4,))
    return arrays | {name: A(arrays[name])}


def _debugging(call):
    """Return what a call does with GPUCONV_DEBUG=1."""

    def debugging(A):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GPUCONV_DEBUG", "1")
            call(A)

    return debugging


def _changed_between(operator, name):
    """Return a call whose array of that name is another at the backward than it was at the forward."""

    def call(A):
        row = OPERATORS[operator]
        arrays = {key: A(array) for key, array in row.good().items()}
        y, cache = row.forward(arrays, row.options_of({}))
        arrays[name][...] = A(np.ones(arrays[name].shape, "float32"))
        row.backward(A(np.zeros(y.shape, "float32")), cache)

    return _debugging(call)


def _one_array(A, first, second):
    """Batch norm in training with one array for two of its vectors."""
    row = OPERATORS["spatial_batchnorm"]
    arrays = {name: A(array) for name, array in row.good().items()}
    arrays[second] = arrays[first]
    return row.forward(arrays, row.options_of({}))


def _views(A, first, second):
    """Batch norm in training with two vectors of three entries that are views of four."""
    row = OPERATORS["spatial_batchnorm"]
    room = A(zeros(4))
    arrays = {name: A(array) for name, array in row.good().items()} | {first: room[:3], second: room[1:]}
    return row.forward(arrays, row.options_of({}))


def _with(row, name, value):
    """Return a row's good call with something else for one of its arrays: a function of what makes arrays."""

    def call(A):
        arrays = {other: A(array) for other, array in row.good().items()}
        return row.forward({**arrays, name: value(A)}, row.options_of({}))

    return call


_NOT_TAKEN = ("int64", "bool", "complex64")  # dtypes that CuPy has, too


def _kinds():
    """Yield, for each array of each operator, what is no array, and arrays of a dtype that is not taken or not alike."""
    for row in OPERATORS.values():
        for name, array in row.good().items():
            case = f"{row.name}_{name}"
            listed = _with(row, name, lambda A, array=array: array.tolist())
            yield f"{case}_a_list", (listed, ArgTypeError, f"{name} must be a NumPy or CuPy array", "list")
            if not row.arrays[name].is_float:
                continue
            for dtype in _NOT_TAKEN:
                other = _with(row, name, lambda A, array=array, dtype=dtype: A(array.astype(dtype)))
                if row.name in ("conv", "conv_transpose"):  # which take complex arrays, too, if all are
                    words = ("share one dtype", name) if dtype == "complex64" else (f"{name} must be float16",)
                else:
                    words = (f"{name} must be float16, float32 or float64",)
                yield f"{case}_of_{dtype}", (other, DTypeError, *words, dtype)
            if sum(one.is_float for one in row.arrays.values()) > 1:
                for dtype in ("float16", "float64"):
                    if (name, dtype) == ("x", "float16") and "gamma" in row.arrays:
                        continue  # images of float16 with vectors of float32 are taken
                    other = _with(row, name, lambda A, array=array, dtype=dtype: A(array.astype(dtype)))
                    yield f"{case}_alone_of_{dtype}", (other, DTypeError, dtype, "float32")


def _gradient_kinds():
    """Yield the same for what comes from above, and caches that are none, or another operator's."""
    of_pool, of_relu = (OPERATORS[name] for name in ("max_pool", "relu"))
    for row in OPERATORS.values():
        if not row.has_backward:
            continue

        def call(A, row=row, dy=lambda A, y: A(np.zeros(y.shape, y.dtype)), cache=None):
            y, own = row.forward({name: A(array) for name, array in row.good().items()}, row.options_of({}))
            return row.backward(dy(A, y), own if cache is None else cache(A))

        def other(A, row=of_relu if row is of_pool else of_pool):
            return row.forward({name: A(array) for name, array in row.good().items()}, row.options_of({}))[1]

        def listed(A, call=call):
            return call(A, dy=lambda A, y: [0.0])

        yield f"{row.name}_dy_a_list", (listed, ArgTypeError, "dy must be a NumPy or CuPy array", "list")
        for dtype in _NOT_TAKEN:

            def other_dtype(A, call=call, dtype=dtype):
                return call(A, dy=lambda A, y: A(np.zeros(y.shape, dtype)))

            yield f"{row.name}_dy_of_{dtype}", (other_dtype, DTypeError, "dy must", dtype)
        words = f"cache must be the one that {row.name}_forward"
        for what, cache in {"none": lambda A: None, "a_tuple": lambda A: (A(zeros(2)),), "of_another": other}.items():

            def cached(A, call=call, cache=cache):
                return call(A, cache=cache)

            yield f"{row.name}_cache_{what}", (cached, CacheError, words)


def _broadcast(row, name):
    """Return a row's good call whose array of that name has one element in memory, which may be written."""
    array = row.good()[name]
    return _with(row, name, lambda A: A(np.lib.stride_tricks.as_strided(array.copy(), array.shape, (0,) * array.ndim)))


def _both(row, first, second):
    """Return a row's good call with one array for two."""

    def call(A):
        arrays = {name: A(array) for name, array in row.good().items()}
        return row.forward({**arrays, first: arrays[second]}, row.options_of({}))

    return call


WRITTEN = {
    **{
        f"{name}_of_{row.name}_broadcast": (
            _broadcast(row, name),
            AliasError,
            f"{name} is updated in place but is a broadcast view",
        )
        for row in OPERATORS.values()
        for name in row.writes
    },
    **{
        f"{first}_and_{second}_of_{row.name}_one_array": (
            _both(row, first, second),
            AliasError,
            "is updated in place, but ",
            " share memory",
        )
        for row in OPERATORS.values()
        for first in row.writes
        for second in row.arrays
        if second not in row.writes[: row.writes.index(first) + 1]
        if row.good()[first].shape == row.good()[second].shape
    },
    **{
        f"elements_of_{name}_lie_over_one_another": (
            lambda A, name=name: gpuconv.adam_update(**_lying_over_one_another(A, name), step=1, lr=0.1),
            AliasError,
            f"{name} is updated in place, but its elements lie over one another: its strides are (4,)",
        )
        for name in ("w", "m", "v")
    },
    "statistics_one_array": (
        lambda A: _one_array(A, "running_mean", "running_var"),
        AliasError,
        "is updated in place, but running_mean and running_var share memory",
    ),
    "statistic_and_gamma_one_array": (
        lambda A: _one_array(A, "gamma", "running_var"),
        AliasError,
        "running_var is updated in place, but gamma and running_var share memory",
    ),
    "statistics_views_of_one_array": (
        lambda A: _views(A, "running_mean", "running_var"),
        AliasError,
        "is updated in place, but running_mean and running_var share memory",
    ),
}

DEBUGGED = {
    **{
        f"running_variance_{value}": (
            _debugging(lambda A, value=value: norm(A, running_var=np.full(3, value, "float32"), training=False)),
            ParamError,
            "running_var has a negative or NaN entry",
        )
        for value in (-1.0, float("nan"))
    },
    **{
        f"{name}_of_{row.name}_changed": (
            _changed_between(row.name, name),
            CacheError,
            f"{name} was changed in place between forward and backward, so the gradient would be wrong",
        )
        for row in OPERATORS.values()
        for name in row.refers
        if name in row.arrays
    },
}

TIES = {
    "unknown_rule": (
        lambda A: pool(A, ties="last"),
        ParamError,
        'ties must be "first", "split" or "every", got \'last\'',
    ),
    "rule_none": (lambda A: pool(A, ties=None), ParamError, "ties must be", "None"),
}

REST |= {
    f"{row.name}_{fault}": (lambda A, row=row, options=options: call_of(row.name)(A, **options), *expected)
    for row in OPERATORS.values()
    for fault, (options, *expected) in row.refused.items()
}

KINDS = {**dict(_kinds()), **dict(_gradient_kinds())}

GROUPS = {
    "conv": CONV,
    "kinds": KINDS,
    "pool": POOL,
    "ties": TIES,
    "norm": NORM,
    "groupnorm": GROUPNORM,
    "rest": REST,
    "written": WRITTEN,
    "debugged": DEBUGGED,
    "backward": BACKWARD,
}
ALL = {f"{group}-{name}": case for group, cases in GROUPS.items() for name, case in cases.items()}


def _raises(call, expected, words):
    with pytest.raises(GpuconvError) as info:
        call()
    assert type(info.value) is expected, f"{type(info.value).__name__}: {info.value}"
    assert isinstance(info.value, BUILT_IN[expected])
    for part in words:
        assert part in str(info.value)


@pytest.mark.parametrize("case", ALL.values(), ids=ALL.keys())
def test_bad_argument_raises_its_own_error(case, device):
    call, expected, *words = case
    _raises(lambda: call(device.array), expected, words)
    y, _ = conv(device.array)  # the next good call is right
    assert not device.numpy(y).any()


@pytest.mark.parametrize("case", ALL.values(), ids=ALL.keys())
def test_a_bad_argument_is_refused_in_the_same_words_everywhere(case, gpu):
    call, expected, *_ = case
    said = []
    for array in (Cpu.array, gpu.array):
        with pytest.raises(expected) as info:
            call(array)
        said.append(str(info.value))
    assert said[0] == said[1]


# Options of the wrong kind: every option of every operator -----------------------------------------------------------


class Unruly:
    """Raises an error of its own for whatever it is asked."""

    def _refuse(self, *_):
        raise LookupError

    __float__ = __index__ = __int__ = __eq__ = __iter__ = __repr__ = __len__ = _refuse
    __hash__ = None


ODD = {
    "beyond_floats": 10**400,
    "of_thousands_of_digits": 10**5000,
    "fraction_beyond_floats": Fraction(10**400),
    "complex": 1 + 1j,
    "complex_scalar": np.complex64(1 + 1j),
    "complex_array": np.array(1 + 1j),
    "signalling": Decimal("sNaN"),
    "not_a_number": Decimal("NaN"),
    "bytes": b"1",
    "bytes_scalar": np.bytes_(b"1"),
    "text": "1",
    "text_scalar": np.str_("1"),
    "text_in_an_array": np.array("1"),
    "raw": np.void(b"12"),
    "date": np.datetime64("2020-01-01"),
    "duration": np.timedelta64(1, "s"),
    "record": np.array((1,), [("a", "i4")]),
    "none_in_an_array": np.array(None),
    "words": np.array(["first", "zero"]),
    "numbers": np.array([0.5, 0.5, 0.5, 0.5]),
    "no_numbers": np.array([]),
    "table": {},
    "itself": object,
    "unruly": Unruly(),
}
_OPTIONS = [
    (row, name)
    for row in OPERATORS.values()
    for name in inspect.signature(getattr(gpuconv, row.function)).parameters
    if name not in row.arrays
]


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize(("row", "name"), _OPTIONS, ids=[f"{row.name} {name}" for row, name in _OPTIONS])
def test_an_odd_option_is_refused_by_name(row, name, odd):
    with pytest.raises(GpuconvError) as info:
        row.forward(row.good(), {**row.options_of({}), name: odd})
    assert isinstance(info.value, (ArgTypeError, ParamError, DTypeError, ShapeError)), repr(info.value)
    assert name in str(info.value)
    assert len(str(info.value)) < 500


SHOWN = {
    "short": ("x", "'x'"),
    "long": ("x" * 300, "'" + "x" * 199 + "..."),
    "of_the_longest": ("x" * 198, "'" + "x" * 198 + "'"),
    "that_raises": (Unruly(), "a value of class Unruly that cannot be shown"),
    "of_thousands_of_digits": (10**5000, "a value of class int that cannot be shown"),
}


def test_ints_of_more_than_256_bits_are_shown_by_their_length():
    assert checks.digits(2**256 - 1) == str(2**256 - 1)
    assert checks.digits(2**256) == "an int of 257 bits"


@pytest.mark.parametrize(("value", "words"), SHOWN.values(), ids=SHOWN.keys())
def test_whatever_a_value_is_a_message_shows_it(value, words):
    assert checks.shown(value) == words


# Arrays of the wrong kind: every array argument of every operator ---------------------------------------------------


_GOOD = {row.function: (row, None) for row in OPERATORS.values()}
_GOOD |= {" ".join([f"{row.name}_backward", *way.split()]): (row, options) for row, way, options in _FORWARDS}


def _arguments(op):
    """Return an operator's good arrays by name, and the call that takes them."""
    row, options = _GOOD[op]
    if options is None:
        return row.good(), lambda **arrays: row.forward(arrays, row.options_of({}))
    y, cache = row.forward(row.good(), row.options_of(options))
    return {"dy": np.zeros_like(y)}, lambda dy: row.backward(dy, cache)


def _names(op):
    row, options = _GOOD[op]
    return list(row.good()) if options is None else ["dy"]


ARGUMENTS = [(op, name) for op in _GOOD for name in _names(op)]
OPTIONAL = {(row.function, name) for row in OPERATORS.values() for name, array in row.arrays.items() if array.optional}
WHOLE_NUMBERS = {name for row in OPERATORS.values() for name, array in row.arrays.items() if not array.is_float}


def test_table_covers_every_operator():
    functions = set(gpuconv.__all__) - {"GpuconvError", "default_device", "free_memory", "load", "use"}
    missing = functions - {op.split()[0] for op in _GOOD}
    assert not missing, f"add a row of {', '.join(sorted(missing))} to tests/operators.py"


def _call_with(op, name, value):
    arrays, call = _arguments(op)
    return call(**{**arrays, name: value})


@pytest.mark.parametrize(("op", "name"), ARGUMENTS)
@pytest.mark.parametrize(
    ("kind", "make"),
    {
        "list": lambda a: a.tolist(),
        "number": lambda a: 1.0,
        "numpy_scalar": lambda a: a.dtype.type(1),
        "string": lambda a: "x",
        "masked_array": np.ma.masked_array,
        "matrix": lambda a: a.reshape(1, -1).view(np.matrix),
        "recarray": lambda a: a.view(np.recarray),
        "memoryview": memoryview,
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_what_is_not_a_plain_array_is_refused(op, name, kind, make):
    """Nothing is converted in silence: neither lists nor subclasses whose meaning would be lost."""
    value = make(_arguments(op)[0][name])
    _raises(
        lambda: _call_with(op, name, value),
        ArgTypeError,
        [f"{name} must be a NumPy or CuPy array", type(value).__name__],
    )


@pytest.mark.parametrize(("op", "name"), [case for case in ARGUMENTS if case not in OPTIONAL])
def test_none_is_refused(op, name):
    _raises(lambda: _call_with(op, name, None), ArgTypeError, [name, "None"])


def _of(module, name="Array", **members):
    """Return an instance of a class that another library might have."""
    return type(name, (), {"__module__": module, **members})()


FOREIGN = {
    "torch": (lambda: _of("torch", "Tensor"), ": pass np.asarray(x.detach()), or cp.from_dlpack(x.detach()) on a GPU"),
    "torch_parameter": (
        lambda: _of("torch.nn.parameter"),
        "pass np.asarray(x.detach()), or cp.from_dlpack(x.detach())",
    ),
    "jax": (lambda: _of("jaxlib._jax", "ArrayImpl"), "pass np.asarray(x), or cp.from_dlpack(x) on a GPU"),
    "tensorflow": (lambda: _of("tensorflow.python.framework.ops", "EagerTensor"), ": pass x.numpy()"),
    "pandas": (lambda: _of("pandas.core.frame", "DataFrame"), ": pass x.to_numpy()"),
    "xarray": (lambda: _of("xarray.core.dataarray", "DataArray"), ": pass x.to_numpy()"),
    "scipy": (lambda: _of("scipy.sparse._csr", "csr_matrix"), ": pass x.toarray()"),
    "hdf5": (lambda: _of("h5py._hl.dataset", "Dataset"), ": pass x[...]"),
    "picture": (lambda: _of("PIL.Image", "Image"), ": pass np.asarray(x).transpose(2, 0, 1)[None] of a colour picture"),
    "list": (lambda: [[1.0]], "got list: pass np.array(x)"),
    "tuple": (lambda: (1.0,), "got tuple: pass np.array(x)"),
    "not_unpacked": (
        lambda: gpuconv.relu_forward(np.ones((1, 1))),
        "got tuple: a forward returns (y, cache), of which only y is passed on",
    ),
    "masked": (lambda: np.ma.masked_array([1.0]), ": pass x.filled(0)"),
    "matrix": (lambda: np.zeros((1, 1)).view(np.matrix), ": pass np.array(x)"),
    "exchange": (lambda: _of("other", __dlpack__=None), ": pass np.from_dlpack(x)"),
    "array_like": (lambda: _of("other", __array__=None), ": pass np.array(x)"),
    "nobody_knows": (lambda: _of("other"), "got other.Array"),
    "a_number": (lambda: 1.0, "got float"),
    "a_text": (lambda: "x", "got str"),
}


@pytest.mark.parametrize(("make", "end"), FOREIGN.values(), ids=FOREIGN.keys())
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_the_way_from_another_library_is_told(make, end):
    for call in (gpuconv.relu_forward, lambda x: gpuconv.max_pool_forward(x, window=1)):
        with pytest.raises(ArgTypeError) as caught:
            call(make())
        assert str(caught.value).endswith(end) or f"{end} on a GPU" in str(caught.value)


def test_filters_that_fit_in_the_order_of_others_are_warned_of_where_they_are_given():
    x = zeros(1, 3, 8, 20)
    with pytest.warns(
        UserWarning, match="w \\(3, 3, 3, 16\\) is read as 3 filters of 3 x 16; is it H W I O, 16"
    ) as caught:
        gpuconv.conv_forward(x, zeros(3, 3, 3, 16))
    assert [each.filename for each in caught] == [__file__]
    for fine in ((16, 3, 3, 3), (3, 3, 3, 5), (3, 3, 8, 8), (4, 3, 3, 16)):
        gpuconv.conv_forward(x, zeros(*fine))  # a warning would be an error


def _told(message, **names):
    """Return what the way out in a message makes."""
    way = re.search(r"pass (.*?)(?:, or cp.*| of a colour picture)?$", message)[1]
    return eval(way, {"np": np}, names)


def test_torch_tensor_is_refused_and_its_way_out_works():
    torch = pytest.importorskip("torch")
    w = torch.ones(4, 3, 3, 3, requires_grad=True)
    with pytest.raises(ArgTypeError, match=r"w must be .*got torch.Tensor") as caught:
        _call_with("conv_forward", "w", w)
    array = _told(str(caught.value), w=w)
    assert type(array) is np.ndarray
    assert array.shape == (4, 3, 3, 3)
    assert np.shares_memory(array, w.detach().numpy())


def test_picture_is_refused_and_its_way_out_works():
    image = pytest.importorskip("PIL.Image").new("RGB", (6, 4))
    with pytest.raises(ArgTypeError, match=r"images must be .*got PIL.Image.Image") as caught:
        gpuconv.augment(image, None, mean=(0, 0, 0), std=(1, 1, 1))
    images = _told(str(caught.value), images=image)
    assert gpuconv.augment(images, None, mean=(0, 0, 0), std=(1, 1, 1)).shape == (1, 3, 4, 6)


def _zeros(*shape):
    return np.zeros(shape, np.float32)


def _filters(w, **settings):
    return lambda x: gpuconv.conv_forward(x, w, **settings)


def _created(layer):
    layer.create()
    return layer.forward


NHWC = _zeros(8, 32, 30, 4)
TURNED = "(x is N H W C? x.transpose(0, 3, 1, 2))"
LAST = {
    "conv": (_filters(_zeros(6, 4, 3, 3)), TURNED),
    "conv_in_groups": (_filters(_zeros(6, 2, 3, 3), groups=2), TURNED),
    "conv_in_groups_that_do_not_divide": (_filters(_zeros(4, 1, 3, 3), groups=4), TURNED),
    "batchnorm": (
        lambda x: gpuconv.spatial_batchnorm_forward(x, *(_zeros(4) for _ in range(4))),
        TURNED,
    ),
    "groupnorm": (lambda x: gpuconv.groupnorm_forward(x, _zeros(4), _zeros(4), groups=2), TURNED),
    "layer_conv": (_created(nn.Conv(4, 6)), TURNED),
    "layer_batchnorm": (_created(nn.BatchNorm(4)), TURNED),
    "layer_groupnorm": (_created(nn.GroupNorm(4, 2)), TURNED),
    "net": (lambda x: nn.Net(nn.Conv(4, 6), (4, 32, 30)).forward(x), TURNED),
    "both": (_filters(_zeros(3, 3, 4, 6)), f"{TURNED[:-1]}, w is H W I O? w.transpose(3, 2, 0, 1))"),
    "nothing_fits": (_filters(_zeros(6, 5, 3, 3)), None),
    "too_small_when_turned": (_filters(_zeros(6, 4, 33, 3)), None),
    "too_narrow_when_turned": (_filters(_zeros(6, 4, 3, 31)), None),
    "as_large_as_the_filter_when_turned": (_filters(_zeros(6, 4, 32, 30)), TURNED),
    "too_small_for_the_dilation_when_turned": (_filters(_zeros(6, 4, 3, 3), dilation=(16, 1)), None),
    "too_narrow_for_the_dilation_when_turned": (_filters(_zeros(6, 4, 3, 3), dilation=(1, 15)), None),
    "as_large_as_the_dilation_when_turned": (_filters(_zeros(6, 4, 3, 3), dilation=(15, 14)), TURNED),
    "net_of_another_size": (lambda x: nn.Net(nn.Conv(4, 6), (4, 32, 32)).forward(x), None),
    "other_gamma": (lambda x: gpuconv.groupnorm_forward(x, _zeros(5), _zeros(5), groups=1), None),
}


@pytest.mark.parametrize(("shape", "channels"), [((2, 3, 4, 5), 7), ((2, 5, 4, 5), 5), ((2, 5), 5)])
def test_nothing_is_guessed_where_transposing_would_not_help(shape, channels):
    assert checks.channels_first("x", _zeros(*shape), channels) == ""


def test_arrays_that_are_too_hard_to_compare_are_taken_to_overlap(monkeypatch):
    def give_up(a, b, *, max_work):
        raise np.exceptions.TooHardError

    base = _zeros(8)
    even, odd = base[::2], base[1::2]
    checks.apart("even", even=even, odd=odd)
    monkeypatch.setattr(np, "shares_memory", give_up)
    with pytest.raises(AliasError, match="even"):
        checks.apart("even", even=even, odd=odd)


def test_an_array_holds_fewer_than_2_to_the_60_elements():
    shapes.check_count("y", (2**30, 2**30 - 1), "pad=1")
    with pytest.raises(
        SizeLimitError, match=r"^y would be \(1073741824, 1073741824\) with pad=1, and an array holds fewer"
    ):
        shapes.check_count("y", (2**30, 2**30), "pad=1")
    shapes.check_count("y", (2**60 - 1,), "pad=1")


@pytest.mark.parametrize(("call", "hint"), LAST.values(), ids=LAST.keys())
def test_channels_last_is_guessed_where_transposing_would_fit(call, hint):
    with pytest.raises((ShapeError, ParamError)) as caught:
        call(NHWC)
    message = str(caught.value)
    if hint is None:
        assert "transpose" not in message
        return
    assert message.endswith(hint)
    if "w is" not in hint:
        call(NHWC.transpose(0, 3, 1, 2))


FILTERS = {
    "hwio": (_zeros(5, 5, 3, 6), " (w is H W I O? w.transpose(3, 2, 0, 1))"),
    "hwio_with_as_many_channels": (_zeros(3, 3, 3, 6), " (w is H W I O? w.transpose(3, 2, 0, 1))"),
    "hwio_that_no_bias_fits": (_zeros(5, 5, 3, 7), None),
    "other_channels": (_zeros(6, 5, 3, 3), None),
    "of_another_window": (_zeros(7, 5, 3, 6), None),
}


@pytest.mark.parametrize(("w", "hint"), FILTERS.values(), ids=FILTERS.keys())
def test_filters_in_another_order_are_guessed_where_transposing_would_fit(w, hint):
    x, b = _zeros(2, 3, 8, 8), _zeros(6)
    with pytest.raises(ShapeError) as caught:
        gpuconv.conv_forward(x, w, b)
    assert str(caught.value).endswith(hint or f"w {w.shape}")
    if hint:
        gpuconv.conv_forward(x, w.transpose(3, 2, 0, 1), b)


def test_images_of_augment_are_guessed_to_be_channels_last():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(ShapeError, match=r"\(images is N H W C\? images.transpose\(0, 3, 1, 2\)\)$"):
        gpuconv.augment(images, None, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.mark.parametrize(("op", "name"), [case for case in ARGUMENTS if case[1] not in WHOLE_NUMBERS])
@pytest.mark.parametrize("dtype", ["object", "U3", "longdouble", [("a", "f4")]], ids=str)
def test_dtype_that_only_numpy_has_is_named(op, name, dtype):
    value = np.zeros(_arguments(op)[0][name].shape, dtype)
    _raises(lambda: _call_with(op, name, value), DTypeError, [name, str(value.dtype)])


@pytest.mark.parametrize(("op", "name"), [case for case in ARGUMENTS if case[1] != "images"])  # bytes have no order
def test_other_byte_order_is_refused(op, name):
    """A GPU would read the bytes the wrong way round."""
    array = _arguments(op)[0][name]
    swapped = array.astype(array.dtype.newbyteorder())
    _raises(lambda: _call_with(op, name, swapped), DTypeError, [name])


def test_memory_mapped_array_is_taken(tmp_path):
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(2, 3, 8, 8))
    y, _ = gpuconv.conv_forward(x, zeros(4, 3, 3, 3))
    assert y.shape == (2, 4, 6, 6)


# Places -------------------------------------------------------------------------------------------------------------


class ndarray:
    """Stands in for a GPU array: CuPy's class by name, a NumPy array inside."""

    __module__ = "cupy"

    def __init__(self, host):
        self.shape, self.dtype, self.ndim, self.size = host.shape, host.dtype, host.ndim, host.size
        self.flags, self.strides = host.flags, host.strides
        self._host, self.__cuda_array_interface__ = host, host.__array_interface__

    def __getitem__(self, key):
        return ndarray(self._host[key])

    def reshape(self, *shape):
        return ndarray(self._host.reshape(*shape))


ndarray.__qualname__ = "ndarray"


_TWO_PLACES = [(op, name) for op, name in ARGUMENTS if len(_names(op)) > 1 or "_backward" in op]


@pytest.mark.parametrize(("op", "name"), _TWO_PLACES)
def test_arrays_in_two_places_are_refused_by_name(op, name):
    """Of a backward call the second place is that of the forward, which the cache remembers."""
    arrays = _arguments(op)[0]
    _raises(lambda: _call_with(op, name, ndarray(arrays[name])), DeviceMismatchError, [name, "NumPy", "CuPy"])


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("there", ["x", "w", "b"])
def test_an_array_on_the_cpu_beside_others_on_a_gpu_is_refused_by_name(size, there, gpu):
    """One element, too, which CuPy would hand to a kernel by its value."""
    arrays = {"x": zeros(1, 1, size, size), "w": zeros(1, 1, size, size), "b": zeros(1)}
    placed = {name: array if name == there else gpu.array(array) for name, array in arrays.items()}
    with pytest.raises(DeviceMismatchError, match=rf"(?=.*\b{there} is a NumPy array).* is a CuPy array"):
        gpuconv.conv_forward(**placed)
    y, cache = gpuconv.conv_forward(**{name: gpu.array(array) for name, array in arrays.items()})
    with pytest.raises(DeviceMismatchError, match=r"dy is a NumPy array but .* CuPy"):
        gpuconv.conv_backward(gpu.numpy(y), cache)


def test_one_element_elsewhere_is_refused_too():
    w = ndarray(zeros(1, 1, 1, 1))
    _raises(lambda: gpuconv.conv_forward(zeros(1, 1, 1, 1), w), DeviceMismatchError, ["x is a NumPy", "w is a CuPy"])


@pytest.mark.parametrize("op", [row.function for row in OPERATORS.values()])
def test_gpu_arrays_where_no_gpu_can_be_used(op, monkeypatch):
    monkeypatch.setattr(cuda_device, "gpu_status", lambda: (False, "CUDA finds no usable GPU: the driver reports none"))
    arrays, call = _arguments(op)
    gpu = {name: ndarray(array) for name, array in arrays.items()}
    _raises(lambda: call(**gpu), GpuUnavailableError, ["CUDA finds no usable GPU"])


def test_device_by_name(monkeypatch):
    monkeypatch.setattr(gpuconv.backend, "_chosen", None)
    monkeypatch.setattr(cuda_device, "gpu_status", lambda: (False, "CUDA needs CuPy"))
    gpuconv.use("cpu")
    assert gpuconv.default_device() == "cpu"
    _raises(lambda: gpuconv.use("cuda"), GpuUnavailableError, ["CUDA needs CuPy"])
    _raises(lambda: gpuconv.use("tpu"), ConfigError, ['"auto", "cpu" or "cuda"', "'tpu'"])
    _raises(lambda: gpuconv.use(0), ConfigError, ['"auto", "cpu" or "cuda"', "0"])
    assert gpuconv.default_device() == "cpu"  # what failed changed nothing


def test_device_by_environment(monkeypatch):
    monkeypatch.setattr(gpuconv.backend, "_chosen", None)
    monkeypatch.setenv("GPUCONV_DEVICE", "gpu")
    _raises(gpuconv.default_device, ConfigError, ["'gpu'"])
    monkeypatch.setenv("GPUCONV_DEVICE", "auto")
    for usable, expected in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(cuda_device, "gpu_status", lambda usable=usable: (usable, "a reason"))
        assert gpuconv.default_device() == expected


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "99999999"])
def test_number_of_threads_by_environment(value, monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", value)
    _raises(lambda: conv(np.asarray), ConfigError, ["GPUCONV_THREADS", repr(value)])


# Arrays that are written --------------------------------------------------------------------------------------------


def _norm_with(**replaced):
    vectors = {name: zeros(3) for name in ("gamma", "beta", "running_mean", "running_var")}
    return gpuconv.spatial_batchnorm_forward(np.ones((2, 3, 4, 4), "float32"), **{**vectors, **replaced})


def _read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_running_statistics_must_be_writable(name):
    _raises(lambda: _norm_with(**{name: _read_only(zeros(3))}), AliasError, [name, "read-only"])
    shared = np.broadcast_to(np.zeros(1, "float32"), 3)
    _raises(lambda: _norm_with(**{name: shared}), AliasError, [name])
    overlapping = np.lib.stride_tricks.as_strided(zeros(3), (3,), (0,))
    _raises(lambda: _norm_with(**{name: overlapping}), AliasError, [name, "broadcast"])


def test_running_statistics_must_not_share_memory():
    both = zeros(3)
    _raises(lambda: _norm_with(running_mean=both, running_var=both), AliasError, ["running_mean", "running_var"])
    _raises(lambda: _norm_with(gamma=both, running_var=both), AliasError, ["gamma", "running_var"])
    room = zeros(4)
    _raises(
        lambda: _norm_with(running_mean=room[:3], running_var=room[1:]), AliasError, ["running_mean", "running_var"]
    )
    room = zeros(6)
    _norm_with(running_mean=room[:3], running_var=room[3:])  # side by side is apart
    _norm_with(running_mean=room[::2], running_var=room[1::2])  # interleaved too


def test_gamma_and_beta_may_share_memory():
    """Only what is written must lie apart."""
    both = np.ones(3, "float32")
    y, _ = _norm_with(gamma=both, beta=both)
    assert np.array_equal(y, np.ones((2, 3, 4, 4), "float32"))


def test_read_only_statistics_are_fine_in_evaluation():
    still = {name: _read_only(zeros(3)) for name in ("gamma", "beta", "running_mean", "running_var")}
    gpuconv.spatial_batchnorm_forward(zeros(1, 3, 4, 4), **still, training=False)


@pytest.mark.parametrize("update", [row.name for row in OPERATORS.values() if row.writes and not row.has_backward])
def test_updated_vectors_must_be_writable_and_apart(update):
    arrays, call = _arguments(update)
    for name in arrays:
        if name != "dw":
            _raises(lambda name=name: call(**{**arrays, name: _read_only(zeros(5))}), AliasError, [name, "read-only"])
        for other in arrays:
            if other < name:
                both = zeros(5)
                _raises(
                    lambda a=name, b=other, both=both: call(**{**arrays, a: both, b: both}), AliasError, [name, other]
                )
    arrays["dw"] = _read_only(zeros(5))
    call(**arrays)


def test_a_refused_update_changes_nothing(device):
    w, dw, m, v = (device.array(np.arange(1.0, 6.0)) for _ in range(4))
    for options in ({"step": 0}, {"beta1": 1.0}, {"eps": -1.0}, {"lr": float("nan")}, {"decoupled": "yes"}):
        with pytest.raises(GpuconvError):
            gpuconv.adam_update(w, dw, m, v, **{"step": 1, "lr": 0.1, **options})
    for array in (w, dw, m, v):
        assert device.numpy(array).tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("fault", [{"x": (1, 3, 1, 1)}, {"eps": 0.0}, {"gamma": (4,)}], ids=str)
def test_a_refused_batch_norm_changes_no_statistics(fault, device):
    row = OPERATORS["spatial_batchnorm"]
    good = row.good({name: size for name, size in fault.items() if name in row.arrays})
    arrays = {name: device.array(array) for name, array in good.items()}
    before = {name: device.numpy(arrays[name]).copy() for name in row.writes}
    with pytest.raises(GpuconvError):
        row.forward(arrays, row.options_of({name: value for name, value in fault.items() if name not in row.arrays}))
    for name, array in before.items():
        assert np.array_equal(device.numpy(arrays[name]), array)


# Caches -------------------------------------------------------------------------------------------------------------

CACHES = {row.name: row for row, way, _ in _FORWARDS if not way}


def _y_and_cache(op):
    row = OPERATORS[op]
    return row.forward(row.good(), row.options_of({}))


_ONE_CACHE = ({"batchnorm", "spatial_batchnorm"}, {"groupnorm", "layernorm"})  # of rows, of images


@pytest.mark.parametrize(
    ("op", "other"),
    [(op, other) for op in CACHES for other in ("none", "tuple", "dict", "array", *CACHES) if op != other],
)
def test_wrong_cache_is_refused(op, other):
    wrong = {"none": None, "tuple": (zeros(2),), "dict": {}, "array": zeros(2, 3)}
    cache = wrong[other] if other in wrong else _y_and_cache(other)[1]
    dy = np.zeros_like(_y_and_cache(op)[0])
    what = type(cache).__qualname__ if {op, other} not in _ONE_CACHE else "x ("
    words = ["cache must be the one that", f"{op}_forward", what]
    _raises(lambda: OPERATORS[op].backward(dy, cache), CacheError, words)


@pytest.mark.parametrize("op", CACHES)
def test_cache_of_another_batch_is_refused(op):
    y, cache = _y_and_cache(op)
    dy = zeros(y.shape[0] + 1, *y.shape[1:])
    _raises(lambda: OPERATORS[op].backward(dy, cache), ShapeError, ["dy", str(y.shape)])


@pytest.mark.parametrize("op", CACHES)
def test_caches_are_frozen(op):
    _, cache = _y_and_cache(op)
    for field in dataclasses.fields(cache):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(cache, field.name, None)


@pytest.mark.parametrize("op", CACHES)
def test_caches_show_in_a_line(op):
    _, cache = _y_and_cache(op)
    shown = repr(cache)
    assert shown.startswith(f"{type(cache).__name__}(")
    assert len(shown) < 120
    assert "array" not in shown
    assert "\n" not in shown


_SHOWN = {
    "conv": ("ConvCache(x 8x3x32x32, w 16x3x3x3, pad 1)", (8, 3, 32, 32), (16, 3, 3, 3), {"pad": 1}),
    "conv_of_two_strides": (
        "ConvCache(x 2x4x8x8, w 6x2x3x3, stride 2x1, groups 2)",
        *((2, 4, 8, 8), (6, 2, 3, 3), {"stride": (2, 1), "groups": 2}),
    ),
    "conv_of_signals": ("ConvCache(x 2x3x9, w 4x3x3, stride 2)", (2, 3, 9), (4, 3, 3), {"stride": 2}),
    "max_pool": ("MaxPoolCache(ties first, argmax 2x3x4x4, window 2)", (2, 3, 8, 8), None, {}),
    "max_pool_of_signals": (
        "MaxPoolCache(ties first, argmax 2x3x4, window 3, stride 2, pad 1)",
        *((2, 3, 8), None, {"window": (3,), "stride": 2, "pad": 1}),
    ),
}


@pytest.mark.parametrize(("shown", "x", "w", "options"), _SHOWN.values(), ids=_SHOWN.keys())
def test_a_cache_shows_shapes_and_options_that_are_not_the_usual_ones(shown, x, w, options):
    forward = gpuconv.max_pool_forward if w is None else gpuconv.conv_forward
    _, cache = forward(zeros(*x), *([] if w is None else [zeros(*w)]), **options)
    assert repr(cache) == shown


def test_what_is_off_or_not_there_is_not_shown():
    one = np.ones(3, "float32")
    arrays = zeros(2, 3, 4, 4), one, one, one.copy(), one.copy()
    _, cache = gpuconv.spatial_batchnorm_forward(*arrays)
    assert repr(cache) == "BatchNormCache(x 2x3x4x4, gamma 3, mean 3, inv std 3, training)"
    _, cache = gpuconv.spatial_batchnorm_forward(*arrays, training=False)
    assert repr(cache) == "BatchNormCache(x 2x3x4x4, gamma 3, mean 3, inv std 3)"


def _referred(arrays, cache):
    """Return the names of the arrays whose memory a cache refers to."""
    kept = [getattr(cache, field.name) for field in dataclasses.fields(cache)]
    kept = [value for value in kept if isinstance(value, np.ndarray)]
    return {name for name, array in arrays.items() if any(np.shares_memory(array, one) for one in kept)}


@pytest.mark.parametrize(
    ("row", "options"),
    [(row, options) for row, _, options in _FORWARDS],
    ids=[f"{row.name} {way}".strip() for row, way, _ in _FORWARDS],
)
def test_debug_mode_sees_inputs_that_changed_since(row, options, monkeypatch, rng):
    monkeypatch.setenv("GPUCONV_DEBUG", "1")
    arrays = row.good({}, lambda shape, _: rng.uniform(0.5, 2, shape))
    y, cache = row.forward(arrays, row.options_of(options))
    row.backward(np.ones_like(y), cache)  # nothing changed yet
    arrays["y"] = y
    names = _referred(arrays, cache)
    assert options or names == set(row.refers), f"say what the cache refers to in tests/operators.py: {row.name}"
    for name in names:
        flat = arrays[name].reshape(-1)
        before, flat[0] = flat[0], flat[0] + 1
        words = [name, "changed in place between forward and backward"]
        _raises(lambda: row.backward(np.ones_like(y), cache), CacheError, words)
        flat[0] = before
    row.backward(np.ones_like(y), cache)


@pytest.mark.parametrize("value", [-1e-3, float("nan")])
def test_debug_mode_checks_running_variances(value, monkeypatch):
    bad = np.array([1, value, 1], "float32")
    gpuconv.spatial_batchnorm_forward(zeros(2, 3, 4, 4), *(zeros(3) for _ in range(3)), bad, training=False)
    monkeypatch.setenv("GPUCONV_DEBUG", "1")
    _raises(
        lambda: gpuconv.spatial_batchnorm_forward(
            zeros(2, 3, 4, 4), *(zeros(3) for _ in range(3)), bad, training=False
        ),
        ParamError,
        ["running_var has a negative or NaN entry"],
    )


# The family ---------------------------------------------------------------------------------------------------------


def test_every_error_is_of_the_family_and_a_built_in():
    family = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    for error in family:
        assert issubclass(error, GpuconvError)
        assert error.__doc__
        if error is not GpuconvError:
            assert any(base.__module__ == "builtins" and base is not Exception for base in error.__bases__)
    for error, built_in in BUILT_IN.items():
        assert issubclass(error, built_in)


def test_legal_edges_are_not_refused(device):
    """Next to the errors: what a floor, an empty batch, NumPy integers and lists of two give is right."""
    A = device.array
    assert conv(A, x=(0, 3, 8, 8))[0].shape == (0, 4, 6, 6)
    assert conv(A, stride=np.int64(2), pad=np.int8(1), groups=np.uint8(1))[0].shape == (2, 4, 4, 4)
    assert conv(A, stride=[2, 1])[0].shape == (2, 4, 3, 6)
    assert conv(A, stride=2**31 - 1)[0].shape == (2, 4, 1, 1)
    assert conv(A, dilation=(2**31 - 1, 1), w=(4, 3, 1, 3))[0].shape == (2, 4, 8, 6)
    assert pool(A, x=(2, 3, 7, 5))[0].shape == (2, 3, 3, 2)
    assert norm(A, momentum=1, eps=1)[0].shape == (2, 3, 8, 8)
    assert norm(A, eps=0, training=False)[0].shape == (2, 3, 8, 8)
    assert call_of("dropout")(A, rate=np.float32(0.5), seed=np.uint64(2**64 - 1))[0].shape == (2, 3)
