"""What nets compute between operators: sums, copies, memory formats and the norm, as NumPy says, on any threads."""

import math

import numpy as np
import pytest
from compare import assert_same, normal

from gpuconv import backend
from gpuconv.cpu.parallel import BLOCK_ELEMENTS

SHAPES = [(7,), (0, 3, 2, 2), (2, 3, 5, 7), (5, 3, 1, 1), (33, 3, 80, 80)]


@pytest.fixture(params=["1", "3"], ids=lambda count: f"{count}_threads")
def _threads(request, monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", request.param)


def _stored(array, *, channels_last):
    """Return images in a memory format."""
    if array.ndim != 4 or not channels_last:
        return array
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@pytest.mark.usefixtures("_threads", "poisoned_memory")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("formats", [(False, False), (True, True), (True, False)], ids=str)
def test_sums(shape, formats, dtype, rng):
    a, b = (_stored(normal(rng, shape, dtype), channels_last=last) for last in formats)
    total = backend.add(a, b)
    assert_same(total, a + b)
    if len(shape) == 4:
        assert (total.transpose(0, 2, 3, 1) if formats[0] else total).flags.c_contiguous


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (33, 3, 80, 80)], ids=str)
def test_copies(shape, layout, device, rng):
    source, target = layout(normal(rng, shape, "float32")), device.array(np.zeros(shape, np.float32))
    backend.copy(device.array(source), target)
    assert_same(device.numpy(target), source)


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
