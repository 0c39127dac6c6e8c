"""Tell by hashes whether a data set is the original, and what it is called if it is not."""

from __future__ import annotations

import hashlib
import re

import numpy as np

from ...errors import DatasetCorruptError
from . import archive
from .source import Source
from .spec import Spec

NAME_FILE = "dataset-name.txt"
_LONGEST_NAME = 80


def sha256(content: bytes | memoryview) -> str:
    """Return the SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def digests(source: Source, batch: str, raw: bytes, records: np.ndarray, spec: Spec) -> tuple[str, str]:
    """Return (SHA-256 of a batch, that of the original): of the records, else of the file; "" for what is not known."""
    if spec.sha256:
        return sha256(records.data), spec.sha256[batch]
    if source.layout.sha256:
        return sha256(raw), source.layout.sha256[batch]
    return "", ""


def true_name(source: Source, digests_of: dict[str, tuple[str, str]], spec: Spec) -> str:
    """Return the set's name for the original, else the name the folder gives itself, else what is known of it."""
    unknown = not any(wanted for _, wanted in digests_of.values())
    if unknown and source.packed:  # then the archive's own tells
        differing = [] if archive.digest(source) == source.layout.archive_sha256 else [*spec.batches]
    else:
        differing = [batch for batch in spec.batches if digests_of[batch][0] != digests_of[batch][1] or unknown]
    if not differing:
        return spec.name
    given = _given_name(source, spec)
    if given is not None:
        return given
    if len(differing) < len(spec.batches):
        # Someone's own version would differ everywhere: these are the original's files, and one is damaged.
        batch = differing[0]
        actual, wanted = digests_of[batch]
        msg = (
            f"{source.title(batch)} is not the original, though other batches beside it are: SHA-256 of its"
            f" {'records' if spec.sha256 else 'bytes'} is {actual}, expected {wanted}"
            f" (a version made on purpose needs a {NAME_FILE})"
        )
        raise DatasetCorruptError(msg)
    return f"{spec.name} (files without a known checksum)" if unknown else f"{spec.name} (unofficial files)"


def _given_name(source: Source, spec: Spec) -> str | None:
    """Return the line in the folder's dataset-name.txt, or None if there is no such file."""
    path = source.path / NAME_FILE
    if source.packed or not path.is_file():
        return None
    with path.open("rb") as file:
        raw = file.read(4 * _LONGEST_NAME + 3)
    try:
        lines = raw.decode("utf-8-sig").splitlines()
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
