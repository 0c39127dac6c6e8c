"""Fetch one file of known size and SHA-256 from the first mirror that delivers, and resume where a try broke off.

The bytes go to a `.part` file of this process alone, held by a lock, and get their name when their hash is right.  So
any number of processes may fetch the same file at once, nobody ever sees half of it, and a part that a killed process
left is taken over by the next.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import os
import re
import secrets
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from .. import durable
from ..errors import ConfigError, DownloadError

Progress = Callable[[int, int], None]
Notice = Callable[[str], None]

_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a mirror."""

    timeout: float = 15.0
    """Seconds to connect, and seconds without a byte."""
    tries: int = 5
    """Connections to one mirror, as long as each brought something before it broke."""


def fetch(
    urls: Sequence[str],
    target: Path,
    *,
    size: int,
    sha256: str,
    progress: Progress | None = None,
    notice: Notice | None = None,
    patience: Patience | None = None,
) -> Path:
    """Return target after fetching it: exactly `size` bytes with the given SHA-256, from the first URL that has them.

    progress(bytes done, size) is called for every block.
    A target that is there and right is left as it is; a wrong one is replaced.
    Raises DownloadError with what each mirror said; what arrived stays in a .part file beside target and is resumed.
    """
    for url in urls:
        _check_url(url)
    if _is_right(target, size, sha256):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = _Part(target)
    except OSError as error:
        msg = f"{target.parent} cannot be written ({error.strerror or error}), expected room for {target.name}"
        raise DownloadError(msg) from error
    with part:
        fetcher = _Fetcher(part, size, sha256, progress or _silent, notice or _silent, patience or Patience())
        fetcher.run(urls)
        part.publish()
    return target


def _is_right(path: Path, size: int, sha256: str) -> bool:
    if not path.is_file() or path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _silent(*_: object) -> None:
    pass


def _check_url(url: str) -> None:
    if not re.match(r"https?://[^/]", url):
        msg = f"a download URL must begin with https:// or http://, got {url!r}"
        raise ConfigError(msg)


# Talking to mirrors ---------------------------------------------------------------------------------------------------


class _Refused(Exception):
    """This mirror does not have the file."""


class _Broke(Exception):
    """The connection ended early."""


class _StaysSecure(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to something that can be listened to."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and not newurl.startswith("https:"):
            reason = f"it redirects from https to {newurl}"
            raise _Refused(reason)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Fetcher:
    """One download: fills the part until it has the right bytes."""

    def __init__(
        self, part: _Part, size: int, sha256: str, progress: Progress, notice: Notice, patience: Patience
    ) -> None:
        self.part = part
        self.size = size
        self.sha256 = sha256
        self.progress = progress
        self.notice = notice
        self.patience = patience
        self.opener = urllib.request.build_opener(_StaysSecure)
        self.problems: list[str] = []

    def run(self, urls: Sequence[str]) -> None:
        """Return when the part is complete and right; raise DownloadError if no URL got it there."""
        if self.part.size >= self.size and self.complete() is None:
            return
        self.check_room()
        if any(self.try_mirror(url) for url in urls):
            return
        msg = f"{self.part.target.name} could not be fetched:" + "".join(f"\n  {line}" for line in self.problems)
        if self.part.size:
            msg += f"\n  {self.part.size:,} of {self.size:,} bytes are kept; the next try goes on from there"
        raise DownloadError(msg)

    def report(self, url: str, problem: str) -> None:
        self.problems.append(f"{url}: {problem}")
        self.notice(self.problems[-1])

    def check_room(self) -> None:
        needed = self.size - self.part.size
        free = shutil.disk_usage(self.part.target.parent).free
        if free < needed:
            msg = f"{self.part.target.parent} has {free:,} bytes free, {self.part.target.name} needs {needed:,} more"
            raise DownloadError(msg)

    def complete(self) -> str | None:
        """Return None if the part is right; else empty it, and return what was wrong."""
        size, digest = self.part.size, self.part.digest()
        if size == self.size and digest == self.sha256:
            return None
        self.part.restart()
        if size != self.size:
            return f"{size:,} bytes, expected {self.size:,}"
        return f"SHA-256 is {digest}, expected {self.sha256}"

    def try_mirror(self, url: str) -> bool:
        """Return whether this mirror completed the part."""
        last = ""
        for _ in range(self.patience.tries):
            start = self.part.size
            try:
                self.receive(url)
            except _Refused as error:
                self.report(url, str(error))
                return False
            except _Broke as error:
                if self.part.size > start:
                    last = str(error)
                    continue
                self.report(url, str(error))
                return False
            wrong = self.complete()
            if wrong is None:
                return True
            if not start:
                self.report(url, wrong)
                return False
            last = wrong  # maybe by bytes that an earlier try or mirror left: take all from this one
        self.report(url, f"broke off {self.patience.tries} times, at last: {last}")
        return False

    def receive(self, url: str) -> None:
        """Append what the part lacks, or raise _Refused or _Broke."""
        try:
            with self.open(url) as response:
                self.copy(response)
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"HTTP {error.code} {error.reason}"
            raise _Refused(reason) from None
        except (DownloadError, _Refused, _Broke):
            raise
        except (OSError, http.client.HTTPException) as error:
            what = str(getattr(error, "reason", "") or error) or type(error).__name__
            reason = f"{what} after {self.part.size:,} bytes"
            raise _Broke(reason) from None

    def open(self, url: str) -> http.client.HTTPResponse:
        """Return the answer that begins where the part ends: the part is emptied if the mirror starts over."""
        if self.part.size:
            headers = {"Range": f"bytes={self.part.size}-"}
            try:
                response = self.request(url, headers)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code != 416:
                    raise
            else:
                if response.status == 206 and self.continues(response):
                    return response
                if response.status == 200:
                    self.part.restart()
                    return self.checked(response)
                response.close()
            self.part.restart()
        return self.checked(self.request(url, {}))

    def request(self, url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        # Compressed on the way it would have another length, and no ranges.
        headers = {"User-Agent": "gpuconv", "Accept-Encoding": "identity", **headers}
        request = urllib.request.Request(url, headers=headers)
        response: http.client.HTTPResponse = self.opener.open(request, timeout=self.patience.timeout)
        return response

    def continues(self, response: http.client.HTTPResponse) -> bool:
        """Return whether a partial answer is the rest of our file, by its own account."""
        content_range = response.headers.get("Content-Range", "").strip()
        return content_range == f"bytes {self.part.size}-{self.size - 1}/{self.size}" and response.length in (
            None,
            self.size - self.part.size,
        )

    def checked(self, response: http.client.HTTPResponse) -> http.client.HTTPResponse:
        """Return a whole answer if it can be our file; a page of HTML cannot."""
        kind = response.headers.get_content_type()
        wrong = ""
        if response.status != 200:
            wrong = f"HTTP {response.status} {response.reason}"
        elif kind == "text/html":
            length = "" if response.length is None else f" of {response.length:,} bytes"
            wrong = f"an HTML page{length}, expected a file of {self.size:,}"
        elif response.length not in (None, self.size):
            wrong = f"a file of {response.length:,} bytes, expected {self.size:,}"
        if wrong:
            response.close()
            raise _Refused(wrong)
        return response

    def copy(self, response: http.client.HTTPResponse) -> None:
        """Append the answer's bytes to the part."""
        with response:
            while block := response.read1(_BLOCK):
                if self.part.size + len(block) > self.size:
                    self.part.restart()
                    reason = f"more than the expected {self.size:,} bytes"
                    raise _Refused(reason)
                self.part.write(block)
                self.progress(self.part.size, self.size)
        if self.part.size < self.size:
            reason = f"ended after {self.part.size:,} of {self.size:,} bytes"
            raise _Broke(reason)


# The file on the disk -------------------------------------------------------------------------------------------------


class _Part:
    """The growing file beside its target: ours alone while it is locked, kept for the next process if it has bytes."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path, self.file = next(_abandoned(target), None) or _new(target)
        self.size = os.fstat(self.file.fileno()).st_size
        self.file.seek(self.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.file.closed:
            _let_go(self.file, _silent if self.size else functools.partial(_delete, self.path))

    def write(self, block: bytes) -> None:
        view = memoryview(block)
        try:
            while view:
                written = self.file.write(view)
                view = view[written:]
                self.size += written
        except OSError as error:
            msg = f"{self.path} cannot be written after {self.size:,} bytes ({error.strerror or error})"
            raise DownloadError(msg) from error

    def restart(self) -> None:
        self.file.truncate(0)
        self.file.seek(0)
        self.size = 0

    def digest(self) -> str:
        """Return the SHA-256 of what is on the disk."""
        self.file.seek(0)
        digest = hashlib.file_digest(self.file, "sha256").hexdigest()  # type: ignore[arg-type]
        self.file.seek(self.size)
        return digest

    def publish(self) -> None:
        """Give the file its name, once its bytes are on the disk, and delete parts that nobody holds."""
        try:
            os.fsync(self.file.fileno())
            _let_go(self.file, lambda: self.path.replace(self.target))
            durable.flush_folder(self.target.parent)
        except OSError as error:
            msg = f"{self.target} cannot be written ({error.strerror or error}); its bytes are in {self.path.name}"
            raise DownloadError(msg) from error
        for path, file in _abandoned(self.target):
            _let_go(file, functools.partial(_delete, path))


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):  # a part too many does no harm
        path.unlink()


def _let_go(file: IO[bytes], last: Callable[[], object]) -> None:
    """Do one last thing to a locked file and unlock it: in this order, lest someone takes it over in between."""
    if sys.platform == "win32":  # where only closed files can be renamed or deleted
        file.close()
    try:
        last()
    finally:
        file.close()


def _new(target: Path) -> tuple[Path, IO[bytes]]:
    while True:
        path = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
        file = path.open("x+b", buffering=0)
        if _lock(file) and _is_at(path, file):
            return path, file
        file.close()  # another process found it before it was locked, and took it over


def _abandoned(target: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Yield the target's parts that no process holds, locked, the longest first."""
    parts = [p for p in target.parent.iterdir() if p.name.startswith(f"{target.name}.") and p.suffix == ".part"]
    for path in sorted(parts, key=_size_of, reverse=True):
        try:
            file = path.open("r+b", buffering=0)
        except OSError:  # published, deleted or another user's
            continue
        # Its owner may have published it just before we got the lock: then its name is gone or another file's.
        if _lock(file) and _is_at(path, file):
            yield path, file
        else:
            file.close()


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _lock(file: IO[bytes]) -> bool:
    """Return whether the file is now ours; the lock ends with the open file, also when the process is killed."""
    try:
        durable.lock(file)
    except OSError:
        return False
    return True
