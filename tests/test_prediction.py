"""Nets that predict: from the checkpoint alone, on pictures as training saw them, and refusing what cannot be used."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from train_helpers import change, names, shapes, write_format_1

import gpuconv
from gpuconv import cli, data, extras, tables, train
from gpuconv.cli import predict as command
from gpuconv.data.pictures import read_files
from gpuconv.errors import (
    ArgTypeError,
    CheckpointMismatchError,
    ConfigError,
    DatasetCorruptError,
    DatasetMissingError,
    GpuconvError,
    NonFiniteScoresError,
    ParamError,
    ShapeError,
    UnsupportedError,
)
from gpuconv.runs import checkpoint, evaluation, prediction, sealed
from gpuconv.runs.inputs import Inputs
from gpuconv.runs.prediction import Prediction, Predictions
from gpuconv.show import grid, plots
from gpuconv.train import Run

Image = pytest.importorskip("PIL.Image", reason="needs Pillow: pip install 'gpuconv[pictures]'")

COLOURS = {"blue": (40, 40, 200), "green": (40, 200, 40), "red": (200, 40, 40)}
CONFIG = change(
    data="pics/",
    widths=(8, 8, 8),
    epochs=10,
    batch_size=9,
    lr=0.006,
    crop=0,
    validation=0,
    train_images=0,
    test_images=0,
)  # no validation: the last epoch is the best


def draw(path: Path, colour: str, number: int, size: tuple[int, int] | None = None) -> Path:
    """Write a picture in shades of one colour, of a size of its own if none is given."""
    rng = np.random.default_rng([number, *colour.encode()])
    width, height = size or rng.integers(20, 90, 2)
    pixels = np.array(COLOURS[colour]) + rng.integers(-30, 30, (height, width, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run on pictures of mixed sizes, pics/train and pics/val, that are not where they were any more.

    home/run, home/moved (the pictures), home/seen.npz (what training saw of them).
    """
    folder = tmp_path_factory.mktemp("home")
    for part, count in (("train", 12), ("val", 3)):
        for colour in COLOURS:
            for number in range(count):
                draw(folder / "pics" / part / colour / f"{number}.png", colour, number + 100 * (part == "val"))
    with contextlib.chdir(folder):
        train.train(CONFIG, folder="run", progress="none")
        dataset = data.load("pics/", notice=lambda text: None)
    np.savez(folder / "seen.npz", x_train=dataset.x_train, x_test=dataset.x_test, mean=dataset.mean, std=dataset.std)
    (folder / "pics").rename(folder / "moved")
    return folder


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run the command in a folder with nothing in it; return (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return run


# Weights that stand alone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["run", "run/best.safetensors", "run/last.safetensors"])
def test_a_net_names_the_class_of_a_picture_without_its_data_set(file, home, call):
    for colour in COLOURS:
        code, out, err = call("predict", home / file, home / "moved" / "val" / colour / "0.png", "--top", "1")
        assert (code, err) == (0, "")
        (line,) = out.splitlines()
        assert line.split()[-2] == colour
        assert float(line.split()[-1].removesuffix("%")) > 90


def test_a_checkpoint_alone_is_enough(home, call, tmp_path):
    shutil.copy(home / "run" / "best.safetensors", tmp_path / "colours.safetensors")
    picture = draw(tmp_path / "new.png", "green", 999, (300, 200))
    code, out, err = call("predict", "colours.safetensors", "new.png")
    assert (code, err) == (0, "")
    assert out.split()[:2] == ["new.png", "green"]
    net = gpuconv.load("colours.safetensors")
    assert net.predict(picture)[0].label == "green"
    assert net.classes == ("blue", "green", "red")
    assert net.input_shape == net.net.input_shape == (3, 64, 64)
    seen = np.load(home / "seen.npz")
    assert (net.mean, net.std) == (tuple(seen["mean"]), tuple(seen["std"]))
    assert repr(net) == (
        "Classifier('colours.safetensors'): 3 classes, pictures of 64 x 64 (width x height), 3 channels"
    )


def test_load_run_and_command_say_the_same(home, call):
    folder = home / "moved" / "val"
    wanted = gpuconv.load(home / "run").predict(folder)
    assert Run(home / "run").predict(folder) == wanted
    code, out, _ = call("predict", home / "run", folder, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["classes"] == ["blue", "green", "red"]
    assert found["checkpoint"] == str(home / "run" / "best.safetensors")
    assert found["left_out"] == {}
    assert [
        Prediction(one["picture"], tuple(one["classes"]), tuple(one["probabilities"])) for one in found["predictions"]
    ] == wanted


def test_the_last_checkpoint_can_be_asked_for(home, call, tmp_path):
    shutil.copytree(home / "run", tmp_path / "run")
    arrays, values = sealed.read(home / "run" / "last.safetensors")
    turned = {name: -array if name.startswith("params/") else array for name, array in arrays.items()}
    sealed.write(tmp_path / "run" / "last.safetensors", turned, values)
    picture = home / "moved" / "val" / "red" / "0.png"
    best, last = (gpuconv.load(tmp_path / "run", checkpoint=name).predict(picture) for name in ("best", "last"))
    assert best != last
    assert Run(tmp_path / "run").predict(picture, checkpoint="last") == last
    code, out, _ = call("predict", "run", picture, "--checkpoint", "last", "--json")
    assert code == 0
    assert json.loads(out)["predictions"][0]["probabilities"] == list(last[0].probabilities)


def test_events_result_and_checkpoints_hold_what_the_net_takes(home):
    seen = np.load(home / "seen.npz")
    wanted = {
        "classes": ["blue", "green", "red"],
        "mean": seen["mean"].tolist(),
        "std": seen["std"].tolist(),
        "input_shape": [3, 64, 64],
        "scaling": "middle, bicubic",
    }
    run = Run(home / "run")
    (start,) = [event for event in run.events if event["event"] == "start"]
    for holder in (start, run.result):
        assert {name: holder[name] for name in wanted} == wanted
    for name in ("best", "last"):
        assert sealed.read(home / "run" / f"{name}.safetensors")[1]["inputs"] == wanted
    assert wanted.keys() <= run.facts.keys()


def test_export_of_a_run_whose_pictures_are_gone_says_all_of_it(home, call, tmp_path):
    pytest.importorskip("torch")
    code, out, err = call("export", home / "run", "--to", "torch", "-o", tmp_path / "theirs.safetensors")
    assert (code, err) == (0, "")
    assert "without test pictures: pictures in pics" in out
    source = (tmp_path / "theirs.py").read_text()
    mean = tuple(np.load(home / "seen.npz")["mean"].tolist())
    for line in ('CLASSES = ("blue", "green", "red")', f"MEAN = {mean}", 'SCALING = "middle, bicubic"'):
        assert line in source


def test_a_run_on_pictures_ends_with_how_to_try_it(home, call, tmp_path, monkeypatch):
    shutil.copytree(home / "moved", tmp_path / "pics")
    code, out, _ = call(
        *("train", "--data", "pics/", "--image-size", 8, "--widths", 4, "--epochs", 1),
        *("--batch-size", 10, "--progress", "plain"),
    )
    assert code == 0
    assert "try it: gpuconv predict runs/convnet-1 PICTURE\n" in out
    monkeypatch.setattr(data, "load", lambda name, **_: shapes())
    code, out, _ = call("train", "--data", "shapes", "--widths", 4, "--max-steps", 1, "--validation", 100)
    assert code == 0
    assert "try it" not in out


# Pictures as training saw them ----------------------------------------------------------------------------------------


def test_a_training_picture_is_the_very_array_that_training_saw(home):
    seen = np.load(home / "seen.npz")
    for part, images in (("train", seen["x_train"]), ("val", seen["x_test"])):
        found = prediction.read(home / "moved" / part, (3, 64, 64)).images
        assert found.shape == images.shape
        assert {picture.tobytes() for picture in found} == {picture.tobytes() for picture in images}


def test_eval_and_predict_agree_on_a_folder_with_another_mean(home, call, tmp_path):
    shutil.copytree(home / "moved" / "val", tmp_path / "other" / "val")
    for colour in COLOURS:
        (tmp_path / "other" / "train" / colour).mkdir(parents=True)
        Image.new("RGB", (64, 64), (9, 8, 7)).save(tmp_path / "other" / "train" / colour / "dark.png")
    predicted = gpuconv.load(home / "run").predict(tmp_path / "other" / "val")
    losses = [-np.log(one.probabilities[one.classes.index(Path(one.name).parent.name)]) for one in predicted]
    code, out, _ = call("eval", home / "run", "--data", "./other")
    assert code == 0
    assert out.endswith(f"loss {np.mean(losses):.4f}\n")
    run, dataset = Run(home / "run"), data.load("./other", image_size=64, notice=lambda text: None)
    assert dataset.mean[0] < 0.1 < run.result["mean"][0]
    assert run.evaluate(dataset).loss == pytest.approx(run.result["test_loss"], rel=1e-6)


def test_files_and_arrays_are_predicted_alike(home):
    net = gpuconv.load(home / "run")
    folder = home / "moved" / "val"
    images = prediction.read(folder, net.input_shape).images
    from_files, from_array = net.predict(folder), net.predict(images)
    assert [one.name for one in from_array[:2]] == ["picture 0", "picture 1"]
    assert [dataclasses.replace(one, name="") for one in from_array] == [
        dataclasses.replace(one, name="") for one in from_files
    ]
    few = net.predict(images, batch_size=2)
    assert [one.classes for one in few] == [one.classes for one in from_array]
    np.testing.assert_allclose([one.probabilities for one in few], [one.probabilities for one in from_array], atol=1e-5)
    with pytest.raises(ParamError, match="batch_size must be an int from 1"):
        net.predict(images, batch_size=0)


def test_probabilities_are_those_of_all_classes_in_order(home):
    for one in gpuconv.load(home / "run").predict(home / "moved" / "val"):
        assert sorted(one.classes) == ["blue", "green", "red"]
        assert list(one.probabilities) == sorted(one.probabilities, reverse=True)
        assert sum(one.probabilities) == pytest.approx(1)
        assert (one.label, one.probability) == (one.classes[0], one.probabilities[0])


SIZES = {  # a picture's (width, height), the net's (width, height), what is left over at each side
    "wide_to_square": ((90, 30), (16, 16), (30, 0)),
    "tall_to_square": ((20, 41), (16, 16), (0, 10)),
    "square_to_wide": ((40, 40), (32, 16), (0, 10)),
    "square_to_tall": ((40, 40), (8, 32), (15, 0)),
    "wide_to_wider": ((60, 40), (30, 10), (0, 10)),
    "one_pixel_high": ((64, 1), (4, 8), (31, 0)),
}


@pytest.mark.parametrize(("size", "wanted", "around"), SIZES.values(), ids=SIZES.keys())
def test_the_largest_part_in_the_middle_is_scaled(size, wanted, around, tmp_path):
    pixels = np.full((size[1], size[0], 3), 255, np.uint8)
    left, top = around
    inner = pixels[top : size[1] - top, left : size[0] - left]
    pixels[:] = 0
    inner[:] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = read_files([tmp_path / "a.png"], (3, wanted[1], wanted[0])).images
    assert found.shape == (1, 3, wanted[1], wanted[0])
    np.testing.assert_array_equal(found[..., 1:-1, 1:-1], 200)


def test_pictures_of_the_net_s_own_size_are_taken_as_they_are(tmp_path):
    path = draw(tmp_path / "a.png", "red", 0, (30, 20))
    found = read_files([path], (3, 20, 30)).images
    np.testing.assert_array_equal(found[0].transpose(1, 2, 0), np.asarray(Image.open(path)))


def test_a_net_of_one_channel_sees_grey(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    found = read_files([tmp_path / "a.png"], (1, 8, 8)).images
    np.testing.assert_array_equal(found, grey[None, None])
    with pytest.raises(UnsupportedError, match="the net takes 4: give it arrays"):
        read_files([tmp_path / "a.png"], (4, 8, 8))


# Which pictures -------------------------------------------------------------------------------------------------------


def test_folders_are_searched_in_natural_order_without_leftovers(home, tmp_path):
    root = tmp_path / "in"
    for name in ("10.png", "9.png", "b/2.png", "b/c/1.jpg", "a/x.png", ".hidden/1.png", "@eaDir/1.png", "._9.png"):
        draw(root / name, "red", 0, (8, 8))
    for name in ("notes.txt", "Thumbs.db", "b/labels.csv"):
        (root / name).write_text("text")
    shutil.copy(root / "9.png", root / "no_ending")
    with contextlib.suppress(OSError):
        (root / "b" / "up").symlink_to(root, target_is_directory=True)
    heard = []
    net = gpuconv.load(home / "run")
    found = net.predict(root, notice=heard.append)
    assert [os.path.relpath(one.name, root) for one in found] == [
        str(Path(name)) for name in ("9.png", "10.png", "no_ending", "a/x.png", "b/2.png", "b/c/1.jpg")
    ]
    assert heard == [f"{root}: passing over 2 files that are no picture, such as {root / 'notes.txt'}"]
    several = net.predict([root / "b", str(root / "9.png"), root / "9.png"])
    assert [os.path.relpath(one.name, root) for one in several][-2:] == ["9.png", "9.png"]


def test_broken_pictures_are_named_together_or_left_out(home, call, tmp_path):
    draw(tmp_path / "in" / "a.png", "red", 0)
    (tmp_path / "in" / "b.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:60])
    (tmp_path / "in" / "c.jpg").write_text("<html>not found</html>")
    code, out, err = call("predict", home / "run", "in", "--save", "grid.png")
    assert (code, out) == (1, "")
    assert err.startswith("gpuconv: error: in: 2 pictures cannot be read: mend or remove what is named here")
    assert "in/b.png cannot be read as a picture" in err
    assert "in/c.jpg is a page of a web server" in err
    assert names(tmp_path) == ["in"]
    code, out, err = call("predict", home / "run", "in", "--skip-broken", "--json")
    assert code == 0
    assert "in: 2 pictures cannot be read and left out:\n  in/b.png" in err
    found = json.loads(out)
    assert [one["picture"] for one in found["predictions"]] == ["in/a.png"]
    assert list(found["left_out"]) == ["in/b.png", "in/c.jpg"]
    with pytest.raises(DatasetCorruptError, match=r"no picture can be read, the first for this reason: in/b\.png"):
        gpuconv.load(home / "run").predict(["in/b.png", "in/c.jpg"], skip_broken=True)


def test_what_is_no_picture_and_no_folder_is_named(home, tmp_path):
    net = gpuconv.load(home / "run")
    with pytest.raises(DatasetMissingError, match=r"there is no picture or folder nowhere\.png, no/where"):
        net.predict(["nowhere.png", tmp_path, "no/where"])
    with pytest.raises(DatasetMissingError, match=r"the folder .* holds no pictures"):
        net.predict(tmp_path)
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(DatasetCorruptError, match=r"a\.csv cannot be read as a picture"):
        net.predict(tmp_path / "a.csv")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(DatasetMissingError, match=r"pipe\.png is neither a plain file nor a folder"):
            net.predict(tmp_path / "pipe.png")
    assert net.predict([]) == []


ARRAYS = {
    "one_picture": (np.zeros((3, 64, 64), np.uint8), ShapeError, r"got one picture \(3, 64, 64\): pictures\[None\]"),
    "channels_last": (np.zeros((2, 64, 64, 3), np.uint8), ShapeError, r"pictures\.transpose\(0, 3, 1, 2\) turns it"),
    "floats": (np.zeros((2, 3, 64, 64)), gpuconv.GpuconvError, r"\(255 \* pictures\)\.round\(\)"),
    "other_size": (np.zeros((2, 3, 32, 32), np.uint8), ShapeError, r"must be \(N, 3, 64, 64\) for this net"),
    "list_of_arrays": ([np.zeros((3, 64, 64), np.uint8)], ArgTypeError, "pictures must be the path of a picture"),
    "number": (3, ArgTypeError, "pictures must be the path of a picture or folder, .* got int"),
    "bytes": (b"a.png", ArgTypeError, "got bytes"),
}


@pytest.mark.parametrize(("pictures", "error", "message"), ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays_that_are_no_pictures_are_refused(pictures, error, message, home):
    with pytest.raises(error, match=message):
        gpuconv.load(home / "run").predict(pictures)


def test_an_empty_array_has_no_predictions(home):
    found = gpuconv.load(home / "run").predict(np.empty((0, 3, 64, 64), np.uint8))
    assert (found, repr(found)) == ([], "[]")
    assert "0 pictures" in found._repr_html_()


# What is shown --------------------------------------------------------------------------------------------------------


def some(count, classes, name="a.png"):
    """Return predictions of a net that finds every class as probable."""
    return Predictions(Prediction(f"{i}{name}", classes, (1 / len(classes),) * len(classes)) for i in range(count))


LINES = {
    "usual": (("cat", "dog", "bird"), "a.png", 3, 1),
    "two_classes": (("cat", "dog"), "a.png", 3, 1),
    "long_classes": (("c" * 70, "d" * 70, "e" * 70), "a.png", 3, 2),
    "long_names": (("cat", "dog", "bird"), "/" + "n" * 200 + "/last.png", 3, 1),
    "all_long": (("c" * 70, "d" * 70, "e" * 70), "n" * 200, 3, 3),
    "many": (tuple(f"class {i}" for i in range(100)), "a.png", 10, 3),
    "wide_letters": (("猫" * 20, "犬" * 20, "鳥" * 20), "写" * 60, 3, 3),
    "strange_letters": (("cat", "dog"), "\n\x1b[2J\udcff.png", 3, 1),
}


@pytest.mark.parametrize(("classes", "name", "top", "each"), LINES.values(), ids=LINES.keys())
def test_lines_fit_80_columns(classes, name, top, each):
    lines = command._lines(some(11, classes, name), top)
    assert len(lines) == 11 * each
    assert max(map(tables.width, lines)) <= 80
    text = "\n".join(lines)
    text.encode()
    assert all(letter.isprintable() for letter in text.replace("\n", ""))
    assert text.count("%") == 11 * min(top, len(classes))
    assert len({line.index("%") for line in lines[::each]}) == 1


def test_probabilities_are_those_of_scores_averaged_over_views(home, call):
    picture = home / "moved" / "val" / "red" / "0.png"
    net = gpuconv.load(home / "run")
    images = prediction.read([picture], net.input_shape).images
    scores = evaluation.scores_of(net.net, images, mean=net.mean, std=net.std, tta="flip+shift")
    shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    for found in (net.predict(picture, tta="flip+shift"), Run(home / "run").predict(picture, tta="flip+shift")):
        assert found[0].probabilities == pytest.approx(sorted(shares[0], reverse=True))
    assert net.predict(picture)[0].probabilities != found[0].probabilities
    document = json.loads(call("predict", home / "run", picture, "--tta", "flip+shift", "--json")[1])
    assert document["tta"] == "flip+shift"
    assert document["predictions"][0]["probabilities"] == list(found[0].probabilities)
    with pytest.raises(ParamError, match="tta must be one of"):
        net.predict(picture, tta="all")


def test_lines_fit_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    one = Prediction("new/000.png", ("crescent", "disc", "checkerboard"), (0.5, 0.3, 0.2))
    lines = command._lines([one], 3)
    assert max(map(tables.width, lines)) <= 60
    assert " ".join(lines).split() == ["new/000.png", "crescent", "50.0%", "disc", "30.0%", "checkerboard", "20.0%"]


def test_lines_are_aligned_and_names_keep_their_end(home, call):
    code, out, _ = call("predict", home / "run", home / "moved" / "val" / "red", "--top", "2")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 3
    assert all(line.split()[0].endswith(f"red/{number}.png") for number, line in enumerate(lines))
    assert all(next(word for word in line.split() if word in COLOURS) == "red" for line in lines)


def test_predictions_have_short_words_and_a_table():
    found = Predictions([Prediction("a & b.png", ("cat", "dog", "bird", "elk"), (0.9, 0.06, 0.03, 0.01))])
    line = "Prediction('a & b.png': cat 90.0%, dog 6.0%, bird 3.0%)"
    assert repr(found[0]) == repr(found) == line
    page = found._repr_html_()
    assert "a &amp; b.png" in page
    assert "<td>cat 90.0%</td><td>dog 6.0%</td><td>bird 3.0%</td></tr>" in page


def test_a_grid_is_drawn(home, call, tmp_path):
    pytest.importorskip("matplotlib")
    folder = home / "moved" / "val"
    code, out, err = call("predict", home / "run", folder, "--save", "grid.png")
    assert (code, err) == (0, "")
    assert out.endswith("\nwrote grid.png\n")
    with Image.open("grid.png") as drawn:
        pixels = np.asarray(drawn.convert("RGB")).astype(int)
    for colour in COLOURS.values():
        near = (np.abs(pixels - colour) < 40).all(axis=2).mean()
        assert 0.1 < near < 0.3, "each colour fills three pictures of nine"
    before = (tmp_path / "grid.png").read_bytes()
    code, out, err = call("predict", home / "run", folder, "--save", "grid.png")
    assert (code, out) == (2, "")
    assert "grid.png is there already: overwrite it with --force" in err
    assert (tmp_path / "grid.png").read_bytes() == before
    assert call("predict", home / "run", folder, "--save", "grid.png", "--force", "--json")[0] == 0
    assert (tmp_path / "grid.png").read_bytes() == before, "equal grids are equal files"


def test_a_grid_of_very_many_shows_the_first(home, call, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(grid, "MOST", 2)
    path = draw(tmp_path / "猫 $x$.png", "red", 0, (8, 8))
    code, out, err = call("predict", home / "run", *[path] * 3, "--save", "grid.png", "--top", "1")
    assert (code, err) == (0, "")
    assert out.endswith("wrote grid.png, the first 2 of 3\n")


BAD = {
    "suffix": (["--save", "grid.gif"], "must end in .png, .svg, .pdf, got grid.gif"),
    "folder": (["--save", "no/grid.png"], "there is no folder no to write grid.png into"),
    "views": (["--tta", "all"], "tta must be one of none, flip, flip+shift, got 'all'"),
    "top": (["--top", "0"], "--top must be 1 or more, got 0"),
    "device": (["--device", "tpu"], "invalid choice: 'tpu'"),
    "checkpoint": (["--checkpoint", "first"], "invalid choice: 'first'"),
}


@pytest.mark.parametrize(("flags", "message"), BAD.values(), ids=BAD.keys())
def test_flags_that_cannot_be_used_exit_with_2(flags, message, home, call, tmp_path):
    code, out, err = call("predict", home / "run", home / "moved" / "val", *flags)
    assert (code, out) == (2, "")
    assert message in err
    assert names(tmp_path) == []


def test_what_is_not_installed_is_named(home, call, monkeypatch):
    picture = home / "moved" / "val" / "red" / "0.png"
    monkeypatch.setattr(plots, "available", lambda: False)
    code, _, err = call("predict", home / "run", picture, "--save", "grid.png")
    assert (code, extras.install("plots") in err) == (2, True)
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    code, _, err = call("predict", home / "run", picture)
    assert (code, extras.install("pictures") in err) == (1, True)
    assert len(gpuconv.load(home / "run").predict(np.zeros((2, 3, 64, 64), np.uint8))) == 2


def test_help_fits_80_columns(call):
    code, out, err = call("predict", "--help")
    assert (code, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())


# Checkpoints that do not say it, or say what cannot be ----------------------------------------------------------------


def test_a_checkpoint_of_an_earlier_version_needs_its_data_set_once_more(home, call, tmp_path):
    arrays, values = sealed.read(home / "run" / "best.safetensors")
    write_format_1(tmp_path / "old.safetensors", arrays, values, ["blue", "green", "red"])
    picture = home / "moved" / "val" / "green" / "0.png"
    code, out, err = call("predict", "old.safetensors", picture)
    assert (code, out) == (2, "")
    assert "old.safetensors does not hold mean and std of the pictures it was trained on" in err
    assert "name its folder by --data-dir" in err
    code, out, err = call("predict", "old.safetensors", picture, "--data-dir", home / "moved", "--json")
    assert (code, err) == (0, "")
    (found,) = json.loads(out)["predictions"]
    (wanted,) = gpuconv.load(home / "run").predict(picture)
    assert (found["classes"], found["probabilities"]) == (list(wanted.classes), list(wanted.probabilities))
    assert gpuconv.load("old.safetensors", data_dir=home / "moved").predict(picture) == [wanted]
    for number in range(4):
        draw(tmp_path / "other" / "ab"[number % 2] / f"{number}.png", "red", number)
    with pytest.raises(ConfigError, match="the run was trained on pictures in pics"):
        gpuconv.load("old.safetensors", data_dir=tmp_path / "other")


def test_a_run_of_an_earlier_version_goes_on_and_says_it_then(home, tmp_path):
    shutil.copytree(home / "moved", tmp_path / "pics")
    with contextlib.chdir(tmp_path):
        train.train(dataclasses.replace(CONFIG, epochs=2, max_steps=4), folder="run", progress="none")
        (tmp_path / "run" / "result.json").unlink()
        for name in ("best", "last"):
            path = tmp_path / "run" / f"{name}.safetensors"
            write_format_1(path, *sealed.read(path), ["blue", "green", "red"])
        assert checkpoint.load(tmp_path / "run" / "last.safetensors").inputs.mean is None
        train.resume("run/last.safetensors", progress="none")
    assert checkpoint.load(tmp_path / "run" / "last.safetensors").inputs.mean is not None


HUGE = 10**400
HOSTILE = {
    "mean_too_short": {"mean": [0.5, 0.5]},
    "mean_too_long": {"mean": [0.5] * 4},
    "mean_no_list": {"mean": 0.5},
    "mean_text": {"mean": "0.5"},
    "mean_of_texts": {"mean": ["0", "1", "2"]},
    "mean_nan": {"mean": [float("nan"), 0.5, 0.5]},
    "mean_huge": {"mean": [HUGE, 0.5, 0.5]},
    "mean_alone": {"std": None},
    "std_alone": {"mean": None},
    "std_zero": {"std": [0.0, 0.5, 0.5]},
    "std_negative": {"std": [0.5, -0.5, 0.5]},
    "std_nan": {"std": [0.5, 0.5, float("nan")]},
    "std_infinite": {"std": [0.5, 0.5, float("inf")]},
    "std_huge": {"std": [0.5, 0.5, HUGE]},
    "std_true": {"std": [True, 0.5, 0.5]},
    "std_nested": {"std": [[0.5], 0.5, 0.5]},
    "size_zero": {"input_shape": [3, 0, 64]},
    "size_negative": {"input_shape": [3, 64, -64]},
    "size_huge": {"input_shape": [3, HUGE, 64]},
    "size_fraction": {"input_shape": [3, 64.0, 64]},
    "size_of_two": {"input_shape": [64, 64]},
    "size_none": {"input_shape": None},
    "size_another": {"input_shape": [3, 32, 32]},
    "channels_another": {"input_shape": [1, 64, 64], "mean": [0.5], "std": [0.5]},
    "classes_text": {"classes": "red"},
    "classes_numbers": {"classes": [1, 2, 3]},
    "classes_nested": {"classes": [["red"], "green", "blue"]},
    "classes_fewer": {"classes": ["red", "green"]},
    "classes_more": {"classes": ["red", "green", "blue", "white"]},
    "classes_none_at_all": {"classes": []},
    "classes_twice": {"classes": ["red", "red", "blue"]},
    "classes_very_many": {"classes": [f"c{number}" for number in range(200_000)]},
    "classes_that_clear_the_screen": {"classes": ["\x1b[2J", "green", "blue"]},
    "classes_without_letters": {"classes": ["", "green", "blue"]},
    "scaling_another": {"scaling": "stretched"},
    "scaling_none": {"scaling": None},
}


@pytest.mark.parametrize("changed", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_cannot_be_is_refused(changed, home, tmp_path, monkeypatch):
    arrays, values = sealed.read(home / "run" / "best.safetensors")
    values["inputs"].update(changed)
    real = json.dumps
    monkeypatch.setattr(sealed.json, "dumps", lambda value, **flags: real(value, **{**flags, "allow_nan": True}))
    sealed.write(tmp_path / "a.safetensors", arrays, values)
    monkeypatch.undo()
    with pytest.raises(CheckpointMismatchError, match=r"a\.safetensors") as caught:
        gpuconv.load(tmp_path / "a.safetensors")
    assert next(iter(changed)) in str(caught.value)
    assert len(str(caught.value)) < 2000
    with pytest.raises(CheckpointMismatchError):
        train.load_net(tmp_path / "a.safetensors")


@pytest.mark.parametrize("inputs", [None, [], "inputs", 3, {}, {"classes": ["a", "b", "c"]}])
def test_what_is_no_set_of_values_is_refused(inputs, home, tmp_path):
    arrays, values = sealed.read(home / "run" / "best.safetensors")
    sealed.write(tmp_path / "a.safetensors", arrays, {**values, "inputs": inputs})
    with pytest.raises(CheckpointMismatchError, match=r"a\.safetensors is not the checkpoint of a training run"):
        gpuconv.load(tmp_path / "a.safetensors")


def test_scores_that_are_no_numbers_are_an_error(home, call, tmp_path):
    arrays, values = sealed.read(home / "run" / "best.safetensors")
    weights = [name for name in arrays if name.startswith("params/") and name.endswith(".w")]
    for name in weights:
        arrays[name] = np.full_like(arrays[name], 3e38)
    sealed.write(tmp_path / "a.safetensors", arrays, values)
    code, out, err = call("predict", "a.safetensors", home / "moved" / "val", "--save", "grid.png")
    assert (code, out) == (1, "")
    assert "first comes out of layer" in err
    assert names(tmp_path) == ["a.safetensors"]
    with pytest.raises(NonFiniteScoresError):
        gpuconv.load("a.safetensors").predict(np.zeros((1, 3, 64, 64), np.uint8))


LOADED = {
    "nothing": (lambda folder: folder / "no.safetensors", "there is no checkpoint"),
    "no_run": (lambda folder: folder, "there is no checkpoint .*best.safetensors"),
    "text": (lambda folder: folder / "a.txt", "a.txt is corrupt"),
}


@pytest.mark.parametrize(("path", "message"), LOADED.values(), ids=LOADED.keys())
def test_load_says_what_is_no_run(path, message, tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(GpuconvError, match=message):
        gpuconv.load(path(tmp_path))


def test_load_takes_best_or_last(home):
    with pytest.raises(ConfigError, match='checkpoint must be "best" or "last", got \'first\''):
        gpuconv.load(home / "run", checkpoint="first")


def test_what_a_net_takes_survives_json(home):
    inputs = Inputs.of(shapes())
    assert Inputs.from_values(json.loads(json.dumps(inputs.to_values()))) == inputs
    assert (inputs.shape, inputs.classes, inputs.mean) == ((3, 32, 32), shapes().classes, shapes().mean)
