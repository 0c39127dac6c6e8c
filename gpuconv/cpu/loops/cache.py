"""Machine code of passes, kept in the user's cache folder for the next process.

It is found by all that it depends on: the sources of all loops, the versions of Numba, LLVM, NumPy and Python, Numba's
settings, and the processor.  So nothing that is kept is ever out of date; of an upgrade's leavings the latest stay.

A file appears whole, by a rename, and is sealed with a digest of its content: machine code that a disk has spoiled
would not fail but crash.  Machine code is executed, and Numba pickles what goes with it, so nothing is read that another
user could have put there: a shared folder that GPUCONV_CACHE names.  Whatever is wrong with files or folder costs the time to compile, and no more.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import pickle
import secrets
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from ...errors import ConfigError
from ...folders import cache_folder
from ...version import gpuconv_version

_OF_OTHERS = 4  # folders of other versions, settings and processors that stay beside one's own


class Kept(_Cache):
    """The file of one pass, in the form that Numba asks its caches in; missing() is called before it is compiled."""

    def __init__(self, function: Callable, missing: Callable[[], None]) -> None:
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self._missing = missing

    @property
    def cache_path(self) -> str:
        """Return the folder."""
        return str(_folder())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what was compiled for a signature, or None."""
        target_context.refresh()
        try:
            content = _read_own(self._path(sig))
            digest, code = content[:32], content[32:]
            if hashlib.sha256(code).digest() == digest:
                return CompileResult._rebuild(target_context, *pickle.loads(code))
        except PermissionError as error:
            _warn(f"in {_folder().parent} ({error.strerror or error})")
        except Exception:  # noqa: BLE001, S110 - no file, no folder, no home, or one that this Numba cannot read
            pass
        self._missing()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled for a signature; where that fails, say so once."""
        if data.lifted or data.library.has_dynamic_globals:
            msg = f"{self._name} cannot be kept: it refers to memory of this process"
            raise TypeError(msg)
        code = dumps(data._reduce())
        try:
            path = self._path(sig)
            _make(path.parent)
            _write(path, hashlib.sha256(code).digest() + code)
        except OSError as error:
            _warn(f"in {path.parent.parent} ({error.strerror or error})")
        except ConfigError as error:  # there is no home folder
            _warn(f"anywhere ({error})")

    def enable(self) -> None:
        """Numba's caches can be switched; this one is always on."""

    disable = flush = enable

    def _path(self, sig: Any) -> Path:
        return _folder() / f"{self._name}.{hashlib.sha256(str(sig).encode()).hexdigest()[:16]}"


def _folder() -> Path:
    return cache_folder() / "loops" / _key()


@functools.cache
def _key() -> str:
    """Return a digest of all that machine code depends on but for its own types."""
    versions = gpuconv_version(), numba.__version__, llvmlite.__version__, np.__version__, sys.version
    settings = sorted((name, value) for name, value in os.environ.items() if name.startswith("NUMBA_"))
    processor = numba.core.registry.cpu_target.target_context.codegen().magic_tuple()
    digest = hashlib.sha256(repr((versions, settings, processor)).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(f"\0{source.name}\0".encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _read_own(path: Path) -> bytes:
    """Return the content of a file that nobody but this user can have written, in a folder of which that is true, too."""
    with path.open("rb") as file:
        for status in (os.fstat(file.fileno()), path.parent.stat()):
            if sys.platform != "win32" and (status.st_uid != os.getuid() or status.st_mode & 0o022):
                msg = "other users may write there"
                raise PermissionError(msg)
        return file.read()


def _make(folder: Path) -> None:
    """Make a folder that this user alone may change, and do away with all but the latest of those beside it."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(OSError):
        others = [path for path in folder.parent.iterdir() if path != folder]
        for path in sorted(others, key=lambda path: path.stat().st_mtime)[:-_OF_OTHERS]:
            shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # whatever the umask
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


_warned = threading.Event()


def _warn(where: str) -> None:
    """Say once that each process compiles anew."""
    if not _warned.is_set():
        _warned.set()
        logging.getLogger("gpuconv").warning(
            "gpuconv: compiled loops cannot be kept %s: every process compiles them anew. GPUCONV_CACHE names another "
            "folder, GPUCONV_COMPILED=0 does without loops",
            where,
        )
