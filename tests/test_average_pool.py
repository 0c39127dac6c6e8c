"""Average pooling, over windows and whole images, forward and backward."""

import math

import numpy as np
import pytest
from compare import absolute, assert_close, assert_same, normal, whole
from hypothesis import given
from hypothesis import strategies as st
from pairs import DEVICES, DTYPES, STORED, pairs
from places import LAYOUTS
from test_max_pool import BY_PYTORCH, CASES, poolings

import gpuconv
from gpuconv import naive
from gpuconv.pool_shapes import pool_sizes
from gpuconv.shapes import is_channels_last

COUNT_PAD = {"count_pad": True, "real_pixels": False}


def _channels_last(a):
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def _sizes(x, options):
    return pool_sizes(x, **{"window": 2, "stride": None, "pad": 0, **options})


def _computed(device, x, dy, options):
    before = x.copy(), dy.copy()
    dev_x, dev_dy = device.array(x), device.array(dy)
    y, cache = gpuconv.average_pool_forward(dev_x, **options)
    dx = gpuconv.average_pool_backward(dev_dy, cache)
    for array, copy in zip((dev_x, dev_dy), before, strict=True):
        np.testing.assert_array_equal(device.numpy(array), copy, "an input was changed")
    return device.numpy(y), device.numpy(dx)


@pairs(case=CASES, count_pad=COUNT_PAD, stored=STORED, device=DEVICES, dtype=DTYPES)
@pytest.mark.usefixtures("poisoned_memory")
def test_matches_oracle(case, count_pad, stored, device, dtype, rng):
    shape, options = case
    x = normal(rng, shape, dtype)
    z = _sizes(x, options)
    dy = normal(rng, (z.N, z.C, z.P, z.Q), dtype)
    arrays = (_channels_last(x), _channels_last(dy)) if stored == "channels_last" else (x, dy)
    y, dx = _computed(device, *arrays, {**options, "count_pad": count_pad})
    forward, backward = naive.average_pool_forward, naive.average_pool_backward
    (size_x,), (size_dy,) = absolute(x), absolute(dy)
    ref, scale = (forward(a, z, count_pad=count_pad) for a in (x, size_x))
    assert_close(y, ref, scale=scale, dtype=dtype, terms=z.R * z.S)
    ref, scale = (backward(a, z, count_pad=count_pad) for a in (dy, size_dy))
    assert_close(dx, ref, scale=scale, dtype=dtype, terms=z.R * z.S)


@pytest.mark.parametrize("options", [{}, {"window": 4, "stride": 2, "pad": 1}], ids=str)
def test_any_memory_layout(layout, options, device, rng):
    """Windows of a power of two divide integers exactly: bit-equal results."""
    x = whole(rng, (2, 4, 6, 7))
    z = _sizes(x, options)
    dy = whole(rng, (2, 4, z.P, z.Q))
    expected = naive.average_pool_forward(x, z, count_pad=True), naive.average_pool_backward(dy, z, count_pad=True)
    for arrays in ((layout(x), dy), (x, layout(dy)), (layout(x), layout(dy))):
        y, dx = _computed(device, *arrays, options)
        assert_same(y, expected[0])
        assert_same(dx, expected[1])
        assert is_channels_last(y) == is_channels_last(arrays[0])
        assert is_channels_last(dx) == is_channels_last(arrays[1])


@given(poolings(), st.integers(0, 2**32), st.booleans())
def test_backward_is_the_adjoint(device, case, seed, count_pad):
    """<dy, pool(x)> = <dx, x>, and without padding every gradient is shared out whole.

    Every term of either inner product is rounded a few times, so the two agree to 16 u of the sum of their sizes.
    """
    rng = np.random.default_rng(seed)
    shape, options = case
    x = normal(rng, shape)
    z = _sizes(x, options)
    dy = normal(rng, (z.N, z.C, z.P, z.Q))
    y, dx = _computed(device, x, dy, {**options, "count_pad": count_pad})
    size = np.vdot(*absolute(dy, naive.average_pool_forward(np.abs(x), z, count_pad=count_pad)))
    assert abs(np.vdot(dy, y) - np.vdot(dx, x)) <= 16 * 2.0**-53 * size
    if not count_pad or z.pad == z.behind == (0, 0):
        assert abs(dx.sum() - dy.sum()) <= (8 + dx.size) * 2.0**-53 * np.abs(dy).sum()


@pytest.mark.large
@pytest.mark.parametrize("count_pad", [True, False])
@pytest.mark.parametrize(
    ("shape", "options"),
    [((4, 64, 17, 17), {}), ((2, 33, 28, 28), {"window": 3, "stride": 2, "pad": 1})],
    ids=["halving", "overlapping_with_pad"],
)
def test_layers_of_real_nets_match_pytorch(shape, options, count_pad, device, dtype, rng):
    torch = pytest.importorskip("torch")
    x = normal(rng, shape, dtype)
    z = _sizes(x, options)
    dy = normal(rng, (z.N, z.C, z.P, z.Q), dtype)

    def by_torch(x, dy):
        t = torch.from_numpy(x.astype(np.float64)).requires_grad_()
        y = torch.nn.functional.avg_pool2d(t, (z.R, z.S), z.stride, z.pad, count_include_pad=count_pad)
        return y.detach().numpy(), torch.autograd.grad(y, t, torch.from_numpy(dy.astype(np.float64)))[0].numpy()

    refs, scales = by_torch(x, dy), by_torch(*absolute(x, dy))
    for actual, ref, scale in zip(
        _computed(device, x, dy, {**options, "count_pad": count_pad}), refs, scales, strict=True
    ):
        assert_close(actual, ref, scale=scale, dtype=dtype)


@pytest.mark.parametrize("count_pad", [True, False])
@pytest.mark.parametrize("name", [name for name, (_, options) in BY_PYTORCH.items() if "dilation" not in options])
def test_the_oracle_of_odd_windows_is_pytorchs(name, count_pad, rng):
    torch = pytest.importorskip("torch")
    shape, options = BY_PYTORCH[name]
    x = normal(rng, shape, "float64")
    z = _sizes(x, options)
    dy = normal(rng, z.out, "float64")
    t = torch.from_numpy(x).requires_grad_()
    y = torch.nn.functional.avg_pool2d(t, z.window, z.stride, z.pad, ceil_mode=True, count_include_pad=count_pad)
    (dx,) = torch.autograd.grad(y, t, torch.from_numpy(dy))
    ours = (
        naive.average_pool_forward(x, z, count_pad=count_pad),
        naive.average_pool_backward(dy, z, count_pad=count_pad),
    )
    for actual, theirs in zip(ours, (y.detach(), dx), strict=True):
        np.testing.assert_allclose(actual, theirs.numpy(), rtol=1e-12, atol=1e-12)


def test_padding_of_one_side_counts_on_that_side(device):
    """A window of 3 over (0) 1 1 1 (0), and one that ceil adds, of which one tap lies behind the padding."""
    x = device.array(np.ones((1, 1, 3)))
    for pad, expected in {0: [1], (1, 0): [2 / 3, 1], (0, 1): [1, 1 / 2], (1, 1): [2 / 3, 2 / 3]}.items():
        y, _ = gpuconv.average_pool_forward(x, window=(3,), stride=2, pad=(pad,), ceil=True)
        assert device.numpy(y)[0, 0].tolist() == pytest.approx(expected, abs=1e-15), pad


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_reach_their_windows_only(value, device, dtype, rng):
    x = whole(rng, (2, 2, 6, 6), dtype)
    z = _sizes(x, {"window": 3, "stride": 1, "pad": 1})
    dy = whole(rng, (2, 2, 6, 6), dtype)
    x[0, 1, 0, 3] = dy[1, 0, 5, 5] = value
    y, dx = _computed(device, x, dy, {"window": 3, "stride": 1, "pad": 1})
    for actual, ref, hit in (
        (y, naive.average_pool_forward(x, z, count_pad=True), 6),
        (dx, naive.average_pool_backward(dy, z, count_pad=True), 4),
    ):
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(ref))
        np.testing.assert_array_equal(np.isinf(actual), np.isinf(ref))
        assert (~np.isfinite(actual)).sum() == hit


def test_float16_sums_do_not_overflow_on_the_way(device):
    x = np.full((1, 1, 256, 256), 256, np.float16)
    y, cache = gpuconv.average_pool_forward(device.array(x), window=256)
    assert_same(device.numpy(y), np.full((1, 1, 1, 1), 256, np.float16))
    assert np.isfinite(device.numpy(gpuconv.average_pool_backward(y, cache))).all()
    y, _ = gpuconv.global_average_pool_forward(device.array(x))
    assert_same(device.numpy(y), np.full((1, 1), 256, np.float16))


@pytest.mark.large
def test_same_bits_for_any_number_of_threads(device, rng, monkeypatch):
    x, dy = normal(rng, (50, 16, 20, 20), "float32"), normal(rng, (50, 16, 10, 10), "float32")
    runs = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        runs.append([a.tobytes() for a in _computed(device, x, dy, {"window": 3, "stride": 2, "pad": 1})])
    assert runs[0] == runs[1] == runs[2]


def test_cache_does_not_hold_the_output(device):
    """A cache of sizes costs nothing: the memory of y goes when y goes."""
    y, cache = gpuconv.average_pool_forward(device.array(np.ones((2, 3, 8, 8))))
    assert not np.may_share_memory(device.numpy(cache.like), device.numpy(y))
    assert cache.like.base is None


# Whole images -------------------------------------------------------------------------------------------------------

IMAGES = {
    "one_pixel": (2, 3, 1, 1),
    "empty_batch": (0, 3, 4, 4),
    "primes": (3, 5, 7, 11),
    "one_row": (2, 3, 1, 9),
    "one_channel": (3, 1, 6, 6),
    "end_of_a_net": (2, 64, 8, 8),
    "signals": (3, 5, 9),
    "volumes": (2, 3, 4, 3, 5),
    "one_channel_of_volumes": (2, 1, 2, 3, 3),
    "empty_batch_of_volumes": (0, 3, 2, 4, 4),
}


@pairs(
    shape=IMAGES,
    make={"random": normal, "positive": lambda rng, shape, dtype: rng.uniform(0, 1, shape).astype(dtype)},
    layout=LAYOUTS,
    device=DEVICES,
    dtype=DTYPES,
)
def test_global_average_matches_oracle(shape, make, layout, device, dtype, rng):
    x, dy = make(rng, shape, dtype), make(rng, shape[:2], dtype)
    view = layout(x)
    y, cache = gpuconv.global_average_pool_forward(device.array(view))
    dx = device.numpy(gpuconv.global_average_pool_backward(device.array(dy), cache))
    pixels = math.prod(shape[2:])
    images = x.reshape(*shape[:2], pixels, 1)
    ref, scale = map(naive.global_average_pool_forward, (images, *absolute(images)))
    assert_close(device.numpy(y), ref, scale=scale, dtype=dtype, terms=pixels, zero_mean=make is normal)
    ref = naive.global_average_pool_backward(dy, images.shape, channels_last=False).reshape(shape)
    assert_close(dx, ref, scale=np.abs(ref), dtype=dtype, c=1)
    if pixels > 1 and len(shape) > 3:  # of a single pixel the two formats are one
        assert is_channels_last(dx) == is_channels_last(view)
    np.testing.assert_array_equal(view, x)


def test_global_average_of_nan_and_infinity(device, dtype):
    x = np.ones((2, 3, 4, 4), dtype)
    x[0, 1, 2, 3], x[1, 0, 0, 0], x[1, 2, 0, :2] = np.nan, np.inf, (np.inf, -np.inf)
    y, _ = gpuconv.global_average_pool_forward(device.array(x))
    assert_same(device.numpy(y), [[1, np.nan, 1], [np.inf, 1, np.nan]], dtype=dtype)
