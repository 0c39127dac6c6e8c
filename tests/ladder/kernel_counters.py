"""How well kernels use memory, counted by the emulator: sectors a request, bank conflicts, share of multiply-adds.
Also the share of multiply-adds in the hottest loop of the machine code that ptxas makes.

    python -m tests.ladder.kernel_counters [--write]

Compares with kernel_counters.json, or writes it.  A sector is 32 bytes of device memory, a wavefront one pass
over the banks of shared memory; the ideal is the fewest that the same bytes need.  Counts, not times: they tell a
careless change, not how fast a GPU is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emulate import LaunchRecord, build
from emulate.cubin import compile_cubin
from emulate.nvrtc import nvrtc
from emulate.sass import disassemble, hottest_loop
from operators import OPERATORS, Operator

from gpuconv.cuda.kernel import OPTIONS
from gpuconv.cuda.source import source

from .kernel_calls import CALLS, WITHOUT_TENSOR_CORES, Call, GroupedDevice, emulated_on, fused, launched, rough

TABLE = Path(__file__).parent / "kernel_counters.json"
PARTS = ("traffic", "share of multiply-adds", "share of FFMA in the hottest loop")
ARCHS = ("80", "90")
COLUMNS = ["requests", "sectors or wavefronts", "ideal"]
_KINDS = ("global load", "global store", "shared load", "shared store")


def _again(name: str, call: str, **changed: Any) -> Call:
    """Return one of the calls of kernel_calls.py under the name of its counts."""
    return dataclasses.replace(CALLS[call], name=name, **changed)


_ONE_FORMAT: dict[str, Any] = {"formats": ("NCHW",)}

# Units of nets, which take the place of layers.
_FUSED: dict[str, dict[str, Any]] = {
    "batchnorm and relu of a sum": {"activation": "relu", "join": "before"},
    "batchnorm and gelu": {"activation": "gelu"},
    "batchnorm, pool and relu": {"activation": "relu", "pool": True},
}


def _way(row: Operator) -> dict[str, Any]:
    """Return how calls of an operator are counted: single elements in one format, convolution in float32 as FFMA has it."""
    if row.elementwise:
        return _ONE_FORMAT
    return {"settings": WITHOUT_TENSOR_CORES} if row.name == "conv" else {}


# What the rows of operators.py count, in the memory formats that the kernels differ in, and calls that stand for more.
_MEASURED = (
    *(
        dataclasses.replace(rough(row.name, name, **sizes), **_way(row))
        for row in OPERATORS.values()
        for name, sizes in row.counted.items()
    ),
    *(Call(name, fused((4, 32, 16, 16), **how), "spatial_batchnorm") for name, how in _FUSED.items()),
    _again("copy between formats", "copy_between_formats"),
    _again("softmax", "softmax", **_ONE_FORMAT),
    _again("sgd", "sgd_momentum", **_ONE_FORMAT),
    _again("adam", "adam", **_ONE_FORMAT),
)
MEASURED = {call.name: call for call in _MEASURED}


def compilers() -> dict[str, str]:
    """Return what the counts depend on besides the kernels."""
    version = re.search(r"\d+", build.run([build.compiler(), "-dumpversion"]))
    return {"g++": version[0] if version else "unknown", "nvrtc": nvrtc().version}


def _launches(call: Call, memory: str, mode: str) -> list[LaunchRecord]:
    device = GroupedDevice(mode, launched([call], ("float32",), (memory,)).values())
    with emulated_on(device) as place:
        call.on(place, "float32", memory)
    return list(device.launches)


def traffic(records: Iterable[LaunchRecord]) -> dict[str, dict[str, list[int]]]:
    """Return, by kernel and kind of access, requests, sectors or wavefronts, and the least of them."""
    counts: dict[str, dict[str, list[int]]] = {}
    for record in records:
        for site in record.sites:
            if site.kind in _KINDS:
                row = counts.setdefault(record.kernel, {}).setdefault(site.kind, [0, 0, 0])
                for i, count in enumerate((site.requests, site.units, site.ideal)):
                    row[i] += count
    return {kernel: {kind: rows[kind] for kind in _KINDS if kind in rows} for kernel, rows in sorted(counts.items())}


def multiply_adds(records: Iterable[LaunchRecord]) -> dict[str, float]:
    """Return, by kernel, the share of fused multiply-adds among its instructions in PTX."""
    fused: dict[str, int] = {}
    total: dict[str, int] = {}
    for record in records:
        for opcode, count in record.instructions.items():
            total[record.kernel] = total.get(record.kernel, 0) + count
            if opcode.startswith("fma."):
                fused[record.kernel] = fused.get(record.kernel, 0) + count
    return {kernel: round(count / total[kernel], 3) for kernel, count in sorted(fused.items())}


def hottest_loops(arch: str) -> dict[str, float]:
    """Return the share of FFMA in the machine code of each tiled convolution's hottest loop."""
    calls = [call for call in MEASURED.values() if call.name.startswith("conv")]
    tiled = [one for one in launched(calls, ("float32",)).values() if one.kernel.name.endswith("_tiled")]
    shares = {}
    for file in sorted({one.kernel.file for one in tiled}):
        expressions = [one.expression for one in tiled if one.kernel.file == file]
        compiled = compile_cubin(source(file), file, expressions, arch, OPTIONS)
        code = disassemble(compiled.code)
        for expression in expressions:
            loop = hottest_loop(code[compiled.symbols[expression]])
            shares[expression] = round(loop.opcodes["FFMA"] / loop.instructions, 3) if loop else 0.0
    return shares


def traffic_of(names: Iterable[str]) -> dict[str, Any]:
    """Return the traffic of some calls of MEASURED, in each of their memory formats."""
    return {
        f"{name}, {memory}": traffic(_launches(MEASURED[name], memory, "emulated-stats"))
        for name in names
        for memory in MEASURED[name].formats
    }


def measure() -> dict[str, Any]:
    """Count everything: what is checked in."""
    rows = traffic_of(MEASURED)
    shares: dict[str, float] = {}
    for call in MEASURED.values():
        for memory in call.formats if call.name.startswith("conv") else ():
            fused = multiply_adds(_launches(call, memory, "emulated-ptx-stats"))
            shares |= {f"{call.name}, {memory}: {kernel}": share for kernel, share in fused.items()}
    loops = {f"sm_{arch}": hottest_loops(arch) for arch in ARCHS}
    return {**compilers(), "columns": COLUMNS, **dict(zip(PARTS, (rows, shares, loops), strict=True))}


def differences(recorded: dict[str, Any], measured: dict[str, Any]) -> list[str]:
    """Return one line for each count that is new, gone or another."""
    lines = []
    for part in PARTS:
        before, now = _flat(recorded.get(part, {})), _flat(measured.get(part, {}))
        lines += [
            f"{name}: {now.get(name)}, recorded {before.get(name)}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
    return lines


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat |= _flat(value, f"{prefix}{name}: ") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def dumped(table: dict[str, Any]) -> str:
    """Return the table as JSON, one kernel a line."""
    text = json.dumps(table, indent=1)
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda m: "[" + " ".join(m[1].split()) + "]", text)
    return re.sub(r"\{\s+(\"(?:global|shared)[^{}]*?)\s+\}", lambda m: "{" + " ".join(m[1].split()) + "}", text) + "\n"


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table")
    arguments = parser.parse_args()
    measured = measure()
    if arguments.write:
        TABLE.write_text(dumped(measured), encoding="utf-8")
        return 0
    lines = differences(json.loads(TABLE.read_text(encoding="utf-8")), measured)
    print("\n".join(lines) or "as recorded")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
