"""The net of the CIFAR-10 speed runs: whitened patches, three groups of two convolutions, scaled scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ... import checks
from ...backend import asnumpy
from ...errors import ShapeError
from ...typing import AnyArray
from ..containers import Sequential
from ..layer import Layer
from ..layers import Affine, BatchNorm, Conv, Flatten, MaxPool
from ..net import Net
from ..single_elements import Gelu, Scale
from ..store import put
from .common import checked_widths, image_shape, large_enough

_WHITENING_EPS = 5e-4
_IMAGES_AT_ONCE = 250


class SpeedrunNet(Net):
    """A frozen 2x2 whitening convolution, three groups of convolutions with GELU, a maximum over the image, scores / 9.

    widths: filters of each group, by default 64 256 256.  A group is [conv 3x3 - 2x2 max pool - batch norm - gelu -
    conv 3x3 - batch norm - gelu]; its filters start as the identity as far as there are channels for it.  Batch norm
    has no gamma; momentum 0.6 and eps 1e-12 are those of the speed run.  Works for every image of at least 9x9.

    The whitening filters start random: `prepare` computes them from training images, once.  They are in `state`, so a
    checkpoint holds them.
    Source: Jordan, 94% on CIFAR-10 in 3.29 seconds on a single GPU, arXiv 2404.00498 (airbench94).

    >>> net = nn.SpeedrunNet(8, 16, 16)
    >>> x = np.random.default_rng(0).standard_normal((4, 3, 32, 32), np.float32)
    >>> net.prepare(x)
    >>> net.forward(x).shape
    (4, 10)
    """

    def __init__(
        self,
        *widths: int,
        input_shape: tuple[int, ...] = (3, 32, 32),
        classes: int = 10,
        seed: int = 0,
        dtype: npt.DTypeLike = "float32",
    ) -> None:
        widths = checked_widths("SpeedrunNet", widths, (64, 256, 256))
        classes = checks.integer("classes", classes, least=1)
        input_shape = image_shape(input_shape)
        large_enough("SpeedrunNet", input_shape, 9)
        channels = 2 * 4 * input_shape[0]  # one filter and its negative for each direction of a 2x2 patch
        layers: dict[str, Layer] = {"whiten": Conv(input_shape[0], channels, 2, frozen=True), "gelu": Gelu()}
        for number, filters in enumerate(widths, 1):
            layers[f"group{number}"] = _group(channels, filters)
            channels = filters
        _, height, width = Sequential(**layers).output_shape(input_shape)
        body = Sequential(
            **layers,
            pool=MaxPool((height, width)),
            flatten=Flatten(),
            head=Affine(channels, classes, bias=False, init="uniform"),
            scale=Scale(1 / 9),
        )
        super().__init__(body, input_shape, seed=seed, dtype=dtype)
        self.describe("SpeedrunNet", widths=list(widths), classes=classes)

    def prepare(self, x: AnyArray) -> None:
        """Set the whitening filters from training images, as they come to `forward`.   x: (N, *input_shape), N >= 1."""
        if tuple(x.shape[1:]) != self.input_shape or not x.shape[0]:
            msg = f"x must be (N, {', '.join(map(str, self.input_shape))}) with N above 0, got {tuple(x.shape)}"
            raise ShapeError(msg)
        put(self.state["whiten.w"], whitening_filters(asnumpy(x)))


def whitening_filters(x: np.ndarray) -> np.ndarray:
    """Return 2x2 filters that give uncorrelated outputs of about variance 1 on patches of x, then their negatives.

    x: (N, C, H, W)   ->   w: (8 C, C, 2, 2) float64, the directions of largest variance first.

    With V diag(l) V^T the mean of p p^T over all patches p, filter i is V_i / sqrt(l_i + 5e-4).
    """
    C = x.shape[1]
    moment, count = np.zeros((4 * C, 4 * C)), 0
    for start in range(0, len(x), _IMAGES_AT_ONCE):
        windows = np.lib.stride_tricks.sliding_window_view(x[start : start + _IMAGES_AT_ONCE], (2, 2), axis=(2, 3))
        patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 4 * C).astype(np.float64)
        moment += patches.T @ patches
        count += len(patches)
    variances, directions = np.linalg.eigh(moment / count)
    filters = (directions / np.sqrt(variances + _WHITENING_EPS)).T[::-1].reshape(4 * C, C, 2, 2)
    return np.concatenate([filters, -filters])


def _group(channels: int, filters: int) -> Layer:
    return Sequential(
        Conv(channels, filters, pad=1, bias=False, init="dirac"),
        MaxPool(2),
        BatchNorm(filters, momentum=0.6, eps=1e-12, scale=False),
        Gelu(),
        Conv(filters, filters, pad=1, bias=False, init="dirac"),
        BatchNorm(filters, momentum=0.6, eps=1e-12, scale=False),
        Gelu(),
    )
