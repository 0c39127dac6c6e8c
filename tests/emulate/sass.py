"""The machine instructions of a cubin, by NVIDIA's disassembler: how many there are, and what the hottest loop does."""

from __future__ import annotations

import collections
import functools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from .errors import BuildError, EmulatorUnavailableError
from .nvrtc import cuda_roots

_LABEL = re.compile(r"(\.L_x_\d+):")
_INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]+\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
_SOURCE = re.compile(r'\s*//## File "([^"]+)", line (\d+)')
_MEMORY = ("LDS", "LDG", "STS", "STG", "LDGSTS", "LDSM")
_WIDTHS = ("64", "128", "16", "M88")
_BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}


class Line(NamedTuple):
    """An instruction, or (opcode "") a label.

    guard: the predicate without which nothing is done, "P0" or "!UP1".  source: where it comes from, as
    "kernels/tile.cuh:46", if it was compiled with -lineinfo.
    """

    opcode: str
    operands: str
    guard: str = ""
    source: str = ""

    @property
    def bytes(self) -> int:
        """How many bytes an instruction moves for each lane, if it is one of memory."""
        return next((_BYTES[m] for m in self.opcode.split(".") if m in _BYTES), 4)


class Loop(NamedTuple):
    """A loop's instructions and how often each opcode stands in it; memory opcodes keep their width."""

    instructions: int
    opcodes: collections.Counter[str]


@functools.cache
def nvdisasm() -> str:
    """Return the disassembler's path; raise EmulatorUnavailableError if it is missing."""
    for root in cuda_roots():
        program = root / "bin" / "nvdisasm"
        if program.is_file():
            return str(program)
    found_in_path = shutil.which("nvdisasm")
    if found_in_path is None:
        msg = "reading machine code needs nvdisasm, which is not installed: pip install nvidia-cuda-nvdisasm"
        raise EmulatorUnavailableError(msg)
    return found_in_path


def disassemble(cubin: bytes) -> dict[str, list[Line]]:
    """Return the code of each kernel of a cubin, by symbol."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([nvdisasm(), "-c", "-g", file.name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(done.stderr)
    kernels: dict[str, list[Line]] = {}
    current: list[Line] = []
    source = ""
    for line in done.stdout.splitlines():
        if section := re.match(r"\.text\.(\S+):", line):
            current = kernels.setdefault(section[1], [])
        elif label := _LABEL.match(line):
            current.append(Line("", label[1]))
        elif place := _SOURCE.match(line):
            source = f"{'/'.join(Path(place[1]).parts[-2:])}:{place[2]}"
        elif instruction := _INSTRUCTION.match(line):
            current.append(Line(instruction[2], instruction[3], instruction[1] or "", source))
    return kernels


def count_instructions(code: list[Line]) -> int:
    return sum(line.opcode != "" for line in code)


def hottest_loop(code: list[Line]) -> Loop | None:
    """Return the loop with the most multiply-adds, a tensor-core one counting as 100; None if there is no loop."""
    labels = {line.operands: i for i, line in enumerate(code) if not line.opcode}
    loops = []
    for end, line in enumerate(code):
        target = re.search(r"\.L_x_\d+", line.operands) if line.opcode.startswith("BRA") else None
        if target is not None and labels.get(target[0], end) < end:
            body = [_short(inside.opcode) for inside in code[labels[target[0]] : end + 1] if inside.opcode]
            if len(body) > 1:  # else what stands behind a kernel's end
                loops.append(Loop(len(body), collections.Counter(body)))
    return max(loops, key=lambda loop: loop.opcodes["FFMA"] + 100 * loop.opcodes["HMMA"], default=None)


def _short(opcode: str) -> str:
    name, *modifiers = opcode.split(".")
    return ".".join([name, *(m for m in modifiers if m in _WIDTHS)]) if name in _MEMORY else name
