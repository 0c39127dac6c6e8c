"""Read a folder of pictures, one folder per class, with Pillow: a data set of one's own.

Either FOLDER/<class>/<picture>, of which a fifth of every class is held out for testing, or
FOLDER/<part>/<class>/<picture>, where the parts are train, val and test in any of the usual spellings.  Which pictures
are held out, and the order of all, follow from the hashes of their names: neither the file system nor a seed has a say.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import checks, contents, extras, tables
from ..errors import DatasetCorruptError, UnsupportedError
from ..folders import path_of
from ..plural import counted
from .dataset import Dataset, channel_statistics
from .download import Notice
from .picture_files import PictureFile, listed

if TYPE_CHECKING:
    from PIL.Image import Image

# The formats that Pillow may take a file for, where it has them: those that run no other program.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF")
_MODES = ("RGB", "RGBA", "RGBX", "RGBa", "L", "LA", "1", "P", "PA", "CMYK", "YCbCr")
_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
_RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf")

NAMED = "pictures in "  # how the name of every such data set begins
MIXED_SIZE = 64  # what pictures of several sizes are scaled to if nobody says another size

_MOST_PIXELS = 1 << 26  # of one picture: 200 MB while it is decoded
_MOST_BYTES = 1 << 34  # of all


def read_pictures(
    folder: str | os.PathLike[str],
    *,
    image_size: int = 0,
    mixed_size: int = MIXED_SIZE,
    skip_broken: bool = False,
    notice: Notice | None = None,
) -> Dataset:
    """Return the pictures of a folder as a Dataset; classes are its sub-folders in natural order (a2 before a10).

    image_size: N scales the largest square in the middle of each picture to N x N (bicubic); 0 takes pictures as they
    are if all are of one size, and scales them to mixed_size, 64, if not.
    skip_broken: leave out pictures that cannot be read.
    notice(text) hears what was passed over or scaled: files that are no picture by their content nor by their ending,
    other folders.  What macOS, Windows, NAS boxes and notebooks leave behind is passed over in silence.

    Every picture becomes 8-bit RGB: turned as its EXIF data says, grey in three equal channels, 16-bit grey by its
    upper byte, palettes looked up, CMYK and YCbCr by Pillow's formulas without colour profile, alpha over black.

    Without folders for parts one picture in five of every class, at least one, is held out to test on: those first in
    the order of the SHA-256 of <class>/<file name>.  Of train, val and test, val becomes the last training pictures
    (Dataset.validation); of train and val alone, val is the test set.  Mean and standard deviation are those of x_train.
    Raises DatasetMissingError for a folder that is not there or holds no class, DatasetCorruptError, with the names of
    all files concerned, for what cannot be used, UnsupportedError without Pillow (extra `pictures`).

    >>> from pathlib import Path
    >>> from PIL import Image
    >>> for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
    ...     Path("pets", name).parent.mkdir(parents=True, exist_ok=True)
    ...     Image.new("RGB", (8, 8)).save(Path("pets", name))
    >>> pictures = data.read_pictures("pets")
    >>> pictures.classes, pictures.x_train.shape, pictures.x_test.shape
    (('cat', 'dog'), (2, 3, 8, 8), (2, 3, 8, 8))
    """
    root = path_of(folder, "the folder of pictures")
    image_size = checks.integer("image_size", image_size, least=0)
    mixed_size = checks.integer("mixed_size", mixed_size, least=1)
    _require_pillow()
    listing = listed(root)
    say = notice if notice is not None else lambda text: None
    if listing.passed_over:
        count = len(listing.passed_over)
        what = f"{count} entries that are" if count > 1 else "1 entry that is"
        say(f"{root}: passing over {what} no picture or class, such as {listing.passed_over[0]}")
    for note in listing.notes:
        say(note)
    parts = (listing.train, listing.validation, listing.test)
    paths = [file.path for part in parts for file in part]
    size = (image_size, image_size) if image_size else None
    decoded = _read(paths, size, lambda *shape: _space(root, *shape))
    if isinstance(decoded, _Mixed):
        size = (mixed_size, mixed_size)
        say(f"{decoded.words}: all are scaled to {_size(size)}; --image-size N chooses another size")
        decoded = _read(paths, size, lambda *shape: _space(root, *shape))
    assert isinstance(decoded, Decoded)
    if decoded.problems:
        _check_left(root, decoded.problems, listing.classes, parts, skip_broken=skip_broken)
        say(left_out(str(root), decoded.problems))
    ends = np.cumsum([sum(file.path not in decoded.problems for file in part) for part in parts])
    labels = np.array([file.label for part in parts for file in part if file.path not in decoded.problems], np.int64)
    x_train, x_test = decoded.images[: ends[1]], decoded.images[ends[1] :]
    mean, std = channel_statistics(x_train)
    scaled = f", scaled to {_size(size)}" if size else ""
    return Dataset(
        f"{NAMED}{_called(os.fspath(folder), root)}{scaled}",
        listing.classes,
        x_train,
        labels[: ends[1]],
        x_test,
        labels[ends[1] :],
        mean,
        std,
        str(root),
        validation=int(ends[1] - ends[0]) if listing.validation else None,
    )


# Reading --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """The sound pictures of a list, (N, C, H, W) uint8 in its order, and what is wrong with the others."""

    images: np.ndarray
    problems: Mapping[Path, str]


def read_files(paths: Sequence[Path], shape: tuple[int, int, int]) -> Decoded:
    """Return pictures as a net takes them, each as `read_pictures` reads and scales those that a net is trained on.

    shape: (C, H, W); C is 3, or 1 for pictures in grey, by Pillow's weights of red, green and blue.
    The largest part in the middle that has the proportions of H x W is scaled to that (bicubic).
    Raises UnsupportedError for other channels and without Pillow, DatasetCorruptError for more than memory should hold.
    """
    channels, *size = shape
    if channels not in (1, 3):
        msg = f"pictures are read with 3 channels (RGB) or 1 (grey), the net takes {channels}: give it arrays"
        raise UnsupportedError(msg)
    _require_pillow()
    decoded = _read(paths, (size[0], size[1]), _space_of_files, channels=channels)
    assert isinstance(decoded, Decoded)
    return decoded


@dataclass(frozen=True, slots=True)
class _Mixed:
    """Two pictures differ in size."""

    words: str


def _require_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        msg = f"a folder of pictures is read with Pillow, which is not installed: {extras.install('pictures')}"
        raise UnsupportedError(msg) from None


def _read(
    paths: Sequence[Path], size: tuple[int, int] | None, space: Callable[..., np.ndarray], *, channels: int = 3
) -> Decoded | _Mixed:
    """Return all pictures, or which two differ in size if they are taken as they are.

    size: (H, W) to scale to, or None.   space(N, C, H, W) returns memory for them.
    """
    images = None if size is None else space(len(paths), channels, *size)
    first, count = paths[0], 0
    problems: dict[Path, str] = {}
    for path in paths:
        try:
            pixels = _decoded(path, size, channels)
        except DatasetCorruptError as error:
            problems[path] = str(error)
            continue
        side = pixels.shape[:2]
        if images is None:
            images, first = space(len(paths), channels, *side), path
        if side != images.shape[2:]:
            return _Mixed(f"{path} is {_size(side)} but {first} is {_size(images.shape[2:])}")
        images[count] = pixels.transpose(2, 0, 1)
        count += 1
    if images is None:
        images = np.empty((0, channels, 1, 1), np.uint8)
    return Decoded(images[:count], problems)


def _space(root: Path, *shape: int) -> np.ndarray:
    """Return memory for the pictures of a folder, if that is not too much."""
    return _empty(shape, f"{root} holds", "a smaller --image-size N (image_size=N) scales them")


def _space_of_files(*shape: int) -> np.ndarray:
    """Return memory for pictures that a net is to look at, if that is not too much."""
    return _empty(shape, "the files and folders named hold", "name fewer at a time")


def _empty(shape: tuple[int, ...], what: str, way_out: str) -> np.ndarray:
    needed = math.prod(shape)
    if needed > _MOST_BYTES:
        msg = (
            f"{what} {shape[0]:,} pictures of {_size(shape[2:])}, {needed / 1e9:,.0f} GB in memory, "
            f"expected at most {_MOST_BYTES / 1e9:,.0f} GB: {way_out}"
        )
        raise DatasetCorruptError(msg)
    return np.empty(shape, np.uint8)


def _check_left(
    root: Path,
    problems: Mapping[Path, str],
    classes: Sequence[str],
    parts: tuple[list[PictureFile], ...],
    *,
    skip_broken: bool,
) -> None:
    """Refuse broken pictures, all of them by name, unless they are to be left out and enough others stay."""
    if not skip_broken:
        raise broken(str(root), problems)
    for purpose, part in zip(("train", "validate", "test"), parts, strict=True):
        left = {file.label for file in part if file.path not in problems}
        for label in sorted({file.label for file in part} - left):
            msg = f"{root}: no picture of the class {classes[label]!r} to {purpose} on can be read:\n{_indented(problems)}"
            raise DatasetCorruptError(msg)


def broken(where: str, problems: Mapping[Path, str]) -> DatasetCorruptError:
    """Return the error for pictures that cannot be read, all of them by name."""
    return DatasetCorruptError(
        f"{where}: {counted(len(problems), 'picture')} cannot be read: mend or remove what is named here, "
        f"or leave it out by --skip-broken (skip_broken=True):\n{_indented(problems)}"
    )


def left_out(where: str, problems: Mapping[Path, str]) -> str:
    """Return what to say of pictures that cannot be read and are left out."""
    return f"{where}: {counted(len(problems), 'picture')} cannot be read and left out:\n{_indented(problems)}"


def _indented(problems: Mapping[Path, str]) -> str:
    return "\n".join(f"  {line}" for line in problems.values())


def _decoded(path: Path, size: tuple[int, int] | None, channels: int = 3) -> np.ndarray:
    """Return a picture as (H, W, channels) uint8."""
    import PIL.Image
    import PIL.ImageOps

    try:
        _refuse_other(path)
        PIL.Image.init()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of details of a file that do not matter here; sizes are checked below
            with PIL.Image.open(path, formats=[name for name in _FORMATS if name in PIL.Image.OPEN]) as image:
                _check(path, image)
                upright = _rgb(path, PIL.ImageOps.exif_transpose(image))
                coloured = upright if channels == 3 else upright.convert("L")
                pixels = np.asarray(coloured if size is None else _scaled(coloured, *size))
                return pixels.reshape(*pixels.shape[:2], channels)
    except (DatasetCorruptError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - decoders of a damaged file raise nearly anything
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        msg = f"{path} cannot be read as a picture: {reason.replace(f' {str(path)!r}', '')}"
        raise DatasetCorruptError(msg) from None


def _refuse_other(path: Path) -> None:
    """Say of a file that is no picture, or one that Pillow does not read, what it is."""
    start = contents.head(path)
    if path.suffix.lower() in _RAW:
        msg = f"{path} is a camera's raw picture: convert it to JPEG or PNG"
        raise DatasetCorruptError(msg)
    if words := contents.stand_in(start):
        msg = f"{path} {words}"
        raise DatasetCorruptError(msg)
    if (kind := contents.kind(start)) and not contents.is_picture(start):
        way_out = ": convert it to JPEG or PNG" if kind.endswith("picture") else ", not a picture"
        msg = f"{path} is {kind}{way_out}"
        raise DatasetCorruptError(msg)


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


def _scaled(image: Image, height: int, width: int) -> Image:
    """Return the largest part in the middle of a picture that has the proportions wanted, scaled to width x height.

    What lies around it has no influence.
    """
    import PIL.Image

    across, down = image.size
    if across * height >= down * width:
        across = max(1, down * width // height)
    else:
        down = max(1, across * height // width)
    left, top = (image.width - across) // 2, (image.height - down) // 2
    part = image.crop((left, top, left + across, top + down))
    return part if part.size == (width, height) else part.resize((width, height), PIL.Image.Resampling.BICUBIC)


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
    return tables.printable(path.name) or "the root folder"
