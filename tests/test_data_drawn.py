"""The built-in set: the same bytes everywhere, balanced, and neither trivial nor blurred."""

import hashlib

import numpy as np
import pytest

from gpuconv.data import channel_statistics, draw_shapes
from gpuconv.errors import ArgTypeError, DTypeError, ParamError, ShapeError


@pytest.fixture(scope="module")
def small():
    return draw_shapes(1000, 500)


def sha256(*arrays):
    return hashlib.sha256(
        b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays)
    ).hexdigest()


def test_the_whole_set_is_what_it_was():
    """Float32 operations that IEEE rounds in one way only: the bytes may not depend on platform or NumPy."""
    drawn = draw_shapes()
    assert drawn.name == "shapes (built in, seed 0)"
    assert (drawn.x_train.shape, drawn.x_test.shape) == ((10_000, 3, 32, 32), (2_000, 3, 32, 32))
    assert (
        sha256(drawn.x_train, drawn.y_train, drawn.x_test, drawn.y_test)
        == "9a24b76898d1838e968fd2f0985bc77126f23a1d05f8c66620badfb79a18e3d1"
    )


def test_a_smaller_set_is_the_beginning_and_says_so(small):
    whole = draw_shapes(730, 20)
    np.testing.assert_array_equal(whole.x_train, small.x_train[:730])
    np.testing.assert_array_equal(whole.y_train, small.y_train[:730])
    np.testing.assert_array_equal(whole.x_test, small.x_test[:20])
    assert whole.name == "shapes (built in, seed 0, 730 + 20 pictures)"


def test_one_picture_of_each_set_is_enough(small):
    one = draw_shapes(1, 1)
    np.testing.assert_array_equal(one.x_train, small.x_train[:1])
    np.testing.assert_array_equal(one.x_test, small.x_test[:1])


def test_arrays_are_as_promised(small):
    for x, y, count in ((small.x_train, small.y_train, 1000), (small.x_test, small.y_test, 500)):
        assert (x.dtype, x.shape, x.flags.c_contiguous) == (np.uint8, (count, 3, 32, 32), True)
        assert (y.dtype, y.shape) == (np.int64, (count,))
    assert len(small.classes) == 10
    assert (small.mean, small.std) == channel_statistics(small.x_train)


def test_classes_come_equally_often_in_random_order(small):
    for labels in (small.y_train[:500], small.y_train[500:], small.y_test):
        np.testing.assert_array_equal(np.bincount(labels, minlength=10), 50)
    assert not np.array_equal(small.y_train[:500], small.y_train[500:])
    assert np.count_nonzero(np.diff(small.y_train)) > 800


def test_another_seed_draws_other_pictures(small):
    other = draw_shapes(500, 10, seed=1)
    assert other.name == "shapes (built in, seed 1, 500 + 10 pictures)"
    assert (other.x_train != small.x_train[:500]).mean() > 0.9


def test_no_picture_comes_twice_nor_in_both_sets(small):
    pictures = np.concatenate([small.x_train, small.x_test]).reshape(1500, -1)
    assert len(np.unique(pictures, axis=0)) == 1500


def test_classes_cannot_be_told_by_brightness_or_place(small):
    """A linear classifier fitted by least squares stays far below a small convolutional net."""
    mean, std = np.array(small.mean).reshape(3, 1, 1), np.array(small.std).reshape(3, 1, 1)
    train, test = (((x / 255 - mean) / std).reshape(len(x), -1) for x in (small.x_train, small.x_test))
    targets = np.eye(10)[small.y_train]
    # Ridge regression in its dual form, the penalty about one unit of noise per pixel.
    weights = train.T @ np.linalg.solve(train @ train.T + 3072 * np.eye(len(train)), targets)
    accuracy = np.mean((test @ weights).argmax(axis=1) == small.y_test)
    assert accuracy < 0.3


def test_shapes_differ_from_their_ground(small):
    """In every picture some pixels stand out clearly: the contrast rule of the colours works."""
    middle = np.median(small.x_train, axis=(2, 3), keepdims=True)
    far = (np.abs(small.x_train.astype(np.int64) - middle) > 40).any(axis=1).mean(axis=(1, 2))
    assert far.min() > 0.02


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"train": 0}, ParamError),
        ({"test": -1}, ParamError),
        ({"train": 1.5}, ArgTypeError),
        ({"seed": -1}, ParamError),
        ({"seed": 2**64}, ParamError),
    ],
)
def test_wrong_counts_and_seeds_are_refused(arguments, error):
    with pytest.raises(error, match=next(iter(arguments))):
        draw_shapes(**arguments)


# Statistics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 2500])
def test_statistics_are_those_of_all_values(rng, count):
    images = rng.integers(0, 256, (count, 3, 4, 5), dtype=np.uint8)
    images[:, 1] //= 3
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 2, 3)), rtol=1e-13)
    assert all(type(value) is float for value in mean + std)


def test_statistics_of_any_layout(rng):
    images = rng.integers(0, 256, (50, 3, 8, 8), dtype=np.uint8)
    stored = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert channel_statistics(stored) == channel_statistics(images)


def test_statistics_without_cancellation():
    """Almost constant and bright: a mean of squares less the square of a mean would lose the digits."""
    images = np.full((3000, 1, 32, 32), 255, np.uint8)
    images[0, 0, 0, 0] = 254
    n = images.size
    np.testing.assert_allclose(channel_statistics(images)[1], np.sqrt((n - 1) / n**2) / 255, rtol=1e-13)


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (np.zeros((2, 3, 4, 4), np.float32), DTypeError, "uint8, got float32"),
        (np.zeros((3, 4, 4), np.uint8), ShapeError, r"\(N, C, H, W\)"),
        (np.zeros((0, 3, 4, 4), np.uint8), ShapeError, "not be empty"),
    ],
    ids=["floats", "three_axes", "empty"],
)
def test_statistics_of_nothing_are_refused(images, error, words):
    with pytest.raises(error, match=words):
        channel_statistics(images)


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_channel_of_one_value_has_deviation_1(value):
    images = np.arange(96, dtype=np.uint8).reshape(2, 3, 4, 4)
    images[:, 1] = value
    mean, std = channel_statistics(images)
    assert (mean[1], std[1]) == (value / 255, 1.0)
    assert std[0] == pytest.approx(images[:, 0].std() / 255, rel=1e-12)
