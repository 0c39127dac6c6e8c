"""NVRTC, the CUDA compiler as a library, through ctypes: kernel text to PTX or to a cubin.  It needs no GPU.

Programs are compiled with the options that CuPy adds, so that what is looked at here is what runs there.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .build import cache_folder, digest
from .errors import BuildError, EmulatorUnavailableError

_LIBRARY = "lib/libnvrtc.so.1[23]"


class Compiled(NamedTuple):
    """PTX text or cubin bytes, the compiler's log, and the symbol of each name expression."""

    code: str | bytes
    log: str
    symbols: dict[str, str]


def cuda_roots() -> list[Path]:
    """Return where CUDA may be installed: NVIDIA's wheels, CUDA_PATH, the usual folder."""
    spec = importlib.util.find_spec("nvidia")
    wheels = spec.submodule_search_locations if spec is not None else None
    folders = [folder for wheel in wheels or () for folder in sorted(Path(wheel).iterdir()) if folder.is_dir()]
    others = [Path(root) for root in (os.environ.get("CUDA_PATH"), "/usr/local/cuda") if root]
    return [*reversed(folders), *others]


@functools.cache
def nvrtc() -> Nvrtc:
    """Return the newest NVRTC that is installed; raise EmulatorUnavailableError if there is none."""
    for root in cuda_roots():
        for path in sorted(root.glob(_LIBRARY), reverse=True):
            return Nvrtc(path)
    msg = "the PTX route needs NVRTC, which is not installed: pip install nvidia-cuda-nvrtc"
    raise EmulatorUnavailableError(msg)


class Nvrtc:
    """One NVRTC library."""

    def __init__(self, path: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            msg = f"NVRTC cannot be loaded: {error}"
            raise EmulatorUnavailableError(msg) from error
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        self.headers = path.parents[1] / "include"  # of the runtime wheel, if that is installed too
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = f"{major.value}.{minor.value}"

    def ptx(self, text: str, file: str, expressions: Sequence[str], options: Sequence[str], arch: str) -> Compiled:
        """Compile for a virtual architecture ("80"); results are kept in the cache folder."""
        options = (*options, f"-arch=compute_{arch}", "-lineinfo")
        kept = cache_folder() / f"{digest([self.version, text, file, *expressions, '', *options])}.ptx.json"
        if kept.exists():
            kept.touch()  # it is in use
            return Compiled(**json.loads(kept.read_text(encoding="utf-8")))
        made = self._compile(text, file, expressions, options, "PTX")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=kept.parent, delete=False, encoding="utf-8") as f:
            json.dump(made._asdict(), f)
        Path(f.name).replace(kept)
        return made

    def cubin(self, text: str, file: str, expressions: Sequence[str], options: Sequence[str], arch: str) -> Compiled:
        """Compile for a real architecture ("80", "90a"); the log has ptxas's account of each kernel."""
        options = (*options, f"-arch=sm_{arch}", "--ptxas-options=-v")
        return self._compile(text, file, expressions, options, "CUBIN")

    def _compile(self, text: str, file: str, expressions: Sequence[str], options: Sequence[str], kind: str) -> Compiled:
        flags = ["-std=c++17", *options, "-ftz=true", "--device-as-default-execution-space", f"-I{self.headers}"]
        program = ctypes.c_void_p()
        self._call("nvrtcCreateProgram", ctypes.byref(program), text.encode(), file.encode(), 0, None, None)
        try:
            for expression in expressions:
                self._call("nvrtcAddNameExpression", program, expression.encode())
            encoded = [f.encode() for f in dict.fromkeys(flags)]
            failed = self._library.nvrtcCompileProgram(
                program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded)
            )
            log = self._output("ProgramLog", program).rstrip(b"\0").decode()
            if failed:
                msg = f"{self._library.nvrtcGetErrorString(failed).decode()}\n{log}"
                raise BuildError(msg)
            symbols = {e: self._symbol(program, e) for e in expressions}
            code = self._output(kind, program)
            if kind == "CUBIN":
                return Compiled(code, log, symbols)
            # NVRTC makes the names in #line absolute.
            return Compiled(code.rstrip(b"\0").decode().replace(f'"{Path.cwd()}/', '"'), log, symbols)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _symbol(self, program: ctypes.c_void_p, expression: str) -> str:
        name = ctypes.c_char_p()
        self._call("nvrtcGetLoweredName", program, expression.encode(), ctypes.byref(name))
        return (name.value or b"").decode()

    def _output(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        if size.value:
            self._call(f"nvrtcGet{what}", program, text)
        return text.raw

    def _call(self, name: str, *args: object) -> None:
        failed = getattr(self._library, name)(*args)
        if failed:
            msg = f"{name}: {self._library.nvrtcGetErrorString(failed).decode()}"
            raise BuildError(msg)
