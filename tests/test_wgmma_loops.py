"""The hot loops of the convolutions by warpgroups are what tests/ladder/wgmma_loops.json says, and what bounds them."""

import pytest
from emulate.nvrtc import nvrtc

from gpuconv.cuda import conv_weight_wgmma, conv_wgmma
from tests.ladder import loop_tables, wgmma_loops
from tests.ladder.wgmma_loops import ARCH, WgmmaLoop

RECORDED = wgmma_loops.recorded()
ANEW = "write the table anew: python -m tests.ladder.wgmma_loops --write"


def _held(chosen):
    if RECORDED["nvrtc"] != nvrtc().version:
        pytest.skip(f"the table was written with NVRTC {RECORDED['nvrtc']}, this is {nvrtc().version}")
    measured = wgmma_loops.measure(chosen)
    lines = loop_tables.differences({name: RECORDED["rows"][name] for name in measured}, measured)
    assert not lines, "\n".join([*lines, ANEW])


@pytest.mark.compilers
def test_a_loop_of_each_kernel_is_as_recorded():
    _held(dict({one.kernel.name: (name, one) for name, one in wgmma_loops.instances().items()}.values()))


@pytest.mark.ladder
@pytest.mark.compilers
def test_loops_are_as_recorded():
    _held(wgmma_loops.instances())


def test_the_table_has_every_kernel_and_tile_and_is_possible():
    every = wgmma_loops.instances()
    assert list(RECORDED["rows"]) == sorted(every), ANEW
    for name, one in every.items():
        loop, of = RECORDED["rows"][name][ARCH], wgmma_loops.tile(one)
        sides = of["FILTERS"] * of.get("PIXELS", of.get("COLUMNS"))
        assert loop.tensor_cycles == sides * of["DEPTH"] // 2048, name
        assert loop.instructions > loop.hgmma > 0, name
        assert loop.bound(ARCH)[1] != "issue", name
        assert loop.blocks >= 1, name


def test_launchers_choose_by_the_bounds_of_the_table():
    for module, kernel, templates in (
        (conv_wgmma, "conv_forward_wgmma", "half16, false"),
        (conv_wgmma, "conv_backward_data_wgmma", "half16"),
        (conv_weight_wgmma, "conv_backward_weight_wgmma", "half16"),
    ):
        for tile, cycles in module._CYCLES.items():
            loop = RECORDED["rows"][f"{kernel}<{templates}, {', '.join(map(str, tile))}>"][ARCH]
            assert loop.bound(ARCH)[0] == cycles, tile
            assert loop.blocks >= module._TOGETHER[tile], tile


def test_large_tiles_reach_most_of_the_peak():
    for name in (
        "conv_forward_wgmma<half16, false, 128, 256, 64, 4>",
        "conv_backward_data_wgmma<half16, 256, 128, 64, 4>",
    ):
        assert RECORDED["rows"][name][ARCH].shares(ARCH)[0] >= 0.88


@pytest.mark.parametrize(
    ("loop", "bound"),
    [
        (WgmmaLoop(83, 4, 512, 640, 90, 2), (640, "shared")),
        (WgmmaLoop(83, 4, 1024, 1024, 90, 1), (1024, "shared")),
        (WgmmaLoop(83, 4, 700, 640, 90, 2), (700, "tensor")),
        (WgmmaLoop(400, 4, 700, 640, 90, 2), (800, "issue")),
    ],
)
def test_the_largest_of_the_cycles_is_the_bound(loop, bound):
    assert loop.bound(ARCH) == bound
    assert loop.shares(ARCH)[0] == loop.tensor_cycles / bound[0]
