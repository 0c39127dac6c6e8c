"""Every key of every file that gpuconv reads back, with every wrong kind of value in its place.

The keys are those that the writers write, taken from files of a run, from Config and from the layers: a new one is tried
without a line here.  A wrong value is refused by a named error that says which file and which key it is, or, where that is
what the file is for (lines of events.jsonl, env.json, origin.json), passed over.
"""

import copy
import functools
import inspect
import itertools
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from train_helpers import again, change, go, shapes

from gpuconv import export, nn, train
from gpuconv.cli import import_
from gpuconv.errors import CheckpointMismatchError, GpuconvError
from gpuconv.export import torch_file
from gpuconv.nn.layer import KINDS
from gpuconv.runs import checkpoint, journal, machine, origin, overview, sealed, settings
from gpuconv.show import compare, html, index, listing, screen
from gpuconv.show.canvas import Style

pytestmark = pytest.mark.long

DEEP = functools.reduce(lambda inner, _: [inner], range(60), 1)
WRONG = {
    "none": None,
    "flag": True,
    "text": "x",
    "empty": "",
    "list": [],
    "list_of_none": [None],
    "list_of_text": ["x"],
    "table": {},
    "table_of_text": {"a": "x"},
    "int": 7,
    "fraction": 1.5,
    "negative": -1,
    "negative_fraction": -0.5,
    "large": 10**400,
    "infinite": float("inf"),
    "not_a_number": float("nan"),
    "deep": DEEP,
}
NEVER = ("large", "infinite", "not_a_number", "deep")  # no key of any file takes these, whatever its kind

# Keys whose writers may leave them null: nothing to say of them is no wrong value.
MAY_BE_NULL = {
    "best_accuracy",
    "classes",
    "cores",
    "loss_scale",
    "shortcut",
    "stride",
    "test_accuracy_by_class",
    "test_accuracy_tta",
    "usable_cores",
    "validation_accuracy",
    "validation_loss",
    "weight_scale",
}
# What nothing reads: result.json tells people which settings a run had; programs read config.toml.
UNREAD = {("result.json", "config")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a finished run of which every file says all that it can say."""
    folder = tmp_path_factory.mktemp("run") / "one"
    config = change(epochs=2, max_steps=3, train_images=40, test_images=20, validation=20, widths=(2,))
    config = train.Config(**{**vars(config), "precision": "float16", "ema": 0.5, "tta": "flip"})
    go(config, folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """Return a copy of the finished run, to be spoilt."""
    return shutil.copytree(finished, tmp_path / "run")


def places(values, path=()):
    """Yield the path of each entry, and of the first element of each list, that plain values hold."""
    items = (
        values.items() if isinstance(values, dict) else list(enumerate(values))[:1] if isinstance(values, list) else ()
    )
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def at(values, path):
    return functools.reduce(lambda inside, key: inside[key], path, values)


def spoilt(values, path, wrong):
    """Return a copy of values with something else at a path."""
    values = copy.deepcopy(values)
    at(values, path[:-1])[path[-1]] = wrong
    return values


def keys(path):
    """Return the keys of a path, without numbers of elements."""
    return [key for key in path if isinstance(key, str)]


def dumped(values, **how):
    """Return values as JSON, with a number beyond floats in the place of infinity, for which JSON has no word."""
    return json.dumps(values, **how).replace("Infinity", "1e999")


def is_kind(value, wrong):
    """Return whether the wrong value is of the kind of the right one: whether it may be taken is a matter of range."""
    if isinstance(value, float):
        return type(wrong) in (int, float)
    return type(value) is type(wrong)


def cases(values, unread=()):
    """Yield (path, name of a wrong value, spoilt values, whether these may be taken) for all there is to try."""
    for path, (kind, wrong) in itertools.product(places(values), WRONG.items()):
        right = at(values, path)
        if path[0] in unread or (type(right) is type(wrong) and right == wrong):
            continue
        free = kind not in NEVER and (
            is_kind(right, wrong) or (wrong is None and not MAY_BE_NULL.isdisjoint(keys(path)))
        )
        yield path, kind, spoilt(values, path, wrong), free


def try_all(file, tried, read, use):
    """Read and use each spoilt file; return what went wrong with which.

    tried: yields cases, once the file is written.   read: what must refuse a wrong value.   use: what a sound file is for,
    which may refuse it.
    """
    faults = []
    for path, kind, may_pass in tried:
        place = f"{file}, {'.'.join(map(str, path))} {kind}"
        try:
            value = read()
        except GpuconvError as error:
            words = str(error)
            # JSON has no word for NaN: the file is none.  Of an entry that is unknown, that one is named.
            named = may_pass or kind == "not_a_number" or any(key in words for key in (*keys(path), "'a'"))
            if file not in words or not named or len(words) > 1500:
                faults.append(f"{place}: says only {type(error).__name__}: {words[:300]}")
            continue
        except Exception as error:  # noqa: BLE001 - the fault that is looked for
            faults.append(f"{place}: {type(error).__name__}: {str(error)[:200]}")
            continue
        if not may_pass:
            faults.append(f"{place}: taken")
            continue
        try:
            use(value)
        except GpuconvError:
            pass
        except Exception as error:  # noqa: BLE001 - the fault that is looked for
            faults.append(f"{place}, used: {type(error).__name__}: {str(error)[:200]}")
    return faults


def written(path, values, *, unread=()):
    """Write each case of a JSON file; yield what it is."""
    for key, kind, wrong, may_pass in cases(values, unread):
        path.write_text(dumped(wrong))
        yield key, kind, may_pass


# Checkpoints ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["last", "best"])
def test_checkpoints(run, monkeypatch, name):
    """Sealed anew: the seal says that somebody wrote it so."""
    path = run / f"{name}.safetensors"
    arrays, values = sealed.read(path)
    assert values["loss_scale"]
    assert values["position"]["rows"]
    # As json.dumps is called for a seal, but with what JSON has no word for.
    monkeypatch.setattr(
        sealed, "json", SimpleNamespace(loads=json.loads, dumps=lambda v, allow_nan, **how: dumped(v, **how))
    )

    spoiling = []

    def tried():
        for key, kind, wrong, may_pass in cases(values):
            path.write_bytes(sealed.encode(arrays, wrong))
            spoiling[:] = key
            yield key, kind, may_pass

    def read():
        snapshot = checkpoint.load(path)
        checkpoint.net_of(snapshot)
        if spoiling[0] == "loss_scale":  # it is looked at where it is restored
            go_on()

    def go_on():
        train.resume(run if name == "last" else path, dataset=shapes(), progress="none")

    def use(_):
        if spoiling[0] not in ("config", "net"):  # others than the run's are refused
            go_on()

    faults = try_all(path.name, tried(), read, use)
    assert not faults, "\n".join(faults)


# Entries that are each of their kind, but contradict others; of a run of two epochs at its end.
CONTRADICTIONS = {
    "an_epoch_without_a_row": ("epoch", lambda position: position["epoch"] + 1, "the number of its rows, 2, got 3"),
    "best_in_an_epoch_that_did_not_begin": ("best_epoch", lambda position: 3, "position.best_epoch must be at most 2"),
    "fewer_steps_than_the_optimiser_took": ("steps", lambda position: position["steps"] - 1, "optimizer.steps must be"),
}


@pytest.mark.parametrize(("entry", "wrong", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_checkpoint_that_contradicts_itself_is_refused(run, entry, wrong, words):
    path = run / "last.safetensors"
    arrays, values = sealed.read(path)
    position = values["position"]
    assert (position["epoch"], position["step"]) == (2, 0)
    path.write_bytes(sealed.encode(arrays, spoilt(values, ("position", entry), wrong(position))))
    with pytest.raises(CheckpointMismatchError, match=re.escape(words)):
        checkpoint.load(path)


def test_a_best_epoch_that_has_begun_is_no_contradiction(run):
    path = run / "last.safetensors"
    arrays, values = sealed.read(path)
    again = spoilt(spoilt(values, ("position", "step"), 1), ("position", "best_epoch"), 3)
    path.write_bytes(sealed.encode(arrays, again))
    assert checkpoint.load(path).position.best_epoch == 3


# Settings and nets ----------------------------------------------------------------------------------------------------

TOML = {
    "flag": "true",
    "text": '"x"',
    "empty": '""',
    "list": "[]",
    "list_of_text": '["x"]',
    "list_of_digits": "[0x" + "1" * 5000 + "]",
    "table": "{}",
    "table_of_text": '{ a = "x" }',
    "int": "7",
    "fraction": "1.5",
    "negative": "-1",
    "large": "1" + "0" * 400,
    "digits": "0x" + "1" * 5000,
    "infinite": "inf",
    "not_a_number": "nan",
    "date": "1979-05-27T07:32:00Z",
    "deep": "[" * 60 + "]" * 60,
}
TOML_KINDS = {"flag": bool, "text": str, "empty": str, "list": list, "int": int, "negative": int, "fraction": float}


def _may_be(kinds, kind):
    """Return whether a wrong value of TOML is of one of the kinds."""
    return TOML_KINDS.get(kind) in kinds


def test_settings(tmp_path):
    path = tmp_path / "config.toml"
    right = settings.to_values(train.Config())

    def tried():
        for name, (kind, text) in itertools.product(right, TOML.items()):
            path.write_text(
                settings.values_to_toml({key: right[key] for key in right if key != name}) + f"{name} = {text}\n"
            )
            number = (int, float) if isinstance(right[name], float) else (type(right[name]),)
            yield (name,), kind, _may_be(number, kind)

    faults = try_all(path.name, tried(), lambda: settings.read(path), lambda _: None)
    assert not faults, "\n".join(faults)


_KINDS_OF = {"int": (int,), "float": (int, float), "bool": (bool,), "str | float": (str, int, float), "str": (str,)}


def _options():
    """Yield (kind of a layer, option, kinds of value it takes) for all that a .toml file may say of a layer."""
    for kind, of in KINDS.items():
        for name, taken in (("kind", (str,)), ("name", (str,)), ("repeat", (int,))):
            yield kind, name, taken
        inside = {"residual": ("body", "shortcut"), "sequential": ("body",)}
        for name in inside.get(kind, ()):
            yield kind, name, ()
        if kind in inside:
            continue
        for name, parameter in inspect.signature(of.from_toml).parameters.items():
            yield kind, name, _KINDS_OF.get(parameter.annotation, (int,))  # the others are an int or a pair


def _required(kind):
    """Return the options that a layer cannot be without, with a good value."""
    if kind in ("residual", "sequential"):
        return {"body": '[{ kind = "relu" }]'}
    of = KINDS[kind]
    known = of.cls.inferred((4, 8, 8), 3)
    parameters = inspect.signature(of.from_toml).parameters.items()
    return {name: "2" for name, p in parameters if p.default is p.empty and name not in known}


def test_nets(tmp_path):
    path = tmp_path / "net.toml"

    def tried():
        for (kind, option, taken), (wrong, text) in itertools.product(_options(), TOML.items()):
            said = {"kind": f'"{kind}"', **_required(kind), option: text}
            lines = [f"{key} = {value}" for key, value in said.items()]
            path.write_text("\n".join(["[[layer]]", *lines, "[[layer]]", 'kind = "affine"', ""]))
            yield (option,), wrong, _may_be(taken, wrong)

    faults = try_all(
        path.name,
        tried(),
        lambda: nn.from_file(path, input_shape=(4, 8, 8), classes=3),
        lambda net: nn.build(net.config),
    )
    assert not faults, "\n".join(faults)


# What a run leaves ----------------------------------------------------------------------------------------------------


def shown(folder):
    """Show a run in every way there is."""
    run = train.Run(folder)
    comparison = compare.compare_runs([run, run])
    assert str(comparison)
    assert comparison._repr_html_()
    screen.of_run(run, 80, 24, Style())
    html.page(run, None)
    run._repr_html_()
    entries = overview.overview(folder)
    listing.listing(folder, entries, 80)
    index.page(folder, entries)


def test_results(run):
    path = run / "result.json"
    tried = written(path, json.loads(path.read_text()), unread=[key for file, key in UNREAD if file == path.name])
    faults = try_all(path.name, tried, lambda: train.Run(run).result, lambda _: shown(run))
    assert not faults, "\n".join(faults)


def test_a_damaged_result_is_made_anew(run):
    path = run / "result.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps({**before, "test_accuracy": None}))
    again(run)
    assert json.loads(path.read_text())["test_accuracy"] == before["test_accuracy"]


def test_metrics(run):
    path = run / "metrics.csv"
    head, first, *rest = path.read_text().splitlines()
    cells = dict(zip(head.split(","), first.split(","), strict=True))
    wrong = {
        "text": "x",
        "negative": "-1",
        "infinite": "1e999",
        "not_a_number": "nan",
        "large": "1" * 5000,
        "quote": '"',
    }

    def tried():
        for name, (kind, text) in itertools.product(cells, {**wrong, "empty": "", "fraction": "1.5"}.items()):
            line = ",".join({**cells, name: text}.values())
            path.write_text("\n".join([head, line, *rest, ""]))
            fits = kind == "empty" and name in MAY_BE_NULL
            yield (
                (name,) if kind != "quote" else (path.name,),
                kind,
                fits or (kind == "fraction" and "." in cells[name]),
            )
        for name in cells:
            path.write_text("\n".join([head.replace(name, "other"), first, *rest, ""]))
            yield ("other",), "unknown", False
        for line in (f"{first},1", first.rpartition(",")[0]):
            path.write_text("\n".join([head, line, *rest, ""]))
            yield ("line 1",), "cells", False

    faults = try_all(path.name, tried(), lambda: train.Run(run).metrics, lambda _: shown(run))
    assert not faults, "\n".join(faults)


def test_lines_of_events_that_say_something_else_are_passed_over(run):
    path = run / "events.jsonl"
    lines = path.read_text().splitlines()
    first_of_kind = {json.loads(line)["event"]: number for number, line in reversed([*enumerate(lines)])}
    faults = []
    for number in first_of_kind.values():
        for key, kind, wrong, may_pass in cases(json.loads(lines[number])):
            path.write_text("\n".join([*lines[:number], dumped(wrong), *lines[number + 1 :], ""]))
            try:
                known = [json.dumps(event) for event in journal.read(run)]
                if dumped(wrong) in known:  # one that is passed over is shown nowhere
                    if not may_pass:
                        faults.append(f"line {number}, {key} {kind}: taken")
                    shown(run)
            except GpuconvError:
                pass
            except Exception as error:  # noqa: BLE001 - the fault that is looked for
                faults.append(f"line {number}, {key} {kind}: {type(error).__name__}: {error}")
    assert not faults, "\n".join(faults)


def test_a_damaged_environment_is_passed_over(run):
    path = run / "env.json"
    faults = []
    for key, kind, wrong, may_pass in cases(json.loads(path.read_text())):
        path.write_text(dumped(wrong))
        if not may_pass and machine.read_environment(run):
            faults.append(f"{key} {kind}: taken")
        machine.began_with(run)
        if may_pass:
            shown(run)
    assert not faults, "\n".join(faults)


def test_a_damaged_origin_is_passed_over(run):
    path = run / origin.ORIGIN
    right = train.Run(run).config
    for _, kind, wrong, _ in cases(json.loads(path.read_text())):
        path.write_text(dumped(wrong))
        assert train.Run(run).config == right, kind
    for content in ("", "[", "[]", "[" * 100_000):
        path.write_text(content)
        assert train.Run(run).config == right
    for folder in ("x" * 300, "x" * 10_000, "\0"):  # no file system has such a folder
        path.write_text(json.dumps({"folder": folder}))
        assert train.Run(run).config == right


def test_the_plan_of_several_runs(tmp_path):
    config = change(epochs=1, max_steps=1, train_images=20, test_images=20, validation=20, widths=(2,))
    folder = tmp_path / "seeds"
    train.train_seeds(config, 1, folder=folder, dataset=shapes(), progress="none")
    path = folder / "plan.json"
    tried = [(key, kind, False) for key, kind, *_ in cases(json.loads(path.read_text()))]
    contents = written(path, json.loads(path.read_text()))
    once = ((key, kind, False) for key, kind, _ in contents if kind != "int")
    faults = try_all(
        path.name, once, lambda: train.resume_several(folder, dataset=shapes(), progress="none"), lambda _: None
    )
    assert tried
    assert not faults, "\n".join(faults)


def test_the_plan_of_a_sweep(tmp_path):
    config = change(epochs=1, max_steps=1, train_images=20, test_images=20, validation=20, widths=(2,))
    folder = tmp_path / "sweep"
    train.train_sweep(config, {"lr": [0.1], "widths": [(2,)]}, folder=folder, dataset=shapes(), progress="none")
    path = folder / "plan.json"
    contents = written(path, json.loads(path.read_text()))
    once = ((key, kind, False) for key, kind, _ in contents if kind not in ("int", "unknown", "fraction"))

    def go_on():
        overview.overview(tmp_path)
        return train.resume_several(folder, dataset=shapes(), progress="none")

    faults = try_all(path.name, once, go_on, lambda _: None)
    assert not faults, "\n".join(faults)


# What import reads ----------------------------------------------------------------------------------------------------


def _small():
    body = nn.Sequential(nn.Conv(3, 2, 3, pad=1), nn.BatchNorm(2), nn.Relu(), nn.GlobalAveragePool(), nn.Affine(2, 3))
    return nn.Net(body, (3, 4, 4))


FACTS = {"classes": ("a", "b", "c"), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


def _texts(metadata):
    """Yield (path, kind, metadata, may pass) for each entry of a file's metadata, and for all inside those that are JSON."""
    for name, text in metadata.items():
        for kind, wrong in WRONG.items():
            yield (name,), kind, {**metadata, name: dumped(wrong)}, name == "format"
        for kind, wrong in {"no_json": "{", "brackets": "[" * 100_000, "nothing": ""}.items():
            yield (name,), kind, {**metadata, name: wrong}, name == "format"
        if name == "gpuconv":
            for path, kind, wrong, may_pass in cases(json.loads(text)):
                yield path, kind, {**metadata, name: dumped(wrong)}, may_pass or path == ("gpuconv",)


def test_metadata_of_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    net = _small()
    export.to_torch(net, path, **FACTS)
    arrays, metadata = torch_file._read(path)
    assert {*FACTS, "gpuconv"} <= metadata.keys()
    faults = []
    for key, kind, wrong, may_pass in _texts(metadata):
        torch_file.safetensors.numpy.save_file(arrays, path, metadata=wrong)
        read = [lambda: export.from_torch(path), lambda: torch_file.classes_in(path)]
        faults += _imports(
            path.name,
            key,
            kind,
            read,
            free=may_pass or key[0] in ("mean", "std") or (key, kind) == (("classes",), "list_of_text"),
        )
    assert not faults, "\n".join(faults)


def test_metadata_of_onnx(tmp_path):
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "a.onnx"
    export.to_onnx(_small(), path, input="unit", **FACTS)
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert {*FACTS, "gpuconv"} <= metadata.keys()
    from gpuconv.export import onnx_reading

    faults = []
    for key, kind, wrong, may_pass in _texts(metadata):
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, wrong)
        path.write_bytes(model.SerializeToString())
        read = [lambda: export.from_onnx(path), lambda: onnx_reading.classes_in(path)]
        faults += _imports(path.name, key, kind, read, free=may_pass)
    assert not faults, "\n".join(faults)


def test_a_file_that_names_too_few_classes_is_not_imported():
    arguments = SimpleNamespace(file="a.onnx", classes=None, net="config.toml")
    with pytest.raises(
        CheckpointMismatchError, match=r"a\.onnx names 1 classes for 3 scores, x: its metadata are damaged"
    ):
        import_._classes(arguments, _small(), None, ("x",))


def _imports(file, key, kind, read, *, free):
    """Return the faults of functions that read a file one of which at least must refuse it, unless free."""
    faults, refused = [], False
    for function in read:
        try:
            function()
        except GpuconvError as error:
            refused = True
            if file not in str(error) or len(str(error)) > 1500:
                faults.append(f"{file}, {key} {kind}: says only {type(error).__name__}: {str(error)[:300]}")
        except Exception as error:  # noqa: BLE001 - the fault that is looked for
            refused = True
            faults.append(f"{file}, {key} {kind}: {type(error).__name__}: {str(error)[:200]}")
    return faults if refused or free else [*faults, f"{file}, {key} {kind}: taken"]


def test_the_wrong_values_would_be_noticed():
    """A reader that takes everything, and one that raises what it likes, are faults."""
    tried = [(("a",), "none", False)]
    assert try_all("file", tried, lambda: 1, lambda _: None) == ["file, a none: taken"]
    assert "KeyError" in try_all("file", tried, lambda: {}["a"], lambda _: None)[0]
    assert np.isnan(WRONG["not_a_number"])
