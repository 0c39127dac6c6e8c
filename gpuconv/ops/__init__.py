"""The operators: each checks its arguments and hands over to the backend of its arrays."""

from .adaptive_average_pool import adaptive_average_pool_backward, adaptive_average_pool_forward
from .affine import affine_backward, affine_forward
from .augmentation import augment
from .average_pool import (
    average_pool_backward,
    average_pool_forward,
    global_average_pool_backward,
    global_average_pool_forward,
)
from .batchnorm import batchnorm_backward, batchnorm_forward, spatial_batchnorm_backward, spatial_batchnorm_forward
from .conv import conv_backward, conv_forward
from .conv_transpose import conv_transpose_backward, conv_transpose_forward
from .dropout import dropout_backward, dropout_forward
from .gelu import gelu_backward, gelu_forward
from .groupnorm import groupnorm_backward, groupnorm_forward, layernorm_backward, layernorm_forward
from .leaky_relu import leaky_relu_backward, leaky_relu_forward
from .loss import sigmoid_cross_entropy, softmax_cross_entropy, svm_loss
from .max_pool import max_pool_backward, max_pool_forward
from .relu import relu_backward, relu_forward
from .silu import silu_backward, silu_forward
from .update import adam_update, rmsprop_update, sgd_update
from .upsample import upsample_backward, upsample_forward

__all__ = [
    "adam_update",
    "adaptive_average_pool_backward",
    "adaptive_average_pool_forward",
    "affine_backward",
    "affine_forward",
    "augment",
    "average_pool_backward",
    "average_pool_forward",
    "batchnorm_backward",
    "batchnorm_forward",
    "conv_backward",
    "conv_forward",
    "conv_transpose_backward",
    "conv_transpose_forward",
    "dropout_backward",
    "dropout_forward",
    "gelu_backward",
    "gelu_forward",
    "global_average_pool_backward",
    "global_average_pool_forward",
    "groupnorm_backward",
    "groupnorm_forward",
    "layernorm_backward",
    "layernorm_forward",
    "leaky_relu_backward",
    "leaky_relu_forward",
    "max_pool_backward",
    "max_pool_forward",
    "relu_backward",
    "relu_forward",
    "rmsprop_update",
    "sgd_update",
    "sigmoid_cross_entropy",
    "silu_backward",
    "silu_forward",
    "softmax_cross_entropy",
    "spatial_batchnorm_backward",
    "spatial_batchnorm_forward",
    "svm_loss",
    "upsample_backward",
    "upsample_forward",
]
