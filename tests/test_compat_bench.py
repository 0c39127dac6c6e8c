"""The script for the speed cells: it measures what it says, and nothing that is wrong."""

import pytest

from bench import course_speed
from gpuconv import backend


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with backend.using("cpu"):
        yield


def test_every_speed_cell_is_measured_beside_what_notebooks_print():
    found = course_speed.measure(2, naive=False)
    assert set(found) == set(course_speed.cells())
    assert set(course_speed.PUBLISHED) - {"speed-ups"} <= set(found)
    for row in found.values():
        low, high = row["quartiles_ms"]
        assert 0 < low <= row["fast_ms"] <= high


def test_naive_calls_are_compared(monkeypatch):
    fast, naive = course_speed.cells()["pool forward"]
    monkeypatch.setattr(course_speed, "cells", lambda: {"pool forward": (fast, naive)})
    row = course_speed.measure(2, naive=True)["pool forward"]
    assert row["difference"] == 0
    assert row["speed_up"] == row["naive_ms"] / row["fast_ms"]


def test_a_wrong_result_is_not_timed(monkeypatch):
    right = course_speed.cells()["conv forward"][0]
    monkeypatch.setattr(course_speed, "cells", lambda: {"conv forward": (lambda: right() + 1e-3, None)})
    with pytest.raises(SystemExit, match="conv forward is wrong"):
        course_speed.measure(2, naive=False)
