"""What is said of a process of many that ends without a word of its own: killed, crashed, or out of memory.

A small process beside it waits for its end, as a script of this file, and needs nothing but Python.  What starts the
processes ends all others at once, whose ends nobody needs to hear of: the first of a machine speaks, and no other.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

_KEPT = 3.0  # seconds in which the others end, too


class LastWord:
    """Says a sentence if this process ends before `withdraw`.   name: that of all processes together."""

    def __init__(self, name: str, sentence: str) -> None:
        self._name = name
        command = [sys.executable, "-I", "-S", __file__, name, sentence]
        self._beside = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def withdraw(self) -> None:
        """Let nothing be said: the process ends as it should, or has said why not."""
        stream = self._beside.stdin
        if stream is None or stream.closed:
            return
        with contextlib.suppress(OSError):
            stream.write(b".")
            stream.close()
        self._beside.wait()

    def silence(self) -> None:
        """Let nothing be said of the others on this machine either, which end because of this process."""
        self._line = _claimed(self._name)
        self.withdraw()


def _claimed(name: str) -> socket.socket | None:
    """Return what says to others that somebody speaks; None if another one does."""
    line = socket.socket(socket.AF_UNIX)
    try:
        line.bind(f"\0{name}")  # in the abstract name space of Linux: it is gone when nobody has it any more
    except OSError:
        line.close()
        return None
    return line


def _main() -> None:
    name, sentence = sys.argv[1:]
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    if sys.stdin.buffer.read() or (line := _claimed(name)) is None:
        return
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()
    for stream in (0, 1, 2):  # nobody need wait for this process
        os.close(stream)
    time.sleep(_KEPT)
    line.close()


if __name__ == "__main__":
    _main()
