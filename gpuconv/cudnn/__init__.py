"""The functions of cupy.cudnn, which CuPy had until 13, on gpuconv's operators: for NumPy and CuPy arrays."""

from .constants import *
from .convolutions import convolution_backward_data, convolution_backward_filter, convolution_forward
from .elementwise import activation_backward, activation_forward, softmax_backward, softmax_forward
from .errors import CuDNNError
from .modules import install, installed, uninstall
from .norms import (
    batch_normalization_backward,
    batch_normalization_forward_inference,
    batch_normalization_forward_training,
    batch_normalization_forward_training_ex,
)
from .pooling import pooling_backward, pooling_forward

__all__ = [
    "CuDNNError",
    "activation_backward",
    "activation_forward",
    "batch_normalization_backward",
    "batch_normalization_forward_inference",
    "batch_normalization_forward_training",
    "batch_normalization_forward_training_ex",
    "convolution_backward_data",
    "convolution_backward_filter",
    "convolution_forward",
    "install",
    "installed",
    "pooling_backward",
    "pooling_forward",
    "softmax_backward",
    "softmax_forward",
    "uninstall",
]
