"""What ptxas gives every kernel: registers, shared memory, blocks per multiprocessor, for each architecture.

    python -m tests.ladder.kernel_resources [--only FILE ...] [--write]

Compares with kernel_resources.json, or writes it: with --only the rows of those
kernel files, beside what is recorded of the others.  NVRTC needs no GPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import struct
import sys
import tempfile
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from emulate import cubin
from emulate.build import cache_folder, digest
from emulate.errors import BuildError
from emulate.nvrtc import nvrtc

from gpuconv.cuda.kernel import OPTIONS, Kernel
from gpuconv.cuda.source import source

from . import hopper_calls, kernel_files
from .kernel_calls import TILED_DTYPES, Launched, calls_of_tiles, launched

TABLE = Path(__file__).parent / "kernel_resources.json"
ARCHS = ("75", "80", "90")

# Kernels that may keep something in local memory, and why.
SPILLS_ALLOWED: dict[str, str] = {}


def instances() -> dict[str, Launched]:
    """Return every kernel with every set of template arguments that the calls of kernel_calls.py launch.

    Tiled convolutions are taken with every tile: which one serves a call depends on the multiprocessors.  A kernel that counts in 32 bits is taken with 64 bits, too: arrays that need them are too large for the calls.
    """
    every = {**launched(), **launched(list(calls_of_tiles()), TILED_DTYPES), **hopper_calls.instances()}
    for one in list(every.values()):
        kinds = [name for _, name in one.kernel.signature.templates]
        if "Index" in kinds:
            at = kinds.index("Index")
            templates = (*one.templates[:at], np.dtype(np.int64), *one.templates[at + 1 :])
            wide = one.kernel.expression(templates)
            every.setdefault(wide, Launched(one.kernel, templates, wide, one.shared))
    return dict(sorted(every.items()))


def archs_of(kernel: Kernel) -> tuple[str, ...]:
    """Return the architectures that have a kernel's instructions."""
    return tuple(arch for arch in ARCHS if int(arch) >= kernel.least_arch)


def one_of_each(every: dict[str, Launched]) -> dict[str, dict[str, Launched]]:
    """Return one instance of every kernel, by the architecture to try it on: files take turns."""
    chosen: dict[str, dict[str, Launched]] = {arch: {} for arch in ARCHS}
    turns = dict(zip(sorted({one.kernel.file for one in every.values()}), itertools.count()))
    seen = set()
    for name, one in every.items():
        if one.kernel.name not in seen:
            seen.add(one.kernel.name)
            archs = archs_of(one.kernel)
            chosen[archs[turns[one.kernel.file] % len(archs)]][name] = one
    return chosen


def measure(archs: Sequence[str], chosen: dict[str, Launched]) -> dict[str, dict[str, dict[str, int]]]:
    """Compile kernels; return what each needs, by architecture and C++ name.

    Each is compiled alone, as at its first launch on a GPU: with others beside it, ptxas allots other registers.  What
    was measured stays in the emulator's cache folder.
    """
    return measure_each(
        {arch: {name: one for name, one in chosen.items() if arch in archs_of(one.kernel)} for arch in archs}
    )


def measure_each(chosen: dict[str, dict[str, Launched]]) -> dict[str, dict[str, dict[str, int]]]:
    """Do as `measure`, for other kernels on each architecture."""
    work = [(arch, one) for arch, kernels in chosen.items() for one in kernels.values()]
    rows: dict[str, dict[str, dict[str, int]]] = {arch: {} for arch in chosen}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NVRTC works without Python's lock
        for (arch, one), row in zip(work, pool.map(lambda pair: _measured(*pair), work), strict=True):
            rows[arch][one.expression] = row
    return rows


def _measured(arch: str, one: Launched) -> dict[str, int]:
    file, text = one.kernel.file, source(one.kernel.file)
    code = [Path(module).read_text(encoding="utf-8") for module in (__file__, cubin.__file__)]
    key = digest(
        [*code, nvrtc().version, arch, text, one.expression, f"{one.kernel.block} {one.shared}", *one.kernel.options]
    )
    kept = cache_folder() / f"{key}.resources.json"
    if kept.exists():
        kept.touch()  # it is in use
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    try:
        compiled = cubin.compile_cubin(text, file, (one.expression,), arch, one.kernel.options)
    except BuildError as error:
        lines = "\n".join(line for line in str(error).splitlines() if "error" in line)
        msg = f"{one.expression} of kernels/{file} does not compile for sm_{arch}:\n{lines}"
        raise BuildError(msg) from None
    row = _row(arch, one, compiled)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=kept.parent, delete=False, encoding="utf-8") as f:
        json.dump(row, f)
    Path(f.name).replace(kept)
    return row


def _row(arch: str, one: Launched, compiled: cubin.Cubin) -> dict[str, int]:
    needed = compiled.resources[one.expression]
    shared = needed.shared_bytes + one.shared
    return {
        "registers": needed.registers,
        "shared": shared,
        "local": needed.stack_bytes,
        "spills": needed.spills,
        "blocks": cubin.occupancy(int(arch), math.prod(one.kernel.block), needed.registers, shared).blocks,
        "code": code_bytes(compiled.code, compiled.symbols[one.expression]),
    }


def code_bytes(code: bytes, symbol: str) -> int:
    """Return the size of a kernel's machine code: of the section .text.<symbol> of an ELF file."""
    header_offset, size, count, names_at = (
        struct.unpack_from("<Q", code, 0x28)[0],
        *struct.unpack_from("<HHH", code, 0x3A),
    )
    headers = [struct.unpack_from("<IIQQQQIIQQ", code, header_offset + i * size) for i in range(count)]
    names = headers[names_at][4]
    for header in headers:
        start = names + header[0]
        if code[start : code.index(b"\0", start)].decode() == f".text.{symbol}":
            return int(header[5])
    msg = f"no machine code for {symbol}"
    raise ValueError(msg)


def empty_code_bytes(arch: str) -> int:
    """Return the size of a kernel that does nothing."""
    compiled = cubin.compile_cubin('extern "C" __global__ void nothing() {}', "nothing.cu", ("nothing",), arch, OPTIONS)
    return code_bytes(compiled.code, "nothing")


def table(files: Collection[str]) -> dict[str, Any]:
    """Return what is checked in of kernel files: for each kernel and architecture [registers, shared bytes, blocks]."""
    of_files = {name: one for name, one in instances().items() if one.kernel.file in files}
    return {
        "nvrtc": nvrtc().version,
        "columns": ["registers", "shared bytes", "blocks per multiprocessor"],
        "rows": compact(measure(ARCHS, of_files)),
    }


def recorded() -> dict[str, Any]:
    """Return the table that is checked in."""
    return dict(json.loads(TABLE.read_text(encoding="utf-8")))


def rows_of(rows: dict[str, Any], files: Collection[str]) -> dict[str, Any]:
    """Return the rows of the kernels of some files."""
    names = {name for name, kernel in Kernel.all.items() if kernel.file in files}
    return {name: row for name, row in rows.items() if name.partition("<")[0] in names}


def merged(before: dict[str, Any], measured: dict[str, Any], files: Collection[str]) -> dict[str, Any]:
    """Return the table of before with the rows of some files as measured; kernels that are no more have none."""
    others = rows_of(before["rows"], {kernel.file for kernel in Kernel.all.values()} - set(files))
    return {**before, "rows": dict(sorted((others | measured["rows"]).items()))}


def compact(measured: dict[str, dict[str, dict[str, int]]]) -> dict[str, dict[str, list[int]]]:
    """Return the recorded columns, by C++ name and architecture."""
    rows: dict[str, dict[str, list[int]]] = {}
    for arch, kernels in measured.items():
        for name, row in kernels.items():
            rows.setdefault(name, {})[arch] = [row["registers"], row["shared"], row["blocks"]]
    return dict(sorted(rows.items()))


def differences(recorded: dict[str, Any], measured: dict[str, Any]) -> list[str]:
    """Return one line for each row that is new, gone or another."""
    before, now = recorded["rows"], measured["rows"]
    lines = [f"{name}: new" for name in sorted(now.keys() - before.keys())]
    lines += [f"{name}: gone" for name in sorted(before.keys() - now.keys())]
    for name in sorted(before.keys() & now.keys()):
        lines += [
            f"{name}, sm_{arch}: {now[name][arch]}, recorded {before[name].get(arch)}"
            for arch in now[name]
            if now[name][arch] != before[name].get(arch)
        ]
    return lines


def dumped(kept: dict[str, Any]) -> str:
    """Return the table as JSON, one kernel a line."""
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in kept["rows"].items())
    head = ",\n".join(f" {json.dumps(key)}: {json.dumps(kept[key])}" for key in ("nvrtc", "columns"))
    return f'{{\n{head},\n "rows": {{\n{rows}\n }}\n}}\n'


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="FILE", help="kernel files: relu conv_tiled.cu")
    parser.add_argument("--write", action="store_true", help="write the table")
    arguments = parser.parse_args()
    files = kernel_files.chosen(parser, arguments.only, {kernel.file for kernel in Kernel.all.values()})
    before = recorded()
    if arguments.only and before["nvrtc"] != nvrtc().version:
        parser.error(
            f"the table was written with NVRTC {before['nvrtc']}, this is {nvrtc().version}: measure all files"
        )
    measured = table(files)
    if arguments.write:
        kept = merged(before, measured, files) if arguments.only else measured
        TABLE.write_text(dumped(kept), encoding="utf-8")
        print(f"{len(measured['rows'])} kernels x {len(ARCHS)} architectures, NVRTC {measured['nvrtc']}")
        return 0
    lines = differences({"rows": rows_of(before["rows"], files)} if arguments.only else before, measured)
    print("\n".join(lines) or "as recorded")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
