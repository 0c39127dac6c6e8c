"""Runs side by side: what differs, by how much, and whether that can be chance."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from train_helpers import TINY, shapes

from gpuconv import cli, data, train
from gpuconv.runs import evaluation, significance
from gpuconv.runs.significance import mcnemar
from gpuconv.train import Run, compare_runs


def go(folder: Path, dataset=None, **settings) -> Run:
    config = dataclasses.replace(TINY, **settings)
    return Run(train.train(config, folder=folder, dataset=dataset or shapes(), progress="none").folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that differ in seed and learning rate."""
    folder = tmp_path_factory.mktemp("runs")
    return [go(folder / "first"), go(folder / "second", seed=1, lr=0.05)]


def text_of(runs) -> str:
    return str(compare_runs(runs))


def changed(run: Run, folder: Path, **values) -> Run:
    """Return a copy of a run whose result.json holds other values."""
    shutil.copytree(run.path, folder)
    path = folder / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return Run(folder)


def block(text: str, start: str) -> list[str]:
    """Return the lines of the block of a comparison that begins with a word."""
    return next(part.splitlines() for part in text.split("\n\n") if part.startswith(start))


# McNemar ------------------------------------------------------------------------------------------------------------

COUNTS = {
    "none": (0, 0, 1.0),
    "one": (1, 0, 1.0),
    "even": (5, 5, 1.0),
    "six_to_none": (6, 0, 2 / 2**6),
    "ten_to_two": (10, 2, 2 * (1 + 12 + 66) / 2**12),
    "two_to_ten": (2, 10, 2 * (1 + 12 + 66) / 2**12),
}


@pytest.mark.parametrize(("first", "second", "p"), COUNTS.values(), ids=COUNTS.keys())
def test_p_is_the_binomial_share_of_counts_as_uneven(first, second, p):
    a = np.array([True] * first + [False] * second + [True, False])
    b = np.array([False] * first + [True] * second + [True, False])
    found = mcnemar(a, b)
    assert (found.only_first, found.only_second) == (first, second)
    assert found.p == p


def test_p_of_large_counts_is_that_of_the_normal_curve():
    found = mcnemar(np.arange(10_000) < 5150, np.arange(10_000) >= 5150)
    # With the correction for continuity; what is left is of the order of 1 / count, relative to p.
    z = (abs(5150 - 4850) - 1) / math.sqrt(10_000)
    assert found.p == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)


def test_p_of_the_most_uneven_counts_does_not_overflow():
    assert mcnemar(np.ones(10_000, bool), np.zeros(10_000, bool)).p == 0.0


# Welch --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5, 12.7062, 100.0])
def test_student_s_distribution_is_that_of_its_closed_forms(t):
    assert significance._beyond(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-7)
    assert significance._beyond(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t**2), abs=1e-7)
    assert significance._beyond(t, 1e7) == pytest.approx(math.erfc(t / math.sqrt(2)), abs=1e-6)


def test_means_of_unequal_spreads_are_told_apart_by_their_degrees_of_freedom():
    first, second = [0.80, 0.82, 0.81, 0.83], [0.70, 0.90]
    parts = [np.var(values, ddof=1) / len(values) for values in (first, second)]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2)
    t = abs(np.mean(second) - np.mean(first)) / math.sqrt(sum(parts))
    found = significance.welch(first, second)
    assert found.difference == pytest.approx(np.mean(second) - np.mean(first))
    assert found.p == pytest.approx(significance._beyond(t, freedom), rel=1e-9)
    assert found.p == significance.welch(second, first).p
    assert significance.welch([0.5, 0.51, 0.49], [0.8, 0.81, 0.79]).p < 1e-4


def test_one_run_or_runs_that_are_alike_say_nothing_of_chance():
    assert significance.welch([0.5], [0.6, 0.7]).p is None
    assert significance.welch([0.5, 0.5], [0.6, 0.6]).p is None


# As data, and in a notebook -----------------------------------------------------------------------------------------


def test_a_comparison_is_data(runs):
    found = compare_runs(runs)
    for row, run in zip(found.rows, runs, strict=True):
        result = run.result
        assert row == {
            "name": run.name,
            "state": run.state,
            "standard_error": math.sqrt(result["test_accuracy"] * (1 - result["test_accuracy"]) / 60),
            **{
                name: result[name]
                for name in (
                    *("test_accuracy", "validation_accuracy", "best_epoch", "epochs", "seconds"),
                    *("images_per_second", "parameters"),
                )
            },
        }
    assert found.settings == {"seed": [0, 1], "lr": [0.02, 0.05]}
    (pair,) = found.pairs
    assert (pair["name"], pair["images"]) == ("second", 60)
    difference = runs[1].result["test_accuracy"] - runs[0].result["test_accuracy"]
    assert pair["points"] == pytest.approx(100 * difference)
    assert pair["only_second"] - pair["only_first"] == round(60 * difference)
    assert list(found.classes) == list(shapes().classes)
    first = runs[0].result["test_accuracy_by_class"]
    assert [shares[0] for shares in found.classes.values()] == list(first.values())


def test_a_comparison_of_a_run_that_goes_on_has_what_is_known(runs, tmp_path):
    shutil.copytree(runs[0].path, tmp_path / "open")
    (tmp_path / "open" / "result.json").unlink()
    row = compare_runs([runs[0], Run(tmp_path / "open")]).rows[1]
    assert row["validation_accuracy"] == max(line["validation_accuracy"] for line in runs[0].metrics)
    assert (row["test_accuracy"], row["best_epoch"], row["images_per_second"]) == (None, None, None)
    assert row["state"].startswith("not finished")


def test_a_comparison_shows_as_tables_with_what_the_text_says(runs):
    found = compare_runs(runs)
    html = found._repr_html_()
    tables = [
        [re.findall(r"<t[dh]>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", table)]
        for table in re.findall(r"<table>(.*?)</table>", html)
    ]
    assert [len(table) for table in tables] == [3, 3, 11]
    text = str(found)
    for table, start in zip(tables, ("run ", "setting", "class"), strict=True):
        lines = block(text, start)
        assert re.split(r" {2,}", lines[0].strip()) == table[0]
        assert [" ".join(cells).split() for cells in table] == [line.split() for line in lines[:1] + lines[2:]]
    for line in block(text, "second against"):
        assert line.strip() in html


# The text -----------------------------------------------------------------------------------------------------------


def test_only_the_settings_that_differ_are_shown(runs):
    lines = block(text_of(runs), "setting")
    assert [line.split() for line in lines[2:]] == [["seed", "0", "1"], ["lr", "0.02", "0.05"]]
    assert "settings: all the same" in text_of([runs[0], runs[0]])


def test_outcomes_come_with_their_standard_error(runs):
    lines = block(text_of(runs), "run ")
    for line, run in zip(lines[2:], runs, strict=True):
        share = run.result["test_accuracy"]
        name, test, error, validation, *_ = line.split()
        assert (name, test) == (run.name, f"{share:.2%}")
        assert error == f"{math.sqrt(share * (1 - share) / 60):.2%}"
        assert validation == f"{run.result['validation_accuracy']:.2%}"


def test_runs_on_the_same_images_are_tested_in_pairs(runs, tmp_path):
    right = np.zeros((2, 60), bool)
    right[0, :20], right[1, 10:45] = True, True  # 10 only the first, 25 only the second
    pair = [
        changed(run, tmp_path / run.name, test_right=evaluation.pack_bits(bits), test_accuracy=float(bits.mean()))
        for run, bits in zip(runs, right, strict=True)
    ]
    text = "\n".join(block(text_of(pair), "second against"))
    assert "second against first: +25.00 points of accuracy on 60 test images" in text
    assert "25 only second recognised, 10 only first" in text
    assert "McNemar p = 0.017: on these test images the difference is more than chance" in text
    again = "\n".join(block(text_of([pair[0], pair[0]]), str(pair[0].path)))
    assert "McNemar p = 1: on these test images the difference can be chance" in again


def test_data_that_are_not_the_same_are_pointed_out(runs, tmp_path):
    other = go(tmp_path / "other", data.draw_shapes(300, 100, seed=1))
    text = text_of([runs[0], other])
    assert "data: NOT the same" in text
    assert other.facts["data"] in text
    assert "McNemar" not in text
    assert "points of accuracy" not in text


def test_runs_of_other_numbers_of_test_images_are_tested_on_those_they_share(runs, tmp_path):
    fewer = go(tmp_path / "fewer", test_images=50)  # the same net
    text = text_of([runs[0], fewer])
    assert "fewer against first: +0.00 points of accuracy on 50 test images\n  0 only fewer" in text
    assert "but not as many test images" in " ".join(text.split())


def test_classes_are_compared_one_by_one(runs):
    lines = block(text_of(runs), "class")
    shares = [run.result["test_accuracy_by_class"] for run in runs]
    assert [line.split()[0] for line in lines[2:]] == list(shapes().classes)
    for line in lines[2:]:
        name, first, second, change = line.split()
        assert (first, second) == tuple(f"{each[name]:.1%}" for each in shares)
        assert change == f"{100 * (shares[1][name] - shares[0][name]):+.1f}"


def test_of_many_classes_the_most_different_are_shown(runs, tmp_path):
    shares = [{f"c{n}": 0.5 for n in range(30)}, {f"c{n}": 0.5 + n / 100 for n in range(30)}]
    pair = []
    for run, of in zip(runs, shares, strict=True):
        confusion = np.zeros((30, 30), int)
        confusion[0, 0] = run.result["test_images"]
        facts = {"classes": list(of), "confusion": confusion.tolist(), "mistakes": []}
        pair.append(changed(run, tmp_path / run.name, test_accuracy_by_class=of, **facts))
    lines = block(text_of(pair), "class")
    assert [line.split()[0] for line in lines[2:22]] == [f"c{n}" for n in range(29, 9, -1)]
    assert lines[22] == "(the 20 of 30 classes that differ most)"


def test_unfinished_runs_and_runs_without_validation_can_be_compared(runs, tmp_path):
    shutil.copytree(runs[0].path, tmp_path / "open")
    (tmp_path / "open" / "result.json").unlink()
    bare = go(tmp_path / "bare", validation=0)
    text = text_of([runs[0], Run(tmp_path / "open"), bare])
    assert "open: not finished, 2 of 2 epochs done" in text
    assert "bare against first" in text
    assert "open against first" not in text


def test_a_run_that_records_no_data_is_named(runs, tmp_path):
    (tmp_path / "old").mkdir()
    shutil.copy(runs[0].path / "config.toml", tmp_path / "old")
    assert "data: not recorded by old" in text_of([runs[0], Run(tmp_path / "old")])


# The command --------------------------------------------------------------------------------------------------------


def test_the_command_compares_and_saves_the_curves(runs, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    code = cli.main(["compare", *(str(run.path) for run in runs), "--save", str(tmp_path / "x.png")])
    out = capsys.readouterr().out
    assert code == 0
    assert out.startswith(text_of(runs))
    assert out.endswith("x.png is written\n")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
