"""What bounds the hot loops of the tiled convolutions, from their machine code: a model, in which nothing is timed.

    python -m tests.ladder.hot_loops [--write | --show]

Prints a table and compares it with hot_loops.json, or writes that; --show prints what is recorded and compiles nothing.
Exit status 1: a loop needs over 3 % more cycles than recorded, or so many less that the table is out of date.

NVRTC compiles every tiled kernel, tile, dtype and memory format for sm_80 and sm_90.  Of the loop with the most FFMA
one turn is taken, along the path on which the product is made, the next tile's numbers are read, in packs where the
code has packs, and the tap stays the same: every warp is taken for the one that does most.  Of a warp and a step (DEPTH
rows of the product) are counted, in cycles of a multiprocessor:

  issue    instructions / 4: each of four schedulers issues one in a cycle, guarded ones that do nothing included
  shared   passes over shared memory, at 128 bytes each: instructions of the machine code times what the emulator counts
           for a request of their source line, bank conflicts included.  A load of 16 bytes a lane takes 4 cycles, 2
           where lanes t and t ^ 1, or t and t ^ 2, read the same address
  FFMA     FFMA / 4 on sm_90, which has 128 lanes for them, and FFMA / 2 on sm_80, which has 64

The largest is the bound.  `alone` is FFMA / bound: the share of the peak rate of FFMA that the loop can reach if
nothing else holds it up.  `beside others` is that times what a multiprocessor keeps with as many blocks of 256 threads
as registers and shared memory allow: 0.50 with one, 0.75 with two, 0.78 with three or more.

Sources: schedulers, lanes: CUDA C++ programming guide, throughput of arithmetic instructions and compute capabilities 8.0
and 9.0.  Pairs of lanes: a developer of NVIDIA for 7.0 to 7.5, forums.developer.nvidia.com/t/77228.  0.75: cuBLAS's
SGEMM reaches 45 to 47 of 67 TFLOP/s on an H100 with a loop that is FFMA to 0.93; 0.50 and 0.78 are estimates, and so
is each of the three on sm_80.

What it does not know: whether pairs of lanes count on 8.0 and 9.0; how long memory, barriers and dependent instructions
keep a warp waiting; conflicts of register banks, dual use of pipes (integers share one with half the lanes), the clock;
what happens outside the loop and at a change of the tap (shares are smaller with few channels); whether blocks fill the
multiprocessors.  So it says what a loop cannot beat and which change moves its bound, not how long anything takes.
"""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from emulate import LaunchRecord, control_flow, cubin, sass
from emulate.build import cache_folder, digest
from emulate.nvrtc import nvrtc

from gpuconv.cuda.kernel import OPTIONS
from gpuconv.cuda.source import source

from . import loop_tables
from .kernel_calls import FORMATS, TILED_DTYPES, GroupedDevice, Launched, calls_of_tiles, emulated_on, launched
from .loop_tables import ARCHS, largest, read, run

TABLE = Path(__file__).with_suffix(".json")
COLUMNS = (
    *("instructions", "FFMA", "shared loads", "shared stores", "global loads", "shared cycles"),
    *("registers", "blocks per multiprocessor"),
)
_SCHEDULERS = 4
_FFMA_LANES = {"80": 64, "90": 128}
_KEPT = {1: 0.50, 2: 0.75, 3: 0.78}  # of the rate of issue, by blocks of 256 threads


class Loop(NamedTuple):
    """What a warp does in a step of a hot loop, and what its kernel takes of a multiprocessor: a row of the table."""

    instructions: float
    ffma: float
    shared_loads: float
    shared_stores: float
    global_loads: float
    shared_cycles: float
    registers: int
    blocks: int

    def cycles(self, arch: str) -> dict[str, float]:
        """Return the cycles of each bound."""
        return {
            "issue": self.instructions / _SCHEDULERS,
            "shared": self.shared_cycles,
            "FFMA": self.ffma * 32 / _FFMA_LANES[arch],
        }

    def bound(self, arch: str) -> tuple[float, str]:
        """Return the cycles of the loop, and which of them these are."""
        return largest(self.cycles(arch))

    def shares(self, arch: str) -> tuple[float, float]:
        """Return the share of the peak rate of FFMA alone, and beside other blocks."""
        alone = self.cycles(arch)["FFMA"] / self.bound(arch)[0]
        return alone, alone * _KEPT[min(self.blocks, max(_KEPT))]


def instances(dtypes: Collection[str] = TILED_DTYPES) -> dict[str, Launched]:
    """Return every tiled kernel with every tile, dtype and memory format, by C++ name."""
    every = launched(list(calls_of_tiles()), tuple(dtypes))
    return {name: one for name, one in every.items() if one.kernel.name.endswith(("_tiled", "_few"))}


# Counting -----------------------------------------------------------------------------------------------------------

Cycles = dict[str, dict[str, tuple[float, float]]]  # by kind of access and source line: of a request; bytes of a lane


@functools.cache
def shared_cycles() -> dict[str, Cycles]:
    """Return what the emulator counts for the accesses to shared memory of each kernel for float32, by C++ name.

    Kernels for float16 keep the same float in shared memory.
    """
    every = instances(("float32",))
    device = GroupedDevice("emulated-stats", every.values())
    cycles: dict[str, Cycles] = {}
    with emulated_on(device) as place:
        for call in calls_of_tiles():
            for memory in FORMATS:
                device.launches.clear()
                call.on(place, "float32", memory)
                cycles |= {one.kernel: _cycles_of(one) for one in device.launches if one.kernel in every}
    return cycles


def _cycles_of(record: LaunchRecord) -> Cycles:
    sums: dict[str, dict[str, list[int]]] = {}
    for site in record.sites:
        if site.kind.startswith("shared"):
            of_line = sums.setdefault(site.kind, {}).setdefault(site.line.partition(" ")[0], [0, 0, 0, 0])
            for i, count in enumerate((site.units, site.requests, site.bytes, site.lanes)):
                of_line[i] += count
    return {
        kind: {line: (units / requests, size / lanes) for line, (units, requests, size, lanes) in lines.items()}
        for kind, lines in sums.items()
    }


def measure(chosen: dict[str, dict[str, Launched]]) -> dict[str, dict[str, Loop]]:
    """Compile kernels, given by architecture and C++ name; return their hot loops by C++ name and architecture."""
    work = [(arch, one) for arch, kernels in chosen.items() for one in kernels.values()]
    cycles = {one.expression: shared_cycles()[one.expression.replace("half16", "float")] for _, one in work}
    rows: dict[str, dict[str, Loop]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NVRTC works without Python's lock
        for (arch, one), compiled in zip(work, pool.map(lambda pair: _compiled(*pair), work), strict=True):
            rows.setdefault(one.expression, {})[arch] = _loop(arch, one, compiled, cycles[one.expression])
    return {name: dict(sorted(of_archs.items())) for name, of_archs in sorted(rows.items())}


def _compiled(arch: str, one: Launched) -> dict[str, Any]:
    """Return a kernel's registers, shared memory and hot turn as (opcode, source line, how often)."""
    text = source(one.kernel.file)
    code = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in (cubin, sass, control_flow)]
    code.append(Path(__file__).read_text(encoding="utf-8"))
    key = digest([*code, nvrtc().version, arch, text, one.expression, *OPTIONS])
    kept = cache_folder() / f"{key}.loop.json"
    if kept.exists():
        kept.touch()  # it is in use
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    compiled = cubin.compile_cubin(text, one.kernel.file, (one.expression,), arch, OPTIONS)
    lines = sass.disassemble(compiled.code)[compiled.symbols[one.expression]]
    turn = control_flow.hottest_turn(lines, lambda line: line.opcode.startswith("FFMA"), _weight)
    needed = compiled.resources[one.expression]
    made = {
        "registers": needed.registers,
        "shared": needed.shared_bytes + one.shared,
        "turn": [[*key, count] for key, count in sorted(Counter((x.opcode, x.source) for x in turn).items())],
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=kept.parent, delete=False, encoding="utf-8") as f:
        json.dump(made, f)
    Path(f.name).replace(kept)
    return made


def _weight(lines: list[sass.Line]) -> tuple[int, ...]:
    """Return multiply-adds, bytes written to shared and read from global memory; what is less of: loads, instructions."""
    fused = sum(line.opcode.startswith("FFMA") for line in lines)
    stored = sum(line.bytes for line in lines if line.opcode.startswith("STS"))
    loads = [line.bytes for line in lines if line.opcode.startswith("LDG.")]
    return fused, stored, sum(loads), -len(loads), -len(lines)


def _loop(arch: str, one: Launched, compiled: dict[str, Any], cycles: Cycles) -> Loop:
    counts: Counter[str] = Counter()
    shared = 0.0
    for opcode, line, count in compiled["turn"]:
        name = opcode.split(".")[0]
        counts[name] += count
        if name in ("LDS", "STS"):
            shared += count * _request(one.expression, sass.Line(opcode, "", "", line), cycles)
    steps = counts["FFMA"] / _ffma_of_step(one)
    if steps < 1 or steps % 1:
        msg = f"{one.expression} on sm_{arch}: {counts['FFMA']} FFMA in the hot loop, {steps:.2f} steps"
        raise ValueError(msg)
    registers, blocks = compiled["registers"], math.prod(one.kernel.block)
    return Loop(
        counts.total() / steps,
        counts["FFMA"] / steps,
        counts["LDS"] / steps,
        counts["STS"] / steps,
        counts["LDG"] / steps,
        shared / steps,
        registers,
        cubin.occupancy(int(arch), blocks, registers, compiled["shared"]).blocks,
    )


def _request(kernel: str, line: sass.Line, cycles: Cycles) -> float:
    """Return the cycles of a request to shared memory; the compiler may have cut or joined what a line reads."""
    kind = "shared load" if line.opcode.startswith("LDS") else "shared store"
    if line.source not in cycles[kind]:
        msg = f"{kernel}: {line.opcode} of {line.source}, where the emulator saw no {kind}"
        raise ValueError(msg)
    each, size = cycles[kind][line.source]
    return max(1.0, each * line.bytes / size)


def _ffma_of_step(one: Launched) -> int:
    """Return the multiply-adds of a thread in a step, from the template arguments."""
    of = {name: value for (_, name), value in zip(one.kernel.signature.templates, one.templates, strict=True)}
    return int(of["HEIGHT"] * of["WIDTH"] * of["DEPTH"])


# The table ----------------------------------------------------------------------------------------------------------


def table(chosen: dict[str, Launched]) -> dict[str, Any]:
    """Return what is checked in."""
    rows = measure(dict.fromkeys(ARCHS, chosen))
    return {"nvrtc": nvrtc().version, "columns": list(COLUMNS), "rows": rows}


def recorded() -> dict[str, Any]:
    """Return the table that is checked in."""
    return read(TABLE, Loop)


def shown(rows: dict[str, dict[str, Loop]]) -> str:
    """Return the table to be read, as Markdown."""
    columns = ("instructions (FFMA)", "LDS, STS, LDG", "issue", "shared", "FFMA")
    return loop_tables.shown(rows, columns, _counts)


def _counts(loop: Loop) -> list[str]:
    return [
        f"{loop.instructions:g} ({loop.ffma:g})",
        f"{loop.shared_loads:g}, {loop.shared_stores:g}, {loop.global_loads:g}",
    ]


def main() -> int:
    """Run from the command line."""
    return run(__doc__, TABLE, recorded, lambda: table(instances()), shown)


if __name__ == "__main__":
    sys.exit(main())
