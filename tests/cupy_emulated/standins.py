"""Build the stand-ins with g++, once, against NVIDIA's headers; kept by content.

Processes that build at once do not disturb each other: each works in a folder of its own, and renames the result into
place.
"""

from __future__ import annotations

import functools
import re
import tempfile
from pathlib import Path

from emulate import BuildError, build

from .errors import CupyEmulatedError
from .requirements import headers, wheel
from .settings import settings

_NATIVE = Path(__file__).resolve().parent / "native"


def _built(name: str, sources: list[str], *arguments: str, text: str = "", versions: str = "") -> Path:
    """Compile sources of `native`, and generated text, into `name`, unless that exists; versions: of its symbols."""
    folders = headers(wheel().cuda)
    command = [build.compiler(), "-std=c++17", "-g1", "-fvisibility=hidden", f"-I{build.RUNTIME}"]
    command += [f"-I{folder}" for folder in folders]
    parts = [
        path.read_text(encoding="utf-8") for path in [*map(_NATIVE.joinpath, sources), *sorted(_NATIVE.glob("*.hpp"))]
    ]
    parts += [(build.RUNTIME / "launch.hpp").read_text(encoding="utf-8"), _compiler_version(), text, versions]
    cache = settings().cache
    made = cache / build.digest([*parts, *command, *arguments]) / name
    if made.exists():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as folder:
        work = Path(folder)
        files = [str(_NATIVE / source) for source in sources]
        if text:
            (work / "generated.cpp").write_text(text, encoding="utf-8")
            files.append(str(work / "generated.cpp"))
        if versions:
            (work / "versions.map").write_text(versions, encoding="utf-8")
            command.append(f"-Wl,--version-script={work / 'versions.map'}")
        try:
            build.run([*command, *files, *arguments, "-o", work / name])
        except BuildError as error:
            msg = f"{name} cannot be built:\n{error}"
            raise CupyEmulatedError(msg) from error
        (work / name).replace(made)
    return made


@functools.cache
def _compiler_version() -> str:
    return build.run([build.compiler(), "--version"])


def driver() -> Path:
    """Return the stand-in for the driver, which holds the one for the runtime, too."""
    name = "libcuda.so.1"
    sources = ["trace.cpp", "memory.cpp", "streams.cpp", "launch.cpp", "driver.cpp", "runtime.cpp"]
    return _built(name, sources, "-O1", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-lpthread")


def server() -> Path:
    """Return the launch server."""
    return _built("launch-server", ["server.cpp"], "-O1", "-ldl")


def empty(soname: str) -> Path:
    """Return a library with nothing in it, for who only looks whether it is there."""
    return _built(soname, [], "-shared", "-fPIC", f"-Wl,-soname,{soname}", text="// nothing\n")


def cublas() -> Path:
    """Return the stand-in for cuBLAS: what CuPy's module wants, or a stub that says "not supported"."""
    listed = build.run(["readelf", "--dyn-syms", "-W", wheel().cublas])
    wanted = re.findall(r" UND (cublas\w+)@(\S+)", listed)
    soname = wanted[0][1]  # the version of its symbols has its name
    versions = f"{soname} {{ global: cublas*; local: *; }};\n"
    return _library(soname, "cublas", [name for name, _ in wanted], "15", versions=versions)


def nccl() -> Path | None:
    """Return the stand-in for NCCL, likewise; None where CuPy's wheel has no module for it."""
    if wheel().nccl is None:
        return None
    listed = build.run(["readelf", "--dyn-syms", "-W", wheel().nccl])
    return _library("libnccl.so.2", "nccl", re.findall(r" UND (nccl\w+)", listed), "5")


def _library(soname: str, name: str, wanted: list[str], missing: str, *, versions: str = "") -> Path:
    """Return the stand-in of native/NAME.cpp: what is wanted of it, or a stub that says its name and returns `missing`."""
    source = (_NATIVE / f"{name}.cpp").read_text(encoding="utf-8")
    own = set(re.findall(rf"^(?:int |const char\* |GEMM\w*\()({name}\w+)[(,]", source, re.MULTILINE))
    stub = f'{{ fprintf(stderr, "cupy-emulated: %s is missing\\n", __func__); return {missing}; }}'
    stubs = [f"int {function}() {stub}" for function in wanted if function not in own]
    text = "\n".join(["#include <cstdio>", "#pragma GCC visibility push(default)", 'extern "C" {', *stubs, "}", ""])
    arguments = "-O3", "-shared", "-fPIC", f"-Wl,-soname,{soname}", str(driver())
    return _built(soname, [f"{name}.cpp"], *arguments, text=text, versions=versions)
