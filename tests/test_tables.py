"""Tables as text: columns stay columns, whatever letters are in them."""

from __future__ import annotations

import dataclasses

import pytest
from rich.cells import cell_len
from train_helpers import TINY, shapes

from gpuconv import cli, data, tables, train

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
    table = capsys.readouterr().out.splitlines()[3:-2]
    assert len(table) == len(names)
    assert len({cell_len(line) for line in table}) == 1
