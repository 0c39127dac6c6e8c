"""Two processes that fetch the same file at once, from a server that breaks off or forgets ranges, one of them perhaps killed.

Nobody who looks meanwhile may see a part of it; whoever was not killed has it, and no other file is left behind.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from local_server import Server, serve

from gpuconv.data.download import fetch

from .kind import Case, Kind
from .runs import Child

_SIZE = 1_000_003


@functools.cache
def _content() -> bytes:
    return random.Random(0).randbytes(_SIZE)


def _answer(draw: random.Random) -> Any:
    """Return a server's way to answer that gets there in the end."""
    way, every = draw.choice(("good", "good", "breaks", "without ranges")), draw.randrange(250_000, _SIZE)

    def answer(handler: Any) -> None:
        content, start = _content(), handler.start
        if way == "without ranges":
            handler.reply(200, content)
        elif way == "breaks" and (start or 0) < len(content):
            where = {"Content_Range": f"bytes {start}-{_SIZE - 1}/{_SIZE}"} if start else {}
            rest = content[start or 0 :]
            handler.reply(206 if start else 200, rest[:every], length=len(rest), **where)
        else:
            serve(handler, content)

    return answer


@contextlib.contextmanager
def _serving(answer: Any) -> Iterator[str]:
    """Serve a file from a process of its own; its address is the value."""

    def work(pipe: int) -> int:
        with Server() as server:
            os.write(pipe, server.url("file", answer).ljust(200).encode())
            server.serve_forever(poll_interval=0.01)
        return 0

    child = Child(work)
    try:
        yield child.read(200).decode().rstrip()
    finally:
        child.kill(signal.SIGKILL)
        child.finish()


def _race(case: Case) -> str:
    target = case.folder / "data" / "file"
    sha256 = hashlib.sha256(_content()).hexdigest()
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            with contextlib.suppress(FileNotFoundError):
                found = target.read_bytes()
                if found != _content():
                    seen.append(len(found))

    kill = case.draw.random() < 0.5
    with _serving(_answer(case.draw)) as url:

        def work(_: int) -> int:
            fetch([url], target, size=_SIZE, sha256=sha256)
            return 0

        racers = [Child(work) for _ in range(2)]
        watching = threading.Thread(target=watch)
        watching.start()
        if kill:
            until = time.perf_counter_ns() + case.draw.randrange(20_000_000)
            while time.perf_counter_ns() < until:
                os.sched_yield()
            racers[0].kill(signal.SIGKILL)
        ended = [racer.finish() for racer in racers]
        over.set()
        watching.join()
        killed = ended[0][0] == -signal.SIGKILL
        assert ended[killed:] == [(0, b"")] * (2 - killed), ended
        if killed:  # the next one goes on with what it left, or clears it away
            assert Child(work).finish() == (0, b"")
    assert not seen, f"parts were seen, of {seen} bytes"
    assert target.read_bytes() == _content()
    if not killed:
        assert _left(target) == []
    return "one was killed" if killed else "both"


def _left(target: Path) -> list[str]:
    return [entry.name for entry in target.parent.iterdir() if entry != target]


KINDS = (Kind("racing downloads", 50, _race),)
