"""`gpuconv export` and `gpuconv import`: files, messages, exit codes."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from train_helpers import TINY, names, run_state, shapes, write_format_1

from gpuconv import data, export, load, train
from gpuconv.errors import CheckpointCorruptError, DatasetMissingError
from gpuconv.export import check, tolerance
from gpuconv.runs import checkpoint, sealed
from gpuconv.runs.settings import read

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of TINY from the first step to the last."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train.train(TINY, folder=folder, dataset=shapes(), progress="none")
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the run in the folder of the test."""
    folder = tmp_path / "run"
    folder.mkdir()
    for path in finished.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def no_data(monkeypatch):
    """A machine without the data set of the run."""

    def missing(name, **_):
        msg = "CIFAR-10 is not here"
        raise DatasetMissingError(msg)

    return lambda: monkeypatch.setattr(data, "load", missing)


def flat(path):
    return checkpoint.load_net(path).flat_params


def test_onnx_is_checked_and_written_beside_the_checkpoint(gpuconv, run):
    code, out, err = gpuconv("export", "run", "--to", "onnx")
    assert (code, err) == (0, "")
    assert out.startswith("run/best.safetensors, after epoch ")
    assert "16 random inputs: scores differ by at most" in out
    assert f"16 test pictures of {shapes().name}: scores differ by at most" in out
    assert out.count("the same class for all") == 2
    assert f"wrote run/net.onnx, {(run / 'net.onnx').stat().st_size:,} bytes" in out
    np.testing.assert_array_equal(export.from_onnx(run / "net.onnx").flat_params, flat(run / "best.safetensors"))


def test_the_outcome_can_be_had_as_json(gpuconv, run):
    code, out, err = gpuconv("export", "run", "--to", "onnx", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["files"] == {"run/net.onnx": (run / "net.onnx").stat().st_size}
    assert [(check["inputs"], check["count"], check["same_class"]) for check in found["checks"]] == [
        ("random inputs", 16, 16),
        (f"test pictures of {shapes().name}", 16, 16),
    ]
    assert all(check["within"] and check["largest"] <= check["allowed"] for check in found["checks"])
    assert (found["without"], found["notes"]) == ([], [])
    found = json.loads(gpuconv("export", "run", "--to", "onnx", "--json", "--no-check", "--force")[1])
    assert found["checks"] == []


def test_an_exported_file_is_no_checkpoint_but_makes_one(gpuconv, run):
    gpuconv("export", "run", "--to", "onnx", "--no-check")
    code, out, err = gpuconv("eval", "run/net.onnx")
    assert (code, out) == (1, "")
    assert "corrupt" not in err
    said = "run/net.onnx is an ONNX file and no checkpoint: `gpuconv import run/net.onnx --net RUN -o FILE.safetensors`"
    assert said in err
    with pytest.raises(CheckpointCorruptError, match="is an ONNX file and no checkpoint"):
        load(run / "net.onnx")
    assert gpuconv("import", "run/net.onnx", "--net", "run", "-o", "mine.safetensors")[0] == 0
    assert gpuconv("eval", "mine.safetensors")[0] == 0


def test_torch_is_checked_and_written_with_its_module(gpuconv, run):
    pytest.importorskip("torch")
    code, out, err = gpuconv("export", "run", "--to", "torch", "--checkpoint", "last", "-o", "last_torch.safetensors")
    assert (code, err) == (0, "")
    assert out.count("PyTorch") == 2
    path = run.parent / "last_torch.safetensors"
    np.testing.assert_array_equal(export.from_torch(path).flat_params, flat(run / "last.safetensors"))
    spec = importlib.util.spec_from_file_location("written", path.with_suffix(".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert shapes().classes == module.CLASSES
    pictures = module.torch.from_numpy(shapes().x_test[:5])
    with module.torch.no_grad():
        assert module.load()(module.normalize(pictures)).shape == (5, 10)


@pytest.mark.parametrize("kind", ["normalized", "unit", "uint8"])
def test_the_input_can_be_chosen(kind, gpuconv, run):
    import onnx

    code, out, err = gpuconv("export", "run", "--to", "onnx", "--input", kind, "--dtype", "float32")
    assert (code, err) == (0, "")
    assert ("random pictures" in out) == (kind != "normalized")
    values = {prop.key: prop.value for prop in onnx.load(run / "net.onnx").metadata_props}
    assert values["input"] == kind
    assert json.loads(values["classes"]) == list(shapes().classes)
    assert json.loads(values["mean"]) == list(shapes().mean)


FACTS = ("classes", "mean", "std", "scaling")


def facts(path):
    """Return what an ONNX file says of pictures and scores."""
    import onnx

    return {prop.key: json.loads(prop.value) for prop in onnx.load(path).metadata_props if prop.key in FACTS}


def test_without_the_data_set_the_file_says_as_much(gpuconv, run, no_data):
    assert gpuconv("export", "run", "--to", "onnx", "-o", "with.onnx")[0] == 0
    no_data()
    code, out, err = gpuconv("export", "run", "--to", "onnx", "-o", "without.onnx")
    assert (code, err) == (0, "")
    assert f"without test pictures: {shapes().name} is not here" in out
    assert "test pictures of" not in out
    assert facts(run.parent / "without.onnx") == facts(run.parent / "with.onnx")
    assert facts(run.parent / "without.onnx") == {
        "classes": list(shapes().classes),
        "mean": list(shapes().mean),
        "std": list(shapes().std),
        "scaling": "middle, bicubic",
    }
    code, out, err = gpuconv("export", "run", "--to", "onnx", "--input", "uint8", "-o", "bytes.onnx")
    assert (code, err) == (0, "")
    assert "16 random pictures: scores differ by at most" in out
    assert gpuconv("export", "run", "--to", "onnx", "--data-dir", "there", "--force")[0] == 1
    assert names(run.parent) == ["bytes.onnx", "run", "with.onnx", "without.onnx"]


def test_of_an_earlier_version_the_data_set_says_more(gpuconv, run, no_data):
    write_format_1(run / "best.safetensors", *sealed.read(run / "best.safetensors"))
    (run / "events.jsonl").unlink()
    assert gpuconv("export", "run", "--to", "onnx", "-o", "with.onnx")[0] == 0
    assert sorted(facts(run.parent / "with.onnx")) == sorted(FACTS)
    no_data()
    code, out, err = gpuconv("export", "run", "--to", "onnx", "-o", "without.onnx")
    assert (code, err) == (0, "")
    assert f"without names of classes, mean and std, test pictures: {shapes().name} is not here" in out
    assert facts(run.parent / "without.onnx") == {}
    code, _, err = gpuconv("export", "run", "--to", "onnx", "--input", "uint8", "-o", "other.onnx")
    assert code == 2
    assert "only with the run's data set at hand: CIFAR-10 is not here" in err
    assert names(run.parent) == ["run", "with.onnx", "without.onnx"]


def test_another_data_set_is_not_taken_for_that_of_the_run(gpuconv, run, monkeypatch):
    monkeypatch.setattr(data, "load", lambda name, **_: data.draw_shapes(200, 50, seed=1))
    code, out, _ = gpuconv("export", "run", "--to", "onnx")
    assert code == 0
    assert "without test pictures" in out
    write_format_1(run / "best.safetensors", *sealed.read(run / "best.safetensors"))
    code, _, err = gpuconv("export", "run", "--to", "onnx", "--force", "--input", "unit")
    assert code == 2
    assert f"the run was trained on {shapes().name}, the data given or found are others" in err


@pytest.mark.parametrize("target", ["onnx", "torch"])
def test_mean_and_std_come_back_from_the_file(target, gpuconv, run, no_data):
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 0.75]
    write = {"onnx": export.to_onnx, "torch": export.to_torch}[target]
    file = run.parent / f"theirs.{'onnx' if target == 'onnx' else 'safetensors'}"
    write(checkpoint.load_net(run / "best.safetensors"), file, mean=mean, std=std)
    no_data()
    assert gpuconv("import", file, "--net", "run", "-o", "back.safetensors")[0] == 0
    inputs = checkpoint.load(run.parent / "back.safetensors").inputs
    assert (inputs.mean, inputs.std, inputs.classes) == (tuple(mean), tuple(std), shapes().classes)
    write(checkpoint.load_net(run / "best.safetensors"), file, overwrite=True)
    assert gpuconv("import", file, "--net", "run", "-o", "back.safetensors", "--force")[0] == 0
    assert checkpoint.load(run.parent / "back.safetensors").inputs.mean == shapes().mean


@pytest.mark.parametrize("std", ["[0, 1, 1]", "[1, 1]", '"abc"', "[true, 1, 1]", "[NaN, 1, 1]", "[1e999, 1, 1]", "["])
def test_mean_and_std_that_are_none_are_refused(std, gpuconv, run):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    file = run.parent / "theirs.safetensors"
    export.to_torch(checkpoint.load_net(run / "best.safetensors"), file, mean=[0.5] * 3, std=[0.5] * 3)
    with safe_open(file, "numpy") as opened:
        metadata = opened.metadata()
    save_file(load_file(file), file, metadata={**metadata, "std": std})
    code, out, err = gpuconv("import", file, "--net", "run", "-o", "back.safetensors")
    assert (code, out) == (1, "")
    assert str(file) in err
    assert "std must be" in err
    assert not (run.parent / "back.safetensors").exists()


def test_a_check_that_fails_writes_nothing(gpuconv, run, monkeypatch):
    monkeypatch.setattr(check, "error_bound", lambda *a, **k: tolerance.error_bound(*a, **k) * 1e-9)
    before = names(run)
    code, out, err = gpuconv("export", "run", "--to", "onnx", "--input", "uint8")
    assert (code, out) == (1, "")
    assert "nothing was written" in err
    assert names(run) == before
    code, out, err = gpuconv("export", "run", "--to", "onnx", "--input", "uint8", "--no-check")
    assert (code, err) == (0, "")
    assert "not checked\n" in out


def test_what_is_not_installed_is_said(gpuconv, run, monkeypatch):
    monkeypatch.setattr(check, "available", lambda target: target == "onnx")
    code, out, err = gpuconv("export", "run", "--to", "torch")
    assert (code, err) == (0, "")
    assert "not checked: PyTorch is not installed" in out
    code, _, err = gpuconv("export", "run", "--to", "torch", "--check", "--force")
    assert code == 2
    assert "--check needs PyTorch, which is not installed" in err


@pytest.mark.parametrize(("target", "name"), [("onnx", "net.onnx"), ("torch", "net_torch.safetensors")])
@pytest.mark.parametrize("which", ["run", "run/config.toml", "run/best.safetensors"])
def test_what_was_exported_comes_back_as_a_checkpoint(target, name, which, gpuconv, run):
    gpuconv("export", "run", "--to", target, "--checkpoint", "best", "--no-check")
    code, out, err = gpuconv("import", run / name, "--net", which, "-o", "back.safetensors")
    assert (code, err) == (0, "")
    back = run.parent / "back.safetensors"
    assert out.startswith("wrote back.safetensors: ")
    wanted, found = (run_state(path)[0] for path in (run / "best.safetensors", back))
    kept = [key for key in wanted if not key.startswith("optimizer/")]
    assert {key: found[key] for key in kept} == {key: wanted[key] for key in kept}
    assert [key for key in found if key not in kept] == [key for key in wanted if key not in kept]
    assert not any(array.any() for key, array in sealed.read(back)[0].items() if key.startswith("optimizer/"))
    # The first line, with the name and the epoch, differs.
    scores = [
        gpuconv("eval", path, "--test-images", 60)[1].splitlines()[1:] for path in (run / "best.safetensors", back)
    ]
    assert scores[0] == scores[1]


def test_a_run_can_start_from_imported_weights(gpuconv, run):
    gpuconv("export", "run", "--to", "onnx")
    start = run.parent / "start"
    start.mkdir()
    (start / "config.toml").write_bytes((run / "config.toml").read_bytes())
    assert gpuconv("import", run / "net.onnx", "--net", start / "config.toml", "-o", start / "last.safetensors")[0] == 0
    code, _, err = gpuconv("train", "--resume", "start", "--progress", "none")
    assert (code, err) == (0, "")
    losses = [float(json.loads((folder / "result.json").read_text())["test_loss"]) for folder in (run, start)]
    assert losses[1] < losses[0]


def test_imported_weights_alone_start_a_run_in_a_folder_of_its_own(gpuconv, run):
    gpuconv("export", "run", "--to", "onnx")
    start = run.parent / "new"
    assert gpuconv("import", "run/net.onnx", "--net", "run", "-o", "start.safetensors")[0] == 0
    flags = ("--config", "run/config.toml", "--weights", "start.safetensors", "--run-dir", "new", "--progress", "none")
    before = names(run.parent)
    code, _, err = gpuconv("train", *flags)
    assert (code, err) == (0, "")
    assert names(run.parent) == sorted([*before, "new"])
    assert read(start / "config.toml") == dataclasses.replace(TINY, weights="start.safetensors")
    events = train.Run(start).events
    assert [event["event"] for event in events if event["event"] in ("start", "resumed")] == ["start"]
    assert (start / "env.json").exists()
    assert train.Run(start).result["test_loss"] < train.Run(run).result["test_loss"]
    assert gpuconv("train", "--resume", "new", "--progress", "none")[0] == 0  # finished


def test_a_run_from_imported_weights_normalises_pictures_as_they_were_trained(gpuconv, run):
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.75)
    export.to_torch(checkpoint.load_net(run / "best.safetensors"), run.parent / "w.safetensors", mean=mean, std=std)
    assert gpuconv("import", "w.safetensors", "--net", "run", "-o", "start.safetensors")[0] == 0
    start = "--weights", "start.safetensors", "--config", "run/config.toml"
    assert gpuconv("train", *start, "--run-dir", "new", "--progress", "none")[0] == 0
    inputs = checkpoint.load(run.parent / "new" / "best.safetensors").inputs
    assert (inputs.mean, inputs.std) == (mean, std)
    result = train.Run(run.parent / "new").result
    assert result["mean"] == list(mean)
    code, out, _ = gpuconv("eval", "new", "--test-images", 60)
    assert code == 0
    assert f"loss {result['test_loss']:.4f}\n" in out
    assert gpuconv("train", "--resume", "new", "--progress", "none")[0] == 0  # finished: the data are still the run's


BAD = {
    "no_run": (["export", "nowhere", "--to", "onnx"], "there is no checkpoint nowhere"),
    "no_target": (["export", "run"], "the following arguments are required: --to"),
    "other_target": (["export", "run", "--to", "keras"], "invalid choice: 'keras'"),
    "input_for_torch": (["export", "run", "--to", "torch", "--input", "uint8"], "are for --to onnx"),
    "dtype_for_torch": (["export", "run", "--to", "torch", "--dtype", "float16"], "are for --to onnx"),
    "suffix": (["export", "run", "--to", "onnx", "-o", "net.pb"], "must end in .onnx, got net.pb"),
    "folder": (["export", "run", "--to", "onnx", "-o", "no/net.onnx"], "there is no folder no to write"),
    "existing": (["export", "run", "--to", "onnx", "-o", "mine.onnx"], "mine.onnx is there already"),
    "existing_module": (["export", "run", "--to", "torch", "-o", "mine.safetensors"], "mine.py is there already"),
    "the_checkpoint": (
        ["export", "run", "--to", "torch", "-o", "run/best.safetensors", "--force"],
        "is the checkpoint itself",
    ),
    "import_nothing": (["import", "no.onnx", "--net", "run", "-o", "a.safetensors"], "no.onnx could not be read"),
    "import_pickle": (["import", "w.pt", "--net", "run", "-o", "a.safetensors"], "w.pt could not be read"),
    "import_no_net": (["import", "a.onnx", "-o", "a.safetensors"], "the following arguments are required: --net"),
    "import_other_net": (["import", "a.onnx", "--net", "no.toml", "-o", "a.safetensors"], "no.toml could not be read"),
    "import_empty_run": (["import", "a.onnx", "--net", ".", "-o", "a.safetensors"], "there is no checkpoint"),
    "import_suffix": (["import", "a.onnx", "--net", "run", "-o", "a.pt"], "must end in .safetensors, got a.pt"),
    "import_existing": (
        ["import", "a.onnx", "--net", "run", "-o", "run/last.safetensors"],
        "run/last.safetensors is there already",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_used_exits_with_2_and_says_why(arguments, message, gpuconv, run):
    for name in ("mine.onnx", "mine.py"):
        (run.parent / name).write_text("mine")
    before = names(run), names(run.parent)
    code, out, err = gpuconv(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("gpuconv: error: ")
    assert message in err
    assert (names(run), names(run.parent)) == before


@pytest.mark.parametrize(("target", "name"), [("onnx", "net.onnx"), ("torch", "net_torch.safetensors")])
@pytest.mark.parametrize("ending", [".onnx", ".safetensors", ".bin", ""])
def test_a_file_is_read_as_what_it_is_whatever_its_ending(target, name, ending, gpuconv, run):
    gpuconv("export", "run", "--to", target, *(["--no-check"] if target == "torch" else []))
    file = run.parent / f"weights{ending}"
    file.write_bytes((run / name).read_bytes())
    code, _, err = gpuconv("import", file, "--net", "run", "-o", "mine.safetensors")
    assert (code, err) == (0, "")


def test_a_pickle_of_torch_is_told_from_safetensors(gpuconv, run):
    (run.parent / "w.pt").write_bytes(b"PK\x03\x04rest")
    code, _, err = gpuconv("import", "w.pt", "--net", "run", "-o", "mine.safetensors")
    assert code == 1
    assert "w.pt is a pickle of PyTorch, which can run code when it is read: save it as safetensors" in err


def test_weights_of_another_net_exit_with_1(gpuconv, run, tmp_path):
    train.train(train.Config(**{**vars(TINY), "widths": (6,), "epochs": 1}), folder=tmp_path / "other", dataset=shapes(), progress="none")  # fmt: skip
    gpuconv("export", "other", "--to", "onnx")
    gpuconv("export", "other", "--to", "torch", "--no-check")
    for name in ("net.onnx", "net_torch.safetensors"):
        code, out, err = gpuconv("import", f"other/{name}", "--net", "run", "-o", "a.safetensors")
        assert (code, out) == (1, "")
        assert "does not fit the net" in err
    assert not (tmp_path / "a.safetensors").exists()


def test_help_fits_80_columns(gpuconv):
    for command in ("export", "import"):
        code, out, err = gpuconv(command, "--help")
        assert (code, err) == (0, "")
        assert all(len(line) <= 80 for line in out.splitlines())
