"""Take the bytes of the batches out of a .tar.gz or .tar: all members are looked at, and none is ever extracted."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

from ... import contents
from ...errors import DatasetCorruptError, GpuconvError, UnsafeArchiveError
from .source import MOST_OTHER_BYTES, Source, check_complete, check_size, sizes
from .spec import Spec

_ARCHIVES = ("a gzip archive", "a tar archive")
_MOST_MEMBERS = 64
_LONGEST_HEADER = 4096  # of a tar: blocks of 512 bytes, and for names that do not fit some more
_MOST_HEADER_BYTES = 1 << 18


def digest(source: Source) -> str:
    """Return the SHA-256 of an archive."""
    with source.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def batches(source: Source, spec: Spec) -> Iterator[tuple[str, bytes]]:
    """Yield (batch, bytes of its file) for every batch of an archive, in the order they are stored."""
    wanted = {f"{source.layout.folder}/{source.file_name(batch)}": batch for batch in spec.batches}
    longest = max(sizes(source, spec, batch)[1] for batch in spec.batches) + MOST_OTHER_BYTES
    seen: set[str] = set()
    try:
        with _unpacked(source.path) as stream:
            guarded: Any = _Guarded(source.path, stream, longest)
            with tarfile.open(fileobj=guarded, mode="r:") as tar:
                count = 0
                while (member := tar.next()) is not None:
                    count += 1
                    _check_member(source.path, member, count, wanted)
                    batch = wanted.get(member.name)
                    if batch is None:
                        continue
                    if batch in seen:
                        msg = f"{source.path} has {member.name} twice, expected it once"
                        raise DatasetCorruptError(msg)
                    seen.add(batch)
                    title = source.title(batch)
                    check_size(title, member.size, source, spec, batch)
                    raw = guarded.batch(tar, member)
                    check_size(title, len(raw), source, spec, batch)
                    yield batch, raw
            _check_end(source.path, stream)
    except GpuconvError:
        raise
    except _BROKEN_ARCHIVE as error:
        reason = (str(error) or type(error).__name__)[:100]
        msg = f"{source.path} is not a sound .tar.gz archive: {reason}"
        raise DatasetCorruptError(msg) from None
    check_complete(source, seen, spec)


# What gzip, zlib and tarfile raise for bytes that are not theirs; other OSErrors are the disk's and pass through.
_BROKEN_ARCHIVE = (
    gzip.BadGzipFile,
    zlib.error,
    tarfile.TarError,
    EOFError,
    ValueError,
    LookupError,
    ArithmeticError,
    RecursionError,
)


@contextmanager
def _unpacked(path: Path) -> Iterator[Any]:
    """Open an archive as the tar in it: some browsers take the .gz away, and leave a .tar."""
    start = contents.head(path)
    kind = contents.kind(start)
    if kind not in _ARCHIVES and (words := contents.in_words(start)):
        msg = f"{path} is not a sound .tar.gz archive: it {words}"
        raise DatasetCorruptError(msg)
    with path.open("rb") as file:
        if kind == "a tar archive":
            yield file
            return
        with gzip.GzipFile(fileobj=file) as stream:
            yield stream


def _check_member(archive: Path, member: tarfile.TarInfo, count: int, wanted: dict[str, str]) -> None:
    """Raise UnsafeArchiveError for a member that the archive has no use for."""
    problem = ""
    windows = PureWindowsPath(member.name)
    if count > _MOST_MEMBERS:
        problem = f"more than {_MOST_MEMBERS} members"
    elif windows.anchor or ".." in windows.parts:
        problem = f"{member.name!r}, a path that leads out of its folder"
    elif not (member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)) or member.issparse():
        problem = f"{member.name!r} of tar type {member.type!r}, which is neither a plain file nor a folder"
    elif member.name not in wanted and not 0 <= member.size <= MOST_OTHER_BYTES:
        problem = f"{member.name!r} of {member.size:,} bytes, which is no batch file"
    if problem:
        msg = f"{archive} holds {problem}; nothing was unpacked"
        raise UnsafeArchiveError(msg)


def _check_end(archive: Path, stream: Any) -> None:
    """Read what follows the tar's end, which is only padding: at the end of the stream gzip compares its checksum."""
    rest = len(stream.read(MOST_OTHER_BYTES + 1))
    if rest > MOST_OTHER_BYTES:
        msg = f"{archive} goes on for more than {MOST_OTHER_BYTES:,} bytes after its last member"
        raise UnsafeArchiveError(msg)


class _Guarded:
    """The bytes of a tar, unpacked, for tarfile: forward only, no part longer than a batch file can be.

    What tarfile reads by itself are headers.  It may take them apart in a time that grows with the square of their
    length, and one may follow the other: so they are short, and few.
    """

    def __init__(self, path: Path, stream: Any, longest: int) -> None:
        self._path = path
        self._stream = stream
        self._longest = longest
        self._in_batch = False
        self._headers = 0

    def read(self, count: int = -1) -> bytes:
        if self._in_batch:
            self._check(count, "has a part")
        else:
            self._headers += max(count, 0)
            if not 0 <= count <= _LONGEST_HEADER or self._headers > _MOST_HEADER_BYTES:
                msg = (
                    f"{self._path} has a header of {count:,} bytes after {self._headers - count:,} bytes of others, "
                    f"expected {_LONGEST_HEADER:,} at most, and {_MOST_HEADER_BYTES:,} in all"
                )
                raise UnsafeArchiveError(msg)
        return self._stream.read(count)

    def batch(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
        """Return the content of a member."""
        self._in_batch = True
        content = tar.extractfile(member)
        raw = content.read() if content is not None else b""
        self._in_batch = False
        return raw

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, position: int) -> int:
        self._check(position - self._stream.tell(), "jumps ahead by")
        return self._stream.seek(position)

    def _check(self, count: int, what: str) -> None:
        if not 0 <= count <= self._longest:
            msg = f"{self._path} {what} of {count:,} bytes, expected 0 to {self._longest:,}"
            raise UnsafeArchiveError(msg)
