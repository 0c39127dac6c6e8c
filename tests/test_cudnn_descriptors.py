"""Descriptors of gpuconv.cudnn hold what they were made of, when it is what cupy.cudnn took."""

import numpy as np
import pytest
from compare import assert_same

from gpuconv import cudnn

X = np.zeros((2, 3, 5, 4), np.float32)
E = np.dtype(np.float16)
MADE = {  # a call, and what the descriptor holds
    "tensor": (lambda: cudnn.create_tensor_descriptor(X), {"shape": X.shape, "dtype": X.dtype, "format": 0}),
    "tensor_nhwc": (lambda: cudnn.create_tensor_descriptor(X, 1), {"shape": X.shape, "dtype": X.dtype, "format": 1}),
    "filter": (
        lambda: cudnn.create_filter_descriptor(X.transpose(), format=1),
        {"shape": (4, 5, 3, 2), "dtype": X.dtype, "format": 1},
    ),
    "tensor_nd": (lambda: cudnn.create_tensor_nd_descriptor(X[0, 0]), {"shape": (5, 4), "dtype": X.dtype}),
    "uninitialized": (cudnn.create_uninitialized_tensor_descriptor, {}),
    "convolution": (
        lambda: cudnn.create_convolution_descriptor((1, 2), (3, 4), E),
        {
            "pad": (1, 2),
            "stride": (3, 4),
            "dtype": E,
            "mode": 1,
            "dilation": None,
            "use_tensor_core": False,
            "groups": 1,
        },
    ),
    "convolution_by_position": (
        lambda: cudnn.create_convolution_descriptor((1,), (2,), E, 0, (3,), True, 4),
        {"pad": (1,), "stride": (2,), "dtype": E, "mode": 0, "dilation": (3,), "use_tensor_core": True, "groups": 4},
    ),
    "pooling": (
        lambda: cudnn.create_pooling_descriptor((2, 3), (4, 5), (0, 1), 3),
        {"ksize": (2, 3), "stride": (4, 5), "pad": (0, 1), "mode": 3},
    ),
    "activation": (
        lambda: cudnn.create_activation_descriptor(cudnn.CUDNN_ACTIVATION_IDENTITY),
        {"mode": 5, "relu_nan_opt": 1, "coef": 0.0},
    ),
    "activation_by_position": (
        lambda: cudnn.create_activation_descriptor(0, 0, np.float32(0.5)),
        {"mode": 0, "relu_nan_opt": 0, "coef": 0.5},
    ),
    "dropout": (
        lambda: cudnn.create_dropout_descriptor(1, 0.25, 0, 0, 7),
        {"handle": 1, "dropout": 0.25, "states": 0, "state_size_in_bytes": 0, "seed": 7},
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_a_descriptor_holds_what_it_was_made_of(name):
    make, given = MADE[name]
    first, second = make(), make()
    assert type(first) is cudnn.Descriptor
    assert first.given == given
    assert 0 < first.value != second.value > 0


def test_an_array_without_elements_has_a_null_descriptor():
    empty = np.zeros((0, 4, 2))[..., ::2]
    assert cudnn.create_tensor_nd_descriptor(empty).value == 0


def test_dropout_can_be_given_another_ratio():
    descriptor = cudnn.create_dropout_descriptor(1, 0.25, 0, 0, 7)
    assert cudnn.set_dropout_descriptor(descriptor, 2, 0.5) is None
    assert descriptor.given == {"handle": 2, "dropout": 0.5, "states": 0, "state_size_in_bytes": 0, "seed": 7}


def test_states_of_dropout_are_no_bytes_and_deprecated():
    with pytest.warns(DeprecationWarning, match="use DropoutStates") as caught:
        states = cudnn.create_dropout_states(cudnn.get_handle())
    assert caught[0].filename == __file__
    assert_same(states, np.zeros(0, np.int8))


REFUSED = {
    "tensor_strides": (lambda: cudnn.create_tensor_descriptor(X[..., ::2]), ValueError, "arr must be C-contiguous"),
    "tensor_format": (lambda: cudnn.create_tensor_descriptor(X, 2), ValueError, "format must be 0"),
    "tensor_dtype": (lambda: cudnn.create_tensor_descriptor(X.astype(int)), TypeError, "arr must be float16"),
    "tensor_list": (lambda: cudnn.create_tensor_descriptor([1.0]), TypeError, "arr must be a NumPy or CuPy array"),
    "tensor_nd_strides": (lambda: cudnn.create_tensor_nd_descriptor(X.T), ValueError, "arr must be C-contiguous"),
    "tensor_nd_dtype": (lambda: cudnn.create_tensor_nd_descriptor(X.astype(int)), TypeError, "arr must be float16"),
    "filter_format": (lambda: cudnn.create_filter_descriptor(X, -1), ValueError, "format must be 0"),
    "filter_dtype": (lambda: cudnn.create_filter_descriptor(X.astype(int)), TypeError, "arr must be float16"),
    "pad": (lambda: cudnn.create_convolution_descriptor([1, 2], (3, 4), E), TypeError, "pad must be a tuple"),
    "stride": (lambda: cudnn.create_convolution_descriptor((1, 2), (3,), E), ValueError, "stride must have as many"),
    "dilation": (
        lambda: cudnn.create_convolution_descriptor((1, 2), (3, 4), E, dilation=(1,)),
        ValueError,
        "dilation must have as many",
    ),
    "convolution_dtype": (
        lambda: cudnn.create_convolution_descriptor((1,), (1,), np.dtype(int)),
        TypeError,
        "dtype must be float16",
    ),
    "convolution_mode": (
        lambda: cudnn.create_convolution_descriptor((1,), (1,), E, 2),
        cudnn.CuDNNError,
        "BAD_PARAM\nmode must be from 0 to 1, got 2",
    ),
    "ksize": (lambda: cudnn.create_pooling_descriptor(2, 2, 0, 0), TypeError, "ksize must be a tuple"),
    "pooling_pad": (
        lambda: cudnn.create_pooling_descriptor((2, 2), (2, 2), (0,), 0),
        ValueError,
        "pad must have as many entries as ksize, 2",
    ),
    "pooling_mode": (
        lambda: cudnn.create_pooling_descriptor((2,), (2,), (0,), 4),
        cudnn.CuDNNError,
        "mode must be from 0 to 3, got 4",
    ),
    "activation_mode": (
        lambda: cudnn.create_activation_descriptor(6),
        cudnn.CuDNNError,
        "mode must be from 0 to 5, got 6",
    ),
    "nan": (
        lambda: cudnn.create_activation_descriptor(0, 2),
        cudnn.CuDNNError,
        "relu_nan_opt must be from 0 to 1, got 2",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cupy_or_cudnn_refused_is_refused(name):
    make, error, match = REFUSED[name]
    with pytest.raises(error, match=match):
        make()


def test_formats_say_something_of_four_axes_only():
    assert cudnn.create_tensor_descriptor(X[0], 5).given["format"] == 5
    assert cudnn.create_filter_descriptor(X[0], 5).given["format"] == 5
