"""Read a folder of pictures, one folder per class, with Pillow: a data set of one's own.

Either FOLDER/<class>/<picture>, of which a fifth of every class is held out for testing, or
FOLDER/train/<class>/<picture> and, if there is one, FOLDER/test/<class>/<picture>.  Which pictures are held out, and the
order of all, follow from the hashes of their names: neither the file system nor a seed has a say.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks
from ..errors import DatasetCorruptError, DatasetMissingError, UnsupportedError
from ..folders import path_of
from .dataset import Dataset, channel_statistics
from .download import Notice

if TYPE_CHECKING:
    from PIL.Image import Image

# Endings that say "picture", and the formats that Pillow may take a file for: those that run no other program.
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_MODES = ("RGB", "RGBA", "RGBX", "RGBa", "L", "LA", "1", "P", "PA", "CMYK", "YCbCr")
_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")

NAMED = "pictures in "  # how the name of every such data set begins

_MOST_PIXELS = 1 << 26  # of one picture: 200 MB while it is decoded
_MOST_BYTES = 1 << 34  # of all
_TEST_SHARE = 5  # one in


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    label: int
    rank: bytes  # its place among all


def read_pictures(folder: str | os.PathLike[str], *, image_size: int = 0, notice: Notice | None = None) -> Dataset:
    """Return the pictures of a folder as a Dataset; classes are its sub-folders in natural order (a2 before a10).

    image_size: 0 takes pictures as they are, all of one size; N scales the largest square in the middle of each to
    N x N (bicubic).  notice(text) hears what was passed over: files without a picture's ending, other folders.

    Every picture becomes 8-bit RGB: turned as its EXIF data says, grey in three equal channels, 16-bit grey by its
    upper byte, palettes looked up, CMYK and YCbCr by Pillow's formulas without colour profile, alpha over black.

    Without a test folder one picture in five of every class, at least one, is held out: those first in the order of
    the SHA-256 of <class>/<file name>.  Mean and standard deviation are those of the training pictures.
    Raises DatasetMissingError for a folder that is not there or holds no class, DatasetCorruptError, with the file's
    name, for what cannot be used, UnsupportedError without Pillow (extra `pictures`).
    """
    root = path_of(folder, "the folder of pictures")
    image_size = checks.integer("image_size", image_size, least=0)
    _require_pillow()
    passed_over: list[Path] = []
    train, test, classes = _listed(root, passed_over)
    if passed_over and notice is not None:
        count = len(passed_over)
        what = f"{count} entries that are" if count > 1 else "1 entry that is"
        notice(f"{root}: passing over {what} no picture or class, such as {passed_over[0]}")
    side = _side(train[0].path, image_size)
    needed = 3 * side[0] * side[1] * (len(train) + len(test))
    if needed > _MOST_BYTES:
        msg = (
            f"{root} holds {len(train) + len(test):,} pictures of {_size(side)}, {needed / 1e9:,.0f} GB in memory, "
            f"expected at most {_MOST_BYTES / 1e9:,.0f} GB: a smaller --image-size N (image_size=N) scales them"
        )
        raise DatasetCorruptError(msg)
    x_train, y_train = _read(train, side, train[0].path, image_size)
    x_test, y_test = _read(test, side, train[0].path, image_size)
    mean, std = channel_statistics(x_train)
    scaled = f", scaled to {_size(side)}" if image_size else ""
    name = f"{NAMED}{_called(os.fspath(folder), root)}{scaled}"
    return Dataset(name, classes, x_train, y_train, x_test, y_test, mean, std, str(root))


# Finding --------------------------------------------------------------------------------------------------------------


def _listed(root: Path, passed_over: list[Path]) -> tuple[list[_File], list[_File], tuple[str, ...]]:
    """Return the training and test pictures in their order, and the classes."""
    if not root.is_dir():
        msg = f"the folder of pictures {root} {'is not a folder' if root.exists() else 'does not exist'}"
        raise DatasetMissingError(msg)
    top, loose = _entries(root)
    split = {child.name: child for child in top if child.name in ("train", "test") and _entries(child)[0]}
    if "test" in split and "train" not in split:
        msg = f"{root} has a folder test with classes, expected a folder train with classes beside it"
        raise DatasetCorruptError(msg)
    if "train" not in split:
        passed_over += loose
        classes = _classes(root, top)
        train, test = _held_out(_pictures(classes, passed_over))
        return train, test, tuple(child.name for child in classes)
    passed_over += loose + [child for child in top if child.name not in split]
    classes = _classes(split["train"], _entries(split["train"])[0])
    passed_over += _entries(split["train"])[1]
    names = tuple(child.name for child in classes)
    if "test" not in split:
        train, test = _held_out(_pictures(classes, passed_over))
        return train, test, names
    tested = _classes(split["test"], _entries(split["test"])[0])
    passed_over += _entries(split["test"])[1]
    if differing := set(names) ^ {child.name for child in tested}:
        name = min(differing, key=_natural)
        there, missing = ("train", "test") if name in names else ("test", "train")
        msg = f"{root}: {there} has a class {name!r} that {missing} has not, expected the same classes in both"
        raise DatasetCorruptError(msg)
    _check_apart([*classes, *tested])
    train, test = (_ordered(_pictures(part, passed_over)) for part in (classes, tested))
    return train, test, names


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders in a folder in natural order, and everything else, without what is hidden."""
    try:
        children = sorted((c for c in folder.iterdir() if not c.name.startswith(".")), key=lambda c: _natural(c.name))
    except OSError as error:
        msg = f"{folder} could not be listed ({error.strerror or error})"
        raise DatasetCorruptError(msg) from None
    folders = [child for child in children if child.is_dir()]
    return folders, [child for child in children if child not in set(folders)]


def _classes(folder: Path, children: list[Path]) -> list[Path]:
    """Return the folders of the classes, checked."""
    if not children:
        msg = (
            f"{folder} holds no folders, expected one folder of pictures per class "
            "(files of CIFAR themselves are named by --data-dir)"
        )
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


def _pictures(classes: Sequence[Path], passed_over: list[Path]) -> list[list[_File]]:
    """Return the pictures of each class in the order of their hashes."""
    by_class = []
    for label, folder in enumerate(classes):
        folders, files = _entries(folder)
        if folders:
            msg = f"the class {folder} holds a folder {folders[0].name!r}, expected pictures directly in it"
            raise DatasetCorruptError(msg)
        pictures = [path for path in files if path.suffix.lower() in ENDINGS and path.is_file()]
        passed_over += [path for path in files if path not in set(pictures)]
        if not pictures:
            msg = f"the class {folder} has no pictures, expected files ending in {', '.join(ENDINGS)}"
            raise DatasetCorruptError(msg)
        ranked = [_File(path, label, _rank(folder.name, path.name)) for path in pictures]
        by_class.append(sorted(ranked, key=lambda file: file.rank))
    return by_class


def _rank(label: str, name: str) -> bytes:
    """Return the hash of a picture's name, whichever way the file system composes its accents."""
    text = unicodedata.normalize("NFC", f"{label}/{name}")
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _held_out(classes: list[list[_File]]) -> tuple[list[_File], list[_File]]:
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


def _ordered(classes: list[list[_File]]) -> list[_File]:
    """Return the pictures of all classes mixed, in the order of their hashes."""
    return sorted((file for files in classes for file in files), key=lambda file: (file.rank, file.label))


def _natural(name: str) -> tuple[Any, ...]:
    """Return a sort key by which numbers in a name count as numbers."""
    parts = re.split("([0-9]+)", name)
    return *(int(part) if index % 2 else part.casefold() for index, part in enumerate(parts)), name


# Reading --------------------------------------------------------------------------------------------------------------


def _require_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        msg = "a folder of pictures is read with Pillow, which is not installed: pip install 'gpuconv[pictures]'"
        raise UnsupportedError(msg) from None


def _side(path: Path, image_size: int) -> tuple[int, int]:
    """Return the height and width that all pictures must have: of the first, or as asked for."""
    if image_size:
        return image_size, image_size
    pixels = _decoded(path, 0)
    return pixels.shape[0], pixels.shape[1]


def _read(files: Sequence[_File], side: tuple[int, int], first: Path, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    images = np.empty((len(files), 3, *side), np.uint8)
    for index, file in enumerate(files):
        pixels = _decoded(file.path, image_size)
        if pixels.shape[:2] != side:
            msg = (
                f"{file.path} is {_size(pixels.shape[:2])} but {first} is {_size(side)}: "
                "expected pictures of one size, or --image-size N (image_size=N) to scale them"
            )
            raise DatasetCorruptError(msg)
        images[index] = pixels.transpose(2, 0, 1)
    return images, np.array([file.label for file in files], np.int64)


def _decoded(path: Path, image_size: int) -> np.ndarray:
    """Return a picture as (H, W, 3) uint8."""
    import PIL.Image
    import PIL.ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of details of a file that do not matter here; sizes are checked below
            with PIL.Image.open(path, formats=_FORMATS) as image:
                _check(path, image)
                upright = _rgb(path, PIL.ImageOps.exif_transpose(image))
                return np.asarray(_scaled(upright, image_size) if image_size else upright)
    except (DatasetCorruptError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - decoders of a damaged file raise nearly anything
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        msg = f"{path} cannot be read as a picture: {reason.replace(f' {str(path)!r}', '')}"
        raise DatasetCorruptError(msg) from None


def _check(path: Path, image: Image) -> None:
    """Refuse by its header what should not be decoded."""
    width, height = image.size
    if width * height > _MOST_PIXELS:
        msg = f"{path} is {_size((height, width))}, expected at most {_MOST_PIXELS:,} pixels"
        raise DatasetCorruptError(msg)
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # a camera's JPEG with previews after it
    if frames != 1:
        msg = f"{path} has {frames} frames, expected a single picture"
        raise DatasetCorruptError(msg)


def _rgb(path: Path, image: Image) -> Image:
    """Return a picture as 8-bit RGB by the rules of `read_pictures`."""
    import PIL.Image

    if image.mode in _GREY_16 or (image.mode == "I" and image.format == "PNG"):  # the latter: older Pillows'
        grey = np.asarray(image).astype(np.uint32) >> 8
        return PIL.Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode not in _MODES:
        msg = f"{path} has pixels of mode {image.mode!r}, expected {', '.join(_MODES)} or 16-bit grey"
        raise DatasetCorruptError(msg)
    if image.has_transparency_data:
        black = PIL.Image.new("RGBA", image.size, (0, 0, 0, 255))
        return PIL.Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _scaled(image: Image, side: int) -> Image:
    """Return the largest square in the middle of a picture, side x side; what lies around it has no influence."""
    import PIL.Image

    length = min(image.size)
    left, top = ((size - length) // 2 for size in image.size)
    square = image.crop((left, top, left + length, top + length))
    return square if length == side else square.resize((side, side), PIL.Image.Resampling.BICUBIC)


def _size(side: Sequence[int]) -> str:
    return f"{side[1]:,} x {side[0]:,} pixels (width x height)"


def _called(folder: str, root: Path) -> str:
    """Return what a data set calls its folder: the name alone, and of a home folder not that, for it is a person's."""
    path = root.resolve()
    try:
        home = Path.home().resolve()
    except RuntimeError:  # a user without one
        home = None
    if path == home or (folder.startswith("~") and len(Path(folder).parts) == 1):
        return "the home folder"
    return "".join(letter if letter.isprintable() else "?" for letter in path.name) or "the root folder"
