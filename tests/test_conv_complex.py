"""Convolution of complex arrays: sums of the products of parts, against the oracle on parts, PyTorch and algebra."""

import numpy as np
import pytest
from compare import assert_close, assert_same, normal, whole
from conv_checks import PARTS, arrays_of, by_oracle, by_parts, channels_last, complex_of, computed, sizes_of_parts
from pairs import DEVICES, STORED, pairs

import gpuconv
from gpuconv.errors import CacheError, DTypeError
from gpuconv.ops._complex_conv import real_channels
from gpuconv.shapes import is_channels_last

# why the case exists: (x, w, options)
CASES = {
    "one_pixel": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    "empty_batch": ((0, 3, 5, 5), (4, 3, 3, 3), {"pad": 1}),
    "odd_everything": ((3, 5, 6, 7), (2, 5, 3, 5), {"pad": (1, 2)}),
    "every_option": ((2, 4, 7, 8), (6, 2, 3, 2), {"stride": (2, 1), "pad": (1, 2), "dilation": (1, 2), "groups": 2}),
    "depthwise": ((2, 4, 5, 6), (4, 1, 3, 3), {"groups": 4, "pad": 1}),
    "one_by_one": ((2, 3, 4, 5), (4, 3, 1, 1), {}),
    "signal": ((2, 4, 9), (6, 2, 3), {"groups": 2, "pad": 1, "stride": 2}),
}
VOLUMES = {
    "volume": ((2, 3, 4, 5, 4), (4, 3, 3, 2, 3), {"pad": 1, "stride": (1, 2, 1)}),
    "volume_in_groups": ((2, 4, 3, 4, 4), (6, 2, 1, 3, 3), {"groups": 2}),
}


def _check(device, case, make, stored, dtype, rng):
    x, w, b, dy, z = arrays_of(case, rng, dtype, complex_of(make))
    last = stored == "channels_last"
    got = computed(device, (channels_last(x), w, b, channels_last(dy)) if last else (x, w, b, dy), case[2])
    expected, sizes = by_parts(by_oracle, x, w, b, dy, z), sizes_of_parts(by_oracle, x, w, b, dy, z)
    for actual, parts, scales in zip(got, expected, sizes, strict=True):
        assert actual.dtype == dtype
        for own, ref, scale in zip((actual.real, actual.imag), parts, scales, strict=True):
            if make is whole:
                assert_same(own, ref, dtype=PARTS[dtype])
            else:
                assert_close(own, ref, scale=scale, dtype=PARTS[dtype])


@pairs(case=CASES, make={"random": normal, "integers": whole}, stored=STORED, device=DEVICES, dtype=list(PARTS))
@pytest.mark.usefixtures("poisoned_memory")
def test_matches_oracle(case, make, stored, device, dtype, rng):
    """Bit for bit on integers."""
    _check(device, case, make, stored, dtype, rng)


@pairs(
    case=VOLUMES,
    make={"random": normal, "integers": whole},
    stored=STORED,
    device=DEVICES,
    dtype=list(PARTS),
)
@pytest.mark.usefixtures("poisoned_memory")
def test_volumes_match_oracle(case, make, stored, device, dtype, rng):
    _check(device, case, make, stored, dtype, rng)


@pytest.mark.parametrize("case", (CASES | VOLUMES).values(), ids=CASES | VOLUMES)
def test_matches_pytorch(case, rng):
    """Its convention of gradients, too: dL/dRe + i dL/dIm."""
    torch = pytest.importorskip("torch")
    x, w, b, dy, z = arrays_of(case, rng, "complex128", complex_of(normal))
    y, cache = gpuconv.conv_forward(x, w, b, **case[2])
    inputs = [torch.from_numpy(a).requires_grad_() for a in (x, w, b)]
    axes = x.ndim - 2
    options = {"stride": z.stride[-axes:], "padding": z.pad[-axes:], "dilation": z.dilation[-axes:]}
    out = getattr(torch.nn.functional, f"conv{axes}d")(*inputs, **options, groups=z.groups)
    refs = (out, *torch.autograd.grad(out, inputs, torch.from_numpy(dy)))
    sizes = sizes_of_parts(by_oracle, x, w, b, dy, z)
    for actual, ref, scales in zip((y, *gpuconv.conv_backward(dy, cache)), refs, sizes, strict=True):
        theirs = ref.detach().numpy()
        for part, scale in zip(("real", "imag"), scales, strict=True):
            assert_close(getattr(actual, part).copy(), getattr(theirs, part), scale=scale, dtype="float64", c=16)


@pytest.mark.parametrize("case", (CASES | VOLUMES).values(), ids=CASES | VOLUMES)
def test_gradients_are_the_adjoints(case, rng):
    """<dy, conv(x, w)> = <dx, x> = <dw, w>, where the first of each pair is conjugated; exactly, on integers."""
    x, w, _, dy, _ = arrays_of(case, rng, "complex128", complex_of(whole))
    y, cache = gpuconv.conv_forward(x, w, **case[2])
    dx, dw, db = gpuconv.conv_backward(dy, cache)
    assert np.vdot(dy, y) == np.vdot(dx, x) == np.vdot(dw, w)
    assert db is None


@pytest.mark.parametrize("name", ["every_option", "signal"])
def test_any_memory_layout(name, layout, device, rng):
    """Bit-equal results, in the memory format of x."""
    case = CASES[name]
    arrays = arrays_of(case, rng, "complex64", complex_of(whole))[:4]
    expected = computed(device, arrays, case[2])
    laid_out = [layout(a) for a in arrays]
    got = computed(device, laid_out, case[2])
    for actual, want in zip(got, expected, strict=True):
        assert_same(actual, want)
    assert is_channels_last(got[0]) == is_channels_last(laid_out[0]) == is_channels_last(got[1])


@pytest.mark.parametrize("case", [CASES["odd_everything"], CASES["signal"]], ids=["images", "signals"])
@pytest.mark.parametrize("stored", STORED)
def test_results_are_contiguous_in_the_format_of_x(case, stored, device, rng):
    x, w, b, dy, _ = arrays_of(case, rng, "complex64", complex_of(normal))
    if stored == "channels_last":
        x = channels_last(x)
    y, dx, dw, db = computed(device, (x, w, b, dy), case[2])
    for array in (y, dx):
        assert (np.moveaxis(array, 1, -1) if stored == "channels_last" else array).flags.c_contiguous
    assert dw.flags.c_contiguous
    assert db.flags.c_contiguous


def test_channels_last_numbers_are_pairs_without_a_copy(rng):
    x = channels_last(complex_of(whole)(rng, (2, 3, 4, 5), "complex64"))
    parts = real_channels(x)
    assert parts.shape == (2, 6, 4, 5)
    assert np.shares_memory(parts, x)
    assert is_channels_last(parts)
    assert_same(parts[:, ::2], x.real)
    assert_same(parts[:, 1::2], x.imag)
    assert not np.shares_memory(real_channels(x.copy()), x)


@pytest.mark.parametrize(
    "wanted", [{"input_grad": False}, {"weight_grad": False}, {"input_grad": False, "weight_grad": False}], ids=str
)
def test_gradients_can_be_left_out(wanted, device, rng):
    *arrays, _ = arrays_of(CASES["every_option"], rng, "complex64", complex_of(whole))
    whole_call = computed(device, arrays, CASES["every_option"][2])
    some = computed(device, arrays, CASES["every_option"][2], **wanted)
    for actual, expected, flag in zip(some, whole_call, ("", "input_grad", "weight_grad", ""), strict=True):
        if wanted.get(flag, True):
            assert_same(actual, expected)
        else:
            assert actual is None


SPECIAL = [complex(np.inf, 0), complex(0, -np.inf), complex(np.inf, 2), complex(np.nan, 1), complex(3, np.nan)]


@pytest.mark.parametrize("special", SPECIAL, ids=str)
def test_special_values_are_those_of_products_of_numpy(special, device):
    """inf * 0 is NaN, in each of the four products."""
    others = np.array([1, 1j, 2 - 1j, 0, -3j, 1 + 1j], "complex64")
    x = np.full((6, 1, 1, 1), special, "complex64")
    for number in others:
        w = np.full((1, 1, 1, 1), number, "complex64")
        y, dx, dw, _ = computed(device, (x, w, None, others.reshape(x.shape)), {})
        with np.errstate(all="ignore"):
            expected = x * w, others.reshape(x.shape) * w.conj()
        for actual, want in zip((y, dx), expected, strict=True):
            assert_same(actual.real, want.real)
            assert_same(actual.imag, want.imag)
        assert np.isnan(dw).all()


def test_a_change_between_forward_and_backward_is_seen(monkeypatch, rng):
    monkeypatch.setenv("GPUCONV_DEBUG", "1")
    x, w, b, dy, _ = arrays_of(CASES["every_option"], rng, "complex64", complex_of(whole))
    _, cache = gpuconv.conv_forward(x, w, b, **CASES["every_option"][2])
    gpuconv.conv_backward(dy, cache)
    for name, array in (("x", x), ("w", w)):
        array[0] += 1j
        with pytest.raises(CacheError, match=f"^{name} was changed in place between forward and backward"):
            gpuconv.conv_backward(dy, cache)
        array[0] -= 1j


def test_other_numbers_are_refused_by_name(device):
    x, w = np.zeros((1, 1, 2, 2), "complex64"), np.zeros((1, 1, 1, 1), "complex64")
    A = device.array
    words = "must be float16, float32, float64, complex64 or complex128 in native byte order"
    with pytest.raises(DTypeError, match=f"^x {words}, got int64"):
        gpuconv.conv_forward(A(x.real.astype("int64")), A(w))
    with pytest.raises(DTypeError, match=r"^arrays must share one dtype, got x complex64, w float32$"):
        gpuconv.conv_forward(A(x), A(w.real.copy()))
    with pytest.raises(DTypeError, match=r"^arrays must share one dtype, got x complex128, w complex64$"):
        gpuconv.conv_forward(A(x.astype("complex128")), A(w))
    y, cache = gpuconv.conv_forward(A(x), A(w))
    with pytest.raises(DTypeError, match=r"^dy must have the forward's dtype complex64, got float32$"):
        gpuconv.conv_backward(A(np.zeros(y.shape, "float32")), cache)


def test_other_operators_go_on_refusing_complex_numbers():
    with pytest.raises(
        DTypeError, match=r"^x must be float16, float32 or float64 in native byte order, got complex64$"
    ):
        gpuconv.relu_forward(np.zeros((2, 3), "complex64"))
