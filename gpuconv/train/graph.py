"""A training step on a GPU as one launch: recorded once, replayed from then on.

What is recorded is what runs without it, so a run has the same bits with it and without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import checks
from ..backend import default_device, record
from ..errors import ConfigError, RecordingError
from ..runs.config import Config

_EAGER = 2  # steps before a recording: they compile the kernels


def check_graph(config: Config) -> None:
    """Raise ConfigError where graph "on" is asked for and cannot be."""
    if config.graph != "on":
        return
    if (default_device() if config.device == "auto" else config.device) == "cpu":
        msg = 'graph "on" needs a GPU, and this run is on the CPU: leave graph at "auto"'
        raise ConfigError(msg)
    if checks.debug():
        msg = 'graph "on" cannot be with GPUCONV_DEBUG=1, which waits for every launch: leave graph at "auto"'
        raise ConfigError(msg)


class StepGraph:
    """Does the launches of a step: one by one in the first two steps, then as one.

    setting: "auto", "on" or "off".   beside: an array of the net.
    tell: called with a sentence where steps cannot be recorded, and graph is "auto".
    """

    def __init__(self, setting: str, beside: Any, tell: Callable[[str], None]) -> None:
        self._setting, self._beside, self._tell = setting, beside, tell
        self._given_up = False
        self.forget()

    def forget(self) -> None:
        """Record anew: arrays that a step works on are others now."""
        self._recording: Any = None
        self._source: Any = None
        self._eager = 0

    @property
    def warm(self) -> int:
        """How many steps there are before the first that is like all others."""
        return 1 if self._setting == "off" else _EAGER + 1

    def do(self, work: Callable[[], None], source: Any) -> None:
        """Do a step's launches.   source: what its batch is made of; a recording serves one, and others do without."""
        if self._recording is not None and source == self._source:
            self._recording.replay()
            return
        if self._setting == "off" or self._given_up or self._recording is not None:
            work()
            return
        if source != self._source:
            self._source, self._eager = source, 0
        if self._eager < _EAGER:
            self._eager += 1
            work()
            return
        try:
            self._recording = record(work, self._beside)
        except (RecordingError, MemoryError) as error:
            if self._setting == "on":
                msg = f'graph "on" cannot be, the step is not to be recorded: {error}; graph "auto" does without'
                raise ConfigError(msg) from error
            self._given_up = True
            self._tell(f"steps are launched kernel by kernel, not as one graph: {error}")
            work()
            return
        self._recording.replay()
