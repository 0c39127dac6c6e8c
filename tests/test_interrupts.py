"""Interrupts at every line and instruction of what must not be split: memory, threads, BLAS, files.

tests/interrupt.py raises KeyboardInterrupt at the first line, the second, and so on, until the call gets through.  After
each, everything must be as if the call had never been, or had been whole: results right, bytes in use those of the
arrays there are, BLAS with the threads it had, no lock taken, no warning of NumPy's lost.
"""

import gc
import os
import signal
import sys
import threading

import numpy as np
import pytest
from compare import assert_same_bits
from interrupt import in_another_thread, interrupted_at, watched
from threadpoolctl import ThreadpoolController

import gpuconv
from gpuconv import durable
from gpuconv.cpu import memory, parallel

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no alarm to end a hang with"),
    pytest.mark.long,
]

KB = 1024
BLAS = ThreadpoolController().select(user_api="blas").lib_controllers


@pytest.fixture(autouse=True)
def _no_hang():
    with watched(120):
        yield


@pytest.fixture(autouse=True)
def _several_blas_threads():
    """BLAS with two threads, whatever an earlier test left or the machine has."""
    before = [(library, library.get_num_threads()) for library in BLAS]
    for library in BLAS:
        library.set_num_threads(2)
    yield
    for library, count in before:
        library.set_num_threads(count)


@pytest.fixture
def pool(monkeypatch):
    monkeypatch.delenv("GPUCONV_KEEP_MB", raising=False)
    monkeypatch.setattr(memory, "_pool", memory._Pool())
    return memory._pool


def blas_threads():
    return [library.get_num_threads() for library in BLAS]


def every_place(function, check, **where):
    """Interrupt function at place after place, with check() after each; return how many places there were."""
    place = 1
    while interrupted_at(place, function, **where):
        check()
        place += 1
    check()
    assert place > 5, "the tracer saw nothing"
    return place - 1


# The pool of memory -------------------------------------------------------------------------------------------------


def _lend_again_and_again():
    """Come by every way through the pool: fresh, used again, let go, given back."""
    first = memory.empty_array((64 * KB,), np.uint8)
    second = memory.empty_array((128 * KB,), np.uint8)
    del first
    third = memory.empty_array((64 * KB,), np.uint8)
    del second, third
    memory.empty_array((192 * KB,), np.uint8)
    gpuconv.free_memory()


@pytest.mark.parametrize("opcodes", [False, True], ids=["lines", "instructions"])
def test_the_pool_is_whole_after_an_interrupt_anywhere(pool, opcodes):
    held = memory.empty_array((256 * KB,), np.uint8)
    held.fill(7)

    def check():
        used, idle, _ = pool.state()
        assert used == 256 * KB
        assert idle == sum(size * len(blocks) for size, blocks in pool._idle.items())
        assert all(block.size == size for size, blocks in pool._idle.items() for block in blocks)
        others = [memory.empty_array((64 * KB,), np.uint8) for _ in range(3)]
        for number, other in enumerate(others):
            other.fill(number)
        assert [int(other[0]) for other in others] == [0, 1, 2]
        assert (held == 7).all()
        del others, other
        gpuconv.free_memory()
        assert pool.state() == (256 * KB, 0, 256 * KB)

    places = every_place(_lend_again_and_again, check, folders=["cpu/memory", "cpu/lock"], opcodes=opcodes)
    assert places > 90
    assert in_another_thread(pool.state) == (256 * KB, 0, 256 * KB)


@pytest.mark.parametrize("wanted", ["cpu/memory", "cpu/lock"])
def test_the_pool_goes_on_after_an_interrupt_without_being_tidied(pool, wanted):
    """The fault this began with: an empty list of idle blocks, and a loop that waits for it to shrink."""
    place = 1
    while interrupted_at(place, _lend_again_and_again, folders=[wanted]):
        place += 1
        _lend_again_and_again()
    gc.collect()
    assert pool.state()[0] == 0


def test_an_allocation_that_fails_leaves_the_bound_as_it_was(pool):
    first = memory.empty_array((64 * KB,), np.uint8)
    with pytest.raises(MemoryError):
        memory.empty_array((2**62,), np.uint8)
    assert pool.state() == (64 * KB, 0, 64 * KB)
    del first


@pytest.mark.parametrize("failing", range(1, 12))
def test_memory_that_runs_out_anywhere_leaves_the_pool_whole(pool, monkeypatch, failing):
    real, calls = memory.aligned, []

    def scarce(size):
        calls.append(size)
        if len(calls) >= failing:
            raise MemoryError
        return real(size)

    monkeypatch.setattr(memory, "aligned", scarce)
    held = []

    def fill():
        for size in range(1, 20):
            held.append(memory.empty_array((size * 64 * KB,), np.uint8))

    with pytest.raises(MemoryError):
        fill()
    assert pool.state()[0] == sum(array.nbytes for array in held)
    held.clear()
    assert pool.state()[0] == 0


def test_a_signals_handler_may_compute_in_the_middle_of_the_pool(pool):
    """Its call comes in the middle of another of the same thread, and waits for no lock of it."""
    for place in range(1, 120, 7):
        count = 0

        def entered(frame, event, _, place=place):
            nonlocal count
            if event == "line" and frame.f_code.co_filename == memory.__file__:
                count += 1
                if count == place:
                    _lend_again_and_again()
            return entered

        before = sys.gettrace()
        sys.settrace(entered)
        try:
            _lend_again_and_again()
        finally:
            sys.settrace(before)
        assert pool.state()[0] == 0


# Threads and BLAS ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", ["1", "3"])
def test_blas_and_helpers_are_as_before_after_an_interrupt_anywhere(monkeypatch, threads):
    monkeypatch.setenv("GPUCONV_THREADS", threads)
    done = []

    def call():
        parallel.for_each(done.append, range(6))

    def check():
        assert blas_threads() == [2] * len(BLAS)
        count = len(done)
        assert np.geterr()["divide"] == "warn"
        done.clear()
        call()
        assert sorted(done) == list(range(6)), "a block of a call that was over"
        assert count <= 6
        done.clear()

    every_place(call, check, folders=["cpu/parallel", "cpu/lock"])
    in_another_thread(lambda: call() or True)
    assert blas_threads() == [2] * len(BLAS)


def test_blas_is_as_before_after_an_interrupt_at_any_instruction(monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "1")

    def call():
        parallel.for_each(lambda _: None, [0])

    def check():
        assert blas_threads() == [2] * len(BLAS)

    every_place(call, check, folders=["cpu/parallel", "cpu/lock"], opcodes=True)


@pytest.mark.parametrize(("kind", "times"), [(KeyboardInterrupt, 5), (SystemExit, 2)])
def test_blas_is_put_right_after_several_interrupts_on_the_way_out(monkeypatch, kind, times):
    """At once after Ctrl-C, however often; by the next call after two of what a signal's handler may raise else."""
    monkeypatch.setenv("GPUCONV_THREADS", "1")
    failing = [True] * times
    real = parallel._Blas.let_go

    def let_go(self, frame):
        if failing:
            failing.pop()
            raise kind
        real(self, frame)

    monkeypatch.setattr(parallel._Blas, "let_go", let_go)
    with pytest.raises(kind):
        parallel.for_each(lambda _: None, [0])
    assert blas_threads() == [2 if kind is KeyboardInterrupt else 1] * len(BLAS)
    parallel.for_each(lambda _: None, [0])
    assert blas_threads() == [2] * len(BLAS)


def test_blas_stays_held_until_the_outer_of_two_calls_ends(monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "1")
    inside = []

    def work(_):
        parallel.for_each(lambda _: None, [0])
        inside.append(blas_threads())

    parallel.for_each(work, [0])
    assert inside == [[1] * len(BLAS)]
    assert blas_threads() == [2] * len(BLAS)


def test_helpers_have_stopped_when_an_interrupt_comes_out(monkeypatch):
    """What they work on is the caller's again: w of an update, an array that is given to the next call."""
    monkeypatch.setenv("GPUCONV_THREADS", "4")
    caller, helping, begun, ended = threading.get_ident(), threading.Event(), [], []

    def work(block):
        if threading.get_ident() == caller:
            helping.wait(30)
            raise KeyboardInterrupt
        begun.append(block)
        helping.set()
        for _ in range(1000):
            np.ones(1000).sum()
        ended.append(block)

    with pytest.raises(KeyboardInterrupt):
        parallel.for_each(work, range(100))
    assert sorted(ended) == sorted(begun)
    assert 1 <= len(ended) < 100
    parallel.for_each(lambda _: None, range(100))
    assert sorted(ended) == sorted(begun)


@pytest.mark.parametrize("threads", ["1", "3"])
def test_shares_are_whole_after_an_interrupt_anywhere(monkeypatch, threads):
    monkeypatch.setenv("GPUCONV_THREADS", threads)
    monkeypatch.setattr(parallel, "_crew", parallel._Crew())
    done = []

    def work(counter):
        while (number := parallel.take(counter)) < 6:
            done.append(number)

    def call():
        parallel.share_out(work, 6)

    def check():
        count = len(done)
        done.clear()
        call()
        assert sorted(done) == list(range(6)), "a block of a call that was over"
        assert count <= 6
        done.clear()
        free = parallel._crew.free
        assert len(set(free)) == len(free), "two calls would share a counter"
        assert len(free) > parallel._SLOTS - 5  # an interrupt of the giving back costs a slot

    every_place(call, check, folders=["cpu/parallel", "cpu/lock"])
    in_another_thread(lambda: call() or True)


def test_shares_have_stopped_when_an_interrupt_comes_out(monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "4")
    caller, helping, begun, ended = threading.get_ident(), threading.Event(), [], []

    def work(counter):
        if threading.get_ident() == caller:
            helping.wait(30)
            raise KeyboardInterrupt
        while (number := parallel.take(counter)) < 10**6:
            begun.append(number)
            helping.set()
            np.ones(1000).sum()
            ended.append(number)

    with pytest.raises(KeyboardInterrupt):
        parallel.share_out(work, 10**6)
    assert sorted(ended) == sorted(begun)
    assert 1 <= len(ended) < 10**6
    parallel.share_out(lambda _: None, 100)
    assert sorted(ended) == sorted(begun)


def test_shares_stop_when_an_interrupt_comes_before_the_callers_own(monkeypatch):
    monkeypatch.setenv("GPUCONV_THREADS", "2")
    helping, begun, ended = threading.Event(), [], []
    real = parallel._Crew.call

    def call(self, job, helpers):
        real(self, job, helpers)
        helping.wait(30)
        raise KeyboardInterrupt

    def work(counter):
        while (number := parallel.take(counter)) < 10**6:
            begun.append(number)
            helping.set()
            ended.append(number)

    monkeypatch.setattr(parallel._Crew, "call", call)
    with pytest.raises(KeyboardInterrupt):
        parallel.share_out(work, 10**6)
    assert sorted(ended) == sorted(begun)
    assert 1 <= len(ended) < 10**6


def test_callers_that_need_more_and_more_threads_do_not_take_them_from_each_other(monkeypatch):
    """One crew serves all callers: it grows under them, and those already there go on."""
    for wanted in range(1, 9):
        monkeypatch.setattr(parallel, "_crew", parallel._Crew())
        done, errors = [], []
        start = threading.Barrier(4, timeout=60)

        def call(count, done=done, errors=errors, start=start):
            start.wait()
            try:
                for _ in range(20):
                    parallel.for_each(done.append, range(count))
            except BaseException as error:  # noqa: BLE001 - handed to the test
                errors.append(error)

        monkeypatch.setenv("GPUCONV_THREADS", str(wanted + 1))
        callers = [threading.Thread(target=call, args=(2 + i,)) for i in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert not errors
        assert len(done) == 20 * (2 + 3 + 4 + 5)


def test_a_call_goes_on_while_another_makes_the_crew_grow(monkeypatch):
    """As in the fault: a call has asked for one helper, the next for three, then the first one asks again."""
    monkeypatch.setattr(parallel, "_crew", parallel._Crew())
    done = []

    def outer(block):
        monkeypatch.setenv("GPUCONV_THREADS", "4")
        parallel.for_each(done.append, range(4))
        done.append(block)

    monkeypatch.setenv("GPUCONV_THREADS", "2")
    parallel.for_each(outer, range(2))
    parallel.for_each(done.append, range(2))
    assert len(done) == 12


def test_without_threads_to_be_had_a_call_does_its_work_alone(monkeypatch):
    monkeypatch.setattr(parallel, "_crew", parallel._Crew())
    monkeypatch.setenv("GPUCONV_THREADS", "4")

    def refuse(self):
        msg = "can't start new thread"
        raise RuntimeError(msg)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = []
    parallel.for_each(done.append, range(10))
    assert done == list(range(10))


# Operators ----------------------------------------------------------------------------------------------------------


def _operators():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 8, 32, 36)).astype(np.float32)
    w = rng.standard_normal((8, 8, 3, 3)).astype(np.float32)
    gamma, beta = np.ones(8, np.float32), np.zeros(8, np.float32)

    def conv():
        y, cache = gpuconv.conv_forward(x, w, beta, pad=1)
        return [y, *gpuconv.conv_backward(y, cache)]

    def batchnorm():
        statistics = np.zeros(8, np.float32), np.ones(8, np.float32)
        y, cache = gpuconv.spatial_batchnorm_forward(x, gamma, beta, *statistics)
        return [y, *gpuconv.spatial_batchnorm_backward(y, cache)]

    def pool():
        y, cache = gpuconv.max_pool_forward(x, window=2)
        return [y, gpuconv.max_pool_backward(y, cache)]

    return {"conv": conv, "batchnorm": batchnorm, "pool": pool}


@pytest.mark.parametrize("name", ["conv", "batchnorm", "pool"])
def test_an_operator_is_right_after_an_interrupt_of_its_last_call(pool, monkeypatch, name):
    monkeypatch.setenv("GPUCONV_THREADS", "2")
    operator = _operators()[name]
    wanted = [a.copy() for a in operator()]
    place = 1
    while interrupted_at(place, operator, folders=["cpu"]):
        assert blas_threads() == [2] * len(BLAS)
        got = operator()
        for result, want in zip(got, wanted, strict=True):
            assert_same_bits(result, want)
        del got, result
        place += 7
    assert place > 50
    gc.collect()
    assert pool.state()[0] == 0


# Files --------------------------------------------------------------------------------------------------------------


def test_a_file_is_the_old_one_or_the_new_one_after_an_interrupt_anywhere(tmp_path):
    file = tmp_path / "state"
    file.write_bytes(b"old")
    mask = os.umask(0o022)
    os.umask(mask)
    seen = set()

    def write():
        file.write_bytes(b"old")
        durable.write(file, b"new and longer")

    def check():
        seen.add(file.read_bytes())
        now = os.umask(mask)
        os.umask(now)
        assert now == mask
        assert [entry.name for entry in tmp_path.iterdir()] == ["state"]

    every_place(write, check, folders=["durable"])
    assert seen == {b"old", b"new and longer"}


def test_a_line_that_was_cut_short_does_not_take_the_next_one_with_it(tmp_path):
    file = tmp_path / "events.jsonl"
    durable.append(file, b"first\n")
    with file.open("ab") as cut:
        cut.write(b"sec")
    durable.append(file, b"third\n")
    durable.append(file, b"fourth\n")
    assert file.read_bytes().split(b"\n") == [b"first", b"sec", b"third", b"fourth", b""]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the file that nobody closed
def test_a_line_is_whole_or_not_there_after_an_interrupt_anywhere(tmp_path):
    file = tmp_path / "events.jsonl"

    def append():
        durable.append(file, b"x" * 100_000 + b"\n")

    def check():
        if file.exists():
            assert set(file.read_bytes().split(b"\n")) <= {b"", b"x" * 100_000}

    every_place(append, check, folders=["durable"])
