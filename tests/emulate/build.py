"""Turn kernel text into a shared library with g++, once: libraries are kept in a folder addressed by content.

The library holds the kernel's translation unit, the host runtime (runtime/runtime.cpp) and an assembler stub that
provides dynamic shared memory.  Parallel builders of one library do not disturb each other: each works in a folder of
its own and renames the result into place.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from .errors import BuildError, EmulatorUnavailableError

_HERE = Path(__file__).resolve().parent
RUNTIME = _HERE / "runtime"
RUNTIME_FOLDERS = (RUNTIME, _HERE / "hopper" / "runtime")

# What a unit includes first: CUDA C++ for g++, and what the translation of PTX needs.
_HEADER, _PTX_HEADER = "device.hpp", "ptx_device.hpp"

# Where all `extern __shared__` names lie, and the most memory that any launch may ask for (a block of sm_90).
DYNAMIC_SHARED = "emulate_dynamic_shared"
DYNAMIC_SHARED_BYTES = 232448
# Bytes put behind every static __shared__ array in the modes that check accesses.
_RED_ZONE = 256
_KEPT_SECONDS = 30 * 24 * 3600

_COMMON = [
    "-std=c++17",
    "-g1",
    "-gdwarf-4",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-gnu-unique",
    "-fno-extern-tls-init",
    "-fno-strict-aliasing",
    "-ffp-contract=fast",
    "-Wno-attributes",
    "-Wno-unknown-pragmas",
    "-Wno-ignored-attributes",
    "-Wno-psabi",
]
# -fsanitize=thread makes g++ report every load and store to callbacks; the runtime defines them, libtsan is not linked.
_TRACED = [
    "-O1",
    "-fno-tree-sra",
    "-fno-store-merging",
    "-fsanitize=thread",
    "--param",
    "tsan-instrument-func-entry-exit=0",
]
_TRAPS = [
    "-fsanitize=bounds,shift,integer-divide-by-zero,signed-integer-overflow",
    "-fsanitize-undefined-trap-on-error",
]
# g++ 12 takes "if (aligned) load 16 bytes; else load 8 times 2 bytes" for one load, and an aligned one, whatever it is.
_FAST = ["-O2", "-fno-if-conversion"]
MODE_FLAGS = {"fast": _FAST, "check": _TRACED + _TRAPS, "stats": _TRACED}


def cache_folder() -> Path:
    """Return the folder of built libraries: $GPUCONV_EMULATE_CACHE, else gpuconv/emulate in the user's cache folder."""
    chosen = os.environ.get("GPUCONV_EMULATE_CACHE")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "gpuconv" / "emulate"


@functools.cache
def compiler() -> str:
    """Return the C++ compiler's path ($CXX, else g++); raise EmulatorUnavailableError if it or binutils is missing."""
    name = os.environ.get("CXX", "g++")
    path = shutil.which(name)
    if path is None:
        msg = f"the emulator needs a C++ compiler, and {name} is not installed (Debian: apt-get install g++)"
        raise EmulatorUnavailableError(msg)
    for tool in ("readelf", "addr2line", "c++filt"):
        if shutil.which(tool) is None:
            msg = f"the emulator needs {tool}, which is not installed (Debian: apt-get install binutils)"
            raise EmulatorUnavailableError(msg)
    return path


def run(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    """Run a build tool and return what it printed; raise BuildError with what it complained about."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        msg = f"{' '.join(map(str, command))}\n{done.stderr}"
        raise BuildError(msg)
    return done.stdout


@functools.cache
def _processor_flags() -> tuple[str, ...]:
    """Return flags for half-precision and wide vector instructions where the processor has them."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return ()
    return ("-mf16c", "-mfma", "-mavx2") if {"f16c", "fma", "avx2"} <= words else ()


@functools.cache
def _fingerprint() -> str:
    """Return what every library depends on besides its kernel: compiler and runtime sources."""
    files = [path for folder in RUNTIME_FOLDERS for path in sorted(folder.rglob("*")) if path.is_file()]
    texts = [run([compiler(), "--version"]), *(p.read_text(encoding="utf-8") for p in files)]
    return digest([*texts, *_processor_flags()])


def digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def library(text: str, file: str, expressions: Sequence[str], options: Sequence[str], mode: str) -> Path:
    """Build the library of the kernels that `expressions` name, unless it exists, and return its path."""
    options = [o for o in options if o.startswith(("-D", "-U", "-I"))]  # the others speak to NVRTC
    key = digest(
        [_fingerprint(), *_COMMON, *MODE_FLAGS[mode], *_linker_flags(), file, text, *expressions, "", *options]
    )
    folder = cache_folder()
    made = folder / f"{key}.so"
    if made.exists():
        made.touch()  # it is in use
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _forget_unused(folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as work:
            unit = _unit(text, file, expressions, options)
            _build(Path(work), unit, options, mode, _PTX_HEADER if _begins_as_ptx(unit) else _HEADER).replace(made)
    return made


@functools.cache
def _forget_unused(folder: Path) -> None:
    """Delete what has not been used for a month."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may be as quick
            if path.is_file() and path.stat().st_mtime < time.time() - _KEPT_SECONDS:
                path.unlink()


def _unit(text: str, file: str, expressions: Sequence[str], options: Sequence[str]) -> str:
    """Return the translation unit: macros, the kernel's text under its own name, then one registration per kernel."""
    # Macros of the command line would differ from those that the header was precompiled with.
    macros = [f"#define {' '.join(o[2:].split('=', 1))}" for o in options if o.startswith("-D")]
    undefined = [f"#undef {o[2:]}" for o in options if o.startswith("-U")]
    registered = [f'EMULATE_KERNEL({i}, "{e}", {e})' for i, e in enumerate(expressions)]
    return "\n".join([*undefined, *macros, f'#line 1 "{file}"', text, '#line 1 "registration"', *registered, ""])


def _begins_as_ptx(unit: str) -> bool:
    """Return whether a unit is what ptx_to_cpp.py wrote, with no macro before the header that it includes."""
    return bool(re.match(r'#line 1 "[^"\n]*"\n#include "ptx_support.hpp"\n', unit))


def _build(work: Path, unit: str, options: Sequence[str], mode: str, header: str) -> Path:
    """Compile, assemble and link one unit in the folder `work`; return the library."""
    source, assembler, compiled = work / "unit.cpp", work / "unit.s", work / "unit.o"
    source.write_text(unit, encoding="utf-8")
    flags = [*_unit_flags(mode), f"-fdebug-prefix-map={work}=", *(o for o in options if o.startswith("-I"))]
    included = _precompiled_header(mode, header).with_suffix("")
    run([compiler(), *flags, "-include", included, "-S", source, "-o", assembler], cwd=work)
    if mode != "fast":
        assembler.write_text(_with_red_zones(assembler.read_text(encoding="utf-8")), encoding="utf-8")
    run([compiler(), "-c", assembler, "-o", compiled])
    stub = work / "dynamic_shared.s"
    stub.write_text(_dynamic_shared_stub(_undefined_shared_names(compiled)), encoding="utf-8")
    made = work / "library.so"
    run([compiler(), *_linker_flags(), "-shared", "-o", made, compiled, _runtime_object(), stub])
    return made


def _unit_flags(mode: str) -> list[str]:
    return [
        *_COMMON,
        *_processor_flags(),
        *MODE_FLAGS[mode],
        *(f"-I{folder}" for folder in (*RUNTIME_FOLDERS, RUNTIME / "include")),
    ]


def _linker_flags() -> list[str]:
    """Return what chooses the linker: gold, where there is one, takes a third of the time of the usual one."""
    return ["-fuse-ld=gold"] if shutil.which("ld.gold") else []


def _precompiled_header(mode: str, header: str) -> Path:
    """Return a header as g++ has parsed it, "<name>.gch": to parse it takes longer than a small kernel."""
    source = RUNTIME / header
    made = _of_runtime(f"{mode}-{header}.gch", *_unit_flags(mode), "-x", "c++-header", source)
    # Who includes <name> gets what is precompiled, or, where that does not fit, the header itself.
    named = made.with_suffix("")
    if not named.exists():
        with tempfile.NamedTemporaryFile("w", dir=made.parent, delete=False, encoding="utf-8") as f:
            f.write(f'#include "{source}"\n')
        Path(f.name).replace(named)
    return made


def _with_red_zones(assembler: str) -> str:
    """Put unused bytes behind every static __shared__ array, so that an overrun does not land in the next one."""

    def widen(section: re.Match[str]) -> str:
        return re.sub(r"(\n\s*\.zero\s+\d+)", rf"\1\n\t.zero\t{_RED_ZONE}", section[1])

    section = r"(\.section\s+\.tbss(?:(?!\.section|\.text|\.data|\.bss).)*?)(?=\n\s*\.(?:section|text|data|bss)|\Z)"
    return re.sub(section, widen, assembler, flags=re.DOTALL)


def _undefined_shared_names(compiled: Path) -> list[str]:
    """Return the `extern __shared__` names of an object file: its undefined thread-local symbols."""
    symbol = re.compile(r"^\s*\d+:\s+\S+\s+\S+\s+TLS\s+GLOBAL\s+\S+\s+UND\s+(\S+)", re.MULTILINE)
    return [m[1] for m in symbol.finditer(run(["readelf", "-sW", compiled]))]


def _dynamic_shared_stub(names: Sequence[str]) -> str:
    """Return assembler that places all `extern __shared__` names on one thread-local block."""
    anchor = DYNAMIC_SHARED
    labels = [anchor, *(n for n in names if n != anchor)]
    lines = ['.section .tbss,"awT",@nobits', ".balign 1024"]
    for label in labels:
        lines += [f".globl {label}", f".hidden {label}", f".type {label},@object"]
    lines += [f".size {anchor},{DYNAMIC_SHARED_BYTES}", *(f"{label}:" for label in labels)]
    lines += [f".zero {DYNAMIC_SHARED_BYTES}", '.section .note.GNU-stack,"",@progbits', ""]
    return "\n".join(lines)


def _runtime_flags() -> list[str]:
    return ["-std=c++17", "-O2", "-g1", "-ffp-contract=fast", *_processor_flags()]


def _runtime_object() -> Path:
    """Return the compiled runtime: shared by all modes, never instrumented."""
    return _of_runtime("runtime.o", *_runtime_flags(), "-fPIC", "-fvisibility=hidden", "-c", RUNTIME / "runtime.cpp")


def server() -> Path:
    """Return the launch server, a program."""
    return _of_runtime("server", *_runtime_flags(), RUNTIME / "server.cpp", "-ldl")


@functools.cache
def _of_runtime(name: str, *arguments: str | Path) -> Path:
    """Build something of the runtime's sources, unless it exists, and return its path."""
    folder = cache_folder()
    made = folder / f"{digest([_fingerprint(), *map(str, arguments)])}-{name}"
    if made.exists():
        made.touch()  # it is in use
        return made
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as work:
        built = Path(work) / name
        run([compiler(), *arguments, "-o", built])
        built.replace(made)
    return made
