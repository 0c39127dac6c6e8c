"""CuPy backend: our own CUDA kernels and the launchers that choose among them."""

from . import across, arithmetic, batchnorm_fused, muon, turned
from .adaptive_average_pool import adaptive_average_pool_backward, adaptive_average_pool_forward
from .affine import affine_backward, affine_forward
from .augmentation import augment
from .average_pool import (
    average_pool_backward,
    average_pool_forward,
    global_average_pool_backward,
    global_average_pool_forward,
)
from .batchnorm import batchnorm_backward, batchnorm_forward
from .conv import conv_backward, conv_forward
from .conv_transpose import conv_transpose_backward, conv_transpose_forward
from .dropout import dropout_backward, dropout_forward
from .gelu import gelu_backward, gelu_forward
from .groupnorm import groupnorm_backward, groupnorm_forward
from .leaky_relu import leaky_relu_backward, leaky_relu_forward
from .loss import sigmoid_cross_entropy, softmax_cross_entropy, svm_loss
from .max_pool import max_pool_backward, max_pool_forward
from .relu import relu_backward, relu_forward
from .silu import silu_backward, silu_forward
from .step import StepNumbers
from .update import adam_update, rmsprop_update, sgd_update
from .upsample import upsample_backward, upsample_forward
