"""Scaling by processes: the estimate is what its arithmetic says, and a measurement comes from processes that train."""

import json
from pathlib import Path

import pytest

from bench import scaling
from gpuconv.runs.machine import machine

RESULTS = Path(scaling.__file__).parent / "results"


def test_an_estimate_is_bytes_over_bandwidth_and_messages_that_begin():
    assert len(scaling.estimates()) == len(scaling.STEPS) * len(scaling.LINKS)
    by_ethernet = next(row for row in scaling.estimates() if row.net == "resnet18, 16 bits" and "Ethernet" in row.links)
    size, stretches = 4 * 11_173_962, 11  # of 4 MiB
    exchange = 2 * 7 / 8 * size / (0.75 * 1.25e9) + 2 * stretches * 60e-6
    assert by_ethernet.exchange_ms == pytest.approx(1e3 * exchange)
    step = 5.95e-3 + exchange - 0.6 * 5.95e-3
    assert by_ethernet.step_ms == pytest.approx(1e3 * step)
    assert by_ethernet.images_per_second == pytest.approx(8 * 512 / step)
    assert all(0 < row.efficiency <= 1 for row in scaling.estimates())


def test_what_fits_beside_the_backward_costs_nothing():
    fast = next(row for row in scaling.estimates() if row.net == "resnet18, float32" and "NVLink" in row.links)
    assert (fast.step_ms, fast.efficiency) == (54.2, 1.0)


def test_the_table_shows_each_side_beside_the_first():
    rates = {"1 x 2": [100.0, 120.0, 110.0], "2 x 1": [200.0, 220.0, 240.0]}
    text = scaling.shown({"images_per_second": rates, "other_work": 1.5, "machine": machine()})
    assert "Other processes kept 1.5 cores busy meanwhile." in text
    assert "| 1 | 2 | 110 | 100 to 120 | 1.00 |" in text
    assert "| 2 | 1 | 220 | 200 to 240 | 2.00 |" in text
    assert "Estimated, not measured" in text


def test_the_table_in_the_results_is_made_of_the_json_beside_it():
    for file in RESULTS.glob("scaling-*.md"):
        assert file.read_text() == scaling.shown(json.loads(file.with_suffix(".json").read_text())) + "\n"


@pytest.mark.processes
def test_two_processes_are_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scaling, "_STEPS", 1)
    scaling.scaling(rounds=1, save=tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert all(rate > 0 for rates in found["images_per_second"].values() for rate in rates)
    assert "Estimated, not measured" in capsys.readouterr().out
