"""Memory transactions and multiply-adds of the kernels, counted in the emulator, against a checked-in table."""

import functools
import json

import pytest
from emulate import LaunchRecord
from emulate.emulator import SiteCounts

from bench import kernel_counters as counters

pytestmark = pytest.mark.ladder

RECORDED = json.loads(counters.TABLE.read_text(encoding="utf-8"))


# Global accesses that need more than a quarter of sectors above the ideal, and why.
SCATTERED: dict[tuple[str, str], str] = {}


@functools.cache
def _measured():
    return counters.measure()


@pytest.mark.compilers
@pytest.mark.ladder
def test_counts_are_as_recorded():
    if counters.compilers() != {name: RECORDED[name] for name in counters.compilers()}:
        pytest.skip(f"recorded with other compilers than {counters.compilers()}")
    lines = counters.differences(RECORDED, _measured())
    assert not lines, "\n".join([*lines, "write the table anew: python -m bench.kernel_counters --write"])


def _traffic():
    for case, kernels in RECORDED["traffic"].items():
        for kernel, kinds in kernels.items():
            for kind, (requests, units, ideal) in kinds.items():
                yield case, kernel.partition("<")[0], kind, requests, units, ideal


def test_recorded_counts_are_possible():
    assert all(0 < ideal <= units and requests <= units for _, _, _, requests, units, ideal in _traffic())


def test_global_memory_is_read_and_written_in_whole_sectors():
    above = {}
    for case, kernel, kind, _, units, ideal in _traffic():
        if kind.startswith("global") and units > 1.25 * ideal and (kernel, kind) not in SCATTERED:
            above[case, kernel, kind] = (units, ideal)
    assert not above


def test_every_exception_is_needed():
    needed = {(kernel, kind) for _, kernel, kind, _, units, ideal in _traffic() if units > 1.25 * ideal}
    assert set(SCATTERED) <= needed


def test_traffic_is_added_up_by_kernel_and_kind():
    sites = [
        SiteCounts("a.cu:1", "global load", 2, 64, 256, 8, 8),
        SiteCounts("a.cu:2", "global load", 1, 32, 128, 32, 4),
        SiteCounts("a.cu:3", "atomic", 1, 32, 128, 32, 4),
    ]
    record = LaunchRecord("k<float>", (1, 1, 1), (32, 1, 1), 0, 0.0, {}, sites, {"fma.rn.f32": 3, "add.s32": 1})
    assert counters.traffic([record]) == {"k<float>": {"global load": [3, 40, 12]}}
    assert counters.multiply_adds([record, record]) == {"k<float>": 0.75}


def test_differences_are_named():
    before = {"traffic": {"case": {"k": {"global load": [1, 2, 2]}}}, "share of multiply-adds": {"k": 0.5}}
    now = {"traffic": {"case": {"k": {"global load": [1, 3, 2]}}}, "share of multiply-adds": {}}
    assert counters.differences(before, now) == [
        "case: k: global load: [1, 3, 2], recorded [1, 2, 2]",
        "k: None, recorded 0.5",
    ]
