"""Tables as text: columns stay columns, whatever letters are in them."""

from __future__ import annotations

import dataclasses
import sys

import pytest
from rich.cells import cell_len
from train_helpers import TINY, shapes

from gpuconv import cli, data, tables, train
from gpuconv.plural import counted
from gpuconv.show import compare, screen, words

NAMES = ("cat", "\u732b", "cafe\u0301", "\uff21\uff22", "\ud55c\uad6d\uc5b4", "na\u00efve", "\u200bx", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_text_is_as_wide_as_a_terminal_shows_it(name):
    assert tables.width(name) == cell_len(name)
    assert cell_len(tables.padded(name, 12)) == 12


def test_columns_begin_where_they_begin():
    lines = tables.columns([[name, "1", name, "2"] for name in NAMES], numbers=1)
    assert len({cell_len(line) for line in lines}) == 1


def test_classes_of_wide_letters_stand_in_columns(tmp_path, monkeypatch, capsys):
    small = shapes()
    names = tuple(NAMES[number] if number < 6 else f"c{number}" for number in range(len(small.classes)))
    dataset = dataclasses.replace(small, classes=names)
    monkeypatch.setattr(data, "load", lambda name, **_: dataset)
    assert cli.main(["data", "show", "shapes"]) == 0
    table = capsys.readouterr().out.splitlines()[6:]
    assert len({cell_len(line) for line in table}) == 1
    train.train(dataclasses.replace(TINY, max_steps=1), folder=tmp_path / "run", dataset=dataset, progress="none")
    assert cli.main(["eval", str(tmp_path / "run")]) == 0
    table = capsys.readouterr().out.splitlines()[4 : 4 + len(names)]
    assert len({cell_len(line) for line in table}) == 1


def test_columns_that_do_not_fit_follow_below():
    rows = [["setting", "first", "second", "third"], ["lr", "0.1", "0.2", "0.3"]]
    whole = ["setting  first  second  third", "-" * 29, "lr         0.1     0.2    0.3"]
    assert tables.ruled(rows) == tables.ruled(rows, 29) == whole
    first, second, third = (tables.ruled([[row[0], row[place]] for row in rows]) for place in (1, 2, 3))
    assert tables.ruled(rows, 28) == [*tables.ruled([row[:3] for row in rows]), "", *third]
    assert tables.ruled(rows, 3) == [*first, "", *second, "", *third]  # one beside the first, however narrow


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_are_broken_between_words_where_a_terminal_would_break_them_anywhere(terminal, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "12")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    screen.say(["one two three", "a  b\n\nfour five six"])
    whole = ["one two three", "a  b", "", "four five six"]
    assert capsys.readouterr().out.splitlines() == (
        ["one two", "three", "a  b", "", "four five", "six"] if terminal else whole
    )


WRAPPED = {
    "short": ("a b", ["a b"]),
    "nothing": ("", [""]),
    "at_spaces": ("one two three four", ["one two", "three", "four"]),
    "two_spaces_stay": ("a  b", ["a  b"]),
    "last_spaces_go": ("a b  ", ["a b"]),
    "last_spaces_of_a_full_line_go": ("abcdefgh ", ["abcdefgh"]),
    "first_spaces_stay": ("  a b", ["  a b"]),
    "other_spaces": ("a\tb\nc", ["a b c"]),
    "long_word": ("a abcdefghij b", ["a", "abcdefgh", "ij b"]),
    "wide_letters": ("\u732b" * 5, ["\u732b" * 4, "\u732b"]),
    "wide_words": ("\u732b\u732b \u732b\u732b", ["\u732b\u732b", "\u732b\u732b"]),
}


@pytest.mark.parametrize(("text", "lines"), WRAPPED.values(), ids=WRAPPED.keys())
def test_a_text_is_broken_where_its_line_is_full(text, lines):
    assert tables.wrapped(text, 8) == lines


def test_lines_after_the_first_may_be_indented():
    assert tables.wrapped("one two three", 8, indent="  ") == ["one two", "  three"]
    assert tables.wrapped("abcdefghij", 8, indent="  ") == ["abcdefgh", "  ij"]


def test_facts_of_wide_letters_fit_80_columns():
    lines = words.labelled([("run", "/home/" + "\u732b" * 60), ("\u732b", "cat")])
    assert [cell_len(line) <= 80 for line in lines] == [True] * 3
    assert cell_len(lines[-1]) == 12  # the text begins in the tenth column


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, ("epoch",), "0 epochs"),
        (1, ("epoch",), "1 epoch"),
        (2, ("epoch",), "2 epochs"),
        (5000, ("image",), "5,000 images"),
        (1, ("class", "classes"), "1 class"),
        (3, ("class", "classes"), "3 classes"),
    ],
)
def test_a_count_has_its_noun_in_number(count, noun, text):
    assert counted(count, *noun) == text


def test_a_run_of_one_of_everything_is_told_in_the_singular(monkeypatch):
    monkeypatch.setattr(words, "machine", lambda: {"threads": 1})
    about = {
        **dict.fromkeys(("training_images", "validation_images", "test_images", "epochs", "steps", "parameters"), 1),
        "data": "x",
    }
    facts = dict(words.facts(dataclasses.replace(TINY, batch_size=1, crop=1, cutout=1), about))
    assert "the CPU with 1 thread, seed" in facts["gpuconv"]
    assert facts["net"].endswith("1 parameter")
    assert facts["recipe"].startswith("1 epoch of 1 step of 1 image; ")
    assert facts["recipe"].endswith("shifts up to 1 pixel and squares of 1 pixel cut out")


def test_a_comparison_fits_80_columns_at_the_names_runs_get(tmp_path):
    runs = []
    for number in (1, 2):
        folder = tmp_path / f"convnet-{number}"
        train.train(
            dataclasses.replace(TINY, max_steps=1, seed=number), folder=folder, dataset=shapes(), progress="none"
        )
        run = train.Run(folder)
        run.result.update(test_images=10_000, seconds=3599.0, images_per_second=12_345.6, parameters=11_173_962)
        runs.append(run)
    lines = str(compare.compare_runs(runs)).splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert lines[0].split() == ["run", "test", "\u00b1", "validation", "best", "time", "images/s", "parameters"]
    assert lines[2].split()[0] == "convnet-1"
    assert "59 min 59 s" in lines[2]
