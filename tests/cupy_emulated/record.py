"""Which kernels a program builds: a line of JSON for each, from which build.py builds them all at once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_PACKAGES = "{packages}"  # stands for the folder that CuPy is installed in, and NVIDIA's headers beside it


def use(file: str) -> None:
    """Append every kernel that CuPy compiles, or takes from its cache, to a file."""
    import cupy
    from cupy.cuda import compiler

    compile_module = compiler._compile_module_with_cache
    folder = str(Path(cupy.__file__).parents[1])
    written: set[str] = set()

    def recorded(source: str, options: tuple[str, ...] = (), **others: Any) -> Any:
        if others.get("backend", "nvrtc") == "nvrtc":
            names = others.get("name_expressions")
            one = {
                "source": source,
                "options": [option.replace(folder, _PACKAGES) for option in options],
                "names": None if names is None else list(names),
                "headers": others.get("extra_source") is not None,
            }
            line = json.dumps(one) + "\n"
            if line not in written:
                written.add(line)
                descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                try:
                    os.write(descriptor, line.encode())  # in one piece: other processes write, too
                finally:
                    os.close(descriptor)
        return compile_module(source, options, **others)

    compiler._compile_module_with_cache = recorded


def build(line: str) -> None:
    """Build one recorded kernel, as CuPy would: its cache holds the PTX then, and the emulator's the library."""
    import cupy
    from cupy._core import core
    from cupy.cuda import compiler

    one = json.loads(line)
    folder = str(Path(cupy.__file__).parents[1])
    compiler._compile_module_with_cache(
        one["source"],
        tuple(option.replace(_PACKAGES, folder) for option in one["options"]),
        extra_source=core._get_header_source() if one["headers"] else None,
        name_expressions=one["names"],
    )
