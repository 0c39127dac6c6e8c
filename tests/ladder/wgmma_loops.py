"""What bounds the hot loops of the convolutions by warpgroups, from their machine code: a model, which times nothing.

    python -m tests.ladder.wgmma_loops [--write | --show]

Prints a table and compares it with wgmma_loops.json, or writes that; --show prints what is recorded.  Exit status 1: a
loop needs over 3 % more cycles than recorded, or so many less that the table is out of date.

It is the model of tensor_loops.py for loops of HGMMA, which sm_90a alone has.  Of a block and a step are counted, in
cycles of a multiprocessor:

  issue    instructions of a turn, of each of the eight warps that multiply, over four schedulers
  shared   passes over shared memory, at 128 bytes each: copies of a step written once, and what each HGMMA of each of
           two warpgroups reads itself: 64 lines of A and N of B, 32 bytes each
  tensor   HGMMA.64xNx16 at N / 2 cycles of all four tensor cores, of each of two warpgroups: the peak

The largest is the bound, `alone` the share of the peak that the loop can reach if nothing else holds it up, `beside
others` that times 0.75, as in hot_loops.py.  The launchers choose tiles by these bounds.

Sources: N / 2 cycles are 989 TFLOP/s on 132 multiprocessors at 1.83 GHz (NVIDIA H100 data sheet); 128 bytes: CUDA C++
programming guide, 9.0.  What it does not know: how bulk copies share the passes with HGMMA, what the warp that has
them made issues, how long a step is waited for.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from emulate import control_flow, cubin, sass
from emulate.nvrtc import nvrtc

from gpuconv.cuda.source import source

from . import hopper_calls, loop_tables
from .kernel_calls import Launched
from .loop_tables import largest, read, run

TABLE = Path(__file__).with_suffix(".json")
ARCH = "90"
COLUMNS = ("instructions", "HGMMA", "tensor cycles", "shared cycles", "registers", "blocks per multiprocessor")
_SCHEDULERS, _WARPS, _WARPGROUPS = 4, 8, 2
_PASS_BYTES, _LINE_BYTES, _LINES = 128, 32, 64
_KEPT = 0.75
_HGMMA = re.compile(r"HGMMA\.64x(\d+)x16\.")


class WgmmaLoop(NamedTuple):
    """What a block does in a step of a hot loop, instructions of one warp, and what it takes of a multiprocessor."""

    instructions: int
    hgmma: int
    tensor_cycles: int
    shared_cycles: int
    registers: int
    blocks: int

    def cycles(self, arch: str) -> dict[str, float]:
        """Return the cycles of each bound; there is one architecture."""
        del arch
        issue = self.instructions * _WARPS / _SCHEDULERS
        return {"issue": issue, "shared": self.shared_cycles, "tensor": self.tensor_cycles}

    def bound(self, arch: str) -> tuple[float, str]:
        """Return the cycles of the loop, and which of them these are."""
        return largest(self.cycles(arch))

    def shares(self, arch: str) -> tuple[float, float]:
        """Return the share of the tensor cores' peak alone, and beside other blocks."""
        alone = self.tensor_cycles / self.bound(arch)[0]
        return alone, alone * _KEPT


def instances() -> dict[str, Launched]:
    """Return every kernel with every tile, by C++ name: of float16; bfloat16 differs in nothing that counts."""
    return hopper_calls.instances(("float16",))


def measure(chosen: dict[str, Launched]) -> dict[str, dict[str, WgmmaLoop]]:
    """Compile kernels; return their hot loops by C++ name and architecture."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NVRTC works without Python's lock
        return {name: {ARCH: loop} for name, loop in zip(chosen, pool.map(_loop, chosen.values()), strict=True)}


def _loop(one: Launched) -> WgmmaLoop:
    compiled = cubin.compile_cubin(
        source(one.kernel.file), one.kernel.file, (one.expression,), ARCH, one.kernel.options
    )
    if compiled.performance_warnings:
        msg = f"{one.expression}: ptxas lets wgmma wait: {', '.join(compiled.performance_warnings)}"
        raise ValueError(msg)
    lines = sass.disassemble(compiled.code)[compiled.symbols[one.expression]]
    turn = control_flow.hottest_turn(lines, lambda line: _HGMMA.match(line.opcode) is not None, _weight)
    widths = [int(match[1]) for line in turn if (match := _HGMMA.match(line.opcode)) is not None]
    needed = compiled.resources[one.expression]
    return WgmmaLoop(
        len(turn),
        len(widths),
        sum(width // 2 for width in widths) * _WARPGROUPS,
        sum((_LINES + width) * _LINE_BYTES // _PASS_BYTES for width in widths) * _WARPGROUPS
        + stage(one) // _PASS_BYTES,
        needed.registers,
        cubin.occupancy(int(ARCH), one.kernel.block[0], needed.registers, needed.shared_bytes + one.shared).blocks,
    )


def _weight(lines: list[sass.Line]) -> tuple[int, ...]:
    """Return products; what is less of: instructions."""
    names = Counter(line.opcode.split(".")[0] for line in lines)
    return names["HGMMA"], -len(lines)


def tile(one: Launched) -> dict[str, int]:
    """Return the template arguments of a tile, by their names."""
    pairs = zip(one.kernel.signature.templates, one.templates, strict=True)
    return {name: int(value) for (kind, name), value in pairs if kind == "int"}


def stage(one: Launched) -> int:
    """Return the bytes that are copied in a step."""
    of = tile(one)
    return (of.get("PIXELS", 0) + of["FILTERS"] + of.get("COLUMNS", 0)) * of["DEPTH"] * 2


def table(chosen: dict[str, Launched]) -> dict[str, Any]:
    """Return what is checked in."""
    return {"nvrtc": nvrtc().version, "columns": list(COLUMNS), "rows": measure(chosen)}


def recorded() -> dict[str, Any]:
    """Return the table that is checked in."""
    return read(TABLE, WgmmaLoop)


def shown(rows: dict[str, dict[str, WgmmaLoop]]) -> str:
    """Return the table to be read, as Markdown."""
    columns = ("instructions (HGMMA)", "issue", "shared", "tensor")
    return loop_tables.shown(rows, columns, lambda loop: [f"{loop.instructions} ({loop.hgmma})"], "a block")


def main() -> int:
    """Run from the command line."""
    return run(__doc__, TABLE, recorded, lambda: table(instances()), shown)


if __name__ == "__main__":
    sys.exit(main())
