"""What the files of a CIFAR must look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PIXELS = 3 * 32 * 32


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
        return len(self.labels) + PIXELS
