"""What bounds the hot loops of the convolutions on tensor cores, from their machine code: a model, which times nothing.

    python -m tests.ladder.tensor_loops [--write | --show]

Prints a table and compares it with tensor_loops.json, or writes that; --show prints what is recorded and compiles nothing.
Exit status 1: a loop needs over 3 % more cycles than recorded, or so many less that the table is out of date.

It is the model of hot_loops.py for loops of HMMA.  NVRTC compiles every kernel and tile for sm_80 and sm_90.  Of the
loop with the most HMMA one turn is taken, along the path on which the next slice is loaded.  Of a warp and a step (DEPTH
rows of the product) are counted, in cycles of a multiprocessor:

  issue    instructions / 4: each of four schedulers issues one in a cycle, those that the compiler puts in to wait included
  shared   passes over shared memory, at 128 bytes each: what ldmatrix brings, cp.async writes and loads of 16 bytes
           read, and one for each other access, of which many lanes read the same.  That no two lanes of an ldmatrix
           meet in a bank, and that such loads take one pass, the emulator counts; of cp.async it is how chunks are placed
  tensor   HMMA.16816, or of TF32 HMMA.1688, at 8 cycles of one of four tensor cores on sm_80, at 6.5 on sm_90

The largest is the bound.  `alone` is the share of the tensor cores' peak that the loop can reach if nothing else holds it
up, `beside others` that times 0.75, as in hot_loops.py.

Sources: 8 cycles are 312 TFLOP/s on 108 multiprocessors at 1.41 GHz (NVIDIA A100 data sheet).  The peak of sm_90 would be 4,
which mma.sync does not reach: 0.62 of it at most, arXiv:2402.13499.  128 bytes: CUDA C++ programming guide, 8.0 and 9.0.

What it does not know is what hot_loops.py does not know, and what one warp of a block does besides: where it works out the
places of the next windows (conv_weight_tensor.cu), it issues some 45 instructions more.  Sums that a block writes in between
are not in a turn.
"""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from emulate import control_flow, cubin, sass
from emulate.nvrtc import nvrtc

from gpuconv.cuda import conv_tensor, conv_weight_tensor, conv_weight_tensor_float
from gpuconv.cuda.kernel import OPTIONS
from gpuconv.cuda.source import source

from . import loop_tables
from .kernel_calls import Call, Launched, Settings, _of_float32, launched, rough
from .loop_tables import ARCHS, largest, read, run

TABLE = Path(__file__).with_suffix(".json")
DTYPES = ("float16", "float32")
COLUMNS = (
    *("instructions", "HMMA", "ldmatrix", "cp.async", "shared cycles"),
    *("registers", "blocks per multiprocessor"),
)
_SCHEDULERS = _TENSOR_CORES = 4
_HMMA_CYCLES = {"80": 8.0, "90": 6.5}
_PEAK_CYCLES = {"80": 8.0, "90": 4.0}
_PASS_BYTES = 128
_CHUNK = 16
_WARP = 32
_KEPT = 0.75
# What a product of an HMMA takes: 16 x 8 sums, 16 rows of 16 bits or 8 of TF32.
_SUMS, _ROWS, _ROWS_OF_TF32 = 16 * 8, 16, 8
_WEIGHTS_OF_FLOAT = "conv_backward_weight_tensor_float"  # which has no other dtype, and so no T


class TensorLoop(NamedTuple):
    """What a warp does in a step of a hot loop, and what its kernel takes of a multiprocessor: a row of the table."""

    instructions: int
    hmma: int
    ldmatrix: int
    copies: int
    shared_cycles: int
    registers: int
    blocks: int

    def cycles(self, arch: str) -> dict[str, float]:
        """Return the cycles of each bound."""
        return {
            "issue": self.instructions / _SCHEDULERS,
            "shared": self.shared_cycles,
            "tensor": self.hmma * _HMMA_CYCLES[arch] / _TENSOR_CORES,
        }

    def bound(self, arch: str) -> tuple[float, str]:
        """Return the cycles of the loop, and which of them these are."""
        return largest(self.cycles(arch))

    def shares(self, arch: str) -> tuple[float, float]:
        """Return the share of the tensor cores' peak alone, and beside other blocks."""
        alone = self.hmma * _PEAK_CYCLES[arch] / _TENSOR_CORES / self.bound(arch)[0]
        return alone, alone * _KEPT

    @property
    def hmma_share(self) -> float:
        """The share of HMMA among the instructions."""
        return self.hmma / self.instructions


def _calls() -> Iterator[Call]:
    """Yield calls that between them launch every kernel of tensor cores with each of its tiles."""
    by_forward, by_weight = list(conv_tensor._SPEED), list(conv_weight_tensor._CYCLES)
    for i in range(max(len(by_forward), len(by_weight))):
        settings = (
            (conv_tensor, "_SPEED", {by_forward[i % len(by_forward)]: 1.0}),
            (conv_weight_tensor, "_CYCLES", {by_weight[i % len(by_weight)]: 1}),
        )
        yield _call(f"conv on tensor cores {i}", settings, ("float16",))
    large, slim = conv_weight_tensor_float.LARGE, conv_weight_tensor_float.SLIM
    flat, small = conv_weight_tensor_float.FLAT, conv_weight_tensor_float.SMALL
    for products, tiles, of_weights in (
        (1, by_forward, (large, slim, flat, small)),
        (3, (*conv_tensor._OF_THREE_PRODUCTS, conv_tensor.SMALL), (slim, flat, small)),
    ):
        for tile, of_weight in zip(tiles, of_weights, strict=True):
            settings = *_of_float32(products, tile), (conv_weight_tensor_float, "tile_of", lambda *_, t=of_weight: t)
            yield _call(f"conv of float32 by {products}, {tile}", settings, ("float32",))


def _call(name: str, settings: Settings, dtypes: tuple[str, ...]) -> Call:
    call = rough("conv", name, x=(1, 16, 6, 8), w=(16, 16, 3, 3), pad=1)
    return dataclasses.replace(call, settings=settings, dtypes=dtypes)


def instances() -> dict[str, Launched]:
    """Return every kernel that multiplies on tensor cores with every tile and dtype, by C++ name."""
    every = launched(list(_calls()), DTYPES, ("NHWC",))
    return {name: one for name, one in every.items() if "_tensor" in one.kernel.name and "DEPTH" in _named(one)}


def _named(one: Launched) -> dict[str, Any]:
    return {name: value for (_, name), value in zip(one.kernel.signature.templates, one.templates, strict=True)}


def hmma_of_step(one: Launched) -> int:
    """Return the HMMA of a warp in a step, from the template arguments."""
    of = _named(one)
    sums = math.prod([of[name] for name in of if name.startswith("WARP_")] or [64, 64])
    tf32 = one.kernel.name == _WEIGHTS_OF_FLOAT or of.get("T") == "float32"
    steps = of["DEPTH"] // (_ROWS_OF_TF32 if tf32 else _ROWS)
    return int(sums // _SUMS * steps * of.get("PRODUCTS", 1) // of.get("SHARES", 1))


# Counting -----------------------------------------------------------------------------------------------------------


def measure(chosen: dict[str, dict[str, Launched]]) -> dict[str, dict[str, TensorLoop]]:
    """Compile kernels, given by architecture and C++ name; return their hot loops by C++ name and architecture."""
    work = [(arch, one) for arch, kernels in chosen.items() for one in kernels.values()]
    rows: dict[str, dict[str, TensorLoop]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NVRTC works without Python's lock
        for (arch, one), loop in zip(work, pool.map(lambda pair: _loop(*pair), work), strict=True):
            rows.setdefault(one.expression, {})[arch] = loop
    return {name: dict(sorted(of_archs.items())) for name, of_archs in sorted(rows.items())}


def _loop(arch: str, one: Launched) -> TensorLoop:
    compiled = cubin.compile_cubin(source(one.kernel.file), one.kernel.file, (one.expression,), arch, OPTIONS)
    lines = sass.disassemble(compiled.code)[compiled.symbols[one.expression]]
    turn = control_flow.hottest_turn(lines, lambda line: line.opcode.startswith("HMMA"), _weight)
    counts = Counter(line.opcode.split(".")[0] for line in turn)
    if counts["HMMA"] != hmma_of_step(one):
        msg = f"{one.expression} on sm_{arch}: {counts['HMMA']} HMMA in the hot loop, {hmma_of_step(one)} in a step"
        raise ValueError(msg)
    needed, threads = compiled.resources[one.expression], math.prod(one.kernel.block)
    if needed.stack_bytes or needed.spills:
        msg = (
            f"{one.expression} on sm_{arch} keeps {needed.stack_bytes} bytes in local memory, {needed.spills} of spills"
        )
        raise ValueError(msg)
    return TensorLoop(
        len(turn),
        counts["HMMA"],
        counts["LDSM"],
        counts["LDGSTS"],
        sum(map(passes, turn)),
        needed.registers,
        cubin.occupancy(int(arch), threads, needed.registers, needed.shared_bytes + one.shared).blocks,
    )


def _weight(lines: list[sass.Line]) -> tuple[int, ...]:
    """Return products and copies; what is less of: instructions."""
    names = Counter(line.opcode.split(".")[0] for line in lines)
    return names["HMMA"], names["LDGSTS"], -len(lines)


def passes(line: sass.Line) -> int:
    """Return the passes over shared memory of an instruction, 0 of one that never runs."""
    name = line.opcode.split(".")[0]
    if line.guard == "!PT" or name not in ("LDSM", "LDGSTS", "LDS", "STS"):
        return 0
    if name == "LDSM":
        return int(line.opcode.rpartition(".")[2])  # matrices of 8 rows of 16 bytes
    return line.bytes * _WARP // _PASS_BYTES if name == "LDGSTS" or line.bytes == _CHUNK else 1


# The table ----------------------------------------------------------------------------------------------------------


def table(chosen: dict[str, Launched]) -> dict[str, Any]:
    """Return what is checked in."""
    return {"nvrtc": nvrtc().version, "columns": list(COLUMNS), "rows": measure(dict.fromkeys(ARCHS, chosen))}


def recorded() -> dict[str, Any]:
    """Return the table that is checked in."""
    return read(TABLE, TensorLoop)


def shown(rows: dict[str, dict[str, TensorLoop]]) -> str:
    """Return the table to be read, as Markdown."""
    columns = ("instructions (HMMA)", "LDSM, LDGSTS", "issue", "shared", "tensor")
    return loop_tables.shown(rows, columns, _counts)


def _counts(loop: TensorLoop) -> list[str]:
    return [
        f"{loop.instructions} ({loop.hmma}, {loop.hmma_share:.0%})",
        f"{loop.ldmatrix}, {loop.copies}",
    ]


def main() -> int:
    """Run from the command line."""
    return run(__doc__, TABLE, recorded, lambda: table(instances()), shown)


if __name__ == "__main__":
    sys.exit(main())
