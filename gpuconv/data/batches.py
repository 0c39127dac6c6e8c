"""The order of pictures in an epoch, and the random words that augment them: pure functions of seed and epoch.

A run that is resumed asks again with the same numbers and gets the same batches; nothing needs to be saved.
"""

from __future__ import annotations

import numpy as np

from .. import checks
from ..errors import ParamError
from ..random import Stream, words


def epoch_batches(
    count: int, batch_size: int, *, seed: int, epoch: int, drop_last: bool = True, shuffle: bool = True
) -> list[np.ndarray]:
    """Return the pictures of each batch of an epoch, as index arrays.

    -> list of (batch_size,) int64

    No index comes twice.  drop_last leaves out a last smaller batch; without it every index comes once.
    shuffle=False keeps the order 0, 1, 2, ...; seed and epoch then do not matter.
    """
    count = checks.integer("count", count, least=1)
    batch_size = checks.integer("batch_size", batch_size, least=1)
    seed, epoch = checks.word("seed", seed), checks.word("epoch", epoch)
    if checks.flag("drop_last", drop_last) and batch_size > count:
        msg = f"batch_size must be at most count if the last smaller batch is dropped, got {batch_size} of {count}"
        raise ParamError(msg)
    if checks.flag("shuffle", shuffle):
        # Sorting random words gives the same order on every platform and NumPy version; stable, in case two are equal.
        order = np.argsort(words(count, seed=seed, stream=Stream.SHUFFLE, step=epoch), kind="stable")
    else:
        order = np.arange(count)
    order = order.astype(np.int64, copy=False)
    end = count - count % batch_size if drop_last else count
    return [order[start : start + batch_size] for start in range(0, end, batch_size)]


def epoch_draws(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return one random word for every picture of an epoch, which `gpuconv.augment` turns into a crop and a flip.

    -> (count,) uint64

    A picture's word depends on its place in the data set, not on its batch: draws[batch] goes with images[batch].
    """
    count = checks.integer("count", count, least=0)
    seed, epoch = checks.word("seed", seed), checks.word("epoch", epoch)
    return words(count, seed=seed, stream=Stream.AUGMENT, step=epoch)
