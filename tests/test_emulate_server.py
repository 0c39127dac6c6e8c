"""Launches run in servers: each from a clean start, many at once, and no server outlives the process it serves."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from emulate import EmulatedDevice, EmulationError, memory, server
from emulate.examples import PROBLEMS, conv_direct, text

pytestmark = pytest.mark.compilers

_I32 = np.int32


def _kernel(name, device):
    return device.compile(text("faults.cu"), "faults.cu", ("write_at", "endless"), ())[name]


def _write(device, index=1):
    """Launch a kernel that writes y[index] = 3."""
    y = device.zeros(64, np.float32)
    device.launch(_kernel("write_at", device), (1,), (32,), (y, _I32(index)))
    return device.asnumpy(y)


def _process():
    """Return the number of the server that the next launch of this thread uses."""
    with server.borrowed() as one:
        return one.process_id


def test_one_server_runs_launch_after_launch():
    first = _process()
    for _ in range(3):
        assert _write(EmulatedDevice())[1] == 3
    assert _process() == first


def test_a_server_ends_with_the_launch_that_goes_wrong():
    first = _process()
    with pytest.raises(EmulationError, match="CRASH"):
        _write(EmulatedDevice(), 1 << 20)
    second = _process()
    assert second != first
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    _write(EmulatedDevice())
    assert _process() == second


def test_a_refused_argument_costs_no_server():
    device, first = EmulatedDevice(), _process()
    with pytest.raises(TypeError, match="NumPy scalar"):
        device.launch(_kernel("write_at", device), (1,), (32,), (device.zeros(4, np.float32), "1"))
    assert _process() == first


def test_a_server_that_was_killed_is_replaced():
    process = _process()
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    assert _write(EmulatedDevice())[1] == 3


def test_a_launch_knows_nothing_of_the_one_before():
    """Counts start at nothing; an element that another launch wrote is not in a race with this one."""
    for name in ("emulated-check", "emulated-stats", "emulated-ptx-stats"):
        device = EmulatedDevice(name)
        problem = conv_direct(n=1, c=1)
        for _ in range(2):
            problem.check(device)
        one, other = device.launches
        assert (one.counts, one.sites, one.instructions) == (other.counts, other.sites, other.instructions)


def test_threads_launch_at_the_same_time():
    device = EmulatedDevice()
    barrier = threading.Barrier(4, timeout=60)

    def write(index):
        with server.borrowed() as one:
            barrier.wait()  # four are in use at once
        return one.process_id, [int(_write(device, i).argmax()) for i in range(index, 64, 4)]

    with ThreadPoolExecutor(4) as pool:
        processes, results = zip(*pool.map(write, range(4)), strict=True)
    assert len(set(processes)) == 4
    assert sorted(i for part in results for i in part) == list(range(64))


def test_an_interrupted_launch_ends_its_server():
    device = EmulatedDevice()
    flag, function = device.zeros(1, _I32), _kernel("endless", device)
    with server.borrowed() as one:
        pass

    def interrupt(number, frame):
        if one.usable:  # the launch has not begun
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            return
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            device.launch(function, (1,), (32,), (flag,))
    finally:
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ProcessLookupError):
        os.kill(one.process_id, 0)
    assert _write(device)[1] == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python warns of forks beside threads
def test_a_forked_child_has_servers_of_its_own():
    device, first = EmulatedDevice(), _process()
    child = os.fork()
    if child == 0:
        right = False
        with contextlib.suppress(BaseException):
            right = _process() != first and _write(device)[1] == 3
            server.end_all()
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert _process() == first
    assert _write(device)[1] == 3


ORPHANED = """
import numpy as np
from emulate import EmulatedDevice, server
from emulate.examples import text
device = EmulatedDevice()
function = device.compile(text("faults.cu"), "faults.cu", ("write_at", "endless"), ())["endless"]
with server.borrowed() as one:
    print(one.process_id, flush=True)
device.launch(function, (1,), (32,), (device.zeros(1, np.int32),))
"""


def test_no_server_outlives_a_killed_process():
    """Also in the middle of a kernel, which would never end by itself."""
    here = Path(__file__).resolve().parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here.parent), str(here)])}
    with subprocess.Popen([sys.executable, "-c", ORPHANED], stdout=subprocess.PIPE, env=environment) as process:
        number = int(process.stdout.readline())
        running = os.pidfd_open(number)
        process.kill()
    try:
        assert select.select([running], [], [], 60)[0], "the server still runs"
    finally:
        os.close(running)


def test_memory_of_a_large_launch_is_given_back():
    device = EmulatedDevice()
    large = device.zeros(2 * memory.KEPT_BYTES, np.uint8).view(np.float32)
    device.launch(_kernel("write_at", device), (1,), (32,), (large, _I32(5)))
    assert device.asnumpy(large)[5] == 3
    _write(device)
    with server.borrowed() as one:
        assert os.fstat(one.arena.file).st_blocks * 512 <= memory.KEPT_BYTES


def test_stacks_of_another_size():
    for stack_bytes in (32768, 65536, 32768):
        PROBLEMS["warp_shuffles"]().check(EmulatedDevice(stack_bytes=stack_bytes))
