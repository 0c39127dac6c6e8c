"""Classes by name: eval, compare, import, export and going on match them so, and refuse by name what does not fit."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from train_helpers import change, names, shapes, write_format_1

from gpuconv import cli, data, export, train
from gpuconv.errors import CheckpointMismatchError
from gpuconv.runs import checkpoint, sealed
from gpuconv.runs.classes import differences, in_order_of
from gpuconv.train import Run, compare_runs

CLASSES = shapes().classes
TURNED = (*CLASSES[3:], *CLASSES[:3])
CONFIG = change(epochs=1, train_images=0, test_images=0, lr=0.05)


def turned(order=TURNED, dataset=None) -> data.Dataset:
    """Return the same pictures with the classes in another order."""
    dataset = dataset or shapes()
    number = np.array([order.index(name) for name in dataset.classes])
    labels = {part: number[getattr(dataset, part)] for part in ("y_train", "y_test")}
    return dataclasses.replace(dataset, name="turned", classes=tuple(order), **labels)


def renamed(**names: str) -> data.Dataset:
    """Return the shapes with some classes called otherwise."""
    return dataclasses.replace(shapes(), name="other", classes=tuple(names.get(name, name) for name in CLASSES))


def some(*wanted: str) -> data.Dataset:
    """Return the pictures of some classes."""
    dataset, parts = shapes(), {}
    for part in ("train", "test"):
        labels = np.array(dataset.classes)[getattr(dataset, f"y_{part}")]
        kept = np.isin(labels, wanted)
        parts[f"x_{part}"] = getattr(dataset, f"x_{part}")[kept]
        parts[f"y_{part}"] = np.array([wanted.index(name) for name in labels[kept]])
    return dataclasses.replace(dataset, name="some", classes=wanted, **parts)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two runs on the same pictures, whose classes stand in two orders."""
    folder = tmp_path_factory.mktemp("classes")
    for name, dataset in (("plain", shapes()), ("turned", turned())):
        train.train(CONFIG, folder=folder / name, dataset=dataset, progress="none")
    return folder


@pytest.fixture
def gpuconv(folders, monkeypatch, capsys):
    """Run the command beside the two runs; the data set on this machine is given first."""
    monkeypatch.chdir(folders)

    def call(dataset: data.Dataset, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(data, "load", lambda name, **_: dataset)
        code = cli.main([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return call


def accuracies(out: str) -> dict[str, str]:
    """Return the lines of eval on the classes, and on all."""
    return {
        line.split()[0]: line.split()[1] for line in out.splitlines() if line.split()[1:] and "%" in line.split()[1]
    }


# Matching -----------------------------------------------------------------------------------------------------------


def test_labels_go_with_their_names():
    matched = in_order_of(CLASSES, turned())
    assert matched.classes == CLASSES
    for part in ("y_train", "y_test"):
        np.testing.assert_array_equal(getattr(matched, part), getattr(shapes(), part))
        assert getattr(matched, part).dtype == np.int64
    same = shapes()
    assert in_order_of(CLASSES, same) is same
    assert differences(CLASSES, same) == []


def test_accents_match_however_they_are_composed():
    composed, apart = "caf\u00e9", "cafe\u0301"
    dataset = renamed(**{CLASSES[0]: apart})
    matched = in_order_of((composed, *CLASSES[1:]), dataset)
    np.testing.assert_array_equal(matched.y_test, dataset.y_test)
    assert differences((composed, *CLASSES[1:]), dataset) == []


def test_of_very_many_names_the_first_are_listed():
    many = tuple(f"c{number}" for number in range(100))
    dataset = dataclasses.replace(shapes(), classes=many)
    with pytest.raises(CheckpointMismatchError, match=r"does not know: c0, c1, .*, c11 and 88 more; the net's are"):
        in_order_of(CLASSES, dataset)


# eval ---------------------------------------------------------------------------------------------------------------


def test_eval_matches_by_name_and_says_so(gpuconv, folders):
    result = Run(folders / "turned").result
    code, out, err = gpuconv(shapes(), "eval", "turned", "--data", "shapes2/")
    assert (code, err) == (0, "")
    assert f"(the net's classes stand in another order, {', '.join(TURNED)}: they are matched by name)" in out
    shares = result["test_accuracy_by_class"]
    wanted = {name: "-" if share is None else f"{share:.2%}" for name, share in shares.items()}
    assert accuracies(out) == {**wanted, "all": f"{result['test_accuracy']:.2%}"}
    evaluation = Run(folders / "turned").evaluate(shapes())
    assert evaluation.accuracy == result["test_accuracy"]
    np.testing.assert_array_equal(evaluation.confusion, result["confusion"])


def test_eval_refuses_by_name_what_the_net_does_not_know(gpuconv, folders):
    other = renamed(**{CLASSES[2]: "wolf", CLASSES[5]: "10"})
    code, out, err = gpuconv(other, "eval", "plain", "--data", "other/")
    assert (code, out) == (1, "")
    assert f"other has classes that the net does not know: wolf, 10; the net's are {', '.join(CLASSES)}: leave" in err
    with pytest.raises(CheckpointMismatchError, match="that the net does not know: wolf, 10"):
        Run(folders / "plain").evaluate(other)


def test_eval_takes_a_part_of_the_classes(gpuconv, folders):
    few = some(CLASSES[7], CLASSES[1])
    code, out, err = gpuconv(few, "eval", "plain", "--data", "few/")
    assert (code, err) == (0, "")
    assert f"(the net's classes stand in another order, {', '.join(CLASSES)}: they are matched by name)" in out
    assert f"(there are no pictures of {', '.join(name for name in CLASSES if name not in few.classes)})" in out
    shares = Run(folders / "plain").result["test_accuracy_by_class"]
    assert {accuracies(out)[name] for name in few.classes} == {f"{shares[name]:.2%}" for name in few.classes}


def test_a_checkpoint_of_an_earlier_version_takes_the_names_of_its_run(gpuconv, folders, tmp_path):
    arrays, values = sealed.read(folders / "turned" / "best.safetensors")
    assert values["inputs"]["classes"] == list(TURNED)
    (tmp_path / "old").mkdir()
    write_format_1(tmp_path / "old" / "best.safetensors", arrays, values)
    assert checkpoint.load(tmp_path / "old" / "best.safetensors").classes is None
    code, out, _ = gpuconv(shapes(), "eval", tmp_path / "old", "--data", "shapes2/")
    assert code == 0
    assert "(the names of the net's classes are not recorded: they are matched by number)" in out
    (tmp_path / "old" / "events.jsonl").write_bytes((folders / "turned" / "events.jsonl").read_bytes())
    assert checkpoint.load(tmp_path / "old" / "best.safetensors").classes == TURNED
    (tmp_path / "old" / "events.jsonl").write_bytes((folders / "plain" / "events.jsonl").read_bytes())
    assert checkpoint.load(tmp_path / "old" / "best.safetensors").classes is None  # the events are another run's
    write_format_1(tmp_path / "old" / "best.safetensors", arrays, values, list(TURNED))
    assert checkpoint.load(tmp_path / "old" / "best.safetensors").classes == TURNED


@pytest.mark.parametrize("classes", ["abc", [1, 2], {"a": 1}])
def test_names_that_are_none_are_refused(classes, folders, tmp_path):
    arrays, values = sealed.read(folders / "plain" / "best.safetensors")
    write_format_1(tmp_path / "best.safetensors", arrays, values, classes)
    with pytest.raises(CheckpointMismatchError, match=r"classes(\[0\])? must be a (list|text)"):
        checkpoint.load(tmp_path / "best.safetensors")


# compare ------------------------------------------------------------------------------------------------------------


def test_compare_matches_by_name_and_says_so(folders):
    runs = [Run(folders / name) for name in ("plain", "turned")]
    text = str(compare_runs(runs))
    lines = next(part for part in text.split("\n\n") if part.startswith("class ")).splitlines()
    assert lines[-1] == "(turned has the classes in another order: they are matched by name)"
    shares = [run.result["test_accuracy_by_class"] for run in runs]
    for line, name in zip(lines[2:-1], CLASSES, strict=True):
        assert line.split()[0] == name
        assert line.split()[1:3] == ["-" if share[name] is None else f"{share[name]:.1%}" for share in shares]


def test_compare_names_the_classes_that_not_all_runs_have(folders, tmp_path):
    train.train(CONFIG, folder=tmp_path / "other", dataset=renamed(**{CLASSES[2]: "wolf"}), progress="none")
    text = str(compare_runs([Run(folders / "plain"), Run(tmp_path / "other")]))
    assert f"(left out, for not all runs have them: {', '.join(sorted([CLASSES[2], 'wolf']))})" in text
    assert "another order" not in text
    strange = {name: f"no {name}" for name in CLASSES}
    train.train(CONFIG, folder=tmp_path / "strange", dataset=renamed(**strange), progress="none")
    assert "classes: no run has one of plain" in str(compare_runs([Run(folders / "plain"), Run(tmp_path / "strange")]))


# import and export --------------------------------------------------------------------------------------------------


@pytest.fixture
def unnamed(folders, tmp_path):
    """The net of the turned run for PyTorch, in a file that names no classes."""
    export.to_torch(checkpoint.load_net(folders / "turned" / "best.safetensors"), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_import_takes_the_order_of_the_file_from_the_flag(gpuconv, folders, unnamed, tmp_path):
    classes = ",".join(TURNED)
    code, out, err = gpuconv(
        shapes(), "import", unnamed, "--net", "plain", "-o", tmp_path / "a.safetensors", "--classes", classes
    )
    assert (code, err) == (0, "")
    assert f"another order than in plain, {', '.join(TURNED)}: they are matched by name" in out
    code, out, err = gpuconv(shapes(), "eval", tmp_path / "a.safetensors")
    assert (code, err) == (0, "")
    assert "the net was trained on" not in out
    result = Run(folders / "turned").result
    assert accuracies(out)["all"] == f"{result['test_accuracy']:.2%}"


def test_a_run_that_starts_from_it_learns_by_name(gpuconv, folders, unnamed, tmp_path):
    start, place = tmp_path / "start.safetensors", tmp_path / "run"
    flags = ("--net", "plain", "-o", start, "--classes", ",".join(TURNED))
    assert gpuconv(shapes(), "import", unnamed, *flags)[0] == 0
    flags = ("--config", "plain/config.toml", "--weights", start, "--run-dir", place, "--progress", "none")
    assert gpuconv(shapes(), "train", *flags) == (0, "", "")
    run = Run(place)
    assert run.result["classes"] == list(CLASSES)
    order = f"the classes stand in another order there, {', '.join(TURNED)}: they are matched by name"
    assert order in [event["message"] for event in run.events if event["event"] == "weights"]
    assert run.result["data_fingerprint"] == Run(folders / "plain").result["data_fingerprint"]
    assert run.metrics[0]["train_accuracy"] > Run(folders / "turned").metrics[0]["train_accuracy"]
    assert run.evaluate(shapes()).accuracy == run.result["test_accuracy"]
    pages = run.report(dataset=shapes()).read_text()
    image, true, _, _ = run.result["mistakes"][0]
    assert shapes().y_test[image] == true
    assert f'alt="test image {image}: {CLASSES[true]}"' in pages
    assert gpuconv(shapes(), "train", "--resume", place, "--progress", "none")[0] == 0  # finished


def test_a_run_of_another_order_goes_on_in_it(gpuconv, folders, unnamed, tmp_path):
    """Its own folder holds its settings, so that it is known for a run before its first step."""
    start = tmp_path / "start"
    start.mkdir()
    (start / "config.toml").write_bytes((folders / "plain" / "config.toml").read_bytes())
    flags = ("--net", "plain", "-o", start / "last.safetensors", "--classes", ",".join(TURNED))
    assert gpuconv(shapes(), "import", unnamed, *flags)[0] == 0
    assert gpuconv(shapes(), "train", "--resume", start, "--progress", "none") == (0, "", "")
    run = Run(start)
    assert run.result["classes"] == list(TURNED)
    pages = run.report(dataset=shapes()).read_text()
    image, true, _, _ = run.result["mistakes"][0]
    assert CLASSES[shapes().y_test[image]] == TURNED[true]
    assert f'alt="test image {image}: {TURNED[true]}"' in pages


def test_import_says_where_torchvision_has_another_order(gpuconv, unnamed, tmp_path):
    code, out, err = gpuconv(shapes(), "import", unnamed, "--net", "plain", "-o", tmp_path / "a.safetensors")
    assert (code, err) == (0, "")
    assert sorted(CLASSES) != list(CLASSES)
    assert f"taken to have them in the order of plain: {', '.join(CLASSES)}; " in out
    assert f"torchvision, which sorts them, add --classes {','.join(sorted(CLASSES)[:4])},..." in out
    assert checkpoint.load(tmp_path / "a.safetensors").classes == CLASSES


@pytest.mark.parametrize("target", ["torch", "onnx"])
def test_an_exported_file_says_its_own_order(target, gpuconv, folders, tmp_path):
    pytest.importorskip("onnx")
    name = {"torch": "net.safetensors", "onnx": "net.onnx"}[target]
    flags = ("--to", target, "-o", tmp_path / name, "--no-check")
    assert gpuconv(turned(), "export", "turned", *flags)[0] == 0
    code, out, err = gpuconv(shapes(), "import", tmp_path / name, "--net", "plain", "-o", tmp_path / "a.safetensors")
    assert (code, err) == (0, "")
    assert "they are matched by name" in out
    assert checkpoint.load(tmp_path / "a.safetensors").classes == TURNED
    code, out, err = gpuconv(
        shapes(), "import", tmp_path / name, "--net", "plain", "-o", tmp_path / "b.safetensors",
        "--classes", ",".join(CLASSES),
    )  # fmt: skip
    assert (code, out) == (2, "")
    assert f"says that its classes are {', '.join(TURNED)}, --classes {', '.join(CLASSES)}: leave out" in err
    again = tmp_path / "again.onnx"
    code, out, err = gpuconv(shapes(), "export", tmp_path / "a.safetensors", "--to", "onnx", "-o", again)
    assert (code, err) == (0, "")
    assert f"(the net's classes stand in another order, {', '.join(TURNED)}: they are matched by name)" in out
    import onnx

    values = {prop.key: prop.value for prop in onnx.load(again).metadata_props}
    assert json.loads(values["classes"]) == list(TURNED)


def test_a_file_of_other_classes_is_refused_by_name(gpuconv, folders, tmp_path):
    net = checkpoint.load_net(folders / "plain" / "best.safetensors")
    export.to_torch(net, tmp_path / "net.safetensors", classes=renamed(**{CLASSES[2]: "wolf"}).classes)
    code, out, err = gpuconv(
        shapes(), "import", tmp_path / "net.safetensors", "--net", "plain", "-o", tmp_path / "a.safetensors"
    )
    assert (code, out) == (1, "")
    assert "net.safetensors has a class that plain does not know: wolf; known are" in err
    assert names(tmp_path) == ["net.py", "net.safetensors"]


FLAGS = {
    "too_few": (",".join(CLASSES[:9]), 2, "--classes must name each of the net's 10 scores once, between commas, got 9"),
    "one_twice": (",".join([*CLASSES[:9], CLASSES[0]]), 2, "--classes must name each of the net's 10 scores once"),
    "one_empty": (",".join([*CLASSES[:9], ""]), 2, "--classes must name each of the net's 10 scores once"),
    "none": ("", 2, "once, between commas, got 0"),
    "a_line_break": ("a\rb,c", 2, "argument --classes: new-line character"),
    "unknown": (",".join([*CLASSES[:9], "wolf"]), 1, "--classes has a class that plain does not know: wolf; known"),
}  # fmt: skip


@pytest.mark.parametrize(("flag", "code", "message"), FLAGS.values(), ids=FLAGS.keys())
def test_a_flag_that_does_not_fit_writes_nothing(flag, code, message, gpuconv, unnamed, tmp_path):
    before = names(tmp_path)
    found = gpuconv(shapes(), "import", unnamed, "--net", "plain", "-o", tmp_path / "a.safetensors", "--classes", flag)
    assert found[:2] == (code, "")
    assert message in found[2]
    assert names(tmp_path) == before


def test_a_name_with_a_comma_stands_in_quotation_marks():
    assert cli.import_._names('cat, "hammer, nail",dog') == ("cat", "hammer, nail", "dog")


@pytest.mark.parametrize("text", ["3", '"abc"', "[1, 2]", "[]", "no JSON", "[" * 10_000])
def test_a_file_that_names_its_classes_by_something_else_is_refused(text, unnamed):
    from gpuconv.export import walk

    with pytest.raises(CheckpointMismatchError, match="names its classes by something other than a list of names"):
        walk.named_classes(text, unnamed)
