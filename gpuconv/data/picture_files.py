"""Find the pictures of a folder: which are to train, validate and test on, and the classes they are of.

Folders inside a class's, folders without classes and classes that differ between the parts of a set are refused with
the way out; what operating systems, NAS boxes and notebooks leave behind is passed over wherever it lies.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import contents
from ..errors import DatasetCorruptError, DatasetMissingError

_TEST_SHARE = 5  # one in
_MOST_WRAPPINGS = 4

# What people call the parts of a set, alone or beside words that say nothing more: train_set, images-val, test2017.
_PARTS = {
    "train": ("train", "training", "trn"),
    "validation": ("val", "valid", "validation", "validate", "vali", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst", "holdout"),
}
_FILLERS = frozenset(
    (
        *("set", "sets", "data", "dataset", "folder", "split", "part", "images", "image", "img", "imgs", "pictures"),
        *("pics", "photos", "seg", "asl", "alphabet"),
    )
)

# Endings that say "picture": a file that has one and cannot be read is broken, not passed over.
_ENDINGS = frozenset(
    (
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".bmp", ".dib", ".gif", ".webp", ".tif"),
        *(".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".psd"),
        *(".tga", ".ico", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
    )
)

# What lies in folders without anybody's having put it there.  Names that start with a dot are passed over, too.
_LEFTOVERS = frozenset(
    (
        *("__macosx", "icon\r", "network trash folder", "temporary items"),
        *("@eadir", "@__thumb", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "lost+found"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "recycler"),
        *("__pycache__", "ipynb_checkpoints"),
    )
)


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A file that is to be read as a picture."""

    path: Path
    label: int
    rank: bytes
    """Its place among all."""


@dataclass(slots=True)
class Listing:
    """The pictures of a folder, those of each part in their order."""

    classes: tuple[str, ...]
    train: list[PictureFile]
    validation: list[PictureFile]
    test: list[PictureFile]
    notes: list[str] = field(default_factory=list)
    """What whoever uses the set should know."""
    passed_over: list[Path] = field(default_factory=list)


def listed(root: Path) -> Listing:
    """Return the pictures of a folder; raise DatasetMissingError or DatasetCorruptError for one that is no data set."""
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        if (kind := contents.kind_of(root)).endswith("archive"):
            problem = f"is {kind}, not a folder: unpack it, and name the folder that comes out"
        msg = f"the folder of pictures {root} {problem}"
        raise DatasetMissingError(msg)
    _refuse_part(root)
    place = _unwrapped(root)
    folders, loose = _entries(place)
    parts = _parts(place, folders)
    listing = _in_parts(place, parts) if parts else _in_classes(place, folders)
    others = [child for child in folders if parts and child not in parts.values()]
    without_classes = [child for child in others if _part(child.name)]
    listing.passed_over[:0] = loose + [child for child in others if child not in without_classes]
    listing.notes += [f"{child} has no folders of classes and is not used" for child in without_classes]
    if place != root:
        listing.notes.insert(0, f"{root}: taking what is in {place}, the only folder there")
    return listing


def pictures_in(folder: Path, passed_over: list[Path]) -> list[Path]:
    """Return the pictures in a folder, and then those in the folders in it, by the rules and in the order of `listed`.

    What is no picture is added to passed_over.  A folder that is met again, by a link, is not entered again.
    """
    pictures: list[Path] = []
    waiting, seen = [folder], set()
    while waiting:
        place = waiting.pop()
        if (real := place.resolve()) in seen:
            continue
        seen.add(real)
        folders, files = _entries(place)
        for path in files:
            (pictures if _is_picture(path) else passed_over).append(path)
        waiting += reversed(folders)
    return pictures


def _in_classes(place: Path, folders: list[Path]) -> Listing:
    """Return the pictures of FOLDER/<class>."""
    _refuse_flat(place, folders)
    passed_over: list[Path] = []
    classes = _classes(place, folders)
    train, test = _held_out(_pictures(classes, passed_over))
    names = tuple(child.name for child in classes)
    return Listing(names, train, [], test, passed_over=passed_over)


def _in_parts(place: Path, parts: dict[str, Path]) -> Listing:
    """Return the pictures of FOLDER/<part>/<class>."""
    if "train" not in parts:
        name = next(iter(parts.values())).name
        msg = (
            f"{place} has a folder {name} with classes, expected a folder train with classes beside it "
            f"(to take {name} for all there is, move its classes to {place})"
        )
        raise DatasetCorruptError(msg)
    passed_over: list[Path] = []
    classes = {}
    for part, folder in parts.items():
        inside = _unwrapped(folder, part)
        folders, loose = _entries(inside)
        passed_over += loose
        classes[part] = _classes(inside, folders)
    names = tuple(child.name for child in classes["train"])
    for part, children in classes.items():
        if differing := set(names) ^ {child.name for child in children}:
            name = min(differing, key=_natural)
            there, missing = ("train", part) if name in names else (part, "train")
            msg = (
                f"{place}: {parts[there].name} has a class {name!r} that {parts[missing].name} has not, "
                "expected the same classes in both"
            )
            raise DatasetCorruptError(msg)
    _check_apart(child for children in classes.values() for child in children)
    pictures = {part: _pictures(children, passed_over) for part, children in classes.items()}
    notes = []
    validation: list[PictureFile] = []
    if "test" in pictures:
        train, test = _ordered(pictures["train"]), _ordered(pictures["test"])
        validation = _ordered(pictures.get("validation", []))
    elif "validation" in pictures:
        train, test = _ordered(pictures["train"]), _ordered(pictures["validation"])
        name = parts["validation"].name
        notes.append(f"{place}: {name} is what the net is tested on, for there is no test folder")
    else:
        train, test = _held_out(pictures["train"])
    return Listing(names, train, validation, test, notes, passed_over)


# Layouts ---------------------------------------------------------------------------------------------------------------


def _part(name: str) -> str:
    """Return which part of a set a folder's name speaks of: "train", "validation", "test"; "" for none."""
    words = re.findall("[^\\W\\d_]+", name.casefold())
    words = [word.removesuffix("sets").removesuffix("set") or word for word in words]
    said = [word for word in words if word not in _FILLERS]
    if len(said) != 1:
        return ""
    return next((part for part, spellings in _PARTS.items() if said[0] in spellings), "")


def _parts(place: Path, folders: list[Path]) -> dict[str, Path]:
    """Return the folders that are parts of a set, by what they are for: those with folders of classes in them."""
    parts: dict[str, Path] = {}
    for child in folders:
        part = _part(child.name)
        if not part or not _entries(child)[0]:
            continue
        if (other := parts.setdefault(part, child)) != child:
            msg = (
                f"{place} has {other.name} and {child.name}, expected one folder to {_PURPOSE[part]}: rename the other"
            )
            raise DatasetCorruptError(msg)
    return {part: parts[part] for part in _PARTS if part in parts}


_PURPOSE = {"train": "train on", "validation": "validate on", "test": "test on"}


def _refuse_part(root: Path) -> None:
    """Refuse one part of a set whose other parts lie beside it: they would not be used, and nobody would know."""
    absolute = Path(os.path.abspath(root))  # noqa: PTH100 - links stay: they say which names somebody gave
    part, classes = _part(absolute.name), {child.name for child in _entries(root)[0]}
    if not part or not classes or absolute.parent == absolute:
        return
    try:
        beside, _ = _entries(absolute.parent)
    except DatasetCorruptError:  # not ours to list
        return
    for other in beside:
        if _part(other.name) in {"", part} or "train" not in {part, _part(other.name)}:
            continue
        try:
            same = {child.name for child in _entries(other)[0]} == classes
        except DatasetCorruptError:
            continue
        if same:
            msg = (
                f"{root} is one part of a set, and {other.name} beside it another: "
                f"name the folder that has both, {absolute.parent}"
            )
            raise DatasetCorruptError(msg)


def _refuse_flat(place: Path, folders: list[Path]) -> None:
    """Refuse train/cat.0.png beside test1/1.png: their folders say nothing of classes."""
    parts = [child for child in folders if _part(child.name)]
    if not any(map(_has_pictures, parts)) or any(_has_pictures(child) for child in folders if child not in parts):
        return
    names = " and ".join(child.name for child in parts)
    first = next((child for child in parts if _part(child.name) == "train"), parts[0])
    msg = (
        f"{place}: {names} {'holds' if len(parts) == 1 else 'hold'} pictures and no folders of classes: move them into "
        f"one folder for each class, as in {first.name}/cat and {first.name}/dog "
        "(pictures whose class nobody knows cannot be tested on: leave them out)"
    )
    raise DatasetCorruptError(msg)


def _has_pictures(folder: Path) -> bool:
    return any(_is_picture(path) for path in _entries(folder)[1])


def _unwrapped(folder: Path, part: str = "") -> Path:
    """Return the folder that a folder is only the wrapping of, as archives have them: pets/pets/cat.

    part: which part of a set the folder is; in it lies no other part.
    """
    for _ in range(_MOST_WRAPPINGS):
        folders, _files = _entries(folder)
        if len(folders) != 1 or _part(folders[0].name) not in {"", part} or not _entries(folders[0])[0]:
            break
        folder = folders[0]
    return folder


# Files -----------------------------------------------------------------------------------------------------------------


def _is_leftover(name: str) -> bool:
    """Return whether a name is one that programs leave behind: hidden, thumbnails, wastebaskets."""
    return name.startswith((".", "~$")) or name.casefold() in _LEFTOVERS


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders in a folder in natural order, and everything else, without leftovers."""
    try:
        children = sorted((c for c in folder.iterdir() if not _is_leftover(c.name)), key=lambda c: _natural(c.name))
    except OSError as error:
        msg = f"{folder} could not be listed ({error.strerror or error})"
        raise DatasetCorruptError(msg) from None
    folders = [child for child in children if child.is_dir()]
    return folders, [child for child in children if child not in set(folders)]


def _classes(folder: Path, children: list[Path]) -> list[Path]:
    """Return the folders of the classes, checked."""
    if not children:
        what = "holds no folders, expected one folder of pictures per class"
        way_out = "files of CIFAR themselves are named by --data-dir"
        if _has_pictures(folder):
            way_out = "what pictures without classes show, a trained net tells by gpuconv predict RUN FOLDER"
        msg = f"{folder} {what} ({way_out})"
        raise DatasetMissingError(msg)
    if len(children) == 1:
        msg = f"{folder} holds one class, {children[0].name!r}, expected two or more to tell apart"
        raise DatasetCorruptError(msg)
    for child in children:
        if not child.name.isprintable():
            msg = f"{folder} holds a folder {child.name!r}, expected a name of printable characters: it names a class"
            raise DatasetCorruptError(msg)
    _check_apart(children)
    return children


def _check_apart(folders: Iterable[Path]) -> None:
    """Refuse two names, by links, of one folder: its pictures would be in two classes, or in training and test."""
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (same := seen.setdefault(folder.resolve(), folder)) is not folder:
            msg = f"{folder} and {same} are one folder, expected pictures of their own in each"
            raise DatasetCorruptError(msg)


def _pictures(classes: Sequence[Path], passed_over: list[Path]) -> list[list[PictureFile]]:
    """Return the pictures of each class in the order of their hashes."""
    by_class = []
    for label, folder in enumerate(classes):
        folders, files = _entries(folder)
        if folders:
            way_out = ", and parts above classes: train/cat, not cat/train" if _part(folders[0].name) else ""
            msg = f"the class {folder} holds a folder {folders[0].name!r}, expected pictures directly in it{way_out}"
            raise DatasetCorruptError(msg)
        pictures = [path for path in files if _is_picture(path)]
        passed_over += [path for path in files if path not in set(pictures)]
        if not pictures:
            msg = f"the class {folder} has no pictures: put some there, or remove the folder"
            raise DatasetCorruptError(msg)
        ranked = [PictureFile(path, label, rank(folder.name, path.name)) for path in pictures]
        by_class.append(sorted(ranked, key=lambda file: file.rank))
    return by_class


def _is_picture(path: Path) -> bool:
    """Return whether a file is a picture, by what is in it, or is meant to be one, by its ending."""
    if not path.is_file():
        return False
    if path.suffix.lower() in _ENDINGS:
        return True
    try:
        return contents.is_picture(contents.head(path))
    except OSError:  # it cannot be read, and does not say that it is a picture
        return False


def rank(label: str, name: str) -> bytes:
    """Return the hash of a picture's name, whichever way the file system composes its accents."""
    text = unicodedata.normalize("NFC", f"{label}/{name}")
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _held_out(classes: list[list[PictureFile]]) -> tuple[list[PictureFile], list[PictureFile]]:
    """Return training and test pictures: of every class the first fifth, rounded, at least one, is for testing."""
    train, test = [], []
    for files in classes:
        if len(files) < 2:
            msg = f"the class {files[0].path.parent} has 1 picture, expected 2 or more: one is held out for testing"
            raise DatasetCorruptError(msg)
        count = max(1, (2 * len(files) + _TEST_SHARE) // (2 * _TEST_SHARE))
        test.append(files[:count])
        train.append(files[count:])
    return _ordered(train), _ordered(test)


def _ordered(classes: list[list[PictureFile]]) -> list[PictureFile]:
    """Return the pictures of all classes mixed, in the order of their hashes."""
    return sorted((file for files in classes for file in files), key=lambda file: (file.rank, file.label))


def _natural(name: str) -> tuple[Any, ...]:
    """Return a sort key by which numbers in a name count as numbers."""
    parts = re.split("([0-9]+)", name)
    return *(int(part) if index % 2 else part.casefold() for index, part in enumerate(parts)), name
