"""From stored pictures to a batch: where each pixel comes from, exactly, and its normalisation to rounding."""

import numpy as np
import pytest
from compare import assert_close, assert_same
from hypothesis import given
from hypothesis import strategies as st
from pairs import DEVICES, DTYPES, pairs

import gpuconv
from gpuconv import naive
from gpuconv.errors import ArgTypeError, DeviceMismatchError, DTypeError, ParamError, ShapeError
from gpuconv.ops.augmentation import augment_batch
from gpuconv.placed import Count
from gpuconv.random import Stream, words
from gpuconv.shapes import is_channels_last

PLAIN = {"mean": [0.0], "std": [1 / 255]}  # leaves the values 0 ... 255 as they are


def _pictures(rng, shape):
    return rng.integers(0, 256, shape, dtype=np.uint8)


def _check(device, images, draws, dtype, *, mean, std, pad=0, flip=False, channels_last=False, **moves):
    """Hold the result to the oracle: (v / 255 - mean) / std is known to 8 u (v / 255 + |mean|) / std."""
    options = {"mean": mean, "std": std, "pad": pad, "flip": flip, "channels_last": channels_last}
    options |= {"pad_mode": "zero", "cutout": 0} | moves
    before = images.copy()
    got = device.numpy(gpuconv.augment(device.array(images), device.array(draws), dtype=dtype, **options))
    ref = naive.augment(images, draws, dtype=np.dtype(dtype), **options)
    size = [abs(m) for m in mean]
    scale = naive.augment(images, draws, dtype=np.dtype(dtype), **{**options, "mean": [-m for m in size]})
    assert_close(got, ref, scale=scale, dtype=dtype)
    assert_same(images, before)
    return got


# why the case exists: (shape, pad, flip)
MOVED = {
    "as_it_is": ((5, 3, 8, 8), 0, False),
    "flip_only": ((5, 3, 8, 8), 0, True),
    "cifar_like": ((20, 3, 8, 8), 2, True),
    "not_square": ((20, 1, 5, 9), 4, True),
    "pad_beyond_the_picture": ((20, 3, 4, 4), 7, False),
    "four_channels": ((40, 4, 3, 2), 1, True),
    "empty_batch": ((0, 3, 8, 8), 2, True),
    "one_pixel": ((70, 3, 1, 1), 1, True),
}
CHANNELS_LAST = {"c_order": False, "channels_last": True}


@pytest.mark.usefixtures("poisoned_memory")
@pairs(case=MOVED, channels_last=CHANNELS_LAST, device=DEVICES, dtype=DTYPES)
def test_matches_oracle(case, channels_last, device, dtype, rng):
    shape, pad, flip = case
    draws = words(shape[0], seed=1, stream=Stream.AUGMENT)
    C = shape[1]
    mean, std = rng.uniform(0.3, 0.6, C).tolist(), rng.uniform(0.2, 0.3, C).tolist()
    options = {"mean": mean, "std": std, "pad": pad, "flip": flip, "channels_last": channels_last}
    got = _check(device, _pictures(rng, shape), draws, dtype, **options)
    stored = got.transpose(0, 2, 3, 1) if channels_last else got
    assert stored.flags.c_contiguous
    if shape[0] and shape[2] * shape[3] > 1 and C > 1:  # elsewhere the two formats are one
        assert is_channels_last(got) == channels_last


# why the case exists: (shape, pad, cutout)
CUT_OUT = {
    "reflected": ((20, 3, 8, 8), 2, 0),
    "as_far_as_it_goes": ((20, 1, 5, 9), 4, 3),
    "four_channels": ((40, 4, 3, 2), 1, 2),
    "square_as_large_as_the_picture": ((33, 3, 6, 6), 0, 6),
    "one_pixel": ((9, 3, 1, 1), 0, 1),
    "empty_batch": ((0, 3, 8, 8), 2, 4),
}


@pytest.mark.usefixtures("poisoned_memory")
@pairs(case=CUT_OUT, channels_last=CHANNELS_LAST, device=DEVICES, dtype=DTYPES)
def test_reflected_and_cut_out_match_oracle(case, channels_last, device, dtype, rng):
    shape, pad, cutout = case
    draws = words(shape[0], seed=1, stream=Stream.AUGMENT)
    C = shape[1]
    options = {"mean": rng.uniform(0.3, 0.6, C).tolist(), "std": rng.uniform(0.2, 0.3, C).tolist(), "pad": pad}
    for moves in ({"pad_mode": "reflect"}, {"cutout": cutout}, {"pad_mode": "reflect", "cutout": cutout}):
        options |= {"flip": True, "channels_last": channels_last}
        _check(device, _pictures(rng, shape), draws, dtype, **options, **moves)


def test_reflection_leaves_the_border_once(device):
    images = np.arange(1, 9, dtype=np.uint8).reshape(1, 1, 1, 8).repeat(4, axis=2)
    for word, expected in ((_word(0, 0), [4, 3, 2, 1, 2, 3, 4, 5]), (_word(0, 0xFFFF), [4, 5, 6, 7, 8, 7, 6, 5])):
        got = gpuconv.augment(
            device.array(images), device.array(word), pad=3, pad_mode="reflect", dtype="float64", **PLAIN
        )
        assert device.numpy(got)[0, 0, 0].round(9).tolist() == expected


def _square(row, column, high=0):
    """Return a random word that stands for fractions row and column of the height and width, each in [0, 2^15)."""
    return np.array([row << 33 | column << 48 | high], dtype=np.uint64)


@pytest.mark.parametrize(
    ("word", "cutout", "rows", "columns"),
    [
        (_square(0, 0), 4, (0, 2), (0, 2)),
        (_square(0x7FFF, 0x7FFF), 4, (2, 5), (4, 7)),
        (_square(0x7FFF, 0), 3, (3, 5), (0, 2)),
        (_square(0x4000, 0x4000), 3, (1, 4), (2, 5)),
        (_square(0x4000, 0x4000), 2, (1, 3), (2, 4)),
        (_square(6553, 9363), 1, (0, 1), (2, 3)),  # the last word of row 0 of 5, the first of column 2 of 7
        (_square(6554, 9362), 1, (1, 2), (1, 2)),
        (_square(0, 0, high=1 << 63), 1, (0, 1), (0, 1)),
    ],
    ids=["first", "last", "corner", "odd", "even", "border_of_a_row", "border_of_a_column", "bit_63_is_free"],
)
def test_square_lies_around_its_centre_and_ends_at_the_border(word, cutout, rows, columns, device, rng):
    images = _pictures(rng, (1, 2, 5, 7)) | 1
    levels = {"mean": [0.3, 0.6], "std": [0.2, 0.7]}
    got = device.numpy(gpuconv.augment(device.array(images), device.array(word), cutout=cutout, **levels))
    expected = device.numpy(gpuconv.augment(device.array(images), None, cutout=cutout, **levels))
    assert (expected != 0).all()
    expected[:, :, slice(*rows), slice(*columns)] = 0
    assert_same(got, expected)


def test_square_stays_where_it_is_when_the_picture_moves(device, rng):
    """It is cut last: neither the shift nor the mirror moves it."""
    images = _pictures(rng, (1, 1, 6, 6)) | 1
    square = int(_square(0x2000, 0x6000)[0])
    hidden = []
    for word in (square, square | 0xFFFF, square | 1 << 32):
        draws = device.array(np.array([word], np.uint64))
        moves = {"pad": 2, "pad_mode": "reflect", "flip": True, "cutout": 3}
        got = gpuconv.augment(device.array(images), draws, mean=[1.5], std=[0.1], **moves)
        hidden.append(device.numpy(got) == 0)
    assert hidden[0].sum() == 9
    assert_same(hidden[0], hidden[1])
    assert_same(hidden[0], hidden[2])


def test_without_draws_pictures_stay(device, dtype, rng):
    images = _pictures(rng, (4, 3, 6, 5))
    got = _check(device, images, None, dtype, mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 0.5], pad=4, flip=True)
    ref = (images / 255 - np.array([0.1, 0.2, 0.3])[:, None, None]) / np.array([1.0, 2.0, 0.5])[:, None, None]
    np.testing.assert_allclose(got, ref, rtol=2e-3 if dtype == "float16" else 1e-5, atol=1e-3)


def _word(down=0, right=0, mirrored=False):
    """Return a random word that stands for fractions down and right of the range, each in [0, 2^16)."""
    return np.array([down | right << 16 | (1 << 32 if mirrored else 0)], dtype=np.uint64)


@pytest.mark.parametrize(
    ("word", "top", "left"),
    [
        (_word(0, 0), 0, 0),
        (_word(0xFFFF, 0), 4, 0),
        (_word(0, 0xFFFF), 0, 4),
        (_word(0xFFFF, 0xFFFF), 4, 4),
        (_word(0x8000, 0x8000), 2, 2),
        (_word(13107, 13108), 0, 1),  # the border between shift 0 and 1 of 5: 65536 / 5 = 13107.2
        (_word(52428, 52429), 3, 4),
    ],
    ids=["first", "last_row", "last_column", "last", "middle", "border_of_the_first", "border_of_the_last"],
)
def test_shift_is_cut_from_the_padded_picture(word, top, left, device, rng):
    """Five places with pad 2; the crop of the black-bordered picture starts at (top, left)."""
    images = _pictures(rng, (1, 1, 6, 6))
    got = device.numpy(gpuconv.augment(device.array(images), device.array(word), pad=2, dtype="float64", **PLAIN))
    bordered = np.pad(images[0, 0], 2)
    np.testing.assert_allclose(got[0, 0], bordered[top : top + 6, left : left + 6], rtol=1e-15)


def test_mirror_comes_after_the_shift(device):
    images = np.arange(1, 9, dtype=np.uint8).reshape(1, 1, 1, 8)
    for mirrored in (False, True):
        word = _word(0x8000, 0, mirrored)
        got = gpuconv.augment(device.array(images), device.array(word), pad=2, flip=True, dtype="float64", **PLAIN)
        expected = [0, 0, 1, 2, 3, 4, 5, 6]
        row = device.numpy(got)[0, 0, 0].round(9).tolist()
        assert row == (expected[::-1] if mirrored else expected)


def test_bit_32_is_ignored_without_flip(device, rng):
    images = _pictures(rng, (2, 3, 4, 4))
    draws = np.array([0, 1 << 32], dtype=np.uint64)
    plain = gpuconv.augment(device.array(images), None, mean=[0.0] * 3, std=[1.0] * 3)
    assert_same(
        device.numpy(gpuconv.augment(device.array(images), device.array(draws), mean=[0.0] * 3, std=[1.0] * 3)),
        device.numpy(plain),
    )


def test_higher_bits_change_nothing(device, rng):
    images, draws = _pictures(rng, (9, 3, 4, 4)), words(9, seed=5, stream=Stream.AUGMENT)
    options = {"mean": [0.5] * 3, "std": [0.25] * 3, "pad": 2, "flip": True}
    low = draws & np.uint64(2**33 - 1)  # the others choose the square that cutout hides
    a, b = (device.numpy(gpuconv.augment(device.array(images), device.array(d), **options)) for d in (draws, low))
    assert_same(a, b)


def test_border_is_black_before_normalisation(device):
    images = np.full((1, 3, 4, 4), 255, np.uint8)
    mean, std = [0.5, 0.25, 0.125], [0.5, 0.25, 2.0]
    got = gpuconv.augment(device.array(images), device.array(_word()), mean=mean, std=std, pad=2, dtype="float64")
    got = device.numpy(got)[0]
    for c in range(3):
        np.testing.assert_array_equal(got[c, :2], (0 - mean[c]) / std[c])
        np.testing.assert_array_equal(got[c, 2:, 2:], (1 - mean[c]) / std[c])


@pytest.mark.parametrize("pad", [1, 4])
def test_all_shifts_are_equally_likely(pad, device):
    """One white pixel in the middle tells the shift; counts within 5 standard deviations."""
    count, size = 20_000, 2 * pad + 1
    images = np.zeros((count, 1, size, size), np.uint8)
    images[:, 0, pad, pad] = 255
    draws = words(count, seed=9, stream=Stream.AUGMENT, step=1)
    got = device.numpy(gpuconv.augment(device.array(images), device.array(draws), mean=[0.0], std=[1.0], pad=pad))
    seen = (got[:, 0] == 1).sum(axis=0)
    assert seen.sum() == count
    share = 1 / size**2
    assert (np.abs(seen - count * share) < 5 * np.sqrt(count * share * (1 - share))).all()


@given(
    st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(1, 7), st.integers(1, 7)),
    st.integers(0, 9),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["zero", "reflect"]),
    st.integers(0, 7),
    st.integers(0, 2**32),
)
def test_random_sizes_match_oracle(device, shape, pad, flip, channels_last, pad_mode, cutout, seed):
    smaller = min(shape[2:])
    pad = min(pad, smaller - 1) if pad_mode == "reflect" else pad
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, 2**64, shape[0], dtype=np.uint64)
    mean, std = rng.uniform(-1, 1, shape[1]).tolist(), rng.uniform(0.1, 2, shape[1]).tolist()
    options = {"mean": mean, "std": std, "pad": pad, "flip": flip, "channels_last": channels_last}
    options |= {"pad_mode": pad_mode, "cutout": min(cutout, smaller)}
    _check(device, _pictures(rng, shape), draws, "float32", **options)


def test_strided_pictures(device, rng):
    """Pictures stored channels-last, sliced, or backwards."""
    images = _pictures(rng, (6, 3, 5, 4))
    draws = words(12, seed=2, stream=Stream.AUGMENT)[::2]
    options = {"mean": [0.5] * 3, "std": [0.25] * 3, "pad": 1, "flip": True}
    for view in (
        np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        np.repeat(images, 2, axis=3)[..., ::2],
        images[::-1].copy()[::-1],
        np.broadcast_to(images[:1], images.shape),
    ):
        _check(device, view, draws, "float64", **options)


def test_same_bits_for_any_number_of_threads(device, rng, monkeypatch):
    images, draws = _pictures(rng, (100, 3, 16, 16)), words(100, seed=2, stream=Stream.AUGMENT)
    runs = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        got = gpuconv.augment(
            device.array(images), device.array(draws), mean=[0.5] * 3, std=[0.2] * 3, pad=4, flip=True
        )
        runs.append(device.numpy(got).tobytes())
    assert runs[0] == runs[1] == runs[2]


# Batches of an epoch ------------------------------------------------------------------------------------------------

EPOCH = {
    "everything": {"pad": 2, "flip": True, "cutout": 3, "pad_mode": "reflect"},
    "as_it_is": {},
}


@pytest.mark.usefixtures("poisoned_memory")
@pairs(moves=EPOCH, channels_last=CHANNELS_LAST, device=DEVICES, dtype=DTYPES)
def test_a_batch_is_what_was_chosen_and_augmented_to_the_bit(moves, channels_last, device, dtype, rng):
    images, labels = _pictures(rng, (30, 3, 6, 5)), rng.integers(-(2**40), 2**40, 30)
    order, draws = rng.permutation(30)[:28], words(30, seed=1, stream=Stream.AUGMENT) if moves else None
    options = {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.25, 0.2, 0.3],
        "dtype": dtype,
        "channels_last": channels_last,
        **moves,
    }
    placed = [device.array(array) for array in (images, labels, order, draws)]
    turn = device.array(np.zeros(1, np.uint64))
    for first, count in ((0, 7), (7, 7), (21, 7), (25, 3), (28, 0), (0, 28)):
        chosen = order[first : first + count]
        own_draws = device.array(None if draws is None else draws[chosen])
        expected = device.numpy(gpuconv.augment(device.array(images[chosen]), own_draws, **options))
        x, y = augment_batch(*placed, place=first, count=count, **options)
        stored = (count, 6, 5, 3) if channels_last else (count, 3, 6, 5)
        filled = device.array(np.full(stored, 7, dtype))
        out = filled.transpose(0, 3, 1, 2) if channels_last else filled, device.array(np.zeros(count, np.int64))
        turn[...] = np.uint64(first // 7)
        place = Count(turn, times=7, plus=first % 7)
        assert augment_batch(*placed, place=place, count=count, out=out, **options) is out
        for one_x, one_y in ((x, y), out):
            assert_same(device.numpy(one_x), expected)
            assert device.numpy(one_x).strides == expected.strides
            assert_same(device.numpy(one_y), labels[chosen])


BAD_BATCHES = {
    "place_beyond": ({"place": 5}, ParamError, "place"),
    "place_negative": ({"place": -1}, ParamError, "place"),
    "place_an_array": ({"place": np.zeros(1, np.int64)}, ArgTypeError, "place"),
    "place_a_word": ({"place": "0"}, ArgTypeError, "place"),
    "count_beyond": ({"count": 9}, ParamError, "count"),
    "labels_of_int32": ({"labels": np.zeros(6, np.int32)}, DTypeError, "labels must be int64"),
    "labels_too_few": ({"labels": np.zeros(5, np.int64)}, ShapeError, "one label per image"),
    "order_of_floats": ({"order": np.zeros(8)}, DTypeError, "order must be int64"),
    "order_of_two_axes": ({"order": np.zeros((2, 4), np.int64)}, ShapeError, "order"),
    "x_of_another_shape": ({"out": (np.zeros((3, 1, 3, 2)), np.zeros(4, np.int64))}, ShapeError, "x"),
    "x_of_another_dtype": ({"out": (np.zeros((4, 1, 3, 2)), np.zeros(4, np.int64))}, DTypeError, "x must be float32"),
    "y_of_another_dtype": ({"out": (np.zeros((4, 1, 3, 2), "f"), np.zeros(4, "i"))}, DTypeError, "y must be int64"),
}


@pytest.mark.parametrize(("given_so", "error", "words"), BAD_BATCHES.values(), ids=BAD_BATCHES.keys())
def test_a_bad_batch_is_refused_by_name(given_so, error, words, device):
    good = {"images": np.zeros((6, 1, 3, 2), np.uint8), "labels": np.zeros(6, np.int64), "order": np.arange(8) % 6}
    placed = {
        name: tuple(map(device.array, value))
        if name == "out"
        else device.array(value)
        if hasattr(value, "shape")
        else value
        for name, value in (good | {"place": 1, "count": 4} | given_so).items()
    }
    with pytest.raises(error, match=words):
        augment_batch(**placed, mean=[0.5], std=[0.25])


def test_a_batch_of_arrays_in_two_places_is_refused(gpu):
    arrays = np.zeros((6, 1, 3, 2), np.uint8), np.zeros(6, np.int64), np.arange(6)
    with pytest.raises(DeviceMismatchError, match="order"):
        augment_batch(gpu.array(arrays[0]), gpu.array(arrays[1]), arrays[2], place=0, count=4, mean=[0.5], std=[0.25])
