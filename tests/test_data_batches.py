"""Epoch order and augmentation words: every picture at most once, a pure function of seed and epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuconv.data import epoch_batches, epoch_draws
from gpuconv.errors import ArgTypeError, ParamError

COUNTS = st.integers(1, 300)
WORDS = st.integers(0, 2**64 - 1)


@given(count=COUNTS, size=COUNTS, seed=WORDS, epoch=WORDS, shuffle=st.booleans())
def test_every_index_comes_once(count, size, seed, epoch, shuffle):
    batches = epoch_batches(count, size, seed=seed, epoch=epoch, drop_last=False, shuffle=shuffle)
    assert all(batch.dtype == np.int64 and batch.ndim == 1 for batch in batches)
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert 1 <= len(batches[-1]) <= size
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(count))


@given(count=COUNTS, size=COUNTS, seed=WORDS, epoch=WORDS)
def test_dropping_the_last_leaves_only_whole_batches(count, size, seed, epoch):
    size = min(size, count)
    whole = epoch_batches(count, size, seed=seed, epoch=epoch)
    assert [len(batch) for batch in whole] == [size] * (count // size)
    everything = epoch_batches(count, size, seed=seed, epoch=epoch, drop_last=False)
    np.testing.assert_array_equal(np.concatenate(whole), np.concatenate(everything)[: len(whole) * size])


@given(count=st.integers(50, 300), seed=WORDS, epoch=WORDS, size=COUNTS)
def test_the_order_is_a_function_of_seed_and_epoch(count, seed, epoch, size):
    def order(seed, epoch, size=50):
        return np.concatenate(epoch_batches(count, size, seed=seed, epoch=epoch, drop_last=False))

    first = order(seed, epoch)
    np.testing.assert_array_equal(first, order(seed, epoch, size))
    assert not np.array_equal(first, order(seed, epoch ^ 1))
    assert not np.array_equal(first, order(seed ^ 1, epoch))


def test_the_order_is_what_it_was():
    """A resumed run on another machine, with another NumPy, must see the same pictures."""
    (order,) = epoch_batches(12, 12, seed=7, epoch=3)
    assert order.tolist() == [5, 10, 7, 2, 3, 6, 4, 8, 11, 9, 1, 0]
    assert epoch_draws(2, seed=7, epoch=3).tolist() == [15276076109492424548, 16829535654967416416]


def test_without_shuffling_the_order_is_kept():
    batches = epoch_batches(7, 3, seed=0, epoch=0, shuffle=False, drop_last=False)
    assert [batch.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]


def test_all_orders_are_about_equally_likely():
    """Of three pictures each of the six orders comes about 1000 times in 6000 epochs: chi-square at 5 degrees."""
    orders = [tuple(epoch_batches(3, 3, seed=5, epoch=epoch)[0]) for epoch in range(6000)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6
    assert sum((count - 1000) ** 2 / 1000 for count in counts) < 20.5  # the 0.1 % point


@given(count=COUNTS, seed=WORDS, epoch=WORDS)
def test_a_picture_keeps_its_word(count, seed, epoch):
    draws = epoch_draws(count, seed=seed, epoch=epoch)
    assert (draws.dtype, draws.shape) == (np.uint64, (count,))
    np.testing.assert_array_equal(draws, epoch_draws(count + 10, seed=seed, epoch=epoch)[:count])
    assert not np.array_equal(draws, epoch_draws(count, seed=seed, epoch=epoch ^ 1))
    assert not np.array_equal(draws, epoch_draws(count, seed=seed ^ 1, epoch=epoch))


@given(count=COUNTS, seed=WORDS, epoch=WORDS)
def test_alternating_flips_turn_the_first_ones_over(count, seed, epoch):
    bit = np.uint64(1 << 32)
    draws = epoch_draws(count, seed=seed, epoch=epoch, alternate_flip=True)
    first = epoch_draws(count, seed=seed, epoch=0)
    np.testing.assert_array_equal((draws ^ first) & bit, bit if epoch % 2 else 0)
    np.testing.assert_array_equal(draws & ~bit, epoch_draws(count, seed=seed, epoch=epoch) & ~bit)


def test_alternating_flips_begin_as_random_ones():
    first = epoch_draws(1000, seed=3, epoch=0, alternate_flip=True)
    np.testing.assert_array_equal(first, epoch_draws(1000, seed=3, epoch=0))
    assert 400 < np.count_nonzero(first & np.uint64(1 << 32)) < 600


def test_no_pictures_have_no_words():
    assert epoch_draws(0, seed=0, epoch=0).shape == (0,)


WRONG = {
    "no_pictures": ({"count": 0}, ParamError, "count"),
    "no_batch": ({"batch_size": 0}, ParamError, "batch_size"),
    "batch_larger_than_the_set": ({"batch_size": 101}, ParamError, "got 101 of 100"),
    "float": ({"batch_size": 10.0}, ArgTypeError, "batch_size"),
    "negative_epoch": ({"epoch": -1}, ParamError, "epoch"),
    "seed_beyond_64_bits": ({"seed": 2**64}, ParamError, "seed"),
    "flag_that_is_none": ({"shuffle": 1}, ArgTypeError, "shuffle"),
    "other_flag_that_is_none": ({"drop_last": None}, ArgTypeError, "drop_last"),
}


@pytest.mark.parametrize(("change", "error", "words"), WRONG.values(), ids=WRONG.keys())
def test_wrong_arguments_are_refused(change, error, words):
    with pytest.raises(error, match=words):
        epoch_batches(**{"count": 100, "batch_size": 10, "seed": 0, "epoch": 0} | change)


def test_a_batch_larger_than_the_set_is_fine_if_nothing_is_dropped():
    (batch,) = epoch_batches(3, 10, seed=0, epoch=0, drop_last=False)
    assert sorted(batch) == [0, 1, 2]
