"""Convolution by warpgroups on hardware, off by default: calls beside the definition, layers beside those by warps.

A kernel that waits for a copy which never lands does not end: then the section's process is ended, and what it found by
then is kept.  Of a dry run some calls run in the emulator.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

from emulate import EmulatedDevice
from places import Cuda

from gpuconv.cuda import conv_wgmma
from gpuconv.cuda import device as cuda_device

from . import hopper_calls, kernels
from .ahead import compile_one
from .kernel_calls import assert_as_expected, emulated_on
from .layers import WGMMA, ours, passes_of
from .predictions import predictions, share
from .replay import CupyReplay, spread, turns
from .work import Work, line

_DTYPE, _REGIME = "float16", "bfloat16"
_DRY = ("hopper_conv", "hopper_conv_factors")

Item = tuple[str, Any, str]  # "call", its name and memory format; "layer", a line of predictions.json and a pass


def run(work: Work) -> bool | None:
    """Hold every call, then hold and time the layers, those that tell most first."""
    if work.dry:
        work.leave_out(f"all calls by warpgroups but {', '.join(_DRY)}, which run in the emulator; their times")
        device = EmulatedDevice("emulated", arch=conv_wgmma.ARCH)
        return work.each(items(dry=True), partial(_one, work, device), words)
    arch = cuda_device.current().arch
    if arch != conv_wgmma.ARCH:
        work.keep(**{"not run": f"these kernels need sm_90a, this is sm_{arch}"})
        return True
    _compile_ahead(work)
    work.keep(rows=work.found.get("rows", []))
    ok = work.each(items(dry=False), partial(_one, work, None), words)
    work.keep(shown=list(map(shown, work.found["rows"])))
    return ok


def items(*, dry: bool) -> list[Item]:
    """Return what is done, in this order."""
    calls = [call for name, call in hopper_calls.CALLS.items() if name in _DRY or not dry]
    found: list[Item] = [("call", call.name, memory) for call in calls for memory in call.formats]
    if not dry:
        found += [("layer", layer, each) for layer in predictions()["layers"] for each in passes_of(layer)]
    return found


def words(item: Item) -> str:
    """Return an item as messages show it."""
    kind, what, how = item
    return f"{kind} {what if kind == 'call' else what['name']}, {how}"


def _one(work: Work, device: EmulatedDevice | None, item: Item) -> None:
    kind, what, how = item
    if kind == "layer":
        _measure(work, what, how)
        return
    call = hopper_calls.CALLS[what]
    with emulated_on(device) if device is not None else _on_the_gpu() as place:
        assert_as_expected(call.on(place, _DTYPE, how), call.expected(_DTYPE, how))


@contextmanager
def _on_the_gpu() -> Iterator[Any]:
    yield Cuda


def _measure(work: Work, layer: dict[str, Any], name: str) -> None:
    """Hold a layer's pass by warps and by warpgroups to the definition, and time both in turns."""
    inputs, wanted = kernels.prepared(layer, _REGIME)
    count = kernels._captured(layer, _REGIME)
    copies, replays = kernels._copies(inputs, count), []
    for on in (False, True):
        with mock.patch.object(conv_wgmma, "ON", on):
            calls = [ours(inputs.case, kernels._put(inputs), _REGIME)[name] for _ in range(copies)]
            kernels._hold(wanted, inputs, *calls[0])
            replays.append(CupyReplay([calls[i % copies][1] for i in range(count)]))
    refused = conv_wgmma.refusal(cuda_device.current())
    if refused is not None:
        raise AssertionError(refused)
    warps, groups = turns(*replays, count, dry=False)
    work.keep(rows=[*work.found["rows"], row(layer, name, warps, groups)])


def row(layer: dict[str, Any], name: str, warps: list[float], groups: list[float]) -> dict[str, Any]:
    """Return what is kept of a pass: microseconds by warps and by warpgroups, these beside what the model says."""
    by_warps, by_groups = map(statistics.median, (warps, groups))
    us = {"us by warps": round(by_warps, 2), "us by warpgroups": round(by_groups, 2)}
    spreads = {"spreads": [spread(warps), spread(groups)], "warps / warpgroups": round(by_warps / by_groups, 3)}
    expected = layer["us"].get(WGMMA, {}).get(name)
    beside = {"predicted us": expected, "measured / predicted": share(by_groups, expected)}
    return {"layer": layer["name"], "pass": name, **us, **spreads, **beside}


def shown(found: dict[str, Any]) -> str:
    """Return a row for the table."""
    times = f"{found['us by warps']:8.1f} us by warps {found['us by warpgroups']:8.1f} us by warpgroups"
    ratio = found["measured / predicted"]
    beside = "" if ratio is None else f", x{ratio:.2f} of predicted"
    return f"{found['layer']:30s} {found['pass']:8s} {times}, {found['warps / warpgroups']:.2f}{beside}"


def _compile_ahead(work: Work) -> None:
    """Fill CuPy's cache in parallel with what the calls launch."""
    todo = hopper_calls.instances((_DTYPE, _REGIME))
    pool = ProcessPoolExecutor(max(2, (os.cpu_count() or 2) - 2), multiprocessing.get_context("spawn"))
    each = {pool.submit(compile_one, one.kernel.file, name, one.kernel.options): name for name, one in todo.items()}
    failed = []
    try:
        for future in as_completed(each, timeout=max(work.left() / 2, 1)):
            if (error := future.exception()) is not None:
                failed.append(f"{each[future]}: {line(error)}")  # type: ignore[arg-type]
    except TimeoutError:
        failed.append("not all in half of the time")
    pool.shutdown(wait=False, cancel_futures=True)
    work.keep(**{"kernels": len(todo), "not compiled ahead": failed})
