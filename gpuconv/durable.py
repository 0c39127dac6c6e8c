"""Files that survive a crash: written whole or not at all, on the disk before anyone sees them.

The order is what counts: write a temporary file in the same folder, flush it to the disk, read it back, rename it over
the old one, flush the folder.  A process killed anywhere leaves the old file or the new one, and at most a temporary.
Source: Pillai et al., All file systems are not created equal (OSDI 2014).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from pathlib import Path
from typing import IO

from .errors import CheckpointWriteError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_CHUNK = 1 << 20
_TEMPORARY = ".part"
TAKEN = errno.EAGAIN, errno.EACCES  # numbers of the OSError where another process has a lock: POSIX and Windows
_LONGEST = 50  # letters of a name in that of its temporary, which must not be too long where the name itself is not
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def write(path: Path, content: bytes) -> None:
    """Replace the file at path by content; raise CheckpointWriteError, with the old file in place, if that fails."""
    temporary = path.with_name(f".{path.name[:_LONGEST]}.{secrets.token_hex(8)}{_TEMPORARY}")
    try:
        _create(temporary, content)
        os.replace(temporary, path)  # noqa: PTH105 - like every call here, one of the system's that tests watch
    except OSError as error:
        with contextlib.suppress(OSError):  # a folder that is a file, or gone, holds no temporary
            temporary.unlink()
        msg = f"{path} could not be written ({error.strerror or error}); what was there before is untouched"
        raise CheckpointWriteError(msg) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    try:
        flush_folder(path.parent)
    except OSError as error:
        msg = f"{path} was written, but its folder could not be flushed to the disk ({error.strerror or error})"
        raise CheckpointWriteError(msg) from error


def append(path: Path, lines: bytes, *, flush: bool = True) -> None:
    """Add lines to the end of a file; raise CheckpointWriteError if that fails, perhaps with a part of it written.

    A line that was cut short before, by a full disk or an interrupt, is ended first: it does not spoil the next one.
    flush: to the disk; without it the lines may be lost with the machine, though not with the process.
    """
    try:
        with path.open("a+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                lines = lines if file.read(1) == b"\n" else b"\n" + lines
            view = memoryview(lines)
            while view:
                view = view[file.write(view) :]
            if flush:
                os.fsync(file.fileno())
    except OSError as error:
        msg = f"{path} could not be written ({error.strerror or error})"
        raise CheckpointWriteError(msg) from error


def remove(*paths: Path) -> None:
    """Delete files of one folder, those that are there, so that no crash brings them back; or CheckpointWriteError."""
    there = [path for path in paths if path.exists()]
    try:
        for path in there:
            path.unlink()
        if there:
            flush_folder(there[0].parent)
    except OSError as error:
        msg = f"{there[0].parent} could not be cleared of {there[0].name} ({error.strerror or error})"
        raise CheckpointWriteError(msg) from error


def lock(file: IO[bytes]) -> None:
    """Hold an open file for this process alone, until it is closed or the process is killed; OSError if another has it."""
    if sys.platform == "win32":
        file.seek(1 << 40)  # locks there are mandatory: a byte nobody reads or writes
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(path: Path) -> bool:
    """Return whether another open file holds the lock of a file; one that is not there, or not ours to read, is free.

    Looking holds the lock for a moment, shared with others who look.
    """
    try:
        file = path.open("rb", buffering=0)
    except OSError:
        return False
    with file:
        try:
            if sys.platform == "win32":
                lock(file)
            else:
                fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in TAKEN
    return False


def remove_stale(folder: Path) -> list[str]:
    """Delete the temporaries that killed writers left in a folder, and return their names.

    Call it only while nobody else writes there: a run holds its folder's lock.
    """
    stale = sorted(folder.glob(f".*{_TEMPORARY}"))
    for path in stale:
        path.unlink(missing_ok=True)
    return [path.name for path in stale]


def _create(path: Path, content: bytes) -> None:
    """Write a new file, private until complete, flush it to the disk and compare it with what was meant."""
    descriptor = os.open(path, _CREATE_FLAGS, 0o666)
    try:
        # What the umask made of the mode: asking for the mask itself means to set it, and an interrupt would leave it so.
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        os.chmod(path, 0o600)  # noqa: PTH101 - the system's own call, as everywhere here
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view[:_CHUNK]) :]
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _compare(path, content)


def _compare(path: Path, content: bytes) -> None:
    descriptor = os.open(path, _READ_FLAGS)
    try:
        view = memoryview(content)
        while piece := os.read(descriptor, _CHUNK):
            if view[: len(piece)] != piece:
                raise OSError(errno.EIO, "the disk gave back other bytes than were written")
            view = view[len(piece) :]
        if view:
            raise OSError(errno.EIO, "the disk gave back fewer bytes than were written")
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that a rename in it survives a crash."""
    if os.name == "nt":  # folders cannot be opened there; the rename itself is journalled
        return
    descriptor = os.open(folder, _READ_FLAGS)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems without such a thing
            raise
    finally:
        os.close(descriptor)
