"""Convolution, max-pooling and batch normalisation on NumPy arrays, and what a net needs around them."""

from .backend import default_device, free_memory, use
from .errors import GpuconvError
from .ops.affine import affine_backward, affine_forward
from .ops.augment import augment
from .ops.average_pool import (
    average_pool_backward,
    average_pool_forward,
    global_average_pool_backward,
    global_average_pool_forward,
)
from .ops.batchnorm import batchnorm_backward, batchnorm_forward, spatial_batchnorm_backward, spatial_batchnorm_forward
from .ops.conv import conv_backward, conv_forward
from .ops.dropout import dropout_backward, dropout_forward
from .ops.gelu import gelu_backward, gelu_forward
from .ops.groupnorm import groupnorm_backward, groupnorm_forward, layernorm_backward, layernorm_forward
from .ops.loss import softmax_cross_entropy, svm_loss
from .ops.max_pool import max_pool_backward, max_pool_forward
from .ops.relu import relu_backward, relu_forward
from .ops.update import adam_update, rmsprop_update, sgd_update

__all__ = [
    "GpuconvError",
    "adam_update",
    "affine_backward",
    "affine_forward",
    "augment",
    "average_pool_backward",
    "average_pool_forward",
    "batchnorm_backward",
    "batchnorm_forward",
    "conv_backward",
    "conv_forward",
    "default_device",
    "dropout_backward",
    "dropout_forward",
    "free_memory",
    "gelu_backward",
    "gelu_forward",
    "global_average_pool_backward",
    "global_average_pool_forward",
    "groupnorm_backward",
    "groupnorm_forward",
    "layernorm_backward",
    "layernorm_forward",
    "max_pool_backward",
    "max_pool_forward",
    "relu_backward",
    "relu_forward",
    "rmsprop_update",
    "sgd_update",
    "softmax_cross_entropy",
    "spatial_batchnorm_backward",
    "spatial_batchnorm_forward",
    "svm_loss",
    "use",
]
