"""Files as they come: told by what is in them, whatever they are called, in one sentence that begins with their name."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from gpuconv import bounded, contents, nn
from gpuconv.errors import CheckpointCorruptError, ConfigError
from gpuconv.export import from_torch
from gpuconv.runs import sealed, settings


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x", "x")
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return file.getvalue()


def saved() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


KINDS = {
    "zip": (zipped(), "a ZIP archive"),
    "gzip": (gzip.compress(b"x"), "a gzip archive"),
    "tar": (tarred(), "a tar archive"),
    "npy": (saved(), "a NumPy array (.npy)"),
    "pickle": (pickle.dumps([1]), "a pickle"),
    "pdf": (b"%PDF-1.7\n", "a PDF"),
    "text": (b"BM25 and other rankings of texts", ""),
    "short": (b"B", ""),
    "empty": (b"", ""),
}


@pytest.mark.parametrize(("content", "kind"), KINDS.values(), ids=KINDS.keys())
def test_the_kind_of_a_file_is_told_by_its_first_bytes(content, kind):
    assert contents.kind(content[: contents.HEAD]) == kind


@pytest.mark.parametrize(("content", "_"), [KINDS["zip"], KINDS["text"]], ids=["zip", "text"])
def test_what_is_a_file_of_its_own_stands_in_for_none(content, _):
    assert contents.stand_in(content) == ""


@pytest.mark.parametrize(
    ("start", "meant"),
    [
        (b"\x40" + bytes(7) + b'{"__metadata__"', True),
        (b"\x02" + bytes(7) + b"{}", True),
        (b"\xff" * 8 + b'{"', False),
        (b"\x40" + bytes(7) + b"no JSON", False),
    ],
    ids=["header", "no_arrays", "header_beyond_any_length", "other_text"],
)
def test_safetensors_begin_with_a_length_and_a_json_text(start, meant):
    assert contents.is_safetensors(start) is meant


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
STAND_INS = {
    "empty": (b"", "is empty: copy or download it again"),
    "lfs": (LFS, "is a pointer of Git LFS, not the file it stands for: `git lfs pull`"),
    "html": (b"<!DOCTYPE html>\n<html><title>Sign in</title>", "is a page of a web server (HTML), not the file itself"),
    "html_after_a_mark": (b"\xef\xbb\xbf\r\n<HTML lang=en>", "is a page of a web server (HTML)"),
    "xhtml": (b'<?xml version="1.0"?>\n<html xmlns="x">', "is a page of a web server (HTML)"),
    "storage_error": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an error message of a web"),
    "zeros": (bytes(4096), "begins with nothing but zeros"),
}


@pytest.mark.parametrize(("content", "words"), STAND_INS.values(), ids=STAND_INS.keys())
def test_what_stands_in_for_weights_is_told(tmp_path, content, words):
    assert contents.in_words(content).startswith(words)
    path = tmp_path / "best.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointCorruptError) as caught:
        sealed.read(path)
    assert str(caught.value).startswith(f"{path} is corrupt: it {words}")
    net = nn.ConvNet(2, input_shape=(3, 8, 8), classes=2)
    with pytest.raises(CheckpointCorruptError) as caught:
        from_torch(path, net)
    assert str(caught.value).startswith(f"{path} is not a safetensors file: it {words}")


@pytest.mark.parametrize("content", [zipped(), pickle.dumps([1]), saved()], ids=["zip", "pickle", "npy"])
def test_weights_of_other_programs_in_a_checkpoints_place_are_told(tmp_path, content):
    path = tmp_path / "best.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        CheckpointCorruptError, match=r"is corrupt: it is a .*; `gpuconv import` takes PyTorch's weights"
    ):
        sealed.read(path)


@pytest.mark.parametrize("content", [LFS, STAND_INS["html"][0]], ids=["lfs", "html"])
def test_what_stands_in_for_an_onnx_file_is_told(tmp_path, content):
    pytest.importorskip("onnx")
    from gpuconv.export import from_onnx

    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointCorruptError, match="is not a sound ONNX file: it is a p"):
        from_onnx(path)


# Settings as editors write them -------------------------------------------------------------------------------------

TEXT = '# für später\r\nepochs = 7\r\ndata = "shapes"\r\n'


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
    ],
    ids=["utf8", "utf8_with_a_mark", "utf16", "utf16_big_endian", "utf32"],
)
def test_settings_are_read_as_their_byte_order_mark_says(tmp_path, content):
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    config = settings.read(path)
    assert (config.epochs, config.data) == (7, "shapes")


def test_a_nets_file_with_a_mark_is_read(tmp_path):
    path = tmp_path / "net.toml"
    path.write_bytes('[[layer]]\nkind = "affine"\n'.encode("utf-8-sig"))
    assert nn.from_file(path, input_shape=(3, 8, 8), classes=2).flat_params.size == 2 * (3 * 8 * 8 + 1)


NO_SETTINGS = {
    "latin1": (TEXT.encode("latin-1"), "is not text in UTF-8, see line 1 (it may be Latin-1 or Windows-1252): save it"),
    "latin1_further_down": ("a = 1\n\n# ä".encode("latin-1"), "is not text in UTF-8, see line 3 "),
    "utf16_without_a_mark": (
        TEXT.encode("utf-16-le").replace(b"\xfc", b"u").replace(b"\xe4", b"a"),
        "holds zero bytes, as UTF-16",
    ),
    "half_a_character": (TEXT.encode("utf-16")[:-1], "has the byte-order mark of UTF-16 and is not text in it"),
    "lfs": (LFS, "is a pointer of Git LFS"),
    "html": (STAND_INS["html"][0], "is a page of a web server (HTML)"),
    "zip": (zipped(), "is a ZIP archive"),
    "toml_that_is_wrong": (b"epochs = \n", "is not TOML: "),
}


@pytest.mark.parametrize(("content", "words"), NO_SETTINGS.values(), ids=NO_SETTINGS.keys())
def test_what_is_no_settings_file_is_told(tmp_path, content, words):
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        settings.read(path)
    assert str(caught.value).startswith(f"config file {path} {words}")
    assert "\n" not in str(caught.value)


def test_a_text_with_zeros_is_none():
    with pytest.raises(ValueError, match="holds zero bytes"):
        bounded.typed_text(b"a = 1\0")
