"""Times on a GPU: every case of bench/cases.py beside PyTorch, by CUDA events.  Not yet run on a GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import gpuconv

from .cases import CASES, Arrays, Case

_ROUNDS, _ROUND_MS, _MOST_CALLS = 5, 8.0, 2000
_COPY_BYTES = 2**30


class _Events:
    """Times calls with CUDA events: `make` gives an event, `record` notes one, `elapsed` milliseconds between two."""

    def __init__(
        self, make: Callable[[], Any], synchronize: Callable[[Any], None], elapsed: Callable[[Any, Any], float]
    ):
        self._make, self._synchronize, self._elapsed = make, synchronize, elapsed

    def milliseconds(self, call: Callable[[], Any], count: int) -> float:
        """Return the time of one of `count` calls."""
        first, last = self._make(), self._make()
        first.record()
        for _ in range(count):
            call()
        last.record()
        self._synchronize(last)
        return self._elapsed(first, last) / count

    def median(self, call: Callable[[], Any]) -> float:
        """Return the median of several rounds, after a warm-up."""
        for _ in range(3):
            call()
        once = max(self.milliseconds(call, 3), 1e-4)
        count = int(min(_MOST_CALLS, max(3, _ROUND_MS / once)))
        return statistics.median(self.milliseconds(call, count) for _ in range(_ROUNDS))


def cupy_events() -> _Events:
    """Return the timer of CuPy's current stream."""
    import cupy

    return _Events(cupy.cuda.Event, lambda event: event.synchronize(), cupy.cuda.get_elapsed_time)


def copy_bandwidth() -> float:
    """Return bytes per second, read and written, of the device copying memory to itself."""
    import cupy

    free, _ = cupy.cuda.runtime.memGetInfo()
    count = min(_COPY_BYTES, free // 4)
    source, target = cupy.zeros(count, cupy.uint8), cupy.empty(count, cupy.uint8)
    return 2 * count / (cupy_events().median(lambda: cupy.copyto(target, source)) / 1e3)


def our_calls(case: Case, dtype: str, *, channels_last: bool) -> tuple[dict[str, Callable[[], Any]], dict[str, int]]:
    """Return forward and backward of a case on the GPU, and the bytes that each must at least move."""
    import cupy

    def put(array: np.ndarray) -> Any:
        if array.ndim == 4 and channels_last:
            stored = np.ascontiguousarray(array.transpose(0, 2, 3, 1)).astype(dtype)
            return cupy.asarray(stored).transpose(0, 3, 1, 2)
        return cupy.asarray(np.ascontiguousarray(array).astype(dtype))

    arrays = Arrays.draw(case, channels_last=False)
    forward, backward = (getattr(gpuconv, f"{case.op}_{way}") for way in ("forward", "backward"))
    inputs = [put(arrays.x)]
    if arrays.w is not None and arrays.b is not None:
        inputs += [put(arrays.w), put(arrays.b)]
    if case.op == "spatial_batchnorm":
        C = case.x[1]
        inputs += [put(np.zeros(C, np.float32)), put(np.ones(C, np.float32))]
    y, cache = forward(*inputs, **case.options)
    dy = put(arrays.upstream(tuple(y.shape), channels_last=False))
    x_bytes, y_bytes = inputs[0].nbytes, y.nbytes
    moved = {"forward": x_bytes + y_bytes, "backward": x_bytes + y_bytes}
    if case.op in ("conv", "spatial_batchnorm"):
        moved["backward"] += x_bytes  # x again
    elif case.op == "relu":
        moved["backward"] += y_bytes
    elif case.op == "max_pool":
        moved = {way: count + y.size for way, count in moved.items()}  # argmax, a byte each
    return {"forward": lambda: forward(*inputs, **case.options), "backward": lambda: backward(dy, cache)}, moved


def torch_calls(case: Case, dtype: str, *, channels_last: bool) -> dict[str, Callable[[], Any]]:
    """Return the same in PyTorch on the GPU."""
    import torch
    import torch.nn.functional as F

    memory = torch.channels_last if channels_last else torch.contiguous_format
    arrays = Arrays.draw(case, channels_last=False)

    def put(array: np.ndarray) -> Any:
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to("cuda", getattr(torch, dtype))
        return tensor.to(memory_format=memory) if tensor.ndim == 4 else tensor

    leaves = [put(arrays.x)]
    if arrays.w is not None and arrays.b is not None:
        leaves += [put(arrays.w), put(arrays.b)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    options = dict(case.options)
    if case.op == "conv":
        options["padding"] = options.pop("pad", 0)

        def forward() -> Any:
            return F.conv2d(*leaves, **options)

    elif case.op in ("max_pool", "average_pool"):
        pool = F.max_pool2d if case.op == "max_pool" else F.avg_pool2d

        def forward() -> Any:
            return pool(leaves[0], options["window"], options.get("stride"), options.get("pad", 0))

    elif case.op == "spatial_batchnorm":
        C = case.x[1]
        mean, var = torch.zeros(C, device="cuda"), torch.ones(C, device="cuda")
        leaves[1:] = [leaf.detach().float().requires_grad_() for leaf in leaves[1:]]

        def forward() -> Any:
            return F.batch_norm(leaves[0], mean, var, leaves[1], leaves[2], training=True)

    else:

        def forward() -> Any:
            return F.relu(leaves[0])

    y = forward()
    dy = put(arrays.upstream(tuple(y.shape), channels_last=False))
    return {"forward": forward, "backward": lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True)}


def torch_events() -> _Events | None:
    """Return PyTorch's timer, set to strict float32; None where there is no PyTorch for GPUs."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    return _Events(
        lambda: torch.cuda.Event(enable_timing=True), lambda event: event.synchronize(), lambda a, b: a.elapsed_time(b)
    )


def timings(seconds: float) -> dict[str, Any]:
    """Return a row for each case, dtype, memory format and direction, until the time is spent."""
    end = time.monotonic() + seconds
    bandwidth = copy_bandwidth()
    ours, peer = cupy_events(), torch_events()
    rows: list[dict[str, Any]] = []
    left_out = []
    for dtype in ("float32", "float16"):
        for case in CASES:
            for channels_last in (False, True):
                memory = "NHWC" if channels_last else "NCHW"
                if time.monotonic() > end:
                    left_out.append(f"{case.name} {dtype} {memory}")
                    continue
                rows += _rows(case, dtype, ours, peer, bandwidth, channels_last=channels_last)
    return {
        "copy GB/s": round(bandwidth / 1e9, 1),
        "torch": "measured" if peer else "not measured: no PyTorch for GPUs here",
        "rows": rows,
        "left out, time was spent": left_out,
    }


def _rows(
    case: Case, dtype: str, ours: _Events, peer: _Events | None, bandwidth: float, *, channels_last: bool
) -> list[dict[str, Any]]:
    calls, moved = our_calls(case, dtype, channels_last=channels_last)
    beside = torch_calls(case, dtype, channels_last=channels_last) if peer else {}
    rows = []
    for way, call in calls.items():
        mine = ours.median(call)
        row = {
            "case": case.name,
            "dtype": dtype,
            "memory": "NHWC" if channels_last else "NCHW",
            "direction": way,
            "gpuconv_ms": round(mine, 4),
            "share of copy bandwidth": round(moved[way] / (mine / 1e3) / bandwidth, 3),
        }
        if peer:
            row["torch_ms"] = round(peer.median(beside[way]), 4)
            row["ratio"] = round(row["gpuconv_ms"] / max(row["torch_ms"], 1e-6), 3)
        rows.append(row)
    return rows
