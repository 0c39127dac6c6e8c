"""Transposed convolution, forward and backward, against the oracle, PyTorch and the convolution that it turns round."""

import numpy as np
import pytest
from compare import absolute, assert_close, assert_same, normal, whole
from conv_checks import channels_last
from pairs import DEVICES, DTYPES, STORED, pairs

import gpuconv
from gpuconv import naive
from gpuconv.shapes import as_image, conv_transpose_sizes, is_channels_last, with_axes_of

# why the case exists: (x, w, options)
CASES = {
    "one_pixel": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    "empty_batch": ((0, 3, 4, 4), (3, 4, 3, 3), {"stride": 2}),
    "doubling_4x4": ((2, 3, 4, 5), (3, 4, 4, 4), {"stride": 2, "pad": 1}),
    "doubling_2x2": ((2, 4, 3, 4), (4, 2, 2, 2), {"stride": 2}),
    "doubling_3x3": ((2, 3, 4, 4), (3, 2, 3, 3), {"stride": 2, "pad": 1, "output_pad": 1}),
    "stride_larger_than_filter": ((2, 3, 3, 2), (3, 2, 2, 1), {"stride": 3}),
    "output_pad_beyond_every_window": ((1, 2, 3, 3), (2, 3, 1, 1), {"stride": 3, "output_pad": (2, 1)}),
    "output_pad_of_dilation": ((1, 2, 4, 4), (2, 3, 2, 2), {"dilation": 3, "output_pad": 2}),
    "dilation_shares_a_factor_with_stride": ((2, 3, 3, 4), (3, 2, 3, 3), {"dilation": 2, "stride": 4, "pad": 1}),
    "pad_cuts_whole_windows": ((1, 2, 5, 5), (2, 3, 2, 2), {"pad": 2}),
    "filter_larger_than_image": ((1, 2, 2, 2), (2, 3, 5, 5), {"pad": 1}),
    "asymmetric_pairs": ((2, 4, 5, 6), (4, 3, 3, 2), {"stride": (2, 3), "pad": (0, 1), "output_pad": (1, 2)}),
    "groups": ((2, 6, 3, 4), (6, 2, 3, 3), {"groups": 2, "stride": 2, "pad": 1}),
    "depthwise": ((2, 5, 4, 3), (5, 1, 4, 4), {"groups": 5, "stride": 2, "pad": 1}),
    "many_channels": ((2, 24, 3, 3), (24, 17, 3, 3), {"stride": 2, "pad": 1, "output_pad": 1}),
    "cut_on_one_side": ((2, 3, 4, 5), (3, 4, 3, 4), {"stride": 2, "pad": ((0, 1), (2, 1)), "output_pad": 1}),
    "cut_behind_of_many_channels": ((2, 24, 3, 3), (24, 17, 3, 3), {"stride": 2, "pad": ((0, 3), (1, 2))}),
    "same": ((2, 3, 4, 5), (3, 4, 2, 3), {"pad": "same", "dilation": (1, 2)}),
    "signal_cut_behind": ((2, 3, 5), (3, 4, 4), {"stride": 2, "pad": ((0, 2),)}),
    "volume_cut_on_one_side": ((1, 2, 2, 3, 2), (2, 3, 2, 3, 2), {"stride": 2, "pad": ((1, 0), (0, 1), 0)}),
    "signal": ((2, 3, 5), (3, 4, 4), {"stride": 2, "pad": 1}),
    "volume": ((1, 2, 2, 3, 2), (2, 3, 2, 3, 2), {"stride": 2, "pad": (0, 1, 0), "output_pad": 1}),
    "volume_of_many_channels": ((1, 9, 2, 2, 3), (9, 17, 2, 2, 2), {"stride": 2}),
}
FULL = ["doubling_3x3", "groups", "depthwise", "signal", "volume"]


def arrays_of(case, rng, dtype, make):
    """Return (x, w, b, dy) of a case, filled by `make`, and the sizes."""
    x, w, options = case
    arrays = make(rng, x).astype(dtype), make(rng, w).astype(dtype)
    b = make(rng, (w[1] * options.get("groups", 1),)).astype(dtype)
    sizes = conv_transpose_sizes(*arrays, b, **options)
    y = sizes.image if len(x) > 3 else sizes.image[:2] + sizes.image[3:]
    return (*arrays, b, make(rng, y).astype(dtype)), sizes


def computed(device, arrays, options, **wanted):
    x, w, b, dy = (None if array is None else device.array(array) for array in arrays)
    y, cache = gpuconv.conv_transpose_forward(x, w, b, **options)
    results = y, *gpuconv.conv_transpose_backward(dy, cache, **wanted)
    return tuple(None if result is None else device.numpy(result) for result in results)


def by_oracle(x, w, b, dy, sizes):
    images = as_image(x), as_image(w)
    wanted = {"input_grad": True, "weight_grad": True, "bias_grad": b is not None}
    y = naive.conv_transpose_forward(*images, b, sizes)
    dx, dw, db = naive.conv_transpose_backward(as_image(dy), *images, sizes, **wanted)
    return with_axes_of(x, y), with_axes_of(x, dx), with_axes_of(w, dw), db


def _check_close(got, arrays, sizes, zero_mean=True):
    """Hold results to the rule.  A pixel of y is the sum of at most the taps that reach it, and b."""
    refs = by_oracle(*arrays, sizes)
    scales = by_oracle(*absolute(*arrays), sizes)
    taps, pixels = int(np.prod(sizes.window)), int(np.prod(sizes.out[2:]))
    terms = (
        sizes.K // sizes.groups * taps + 1,
        sizes.C // sizes.groups * taps,
        sizes.N * pixels,
        sizes.N * int(np.prod(sizes.image[2:])),
    )
    for actual, ref, scale, many in zip(got, refs, scales, terms, strict=True):
        if ref is None:
            assert actual is None
        else:
            assert_close(actual, ref, scale=scale, dtype=arrays[0].dtype, terms=many, zero_mean=zero_mean)


def _positive(rng, shape):
    return rng.uniform(0.5, 1.5, shape)


@pairs(
    case=CASES,
    make={"random": normal, "positive": _positive, "integers": whole},
    stored=STORED,
    device=DEVICES,
    dtype=DTYPES,
)
@pytest.mark.usefixtures("poisoned_memory")
def test_matches_oracle(case, make, stored, device, dtype, rng):
    """Bit for bit on integers; sums of positive numbers, which only grow, lose most to rounding."""
    arrays, sizes = arrays_of(case, rng, dtype, make)
    x, w, b, dy = arrays
    last = stored == "channels_last" and x.ndim > 3
    got = computed(device, (channels_last(x), w, b, channels_last(dy)) if last else arrays, case[2])
    if make is whole:
        for actual, expected in zip(got, by_oracle(*arrays, sizes), strict=True):
            assert_same(actual, expected, dtype=dtype)
    else:
        _check_close(got, arrays, sizes, zero_mean=make is normal)


@pytest.mark.parametrize("name", FULL)
def test_without_bias(name, device, dtype, rng):
    (x, w, _, dy), sizes = arrays_of(CASES[name], rng, dtype, normal)
    arrays = x, w, None, dy
    _check_close(computed(device, arrays, CASES[name][2]), arrays, sizes)


@pytest.mark.parametrize("left_out", ["input_grad", "weight_grad"])
@pytest.mark.parametrize("name", [*FULL, "empty_batch"])
def test_a_gradient_can_be_left_out(name, left_out, device, rng):
    arrays, _ = arrays_of(CASES[name], rng, "float32", whole)
    every, place = computed(device, arrays, CASES[name][2]), 1 if left_out == "input_grad" else 2
    without = computed(device, arrays, CASES[name][2], **{left_out: False})
    assert without[place] is None
    for i in {0, 1, 2, 3} - {place}:
        assert_same(without[i], every[i])


@pytest.mark.parametrize("name", FULL)
def test_a_bias_is_added_before_anything_is_rounded(name, device, rng):
    """The bias takes nearly all of the sum away, and what is left is exact: sums of whole numbers above 2^11 in float16."""
    (x, w, b, _), sizes = arrays_of(CASES[name], rng, "float16", whole)
    x, b = x * 128, np.full_like(b, -(2.0**14))
    w += np.float16(32)
    expected = with_axes_of(x, naive.conv_transpose_forward(as_image(x), as_image(w), b, sizes))
    y, _ = gpuconv.conv_transpose_forward(device.array(x), device.array(w), device.array(b), **CASES[name][2])
    with np.errstate(over="ignore"):
        assert_same(device.numpy(y), expected.astype(np.float16))


@pytest.mark.parametrize("name", FULL)
def test_is_the_input_gradient_of_the_convolution_of_its_output(name, device, dtype, rng):
    (x, w, _, dy), _ = arrays_of(CASES[name], rng, dtype, whole)
    options = {key: value for key, value in CASES[name][2].items() if key != "output_pad"}
    y, _ = gpuconv.conv_transpose_forward(device.array(x), device.array(w), **CASES[name][2])
    back, cache = gpuconv.conv_forward(device.array(dy), device.array(w), **options)
    assert back.shape == x.shape
    assert_same(device.numpy(gpuconv.conv_backward(device.array(x), cache)[0]), device.numpy(y))


def test_memory_format_is_that_of_x(device, layout, rng):
    x, w, dy = whole(rng, (2, 3, 4, 5)), whole(rng, (3, 4, 3, 3)), whole(rng, (2, 4, 9, 11))
    expected = computed(device, (x, w, None, dy), {"stride": 2})
    view = layout(x)
    y, cache = gpuconv.conv_transpose_forward(device.array(view), device.array(w), stride=2)
    dx, dw, _ = gpuconv.conv_transpose_backward(device.array(layout(dy)), cache)
    for actual, wanted in zip((y, dx, dw), expected, strict=False):
        assert_same(device.numpy(actual), wanted)
    assert is_channels_last(device.numpy(y)) == is_channels_last(device.numpy(dx)) == is_channels_last(view)


def test_infinity_and_nan_go_where_their_windows_are(device, rng):
    """Between the pixels of x are no zeros that an infinite filter would meet."""
    x, w = whole(rng, (1, 2, 3, 3)), whole(rng, (2, 3, 2, 2))
    w[0, 0, 0, 0], w[1, 1, 1, 1] = np.inf, np.nan
    sizes = conv_transpose_sizes(x, w, None, stride=3)
    y, _ = gpuconv.conv_transpose_forward(device.array(x), device.array(w), stride=3)
    with np.errstate(invalid="ignore"):
        assert_same(device.numpy(y), naive.conv_transpose_forward(x, w, None, sizes))


@pytest.mark.parametrize("name", CASES)
def test_the_oracle_is_pytorchs(name, rng):
    torch = pytest.importorskip("torch")
    (x, w, b, dy), sizes = arrays_of(CASES[name], rng, "float64", normal)
    options = {"output_padding" if key == "output_pad" else key: o for key, o in CASES[name][2].items() if key != "pad"}
    function = getattr(torch.nn.functional, f"conv_transpose{x.ndim - 2}d")
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, w, b)]
    whole_y = function(*tensors, **options)
    ends = zip(sizes.pad[-(x.ndim - 2) :], dy.shape[2:], strict=True)
    y = whole_y[(..., *(slice(before, before + size) for before, size in ends))]
    y.backward(torch.from_numpy(dy))
    expected = y.detach(), *(tensor.grad for tensor in tensors)
    for actual, theirs in zip(by_oracle(x, w, b, dy, sizes), expected, strict=True):
        np.testing.assert_allclose(actual, theirs.numpy(), rtol=1e-12, atol=1e-12)
