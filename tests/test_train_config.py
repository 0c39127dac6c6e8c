"""Settings: checked when made, written to TOML and read back without loss."""

from __future__ import annotations

import dataclasses
import inspect
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuconv.errors import ConfigError
from gpuconv.runs import settings as s
from gpuconv.train import PRESETS, Config

REFUSED = {
    "zero_batch": ({"batch_size": 0}, "batch_size must be an int from 1 to"),
    "negative_epochs": ({"epochs": -1}, "epochs must be an int from 1 to"),
    "no_epochs": ({"epochs": 0}, "epochs must be"),
    "fractional_epochs": ({"epochs": 1.5}, "epochs must be an int, got 1.5"),
    "boolean_count": ({"epochs": True}, "epochs must be an int, got True"),
    "number_as_text": ({"epochs": "3"}, "epochs must be an int, got '3'"),
    "huge_count": ({"epochs": 2**31}, "epochs must be"),
    "nan_rate": ({"lr": float("nan")}, "lr must be finite, at least 0"),
    "infinite_rate": ({"lr": float("inf")}, "lr must be finite"),
    "negative_rate": ({"lr": -0.1}, "lr must be finite, at least 0"),
    "rate_as_text": ({"lr": "0.1"}, "lr must be a number"),
    "momentum_above_1": ({"momentum": 1.1}, "momentum must be finite, at least 0 and at most 1"),
    "smoothing_above_1": ({"label_smoothing": 2}, "label_smoothing must be"),
    "negative_seed": ({"seed": -1}, "seed must be an int from 0"),
    "seed_of_65_bits": ({"seed": 2**64}, "seed must be an int from 0 to 2\\^64 - 1"),
    "negative_validation": ({"validation": -2}, "validation must be an int from -1"),
    "flag_as_number": ({"flip": 1}, "flip must be True or False, got 1"),
    "unknown_optimizer": ({"optimizer": "sgdd"}, "optimizer 'sgdd' is not known; did you mean \"sgd\""),
    "unknown_data": (
        {"data": "mnist"},
        "data 'mnist' is not known; known: auto, cifar10, cifar100, cifar100-coarse, shapes, or the path",
    ),
    "no_data": ({"data": ""}, "data '' is not known; known: auto"),
    "size_of_a_set_with_its_own": (
        {"data": "shapes", "image_size": 16},
        "image_size=16 scales the pictures of a folder",
    ),
    "half_precision": ({"dtype": "float16"}, "dtype 'float16' is not known"),
    "text_setting_as_number": ({"net": 3}, "net must be a text, got 3"),
    "width_of_zero": ({"widths": (8, 0)}, "widths must be an int from 1"),
    "widths_as_int": ({"widths": 8}, "widths must be ints in a list, got 8"),
    "even_window": ({"window": 4}, "window must be odd, got 4"),
    "text_that_utf8_cannot_hold": ({"data_dir": "\ud800"}, "data_dir must be text that UTF-8 can hold"),
}


SHARES = [
    "momentum",
    "muon_momentum",
    "beta1",
    "beta2",
    "smoothing",
    "ema",
    "label_smoothing",
    "warmup",
    "lr_start",
    "lr_end",
    "lr_factor",
]


def test_shares_are_from_0_to_1():
    """Also those that nothing else would notice: a rate may rise at first instead of falling."""
    limited = {f.name: f.metadata["most"] for f in dataclasses.fields(Config) if f.type == "float"}
    assert {name for name, most in limited.items() if most != float("inf")} == set(SHARES)
    for name in SHARES:
        for wrong in (-0.001, 1.001, 1.9):
            with pytest.raises(ConfigError, match=f"^{name} must be finite, at least 0 and at most 1, got .*{wrong}"):
                Config(**{name: wrong})


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_settings_out_of_range_are_refused_by_name(values, message):
    with pytest.raises(ConfigError, match=message):
        Config(**values)


def test_values_take_their_exact_type():
    config = Config(widths=[4, 8], lr=1, seed=2**64 - 1)
    assert config.widths == (4, 8)
    assert type(config.lr) is float
    assert config.seed == 2**64 - 1


def test_a_folder_stays_a_path_when_it_is_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").mkdir()
    config = Config(data="pets", image_size=16)
    assert config.data == "./pets"
    (tmp_path / "pets").rmdir()
    assert s.from_values(tomllib.loads(s.to_toml(config))) == config


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().epochs = 3


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_bears_its_name_and_survives_toml(name):
    assert PRESETS[name].preset == name
    assert s.from_values(tomllib.loads(s.to_toml(PRESETS[name]))) == PRESETS[name]


def test_every_setting_has_help_and_a_toml_line():
    written = tomllib.loads(s.to_toml(Config()))
    for spec in dataclasses.fields(Config):
        assert spec.metadata["help"]
        assert spec.name in written


TEXTS = {
    "empty": "",
    "quotes": "a\"b'c\"\"\"d'''",
    "backslashes": "C:\\new\\table\\u0041",
    "controls": "\x00\x01\b\t\n\f\r\x1f\x7f",
    "other_scripts": "données/数据/\U0001f4c1",
    "looks_like_toml": 'x = 1\n[table]\n# "comment"',
    "line_separators": "a\u2028b\u2029c\x85d",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_any_text_survives_toml(text, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(s.to_toml(Config(data_dir=text)), encoding="utf-8", newline="")
    assert s.read(path).data_dir == text


@given(
    text=st.text(),
    lr=st.floats(min_value=0, allow_infinity=False, allow_nan=False),
    seed=st.integers(0, 2**64 - 1),
    widths=st.lists(st.integers(1, 2**31 - 1)),
    flip=st.booleans(),
)
def test_any_value_survives_toml(text, lr, seed, widths, flip):
    config = Config(data_dir=text, lr=lr, seed=seed, widths=tuple(widths), flip=flip)
    assert s.from_values(tomllib.loads(s.to_toml(config))) == config
    assert s.from_values(s.to_values(config)) == config


def test_a_short_file_is_completed_from_its_preset(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('preset = "three-layer"\nepochs = 2\n')
    assert s.read(path) == dataclasses.replace(PRESETS["three-layer"], epochs=2)


MEANT = {
    "learning_rate": "lr",
    "lerning_rate": "lr",
    "LearningRate": "lr",
    "bs": "batch_size",
    "batch": "batch_size",
    "epoch": "epochs",
    "num_epochs": "epochs",
    "wd": "weight_decay",
    "optimiser": "optimizer",
    "momentun": "momentum",
    "kernel_size": "window",
    "scheduler": "schedule",
    "grad_clip": "clip_norm",
    "model": "net",
}


@pytest.mark.parametrize(("name", "meant"), MEANT.items())
def test_a_setting_of_another_name_points_to_ours(name, meant):
    for make in (lambda: Config(**{name: 1}), lambda: s.from_values({name: 1})):
        with pytest.raises(ConfigError, match=f"^setting '{name}' is not known; did you mean \"{meant}\"\\?$"):
            make()


def test_a_setting_like_no_other_is_told_all():
    with pytest.raises(
        ConfigError, match=r"setting 'zzz' is not known; known: preset, weights, net, widths, .*checkpoint_every$"
    ):
        Config(zzz=1)


def test_the_signature_of_config_lists_its_settings():
    """Editors and help() show it."""
    assert [*inspect.signature(Config).parameters] == [field.name for field in dataclasses.fields(Config)]


FILES = {
    "missing": (None, "could not be read"),
    "not_toml": (b"epochs: 3", "is not TOML"),
    "not_text": (b"\xff\xff", "is not text in UTF-8, see line 1"),
    "misspelt": (b"epoch = 3", "setting 'epoch' is not known; did you mean \"epochs\""),
    "unknown_preset": (b'preset = "convnett"', "preset 'convnett' is not known; did you mean \"convnet\""),
    "wrong_type": (b'epochs = "3"', "epochs must be an int"),
    "nan": (b"lr = nan", "lr must be finite"),
    "table": (b"[lr]\nvalue = 3", "lr must be a number"),
    "date": (b"epochs = 2026-01-01", "epochs must be an int"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES.keys())
def test_a_bad_file_is_named_with_what_is_wrong(content, message, tmp_path):
    path = tmp_path / "my config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        s.read(path)
    assert "my config.toml" in str(caught.value)


def test_differences_are_named():
    assert s.difference(Config(), Config()) == ""
    assert s.difference(Config(), Config(lr=0.5, epochs=7)) == "epochs 12 -> 7, lr 0.1 -> 0.5"
