"""The rows that `pairs` makes: everything wanted is there, little else, the same in every process."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pairs import DEVICES, DTYPES, STORED, cover, pairs

AXES = {"case": ["a", "b", "c", "d"], "stored": STORED, "device": DEVICES, "dtype": DTYPES}


def _rows(mark):
    """Return the rows of a parametrization, as dictionaries."""
    names, params = mark.args
    return [dict(zip(names, param.values, strict=True)) for param in params]


def _combinations(rows, *names):
    return {tuple(row[name] for name in names) for row in rows}


@st.composite
def designs(draw):
    """Draw axes of one to seven values, and groups of one to three of them."""
    axes = {name: list(range(draw(st.integers(1, 7)))) for name in "abcde"[: draw(st.integers(1, 5))]}
    group = st.lists(st.sampled_from(list(axes)), min_size=1, max_size=3, unique=True).map(tuple)
    return axes, draw(st.lists(group, min_size=1, max_size=5))


@given(designs())
def test_every_wanted_combination_is_in_some_row(design):
    axes, groups = design
    rows = [dict(zip(axes, row, strict=True)) for row in cover(axes, groups)]
    for group in groups:
        assert _combinations(rows, *group) == set(itertools.product(*(axes[name] for name in group)))


@given(designs())
def test_no_row_is_there_for_nothing(design):
    """Rows are sorted, no two are the same, and each adds a combination to those before it: they cannot be more."""
    axes, groups = design
    rows = cover(axes, groups)
    assert rows == sorted(set(rows))
    sizes = [len(list(itertools.product(*(axes[name] for name in group)))) for group in set(groups)]
    assert max(sizes) <= len(rows) <= sum(sizes)


def test_each_place_gets_each_pair_of_the_others():
    rows = _rows(pairs(**AXES))
    for place in DEVICES:
        here = [row for row in rows if row["device"] == place]
        for a, b in itertools.combinations(("case", "stored", "dtype"), 2):
            assert _combinations(here, a, b) == set(itertools.product(AXES[a], AXES[b]))
    assert len(rows) == 4 * 3 * 3  # a third of them all would be 24: cases in dtypes are 12, in 3 places


def test_a_place_like_any_other_axis_meets_every_value():
    rows = _rows(pairs(**AXES, place=False))
    for a, b in itertools.combinations(AXES, 2):
        assert _combinations(rows, a, b) == set(itertools.product(AXES[a], AXES[b]))
    assert len(rows) < 4 * 3 * 3


def test_what_goes_together_is_crossed_in_each_place():
    rows = _rows(pairs(**AXES, together=[("case", "stored", "dtype")]))
    assert len(rows) == 4 * 2 * 3 * 3


def test_one_axis_in_each_place_is_crossed():
    assert len(_rows(pairs(case=["a", "b"], gpu=["cuda-emulated", "cuda"]))) == 4


def test_cases_are_named_by_their_values_and_places_go_to_their_fixture():
    mark = pairs(case={"one": 1, "two": 2}, device=["cpu"], rate=[0.5])
    assert mark.args[0] == ("case", "device", "rate")
    assert [param.id for param in mark.args[1]] == ["one-cpu-0.5", "two-cpu-0.5"]
    assert [param.values for param in mark.args[1]] == [(1, "cpu", 0.5), (2, "cpu", 0.5)]
    assert mark.kwargs["indirect"] == ["device"]


def test_places_bring_the_marks_by_which_pytest_chooses():
    rows = pairs(case=["a"], device=["cpu", "cuda-emulated", "cuda"]).args[1]
    assert [[mark.name for mark in row.marks] for row in rows] == [[], ["emulated"], ["gpu"]]


def test_an_axis_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="form"):
        pairs(case=["a"], together=[("case", "form")])


def test_rows_are_the_same_in_every_process():
    axes = {**AXES, "layout": list("abcdefghijk")}
    program = f"from pairs import pairs; print([param.id for param in pairs(**{axes}).args[1]])"
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parent,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
