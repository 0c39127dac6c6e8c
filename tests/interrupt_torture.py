"""Interrupt operators at moments nobody chose, by signals, as often as asked; say what was wrong afterwards.

    python tests/interrupt_torture.py [COUNT [SEED]]        10,000 interrupts: about ten minutes on one core

It is for what tests/test_interrupts.py cannot show: that the lines it interrupts one by one are all there are, also
where C code, helpers' threads and several interrupts in a row are involved.  An alarm raises KeyboardInterrupt in a
random operator, one time in four again within some microseconds.  Then the same operator must give the same bits, BLAS
must have its threads and NumPy its warnings, and the pool must count no byte that no array uses.  Exits with 1, and a
stack of every thread, if anything hangs for a minute.
"""

import faulthandler
import gc
import json
import os
import random
import signal
import sys
import time

import numpy as np
from threadpoolctl import ThreadpoolController

import gpuconv
from gpuconv.cpu import memory

_HANG = 60  # seconds


def operators():
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


def main(count=10_000, seed=0):
    """Interrupt so often, print the figures as one line of JSON, and return how many faults were seen."""
    draw = random.Random(seed)
    table = operators()
    blas = ThreadpoolController().select(user_api="blas").lib_controllers
    for library in blas:
        library.set_num_threads(2)
    wanted, seconds = {}, {}
    for name, operator in table.items():
        wanted[name] = [a.copy() for a in operator()]
        begun = time.perf_counter()
        operator()
        seconds[name] = time.perf_counter() - begun
    armed = again = False

    def interrupt(signum, frame):
        """Raise one interrupt, or two, while armed."""
        nonlocal armed, again
        if not armed:
            return
        armed, again = again, False
        if armed:
            signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-6, 2e-4))
        raise KeyboardInterrupt

    figures = {"interrupts": 0, "calls": 0, "wrong": 0, "blas": 0, "warnings": 0, "late": 0, "bytes": 0}
    signal.signal(signal.SIGALRM, interrupt)
    while figures["interrupts"] < count:
        if figures["calls"] % 100 == 0:
            faulthandler.dump_traceback_later(_HANG, exit=True)
        name = draw.choice(list(table))
        os.environ["GPUCONV_THREADS"] = draw.choice(["1", "2", "3"])
        again = draw.random() < 0.25
        figures["calls"] += 1
        try:
            try:
                try:
                    armed = True
                    signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-6, 1.2 * seconds[name]))
                    table[name]()
                finally:
                    armed = False
            except KeyboardInterrupt:
                figures["interrupts"] += 1
            armed = False
        except KeyboardInterrupt:  # the second one, that came here: there is no third
            figures["interrupts"] += 1
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        figures["blas"] += any(library.get_num_threads() != 2 for library in blas)
        figures["warnings"] += np.geterr()["over"] != "warn"
        results = table[name]()
        figures["wrong"] += not all(map(np.array_equal, results, wanted[name]))
        del results
        if memory._pool.state()[0]:
            gc.collect()
            figures["late"] += memory._pool.state()[0] != 0  # a helper is just letting go of a call's error
    faulthandler.cancel_dump_traceback_later()
    gc.collect()
    figures["bytes"] = memory._pool.state()[0]  # what had drifted would be here for good
    print(json.dumps(figures))  # noqa: T201 - its figures are what it is for
    return sum(figures[name] for name in ("wrong", "blas", "warnings", "bytes"))


if __name__ == "__main__":
    sys.exit(1 if main(*map(int, sys.argv[1:])) else 0)
