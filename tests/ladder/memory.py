"""Memory: more than there is, and arrays beyond what 32 bits count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from compare import U_SUM
from norm_scales import batchnorm_scales
from places import Cuda

import gpuconv

from .kernel_calls import CALLS, Scaled, assert_as_expected
from .work import Work


def refused(work: Work) -> bool:
    """Ask for more than there is, and see that the next call works and nothing is lost."""
    import cupy

    pool = cupy.get_default_memory_pool()
    x, w = cupy.ones((64, 8, 64, 64), cupy.float32), cupy.ones((256, 8, 3, 3), cupy.float32)
    pool.free_all_blocks()
    used = pool.used_bytes()
    pool.set_limit(size=used + 2**20)
    try:
        gpuconv.conv_forward(x, w)
        work.keep(why="a limited pool gave memory that it does not have")
        return False
    except Exception as error:  # noqa: BLE001 - which one it is, is the result
        name = type(error).__name__
    finally:
        pool.set_limit(size=0)
    call = CALLS["conv_first_layer"]
    assert_as_expected(call.on(Cuda, "float32", "NCHW"), call.expected("float32", "NCHW"))
    kept = pool.used_bytes() - used
    work.keep(raised=name, **{"bytes not given back": kept})
    return "Memory" in name and kept <= 2**20


# Large arrays ---------------------------------------------------------------------------------------------------------


def _above(cupy: Any, count: int) -> None:
    """So many elements: relu and its gradient, at both ends."""
    x = cupy.empty(count, cupy.float16)
    x.fill(-1)
    x[-5:] = cupy.asarray([1, -2, 3, -4, 5], cupy.float16)
    y, cache = gpuconv.relu_forward(x)
    assert y[-5:].get().tolist() == [1, 0, 3, 0, 5]
    assert y[:5].get().tolist() == [0] * 5
    x.fill(2)
    dx = gpuconv.relu_backward(x, cache)
    assert dx[-5:].get().tolist() == [2, 0, 2, 0, 2]


def _images(cupy: Any, shape: tuple[int, int, int, int]) -> None:
    """A large batch of images: depthwise convolution and pooling, in its last corner."""
    C = shape[1]
    x = cupy.zeros(shape, cupy.float16)
    rng = np.random.default_rng(0)
    corner = rng.integers(-4, 5, (C, 8, 8)).astype(np.float16)
    x[-1, :, -8:, -8:] = cupy.asarray(corner)
    y, cache = gpuconv.max_pool_forward(x, window=2)
    expected = corner.reshape(C, 4, 2, 4, 2).max((2, 4))
    np.testing.assert_array_equal(y[-1, :, -4:, -4:].get(), expected)
    del y, cache
    w = cupy.full((C, 1, 1, 1), 3, cupy.float16)
    y, _ = gpuconv.conv_forward(x, w, groups=C)
    np.testing.assert_array_equal(y[-1, :, -8:, -8:].get(), 3 * corner)


def _same_as_cpu(cupy: Any, x_shape: tuple[int, int, int, int], w_shape: tuple[int, int, int, int]) -> None:
    """Run convolution, pooling and batch norm forward and backward beside the CPU backend in float64."""
    rng = np.random.default_rng(0)
    C = x_shape[1]
    x, w = (rng.integers(-2, 3, shape).astype(np.float32) for shape in (x_shape, w_shape))
    upstream = rng.integers(-2, 3, x_shape).astype(np.float32)  # of batch norm, whose gradient of x itself is nothing
    gamma, beta = (rng.standard_normal(C).astype(np.float32) for _ in range(2))

    def run(put: Callable[[np.ndarray], Any]) -> list[Any]:
        pad = 1 if w_shape[2] > 1 else 0
        y, cache = gpuconv.conv_forward(put(x), put(w), pad=pad)
        pooled, pool_cache = gpuconv.max_pool_forward(put(x))
        running = put(np.zeros(C, np.float32)), put(np.ones(C, np.float32))
        normed, norm_cache = gpuconv.spatial_batchnorm_forward(put(x), put(gamma), put(beta), *running)
        results = [y, *gpuconv.conv_backward(y, cache), pooled, gpuconv.max_pool_backward(pooled, pool_cache)]
        return [*results, normed, *gpuconv.spatial_batchnorm_backward(put(upstream), norm_cache), *running]

    expected = run(lambda a: a.astype(np.float64))
    scales = batchnorm_scales(x, gamma, beta, np.zeros(C), np.ones(C), upstream, unit=U_SUM["float32"])
    first = len(expected) - len(scales)  # of batch norm's results; the others are sums of whole numbers
    expected[first:] = [Scaled(values, scale) for values, scale in zip(expected[first:], scales, strict=True)]
    assert_as_expected([got if got is None else got.get() for got in run(cupy.asarray)], expected)


# Case; its sizes, those of a dry run, and bytes of device memory that it needs.
LARGE: dict[str, tuple[Callable[..., None], tuple[Any, ...], tuple[Any, ...], float]] = {
    "relu of 2^31 + 4,099 elements": (_above, (2**31 + 4099,), (4099,), 18e9),
    "pooling and convolution of 2.2e9 elements": (_images, ((33, 64, 1024, 1024),), ((2, 4, 16, 16),), 11e9),
    "131,072 images": (_same_as_cpu, ((131_072, 2, 4, 4), (16, 2, 3, 3)), ((19, 2, 4, 4), (16, 2, 3, 3)), 2e9),
    "100,000 channels": (_same_as_cpu, ((2, 100_000, 2, 2), (1, 100_000, 1, 1)), ((2, 70, 2, 2), (1, 70, 1, 1)), 1e9),
}


def large(work: Work) -> bool | None:
    """Run the cases that fit into the free memory: more elements, images, channels than 32 bits or a grid count."""
    import cupy

    if work.dry:
        work.leave_out("large arrays: the same code on small ones")
    work.keep(cases={})

    def one(name: str) -> None:
        case, sizes, small, needed = LARGE[name]
        cupy.get_default_memory_pool().free_all_blocks()
        free, _ = cupy.cuda.runtime.memGetInfo()
        if not work.dry and free < needed * 1.05:
            work.keep(
                cases=work.found["cases"] | {name: f"not run: {free / 1e9:.0f} of {needed / 1e9:.0f} GB are free"}
            )
            return
        case(cupy, *(small if work.dry else sizes))
        work.keep(cases=work.found["cases"] | {name: "right"})

    return work.each(list(LARGE), one)
