"""Translate PTX, as NVRTC emits it, into C++ for the emulator's runtime.

This is a second way from the same kernel to the CPU, independent of the first: the CUDA compiler's own front end and
optimiser read the .cu text, inline PTX included, and its output is what runs.  Every register becomes a C++ variable,
every basic block may bump a counter, and .loc becomes #line, so reports name lines of the .cu file.
"""

from __future__ import annotations

import collections
import itertools
import re
import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple

from .ptx_instructions import translate as translate_instruction
from .ptx_operands import Operands, PtxError, bits_type, cpp_name, cpp_type

_LINKAGE = r"(?:\.(?:visible|weak|extern)\s+)*"
_IGNORED = re.compile(r"\.(pragma|maxntid|minnctapersm|reqntid|maxnreg)\b")


class Translation(NamedTuple):
    """C++ text, and how often each opcode stands in each basic block."""

    cpp: str
    basic_blocks: list[dict[str, int]]


def translate(ptx: str, kernels: Collection[str], *, placed: bool = False) -> Translation:
    """Translate these kernels of a PTX module and its variables; raise PtxError for what is not understood.

    `placed`: variables lie where `emulate_place_variables` is told, not in the library; see runtime/ptx_variables.hpp.
    """
    ptx = re.sub(r"/\*.*?\*/", "", ptx, flags=re.DOTALL)
    ptx = "\n".join(" ".join(re.sub(r"//.*", "", line).split()) for line in ptx.split("\n"))
    return _Module(list(_pieces(ptx)), kernels, placed=placed).translation


def _pieces(text: str) -> Iterator[str]:
    """Yield the statements of a module: directives, variables, whole functions."""
    line = re.compile(r"\.(version|target|address_size|file)\b[^\n]*")
    section = re.compile(r"\.section\s+\S+\s*\{.*?\n\s*\}", re.DOTALL)
    function = re.compile(rf"{_LINKAGE}\.(?:entry|func)\b")
    at = 0
    while True:
        at += len(text[at:]) - len(text[at:].lstrip())
        if at >= len(text):
            return
        if match := section.match(text, at):
            at = match.end()
            continue
        if match := line.match(text, at):
            end = match.end()
        elif function.match(text, at) and not -1 < text.find(";", at) < text.index("{", at):
            end = _closing_brace(text, text.index("{", at)) + 1
        else:
            end = text.find(";", at) + 1
            if end == 0:
                return
        yield text[at:end]
        at = end


def _closing_brace(text: str, at: int) -> int:
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return i
    msg = "a function without an end"
    raise PtxError(msg)


class _Module:
    """A PTX module on its way to C++."""

    def __init__(self, pieces: list[str], kernels: Collection[str], *, placed: bool) -> None:
        self._placed: dict[str, bool] | None = {} if placed else None  # C++ name -> does a kernel use it
        self._words = collections.Counter(re.findall(r"[\w$]+", "\n".join(pieces))) if placed else collections.Counter()
        self.files: dict[str, str] = {}
        self.spaces: dict[str, str] = {}  # symbol -> state space
        self.blocks: list[dict[str, int]] = []
        self.lines = ['#include "ptx_support.hpp"']
        for piece in pieces:
            if match := re.match(r'\.file\s+(\d+)\s+"([^"]+)"', piece):
                self.files[match[1]] = match[2]
        for piece in pieces:
            self._translate(piece, kernels)
        if self._placed:
            self.lines.append('#include "ptx_variables.hpp"')
            listed = ", ".join(f"EMULATE_VARIABLE({name}, {int(used)})" for name, used in self._placed.items())
            self.lines.append(f"EMULATE_VARIABLES({listed})")
            used = [name for name, is_used in self._placed.items() if is_used]
            places = " ".join(f"{name} = (decltype({name}))at[{i}];" for i, name in enumerate(used))
            self.lines.append(f"EMULATE_PLACE_VARIABLES(char** at) {{ {places} }}")
        self.translation = Translation("\n".join(self.lines) + "\n", self.blocks)

    def _translate(self, piece: str, kernels: Collection[str]) -> None:
        if piece.startswith((".version", ".target", ".address_size", ".file")):
            return
        if entry := re.match(rf"{_LINKAGE}\.entry\s+([\w$]+)", piece):
            if entry[1] in kernels:
                _Kernel(self, piece).translate()
        elif ".func" in piece.split("(", maxsplit=1)[0]:
            msg = f"calls of device functions are not translated (make it __forceinline__): {piece[:80]}"
            raise PtxError(msg)
        else:
            self.lines.append(self.variable(piece))

    def variable(self, statement: str) -> str:
        """Return the C++ declaration of a .shared, .global, .const or .local variable."""
        match = re.match(
            rf"({_LINKAGE})\.(shared|global|const|local)\s+((?:\.\w+\s+(?:\d+\s+)?)*)(\S+?)(\[[\d\]\[]*\])?\s*(=.*)?;$",
            statement,
            re.DOTALL,
        )
        if match is None:
            msg = f"statement {statement[:80]!r}"
            raise PtxError(msg)
        linkage, space, attributes, symbol, dimensions, initial = match.groups()
        self.spaces[symbol] = space
        alignment = re.search(r"\.align\s+(\d+)", attributes)
        align = f"__attribute__((aligned({alignment[1]}))) " if alignment else ""
        kind = cpp_type([a for a in re.findall(r"\.(\w+)", attributes) if a != "align"][-1])
        count = 1
        for dimension in re.findall(r"\[(\d+)\]", dimensions or ""):
            count *= int(dimension)
        name = cpp_name(symbol)
        if space == "shared":
            if "extern" in linkage or dimensions == "[]":
                return f"extern __shared__ {kind} {name}[];"
            return f"__shared__ {align}{kind} {name}[{count}];"
        if space == "local":
            return f"{align}{kind} {name}[{count}];"
        if self._placed is not None:
            self._placed[name] = self._words[symbol] > 1
            first = f"static {align}const {kind} {name}_first[{count}]{_initial(initial, kind) or ' = {}'};"
            return f"{first} static {kind}* {name};"
        return f"static {align}{kind} {name}[{count}]{_initial(initial, kind)};"


def _initial(text: str | None, kind: str) -> str:
    """Return the initialiser of a variable, its floats (0f3F800000) as C++ writes them, negative numbers as bits."""
    if text is None:
        return ""
    text = re.sub(
        r"0[fF]([0-9a-fA-F]{8})",
        lambda bits: f"{struct.unpack('>f', bytes.fromhex(bits[1]))[0]!r}f",
        text.lstrip("= \n").strip(),
    )
    text = re.sub(r"(?<![\w.])-\d+\b(?!\.)", rf"static_cast<{kind}>(\g<0>)", text)
    return f" = {text if text.startswith('{') else f'{{{text}}}'}"


class _Kernel:
    """One .entry on its way to a C++ function."""

    def __init__(self, module: _Module, text: str) -> None:
        match = re.match(rf"{_LINKAGE}\.entry\s+(\S+?)\s*\((.*?)\)\s*((?:\.\w+[^{{]*)?)\{{(.*)\}}$", text, re.DOTALL)
        if match is None:
            msg = f"kernel {text[:80]!r}"
            raise PtxError(msg)
        self._module, self._lines = module, module.lines
        name, parameters, _, self._body = match.groups()
        addresses: dict[str, str] = {}
        declared = []
        for i, parameter in enumerate(p.strip() for p in parameters.split(",") if p.strip()):
            symbol, kind = _parameter(parameter)
            addresses[symbol] = f"(char*)&a{i}"
            declared.append(f"{kind} a{i}")
        self._operands = Operands(module.spaces, addresses)
        self._lines.append(f'extern "C" __global__ void {name}({", ".join(declared)}) {{')

    def translate(self) -> None:
        statements = list(_statements(self._body))
        depth = 0
        for statement in statements:  # first what all of the function sees: a goto must not jump past it
            depth += (statement == "{") - (statement == "}")
            if depth == 0:
                self._lines += self._declaration(statement)
        tables = {
            label.rstrip(":"): [x.strip() for x in targets.removeprefix(".branchtargets").rstrip(";").split(",")]
            for label, targets in itertools.pairwise(statements)
            if targets.startswith(".branchtargets")
        }
        block: dict[str, int] | None = None
        line = ""
        for statement in statements:
            if statement in ("{", "}"):
                depth += 1 if statement == "{" else -1
                self._lines.append(statement)
            elif statement.startswith(".loc "):
                line = self._line(statement) or line
            elif statement.startswith((".reg", ".shared", ".local")):
                if depth:
                    self._lines += self._declaration(statement)
            elif statement.startswith(".branchtargets") or _IGNORED.match(statement):
                continue
            elif statement.endswith(":"):
                if statement.rstrip(":") not in tables:
                    self._lines.append(f"{cpp_name(statement[:-1])}:;")
                    block = None
            else:
                if block is None:
                    block = {}
                    self._lines.append(f"  EMULATE_BASIC_BLOCK({len(self._module.blocks)});")
                    self._module.blocks.append(block)
                opcode = re.sub(r"^@!?%?\w+\s+", "", statement).split()[0].rstrip(";")
                block[opcode] = block.get(opcode, 0) + 1
                if line:
                    self._lines.append(line)
                self._lines.append("  " + translate_instruction(statement, self._operands, tables))
                if opcode.split(".")[0] in ("bra", "ret", "exit", "brx"):
                    block = None
        self._lines.append("}")

    def _declaration(self, statement: str) -> list[str]:
        """Return the C++ of a declaration of registers or of a variable; nothing for any other statement."""
        if re.match(r"\.(shared|local)\b", statement):
            return ["  " + self._module.variable(statement)]
        registers = re.match(r"\.reg\s+\.(\w+)\s+(.*);$", statement, re.DOTALL)
        if registers is None:
            return []
        # Registers narrower than 16 bits do not exist.
        kind = {"pred": "bool", "b8": "uint16_t", "s8": "uint16_t", "u8": "uint16_t"}.get(registers[1])
        kind = kind or bits_type(registers[1])
        names: list[str] = []
        for register in registers[2].split(","):
            several = re.match(r"\s*%(\w+)<(\d+)>$", register)
            if several:
                names += [f"{several[1]}{i}" for i in range(int(several[2]))]
                continue
            if not register.strip().startswith("%"):  # of inline PTX
                self._operands.named.add(register.strip())
            names.append(self._operands.variable(register))
        return [f"  {kind} {', '.join(f'{name} = 0' for name in names)};"]

    def _line(self, statement: str) -> str:
        """Return the #line of a .loc: of inlined code the line in the .cu file that it was called from."""
        match = re.match(r"\.loc\s+(\d+)\s+(\d+)\s+\d+(.*)$", statement, re.DOTALL)
        if match is None:
            return ""
        file, line = match[1], match[2]
        callers = re.findall(r"inlined_at\s+(\d+)\s+(\d+)", match[3])
        if callers and not self._module.files.get(file, "").endswith(".cu"):
            file, line = callers[-1]
        return f'#line {line} "{self._module.files.get(file, "?")}"' if line != "0" else ""


def _parameter(text: str) -> tuple[str, str]:
    """Return the symbol and the C++ type of a kernel parameter."""
    match = re.match(r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s*((?:\.\w+\s*(?:\d+\s*)?)*)(\w+)(?:\[(\d+)\])?$", text)
    if match is None:
        msg = f"parameter {text!r}"
        raise PtxError(msg)
    alignment, kind, _, symbol, size = match.groups()
    return symbol, f"emulate::Bytes<{size}, {alignment or 1}>" if size else cpp_type(kind)


def _statements(body: str) -> Iterator[str]:
    """Yield labels ("name:"), scopes ("{", "}"), .loc and .pragma lines, and statements up to their semicolons."""
    pending = ""
    for line in body.split("\n"):
        if not pending and re.match(r"\s*\.(loc|pragma)\b", line):
            yield line.strip().rstrip(";")
            continue
        pending = f"{pending} {line}".strip()
        while pending:
            label = re.match(r"(\$?[\w$]+):(?!:)", pending)
            if pending[0] in "{}":
                end = 1
            elif label:
                end = label.end()
            else:
                end = pending.find(";") + 1
            if end == 0:
                break
            yield pending[:end].strip()
            pending = pending[end:].strip()
