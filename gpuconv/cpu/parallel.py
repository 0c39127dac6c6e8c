"""Worker threads over blocks of a batch, and the scratch memory they reuse.

NumPy releases the interpreter lock in copies, sums and matrix products, so threads use every core.  While they run,
BLAS is held to one thread: its threads and ours never multiply.  How work is cut into blocks depends on sizes alone,
never on the number of threads, so results are equal bit for bit for any GPUCONV_THREADS.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from ..errors import ConfigError
from .memory import aligned

# Elements of an array that one block covers where work is a few NumPy calls on long rows: each call then lasts about
# 50 microseconds, so threads rarely meet at the interpreter lock, and blocks still fit the L3 cache.
BLOCK_ELEMENTS = 512 * 1024

Block = TypeVar("Block")
Function = TypeVar("Function", bound=Callable)


def threads() -> int:
    """Return how many threads work at once: GPUCONV_THREADS, else the cores this process may use."""
    wanted = os.environ.get("GPUCONV_THREADS", "")
    if not wanted:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not wanted.isdecimal() or not 1 <= int(wanted) <= 1024:
        msg = f"GPUCONV_THREADS must be a number from 1 to 1024, got {wanted!r}"
        raise ConfigError(msg)
    return int(wanted)


def for_each(work: Callable[[Block], object], blocks: Iterable[Block]) -> None:
    """Call work(block) for every block, on all threads, in any order; raise the first error after all have stopped."""
    queue = deque(blocks)
    workers = min(threads(), len(queue))
    work = quiet(work)
    with _single_threaded_blas:
        if workers <= 1:
            for block in queue:
                work(block)
            return
        errors: list[BaseException] = []

        def drain() -> None:
            while not errors:
                try:
                    block = queue.popleft()
                except IndexError:
                    return
                try:
                    work(block)
                except BaseException as error:  # noqa: BLE001 - handed to the caller below
                    errors.append(error)

        pool = _pool(workers - 1)
        helpers = [pool.submit(drain) for _ in range(workers - 1)]
        drain()
        for helper in helpers:
            helper.result()
        if errors:
            raise errors[0]


def quiet(function: Function) -> Function:
    """Compute as IEEE says, without NumPy's warnings: NaN and infinities are results here."""
    return np.errstate(all="ignore")(function)


def ranges(total: int, size: int) -> list[tuple[int, int]]:
    """Cut range(total) into pieces of at most `size`: [(first, past the last), ...]."""
    return [(first, min(first + size, total)) for first in range(0, total, size)]


def scratch(slot: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return uninitialised memory of this thread, reused by its next call with the same slot."""
    count = math.prod(shape)
    nbytes = count * dtype.itemsize
    buffers: dict[str, np.ndarray] = _local.__dict__
    buffer = buffers.get(slot)
    if buffer is None or buffer.nbytes < nbytes:
        buffer = buffers[slot] = aligned(nbytes)
    return buffer[:nbytes].view(dtype).reshape(shape)


class _SingleThreadedBlas:
    """Context that holds BLAS to one thread while anyone is inside; the last one out restores what was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._libraries: list[tuple[Any, int]] | None = None
        self._controllers: list = []

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                if self._libraries is None:
                    self._controllers = ThreadpoolController().select(user_api="blas").lib_controllers
                self._libraries = [(library, library.get_num_threads()) for library in self._controllers]
                for library, _ in self._libraries:
                    library.set_num_threads(1)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for library, count in self._libraries or ():
                    library.set_num_threads(count)


_single_threaded_blas = _SingleThreadedBlas()
_local = threading.local()
_executor: ThreadPoolExecutor | None = None
_executor_size = 0
_executor_lock = threading.Lock()


def _pool(workers: int) -> ThreadPoolExecutor:
    """Return the shared pool, grown to at least `workers` threads."""
    global _executor, _executor_size  # noqa: PLW0603 - one pool for the process
    with _executor_lock:
        if _executor is None or _executor_size < workers:
            if _executor is not None:
                _executor.shutdown(wait=False)
            _executor = ThreadPoolExecutor(workers, thread_name_prefix="gpuconv")
            _executor_size = workers
        return _executor


def _forget_pool() -> None:
    """Start anew in a forked child, where the parent's threads do not exist."""
    global _executor, _executor_size, _executor_lock, _single_threaded_blas  # noqa: PLW0603 - as above
    _executor, _executor_size, _executor_lock = None, 0, threading.Lock()
    _single_threaded_blas = _SingleThreadedBlas()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
