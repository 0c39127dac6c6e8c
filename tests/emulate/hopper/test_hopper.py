"""Hopper's instructions in the emulator: TMA, mbarriers, wgmma, named barriers; layouts, results and planted faults."""

import ctypes
import itertools

import numpy as np
import pytest

from emulate import BuildError, EmulatedDevice, EmulationError
from emulate.fragments import offset_in
from emulate.hopper.driver_stand_in import stand_in
from emulate.hopper.examples import (
    ALL_KERNELS,
    ALL_TILES,
    CORNERS,
    FEW_KERNELS,
    FEW_TILES,
    I32,
    IM2COL,
    RANKS,
    box_of_rank,
    boxes,
    bulk_copies,
    clipped_store,
    compiled,
    conv,
    error_of,
    gemm,
    im2col,
    load,
    mbarrier_for_stores,
    named_barriers,
    random_bits,
    stored_operands,
    tile,
)
from emulate.hopper.tensor_map import TensorMap

pytestmark = pytest.mark.compilers

MODES = ["emulated", "emulated-check"]


def _device(name="emulated", **settings):
    return EmulatedDevice(name, arch=90, timeout=20, **settings)


# Layouts of TMA --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", CORNERS.values(), ids=CORNERS.keys())
@pytest.mark.parametrize("swizzle", [0, 32, 64, 128])
def test_boxes_lie_as_the_tables_say(swizzle, at):
    np.testing.assert_array_equal(*boxes(_device("emulated-check"), swizzle, at))


@pytest.mark.parametrize(("shape", "box", "at"), RANKS.values(), ids=map(str, RANKS))
def test_boxes_of_every_rank(shape, box, at):
    np.testing.assert_array_equal(*box_of_rank(_device(), shape, box, at))


@pytest.mark.parametrize(("shape", "options", "at", "tap"), IM2COL.values(), ids=IM2COL.keys())
def test_im2col_walks_the_bounding_box(shape, options, at, tap):
    np.testing.assert_array_equal(*im2col(_device("emulated-check"), shape, options, at, tap))


# One feature each --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_stores_are_clipped(mode):
    np.testing.assert_array_equal(*clipped_store(_device(mode)))


@pytest.mark.parametrize("mode", MODES)
def test_bulk_copies(mode):
    np.testing.assert_array_equal(bulk_copies(_device(mode)), np.arange(256))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("feature", [stored_operands, named_barriers, mbarrier_for_stores])
def test_features(mode, feature):
    got, want = feature(_device(mode))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)


def test_polling_an_mbarrier():
    np.testing.assert_array_equal(*boxes(_device("emulated-check"), 128, (0, 0), poll=True))


# wgmma -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library():
    """The address formulas of the runtime, which every library with Hopper's instructions holds."""
    path = compiled(_device(), "hopper_features.cu", "named_barriers").module.library.path
    loaded = ctypes.CDLL(str(path))
    loaded.emulate_wgmma_address.argtypes = [ctypes.c_ulonglong, *[ctypes.c_int] * 4]
    return loaded


def _descriptor(start, leading_bytes, stride_bytes, mode):
    return start >> 4 | (leading_bytes >> 4) << 16 | (stride_bytes >> 4) << 32 | mode << 62


def _swizzled(bits, address):
    """CuTe's Swizzle<bits, 4, 3> on bytes."""
    return address ^ (address >> 7 & ((1 << bits) - 1)) << 4


MODE_OF_BITS = {0: 0, 1: 3, 2: 2, 3: 1}  # swizzle bits -> as a descriptor numbers them


@pytest.mark.parametrize("bits", MODE_OF_BITS)
@pytest.mark.parametrize(("element_bytes", "by_mn"), [(2, False), (2, True), (4, False)])
def test_operands_lie_as_in_cutes_canonical_layouts(library, element_bytes, by_mn, bits):
    unit, width = 16 // element_bytes, 1 << bits
    for leading, stride in ((1024, 2048), (4096, 1024), (128, 256), (16, 1024)):
        lead, step = leading // element_bytes, stride // element_bytes
        if by_mn:
            mn = ((unit, width, 64), (1, unit, lead)) if bits else ((unit, 1, 64), (1, unit, step))
            k = ((8, 8), (width * unit, step) if bits else (unit, lead))
        else:
            mn = ((8, 64), (width * unit if bits else unit, step))
            k = ((unit, 2), (1, unit if bits else lead))
        descriptor = _descriptor(0x2000, leading, stride, MODE_OF_BITS[bits])
        for i, j in itertools.product(range(128), range(32 // element_bytes)):
            want = _swizzled(bits, 0x2000 + element_bytes * (offset_in(i, *mn) + offset_in(j, *k)))
            assert library.emulate_wgmma_address(descriptor, by_mn, element_bytes, i, j) == want


# "Exact layout" lines of the PTX ISA's section on the canonical layouts, with their byte offsets in elements:
# (by_mn, bytes, swizzle bits, mn shape and stride, k shape and stride, leading, stride).
WORKED_EXAMPLES = {
    "k_major_tf32_no_swizzle": (False, 4, 0, ((8, 2), (4, 32)), ((4, 4), (1, 64)), 64, 32),
    "k_major_tf32_swizzle_32": (False, 4, 1, ((8, 2), (8, 64)), ((4, 4), (1, 4)), 0, 64),
    "mn_major_bf16_no_swizzle": (True, 2, 0, ((8, 1, 2), (1, 8, 64)), ((8, 2), (8, 128)), 128, 64),
    "mn_major_bf16_swizzle_32": (True, 2, 1, ((8, 2, 2), (1, 8, 128)), ((8, 2), (16, 256)), 128, 256),
    "mn_major_bf16_swizzle_64": (True, 2, 2, ((8, 4, 2), (1, 8, 256)), ((8, 2), (32, 512)), 256, 512),
}


@pytest.mark.parametrize(
    ("by_mn", "size", "bits", "mn", "k", "leading", "stride"), WORKED_EXAMPLES.values(), ids=WORKED_EXAMPLES.keys()
)
def test_operands_lie_as_in_the_worked_examples(library, by_mn, size, bits, mn, k, leading, stride):
    descriptor = _descriptor(0x2000, leading * size, stride * size, MODE_OF_BITS[bits])
    for i, j in itertools.product(range(np.prod(mn[0])), range(32 // size)):
        want = _swizzled(bits, 0x2000 + size * (offset_in(i, *mn) + offset_in(j, *k)))
        assert library.emulate_wgmma_address(descriptor, by_mn, size, i, j) == want


def test_accumulators_lie_as_in_cutes_layout(library):
    for thread, i in itertools.product(range(128), range(128)):
        want = offset_in(thread, (4, 8, 4), (128, 1, 16)) + offset_in(i, (2, 2, 32), (64, 8, 512))
        assert library.emulate_accumulator_index(thread, i) == want


@pytest.mark.parametrize("options", FEW_TILES.values(), ids=FEW_TILES.keys())
def test_tiles(options):
    assert error_of(tile(_device("emulated-check"), **options)) < 1e-5


@pytest.mark.ladder
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", ALL_TILES, ids=lambda o: "-".join(f"{k}_{v}" for k, v in o.items()))
def test_tiles_of_every_form(mode, options):
    assert error_of(tile(_device(mode), **options)) < 1e-5


# Whole kernels -------------------------------------------------------------------------------------------------------------


FEW_SETTINGS = [("emulated", "depth-reverse"), ("emulated-check", "forward")]
ALL_SETTINGS = [
    *(("emulated", order) for order in ("forward", "reverse", "random", "depth", "depth-reverse")),
    *(("emulated-check", order) for order in ("forward", "random", "depth-reverse")),
]


@pytest.mark.parametrize(("mode", "order"), FEW_SETTINGS)
@pytest.mark.parametrize(("run", "options"), FEW_KERNELS.values(), ids=FEW_KERNELS.keys())
def test_kernels(run, options, mode, order):
    assert error_of(run(_device(mode, order=order), **options)) < 2e-5


@pytest.mark.ladder
@pytest.mark.parametrize(("mode", "order"), ALL_SETTINGS)
@pytest.mark.parametrize(("run", "options"), ALL_KERNELS.values(), ids=ALL_KERNELS.keys())
def test_kernels_in_every_order(run, options, mode, order):
    assert error_of(run(_device(mode, order=order), **options)) < 2e-5


# Planted faults ------------------------------------------------------------------------------------------------------------

_FULL_WAIT = "ptx::mbarrier_wait(&full[s], used / STAGES & 1);"
_EMPTY_WAIT = "ptx::mbarrier_wait(&empty[s], (used / STAGES & 1) ^ 1);"
_EXPECT = "ptx::mbarrier_arrive_expect_tx(&full[s], BYTES_A + BYTES_B);"
_WAIT = "ptx::wgmma_wait<0>(sums);\n          if ((t & 31) == 0) ptx::mbarrier_arrive(&empty[s]);  // the stage has been read"
_RELEASE = "if ((t & 31) == 0) ptx::mbarrier_arrive(&empty[s]);"
_A = "ptx::wgmma_desc(tile_a + kk * 2, 16, 1024, ptx::swizzle_128)"

# Name -> (run, edits, what the report of mode check says; None: wrong numbers).
KERNEL_FAULTS = {
    "no_wgmma_fence": (gemm, [("ptx::wgmma_fence();", "")], "MISSING wgmma.fence"),
    "no_wait_for_full": (gemm, [(_FULL_WAIT, "")], "UNINITIALISED: wgmma reads"),
    "no_wait_for_empty": (gemm, [(_EMPTY_WAIT, "")], "mbarrier"),
    "consumer_parity": (gemm, [(_FULL_WAIT, _FULL_WAIT.replace("& 1)", "& 1 ^ 1)"))], "UNINITIALISED: wgmma reads"),
    "producer_parity": (gemm, [(_EMPTY_WAIT, _EMPTY_WAIT.replace(" ^ 1", ""))], "no thread can continue"),
    "too_few_bytes_expected": (gemm, [(_EXPECT, _EXPECT.replace(" + BYTES_B", ""))], "mbarrier"),
    "too_many_bytes_expected": (
        gemm,
        [(_EXPECT, _EXPECT.replace("BYTES_B", "BYTES_B + 128"))],
        "more bytes than were",
    ),
    "wrong_swizzle": (gemm, [(_A, _A.replace("128)", "64)"))], "SWIZZLE"),
    "sums_read_early": (gemm, [(_WAIT, _RELEASE)], "ACCUMULATOR read"),
    "stage_released_early": (gemm, [(_WAIT, f"{_RELEASE} ptx::wgmma_wait<0>(sums);")], "RACE"),
    "one_warp_releases_for_four": (
        gemm,
        [(_RELEASE + "  // the stage has been read", "if (t == 0) ptx::mbarrier_arrive_n(&empty[s], 4);")],
        "has not signalled this thread",
    ),
    "no_fence_after_mbarrier_init": (gemm, [("ptx::fence_mbarrier_init();", "")], "MISSING fence.mbarrier_init"),
    "no_hold": (gemm, [(_WAIT, _WAIT.replace("(sums)", "()"))], "without wgmma_hold"),
    "coordinate_off_by_8": (gemm, [("&full[s], k * BK, m0)", "&full[s], k * BK + 8, m0)")], None),
    "taps_exchanged": (conv, [("s * dilation, r * dilation", "r * dilation, s * dilation")], None),
    "coordinate_outside_the_box": (conv, [("c, left, top", "c, left - 1, top")], "outside the bounding box"),
    "no_fence_before_the_store": (conv, [("ptx::fence_proxy_async();", "")], "MISSING fence.proxy.async"),
    "no_named_barrier": (conv, [("ptx::named_barrier_sync(1, 128);", ";")], "UNINITIALISED: bulk store reads"),
    "no_wait_for_the_store": (conv, [("ptx::bulk_wait_read<0>();", "")], "returns before cp.async.bulk.wait_group"),
}


def _caught(run):
    with pytest.raises(EmulationError) as caught:
        run()
    return str(caught.value)


QUICK_FAULTS = [
    "no_wgmma_fence",
    "too_many_bytes_expected",
    "sums_read_early",
    "stage_released_early",
    "coordinate_outside_the_box",
    "no_fence_before_the_store",
]


@pytest.mark.parametrize(
    "fault",
    [pytest.param(f, marks=() if f in QUICK_FAULTS else pytest.mark.ladder) for f in KERNEL_FAULTS],
)
def test_planted_faults(fault):
    run, edits, words = KERNEL_FAULTS[fault]
    device = _device("emulated-check")
    if words is None:
        assert error_of(run(device, edits=edits)) > 1e-3
    else:
        assert words in _caught(lambda: run(device, edits=edits))


def test_wrong_corner_gives_wrong_numbers():
    assert error_of(conv(_device("emulated-check"), corner=1)) > 1e-3


# Name -> (run, edits, mode, what the report says).
_INIT, _INIT_BARRIER = (
    "if (threadIdx.x == 0) ptx::mbarrier_init(&barrier, 32);",
    "__syncthreads();  // the mbarrier is there",
)
FEATURE_FAULTS = {
    "no_proxy_fence_before_wgmma": (
        stored_operands,
        [("ptx::fence_proxy_async();\n  __syncthreads();\n  float d[4];", "__syncthreads();\n  float d[4];")],
        "emulated-check",
        "MISSING fence.proxy.async",
    ),
    "no_barrier_before_wgmma": (
        stored_operands,
        [("ptx::fence_proxy_async();\n  __syncthreads();\n  float d[4];", "ptx::fence_proxy_async();\n  float d[4];")],
        "emulated-check",
        "wgmma reads",
    ),
    "operand_overwritten_in_flight": (
        stored_operands,
        [("ptx::wgmma_commit();", "ptx::wgmma_commit(); tile_a[t] = 0;")],
        "emulated-check",
        "RACE",
    ),
    "part_of_a_warpgroup": (
        stored_operands,
        [("t < 128)", "t < 96)")],
        "emulated",
        "96 of 128 threads of warpgroup 0",
    ),
    "named_barrier_never_completed": (
        named_barriers,
        [("ptx::named_barrier_arrive(2, 128);", "")],
        "emulated",
        "named barrier 2: 64 of 128",
    ),
    "named_barrier_counts_differ": (
        named_barriers,
        [("ptx::named_barrier_arrive(2, 128);", "ptx::named_barrier_arrive(2, 96);")],
        "emulated",
        "named barrier 2",
    ),
    "mbarrier_used_before_it_is_there": (
        mbarrier_for_stores,
        [(_INIT_BARRIER, "__syncwarp();")],
        "emulated-check",
        "mbarrier",
    ),
    "store_after_arrival": (
        mbarrier_for_stores,
        [
            (
                "room[lane] = x[lane];\n    ptx::mbarrier_arrive(&barrier);",
                "ptx::mbarrier_arrive(&barrier);\n    room[lane] = x[lane];",
            )
        ],
        "emulated-check",
        "RACE",
    ),
    "mbarrier_overwritten": (
        mbarrier_for_stores,
        [
            (
                "ptx::mbarrier_arrive(&barrier);",
                "ptx::mbarrier_arrive(&barrier); if (lane == 0) *(volatile unsigned*)&barrier = 0;",
            )
        ],
        "emulated-check",
        "mbarrier object",
    ),
    "bulk_copy_past_its_array": (
        lambda device, edits: bulk_copies(device, 100, edits),
        [],
        "emulated",
        "OUT OF BOUNDS",
    ),
}


@pytest.mark.parametrize(("run", "edits", "mode", "words"), FEATURE_FAULTS.values(), ids=FEATURE_FAULTS.keys())
def test_faults_of_features(run, edits, mode, words):
    assert words in _caught(lambda: run(_device(mode), edits=edits))


def test_only_one_thread_waits():
    device = _device("emulated-check")
    m = TensorMap.tiled(device.asarray(random_bits(19, 72)), (64, 16), swizzle=128)
    edits = [("    ptx::mbarrier_wait(barrier, 0);\n", "    if (t == 0) ptx::mbarrier_wait(barrier, 0);\n")]
    assert "while a bulk copy is still writing it" in _caught(lambda: load(device, m, (0, 0), edits=edits))


def test_polling_that_cannot_end():
    device = _device()
    m = TensorMap.tiled(device.asarray(random_bits(19, 72)), (64, 16), swizzle=128)
    edits = [("expect_tx(barrier, bytes)", "expect_tx(barrier, bytes + 16)")]
    report = _caught(lambda: load(device, m, (0, 0), poll=True, edits=edits))
    assert "no thread can continue" in report
    assert "tx-count 16" in report


def test_a_store_whose_source_changes():
    device = _device("emulated-check")
    y = device.zeros((13, 40), np.uint16)
    m = TensorMap.tiled(y, (64, 8), swizzle=128, writable=True)
    edits = [
        (
            "ptx::bulk_commit();\n    ptx::bulk_wait<0>();",
            "ptx::bulk_commit(); shared[0] = 1;\n    ptx::bulk_wait<0>();",
        )
    ]
    function = compiled(device, "hopper_features.cu", "tensor_store", edits)
    args = (m, device.zeros(256, np.uint32), I32(0), I32(0), I32(1024))
    assert "bulk store changed" in _caught(lambda: device.launch(function, (1,), (128,), args, 1024))


def test_clusters_are_refused():
    with pytest.raises(BuildError, match="clusters are not emulated"):
        _device().compile("__global__ void __cluster_dims__(2, 1, 1) f(float* y) {}", "f.cu", ("f",), ())


# Tensor maps ---------------------------------------------------------------------------------------------------------------

REFUSED_MAPS = {
    "stride_of_18_bytes": (lambda: TensorMap.tiled(random_bits(4, 9), (8, 4)), "multiples of 16"),
    "box_over_256": (lambda: TensorMap.tiled(random_bits(400, 8), (8, 300)), r"1\.\.256"),
    "box_wider_than_the_swizzle": (lambda: TensorMap.tiled(random_bits(4, 128), (128, 4), swizzle=128), "exceeds"),
    "box_narrower_than_the_swizzle": (lambda: TensorMap.tiled(random_bits(4, 128), (32, 4), swizzle=128), "untried"),
    "corners_out_of_range": (
        lambda: TensorMap.im2col(random_bits(1, 4, 4, 8), lower=(-200, 0), upper=(0, 0), channels=8, pixels=8),
        "corners",
    ),
    "view_with_gaps": (lambda: TensorMap.tiled(random_bits(4, 16)[:, ::2], (8, 4)), "C-contiguous"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED_MAPS.values(), ids=REFUSED_MAPS.keys())
def test_impossible_maps_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture(scope="module")
def libcuda(tmp_path_factory):
    return stand_in(tmp_path_factory.mktemp("libcuda"))


def test_real_maps_are_encoded_as_documented(libcuda):
    x = np.zeros((3, 7, 9, 72), np.uint16)
    array = [0, 9, 4, x.ctypes.data, 72, 9, 7, 3, 144, 1296, 9072]
    made = TensorMap.tiled(x, (64, 1, 2, 3), swizzle=128).device(libcuda)
    assert made.tobytes() == b"\7" * 128
    want = [*array, 64, 1, 2, 3, 1, 1, 1, 1, 0, 3, 2, 0]
    assert libcuda.seen()[: len(want)] == want
    corners = {"lower": (-1, -2), "upper": (-3, -4), "channels": 64, "pixels": 128, "strides": (2, 1)}
    TensorMap.im2col(x, **corners, swizzle=128, l2_promotion=256).device(libcuda)
    want = [*array, -1, -2, -3, -4, 64, 128, 1, 2, 1, 1, 0, 3, 3, 0]
    assert libcuda.seen()[: len(want)] == want
