"""The calls of kernel_calls.py on a GPU: each once beside the oracle, again and again, and random ones."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from places import Cuda

from gpuconv import bfloat16
from gpuconv.cuda.kernel import Kernel

from .kernel_calls import CALLS, DTYPES, FORMATS, Expected, assert_as_expected, launched, random_call
from .work import Work

# Held to the CPU backend: the oracle has no word for all_finite, and its sums of the largest float64 overflow.
_NOT_BY_LOOPS = ("all_finite", "batchnorm_constant_channels")
# In float64, too: loops add thousands of terms one after another, which in float64 loses as much as what they judge.
_LONG_SUMS = (
    *("batchnorm_several_chunks", "batchnorm_several_parts", "batchnorm_first_part_apart"),
    *("batchnorm_chunks_of_one_plane", "groupnorm_several_chunks", "groupnorm_several_parts"),
)
# Calls of tensor cores among those that tools watch and that are repeated: of float32, of 16 bits, and of its filters.
_WATCHED = {
    "conv_tensor_float32_slim": "float32",
    "conv_tensor_padded_channels": "float16",
    "conv_tensor_filters_flat": "float16",
}
_REPEATS = 20
ALL_DTYPES = (*DTYPES, bfloat16.NAME)
_SLOW = ("conv_volumes_", "conv_tensor_")  # calls whose loops take longest: they come first
_RANDOM = 2000
# A dry run's calls: one of each kind of kernel, quick to compile.
DRY = (
    "conv_first_layer",
    "conv_in_tiles",
    "max_pool_halves",
    "batchnorm_images",
    "softmax",
    "adam",
    "affine",
    "augment",
)

Item = tuple[str, str, str]  # name of a call, dtype, memory format


def chosen(*, dry: bool) -> list[Item]:
    """Return what is run once; of a dry run a few calls in float32."""
    found = [
        (call.name, dtype, memory)
        for call in CALLS.values()
        for dtype in (("float32",) if dry else ALL_DTYPES)
        for memory in FORMATS
        if call.takes(dtype) and memory in call.formats and (call.name in DRY or not dry)
    ]
    return sorted(found, key=lambda item: not item[0].startswith(_SLOW))


def words(item: Item) -> str:
    """Return an item as messages show it."""
    return ", ".join(item)


def smoke(work: Work) -> bool | None:
    """Run every call once in every dtype and memory format, beside plain loops in float64."""
    if work.dry:
        work.leave_out(f"all calls but {', '.join(DRY)}", "float16, bfloat16 and float64")
    items = chosen(dry=work.dry)
    with _expected(items[work.found.get("done", 0) :], dry=work.dry) as wanted:
        ok = work.each(items, lambda item: assert_as_expected(CALLS[item[0]].on(Cuda, *item[1:]), wanted(item)), words)
    if not work.dry:
        known, used = launched(dtypes=ALL_DTYPES), instances()
        work.keep(**{"kernels launched": len(used), "never launched": sorted(set(known) - used)[:40]})
    return ok


@contextmanager
def _expected(items: list[Item], *, dry: bool) -> Iterator[Callable[[Item], Expected]]:
    """Yield what returns an item's results by loops: all are under way in other processes, but for a dry run."""
    if dry:
        yield by_loops
        return
    processes = max(2, (os.cpu_count() or 2) - 2)
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
    try:
        under_way = {item: pool.submit(by_loops, item) for item in items}
        yield lambda item: under_way[item].result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def by_loops(item: Item) -> Expected:
    """Return what a call must come to: by plain loops in float64, but where these are no better than what they judge."""
    name, dtype, memory = item
    call = CALLS[name]
    other = name in _NOT_BY_LOOPS or (dtype == "float64" and name in _LONG_SUMS)
    return (call.expected if other else call.by_oracle)(dtype, memory)


def instances() -> set[str]:
    """Return the C++ names of the kernels that this process has launched."""
    return {known.expression(templates) for known in Kernel.all.values() for _, templates in known._ready}


def quick(*, dry: bool = False) -> list[Item]:
    """Return the calls that tools watch and that are repeated, tensor cores' first."""
    watched = {} if dry else _WATCHED
    dtypes = watched | {call.name: "float32" for call in CALLS.values() if call.quick and (call.name in DRY or not dry)}
    return [
        (name, dtype, memory) for name, dtype in dtypes.items() for memory in FORMATS if memory in CALLS[name].formats
    ]


def repeats(work: Work) -> bool | None:
    """Run every quick call again and again: its bits must not change."""
    count = 3 if work.dry else _REPEATS
    if work.dry:
        work.leave_out(f"all calls but {', '.join(DRY)}", f"all repeats but {count}")
    return hold_repeats(work, Cuda, quick(dry=work.dry), count)


def hold_repeats(work: Work, place: Any, items: list[Item], count: int) -> bool | None:
    """Hold so many runs of calls on a place to the bits of the first."""

    def one(item: Item) -> None:
        first = _bits(place, *item)
        changed = sum(_bits(place, *item) != first for _ in range(count - 1))
        if changed:
            msg = f"{changed} of {count - 1} repeats have other bits"
            raise AssertionError(msg)

    work.keep(**{"times each": count})
    return work.each(items, one, words)


def _bits(place: Any, name: str, dtype: str, memory: str) -> list[bytes | None]:
    return [None if result is None else result.tobytes() for result in CALLS[name].on(place, dtype, memory)]


def random_calls(work: Work) -> bool:
    """Hold random calls to plain loops in float64, as many as there is time for."""
    return hold_random(work, Cuda, 5 if work.dry else _RANDOM)


def hold_random(work: Work, place: Any, count: int) -> bool:
    """Hold random calls on a place to the oracle, so many or those there is time for."""
    if work.dry:
        work.leave_out(f"all random calls but {count}")

    def one(seed: int) -> None:
        call, dtype, memory = random_call(seed)
        assert_as_expected(call.on(place, dtype, memory), call.by_oracle(dtype, memory))

    with np.errstate(over="ignore"):
        return work.each(range(count), one, lambda seed: f"random_call({seed})") is not False


def run_quick(*, dry: bool) -> None:
    """Run every quick call once, each array an allocation of its own: what compute-sanitizer watches."""
    import cupy

    cupy.cuda.set_allocator(None)
    for name, dtype, memory in quick(dry=dry):
        CALLS[name].on(Cuda, dtype, memory)
    cupy.cuda.runtime.deviceSynchronize()
