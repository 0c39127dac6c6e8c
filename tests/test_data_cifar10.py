"""CIFAR-10 from files: every form gives the same pictures, and whatever is wrong is named."""

import gzip
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_cifar10 as tiny
from tiny_cifar10 import BINARY, PYTHON

from gpuconv.data import cifar, cifar10
from gpuconv.data.cifar import source
from gpuconv.errors import DatasetCorruptError, GpuconvError


def changed_labels(batch, change):
    """Return all records with the labels of one batch changed in place by a function."""
    batches = {name: rows.copy() for name, rows in tiny.records().items()}
    change(batches[batch][:, 0])
    return batches


def all_different():
    """Return records none of which is the original: another version of the whole set."""
    batches = {name: rows.copy() for name, rows in tiny.records().items()}
    for rows in batches.values():
        rows[0, 1] ^= 1
    return batches


FORMS = {
    "binary_folder": lambda place: tiny.write_folder(place, BINARY),
    "python_folder": lambda place: tiny.write_folder(place, PYTHON),
    "binary_archive": lambda place: tiny.write_archive(place, BINARY),
    "python_archive": lambda place: tiny.write_archive(place, PYTHON),
    "files_without_their_folder": lambda place: tiny.write(place, tiny.binary_files()),
    "course_folder": lambda place: tiny.write_folder(place / "cs231n" / "datasets", PYTHON),
    "course_folder_in_an_assignment": lambda place: tiny.write_folder(place / "hw5" / "cs231n" / "datasets", PYTHON),
    "archive_further_down": lambda place: tiny.write_archive(place / "a" / "b", BINARY),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_gives_the_same_pictures(tmp_path, form):
    form(tmp_path)
    got = tiny.read(tmp_path)
    assert got.name == "CIFAR-10"
    for array, wanted in zip((got.x_train, got.y_train, got.x_test, got.y_test), tiny.arrays(), strict=True):
        np.testing.assert_array_equal(array, wanted, strict=True)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("key", [str, str.encode], ids=["text_keys", "bytes_keys"])
def test_every_pickle_protocol_is_read(tmp_path, protocol, key):
    tiny.write_folder(tmp_path, PYTHON, tiny.python_files(protocol, key))
    assert tiny.read(tmp_path).name == "CIFAR-10"


def python_2_pickle(rows):
    """Return a batch as Python 2 wrote the published ones: protocol 2, all strings of bytes, NumPy's old names."""

    def short(text):
        return b"U" + bytes([len(text)]) + text

    labels = b"".join(b"K" + bytes([label]) for label in rows[:, 0])
    names = b"".join(short(b"picture.png") for _ in rows)
    pixels = np.ascontiguousarray(rows[:, 1:]).tobytes()
    shape = b"M" + len(rows).to_bytes(2, "little") + b"M" + (3072).to_bytes(2, "little") + b"\x86"
    dtype = (
        b"cnumpy\ndtype\n"
        + short(b"u1")
        + b"K\0K\x01\x87R(K\x03"
        + short(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    )
    data = (
        b"cnumpy.core.multiarray\n_reconstruct\n"
        b"cnumpy\nndarray\nK\0\x85" + short(b"b") + b"\x87R"
        b"(K\x01" + shape + dtype + b"\x89T" + len(pixels).to_bytes(4, "little") + pixels + b"tb"
    )
    return b"".join(
        [
            b"\x80\x02}q\x01(" + short(b"batch_label") + short(b"training batch 1 of 5"),
            short(b"labels") + b"](" + labels + b"e",
            short(b"data") + data,
            short(b"filenames") + b"](" + names + b"eu.",
        ]
    )


def python_2_protocol_0(rows):
    """Return labels and data as Python 2's first protocol wrote them: quoted strings with escapes."""
    labels = b"".join(b"I%d\na" % label for label in rows[:, 0])
    pixels = repr(np.ascontiguousarray(rows[:, 1:]).tobytes()).removeprefix("b").encode()
    dtype = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
    data = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntRp7\n"
    state = b"(I1\n(I%d\nI3072\nt%sI00\nS%s\ntb" % (len(rows), dtype, pixels)
    return b"(dp0\nS'labels'\np1\n(lp2\n" + labels + b"sS'data'\np3\n" + data + state + b"s."


@pytest.mark.parametrize("form", [python_2_pickle, python_2_protocol_0])
def test_pickles_of_python_2_are_read(tmp_path, form):
    tiny.write_folder(tmp_path, PYTHON, {batch: form(rows) for batch, rows in tiny.records().items()})
    assert tiny.read(tmp_path).name == "CIFAR-10"


def test_the_nearest_then_the_binary_form_is_taken(tmp_path):
    tiny.write_archive(tmp_path, BINARY)
    tiny.write_folder(tmp_path, PYTHON)
    tiny.write_folder(tmp_path / "further", BINARY)
    assert cifar.find(tmp_path, tiny.spec()).path == tmp_path / "cifar-10-batches-py"
    tiny.write_folder(tmp_path, BINARY)
    assert cifar.find(tmp_path, tiny.spec()).path == tmp_path / "cifar-10-batches-bin"


NOTHING = {
    "empty_folder": lambda place: None,
    "no_such_folder": lambda place: place.rmdir(),
    "hidden_folder": lambda place: tiny.write_folder(place / ".trash", BINARY),
    "too_far_down": lambda place: tiny.write_folder(place / "a" / "b" / "c" / "d", BINARY),
    "link_in_a_circle": lambda place: (place / "loop").symlink_to(place, target_is_directory=True),
}


@pytest.mark.parametrize("arrange", NOTHING.values(), ids=NOTHING.keys())
def test_nothing_is_found_where_nothing_is(tmp_path, arrange):
    arrange(tmp_path)
    assert cifar.find(tmp_path, tiny.spec()) is None


COPIES = (
    *(
        "cifar-10-binary.tar.gz.1",
        "cifar-10-binary.tar (1).gz",
        "cifar-10-binary (1).tar.gz",
        "cifar-10-binary(2).tar.gz",
    ),
    *("cifar-10-binary.tar-1.gz", "cifar-10-binary.tgz", "cifar-10-binary copy.tar.gz", "CIFAR-10-binary.tar.gz"),
)


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_an_archive_are_known_by_name(tmp_path, name):
    path = tiny.write_archive(tmp_path, BINARY).rename(tmp_path / name)
    for place in (path, tmp_path):
        source = cifar.find(place, tiny.spec())
        assert (source.path, source.packed) == (path, True)
    assert tiny.read(tmp_path).name == "CIFAR-10"
    named = tiny.write_archive(tmp_path, BINARY)
    assert cifar.find(tmp_path, tiny.spec()).path.samefile(named)


@pytest.mark.parametrize("kind", [BINARY, PYTHON])
@pytest.mark.parametrize("name", ["{}.tar", "{}.tar.gz", "{} (1).tar"])
def test_an_archive_that_a_browser_unpacked_is_read(tmp_path, kind, name):
    path = tmp_path / name.format(tiny.ARCHIVES[kind].removesuffix(".tar.gz"))
    path.write_bytes(gzip.decompress(tiny.official_archive(kind)))
    pictures = tiny.read(tmp_path)
    assert pictures.name == "CIFAR-10"
    np.testing.assert_array_equal(pictures.x_train, tiny.arrays()[0])
    path.write_bytes(path.read_bytes()[:300_000])
    with pytest.raises(DatasetCorruptError, match="is not a sound"):
        tiny.read(tmp_path)


def test_a_batch_that_is_a_pointer_of_git_lfs_is_told(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    tiny.write_folder(tmp_path, BINARY, tiny.binary_files() | {"test_batch.bin": pointer})
    with pytest.raises(
        DatasetCorruptError, match=r"test_batch\.bin has 63 bytes, expected 307,300: it is a pointer of Git"
    ):
        tiny.read(tmp_path)


def test_a_file_of_another_name_is_no_archive(tmp_path):
    path = tiny.write_archive(tmp_path, BINARY).rename(tmp_path / "other.tar.gz")
    assert cifar.find(path, tiny.spec()) is None
    named = tiny.write_archive(tmp_path, BINARY)
    assert cifar.find(named, tiny.spec()).packed


# What is wrong -----------------------------------------------------------------------------------------------------


def without(contents, name):
    return {other: content for other, content in contents.items() if other != name}


def with_file(contents, name, change):
    return {other: change(content) if other == name else content for other, content in contents.items()}


def labels_set(batch, place, value):
    def change(labels):
        labels[place] = value

    return changed_labels(batch, change)


class Cut:
    """Pickles as an array of which the last byte is gone."""

    def __reduce__(self):
        function, arguments, state = tiny.records()["data_batch_2"][:, 1:].copy().__reduce__()
        return function, arguments, (*state[:4], state[4][:-1])


def as_dict(**changes):
    """Return a Python batch of which some entries are others."""
    rows = tiny.records()["data_batch_2"]
    content = tiny.batch_dict(rows, str) | changes
    content = {name: value for name, value in content.items() if value is not None}
    return {**tiny.python_files(), "data_batch_2": pickle.dumps(content, protocol=4)}


WRONG_FILES = {
    "missing_batch": (
        BINARY,
        lambda: without(tiny.binary_files(), "data_batch_3.bin"),
        r"has 5 of the 6 batch files, missing: data_batch_3\.bin",
    ),
    "one_byte_short": (
        BINARY,
        lambda: with_file(tiny.binary_files(), "data_batch_2.bin", lambda content: content[:-1]),
        r"data_batch_2\.bin has 307,299 bytes, expected 307,300",
    ),
    "one_byte_long": (
        BINARY,
        lambda: with_file(tiny.binary_files(), "test_batch.bin", lambda content: content + b"\0"),
        r"test_batch\.bin has 307,301 bytes, expected 307,300",
    ),
    "empty_file": (
        BINARY,
        lambda: with_file(tiny.binary_files(), "data_batch_1.bin", lambda content: b""),
        r"data_batch_1\.bin has 0 bytes, expected 307,300",
    ),
    "label_10": (
        BINARY,
        lambda: tiny.binary_files(labels_set("data_batch_4", 17, 10)),
        r"data_batch_4\.bin has label 10 at picture 17, expected 0 to 9",
    ),
    "label_255": (
        BINARY,
        lambda: tiny.binary_files(labels_set("test_batch", 99, 255)),
        r"test_batch\.bin has label 255 at picture 99, expected 0 to 9",
    ),
    "class_counts_of_the_training_set": (
        BINARY,
        lambda: tiny.binary_files(changed_labels("data_batch_1", lambda labels: np.copyto(labels, 3))),
        r"training batches: \d+ pictures of class 0 \(airplane\), expected 50",
    ),
    "class_counts_of_the_test_set": (
        BINARY,
        lambda: tiny.binary_files(changed_labels("test_batch", lambda labels: np.copyto(labels, 9))),
        r"test_batch\.bin: 0 pictures of class 0 \(airplane\), expected 10",
    ),
    "one_pixel_flipped": (
        BINARY,
        lambda: with_file(
            tiny.binary_files(), "data_batch_5.bin", lambda content: content[:-1] + bytes([content[-1] ^ 1])
        ),
        r"data_batch_5\.bin is not the original, though other batches beside it are: SHA-256",
    ),
    "python_label_10": (
        PYTHON,
        lambda: tiny.python_files(batches=labels_set("data_batch_4", 17, 10)),
        r"data_batch_4 has label 10 at picture 17, expected 0 to 9",
    ),
    "python_label_256_does_not_wrap": (
        PYTHON,
        lambda: as_dict(labels=[256] * 100),
        r"data_batch_2 has label 256 at picture 0, expected 0 to 9",
    ),
    "python_label_text": (PYTHON, lambda: as_dict(labels=["cat"] * 100), r"has label cat at picture 0"),
    "python_label_true": (PYTHON, lambda: as_dict(labels=[True] * 100), r"has label True at picture 0"),
    "python_label_list_in_list": (PYTHON, lambda: as_dict(labels=[[1]] * 100), r"has label list at picture 0"),
    "python_one_label_missing": (PYTHON, lambda: as_dict(labels=[1] * 99), r"has 99 labels, expected 100"),
    "python_no_labels": (
        PYTHON,
        lambda: as_dict(labels=None),
        r"'labels': 'NoneType'\}, expected data as an array and labels as a list",
    ),
    "python_no_data": (PYTHON, lambda: as_dict(data=None, more=b"x" * 310_000), r"'data': 'NoneType'"),
    "python_data_shape": (
        PYTHON,
        lambda: as_dict(data=np.zeros((3072, 100), np.uint8)),
        r"has data \(3072, 100\) of type u1 in row order, expected \(100, 3072\)",
    ),
    "python_data_type": (
        PYTHON,
        lambda: as_dict(data=np.zeros((100, 3072), np.int8)),
        r"of type i1 in row order, expected \(100, 3072\) of type u1",
    ),
    "python_data_in_column_order": (
        PYTHON,
        lambda: as_dict(data=np.asfortranarray(tiny.records()["data_batch_2"][:, 1:])),
        r"in column order, expected",
    ),
    "python_data_cut": (
        PYTHON,
        lambda: {
            **tiny.python_files(),
            "data_batch_2": pickle.dumps(tiny.batch_dict(tiny.records()["data_batch_2"], str) | {"data": Cut()}, 4),
        },
        r"data_batch_2 has 307,199 bytes of data, expected 307,200",
    ),
    "python_no_dict": (
        PYTHON,
        lambda: {**tiny.python_files(), "data_batch_2": b"\x80\x04](" + b"K\x01" * 200_000 + b"e."},
        r"data_batch_2 is not a sound pickle: it has more than 3000 instructions",
    ),
    "python_list": (
        PYTHON,
        lambda: {
            **tiny.python_files(),
            "data_batch_2": b"\x80\x04]B" + (310_000).to_bytes(4, "little") + bytes(310_000) + b"a.",
        },
        r"holds a list, expected a dict",
    ),
    "html_page_for_a_batch": (
        PYTHON,
        lambda: {**tiny.python_files(), "data_batch_2": b"<html>" + b" " * 310_000},
        r"data_batch_2 is not a sound pickle: byte 0 is b'<', which is no instruction",
    ),
}


@pytest.mark.parametrize(("kind", "contents", "words"), WRONG_FILES.values(), ids=WRONG_FILES.keys())
def test_wrong_files_are_named_with_both_facts(tmp_path, kind, contents, words):
    folder = tiny.write_folder(tmp_path, kind, contents())
    with pytest.raises(DatasetCorruptError, match=words) as caught:
        tiny.read(tmp_path)
    assert str(folder) in str(caught.value)


def test_a_file_that_is_cut_short_after_its_size_was_looked_at_is_named(tmp_path, monkeypatch):
    folder = tiny.write_folder(tmp_path, BINARY, tiny.files(BINARY))
    monkeypatch.setattr(Path, "read_bytes", lambda path: bytes(path.stat().st_size - 1))
    with pytest.raises(DatasetCorruptError, match=r"has 307,299 bytes, expected 307,300") as caught:
        tiny.read(tmp_path)
    assert str(folder) in str(caught.value)


WRONG_ARCHIVES = {
    "empty": (lambda good: b"", "is not a sound .tar.gz archive: it is empty: copy or download it again"),
    "lfs": (
        lambda good: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "it is a pointer of Git LFS, not the file it stands for: `git lfs pull`",
    ),
    "zip": (lambda good: b"PK\x03\x04" + bytes(40), "archive: it is a ZIP archive$"),
    "no_archive": (lambda good: b"plain text", "is not a sound .tar.gz archive: Not a gzipped"),
    "html_page": (
        lambda good: b"<!DOCTYPE html><html>not here</html>",
        r"is not a sound .tar.gz archive: it is a page of a web server \(HTML\), not the file itself",
    ),
    "half": (lambda good: good[: len(good) // 2], "is not a sound .tar.gz archive"),
    "last_byte_gone": (lambda good: good[:-1], "is not a sound .tar.gz archive"),
    "wrong_checksum": (lambda good: good[:-8] + bytes(4) + good[-4:], r"is not a sound .tar.gz archive: CRC"),
    "no_members": (lambda good: tiny.archive([]), "has 0 of the 6 batch files"),
    "no_tar": (lambda good: __import__("gzip").compress(b"text" * 1000), "is not a sound .tar.gz archive"),
    "batch_missing": (lambda good: tiny.archive(tiny.members(BINARY)[:-1]), r"missing: data_batch_3\.bin"),
    "batch_twice": (
        lambda good: tiny.archive([*tiny.members(BINARY), tiny.members(BINARY)[-1]]),
        r"has cifar-10-batches-bin/data_batch_3\.bin twice",
    ),
    "batch_short": (
        lambda good: tiny.archive([tiny.member("cifar-10-batches-bin/test_batch.bin", b"short")]),
        r"cifar-10-batches-bin/test_batch\.bin has 5 bytes, expected 307,300",
    ),
}


@pytest.mark.parametrize(("change", "words"), WRONG_ARCHIVES.values(), ids=WRONG_ARCHIVES.keys())
def test_wrong_archives_are_named(tmp_path, change, words):
    path = tiny.write_archive(tmp_path, BINARY, change(tiny.official_archive(BINARY)))
    with pytest.raises(DatasetCorruptError, match=words) as caught:
        tiny.read(tmp_path)
    assert str(path) in str(caught.value)


def damaged(content, rng):
    """Return content with one bit flipped, or cut short."""
    if rng.integers(4) == 0:
        return content[: rng.integers(len(content))]
    place, bit = rng.integers(len(content)), rng.integers(8)
    return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


DAMAGED = {
    "binary_archive": (BINARY, True, 60),
    "python_archive": (PYTHON, True, 60),
    "binary_batch": (BINARY, False, 40),
    "python_batch": (PYTHON, False, 80),
}


@pytest.mark.long
@pytest.mark.parametrize(("kind", "packed", "times"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damage_is_found_or_harmless(tmp_path, rng, kind, packed, times):
    """Harmless is a flip in a file time or in the stored name of a picture: the pictures are still the original's."""
    if packed:
        path, good = tmp_path / tiny.ARCHIVES[kind], tiny.official_archive(kind)
    else:
        folder = tiny.write_folder(tmp_path, kind)
        path = sorted(folder.iterdir())[2]
        good = path.read_bytes()
    found = harmless = 0
    for _ in range(times):
        path.write_bytes(damaged(good, rng))
        try:
            got = tiny.read(tmp_path)
        except GpuconvError as error:
            found += str(path) in str(error)
        else:
            harmless += 1
            assert got.name == "CIFAR-10"
            np.testing.assert_array_equal(got.x_train, tiny.arrays()[0])
    assert found + harmless == times
    assert harmless < 0.1 * times


# Its true name -----------------------------------------------------------------------------------------------------


def test_another_version_of_everything_is_unofficial(tmp_path):
    tiny.write_folder(tmp_path, BINARY, tiny.binary_files(all_different()))
    assert tiny.read(tmp_path).name == "CIFAR-10 (unofficial files)"


@pytest.mark.parametrize("kind", [BINARY, PYTHON])
def test_a_folder_names_itself(tmp_path, kind):
    make = tiny.binary_files if kind == BINARY else tiny.python_files
    folder = tiny.write_folder(tmp_path, kind, make(batches=all_different()))
    (folder / "dataset-name.txt").write_text("CIFAR-10, sharpened\n")
    assert tiny.read(tmp_path).name == "CIFAR-10, sharpened"


def test_a_version_changed_on_purpose_in_one_batch_may_name_itself(tmp_path):
    folder = tiny.write_folder(tmp_path, BINARY, WRONG_FILES["one_pixel_flipped"][1]())
    (folder / "dataset-name.txt").write_text("one pixel changed")
    assert tiny.read(tmp_path).name == "one pixel changed"


def test_the_original_keeps_its_name(tmp_path):
    folder = tiny.write_folder(tmp_path, BINARY)
    (folder / "dataset-name.txt").write_text("mine\n")
    assert tiny.read(tmp_path).name == "CIFAR-10"


WRONG_NAMES = {
    "empty": b"",
    "blank": b"   \n",
    "two_lines": b"one\ntwo\n",
    "too_long": b"x" * 81,
    "endless": b"x" * 10_000,
    "escape_sequence": b"\x1b[31mred",
    "not_text": b"\xff\xfe",
    "claims_to_be_the_original": b"CIFAR-10\n",
    "claims_it_in_other_letters": b" cifar_10 ",
}


@pytest.mark.parametrize("text", WRONG_NAMES.values(), ids=WRONG_NAMES.keys())
def test_wrong_names_are_refused(tmp_path, text):
    folder = tiny.write_folder(tmp_path, BINARY, tiny.binary_files(all_different()))
    (folder / "dataset-name.txt").write_bytes(text)
    with pytest.raises(DatasetCorruptError, match=re.escape(str(folder / "dataset-name.txt"))):
        tiny.read(tmp_path)


# Verifying ---------------------------------------------------------------------------------------------------------


def facts(place):
    return cifar.facts(cifar.find(place, tiny.spec()), tiny.spec())


@pytest.mark.parametrize("kind", [BINARY, PYTHON])
def test_facts_of_a_sound_folder(tmp_path, kind):
    folder = tiny.write_folder(tmp_path, kind)
    rows = facts(tmp_path)
    assert [row.name.removesuffix(".bin") for row in rows] == list(tiny.BATCHES)
    assert all(row.ok and row.official and row.size_ok and row.labels_ok for row in rows)
    assert [row.size for row in rows] == [(folder / row.name).stat().st_size for row in rows]
    assert [row.sha256 for row in rows] == list(tiny.spec().sha256.values())


@pytest.mark.parametrize("kind", [BINARY, PYTHON])
def test_facts_of_a_sound_archive(tmp_path, kind):
    tiny.write_archive(tmp_path, kind)
    rows = facts(tmp_path)
    assert len(rows) == 7
    assert all(row.ok and row.official and row.size_ok for row in rows)


def test_facts_of_a_repacked_archive(tmp_path):
    tiny.write_archive(tmp_path, BINARY, tiny.archive(reversed(tiny.members(BINARY))))
    whole, *rows = facts(tmp_path)
    assert (whole.official, whole.ok) == (False, True)
    assert all(row.official for row in rows)


def test_facts_of_a_broken_archive(tmp_path):
    tiny.write_archive(tmp_path, BINARY, b"<html>")
    (row,) = facts(tmp_path)
    assert (row.ok, row.size, row.size_ok, row.official) == (False, 6, False, False)
    assert "it is a page of a web server" in row.problem


def test_facts_of_another_version(tmp_path):
    tiny.write_folder(tmp_path, BINARY, tiny.binary_files(all_different()))
    rows = facts(tmp_path)
    assert len(rows) == 6
    assert all(row.ok and row.size_ok and row.labels_ok and not row.official for row in rows)


def test_facts_tell_each_file_of_a_damaged_folder(tmp_path):
    contents = tiny.binary_files(labels_set("data_batch_4", 17, 10))
    contents["data_batch_1.bin"] = b"short"
    del contents["data_batch_2.bin"]
    tiny.write_folder(tmp_path, BINARY, contents)
    rows = {row.name: row for row in facts(tmp_path)}
    assert [name for name, row in rows.items() if not row.ok] == [f"data_batch_{i}.bin" for i in (1, 2, 4)]
    assert (rows["data_batch_1.bin"].size, rows["data_batch_1.bin"].size_ok) == (5, False)
    assert "No such file" in rows["data_batch_2.bin"].problem
    assert (rows["data_batch_4.bin"].size_ok, rows["data_batch_4.bin"].labels_ok) == (True, False)
    assert rows["test_batch.bin"].official


def test_facts_tell_when_sound_files_do_not_belong_together(tmp_path):
    folder = tiny.write_folder(tmp_path, BINARY)
    shutil.copy(folder / "data_batch_1.bin", folder / "data_batch_2.bin")
    *rows, whole = facts(tmp_path)
    assert all(row.ok for row in rows)
    assert whole.name == "cifar-10-batches-bin"
    assert "training batches: " in whole.problem


def test_the_original_is_written_down_right():
    spec = cifar10.OFFICIAL
    assert spec.batches == (
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
        "test_batch",
    )
    assert " ".join(cifar10.CLASSES) == "airplane automobile bird cat deer dog frog horse ship truck"
    hashes = [*spec.sha256.values(), *(layout.archive_sha256 for layout in spec.layouts)]
    assert len(set(hashes)) == 8
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in hashes)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_pickles_of_the_largest_pixels_are_not_too_long(packed, tmp_path):
    """Python 2 wrote such a byte as four in its first protocol; those of Python 3 write it as two."""
    layout = next(layout for layout in cifar10.OFFICIAL.layouts if layout.kind == "python")
    pixels = 10_000 * 3072 * b"\xff"
    written = len(repr(pixels)) if not packed else len(pixels.decode("latin1").encode())
    assert written >= (2 if packed else 4) * len(pixels)
    least, most = source.sizes(source.Source(tmp_path, layout, packed), cifar10.OFFICIAL, "data_batch_1")
    names = 10_000 * len("'rocking_horse_s_000000.png', ")
    assert least <= written + names <= most < written + (2 << 20)


@pytest.mark.parametrize("kind", [tiny.BINARY, tiny.PYTHON])
def test_one_batch_is_read_as_it_comes_in_the_whole(kind, tmp_path):
    folder = tiny.write_folder(tmp_path, kind)
    suffix = {tiny.BINARY: ".bin", tiny.PYTHON: ""}[kind]
    images, labels = cifar.read_batch(folder / f"test_batch{suffix}", tiny.spec())
    *_, x_test, y_test = tiny.arrays()
    np.testing.assert_array_equal(images, x_test, strict=True)
    np.testing.assert_array_equal(labels, y_test, strict=True)
