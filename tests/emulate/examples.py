"""The emulator's own example kernels (kernels/, hopper/kernels/): their text, problems to run them on, and what must come out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .device import EmulatedDevice

_HERE = Path(__file__).resolve().parent
_FOLDERS = (_HERE / "kernels", _HERE / "hopper" / "kernels")
_INCLUDE = re.compile(r'#include "([^"]+)"')

Edits = Sequence[tuple[str, str]]


def edited(name: str, edits: Edits = ()) -> str:
    """Return kernels/<name>; each edit replaces a text that must occur once."""
    (path,) = (folder / name for folder in _FOLDERS if (folder / name).is_file())
    lines = path.read_text(encoding="utf-8")
    for old, new in edits:
        if lines.count(old) != 1:
            msg = f"{name}: expected {old!r} once, found it {lines.count(old)} times"
            raise ValueError(msg)
        lines = lines.replace(old, new)
    return lines


def text(name: str, edits: Edits = ()) -> str:
    """Return kernels/<name>, edited, with its headers in their places."""
    spliced = [f'#line 1 "kernels/{name}"']
    for number, line in enumerate(edited(name, edits).splitlines(), 1):
        include = _INCLUDE.match(line)
        spliced += [text(include[1]), f'#line {number + 1} "kernels/{name}"'] if include else [line]
    return "\n".join(spliced).replace("#pragma once", "")


@dataclass(frozen=True)
class Out:
    """An output of a kernel, which must equal `want`; its memory starts as 0xFF bytes, or as zeros."""

    want: np.ndarray
    dtype: Any
    zeros: bool = False


@dataclass(frozen=True)
class Problem:
    """One launch of one kernel."""

    file: str
    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    args: tuple[Any, ...]  # arrays, Outs, NumPy scalars, None
    shared: int = 0
    tolerance: float = 1e-6  # of the largest difference, relative to the largest value
    together: tuple[str, ...] = ()  # kernels of the file that are built along: one build costs little more than none

    def run(self, device: EmulatedDevice, edits: Edits = ()) -> list[np.ndarray]:
        """Run on a device and return the outputs."""
        expressions = self.together or (self.kernel,)
        function = device.compile(text(self.file, edits), self.file, expressions, ())[self.kernel]
        args = [_on(device, a) for a in self.args]
        device.launch(function, self.grid, self.block, args, self.shared)
        return [device.asnumpy(d) for a, d in zip(self.args, args, strict=True) if isinstance(a, Out)]

    def error(self, outputs: Sequence[np.ndarray]) -> float:
        """Return the largest difference to what must come out, relative to the largest value; NaN counts as inf."""
        wants = [a.want for a in self.args if isinstance(a, Out)]
        errors = [
            np.abs(got.astype(np.float64) - want).max() / max(1.0, np.abs(want.astype(np.float64)).max())
            for got, want in zip(outputs, wants, strict=True)
        ]
        worst = float(np.max(errors))
        return np.inf if np.isnan(worst) else worst

    def check(self, device: EmulatedDevice, edits: Edits = ()) -> list[np.ndarray]:
        """Run, and raise AssertionError if a wrong result comes out."""
        outputs = self.run(device, edits)
        error = self.error(outputs)
        assert error <= self.tolerance, f"{self.kernel}: off by {error:.1e}, {self.tolerance:.1e} allowed"
        return outputs


def _on(device: EmulatedDevice, arg: Any) -> Any:
    if isinstance(arg, Out):
        return (device.zeros if arg.zeros else device.empty)(arg.want.shape, arg.dtype)
    return device.asarray(arg) if type(arg) is np.ndarray and arg.ndim else arg


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((*shape, seed)).standard_normal(shape).astype(dtype)


def _ints(*values: int) -> tuple[np.int32, ...]:
    return tuple(map(np.int32, values))


def convolved(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the convolution of NCHW x with KCRS w, stride 1, "same" padding, in float64."""
    (n, _, height, width), (k, _, r, s) = x.shape, w.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (r // 2,) * 2, (s // 2,) * 2))
    y = np.zeros((n, k, height, width))
    for i in range(r):
        for j in range(s):
            y += np.einsum("nchw,kc->nkhw", padded[:, :, i : i + height, j : j + width], w[:, :, i, j].astype(float))
    return y


def gemm_tiled(m: int = 100, n: int = 72, k: int = 40) -> Problem:
    a, b = _normal(m, k), _normal(k, n, seed=1)
    out = Out(a.astype(float) @ b, np.float32)
    return Problem("gemm_tiled.cu", "gemm_tiled", (_ceil(n, 64), _ceil(m, 64)), (256,), (a, b, out, *_ints(m, n, k)))


def conv_direct(n: int = 2, c: int = 4, h: int = 16, w: int = 16, k: int = 16) -> Problem:
    x, weights, bias = _normal(n, c, h, w), _normal(k, c, 3, 3), _normal(k)
    out = Out(convolved(x, weights) + bias[None, :, None, None], np.float32)
    grid = (_ceil(w, 16) * _ceil(h, 16), _ceil(k, 8), n)
    args = (x, weights, bias, out, *_ints(c, h, w, k))
    return Problem("conv_direct.cu", "conv_direct<3, 3, 8>", grid, (16, 16), args, shared=8 * 9 * 4)


def batchnorm_statistics(n: int = 8, c: int = 4, hw: int = 256) -> Problem:
    x = _normal(n, c, hw)
    mean = Out(x.mean((0, 2), dtype=float), np.float32)
    invstd = Out(1 / np.sqrt(x.var((0, 2), dtype=float) + 1e-5), np.float32)
    args = (x, mean, invstd, *_ints(n, c, hw), np.float32(1e-5))
    return Problem("batchnorm_statistics.cu", "batchnorm_statistics", (c,), (256,), args)


def weight_gradient(n: int = 8, c: int = 2, h: int = 12, w: int = 12, k: int = 3) -> Problem:
    x, dy = _normal(n, c, h, w), _normal(n, k, h, w)
    padded = np.pad(x.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)))
    dw = np.zeros((k, c, 3, 3))
    for r in range(3):
        for s in range(3):
            dw[:, :, r, s] = np.einsum("nkhw,nchw->kc", dy, padded[:, :, r : r + h, s : s + w])
    args = (x, dy, Out(dw, np.float32, zeros=True), *_ints(n, c, h, w, k, 3, 3, 2))
    return Problem("weight_gradient.cu", "weight_gradient", (_ceil(dw.size, 4), 1, _ceil(n, 2)), (32, 4), args)


def conv_wmma(n: int = 2, c: int = 16, h: int = 9, w: int = 9, k: int = 24) -> Problem:
    x, weights = _normal(n, c, h, w, dtype=np.float16), _normal(k, c, 3, 3, dtype=np.float16)
    out = Out(convolved(x, weights).transpose(0, 2, 3, 1), np.float32)
    last = [np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, weights)]
    args = (*last, out, *_ints(n, h, w, c, k, 3, 3))
    return Problem("conv_wmma.cu", "conv_wmma", (_ceil(n * h * w, 64), _ceil(k, 64)), (128,), args)


def gemm_tf32(m: int = 48, n: int = 32, k: int = 64) -> Problem:
    a, b = _normal(m, k), _normal(k, n, seed=1)
    args = (a, b, Out(a.astype(float) @ b, np.float32), *_ints(m, n, k))
    return Problem("conv_wmma.cu", "gemm_tf32", (n // 16, m // 16), (32,), args, tolerance=1e-3)


def gemm_mma(m: int = 128, n: int = 64, k: int = 96, stages: int = 3) -> Problem:
    a, b = _normal(m, k, dtype=np.float16), _normal(k, n, dtype=np.float16, seed=1)
    out = Out(a.astype(float) @ b.astype(float), np.float32)
    shared = stages * (64 * 40 + 32 * 72) * 2
    grid = (n // 64, m // 64)
    return Problem("gemm_mma.cu", f"gemm_mma<{stages}>", grid, (128,), (a, b, out, *_ints(m, n, k)), shared=shared)


PROBLEMS: dict[str, Callable[..., Problem]] = {
    "shared_tiles_and_float4": gemm_tiled,
    "template_halo_and_dynamic_shared": conv_direct,
    "warp_shuffles": batchnorm_statistics,
    "atomics_between_blocks": weight_gradient,
    "wmma_half": conv_wmma,
    "wmma_tf32": gemm_tf32,
    "mma_ldmatrix_cp_async": gemm_mma,
}


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Return float32 values as the bits of bfloat16, rounded to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)
