"""Which of the calls that launch every kernel run on every change by CuPy, without a GPU.

One rule: the calls of an operator take the dtypes in turns, and the memory formats in turns, and an operator with fewer
calls than dtypes takes its calls in turns, too.  So each call runs, and each operator meets each dtype and each format.
"""

from tests.ladder.kernel_calls import CALLS, DTYPES, FORMATS

OPERATORS = sorted({call.operator for call in CALLS.values()})
# What a launcher chooses for one dtype or format alone, and the turns leave out.
_MORE = {
    ("adaptive_average_pool", "float32", "NHWC"),
    ("average_pool_dilated", "float32", "NCHW"),
    ("average_pool_real_pixels", "float16", "NHWC"),
    ("average_pool_volumes_dilated", "float32", "NHWC"),
    ("average_pool_volumes_real_pixels", "float16", "NCHW"),
    ("batchnorm_fused_gelu", "float16", "NCHW"),
    ("batchnorm_fused_gelu_after", "float16", "NHWC"),
    ("batchnorm_fused_gelu_tanh", "float16", "NCHW"),
    ("batchnorm_fused_gelu_tanh_after", "float16", "NHWC"),
    ("batchnorm_fused_identity_after", "float32", "NCHW"),
    ("batchnorm_fused_pool", "float16", "NCHW"),
    ("batchnorm_fused_pool_in_packs", "float16", "NHWC"),
    ("batchnorm_fused_pool_relu_odd", "float16", "NHWC"),
    ("batchnorm_fused_relu_before", "float32", "NCHW"),
    ("batchnorm_fused_relu_before_in_packs", "float32", "NHWC"),
    ("batchnorm_stored_moments", "float32", "NCHW"),
    ("batchnorm_stored_moments", "float32", "NHWC"),
    ("conv_in_tiles_odd", "float32", "NHWC"),
    ("conv_large_tiles", "float32", "NCHW"),
    ("conv_large_tiles", "float32", "NHWC"),
    ("conv_many_filters", "float32", "NCHW"),
    ("conv_narrow_tiles", "float16", "NCHW"),
    ("conv_relu", "float16", "NCHW"),
    ("conv_slim_tiles", "float32", "NCHW"),
    ("conv_slim_tiles", "float32", "NHWC"),
    ("conv_tensor_dilated", "float32", "NHWC"),
    ("conv_turned", "float16", "NCHW"),
    ("conv_volumes_in_tiles", "float16", "NHWC"),
    ("conv_volumes_in_tiles_groups", "float32", "NHWC"),
    ("conv_volumes_large_tiles", "float16", "NCHW"),
    ("conv_volumes_narrow_tiles", "float16", "NCHW"),
    ("conv_volumes_narrow_tiles", "float32", "NHWC"),
    ("max_pool_ceil", "float32", "NHWC"),
    ("max_pool_dilated", "float16", "NCHW"),
    ("max_pool_dilated_ties_split", "float32", "NHWC"),
    ("max_pool_large_window", "float32", "NCHW"),
    ("max_pool_ties_every", "float32", "NCHW"),
    ("max_pool_ties_split", "float32", "NHWC"),
    ("max_pool_two_odd_width", "float32", "NCHW"),
    ("max_pool_volumes_dilated", "float32", "NCHW"),
    ("max_pool_volumes_dilated_ties_split", "float32", "NHWC"),
    ("max_pool_volumes_large_window", "float32", "NCHW"),
    ("max_pool_volumes_ties_every", "float32", "NHWC"),
    ("max_pool_volumes_ties_split", "float32", "NCHW"),
    ("upsample", "float32", "NHWC"),
    ("upsample_corners_volumes", "float16", "NCHW"),
    ("upsample_linear_volumes", "float32", "NCHW"),
    ("upsample_volumes", "float32", "NCHW"),
    ("upsample_volumes", "float64", "NCHW"),
}


def _core():
    """Return the (call, dtype, format) that run on every change."""
    chosen = set(_MORE)
    for operator in OPERATORS:
        names = [call.name for call in CALLS.values() if call.operator == operator]
        for turn in range(max(len(names), len(DTYPES))):
            name, dtype = names[turn % len(names)], DTYPES[turn % len(DTYPES)]
            dtypes = CALLS[name].dtypes
            chosen.add((name, dtype if dtype in dtypes else dtypes[0], FORMATS[turn % len(FORMATS)]))
    return chosen


CORE = _core()
