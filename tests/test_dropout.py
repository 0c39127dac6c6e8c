"""Inverted dropout: the mask is a stated function of (seed, step, place), the rest one multiplication."""

import numpy as np
import pytest
from compare import assert_close, assert_same, normal
from pairs import DEVICES, DTYPES, pairs

import gpuconv
from gpuconv import naive
from gpuconv.random import Stream, words
from gpuconv.shapes import is_channels_last

SHAPES = {
    "no_axis": (),
    "one_number": (1,),
    "odd_count": (3, 7),
    "empty_batch": (0, 3, 4, 4),
    "images": (2, 3, 5, 7),
    "more_than_one_block": (3, 30_001),
}


@pairs(shape=SHAPES, rate=[0.0, 0.25, 0.5, 0.9, 1e-10, 1 - 2**-33], device=DEVICES, dtype=DTYPES)
@pytest.mark.usefixtures("poisoned_memory")
def test_matches_oracle(shape, rate, device, dtype, rng):
    """The kept places exactly; values by one rounded product with 1 / (1 - rate), itself rounded once."""
    x, dy = np.asarray(normal(rng, shape)).astype(dtype), np.asarray(normal(rng, shape)).astype(dtype)
    ref, kept = naive.dropout_forward(x, rate=rate, seed=7, step=3)
    y, cache = gpuconv.dropout_forward(device.array(x), rate=rate, seed=7, step=3)
    y = device.numpy(y)
    if kept is None:
        assert cache.kept is None
    else:
        np.testing.assert_array_equal(device.numpy(cache.kept), kept)
        assert_same(y[~kept], np.zeros_like(y[~kept]))
    assert_close(y, ref, scale=np.abs(ref), dtype=dtype, c=2)
    dx = device.numpy(gpuconv.dropout_backward(device.array(dy), cache))
    ref = naive.dropout_backward(dy, kept, 1 / (1 - rate))
    assert_close(dx, ref, scale=np.abs(ref), dtype=dtype, c=2)
    assert np.may_share_memory(x, y) is False


def test_rule_of_the_draw(device):
    """Element i is kept where its half word (low half first) is at least rate 2^32."""
    x = np.ones(7)
    _, cache = gpuconv.dropout_forward(device.array(x), rate=0.3, seed=11, step=5)
    drawn = words(4, seed=11, stream=Stream.DROPOUT, step=5)
    halves = [half for word in drawn.tolist() for half in (word & 0xFFFFFFFF, word >> 32)]
    assert device.numpy(cache.kept).tolist() == [half >= round(0.3 * 2**32) for half in halves[:7]]


@pytest.mark.parametrize("before", [1, 2, 5, 8, 24])
def test_a_part_of_a_batch_drops_what_the_whole_batch_does(before, layout, dtype, device):
    whole = np.ones((before + 3, 3, 1, 5), dtype)
    _, expected = naive.dropout_forward(whole, rate=0.4, seed=6, step=2)
    part = layout(whole[before:])
    y, cache = gpuconv.dropout_forward(device.array(part), rate=0.4, seed=6, step=2, offset=before * 15)
    np.testing.assert_array_equal(device.numpy(cache.kept), expected[before:])
    np.testing.assert_array_equal(device.numpy(y) != 0, expected[before:])
    _, there = naive.dropout_forward(part, rate=0.4, seed=6, step=2, offset=before * 15)
    np.testing.assert_array_equal(there, expected[before:])


@pytest.mark.parametrize("offset", [2**40, 2**63 - 1])
def test_places_far_away_have_the_words_of_their_place(offset, device):
    _, cache = gpuconv.dropout_forward(device.array(np.ones(9)), rate=0.5, seed=4, step=1, offset=offset)
    drawn = words(6, seed=4, stream=Stream.DROPOUT, step=1, first=offset // 2).tolist()
    halves = [half for word in drawn for half in (word & 0xFFFFFFFF, word >> 32)][offset % 2 :]
    assert device.numpy(cache.kept).tolist() == [half >= 2**31 for half in halves[:9]]


def test_places_are_counted_in_row_order_of_the_shape(layout, device, rng):
    """The same elements drop in every memory layout, forward and backward."""
    x, dy = normal(rng, (2, 3, 4, 5)), normal(rng, (2, 3, 4, 5))
    expected, kept = naive.dropout_forward(x, rate=0.5, seed=1, step=2)
    view = layout(x)
    y, cache = gpuconv.dropout_forward(device.array(view), rate=0.5, seed=1, step=2)
    assert_same(device.numpy(y), expected)  # times 2: exact
    assert is_channels_last(device.numpy(y)) == is_channels_last(view)
    for upstream in (dy, layout(dy)):
        dx = device.numpy(gpuconv.dropout_backward(device.array(upstream), cache))
        assert_same(dx, naive.dropout_backward(dy, kept, 2.0))
        assert is_channels_last(dx) == is_channels_last(upstream)
    assert_same(np.ascontiguousarray(view), x)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_share_of_dropped_elements(rate, device):
    """Within 5 standard deviations of rate, and the mean of y within 5 of the mean of x."""
    count = 200_000
    y, _ = gpuconv.dropout_forward(device.array(np.ones(count)), rate=rate)
    y = device.numpy(y)
    deviation = np.sqrt(rate * (1 - rate) / count)
    assert abs((y == 0).mean() - rate) < 5 * deviation
    assert abs(y.mean() - 1) < 5 * deviation / (1 - rate)


def test_each_seed_and_step_has_its_own_mask(device):
    def kept(**options):
        _, cache = gpuconv.dropout_forward(device.array(np.ones(1000)), rate=0.5, **options)
        return device.numpy(cache.kept).tobytes()

    assert kept(seed=1, step=1) == kept(seed=1, step=1)
    masks = [kept(seed=seed, step=step) for seed in (0, 1, 2**64 - 1) for step in (0, 1, 2**64 - 1)]
    assert len(set(masks)) == len(masks)


def test_evaluation_leaves_everything(device, dtype, rng):
    x, dy = normal(rng, (3, 5), dtype), normal(rng, (3, 5), dtype)
    y, cache = gpuconv.dropout_forward(device.array(x), rate=0.9, training=False)
    assert_same(device.numpy(y), x)
    assert_same(device.numpy(gpuconv.dropout_backward(device.array(dy), cache)), dy)


def test_dropped_nan_and_infinity_become_zero(device, dtype):
    x = np.tile(np.array([np.nan, np.inf, -np.inf, 1], dtype), 50)
    y, cache = gpuconv.dropout_forward(device.array(x), rate=0.5, seed=3)
    kept = device.numpy(cache.kept)
    assert_same(device.numpy(y), np.where(kept, 2 * x, 0).astype(dtype))
    assert_same(device.numpy(gpuconv.dropout_backward(device.array(x), cache)), np.where(kept, 2 * x, 0).astype(dtype))


def test_same_bits_for_any_number_of_threads(device, rng, monkeypatch):
    x = normal(rng, (3, 70_001), "float32")
    runs = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        y, _ = gpuconv.dropout_forward(device.array(x), rate=0.4, seed=2)
        runs.append(device.numpy(y).tobytes())
    assert runs[0] == runs[1] == runs[2]
