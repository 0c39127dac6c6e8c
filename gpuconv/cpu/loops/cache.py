"""Machine code of passes, kept in the user's cache folder for the next process.

It is found by all that it depends on: the sources of all loops, the versions of Numba, LLVM, NumPy and Python, Numba's
settings, and the processor.  So nothing that is kept is ever out of date; of an upgrade's leavings the latest stay.

A file appears whole, by a rename, and is sealed with a digest of its content: machine code that a disk has spoiled
would not fail but crash.  Machine code is executed, and Numba pickles what goes with it, so nothing is read that another
user could have put there: a shared folder that GPUCONV_CACHE names.  Whatever is wrong with files or folder costs the time to compile, and no more.

Of processes that miss the same pass at once, one compiles it, and the others wait for its file.  They wait for a lock
that ends with the process that has it; one that cannot be had means to compile oneself.
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
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import llvmlite
import numba
import numpy as np
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from ... import durable
from ...errors import ConfigError
from ...folders import cache_folder
from ...version import gpuconv_version

_OF_OTHERS = 4  # folders of other versions, settings and processors that stay beside one's own
_LOOK_AGAIN = 0.02  # seconds after which a lock that another process has is tried again


class Kept(_Cache):
    """The file of one pass, in the form that Numba asks its caches in; in a `with` block, which ends its turn to compile.

    missing() is called before it is compiled; taken() before one waits for another process that compiles it.
    """

    def __init__(self, function: Callable, missing: Callable[[], None], taken: Callable[[], None]) -> None:
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self._missing = missing
        self._taken = taken
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the next process go on, if this one has compiled: or failed to."""
        if self._lock is not None:
            _do_away_with(self._lock)
            self._lock = None

    @property
    def cache_path(self) -> str:
        """Return the folder."""
        return str(_folder())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what was compiled for a signature, by another process just now or before, or None."""
        target_context.refresh()
        code = self._load(sig, target_context)
        if code is None:
            self._take_turn(sig)
            code = self._load(sig, target_context)
        if code is None:
            self._missing()
        return code

    def _load(self, sig: Any, target_context: Any) -> Any:
        try:
            content = _read_own(self._path(sig))
            digest, code = content[:32], content[32:]
            if hashlib.sha256(code).digest() == digest:
                return CompileResult._rebuild(target_context, *pickle.loads(code))
        except PermissionError as error:
            _warn(f"in {_folder().parent} ({error.strerror or error})")
        except Exception:  # noqa: BLE001, S110 - no file, no folder, no home, or one that this Numba cannot read
            pass
        return None

    def _take_turn(self, sig: Any) -> None:
        """Wait until no other process compiles this pass, and keep others from it; or do without a lock."""
        with contextlib.suppress(OSError, ConfigError):
            path = self._path(sig)
            _make(path.parent)
            _check_own(path.parent.stat())
            lock = path.with_name(f"{path.name}.lock").open("ab")
            try:
                _wait_for(lock, self._taken)
            except OSError:
                _do_away_with(lock)
                raise
            except BaseException:  # the file is another's
                lock.close()
                raise
            self._lock = lock

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
        _check_own(os.fstat(file.fileno()))
        _check_own(path.parent.stat())
        return file.read()


def _check_own(status: os.stat_result) -> None:
    if sys.platform != "win32" and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        msg = "other users may write there"
        raise PermissionError(msg)


def _wait_for(lock: IO[bytes], taken: Callable[[], None]) -> None:
    """Lock a file as soon as no other process has it; OSError if it cannot be locked at all.

    It is tried again and again: a call that waits for a lock can miss the signal that should end it.
    """
    told = False
    while True:
        try:
            durable.lock(lock)
        except OSError as error:
            if error.errno not in durable.TAKEN:
                raise
        else:
            return
        if not told:
            taken()
            told = True
        time.sleep(_LOOK_AGAIN)


def _do_away_with(lock: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # Windows removes no open file: an empty one stays there
        Path(lock.name).unlink()
    lock.close()


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
