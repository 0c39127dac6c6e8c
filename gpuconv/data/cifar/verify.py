"""Verify the files of a CIFAR one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...errors import DatasetCorruptError, GpuconvError
from . import archive, original
from .records import check_labels, read, read_records
from .source import Source, read_file
from .spec import Spec


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What `verify` found out about one file.

    >>> facts = data.verify()[0]
    >>> facts.name, facts.ok, facts.problem
    ('cifar-10-binary.tar.gz', True, '')
    """

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
            facts_of = {
                batch: _facts_of_batch(source, batch, raw, spec) for batch, raw in archive.batches(source, spec)
            }
        except GpuconvError as error:
            return [replace(rows[0], problem=str(error))]
        if rows[0].official:  # so is all that is in it
            facts_of = {batch: replace(row, official=row.ok) for batch, row in facts_of.items()}
        rows += [facts_of[batch] for batch in spec.batches]
    else:
        for batch in spec.batches:
            path = source.path / source.file_name(batch)
            try:
                raw = read_file(path, source, spec, batch)
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
    sha256 = archive.digest(source)
    size, layout = source.path.stat().st_size, source.layout
    return FileFacts(
        source.path.name, size, size == layout.archive_bytes, sha256, sha256 == layout.archive_sha256, True, ""
    )


def _facts_of_batch(source: Source, batch: str, raw: bytes, spec: Spec) -> FileFacts:
    name = source.file_name(batch)
    try:
        rows = read_records(source, batch, raw, spec)
    except GpuconvError as error:
        return FileFacts(name, len(raw), True, "", False, False, str(error))
    problem = ""
    try:
        check_labels(source.title(batch), rows, spec)
    except DatasetCorruptError as error:
        problem = str(error)
    sha256, wanted = original.digests(source, batch, raw, rows, spec)
    return FileFacts(
        name,
        len(raw),
        True,
        sha256 or original.sha256(rows.data),
        bool(wanted) and sha256 == wanted,
        not problem,
        problem,
    )
