"""Every command in the project's Markdown is run as it stands, but for its length; or, where that cannot be, read by its parser."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import doc_files
import numpy as np
import pytest
import tiny_cifar10 as tiny
from doc_files import PAGES, ROOT

import gpuconv
from gpuconv import cli
from gpuconv.data import cifar10
from gpuconv.train import Stepper

# What is not run here, by a pattern of the beginning of a command, and why; all of it is parsed.
APART = {
    r"python3 -m venv ": "makes an environment",
    r"\. \.venv/bin/activate": "is of the shell that it is typed in",
    r"pip install ": "asks an index of packages",
    r"make ": "installs, and takes minutes; CI runs them",
    r"ruff ": "is run by make style",
    r"nvidia-smi": "comes with a GPU's driver",
    r"mpiexec ": "starts processes: test_processes.py",
    r"srun ": "starts the processes of a cluster",
    r"pytest ": "takes minutes; CI runs it with --benchmark-disable",
    r"python -m pytest ": "runs tests",
    r"python -m tests\.ladder\.": "takes minutes; test_kernel_counters.py, test_kernels_compile.py, test_mutation.py try parts of it",
    r"python -m tests\.cupy_emulated ": "takes minutes, by real CuPy: make cupy",
    r"python3 -m tests\.ladder\.gpu_run ": "needs a GPU; test_gpu_run.py",
    r"python -m bench\.readme": "measures for an hour; test_bench_report.py",
    r"python -m bench\.report( FILE|$)": "writes files of the project, or wants results of one's own; test_bench_report.py",
    r"gpuconv bench(?! --list)": "measures for minutes; test_bench_harness.py, test_bench_scaling.py",
    r"gpuconv train --precision bfloat16": "needs a GPU; test_mixed_precision.py",
    r"gpuconv train --data cifar100": "downloads; test_data_cifar100.py",
    r"gpuconv data get": "downloads; test_data_download.py",
}
COMMANDS = sorted({(command, page) for page in PAGES for command in doc_files.commands(page)})
_SMALL = ("--widths", "4", "--train-images", "60", "--test-images", "20", "--validation", "20", "--batch-size", "20")


def _apart(command):
    return any(re.match(start, command) for start in APART)


# Parsed -----------------------------------------------------------------------------------------------------------------


def _words(command):
    """Return the words of a command behind settings of the environment."""
    words = shlex.split(command.replace("_F.", "_relu."))
    return words[next(i for i, word in enumerate(words) if not re.fullmatch(r"[A-Z_]+=.*", word)) :]


def _extras(text):
    return [extra for names in re.findall(r"\[([\w,]+)\]", text) for extra in names.split(",")]


def _check_module(module, arguments):
    """Check that a module of the project can be run, and knows the flags."""
    if module in ("pytest", "venv"):
        assert all((ROOT / name).exists() for name in arguments if name.startswith(("tests/", "bench")))
        return
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    if module == "tests.cupy_emulated" and arguments[0] == "-m":
        _check_module(arguments[1], arguments[2:])
        return
    main = importlib.util.find_spec(f"{module}.__main__") if spec.submodule_search_locations else spec
    text = Path(main.origin).read_text(encoding="utf-8")
    missing = [flag for flag in arguments if flag.startswith("--") and f'"{flag}"' not in text]
    assert missing == []


def _check(command):
    """Check that whoever is given a command would understand it."""
    program, *arguments = _words(command)
    if program in ("mpiexec", "srun"):
        at = arguments.index("gpuconv")
        assert arguments[at - 4 : at] == ["python", "-m", "mpi4py", "-m"]
        program, arguments = "gpuconv", arguments[at + 1 :]
    if program == "gpuconv":
        cli._parser().parse_args(arguments)
    elif program in ("python", "python3"):
        assert arguments[0] == "-m"
        _check_module(arguments[1], arguments[2:])
    elif program == "pytest":
        _check_module("pytest", arguments)
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert set(_extras(command)) <= project["optional-dependencies"].keys()
        assert "gpuconv[" not in command, "the package is on no index"
        assert not command.endswith(".whl") or f"gpuconv-{project['version']}-py3" in command
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(VENV)", ".venv")
        targets = re.findall(r"^([\w./%-]+):", makefile, flags=re.MULTILINE)
        for name in (word for word in arguments if "=" not in word):
            assert any(re.fullmatch(target.replace("%", ".+"), name) for target in targets), name
    else:
        assert program in (".", "ruff", "nvidia-smi")


@pytest.mark.parametrize(("command", "page"), COMMANDS)
def test_commands_are_understood(command, page, capsys):
    _check(command)


@pytest.mark.parametrize(
    "command",
    [
        "gpuconv trian",
        "gpuconv train --batchsize 3",
        "mpiexec -n 2 python -m mpi4py -m gpuconv train --presets vgg",
        "python -m tests.ladder.kernel_counts",
        "python -m tests.ladder.kernel_resources --onyl relu",
        "pip install -e '.[qick]'",
        "pip install 'gpuconv[fast]'",
        "make doc",
        "pytest tests/test_nothing.py",
        "conda activate",
    ],
)
def test_a_command_that_is_none_is_seen(command, capsys):
    with pytest.raises((AssertionError, SystemExit, ModuleNotFoundError)):
        _check(command)


def test_every_reason_is_that_of_a_command():
    commands = [command for command, _ in COMMANDS]
    assert [start for start in APART if not any(re.match(start, command) for command in commands)] == []


def _named():
    """Return the commands of gpuconv that stand in sentences."""
    for page in PAGES:
        for text in doc_files.in_sentences(page):
            if text.startswith("gpuconv ") and not text.startswith("gpuconv-"):
                yield page, text


@pytest.mark.parametrize(("page", "text"), sorted(set(_named())))
def test_commands_in_sentences_have_their_flags(page, text):
    parser, words = cli._parser(), shlex.split(text.rstrip("."))[1:]
    while words and (choices := _choices(parser)):
        if words[0] in ("COMMAND", "RUN"):
            return
        assert words[0] in choices, text
        parser, words = choices[words[0]], words[1:]
    flags = [word.partition("=")[0] for word in re.split(r"[ |]", " ".join(words)) if word.startswith("--")]
    assert [flag for flag in flags if flag not in parser._option_string_actions] == []


def _choices(parser):
    return next((action.choices for action in parser._actions if isinstance(action.choices, dict)), None)


# Run --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with what the commands name: two runs, pictures, a net's file, weights, a script."""
    folder = tmp_path_factory.mktemp("prepared")
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    rng = np.random.default_rng(5)
    for name, colour in (("cat", 60), ("dog", 180)):
        (folder / "pets" / name).mkdir(parents=True)
        for number in range(30):
            pixels = (colour + rng.integers(0, 60, (32, 32, 3))).astype(np.uint8)
            image.fromarray(pixels).save(folder / "pets" / name / f"{number}.png")
    shutil.copy(folder / "pets/cat/0.png", folder / "cat.jpg")
    (folder / "my_net.toml").write_text(doc_files.nets("docs/nets.md")["my_net.toml"])
    (folder / "script.py").write_text("from cupy import cudnn\nprint(cudnn.convolution_forward)\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small = ("--data", "shapes", "--epochs", "2", "--progress", "none", *_SMALL)
        for name in ("convnet-1", "vgg-1"):
            assert cli.main(["train", "--run-dir", f"runs/{name}", *small]) == 0
        assert (
            cli.main(
                ["train", "--run-dir", "runs/convnet-sweep-1", "--sweep", "lr=0.03,0.1", *small, "--max-steps", "1"]
            )
            == 0
        )
        assert cli.main(["export", "runs/convnet-1", "--to", "torch", "-o", "net_torch.safetensors", "--no-check"]) == 0
        argv = ["import", "net_torch.safetensors", "--net", "runs/convnet-1", "-o", "mine.safetensors"]
        assert cli.main(argv) == 0
        real, steps = Stepper.step, []

        def stopped(self, *arguments):
            steps.append(None)
            if len(steps) == 2:
                signal.raise_signal(signal.SIGINT)
            return real(self, *arguments)

        patch.setattr(Stepper, "step", stopped)
        assert cli.main(["train", "--run-dir", "stopped", *small]) == 130
    return folder


def _shorter(words):
    """Return the words of a training with flags that make it short."""
    if "--resume" in words:
        return words
    if words[0] == "find-lr":
        kept = _SMALL[2:] if "--net" in words else _SMALL
        return [*words, *kept, "--steps", "10"]
    if "--dry-run" in words:
        return [*words, "--data", "shapes"]
    if "--overfit" in words or "pets/" in words:
        return [*words, "--max-steps", "1", "--batch-size", "5"]
    own = "--net" in words or "--weights" in words or "--preset" in words
    given = {word for word in words if word.startswith("--")}
    given |= {f"--{word.partition('=')[0]}" for before, word in itertools.pairwise(words) if before == "--sweep"}
    flags = [pair for pair in zip(_SMALL[::2], _SMALL[1::2], strict=True) if pair[0] not in given]
    kept = [word for flag, value in flags if not (own and flag == "--widths") for word in (flag, value)]
    return [*words, *kept, *(("--steps", "10") if "find-lr" in words else ("--max-steps", "1"))]


@pytest.mark.long
@pytest.mark.parametrize("command", sorted({command for command, _ in COMMANDS if not _apart(command)}))
def test_commands_run(command, prepared, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(prepared, tmp_path / "here")
    words = _words(command)
    if "--resume" in words:
        shutil.rmtree(folder / "runs/convnet-1")
        shutil.move(folder / "stopped", folder / "runs/convnet-1")
    if words[:2] == ["gpuconv", "import"]:
        (folder / "mine.safetensors").unlink()
    if words[0] == "python":
        run = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=ROOT if "bench.report" in words else folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return
    assert words[0] == "gpuconv"
    for setting in command.split():
        if "=" in setting and setting.isupper():
            monkeypatch.setenv(*setting.split("="))
    tiny.write_folder(tmp_path / "cifar", tiny.BINARY)
    monkeypatch.setattr(cifar10, "OFFICIAL", tiny.spec())
    monkeypatch.setenv("GPUCONV_DATA", str(tmp_path / "cifar"))
    monkeypatch.chdir(folder)
    words = _shorter(words[1:]) if words[1] in ("train", "find-lr") else words[1:]
    assert cli.main(words) == 0, capsys.readouterr().err


def test_names_of_the_wheel_are_those_of_this_version():
    wheels = [text for page in PAGES for text in re.findall(r"gpuconv-[\d.]+-py3", (ROOT / page).read_text("utf-8"))]
    assert wheels
    assert set(wheels) == {f"gpuconv-{gpuconv.__version__}-py3"}
