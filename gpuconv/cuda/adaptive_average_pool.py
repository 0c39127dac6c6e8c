"""Launches of kernels/adaptive_average_pool.cu."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..pool_shapes import AdaptiveSizes
from .device import device_of
from .kernel import Kernel, cover
from .layout import elements, empty_images, in_own_format, index_type
from .pool import pack_of

_FORWARD = Kernel("adaptive_average_pool.cu", "adaptive_average_pool_forward_direct")
_BACKWARD = Kernel("adaptive_average_pool.cu", "adaptive_average_pool_backward_direct")


def adaptive_average_pool_forward(x: Any, sizes: AdaptiveSizes) -> Any:
    return _launched(_FORWARD, x, sizes, sizes.out)


def adaptive_average_pool_backward(dy: Any, sizes: AdaptiveSizes) -> Any:
    return _launched(_BACKWARD, dy, sizes, sizes.image)


def _launched(kernel: Kernel, source: Any, z: AdaptiveSizes, shape: tuple[int, ...]) -> Any:
    """Return an array of a shape, in the memory format of source, that a kernel makes of it."""
    device = device_of(source)
    source, channels_last = in_own_format(source)
    result, result_stored = empty_images(device, shape, source.dtype, channels_last=channels_last)
    pack = pack_of(source.dtype, shape[1]) if channels_last else 1
    templates = (source.dtype, channels_last, pack, pool_index(z))
    kernel(device, templates, cover(device, elements(shape) // pack), source, result_stored, _shape(kernel, z))
    return result


@functools.lru_cache(maxsize=1024)
def _shape(kernel: Kernel, z: AdaptiveSizes) -> np.void:
    """Return AdaptivePoolShape of kernels/adaptive_average_pool.cu, which both kernels call z."""
    (N, C, *image), out = z.image, z.out[2:]
    D, H, W = (1, *image)[-3:]
    Z, P, Q = (1, *out)[-3:]
    return kernel.pack("z", {"N": N, "C": C, "D": D, "H": H, "W": W, "Z": Z, "P": P, "Q": Q})


def pool_index(z: AdaptiveSizes) -> np.dtype:
    """Return the type that counts elements, and the products by which windows are found."""
    products = ((n + 1) * (p + 1) for n, p in zip(z.image[2:], z.out[2:], strict=True))
    return index_type(elements(z.image), elements(z.out), *products)
