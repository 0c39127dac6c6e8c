"""The kernels that convolve volumes, by what they make and how: conv.py launches them by its rule for images."""

from __future__ import annotations

from .kernel import Kernel

VOLUME_KERNELS = {
    "forward": {
        "direct": Kernel("conv_volume.cu", "conv_volume_forward_direct"),
        "tiled": Kernel("conv_volume_tiled.cu", "conv_volume_forward_tiled"),
        "few": Kernel("conv_volume_tiled.cu", "conv_volume_forward_few"),
    },
    "data": {
        "direct": Kernel("conv_volume.cu", "conv_volume_backward_data_direct"),
        "tiled": Kernel("conv_volume_tiled.cu", "conv_volume_backward_data_tiled"),
    },
    "weight": {
        "direct": Kernel("conv_volume.cu", "conv_volume_backward_weight_direct"),
        "tiled": Kernel("conv_volume_tiled.cu", "conv_volume_backward_weight_tiled"),
    },
}
