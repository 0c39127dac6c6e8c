"""Every loader of the package against files made to do harm: no code is run, and reading ends, with a named error."""

import ast
import contextlib
import gzip
import io
import json
import os
import pickle
import re
import signal
import stat
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest
import tiny_cifar10 as tiny
from hostile_files import LOADERS, Payload, as_npy, as_npz, as_pickle, as_torch, opened, written
from interrupt import watched

import gpuconv
from gpuconv import bounded, checks, contents, nn
from gpuconv.cli import main
from gpuconv.compat import data_utils
from gpuconv.errors import ArgTypeError, ConfigError, DatasetCorruptError, GpuconvError, ParamError, UnsafeArchiveError
from gpuconv.runs import settings

PACKAGE = Path(gpuconv.__file__).parent


@pytest.fixture(autouse=True)
def _no_hang():
    if not hasattr(signal, "SIGALRM"):
        yield
        return
    with watched(60):
        yield


# Code ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [as_pickle, as_npz, as_npy, as_torch])
@pytest.mark.parametrize(("name", "loader"), LOADERS.values(), ids=LOADERS.keys())
def test_no_loader_runs_code(tmp_path, monkeypatch, name, loader, content):
    monkeypatch.chdir(tmp_path)
    sentinel = tmp_path / "sentinel"
    path = written(tmp_path / "in" / name, content(Payload(sentinel)))
    with contextlib.suppress(GpuconvError, OSError, ValueError):
        loader(path)
    assert not sentinel.exists()


def test_the_payload_would_run(tmp_path):
    sentinel = tmp_path / "sentinel"
    pickle.loads(as_pickle(Payload(sentinel)))
    assert sentinel.exists()


def test_nothing_in_the_package_unpickles_or_evaluates():
    """Four places run files of Python, as they say: a user's net, a module just exported, what a student wrote, a program
    that python -m gpuconv.cudnn is to run.

    The one unpickler of other people's files is that of data/pickles.py, which is handed checked programs alone.  Machine
    code that this user has compiled before comes with a pickle of Numba's: cpu/loops/cache.py reads no other user's.
    What processes of one run tell each other by MPI are pickles of their own.
    """
    found = set()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if not re.search(r"pickle|eval|exec|run_path|run_module|np\.load", text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
                found.add((path.name, "allow_pickle"))
            if isinstance(node, ast.ClassDef) and any("Unpickler" in ast.unparse(base) for base in node.bases):
                found.add((path.name, node.name))
            if not isinstance(node, ast.Call):
                continue
            words = ast.unparse(node.func).split(".")
            harmful = {"Unpickler", "eval", "exec", "run_path", "run_module", "exec_module"}
            if words[-1] in harmful or (words[0] == "pickle" and words[-1] in ("load", "loads")):
                found.add((path.name, words[-1]))
            said = [keyword.arg for keyword in node.keywords]
            if words == ["np", "load"] and "allow_pickle" not in said:
                found.add((path.name, "np.load"))
    assert found == {
        ("processes.py", "loads"),
        ("spec.py", "run_path"),
        ("__main__.py", "run_path"),
        ("check.py", "exec_module"),
        ("modules.py", "exec"),
        ("pickles.py", "_Unpickler"),
        ("cache.py", "loads"),
    }


def test_shared_parts_of_a_pickle_are_read_once(tmp_path):
    """Forty lists, each of them twice in the next, are a few hundred bytes and 2^40 lists."""
    nested = []
    for _ in range(40):
        nested = [nested, nested]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(nested))
    found = opened(tmp_path / "a.pkl")
    assert found[0] is found[1]


def test_class_names_of_imagenet_that_are_no_plain_data_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet_val_25.npz").write_bytes(as_npz(Payload(tmp_path / "sentinel")))
    with pytest.raises(GpuconvError, match=r"imagenet_val_25\.npz"):
        data_utils.load_imagenet_val()
    np.savez(
        tmp_path / "imagenet_val_25.npz",
        X=np.zeros(1),
        y=np.zeros(1),
        label_map=np.array({1: Payload(tmp_path / "sentinel")}, object),
    )
    with pytest.raises(UnsafeArchiveError, match=r"it names posix\.system; nothing of it was run"):
        data_utils.load_imagenet_val()


# Time, depth and size -----------------------------------------------------------------------------------------------


def _with_pax_header(field, size):
    """Return an archive whose first member has an extended header of so many digits."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as packed:
        digits = b"1" * size
        info = tarfile.TarInfo("x")
        info.type, info.size = field, len(digits)
        packed.write(info.tobuf(tarfile.USTAR_FORMAT) + digits + bytes(-len(digits) % 512) + bytes(1024))
    return file.getvalue()


@pytest.mark.parametrize("size", [5_000, 300_000])
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_long_headers_of_an_archive_are_refused_before_they_are_taken_apart(tmp_path, kind, size):
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(_with_pax_header(kind, size))
    with pytest.raises(UnsafeArchiveError, match=r"has a header of [\d,]+ bytes .* expected 4,096 at most"):
        tiny.read(path)


def test_many_headers_of_an_archive_are_refused(tmp_path):
    path = tmp_path / "cifar-10-python.tar.gz"
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 3000
    block = info.tobuf(tarfile.USTAR_FORMAT) + b"11 a=12345\n" * 272 + bytes(8 + 72)
    path.write_bytes(gzip.compress(block * 200))
    with pytest.raises((UnsafeArchiveError, DatasetCorruptError)):
        tiny.read(path)


NETS = {
    "repeat": ('[[layer]]\nkind = "relu"\nrepeat = 1000000000\n', "repeat must be at most 5000, got 1000000000"),
    "repeat_of_digits": (
        '[[layer]]\nkind = "relu"\nrepeat = 0x' + "f" * 6000,
        "repeat must be at most 5000, got an int",
    ),
    "repeat_in_repeat": (
        '[[layer]]\nkind = "sequential"\nrepeat = 5000\n[[layer.body]]\nkind = "relu"\nrepeat = 5000\n',
        "more than 5000 layers",
    ),
    "residuals": (
        "".join(f'[[layer{".body" * i}]]\nkind = "residual"\n' for i in range(200))
        + f'[[layer{".body" * 200}]]\nkind = "relu"\n',
        "deep",
    ),
    "residuals_that_toml_bears": (
        "".join(f'[[layer{".body" * i}]]\nkind = "residual"\n' for i in range(40))
        + f'[[layer{".body" * 40}]]\nkind = "relu"\n',
        "layers lie more than 32 deep inside each other",
    ),
    "brackets": ("a = " + "[" * 2000, "nested more than 100 levels deep"),
    "brackets_closed": ("a = " + "[" * 150 + "]" * 150, "nested more than 100 levels deep"),
    "digits": ('[[layer]]\nkind = "conv"\nfilters = ' + "1" * 5000, "is not TOML"),
    "hex_digits": ('[[layer]]\nkind = "conv"\nfilters = 0x' + "1" * 5000, "filters|an int of|out_channels"),
    "long": ("#" * (1 << 20) + "\n", "longer than 1,048,576 bytes"),
    "no_text": (b"\xff\xfe\0", "has the byte-order mark of UTF-16 and is not text in it"),
    "memory": ('[[layer]]\nkind = "affine"\nunits = 2147483647\n', "memory|gives one sample|too"),
}


@pytest.mark.parametrize(("content", "message"), NETS.values(), ids=NETS.keys())
def test_a_file_of_a_net_is_read_within_bounds(tmp_path, content, message):
    path = tmp_path / "net.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=message) as caught:
        nn.from_file(path, input_shape=(3, 8, 8), classes=2)
    assert str(path) in str(caught.value)


CONFIGS = {
    "a_large_number": ("lr = 1" + "0" * 400, "lr must be finite"),
    "digits": ("epochs = " + "1" * 5000, "is not TOML"),
    "hex_digits": (
        "epochs = 0x" + "1" * 5000,
        "epochs must be an int from 1 to 2.31 - 1, got epochs=an int of 19997 bits",
    ),
    "brackets": ("lr = " + "[" * 2000, "nested more than 100 levels deep"),
    "iterations": ("muon_iterations = 1000000000", "must be an int from 1 to 100, got muon_iterations=1000000000"),
    "long": ("#" * (1 << 20) + "\n", "longer than 1,048,576 bytes"),
}


@pytest.mark.parametrize(("content", "message"), CONFIGS.values(), ids=CONFIGS.keys())
def test_a_file_of_settings_is_read_within_bounds(tmp_path, content, message):
    path = tmp_path / "config.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        settings.read(path)
    assert str(path) in str(caught.value)


def test_iterations_of_muon_are_bounded_on_the_command_line_and_in_python(capsys):
    assert main(["train", "--data", "shapes", "--optimizer", "muon", "--muon-iterations", "1000000000"]) == 2
    assert "from 1 to 100" in capsys.readouterr().err
    net = nn.Net(nn.Affine(4, 2), (4,))
    with pytest.raises(ParamError, match="iterations must be an int from 1 to 100"):
        nn.Muon(net, iterations=101)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
@pytest.mark.parametrize(("name", "loader"), LOADERS.values(), ids=LOADERS.keys())
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, monkeypatch, name, loader):
    if name == "a.pkl":
        pytest.skip("the caller opens the file, or reads it")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "in" / name
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with contextlib.suppress(GpuconvError, OSError):
        loader(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_in_the_place_of_a_batch_is_named(tmp_path):
    os.mkfifo(tmp_path / "data_batch_1")
    with pytest.raises(DatasetCorruptError, match=r"data_batch_1 is not a plain file"):
        data_utils.load_CIFAR_batch(tmp_path / "data_batch_1")
    with pytest.raises(OSError, match="it is not a plain file"):
        contents.head(tmp_path / "data_batch_1")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_on_the_command_line_is_named(tmp_path, capsys):
    path = tmp_path / "a.toml"
    os.mkfifo(path)
    assert main(["train", "--data", "shapes", "--config", str(path), "--run-dir", str(tmp_path / "run")]) == 2
    assert "it is not a plain file" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"a\.toml: it could not be read \(it is not a plain file"):
        nn.from_file(path, input_shape=(3, 8, 8), classes=2)


@pytest.mark.parametrize("where", ["when it is run", "in net(input_shape, classes)"])
@pytest.mark.parametrize(
    ("line", "kind"),
    {
        "import sys; sys.exit(0)": "SystemExit",
        "raise SystemExit": "SystemExit",
        "raise KeyboardInterrupt": "KeyboardInterrupt",
        "raise GeneratorExit": "GeneratorExit",
        "f = lambda: f(); f()": "RecursionError",
        "import no_such_module": "ModuleNotFoundError",
        "raise type('Own', (BaseException,), {})": "Own",
    }.items(),
)
def test_a_net_that_ends_python_is_an_error_of_its_file(tmp_path, line, kind, where):
    path = tmp_path / "net.py"
    path.write_text(f"{line}\n" if where == "when it is run" else f"def net(*_):\n    global f\n    {line}\n")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ConfigError, match=rf"net\.py: {kind} {re.escape(where)}"):
        nn.from_file(path, input_shape=(3, 8, 8), classes=2)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_in_a_file_of_a_net_is_no_error_of_the_file(tmp_path):
    path = tmp_path / "net.py"
    path.write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    with pytest.raises(KeyboardInterrupt):
        nn.from_file(path, input_shape=(3, 8, 8), classes=2)


def test_nested_configs_of_nets_are_refused_by_name():
    layer = {"layer": "Relu"}
    for _ in range(2000):
        layer = {"layer": "Sequential", "layers": [["a", layer]]}
    with pytest.raises(ConfigError, match="too deep"):
        nn.build({"net": "Net", "body": layer, "input_shape": [3, 8, 8]})


def test_texts_and_files_are_bounded(tmp_path):
    with pytest.raises(ValueError, match="nested more than 100 levels deep"):
        bounded.from_json("[" * 100_000)
    assert bounded.from_json(json.dumps({"a": [1]})) == {"a": [1]}
    (tmp_path / "a").write_bytes(b"12345")
    assert bounded.read(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="longer than 4 bytes"):
        bounded.read(tmp_path / "a", 4)
    with pytest.raises(OSError, match="not a plain file"):
        bounded.read("/dev/zero", 4)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"12345")
    looked_at = types.SimpleNamespace(st_mode=stat.S_IFREG, st_size=4)
    monkeypatch.setattr(bounded.os, "fstat", lambda descriptor: looked_at)
    with pytest.raises(OSError, match="it grows while it is read"):
        bounded.read(tmp_path / "a", 5)
    with pytest.raises(OSError, match="it is longer than 4 bytes"):
        bounded.read(tmp_path / "a", 4)


@pytest.mark.parametrize(
    ("value", "kind"),
    [(10**400, ParamError), (np.complex64(1 + 1j), ArgTypeError), (np.array("x"), ArgTypeError)],
    ids=["beyond_floats", "complex", "text_in_an_array"],
)
def test_numbers_that_are_none_are_named(value, kind):
    with pytest.raises(kind, match="lr must be"):
        checks.real("lr", value, low=0.0)


def test_whole_numbers_of_thousands_of_digits_are_named():
    with pytest.raises(ParamError, match=r"n must be an int from 0 to .*, got n=an int of"):
        checks.integer("n", 10**5000, least=0)
