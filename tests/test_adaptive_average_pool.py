"""Average pooling to a size: held to the oracle, which is held to PyTorch, and to the pools that it is where windows are even."""

import math

import numpy as np
import pytest
from compare import absolute, assert_close, assert_same, normal, whole
from hypothesis import given
from hypothesis import strategies as st
from pairs import DEVICES, DTYPES, STORED, pairs
from places import LAYOUTS

import gpuconv
from gpuconv import naive
from gpuconv.cuda import adaptive_average_pool
from gpuconv.cuda.layout import INT64
from gpuconv.errors import ShapeError
from gpuconv.pool_shapes import adaptive_sizes
from gpuconv.shapes import as_image, is_channels_last, with_axes_of

# why the case exists: (x, size)
CASES = {
    "one_pixel": ((1, 1, 1, 1), 1),
    "empty_batch": ((0, 3, 5, 4), 3),
    "windows_that_share_rows": ((2, 3, 7, 5), (3, 4)),
    "windows_of_two_sizes": ((2, 3, 5, 8), (3, 5)),
    "one_axis_kept": ((2, 3, 7, 5), (None, 3)),
    "one_axis_even": ((2, 3, 6, 5), (3, 2)),
    "more_rows_than_there_are": ((2, 3, 3, 5), (7, 3)),
    "many_more_of_both": ((1, 2, 2, 3), (9, 11)),
    "one_row_for_all": ((2, 3, 6, 5), (1, 2)),
    "even_windows": ((2, 3, 6, 8), (3, 2)),
    "every_pixel_twice": ((2, 3, 2, 3), (4, 6)),
    "as_it_is": ((2, 3, 4, 5), (None, None)),
    "whole_image": ((2, 3, 4, 5), 1),
    "packs_of_channels": ((2, 16, 5, 7), (3, 4)),
    "one_channel": ((3, 1, 7, 6), (4, 5)),
    "windows_of_more_than_64_rows": ((1, 2, 140, 3), (2, 2)),
    "unevenly_more_than_64_rows": ((1, 2, 141, 3), (2, 2)),
    "windows_of_more_than_64_columns": ((1, 2, 3, 141), (2, 2)),
    "more_than_64_windows_over_a_pixel": ((1, 1, 2, 2), (141, 3)),
    "more_than_64_windows_over_a_column": ((1, 2, 2, 2), (3, 141)),
    "many_small_images": ((67, 2, 3, 3), 2),
    "signal": ((2, 3, 11), (4,)),
    "even_signal": ((2, 3, 12), (4,)),
    "whole_signal": ((2, 3, 11), (1,)),
    "volume": ((2, 3, 4, 5, 7), (3, 2, 4)),
    "volume_of_kept_planes": ((2, 3, 4, 5, 3), (None, 2, 2)),
    "volume_with_more_planes": ((1, 3, 2, 5, 3), (3, 2, 5)),
    "even_volume": ((2, 3, 4, 6, 2), (2, 3, 1)),
    "whole_volume": ((2, 3, 4, 3, 2), 1),
}


def _stored(array, stored):
    return LAYOUTS["channels_last"](array) if stored == "channels_last" and array.ndim > 3 else array


def _oracle(x, dy, size):
    """Return y and dx by the definition."""
    z = adaptive_sizes(x, size)
    y = naive.adaptive_average_pool_forward(as_image(x), z)
    return with_axes_of(x, y), with_axes_of(x, naive.adaptive_average_pool_backward(as_image(dy), z))


def _computed(device, x, dy, size):
    before = x.copy(), dy.copy()
    dev_x, dev_dy = device.array(x), device.array(dy)
    y, cache = gpuconv.adaptive_average_pool_forward(dev_x, size)
    dx = gpuconv.adaptive_average_pool_backward(dev_dy, cache)
    for array, copy in zip((dev_x, dev_dy), before, strict=True):
        np.testing.assert_array_equal(device.numpy(array), copy, "an input was changed")
    return device.numpy(y), device.numpy(dx)


def _drawn(make, rng, shape, size, dtype):
    """Return x and dy of a call."""
    x = make(rng, shape, dtype)
    z = adaptive_sizes(x, size)
    return x, make(rng, (*shape[:2], *z.out[2:][-(len(shape) - 2) :]), dtype)


def _terms(x, size):
    """Return the most terms of a sum of y, and of dx."""
    z = adaptive_sizes(x, size)
    ratios = [(n / p, p / n) for n, p in zip(z.image[2:], z.out[2:], strict=True)]
    return [math.prod(math.ceil(ratio) + (ratio % 1 > 0) for ratio in each) for each in zip(*ratios, strict=True)]


def _positive(rng, shape, dtype):
    return rng.uniform(0, 1, shape).astype(dtype)


@pairs(case=CASES, make={"normal": normal, "positive": _positive}, stored=STORED, device=DEVICES, dtype=DTYPES)
@pytest.mark.usefixtures("poisoned_memory")
def test_matches_oracle(case, make, stored, device, dtype, rng):
    shape, size = case
    x, dy = _drawn(make, rng, shape, size, dtype)
    results = _computed(device, _stored(x, stored), _stored(dy, stored), size)
    scales = _oracle(*absolute(x, dy), size)
    for actual, ref, scale, terms in zip(results, _oracle(x, dy, size), scales, _terms(x, size), strict=True):
        assert_close(actual, ref, scale=scale, dtype=dtype, terms=terms, zero_mean=make is normal)


EXACT = {"sharing": ((2, 4, 5, 7), (4, 6)), "sharing_and_more": ((2, 4, 3, 4), (2, 8)), "even": ((2, 4, 4, 6), (2, 3))}


@pytest.mark.parametrize(("shape", "size"), EXACT.values(), ids=EXACT)
def test_any_memory_layout(layout, shape, size, device, rng):
    """Windows of one, two and four pixels divide whole numbers exactly: bit-equal results."""
    x, dy = _drawn(whole, rng, shape, size, "float64")
    expected = _oracle(x, dy, size)
    for arrays in ((layout(x), dy), (x, layout(dy)), (layout(x), layout(dy))):
        y, dx = _computed(device, *arrays, size)
        assert_same(y, expected[0])
        assert_same(dx, expected[1])
        assert is_channels_last(y) == is_channels_last(arrays[0])
        assert is_channels_last(dx) == is_channels_last(arrays[1])


@pytest.mark.parametrize("shape", [(2, 4, 5, 6), (2, 4, 3, 4, 5)], ids=["images", "volumes"])
def test_the_gradient_of_one_window_has_the_format_of_the_images(shape, device, rng):
    """A gradient of one pixel has both formats."""
    for layout in ("c_order", "channels_last"):
        x = LAYOUTS[layout](normal(rng, shape))
        y, cache = gpuconv.adaptive_average_pool_forward(device.array(x), 1)
        dx = device.numpy(gpuconv.adaptive_average_pool_backward(y, cache))
        assert is_channels_last(dx) == (layout == "channels_last")


@st.composite
def poolings(draw):
    """Return a shape and a size, of one to three axes."""
    axes = draw(st.integers(1, 3))
    pixels = draw(st.lists(st.integers(1, 9), min_size=axes, max_size=axes))
    size = draw(st.lists(st.none() | st.integers(1, 12), min_size=axes, max_size=axes))
    return (draw(st.integers(1, 2)), draw(st.sampled_from([1, 3, 4])), *pixels), tuple(size)


@given(poolings(), st.integers(0, 2**32))
def test_backward_is_the_adjoint(device, case, seed):
    """<dy, pool(x)> = <dx, x>, and every gradient is shared out whole.

    Every term of either inner product is rounded a few times on each axis, so the two agree to 32 u of their sizes.
    """
    rng, (shape, size) = np.random.default_rng(seed), case
    x, dy = _drawn(normal, rng, shape, size, "float64")
    y, dx = _computed(device, x, dy, size)
    scale = np.vdot(np.abs(dy), _oracle(*absolute(x, dy), size)[0])
    assert abs(np.vdot(dy, y) - np.vdot(dx, x)) <= 32 * 2.0**-53 * scale
    assert abs(dx.sum() - dy.sum()) <= (32 + dx.size) * 2.0**-53 * np.abs(dy).sum()


@pytest.mark.parametrize("name", [name for name in CASES if name != "empty_batch"])
def test_the_oracle_is_pytorchs(name, rng):
    torch = pytest.importorskip("torch")
    shape, size = CASES[name]
    x, dy = _drawn(normal, rng, shape, size, "float64")
    pool = getattr(torch.nn.functional, f"adaptive_avg_pool{len(shape) - 2}d")
    t = torch.from_numpy(x).requires_grad_()
    y = pool(t, size)
    (dx,) = torch.autograd.grad(y, t, torch.from_numpy(dy))
    for actual, theirs in zip(_oracle(x, dy, size), (y.detach(), dx), strict=True):
        np.testing.assert_allclose(actual, theirs.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.large
@pytest.mark.parametrize(("shape", "size"), [((4, 64, 13, 13), 6), ((2, 33, 20, 31), (7, 7))], ids=str)
def test_layers_of_real_nets_match_pytorch(shape, size, device, dtype, rng):
    torch = pytest.importorskip("torch")
    x, dy = _drawn(normal, rng, shape, size, dtype)

    def by_torch(x, dy):
        t = torch.from_numpy(x.astype(np.float64)).requires_grad_()
        y = torch.nn.functional.adaptive_avg_pool2d(t, size)
        return y.detach().numpy(), torch.autograd.grad(y, t, torch.from_numpy(dy.astype(np.float64)))[0].numpy()

    refs, scales = by_torch(x, dy), by_torch(*absolute(x, dy))
    for actual, ref, scale in zip(_computed(device, x, dy, size), refs, scales, strict=True):
        assert_close(actual, ref, scale=scale, dtype=dtype)


def test_windows_are_pytorchs(device):
    """Of 5 pixels, 3 windows have 0 1, 1 2 3 and 3 4; 7 windows 0, 0 1, 1 2, 2, 2 3, 3 4, 4."""
    x = device.array(2.0 ** np.arange(5).reshape(1, 1, 5))
    for size, means in {3: [3 / 2, 14 / 3, 12], 7: [1, 3 / 2, 3, 4, 6, 12, 16]}.items():
        y, _ = gpuconv.adaptive_average_pool_forward(x, (size,))
        assert device.numpy(y)[0, 0].tolist() == pytest.approx(means, rel=1e-15)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_reach_their_windows_only(value, device, dtype, rng):
    x, dy = _drawn(whole, rng, (2, 2, 7, 5), (3, 4), dtype)
    x[0, 1, 2, 3] = dy[1, 0, 2, 1] = value  # under two windows down and two across; over 3 x 2 pixels
    for actual, ref, hit in zip(_computed(device, x, dy, (3, 4)), _oracle(x, dy, (3, 4)), (4, 6), strict=True):
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(ref))
        np.testing.assert_array_equal(np.isinf(actual), np.isinf(ref))
        assert (~np.isfinite(actual)).sum() == hit


def test_float16_sums_do_not_overflow_on_the_way(device):
    x = np.full((1, 1, 255, 127), 512, np.float16)
    y, cache = gpuconv.adaptive_average_pool_forward(device.array(x), 2)
    assert_same(device.numpy(y), np.full((1, 1, 2, 2), 512, np.float16))
    assert np.isfinite(device.numpy(gpuconv.adaptive_average_pool_backward(y, cache))).all()


@pytest.mark.large
def test_same_bits_for_any_number_of_threads(device, rng, monkeypatch):
    x, dy = _drawn(normal, rng, (50, 16, 21, 20), (9, 7), "float32")
    runs = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        runs.append([a.tobytes() for a in _computed(device, x, dy, (9, 7))])
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("name", ["windows_that_share_rows", "packs_of_channels", "volume"])
@pytest.mark.parametrize("stored", STORED)
def test_64_bit_indices(name, stored, gpu, rng, monkeypatch):
    """The kernels for arrays of 2^31 elements, on small ones."""
    monkeypatch.setattr(adaptive_average_pool, "pool_index", lambda z: INT64)
    shape, size = CASES[name]
    x, dy = _drawn(normal, rng, shape, size, "float64")
    results = _computed(gpu, _stored(x, stored), _stored(dy, stored), size)
    scales = _oracle(*absolute(x, dy), size)
    for actual, ref, scale in zip(results, _oracle(x, dy, size), scales, strict=True):
        assert_close(actual, ref, scale=scale, dtype="float64")


@pytest.mark.parametrize(
    ("shape", "size", "bits"),
    [
        ((1, 1, 1, 2**31 - 1), (None, 1), 64),
        ((1, 1, 1, 2**20), (None, 2046), 32),
        ((1, 1, 1, 2**20), (None, 2047), 64),  # columns times windows
        ((1, 1, 3, 2**20), (2, 680), 32),
    ],
)
def test_64_bit_indices_only_where_needed(shape, size, bits):
    z = adaptive_sizes(np.broadcast_to(np.float32(0), shape), size)
    assert adaptive_average_pool.pool_index(z).itemsize == bits // 8


def test_signals_with_an_int_are_refused(device):
    """They may be an image without its batch axis."""
    words = r"x must be \(N, C, H, W\), got shape \(3, 8, 8\), or, to pool \(N, C, L\), size must be a tuple of one"
    with pytest.raises(ShapeError, match=words):
        gpuconv.adaptive_average_pool_forward(device.array(np.zeros((3, 8, 8))), 2)


def test_cache_does_not_hold_the_output(device):
    """A cache of sizes costs nothing: the memory of y goes when y goes."""
    for size in (1, 2, 3):
        y, cache = gpuconv.adaptive_average_pool_forward(device.array(np.ones((2, 3, 8, 8))), size)
        assert not np.may_share_memory(device.numpy(cache.like), device.numpy(y))
        assert cache.like.base is None
