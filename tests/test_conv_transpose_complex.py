"""Transposed convolution of complex arrays: sums of the products of parts, against the oracle on parts, PyTorch and algebra."""

import numpy as np
import pytest
from compare import assert_close, assert_same, normal, whole
from conv_checks import PARTS, by_parts, channels_last, complex_of, sizes_of_parts
from pairs import DEVICES, STORED, pairs
from test_conv_transpose import CASES as ALL
from test_conv_transpose import by_oracle, computed

import gpuconv
from gpuconv.shapes import conv_transpose_sizes, is_channels_last

_NAMES = ("one_pixel", "empty_batch", "doubling_3x3", "groups", "depthwise", "cut_on_one_side", "signal", "volume")
CASES = {name: ALL[name] for name in _NAMES}


def _arrays(case, rng, dtype, make):
    """Return (x, w, b, dy) of a case, filled by `make`, and the sizes."""
    x, w, options = case
    sizes = conv_transpose_sizes(np.empty(x), np.empty(w), None, **options)
    y = sizes.image if len(x) > 3 else sizes.image[:2] + sizes.image[3:]
    return tuple(complex_of(make)(rng, shape, dtype) for shape in (x, w, y[1:2], y)), sizes


@pairs(case=CASES, make={"random": normal, "integers": whole}, stored=STORED, device=DEVICES, dtype=list(PARTS))
@pytest.mark.usefixtures("poisoned_memory")
def test_matches_oracle(case, make, stored, device, dtype, rng):
    """Bit for bit on integers."""
    arrays, sizes = _arrays(case, rng, dtype, make)
    x, w, b, dy = arrays
    last = stored == "channels_last" and x.ndim > 3
    got = computed(device, (channels_last(x), w, b, channels_last(dy)) if last else arrays, case[2])
    expected, scales = (of(by_oracle, *arrays, sizes) for of in (by_parts, sizes_of_parts))
    for actual, parts, sized in zip(got, expected, scales, strict=True):
        assert actual.dtype == dtype
        for own, ref, scale in zip((actual.real, actual.imag), parts, sized, strict=True):
            if make is whole:
                assert_same(own, ref, dtype=PARTS[dtype])
            else:
                assert_close(own, ref, scale=scale, dtype=PARTS[dtype])


@pytest.mark.parametrize("name", [name for name in CASES if name != "cut_on_one_side"])
def test_matches_pytorch(name, rng):
    """Its convention of gradients, too: dL/dRe + i dL/dIm."""
    torch = pytest.importorskip("torch")
    (x, w, b, dy), sizes = _arrays(CASES[name], rng, "complex128", normal)
    y, cache = gpuconv.conv_transpose_forward(x, w, b, **CASES[name][2])
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, w, b)]
    options = {{"pad": "padding", "output_pad": "output_padding"}.get(key, key): o for key, o in CASES[name][2].items()}
    theirs = getattr(torch.nn.functional, f"conv_transpose{x.ndim - 2}d")(*tensors, **options)
    refs = theirs, *torch.autograd.grad(theirs, tensors, torch.from_numpy(dy))
    scales = sizes_of_parts(by_oracle, x, w, b, dy, sizes)
    results = y, *gpuconv.conv_transpose_backward(dy, cache)
    for actual, ref, sized in zip(results, refs, scales, strict=True):
        for part, scale in zip(("real", "imag"), sized, strict=True):
            want = getattr(ref.detach().numpy(), part)
            assert_close(getattr(actual, part).copy(), want, scale=scale, dtype="float64", c=16)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_the_adjoints(name, rng):
    """<dy, y> = <dx, x> = <dw, w>, where the first of each pair is conjugated; exactly, on integers."""
    (x, w, _, dy), _ = _arrays(CASES[name], rng, "complex128", whole)
    y, cache = gpuconv.conv_transpose_forward(x, w, **CASES[name][2])
    dx, dw, db = gpuconv.conv_transpose_backward(dy, cache)
    assert np.vdot(dy, y) == np.vdot(dx, x) == np.vdot(dw, w)
    assert db is None


def test_is_the_input_gradient_of_the_convolution_by_conjugate_filters(device, rng):
    case = CASES["groups"]
    (x, w, _, dy), _ = _arrays(case, rng, "complex64", whole)
    y, _ = gpuconv.conv_transpose_forward(device.array(x), device.array(w), **case[2])
    _, cache = gpuconv.conv_forward(device.array(dy), device.array(w.conj()), **case[2])
    turned, _, _ = gpuconv.conv_backward(device.array(x), cache)
    assert_same(device.numpy(turned), device.numpy(y))


def test_any_memory_layout(layout, device, rng):
    """Bit-equal results, in the memory format of x."""
    arrays, _ = _arrays(CASES["groups"], rng, "complex64", whole)
    laid_out = [layout(array) for array in arrays]
    expected, got = (computed(device, some, CASES["groups"][2]) for some in (arrays, laid_out))
    for actual, want in zip(got, expected, strict=True):
        assert_same(actual, want)
    assert is_channels_last(got[0]) == is_channels_last(laid_out[0]) == is_channels_last(got[1])


@pytest.mark.parametrize("left_out", ["input_grad", "weight_grad"])
def test_a_gradient_can_be_left_out(left_out, device, rng):
    arrays, _ = _arrays(CASES["groups"], rng, "complex64", whole)
    every, without = (computed(device, arrays, CASES["groups"][2], **wanted) for wanted in ({}, {left_out: False}))
    place = 1 if left_out == "input_grad" else 2
    assert without[place] is None
    for i in {0, 1, 2, 3} - {place}:
        assert_same(without[i], every[i])
