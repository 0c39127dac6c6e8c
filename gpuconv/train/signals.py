"""Ctrl-C, `kill` and a terminal that hangs up, taken at a moment when nothing is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from ..folders import quoted

# A terminal that was closed, or a connection that was lost, sends SIGHUP: not on Windows.
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal, after the step was finished and saved; `resume(folder)` goes on."""

    def __init__(self, signum: int, folder: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; to go on: gpuconv train --resume {quoted(folder)}")
        self.signum = signum
        self.folder = folder


class Stop(BaseException):
    """Raised by Guard.check; never leaves gpuconv.train."""


class Guard:
    """Context in which the first of SIGNALS only raises a flag, and a second SIGINT or SIGTERM stops at once.

    Handlers are installed in the main thread only (Python allows no other), not for signals that are being ignored
    (nohup, jobs in the background of a script), and put back at the end.
    """

    def __init__(self, agree: Callable[[int | None], int | None] = lambda signum: signum) -> None:
        """Remember no signal yet.   agree: returns the signal that came to this process or to another of the run."""
        self.signum: int | None = None
        self._agree = agree
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                # None: a handler that was not installed from Python, and could not be put back.
                if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                    self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._put_back()
        finally:  # the second SIGINT may have come inside the first attempt
            self._put_back()

    def _put_back(self) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def check(self) -> None:
        """Raise Stop if a signal came: called where everything is consistent."""
        signum = self._agree(self.signum)
        if signum is not None:
            self.signum = signum
            raise Stop

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum = signum
        elif signum == signal.SIGINT:
            raise KeyboardInterrupt
        elif signum == signal.SIGTERM:  # of a hang-up both the system and the shell may tell
            raise SystemExit(128 + signum)
