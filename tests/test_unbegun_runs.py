"""A run that was killed before its first checkpoint: what every command says of its folder, and whether that helps."""

import re
import shlex

import pytest
from train_helpers import change, go

from gpuconv.runs.folder import RunFolder
from gpuconv.runs.origin import write_origin

SETTINGS = ["--data", "shapes", "--preset", "three-layer", "--validation", "20"]


def _with_settings(folder, **settings):
    with RunFolder(folder) as run:
        run.start(change(data="shapes", **settings))
    (folder / ".lock").unlink()


def _without_its_net(folder):
    net = folder.parent / "small.toml"
    net.write_text('[[layer]]\nkind = "flatten"\n[[layer]]\nkind = "affine"\noutputs = "classes"\n')
    _with_settings(folder, net=str(net))
    (folder / net.name).unlink()
    net.unlink()


def _half_written(folder):
    _with_settings(folder)
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text[: text.index("=") + 1])


KILLED = {
    "empty": lambda folder: None,
    "with_its_origin": write_origin,
    "with_half_its_settings": _half_written,  # as a copy of the folder may have them
    "without_the_copy_of_its_net": _without_its_net,
    "with_its_settings": _with_settings,
}
COMMANDS = {
    "resume": ["train", "--resume", "run"],
    "prolong": ["train", "--resume", "run", "--epochs", "30"],
    "weights": ["train", *SETTINGS, "--weights", "run"],
    "eval": ["eval", "run"],
    "eval_last": ["eval", "run", "--checkpoint", "last"],
    "predict": ["predict", "run", "picture.png"],
    "export": ["export", "run", "--to", "onnx"],
    "import": ["import", "model.safetensors", "--net", "run", "-o", "new.safetensors"],
    "plot": ["plot", "run"],
    "compare": ["compare", "run", "run"],
    "train_there": ["train", *SETTINGS, "--run-dir", "run"],
}
# What needs no checkpoint takes what is there.
ENOUGH = {("compare", "with_its_settings"), ("compare", "without_the_copy_of_its_net"), ("train_there", "empty")}


@pytest.mark.parametrize(("stage", "command"), [(s, c) for s in KILLED for c in COMMANDS if (c, s) not in ENOUGH])
def test_every_command_names_a_way_out_that_is_one(stage, command, gpuconv, tmp_path):
    (tmp_path / "run").mkdir()
    KILLED[stage](tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    code, _, complaint = gpuconv(*COMMANDS[command])
    assert code == 2
    (line,) = complaint.splitlines()
    assert line.startswith("gpuconv: error: ")
    assert "run" in line
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert "--resume" not in line
    ways = re.findall(r"gpuconv (train --config \S+)", line)
    assert bool(ways) == (stage == "with_its_settings" and command not in ("weights", "plot", "train_there"))
    for way in ways:
        assert gpuconv(*shlex.split(way), "--dry-run")[0] == 0


def test_a_checkpoint_that_is_there_is_named(gpuconv, tmp_path):
    go(change(epochs=1, max_steps=1), tmp_path / "run")
    (tmp_path / "run/best.safetensors").unlink()
    code, _, complaint = gpuconv("eval", "run")
    assert code == 2
    assert complaint.endswith("there is no checkpoint run/best.safetensors; run/last.safetensors is there: name that\n")
    assert gpuconv("eval", "run/last.safetensors")[0] == 0
    assert "or continue what it holds with --resume run" in gpuconv(*COMMANDS["train_there"])[2]


@pytest.mark.parametrize("schedule", ["one-cycle", "constant"])
def test_the_way_on_from_a_run_without_its_settings_asks_for_no_file_of_them(schedule, gpuconv, tmp_path):
    go(change(epochs=1, schedule=schedule), tmp_path / "run")
    (tmp_path / "run/config.toml").unlink()
    code, _, complaint = gpuconv("train", "--resume", "run", "--epochs", "1" if schedule == "constant" else "2")
    assert code == 2
    assert "config.toml" not in complaint


def test_a_run_has_begun_when_its_journal_says_so(tmp_path):
    with RunFolder(tmp_path) as run:
        assert run.has_events() is False
        (run.path / "events.jsonl").write_text("")
        assert run.has_events() is True
