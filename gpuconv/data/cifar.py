"""Read CIFAR-10 or CIFAR-100 from binary files, Python batches or either archive; tell whether it is the original.

Nothing is unpacked to the disk and nothing in a file is run.  Whatever the format, a batch becomes records of the
binary format (a byte per label, then 3 x 32 x 32 colour bytes).
"""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from ..errors import DatasetCorruptError, GpuconvError, UnsafeArchiveError
from .pickles import Array, read_pickle

NAME_FILE = "dataset-name.txt"

_PIXELS = 3 * 32 * 32
_LONGEST_NAME = 80
_MOST_MEMBERS = 64
_MOST_OTHER_BYTES = 1 << 20  # readme and class names take a few hundred bytes
_LONGEST_HEADER = 4096  # of a tar: blocks of 512 bytes, and for names that do not fit some more
_MOST_HEADER_BYTES = 1 << 18
_MOST_FOLDERS = 2000
_DEPTH = 3  # <course>/<assignment>/cs231n/datasets/cifar-10-batches-py, from <course>


@dataclass(frozen=True, slots=True)
class Layout:
    """One of the two forms a data set is published in."""

    kind: str
    folder: str
    suffix: str
    archive: str
    archive_bytes: int
    archive_sha256: str
    sha256: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of every batch's file as it is; empty if the records' are known, or nothing but the archive's is."""


@dataclass(frozen=True, slots=True)
class Labels:
    """One label of every picture."""

    key: str
    """What the Python batches call it."""
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spec:
    """What a data set must look like."""

    name: str
    labels: tuple[Labels, ...]
    """In the order of their bytes in a record."""
    records: Mapping[str, int]
    """Pictures of every batch, the training batches in order and the test batch last."""
    sha256: Mapping[str, str]
    """SHA-256 of every batch's records; empty if it is not known."""
    layouts: tuple[Layout, ...]
    telling_names: bool = True
    """Whether a batch's file name alone, outside the folder it is published in, tells whose it is."""

    @property
    def batches(self) -> tuple[str, ...]:
        """Names of the batches, without the suffix."""
        return tuple(self.records)

    @property
    def record_bytes(self) -> int:
        """Length of one record."""
        return len(self.labels) + _PIXELS


# Finding --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """Where a data set lies: a folder of batch files, or an archive of them."""

    path: Path
    layout: Layout
    packed: bool

    def __str__(self) -> str:
        return f"{self.path} ({self.layout.kind} {'archive' if self.packed else 'batches'})"


def find(place: Path, spec: Spec, *, depth: int = _DEPTH) -> Source | None:
    """Return the data set at a place, or None.

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
            complete = any if spec.telling_names or unpacked.name == layout.folder else all
            if complete((unpacked / f"{batch}{layout.suffix}").is_file() for batch in spec.batches):
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
    """A data set in memory, images (N, 3, 32, 32) uint8 and labels (N,) int64, under its true name."""

    name: str
    classes: tuple[str, ...]
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def read(source: Source, spec: Spec, *, label: int = -1) -> Pictures:
    """Return all pictures of a source, checked, with the label of that place in spec.labels.

    Raises DatasetCorruptError, naming the file and both facts, for a missing batch, a wrong size, a label outside its
    classes, wrong class counts, or a batch that differs from the original while others are the original; and
    UnsafeArchiveError for an archive or pickle that holds more than plain data.
    """
    starts, count = {}, 0
    for batch, records in spec.records.items():
        starts[batch] = count
        count += records
    x = np.empty((count, _PIXELS), np.uint8)
    y = np.empty((len(spec.labels), count), np.int64)
    digests = {}
    for batch, raw in _raw_batches(source, spec):
        rows = _records(source, batch, raw, spec)
        _check_labels(_title(source, batch), rows, spec)
        place = slice(starts[batch], starts[batch] + spec.records[batch])
        y[:, place] = rows[:, : len(spec.labels)].T
        x[place] = rows[:, len(spec.labels) :]
        digests[batch] = _digests(source, batch, raw, rows, spec)
    train = starts[spec.batches[-1]]
    for labels, values in zip(spec.labels, y, strict=True):
        _check_counts(f"{source.path}, training batches", values[:train], labels)
        _check_counts(_title(source, spec.batches[-1]), values[train:], labels)
    images = x.reshape(count, 3, 32, 32)
    name = _true_name(source, digests, spec)
    chosen = y[label]
    return Pictures(name, spec.labels[label].classes, images[:train], chosen[:train], images[train:], chosen[train:])


def read_batch(path: Path, spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N, 3, 32, 32) uint8 and labels (N,) int64 of one batch file, checked as `read` does."""
    kind = "binary" if path.suffix == ".bin" else "python"
    layout = next(layout for layout in spec.layouts if layout.kind == kind)
    source = Source(path.parent, layout, False)
    batch = path.name.removesuffix(layout.suffix)
    batch = batch if batch in spec.records else spec.batches[0]  # a copy may have any name
    rows = _records(source, batch, _file(path, source, spec, batch), spec)
    _check_labels(str(path), rows, spec)
    labels = len(spec.labels)
    return rows[:, labels:].reshape(-1, 3, 32, 32), rows[:, labels - 1].astype(np.int64)


def _title(source: Source, batch: str) -> str:
    inside = f"{source.layout.folder}/" if source.packed else ""
    return f"{source.path}{': ' if source.packed else '/'}{inside}{batch}{source.layout.suffix}"


def _sizes(source: Source, spec: Spec, batch: str) -> tuple[int, int]:
    """Return the least and most bytes a batch file may have."""
    count = spec.records[batch]
    if source.layout.kind == "binary":
        return count * spec.record_bytes, count * spec.record_bytes
    # A pickle adds the names of the pictures, and its older protocols write some bytes as two, Python 2's as four.
    most = (2 if source.packed else 4) * count * spec.record_bytes + _MOST_OTHER_BYTES
    return count * _PIXELS, most


def _check_size(title: str, size: int, source: Source, spec: Spec, batch: str) -> None:
    least, most = _sizes(source, spec, batch)
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
        yield batch, _file(path, source, spec, batch)


def _file(path: Path, source: Source, spec: Spec, batch: str) -> bytes:
    """Return the bytes of one unpacked batch file, as many as it may have."""
    _check_size(str(path), path.stat().st_size, source, spec, batch)
    raw = path.read_bytes()
    _check_size(str(path), len(raw), source, spec, batch)  # it may have changed in between
    return raw


def _check_complete(source: Source, found: set[str], spec: Spec) -> None:
    missing = [f"{batch}{source.layout.suffix}" for batch in spec.batches if batch not in found]
    if missing:
        msg = f"{source.path} has {len(found)} of the {len(spec.batches)} batch files, missing: {', '.join(missing)}"
        raise DatasetCorruptError(msg)


# Archives


class _Guarded:
    """The unpacked bytes of a gzip file, for tarfile: forward only, no part longer than a batch file can be.

    What tarfile reads by itself are headers.  It may take them apart in a time that grows with the square of their
    length, and one may follow the other: so they are short, and few.
    """

    def __init__(self, path: Path, stream: gzip.GzipFile, longest: int) -> None:
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
    longest = max(_sizes(source, spec, batch)[1] for batch in spec.batches) + _MOST_OTHER_BYTES
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
                    _check_size(title, member.size, source, spec, batch)
                    raw = guarded.batch(tar, member)
                    _check_size(title, len(raw), source, spec, batch)
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
    """Raise UnsafeArchiveError for a member that the archive has no use for."""
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
    """Return a batch as records of the binary format, (pictures, labels + 3072) uint8."""
    count = spec.records[batch]
    if source.layout.kind == "binary":
        return np.frombuffer(raw, np.uint8).reshape(count, spec.record_bytes)
    title = _title(source, batch)
    # Per picture: its labels, its name, and what older protocols add to remember them.
    content = read_pickle(raw, title, most_steps=1000 + 20 * count)
    keys = [labels.key for labels in spec.labels]
    if not isinstance(content, dict):
        msg = f"{title} holds a {type(content).__name__}, expected a dict with data and {' and '.join(keys)}"
        raise DatasetCorruptError(msg)
    entries = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    data = entries.get("data")
    if not isinstance(data, Array) or not all(isinstance(entries.get(key), list) for key in keys):
        found = {key: type(entries.get(key)).__name__ for key in ("data", *keys)}
        msg = f"{title} holds {found}, expected data as an array and {' and '.join(keys)} as a list"
        raise DatasetCorruptError(msg)
    wanted = (count, _PIXELS)
    if data.shape != wanted or data.dtype not in ("u1", "|u1") or data.fortran:
        order = "column" if data.fortran else "row"
        shape, dtype = _short(data.shape), _short(data.dtype)
        msg = f"{title} has data {shape} of type {dtype} in {order} order, expected {wanted} of type u1 in row order"
        raise DatasetCorruptError(msg)
    size = len(data.raw) if isinstance(data.raw, bytes) else 0
    if size != count * _PIXELS:
        msg = f"{title} has {size:,} bytes of data, expected {count * _PIXELS:,}"
        raise DatasetCorruptError(msg)
    records = np.empty((count, spec.record_bytes), np.uint8)
    for column, labels in enumerate(spec.labels):
        records[:, column] = _label_list(title, entries[labels.key], labels, count)
    records[:, len(keys) :] = np.frombuffer(data.raw, np.uint8).reshape(wanted)
    return records


def _label_list(title: str, values: list[Any], labels: Labels, count: int) -> list[Any]:
    """Return a pickle's labels if each is an int of its class."""
    if len(values) != count:
        msg = f"{title} has {len(values)} {labels.key}, expected {count}"
        raise DatasetCorruptError(msg)
    for place, label in enumerate(values):
        if type(label) is not int or not 0 <= label < len(labels.classes):
            raise _wrong_label(title, _short(label), place, labels)
    return values


def _short(value: Any) -> str:
    """Return a few words for a value from a file: its text if it is simple, else its type."""
    simple = isinstance(value, int | str) or (isinstance(value, tuple) and all(isinstance(v, int) for v in value))
    return str(value)[:40] if simple else type(value).__name__


def _check_labels(title: str, records: np.ndarray, spec: Spec) -> None:
    for column, labels in enumerate(spec.labels):
        wrong = np.flatnonzero(records[:, column] >= len(labels.classes))
        if wrong.size:
            raise _wrong_label(title, records[wrong[0], column], wrong[0], labels)


def _wrong_label(title: str, label: object, place: int, labels: Labels) -> DatasetCorruptError:
    kind = labels.key.removesuffix("s").replace("_", " ")
    return DatasetCorruptError(
        f"{title} has {kind} {label} at picture {place}, expected 0 to {len(labels.classes) - 1}"
    )


def _check_counts(title: str, values: np.ndarray, labels: Labels) -> None:
    counts = np.bincount(values, minlength=len(labels.classes))
    wanted = len(values) // len(labels.classes)
    wrong = np.flatnonzero(counts != wanted)
    if wrong.size:
        label = wrong[0]
        msg = f"{title}: {counts[label]:,} pictures of class {label} ({labels.classes[label]}), expected {wanted:,}"
        raise DatasetCorruptError(msg)


# Its name -------------------------------------------------------------------------------------------------------------


def _sha256(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def _digests(source: Source, batch: str, raw: bytes, records: np.ndarray, spec: Spec) -> tuple[str, str]:
    """Return (what was found, what the original has): of the records, else of the file; "" for what is not known."""
    if spec.sha256:
        return _sha256(records.data), spec.sha256[batch]
    if source.layout.sha256:
        return _sha256(raw), source.layout.sha256[batch]
    return "", ""


def _true_name(source: Source, digests: dict[str, tuple[str, str]], spec: Spec) -> str:
    """Return the set's name for the original, else the name the folder gives itself, else what is known of it."""
    unknown = not any(wanted for _, wanted in digests.values())
    if unknown and source.packed:  # then the archive's own tells
        differing = [] if _archive_digest(source) == source.layout.archive_sha256 else [*spec.batches]
    else:
        differing = [batch for batch in spec.batches if digests[batch][0] != digests[batch][1] or unknown]
    if not differing:
        return spec.name
    given = _given_name(source, spec)
    if given is not None:
        return given
    if len(differing) < len(spec.batches):
        # Someone's own version would differ everywhere: these are the original's files, and one is damaged.
        batch = differing[0]
        found, wanted = digests[batch]
        msg = (
            f"{_title(source, batch)} is not the original, though other batches beside it are: SHA-256 of its"
            f" {'records' if spec.sha256 else 'bytes'} is {found}, expected {wanted}"
            f" (a version made on purpose needs a {NAME_FILE})"
        )
        raise DatasetCorruptError(msg)
    return f"{spec.name} (files without a known checksum)" if unknown else f"{spec.name} (unofficial files)"


def _archive_digest(source: Source) -> str:
    with source.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _given_name(source: Source, spec: Spec) -> str | None:
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
    if _plain(name) == _plain(spec.name):
        msg = f"{path} says {name!r}, but the files beside it are not the original's"
        raise DatasetCorruptError(msg)
    return name


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


# Verifying ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What `verify` found out about one file."""

    name: str
    size: int
    size_ok: bool
    sha256: str
    """Of the records in binary form for a batch (of the file where only its hash is known), of the file itself for an
    archive; empty if it cannot be read."""
    official: bool
    """Whether it is the original's; False where there is no checksum to compare with."""
    labels_ok: bool
    """Every label is that of a class; True for an archive as a whole."""
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
        if rows[0].official:  # so is all that is in it
            found = {batch: replace(row, official=row.ok) for batch, row in found.items()}
        rows += [found[batch] for batch in spec.batches]
    else:
        for batch in spec.batches:
            path = source.path / f"{batch}{source.layout.suffix}"
            try:
                raw = _file(path, source, spec, batch)
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
    sha256 = _archive_digest(source)
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
        _check_labels(_title(source, batch), records, spec)
    except DatasetCorruptError as error:
        problem = str(error)
    sha256, wanted = _digests(source, batch, raw, records, spec)
    return FileFacts(
        name, len(raw), True, sha256 or _sha256(records.data), bool(wanted) and sha256 == wanted, not problem, problem
    )
