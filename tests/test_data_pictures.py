"""Folders of pictures: which are read, in which order, as which colours; and what is refused, by the file's name."""

import hashlib
import os
import struct
import sys
import zlib

import numpy as np
import pytest

from gpuconv import contents, data
from gpuconv.data import picture_files, pictures
from gpuconv.errors import ConfigError, DatasetCorruptError, DatasetMissingError, UnsupportedError

Image = pytest.importorskip("PIL.Image", reason="needs Pillow: pip install -e '.[pictures]'")


def colours(seed, side=(6, 5)):
    return np.random.default_rng(seed).integers(0, 256, (*side, 3), dtype=np.uint8)


def put(path, pixels=None, **options):
    """Save pixels, (H, W, 3) uint8 or what else Pillow takes, as a file of the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(colours(0) if pixels is None else pixels)
    image.save(path, **options)
    return path


def folder(root, counts, side=(6, 5)):
    """Write counts[class] pictures of each class."""
    for name, count in counts.items():
        for number in range(count):
            put(root / name / f"{number}.png", colours([number, *name.encode()], side))
    return root


def heard(root, **options):
    notices = []
    return data.read_pictures(root, notice=notices.append, **options), notices


# What is read -------------------------------------------------------------------------------------------------------


def test_a_fifth_of_every_class_is_held_out_whatever_the_file_system_says(tmp_path, monkeypatch):
    root = folder(tmp_path / "pets", {"cat": 10, "dog": 3, "10": 2, "9": 12, "Bee": 8})
    dataset, notices = heard(root)
    assert dataset.classes == ("9", "10", "Bee", "cat", "dog")
    assert np.bincount(dataset.y_test).tolist() == [2, 1, 2, 2, 1]
    assert np.bincount(dataset.y_train).tolist() == [10, 1, 6, 8, 2]
    assert (dataset.x_train.shape, dataset.x_train.dtype) == ((27, 3, 6, 5), np.uint8)
    assert dataset.name == "pictures in pets"
    assert dataset.source == str(root)
    assert notices == []
    assert dataset.mean == pytest.approx(dataset.x_train.mean(axis=(0, 2, 3)) / 255, rel=1e-12)
    assert dataset.std == pytest.approx(dataset.x_train.std(axis=(0, 2, 3)) / 255, rel=1e-12)
    listing = pictures.Path.iterdir
    monkeypatch.setattr(pictures.Path, "iterdir", lambda self: reversed(list(listing(self))))
    again, _ = heard(root)
    for name in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(again, name), getattr(dataset, name))


def test_order_is_that_of_the_hashes_of_names(tmp_path):
    root = folder(tmp_path, {"a": 4, "b": 4})
    dataset, _ = heard(root)
    ranked = sorted((hashlib.sha256(f"{c}/{n}.png".encode()).digest(), c, n) for c in "ab" for n in range(4))
    first = {c: next(n for _, label, n in ranked if label == c) for c in "ab"}
    kept = [(c, n) for _, c, n in ranked if first[c] != n]
    expected = [colours([n, *c.encode()]).transpose(2, 0, 1) for c, n in kept]
    np.testing.assert_array_equal(dataset.x_train, np.stack(expected))
    assert dataset.y_train.tolist() == ["ab".index(c) for c, _ in kept]
    assert len({c for c, _ in kept[:4]}) == 2, "classes are mixed: the last ones are held out for validation"


def test_a_new_picture_leaves_the_order_of_the_others(tmp_path):
    root = folder(tmp_path, {"train/a": 6, "train/b": 6, "test/a": 2, "test/b": 1})
    before, _ = heard(root)
    put(root / "train" / "a" / "new.png", colours(99))
    after, _ = heard(root)
    new = colours(99).transpose(2, 0, 1)
    others = [i for i, image in enumerate(after.x_train) if not np.array_equal(image, new)]
    assert len(others) == 12
    np.testing.assert_array_equal(after.x_train[others], before.x_train)


def test_own_test_pictures_are_taken(tmp_path):
    root = folder(tmp_path, {"train/a": 3, "train/b": 2, "test/a": 1, "test/b": 4, "annotations": 1})
    dataset, notices = heard(root)
    assert (np.bincount(dataset.y_train).tolist(), np.bincount(dataset.y_test).tolist()) == ([3, 2], [1, 4])
    assert notices == [f"{root}: passing over 1 entry that is no picture or class, such as {root / 'annotations'}"]


def test_a_train_folder_alone_is_split(tmp_path):
    dataset, _ = heard(folder(tmp_path, {"train/a": 5, "train/b": 5}))
    assert (dataset.classes, len(dataset.y_train), len(dataset.y_test)) == (("a", "b"), 8, 2)


def test_train_and_test_may_be_classes(tmp_path):
    dataset, _ = heard(folder(tmp_path, {"train": 2, "tram": 2, "test": 2}))
    assert dataset.classes == ("test", "train", "tram")


def test_what_is_no_picture_is_passed_over_and_said(tmp_path):
    root = folder(tmp_path, {"a": 2, "b": 2})
    (root / "a" / "notes.txt").write_text("x")
    (root / "readme.md").write_text("x")
    (root / "b" / ".hidden.png").write_text("x")
    (root / ".cache").mkdir()
    dataset, notices = heard(root)
    assert len(dataset.y_train) + len(dataset.y_test) == 4
    assert notices == [f"{root}: passing over 2 entries that are no picture or class, such as {root / 'readme.md'}"]


def test_endings_may_be_capitals_and_wrong(tmp_path):
    root = folder(tmp_path, {"a": 2, "b": 2})
    put(root / "a" / "x.PNG")
    put(root / "b" / "y.bmp")
    (root / "b" / "y.bmp").rename(root / "b" / "y.JPEG")
    assert len(heard(root)[0].y_train) + len(heard(root)[0].y_test) == 6


# Parts of a set -----------------------------------------------------------------------------------------------------


SPELLINGS = (
    "val",
    "valid",
    "validation",
    "Val",
    "VALID",
    "val2017",
    "val_set",
    "valset",
    "images_val",
    "Validation Data",
)


@pytest.mark.parametrize("name", SPELLINGS)
def test_val_beside_train_is_what_is_tested_on(tmp_path, name):
    root = folder(tmp_path, {"train/a": 5, "train/b": 5, f"{name}/a": 2, f"{name}/b": 3})
    dataset, notices = heard(root)
    assert np.bincount(dataset.y_train).tolist() == [5, 5]
    assert np.bincount(dataset.y_test).tolist() == [2, 3]
    assert dataset.validation is None
    assert notices == [f"{root}: {name} is what the net is tested on, for there is no test folder"]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("training", "testing"),
        ("training_set", "test_set"),
        ("train-images", "test-images"),
        ("trainset", "testset"),
        ("seg_train", "seg_test"),
        ("train2", "holdout"),
    ],
)
def test_train_and_test_have_many_spellings(tmp_path, train, test):
    root = folder(tmp_path, {f"{train}/a": 5, f"{train}/b": 5, f"{test}/a": 2, f"{test}/b": 3})
    dataset, notices = heard(root)
    assert (np.bincount(dataset.y_train).tolist(), np.bincount(dataset.y_test).tolist()) == ([5, 5], [2, 3])
    assert notices == []


def test_of_three_parts_val_is_the_last_of_training_and_said(tmp_path):
    root = folder(
        tmp_path, {f"{part}/{name}": n for part, n in (("train", 4), ("val", 3), ("test", 2)) for name in "ab"}
    )
    dataset, notices = heard(root)
    assert (dataset.validation, len(dataset.y_train), len(dataset.y_test), notices) == (6, 14, 4, [])
    expected = {colours([n, *f"val/{name}".encode()]).transpose(2, 0, 1).tobytes() for n in range(3) for name in "ab"}
    assert {image.tobytes() for image in dataset.x_train[-6:]} == expected


def test_two_folders_for_one_part_are_refused(tmp_path):
    root = folder(tmp_path, {f"{part}/{name}": 2 for part in ("train", "val", "valid") for name in "ab"})
    with pytest.raises(DatasetCorruptError, match="has val and valid, expected one folder to validate on: rename"):
        heard(root)


@pytest.mark.parametrize("name", ["cat_test", "as", "assets", "trainer", "set", "images", "contest"])
def test_other_names_are_classes(tmp_path, name):
    assert heard(folder(tmp_path, {name: 2, "zebra": 2, "train": 2}))[0].classes == tuple(
        sorted({name, "zebra", "train"})
    )


FLAT = {
    "kaggle": ({"train": 4, "test1": 4}, "test1 and train hold pictures and no folders of classes: .* train/cat"),
    "train_and_val": ({"train": 4, "val": 4}, "train and val hold pictures and no folders of classes"),
    "test_and_val": ({"test": 4, "val": 4}, "test and val hold pictures and no folders of classes: .* test/cat"),
    "train_alone": ({"train": 4}, "train holds pictures and no folders of classes"),
    "test_alone": ({"test": 4}, "test holds pictures and no folders of classes: .* test/cat"),
}


@pytest.mark.parametrize(("counts", "words"), FLAT.values(), ids=FLAT.keys())
def test_pictures_without_classes_are_refused(tmp_path, counts, words):
    root = folder(tmp_path, counts)
    (root / "sample_submission.csv").write_text("id,label\n")
    with pytest.raises(DatasetCorruptError, match=words):
        heard(root)


def test_test_pictures_without_classes_beside_train_with_them_are_said_to_be_unused(tmp_path):
    root = folder(tmp_path, {"train/a": 5, "train/b": 5, "test": 4})
    dataset, notices = heard(root)
    assert (dataset.classes, len(dataset.y_test)) == (("a", "b"), 2)
    assert notices == [f"{root / 'test'} has no folders of classes and is not used"]


def test_one_part_of_a_set_is_refused_with_the_folder_that_has_all(tmp_path):
    root = folder(tmp_path / "pets", {f"{part}/{name}": 3 for part in ("train", "val") for name in "ab"})
    for part in ("train", "val"):
        with pytest.raises(DatasetCorruptError, match=rf"{part} is one part of a set.*: name .*{root.name}$"):
            heard(root / part)


def test_one_part_may_be_taken_where_the_others_have_other_classes(tmp_path):
    root = folder(tmp_path, {"train/a": 5, "train/b": 5, "test/a": 2})
    assert heard(root / "train")[0].classes == ("a", "b")


def test_parts_within_classes_are_refused_with_the_way_out(tmp_path):
    root = folder(tmp_path, {f"{name}/{part}": 2 for part in ("train", "test") for name in "ab"})
    with pytest.raises(DatasetCorruptError, match=r"holds a folder 'test', .*: train/cat, not cat/train"):
        heard(root)


def test_wrappings_of_archives_are_looked_through_and_said(tmp_path):
    root = folder(tmp_path / "out", {"__MACOSX/pets": 1, "pets/pets/a": 3, "pets/pets/b": 3})
    dataset, notices = heard(root)
    assert (dataset.classes, dataset.name) == (("a", "b"), "pictures in out")
    assert notices == [f"{root}: taking what is in {root / 'pets' / 'pets'}, the only folder there"]
    folder(tmp_path / "kaggle", {f"seg_{p}/seg_{p}/{name}": 3 for p in ("train", "test") for name in "ab"})
    assert len(heard(tmp_path / "kaggle")[0].y_test) == 6


# Leftovers and contents ---------------------------------------------------------------------------------------------


LEFT_FILES = (".DS_Store", "._0.png", "Thumbs.db", "desktop.ini", "Desktop.ini", "ehthumbs.db", "Icon\r", ".0.png.swp")
LEFT_FOLDERS = ("__MACOSX", "@eaDir", "#recycle", ".ipynb_checkpoints", "$RECYCLE.BIN", "System Volume Information")


@pytest.mark.skipif(sys.platform == "win32", reason="some of these names cannot be made there")
def test_leftovers_are_passed_over_in_silence_wherever_they_are(tmp_path):
    counts = {"train/a": 2, "train/b": 2, "test/a": 2, "test/b": 2}
    root = folder(tmp_path / "set", counts)
    before, _ = heard(root)
    for place in (root, root / "train", root / "test", *(root / name for name in counts)):
        for name in LEFT_FILES:
            (place / name).write_bytes(b"\0\5\x16\7")
        for name in LEFT_FOLDERS:
            put(place / name / "0.png")
    after, notices = heard(root)
    assert notices == []
    assert after.classes == before.classes
    np.testing.assert_array_equal(after.x_train, before.x_train)
    np.testing.assert_array_equal(after.x_test, before.x_test)


@pytest.mark.parametrize("name", ["x.jfif", "x.jpe", "x.JPG_large", "x", "x.jpg!w700", "x.bin"])
def test_content_says_what_is_a_picture(tmp_path, name):
    root = folder(tmp_path, {"a": 2, "b": 2})
    put(tmp_path / "a" / "x.jpg", colours(5)).rename(root / "a" / name)
    dataset, notices = heard(root)
    assert len(dataset.y_train) + len(dataset.y_test) == 5
    assert notices == []


def test_where_no_picture_can_be_read_there_are_none_of_one_pixel(tmp_path):
    """An array of no pictures: which sizes they would have had, nobody knows."""
    (tmp_path / "x.png").write_bytes(b"no picture")
    decoded = pictures._read([tmp_path / "x.png"], None, np.empty)
    assert decoded.images.shape == (0, 3, 1, 1)
    assert list(decoded.problems) == [tmp_path / "x.png"]


def test_pictures_in_folders_follow_those_beside_them_in_order_of_names(tmp_path):
    for name in ("b/x.png", "b/deep/y.png", "a/z.png", "top.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        put(tmp_path / name, colours(1))
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    passed_over = []
    listed = picture_files.pictures_in(tmp_path, passed_over)
    names = [path.relative_to(tmp_path).as_posix() for path in listed]
    assert names == ["top.png", "a/z.png", "b/x.png", "b/deep/y.png"]
    assert passed_over == [tmp_path / "a" / "notes.txt"]


@pytest.mark.parametrize(("name", "taken"), [("x.jpg", True), ("x", False)])
def test_a_file_that_cannot_be_read_is_a_picture_if_its_name_says_so(tmp_path, monkeypatch, name, taken):
    def unreadable(path):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(contents, "head", unreadable)
    assert picture_files._is_picture(tmp_path / name) is taken


def test_what_is_no_file_is_no_picture_whatever_its_name_says(tmp_path):
    (tmp_path / "x.jpg").symlink_to(tmp_path / "gone")
    assert not picture_files._is_picture(tmp_path / "x.jpg")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_every_kind_that_is_read_is_known_by_its_content(tmp_path, kind):
    path = tmp_path / "picture"
    Image.fromarray(colours(5)).save(path, format=kind)
    assert contents.is_picture(contents.head(path))
    assert pictures._decoded(path, None).shape == (6, 5, 3)


INSTEAD = {
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
        "is a pointer of Git LFS.*git lfs pull",
    ),
    "html": (b"\xef\xbb\xbf\n <!doctype HTML><title>Sign in</title>", r"is a page of a web server \(HTML\)"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an error message of a web server"),
    "zeros": (bytes(5000), "begins with nothing but zeros"),
    "zip": (b"PK\x03\x04" + bytes(50), "is a ZIP archive, not a picture"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(50), "is an HEIC picture: convert it to JPEG or PNG"),
    "video": (b"\0\0\0\x18ftypisom" + bytes(50), "is a video, not a picture"),
    "pdf": (b"%PDF-1.4", "is a PDF, not a picture"),
}


@pytest.mark.parametrize(("content", "words"), INSTEAD.values(), ids=INSTEAD.keys())
def test_what_lies_in_a_pictures_place_is_told(tmp_path, content, words):
    root = folder(tmp_path, {"a": 2, "b": 2})
    (root / "a" / "x.jpg").write_bytes(content)
    with pytest.raises(DatasetCorruptError, match=r"a.x\.jpg " + words):
        heard(root)


def test_a_cameras_raw_picture_is_not_taken_for_the_thumbnail_in_it(tmp_path):
    root = folder(tmp_path, {"a": 2, "b": 2})
    put(root / "a" / "x.tif").rename(root / "a" / "x.NEF")
    with pytest.raises(DatasetCorruptError, match=r"x\.NEF is a camera's raw picture: convert it"):
        heard(root)


@pytest.mark.parametrize("text", [b"BMW and others", b"P3P policies", b"P1 is the first of 12 parts", b"GI", b"readme"])
def test_texts_are_no_pictures(tmp_path, text):
    root = folder(tmp_path, {"a": 2, "b": 2})
    (root / "a" / "notes").write_bytes(text)
    assert "passing over 1 entry" in heard(root)[1][0]


# Colours ------------------------------------------------------------------------------------------------------------


def grey_alpha():
    pixels = np.full((6, 5, 4), 200, np.uint8)
    pixels[:, :, 3] = [0, 51, 102, 204, 255]
    return Image.fromarray(pixels)


def palette(**info):
    image = Image.fromarray((np.arange(30, dtype=np.uint8) % 3).reshape(6, 5)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.info |= info
    return image


def turned():
    """Return a picture lying on its side, with the EXIF entry that says so."""
    image = Image.fromarray(np.rot90(colours(3)).copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    return image, exif


GREY = np.arange(30, dtype=np.uint8).reshape(6, 5)
RGB = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
COLOURS = {
    "grey": (Image.fromarray(GREY), {}, np.stack([GREY] * 3, axis=2)),
    "black_and_white": (Image.fromarray(GREY % 2 * 255).convert("1"), {}, np.stack([GREY % 2 * 255] * 3, axis=2)),
    "grey_of_16_bits": (
        Image.fromarray(GREY.astype(np.uint16) * 256 + 255),
        {},
        np.stack([GREY] * 3, axis=2),
    ),
    "palette": (palette(), {}, RGB[np.arange(30).reshape(6, 5) % 3]),
    "palette_with_a_transparent_colour": (
        palette(),
        {"transparency": 1},
        (RGB * [[1], [0], [1]])[np.arange(30).reshape(6, 5) % 3],
    ),
    "alpha_over_black": (
        grey_alpha(),
        {},
        np.broadcast_to(np.array([0, 40, 80, 160, 200], np.uint8)[None, :, None], (6, 5, 3)),
    ),
}


@pytest.mark.parametrize(("image", "options", "expected"), COLOURS.values(), ids=COLOURS.keys())
def test_every_kind_of_picture_becomes_rgb_by_its_rule(tmp_path, image, options, expected):
    path = put(tmp_path / "x.png", image, **options)
    np.testing.assert_array_equal(pictures._decoded(path, None), expected)


def test_cmyk_is_converted(tmp_path):
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[:, :, 0] = 255  # cyan alone: no red
    path = put(tmp_path / "x.jpg", Image.frombytes("CMYK", (8, 8), ink.tobytes()))
    assert pictures._decoded(path, None).reshape(-1, 3).mean(axis=0) == pytest.approx([0, 255, 255], abs=3)


def test_a_cameras_picture_may_have_previews_after_it(tmp_path):
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert pictures._decoded(tmp_path / "x.jpg", None).mean() == pytest.approx(10, abs=1)


def test_pictures_are_turned_as_their_exif_says(tmp_path):
    image, exif = turned()
    path = put(tmp_path / "x.png", image, exif=exif)
    np.testing.assert_array_equal(pictures._decoded(path, None), colours(3))


def test_other_pixels_are_refused(tmp_path):
    path = put(tmp_path / "x.tif", Image.fromarray(np.zeros((6, 5), np.float32)))
    with pytest.raises(DatasetCorruptError, match=r"x\.tif has pixels of mode 'F', expected RGB"):
        pictures._decoded(path, None)


# Sizes --------------------------------------------------------------------------------------------------------------


def test_mixed_sizes_are_scaled_to_64_unless_another_size_is_asked_for(tmp_path):
    root = folder(tmp_path, {"a": 2, "b": 2})
    put(root / "b" / "wide.png", colours(1, (6, 50)))
    dataset, notices = heard(root)
    assert dataset.x_train.shape[1:] == (3, 64, 64)
    assert dataset.name.endswith(", scaled to 64 x 64 pixels (width x height)")
    assert len(notices) == 1
    for words in (
        "50 x 6 pixels (width x height)",
        " is 5 x 6 pixels",
        "wide.png",
        "scaled to 64 x 64",
        "--image-size N",
    ):
        assert words in notices[0]
    np.testing.assert_array_equal(dataset.x_train, heard(root, image_size=64)[0].x_train)
    dataset, notices = heard(root, image_size=4)
    assert (dataset.x_train.shape[1:], notices) == ((3, 4, 4), [])
    assert dataset.name.endswith(", scaled to 4 x 4 pixels (width x height)")


def test_a_portrait_and_a_landscape_are_two_sizes(tmp_path):
    root = folder(tmp_path, {"a": 2, "b": 2})
    put(root / "a" / "turned.png", colours(1, (5, 6)))
    assert heard(root)[0].x_train.shape[1:] == (3, 64, 64)


def test_the_square_in_the_middle_is_scaled(tmp_path):
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 255  # 8 x 8 white in the middle
    path = put(tmp_path / "x.png", pixels)
    np.testing.assert_array_equal(pictures._decoded(path, (4, 4)), 255)
    assert pictures._decoded(path, (16, 16)).shape == (16, 16, 3)


def test_pictures_of_the_right_size_are_left_as_they_are(tmp_path):
    path = put(tmp_path / "x.png", colours(4, (7, 7)))
    np.testing.assert_array_equal(pictures._decoded(path, (7, 7)), colours(4, (7, 7)))


def test_too_many_bytes_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_MOST_BYTES", 1 << 20)
    root = folder(tmp_path, {"a": 2, "b": 2})
    with pytest.raises(DatasetCorruptError, match=r"4 pictures of 1,000 x 1,000 pixels .* expected at most 0 GB"):
        heard(root, image_size=1000)


# What is refused ----------------------------------------------------------------------------------------------------


def png_header(width, height):
    """Return the beginning of a PNG that claims a size: what a decompression bomb starts with."""
    head = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(p)) + n + p + struct.pack(">I", zlib.crc32(n + p)) for n, p in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def cut(path):
    path.write_bytes(path.read_bytes()[:80])


def animation(path):
    frames = [Image.fromarray(colours(i)) for i in range(3)]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])


FILES = {
    "empty": (lambda path: path.write_bytes(b""), "is empty: copy or download it again"),
    "text": (lambda path: path.write_text("hello"), "cannot be read as a picture: cannot identify"),
    "cut_short": (cut, "cannot be read as a picture: .*truncated"),
    "postscript": (
        lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "cannot be.*identify",
    ),
    "bomb": (lambda path: path.write_bytes(png_header(9000, 9000)), "is 9,000 x 9,000 pixels .*at most 67,108,864"),
    "bomb_that_pillow_refuses": (lambda path: path.write_bytes(png_header(60000, 60000)), "cannot be read.* exceeds"),
    "less_than_it_claims": (lambda path: path.write_bytes(png_header(500, 500)), "cannot be read as a picture: "),
    "animation": (animation, "has 3 frames, expected a single picture"),
}


@pytest.mark.parametrize("image_size", [0, 4])
@pytest.mark.parametrize(("harm", "words"), FILES.values(), ids=FILES.keys())
def test_files_that_cannot_be_read_are_named(tmp_path, harm, words, image_size):
    root = folder(tmp_path, {"a": 3, "b": 3})
    harm(root / "b" / "1.png")
    with pytest.raises(DatasetCorruptError, match=r"b.1\.png " + words):
        heard(root, image_size=image_size)


def test_all_broken_pictures_are_listed_and_left_out_if_asked_for(tmp_path):
    root = folder(tmp_path, {"a": 6, "b": 6})
    whole, _ = heard(root)
    (root / "a" / "2.png").write_bytes(b"")
    cut(root / "b" / "3.png")
    put(root / "b" / "x.jpg", colours(3))
    (root / "b" / "x.jpg").write_text("<!DOCTYPE html><html><body>429 Too Many Requests</body></html>")
    with pytest.raises(DatasetCorruptError) as caught:
        heard(root)
    first, *listed = str(caught.value).splitlines()
    assert "3 pictures cannot be read" in first
    assert "--skip-broken (skip_broken=True)" in first
    assert {line.split()[0] for line in listed} == {str(root / name) for name in ("a/2.png", "b/3.png", "b/x.jpg")}
    dataset, notices = heard(root, skip_broken=True)
    assert notices[0].startswith(f"{root}: 3 pictures cannot be read and left out:\n")
    assert len(notices[0].splitlines()) == 4
    sound = [*dataset.x_train, *dataset.x_test]
    assert len(sound) == len(dataset.y_train) + len(dataset.y_test) == 10
    before = [image.tobytes() for image in (*whole.x_train, *whole.x_test)]
    assert [image.tobytes() for image in sound] == [image for image in before if image in {i.tobytes() for i in sound}]


def test_a_class_of_which_nothing_is_left_is_refused(tmp_path):
    root = folder(tmp_path, {"a": 4, "b": 4})
    for path in (root / "b").iterdir():
        cut(path)
    with pytest.raises(DatasetCorruptError, match="no picture of the class 'b' to train on can be read"):
        heard(root, skip_broken=True)


def link(target, path):
    path.symlink_to(target, target_is_directory=True)


FOLDERS = {
    "missing": (lambda root: root / "none", DatasetMissingError, "none does not exist"),
    "an_archive": (
        lambda root: [(root / "pets.zip").write_bytes(b"PK\x03\x04"), root / "pets.zip"][1],
        DatasetMissingError,
        r"pets\.zip is a ZIP archive, not a folder: unpack it",
    ),
    "a_file": (lambda root: put(root / "x.png"), DatasetMissingError, r"x\.png is not a folder"),
    "empty": (lambda root: root, DatasetMissingError, "holds no folders, expected one folder of pictures per class"),
    "pictures_alone": (
        lambda root: put(root / "x.png").parent,
        DatasetMissingError,
        r"of pictures per class \(what pictures without classes show, a trained net tells by gpuconv predict RUN FOLDER\)",
    ),
    "one_class": (lambda root: folder(root, {"cat": 3}), DatasetCorruptError, "holds one class, 'cat', expected two"),
    "one_class_to_train": (
        lambda root: folder(root, {"train/cat": 3, "test/cat": 1}),
        DatasetCorruptError,
        "train holds one class, 'cat'",
    ),
    "empty_class": (
        lambda root: [folder(root, {"cat": 3, "dog": 2}), (root / "ant").mkdir()][0],
        DatasetCorruptError,
        "the class .*ant has no pictures: put some there, or remove the folder",
    ),
    "one_picture": (
        lambda root: folder(root, {"cat": 3, "dog": 1}),
        DatasetCorruptError,
        "dog has 1 picture, expected",
    ),
    "folder_in_a_class": (
        lambda root: folder(root, {"cat": 3, "dog": 2, "dog/puppy": 2}),
        DatasetCorruptError,
        "dog holds a folder 'puppy', expected pictures directly in it",
    ),
    "test_alone": (
        lambda root: folder(root, {"test/cat": 3, "test/dog": 2}),
        DatasetCorruptError,
        "has a folder test with classes, expected a folder train",
    ),
    "class_to_train_alone": (
        lambda root: folder(root, {"train/cat": 3, "train/dog": 2, "train/ant": 1, "test/cat": 1, "test/dog": 1}),
        DatasetCorruptError,
        "train has a class 'ant' that test has not",
    ),
    "class_to_test_alone": (
        lambda root: folder(root, {"train/cat": 3, "train/dog": 2, "test/bee": 1, "test/cat": 1, "test/dog": 1}),
        DatasetCorruptError,
        "test has a class 'bee' that train has not",
    ),
    "link_to_itself_from_within": (
        lambda root: [folder(root, {"cat": 3, "dog": 2}), link(root, root / "loop")][0],
        DatasetCorruptError,
        "the class .*loop holds a folder 'cat'",
    ),
    "one_class_twice": (
        lambda root: [folder(root, {"cat": 3, "dog": 2}), link(root / "cat", root / "kitten")][0],
        DatasetCorruptError,
        "kitten and .*cat are one folder",
    ),
    "test_is_train": (
        lambda root: [folder(root, {"train/cat": 3, "train/dog": 2}), link(root / "train", root / "test")][0],
        DatasetCorruptError,
        "test.cat and .*train.cat are one folder",
    ),
    "name_with_an_escape": (
        lambda root: folder(root, {"cat": 3, "dog\x1b[2J": 2}),
        DatasetCorruptError,
        r"holds a folder 'dog\\x1b\[2J', expected a name of printable characters",
    ),
}


@pytest.mark.skipif(sys.platform == "win32", reason="links and control characters in names are POSIX's")
@pytest.mark.parametrize(("make", "error", "words"), FOLDERS.values(), ids=FOLDERS.keys())
def test_folders_that_are_no_data_set_are_refused(tmp_path, make, error, words):
    with pytest.raises(error, match=words):
        heard(make(tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_that_lead_nowhere_are_passed_over(tmp_path):
    root = folder(tmp_path, {"a": 2, "b": 2})
    link(root / "loop", root / "loop")
    link(root / "gone.png", root / "a" / "gone.png")
    dataset, notices = heard(root)
    assert dataset.classes == ("a", "b")
    assert "passing over 2 entries" in notices[0]


def test_pictures_that_are_linked_are_read(tmp_path):
    root = folder(tmp_path / "set", {"a": 2, "b": 2})
    target = put(tmp_path / "store" / "x.png")
    os.symlink(target, root / "a" / "linked.png")  # noqa: PTH211 - also on Windows
    assert len(heard(root)[0].y_train) == 3


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(UnsupportedError, match=r"pip install -e '\.\[pictures\]' in the checkout$"):
        data.load(str(folder(tmp_path, {"a": 2, "b": 2})))


# By name ------------------------------------------------------------------------------------------------------------


def test_load_takes_a_path_or_the_name_of_a_folder_that_is_there(tmp_path, monkeypatch):
    folder(tmp_path / "pets", {"a": 2, "b": 2})
    monkeypatch.chdir(tmp_path)
    for name in ("pets", "./pets", str(tmp_path / "pets")):
        assert data.load(name).name == "pictures in pets"
    assert data.load("pets", image_size=3).x_train.shape == (2, 3, 3, 3)
    with pytest.raises(DatasetMissingError, match="pets/none does not exist"):
        data.load("pets/none")
    with pytest.raises(ConfigError, match="the data set 'pets' is a folder itself"):
        data.load("pets", folder="elsewhere")
    with pytest.raises(ConfigError, match='the data set "shapes" has a size of its own, got 8'):
        data.load("shapes", image_size=8)


def test_a_set_cannot_call_itself_cifar10(tmp_path):
    assert heard(folder(tmp_path / "CIFAR-10", {"a": 2, "b": 2}))[0].name == "pictures in CIFAR-10"


def test_accents_rank_alike_however_they_are_composed():
    assert picture_files.rank("caf\u00e9", "\u00fc.png") == picture_files.rank("cafe\u0301", "u\u0308.png")


def test_a_home_folder_is_not_called_by_its_name(tmp_path, monkeypatch):
    home = folder(tmp_path / "somebody", {"a": 2, "b": 2})
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    for path in ("~", "~/", home):
        assert heard(path)[0].name == "pictures in the home folder"
    folder(home / "pets", {"a": 2, "b": 2})
    assert heard("~/pets")[0].name == "pictures in pets"
