"""Memory transactions and multiply-adds of the kernels, counted in the emulator, against a checked-in table."""

import functools
import json

import pytest
from emulate import LaunchRecord
from emulate.emulator import SiteCounts

from gpuconv.cuda.kernel import Kernel
from tests.ladder import kernel_counters as counters

RECORDED = json.loads(counters.TABLE.read_text(encoding="utf-8"))


# Global accesses that need more than a quarter of sectors above the ideal, and why.
_TWO_PACKS = "a thread has random bits for 32 bytes, two accesses: the second finds its half of the sectors in a cache"
_STRIDE = "a stride of 2 takes every second pixel of a row; the next tap finds the others in the L1 cache"
_TURNED = "turns (filters, channels, taps) round; filters are small beside images, and the larger side is coalesced"
_THREE = "3 channels: rows of 12 or 108 bytes do not end with a sector"
_ONE = "1 channel of 27 taps: rows of 108 bytes do not end with a sector"
_APART = "windows side by side begin some pixels apart; the next pixel of each finds the others in the L1 cache"
_FEWER = "of a row fewer pixels are read than results are written; the next one finds them in the L1 cache"
SCATTERED: dict[tuple[str, str], str] = {
    ("dropout_forward", "global load"): _TWO_PACKS,
    ("dropout_forward", "global store"): _TWO_PACKS,
    ("max_pool_forward_direct", "global load"): _STRIDE,
    ("average_pool_forward_direct", "global load"): _STRIDE,
    ("adaptive_average_pool_forward_direct", "global load"): _APART,
    (
        "adaptive_average_pool_backward_direct",
        "global load",
    ): "pixels side by side read the gradient of a window together",
    ("upsample_forward_nearest", "global load"): _FEWER,
    ("upsample_forward_linear", "global load"): _FEWER,
    ("upsample_backward_nearest", "global load"): _STRIDE,
    ("upsample_backward_linear", "global load"): _STRIDE,
    ("max_pool_volume_forward_direct", "global load"): _STRIDE,
    ("average_pool_volume_forward_direct", "global load"): _STRIDE,
    ("max_pool_volume_backward_direct", "global load"): "dy is read by those channels alone whose maximum is here",
    ("conv_forward_tiled", "global load"): _STRIDE,
    ("conv_backward_weight_tiled", "global load"): _STRIDE,
    ("conv_backward_weight_tiled", "global store"): _THREE,
    ("conv_backward_data_tiled", "global store"): "a phase of the stride writes every second pixel of a row of dx",
    ("conv_backward_data_direct", "global load"): _THREE,
    ("conv_forward_few", "global load"): _THREE,
    ("conv_volume_forward_tiled", "global load"): _STRIDE,
    ("conv_volume_backward_weight_tiled", "global load"): _STRIDE,
    ("conv_volume_backward_weight_tiled", "global store"): _ONE,
    (
        "conv_volume_backward_data_tiled",
        "global store",
    ): "a phase of the stride writes every second voxel of a row of dx",
    ("conv_volume_backward_data_direct", "global load"): "rows of 8 voxels, shifted by a tap, begin within a sector",
    ("conv_pack_filters", "global load"): _TURNED,
    ("conv_backward_sum", "global store"): _TURNED,
    ("batchnorm_backward_sums", "global load"): "the case has an odd number of channels",
}


@functools.cache
def _measured():
    return counters.measure()


@pytest.mark.compilers
@pytest.mark.ladder
def test_counts_are_as_recorded():
    if counters.compilers() != {name: RECORDED[name] for name in counters.compilers()}:
        pytest.skip(f"recorded with other compilers than {counters.compilers()}")
    lines = counters.differences(RECORDED, _measured())
    assert not lines, "\n".join([*lines, "write the table anew: python -m tests.ladder.kernel_counters --write"])


# A call of each of the ways to go through memory: in packs, with shared tiles, turned from one format into another.
QUICK = ("dropout", "spatial_batchnorm", "copy between formats")


@pytest.mark.compilers
def test_counts_of_some_calls_are_as_recorded():
    if counters.compilers() != {name: RECORDED[name] for name in counters.compilers()}:
        pytest.skip(f"recorded with other compilers than {counters.compilers()}")
    measured = counters.traffic_of(QUICK)
    recorded = {name: RECORDED["traffic"][name] for name in measured}
    lines = counters.differences({"traffic": recorded}, {"traffic": measured})
    assert not lines, "\n".join([*lines, "write the table anew: python -m tests.ladder.kernel_counters --write"])


def test_hottest_loops_multiply_and_add():
    """A loop that mostly moves data would bound a tiled convolution by something else than arithmetic."""
    loops = RECORDED["share of FFMA in the hottest loop"]
    assert set(loops) == {f"sm_{arch}" for arch in counters.ARCHS}
    for kernels in loops.values():
        assert kernels
        assert all(0 < share < 1 for share in kernels.values())


def _traffic():
    for case, kernels in RECORDED["traffic"].items():
        for kernel, kinds in kernels.items():
            for kind, (requests, units, ideal) in kinds.items():
                yield case, kernel.partition("<")[0], kind, requests, units, ideal


def test_recorded_counts_are_possible():
    assert all(0 < ideal <= units and requests <= units for _, _, _, requests, units, ideal in _traffic())


def unexplained():
    """Return what reads or writes more sectors than it has to, by case, kernel and kind, and how many: (read, needed)."""
    return {
        (case, kernel, kind): (units, ideal)
        for case, kernel, kind, _, units, ideal in _traffic()
        if kind.startswith("global") and units > 1.25 * ideal and (kernel, kind) not in SCATTERED
    }


def test_global_memory_is_read_and_written_in_whole_sectors():
    assert unexplained() == {}, "let neighbours in a warp be neighbours in memory, or add the reason here: SCATTERED"


def test_counts_are_of_the_kernels_of_today():
    """A kernel that is gone, or has other templates, was counted before it changed."""
    rows = {(case, kernel) for case, kernels in RECORDED["traffic"].items() for kernel in kernels}
    old = [(case, kernel) for case, kernel in rows if not _is_of_today(kernel)]
    assert not sorted(old), "write the table anew: python -m tests.ladder.kernel_counters --write"


def _is_of_today(expression):
    name, _, templates = expression.removesuffix(">").partition("<")
    count = len(templates.split(",")) if templates else 0
    return name in Kernel.all and count == len(Kernel.all[name].signature.templates)


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
