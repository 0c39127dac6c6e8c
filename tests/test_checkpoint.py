"""Checkpoints: exact, sealed against every changed bit, and never lost, whenever the process or the disk fails."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from train_helpers import names

from gpuconv import durable
from gpuconv.errors import (
    CheckpointCorruptError,
    CheckpointVersionError,
    CheckpointWriteError,
    ConfigError,
    NonFiniteLossError,
)
from gpuconv.runs import sealed

HARNESS = Path(__file__).parent / "checkpoint_killer.py"


def some_arrays() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "params/conv1.w": draw.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "params/conv1.b": draw.standard_normal(4).astype(np.float32),
        "optimizer/m": draw.standard_normal(112),
    }


VALUES = {
    "step": 7,
    "best": None,
    "loss_sum": 0.1 + 0.2,
    "metrics": [{"epoch": 1, "accuracy": 0.25}],
    "name": 'with "quotes", \\ and \u00e9\u4e2d\U0001f600\x7f\n',
    "sha256 looks like": '"gpuconv":"{"sha256":"' + "0" * 64,
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "last.safetensors"


@pytest.fixture
def content():
    return sealed.encode(some_arrays(), VALUES)


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == np.ascontiguousarray(array).tobytes(), name


# What goes in comes out ---------------------------------------------------------------------------------------------


def test_a_saved_checkpoint_comes_back_exactly(path):
    sealed.write(path, some_arrays(), VALUES)
    arrays, values = sealed.read(path)
    assert_equal(arrays, some_arrays())
    assert values == VALUES


LAYOUTS = {
    "transposed": lambda a: a.T,
    "every_second": lambda a: a[::2, 1::2],
    "backwards": lambda a: a[::-1, ::-1],
    "channels_last": lambda a: np.moveaxis(a.reshape(2, 3, 5, 4), 3, 1),
    "broadcast": lambda a: np.broadcast_to(a[:1], (7, *a.shape[1:])),
    "fortran": np.asfortranarray,
    "offset": lambda a: a.reshape(-1)[3:],
    "empty": lambda a: a[:0],
    "no_axes": lambda a: a[1, 2],
}


@pytest.mark.parametrize("view", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_arrays_in_any_memory_layout_keep_their_values(view, path):
    array = np.asarray(view(np.arange(120, dtype=np.float32).reshape(6, 20)))
    sealed.write(path, {"a": array}, {})
    assert_equal(sealed.read(path)[0], {"a": array})


def test_equal_contents_make_equal_files(content):
    assert all(sealed.encode(some_arrays(), dict(reversed(VALUES.items()))) == content for _ in range(20))


def test_other_programs_read_the_arrays(path):
    sealed.write(path, some_arrays(), VALUES)
    assert_equal(safetensors.numpy.load_file(path), some_arrays())


def test_loaded_arrays_do_not_share_the_file(path):
    sealed.write(path, some_arrays(), VALUES)
    arrays, _ = sealed.read(path)
    arrays["optimizer/m"][:] = 0
    assert_equal(sealed.read(path)[0], some_arrays())


# Damage is found ----------------------------------------------------------------------------------------------------


def test_every_single_bit_of_a_small_checkpoint_counts():
    content = sealed.encode({"w": np.arange(3, dtype=np.float32)}, {"step": 1})
    damaged = bytearray(content)
    for bit in range(8 * len(content)):
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CheckpointCorruptError):
            sealed.decode(bytes(damaged), "x")
        damaged[bit // 8] ^= 1 << bit % 8
    assert damaged == content


def test_random_bit_flips_are_all_found(content):
    draw = np.random.default_rng(1)
    for bits in (1, 2, 9):
        for _ in range(700):
            damaged = bytearray(content)
            for bit in draw.choice(8 * len(content), bits, replace=False):
                damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(CheckpointCorruptError):
                sealed.decode(bytes(damaged), "x")


def test_truncations_are_all_found(content, path):
    lengths = {0, 1, 7, 8, 9, len(content) - 1, *np.random.default_rng(2).integers(0, len(content), 300).tolist()}
    for length in lengths:
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointCorruptError):
            sealed.read(path)


HOSTILE = {
    "trailing_byte": lambda b: b + b"\0",
    "trailing_copy": lambda b: b + b,
    "leading_byte": lambda b: b"\0" + b,
    "zeros": lambda b: bytes(len(b)),
    "text": lambda b: b"<html>not found</html>",
    "header_longer_than_file": lambda b: (2**40).to_bytes(8, "little") + b[8:],
    "header_of_all_bits": lambda b: b"\xff" * 8 + b[8:],
    "halves_swapped": lambda b: b[len(b) // 2 :] + b[: len(b) // 2],
    "capital_digits_in_the_seal": lambda b: b.replace(seal_of(b), seal_of(b).upper()),
}


def seal_of(content: bytes) -> bytes:
    place = content.index(b'sha256\\":\\"') + len(b'sha256\\":\\"')
    return content[place : place + 64]


@pytest.mark.parametrize("damage", HOSTILE.values(), ids=HOSTILE.keys())
def test_other_damage_is_found(damage, content, path):
    path.write_bytes(damage(content))
    with pytest.raises(CheckpointCorruptError, match=r"last\.safetensors is corrupt: "):
        sealed.read(path)


def reseal(content: bytes) -> bytes:
    """Return content with the seal that fits it: what someone who knows the format can do."""
    blank = content.replace(seal_of(content), b"0" * 64)
    return blank.replace(b"0" * 64, hashlib.sha256(blank).hexdigest().encode(), 1)


def forged(metadata: str, arrays: dict | None = None) -> bytes:
    entry = metadata.replace("SEAL", "0" * 64)
    return reseal(safetensors.numpy.save(arrays or {"a": np.zeros(2)}, metadata={"gpuconv": entry}))


FORGED = {
    "not_json": lambda: forged('{"sha256":"SEAL",'),
    "no_format": lambda: forged('{"sha256":"SEAL","step":1}'),
    "very_deep": lambda: forged('{"sha256":"SEAL","a":' + "[" * 200_000 + "]" * 200_000 + "}"),
    "nan_weights": lambda: forged('{"sha256":"SEAL","format":1}', {"a": np.array([1, np.nan], np.float32)}),
    "infinite_weights": lambda: forged('{"sha256":"SEAL","format":1}', {"a": np.array([1, np.inf], np.float16)}),
    "type_never_saved": lambda: forged('{"sha256":"SEAL","format":1}', {"a": np.array([True])}),
    "offsets_out_of_the_file": lambda: reseal(
        forged('{"sha256":"SEAL","format":1}').replace(b'"data_offsets":[0,16]', b'"data_offsets":[0,99]')
    ),
    "shape_larger_than_the_file": lambda: reseal(
        forged('{"sha256":"SEAL","format":1}').replace(b'"shape":[2]', b'"shape":[9]')
    ),
    "type_unknown_to_numpy": lambda: reseal(
        forged('{"sha256":"SEAL","format":1}', {"a": np.zeros(2, np.float16)}).replace(b'"F16"', b'"BF16"')[:-1] + b"\0"
    ),
}


@pytest.mark.parametrize("content", FORGED.values(), ids=FORGED.keys())
def test_a_fitting_seal_does_not_make_us_trust_the_rest(content):
    with pytest.raises(CheckpointCorruptError):
        sealed.decode(content(), "x")


def test_a_resealed_checkpoint_is_sound(content):
    assert reseal(content) == content


def test_a_later_format_is_named_not_called_corrupt(monkeypatch, path):
    monkeypatch.setattr(sealed, "FORMAT", 3)
    sealed.write(path, some_arrays(), VALUES)
    monkeypatch.undo()
    with pytest.raises(CheckpointVersionError, match="format 3; this version of gpuconv reads formats 1 and 2"):
        sealed.read(path)


def test_a_huge_file_is_refused_before_it_is_read(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)  # takes no space: a hole
    with pytest.raises(CheckpointCorruptError, match="1099511627776 bytes"):
        sealed.read(path)


def test_missing_files_and_folders_are_named(path):
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        sealed.read(path)
    with pytest.raises(ConfigError, match="not a checkpoint file"):
        sealed.read(path.parent)


def test_a_file_that_cannot_be_read_is_named_with_the_reason(path, content, monkeypatch):
    path.write_bytes(content)

    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(ConfigError, match=r"could not be read .Permission denied"):
        sealed.read(path)


# Nothing bad is written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_non_finite_weights_are_not_saved(value, dtype, path):
    sealed.write(path, some_arrays(), VALUES)
    bad = np.ones(1000, dtype)
    bad[777] = value
    with pytest.raises(NonFiniteLossError, match=r"params/fc\.w holds NaN or infinity"):
        sealed.write(path, {"params/fc.w": bad}, VALUES)
    assert_equal(sealed.read(path)[0], some_arrays())
    assert names(path.parent) == [path.name]


@pytest.mark.parametrize("dtype", ["bool", "complex64", "object", "U3", ">f4"])
def test_types_that_would_not_come_back_are_refused(dtype, path):
    with pytest.raises(CheckpointWriteError, match=r"a cannot be saved"):
        sealed.write(path, {"a": np.zeros(2, dtype)}, {})


def test_values_that_json_does_not_hold_are_refused(path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        sealed.write(path, {}, {"loss": float("nan")})


def test_a_checkpoint_is_private_until_complete_and_then_has_the_usual_permissions(monkeypatch, path):
    seen = []
    real = os.write

    def watched(descriptor, piece):
        seen.append(os.fstat(descriptor).st_mode & 0o777)
        return real(descriptor, piece)

    monkeypatch.setattr(durable.os, "write", watched)
    mask = os.umask(0o027)
    try:
        sealed.write(path, some_arrays(), VALUES)
    finally:
        os.umask(mask)
    assert seen == [0o600]
    assert path.stat().st_mode & 0o777 == 0o640


# The order of the system's calls ------------------------------------------------------------------------------------


class Calls:
    """The os module as durable.py sees it, with a record of the calls and a fault to inject at one of them."""

    def __init__(self, fail_at: int | None = None, code: int = errno.ENOSPC, short: int | None = None) -> None:
        self.trace: list[str] = []
        self.names: dict[int, str] = {}
        self.fail_at, self.code, self.short = fail_at, code, short

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in ("open", "write", "read", "fchmod", "fsync", "replace", "close"):
            return real

        def call(*arguments, **keywords):
            if len(self.trace) == self.fail_at:
                self.trace.append(f"{name} fails")
                if name == "close":
                    real(*arguments)
                raise OSError(self.code, os.strerror(self.code))
            if name == "write" and self.short:
                arguments = (arguments[0], arguments[1][: self.short])
            result = real(*arguments, **keywords)
            if name == "open":
                self.names[result] = "folder" if Path(arguments[0]).is_dir() else "file"
            what = self.names.get(arguments[0], "") if name in ("write", "read", "fsync", "close") else ""
            self.trace.append(f"{name} {what}".strip())
            return result

        return call


def test_the_disk_has_everything_before_anyone_sees_it(monkeypatch, path):
    calls = Calls(short=500)
    monkeypatch.setattr(durable, "os", calls)
    sealed.write(path, some_arrays(), VALUES)
    order = [call for i, call in enumerate(calls.trace) if i == 0 or calls.trace[i - 1] != call]
    assert order == [
        "open", "write file", "fchmod", "fsync file", "close file",
        "open", "read file", "close file",
        "replace",
        "open", "fsync folder", "close folder",
    ]  # fmt: skip
    monkeypatch.undo()
    assert_equal(sealed.read(path)[0], some_arrays())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_disk_that_fails_at_any_call_costs_nothing(code, monkeypatch, path):
    """Every call of a save in turn, in small writes: about 40 points, 160 with the four errors."""
    sealed.write(path, {"old": np.ones(3)}, {})
    old = path.read_bytes()
    points = 0
    while True:
        calls = Calls(fail_at=points, code=code, short=100)
        monkeypatch.setattr(durable, "os", calls)
        failed = ""
        try:
            sealed.write(path, some_arrays(), VALUES)
        except CheckpointWriteError as error:
            failed = str(error)
        seen = path.read_bytes()
        sealed.decode(seen, "x")
        assert names(path.parent) == [path.name]
        if not failed:
            break
        replaced = "replace" in calls.trace
        assert str(path) in failed
        assert (seen == old) != replaced
        assert ("untouched" in failed) != replaced
        path.write_bytes(old)
        points += 1
    assert points > 30
    assert_equal(sealed.read(path)[0], some_arrays())


def test_a_disk_that_forgets_is_noticed(monkeypatch, path):
    sealed.write(path, {"old": np.ones(3)}, {})
    real = os.fsync

    def forgetful(descriptor):
        os.ftruncate(descriptor, 200)
        real(descriptor)

    monkeypatch.setattr(durable.os, "fsync", forgetful)
    with pytest.raises(CheckpointWriteError, match="fewer bytes than were written"):
        sealed.write(path, some_arrays(), VALUES)
    monkeypatch.undo()
    assert_equal(sealed.read(path)[0], {"old": np.ones(3)})


def test_an_interrupted_save_leaves_no_temporary(monkeypatch, path):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(durable.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sealed.write(path, some_arrays(), VALUES)
    assert names(path.parent) == []


def test_a_file_system_without_folder_flush_is_accepted(monkeypatch, path):
    calls = []
    real = os.fsync

    def picky(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(durable.os, "fsync", picky)
    sealed.write(path, some_arrays(), VALUES)
    assert len(calls) == 2


# kill -9 and limits, in processes of their own ----------------------------------------------------------------------


def harness(mode: str, folder: Path) -> dict:
    """Run tests/checkpoint_killer.py, which forks the processes that are killed, and return what it saw."""
    run = subprocess.run(
        [sys.executable, "-W", "error", HARNESS, mode, folder],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_kill_9_at_random_moments_loses_nothing(tmp_path):
    seen = harness("random", tmp_path)
    assert seen["kills"] == 80
    assert seen["problems"] == []
    assert seen["leftovers_after_cleaning"] == []


def test_kill_9_before_and_after_every_system_call_loses_nothing(tmp_path):
    seen = harness("points", tmp_path)
    assert seen["kills"] >= 40
    assert seen["problems"] == []
    assert seen["stale"] > 10  # most points lie between making the temporary and renaming it
    assert seen["leftovers_after_cleaning"] == []


def test_a_file_size_limit_is_a_clear_error(tmp_path):
    seen = harness("limit", tmp_path)
    assert seen["error"] == "CheckpointWriteError"
    assert "File too large" in seen["message"]
    assert seen["problems"] == []
    assert seen["leftovers_before_cleaning"] == []


# Files that grow ----------------------------------------------------------------------------------------------------


def test_what_is_added_comes_after_what_was_there(tmp_path, monkeypatch):
    flushed = []
    real = os.fsync
    monkeypatch.setattr(durable.os, "fsync", lambda descriptor: flushed.append(None) or real(descriptor))
    durable.append(tmp_path / "a", b"one\n")
    durable.append(tmp_path / "a", b"two\n", flush=False)
    assert (tmp_path / "a").read_bytes() == b"one\ntwo\n"
    assert len(flushed) == 1


def test_what_cannot_be_added_or_removed_is_named(tmp_path, monkeypatch):
    with pytest.raises(CheckpointWriteError, match=r"none.a could not be written \(No such file"):
        durable.append(tmp_path / "none" / "a", b"one")
    (tmp_path / "a").write_bytes(b"one")

    def refuses(self):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuses)
    with pytest.raises(CheckpointWriteError, match=r"could not be cleared of a \(Permission denied\)"):
        durable.remove(tmp_path / "b", tmp_path / "a")


def test_removing_is_flushed_and_what_is_not_there_is_no_matter(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(durable, "flush_folder", flushed.append)
    durable.remove(tmp_path / "a")
    assert flushed == []
    (tmp_path / "a").write_bytes(b"one")
    durable.remove(tmp_path / "a", tmp_path / "b")
    assert (names(tmp_path), flushed) == ([], [tmp_path])
