"""The machine instructions of a cubin, by NVIDIA's disassembler: how many there are, and what the hottest loop does."""

from __future__ import annotations

import collections
import functools
import re
import shutil
import subprocess
import tempfile
from typing import NamedTuple

from .errors import BuildError, EmulatorUnavailableError
from .nvrtc import cuda_roots

_LABEL = re.compile(r"(\.L_x_\d+):")
_INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*(.*?);")
_MEMORY = ("LDS", "LDG", "STS", "STG", "LDGSTS", "LDSM")
_WIDTHS = ("64", "128", "16", "M88")


class Line(NamedTuple):
    """An instruction, or (opcode "") a label."""

    opcode: str
    operands: str


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
        done = subprocess.run([nvdisasm(), "-c", file.name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(done.stderr)
    kernels: dict[str, list[Line]] = {}
    current: list[Line] = []
    for line in done.stdout.splitlines():
        if section := re.match(r"\.text\.(\S+):", line):
            current = kernels.setdefault(section[1], [])
        elif label := _LABEL.match(line):
            current.append(Line("", label[1]))
        elif instruction := _INSTRUCTION.match(line):
            current.append(Line(instruction[1], instruction[2]))
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
