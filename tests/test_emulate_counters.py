"""Memory transactions of access patterns whose cost is known, by both routes; instruction counts of the compiler."""

import numpy as np
import pytest
from emulate import EmulatedDevice
from emulate.examples import PROBLEMS, conv_direct, text

pytestmark = pytest.mark.compilers


def _floats(*sizes):
    return [np.zeros(n, np.float32) for n in sizes]


# Name -> (kernel, grid, block, arrays, integer argument, kind, sectors or wavefronts per request of a warp).
PATTERNS = (
    {
        "coalesced": ("copy", 8, (128,), (1024, 1024), None, "global load", 4),
        "coalesced_stores": ("copy", 8, (128,), (1024, 1024), None, "global store", 4),
        "coalesced_float4": ("copy_float4", 2, (128,), (1024, 1024), None, "global load", 16),
        "every_second": ("copy_every", 2, (128,), (2048, 256), 2, "global load", 8),
        "every_eighth": ("copy_every", 2, (128,), (8192, 256), 8, "global load", 32),
        "shifted_by_one": ("copy_shifted", 2, (128,), (257, 256), None, "global load", 5),
        "one_address": ("broadcast", 2, (128,), (2, 256), None, "global load", 1),
        "columns_of_a_square": ("transpose<0>", 1, (32, 8), (1024, 1024), None, "shared load", 32),
        "columns_with_padding": ("transpose<1>", 1, (32, 8), (1024, 1024), None, "shared load", 1),
        "rows_with_padding": ("transpose<1>", 1, (32, 8), (1024, 1024), None, "shared store", 1),
        "pairs_are_for_loads_alone": ("shared_pack<float4>", 1, (32,), (128,), 1, "shared store", 4),
    }
    | {
        f"{type_}_by_lanes_{bit}_apart": (f"shared_pack<{type_}>", 1, (32,), (words,), bit, "shared load", cost)
        for type_, words, costs in (("float4", 128, (2, 2, 4, 4)), ("float2", 64, (1, 1, 2, 2)))
        for bit, cost in zip((1, 2, 4, 32), costs, strict=True)
    }
    | {
        f"banks_apart_{stride}": ("shared_every", 1, (32,), (32,), stride, "shared load", cost)
        for stride, cost in ((1, 1), (2, 2), (3, 1), (4, 4), (8, 8), (16, 16), (32, 32), (33, 1))
    }
)


_KERNELS = tuple(sorted({kernel for kernel, *_ in PATTERNS.values()}))


@pytest.mark.parametrize("route", ["emulated-stats", "emulated-ptx-stats"])
@pytest.mark.parametrize(
    ("kernel", "grid", "block", "sizes", "number", "kind", "cost"), PATTERNS.values(), ids=PATTERNS.keys()
)
def test_known_costs(route, kernel, grid, block, sizes, number, kind, cost):
    device = EmulatedDevice(route)
    function = device.compile(text("transactions.cu"), "transactions.cu", _KERNELS, ())[kernel]
    numbers = () if number is None else (np.int32(number),)
    device.launch(function, (grid,), block, (*map(device.asarray, _floats(*sizes)), *numbers))
    sites = [s for s in device.launches[-1].sites if s.kind == kind]
    assert sites
    assert sum(s.units for s in sites) == cost * sum(s.requests for s in sites)
    assert all(s.line.startswith("kernels/transactions.cu:") for s in sites)


def test_padding_is_what_the_least_cost_shows():
    device = EmulatedDevice("emulated-stats")
    function = device.compile(text("transactions.cu"), "transactions.cu", _KERNELS, ())["transpose<0>"]
    device.launch(function, (1,), (32, 8), tuple(map(device.asarray, _floats(1024, 1024))))
    (site,) = [s for s in device.launches[-1].sites if s.kind == "shared load"]
    assert (site.units, site.ideal, site.lanes) == (32 * 32, 32, 1024)


def test_multiply_adds_of_a_convolution():
    device = EmulatedDevice("emulated-ptx-stats")
    conv_direct(n=2, c=3, h=16, w=16, k=8).check(device)
    record = device.launches[-1]
    fused = sum(n for opcode, n in record.instructions.items() if opcode.startswith("fma") and "f32" in opcode)
    assert fused == 2 * 3 * 16 * 16 * 8 * 9
    assert record.counts["threads"] == 2 * 256
    assert record.counts["barriers"] == 2 * 3 * 2


def test_instructions_are_counted_in_mode_fast_too():
    device = EmulatedDevice("emulated-ptx")
    conv_direct(n=1, c=1).check(device)
    assert sum(device.launches[-1].instructions.values()) > 1000


@pytest.mark.parametrize("route", ["emulated", "emulated-ptx"])
def test_tensor_core_operations_are_counted(route):
    device = EmulatedDevice(route)
    PROBLEMS["mma_ldmatrix_cp_async"](m=128, n=64, k=96).check(device)
    assert device.launches[-1].counts["mma_flop"] == 2 * 128 * 64 * 96


def test_conflicts_of_real_kernels_are_found():
    device = EmulatedDevice("emulated-stats")
    PROBLEMS["shared_tiles_and_float4"]().check(device)
    stores = [s for s in device.launches[-1].sites if s.kind == "shared store"]
    worst = max(stores, key=lambda s: s.units / s.ideal)
    assert worst.line == "kernels/gemm_tiled.cu:19"  # the transposed store of A's tile
    assert (worst.units, worst.ideal) == (2 * worst.requests, worst.requests)
