"""Runs that start from the weights of others: what is taken, what is drawn anew and said, what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from train_helpers import TINY, change, go, names, shapes, watch

from gpuconv import cli, data, nn, train
from gpuconv.errors import CheckpointCorruptError, CheckpointMismatchError, ConfigError, NonFiniteScoresError
from gpuconv.nn.from_config import build_for
from gpuconv.runs import checkpoint, sealed
from gpuconv.runs.settings import read
from gpuconv.train import Config, Run, loop
from gpuconv.train import weights as weights_of

CLASSES = shapes().classes


def drawn(*wanted: str, size: int = 32, channels: int = 3) -> data.Dataset:
    """Return pictures of classes of these names: the shapes of their numbers, cut to a size."""
    dataset, parts = shapes(), {}
    for part in ("train", "test"):
        kept = getattr(dataset, f"y_{part}") < len(wanted)
        pictures = np.resize(getattr(dataset, f"x_{part}")[kept], (int(kept.sum()), channels, 32, 32))
        parts[f"x_{part}"] = np.ascontiguousarray(np.tile(pictures, (1, 1, 2, 2))[:, :, :size, :size])
        parts[f"y_{part}"] = getattr(dataset, f"y_{part}")[kept]
    statistics = {"mean": dataset.mean[:1] * channels, "std": dataset.std[:1] * channels}
    return dataclasses.replace(dataset, name="other", classes=wanted, **parts, **statistics)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Finished runs of several nets."""
    folder = tmp_path_factory.mktemp("weights")
    go(TINY, folder / "plain")
    go(change(ema=0.9, epochs=1), folder / "average")
    go(change(net="three-layer", filters=3, hidden=8, epochs=1), folder / "three-layer")
    go(change(net="speedrun", widths=(4, 4, 4), preset="speedrun", epochs=1, batch_size=100), folder / "speedrun")
    return folder


@pytest.fixture
def start(folder, tmp_path, monkeypatch):
    """Begin a run from a run's weights, on other data, and end it before its first step; return it."""

    class Begun(Exception):
        pass

    def call(name: str, dataset: data.Dataset | None = None, **settings) -> loop.Training:
        seen = watch(monkeypatch, loop.Training, "prepare")
        monkeypatch.setattr(loop.Training, "go", lambda self: (_ for _ in ()).throw(Begun))
        values = {"train_images": 0, "validation": 10, "test_images": 0, "widths": (), "net": "weights", **settings}
        config = change(weights=str(folder / name), **values)
        with pytest.raises(Begun):
            train.train(config, folder=tmp_path / "begun", dataset=dataset or shapes(), progress="none")
        return seen[-1][0][0]

    return call


def arrays(net: nn.Net) -> dict[str, np.ndarray]:
    return {**net.params, **net.state}


def said(training: loop.Training) -> list[str]:
    """Return what was said of the head, here and in events.jsonl."""
    events = [event["message"] for event in Run(training.folder.path).events if event["event"] == "weights"]
    assert events == training.notes
    assert events[0].startswith("starting from ")
    return events[1:]


def of(folder: Path, name: str = "plain") -> dict[str, np.ndarray]:
    return arrays(train.load_net(folder / name / "best.safetensors"))


# What is taken ------------------------------------------------------------------------------------------------------


def test_everything_is_taken_from_the_best_epoch(folder, start):
    training = start("plain")
    assert said(training) == []
    epoch = Run(folder / "plain").result["best_epoch"]
    assert training.notes == [f"starting from plain/best.safetensors after epoch {epoch}: ConvNet with widths 4"]
    for name, array in arrays(training.net).items():
        np.testing.assert_array_equal(array, of(folder)[name])
    assert (training.stepper.optimiser.steps, training.steps_done) == (0, 0)


def test_learning_goes_on_from_there(folder, tmp_path, monkeypatch):
    config = change(epochs=4, lr=0.05, train_images=0, flip=False, crop=0)
    go(config, tmp_path / "first")
    seen = watch(monkeypatch, loop.Training, "_note")
    again = dataclasses.replace(config, weights=str(tmp_path / "first"), epochs=1, max_steps=1, lr=0.0)
    go(again, tmp_path / "second")
    ((_, outcome), _, _) = seen[0]
    assert outcome.loss < 0.8 * math.log(10)


@pytest.mark.parametrize("file", ["best", "last"])
def test_of_an_average_it_is_what_was_tested(file, folder, start):
    training = start(f"average/{file}.safetensors", ema=0.5)
    for name, array in arrays(training.net).items():
        np.testing.assert_array_equal(array, of(folder, "average")[name])
    average = training.stepper.average
    assert average is not None
    np.testing.assert_array_equal(average.state["params"], training.net.flat_params)


def test_a_step_in_float16_starts_from_them(folder, tmp_path, monkeypatch):
    seen = watch(monkeypatch, loop.Training, "_note")
    for precision in ("float32", "float16"):
        config = change(weights=str(folder / "plain"), epochs=1, max_steps=1, precision=precision)
        go(config, tmp_path / precision)
    losses = [outcome.loss for (_, outcome), _, _ in seen]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)  # far from what first weights give
    go(change(epochs=1, max_steps=1), tmp_path / "none")
    assert abs(seen[-1][0][1].loss - losses[0]) > 0.1 * losses[0]


def test_whitening_filters_are_kept(folder, start):
    training = start("speedrun", drawn("a", "b", "c"), optimizer="muon")
    np.testing.assert_array_equal(training.net.state["whiten.w"], of(folder, "speedrun")["whiten.w"])
    fresh = train.recipe.net(change(net="speedrun", widths=(4, 4, 4)), (3, 32, 32), 3)
    fresh.prepare(training.feed.first(100))
    assert not np.array_equal(fresh.state["whiten.w"], training.net.state["whiten.w"])


# Classes ------------------------------------------------------------------------------------------------------------


def test_a_head_of_other_classes_is_drawn_anew(folder, start):
    training = start("plain", drawn("a", "b", "c"))
    assert said(training) == ["affine1.w and affine1.b are drawn anew: 10 classes there, 3 here"]
    first = train.recipe.net(change(widths=(4,)), (3, 32, 32), 3)
    for name, array in arrays(training.net).items():
        wanted = arrays(first)[name] if name.startswith("affine1") else of(folder)[name]
        np.testing.assert_array_equal(array, wanted)


def test_as_many_classes_of_other_names_are_others(start):
    training = start("plain", drawn(*"abcdefghij"))
    assert said(training) == [f"affine1.w and affine1.b are drawn anew: the classes there are {', '.join(CLASSES)}"]


def test_classes_in_another_order_go_by_their_names(folder, start):
    turned = (*CLASSES[3:], *CLASSES[:3])
    training = start("plain", dataclasses.replace(shapes(), classes=turned))
    assert said(training) == [
        f"the classes stand in another order there, {', '.join(CLASSES)}: they are matched by name"
    ]
    for name in ("affine1.w", "affine1.b"):
        np.testing.assert_array_equal(training.net.params[name], np.roll(of(folder)[name], -3, axis=-1))


def test_of_classes_that_are_both_there_and_new_each_goes_its_way(folder, start):
    training = start("plain", drawn(CLASSES[7], "new", CLASSES[1]))
    taken = f"of affine1.w and affine1.b, what belongs to {CLASSES[7]}, {CLASSES[1]} is taken over"
    assert said(training) == [f"{taken}, and drawn anew for new"]
    first = train.recipe.net(change(widths=(4,)), (3, 32, 32), 3)
    for name in ("affine1.w", "affine1.b"):
        found, there = training.net.params[name], of(folder)[name]
        np.testing.assert_array_equal(found[..., [0, 2]], there[..., [7, 1]])
        np.testing.assert_array_equal(found[..., 1], first.params[name][..., 1])


def test_classes_without_names_are_matched_by_number(folder, start, tmp_path):
    content, values = sealed.read(folder / "plain" / "best.safetensors")
    values["data"].pop("classes", None)
    values.pop("inputs", None)
    sealed.write(tmp_path / "old.safetensors", content, values)
    training = start(tmp_path / "old.safetensors", drawn(*"abcdefghij"))
    assert said(training) == ["the classes there have no names: they are matched by number"]
    np.testing.assert_array_equal(training.net.params["affine1.w"], of(folder)["affine1.w"])


# Nets ---------------------------------------------------------------------------------------------------------------


def test_a_head_on_pictures_of_another_size_is_drawn_anew(folder, start):
    training = start("plain", drawn(*CLASSES, size=16))
    assert said(training) == ["affine1.w and affine1.b are drawn anew: pictures of 32 x 32 pixels there, 16 x 16 here"]
    np.testing.assert_array_equal(training.net.params["conv1.w"], of(folder)["conv1.w"])


def test_the_net_is_that_of_the_weights_unless_one_is_named():
    assert Config(weights="x").net == "weights"
    assert Config(weights="x", net="vgg").net == "vgg"
    assert Config(weights="x", widths=(4,)).net == "convnet"
    assert Config().net == "convnet"
    with pytest.raises(ConfigError, match=r'net "weights" is that of the weights .* name them by --weights'):
        Config(net="weights")
    with pytest.raises(ConfigError, match='net "weights" has its widths already'):
        Config(weights="x", net="weights", widths=(4,))


OTHERS = {
    "filters": ("plain", {"net": "convnet", "widths": (6,)}, None, r"conv1.w \(4, 3, 3, 3\), this one has conv1.w \(6"),
    "more_layers": ("plain", {"net": "convnet", "widths": (4, 4)}, None, "that one has no conv2.w"),
    "another_net": ("plain", {"net": "three-layer"}, None, r"--net weights \(net=\"weights\"\)"),
    "a_hidden_layer": (
        "three-layer",
        {},
        drawn(*CLASSES, size=16),
        "pixels, these have 16 x 16: --image-size 32 scales",
    ),
    "channels": ("plain", {}, drawn(*CLASSES, channels=1), "on pictures of 3 channels, these have 1"),
}


@pytest.mark.parametrize(("name", "settings", "dataset", "message"), OTHERS.values(), ids=OTHERS.keys())
def test_another_net_is_refused_with_the_first_difference(name, settings, dataset, message, folder, tmp_path):
    config = change(weights=str(folder / name), validation=10, **{"widths": (), "net": "weights", **settings})
    with pytest.raises(CheckpointMismatchError, match=message):
        train.train(config, folder=tmp_path / "run", dataset=dataset or shapes(), progress="none")
    assert not list(tmp_path.iterdir())


def _sequential(*layers: nn.Layer, shape=(3, 8, 8)) -> nn.Net:
    return nn.Net(nn.Sequential(*layers), shape)


def test_a_head_with_other_inputs_is_of_another_net(folder):
    first, second = (
        _sequential(nn.Conv(3, 4), nn.MaxPool(window), nn.Flatten(), nn.Affine(features, 10))
        for window, features in ((2, 36), (3, 16))
    )
    kept = {name: array.copy() for name, array in second.params.items()}
    weights = weights_of.Weights(checkpoint.load(folder / "plain" / "best.safetensors"), first)
    with pytest.raises(CheckpointMismatchError, match=r"has affine1.w \(36, 10\), this one has affine1.w \(16, 10\)"):
        weights.fill(second, CLASSES)
    for name, array in kept.items():
        np.testing.assert_array_equal(second.params[name], array)


LAYERS = {
    "affine": lambda: (nn.Conv(3, 4), nn.Flatten(), nn.Affine(144, 10), nn.Scale(0.5)),
    "convolution": lambda: (nn.Conv(3, 10, 1), nn.GlobalAveragePool()),
    "in_a_sequential": lambda: (nn.Conv(3, 4), nn.Sequential(nn.GlobalAveragePool(), nn.Affine(4, 10))),
}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize(("size", "classes"), [(8, 10), (8, 3), (12, 10), (12, 3)])
def test_a_net_of_layers_is_made_for_other_classes_and_pictures(layers, size, classes):
    net = build_for(
        _sequential(*layers()).config, input_shape=(3, size, size), classes=classes, seed=1, dtype="float64"
    )
    assert (net.input_shape, net.output_shape, net.dtype) == ((3, size, size), (classes,), np.float64)


def test_a_net_without_a_head_cannot_be_made_for_others():
    block = nn.Residual(nn.Sequential(nn.Conv(10, 10, pad=1)))
    net = _sequential(nn.Conv(3, 10), block, nn.GlobalAveragePool())
    with pytest.raises(ConfigError, match="no affine layer or convolution at its end"):
        build_for(net.config, input_shape=(3, 8, 8), classes=3, seed=0, dtype="float32")


# The run ------------------------------------------------------------------------------------------------------------


def test_the_run_repeats_from_its_settings_and_goes_on_without_the_file(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("there/best.safetensors").write_bytes((folder / "plain" / "best.safetensors").read_bytes())
    config = change(weights="there", net="weights", widths=())
    whole = go(config, tmp_path / "whole")
    assert read(tmp_path / "whole" / "config.toml") == config
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    repeated = read(tmp_path / "whole" / "config.toml")
    assert repeated.weights == str(tmp_path / "there")
    go(repeated, tmp_path / "again")
    for name in ("best", "last"):
        found, wanted = (sealed.read(tmp_path / run / f"{name}.safetensors")[0] for run in ("again", "whole"))
        assert {key: array.tobytes() for key, array in found.items()} == {
            key: array.tobytes() for key, array in wanted.items()
        }
    monkeypatch.chdir(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.Stepper, "step", _stop_after(3))
        with pytest.raises(KeyboardInterrupt):
            go(dataclasses.replace(config, checkpoint_every=1), tmp_path / "parts")
    Path("there/best.safetensors").unlink()
    train.resume(tmp_path / "parts", dataset=shapes(), progress="none")
    last = [checkpoint.load(tmp_path / run / "last.safetensors") for run in ("parts", "whole")]
    for key, array in last[1].arrays.items():
        np.testing.assert_array_equal(last[0].arrays[key], array)
    assert Run(tmp_path / "parts").result["test_loss"] == whole.test_loss


def _stop_after(steps: int):
    real, count = train.Stepper.step, itertools.count(1)

    def step(self, *arguments):
        if next(count) > steps:
            raise KeyboardInterrupt
        return real(self, *arguments)

    return step


def test_what_is_passed_on_names_no_folder(folder, tmp_path):
    result = go(change(weights=str(folder / "plain"), epochs=1), tmp_path / "run")
    for name in ("best.safetensors", "result.json", "events.jsonl", "report.html"):
        assert str(folder).encode() not in (result.folder / name).read_bytes()
    again = train.resume(result.folder / "best.safetensors", dataset=shapes(), progress="none")
    assert again.test_loss == result.test_loss


def test_several_seeds_start_from_them_and_a_dry_run_writes_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = change(weights=str(folder / "plain"), epochs=1, max_steps=2)
    rehearsal = train.rehearse(config, dataset=shapes(), progress="none")
    assert rehearsal.steps == 2
    assert not list(tmp_path.iterdir())
    seeds = train.train_seeds(config, 2, folder="seeds", dataset=shapes(), progress="none")
    assert [Run(result.folder).config.weights for result in seeds.results] == [str(folder / "plain")] * 2
    with pytest.raises(ConfigError, match=r"seeds holds several runs: .*seed-0, .*seed-1 \(name one\)"):
        go(change(weights="seeds"), tmp_path / "run")
    with pytest.raises(CheckpointMismatchError):
        train.train_seeds(change(weights=str(folder / "speedrun")), 2, folder="bad", dataset=shapes(), progress="none")
    assert names(tmp_path) == ["seeds"]


# The command --------------------------------------------------------------------------------------------------------


def test_the_command_takes_net_and_preset_of_the_weights(folder, gpuconv):
    flags = ("--batch-size", 100, "--epochs", 1, "--validation", 100, "--progress", "plain", "--run-dir", "new")
    code, out, err = gpuconv("train", "--weights", folder / "speedrun", *flags)
    assert (code, err) == (0, "")
    assert out.startswith("starting from speedrun/best.safetensors after epoch 1: SpeedrunNet with widths 4, 4, 4\n")
    assert "net      that of the weights, " in out
    config = read(Path("new/config.toml"))
    assert (config.preset, config.net, config.optimizer) == ("speedrun", "weights", "muon")
    assert config == dataclasses.replace(
        train.PRESETS["speedrun"], net="weights", weights=str(folder / "speedrun"), data="shapes", batch_size=100,
        epochs=1, validation=100,
    )  # fmt: skip


def test_pictures_of_several_sizes_are_scaled_to_what_the_weights_know(folder, tmp_path, monkeypatch, capsys):
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    for name, count in itertools.product(("cat", "dog"), range(10)):
        path = Path(f"pets/{name}/{count}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(rng.integers(0, 256, (40 + count, 40, 3), dtype=np.uint8)).save(path)
    flags = ("--data", "pets", "--epochs", "1", "--max-steps", "1", "--run-dir", "run")
    assert cli.main(["train", "--weights", str(folder / "plain"), *flags]) == 0
    out = capsys.readouterr().out
    assert "all are scaled to 32 x 32" in out
    assert "affine1.w and affine1.b are drawn anew: 10 classes there, 2 here" in out
    assert read(Path("run/config.toml")).image_size == 32
    assert cli.main(["eval", "run"]) == 0  # which finds the same pictures


FILES = {
    "page": (b"<!doctype html><html>sign in</html>" * 9, 1, "is a page of a web server"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", 1, "is a pointer of Git LFS"),
    "empty": (b"", 1, "is empty: copy or download it again"),
    "other_weights": (b"\x08\0\0\0\0\0\0\0{}      ", 1, "no seal of gpuconv in its header; `gpuconv import` makes"),
    "missing": (None, 2, "there is no checkpoint w.safetensors"),
}


@pytest.mark.parametrize(("content", "code", "message"), FILES.values(), ids=FILES.keys())
def test_what_is_no_checkpoint_is_named_and_nothing_written(content, code, message, gpuconv, tmp_path):
    if content is not None:
        Path("w.safetensors").write_bytes(content)
    before = names(tmp_path)
    for flags in ((), ("--net", "convnet"), ("--seeds", 2), ("--dry-run",)):
        found, _, err = gpuconv("train", "--weights", "w.safetensors", "--progress", "none", *flags)
        assert (found, err.count(message)) == (code, 1)
    assert names(tmp_path) == before


def test_a_folder_without_weights_is_named(folder, gpuconv, tmp_path):
    Path("run").mkdir()
    assert "run has no best.safetensors" in gpuconv("train", "--weights", "run")[2]
    Path("run/last.safetensors").write_bytes((folder / "plain" / "last.safetensors").read_bytes())
    code, _, err = gpuconv("train", "--weights", "run")
    assert (code, err.count("name run/last.safetensors for its weights as they are")) == (2, 1)
    assert names(tmp_path) == ["run"]


def test_weights_that_give_no_scores_are_refused(folder, tmp_path):
    content, values = sealed.read(folder / "plain" / "best.safetensors")
    huge = {name: np.full_like(array, 1e30) if name.startswith("params/") else array for name, array in content.items()}
    sealed.write(tmp_path / "huge.safetensors", huge, values)
    config = change(weights=str(tmp_path / "huge.safetensors"))
    with pytest.raises(NonFiniteScoresError, match=r"huge.safetensors gives scores that are not numbers"):
        go(config, tmp_path / "run")
    bytes_of = bytearray((folder / "plain" / "best.safetensors").read_bytes())
    bytes_of[-4:] = np.float32(np.nan).tobytes()
    (tmp_path / "nan.safetensors").write_bytes(bytes_of)
    with pytest.raises(CheckpointCorruptError):
        go(change(weights=str(tmp_path / "nan.safetensors")), tmp_path / "run")
    assert names(tmp_path) == ["huge.safetensors", "nan.safetensors"]


def test_a_lone_checkpoint_is_no_run_to_go_on_with(folder, gpuconv, tmp_path):
    Path("mine.safetensors").write_bytes((folder / "plain" / "best.safetensors").read_bytes())
    for flags in ((), ("--max-minutes", 0)):
        code, _, err = gpuconv("train", "--resume", "mine.safetensors", *flags)
        sentence = "mine.safetensors lies in no run's folder: to start a new run from it, gpuconv train --weights mine"
        assert (code, err.count(sentence)) == (2, 1)
    assert names(tmp_path) == ["mine.safetensors"]


def test_weights_from_elsewhere_are_imported_and_started_from(folder, gpuconv):
    flags = ("--net", folder / "plain", "-o", "mine.safetensors")
    assert gpuconv("export", folder / "plain", "--to", "torch", "--no-check", "-o", "net.safetensors")[0] == 0
    assert gpuconv("import", "net.safetensors", *flags)[0] == 0
    code, out, _ = gpuconv("train", "--weights", "mine.safetensors", "--epochs", 1, "--max-steps", 1, "--validation", 9)
    assert code == 0
    assert out.startswith("starting from mine.safetensors: ConvNet with widths 4\n")
    help_text = gpuconv("import", "--help")[1]
    assert "gpuconv train --weights FILE" in help_text
    assert all(len(line) <= 80 for line in help_text.splitlines())


def test_images_are_learnt_by_heart_from_there(folder, gpuconv):
    flags = ("--overfit", 20, "--max-steps", 2, "--run-dir", "run", "--progress", "none")
    assert gpuconv("train", "--weights", folder / "plain", *flags) == (0, "", "")
    assert read(Path("run/config.toml")).batch_size == 20
    assert Run("run").events[1]["message"].startswith("starting from plain/")


def test_settings_of_a_file_may_name_weights_alone(folder, gpuconv):
    Path("mine.toml").write_text(f"weights = {json.dumps(str(folder / 'plain'))}\nepochs = 1\nmax_steps = 1\n")
    assert gpuconv("train", "--config", "mine.toml", "--run-dir", "run", "--validation", 9)[0] == 0
    assert read(Path("run/config.toml")).net == "weights"
    assert weights_of.recipe_of("run").net == "weights"
