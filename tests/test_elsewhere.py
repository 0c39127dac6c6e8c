"""Calls in the words of other libraries are told ours; other errors are left as they are."""

import inspect
import pickle

import numpy as np
import pytest

import gpuconv
from gpuconv import elsewhere, nn
from gpuconv.errors import ArgTypeError, GpuconvError
from gpuconv.nn.layer import KINDS

X, W = np.ones((1, 3, 8, 8)), np.ones((4, 3, 3, 3))

CALLS = {
    "padding": (
        lambda: gpuconv.conv_forward(X, W, padding=1),
        "conv_forward has no argument padding: it is called pad here",
    ),
    "of_pooling": (
        lambda: gpuconv.max_pool_forward(X, kernel_size=2),
        "max_pool_forward has .*: it is called window here",
    ),
    "of_filters": (lambda: gpuconv.conv_forward(X, W, kernel_size=3), "the shape of w says the window"),
    "a_word_for_two": (lambda: gpuconv.layernorm_forward(X, weight=W), "it is called gamma here"),
    "an_array": (
        lambda: gpuconv.conv_forward(input=X, weight=W),
        "conv_forward has no argument input: it is called x here",
    ),
    "by_place": (
        lambda: gpuconv.max_pool_forward(X, 2),
        "max_pool_forward takes x by place, and by name: window=, stride=, pad=, dilation=, ceil=, ties=$",
    ),
    "a_size": (
        lambda: gpuconv.conv_transpose_forward(X, W.transpose(1, 0, 2, 3), stride=2, output_size=(17, 17)),
        "conv_transpose_forward has no argument output_size: it follows from the other sizes; output_pad adds to it$",
    ),
    "a_size_of_a_layer": (lambda: nn.ConvTranspose(3, 4, output_size=17), "output_size: it follows from the other"),
    "weights_of_what_has_none": (
        lambda: gpuconv.sigmoid_cross_entropy(X, X, weight=X),
        'sigmoid_cross_entropy has no argument weight: multiply loss and gradient by them, with reduction="none"$',
    ),
    "labels_of_a_target": (lambda: gpuconv.sigmoid_cross_entropy(X, labels=X), "it is called targets here"),
    "reflected": (lambda: nn.Conv(3, 4, padding_mode="reflect"), "padding is zeros: np.pad x first$"),
    "misspelt": (lambda: gpuconv.conv_forward(X, W, strid=2), "no argument strid: did you mean stride\\?"),
    "unknown": (lambda: gpuconv.affine_forward(X, W, where=2), "no argument where: it takes x, w, b, precision$"),
    "a_layer": (lambda: nn.Conv(3, out_channels=8), "^Conv has no argument out_channels: it is called filters here"),
    "a_layer_by_place": (
        lambda: nn.MaxPool(2, 2),
        "^MaxPool takes window by place, and by name: stride=, pad=, dilation=, ceil=$",
    ),
    "a_layer_without_arguments": (lambda: nn.Relu(inplace=True), "^Relu has no argument inplace: it takes none$"),
}


@pytest.mark.parametrize(("call", "words"), CALLS.values(), ids=CALLS.keys())
def test_a_call_in_other_words_is_told_ours(call, words):
    with pytest.raises(ArgTypeError, match=words) as caught:
        call()
    assert caught.value.__context__ is None  # Python's own words say less


def test_what_python_says_is_left_to_it():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'w'") as caught:
        gpuconv.conv_forward(X)
    assert not isinstance(caught.value, GpuconvError)


def test_an_error_inside_is_left_as_it_is():
    @elsewhere.says_ours()
    def inside(x, *, pad=0):
        return pad.of(x) if pad else len(x)

    assert inside([1]) == 1
    with pytest.raises(TypeError, match="has no len"):
        inside(1)
    with pytest.raises(AttributeError):
        inside(1, pad=1)


def test_every_word_of_ours_is_one():
    functions = [getattr(gpuconv, name) for name in gpuconv.ops.__all__]
    functions += [kind.cls.__init__ for kind in KINDS.values()]
    known = {name for function in functions for name in inspect.signature(function).parameters}
    assert {ours for words in elsewhere.OURS.values() for ours in words} <= known
    assert not [word for word, ours in elsewhere.OURS.items() if word in ours]
    assert {argument for needed, _ in elsewhere._INSTEAD.values() for argument in needed} <= known
    assert not elsewhere._INSTEAD.keys() & known


def test_operators_can_be_sent_to_other_processes():
    assert pickle.loads(pickle.dumps(gpuconv.conv_forward)) is gpuconv.conv_forward
