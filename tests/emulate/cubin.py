"""What a kernel costs a multiprocessor, without a GPU: NVRTC's cubin, ptxas's account of it, and the occupancy.

The numbers depend on the version of NVRTC: record it with them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .nvrtc import nvrtc


@dataclass(frozen=True)
class Resources:
    """ptxas's account of one kernel: per thread registers, stack and spills in bytes; per block shared memory."""

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    barriers: int

    @property
    def spills(self) -> int:
        return self.spill_store_bytes + self.spill_load_bytes


class Cubin(NamedTuple):
    """Machine code, the resources of each kernel by its name expression, and the compiler's log."""

    code: bytes
    resources: dict[str, Resources]
    symbols: dict[str, str]  # of the kernels, by name expression
    log: str

    @property
    def performance_warnings(self) -> list[str]:
        """Return ptxas's warnings that it had to make wgmma wait (C75xx)."""
        return re.findall(r"C75\d\d", self.log)


def compile_cubin(text: str, file: str, expressions: Sequence[str], arch: str, options: Sequence[str] = ()) -> Cubin:
    """Compile kernels for an architecture such as "80" or "90a"; raise BuildError with the compiler's log."""
    compiled = nvrtc().cubin(text, file, expressions, options, arch)
    accounts = parse_account(compiled.log)
    resources = {e: accounts[symbol] for e, symbol in compiled.symbols.items()}
    return Cubin(bytes(compiled.code), resources, compiled.symbols, compiled.log)  # type: ignore[arg-type]


def parse_account(log: str) -> dict[str, Resources]:
    """Return the resources of each kernel in a log of ptxas -v, by symbol."""
    parts = re.split(r"Compiling entry function '(\S+)' for '\S+'", log)
    return {symbol: _resources(account) for symbol, account in zip(parts[1::2], parts[2::2], strict=True)}


def _resources(account: str) -> Resources:
    def number(pattern: str) -> int:
        match = re.search(pattern, account)
        return int(match[1]) if match else 0

    return Resources(
        registers=number(r"Used (\d+) registers"),
        shared_bytes=number(r"(\d+) bytes smem"),
        stack_bytes=number(r"(\d+) bytes stack frame"),
        spill_store_bytes=number(r"(\d+) bytes spill stores"),
        spill_load_bytes=number(r"(\d+) bytes spill loads"),
        barriers=number(r"used (\d+) barriers"),
    )


class Multiprocessor(NamedTuple):
    """What one multiprocessor has, and in which units it is given out (CUDA C++ programming guide)."""

    threads: int
    blocks: int
    shared_bytes: int
    shared_bytes_of_block: int
    shared_reserved: int  # by the system, per block
    shared_unit: int
    registers: int = 65536
    register_unit: int = 256  # per warp


MULTIPROCESSORS = {
    75: Multiprocessor(1024, 16, 65536, 65536, 0, 256),
    80: Multiprocessor(2048, 32, 167936, 166912, 1024, 128),
    86: Multiprocessor(1536, 16, 102400, 101376, 1024, 128),
    89: Multiprocessor(1536, 24, 102400, 101376, 1024, 128),
    90: Multiprocessor(2048, 32, 233472, 232448, 1024, 128),
    100: Multiprocessor(2048, 32, 233472, 232448, 1024, 128),
}


class Occupancy(NamedTuple):
    """How many blocks a multiprocessor holds at once, and what does not let it hold more."""

    blocks: int
    limit: str


def occupancy(arch: int, threads: int, registers: int, shared_bytes: int) -> Occupancy:
    """Return the occupancy of blocks with so many threads, registers per thread and bytes of shared memory."""
    sm = MULTIPROCESSORS[arch]
    if shared_bytes > sm.shared_bytes_of_block:
        return Occupancy(0, "shared memory")
    warps = -(-threads // 32)
    blocks = {"threads": sm.threads // (warps * 32), "blocks": sm.blocks}
    if registers:
        of_warp = -(-registers * 32 // sm.register_unit) * sm.register_unit
        blocks["registers"] = sm.registers // of_warp // 4 * 4 // warps  # four schedulers
    if shared_bytes + sm.shared_reserved:
        of_block = -(-(shared_bytes + sm.shared_reserved) // sm.shared_unit) * sm.shared_unit
        blocks["shared memory"] = sm.shared_bytes // of_block
    limit = min(blocks, key=blocks.__getitem__)
    return Occupancy(blocks[limit], limit)
