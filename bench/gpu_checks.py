"""What is checked on a GPU and cannot be elsewhere: rounding of real hardware, real memory, real races.

Not yet run on a GPU; the sections that need no more than a place to compute are tested in the emulator.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT / "tests") not in sys.path:
    sys.path.insert(0, str(ROOT / "tests"))

from compare import U_SUM
from kernel_calls import CALLS, FORMATS, Call, Scaled, assert_as_expected, random_call
from norm_scales import batchnorm_scales

import gpuconv

# Random calls and repeats ---------------------------------------------------------------------------------------------


def random_cases(place: Any, count: int, seconds: float) -> dict[str, Any]:
    """Hold random calls to the float64 oracle; return how many ran and which failed."""
    end, failed, done = time.monotonic() + seconds, [], 0
    for seed in range(count):
        if time.monotonic() > end:
            break
        call, dtype, memory = random_call(seed)
        done += 1
        try:
            assert_as_expected(call.on(place, dtype, memory), call.by_oracle(dtype, memory))
        except Exception as error:  # noqa: BLE001 - one failure must not hide the others
            failed.append(f"random_call({seed}), {dtype}, {memory}: {type(error).__name__}: {_line(error)}")
    return {"cases": done, "asked": count, "failed": failed, "ok": not failed and done == count}


def repeats(place: Any, count: int, seconds: float) -> dict[str, Any]:
    """Run every call again and again; return those whose bits changed."""
    end, changed, done = time.monotonic() + seconds, [], 0
    for call, memory in _quick():
        if time.monotonic() > end:
            break
        done += 1
        first = _bits(call, place, memory)
        if any(_bits(call, place, memory) != first for _ in range(count - 1)):
            changed.append(f"{call.name}, {memory}")
    total = len(_quick())
    return {"calls": done, "of": total, "times each": count, "changed": changed, "ok": not changed and done == total}


def _quick() -> list[tuple[Call, str]]:
    return [(call, memory) for call in CALLS.values() if call.quick for memory in FORMATS]


def _bits(call: Call, place: Any, memory: str) -> list[bytes | None]:
    return [None if result is None else result.tobytes() for result in call.on(place, "float32", memory)]


def every_kernel(place: Any) -> dict[str, Any]:
    """Run every call once in float32, and in float16 what has kernels for that alone: what compute-sanitizer watches."""
    chosen = [(call, "float32") for call in CALLS.values()]
    chosen += [(call, "float16") for call in CALLS.values() if call.name.startswith("affine")]
    for call, dtype in chosen:
        for memory in FORMATS:
            call.on(place, dtype, memory)
    return {"calls": len(chosen) * len(FORMATS), "ok": True}


# compute-sanitizer ----------------------------------------------------------------------------------------------------

# One planted fault for each tool: a tool that does not see it has checked nothing.
FAULTS = {
    "memcheck": """extern "C" __global__ void fault(float* out, int n) { out[n + (1 << 20) + threadIdx.x] = 1; }""",
    "racecheck": """extern "C" __global__ void fault(float* out, int n) {
  __shared__ float cell[1];
  cell[0] = threadIdx.x;
  out[threadIdx.x % n] = cell[0];
}""",
    "initcheck": """extern "C" __global__ void fault(float* out, int n) { out[threadIdx.x] = out[threadIdx.x + n / 2] + 1; }""",
    "synccheck": """extern "C" __global__ void fault(float* out, int n) {
  if (threadIdx.x == 1) __syncwarp(1u);
  out[threadIdx.x % n] = 1;
}""",
}
_FOUND = 86  # exit status of compute-sanitizer when its tool found something


def run_fault(tool: str) -> None:
    """Run the planted fault of a tool; the tool, not this, is to notice."""
    import cupy

    cupy.cuda.set_allocator(None)
    out = cupy.empty(256, cupy.float32)
    cupy.RawKernel(FAULTS[tool], "fault")((1,), (64,), (out, np.int32(256)))
    cupy.cuda.runtime.deviceSynchronize()


def sanitizer() -> str | None:
    """Return the path of compute-sanitizer, if it is installed."""
    found = shutil.which("compute-sanitizer")
    places = [os.environ.get("CUDA_PATH", ""), "/usr/local/cuda"]
    paths = [Path(place) / "bin" / "compute-sanitizer" for place in places if place]
    return found or next((str(path) for path in paths if path.exists()), None)


def sanitize(seconds: float) -> dict[str, Any]:
    """Watch every kernel with each tool, after its planted fault as a control."""
    program = sanitizer()
    if program is None:
        return {"ok": None, "why": "not measured: compute-sanitizer is not installed"}
    end, result = time.monotonic() + seconds, {}
    for tool in FAULTS:
        left = end - time.monotonic()
        if left < 5:
            result[tool] = "not measured: time was spent"
            continue
        control = _watched(program, tool, f"fault-{tool}", left)
        if control[0] != _FOUND:
            result[tool] = f"not measured: the planted fault was not noticed ({control[1]})"
            continue
        status, said = _watched(program, tool, "every-kernel", end - time.monotonic())
        result[tool] = "clean" if status == 0 else said
    return {"ok": all(said == "clean" for said in result.values()), "tools": result}


def _watched(program: str, tool: str, child: str, seconds: float) -> tuple[int, str]:
    command = [program, "--tool", tool, "--error-exitcode", str(_FOUND)]
    command += [sys.executable, "-m", "bench.gpu_run", "--child", child]
    status, out, errors = run_group(command, max(seconds, 1))
    if status is None:
        return -1, "not measured: time was spent"
    lines = [line for line in out.splitlines() if line.startswith("=========")]
    return status, " | ".join(lines[:6]) or (errors.splitlines() or ["no output"])[-1]


def run_group(command: list[str], seconds: float, **variables: str) -> tuple[int | None, str, str]:
    """Run a program in the checkout; return its status, None if it had to be ended with all it started, and output."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, errors = process.communicate()
        return None, out, errors
    return process.returncode, out, errors


# Memory ---------------------------------------------------------------------------------------------------------------


def out_of_memory(place: Any) -> dict[str, Any]:
    """Ask for more than there is, and see that the next call works and nothing is lost."""
    import cupy

    pool = cupy.get_default_memory_pool()
    x, w = cupy.ones((64, 8, 64, 64), cupy.float32), cupy.ones((256, 8, 3, 3), cupy.float32)
    pool.free_all_blocks()
    used = pool.used_bytes()
    pool.set_limit(size=used + 2**20)
    try:
        gpuconv.conv_forward(x, w)
        return {"ok": False, "why": "a limited pool gave memory that it does not have"}
    except Exception as error:  # noqa: BLE001 - which one it is, is the result
        name = type(error).__name__
    finally:
        pool.set_limit(size=0)
    call = CALLS["conv_first_layer"]
    assert_as_expected(call.on(place, "float32", "NCHW"), call.expected("float32", "NCHW"))
    kept = pool.used_bytes() - used
    return {"ok": "Memory" in name and kept <= 2**20, "raised": name, "bytes not given back": kept}


# Large arrays ---------------------------------------------------------------------------------------------------------


def _above_2_31(cupy: Any) -> None:
    """Elements beyond the reach of 32-bit counting: relu and its gradient, at both ends."""
    x = cupy.empty(2**31 + 4099, cupy.float16)
    x.fill(-1)
    x[-5:] = cupy.asarray([1, -2, 3, -4, 5], cupy.float16)
    y, cache = gpuconv.relu_forward(x)
    assert y[-5:].get().tolist() == [1, 0, 3, 0, 5]
    assert y[:5].get().tolist() == [0] * 5
    x.fill(2)
    dx = gpuconv.relu_backward(x, cache)
    assert dx[-5:].get().tolist() == [2, 0, 2, 0, 2]


def _images_above_2_31(cupy: Any) -> None:
    """An image batch of that size: depthwise convolution and pooling, in its last corner."""
    x = cupy.zeros((33, 64, 1024, 1024), cupy.float16)  # 2.2e9 elements
    rng = np.random.default_rng(0)
    corner = rng.integers(-4, 5, (64, 8, 8)).astype(np.float16)
    x[-1, :, -8:, -8:] = cupy.asarray(corner)
    y, cache = gpuconv.max_pool_forward(x, window=2)
    expected = corner.reshape(64, 4, 2, 4, 2).max((2, 4))
    np.testing.assert_array_equal(y[-1, :, -4:, -4:].get(), expected)
    del y, cache
    w = cupy.full((64, 1, 1, 1), 3, cupy.float16)
    y, _ = gpuconv.conv_forward(x, w, groups=64)
    np.testing.assert_array_equal(y[-1, :, -8:, -8:].get(), 3 * corner)


def _many_images(cupy: Any) -> None:
    """N = 131,072: more images than a grid has blocks in y or z."""
    _same_as_cpu(cupy, (131_072, 2, 4, 4), (16, 2, 3, 3))


def _many_channels(cupy: Any) -> None:
    """C = 100,000: more channels than a grid has blocks in y or z."""
    _same_as_cpu(cupy, (2, 100_000, 2, 2), (1, 100_000, 1, 1))


def _same_as_cpu(cupy: Any, x_shape: tuple[int, int, int, int], w_shape: tuple[int, int, int, int]) -> None:
    """Run convolution, pooling and batch norm forward and backward beside the CPU backend in float64."""
    rng = np.random.default_rng(0)
    C = x_shape[1]
    x, w = (rng.integers(-2, 3, shape).astype(np.float32) for shape in (x_shape, w_shape))
    gamma, beta = (rng.standard_normal(C).astype(np.float32) for _ in range(2))

    def run(put: Callable[[np.ndarray], Any]) -> list[Any]:
        pad = 1 if w_shape[2] > 1 else 0
        y, cache = gpuconv.conv_forward(put(x), put(w), pad=pad)
        pooled, pool_cache = gpuconv.max_pool_forward(put(x))
        running = put(np.zeros(C, np.float32)), put(np.ones(C, np.float32))
        normed, norm_cache = gpuconv.spatial_batchnorm_forward(put(x), put(gamma), put(beta), *running)
        results = [y, *gpuconv.conv_backward(y, cache), pooled, gpuconv.max_pool_backward(pooled, pool_cache)]
        return [*results, normed, *gpuconv.spatial_batchnorm_backward(put(x), norm_cache), *running]

    vectors = gamma, beta, np.zeros(C), np.ones(C)
    scales = batchnorm_scales(x, *vectors, x, unit=U_SUM["float32"])
    expected = run(lambda a: a.astype(np.float64))
    first = len(expected) - len(scales)  # of batch norm's results; the others are sums of whole numbers
    expected[first:] = [Scaled(values, scale) for values, scale in zip(expected[first:], scales, strict=True)]
    assert_as_expected([got if got is None else got.get() for got in run(cupy.asarray)], expected)


# Case, and bytes of device memory that it needs.
LARGE: dict[str, tuple[Callable[[Any], None], float]] = {
    "relu of 2^31 + 4,099 elements": (_above_2_31, 18e9),
    "pooling and convolution of 2.2e9 elements": (_images_above_2_31, 11e9),
    "131,072 images": (_many_images, 2e9),
    "100,000 channels": (_many_channels, 1e9),
}


def large(seconds: float) -> dict[str, Any]:
    """Run the cases that fit into the free memory."""
    import cupy

    end, result = time.monotonic() + seconds, {}
    for name, (case, needed) in LARGE.items():
        cupy.get_default_memory_pool().free_all_blocks()
        free, _ = cupy.cuda.runtime.memGetInfo()
        if free < needed * 1.05:
            result[name] = f"not run: needs {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are free"
        elif time.monotonic() > end:
            result[name] = "not run: time was spent"
        else:
            try:
                case(cupy)
                result[name] = "right"
            except Exception as error:  # noqa: BLE001 - one failure must not hide the others
                result[name] = f"{type(error).__name__}: {_line(error)}"
    ran = [said for said in result.values() if not said.startswith("not run")]
    return {"ok": bool(ran) and all(said == "right" for said in ran), "cases": result}


def _line(error: Exception) -> str:
    """Return the first words of an error's message."""
    return " ".join(str(error).split())[:300]
