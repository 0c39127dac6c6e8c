"""What nets compute between operators: sums, copies, memory formats and the norm, as NumPy says, on any threads."""

import math

import numpy as np
import pytest
from compare import assert_same, normal
from pairs import DEVICES, DTYPES, pairs
from places import LAYOUTS

import gpuconv
from gpuconv import backend, ops
from gpuconv.cpu.parallel import BLOCK_ELEMENTS
from gpuconv.placed import Number

SHAPES = [(7,), (0, 3, 2, 2), (2, 3, 5, 7), (5, 3, 1, 1), (33, 3, 80, 80)]


def _named(values):
    return {str(value): value for value in values}


_FORMATS = _named([(False, False), (True, True), (True, False)])  # channels-last, of both


@pytest.fixture(params=["1", "3"], ids=lambda count: f"{count}_threads")
def _threads(request, monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", request.param)


def _stored(array, *, channels_last):
    """Return images in a memory format."""
    if array.ndim != 4 or not channels_last:
        return array
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@pytest.mark.usefixtures("poisoned_memory")
@pairs(shape=_named(SHAPES), formats=_FORMATS, threads=_named("13"), device=DEVICES, dtype=DTYPES)
def test_sums(shape, formats, threads, device, dtype, rng, monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", threads)
    a, b = (_stored(normal(rng, shape, dtype), channels_last=last) for last in formats)
    total = backend.add(device.array(a), device.array(b))
    assert_same(device.numpy(total), a + b)
    if len(shape) == 4:
        assert (total.transpose(0, 2, 3, 1) if formats[0] else total).flags.c_contiguous


@pairs(
    size=_named([0, 1000, BLOCK_ELEMENTS + 5]),
    factor=_named([0.0, 0.3, 1e-9]),
    threads=_named("13"),
    device=DEVICES,
    dtype=DTYPES,
)
def test_a_vector_is_scaled_in_place(size, factor, threads, device, dtype, rng, monkeypatch):
    """A factor too small for float16 is not rounded before it is multiplied."""
    monkeypatch.setenv("GPUCONV_THREADS", threads)
    values = 1000 * normal(rng, (size,), dtype)
    target, kind = device.array(values.copy()), "float64" if dtype == "float64" else "float32"
    backend.scale(target, factor)
    scaled = device.numpy(target)
    assert_same(scaled, (values.astype(kind) * np.dtype(kind).type(factor)).astype(dtype))
    assert size == 0 or factor == 0 or scaled.any()


@pytest.mark.parametrize("start", [0, 1, 3], ids="from_{}".format)
def test_a_vector_that_begins_anywhere_is_scaled_and_nothing_beside_it(start, device, dtype, rng):
    values = normal(rng, (45,), dtype)
    whole = device.array(values.copy())
    backend.scale(whole[start : start + 37], 0.25)
    values[start : start + 37] *= 0.25
    assert_same(device.numpy(whole), values)


def test_a_factor_by_its_place_is_the_one_there_at_the_launch(gpu, dtype):
    factor = gpu.array(np.full(1, 3.0))
    target = gpu.array(np.arange(5).astype(dtype))
    for value in (3.0, 0.5):
        factor[...] = value
        backend.scale(target, Number(factor))
    assert_same(gpu.numpy(target), (1.5 * np.arange(5)).astype(dtype))


@pytest.mark.usefixtures("poisoned_memory")
@pairs(shape=_named(SHAPES), factor=_named([1 / 9, -3.0, 0.0]), layout=LAYOUTS, device=DEVICES, dtype=DTYPES)
def test_multiples_are_those_of_numpy(shape, factor, layout, device, dtype, rng):
    values = layout(normal(rng, shape, dtype))
    x = device.array(values)
    y = backend.multiple(x, factor)
    assert_same(device.numpy(y), values * factor)
    assert y.dtype == np.dtype(dtype)
    assert_same(device.numpy(x), values)


@pairs(shape=_named([(5,), (2, 3, 5, 7), (33, 3, 80, 80)]), layout=LAYOUTS, device=DEVICES, dtype=DTYPES)
def test_copies(shape, layout, device, dtype, rng):
    source, target = layout(normal(rng, shape, dtype)), device.array(np.zeros(shape, dtype))
    backend.copy(device.array(source), target)
    assert_same(device.numpy(target), source)


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (3, 2, 1, 0), (1, 0, 3, 2)], ids=str)
def test_a_target_may_have_its_axes_in_any_order_in_memory(order, device, dtype, rng):
    source = normal(rng, (2, 5, 3, 4), dtype)
    stored = device.array(np.zeros([source.shape[axis] for axis in order], dtype))
    target = stored.transpose(*np.argsort(order).tolist())
    backend.copy(device.array(source), target)
    assert_same(device.numpy(stored), np.ascontiguousarray(source.transpose(order)))


@pytest.mark.usefixtures("_threads", "poisoned_memory")
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_format_is_another_order_of_the_same_images(shape, before, after, device, rng):
    images = _stored(normal(rng, shape, "float32"), channels_last=before)
    x = device.array(images)
    copy = backend.in_format(x, channels_last=after)
    assert_same(device.numpy(copy), images)
    assert (copy.transpose(0, 2, 3, 1) if after else copy).flags.c_contiguous
    copy[...] = 0
    assert_same(device.numpy(x), images)


# forward, backward, the same into arrays, shapes of the inputs, which gradients are kept
GRADIENTS = {
    "conv": ("conv", [(2, 8, 5, 4), (16, 8, 3, 3), (16,)], (True, True)),
    "conv_without_bias": ("conv", [(2, 3, 5, 4), (4, 3, 2, 2), None], (True, False)),
    "conv_of_frozen_filters": ("conv", [(2, 3, 5, 4), (4, 3, 2, 2), (4,)], (False, True)),
    "conv_of_signals": ("conv", [(2, 3, 9), (4, 3, 2), (4,)], (True, True)),
    "affine": ("affine", [(5, 2, 3, 2), (12, 4), (4,)], (True, True)),
    "affine_without_bias": ("affine", [(5, 6), (6, 4), None], (True, False)),
    "affine_of_nothing": ("affine", [(0, 6), (6, 4), (4,)], (True, True)),
    "batchnorm_of_rows": ("batchnorm", [(7, 5), *[(5,)] * 4], (True, True)),
    "batchnorm_of_images": ("spatial_batchnorm", [(3, 8, 5, 4), *[(8,)] * 4], (True, True)),
    "batchnorm_without_scale": ("spatial_batchnorm", [(3, 8, 5, 4), *[(8,)] * 4], (False, True)),
}


@pytest.mark.usefixtures("poisoned_memory")
@pairs(case=GRADIENTS, input_grad=_named([True, False]), device=DEVICES, dtype=DTYPES)
def test_gradients_go_where_a_net_keeps_them(case, input_grad, device, dtype, rng):
    """To the bit what the backward returns, and nothing beside it."""
    operator, shapes, wanted = case
    name = operator.removeprefix("spatial_")
    arrays = [None if shape is None else device.array(np.abs(normal(rng, shape, dtype))) for shape in shapes]
    y, cache = getattr(gpuconv, f"{operator}_forward")(*arrays)
    dy = device.array(normal(rng, y.shape, dtype))
    wide = {} if name == "batchnorm" else {"input_grad": input_grad}
    dx, *expected = getattr(gpuconv, f"{operator}_backward")(dy, cache, **wide)
    kept = [device.array(np.full((3, *array.shape), 7, dtype)) if want else None
            for array, want in zip(arrays[1:3], wanted, strict=True)]  # fmt: skip
    into = getattr(getattr(ops, name), f"{name}_backward_into")
    found = into(dy, cache, *(None if array is None else array[1] for array in kept), **wide)
    assert (found is None) == (dx is None)
    if dx is not None:
        assert_same(device.numpy(found), device.numpy(dx))
    for array, gradient in zip(kept, expected, strict=True):
        if array is not None:
            before, here, behind = device.numpy(array)
            assert_same(here, device.numpy(gradient))
            assert (before == 7).all()
            assert (behind == 7).all()


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("index", [0, BLOCK_ELEMENTS - 1, BLOCK_ELEMENTS, -1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_found_in_any_block(index, value, dtype):
    x = np.full(BLOCK_ELEMENTS + 5, np.finfo(dtype).max, dtype)
    assert backend.all_finite(x)
    x[index] = value
    assert not backend.all_finite(x)


@pytest.mark.parametrize("size", [0, 1, 1000, BLOCK_ELEMENTS + 5])
def test_squares_are_added_up_in_float64(size, device, dtype, rng, monkeypatch):
    x = normal(rng, (size,), dtype)
    exact = math.fsum(value * value for value in x.astype(np.float64).tolist())
    totals = set()
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        totals.add(backend.square_sum(device.array(x)))
    (total,) = totals
    assert abs(total - exact) <= 2**-53 * (size / 4 + 2) * exact
