"""Worker threads: every block once, errors handed on, BLAS as it was found, a forked child that still computes."""

import os
import threading
import warnings
import weakref
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_info

from gpuconv.cpu import compiled, parallel
from gpuconv.cpu.arrays import watch as asleep
from gpuconv.errors import ConfigError

numba_installed = pytest.mark.skipif(compiled._obstacle() != "", reason="the extra `fast` is not installed")


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


def test_a_block_that_a_helper_has_taken_is_worked_on_though_the_caller_ends_meanwhile(monkeypatch):
    """The caller finds no block left and closes the job, in the moment between a helper's number and its block."""
    done, closing = [], threading.Event()

    class Numbers:
        def __init__(self):
            self.given = -1

        def __next__(self):
            if self.given < 0:
                caller.start()
                closing.wait(30)
            self.given += 1
            return self.given

    class Watched:
        def close(self):
            closing.set()
            turn.close()

    monkeypatch.setattr(parallel, "itertools", SimpleNamespace(count=Numbers))
    job = parallel._Job(parallel._each(done.append, ["a"]), 1)
    caller = threading.Thread(target=job.close)
    turn = job.turn(asleep)
    job.turns = [Watched()]
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


@pytest.mark.usefixtures("threads")
def test_blas_is_left_alone_where_work_does_without():
    before, inside = blas_threads(), []
    parallel.for_each(lambda _: inside.append(blas_threads()), range(3), blas=False)
    parallel.share_out(lambda _: inside.append(blas_threads()), 3)
    assert len(inside) >= 4
    assert all(counts == before for counts in inside)


def test_no_thread_warns_of_what_is_a_result(monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "2")
    meet = threading.Barrier(2, timeout=30)

    def work(_):
        meet.wait()
        np.log(np.zeros(3))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel.for_each(work, range(2))
        parallel.for_each(work, range(2), blas=False)
        parallel.quiet(parallel.share_out)(work, 2)


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


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5", " ", "1025", "99999"])
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


# Shares of work -----------------------------------------------------------------------------------------------------


def _numbers(count, seen):
    """Return work that notes the numbers it takes."""

    def work(counter):
        while (number := parallel.take(counter)) < count:
            seen.append(number)

    return work


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_each_number_is_given_out_once(count):
    seen = []
    parallel.share_out(_numbers(count, seen), count)
    assert sorted(seen) == list(range(count))


@numba_installed
@pytest.mark.parametrize("threads", ["1", "2", "3", "7"])
def test_loops_take_each_number_once(threads, monkeypatch):
    from numba import njit

    from gpuconv.cpu.loops.atomic import take

    @njit(nogil=True)
    def work(seen, counter):
        while True:
            number = take(counter)
            if number >= len(seen):
                return
            seen[number] += 1

    monkeypatch.setenv("GPUCONV_THREADS", threads)
    seen = np.zeros(200_000, np.int64)
    for _ in range(10):
        parallel.share_out(lambda counter: work(seen, counter), len(seen))
    assert (seen == 10).all()


@pytest.mark.parametrize(("total", "size"), [(0, 3), (3, 3), (7, 3), (1000, 7)])
def test_blocks_of_all_threads_cover_everything_once(total, size, monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "3")
    seen = np.zeros(total, np.int64)

    def work(counter):
        for part in parallel.blocks(counter, total, size):
            assert part.stop - part.start <= size
            seen[part] += 1

    parallel.share_out(work, -(-total // size))
    assert (seen == 1).all()


def test_work_that_is_less_than_a_thread_is_worth_stays_with_the_caller(monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "4")
    asked = []
    monkeypatch.setattr(parallel._Crew, "call", lambda crew, job, helpers: asked.append(helpers))
    for count in (3, 7, 8, 12, 100):
        seen = []
        parallel.share_out(_numbers(count, seen), count, least=4)
        assert seen == list(range(count))
    assert asked == [1, 2, 3]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("failing", ["caller", "helper"])
def test_an_error_in_one_share_stops_the_others_and_comes_out(failing, kind, monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "3")
    caller, failed, seen = threading.get_ident(), threading.Event(), []

    def work(counter):
        if (threading.get_ident() == caller) == (failing == "caller") and not failed.is_set():
            try:
                raise kind
            finally:
                failed.set()
        failed.wait(30)
        _numbers(10**6, seen)(counter)

    with pytest.raises(kind):
        parallel.share_out(work, 10**6)
    count = len(seen)
    assert count < 10**6
    assert sorted(parallel._crew.free) == list(range(1, parallel._SLOTS))
    parallel.share_out(_numbers(100, []), 100)
    assert len(seen) == count, "a share went on"


def test_shares_inside_shares_have_counters_of_their_own(monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "3")
    seen = []

    def outer(counter):
        while parallel.take(counter) < 100:  # more than there are slots
            parallel.share_out(_numbers(5, seen), 5)

    parallel.share_out(outer, 100)
    assert sorted(seen) == sorted([*range(5)] * 100)
    assert sorted(parallel._crew.free) == list(range(1, parallel._SLOTS))


def test_more_calls_at_once_than_slots_do_without(monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "2")
    seen = []

    def inside(depth):
        if depth:
            parallel.share_out(lambda counter: inside(depth - 1) if parallel.take(counter) == 0 else None, 2)
        else:
            parallel.share_out(_numbers(100, seen), 100)

    inside(parallel._SLOTS + 2)
    assert sorted(seen) == list(range(100))
    assert sorted(parallel._crew.free) == list(range(1, parallel._SLOTS))


# Looking out ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def watch():
    """The loops that look out."""
    return compiled.importlib.import_module("gpuconv.cpu.loops.watch")


@numba_installed
def test_a_change_of_a_word_is_seen(watch):
    word, seen = np.zeros(1, np.int64), []
    looking = threading.Thread(target=lambda: seen.append(watch.changes(word, 0, 2**60)), daemon=True)
    looking.start()
    word[0] = 1
    looking.join(60)
    assert seen == [True]
    assert not watch.changes(word, 1, 100)
    assert not watch.changes(word, 0, 0)
    assert watch.LOOKS > 100


@numba_installed
def test_who_has_ended_says_so_and_looks_out_until_a_call_has_begun(watch):
    ended, call = np.zeros(1, np.int64), np.zeros(1, np.int64)
    counters = np.zeros((4, 8), np.int64)
    watch.report(ended, call, counters, 0, 1000)
    assert ended[0] == 1
    looking = threading.Thread(target=lambda: watch.report(ended, call, counters, 0, 2**60), daemon=True)
    looking.start()
    while ended[0] == 1:
        pass
    call[0] = 4 + 3
    counters[2] = 1
    counters[3, 0] = 1
    looking.join(60)
    assert not looking.is_alive()
    counters[3] = 0
    watch.report(ended, call, counters, 0, 1000)  # a call that does not begin is not waited for for ever
    watch.report(ended, call, counters, 3, 0)
    assert ended[0] == 4


def test_threads_sleep_where_they_are_more_than_cores_or_no_loops_are_in_use(monkeypatch):
    crew = parallel._Crew()
    monkeypatch.setattr(parallel, "loaded", lambda: False)
    crew._cores = 2
    assert crew._watch() is asleep
    monkeypatch.setattr(parallel, "loaded", lambda: True)
    monkeypatch.setattr(parallel, "passes", lambda operator, dtype: f"loops of {operator}")
    assert crew._watch() == "loops of watch"
    crew._threads = {1}
    assert crew._watch() == "loops of watch"
    crew._threads = {1, 2}
    assert crew._watch() is asleep
    assert not asleep.changes(np.zeros(1, np.int64), 1, 2**60)


def test_a_helper_knows_no_array_while_it_looks_out(monkeypatch):
    """What it worked on may be what the next call wants memory for."""
    monkeypatch.setenv("GPUCONV_THREADS", "2")
    looking, enough = threading.Event(), threading.Event()
    meet = threading.Barrier(2, timeout=30)

    def report(*words):
        looking.set()
        enough.wait(30)

    crew = parallel._Crew()
    crew._cores, crew._awake = 2, SimpleNamespace(LOOKS=1, changes=lambda *words: True, report=report)
    monkeypatch.setattr(parallel, "_crew", crew)

    def call():
        array = np.ones(1000)

        def work(counter):
            meet.wait()
            array.sum()

        parallel.share_out(work, 2)
        return weakref.ref(array)

    array = call()
    looking.wait(30)
    assert array() is None
    enough.set()


def test_a_job_that_is_over_knows_no_array():
    """Helpers that come too late have the job still."""
    array = np.ones(1000)
    job = parallel._Job(partial(np.copyto, array), 1)
    gone = weakref.ref(array)
    del array
    assert gone() is not None
    job.close()
    assert gone() is None


@numba_installed
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_that_is_forked_while_helpers_look_out_makes_its_own(watch, monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "2")
    crew = parallel._Crew()
    crew._cores, crew._awake = 2, watch
    monkeypatch.setattr(parallel, "_crew", crew)
    parallel.share_out(_numbers(100, []), 100)
    child = os.fork()
    seen = []
    if child == 0:
        parallel._crew._cores, parallel._crew._awake = 2, watch
        for _ in range(3):
            parallel.share_out(_numbers(100, seen), 100)
        os._exit(0 if sorted(seen) == sorted([*range(100)] * 3) and parallel._crew is not crew else 1)
    parallel.share_out(_numbers(100, seen), 100)
    assert sorted(seen) == list(range(100))
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
