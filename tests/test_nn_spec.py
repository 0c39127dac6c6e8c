"""Nets from files: what a TOML list of layers and a Python function make, and what is refused."""

import json

import numpy as np
import pytest
from compare import assert_same, normal

from gpuconv import nn
from gpuconv.errors import ConfigError
from gpuconv.nn.layer import KINDS

SETTINGS = {"input_shape": (3, 8, 12), "classes": 4}

EVERYTHING = """
[[layer]]
kind = "conv"
filters = 6
window = [3, 1]
stride = [1, 2]
pad = [1, 0]
bias = false

[[layer]]
kind = "bn"
scale = false

[[layer]]
kind = "group-norm"
groups = 3

[[layer]]
kind = "gelu"
name = "act"

[[layer]]
kind = "residual"
repeat = 2
[[layer.body]]
kind = "conv"
filters = 6
pad = 1
[[layer.body]]
kind = "relu"

[[layer]]
kind = "residual"
  [[layer.body]]
  kind = "conv"
  filters = 8
  stride = 2
  pad = 1
  [[layer.shortcut]]
  kind = "conv"
  filters = 8
  window = 1
  stride = 2

[[layer]]
kind = "sequential"
[[layer.body]]
kind = "max-pool"
[[layer.body]]
kind = "average-pool"
window = 2
stride = 1
pad = 1

[[layer]]
kind = "conv"
filters = 8
window = 2
pad = "same"
[[layer]]
kind = "max-pool"
stride = 1
pad = [[0, 1], [1, 0]]
dilation = [1, 2]
ceil = true
[[layer]]
kind = "flatten"
[[layer]]
kind = "affine"
units = 7
[[layer]]
kind = "layer-norm"
eps = 1e-3
[[layer]]
kind = "dropout"
rate = 0.25
[[layer]]
kind = "affine"
bias = false
[[layer]]
kind = "scale"
factor = 0.5
"""


def by_hand():
    return nn.Sequential(
        conv1=nn.Conv(3, 6, (3, 1), stride=(1, 2), pad=(1, 0), bias=False),
        bn1=nn.BatchNorm(6, scale=False),
        norm1=nn.GroupNorm(6, 3),
        act=nn.Gelu(),
        residual1=nn.Residual(nn.Sequential(nn.Conv(6, 6, pad=1), nn.Relu())),
        residual2=nn.Residual(nn.Sequential(nn.Conv(6, 6, pad=1), nn.Relu())),
        residual3=nn.Residual(nn.Sequential(nn.Conv(6, 8, stride=2, pad=1)), nn.Sequential(nn.Conv(6, 8, 1, stride=2))),
        sequential1=nn.Sequential(nn.MaxPool(), nn.AveragePool(2, stride=1, pad=1)),
        conv2=nn.Conv(8, 8, 2, pad="same"),
        pool1=nn.MaxPool(stride=1, pad=((0, 1), (1, 0)), dilation=(1, 2), ceil=True),
        flatten1=nn.Flatten(),
        affine1=nn.Affine(24, 7, init="xavier"),
        norm2=nn.LayerNorm(7, eps=1e-3),
        dropout1=nn.Dropout(0.25),
        affine2=nn.Affine(7, 4, bias=False, init="xavier"),
        scale1=nn.Scale(0.5),
    )


def written(tmp_path, text, name="mine.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_list_of_layers_is_the_net_made_by_hand(rng, tmp_path):
    path = written(tmp_path, EVERYTHING)
    net = nn.from_file(path, **SETTINGS, seed=5)
    hand = nn.Net(by_hand(), (3, 8, 12), seed=5)
    assert net.config == hand.config
    assert_same(net.flat_params, hand.flat_params)
    path.unlink()
    again = nn.build(json.loads(json.dumps(net.config)))  # as a checkpoint holds it: the file is not needed
    x = normal(rng, (2, 3, 8, 12), "float32")
    assert_same(again.forward(x), net.forward(x))


def test_kinds_are_the_layers_that_a_file_may_ask_for():
    assert nn.kinds() == {kind: entry.cls for kind, entry in KINDS.items()}
    assert (nn.kinds()["max-pool"], list(nn.kinds())[-2:]) == (nn.MaxPool, ["residual", "sequential"])


def test_classes_and_channels_come_from_the_data(tmp_path):
    path = written(tmp_path, '[[layer]]\nkind = "conv"\nfilters = 5\n[[layer]]\nkind = "affine"\n')
    for shape, classes in (((3, 8, 8), 10), ((1, 5, 6), 2)):
        net = nn.from_file(str(path), input_shape=shape, classes=classes, dtype="float64")
        assert net.params["conv1.w"].shape == (5, shape[0], 3, 3)
        assert net.output_shape == (classes,)
        assert net.dtype == np.float64


AUTOENCODER = """
[[layer]]
kind = "conv"
filters = 8
window = 4
stride = 2
pad = 1
[[layer]]
kind = "silu"
[[layer]]
kind = "conv-transpose"
filters = 3
window = 3
stride = 2
pad = 1
output_pad = 1
"""


def test_a_net_that_is_no_classifier_gives_whatever_comes_out(tmp_path):
    net = nn.from_file(written(tmp_path, AUTOENCODER), input_shape=(3, 8, 12))
    assert net.output_shape == net.input_shape
    of_python = written(tmp_path, f"{HEAD}    assert classes is None\n    return nn.Relu()\n", "mine.py")
    assert nn.from_file(of_python, input_shape=(3, 8, 12)).output_shape == (3, 8, 12)


def test_an_affine_layer_of_no_classifier_says_its_units(tmp_path):
    path = written(tmp_path, '[[layer]]\nkind = "affine"\n')
    with pytest.raises(ConfigError, match=r"line 1, layer 1 \(affine\), given \(3, 8, 12\): units is missing"):
        nn.from_file(path, input_shape=(3, 8, 12))
    path = written(tmp_path, '[[layer]]\nkind = "affine"\nunits = 2\n')
    assert nn.from_file(path, input_shape=(3, 8, 12)).output_shape == (2,)


def test_global_average_pool_gives_rows(tmp_path):
    net = nn.from_file(
        written(tmp_path, '[[layer]]\nkind = "global-average-pool"\n[[layer]]\nkind = "affine"\n'), **SETTINGS
    )
    assert net.params["affine1.w"].shape == (3, 4)


def test_pooling_to_a_size_keeps_an_axis_by_a_word(tmp_path):
    """TOML has no None."""
    layer = '[[layer]]\nkind = "adaptive-average-pool"\nsize = ["same", 2]\n'
    net = nn.from_file(written(tmp_path, layer + AFFINE), **SETTINGS)
    pool = next(layer for _, layer in net.body.leaves())
    assert pool.settings == {"size": [None, 2]}
    assert repr(nn.build_layer(pool.config)) == repr(pool) == "AdaptiveAveragePool([None, 2])"


AFFINE = '[[layer]]\nkind = "affine"\n'
REFUSED = {
    "unknown_kind": (
        '[[layer]]\nkind = "conf"\n',
        r'line 1, layer 1 \(conf\).*kind \'conf\' is not known; did you mean "conv"',
    ),
    "nothing_like_it": ('[[layer]]\nkind = "zzz"\n', "known: conv-transpose, conv, bn, max-pool"),
    "kind_missing": (AFFINE + "[[layer]]\nfilters = 3\n", r"line 3, layer 2 \(no kind\).*kind is missing"),
    "kind_a_number": ("[[layer]]\nkind = 3\n", "kind 3 is not known"),
    "unknown_setting": (
        '[[layer]]\nkind = "conv"\nfilter = 3\n',
        "setting 'filter' is not known; did you mean \"filters\"",
    ),
    "setting_as_torch_calls_it": (
        '[[layer]]\nkind = "conv"\nfilters = 3\nkernel_size = 3\n',
        "setting 'kernel_size' is not known; did you mean \"window\"",
    ),
    "padding_of_a_pool": (
        '[[layer]]\nkind = "max-pool"\npadding = 1\n',
        "'padding' is not known; did you mean \"pad\"",
    ),
    "kind_as_keras_calls_it": ('[[layer]]\nkind = "Dense"\n', "kind 'Dense' is not known; did you mean \"affine\""),
    "kind_as_others_call_it": ('[[layer]]\nkind = "Conv2DTranspose"\n', 'did you mean "conv-transpose"'),
    "kind_as_it_was_called": ('[[layer]]\nkind = "deconv"\n', 'did you mean "conv-transpose"'),
    "kind_of_another_name": ('[[layer]]\nkind = "swish"\n', 'did you mean "silu"'),
    "output_pad_of_torch": (
        '[[layer]]\nkind = "conv-transpose"\nfilters = 3\noutput_padding = 1\n',
        "'output_padding' is not known; did you mean \"output_pad\"",
    ),
    "output_pad_too_large": (
        '[[layer]]\nkind = "conv-transpose"\nfilters = 3\nstride = 2\noutput_pad = 2\n',
        r"layer 1 \(conv-transpose\).*output_pad must be less than stride or dilation",
    ),
    "kind_as_its_class_is_called": ('[[layer]]\nkind = "MaxPool"\n', 'did you mean "max-pool"'),
    "setting_of_none": ('[[layer]]\nkind = "relu"\nslope = 3\n', "setting 'slope' is not known; known: none"),
    "setting_missing": ('[[layer]]\nkind = "conv"\n', r"layer 1 \(conv\), given \(3, 8, 12\): filters is missing"),
    "setting_out_of_range": ('[[layer]]\nkind = "conv"\nfilters = 0\n', r"line 1, layer 1 \(conv\).*filters must be"),
    "setting_of_another_type": ('[[layer]]\nkind = "conv"\nfilters = "8"\n', "filters must be an int, got '8'"),
    "shape_that_does_not_fit": (
        '\n\n[[layer]]\nkind = "conv"\nfilters = 2\nwindow = 9\n' + AFFINE,
        r"line 3, layer 1 \(conv\), given \(3, 8, 12\)",
    ),
    "channels_given_and_wrong": (
        '[[layer]]\nkind = "conv"\nfilters = 2\nin_channels = 4\n',
        r"layer 1 \(conv\).*3 channels but w expects 4",
    ),
    "conv_after_affine": (
        AFFINE + '[[layer]]\nkind = "conv"\nfilters = 2\n',
        r"line 3, layer 2 \(conv\), given \(4,\)",
    ),
    "no_scores": ('[[layer]]\nkind = "relu"\n', r"the shape \(3, 8, 12\), but 4 classes need \(4,\)"),
    "other_classes": (AFFINE + "units = 3\n", r"the shape \(3,\), but 4 classes"),
    "inside_a_residual": (
        '[[layer]]\nkind = "residual"\n\n[[layer.body]]\nkind = "relu"\n[[layer.body]]\nkind = "bnn"\n',
        r"toml: line 6, layer.body 2 \(bnn\).*did you mean \"bn\"",
    ),
    "inside_the_second_of_two": (
        (
            '[[layer]]\nkind = "residual"\nrepeat = 2\n[[layer.body]]\nkind = "relu"\n'
            '[[layer]]\nkind = "residual"\n[[layer.body]]\nkind = "conv"\nfilters = 3\nwindow = 99\n'
        ),
        r"toml: line 8, layer.body 1 \(conv\)",
    ),
    "residual_without_body": (
        '[[layer]]\nkind = "residual"\n',
        r"line 1, layer 1.*layer.body must be a list of layers",
    ),
    "residual_that_changes_the_shape": (
        '[[layer]]\nkind = "residual"\n[[layer.body]]\nkind = "max-pool"\n',
        "body and shortcut must give one shape",
    ),
    "residual_of_something_else": (
        '[[layer]]\nkind = "residual"\nbodi = []\n',
        "setting 'bodi' is not known; did you mean \"body\"",
    ),
    "body_of_a_conv": (
        '[[layer]]\nkind = "conv"\nfilters = 2\n[[layer.body]]\nkind = "relu"\n',
        "setting 'body' is not known",
    ),
    "repeat_zero": (AFFINE + "repeat = 0\n", r"line 1, layer 1 \(affine\): repeat must be an int above 0, got 0"),
    "repeat_true": (AFFINE + "repeat = true\n", "repeat must be an int"),
    "name_with_a_dot": (AFFINE + 'name = "a.b"\n', "name must be a text without a dot"),
    "one_name_twice": (
        '[[layer]]\nkind = "relu"\nname = "a"\n[[layer]]\nkind = "relu"\nname = "a"\n',
        "line 4, layer 2.*name 'a'",
    ),
    "no_layers": ("", "must be a list of layers"),
    "layer_a_table": ('[layer]\nkind = "relu"\n', "must be a list of layers"),
    "layers_of_numbers": ("layer = [1, 2]\n", "must be a list of layers"),
    "inline_layers_have_no_line": ('layer = [{kind = "conf"}]\n', r"toml: layer 1 \(conf\)"),
    "other_entry": ("[[layers]]\nkind = 3\n", '"layers" is not known'),
    "not_toml": ("layer: conv", "is not TOML"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_wrong_is_said_with_file_line_and_layer(text, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as caught:
        nn.from_file(written(tmp_path, text), **SETTINGS)
    assert "mine.toml: " in str(caught.value)


def test_files_that_are_none(tmp_path):
    for name, message in (
        ("none.toml", "could not be read"),
        ("none.py", "no such file"),
        ("net.json", "end in .toml"),
    ):
        with pytest.raises(ConfigError, match=message):
            nn.from_file(tmp_path / name, **SETTINGS)
    (tmp_path / "latin.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="it is not text in UTF-8"):
        nn.from_file(tmp_path / "latin.toml", **SETTINGS)


# Python -------------------------------------------------------------------------------------------------------------

HEAD = "from gpuconv import nn\n\ndef net(input_shape, classes):\n"


def test_a_python_function_makes_the_net(tmp_path):
    body = "nn.Sequential(nn.Conv(input_shape[0], 5, pad=1), nn.GlobalAveragePool(), nn.Affine(5, classes))"
    net = nn.from_file(written(tmp_path, f"{HEAD}    return {body}\n", "mine.py"), **SETTINGS, seed=3)
    hand = nn.Net(nn.Sequential(nn.Conv(3, 5, pad=1), nn.GlobalAveragePool(), nn.Affine(5, 4)), (3, 8, 12), seed=3)
    assert net.config == hand.config
    assert_same(net.flat_params, hand.flat_params)


def test_a_python_function_may_return_a_net(tmp_path):
    text = f"{HEAD}    return nn.ResNet18(2, 2, 2, 2, input_shape=input_shape, classes=classes, seed=9)\n"
    net = nn.from_file(written(tmp_path, text, "mine.py"), **SETTINGS)
    assert type(net) is nn.ResNet18
    assert net.config["seed"] == 9


OWN_LAYER = """
from gpuconv import nn

class Mine(nn.Flatten):
    pass

def net(input_shape, classes):
    return nn.Sequential(Mine(), nn.Affine(288, classes))
"""
REFUSED_PYTHON = {
    "syntax": ("def net(:\n", "SyntaxError when it is run"),
    "raises_when_run": ("1 / 0\n", "ZeroDivisionError when it is run"),
    "raises_when_called": (HEAD + "    return classes / 0\n", r"ZeroDivisionError in net\(input_shape, classes\)"),
    "no_function": ("network = 3\n", "must define a function net"),
    "net_a_number": ("net = 3\n", "must define a function net"),
    "other_arguments": ("def net():\n    pass\n", r"TypeError in net\(input_shape, classes\)"),
    "returns_nothing": (HEAD + "    pass\n", "must return a layer or a Net of gpuconv.nn, got NoneType"),
    "shape_that_does_not_fit": (HEAD + "    return nn.Affine(5, classes)\n", "288 features but w expects 5"),
    "no_scores": (HEAD + "    return nn.Relu()\n", r"4 classes need \(4,\)"),
    "net_of_another_size": (
        HEAD + "    return nn.ResNet18(2, 2, 2, 2, classes=classes)\n",
        r"is a net for \(3, 32, 32\)",
    ),
    "net_of_another_type": (
        HEAD + "    return nn.Net(nn.Affine(288, classes), input_shape, dtype='float64')\n",
        "in float64, but",
    ),
    "layer_of_ones_own": (OWN_LAYER, "a checkpoint could not hold it: layer 'Mine' is not known"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED_PYTHON.values(), ids=REFUSED_PYTHON.keys())
def test_what_is_wrong_with_python_is_said_with_the_file(text, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as caught:
        nn.from_file(written(tmp_path, text, "mine.py"), **SETTINGS)
    assert "mine.py: " in str(caught.value)
