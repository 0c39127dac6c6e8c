"""Worker threads: every block once, errors handed on, BLAS as it was found, a forked child that still computes."""

import os
import threading

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_info

from gpuconv.cpu import parallel
from gpuconv.errors import ConfigError


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture(autouse=True)
def _several_blas_threads():
    """BLAS with two threads: where it has one already, one more or less is not seen."""
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    before = [(library, library.get_num_threads()) for library in libraries]
    for library in libraries:
        library.set_num_threads(2)
    yield
    for library, count in before:
        library.set_num_threads(count)


@pytest.fixture(params=["1", "2", "5"])
def threads(request, monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", request.param)


@pytest.mark.usefixtures("threads")
def test_every_block_is_worked_on_once():
    seen = []
    parallel.for_each(seen.append, range(100))
    assert sorted(seen) == list(range(100))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("kind", [ValueError, IndexError, KeyboardInterrupt])
def test_the_first_error_comes_out_after_all_have_stopped(kind):
    def work(block):
        if block == 50:
            raise kind(block)

    with pytest.raises(kind):
        parallel.for_each(work, range(100))


def test_an_index_error_of_the_last_blocks_is_not_taken_for_an_empty_queue(monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "2")
    meet = threading.Barrier(2, timeout=30)

    def work(_):
        meet.wait()  # both threads have taken a block: the queue is empty when they fail
        raise IndexError

    with pytest.raises(IndexError):
        parallel.for_each(work, [1, 2])


def test_a_block_that_a_helper_has_taken_is_worked_on_though_the_caller_ends_meanwhile():
    """The caller finds no block left and closes the job, in the moment between a helper's number and its block."""
    done, closing = [], threading.Event()
    job = parallel._Blocks(done.append, ["a"])
    turn = job.turn()
    caller = threading.Thread(target=job.close)

    class Watched:
        def acquire(self):
            closing.set()
            turn.acquire()

    class Numbers:
        def __init__(self):
            self.given = -1

        def __next__(self):
            if self.given < 0:
                caller.start()
                closing.wait(30)
            self.given += 1
            return self.given

    job._turns, job._next = [Watched()], Numbers()
    job.help(turn)
    caller.join(30)
    assert done == ["a"]


@pytest.mark.usefixtures("threads")
def test_blas_runs_on_one_thread_inside_and_as_before_outside():
    before, inside = blas_threads(), []
    assert all(count > 1 for count in before)
    parallel.for_each(lambda _: inside.append(blas_threads()), range(3))
    assert all(count == 1 for counts in inside for count in counts)
    assert blas_threads() == before


def test_blas_is_given_back_once_when_calls_overlap(monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "1")
    before = blas_threads()
    meet = threading.Barrier(2, timeout=30)
    calls = [threading.Thread(target=parallel.for_each, args=(lambda _: meet.wait(), [0])) for _ in range(2)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert blas_threads() == before


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5", " ", "99999"])
def test_a_wrong_number_of_threads_is_named(wrong, monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", wrong)
    with pytest.raises(ConfigError, match="GPUCONV_THREADS must be a number from 1 to 1024"):
        parallel.threads()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python warns of forks beside threads: that is the point
def test_a_forked_child_makes_its_own_threads(monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "2")
    parallel.for_each(lambda _: None, range(4))
    child = os.fork()
    if child == 0:
        done = []
        parallel.for_each(done.append, range(4))
        os._exit(0 if sorted(done) == [0, 1, 2, 3] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_scratch_is_reused_within_a_thread_and_not_between_threads():
    first = parallel.scratch("a test", (4,), np.dtype(np.float64))
    again = parallel.scratch("a test", (2, 2), np.dtype(np.float32))
    assert np.shares_memory(first, again)
    other = []
    thread = threading.Thread(target=lambda: other.append(parallel.scratch("a test", (4,), np.dtype(np.float64))))
    thread.start()
    thread.join()
    assert not np.shares_memory(first, other[0])


@pytest.mark.parametrize(("total", "size", "pieces"), [(0, 3, []), (3, 3, [(0, 3)]), (7, 3, [(0, 3), (3, 6), (6, 7)])])
def test_ranges_cover_everything_once(total, size, pieces):
    assert parallel.ranges(total, size) == pieces
