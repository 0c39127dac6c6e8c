"""Operands of PTX instructions as C++ expressions: registers, numbers, addresses, special registers."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}
_FLOATS = {"f16": "__half", "bf16": "__nv_bfloat16", "f32": "float", "f64": "double"}

_SPECIAL = {
    f"%{ptx}.{axis}": f"{cuda}.{axis}"
    for ptx, cuda in (("tid", "threadIdx"), ("ctaid", "blockIdx"), ("ntid", "blockDim"), ("nctaid", "gridDim"))
    for axis in "xyz"
} | {
    "%laneid": "emulate::lane()",
    "%warpid": "emulate::warp()",
    "%clock64": "emulate::clock()",
    "%clock": "emulate::clock()",
}


class PtxError(RuntimeError):
    """PTX that the translator does not know."""


def size_of(kind: str) -> int:
    """Return the bytes of a PTX type such as u32."""
    return 1 if kind == "pred" else _SIZES[kind.lstrip("abcdefghijklmnopqrstuvwxyz")]


def cpp_type(kind: str) -> str:
    """Return the C++ type of a PTX type: bits are unsigned integers."""
    if kind == "pred":
        return "bool"
    return _FLOATS.get(kind) or f"{'int' if kind[0] == 's' else 'uint'}{8 * size_of(kind)}_t"


def bits_type(kind: str) -> str:
    """Return the unsigned C++ integer as wide as a PTX type."""
    return f"uint{8 * size_of(kind)}_t"


def cpp_name(name: str) -> str:
    """Return a PTX label or symbol as a C++ identifier."""
    return re.sub(r"[$.%]", "_", name)


def is_float(kind: str) -> bool:
    return kind in _FLOATS


def split(text: str) -> list[str]:
    """Split an operand list at its commas outside brackets and braces."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if character == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += character
    return [*parts, current.strip()] if current.strip() else parts


def vector(operand: str) -> list[str]:
    """Return the elements of {a, b, ...}, or the one operand."""
    operand = operand.strip()
    return [part.strip() for part in operand[1:-1].split(",")] if operand.startswith("{") else [operand]


class Operands:
    """How the operands of one kernel read and write: its parameters, the module's symbols, its inline-PTX registers."""

    def __init__(self, spaces: Mapping[str, str], parameters: Mapping[str, str]) -> None:
        self._spaces = spaces  # symbol -> state space
        self._parameters = parameters  # parameter -> its address in C++
        self.named: set[str] = set()  # registers that inline PTX declares without a %

    def variable(self, register: str) -> str:
        """Return the C++ variable of a register."""
        register = register.strip()
        return f"x_{cpp_name(register)}" if register in self.named else register.lstrip("%")

    def read(self, operand: str, kind: str) -> str:
        """Return the value of an operand, seen as a PTX type."""
        operand = operand.strip()
        if operand in _SPECIAL:
            return (
                f"(uint32_t)({_SPECIAL[operand]})" if kind[1:] == "32" else f"({cpp_type(kind)})({_SPECIAL[operand]})"
            )
        if kind == "pred":
            return ("!" if operand[0] == "!" else "") + self.variable(operand.lstrip("!"))
        if operand.startswith("%") or operand in self.named:
            value = self.variable(operand)
            wanted = cpp_type(kind)
            return f"({wanted}){value}" if wanted == bits_type(kind) else f"emulate::as<{wanted}>({value})"
        if re.match(r"-?[0-9]", operand):
            return _number(operand, kind)
        symbol = re.match(r"([\w$]+)(?:\+(-?\d+))?$", operand)
        if symbol and symbol[1] in self._spaces:
            name, offset = cpp_name(symbol[1]), symbol[2] or "0"
            if self._spaces[symbol[1]] == "shared":
                return f"(emulate::shared_address({name}) + {offset})"
            return f"((uint64_t){name} + {offset})"
        msg = f"operand {operand!r}"
        raise PtxError(msg)

    def write(self, operand: str, kind: str, value: str) -> str:
        """Return the statement that stores a value of a PTX type; the operand _ takes it and drops it."""
        operand = operand.strip()
        if operand == "_":
            return f"(void)({value});"
        if kind == "pred":
            return f"{self.variable(operand)} = {value};"
        return f"emulate::put({self.variable(operand)}, ({cpp_type(kind)})({value}));"

    def address(self, operand: str, space: str) -> str:
        """Return a C++ pointer for [register + offset] or [symbol + offset] of a state space."""
        match = re.match(r"(%?[\w$.]+)\s*(?:\+\s*(-?\d+))?$", operand.strip()[1:-1].strip())
        if match is None:
            msg = f"address {operand!r}"
            raise PtxError(msg)
        base, offset = match[1], match[2] or "0"
        if space == "param":
            return f"({self._parameters[base]} + {offset})"
        if not base.startswith("%") and base not in self.named:
            return f"((char*){cpp_name(base)} + ({offset}))"
        if space == "shared":
            return f"(emulate::shared_base + (int32_t){self.variable(base)} + ({offset}))"
        return f"((char*){self.variable(base)} + ({offset}))"


def _number(text: str, kind: str) -> str:
    bits = re.match(r"0[fF]([0-9a-fA-F]{8})$", text) or re.match(r"0[dD]([0-9a-fA-F]{16})$", text)
    if bits:
        value = f"0x{bits[1]}{'u' if len(bits[1]) == 8 else 'ull'}"
        return f"emulate::as<{cpp_type(kind)}>({value})" if is_float(kind) else f"({cpp_type(kind)})({value})"
    suffix = "ull" if size_of(kind) == 8 and not text.startswith("-") else ""
    return f"({cpp_type(kind)})({text}{suffix})"
