"""gpuconv.cudnn has all functions of CuPy 13's cupy.cudnn, with the names and defaults of their parameters."""

import inspect

import pytest

from gpuconv import cudnn
from gpuconv.cudnn import refusals

_NORM = "(x, gamma, beta, running_mean, running_var, mean, inv_std, eps, decay, is_for_conv2d, cudnn_mode, debug, d_layout=0)"
SERVED = {
    "activation_backward": "(x, y, gy, mode, coef=0.0)",
    "activation_forward": "(x, mode, coef=0.0)",
    "batch_normalization_backward": (
        "(x, gamma, gy, mean, inv_std, eps, is_for_conv2d, cudnn_mode, debug, d_layout=0, *, reserve_space=None)"
    ),
    "batch_normalization_forward_inference": "(x, gamma, beta, mean, var, eps, is_for_conv2d, cudnn_mode, d_layout=0)",
    "batch_normalization_forward_training": _NORM,
    "batch_normalization_forward_training_ex": _NORM,
    "convolution_backward_data": (
        "(W, x, b, y, pad, stride, dilation, groups, *, deterministic, auto_tune, tensor_core, d_layout=0, w_layout=0)"
    ),
    "convolution_backward_filter": (
        "(x, gy, gW, pad, stride, dilation, groups, *, deterministic, auto_tune, tensor_core, d_layout=0, w_layout=0)"
    ),
    "convolution_forward": (
        "(x, W, b, y, pad, stride, dilation, groups, *, auto_tune, tensor_core, d_layout=0, w_layout=0)"
    ),
    "create_activation_descriptor": "(mode, relu_nan_opt=1, coef=0.0)",
    "create_convolution_descriptor": ("(pad, stride, dtype, mode=1, dilation=None, use_tensor_core=False, groups=1)"),
    "create_dropout_descriptor": "(handle, dropout, states, state_size_in_bytes, seed)",
    "create_dropout_states": "(handle)",
    "create_filter_descriptor": "(arr, format=0)",
    "create_pooling_descriptor": "(ksize, stride, pad, mode)",
    "create_tensor_descriptor": "(arr, format=0)",
    "create_tensor_nd_descriptor": "(arr)",
    "create_uninitialized_tensor_descriptor": "()",
    "get_data_type": "(dtype)",
    "get_handle": "()",
    "get_max_workspace_size": "()",
    "is_tensor_core_available": "(dtype)",
    "pooling_backward": "(x, y, gy, ksize, stride, pad, mode)",
    "pooling_forward": "(x, y, ksize, stride, pad, mode)",
    "reset_handles": "()",
    "set_dropout_descriptor": "(desc, handle, dropout)",
    "set_max_workspace_size": "(size)",
    "softmax_backward": "(y, gy, axis, algorithm)",
    "softmax_forward": "(x, axis, algorithm)",
}
OF_DROPOUT_STATES = {
    "__init__": "(self, handle, seed)",
    "backward": "(self, handle, dy, dropout_ratio, reserve_space)",
    "forward": "(self, handle, x, dropout_ratio)",
    "set_dropout_ratio": "(self, dropout_ratio)",
}
REFUSED = [
    "add_tensor",
    "create_fused_ops_const_param_pack",
    "create_fused_ops_plan",
    "create_fused_ops_variant_param_pack",
    "create_op_tensor_descriptor",
    "create_reduce_tensor_descriptor",
    "create_rnn_descriptor",
    "create_spatial_transformer_descriptor",
    "ctc_loss",
    "fused_ops_execute",
    "get_fused_ops_const_param_pack_attribute",
    "get_fused_ops_variant_param_pack_attribute",
    "get_rnn_lin_layer_bias_params",
    "get_rnn_lin_layer_matrix_params",
    "make_fused_ops_plan",
    "rnn_backward_data",
    "rnn_backward_data_ex",
    "rnn_backward_weights",
    "rnn_backward_weights_ex",
    "rnn_forward_inference",
    "rnn_forward_inference_ex",
    "rnn_forward_training",
    "rnn_forward_training_ex",
    "set_fused_ops_const_param_pack_attribute",
    "set_fused_ops_variant_param_pack_attribute",
]


def bare(function):
    """Return a signature without its types."""
    signature = inspect.signature(function)
    parameters = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))


def test_all_names_are_there():
    ours = {"CuDNNError", "install", "installed", "uninstall"}
    assert set(cudnn.__all__) == {*SERVED, *REFUSED, "Descriptor", "DropoutStates", *ours}
    assert list(cudnn.__all__) == sorted(cudnn.__all__)


@pytest.mark.parametrize("name", SERVED)
def test_parameters_have_the_names_and_defaults(name):
    assert bare(getattr(cudnn, name)) == SERVED[name]


@pytest.mark.parametrize("name", OF_DROPOUT_STATES)
def test_parameters_of_dropout_states_have_the_names(name):
    assert bare(getattr(cudnn.DropoutStates, name)) == OF_DROPOUT_STATES[name]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_known_by_its_name(name):
    assert getattr(cudnn, name) is getattr(refusals, name)
    assert getattr(cudnn, name).__name__ == name
