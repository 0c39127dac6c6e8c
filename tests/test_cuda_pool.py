"""Which kernel a pooling runs on, and the kernels for large and for unaligned arrays."""

import numpy as np
import pytest
from compare import assert_same, whole
from test_cuda_conv import channels_last, each_format, off_by_one
from test_max_pool import CASES

import gpuconv
from gpuconv import naive
from gpuconv.cuda import average_pool, max_pool
from gpuconv.cuda.layout import INT64
from gpuconv.pool_shapes import pool_sizes

FLOAT16, FLOAT32, FLOAT64 = (np.dtype(name) for name in ("float16", "float32", "float64"))


def sizes(shape, options):
    return pool_sizes(np.empty(shape), **{"window": 2, "stride": None, "pad": 0, **options})


HALVING = {  # shape, options, dtype, channels-last -> the kernel for 2 x 2 windows side by side
    "rows_of_16_bytes": ((2, 3, 6, 8), {}, FLOAT32, False, True),
    "odd_rows": ((2, 3, 7, 8), {}, FLOAT32, False, True),
    "rows_of_24_bytes": ((2, 3, 6, 6), {}, FLOAT32, False, False),
    "the_same_in_float64": ((2, 3, 6, 6), {}, FLOAT64, False, True),
    "rows_of_8_halves": ((2, 3, 6, 8), {}, FLOAT16, False, True),
    "rows_of_4_halves": ((2, 3, 6, 4), {}, FLOAT16, False, False),
    "channels_last": ((2, 3, 6, 8), {}, FLOAT32, True, False),
    "overlapping": ((2, 3, 6, 8), {"stride": 1}, FLOAT32, False, False),
    "padded": ((2, 3, 6, 8), {"pad": 1}, FLOAT32, False, False),
    "a_row_more_by_ceil": ((2, 3, 7, 8), {"ceil": True}, FLOAT32, False, False),
    "ceil_adds_nothing": ((2, 3, 6, 8), {"ceil": True}, FLOAT32, False, True),
    "padding_behind_that_no_window_reaches": ((2, 3, 6, 8), {"pad": (0, (0, 1))}, FLOAT32, False, True),
    "padded_behind_to_a_column_more": ((2, 3, 7, 8), {"pad": ((0, 1), 0)}, FLOAT32, False, False),
    "dilated": ((2, 3, 6, 8), {"dilation": 2}, FLOAT32, False, False),
    "larger_window": ((2, 3, 6, 8), {"window": 3, "stride": 2}, FLOAT32, False, False),
}


@pytest.mark.parametrize(("shape", "options", "dtype", "last", "halves"), HALVING.values(), ids=HALVING.keys())
def test_rule(shape, options, dtype, last, halves):
    assert max_pool._halves(sizes(shape, options), dtype, channels_last=last) == halves


@pytest.mark.parametrize("name", ["asymmetric_pairs", "overlapping_with_pad", "stride_drops_last_column", "halving"])
@each_format
def test_64_bit_indices(name, stored, gpu, rng, monkeypatch):
    """The kernels for arrays of 2^31 elements, on small ones."""
    for module in (max_pool, average_pool):
        monkeypatch.setattr(module, "pool_index", lambda z: INT64)
    shape, options = CASES[name]
    z = sizes(shape, options)
    x, dy = whole(rng, shape, "float32"), whole(rng, (z.N, z.C, z.P, z.Q), "float32")
    arrange = channels_last if stored == "channels_last" else np.asarray
    y, cache = gpuconv.max_pool_forward(gpu.array(arrange(x)), **options)
    expected, places = naive.max_pool_forward(x, z)
    assert_same(gpu.numpy(y), expected, dtype="float32")
    np.testing.assert_array_equal(gpu.numpy(cache.argmax), places)
    dx = gpu.numpy(gpuconv.max_pool_backward(gpu.array(arrange(dy)), cache))
    assert_same(dx, naive.max_pool_backward(dy, places, z), dtype="float32")
    y, cache = gpuconv.average_pool_forward(gpu.array(arrange(x)), window=2, stride=(2, 1), pad=(1, 0))
    z = cache.sizes
    assert_same(gpu.numpy(y), naive.average_pool_forward(x, z, count_pad=True), dtype="float32")
    dy = whole(rng, y.shape, "float32")
    dx = gpu.numpy(gpuconv.average_pool_backward(gpu.array(arrange(dy)), cache))
    assert_same(dx, naive.average_pool_backward(dy, z, count_pad=True), dtype="float32")


@pytest.mark.parametrize(("width", "bits"), [(2**31 - 8, 32), (2**31 - 1, 64)])
def test_64_bit_indices_only_where_needed(width, bits):
    z = pool_sizes(np.broadcast_to(np.float32(0), (1, 1, 1, width)), window=(1, 2), stride=(1, 2), pad=0)
    assert max_pool.pool_index(z).itemsize == bits // 8


@pytest.mark.parametrize("shape", [(2, 8, 6, 8), (1, 3, 5, 8)], ids=["packs", "odd"])
@each_format
def test_views_that_start_anywhere(shape, stored, gpu, dtype, rng):
    """An address that is no multiple of 16 bytes: packs must be read number by number."""
    z = sizes(shape, {})
    x, dy = whole(rng, shape, dtype), whole(rng, (z.N, z.C, z.P, z.Q), dtype)
    x_view, dy_view = (off_by_one(gpu, a, stored) for a in (x, dy))
    y, cache = gpuconv.max_pool_forward(x_view)
    expected, places = naive.max_pool_forward(x, z)
    assert_same(gpu.numpy(y), expected, dtype=dtype)
    assert_same(
        gpu.numpy(gpuconv.max_pool_backward(dy_view, cache)), naive.max_pool_backward(dy, places, z), dtype=dtype
    )
    y, cache = gpuconv.average_pool_forward(x_view)
    assert_same(gpu.numpy(y), naive.average_pool_forward(x, z, count_pad=True), dtype=dtype)
    dx = gpu.numpy(gpuconv.average_pool_backward(dy_view, cache))
    assert_same(dx, naive.average_pool_backward(dy, z, count_pad=True), dtype=dtype)
