"""Find the CUDA sources, and splice the headers they include into one text for the compiler.

CuPy's cache of compiled kernels knows a kernel by its source text alone, so a header must be part of that text: else
an edited header would leave the old kernel running.  `#line` directives keep the compiler's messages true.
"""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

# A file that only our kernels/ has: an unrelated installed package is called "kernels", too.
_SENTINEL = "common.cuh"
_INCLUDE = re.compile(r'\s*#\s*include\s+"([^"]+)"')


def kernel_dir() -> Traversable:
    """Return the folder of the .cu and .cuh files: inside the installed package, else beside it in a checkout.

    Raises FileNotFoundError naming both places.
    """
    inside = files("gpuconv").joinpath("kernels")
    beside = Path(__file__).resolve().parents[2] / "kernels"
    for folder in (inside, beside):
        if folder.joinpath(_SENTINEL).is_file():
            return folder
    msg = f"gpuconv's kernel sources are missing: looked in {inside} and {beside}; install gpuconv again"
    raise FileNotFoundError(msg)


def source(name: str) -> str:
    """Return the text of kernels/<name> with every quoted include in its place, each header once."""
    return _spliced(kernel_dir(), name, set())


def _spliced(folder: Traversable, name: str, seen: set[str]) -> str:
    if name in seen:
        return ""
    seen.add(name)
    lines = [f'#line 1 "kernels/{name}"']
    for number, line in enumerate(folder.joinpath(name).read_text(encoding="utf-8").splitlines(), 1):
        include = _INCLUDE.match(line)
        if include:
            lines += [_spliced(folder, include[1], seen), f'#line {number + 1} "kernels/{name}"']
        else:
            lines.append("" if line.strip() == "#pragma once" else line)  # splicing includes each header once itself
    return "\n".join(lines)
