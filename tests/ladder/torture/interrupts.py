"""Interrupts inside operators, at moments nobody chose, by signals.

It is for what tests/test_interrupts.py cannot show: that the lines it interrupts one by one are all there are, also
where C code, helpers' threads and several interrupts in a row are involved.  An alarm raises KeyboardInterrupt in a
random operator, one time in four again within some microseconds.  Then the same operator must give the same bits, BLAS
must have its threads and NumPy its warnings, and the pool must count no byte that no array uses.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import random
import signal
import time
from collections.abc import Callable
from unittest import mock

import numpy as np
from threadpoolctl import LibController, ThreadpoolController

import gpuconv
from gpuconv.cpu import memory

from .kind import Case, Kind

_WAIT = 10.0  # seconds of this process's time in which helpers let go of what an interrupted call left them


@functools.cache
def _operators() -> dict[str, Callable[[], list[np.ndarray]]]:
    """Return functions that each compute a list of arrays, by name."""
    rng = np.random.default_rng(12)
    x = rng.standard_normal((4, 16, 32, 32)).astype(np.float32)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    large = np.concatenate([x] * 10)  # of several blocks of loops, too
    w = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
    gamma, beta = np.ones(16, np.float32), np.zeros(16, np.float32)
    rows, matrix = (
        rng.standard_normal((256, 300)).astype(np.float32),
        rng.standard_normal((300, 200)).astype(np.float32),
    )

    def conv(x):
        y, cache = gpuconv.conv_forward(x, w, beta, pad=1)
        return [y, *gpuconv.conv_backward(y, cache)]

    def norm(x):
        mean, var = np.zeros(16, np.float32), np.ones(16, np.float32)
        y, cache = gpuconv.spatial_batchnorm_forward(x, gamma, beta, mean, var)
        return [y, mean, var, *gpuconv.spatial_batchnorm_backward(y, cache)]

    def pool(forward, backward, x):
        y, cache = forward(x, window=2)
        return [y, backward(y, cache)]

    def affine():
        y, cache = gpuconv.affine_forward(rows, matrix, np.zeros(200, np.float32))
        return [y, *gpuconv.affine_backward(y, cache)]

    def update():
        w, velocity = rows.flatten(), np.zeros(rows.size, np.float32)
        gpuconv.sgd_update(w, rows.ravel() * 2, velocity, lr=0.1, momentum=0.9)
        return [w, velocity]

    def relu():
        y, cache = gpuconv.relu_forward(large)
        return [y, gpuconv.relu_backward(y, cache)]

    def gelu():
        y, cache = gpuconv.gelu_forward(large)
        return [y, gpuconv.gelu_backward(y, cache)]

    def groupnorm():
        y, cache = gpuconv.groupnorm_forward(x, gamma, beta, groups=4)
        return [y, *gpuconv.groupnorm_backward(y, cache)]

    return {
        "conv": lambda: conv(x),
        "conv, channels last": lambda: conv(last),
        "batchnorm": lambda: norm(x),
        "batchnorm, channels last": lambda: norm(last),
        "max_pool": lambda: pool(gpuconv.max_pool_forward, gpuconv.max_pool_backward, x),
        "average_pool": lambda: pool(gpuconv.average_pool_forward, gpuconv.average_pool_backward, last),
        "affine": affine,
        "sgd_update": update,
        "relu": relu,
        "gelu": gelu,
        "groupnorm": groupnorm,
    }


@functools.cache
def _expected() -> dict[str, tuple[list[np.ndarray], float]]:
    """Return the results of every operator, and how many seconds it takes."""
    found = {}
    for name, operator in _operators().items():
        results = [array.copy() for array in operator()]
        begun = time.perf_counter()
        operator()
        found[name] = results, time.perf_counter() - begun
    return found


@functools.cache
def _blas() -> list[LibController]:
    """Return the libraries that compute products, each with two threads."""
    libraries: list[LibController] = ThreadpoolController().select(user_api="blas").lib_controllers
    for library in libraries:
        library.set_num_threads(2)
    return libraries


class _Alarm:
    """Raises one interrupt, or two, while armed."""

    def __init__(self, draw: random.Random) -> None:
        self.draw, self.armed, self.again, self.count = draw, False, draw.random() < 0.25, 0

    def __call__(self, signum: int, frame: object) -> None:
        if not self.armed:
            return
        self.armed, self.again = self.again, False
        self.count += 1
        if self.armed:
            signal.setitimer(signal.ITIMER_REAL, self.draw.uniform(1e-6, 2e-4))
        raise KeyboardInterrupt

    def interrupt(self, operator: Callable[[], object], seconds: float) -> None:
        """Call an operator with an alarm within it, or shortly after."""
        with contextlib.suppress(KeyboardInterrupt):  # the second one, that came late: there is no third
            with contextlib.suppress(KeyboardInterrupt):
                try:
                    self.armed = True
                    signal.setitimer(signal.ITIMER_REAL, self.draw.uniform(1e-6, 1.2 * seconds))
                    operator()
                finally:
                    self.armed = False
            self.armed = False
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)


def _interrupted(case: Case) -> str:
    """Call operators until one of them was interrupted."""
    libraries, expected = _blas(), _expected()
    count = 0
    while not count:
        name = case.draw.choice(list(expected))
        wanted, seconds = expected[name]
        alarm = _Alarm(case.draw)
        signal.signal(signal.SIGALRM, alarm)
        with mock.patch.dict(os.environ, GPUCONV_THREADS=case.draw.choice(("1", "2", "3"))):
            alarm.interrupt(_operators()[name], seconds)
            count = alarm.count
            threads = [library.get_num_threads() for library in libraries]
            assert set(threads) == {2}, f"{name}: BLAS has {threads} threads"
            assert np.geterr()["over"] == "warn", f"{name}: NumPy's warnings are lost"
            results = _operators()[name]()
        assert all(map(np.array_equal, results, wanted)), f"{name}: other bits"
        del results
        until = time.process_time() + _WAIT
        while (used := memory._pool.state()[0]) and time.process_time() < until:
            gc.collect()
        assert not used, f"{name}: {used} bytes are in use by no array"
    return "interrupted once" if count == 1 else "interrupted twice"


KINDS = (Kind("interrupts", 10_000, _interrupted),)
