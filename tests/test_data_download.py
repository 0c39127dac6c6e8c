"""Downloads against a local server that answers well, badly, or not at all."""

import contextlib
import errno
import hashlib
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from local_server import serve, server, status

from gpuconv.data import download
from gpuconv.data.download import Patience, fetch
from gpuconv.errors import ConfigError, DownloadError

__all__ = ["server"]  # a fixture

CONTENT = (bytes(i * i % 251 for i in range(251)) * 3985)[:1_000_003]
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SIZE = len(CONTENT)


def good(handler):
    serve(handler, CONTENT)


def without_ranges(handler):
    handler.reply(200, CONTENT)


def wrong_bytes(handler):
    serve(handler, CONTENT[:-1] + b"x")


def breaks_after(count):
    """Serve at most count bytes a connection, though more are announced."""

    def answer(handler):
        start = handler.start or 0
        rest = CONTENT[start:]
        where = {"Content_Range": f"bytes {start}-{SIZE - 1}/{SIZE}"} if start else {}
        handler.reply(206 if start else 200, rest[:count], length=len(rest), **where)

    return answer


def lies_about_the_range(content_range):
    """Answer 206 with a Content-Range that is not what was asked for, and bytes that fit neither."""

    def answer(handler):
        if handler.start is None:
            handler.reply(200, CONTENT)
        else:
            handler.reply(
                206, CONTENT[handler.start - 10 :], **({"Content_Range": content_range} if content_range else {})
            )

    return answer


def html(handler):
    handler.reply(200, b"<html>Welcome to our hotel, please log in</html>", Content_Type="text/html; charset=utf-8")


def html_of_the_right_length(handler):
    handler.reply(200, b"<html>".ljust(SIZE), Content_Type="text/html")


def short_file(handler):
    handler.reply(200, CONTENT[:1000], Content_Type="application/gzip")


def short_without_length(handler):
    handler.reply(200, CONTENT[:1000], length=False)


def long_without_length(handler):
    handler.reply(200, CONTENT + b"more", length=False)


def says_nothing(handler):
    handler.server.over.wait(60)


def stops_in_the_middle(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", str(SIZE))
    handler.end_headers()
    handler.wfile.write(CONTENT[:1000])
    handler.wfile.flush()
    handler.server.over.wait(60)


def not_http(handler):
    handler.wfile.write(b"220 mail server ready\r\n")


QUICK = Patience(timeout=5, tries=5)


def get(target, *urls, patience=QUICK, **more):
    return fetch(urls, target, size=SIZE, sha256=SHA256, patience=patience, **more)


def parts(target):
    return sorted(target.parent.glob("*.part"))


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "file.tar.gz"


def leave_part(target, content, name="0123"):
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f"{target.name}.{name}.part")
    path.write_bytes(content)
    return path


def only_the_file_is_there(target):
    return target.read_bytes() == CONTENT and list(target.parent.iterdir()) == [target]


# What works --------------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_and_nothing_else_stays(server, target, monkeypatch):
    monkeypatch.setattr(download, "_BLOCK", SIZE // 3)
    seen = []
    assert get(target, server.url("good", good), progress=lambda done, size: seen.append((done, size))) == target
    assert only_the_file_is_there(target)
    assert len(seen) > 1
    assert seen == sorted(set(seen))
    assert {size for _, size in seen} == {SIZE}
    assert seen[-1] == (SIZE, SIZE)


def test_a_file_that_is_there_and_right_is_not_fetched_again(server, target):
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    get(target, server.url("good", good))
    assert server.requests == []


@pytest.mark.parametrize("old", [CONTENT[:-1], CONTENT[:-1] + b"x"], ids=["short", "wrong"])
def test_a_wrong_file_is_replaced(server, target, old):
    target.parent.mkdir()
    target.write_bytes(old)
    get(target, server.url("good", good))
    assert only_the_file_is_there(target)


def test_the_next_mirror_is_asked_when_one_fails(server, target):
    notices = []
    urls = server.url("gone", status(404)), server.url("page", html), server.url("good", good), server.url("more", good)
    get(target, *urls, notice=notices.append)
    assert [name for name, _ in server.requests] == ["gone", "page", "good"]
    assert only_the_file_is_there(target)
    assert [line.partition(": ")[2] for line in notices] == [
        "HTTP 404 Not Found",
        f"an HTML page of 48 bytes, expected a file of {SIZE:,}",
    ]


def test_bytes_of_one_mirror_are_continued_by_the_next(server, target):
    server.url("second", good)
    first = server.url("first", breaks_after(300_000))
    get(target, first, server.url("second", good), patience=Patience(tries=1))
    assert server.requests == [("first", None), ("second", "bytes=300000-")]
    assert only_the_file_is_there(target)


@pytest.mark.parametrize("length", [1, 65_536, 999_999, SIZE - 1])
def test_an_interrupted_download_goes_on_where_it_stopped(server, target, length):
    leave_part(target, CONTENT[:length])
    get(target, server.url("good", good))
    assert server.requests == [("good", f"bytes={length}-")]
    assert only_the_file_is_there(target)


@pytest.mark.parametrize("every", [400_000, 250_001])
def test_a_connection_that_breaks_is_taken_up_again(server, target, every):
    get(target, server.url("breaks", breaks_after(every)))
    assert [start for _, start in server.requests] == [None, *(f"bytes={i}-" for i in range(every, SIZE, every))]
    assert only_the_file_is_there(target)


def test_a_complete_part_needs_no_mirror(server, target):
    leave_part(target, CONTENT)
    get(target, server.url("good", good))
    assert server.requests == []
    assert only_the_file_is_there(target)


STARTS_OVER = {
    "range_ignored": (without_ranges, CONTENT[:5000], ["bytes=5000-"]),
    "range_from_elsewhere": (
        lies_about_the_range(f"bytes 4990-{SIZE - 1}/{SIZE}"),
        CONTENT[:5000],
        ["bytes=5000-", None],
    ),
    "range_of_another_file": (
        lies_about_the_range(f"bytes 5000-{SIZE}/{SIZE + 1}"),
        CONTENT[:5000],
        ["bytes=5000-", None],
    ),
    "range_of_wrong_length": (
        lies_about_the_range(f"bytes 5000-{SIZE - 1}/{SIZE}"),
        CONTENT[:5000],
        ["bytes=5000-", None],
    ),
    "range_not_said": (lies_about_the_range(None), CONTENT[:5000], ["bytes=5000-", None]),
    "range_of_nonsense": (lies_about_the_range("bytes all/some"), CONTENT[:5000], ["bytes=5000-", None]),
    "range_not_satisfiable": (
        lambda handler: handler.reply(416, b"") if handler.start else good(handler),
        CONTENT[:5000],
        ["bytes=5000-", None],
    ),
    "part_of_another_file": (good, b"x" * 5000, ["bytes=5000-", None]),
    "part_complete_but_wrong": (good, CONTENT[:-1] + b"x", [None]),
    "part_too_long": (good, CONTENT + b"x", [None]),
}


@pytest.mark.parametrize(("answer", "part", "ranges"), STARTS_OVER.values(), ids=STARTS_OVER.keys())
def test_a_part_that_cannot_be_continued_is_fetched_anew(server, target, answer, part, ranges):
    leave_part(target, part)
    get(target, server.url("mirror", answer))
    assert [wanted for _, wanted in server.requests] == ranges
    assert only_the_file_is_there(target)


def test_redirects_are_followed(server, target):
    moved = server.url("moved", lambda handler: handler.reply(302, b"", Location="/good"))
    server.url("good", good)
    get(target, moved)
    assert only_the_file_is_there(target)


# What fails --------------------------------------------------------------------------------------------------------


FAILURES = {
    "not_found": (status(404), r"HTTP 404 Not Found"),
    "overloaded": (status(503), r"HTTP 503 Service Unavailable"),
    "no_content": (status(204), r"HTTP 204 No Content"),
    "html_page": (html, r"an HTML page of 48 bytes, expected a file of 1,000,003"),
    "html_page_of_the_right_length": (html_of_the_right_length, r"an HTML page of 1,000,003 bytes"),
    "shorter_file": (short_file, r"a file of 1,000 bytes, expected 1,000,003"),
    "shorter_file_of_unknown_length": (short_without_length, r"ended after 1,000 of 1,000,003 bytes"),
    "longer_file_of_unknown_length": (long_without_length, r"more than the expected 1,000,003 bytes"),
    "other_bytes": (wrong_bytes, rf"SHA-256 is [0-9a-f]{{64}}, expected {SHA256}"),
    "breaks_at_once": (breaks_after(0), r"ended after 0 of 1,000,003 bytes"),
    "breaks_too_often": (breaks_after(1000), r"broke off 5 times, at last: ended after 5,000 of 1,000,003 bytes"),
    "redirect_in_a_circle": (lambda handler: handler.reply(302, b"", Location=handler.path), r"infinite loop"),
    "redirect_to_a_file": (lambda handler: handler.reply(302, b"", Location="file:///etc/passwd"), r"HTTP 302"),
    "no_http": (not_http, r"220 mail server ready"),
}


@pytest.mark.parametrize(("answer", "words"), FAILURES.values(), ids=FAILURES.keys())
def test_failures_say_what_the_mirror_said(server, target, answer, words):
    url = server.url("mirror", answer)
    with pytest.raises(DownloadError, match=words) as caught:
        get(target, url)
    assert str(caught.value).startswith(f"file.tar.gz could not be fetched:\n  {url}: ")
    assert not target.exists()


def test_every_mirror_is_quoted(server, target):
    urls = [server.url("gone", status(404)), server.url("page", html)]
    with pytest.raises(DownloadError) as caught:
        get(target, *urls)
    assert all(f"\n  {url}: " in str(caught.value) for url in urls)


STALLS = {"no_answer": (says_nothing, 0), "in_the_middle": (stops_in_the_middle, 1000)}


@pytest.mark.parametrize(("answer", "kept"), STALLS.values(), ids=STALLS.keys())
def test_a_stalled_mirror_is_left(server, target, answer, kept):
    with pytest.raises(DownloadError, match=f"timed out after {kept:,} bytes"):
        get(target, server.url("stalls", answer), patience=Patience(timeout=0.2, tries=1))
    get(target, server.url("good", good))
    assert server.requests[-1] == ("good", f"bytes={kept}-" if kept else None)
    assert only_the_file_is_there(target)


def test_a_host_that_is_not_there_is_left(server, target):
    closed = "http://127.0.0.1:1/file"
    get(target, closed, server.url("good", good))
    assert only_the_file_is_there(target)
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:1/file: .*refused"):
        get(target.with_name("other"), closed)


def test_what_arrived_is_kept_and_said(server, target):
    with pytest.raises(DownloadError, match=r"300,000 of 1,000,003 bytes are kept; the next try goes on from there"):
        get(target, server.url("breaks", breaks_after(300_000)), patience=Patience(tries=1))
    (part,) = parts(target)
    assert part.read_bytes() == CONTENT[:300_000]


def test_nothing_stays_when_nothing_arrived(server, target):
    with pytest.raises(DownloadError):
        get(target, server.url("gone", status(404)))
    assert list(target.parent.iterdir()) == []


def test_the_timeout_is_handed_on(target, monkeypatch):
    seen = []

    def refuse(self, request, data=None, timeout=None):
        seen.append(timeout)
        raise OSError(errno.ENETUNREACH, "unreachable")

    monkeypatch.setattr(download.urllib.request.OpenerDirector, "open", refuse)
    with pytest.raises(DownloadError, match="unreachable"):
        get(target, "http://127.0.0.1:1/file", patience=Patience(timeout=7.5))
    assert seen == [7.5]


def test_a_mirror_with_other_bytes_is_asked_once(server, target):
    with pytest.raises(DownloadError):
        get(target, server.url("wrong", wrong_bytes))
    assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/file", "mirror/file", "", "https:///file"])
def test_other_kinds_of_url_are_refused(target, url):
    with pytest.raises(ConfigError, match="must begin with https:// or http://"):
        get(target, "http://127.0.0.1:1/file", url)
    assert not target.parent.exists()


def test_https_is_never_left(target):
    request = download.urllib.request.Request("https://mirror/file")
    with pytest.raises(download._Refused, match="from https to http://other"):
        download._StaysSecure().redirect_request(request, None, 302, "Found", {}, "http://other/file")


# The disk ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_told_before_anything_is_fetched(server, target, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(DownloadError, match=r"has 1,000 bytes free, file\.tar\.gz needs 1,000,003 more"):
        get(target, server.url("good", good))
    assert server.requests == []
    assert parts(target) == []


class FillsUp:
    """A file on a disk that has room for some bytes."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, block):
        if not self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._file.write(block[: self._room])
        self._room -= written
        return written


def test_a_disk_that_fills_up_keeps_what_fits(server, target, monkeypatch):
    new = download._new

    def new_on_a_small_disk(path):
        name, file = new(path)
        return name, FillsUp(file, 400_000)

    monkeypatch.setattr(download, "_new", new_on_a_small_disk)
    urls = server.url("good", good), server.url("other", good)
    with pytest.raises(DownloadError, match=r"cannot be written after 400,000 bytes \(No space left on device\)"):
        get(target, *urls)
    assert [name for name, _ in server.requests] == ["good"], "another mirror does not help"
    assert not target.exists()
    monkeypatch.undo()
    get(target, *urls)
    assert only_the_file_is_there(target)


def test_a_folder_that_cannot_be_made_is_an_error(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"cannot be written \(.*\), expected room for name"):
        get(tmp_path / "file" / "name", server.url("good", good))
    assert server.requests == []


def test_bytes_reach_the_disk_before_the_name(server, target, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace

    def traced_fsync(descriptor):
        events.append("flush folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "flush file")
        fsync(descriptor)

    def traced_replace(self, other):
        events.append("rename")
        return replace(self, other)

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(Path, "replace", traced_replace)
    get(target, server.url("good", good))
    assert events == ["flush file", "rename", "flush folder"]


# Several at once ---------------------------------------------------------------------------------------------------


class Rendezvous:
    """Serve the file when a number of clients have asked for it, so that all of them hold a part."""

    def __init__(self, count):
        self.barrier = threading.Barrier(count)

    def __call__(self, handler):
        self.barrier.wait(60)
        good(handler)


def test_racing_threads_all_succeed(server, target):
    url = server.url("good", Rendezvous(6))
    half = []
    done = threading.Event()

    def watch():
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                if target.read_bytes() != CONTENT:
                    half.append(target)

    with ThreadPoolExecutor(7) as pool:
        watching = pool.submit(watch)
        try:
            assert list(pool.map(lambda _: get(target, url), range(6))) == [target] * 6
        finally:
            done.set()
    watching.result()
    assert half == []
    assert len(server.requests) == 6
    assert only_the_file_is_there(target)


def test_racing_processes_both_succeed(server, target):
    url = server.url("good", Rendezvous(2))
    program = (
        "import sys, pathlib; from gpuconv.data.download import fetch; url, target, size, sha256 = sys.argv[1:];"
        "fetch([url], pathlib.Path(target), size=int(size), sha256=sha256)"
    )
    command = [sys.executable, "-c", program, url, str(target), str(SIZE), SHA256]
    root = Path(download.__file__).parents[2]
    running = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE) for _ in range(2)]
    outcomes = [(process.communicate()[1], process.returncode) for process in running]
    assert outcomes == [(b"", 0)] * 2
    assert only_the_file_is_there(target)


def test_a_part_in_use_is_left_alone(server, target):
    path = leave_part(target, CONTENT[:5000])
    with path.open("r+b") as file:
        assert download._lock(file)
        get(target, server.url("good", good))
        assert server.requests == [("good", None)]
        assert path.read_bytes() == CONTENT[:5000]


def test_the_longest_part_is_continued_and_the_others_deleted(server, target):
    for name, length in (("aa", 100), ("bb", 9000), ("cc", 5000)):
        leave_part(target, CONTENT[:length], name)
    other = leave_part(target.with_name("other"), b"not ours")
    get(target, server.url("good", good))
    assert server.requests == [("good", "bytes=9000-")]
    assert sorted(target.parent.iterdir()) == sorted([target, other])


def test_an_empty_part_does_not_stay(server, target):
    """Of a process that was killed before the first byte came."""
    leave_part(target, b"")
    leave_part(target, b"", name="4567")
    get(target, server.url("good", good))
    assert server.requests == [("good", None)]
    assert only_the_file_is_there(target)


def test_a_part_that_another_process_takes_before_it_is_locked_is_given_up(server, target, monkeypatch):
    real, lost = download._lock, []

    def late(file):
        if not lost:
            lost.append(file.name)
            Path(file.name).unlink()  # whoever took it over has made the file, and cleared up
        return real(file)

    monkeypatch.setattr(download, "_lock", late)
    get(target, server.url("good", good))
    assert lost
    assert only_the_file_is_there(target)


def test_a_part_published_while_it_was_being_taken_over_is_not_touched(server, target, monkeypatch):
    """Between opening a part and locking it, its owner may give it its name: it must not be written to then."""
    path = leave_part(target, CONTENT[:5000])
    published = target.with_name("published")
    lock = download._lock

    def published_first(file):
        if path.exists():
            path.replace(published)
        return lock(file)

    monkeypatch.setattr(download, "_lock", published_first)
    get(target, server.url("good", good))
    assert published.read_bytes() == CONTENT[:5000]
    assert target.read_bytes() == CONTENT


def test_a_file_system_without_locks_still_works(server, target, monkeypatch):
    leave_part(target, CONTENT[:5000])

    def lock(file):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(download.durable, "lock", lock)
    get(target, server.url("good", good))
    assert target.read_bytes() == CONTENT
