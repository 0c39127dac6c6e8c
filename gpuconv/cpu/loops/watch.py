"""Waiting for another thread without the interpreter lock: a thread that looks out sees a change at once.

To wake one that sleeps takes 20 to 90 microseconds, longer than many a pass.
"""

from __future__ import annotations

import time

import numpy as np
from numba import boolean, int64

from .atomic import COUNTER, load, pause, take
from .jit import NUMBER, compiled_pass, write

_SECONDS = 130e-6  # of looking out: most calls of a training step follow one another faster


@compiled_pass(COUNTER, NUMBER, NUMBER, returns=boolean)
def changes(word, seen, looks):
    """Return whether a word becomes another than was seen within so many looks."""
    for _ in range(looks):
        if load(word) != seen:
            return True
        pause()
    return False


@compiled_pass(COUNTER, COUNTER, write(2, int64), NUMBER, NUMBER)
def report(ended, call, counters, seen, looks):
    """Add 1 to a word that another thread looks at; then look out for a call.

    Whoever calls needs the interpreter lock until it has begun to work, which its counter shows: to wait for the lock
    would mean to sleep.
    """
    take(ended)
    for _ in range(looks):
        number = load(call)
        if number != seen:
            counter = counters[number % len(counters)]
            for _ in range(looks // 8):
                if load(counter) > 0:
                    return
                pause()
            return
        pause()


def _looks(seconds: float) -> int:
    """Return how many looks take so long: a pause lasts 10 times longer on one processor than on another."""
    word, few, times = np.zeros(1, np.int64), 500, []
    for _ in range(3):
        begun = time.perf_counter()
        changes(word, 0, few)
        times.append(time.perf_counter() - begun)
    return int(few * seconds / min(times))


LOOKS = _looks(_SECONDS)
