"""Sections of code that one thread at a time is in, and that an interrupt may leave anywhere."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable)


def alone(method: Method) -> Method:
    """Let one thread at a time run such methods of an object, which has a threading.RLock as _lock.

    An interrupt (Ctrl-C raises KeyboardInterrupt between any two lines) must neither leave the lock taken nor the
    object half changed.  `with` sees to the first, but for one raised between the end of its block and its own
    release: so the lock is looked at once more.  The second is up to the methods: each of their steps leaves the object
    in a state that all of them can go on from.

    That is also why the lock lets its own thread in again: a signal's handler, or the end of an object that a garbage
    collection finds, may call an operator in the middle of a section.
    """

    @functools.wraps(method)
    def run(self: Any, *args: Any) -> Any:
        lock: Any = self._lock
        again = lock._is_owned()
        try:
            with lock:
                return method(self, *args)
        finally:
            if not again and lock._is_owned():
                lock.release()

    return run  # type: ignore[return-value]


def new_lock() -> Any:
    """Return a lock for `alone`."""
    return threading.RLock()
