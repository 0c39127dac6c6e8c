"""Read CIFAR-10 from its binary files, its Python batches or either archive, and tell whether it is the original.

Nothing is unpacked to the disk and nothing in a file is run.  Whatever the format, a batch becomes records of the
binary format (one label byte, then 3 x 32 x 32 colour bytes), so one SHA-256 per batch identifies the content.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from ..errors import DatasetCorruptError, GpuconvError, UnsafeArchiveError
from .pickles import Array, read_pickle

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NAME_FILE = "dataset-name.txt"

_PIXELS = 3 * 32 * 32
_RECORD = 1 + _PIXELS
_LONGEST_NAME = 80
_MOST_MEMBERS = 64
_MOST_OTHER_BYTES = 1 << 20  # readme and class names take a few hundred bytes
_MOST_FOLDERS = 2000
_DEPTH = 3  # <course>/<assignment>/cs231n/datasets/cifar-10-batches-py, from <course>


@dataclass(frozen=True, slots=True)
class Layout:
    """One of the two forms CIFAR-10 is published in."""

    kind: str
    folder: str
    suffix: str
    archive: str
    archive_bytes: int
    archive_sha256: str


@dataclass(frozen=True, slots=True)
class Spec:
    """What a CIFAR-10 must look like."""

    records: int
    """Pictures per batch file."""
    sha256: dict[str, str]
    """SHA-256 of every batch's records, the training batches in order and the test batch last."""
    layouts: tuple[Layout, ...]

    @property
    def batches(self) -> tuple[str, ...]:
        """Names of the batches, without the suffix."""
        return tuple(self.sha256)


OFFICIAL = Spec(
    records=10_000,
    sha256={
        "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    },
    layouts=(
        Layout(
            kind="binary",
            folder="cifar-10-batches-bin",
            suffix=".bin",
            archive="cifar-10-binary.tar.gz",
            archive_bytes=170_052_171,
            archive_sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
        Layout(
            kind="python",
            folder="cifar-10-batches-py",
            suffix="",
            archive="cifar-10-python.tar.gz",
            archive_bytes=170_498_071,
            archive_sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
    ),
)


# Finding --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """Where one CIFAR-10 lies: a folder of batch files, or an archive of them."""

    path: Path
    layout: Layout
    packed: bool

    def __str__(self) -> str:
        return f"{self.path} ({self.layout.kind} {'archive' if self.packed else 'batches'})"


def find(place: Path, spec: Spec, *, depth: int = _DEPTH) -> Source | None:
    """Return the CIFAR-10 at a place, or None.

    The place may be an archive, a folder of batches, or a folder with either in it, at most `depth` folders down.
    The nearest one wins; in one folder, binary before Python, unpacked before packed.
    """
    if place.is_file():
        return next((Source(place, layout, True) for layout in spec.layouts if place.name == layout.archive), None)
    queue = deque([(place, 0)])
    for _ in range(_MOST_FOLDERS):
        if not queue:
            break
        folder, level = queue.popleft()
        found = _in_folder(folder, spec)
        if found is not None:
            return found
        if level < depth:
            queue.extend((child, level + 1) for child in _children(folder))
    return None


def _in_folder(folder: Path, spec: Spec) -> Source | None:
    for unpacked in (folder, *(folder / layout.folder for layout in spec.layouts)):
        for layout in spec.layouts:
            if any((unpacked / f"{batch}{layout.suffix}").is_file() for batch in spec.batches):
                return Source(unpacked, layout, False)
    for layout in spec.layouts:
        if (folder / layout.archive).is_file():
            return Source(folder / layout.archive, layout, True)
    return None


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if not child.name.startswith(".") and child.is_dir())
    except OSError:  # not ours to read, so nothing of ours is in it
        return []


# Reading --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """A CIFAR-10 in memory, images (N, 3, 32, 32) uint8 and labels (N,) int64, under its true name."""

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def read(source: Source, spec: Spec) -> Pictures:
    """Return all pictures of a source, checked.

    Raises DatasetCorruptError, naming the file and both facts, for a missing batch, a wrong size, a label outside 0
    to 9, wrong class counts, or a batch that differs from the original while others are the original; and
    UnsafeArchiveError for an archive or pickle that holds more than plain data.
    """
    count = spec.records * len(spec.batches)
    x = np.empty((count, _PIXELS), np.uint8)
    y = np.empty(count, np.int64)
    digests = {}
    for batch, raw in _raw_batches(source, spec):
        records = _records(source, batch, raw, spec)
        _check_labels(_title(source, batch), records)
        start = spec.batches.index(batch) * spec.records
        x[start : start + spec.records] = records[:, 1:]
        y[start : start + spec.records] = records[:, 0]
        digests[batch] = _digest(records)
    train = count - spec.records
    _check_counts(f"{source.path}, training batches", y[:train])
    _check_counts(_title(source, spec.batches[-1]), y[train:])
    images = x.reshape(count, 3, 32, 32)
    return Pictures(_true_name(source, digests, spec), images[:train], y[:train], images[train:], y[train:])


def read_batch(path: Path, spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N, 3, 32, 32) uint8 and labels (N,) int64 of one batch file, checked as `read` does."""
    kind = "binary" if path.suffix == ".bin" else "python"
    layout = next(layout for layout in spec.layouts if layout.kind == kind)
    source = Source(path.parent, layout, False)
    records = _records(source, path.name.removesuffix(layout.suffix), _file(path, source, spec), spec)
    _check_labels(str(path), records)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)


def _title(source: Source, batch: str) -> str:
    inside = f"{source.layout.folder}/" if source.packed else ""
    return f"{source.path}{': ' if source.packed else '/'}{inside}{batch}{source.layout.suffix}"


def _sizes(source: Source, spec: Spec) -> tuple[int, int]:
    """Return the least and most bytes a batch file may have."""
    if source.layout.kind == "binary":
        return spec.records * _RECORD, spec.records * _RECORD
    # A pickle adds the names of the pictures, and its older protocols write some bytes as two, Python 2's as four.
    most = (2 if source.packed else 4) * spec.records * _RECORD + _MOST_OTHER_BYTES
    return spec.records * _PIXELS, most


def _check_size(title: str, size: int, source: Source, spec: Spec) -> None:
    least, most = _sizes(source, spec)
    if not least <= size <= most:
        wanted = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        msg = f"{title} has {size:,} bytes, expected {wanted}"
        raise DatasetCorruptError(msg)


def _raw_batches(source: Source, spec: Spec) -> Iterator[tuple[str, bytes]]:
    """Yield (batch, bytes of its file) for every batch once, sizes checked, in the order they are stored."""
    if source.packed:
        yield from _archived(source, spec)
        return
    paths = {batch: source.path / f"{batch}{source.layout.suffix}" for batch in spec.batches}
    _check_complete(source, {batch for batch, path in paths.items() if path.is_file()}, spec)
    for batch, path in paths.items():
        yield batch, _file(path, source, spec)


def _file(path: Path, source: Source, spec: Spec) -> bytes:
    """Return the bytes of one unpacked batch file, as many as it may have."""
    _check_size(str(path), path.stat().st_size, source, spec)
    raw = path.read_bytes()
    _check_size(str(path), len(raw), source, spec)  # it may have changed in between
    return raw


def _check_complete(source: Source, found: set[str], spec: Spec) -> None:
    missing = [f"{batch}{source.layout.suffix}" for batch in spec.batches if batch not in found]
    if missing:
        msg = f"{source.path} has {len(found)} of the {len(spec.batches)} batch files, missing: {', '.join(missing)}"
        raise DatasetCorruptError(msg)


# Archives


class _Guarded:
    """The unpacked bytes of a gzip file, for tarfile: forward only, no part longer than a batch file can be."""

    def __init__(self, path: Path, stream: gzip.GzipFile, longest: int) -> None:
        self._path = path
        self._stream = stream
        self._longest = longest

    def read(self, count: int = -1) -> bytes:
        self._check(count, "has a part")
        return self._stream.read(count)

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, place: int) -> int:
        self._check(place - self._stream.tell(), "jumps ahead by")
        return self._stream.seek(place)

    def _check(self, count: int, what: str) -> None:
        if not 0 <= count <= self._longest:
            msg = f"{self._path} {what} of {count:,} bytes, expected 0 to {self._longest:,}"
            raise UnsafeArchiveError(msg)


def _archived(source: Source, spec: Spec) -> Iterator[tuple[str, bytes]]:
    """Yield the batches of an archive.  All members are looked at first; none is ever extracted."""
    wanted = {f"{source.layout.folder}/{batch}{source.layout.suffix}": batch for batch in spec.batches}
    longest = _sizes(source, spec)[1] + _MOST_OTHER_BYTES
    found: set[str] = set()
    try:
        with source.path.open("rb") as file, gzip.GzipFile(fileobj=file) as stream:
            guarded: Any = _Guarded(source.path, stream, longest)
            with tarfile.open(fileobj=guarded, mode="r:") as tar:
                count = 0
                while (member := tar.next()) is not None:
                    count += 1
                    _check_member(source.path, member, count, wanted)
                    batch = wanted.get(member.name)
                    if batch is None:
                        continue
                    if batch in found:
                        msg = f"{source.path} has {member.name} twice, expected it once"
                        raise DatasetCorruptError(msg)
                    found.add(batch)
                    title = _title(source, batch)
                    _check_size(title, member.size, source, spec)
                    content = tar.extractfile(member)
                    raw = content.read() if content is not None else b""
                    _check_size(title, len(raw), source, spec)
                    yield batch, raw
            _check_end(source.path, stream)
    except GpuconvError:
        raise
    except _BROKEN_ARCHIVE as error:
        reason = (str(error) or type(error).__name__)[:100]
        msg = f"{source.path} is not a sound .tar.gz archive: {reason}"
        raise DatasetCorruptError(msg) from None
    _check_complete(source, found, spec)


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


def _check_member(archive: Path, member: tarfile.TarInfo, count: int, wanted: dict[str, str]) -> None:
    """Raise UnsafeArchiveError for a member that a CIFAR-10 archive has no use for."""
    problem = ""
    windows = PureWindowsPath(member.name)
    if count > _MOST_MEMBERS:
        problem = f"more than {_MOST_MEMBERS} members"
    elif windows.anchor or ".." in windows.parts:
        problem = f"{member.name!r}, a path that leads out of its folder"
    elif not (member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)) or member.issparse():
        problem = f"{member.name!r} of tar type {member.type!r}, which is neither a plain file nor a folder"
    elif member.name not in wanted and not 0 <= member.size <= _MOST_OTHER_BYTES:
        problem = f"{member.name!r} of {member.size:,} bytes, which is no batch file"
    if problem:
        msg = f"{archive} holds {problem}; nothing was unpacked"
        raise UnsafeArchiveError(msg)


def _check_end(archive: Path, stream: gzip.GzipFile) -> None:
    """Read what follows the tar's end, which is only padding: at the end of the stream gzip compares its checksum."""
    rest = len(stream.read(_MOST_OTHER_BYTES + 1))
    if rest > _MOST_OTHER_BYTES:
        msg = f"{archive} goes on for more than {_MOST_OTHER_BYTES:,} bytes after its last member"
        raise UnsafeArchiveError(msg)


# Batches


def _records(source: Source, batch: str, raw: bytes, spec: Spec) -> np.ndarray:
    """Return a batch as records of the binary format, (records, 3073) uint8."""
    if source.layout.kind == "binary":
        return np.frombuffer(raw, np.uint8).reshape(spec.records, _RECORD)
    title = _title(source, batch)
    # Per picture: its label, its name, and what older protocols add to remember both.
    content = read_pickle(raw, title, most_steps=1000 + 20 * spec.records)
    if not isinstance(content, dict):
        msg = f"{title} holds a {type(content).__name__}, expected a dict with data and labels"
        raise DatasetCorruptError(msg)
    entries = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    data, labels = entries.get("data"), entries.get("labels")
    if not isinstance(data, Array) or not isinstance(labels, list):
        found = {"data": type(data).__name__, "labels": type(labels).__name__}
        msg = f"{title} holds {found}, expected data as an array and labels as a list"
        raise DatasetCorruptError(msg)
    wanted = (spec.records, _PIXELS)
    if data.shape != wanted or data.dtype not in ("u1", "|u1") or data.fortran:
        order = "column" if data.fortran else "row"
        shape, dtype = _short(data.shape), _short(data.dtype)
        msg = f"{title} has data {shape} of type {dtype} in {order} order, expected {wanted} of type u1 in row order"
        raise DatasetCorruptError(msg)
    size = len(data.raw) if isinstance(data.raw, bytes) else 0
    if size != spec.records * _PIXELS:
        msg = f"{title} has {size:,} bytes of data, expected {spec.records * _PIXELS:,}"
        raise DatasetCorruptError(msg)
    if len(labels) != spec.records:
        msg = f"{title} has {len(labels)} labels, expected {spec.records}"
        raise DatasetCorruptError(msg)
    for place, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < len(CLASSES):
            msg = f"{title} has label {_short(label)} at picture {place}, expected 0 to {len(CLASSES) - 1}"
            raise DatasetCorruptError(msg)
    records = np.empty((spec.records, _RECORD), np.uint8)
    records[:, 0] = labels
    records[:, 1:] = np.frombuffer(data.raw, np.uint8).reshape(wanted)
    return records


def _short(value: Any) -> str:
    """Return a few words for a value from a file: its text if it is simple, else its type."""
    simple = isinstance(value, int | str) or (isinstance(value, tuple) and all(isinstance(v, int) for v in value))
    return str(value)[:40] if simple else type(value).__name__


def _check_labels(title: str, records: np.ndarray) -> None:
    labels = records[:, 0]
    wrong = np.flatnonzero(labels >= len(CLASSES))
    if wrong.size:
        place = wrong[0]
        msg = f"{title} has label {labels[place]} at picture {place}, expected 0 to {len(CLASSES) - 1}"
        raise DatasetCorruptError(msg)


def _check_counts(title: str, labels: np.ndarray) -> None:
    counts = np.bincount(labels, minlength=len(CLASSES))
    wanted = len(labels) // len(CLASSES)
    wrong = np.flatnonzero(counts != wanted)
    if wrong.size:
        label = wrong[0]
        msg = f"{title}: {counts[label]:,} pictures of class {label} ({CLASSES[label]}), expected {wanted:,}"
        raise DatasetCorruptError(msg)


# Its name -------------------------------------------------------------------------------------------------------------


def _digest(records: np.ndarray) -> str:
    return hashlib.sha256(records.data).hexdigest()


def _true_name(source: Source, digests: dict[str, str], spec: Spec) -> str:
    """Return "CIFAR-10" for the original, else the name the folder gives itself, else that it is unofficial."""
    differing = [batch for batch in spec.batches if digests[batch] != spec.sha256[batch]]
    if not differing:
        return "CIFAR-10"
    given = _given_name(source)
    if given is not None:
        return given
    if len(differing) < len(spec.batches):
        # Someone's own version would differ everywhere: these are the original's files, and one is damaged.
        batch = differing[0]
        msg = (
            f"{_title(source, batch)} is not the original, though other batches beside it are: SHA-256 of its records"
            f" is {digests[batch]}, expected {spec.sha256[batch]} (a version made on purpose needs a {NAME_FILE})"
        )
        raise DatasetCorruptError(msg)
    return "CIFAR-10 (unofficial files)"


def _given_name(source: Source) -> str | None:
    """Return the line in the folder's dataset-name.txt, or None if there is no such file."""
    path = source.path / NAME_FILE
    if source.packed or not path.is_file():
        return None
    with path.open("rb") as file:
        raw = file.read(4 * _LONGEST_NAME + 3)
    try:
        lines = raw.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        lines = []
    if len(lines) != 1 or not lines[0].strip() or not lines[0].isprintable() or len(lines[0]) > _LONGEST_NAME:
        msg = f"{path} must hold one line of 1 to {_LONGEST_NAME} printable characters, got {raw[:100]!r}"
        raise DatasetCorruptError(msg)
    name = lines[0].strip()
    if re.sub(r"[\W_]", "", name).casefold() == "cifar10":
        msg = f"{path} says {name!r}, but the files beside it are not the original's"
        raise DatasetCorruptError(msg)
    return name


# Verifying ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What `verify` found out about one file."""

    name: str
    size: int
    size_ok: bool
    sha256: str
    """Of the records in binary form for a batch, of the file itself for an archive; empty if it cannot be read."""
    official: bool
    """Whether sha256 is the original's."""
    labels_ok: bool
    """Labels from 0 to 9; True for an archive as a whole."""
    problem: str
    """What is wrong, in words; empty for a sound file, official or not."""

    @property
    def ok(self) -> bool:
        """Whether the file is sound."""
        return not self.problem


def facts(source: Source, spec: Spec) -> list[FileFacts]:
    """Return the facts of every file of a source, in order: of an archive first the archive, then its batches.

    Where each is sound but all together are not (class counts, one that is not the original), a last row says so.
    """
    rows = []
    if source.packed:
        rows.append(_facts_of_archive(source))
        try:
            found = {batch: _facts_of_batch(source, batch, raw, spec) for batch, raw in _archived(source, spec)}
        except GpuconvError as error:
            return [replace(rows[0], problem=str(error))]
        rows += [found[batch] for batch in spec.batches]
    else:
        for batch in spec.batches:
            path = source.path / f"{batch}{source.layout.suffix}"
            try:
                raw = _file(path, source, spec)
            except (GpuconvError, OSError) as error:
                size = path.stat().st_size if path.is_file() else 0
                rows.append(FileFacts(path.name, size, False, "", False, False, str(error)))
            else:
                rows.append(_facts_of_batch(source, batch, raw, spec))
    if all(row.ok for row in rows):
        try:
            read(source, spec)
        except GpuconvError as error:
            rows.append(FileFacts(source.path.name, 0, True, "", False, False, str(error)))
    return rows


def _facts_of_archive(source: Source) -> FileFacts:
    with source.path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size, layout = source.path.stat().st_size, source.layout
    return FileFacts(
        source.path.name, size, size == layout.archive_bytes, sha256, sha256 == layout.archive_sha256, True, ""
    )


def _facts_of_batch(source: Source, batch: str, raw: bytes, spec: Spec) -> FileFacts:
    name = f"{batch}{source.layout.suffix}"
    try:
        records = _records(source, batch, raw, spec)
    except GpuconvError as error:
        return FileFacts(name, len(raw), True, "", False, False, str(error))
    problem = ""
    try:
        _check_labels(_title(source, batch), records)
    except DatasetCorruptError as error:
        problem = str(error)
    sha256 = _digest(records)
    return FileFacts(name, len(raw), True, sha256, sha256 == spec.sha256[batch], not problem, problem)
