"""Values of settings, each trained: refused before anything begins, gone on with after any end, compared at the end."""

from __future__ import annotations

import json
import signal

import pytest
from train_helpers import assert_same_run, change, names, shapes

from gpuconv import cli, train
from gpuconv.errors import ConfigError
from gpuconv.runs.folder import in_order, members
from gpuconv.runs.settings import read
from gpuconv.show import sides
from gpuconv.train import Run, Stepper, Sweep, several

SHORT = change(max_steps=2)
NET = """
[[layer]]
kind = "affine"
"""


def sweep(folder, values, seeds=1, config=SHORT) -> Sweep:
    return train.train_sweep(config, values, seeds=seeds, folder=folder, dataset=shapes(), progress="none")


@pytest.fixture(scope="module")
def rates(tmp_path_factory):
    """Two rates with two seeds each."""
    return sweep(tmp_path_factory.mktemp("sweep") / "rates", {"lr": [0.1, 0.02]}, seeds=2)


@pytest.fixture
def gpuconv(capsys):
    def run(*arguments):
        return (cli.main([str(argument) for argument in arguments]), *capsys.readouterr())

    return run


def test_each_run_is_the_one_that_its_settings_give_alone(rates, tmp_path):
    assert [path.name for path in members(rates.folder)] == [
        f"lr={rate},seed-{seed}" for rate in ("0.02", "0.1") for seed in (0, 1)
    ]
    alone = train.train(
        change(max_steps=2, lr=0.1, seed=1), folder=tmp_path / "alone", dataset=shapes(), progress="none"
    )
    assert_same_run(rates.folder / "lr=0.1,seed-1", alone.folder)


def test_the_plan_and_the_record_say_what_was_tried(rates):
    assert json.loads((rates.folder / "plan.json").read_text()) == {"count": 2, "sweep": {"lr": [0.1, 0.02]}}
    record = json.loads((rates.folder / "sweep.json").read_text())
    assert [(run["settings"]["lr"], run["seed"]) for run in record["runs"]] == [
        (0.1, 0),
        (0.1, 1),
        (0.02, 0),
        (0.02, 1),
    ]
    assert [run["test_accuracy"] for run in record["runs"]] == [result.test_accuracy for result in rates.results]
    for number, combination in enumerate(record["combinations"]):
        both = rates.results[2 * number : 2 * number + 2]
        mean = sum(result.test_accuracy for result in both) / 2
        assert combination["statistics"]["test_accuracy"]["mean"] == pytest.approx(mean)
    assert not {"lr", "seed"} & record["config"].keys()


def test_the_best_has_the_highest_mean_validation(rates):
    means = [sum(result.validation_accuracy for result in rates.results[start : start + 2]) / 2 for start in (0, 2)]
    assert rates.best == {"lr": [0.1, 0.02][means.index(max(means))]}
    assert rates._repr_html_().count("<tr>") == 3


def test_without_validation_there_is_no_best(tmp_path):
    found = sweep(tmp_path / "all", {"lr": [0.1, 0.02]}, config=change(max_steps=1, validation=0))
    with pytest.raises(ConfigError, match="have no validation images"):
        assert found.best


def test_an_interrupted_sweep_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    values, real, calls = {"lr": [0.1, 0.02], "batch_size": [20, 40]}, Stepper.step, []

    def stops(self, *arguments):
        calls.append(None)
        if len(calls) == 4:  # in the second run
            signal.raise_signal(signal.SIGTERM)
        real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", stops)
        with pytest.raises(train.Interrupted, match=r"to go on: gpuconv train --resume .*all$"):
            sweep(tmp_path / "all", values)
    found = train.resume_several(tmp_path / "all", dataset=shapes(), progress="none")
    whole = sweep(tmp_path / "whole", values)
    assert isinstance(found, Sweep)
    assert found.values == whole.values
    assert len(whole.results) == 4
    for one, other in zip(found.results, whole.results, strict=True):
        assert_same_run(one.folder, other.folder)


def test_nets_of_files_are_tried_from_copies(tmp_path):
    for name in ("one.toml", "config.toml"):
        (tmp_path / name).write_text(NET)
    found = sweep(tmp_path / "all", {"net": [str(tmp_path / "one.toml"), str(tmp_path / "config.toml"), "convnet"]})
    assert {"one.toml", "net-config.toml", "net=one.toml", "net=net-config.toml"} <= {*names(found.folder)}
    (tmp_path / "one.toml").unlink()
    assert train.resume_several(found.folder, dataset=shapes(), progress="none").values == found.values
    assert read(found.folder / "net=one.toml" / "config.toml").net.endswith("one.toml")


WRONG = {
    "no_values": ({"lr": []}, "needs values to try for lr"),
    "a_value_alone": ({"lr": 0.1}, "needs values to try for lr, in a list, got 0.1"),
    "unknown_setting": ({"rate": [0.1]}, "setting 'rate' is not known"),
    "value_of_another_kind": ({"lr": [0.1, "fast"]}, "lr must be"),
    "value_out_of_range": ({"momentum": [0.9, 2.0]}, "momentum must be"),
    "the_same_twice": ({"lr": [0.1, 0.10]}, "values that differ, got lr=0.1 twice"),
    "seeds": ({"seed": [1, 2]}, "takes no seed: seeds=N"),
    "data": ({"data": ["shapes", "cifar10"]}, "takes no data: all of its runs share that"),
    "the_second_cannot_be_trained": ({"widths": [(4,), (2,) * 6]}, "6 stages halve the image 6 times"),
    "the_second_batch_has_too_many_parts": ({"accumulate": [1, 3]}, "accumulate must divide batch_size"),
    "a_net_without_its_file": ({"net": ["convnet", "none.toml"]}, "net none.toml: it could not be read"),
    "a_net_in_a_folder_of_a_strange_name": ({"net": ["a,b.toml"]}, "net=a,b.toml cannot be one"),
    "nothing": ({}, "needs settings and values to try"),
    "too_many_runs": ({"lr": [n / 1000 for n in range(1, 200)], "batch_size": [*range(1, 60)]}, "10,000 runs at most"),
}


@pytest.mark.parametrize(("values", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_swept_leaves_nothing(values, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        sweep(tmp_path / "all", values)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "text", ["{}", '{"count": 0}', '{"count": 1, "sweep": {"lr": []}}', '{"count": 1, "sweep": {"x": [1]}}']
)
def test_a_damaged_plan_is_named(text, rates, tmp_path):
    (tmp_path / "plan.json").write_text(text)
    (tmp_path / "config.toml").write_bytes((rates.folder / "config.toml").read_bytes())
    with pytest.raises(ConfigError, match=r"plan\.json does not say which runs"):
        train.resume_several(tmp_path)


# The command --------------------------------------------------------------------------------------------------------

FLAGS = [
    *("--widths", "4", "--batch-size", "20", "--data", "shapes", "--max-steps", "1", "--progress", "plain"),
    *("--validation", "100", "--train-images", "200", "--test-images", "60"),
]


def test_the_command_ends_in_a_table_of_all(gpuconv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = gpuconv("train", *FLAGS, "--sweep", "lr=0.01,0.03", "--sweep", "batch-size=20")
    assert (code, out) == (2, "")
    assert "leave out --batch-size" in err
    code, out, err = gpuconv("train", *FLAGS, "--sweep", "lr=0.01,0.03", "--sweep", "nesterov=yes,no")
    assert (code, err) == (0, "")
    folder = tmp_path / "runs" / "convnet-sweep-1"
    wanted = sides.outcomes(sides.sides_of([folder]))
    assert wanted in out
    assert [line.split()[0] for line in wanted.splitlines()[2:]] == [
        f"lr={rate},nesterov={word}" for rate in ("0.01", "0.03") for word in ("no", "yes")
    ]
    assert "best by validation: lr 0.0" in out
    assert out.endswith("side by side: gpuconv compare runs/convnet-sweep-1\n")


BAD = {
    "no_values": (["--sweep", "lr"], "expected a setting and values with commas between them"),
    "no_value": (["--sweep", "lr="], "expected a setting and values"),
    "unknown": (["--sweep", "learning-rate=1,2"], "setting 'learning_rate' is not known; did you mean \"lr\"?"),
    "words_for_numbers": (["--sweep", "lr=slow,fast"], "lr takes no such values: could not convert string to float"),
    "not_yes_or_no": (["--sweep", "flip=true"], "expected yes or no, got 'true'"),
    "twice": (["--sweep", "lr=1,2", "--sweep", "lr=3"], "leave out another --sweep lr="),
    "given": (["--sweep", "lr=1,2", "--lr", "3"], "leave out --lr"),
    "dry": (["--sweep", "lr=1,2", "--dry-run"], "--dry-run leaves no run behind: leave out --sweep"),
    "resumed": (["--sweep", "lr=1,2", "--resume", "x"], "leave out --sweep"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_a_wrong_sweep_exits_with_2(arguments, message, gpuconv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = gpuconv("train", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert names(tmp_path) == []


def test_values_are_of_the_kind_of_their_setting():
    from gpuconv.cli.train import _swept

    assert _swept("lr=0.01,1e-3") == ("lr", [0.01, 0.001])
    assert _swept("--batch-size=64,128") == ("batch_size", [64, 128])
    assert _swept("widths=32:64,128") == ("widths", [(32, 64), (128,)])
    assert _swept("flip=no,yes") == ("flip", [False, True])
    assert [several.in_name(value) for value in (0.01, 1e-5, 64, (32, 64), False, "a/b.toml")] == [
        *("0.01", "1e-05", "64", "32:64", "no", "b.toml")
    ]


# Side by side -------------------------------------------------------------------------------------------------------


def test_runs_are_in_the_order_of_their_numbers():
    wanted = ["lr=0.003,seed-0", "lr=0.03,seed-2", "lr=0.03,seed-10", "lr=0.1", "net=vgg", "seed-9", "seed-10"]
    assert sorted({*wanted}, key=in_order) == wanted


def test_a_sweep_with_seeds_is_compared_by_its_combinations(rates, gpuconv):
    code, out, _ = gpuconv("compare", rates.folder)
    assert code == 0
    means = {}
    for rate, both in (("0.1", rates.results[:2]), ("0.02", rates.results[2:])):
        means[rate] = sum(result.test_accuracy for result in both) / 2
        assert f"lr={rate}" in out
        assert f"{means[rate]:.2%}" in out
    change = 100 * (means["0.1"] - means["0.02"])
    assert f"lr=0.1 against lr=0.02: {change:+.2f} points of accuracy, 2 against 2 runs" in out
    assert "Welch's t-test, p = " in out
    lines = next(part.splitlines() for part in out.split("\n\n") if part.startswith("settings"))
    assert [line.split() for line in lines[2:]] == [["lr=0.02", "0.02"], ["lr=0.1", "0.1"]]


def test_a_group_stands_beside_a_run(rates, gpuconv, tmp_path):
    alone = train.train(SHORT, folder=tmp_path / "alone", dataset=shapes(), progress="none")
    code, out, _ = gpuconv("compare", alone.folder, rates.folder, "--json")
    assert code == 0
    document = json.loads(out)
    assert [side["name"] for side in document["sides"]] == ["alone", "rates/lr=0.02", "rates/lr=0.1"]
    assert [len(side["runs"]) for side in document["sides"]] == [1, 2, 2]
    first, mean = document["sides"][0], document["sides"][1]
    assert first["test_accuracy"] == alone.test_accuracy
    assert mean["test_accuracy"] == pytest.approx(sum(result.test_accuracy for result in rates.results[2:]) / 2)
    assert document["against_the_first"][0]["difference"] == pytest.approx(mean["test_accuracy"] - alone.test_accuracy)
    assert document["against_the_first"][0]["p"] is None
    accuracies = [result.test_accuracy for result in rates.results[2:]]
    assert mean["uncertainty"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
    share = alone.test_accuracy
    assert first["uncertainty"] == pytest.approx((share * (1 - share) / 60) ** 0.5)
    said = " ".join(gpuconv("compare", alone.folder, rates.folder)[1].split())
    assert "nothing says whether that can be chance" in said


def test_single_runs_as_json_are_told_from_chance_by_their_images(rates, gpuconv):
    one, other = (result.folder for result in rates.results[:2])
    document = json.loads(gpuconv("compare", one, other, "--json")[1])
    (held,) = document["against_the_first"]
    assert held["test"] == "McNemar"
    assert 0 < held["p"] <= 1
    assert document["sides"][0]["settings"] == {"seed": 0}
    assert document["sides"][1]["settings"] == {"seed": 1}


def test_other_data_are_not_compared(rates, tmp_path):
    from gpuconv import data

    other = train.train(SHORT, folder=tmp_path / "other", dataset=data.draw_shapes(300, 100, seed=1), progress="none")
    found = sides.sides_of([other.folder, rates.folder], Run)
    assert "data: NOT the same" in sides.compare_sides(found)
    assert "points of accuracy" not in sides.compare_sides(found)
    assert sides.values(found)["against_the_first"][0]["difference"] is None


def test_runs_of_a_group_that_have_not_ended_are_counted(rates, tmp_path):
    import shutil

    shutil.copytree(rates.folder, tmp_path / "rates")
    (tmp_path / "rates" / "lr=0.1,seed-1" / "result.json").unlink()
    text = sides.compare_sides(sides.sides_of([tmp_path / "rates"]))
    assert "lr=0.1: 1 of 2 runs finished" in text


# eval of several ----------------------------------------------------------------------------------------------------


def test_eval_of_a_group_has_each_run_the_mean_and_the_deviation(rates, gpuconv, monkeypatch):
    from gpuconv import data

    seen = []
    monkeypatch.setattr(data, "load", lambda name, **_: seen.append(name) or shapes())
    code, out, err = gpuconv("eval", rates.folder, "--test-images", 60)
    assert (code, err) == (0, "")
    assert len(seen) == 1  # the pictures of all are read once
    shares = [result.test_accuracy for result in rates.results]
    lines = {line.split()[0]: line.split()[1] for line in out.splitlines()[2:] if len(line.split()) > 1}
    for path, result in zip(members(rates.folder), rates.results[2:] + rates.results[:2], strict=True):
        assert lines[path.name] == f"{result.test_accuracy:.2%}"
    assert lines["mean"] == f"{sum(shares) / 4:.2%}"
    document = json.loads(gpuconv("eval", rates.folder, "--test-images", 60, "--json")[1])
    assert document["statistics"]["accuracy"]["mean"] == pytest.approx(sum(shares) / 4)
    assert [run["images"] for run in document["runs"]] == [60] * 4


def test_eval_of_a_group_without_checkpoints_says_how_to_go_on(gpuconv, tmp_path):
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "plan.json").write_text('{"count": 1}')
    code, out, err = gpuconv("eval", tmp_path)
    assert (code, out) == (2, "")
    assert f"no run in {tmp_path} has a best checkpoint yet: gpuconv train --resume {tmp_path}" in err
