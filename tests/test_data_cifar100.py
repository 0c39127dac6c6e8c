"""CIFAR-100 from files: two labels a picture, batches of two lengths, and originals told by the file's own hash."""

import dataclasses
import hashlib
import pickle
import tarfile

import numpy as np
import pytest
import tiny_cifar10 as tiny
from local_server import Server, serve, server

from gpuconv import data
from gpuconv.data import cifar100, sources
from gpuconv.data.cifar import verify
from gpuconv.errors import ConfigError, DatasetCorruptError, DatasetMissingError, UnsafeArchiveError

__all__ = ["server"]  # a fixture

TRAIN, TEST = 200, 100  # two and one of every class


def records():
    """Return {batch: (pictures, 3074) uint8}: superclass, class, pixels."""
    rng = np.random.default_rng(100)
    rows_of = {}
    for batch, count in (("train", TRAIN), ("test", TEST)):
        rows = rng.integers(0, 256, (count, 3074), dtype=np.uint8)
        rows[:, 1] = rng.permutation(np.arange(count) % 100)
        rows[:, 0] = rows[:, 1] // 5
        rows_of[batch] = rows
    return rows_of


RECORDS = records()


def pickled(rows, **change):
    content = {
        "filenames": [f"{i}.png" for i in range(len(rows))],
        "batch_label": "a batch",
        "fine_labels": rows[:, 1].tolist(),
        "coarse_labels": rows[:, 0].tolist(),
        "data": np.ascontiguousarray(rows[:, 2:]),
    }
    return pickle.dumps(content | change, protocol=2)


FILES = {
    "binary": {f"{batch}.bin": rows.tobytes() for batch, rows in RECORDS.items()},
    "python": {batch: pickled(rows) for batch, rows in RECORDS.items()},
}
FOLDERS = {"binary": "cifar-100-binary", "python": "cifar-100-python"}


def packed(kind, files=None):
    folder = FOLDERS[kind]
    parts = [tiny.member(f"{folder}/{name}", content) for name, content in (files or FILES[kind]).items()]
    readme = tiny.member(f"{folder}/fine_label_names.txt", b"apple\n")
    return tiny.archive([tiny.member(f"{folder}/", type=tarfile.DIRTYPE), readme, *parts[::-1]])


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def spec():
    """Return the specification by which these pictures are the original: as the real one, but for sizes and hashes."""
    layouts = []
    for layout in cifar100.OFFICIAL.layouts:
        archive = packed(layout.kind)
        hashes = {batch: sha256(FILES[layout.kind][batch]) for batch in layout.sha256}
        layouts.append(
            dataclasses.replace(layout, archive_bytes=len(archive), archive_sha256=sha256(archive), sha256=hashes)
        )
    return dataclasses.replace(cifar100.OFFICIAL, records={"train": TRAIN, "test": TEST}, layouts=tuple(layouts))


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    for name in ("GPUCONV_DATA", "GPUCONV_CIFAR100_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GPUCONV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar100, "OFFICIAL", spec())
    monkeypatch.setattr(sources, "_MIRRORS", ("http://127.0.0.1:1/",))


def write(place, kind, form="folder", files=None):
    if form == "folder":
        tiny.write(place / FOLDERS[kind], files or FILES[kind])
    elif form == "loose":
        tiny.write(place, files or FILES[kind])
    else:
        place.mkdir(exist_ok=True)
        (place / f"{FOLDERS[kind]}.tar.gz").write_bytes(packed(kind, files))
    return place


@pytest.mark.parametrize("name", ["cifar100", "cifar100-coarse"])
@pytest.mark.parametrize("form", ["folder", "loose", "archive"])
@pytest.mark.parametrize("kind", FOLDERS)
def test_every_form_gives_the_same_pictures(tmp_path, kind, form, name):
    dataset = data.load(name, folder=write(tmp_path / "sets", kind, form), download=False)
    for x, y, rows in (
        (dataset.x_train, dataset.y_train, RECORDS["train"]),
        (dataset.x_test, dataset.y_test, RECORDS["test"]),
    ):
        np.testing.assert_array_equal(x, rows[:, 2:].reshape(-1, 3, 32, 32), strict=True)
        np.testing.assert_array_equal(y, rows[:, 1 if name == "cifar100" else 0].astype(np.int64), strict=True)
    coarse = name == "cifar100-coarse"
    assert dataset.classes == (cifar100.SUPERCLASSES if coarse else cifar100.CLASSES)
    known = kind == "python" or form == "archive"
    wanted = "CIFAR-100" + ("" if known else " (files without a known checksum)")
    assert dataset.name == wanted + (" (20 superclasses)" if coarse else "")


def changed(batch, column, value, place=7):
    rows = {name: part.copy() for name, part in RECORDS.items()}
    rows[batch][place, column] = value
    return rows


def binary(rows):
    return {f"{batch}.bin": part.tobytes() for batch, part in rows.items()}


DAMAGED = {
    "fine_label": ("binary", binary(changed("train", 1, 100)), r"train\.bin has fine label 100 at picture 7, exp.*99"),
    "coarse_label": ("binary", binary(changed("test", 0, 20)), r"test\.bin has coarse label 20 at picture 7, exp.*19"),
    "counts": (
        "binary",
        binary(changed("train", 1, 3)),
        r"training batches: \d pictures of class \d+ \(\w+\), exp.* 2",
    ),
    "superclass_counts": ("binary", binary(changed("test", 0, 3)), r"pictures of class \d+ \(\w+\), expected 5"),
    "short": ("binary", FILES["binary"] | {"test.bin": b"x" * 99}, r"test\.bin has 99 bytes, expected 307,400"),
    "cifar10s_length": (
        "binary",
        FILES["binary"] | {"test.bin": b"\0" * 100 * 3073},
        r"test\.bin has 307,300 bytes, expected 307,400",
    ),
    "no_fine_labels": (
        "python",
        FILES["python"] | {"test": pickled(RECORDS["test"], fine_labels=None)},
        "'fine_labels': 'NoneType'.* expected data as an array and coarse_labels and fine_labels as a list",
    ),
    "few_labels": (
        "python",
        FILES["python"] | {"test": pickled(RECORDS["test"], coarse_labels=[1] * 99)},
        "test has 99 coarse_labels, expected 100",
    ),
    "label_in_pickle": (
        "python",
        FILES["python"] | {"test": pickled(RECORDS["test"], fine_labels=[-1] * 100)},
        "test has fine label -1 at picture 0, expected 0 to 99",
    ),
    "one_pixel": (
        "python",
        FILES["python"] | {"test": pickled(changed("test", 900, 1, 0)["test"])},
        "test is not the original, though other batches beside it are: SHA-256 of its bytes is",
    ),
}


@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize(("kind", "files", "words"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files_are_refused_by_name(tmp_path, kind, files, words, form):
    write(tmp_path / "sets", kind, form, files)
    with pytest.raises(DatasetCorruptError, match=words):
        data.load("cifar100", folder=tmp_path / "sets")


def test_a_missing_batch_is_named(tmp_path):
    write(tmp_path, "python", files={"train": FILES["python"]["train"]})
    with pytest.raises(DatasetCorruptError, match="has 1 of the 2 batch files, missing: test"):
        data.load("cifar100", folder=tmp_path)


def test_files_that_happen_to_be_called_train_are_none_of_it(tmp_path):
    tiny.write(tmp_path, {"train": b"timetable", "test.bin": b"x"})
    with pytest.raises(DatasetMissingError, match="holds no CIFAR-100"):
        data.load("cifar100", folder=tmp_path)


def test_other_pictures_are_not_called_the_original(tmp_path):
    rows = {batch: part ^ np.array([0, 0] + [1] * 3072, np.uint8) for batch, part in RECORDS.items()}
    dataset = data.load("cifar100", folder=write(tmp_path, "python", files={b: pickled(r) for b, r in rows.items()}))
    assert dataset.name == "CIFAR-100 (unofficial files)"
    (tmp_path / FOLDERS["python"] / "dataset-name.txt").write_text("CIFAR 100")
    with pytest.raises(DatasetCorruptError, match="says 'CIFAR 100', but the files beside it are not the original's"):
        data.load("cifar100", folder=tmp_path)


def test_a_hostile_pickle_and_archive_are_refused(tmp_path):
    evil = FILES["python"] | {"test": b"cos\nsystem\n(S'touch x'\ntR."}
    for form in ("folder", "archive"):
        padded = evil | {"test": evil["test"] + b"\0" * 307_200}
        write(tmp_path / form, "python", form, padded)
        with pytest.raises(UnsafeArchiveError, match=r"it names os\.system"):
            data.load("cifar100", folder=tmp_path / form)
    (tmp_path / "cifar-100-binary.tar.gz").write_bytes(tiny.archive([tiny.member("../train.bin", b"x")]))
    with pytest.raises(UnsafeArchiveError, match="leads out of its folder"):
        data.load("cifar100", folder=tmp_path / "cifar-100-binary.tar.gz")


def test_verify_tells_what_is_known_of_each_file(tmp_path):
    rows = data.verify(write(tmp_path / "a", "binary", "archive"), name="cifar100")
    assert [(row.name, row.ok, row.official) for row in rows] == [
        ("cifar-100-binary.tar.gz", True, True),
        ("train.bin", True, True),
        ("test.bin", True, True),
    ]
    for kind, official in (("python", True), ("binary", False)):
        rows = data.verify(write(tmp_path / kind, kind), name="cifar100")
        assert [(row.ok, row.official) for row in rows] == [(True, official)] * 2
        assert rows[0].sha256 == sha256(FILES[kind][rows[0].name])
    with pytest.raises(ConfigError, match="have files to find, got 'shapes'"):
        data.verify(name="shapes")


def test_files_that_are_sound_alone_and_wrong_together_get_a_row_of_their_own(tmp_path, monkeypatch):
    def refuse(source, spec):
        msg = "the classes do not come equally often"
        raise DatasetCorruptError(msg)

    monkeypatch.setattr(verify, "read", refuse)
    *files, together = data.verify(write(tmp_path / "set", "python"), name="cifar100")
    assert all(row.ok for row in files)
    name = together.name
    assert together == data.FileFacts(name, 0, True, "", False, False, "the classes do not come equally often")
    assert name not in {row.name for row in files}


def test_it_is_downloaded_and_kept(server: Server, monkeypatch):
    archive = packed("binary")
    monkeypatch.setenv("GPUCONV_CIFAR100_URL", server.url("archive", lambda handler: serve(handler, archive)))
    notices = []
    assert data.load("cifar100", notice=notices.append).name == "CIFAR-100"
    assert notices[0].startswith(f"fetching cifar-100-binary.tar.gz ({len(archive):,} bytes)")
    monkeypatch.delenv("GPUCONV_CIFAR100_URL")
    assert data.load("cifar100", download=False).name == "CIFAR-100"
    assert len(server.requests) == 1


def test_without_it_there_is_an_error_that_says_how_to_get_it(tmp_path):
    with pytest.raises(DatasetMissingError, match=r"CIFAR-100 is not in .*\n.*cifar-100-binary\.tar\.gz"):
        data.load("cifar100", download=False)


def test_the_original_is_written_down_right(monkeypatch):
    monkeypatch.undo()
    official = cifar100.OFFICIAL
    assert official.records == {"train": 50_000, "test": 10_000}
    assert [labels.key for labels in official.labels] == ["coarse_labels", "fine_labels"]
    assert (len(cifar100.CLASSES), len(cifar100.SUPERCLASSES)) == (100, 20)
    assert list(cifar100.CLASSES) == sorted(set(cifar100.CLASSES))
    assert list(cifar100.SUPERCLASSES) == sorted(set(cifar100.SUPERCLASSES))
    assert official.record_bytes * 60_000 == 184_440_000
    assert [layout.archive_bytes for layout in official.layouts] == [168_513_733, 169_001_437]
    hashes = [h for layout in official.layouts for h in (layout.archive_sha256, *layout.sha256.values())]
    assert len({h for h in hashes if len(bytes.fromhex(h)) == 32}) == 4
