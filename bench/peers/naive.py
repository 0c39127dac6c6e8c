"""The definition as plain Python loops, gpuconv's oracle: what everything else is faster than."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from gpuconv import backend

from ..inputs import Inputs
from .base import Calls, NotOffered
from .ours import Ours

_MOST_STEPS = 2_000_000  # of the innermost loop, some ten million a second


class Naive(Ours):
    label = "plain loops"
    devices = metered = ("cpu",)

    def calls(self, inputs: Inputs) -> Calls:
        case = inputs.case
        if case.op == "train_step":
            msg = "takes no training steps"
            raise NotOffered(msg)
        if inputs.channels_last or inputs.regime != "float32":
            msg = "is called in NCHW and float32"
            raise NotOffered(msg)
        steps = max(case.flop("forward") // 2, case.bytes("forward", itemsize=1))
        if steps > _MOST_STEPS:
            msg = f"would need {steps:,} steps of plain Python"
            raise NotOffered(msg)
        with _oracle():
            found = super().calls(inputs)
        return {direction: _by_loops(call) for direction, call in found.items()}

    def _put(self, array: Any) -> Any:
        """Return an array as the loops would compute with it anyway: in float64, or two of them; labels as they are."""
        if array.dtype.kind in "iu":
            return array
        return array.astype(np.promote_types(array.dtype, np.float64))


def _by_loops(call: Callable[[], Sequence[Any]]) -> Callable[[], Sequence[Any]]:
    def called() -> Sequence[Any]:
        with _oracle():
            return call()

    return called


@contextmanager
def _oracle() -> Iterator[None]:
    """Let the operators hand NumPy arrays to the oracle, to which they never do so by themselves."""
    with mock.patch.dict(backend._PACKAGE_OF, {"NumPy": "gpuconv.naive"}):
        yield
