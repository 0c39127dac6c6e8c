"""gpuconv/cpu/memory.py: memory of dead results serves new ones, is never shared by two, and stays within its bounds."""

import gc
import multiprocessing
import sys
import threading

import numpy as np
import pytest

import gpuconv
from gpuconv.cpu import memory
from gpuconv.errors import ConfigError

MB = 2**20


@pytest.fixture
def pool(monkeypatch):
    """A pool of its own for each test."""
    monkeypatch.delenv("GPUCONV_KEEP_MB", raising=False)
    monkeypatch.setattr(memory, "_pool", memory._Pool())
    return memory._pool


def address(array):
    return array.__array_interface__["data"][0]


def floats(count):
    return memory.empty_array((count,), np.float32)


@pytest.mark.usefixtures("pool")
def test_the_memory_of_a_dead_array_serves_the_next_of_its_size():
    first = floats(MB)
    place = address(first)
    del first
    assert address(floats(MB)) == place


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize(
    "view",
    [lambda a: a[5:6], lambda a: a.reshape(4, -1).T, lambda a: a.view(np.uint8), np.asarray, memoryview],
    ids=["slice", "transpose", "view", "array", "memoryview"],
)
def test_memory_is_not_reused_while_a_view_is_left(view):
    first = floats(MB)
    place, kept = address(first), view(first)
    del first
    gc.collect()
    others = [floats(MB) for _ in range(3)]
    assert place not in map(address, others)
    del kept
    assert address(floats(MB)) == place


def test_results_of_operators_are_never_shared():
    x = np.arange(16 * 4 * 32 * 32, dtype=np.float32).reshape(16, 4, 32, 32)
    results = []
    for shift in range(6):
        y, _ = gpuconv.relu_forward(x + shift)
        results.append(y)
        gpuconv.relu_forward(x * 0)  # its memory is free at once
    for shift, y in enumerate(results):
        np.testing.assert_array_equal(y, x + shift)


@pytest.mark.usefixtures("pool")
def test_arrays_begin_with_a_cache_line_and_can_be_written():
    for count in (20_000, 99_999, MB):
        array = memory.empty_array((count,), np.float64)
        assert address(array) % 64 == 0
        assert array.flags.c_contiguous
        assert array.flags.writeable
        array.fill(1.0)
    assert memory.zero_array((300, 301), np.float32).sum() == 0


def test_small_arrays_are_numpys_own(pool):
    assert memory.empty_array((100,), np.float32).base is None
    assert memory.empty_array((0, 7), np.float32).shape == (0, 7)
    assert pool.state()[0] == 0


def test_what_is_kept_and_what_is_used_never_exceed_what_was_used_at_once(pool):
    sizes = [MB, 2 * MB, 3 * MB, MB, 5 * MB, 4 * MB]
    for size in sizes:
        array = memory.empty_array((size,), np.uint8)
        used, idle, most = pool.state()
        assert used == size
        assert used + idle <= most
        del array
    assert pool.state()[::2] == (0, 5 * MB)
    held = memory.empty_array((5 * MB,), np.uint8)
    assert pool.state() == (5 * MB, 0, 5 * MB)
    del held
    assert pool.state() == (0, 5 * MB, 5 * MB)
    assert [block.size for blocks in pool._idle.values() for block in blocks] == [5 * MB]


def test_sizes_longest_unused_go_first(pool):
    arrays = [memory.empty_array((size,), np.uint8) for size in (MB, 2 * MB, 3 * MB)]
    while arrays:
        arrays.pop()  # comes back in the order 3, 2, 1
    assert pool.state()[1] == 6 * MB
    assert list(pool._idle) == [3 * MB, 2 * MB, MB]
    held = memory.empty_array((4 * MB,), np.uint8)  # 6 MB were used at once: 2 MB may stay
    assert list(pool._idle) == [MB]
    del held


def test_a_size_that_comes_back_was_used_last(pool):
    first, second, other = floats(MB), floats(MB), floats(2 * MB)
    del first
    assert pool.state()[1] == 4 * MB
    del other
    assert pool.state()[1] == 12 * MB
    del second
    assert pool.state()[1] == 16 * MB
    assert list(pool._idle) == [8 * MB, 4 * MB]


@pytest.mark.parametrize(("megabytes", "kept"), [("0", 0), ("1", 0), ("5", 4 * MB), ("", 4 * MB)])
def test_the_setting_bounds_what_is_kept_when_an_array_is_made(pool, monkeypatch, megabytes, kept):
    monkeypatch.setenv("GPUCONV_KEEP_MB", megabytes)
    arrays = [floats(MB), floats(MB // 4)]
    while arrays:
        arrays.pop()
    other = floats(20_000)
    assert pool.state()[:2] == (other.base.size, kept)


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("value", ["many", "-1", "1.5", "2000000"])
def test_a_setting_that_is_no_number_of_megabytes_is_refused(monkeypatch, value):
    monkeypatch.setenv("GPUCONV_KEEP_MB", value)
    with pytest.raises(ConfigError, match=f"GPUCONV_KEEP_MB must be a number of megabytes .* got '{value}'"):
        floats(MB)


def test_a_setting_spoiled_later_harms_no_array_that_ends(pool, monkeypatch):
    array = floats(MB)
    monkeypatch.setenv("GPUCONV_KEEP_MB", "many")
    del array
    assert pool.state()[0] == 0


def test_free_memory_gives_back_what_is_kept_and_nothing_else(pool):
    array, other = floats(MB), floats(MB)
    array.fill(3.0)
    del other
    assert gpuconv.free_memory() == 4 * MB
    assert gpuconv.free_memory() == pool.state()[1] == 0
    assert (array == 3.0).all()


def test_an_allocation_that_fails_leaves_the_count_right(pool):
    with pytest.raises(MemoryError):
        memory.empty_array((sys.maxsize // 16,), np.float64)
    assert pool.state()[0] == 0


def test_an_allocation_that_fails_is_tried_again_without_what_is_idle(pool, monkeypatch):
    array = floats(MB)
    del array
    real = memory.aligned

    def scarce(size):
        if pool.state()[1]:
            raise MemoryError
        return real(size)

    monkeypatch.setattr(memory, "aligned", scarce)
    kept = floats(2 * MB)
    assert pool.state()[:2] == (kept.nbytes, 0)


def test_arrays_may_end_while_the_pool_is_locked(pool):
    """As they do when a garbage collection runs inside it: their end neither waits nor touches what is being changed."""
    arrays = [floats(MB), floats(MB)]
    with pool._lock:
        arrays.clear()
    assert pool.state()[:2] == (0, 8 * MB)


def test_threads_never_get_the_same_memory(pool):
    """Each thread writes its own number into what it gets, and finds it again after others have worked."""
    wrong = []

    def work(number):
        for _ in range(200):
            array = memory.empty_array((20_000,), np.float64)
            array.fill(number)
            other = memory.empty_array((20_000,), np.float64)
            other.fill(-number)
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert pool.state()[0] == 0


def _child(held, queue):
    """Runs in a forked child, in which the thread that held the pool's lock does not exist."""
    y, _ = gpuconv.relu_forward(np.ones((64, 64, 64), np.float32))
    sums = float(y.sum()), float(held.pop().sum())  # what the parent made dies here
    queue.put(sums)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork on Windows")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_a_lock_of_the_parent(pool):
    held = [floats(MB)]
    held[0].fill(1.0)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    locked, forked = threading.Event(), threading.Event()

    def hold():
        with pool._lock:
            locked.set()
            forked.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait(60)
    child = context.Process(target=_child, args=(held, queue))
    child.start()
    child.join(60)
    forked.set()
    holder.join()
    exitcode = child.exitcode
    child.kill()
    assert exitcode == 0
    assert queue.get() == (64.0**3, float(MB))
