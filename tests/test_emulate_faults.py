"""Every fault that is planted in a kernel is reported, with the line; kernels without faults are not."""

import re

import numpy as np
import pytest
from emulate import EmulatedDevice, EmulationError
from emulate.examples import PROBLEMS, Out, Problem, edited, text

pytestmark = pytest.mark.compilers

_I32 = np.int32


def _line_of(file, edits, words):
    """Return "kernels/<file>:<line>" of the line of the edited text that holds these words."""
    lines = edited(file, edits).splitlines()
    numbers = [number for number, line in enumerate(lines, 1) if words in line]
    assert len(numbers) == 1
    return f"kernels/{file}:{numbers[0]}"


# Name -> (problem, edits, what the report says, on which line).
_TILES, _CONV = "shared_tiles_and_float4", "template_halo_and_dynamic_shared"
_STORED, _READ = "__syncthreads();  // the tiles are complete", "__syncthreads();  // the tiles have been read"
PLANTED = {
    "no_barrier_after_stores": (_TILES, [(_STORED, "")], "shared memory): block", "va = *reinterpret_cast"),
    "no_barrier_before_next_stores": (_TILES, [(_READ, "")], "shared memory): block", None),
    "read_past_the_end": (
        _TILES,
        [("row0 + row_a < M && ", "")],
        "OUT OF BOUNDS: read of 16 bytes",
        "a = *reinterpret_cast<const float4*>(&A",
    ),
    "barrier_in_a_branch": (_TILES, [(_STORED, f"if (ty < 15) {_STORED}")], "DIVERGENT BARRIER", None),
    "one_row_too_far": (_CONV, [("iy < H &&", "iy <= H &&")], "OUT OF BOUNDS: read of 4 bytes", "inside ? x["),
    "no_barrier_at_the_end_of_the_loop": (
        _CONV,
        [("__syncthreads();  // tile and weights have been read", "")],
        "shared memory): block",
        None,
    ),
    "no_barrier_between_warps": (
        "warp_shuffles",
        [("__syncthreads();  // every warp's sums are there", "")],
        "shared memory): block",
        None,
    ),
    "uninitialised_shared_memory": (
        "warp_shuffles",
        [("lane < warps ? sums[lane] : 0.0f", "sums[lane]")],
        "UNINITIALISED shared read",
        "a = sums[lane]",
    ),
    "shuffle_by_part_of_a_warp": (
        "warp_shuffles",
        [("a = warp_sum(a);\n    b = warp_sum(b);", "if (lane < warps) {\n      a = warp_sum(a); }")],
        "WARP OPERATION shfl",
        None,
    ),
    "plain_add_between_blocks": (
        "atomics_between_blocks",
        [("atomicAdd(&dw[weight], sum)", "dw[weight] += sum")],
        "between blocks",
        "dw[weight] += sum",
    ),
    "no_barrier_before_wmma_results": (
        "wmma_half",
        [("__syncthreads();  // y's tile is complete", "")],
        "shared memory): block",
        "= tile_y[r][c]",
    ),
    "no_wait_for_cp_async": (
        "mma_ldmatrix_cp_async",
        [("ptx::cp_async_wait<STAGES - 2>();", "")],
        "READ OF AN UNFINISHED cp.async",
        "ptx::ldmatrix_x4(a[i]",
    ),
}


def _report(run):
    with pytest.raises(EmulationError) as caught:
        run()
    return str(caught.value)


QUICK_BY_PTX = ["no_barrier_after_stores", "one_row_too_far", "uninitialised_shared_memory", "no_wait_for_cp_async"]
BY_BOTH_ROUTES = [("emulated-check", fault) for fault in PLANTED] + [
    pytest.param("emulated-ptx-check", fault, marks=() if fault in QUICK_BY_PTX else pytest.mark.ladder)
    for fault in PLANTED
]


@pytest.mark.parametrize(("route", "fault"), BY_BOTH_ROUTES)
def test_planted_faults_are_reported(route, fault):
    name, edits, words, at = PLANTED[fault]
    problem = PROBLEMS[name]()
    report = _report(lambda: problem.run(EmulatedDevice(route), edits))
    assert words in report
    if at is not None:
        assert re.search(rf"{re.escape(_line_of(problem.file, edits, at))}\b", report)
    else:
        assert re.search(rf"kernels/{re.escape(problem.file)}:\d+", report)


# What the scheduler, guard pages and canaries see without looking at every access.
SEEN_WITHOUT_CHECKS = ["read_past_the_end", "barrier_in_a_branch", "shuffle_by_part_of_a_warp"]


@pytest.mark.parametrize("fault", SEEN_WITHOUT_CHECKS)
def test_some_faults_are_reported_in_every_mode(fault):
    name, edits, words, _ = PLANTED[fault]
    report = _report(lambda: PROBLEMS[name]().run(EmulatedDevice("emulated"), edits))
    assert words in report or "CRASH: invalid memory access" in report


ORDER_SEES = {
    "no_barrier_after_stores": "forward",
    "no_barrier_between_warps": "forward",
    "no_barrier_before_wmma_results": "depth",
    "no_wait_for_cp_async": "forward",
}


@pytest.mark.parametrize(("fault", "order"), ORDER_SEES.items())
def test_thread_orders_turn_races_into_wrong_results(fault, order):
    name, edits, _, _ = PLANTED[fault]
    problem = PROBLEMS[name]()
    assert problem.error(problem.run(EmulatedDevice("emulated", order=order), edits)) > 1e-3


# One class of fault each -----------------------------------------------------------------------------------------------


def _floats(n=64):
    return np.arange(n, dtype=np.float32)


def _zeros(n=64, dtype=np.float32):
    return Out(np.zeros(n), dtype, zeros=True)


# Name -> (kernel, arguments, threads, dynamic shared bytes, what the report says).
CLASSES = {
    "local_array_one_too_far": ("local_array", (_floats(), _zeros(), _I32(4)), 64, 0, "an array index"),
    "inner_index_of_a_shared_array": ("shared_index", (_zeros(), _I32(33)), 64, 0, "an array index"),
    "shared_array_past_its_end": ("shared_pointer", (_zeros(), _I32(64)), 64, 0, "between arrays: shared byte"),
    "dynamic_shared_one_too_far": ("dynamic_shared", (_zeros(), _I32(64)), 64, 256, "offset 256, launch gave 256"),
    "misaligned_float4": ("misaligned", (_floats(400), _zeros(256), _I32(1)), 64, 0, "MISALIGNED: 16-byte global"),
    "write_through_const": ("write_to_const", (_floats(), _zeros()), 64, 0, "WRITE to read-only (const) argument 0"),
    "read_one_past_the_end": (
        "read_at",
        (_floats(60), _zeros(), _I32(60)),
        64,
        0,
        "address is element 60 (0 bytes past",
    ),
    "write_one_past_the_end": ("write_at", (_zeros(60), _I32(60)), 64, 0, "address is element 60 (0 bytes past"),
    "write_before_the_start": ("write_at", (_zeros(60), _I32(-1)), 64, 0, "4 bytes before its start"),
    "no_syncwarp": ("reverse_in_warp<false>", (_floats(32), _zeros(32)), 32, 0, "shared memory): block"),
    "endless_loop": ("endless", (_zeros(1, _I32),), 64, 0, "TIMEOUT: kernel ran longer than 1 s"),
    "return_before_a_barrier": ("early_exit", (_floats(), _zeros(), _I32(40)), 64, 0, "24 thread(s) returned before"),
    "shift_by_40": ("shift", (np.full(64, 40, _I32), _zeros(64, _I32)), 64, 0, "a shift or an integer out of range"),
    "division_by_zero": ("divide", (np.zeros(64, _I32), _zeros(64, _I32)), 64, 0, "out of range"),
    "two_barriers_meet": ("two_barriers", (_zeros(),), 64, 0, "DIVERGENT BARRIER"),
    "shuffles_in_two_branches": ("two_shuffles", (_zeros(32),), 32, 0, "no thread can continue"),
    "second_half_of_a_pair_never_written": ("half_a_pair", (_zeros(64),), 32, 0, "UNINITIALISED shared read"),
    "write_far_past_the_end": ("write_at", (_zeros(60), _I32(1 << 20)), 64, 0, "OUT OF BOUNDS: write"),
}


_KERNELS = (*(kernel for kernel, *_ in CLASSES.values()), "reverse_in_warp<true>")


def _problem(kernel, args, threads, shared):
    return Problem("faults.cu", kernel, (1,), (threads,), args, shared, together=_KERNELS)


@pytest.mark.parametrize(("kernel", "args", "threads", "shared", "words"), CLASSES.values(), ids=CLASSES.keys())
def test_classes_of_faults(kernel, args, threads, shared, words):
    device = EmulatedDevice("emulated-check", timeout=1)
    report = _report(lambda: _problem(kernel, args, threads, shared).run(device))
    assert words in report
    assert "kernels/faults.cu:" in report or "TIMEOUT" in report


WITHOUT_CHECKS = {
    "write_one_past_the_end": "CANARY",
    "write_before_the_start": "CANARY",
    "dynamic_shared_one_too_far": "wrote past the 256 bytes of dynamic shared memory",
    "write_through_const": "CRASH: invalid memory access",
    "write_far_past_the_end": "CRASH: invalid memory access",
    "two_barriers_meet": "DIVERGENT BARRIER",
    "shuffles_in_two_branches": "no thread can continue",
    "division_by_zero": "CRASH: arithmetic exception",
    "endless_loop": "TIMEOUT",
}


@pytest.mark.parametrize(("name", "words"), WITHOUT_CHECKS.items())
def test_classes_of_faults_without_checks(name, words):
    kernel, args, threads, shared, _ = CLASSES[name]
    device = EmulatedDevice("emulated", timeout=1)
    assert words in _report(lambda: _problem(kernel, args, threads, shared).run(device))


def test_syncwarp_orders_a_warp():
    problem = _problem("reverse_in_warp<true>", (_floats(32), Out(_floats(32)[::-1], np.float32)), 32, 0)
    problem.check(EmulatedDevice("emulated-check"))


def test_early_exit_can_be_allowed():
    want = np.where(np.arange(64) < 40, (np.arange(64) + 1) % 40, 0)
    problem = _problem("early_exit", (_floats(), Out(want, np.float32, zeros=True), _I32(40)), 64, 0)
    problem.check(EmulatedDevice("emulated-check", early_exit=True))


def test_reads_between_the_elements_of_a_view_are_reported():
    device = EmulatedDevice("emulated-check")
    function = device.compile(text("faults.cu"), "faults.cu", _KERNELS, ())["write_at"]
    every_second = device.zeros(20, np.float32)[::2]
    report = _report(lambda: device.launch(function, (1,), (1,), (every_second, _I32(3))))
    assert "between the elements of a strided array" in report


def test_a_view_that_is_not_aligned_is_seen():
    device = EmulatedDevice("emulated-check")
    function = device.compile(text("faults.cu"), "faults.cu", _KERNELS, ())["misaligned"]
    whole, y = device.zeros(400, np.float32), device.zeros(256, np.float32)
    device.launch(function, (1,), (64,), (whole[4:], y, _I32(0)))
    assert "MISALIGNED" in _report(lambda: device.launch(function, (1,), (64,), (whole[1:], y, _I32(0))))


def test_a_fault_leaves_the_process_as_it_was():
    device = EmulatedDevice("emulated")
    function = device.compile(text("faults.cu"), "faults.cu", _KERNELS, ())
    x = device.zeros(4, np.float32)
    device.launch(function["write_at"], (1,), (32,), (x, _I32(1)))
    _report(lambda: device.launch(function["write_at"], (1,), (32,), (x, _I32(512))))
    np.testing.assert_array_equal(device.asnumpy(x), [0, 3, 0, 0])
