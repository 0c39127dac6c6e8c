"""The operators of a training step, captured once by CuPy and replayed: the numbers of a run that was not captured."""

import numpy as np
import pytest
from compare import assert_same_bits
from places import GPU, LAYOUTS

import gpuconv

pytestmark = pytest.mark.core

N, C, H, W, K = 2, 16, 6, 8, 16


def _step(x, w, gamma, beta, running_mean, running_var, dy):
    """Return what convolution, batch norm, ReLU and pool come to, forward and backward."""
    image, conv = gpuconv.conv_forward(x, w, pad=1)
    normal, norm = gpuconv.spatial_batchnorm_forward(image, gamma, beta, running_mean, running_var)
    active, relu = gpuconv.relu_forward(normal)
    y, pool = gpuconv.max_pool_forward(active)
    dactive = gpuconv.max_pool_backward(dy, pool)
    dimage, dgamma, dbeta = gpuconv.spatial_batchnorm_backward(gpuconv.relu_backward(dactive, relu), norm)
    dx, dw, _ = gpuconv.conv_backward(dimage, conv)
    return [y, dx, dw, dgamma, dbeta, running_mean, running_var]


def _numbers(seed, dtype, layout):
    rng = np.random.default_rng(seed)
    vectors = "float32" if dtype == "float16" else dtype
    images = [(N, C, H, W), (K, C, 3, 3), (N, K, H // 2, W // 2)]
    x, w, dy = (layout(rng.standard_normal(shape).astype(dtype)) for shape in images)
    return [x, w, *(rng.random(K).astype(vectors) + 0.5 for _ in range(4)), dy]


@pytest.mark.parametrize("gpu", [GPU], indirect=True)
@pytest.mark.parametrize("layout", ["c_order", "channels_last"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_replay_is_the_step_that_was_not_captured(dtype, layout, gpu):
    """With other numbers than those that were there when it was captured, and nothing allocated."""
    import cupy

    layout = LAYOUTS[layout]
    eager = {}
    for seed in (1, 2):
        eager[seed] = [gpu.numpy(array) for array in _step(*map(gpu.array, _numbers(seed, dtype, layout)))]
    pool = cupy.cuda.MemoryPool()  # of the graph's own: what it works on is handed to nobody else
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream, cupy.cuda.using_allocator(pool.malloc):
        inputs = [gpu.array(array) for array in _numbers(0, dtype, layout)]
        _step(*inputs)  # what is compiled at the first call is so now
        stream.begin_capture()
        results = _step(*inputs)
        graph = stream.end_capture()
        held = pool.used_bytes()
        for seed in (1, 2, 1):
            for array, host in zip(inputs, _numbers(seed, dtype, layout), strict=True):
                array[...] = cupy.asarray(host)
            before = pool.total_bytes()
            graph.launch(stream)
            assert pool.total_bytes() == before
            for found, expected in zip(results, eager[seed], strict=True):
                assert_same_bits(gpu.numpy(found), expected)
        assert pool.used_bytes() == held
