"""Find the files of a CIFAR in a folder and those below it, and take from each as many bytes as it may have."""

from __future__ import annotations

import re
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ... import contents
from ...errors import DatasetCorruptError
from .spec import PIXELS, Layout, Spec

MOST_OTHER_BYTES = 1 << 20  # of what is no batch: readme and class names take a few hundred bytes
_MOST_FOLDERS = 2000
_COUNTED = re.compile(r"[ _-]*\(\d+\)|-\d+(?=\.)|[ _-]+copy(?: \d+)?|\.\d+$")  # (1), -1., copy 2, .1
_DEPTH = 3  # <course>/<assignment>/cs231n/datasets/cifar-10-batches-py, from <course>


# Finding --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """Where a data set lies: a folder of batch files, or an archive of them."""

    path: Path
    layout: Layout
    packed: bool

    def __str__(self) -> str:
        return f"{self.path} ({self.layout.kind} {'archive' if self.packed else 'batches'})"

    def file_name(self, batch: str) -> str:
        """Return the name of a batch's file."""
        return f"{batch}{self.layout.suffix}"

    def title(self, batch: str) -> str:
        """Return what messages call a batch's file."""
        name = self.file_name(batch)
        return f"{self.path}: {self.layout.folder}/{name}" if self.packed else f"{self.path}/{name}"


def find(place: Path, spec: Spec, *, depth: int = _DEPTH) -> Source | None:
    """Return the data set at a place, or None.

    The place may be an archive, a folder of batches, or a folder with either in it, at most `depth` folders down.
    The nearest one wins; in one folder, binary before Python, unpacked before packed.
    """
    if place.is_file():
        return next((Source(place, layout, True) for layout in spec.layouts if _is_archive(place.name, layout)), None)
    queue = deque([(place, 0)])
    for _ in range(_MOST_FOLDERS):
        if not queue:
            break
        folder, level = queue.popleft()
        source = _in_folder(folder, spec)
        if source is not None:
            return source
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
    try:
        files = sorted(folder.iterdir())
    except OSError:  # not ours to read
        return None
    renamed = ((file, layout) for layout in spec.layouts for file in files if _is_archive(file.name, layout))
    return next((Source(file, layout, True) for file, layout in renamed if file.is_file()), None)


def _is_archive(name: str, layout: Layout) -> bool:
    """Return whether a file is called as the archive, or as browsers and wget call a second copy or an unpacked .tar."""
    plain = _COUNTED.sub("", name.casefold())
    stem = layout.archive.removesuffix(".tar.gz")
    return plain in {f"{stem}{ending}" for ending in (".tar.gz", ".tgz", ".tar")}


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if not child.name.startswith(".") and child.is_dir())
    except OSError:  # not ours to read, so nothing of ours is in it
        return []


# Their bytes ----------------------------------------------------------------------------------------------------------


def sizes(source: Source, spec: Spec, batch: str) -> tuple[int, int]:
    """Return the least and most bytes a batch file may have."""
    count = spec.records[batch]
    if source.layout.kind == "binary":
        return count * spec.record_bytes, count * spec.record_bytes
    # A pickle adds the names of the pictures, and its older protocols write some bytes as two, Python 2's as four.
    most = (2 if source.packed else 4) * count * spec.record_bytes + MOST_OTHER_BYTES
    return count * PIXELS, most


def check_size(title: str, size: int, source: Source, spec: Spec, batch: str) -> None:
    """Raise DatasetCorruptError for a batch file that is too short or too long."""
    least, most = sizes(source, spec, batch)
    if not least <= size <= most:
        wanted = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        msg = f"{title} has {size:,} bytes, expected {wanted}"
        raise DatasetCorruptError(msg)


def check_complete(source: Source, batches: set[str], spec: Spec) -> None:
    """Raise DatasetCorruptError if one of the batches is missing."""
    missing = [source.file_name(batch) for batch in spec.batches if batch not in batches]
    if missing:
        msg = f"{source.path} has {len(batches)} of the {len(spec.batches)} batch files, missing: {', '.join(missing)}"
        raise DatasetCorruptError(msg)


def unpacked_batches(source: Source, spec: Spec) -> Iterator[tuple[str, bytes]]:
    """Yield (batch, bytes of its file) for every batch of a folder, in order."""
    paths = {batch: source.path / source.file_name(batch) for batch in spec.batches}
    check_complete(source, {batch for batch, path in paths.items() if path.is_file()}, spec)
    for batch, path in paths.items():
        yield batch, read_file(path, source, spec, batch)


def read_file(path: Path, source: Source, spec: Spec, batch: str) -> bytes:
    """Return the bytes of one batch file."""
    if not stat.S_ISREG(path.stat().st_mode):
        msg = f"{path} is not a plain file"
        raise DatasetCorruptError(msg)
    try:
        check_size(str(path), path.stat().st_size, source, spec, batch)
    except DatasetCorruptError as error:
        words = contents.stand_in(contents.head(path))
        msg = f"{error}: it {words}" if words else str(error)
        raise DatasetCorruptError(msg) from None
    raw = path.read_bytes()
    check_size(str(path), len(raw), source, spec, batch)  # it may have changed in between
    return raw
