"""Several runs of one recipe: begun only if they can be, gone on with after any end, and never taken for one run."""

from __future__ import annotations

import json

import pytest
from train_helpers import TINY, assert_same_run, change, names, shapes

from gpuconv import cli, train
from gpuconv.errors import CheckpointWriteError, ConfigError
from gpuconv.runs import board, checkpoint
from gpuconv.runs.folder import RunFolder, members
from gpuconv.runs.settings import read
from gpuconv.train import Run, loop, several

OWN = """
[[layer]]
kind = "conv"
filters = 4
stride = 4

[[layer]]
kind = "affine"
"""
SHORT = change(max_steps=2)


def go(config, folder, count=2):
    return train.train_seeds(config, count, folder=folder, dataset=shapes(), progress="none")


def again(folder):
    return train.resume_several(folder, dataset=shapes(), progress="none")


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """Two short runs."""
    folder = tmp_path_factory.mktemp("group") / "both"
    return go(SHORT, folder)


@pytest.fixture
def gpuconv(capsys):
    def run(*arguments):
        return (cli.main([str(argument) for argument in arguments]), *capsys.readouterr())

    return run


# Going on -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [False, True], ids=["preset", "net_from_a_file"])
def test_a_run_that_ended_before_its_first_checkpoint_is_begun_anew(own, tmp_path, monkeypatch):
    config = SHORT
    if own:
        (tmp_path / "config.toml").write_text(OWN)
        config = change(max_steps=2, net=str(tmp_path / "config.toml"))
    real = loop.Training.save_last

    def full(self):
        if self.config.seed == 1:
            msg = "No space left on device"
            raise CheckpointWriteError(msg)
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "save_last", full)
        with pytest.raises(CheckpointWriteError):
            go(config, tmp_path / "all")
    left = names(tmp_path / "all" / "seed-1")
    assert "config.toml" in left
    assert "last.safetensors" not in left
    if own:
        assert "net-config.toml" in left
        (tmp_path / "config.toml").unlink()  # the group has a copy
    again(tmp_path / "all")
    if own:
        (tmp_path / "config.toml").write_text(OWN)
    whole = go(config, tmp_path / "whole")
    for seed in whole.seeds:
        assert_same_run(tmp_path / "all" / f"seed-{seed}", whole.folder / f"seed-{seed}")


def test_files_that_no_run_wrote_are_not_cleared_away(tmp_path, group):
    (tmp_path / "all").mkdir()
    for name in ("config.toml", "plan.json"):
        (tmp_path / "all" / name).write_bytes((group.folder / name).read_bytes())
    (tmp_path / "all" / "seed-0").mkdir()
    (tmp_path / "all" / "seed-0" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="already holds files"):
        again(tmp_path / "all")
    assert (tmp_path / "all" / "seed-0" / "notes.txt").read_text() == "mine"


def test_one_process_at_a_time_goes_on_with_a_group(tmp_path, monkeypatch):
    tried, real = [], several.train

    def second(*arguments, **keywords):
        with pytest.raises(ConfigError, match="in use by another gpuconv process"):
            again(tmp_path / "all")
        tried.append(None)
        return real(*arguments, **keywords)

    monkeypatch.setattr(several, "train", second)
    go(SHORT, tmp_path / "all")
    assert len(tried) == 2
    with RunFolder(tmp_path / "all"):
        pass


def test_the_plan_says_how_many_and_the_settings_which(group):
    assert json.loads((group.folder / "plan.json").read_text()) == {"count": 2}
    assert read(group.folder / "config.toml") == SHORT


def test_a_damaged_plan_is_named(tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"plan\.json does not say which runs were to be trained \(it has no count\)"):
        again(tmp_path)


# What cannot be trained leaves nothing ------------------------------------------------------------------------------

WRONG = {
    "split": {"test_images": 101},
    "net": {"widths": (2,) * 6},
    "moves": {"cutout": 40},
    "optimiser": {"optimizer": "adam", "eps": 0.0},
    "missing_file": {"net": "no.toml"},
}


@pytest.mark.parametrize("settings", WRONG.values(), ids=WRONG.keys())
def test_a_group_that_cannot_be_trained_leaves_no_folder(settings, tmp_path):
    with pytest.raises(ConfigError):
        go(change(**settings), tmp_path / "all")
    assert names(tmp_path) == []


def test_a_group_without_tensorboard_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(board.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="tensorboardX"):
        go(change(tensorboard=True), tmp_path / "all")
    assert names(tmp_path) == []


# Several runs are not one -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["export", "--to", "onnx"], ["export", "--to", "torch", "--checkpoint", "last"]])
def test_what_is_for_one_run_names_those_of_a_group(command, gpuconv, group):
    code, out, err = gpuconv(*command, group.folder)
    assert (code, out) == (2, "")
    folder = group.folder
    assert err == f"gpuconv: error: {folder} holds several runs: {folder / 'seed-0'}, {folder / 'seed-1'} (name one)\n"


def test_a_group_is_no_run(group):
    for use in (Run, train.resume, lambda folder: checkpoint.load(folder / "best.safetensors")):
        with pytest.raises(ConfigError, match="holds several runs"):
            use(group.folder)


def test_a_comparison_takes_a_group_for_its_runs(gpuconv, group):
    code, out, _ = gpuconv("compare", group.folder)
    assert code == 0
    assert out == gpuconv("compare", *(result.folder for result in group.results))[1]
    assert "seed-1 against seed-0" in out


def test_seeds_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("seed-10", "seed-9", "seed-x"):
        (tmp_path / name).mkdir()
    assert members(tmp_path) is None
    (tmp_path / "plan.json").write_text("{}")
    assert [path.name for path in members(tmp_path)] == ["seed-9", "seed-10"]


def test_a_group_shows_as_a_table(group):
    shown = group._repr_html_()
    assert shown.count("<tr>") == 5  # head, seeds, mean, deviation
    for result in group.results:
        assert f"<td>{result.test_accuracy:.2%}</td>" in shown
    assert f"<td>{group.statistics()['test_accuracy']['mean']:.2%}</td>" in shown
    assert TINY.preset not in shown
