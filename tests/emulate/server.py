"""Launch servers: small processes that run kernels, so that a launch costs no process of its own.

To fork a process that has loaded PyTorch takes milliseconds; so do the first touches of a fresh process's memory.  A
server (runtime/server.cpp) is started fresh, runs launch after launch in itself, and keeps its libraries, stacks and
shared memory.  It is thrown away with the first launch that goes wrong.  Each thread that launches has one to itself
while the launch runs; servers end with this process.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from . import build
from .errors import EmulationError
from .memory import Arena

# A server keeps what it loaded: some hundred kilobytes a library.
_MOST_LIBRARIES = 100


class Server:
    """One launch server and the memory shared with it."""

    def __init__(self) -> None:
        self.arena = Arena()
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            numbers = other.fileno(), self.arena.file
            command = [str(build.server()), *map(str, numbers), str(Arena.BYTES)]
            self._process = subprocess.Popen(command, pass_fds=numbers, stdin=subprocess.DEVNULL)
        self._libraries: set[Path] = set()
        self._sound = True  # no launch has gone wrong, or is under way
        self.arena.server_base = int.from_bytes(self._socket.recv(8), "little")
        if not self.arena.server_base:
            msg = f"the launch server did not start: exit status {self.end()}"
            raise EmulationError(msg)

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def usable(self) -> bool:
        return self._sound and self._process.poll() is None and len(self._libraries) < _MOST_LIBRARIES

    def run(self, library: Path) -> int:
        """Run the launch that lies in the arena; return 0, or a code, and the server has ended."""
        self._libraries.add(library)
        self._sound = False
        with contextlib.suppress(ConnectionError):
            self._socket.send(os.fsencode(library))
            self._sound = len(self._socket.recv(1)) == 1
        return 0 if self._sound else self.end() or -1

    def end(self) -> int:
        """Let the server end, if it has not, also in the middle of a launch; return its exit status."""
        self._socket.close()
        self.arena.close()
        return self._process.wait()

    def forget(self) -> None:
        """Drop what a forked child inherited of its parent's server."""
        self._socket.close()
        self._process.returncode = 0


_idle: list[Server] = []
_all: set[Server] = set()
_lock = threading.Lock()


@contextlib.contextmanager
def borrowed() -> Iterator[Server]:
    """Give a server to one launch; it ends if the launch goes wrong."""
    with _lock:
        server = _idle.pop() if _idle else None
    if server is None or not server.usable:
        if server is not None:
            _end(server)
        server = Server()
        _all.add(server)
    try:
        yield server
    finally:
        if server.usable:
            with _lock:
                _idle.append(server)
        else:
            _end(server)


def _end(server: Server) -> None:
    _all.discard(server)
    server.end()


def end_all() -> None:
    """Let all idle servers end."""
    with _lock:
        ended = list(_idle)
        _idle.clear()
    for server in ended:
        _end(server)


def _after_fork() -> None:
    """Leave the servers to the parent."""
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.Lock()
    for server in _all:
        server.forget()
    _idle.clear()
    _all.clear()


atexit.register(end_all)
os.register_at_fork(after_in_child=_after_fork)
