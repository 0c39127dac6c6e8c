"""The trainer with every net: its preset, its settings, a net from a file, and a resumed run without the file."""

import dataclasses
import json

import numpy as np
import pytest
from train_helpers import TINY, assert_same_run, shapes

from gpuconv import data, nn, train
from gpuconv.errors import ConfigError, GpuconvError
from gpuconv.runs import checkpoint
from gpuconv.runs.settings import read
from gpuconv.train import PRESETS, Config, Stepper, recipe

NETS = {
    "convnet": (nn.ConvNet, (4, 4)),
    "vgg": (nn.VGG, (2, 3)),
    "resnet9": (nn.ResNet9, (2, 3, 3, 4)),
    "resnet18": (nn.ResNet18, (2, 2, 3, 3)),
    "speedrun": (nn.SpeedrunNet, (2, 3, 3)),
}
SMALL = {"data": "shapes", "batch_size": 10, "train_images": 30, "validation": 20, "test_images": 10, "max_steps": 2}

OWN = """
[[layer]]
kind = "conv"
filters = 4
stride = 4

[[layer]]
kind = "residual"
[[layer.body]]
kind = "conv"
filters = 4
pad = 1
[[layer.body]]
kind = "relu"

[[layer]]
kind = "affine"
"""


def go(config, folder):
    return train.train(config, folder=folder, dataset=shapes(), progress="none")


@pytest.mark.parametrize("name", NETS)
def test_a_run_of_each_preset_trains_the_net_of_its_name(name, tmp_path):
    cls, widths = NETS[name]
    result = go(dataclasses.replace(PRESETS[name], widths=widths, **SMALL), tmp_path)
    assert result.steps == 2
    net = checkpoint.load_net(tmp_path / "best.safetensors")
    assert type(net) is cls
    assert net.config["widths"] == list(widths)
    assert not (net.flat_params == nn.build(net.config).flat_params).all()


@pytest.mark.parametrize("name", NETS)
def test_widths_left_out_are_the_nets_own(name):
    cls, _ = NETS[name]
    own = nn.ConvNet(32, 64, 128) if name == "convnet" else cls()
    assert recipe.net(Config(net=name), (3, 32, 32), 10).config == own.config


def test_settings_of_muon_reach_it():
    config = Config(
        optimizer="muon", momentum=0.7, nesterov=False, muon_momentum=0.5, muon_iterations=4, affine_lr=3, bias_lr=5,
        weight_decay=0.1,
    )  # fmt: skip
    optimiser = recipe.optimiser(config, nn.ConvNet(2, input_shape=(3, 4, 4)))
    assert type(optimiser) is nn.Muon
    assert optimiser.settings == {
        "iterations": 4, "renormalise": True, "affine_lr": 3.0, "momentum": 0.5, "nesterov": False, "sgd_momentum": 0.7,
    }  # fmt: skip
    assert (optimiser.weight_decay, optimiser.bias_lr) == (0.1, 5.0)


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam", "adamw", "muon"])
def test_bias_lr_reaches_every_optimiser(name):
    optimiser = recipe.optimiser(Config(optimizer=name, bias_lr=3.0), nn.ConvNet(2, input_shape=(3, 4, 4)))
    assert optimiser.bias_lr == 3.0


def test_what_does_not_fit_a_net_is_a_bad_setting():
    for settings, message in (
        ({"net": "vgg", "widths": (4, 4, 4)}, "two widths"),
        ({"net": "resnet9", "widths": (4, 4)}, "4 widths"),
    ):
        with pytest.raises(ConfigError, match=message):
            recipe.net(Config(**settings), (3, 32, 32), 10)
    with pytest.raises(ConfigError, match=r'did you mean "resnet(9|18)"'):
        Config(net="resnet")
    with pytest.raises(ConfigError, match=r"net 'mine\.json' is not known"):
        Config(net="mine.json")


def test_a_net_from_a_file_is_trained_and_read_without_it(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    config = dataclasses.replace(TINY, net=str(path))
    result = go(config, tmp_path / "run")
    path.unlink()
    assert (result.folder / "mine.toml").read_text() == OWN
    assert 'net = "mine.toml"' in (result.folder / "config.toml").read_text()
    assert read(result.folder / "config.toml").net == str(result.folder / "mine.toml")
    go(read(result.folder / "config.toml"), tmp_path / "repeated")
    assert_same_run(tmp_path / "repeated", result.folder)
    report = (result.folder / "report.html").read_text()
    assert "For the text below to do the same: put mine.toml, from the run folder, beside the file." in report
    net = checkpoint.load_net(result.folder / "best.safetensors")
    assert set(net.params) == {f"{layer}.{w}" for layer in ("conv1", "residual1.body.conv1", "affine1") for w in "wb"}
    with pytest.raises(GpuconvError, match=r"mine\.toml.*could not be read"):
        go(config, tmp_path / "again")


@pytest.mark.parametrize("change", [None, OWN.replace("filters = 4", "filters = 5")], ids=["removed", "changed"])
def test_a_resumed_run_takes_the_net_from_its_checkpoint(change, tmp_path, monkeypatch):
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    config = dataclasses.replace(TINY, net=str(path), epochs=1, checkpoint_every=1)
    go(config, tmp_path / "whole")
    real, seen = Stepper.step, []

    def dies(run, *arguments):
        seen.append(None)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return real(run, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            go(config, tmp_path / "run")
    path.unlink() if change is None else path.write_text(change)
    train.resume(tmp_path / "run", dataset=shapes(), progress="none")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_net_called_as_the_settings_are_has_another_name_in_the_folder(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(OWN)
    go(dataclasses.replace(TINY, net=str(path), epochs=1), tmp_path / "run")
    config = read(tmp_path / "run" / "config.toml")
    assert config.net == str(tmp_path / "run" / "net-config.toml")
    train.resume(tmp_path / "run" / "best.safetensors", dataset=shapes(), progress="none")


def test_a_net_is_looked_for_beside_the_settings_first(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = tmp_path / "there" / "my settings.toml"
    settings.write_text('net = "mine.py"')
    assert read(settings).net == "mine.py"
    for place in (tmp_path, tmp_path / "there"):
        (place / "mine.py").write_text("")
    assert read(settings).net == str(tmp_path / "there" / "mine.py")
    assert read(settings, find_files=False).net == "mine.py"


@pytest.mark.parametrize(("count", "size"), [(10, 32), (3, 64)])
def test_the_default_recipe_starts_at_the_loss_of_guessing_and_does_not_leap(count, size, tmp_path):
    draws = np.random.default_rng(0)
    labels = np.arange(480) % count
    pictures = draws.integers(0, 256, (480, 3, size, size), dtype=np.uint8)
    pictures[:, :, :8, :8] = (labels * (255 // count))[:, None, None, None]
    dataset = data.Dataset(
        name="mine", classes=tuple(map(str, range(count))), x_train=pictures, y_train=labels, x_test=pictures[:9],
        y_test=labels[:9], mean=(0.5,) * 3, std=(0.29,) * 3, source="drawn",
    )  # fmt: skip
    train.train(Config(max_steps=12), folder=tmp_path / "run", dataset=dataset, progress="none")
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert len(losses) == 12
    assert abs(losses[0] - np.log(count)) < 0.15 * np.log(count)
    assert max(losses) < 3 * np.log(count)
