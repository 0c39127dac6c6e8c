"""A kind of harm whose cases end in every way there is: for test_torture.py, in processes of its own."""

import os
import signal

from gpuconv.errors import GpuconvError, ShapeError
from tests.ladder.torture.kind import Kind


def _ends(case):
    """End as the case's number says."""
    if case.number == 1:
        raise ShapeError(case.draw.random())
    if case.number == 2:
        raise KeyError(case.draw.random())
    if case.number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if case.number == 4:
        signal.setitimer(signal.ITIMER_PROF, 0.01)
        while True:
            pass
    return "well"


KINDS = (Kind("planted", 10, _ends, (GpuconvError,)),)
