"""Group normalisation, a block of images at a time."""

from __future__ import annotations

from math import prod

import numpy as np

from .compiled import passes
from .layout import accumulator, empty_as
from .parallel import for_each, quiet, ranges


@quiet
def groupnorm_forward(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, *, groups: int, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    run, kind = passes("groupnorm", x.dtype), accumulator(x.dtype)
    y = empty_as(x)
    mean, inv_std = np.empty((x.shape[0], groups), kind), np.empty((x.shape[0], groups), kind)
    scale, shift = gamma.astype(kind), beta.astype(kind)

    def work(images: slice) -> None:
        run.forward(x[images], y[images], scale, shift, mean[images], inv_std[images], eps)

    for_each(work, _blocks(x, run.BLOCK))
    return y, mean, inv_std


@quiet
def groupnorm_backward(
    dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    run = passes("groupnorm", x.dtype)
    dx, blocks = empty_as(x), _blocks(x, run.BLOCK)
    scale = gamma.astype(accumulator(x.dtype))
    sums = np.zeros((len(blocks), 2, x.shape[1]))  # of dy x_hat and of dy

    def work(index: int) -> None:
        images = blocks[index]
        run.backward(dy[images], x[images], dx[images], scale, mean[images], inv_std[images], *sums[index])

    for_each(work, range(len(blocks)))
    dgamma, dbeta = sums.sum(axis=0)
    return dx, dgamma.astype(gamma.dtype), dbeta.astype(gamma.dtype)


def _blocks(x: np.ndarray, block: int) -> list[slice]:
    return [slice(*images) for images in ranges(x.shape[0], max(1, block // prod(x.shape[1:])))]
