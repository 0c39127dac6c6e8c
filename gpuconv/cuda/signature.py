"""What a kernel takes, read from its source: template arguments, parameters, structs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import bfloat16
from ..errors import ArgTypeError

# C++ types that kernels take, in memory and by value.
C_TYPES = {
    "bool": np.dtype(np.bool_),
    "signed char": np.dtype(np.int8),
    "unsigned char": np.dtype(np.uint8),
    "short": np.dtype(np.int16),
    "unsigned short": np.dtype(np.uint16),
    "int": np.dtype(np.int32),
    "unsigned": np.dtype(np.uint32),
    "long long": np.dtype(np.int64),
    "unsigned long long": np.dtype(np.uint64),
    "half16": np.dtype(np.float16),
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
}
if (_bfloat16 := bfloat16.found()) is not None:
    C_TYPES["bfloat16"] = _bfloat16
C_NAMES = {dtype: name for name, dtype in C_TYPES.items()}
_SUMS = {
    "half16": "float",
    "bfloat16": "float",
    "float": "float",
    "double": "double",
}  # Accumulator<T>::type of common.cuh


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a kernel as its source declares it."""

    name: str
    type: str
    pointer: bool


@dataclass(frozen=True, slots=True)
class Signature:
    templates: tuple[tuple[str, str], ...]  # (kind, name): ("typename", "T"), ("int", "R"), ("bool", "RELU")
    parameters: tuple[Parameter, ...]
    structs: Mapping[str, np.dtype]


_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_LAUNCH_BOUNDS = r"(?:__launch_bounds__\s*\([^()]*\)\s*)?"
_STRUCT = re.compile(r"\bstruct\s+(\w+)\s*\{([^{}()]*)\}\s*;")
_FIELD = re.compile(r"(\w+)\s*(?:\[\s*(\d+)\s*\])?$")


def read_signature(text: str, file: str, name: str) -> Signature:
    """Find `template <...> __global__ void name(...)` in a kernel file."""
    text = _COMMENT.sub(" ", text)
    text = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    pattern = rf"(?:template\s*<([^<>]*)>\s*)?__global__\s+{_LAUNCH_BOUNDS}void\s+{_LAUNCH_BOUNDS}{name}\s*\(([^()]*)\)"
    heads = re.findall(pattern, text)
    if len(heads) != 1:
        msg = f"kernels/{file} must define the kernel {name} once, found {len(heads)}"
        raise ArgTypeError(msg)
    template_text, parameter_text = heads[0]
    templates = tuple(_declared(part) for part in template_text.split(",") if part.strip())
    parameters = tuple(_parameter(part) for part in parameter_text.split(",") if part.strip())
    return Signature(templates, parameters, _structs(text))


def _declared(text: str) -> tuple[str, str]:
    """Split "long long total" into its type and its name."""
    *kind, name = text.split()
    return " ".join(kind), name


def _parameter(text: str) -> Parameter:
    kind, name = _declared(text.replace("*", " * ").replace("__restrict__", " "))
    words = [word for word in kind.split() if word not in ("const", "__grid_constant__")]
    return Parameter(name, " ".join(word for word in words if word != "*"), "*" in words)


def resolved(what: str, kind: str, bound: Mapping[str, str]) -> str:
    """Return the C++ type that a parameter's type is, once the template arguments are known."""
    inner = re.fullmatch(r"Sum<(\w+)>", kind.replace(" ", ""))
    if inner is not None:
        return _SUMS[bound.get(inner[1], inner[1])]
    kind = bound.get(kind, kind)
    if kind not in C_TYPES:
        msg = f"{what} has the type {kind}, which launches do not know"
        raise ArgTypeError(msg)
    return kind


def _structs(text: str) -> dict[str, np.dtype]:
    """Return the structs of plain numbers that a file defines: field by field, padded as C++ pads them."""
    structs = {}
    for name, body in _STRUCT.findall(text):
        fields: list[Any] = []
        for statement in filter(None, map(str.strip, body.split(";"))):
            first, *more = (part.strip() for part in statement.split(","))
            kind, first = first.rsplit(None, 1)
            kind = " ".join(word for word in kind.split() if word != "const")
            if kind not in C_TYPES:
                break
            for field in (first, *more):
                match = _FIELD.match(field)
                if match is None:
                    break
                field_name, count = match.groups()
                fields.append((field_name, C_TYPES[kind], int(count)) if count else (field_name, C_TYPES[kind]))
        else:
            if fields:
                structs[name] = np.dtype(fields, align=True)
    return structs
