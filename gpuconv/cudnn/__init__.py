"""The functions of cupy.cudnn, which CuPy had until 13, on gpuconv's operators: for NumPy and CuPy arrays."""

from .constants import *
from .convolutions import convolution_backward_data, convolution_backward_filter, convolution_forward
from .dropout import DropoutStates
from .elementwise import activation_backward, activation_forward, softmax_backward, softmax_forward
from .errors import CuDNNError
from .handles import (
    get_data_type,
    get_handle,
    get_max_workspace_size,
    is_tensor_core_available,
    reset_handles,
    set_max_workspace_size,
)
from .modules import install, installed, uninstall
from .norms import (
    batch_normalization_backward,
    batch_normalization_forward_inference,
    batch_normalization_forward_training,
    batch_normalization_forward_training_ex,
)
from .pooling import pooling_backward, pooling_forward
from .refusals import (
    create_fused_ops_plan,
    create_rnn_descriptor,
    create_spatial_transformer_descriptor,
    ctc_loss,
    get_rnn_lin_layer_bias_params,
    get_rnn_lin_layer_matrix_params,
    rnn_backward_data,
    rnn_backward_data_ex,
    rnn_backward_weights,
    rnn_backward_weights_ex,
    rnn_forward_inference,
    rnn_forward_inference_ex,
    rnn_forward_training,
    rnn_forward_training_ex,
)

__all__ = [
    "CuDNNError",
    "DropoutStates",
    "activation_backward",
    "activation_forward",
    "batch_normalization_backward",
    "batch_normalization_forward_inference",
    "batch_normalization_forward_training",
    "batch_normalization_forward_training_ex",
    "convolution_backward_data",
    "convolution_backward_filter",
    "convolution_forward",
    "create_fused_ops_plan",
    "create_rnn_descriptor",
    "create_spatial_transformer_descriptor",
    "ctc_loss",
    "get_data_type",
    "get_handle",
    "get_max_workspace_size",
    "get_rnn_lin_layer_bias_params",
    "get_rnn_lin_layer_matrix_params",
    "install",
    "installed",
    "is_tensor_core_available",
    "pooling_backward",
    "pooling_forward",
    "reset_handles",
    "rnn_backward_data",
    "rnn_backward_data_ex",
    "rnn_backward_weights",
    "rnn_backward_weights_ex",
    "rnn_forward_inference",
    "rnn_forward_inference_ex",
    "rnn_forward_training",
    "rnn_forward_training_ex",
    "set_max_workspace_size",
    "softmax_backward",
    "softmax_forward",
    "uninstall",
]
