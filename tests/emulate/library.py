"""A built kernel library: its kernels, the structures of a launch (addresses are those of the launch server), and names
for the code addresses of reports.

The structures are those of runtime/launch.hpp, field for field.
"""

from __future__ import annotations

import bisect
import ctypes
import functools
import re
from ctypes import POINTER, c_char_p, c_int32, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import NamedTuple

from .build import DYNAMIC_SHARED, RUNTIME_FOLDERS, run

_RUNTIME_PATHS = tuple(map(str, RUNTIME_FOLDERS))
SITES, BASIC_BLOCKS, COUNTERS = 4096, 8192, 8


class _Kernel(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("parameter_count", c_int32),
        ("signature", c_char_p),
        ("sizes", POINTER(c_int32)),
        ("call", c_void_p),
    ]


class Buffer(ctypes.Structure):
    _fields_ = [
        ("base", c_uint64),
        ("size", c_uint64),
        ("element", c_uint64),
        ("valid", c_uint64),
        ("argument", c_int32),
        ("read_only", c_int32),
    ]


class Site(ctypes.Structure):
    _fields_ = [
        ("pc", c_uint64),
        ("kind", c_uint32),
        ("padding", c_uint32),
        ("requests", c_uint64),
        ("lanes", c_uint64),
        ("bytes", c_uint64),
        ("units", c_uint64),
        ("ideal", c_uint64),
    ]


class Statistics(ctypes.Structure):
    _fields_ = [
        ("counters", c_uint64 * COUNTERS),
        ("blocks", c_uint64),
        ("threads", c_uint64),
        ("switches", c_uint64),
        ("site_count", c_uint64),
        ("sites", Site * SITES),
        ("basic_blocks", c_uint64 * BASIC_BLOCKS),
    ]


class Launch(ctypes.Structure):
    _fields_ = [
        ("kernel", c_int32),
        ("grid", c_uint32 * 3),
        ("block", c_uint32 * 3),
        ("flags", c_uint32),
        ("thread_order", c_uint32),
        ("block_order", c_uint32),
        ("workers", c_uint32),
        ("timeout_seconds", c_uint32),
        ("seed", c_uint64),
        ("shared_bytes", c_uint64),
        ("stack_bytes", c_uint64),
        ("first_block", c_uint64),
        ("block_count", c_uint64),
        ("parameters", c_uint64),
        ("buffers", c_uint64),
        ("buffer_count", c_uint64),
        ("shared_symbols", c_uint64),
        ("shared_symbol_count", c_uint64),
        ("report", c_uint64),
        ("report_bytes", c_uint64),
        ("statistics", c_uint64),
        ("stacks", c_uint64),
    ]


class Signature(NamedTuple):
    """A kernel of the library: what its parameters are, one character and one size each."""

    index: int
    access: str  # c: pointer to const, m: pointer to what may be written, s: passed by value
    kind: str  # f float, i signed, u unsigned, ? bool, h half, b bfloat16, v void, V any other type
    sizes: tuple[int, ...]  # bytes of the value, or of what the pointer points to


class SharedArray(NamedTuple):
    """A static __shared__ array: where it lies in the block's shared memory."""

    offset: int
    size: int
    name: str


class Library:
    """A loaded kernel library."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = ctypes.CDLL(str(path))
        self._handle.emulate_kernel.restype = POINTER(_Kernel)
        self._lines: dict[int, str] = {}
        self.kernels: dict[str, Signature] = {}
        for i in range(self._handle.emulate_kernel_count()):
            k = self._handle.emulate_kernel(i).contents
            access, _, kind = (k.signature.decode() if k.parameter_count else "/").partition("/")
            self.kernels[k.name.decode()] = Signature(i, access, kind, tuple(k.sizes[: k.parameter_count]))

    @functools.cached_property
    def shared_arrays(self) -> list[SharedArray]:
        """Return the static __shared__ arrays, in order of their offsets."""
        arrays = []
        for line in run(["readelf", "-sW", "-C", self.path]).splitlines():
            f = line.split(maxsplit=7)
            if len(f) == 8 and f[3] == "TLS" and f[2] != "0":
                arrays.append(SharedArray(int(f[1], 16), int(f[2], 0), _array_name(f[7])))
        return sorted(set(arrays))  # a linker may list a symbol in both tables

    def lines_of(self, addresses: list[int]) -> list[str]:
        """Return file:line of code addresses, relative to where the library was loaded.

        Of inlined frames the innermost one outside the runtime counts; its callers follow, if in other places.
        """
        new = [a for a in dict.fromkeys(addresses) if a not in self._lines]
        if new:
            # An address is where a call returns to: one byte before it lies the call.
            out = run(["addr2line", "-i", "-a", "-e", self.path, *(hex(max(a - 1, 0)) for a in new)])
            for address, frames in zip(new, re.split(r"^0x[0-9a-f]+\n", out, flags=re.MULTILINE)[1:], strict=True):
                self._lines[address] = _place(frames.splitlines())
        return [self._lines[a] for a in addresses]

    def explain(self, report: str) -> str:
        """Return a report with its code addresses and shared-memory offsets replaced by names."""
        for address in sorted(set(re.findall(r"pc=\+(0x[0-9a-f]+)", report)), key=len, reverse=True):
            report = report.replace(f"pc=+{address}", self.lines_of([int(address, 16)])[0])
        return re.sub(r"smem=\+(0x[0-9a-f]+)", lambda m: self._shared_name(int(m[1], 16)), report)

    def _shared_name(self, offset: int) -> str:
        at = bisect.bisect_right([s.offset for s in self.shared_arrays], offset) - 1
        if at >= 0:
            array = self.shared_arrays[at]
            if offset < array.offset + array.size:
                what = "dynamic shared memory" if array.name == DYNAMIC_SHARED else f"shared {array.name}"
                return f"{what}, byte {offset - array.offset}"
        return f"shared byte {offset}"


def _array_name(symbol: str) -> str:
    """Return the array of "kernel(...)::array"; on the PTX route that is a mangled name itself."""
    name = symbol.rpartition("::")[2].split()[0]
    return _array_name(run(["c++filt", name])) if name.startswith("_Z") else name


def _place(frames: list[str]) -> str:
    """Return the innermost of addr2line's frames that is not the runtime's own, and where it was called from."""
    own = [re.sub(r" \(.*", "", frame).lstrip("/") for frame in frames if not frame.startswith(_RUNTIME_PATHS)]
    own = [frame for frame in own if frame and not frame.startswith("?")]
    if not own:
        return frames[0] if frames else "?"
    return own[0] if own[0] == own[-1] else f"{own[0]} (called from {own[-1]})"
