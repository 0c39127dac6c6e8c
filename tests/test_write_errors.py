"""What cannot be read or written, names and folders of users: named errors with their exit codes, and nothing left behind."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from train_helpers import change, go, shapes

from gpuconv import cli, data, durable, train
from gpuconv.cli import parser
from gpuconv.errors import CheckpointWriteError, ConfigError

LONG = "n" * 300
SMALL = (
    "--max-steps",
    1,
    "--validation",
    20,
    "--train-images",
    40,
    "--test-images",
    20,
    "--batch-size",
    20,
    "--widths",
    2,
)
LOAD = data.load
ROOT = Path(__file__).parent.parent


@pytest.fixture
def gpuconv(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder on a small data set; return (exit code, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "load", lambda name, **_: shapes())

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        return code, capsys.readouterr().err

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "one"
    go(change(epochs=1, max_steps=1, train_images=20, test_images=20, validation=20, widths=(2,)), folder)
    return folder


# Names ----------------------------------------------------------------------------------------------------------------


def test_a_file_may_have_the_longest_name_that_there_is(tmp_path):
    for name in ("n" * 255, "\N{SNOWMAN}" * 85):
        durable.write(tmp_path / name, b"content")
        assert (tmp_path / name).read_bytes() == b"content"


def test_a_name_that_is_too_long_to_be_written_is_named(tmp_path):
    with pytest.raises(CheckpointWriteError, match=r"could not be written .File name too long"):
        durable.write(tmp_path / LONG, b"content")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointWriteError, match=r"could not be written .Not a directory"):
        durable.write(tmp_path / "file" / "name", b"content")


def _path_arguments():
    """Yield a command line for each argument that takes a path, with a name too long in it."""
    good = {"run_path": "run", "file": "a.safetensors", "output": "b.safetensors", "net": "run", "folder": "run"}
    for name, command in cli._parser()._actions[-1].choices.items():
        todo = [(name, command)]
        for action in command._actions:
            if hasattr(action, "choices") and isinstance(action.choices, dict):
                todo += [(f"{name} {inner}", of) for inner, of in action.choices.items()]
        for words, of in todo:
            taking = [action for action in of._actions if action.type is parser.named_path]
            for long in taking:
                line = words.split()
                for action in of._actions:
                    if not (action is long or action.required):
                        continue
                    value = LONG if action is long else good.get(action.dest, "onnx")
                    line += [*action.option_strings[:1], value]
                yield line


@pytest.mark.parametrize("arguments", [*_path_arguments()], ids=" ".join)
def test_a_path_too_long_for_any_file_system_is_a_wrong_argument(arguments, gpuconv):
    code, err = gpuconv(*arguments)
    assert (code, "has a name of 300 bytes in it, and file systems take 255" in err) == (2, True), err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--name", "n" * 250),
        ("--name", LONG),
        ("--data-dir", LONG),
        ("--data", f"./{LONG}"),
        ("--data", LONG),
        ("--net", f"{LONG}.toml"),
        ("--net", f"{LONG}.py"),
        ("--run-dir", "a/" * 3000),
    ],
    ids=lambda a: f"{a[0]} {len(a[1])} {a[1][-3:]}",
)
def test_long_names_of_settings_are_wrong_settings(arguments, gpuconv, tmp_path, monkeypatch):
    if "--data" in arguments:
        monkeypatch.setattr(data, "load", LOAD)
    code, err = gpuconv(
        "train",
        *SMALL,
        *arguments,
        *(() if "--data" in arguments else ("--data", "shapes")),
    )
    if arguments == ("--name", "n" * 250):
        assert code == 0, err
        return
    assert (code, len(err.splitlines())) == (2, 1) or "shows what there is" in err, err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# Reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["train --resume", "eval", "plot", "export --to onnx", "compare"])
def test_a_run_folder_that_must_not_be_read_is_named(command, gpuconv, finished, monkeypatch):
    """As root reads every folder, the system's answer to others is put in its place."""
    real = os.stat

    def refuse(path, *arguments, **named):
        if isinstance(path, (str, os.PathLike)) and Path(path).parent == finished:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "stat", refuse)
    code, err = gpuconv(*command.split(), finished, *([finished] if command == "compare" else []))
    assert code == 2, err
    assert str(finished) in err
    assert "Permission denied" in err
    with pytest.raises(ConfigError, match=r"could not be read .Permission denied"):
        train.Run(finished)
    with pytest.raises(ConfigError, match=r"could not be read .Permission denied"):
        train.load_net(finished / "last.safetensors")


# A full disk ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_exits_with_4(gpuconv, monkeypatch):
    real = os.write

    def full(descriptor, content):
        if len(content) > 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, content)

    monkeypatch.setattr(os, "write", full)
    code, err = gpuconv("train", "--data", "shapes", *SMALL, "--run-dir", "run")
    assert code == 4
    assert "could not be written (No space left on device)" in err
    assert not list(Path("run").glob(".*.part"))
    assert "  4  " in parser.EXIT_CODES


def test_a_full_disk_of_what_others_write_exits_with_4():
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    arguments = cli._parser().parse_args(["doctor"])
    arguments.run = full
    assert cli._run(arguments) == 4


# Ctrl-C before, behind and around a command ---------------------------------------------------------------------------

INTERRUPT = "__import__('signal').raise_signal(2)"
SCRIPT = """import sys
from gpuconv.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""
WAYS = {"module": ["-m", "gpuconv"], "script": ["bin/gpuconv"]}


def start(folder, *arguments, script=SCRIPT, wrapper=()):
    """Run Python in a folder whose modules come before all others, with the command's script in its bin."""
    (folder / "bin").mkdir()
    (folder / "bin/gpuconv").write_text(script)
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    command = [*wrapper, sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=100
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("module", ["signal", "__future__", "typing", "numpy", "argparse", "safetensors"])
def test_ctrl_c_while_the_command_line_is_imported_has_no_traceback(tmp_path, module, way):
    # What stands in for the module signal cannot send one.
    (tmp_path / f"{module}.py").write_text("raise KeyboardInterrupt\n" if module == "signal" else INTERRUPT)
    done = start(tmp_path, *WAYS[way], "train", "--dry-run", "--data", "shapes")
    assert done.returncode == 130, done.stderr
    assert done.stderr in ("", "gpuconv: stopped at once\n")


MOMENTS = {
    "when_main_is_about_to_begin": ("main = lambda: INTERRUPT", ""),
    "inside": ("from gpuconv import cli; cli._main = lambda argv: INTERRUPT", "gpuconv: stopped at once\n"),
    "inside_where_nothing_can_be_raised": (
        "from gpuconv import cli; T = type('T', (), {'__del__': lambda self: INTERRUPT}); cli._main = lambda argv: T() and 0",
        "",
    ),
    "twice": (
        "from gpuconv import cli; cli._main = lambda argv: INTERRUPT; cli._say = lambda text: INTERRUPT",
        "",
    ),
    "when_main_is_done": ("done = main(); main = lambda: INTERRUPT or done", ""),
    "while_python_ends": ("import atexit; atexit.register(lambda: INTERRUPT)", ""),
}


@pytest.mark.parametrize(("line", "complaint"), MOMENTS.values(), ids=MOMENTS)
def test_ctrl_c_around_a_command_has_no_traceback(tmp_path, line, complaint):
    script = SCRIPT.replace("if __name__", f"{line.replace('INTERRUPT', INTERRUPT)}\nif __name__")
    done = start(tmp_path, "bin/gpuconv", "--version", script=script)
    assert (done.returncode, done.stderr) == (130, complaint)


@pytest.mark.skipif(os.name == "nt", reason="no shell that ignores a signal")
def test_ctrl_c_that_is_ignored_stays_so(tmp_path):
    """As in a job of a script's background."""
    (tmp_path / "argparse.py").write_text(f"{INTERRUPT}\nimport sys\nsys.exit(7)\n")
    done = start(tmp_path, "bin/gpuconv", wrapper=["sh", "-c", "trap '' INT; exec \"$@\"", "sh"])
    assert (done.returncode, done.stderr) == (7, "")


def test_ctrl_c_in_a_program_that_imports_gpuconv_is_its_own(tmp_path):
    (tmp_path / "numpy.py").write_text(INTERRUPT)
    done = start(tmp_path, "-c", "import gpuconv")
    assert done.returncode != 130
    assert "KeyboardInterrupt" in done.stderr


def test_ctrl_c_while_the_parser_is_made_exits_with_130(gpuconv, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_parser", interrupt)
    assert gpuconv("train") == (130, "gpuconv: stopped at once\n")
