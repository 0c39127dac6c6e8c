"""Work on a GPU that is done again and again, as one launch: recorded once, replayed from then on.

What is recorded is what runs without it, so the bits are the same with it and without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import record
from ..errors import ConfigError, RecordingError

_EAGER = 2  # times before a recording: they compile the kernels


class Replayed:
    """Does the same launches again and again: one by one at the first two times, then as one.

    setting: "auto", "on" or "off".   beside: an array of the net.   what: the launches are, in the plural.
    tell: called with a sentence where they cannot be recorded, and graph is "auto".
    without: why they are launched one by one, where that is known.
    """

    def __init__(self, setting: str, beside: Any, tell: Callable[[str], None], what: str, without: str = "") -> None:
        self._setting, self._beside, self._tell = setting, beside, tell
        self._what, self._without = what, without
        self._given_up = False
        self.forget()

    def forget(self) -> None:
        """Record anew: arrays that the work is on are others now."""
        self._recording: Any = None
        self._source: Any = None
        self._eager = 0

    @property
    def warm(self) -> int:
        """How many times there are before the first that is like all others."""
        return 1 if self._setting == "off" or self._without else _EAGER + 1

    def do(self, work: Callable[[], Any], source: Any) -> Any:
        """Do work and return its result, which holds until it is done again.

        source: what the work is on; a recording serves one, and others do without.
        """
        if self._recording is not None and source == self._source:
            self._recording.replay()
            return self._recording.result
        if self._without and self._setting == "auto" and not self._given_up:
            self._give_up(self._without)
        if self._setting == "off" or self._given_up or self._recording is not None:
            return work()
        if source != self._source:
            self._source, self._eager = source, 0
        if self._eager < _EAGER:
            self._eager += 1
            return work()
        try:
            self._recording = record(work, self._beside)
        except (RecordingError, MemoryError) as error:
            if self._setting == "on":
                msg = f'graph "on" cannot be, for {self._what} cannot be recorded: {error}; graph "auto" does without'
                raise ConfigError(msg) from error
            self._give_up(error)
            return work()
        self._recording.replay()
        return self._recording.result

    def _give_up(self, why: object) -> None:
        self._given_up = True
        self._tell(f"{self._what} are launched kernel by kernel, not as one graph: {why}")


def keep_quiet(notice: str) -> None:
    """Say nothing: nobody listens."""


def once(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Return what tells the first notice that it is given, and no other."""
    told: list[str] = []

    def tell_once(notice: str) -> None:
        if not told:
            told.append(notice)
            tell(notice)

    return tell_once
