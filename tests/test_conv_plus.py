"""The gradient of a convolution's input plus another array, in one pass where tensor cores make it: the bits are those of two."""

import numpy as np
import pytest
from compare import assert_same_bits, normal
from pairs import DTYPES, GPUS, STORED, pairs
from places import LAYOUTS

from gpuconv import backend, conv_forward
from gpuconv.ops import batchnorm_fused
from gpuconv.ops.conv import conv_backward_into

CASES = {
    "several_tiles": ((2, 72, 9, 10), (16, 72, 3, 3), {"pad": 1}),
    "phases_without_taps": ((2, 16, 7, 6), (16, 16, 1, 1), {"stride": 2}),
    "phases_of_other_sizes": ((2, 24, 7, 6), (16, 24, 3, 3), {"stride": 2, "pad": 1}),
    "groups": ((2, 32, 4, 5), (32, 16, 3, 3), {"groups": 2}),
    "channels_that_are_no_chunks": ((2, 20, 4, 5), (16, 20, 3, 3), {}),
    "no_tensor_cores": ((2, 3, 5, 4), (4, 3, 3, 3), {}),
}


def _mask_of(x, place, rng):
    """Return where batch norm and ReLU of an array are above 0."""
    C, dtype = x.shape[1], x.dtype
    vectors = [place.array(array.astype(dtype)) for array in (np.ones(C), normal(rng, C), np.zeros(C), np.ones(C))]
    settings = {"training": True, "momentum": 0.9, "eps": 1e-5, "activation": "relu"}
    return batchnorm_fused.fused_forward(x, *vectors, **settings)[1].told


@pairs(case=CASES, gpu=GPUS, dtype=DTYPES, memory=STORED, masked=(False, True))
def test_a_sum_in_the_same_pass_has_the_bits_of_two(case, gpu, dtype, memory, masked, rng):
    shape, filters, geometry = case
    x, plus = (gpu.array(LAYOUTS[memory](normal(rng, shape, dtype=dtype))) for _ in range(2))
    w = gpu.array(normal(rng, filters, dtype=dtype))
    y, cache = conv_forward(x, w, **geometry)
    dy = gpu.array(normal(rng, tuple(y.shape), dtype=dtype))
    mask = _mask_of(plus, gpu, rng) if masked else None
    dx = conv_backward_into(dy, cache, None, None)
    both = conv_backward_into(dy, cache, None, None, plus=plus, mask=mask)
    parts = backend.add(dx, plus) if mask is None else batchnorm_fused.joined(plus, mask, dx)
    assert_same_bits(gpu.numpy(both), gpu.numpy(parts))


@pytest.mark.parametrize("masked", [False, True])
@pairs(gpu=GPUS, dtype=("float16", "float32"))
def test_infinite_filters_leave_the_sum_what_it_is(gpu, dtype, masked, rng):
    x, plus = (gpu.array(LAYOUTS["channels_last"](normal(rng, (1, 16, 5, 6), dtype=dtype))) for _ in range(2))
    filters = normal(rng, (16, 16, 3, 3), dtype=dtype)
    filters[3, 2, 0, 1] = np.inf
    y, cache = conv_forward(x, gpu.array(filters), pad=1)
    dy = gpu.array(np.abs(normal(rng, tuple(y.shape), dtype=dtype)))
    mask = _mask_of(plus, gpu, rng) if masked else None
    dx = conv_backward_into(dy, cache, None, None)
    both = conv_backward_into(dy, cache, None, None, plus=plus, mask=mask)
    parts = backend.add(dx, plus) if mask is None else batchnorm_fused.joined(plus, mask, dx)
    assert np.isinf(gpu.numpy(dx)).any()
    np.testing.assert_array_equal(gpu.numpy(both), gpu.numpy(parts))


@pairs(gpu=GPUS)
def test_an_array_that_begins_anywhere_is_added(gpu, rng):
    x = gpu.array(LAYOUTS["channels_last"](normal(rng, (1, 16, 4, 4), dtype="float16")))
    w = gpu.array(normal(rng, (16, 16, 3, 3), dtype="float16"))
    flat = gpu.array(normal(rng, 16 * 16 + 1, dtype="float16"))
    plus = flat[1:].reshape(1, 4, 4, 16).transpose(0, 3, 1, 2)
    y, cache = conv_forward(x, w, pad=1)
    dy = gpu.array(normal(rng, tuple(y.shape), dtype="float16"))
    both = conv_backward_into(dy, cache, None, None, plus=plus)
    dx = conv_backward_into(dy, cache, None, None)
    assert_same_bits(gpu.numpy(both), gpu.numpy(backend.add(dx, plus)))
