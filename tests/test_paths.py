"""Paths as people name them: ~ everywhere, no home folder, names that are both, and runs looked at from another folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_cifar10 as tiny

from gpuconv import cli, data, doctor, train
from gpuconv.cli.parser import named_path
from gpuconv.data import cifar10
from gpuconv.errors import ConfigError, DatasetMissingError
from gpuconv.folders import cache_folder, path_of
from gpuconv.runs import sealed
from gpuconv.runs.config import Config
from gpuconv.runs.settings import read
from gpuconv.train import Run

NET = """\
[[layer]]
kind = "conv"
filters = 2
[[layer]]
kind = "global-average-pool"
[[layer]]
kind = "affine"
"""
QUICK = ("--net", "net.toml", "--epochs", "2", "--batch-size", "4", "--crop", "1", "--progress", "none")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home folder, and a machine without data sets; work is done in another folder.

    The cache stays where it was, for compiled loops lie there.
    """
    monkeypatch.setenv("GPUCONV_CACHE", str(cache_folder()))
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GPUCONV_DATA", raising=False)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


@pytest.fixture
def no_home(monkeypatch):
    """A user without a home folder, as in a container with a user id of its own."""
    pwd = pytest.importorskip("pwd", reason="a system without user ids")
    for name in ("HOME", "XDG_CACHE_HOME", "GPUCONV_CACHE", "GPUCONV_DATA"):
        monkeypatch.delenv(name, raising=False)

    def unknown(user):
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.fixture
def cifar10_folder(tmp_path, monkeypatch):
    """A folder that holds a small set in the place of CIFAR-10."""
    monkeypatch.setattr(cifar10, "OFFICIAL", tiny.spec())
    tiny.write_folder(tmp_path / "cifar", tiny.BINARY)
    return tmp_path / "cifar"


@pytest.fixture
def gpuconv(capsys):
    """Run the command; return (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return call


def draw(folder: Path, *, count: int = 10) -> None:
    """Make a folder of pictures of two classes, light and dark."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    rng = np.random.default_rng(5)
    for name, colour in (("cat", 60), ("dog", 180)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = (colour + rng.integers(0, 60, (8, 8, 3))).astype(np.uint8)
            image.fromarray(pixels).save(folder / name / f"{number}.png")


# ~ and ~user --------------------------------------------------------------------------------------------------------


def test_a_home_folder_takes_the_place_of_the_tilde(home):
    assert [path_of("~"), path_of("~/x"), path_of(Path("~/x"))] == [home, home / "x", home / "x"]
    assert [path_of("x~"), path_of("a/~/x"), path_of("")] == [Path("x~"), Path("a/~/x"), Path()]


def test_a_name_of_ones_own_with_a_tilde_stays_itself(home):
    own = path_of("./~x")
    assert own == Path.cwd() / "~x"
    assert path_of(own) == own


@pytest.mark.parametrize(
    ("name", "missing"), [("~nobody-here/x", "there is no user nobody-here"), ("~nobody-here", "no user nobody-here")]
)
def test_an_unknown_user_is_a_sentence(name, missing):
    with pytest.raises(ConfigError, match=f"^the net {name} cannot be found, for .*{missing}: write it in full"):
        path_of(name, "the net")


def test_no_home_folder_is_a_sentence(no_home):
    with pytest.raises(ConfigError, match=r"^the path ~/x cannot be found, for this user has no home folder: write"):
        path_of("~/x")
    with pytest.raises(ConfigError, match=r"no home folder to keep a cache in: name one by .* GPUCONV_CACHE"):
        cache_folder()


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        inner
        for action in parser._actions
        for inner in (
            [inner for command in set(action.choices.values()) for inner in _actions(command)]
            if isinstance(action, argparse._SubParsersAction)
            else [action]
        )
    ]


def test_every_argument_that_is_a_path_knows_the_tilde():
    """But for those that are texts, settings or --data-dir, which are looked at where they are used."""
    actions = _actions(cli._parser())
    paths = [action for action in actions if action.metavar in ("FILE", "RUN", "CONFIG|RUN", "DIR")]
    assert {action.dest for action in paths if action.type is not named_path} <= set(Config.__dataclass_fields__)
    assert len([action for action in paths if action.type is named_path]) > 10
    assert not [action.dest for action in actions if action.type is Path]


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--data", "~nobody-here/pets"),
        ("train", "--data", "~nobody-here"),
        ("train", "--data-dir", "~nobody-here/cifar"),
        ("train", "--data", "shapes", "--net", "~nobody-here/net.toml"),
        ("train", "--config", "~nobody-here/config.toml"),
        ("train", "--resume", "~nobody-here/run"),
        ("train", "--data", "shapes", "--run-dir", "~nobody-here/run"),
        ("eval", "~nobody-here/run"),
        ("plot", "~nobody-here/run"),
        ("compare", "~nobody-here/run", "run"),
        ("export", "~nobody-here/run", "--to", "onnx"),
        ("import", "~nobody-here/w.safetensors", "--net", "run", "-o", "x.safetensors"),
        ("data", "show", "~nobody-here/pets"),
        ("data", "show", "shapes", "--save", "~nobody-here/x.png"),
        ("data", "get", "--data-dir", "~nobody-here"),
        ("data", "verify", "--data-dir", "~nobody-here"),
        ("bench", "--save", "~nobody-here/x.json"),
    ],
)
def test_every_command_says_that_there_is_no_such_user(arguments, home, gpuconv):
    code, _, err = gpuconv(*arguments)
    assert (code, err.count("there is no user nobody-here")) == (2, 1)
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("variable", ["GPUCONV_DATA", "GPUCONV_CACHE"])
def test_variables_are_paths_like_others(variable, home, gpuconv, monkeypatch):
    monkeypatch.setenv(variable, "~nobody-here/c")
    assert gpuconv("data", "verify")[0] == 2
    (cifar,) = [finding for finding in doctor.examine() if finding.name == "CIFAR-10"]
    assert not cifar.ok
    assert "no user nobody-here" in cifar.value


def test_a_missing_folder_is_told_without_a_home(no_home, tmp_path):
    """Where CIFAR could be put is said in the same sentence, which needs the cache's place."""
    with pytest.raises(DatasetMissingError, match="GPUCONV_CACHE names"):
        data.load("cifar10", folder=tmp_path / "none")


def test_settings_of_a_file_name_the_home_folder(home, gpuconv):
    draw(home / "pets")
    (home / "net.toml").write_text(NET)
    Path("mine.toml").write_text('data = "~/pets"\nnet = "~/net.toml"\nbatch_size = 4\nepochs = 1\n')
    code, out, err = gpuconv("train", "--config", "mine.toml", "--run-dir", "~/runs/a", "--progress", "none")
    assert (code, out, err) == (0, "", "")
    assert sorted(path.name for path in home.iterdir()) == ["net.toml", "pets", "runs"]
    assert (home / "runs" / "a" / "net.toml").read_text() == NET
    assert Run("~/runs/a").finished
    assert Run("~/runs/a").report("~/report.html") == home / "report.html"
    assert train.load_net("~/runs/a/best.safetensors").input_shape == (3, 8, 8)
    assert gpuconv("export", "~/runs/a", "--to", "torch", "-o", "~/out.safetensors")[0] == 0
    assert (home / "out.py").exists()
    assert not [path for path in Path.cwd().iterdir() if path.name != "mine.toml"]


def test_a_folder_called_like_a_home_folder_can_be_named(home):
    draw(Path("~pets"))
    assert data.load("./~pets").name == "pictures in ~pets"
    assert data.load(str(Path.cwd() / "~pets")).classes == ("cat", "dog")


# Names of data sets that are folders, too ---------------------------------------------------------------------------


def test_a_folder_called_shapes_is_told_of(home):
    draw(Path("shapes"))
    heard: list[str] = []
    assert data.load("shapes", notice=heard.append).classes != ("cat", "dog")
    assert heard == [
        "shapes are drawn by gpuconv; the folder shapes here is not read: name it ./shapes for the pictures in it"
    ]
    assert data.load("./shapes", notice=heard.append).classes == ("cat", "dog")
    assert len(heard) == 1


def test_a_folder_called_cifar10_is_told_of(home, cifar10_folder, monkeypatch):
    draw(Path("cifar10"))
    monkeypatch.setenv("GPUCONV_DATA", str(cifar10_folder))
    heard: list[str] = []
    data.load("cifar10", notice=heard.append)
    (sentence,) = heard
    assert "the folder cifar10 here is not read: name it ./cifar10" in sentence
    assert "--data-dir cifar10 for CIFAR-10 in it" in sentence
    data.load("cifar10", folder=cifar10_folder, notice=heard.append)
    assert heard == [sentence]


def test_a_folder_called_cifar10_that_is_read_needs_no_word(home, cifar10_folder, monkeypatch):
    Path("cifar10").symlink_to(cifar10_folder)
    monkeypatch.setenv("GPUCONV_DATA", "cifar10")
    heard: list[str] = []
    data.load("cifar10", notice=heard.append)
    assert heard == []


def test_a_size_for_a_folder_called_like_a_data_set_names_the_folder(home, gpuconv):
    draw(Path("shapes"))
    for command in (("train", "--data", "shapes"), ("data", "show", "shapes")):
        code, _, err = gpuconv(*command, "--image-size", 8)
        assert code == 2
        assert "the folder shapes here is not read: name it ./shapes" in err
    with pytest.raises(ConfigError, match=r"has its own size$"):
        Config(data="auto", image_size=8)


# Other working directories ------------------------------------------------------------------------------------------


@pytest.fixture
def project(home, gpuconv):
    """A folder with pictures, a net's file and a finished run that was begun there, by relative paths; elsewhere beside."""
    project = Path("project").resolve()
    draw(project / "pets")
    (project / "net.toml").write_text(NET)
    Path("elsewhere").mkdir()
    with pytest.MonkeyPatch.context() as moved:
        moved.chdir(project)
        assert gpuconv("train", "--data", "pets", *QUICK) == (0, "", "")
        moved.undo()
    return project


def test_commands_that_are_said_can_be_copied_where_a_path_has_spaces(project, gpuconv, monkeypatch):
    monkeypatch.chdir(project)
    code, out, _ = gpuconv("train", "--data", "pets", *QUICK, "--run-dir", "my runs/first", "--progress", "plain")
    assert code == 0
    assert "accuracy by class: gpuconv eval 'my runs/first'\n" in out
    assert "try it: gpuconv predict 'my runs/first' PICTURE\n" in out
    assert "everything is in my runs/first\n" in out


def test_a_run_is_evaluated_from_anywhere(project, gpuconv, monkeypatch):
    monkeypatch.chdir(project)
    at_home = gpuconv("eval", "runs/net-1")
    monkeypatch.chdir("../elsewhere")
    code, out, err = gpuconv("eval", "../project/runs/net-1")
    assert (code, err) == (0, "")
    assert out.splitlines()[1:] == at_home[1].splitlines()[1:]
    run = Run("../project/runs/net-1")
    assert run.dataset().source == str(project / "pets")
    assert run.config.net == "../project/runs/net-1/net.toml"


def test_a_folder_of_the_same_name_where_one_stands_is_not_taken_for_it(project, gpuconv, monkeypatch):
    monkeypatch.chdir("elsewhere")
    draw(Path("pets"), count=5)
    assert gpuconv("eval", "../project/runs/net-1")[0] == 0
    code, out, _ = gpuconv("eval", "../project/runs/net-1", "--data", "./pets")
    assert (code, "\n2 test images of pictures in pets" in out) == (0, True)


def test_a_run_goes_on_and_is_repeated_from_anywhere(project, gpuconv, monkeypatch):
    run = project / "runs" / "net-1"
    (run / "result.json").unlink()
    settings = (run / "config.toml").read_bytes()
    monkeypatch.chdir("elsewhere")
    assert gpuconv("train", "--resume", run, "--progress", "none") == (0, "", "")
    assert (run / "config.toml").read_bytes() == settings
    assert gpuconv("train", "--config", run / "config.toml", "--progress", "none") == (0, "", "")
    assert Run("runs/net-1").result["test_loss"] == Run(run).result["test_loss"]


def test_a_run_goes_on_at_home_after_it_has_elsewhere(project, gpuconv, monkeypatch):
    """The checkpoints that it made there spell its paths as they are from there."""
    run = project / "runs" / "net-1"
    settings = (run / "config.toml").read_bytes()
    arrays, values = sealed.read(run / "last.safetensors")
    values["config"]["data"] = str(project / "pets")
    sealed.write(run / "last.safetensors", arrays, values)
    for folder in ("elsewhere", project):
        (run / "result.json").unlink()
        monkeypatch.chdir(folder)
        assert gpuconv("train", "--resume", run, "--progress", "none") == (0, "", "")
    assert (run / "config.toml").read_bytes() == settings
    sealed.write(run / "last.safetensors", arrays, {**values, "config": {**values["config"], "data": "./other"}})
    assert "config.toml is not what the run was started with (data " in gpuconv("train", "--resume", run)[2]


def test_an_export_finds_the_pictures_from_anywhere(project, gpuconv, monkeypatch):
    monkeypatch.chdir("elsewhere")
    code, out, _ = gpuconv("export", "../project/runs/net-1", "--to", "torch", "-o", "net.safetensors")
    assert code == 0
    assert "without names of classes" not in out


def test_seeds_go_on_from_anywhere(project, gpuconv, monkeypatch):
    monkeypatch.chdir(project)
    assert gpuconv("train", "--data", "pets", *QUICK, "--seeds", 2)[0] == 0
    several = project / "runs" / "net-seeds-1"
    kept = read(several / "seed-1" / "config.toml", find_files=False)
    for path in sorted((several / "seed-1").iterdir(), reverse=True):
        path.unlink()
    monkeypatch.chdir("../elsewhere")
    assert gpuconv("train", "--resume", several, "--progress", "none")[0] == 0
    again = read(several / "seed-1" / "config.toml", find_files=False)
    assert (kept.data, again.data) == ("./pets", str(project / "pets"))


def test_a_project_may_be_moved_as_a_whole(project, gpuconv, monkeypatch):
    """What leads from a run inside it to the folder names nobody's folders, either."""
    assert json.loads((project / "runs" / "net-1" / "origin.json").read_text()) == {"folder": "../.."}
    project.rename("moved")
    monkeypatch.chdir("elsewhere")
    assert gpuconv("eval", "../moved/runs/net-1")[0] == 0


def test_pictures_that_are_gone_are_to_be_named_by_a_flag(project, gpuconv):
    (project / "pets").rename("pets-now")
    run = project / "runs" / "net-1"
    code, _, err = gpuconv("eval", run)
    assert code == 1
    assert "does not exist: if it has moved, or the run was begun in another folder, name it by --data-dir" in err
    (run / "result.json").unlink()
    for command in (("train", "--progress", "none", "--resume"), ("eval",)):
        assert "--data-dir" in gpuconv(*command, run)[2]
        assert gpuconv(*command, run, "--data-dir", "pets-now")[0] == 0


@pytest.mark.parametrize(
    "content", ["", "[]", '{"folder": 3}', '{"folder": "nowhere"}', '{"folder": "a\\u0000b"}', "{"]
)
def test_a_damaged_origin_is_as_good_as_none(content, project, gpuconv, monkeypatch):
    (project / "runs" / "net-1" / "origin.json").write_text(content)
    assert "--data-dir" in gpuconv("eval", project / "runs" / "net-1")[2]
    monkeypatch.chdir(project)
    assert gpuconv("eval", "runs/net-1")[0] == 0
