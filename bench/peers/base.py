"""What every side of a comparison is, and the two words it may say instead of a result."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..clocks import Clock, HostClock
from ..inputs import Inputs
from ..memory import Meter

Calls = dict[str, Callable[[], Sequence[Any]]]


class NotOffered(Exception):
    """Raised by `calls` or `start`: this side has no such operator, layout, regime or size; the message says which."""


class Peer(ABC):
    """One side.  It is made anywhere, but starts in a process of its own, before its library is imported."""

    label: str  # as tables show it
    packages: tuple[str, ...] = ()  # that must be installed
    devices: tuple[str, ...] = ("cpu",)
    metered: tuple[str, ...] = ()  # devices on which `meter` counts
    takes_complex = False  # its convolution has complex numbers
    variables: Mapping[str, str] = {}  # of its process's environment

    def missing(self) -> list[str]:
        """Return the packages that are not installed here."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]

    @abstractmethod
    def start(self, device: str, threads: int) -> str:
        """Import and set up the library; return its version as tables show it."""

    @abstractmethod
    def calls(self, inputs: Inputs) -> Calls:
        """Return, for each direction, a call without arguments that gives the results oracle.result_names lists."""

    def host(self, result: Any, name: str, inputs: Inputs) -> np.ndarray:
        """Return the result of this name as a NumPy array, images shaped (N, C, H, W)."""
        return np.asarray(result)

    def clock(self) -> Clock:
        """Return what times the calls."""
        return HostClock()

    def meter(self) -> Meter | None:
        """Return what counts the bytes of this side's allocator; None where nothing does."""
        return None
