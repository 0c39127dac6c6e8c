"""Upsampling by whole factors, forward and backward."""

import numpy as np
import pytest
from compare import absolute, assert_close, assert_same, assert_same_bits, normal, whole
from hypothesis import given
from hypothesis import strategies as st
from pairs import DEVICES, DTYPES, STORED, pairs

import gpuconv
from gpuconv import naive
from gpuconv.cuda import upsample
from gpuconv.cuda.layout import INT64
from gpuconv.errors import ArgTypeError, ShapeError, SizeLimitError
from gpuconv.shapes import as_image, is_channels_last, with_axes_of

MODES = {
    "nearest": {"mode": "nearest"},
    "linear": {"mode": "linear"},
    "corners": {"mode": "linear", "align_corners": True},
}
# name -> (shape of x, factor)
CASES = {
    "doubled": ((2, 3, 4, 6), 2),
    "in_packs": ((2, 8, 3, 8), 2),
    "each_axis": ((2, 3, 5, 4), (3, 2)),
    "one_axis": ((1, 4, 3, 5), (1, 4)),
    "as_it_is": ((2, 3, 4, 5), 1),
    "one_pixel": ((2, 3, 1, 1), (3, 2)),
    "one_row": ((1, 2, 1, 6), 3),
    "large_factor": ((1, 1, 2, 3), (7, 13)),
    "primes": ((1, 5, 7, 11), (3, 5)),
    "empty_batch": ((0, 3, 4, 4), 2),
    "signals": ((2, 3, 7), 3),
    "volumes": ((1, 3, 3, 4, 2), 2),
    "volumes_each_axis": ((2, 4, 2, 1, 3), (2, 3, 1)),
}


def _stored(a, stored):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) if stored == "channels_last" else a


def _out(shape, factor):
    factors = factor if isinstance(factor, tuple) else (factor,) * (len(shape) - 2)
    return (*shape[:2], *(n * f for n, f in zip(shape[2:], factors, strict=True)))


def _computed(device, x, dy, **options):
    before = x.copy(), dy.copy()
    dev_x, dev_dy = device.array(x), device.array(dy)
    y, cache = gpuconv.upsample_forward(dev_x, **options)
    dx = gpuconv.upsample_backward(dev_dy, cache)
    for array, copy in zip((dev_x, dev_dy), before, strict=True):
        np.testing.assert_array_equal(device.numpy(array), copy, "an input was changed")
    return device.numpy(y), device.numpy(dx)


def _by_oracle(x, dy, *, factor, mode, align_corners=False):
    axes = x.ndim - 2
    factors = factor if isinstance(factor, tuple) else (factor,) * axes
    how = {"factor": (1, *factors) if axes == 1 else factors, "mode": mode, "align_corners": align_corners}
    y, dx = naive.upsample_forward(as_image(x), **how), naive.upsample_backward(as_image(dy), **how)
    return with_axes_of(x, y), with_axes_of(x, dx)


@pairs(case=CASES, mode=MODES, stored=STORED, device=DEVICES, dtype=DTYPES, together=[("mode", "stored", "dtype")])
@pytest.mark.usefixtures("poisoned_memory")
def test_matches_oracle(case, mode, stored, device, dtype, rng):
    shape, factor = case
    x, dy = normal(rng, shape, dtype), normal(rng, _out(shape, factor), dtype)
    options = {"factor": factor, **mode}
    results = _computed(device, _stored(x, stored), _stored(dy, stored), **options)
    refs, scales = _by_oracle(x, dy, **options), _by_oracle(*absolute(x, dy), **options)
    terms = 1 if dy.size == 0 else (2**x.ndim * dy.size) // x.size
    for actual, ref, scale, count in zip(results, refs, scales, (8, terms), strict=True):
        assert_close(actual, ref, scale=scale, dtype=dtype, terms=count)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_any_memory_layout(mode, layout, device, rng):
    """Of whole numbers every sum is exact: with a factor of 2 weights are quarters, and between corners of 2 pixels thirds."""
    shape = (2, 4, 6, 7)
    factor = 1 if "align_corners" in mode else 2
    x, dy = whole(rng, shape), whole(rng, _out(shape, factor))
    refs = _by_oracle(x, dy, factor=factor, **mode)
    for arrays in ((layout(x), dy), (x, layout(dy)), (layout(x), layout(dy))):
        for actual, ref, array in zip(_computed(device, *arrays, factor=factor, **mode), refs, arrays, strict=True):
            assert_same(actual, ref)
            assert is_channels_last(actual) == is_channels_last(array)


_SIZES = st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))


@given(_SIZES, st.tuples(st.integers(1, 4), st.integers(1, 5)), st.sampled_from(list(MODES)), st.integers(0, 2**32))
def test_backward_is_the_adjoint(device, shape, factor, mode, seed):
    """<dy, upsample(x)> = <dx, x>, and every gradient is shared out whole, for the weights of a result add up to 1.

    Every term of either inner product is rounded a few times, so the two agree to 16 u of the sum of their sizes.
    """
    rng = np.random.default_rng(seed)
    x, dy = normal(rng, shape), normal(rng, _out(shape, factor))
    y, dx = _computed(device, x, dy, factor=factor, **MODES[mode])
    of_sizes, _ = _by_oracle(*absolute(x, dy), factor=factor, **MODES[mode])
    assert abs(np.vdot(dy, y) - np.vdot(dx, x)) <= 16 * 2.0**-53 * np.vdot(np.abs(dy), of_sizes)
    assert abs(dx.sum() - dy.sum()) <= (16 + dx.size) * 2.0**-53 * np.abs(dy).sum()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "factor"), [c for c in CASES.values() if c[0][0]], ids=str)
def test_the_oracle_is_pytorchs(shape, factor, mode, rng):
    torch = pytest.importorskip("torch")
    x, dy = normal(rng, shape), normal(rng, _out(shape, factor))
    t = torch.from_numpy(x).requires_grad_()
    how = {"mode": "nearest"}
    if mode != "nearest":
        how = {"mode": ("linear", "bilinear", "trilinear")[len(shape) - 3], "align_corners": mode == "corners"}
    y = torch.nn.functional.interpolate(t, scale_factor=factor, **how)
    (dx,) = torch.autograd.grad(y, t, torch.from_numpy(dy))
    for actual, theirs in zip(_by_oracle(x, dy, factor=factor, **MODES[mode]), (y.detach(), dx), strict=True):
        np.testing.assert_allclose(actual, theirs.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("factor", [41, 47, 97])
def test_no_factor_is_rounded(factor, device, dtype):
    """p / 41 times 41 is not p in floating point; each pixel has as many copies as the others."""
    x = np.arange(5, dtype=dtype).reshape(1, 1, 5)
    y, cache = gpuconv.upsample_forward(device.array(x), factor=factor)
    assert_same(device.numpy(y), x.repeat(factor, 2))
    dx = gpuconv.upsample_backward(device.array(np.ones((1, 1, 5 * factor), dtype)), cache)
    assert_same(device.numpy(dx), np.full((1, 1, 5), factor, dtype))


@pytest.mark.parametrize("shape", [(2, 8, 3, 4), (1, 3, 2, 3, 2)], ids=["images", "volumes"])
@pytest.mark.parametrize("stored", STORED)
def test_nearest_copies_every_bit(shape, stored, device, dtype, rng):
    x = normal(rng, shape, dtype)
    x.reshape(-1)[:4] = -0.0, np.nan, np.inf, np.finfo(dtype).smallest_subnormal
    y, _ = gpuconv.upsample_forward(device.array(_stored(x, stored)), factor=3)
    expected = x
    for axis in range(2, len(shape)):
        expected = expected.repeat(3, axis)
    assert_same_bits(device.numpy(y), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("stored", STORED)
def test_nan_and_infinity_reach_what_they_are_near_alone(value, stored, device, dtype, rng):
    """With a factor of 3 every third result is a pixel itself, and takes nothing of the next one, 0 times infinity."""
    x, dy = whole(rng, (2, 2, 4, 5), dtype), whole(rng, (2, 2, 12, 15), dtype)
    x[0, 1, 1, 2] = dy[1, 0, 4, 7] = dy[0, 0, 0, 0] = value
    y, dx = _computed(device, _stored(x, stored), _stored(dy, stored), factor=3, mode="linear")
    assert np.isfinite(y).all(axis=(2, 3)).tolist() == [[True, False], [True, True]]
    np.testing.assert_array_equal(np.argwhere(~np.isfinite(y[0, 1])).min(0), (2, 5))
    np.testing.assert_array_equal(np.argwhere(~np.isfinite(y[0, 1])).max(0), (6, 9))
    assert np.argwhere(~np.isfinite(dx)).tolist() == [[0, 0, 0, 0], [1, 0, 1, 2]]
    for result in (y, dx):
        np.testing.assert_array_equal(result[~np.isfinite(result)], np.asarray(value, dtype))


def test_corners_lie_on_corners(device, dtype):
    x = np.array([[[[1.0, 3.0, 7.0]]]], dtype)
    y, _ = gpuconv.upsample_forward(device.array(x), factor=(1, 3), mode="linear", align_corners=True)
    assert_close(device.numpy(y), [[[[1, 1.5, 2, 2.5, 3, 4, 5, 6, 7]]]], scale=np.full((1, 1, 1, 9), 7), dtype=dtype)
    assert device.numpy(y)[0, 0, 0, [0, 4, 8]].tolist() == [1, 3, 7]
    y, _ = gpuconv.upsample_forward(device.array(x), factor=(2, 2), mode="linear")
    assert device.numpy(y)[0, 0].tolist() == [[1, 1.5, 2.5, 4, 6, 7]] * 2


@pytest.mark.parametrize("factor", [(300,), (70, 20), (2, 500)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_sums_of_many_gradients_are_as_accurate_as_the_rule(factor, mode):
    """Equal terms are all rounded the same way: one long running sum would be off too far."""
    shape = (1, 1, *(2,) * len(factor))
    for value in (1 / 3, 0.7):
        x, dy = np.ones(shape, np.float32), np.full(_out(shape, factor), value, np.float32)
        _, cache = gpuconv.upsample_forward(x, factor=factor, **MODES[mode])
        ref = _by_oracle(x, dy, factor=factor, **MODES[mode])[1]
        terms = int(np.prod(factor))
        dx = gpuconv.upsample_backward(dy, cache)
        assert_close(dx, ref, scale=ref, dtype="float32", terms=terms, zero_mean=False)


def test_float16_gradients_are_summed_in_float32(device):
    """4096 ones: a sum in float16 would stay at 2048."""
    _, cache = gpuconv.upsample_forward(device.array(np.zeros((1, 2, 1, 1), np.float16)), factor=64)
    dx = gpuconv.upsample_backward(device.array(np.ones((1, 2, 64, 64), np.float16)), cache)
    assert_same(device.numpy(dx), np.full((1, 2, 1, 1), 4096, np.float16))


@pytest.mark.large
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stored", STORED)
def test_same_bits_for_any_number_of_threads(mode, stored, device, rng, monkeypatch):
    x, dy = (_stored(normal(rng, (9, 16, n, n), "float32"), stored) for n in (24, 72))
    runs = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        runs.append([a.tobytes() for a in _computed(device, x, dy, factor=3, **MODES[mode])])
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.large
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("shape", "factor"), [((2, 64, 28, 28), 2), ((1, 21, 17, 17), 8)], ids=["decoder", "scores"])
def test_layers_of_real_nets_match_pytorch(shape, factor, mode, device, dtype, rng):
    """Not of corners, whose places PyTorch rounds: they are farther off than sums may be."""
    torch = pytest.importorskip("torch")
    x, dy = normal(rng, shape, dtype), normal(rng, _out(shape, factor), dtype)
    how = {"mode": "nearest"} if mode == "nearest" else {"mode": "bilinear", "align_corners": False}

    def by_torch(x, dy):
        t = torch.from_numpy(x.astype(np.float64)).requires_grad_()
        y = torch.nn.functional.interpolate(t, scale_factor=factor, **how)
        return y.detach().numpy(), torch.autograd.grad(y, t, torch.from_numpy(dy.astype(np.float64)))[0].numpy()

    refs, scales = by_torch(x, dy), by_torch(*absolute(x, dy))
    for actual, ref, scale in zip(_computed(device, x, dy, factor=factor, **MODES[mode]), refs, scales, strict=True):
        assert_close(actual, ref, scale=scale, dtype=dtype)


@pytest.mark.parametrize("name", ["in_packs", "each_axis", "volumes_each_axis"])
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_64_bit_indices(name, mode, gpu, rng, monkeypatch):
    """The kernels for arrays of 2^31 elements, on small ones."""
    shape, factor = CASES[name]
    x, dy = whole(rng, shape, "float32"), whole(rng, _out(shape, factor), "float32")
    expected = _computed(gpu, x, dy, factor=factor, **mode)
    monkeypatch.setattr(upsample, "upsample_index", lambda shape, factor, align_corners: INT64)
    for actual, same in zip(_computed(gpu, x, dy, factor=factor, **mode), expected, strict=True):
        assert_same_bits(actual, same)


@pytest.mark.parametrize(
    ("shape", "factor", "align_corners", "bits"),
    [
        ((1, 1, 1, 2**30 - 4), (1, 2), False, 64),  # twice as many places, in halves of a pixel
        ((1, 1, 1, 2**28), (1, 2), False, 32),
        ((1, 1, 2**15, 2**15), (1, 2), False, 64),  # y
        ((1, 1, 1, 2**15), (1, 2), True, 64),  # columns of x times those of y
        ((1, 1, 1, 2**15 - 2), (1, 2), True, 32),
    ],
)
def test_64_bit_indices_only_where_needed(shape, factor, align_corners, bits):
    assert upsample.upsample_index(shape, factor, align_corners).itemsize == bits // 8


def test_others_words_are_told_ours():
    x = np.ones((1, 1, 2, 2))
    for word, value, told in (
        ("scale_factor", 2, "it is called factor here"),
        ("interpolation", "nearest", "it is called mode here"),
        ("method", "linear", "it is called mode here"),
        ("size", (4, 4), "factor says how many times"),
    ):
        with pytest.raises(ArgTypeError, match=f"has no argument {word}: {told}"):
            gpuconv.upsample_forward(x, **{word: value})


def test_what_cannot_be_enlarged_is_named():
    with pytest.raises(ShapeError, match=r"x must be \(N, C, H, W\), got shape \(2, 3\)"):
        gpuconv.upsample_forward(np.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"x must have no axis of size 0 but the batch \(N, C, L\)"):
        gpuconv.upsample_forward(np.ones((2, 3, 0)))
    with pytest.raises(SizeLimitError, match=r"y would be \(1, 1, 4294967294, 4294967294\) with x .* and factor="):
        gpuconv.upsample_forward(np.ones((1, 1, 2, 2)), factor=2**31 - 1)


def test_cache_does_not_hold_the_output(device):
    """A cache of sizes costs nothing: the memory of y goes when y goes."""
    y, cache = gpuconv.upsample_forward(device.array(np.ones((2, 3, 4, 4))), factor=(2, 3), mode="linear")
    assert cache.like.base is None
    assert cache.like.size == 0
    assert repr(cache) == "UpsampleCache(shape 2x3x8x12, factor 2x3, mode linear)"
    assert y.shape == cache.shape
