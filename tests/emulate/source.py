"""Kernel text as g++ gets it: the files of PTX wrappers give way to host functions of the same names."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_LINE = re.compile(r'\s*#\s*line\s+\d+\s+"([^"]*)"')


def host_text(text: str) -> str:
    """Return spliced kernel text with every part that came from a file ptx*.cuh replaced by runtime/ptx*.hpp."""
    kept: list[str] = []
    included: set[str] = set()
    header = None  # the runtime's header in whose place the current file stands
    for line in text.splitlines():
        directive = _LINE.match(line)
        if directive:
            name = PurePosixPath(directive[1])
            stands_for = name.suffix == ".cuh" and name.stem.split("_")[0] == "ptx"
            header = f"{name.stem}.hpp" if stands_for else None
            if header and header not in included:
                included.add(header)
                kept.append(f'#include "{header}"')
        if header is None:
            kept.append(line)
    return "\n".join(kept)
