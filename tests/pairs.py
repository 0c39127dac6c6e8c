"""Which combinations of its axes a test runs: every pair of values, in every place, but not every combination.

Axes that are independent are not crossed.  A fault shows with one value, or with two that meet: a dtype in a memory
format, a case in a dtype.  So each place that computes, which has code of its own, gets each pair of the other axes'
values; what can go wrong only where three meet is named by the test.
"""

import itertools

import pytest
from places import MARKS, PLACES, Cpu

DEVICES = list(PLACES)
GPUS = [name for name in PLACES if name != Cpu.name]
DTYPES = ["float64", "float32", "float16"]
STORED = ["c_order", "channels_last"]

_PLACES = {"device", "gpu"}  # fixtures of conftest.py, which make of a name what a test needs


def pairs(*, together=(), place=True, **axes):
    """Parametrize a test by rows that hold each pair of values of any two axes, in each place.

    Each axis is a dictionary of named values, or a list of names that are the values; a case's name is made of them.
    `together` holds tuples of axes of which each combination of values is wanted, in each place.  With place=False the
    place is an axis like any other, which meets each value but not each pair: for a test that stands beside others.
    """
    places = tuple(name for name in axes if name in _PLACES)
    alone = places if place else ()
    others = [name for name in axes if name not in alone]
    wanted = list(itertools.combinations(others, min(2, len(others)))) + [tuple(group) for group in together]
    rows = cover({name: list(values) for name, values in axes.items()}, [(*alone, *group) for group in wanted])
    named = [values if isinstance(values, dict) else {value: value for value in values} for values in axes.values()]
    params = [
        pytest.param(
            *(values[name] for values, name in zip(named, row, strict=True)),
            id="-".join(map(str, row)),
            marks=[mark for axis, name in zip(axes, row, strict=True) if axis in places for mark in MARKS[name]],
        )
        for row in rows
    ]
    return pytest.mark.parametrize(tuple(axes), params, indirect=list(places))


def cover(axes, groups):
    """Return rows of one value per axis, as few as are found one after another, sorted as the axes' values are.

    groups are tuples of axes; each combination of the values of a group's axes is in some row.
    """
    names = list(axes)
    sizes = [len(values) for values in axes.values()]
    groups = {tuple(sorted(map(names.index, group))) for group in groups}
    largest_first = sorted(groups, key=lambda group: (-_product(sizes[i] for i in group), group))
    missing = {group: dict.fromkeys(itertools.product(*(range(sizes[i]) for i in group))) for group in largest_first}
    used = [[0] * size for size in sizes]
    rows = []
    for start in largest_first:
        while missing[start]:
            row = dict(zip(start, next(iter(missing[start])), strict=True))
            for axis in range(len(names)):
                if axis not in row:
                    row[axis] = _most_missing(row, axis, used[axis], missing)
            for group, combinations in missing.items():
                combinations.pop(tuple(row[i] for i in group), None)
            for axis, value in row.items():
                used[axis][value] += 1
            rows.append(tuple(row[axis] for axis in range(len(names))))
    values = list(axes.values())
    return [tuple(values[axis][i] for axis, i in enumerate(row)) for row in sorted(rows)]


def _most_missing(row, axis, used, missing):
    """Return the value of an axis that adds most missing combinations to a row; of equals, the one least used."""
    known = row.keys() | {axis}
    closed = [group for group in missing if axis in group and known.issuperset(group)]

    def gain(value):
        new = sum(tuple(value if i == axis else row[i] for i in group) in missing[group] for group in closed)
        return new, -used[value]

    return max(range(len(used)), key=gain)


def _product(numbers):
    result = 1
    for number in numbers:
        result *= number
    return result
