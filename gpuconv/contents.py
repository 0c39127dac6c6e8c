"""Tell by its first bytes what a file is, whatever it is called: what lies where another file should.

A name says what a file was meant to be.  What is there is often the page that a server showed instead, a pointer that
Git LFS has not replaced, a download that broke off at once, or a file of another kind.
"""

from __future__ import annotations

import errno
import re
import stat
from pathlib import Path

HEAD = 1024  # bytes that are enough to tell

_LONGEST_HEADER = 100_000_000  # bytes, as safetensors itself takes them
_TAR = 257  # where the first header of a tar has its mark

_PICTURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"II+\x00", "a TIFF picture"),
    (b"MM\x00+", "a TIFF picture"),
)
_OTHERS = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras writes such)"),
    (b"%PDF-", "a PDF"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    (b"8BPS", "a Photoshop picture"),
    *((bytes((0x80, protocol)), "a pickle") for protocol in range(2, 6)),
)
_PNM = re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*\d+\s")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def head(path: Path) -> bytes:
    """Return the first bytes of a file; raise OSError if there are none to be had, for a pipe or device without waiting."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder the system says so
        raise OSError(errno.EINVAL, "it is not a plain file")
    with path.open("rb") as file:
        return file.read(HEAD)


def kind_of(path: Path) -> str:
    """Return what a plain file is, with its article; "" for what is not known, not there or not ours to read."""
    try:
        return kind(head(path)) if path.is_file() else ""
    except OSError:
        return ""


def is_picture(start: bytes) -> bool:
    """Return whether a file of these first bytes is a picture of a kind that folders of pictures are read from."""
    return kind(start) in _READABLE


def is_safetensors(start: bytes) -> bool:
    """Return whether a file of these first bytes is meant as safetensors: the length of a JSON text, and its beginning."""
    return int.from_bytes(start[:8], "little") <= _LONGEST_HEADER and start[8:10] in (b'{"', b"{}")


def is_onnx(start: bytes) -> bool:
    """Return whether a file of these first bytes is meant as ONNX: a small version, and one of the fields that follow it."""
    return start[:1] == b"\x08" and start[1:2] < b"\x40" and start[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42")


def kind(start: bytes) -> str:
    """Return what a file of these first bytes is, with its article; "" for what is not known."""
    for mark, name in (*_PICTURES, *_OTHERS):
        if start.startswith(mark):
            return name
    # Two letters alone begin many a text: the length of the header behind them is one of those there are.
    if start[:2] == b"BM" and start[15:18] == b"\0\0\0" and start[14:15] in b"\x0c\x10\x28\x34\x38\x40\x6c\x7c":
        return "a BMP picture"
    if _PNM.match(start):
        return "a PNM picture"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "a WebP picture"
    if start[4:8] == b"ftyp":
        if start[8:12] in (b"avif", b"avis"):
            return "an AVIF picture"
        return "an HEIC picture" if start[8:12] in _HEIC else "a video"
    if start[_TAR : _TAR + 5] == b"ustar":
        return "a tar archive"
    return ""


_READABLE = frozenset(name for _, name in _PICTURES) | {
    "a BMP picture",
    "a PNM picture",
    "a WebP picture",
    "an AVIF picture",
}


def stand_in(start: bytes) -> str:
    """Return the end of a sentence that begins with a file's name: what is there in its place, and the way out.

    "" for anything but an empty file, a page of a web server, a pointer of Git LFS, or zeros alone.
    """
    if not start:
        return "is empty: copy or download it again"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"version https://git-lfs.github.com/spec/"):
        return "is a pointer of Git LFS, not the file it stands for: `git lfs pull` in its repository fetches that"
    if text.startswith((b"<!doctype html", b"<html", b"<head")) or (text.startswith(b"<?xml") and b"<html" in text):
        return "is a page of a web server (HTML), not the file itself: open its link in a browser to see what is asked"
    if text.startswith((b"<?xml", b"<error>")) and b"<error>" in text:
        return "is an error message of a web server (XML), not the file itself: look into it, and at its link"
    if not start.strip(b"\0"):
        return "begins with nothing but zeros, as after a copy or download that broke off: copy or download it again"
    return ""


def in_words(start: bytes) -> str:
    """Return the end of a sentence that begins with a file's name, as `stand_in` does, also for files of a known kind."""
    if words := stand_in(start):
        return words
    return f"is {name}" if (name := kind(start)) else ""
