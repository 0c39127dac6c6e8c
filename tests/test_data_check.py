"""A data set that somebody made is checked where it enters: what does not belong together is named, nothing is written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from train_helpers import TINY, change, names

from gpuconv import data, train
from gpuconv.errors import ArgTypeError, DTypeError, ParamError, ShapeError
from gpuconv.runs.evaluation import evaluate_on
from gpuconv.train import Run

_RNG = np.random.default_rng(4)
X = _RNG.integers(0, 256, (300, 3, 32, 32), dtype=np.uint8)
Y = np.arange(300) % 10
SOUND = data.Dataset(
    "mine", tuple("abcdefghij"), X, Y, X[:100].copy(), Y[:100].copy(), (0.5,) * 3, (0.25,) * 3, "an array"
)

BAD = {
    "a_tuple": (lambda _: (X, Y), ArgTypeError, r"dataset must be a gpuconv\.data\.Dataset, got tuple"),
    "labels_are_missing": ({"y_train": Y[:250]}, ShapeError, "x_train has 300 pictures but y_train 250 labels"),
    "test_labels_are_missing": ({"y_test": Y[:99]}, ShapeError, "x_test has 100 pictures but y_test 99 labels"),
    "a_label_too_many": ({"y_test": Y[:101]}, ShapeError, "x_test has 100 pictures but y_test 101 labels"),
    "labels_are_a_list": ({"y_train": Y.tolist()}, ArgTypeError, r"y_train must be a NumPy array, got list: pass np\.array"),
    "masked_labels": ({"y_train": np.ma.array(Y)}, ArgTypeError, r"got numpy\.ma\.\S*MaskedArray"),
    "labels_in_a_column": ({"y_train": Y[:, None]}, ShapeError, r"got shape \(300, 1\): y_train\[:, 0\] takes"),
    "one_hot_labels": ({"y_train": np.eye(10)[Y]}, ShapeError, r"\(300, 10\): y_train\.argmax\(axis=1\) is the class"),
    "labels_are_floats": ({"y_train": Y.astype(float)}, DTypeError, r"got float64: y_train\.astype\(np\.int64\)"),
    "labels_are_bools": ({"y_train": Y > 4}, DTypeError, "y_train must be int64, .* got bool"),
    "labels_of_uint64": ({"y_test": Y[:100].astype(np.uint64)}, DTypeError, "y_test must be int64, .* got uint64"),
    "labels_of_another_byte_order": ({"y_test": Y[:100].astype(">i8")}, DTypeError, "y_test must be int64, .* got >i8"),
    "labels_from_one": ({"y_train": Y + 1}, ParamError, "got labels from 1 to 10: y_train - 1 counts from 0"),
    "a_label_too_high": ({"y_test": Y[:100] + 5}, ParamError, "10 classes from 0 to 9, got labels from 5 to 14$"),
    "a_label_below_0": ({"y_train": Y - 1}, ParamError, "got labels from -1 to 8$"),
    "channels_last": (
        {"x_train": X.transpose(0, 2, 3, 1)},
        ShapeError,
        r"got shape \(300, 32, 32, 3\), which is \(N, H, W, C\): x_train\.transpose\(0, 3, 1, 2\) turns it",
    ),
    "grey_channels_last": ({"x_test": X[:100].transpose(0, 2, 3, 1)[..., :1]}, ShapeError, r"which is \(N, H, W, C\)"),
    "wide_channels_last": ({"x_train": np.zeros((300, 24, 40, 3), np.uint8)}, ShapeError, r"which is \(N, H, W, C\)"),
    "pictures_last": (
        {"x_train": X.transpose(2, 3, 1, 0)},
        ShapeError,
        r"got shape \(32, 32, 3, 300\), which is \(H, W, C, N\): x_train\.transpose\(3, 2, 0, 1\) turns it",
    ),
    "grey_without_channels": ({"x_train": X[:, 0]}, ShapeError, r"\(300, 32, 32\) \(grey pictures: x_train\[:, None\]\)"),
    "flat_pictures": ({"x_train": X.reshape(300, -1)}, ShapeError, r"flat pictures: x_train\.reshape\(-1, C, H, W\)"),
    "no_pixels": ({"x_test": X[:100, :, :0]}, ShapeError, "x_test must have pictures of one pixel or more"),
    "pictures_are_floats": (
        {"x_train": X / 255},
        DTypeError,
        r"x_train must be uint8, .* got float64: of values from 0 to 1, \(255 \* x_train\)\.round\(\)\.astype",
    ),
    "pictures_are_int64": ({"x_test": X[:100].astype(np.int64)}, DTypeError, "from 0 to 255, got int64$"),
    "pictures_are_a_list": ({"x_test": [*X[:100]]}, ArgTypeError, "x_test must be a NumPy array, got list"),
    "test_pictures_of_another_size": (
        {"x_test": X[:100, :, :16]},
        ShapeError,
        r"x_test has pictures of shape \(3, 16, 32\) but x_train of \(3, 32, 32\): scale or cut",
    ),
    "grey_test_pictures": ({"x_test": X[:100, :1]}, ShapeError, r"shape \(1, 32, 32\) but x_train of \(3, 32, 32\)"),
    "classes_are_a_number": ({"classes": 10}, ArgTypeError, "classes must be a tuple of names, got 10"),
    "classes_are_numbers": ({"classes": tuple(range(10))}, ArgTypeError, "classes must be a tuple of names"),
    "one_class": ({"classes": ("a",)}, ParamError, "classes must be two or more to tell apart, got 1"),
    "a_class_twice": ({"classes": tuple("abcdefghia")}, ParamError, "names of their own, got 'a' 2 times"),
    "a_class_without_a_name": ({"classes": ("", *"bcdefghij")}, ParamError, "printable characters, got ''$"),
    "a_class_that_cannot_be_written": ({"classes": ("\udcff", *"bcdefghij")}, ParamError, "of printable characters, got"),
    "no_name": ({"name": None}, ArgTypeError, "name of a data set must be a str, got None"),
    "one_mean_for_all": ({"mean": 0.5}, ArgTypeError, "mean must be one number for each channel, got 0.5"),
    "means_of_another_layout": ({"mean": (0.5,) * 32}, ShapeError, "mean must be one number for each of 3 channels, got 32"),
    "mean_of_bytes": ({"mean": (125.3, 122.9, 113.8)}, ParamError, "from 0 to 1, got 125.3: divide mean by 255"),
    "mean_of_dark_bytes": ({"mean": (1.5, 1.5, 1.5)}, ParamError, "got 1.5: divide mean by 255$"),
    "mean_of_white": ({"mean": (255, 255, 255)}, ParamError, "got 255: divide mean by 255$"),
    "mean_beyond_bytes": ({"mean": (256, 256, 256)}, ParamError, "from 0 to 1, got 256$"),
    "std_of_0": ({"std": (0.25, 0.0, 0.25)}, ParamError, "std must be that of x_train / 255, above 0 to 1, got 0$"),
    "std_is_nan": ({"std": (0.25, float("nan"), 0.25)}, ParamError, "std must be that of .* got nan$"),
}  # fmt: skip


def damaged(changes) -> object:
    return changes(SOUND) if callable(changes) else dataclasses.replace(SOUND, **changes)


@pytest.mark.parametrize(("changes", "error", "message"), BAD.values(), ids=BAD.keys())
def test_what_does_not_belong_together_is_refused_before_anything_is_written(changes, error, message, tmp_path):
    with pytest.raises(error, match=message):
        train.train(TINY, folder=tmp_path / "run", dataset=damaged(changes), progress="none")
    assert names(tmp_path) == []


_SHORT = dataclasses.replace(SOUND, y_test=Y[:99])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of one step."""
    folder = tmp_path_factory.mktemp("entry") / "run"
    train.train(change(max_steps=1), folder=folder, dataset=SOUND, progress="none")
    return folder


ENTRIES = {
    "train_seeds": lambda run, free: train.train_seeds(TINY, 2, folder=free, dataset=_SHORT, progress="none"),
    "resume": lambda run, free: train.resume(run, dataset=_SHORT, progress="none"),
    "rehearse": lambda run, free: train.rehearse(TINY, dataset=_SHORT, progress="none"),
    "Run.evaluate": lambda run, free: Run(run).evaluate(_SHORT),
    "Run.report": lambda run, free: Run(run).report(free, dataset=_SHORT),
    "evaluate_on": lambda run, free: evaluate_on(Run(run).net(), _SHORT),
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())
def test_every_entrance_checks(entry, run, tmp_path):
    before = names(run)
    with pytest.raises(ShapeError, match="x_test has 100 pictures but y_test 99 labels"):
        entry(run, tmp_path / "free")
    assert (names(run), names(tmp_path)) == (before, [])


SHAPES = {
    "feature_maps": (8, 64, 4, 4),
    "one_pixel_wide": (8, 12, 100, 1),
    "small": (8, 3, 4, 3),
    "as_many_pictures_as_columns": (3, 3, 32, 3),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_pictures_of_odd_shapes_are_still_pictures(shape):
    x = np.zeros(shape, np.uint8)
    statistics = (0.5,) * shape[1]
    y = np.arange(len(x)) % 2
    data.check_dataset(data.Dataset("odd", ("a", "b"), x, y, x, y, statistics, statistics, ""))


def test_no_test_pictures_are_for_others_to_judge():
    data.check_dataset(dataclasses.replace(SOUND, x_test=X[:0], y_test=Y[:0]))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "uint32"])
def test_labels_of_a_narrower_type_train_the_same(dtype, tmp_path, run):
    narrow = dataclasses.replace(SOUND, y_train=Y.astype(dtype), y_test=Y[:100].astype(dtype))
    config = change(max_steps=1)
    train.train(config, folder=tmp_path / "run", dataset=narrow, progress="none")
    first, second = (Run(folder).net("last") for folder in (run, tmp_path / "run"))
    np.testing.assert_array_equal(first.flat_params, second.flat_params)
    for name in ("confusion", "test_right", "data_fingerprint"):
        assert Run(run).result[name] == Run(tmp_path / "run").result[name]
