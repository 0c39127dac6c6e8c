"""The data of a run: found again by every command, told from others, split where the settings leave that open."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest
from train_helpers import change, go, shapes, watch

from gpuconv import cli, data, train
from gpuconv.data import cifar10, sources
from gpuconv.errors import ConfigError, DatasetMissingError
from gpuconv.runs.dataset import counts_in_words, fingerprint, first_test_images, load_dataset
from gpuconv.runs.settings import read
from gpuconv.train import Run, recipe

FLAGS = ("--widths", "4", "--epochs", "2", "--batch-size", "8", "--lr", "0.05", "--crop", "1", "--image-size", "8")


def own(classes=("cat", "dog"), images=100, tests=20, name="mine") -> data.Dataset:
    """Return pictures of noise that are not one of the package's own data sets."""
    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, (images + tests, 3, 32, 32), dtype=np.uint8)
    y = np.arange(images + tests) % len(classes)
    statistics = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    return data.Dataset(
        name=name, classes=tuple(classes), x_train=x[:images], y_train=y[:images], x_test=x[images:],
        y_test=y[images:], source="drawn", **statistics,
    )  # fmt: skip


@pytest.fixture
def gpuconv(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; return (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def pets(tmp_path):
    """A folder of 40 + 40 pictures, 12 wide and 10 high, of two colours."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    rng = np.random.default_rng(8)
    for name, colour in (("cat", 60), ("dog", 180)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(40):
            pixels = (colour + rng.integers(0, 60, (10, 12, 3))).astype(np.uint8)
            image.fromarray(pixels).save(tmp_path / "pets" / name / f"{number}.png")
    return tmp_path / "pets"


@pytest.fixture
def no_cifar(tmp_path, monkeypatch):
    """A machine without CIFAR and, as far as the package can tell, without network; the drawn set is small."""
    monkeypatch.delenv("GPUCONV_DATA", raising=False)
    monkeypatch.setenv("GPUCONV_CACHE", str(tmp_path / "cache"))

    def download(*_, **__):
        raise AssertionError

    monkeypatch.setattr(sources, "fetch", download)
    monkeypatch.setattr(sources, "draw_shapes", lambda seed: shapes())


# Every place loads by the same rule ---------------------------------------------------------------------------------


def test_the_notice_that_shapes_stand_in_goes_where_the_run_reports(no_cifar, tmp_path, capsys):
    config = change(data="auto", download=False, max_steps=1)
    train.train(config, folder=tmp_path / "silent", progress="none")
    assert capsys.readouterr() == ("", "")
    train.train(config, folder=tmp_path / "plain", progress="plain")
    out, err = capsys.readouterr()
    assert "NOT CIFAR-10" in out
    assert err == ""
    assert read(tmp_path / "plain" / "config.toml").data == "shapes"


def test_a_run_looks_for_its_data_silently(no_cifar, tmp_path, capsys):
    go(change(data="auto", max_steps=1), tmp_path / "run")
    assert Run(tmp_path / "run").dataset() is shapes()
    assert capsys.readouterr() == ("", "")


def test_a_dry_run_without_the_data_says_how_to_get_them(no_cifar, gpuconv):
    code, out, err = gpuconv("train", "--data", "cifar10", "--dry-run")
    assert (code, out) == (1, "")
    assert "CIFAR-10 is not in" in err
    assert "`gpuconv data get cifar10` fetches it" in err
    code, _, err = gpuconv("train", "--data", "cifar100-coarse", "--dry-run")
    assert "`gpuconv data get cifar100` fetches it" in err
    few = ("--widths", "4", "--batch-size", "20", "--validation", "100", "--dry-run")
    code, out, err = gpuconv("train", *few)
    assert (code, err) == (0, "")
    assert "NOT CIFAR-10" in out


@pytest.mark.parametrize("download", [True, False])
def test_eval_downloads_only_if_the_run_might(download, tmp_path, monkeypatch, gpuconv):
    go(change(max_steps=1, download=download), tmp_path / "run")
    monkeypatch.setattr(data, "load", lambda name, **_: shapes())
    seen = watch(monkeypatch, data, "load")
    assert gpuconv("eval", "run")[0] == gpuconv("eval", "run", "--data", "cifar10")[0] == 0
    assert [keywords["download"] for _, keywords, _ in seen] == [download] * 2
    assert [arguments for arguments, _, _ in seen] == [("shapes",), ("cifar10",)]


def test_a_run_on_pictures_is_resumed_tested_and_exported_where_they_were_moved(pets, gpuconv, tmp_path):
    assert gpuconv("train", "--data", "pets", *FLAGS, "--run-dir", "run", "--progress", "none") == (0, "", "")
    accuracy = Run(tmp_path / "run").result["test_accuracy"]
    (tmp_path / "run" / "result.json").unlink()  # as if the process had died before
    pets.rename(tmp_path / "animals")
    for command in (["train", "--resume", "run"], ["eval", "run"]):
        code, _, err = gpuconv(*command)
        assert code == 1
        assert "pets does not exist" in err
    assert gpuconv("train", "--resume", "run", "--data-dir", "animals", "--progress", "none") == (0, "", "")
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (record["test_accuracy"], record["data"]) == (accuracy, "pictures in pets, scaled to 8 x 8 pixels (width x height)")  # fmt: skip
    code, out, err = gpuconv("eval", "run", "--data-dir", tmp_path / "animals")
    assert (code, err) == (0, "")
    assert "the net was trained on" not in out
    assert f"all  {accuracy:>7.2%}" in out
    run = Run(tmp_path / "run")
    assert run.evaluate(run.dataset("animals")).accuracy == accuracy
    pytest.importorskip("onnx")
    code, out, err = gpuconv("export", "run", "--to", "onnx", "--input", "uint8", "--data-dir", "animals")
    assert (code, err) == (0, "")
    assert "16 test pictures of pictures in pets" in out


def test_other_pictures_in_the_place_of_a_runs_are_refused(pets, gpuconv, tmp_path):
    assert gpuconv("train", "--data", "pets", *FLAGS, "--max-steps", "1", "--run-dir", "run")[0] == 0
    image = pytest.importorskip("PIL.Image")
    path = min((pets / "cat").iterdir())
    image.fromarray(np.zeros((10, 12, 3), np.uint8)).save(path)
    (tmp_path / "run" / "result.json").unlink()
    for command in (
        ["train", "--resume", "run"],
        ["eval", "run"],
        ["export", "run", "--to", "onnx", "--data-dir", "pets"],
    ):
        code, _, err = gpuconv(*command)
        assert code == 2
        assert "the run was trained on pictures in pets, scaled to 8 x 8" in err
    assert "(the net was trained on another version of it)" in gpuconv("eval", "run", "--data", pets)[1]


def test_export_and_import_know_the_size_of_the_pictures(pets, gpuconv, tmp_path):
    pytest.importorskip("onnx")
    assert gpuconv("train", "--data", "pets", *FLAGS, "--max-steps", "1", "--run-dir", "run")[0] == 0
    code, out, err = gpuconv("export", "run", "--to", "onnx")
    assert (code, err) == (0, "")
    assert "16 test pictures of pictures in pets" in out
    again = ["import", "run/net.onnx", "--net", "run/config.toml", "-o"]
    code, _, err = gpuconv(*again, "a.safetensors")
    assert (code, err) == (0, "")
    pets.rename(tmp_path / "animals")
    code, _, err = gpuconv(*again, "b.safetensors", "--data-dir", "animals")
    assert (code, err) == (0, "")


# Which data they are ------------------------------------------------------------------------------------------------


def test_every_picture_of_ones_own_counts():
    known = fingerprint(own())
    assert fingerprint(own()) == known
    assert fingerprint(own(["cat", "hound"])) != known
    for part in ("x_train", "x_test"):
        changed = getattr(own(), part).copy()
        changed[1, 0, 0, 0] ^= 1
        assert fingerprint(dataclasses.replace(own(), **{part: changed})) != known
    flat = {part: getattr(own(), part).reshape(-1, 3, 64, 16) for part in ("x_train", "x_test")}
    assert fingerprint(dataclasses.replace(own(), **flat)) != known


def test_pictures_with_the_classes_of_cifar_are_still_ones_own():
    pictures = own(cifar10.CLASSES, name="pictures in cifar")
    changed = pictures.x_train.copy()
    changed[1] ^= 1
    assert fingerprint(pictures) != fingerprint(dataclasses.replace(pictures, x_train=changed))


@pytest.mark.parametrize("dataset", [shapes(), own(cifar10.CLASSES, name="CIFAR-10")], ids=["shapes", "cifar10"])
def test_checkpoints_on_the_packages_own_sets_keep_their_fingerprint(dataset):
    digest = hashlib.blake2b(digest_size=16)
    for labels in (dataset.y_train, dataset.y_test):
        digest.update(labels.astype("<i8").tobytes())
    for images in (dataset.x_train, dataset.x_test):
        digest.update(images[::50].tobytes())
    digest.update(repr((dataset.mean, dataset.std)).encode())
    assert fingerprint(dataset) == digest.hexdigest()


# How many validate --------------------------------------------------------------------------------------------------

TENTHS = {1: 0, 2: 1, 9: 1, 19: 1, 100: 10, 1234: 123, 50_000: 5000, 100_000: 5000}


@pytest.mark.parametrize(("images", "count"), TENTHS.items(), ids=map(str, TENTHS))
def test_of_ones_own_pictures_a_tenth_validates(images, count):
    labels = np.zeros(images, np.int64)
    dataset = dataclasses.replace(own(), y_train=labels)
    assert recipe.settled(train.Config(), dataset).validation == count
    assert recipe.settled(train.Config(validation=7), dataset).validation == 7
    for name in ("CIFAR-10", "any other"):
        ours = dataclasses.replace(dataset, name=name, classes=cifar10.CLASSES)
        assert recipe.settled(train.Config(), ours).validation == 5000


def test_the_number_that_validate_is_kept_with_the_run(pets, gpuconv, tmp_path):
    code, out, err = gpuconv("train", "--data", "pets", *FLAGS, "--max-steps", "1", "--patience", "1")
    assert (code, err) == (0, "")
    assert "58 train, 6 validation, 16 test" in " ".join(out.split())
    assert read(tmp_path / "runs" / "convnet-1" / "config.toml").validation == 6


def test_given_data_settle_the_number_too(tmp_path):
    config = change(validation=-1, train_images=0, test_images=0, max_steps=1)
    train.train(config, folder=tmp_path / "run", dataset=own(), progress="none")
    assert Run(tmp_path / "run").config.validation == 10
    assert len(recipe.split(own(), config).y_train) == 90


# Folders as people have them ----------------------------------------------------------------------------------------


@pytest.fixture
def parts(pets):
    """The same pictures as train, val and test: 24, 10 and 6 of each class."""
    for name in ("cat", "dog"):
        for part, numbers in (("train", range(24)), ("val", range(24, 34)), ("test", range(34, 40))):
            (pets / part / name).mkdir(parents=True)
            for number in numbers:
                (pets / name / f"{number}.png").rename(pets / part / name / f"{number}.png")
        (pets / name).rmdir()
    return pets


def test_a_folders_own_validation_pictures_are_validated_on(parts, gpuconv, tmp_path):
    code, out, err = gpuconv("train", "--data", "pets", *FLAGS, "--max-steps", "1")
    assert (code, err) == (0, "")
    assert "48 train, 20 validation, 12 test" in " ".join(out.split())
    assert "2 classes, pictures to train + validate + test: cat 24 + 10 + 6, dog 24 + 10 + 6" in out
    run = Run(tmp_path / "runs" / "convnet-1")
    assert run.config.validation == 20
    known = {path.stem for path in (parts / "val" / "cat").iterdir()}
    assert len(known) == 10
    held_out = recipe.split(run.dataset(), run.config)
    expected = data.read_pictures(parts, image_size=8).x_train[-20:]
    np.testing.assert_array_equal(held_out.x_validation, expected)
    code, out, err = gpuconv("train", "--data", "pets", *FLAGS, "--validation", "5")
    assert code == 2
    assert "has 20 pictures of its own to validate on, got validation=5: leave that out" in err
    code, out, err = gpuconv("data", "show", "pets", "--image-size", "8")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert ["class", "train", "validation", "test"] in rows
    assert ["cat", "24", "10", "6"] in rows
    assert rows[-1] == ["all", "48", "20", "12"]


def test_broken_pictures_stop_a_run_before_there_is_one_unless_left_out(pets, gpuconv, tmp_path):
    for number in (3, 7):
        (pets / "dog" / f"{number}.png").write_bytes(b"")
    code, _, err = gpuconv("train", "--data", "pets", *FLAGS, "--max-steps", "1")
    assert code == 1
    assert all(
        words in err for words in ("2 pictures cannot be read", "3.png is empty", "7.png is empty", "--skip-broken")
    )
    assert not (tmp_path / "runs").exists()
    code, out, _ = gpuconv("train", "--data", "pets", *FLAGS, "--max-steps", "1", "--skip-broken")
    assert code == 0
    assert "2 pictures cannot be read and left out" in out
    run = tmp_path / "runs" / "convnet-1"
    assert read(run / "config.toml").skip_broken
    assert gpuconv("eval", run)[0] == 0, "the setting goes with the run"
    assert gpuconv("data", "show", "pets")[0] == 1
    assert gpuconv("data", "show", "pets", "--skip-broken")[0] == 0


def test_eval_leaves_out_broken_pictures_of_another_folder_if_asked_to(pets, gpuconv, tmp_path):
    assert gpuconv("train", "--data", "pets", *FLAGS, "--max-steps", "1")[0] == 0
    shutil.copytree(pets, tmp_path / "others")
    (tmp_path / "others" / "cat" / "3.png").write_bytes(b"\x89PNG")
    code, _, err = gpuconv("eval", "runs/convnet-1", "--data", "others")
    assert (code, "3.png cannot be read" in err, "--skip-broken" in err) == (1, True, True)
    code, out, _ = gpuconv("eval", "runs/convnet-1", "--data", "others", "--skip-broken")
    assert (code, "test images of pictures in others" in out) == (0, True)


def test_of_many_classes_the_rarest_and_the_commonest_are_counted():
    many = own([f"c{number}" for number in range(30)], images=95)
    words = counts_in_words(many)
    assert words == "30 classes, pictures to train + test: c0 4 + 0, c25 3 + 0"


# Batches that do not fit --------------------------------------------------------------------------------------------

BATCHES = {
    "enough": (200, 1, 200, 200, 1),
    "one_short": (201, 1, 200, 25, 1),
    "few": (128, 1, 60, 8, 1),
    "fewer_than_eight": (128, 1, 5, 5, 1),
    "in_parts": (128, 4, 119, 12, 4),
    "more_parts_than_images": (128, 8, 3, 3, 3),
    "the_presets_would_leave_an_epoch_too_few_steps": (128, 1, 270, 33, 1),
    "another_is_kept": (127, 1, 270, 127, 1),
}


@pytest.mark.parametrize(("asked", "accumulate", "images", "taken", "parts"), BATCHES.values(), ids=BATCHES.keys())
def test_a_batch_larger_than_the_set_is_made_smaller(asked, accumulate, images, taken, parts):
    config = train.Config(batch_size=asked, accumulate=accumulate, validation=0, train_images=images)
    fitted = recipe.fitted(config, own(images=300))
    assert (fitted.batch_size, fitted.accumulate) == (taken, parts)
    assert dataclasses.replace(fitted, batch_size=asked, accumulate=accumulate) == config


def test_of_many_pictures_a_preset_s_batch_is_kept():
    config = train.Config(validation=0, train_images=1024)
    assert recipe.fitted(config, own(images=1024)) == config
    assert recipe.fitted(dataclasses.replace(config, train_images=1023), own(images=1024)).batch_size == 127


def test_of_data_that_the_presets_are_made_for_their_batch_is_kept():
    config = train.Config(validation=0, train_images=200)
    assert recipe.fitted(config, data.load("shapes")) == config


def test_a_batch_that_leaves_an_epoch_too_few_steps_is_said(tmp_path, capsys):
    train.train(train.Config(max_steps=1), folder=tmp_path / "run", dataset=own(images=300), progress="plain")
    words = (
        "batch_size=128 would leave an epoch of 270 training images fewer than 8 steps: batches of 33 are taken instead"
    )
    assert words in " ".join(capsys.readouterr().out.split())
    assert read(tmp_path / "run" / "config.toml").batch_size == 33


def test_a_batch_made_smaller_is_said_and_kept_with_the_run(tmp_path, capsys):
    config = change(batch_size=201, max_steps=2)
    train.train(config, folder=tmp_path / "run", dataset=shapes(), progress="plain")
    words = "batch_size=201 is more than the 200 training images: batches of 25 are taken instead"
    assert words in " ".join(capsys.readouterr().out.split())
    assert read(tmp_path / "run" / "config.toml").batch_size == 25
    seeds = train.train_seeds(config, 1, folder=tmp_path / "seeds", dataset=shapes(), progress="none")
    assert seeds.results[0].steps == 2


# Testing again ------------------------------------------------------------------------------------------------------


def test_a_run_with_patience_is_tested_again(tmp_path, monkeypatch):
    result = go(change(patience=1, tta="flip"), tmp_path / "run")
    run = Run(tmp_path / "run")
    monkeypatch.setattr(data, "load", lambda name, **_: shapes())
    assert run.evaluate().accuracy == result.test_accuracy
    assert run.evaluate(tta="flip").accuracy == result.test_accuracy_tta
    assert run.evaluate(shapes()).count == 60


def test_another_data_set_is_tested_whole(tmp_path):
    go(change(max_steps=1), tmp_path / "run")
    for tests in (20, 80):
        assert Run(tmp_path / "run").evaluate(own(shapes().classes, 100, tests)).count == tests


MOVED = {
    "a_run": ({"trained_on": ("x", "y")}, True),
    "no_run": ({}, False),
    "a_folder_that_was_named": ({"trained_on": ("x", "y"), "data_dir": "elsewhere"}, False),
}


@pytest.mark.parametrize(("options", "told"), MOVED.values(), ids=MOVED.keys())
def test_where_pictures_have_moved_to_is_asked_of_a_run_alone(tmp_path, monkeypatch, options, told):
    """Who names a folder knows how to."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetMissingError) as caught:
        load_dataset(change(data="./gone"), **options)
    assert ("name it by --data-dir" in str(caught.value)) == told


def test_a_named_set_that_is_missing_has_not_moved(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUCONV_DATA", str(tmp_path))
    with pytest.raises(DatasetMissingError) as caught:
        load_dataset(change(data="cifar10", data_dir="", download=False), trained_on=("cifar10", "y"))
    assert "name it by --data-dir" not in str(caught.value)


def test_test_images_are_the_first():
    images, labels = first_test_images(shapes(), 7)
    np.testing.assert_array_equal(images, shapes().x_test[:7])
    np.testing.assert_array_equal(labels, shapes().y_test[:7])
    assert len(first_test_images(shapes(), 0)[1]) == len(first_test_images(shapes(), 100)[1]) == 100
    for count, message in ((-1, "from 0 on, got -1"), (101, "has 100 test images, too few for test_images=101")):
        with pytest.raises(ConfigError, match=message):
            first_test_images(shapes(), count)
