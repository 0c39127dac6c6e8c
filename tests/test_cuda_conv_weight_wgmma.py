"""Gradients of filters by warpgroups: right on Hopper in the emulator in every order of threads, however long the sums,
and each planted fault noticed."""

import numpy as np
import pytest
from compare import absolute, assert_close, assert_same, normal
from conv_checks import channels_last, positive
from emulate import EmulatedDevice, EmulationError
from test_conv import SPECIAL
from test_cuda_conv import expected
from test_cuda_conv_tensor import FLOAT16, arrays
from test_cuda_conv_weight_tensor import MORE_CASES, wanted
from test_cuda_conv_wgmma import ALL_WAYS, CASES, LEAST_SHARE, broken, hopper, launched, shared

from gpuconv.cuda import conv, conv_weight_tensor, conv_weight_wgmma, conv_wgmma
from gpuconv.errors import GpuLaunchError
from gpuconv.shapes import conv_sizes

pytestmark = pytest.mark.compilers

TILES = {name: getattr(conv_weight_wgmma, name.upper()) for name in ("large", "flat", "tall", "small")}
CASES = CASES | MORE_CASES


@pytest.fixture(autouse=True)
def _on(monkeypatch):
    monkeypatch.setattr(conv_wgmma, "ON", True)
    monkeypatch.setattr(conv_wgmma, "_LEAST_SHARE", 0.0)


def force(monkeypatch, *, tile=None, slices=None, run=None):
    """Let warpgroups serve every size, by this tile, in so many slices and runs of so many steps."""
    monkeypatch.setattr(conv, "weight_method", lambda *_: "tensor")
    if tile is not None:
        monkeypatch.setattr(conv_weight_wgmma, "_CYCLES", {tile: 1})
    if slices is not None:

        def cut(pixels, tiles, tile, sm_count):
            length = -(-pixels // (slices * tile.depth)) * tile.depth
            return -(-pixels // length), length

        monkeypatch.setattr(conv_weight_wgmma, "slices_of", cut)
    if run is not None:
        monkeypatch.setattr(conv_weight_wgmma, "run_of", lambda pixels, tile: run)


def computed(device, x, w, dy, z, *, dtype=None):
    """Return dw as a NumPy array of a dtype."""
    dy, x = (device.same_layout(channels_last(a)) for a in (dy, x))
    dw = device.empty(w.shape, dtype or w.dtype)
    conv.weight_gradient(device, dy, x, dw, z, None)
    return device.asnumpy(dw)


QUICK = {*((case, "small") for case in CASES), *(("many_steps", tile) for tile in TILES)}


@pytest.mark.parametrize(("case", "tile"), [
    pytest.param(case, tile, marks=() if (case, tile) in QUICK else pytest.mark.long)
    for case in CASES for tile in TILES
])  # fmt: skip
@pytest.mark.parametrize(("slices", "run"), [(1, 1000), (3, 1)], ids=["one_run", "slices_and_runs_of_a_step"])
def test_every_tile_serves_every_case(case, tile, slices, run, rng, monkeypatch):
    device = shared()
    force(monkeypatch, tile=TILES[tile], slices=slices, run=run)
    device.launches.clear()
    given, z = arrays(rng, CASES[case])
    assert_same(computed(device, *given[:2], given[3], z), wanted(*given, z)[0], dtype="float16")
    assert "conv_backward_weight_wgmma" in launched(device)


@pytest.mark.parametrize("case", ["slices_that_end_inside_images", pytest.param("many_steps", marks=pytest.mark.long)])
def test_the_order_of_threads_does_not_matter(case, rng, monkeypatch):
    force(monkeypatch, slices=2, run=3)
    given, z = arrays(rng, CASES[case], normal)
    results = set()
    for mode, order in ALL_WAYS:
        device = hopper(mode, order=order, block_order="reverse" if order == "reverse" else "forward", seed=3)
        results.add(computed(device, *given[:2], given[3], z).tobytes())
        assert "conv_backward_weight_wgmma" in launched(device)
    assert len(results) == 1


@pytest.mark.parametrize("dtype", ["float16", pytest.param("bfloat16", marks=pytest.mark.long)])
@pytest.mark.parametrize("make", [normal, positive])
@pytest.mark.parametrize("case", ["many_steps", "channels_of_no_whole_chunk", "dilation_shares_a_factor"])
def test_within_the_tolerance_in_float32(case, make, dtype, rng, monkeypatch):
    """What the sums lose is not hidden behind the rounding of a 16-bit result."""
    device = shared()
    force(monkeypatch)
    dtype = np.dtype(dtype) if dtype == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    given, z = arrays(rng, CASES[case], make, dtype)
    got = computed(device, *given[:2], given[3], z, dtype=np.float32)
    ref, scale = wanted(*given, z)[0], wanted(*absolute(*given), z)[0]
    assert_close(got, ref, scale=scale, dtype="float32", terms=z.N * z.P * z.Q, zero_mean=make is normal)


@pytest.mark.parametrize("options", [{"pad": 1}, {"pad": 2, "stride": 2}, {"dilation": 2, "pad": 2}], ids=str)
@pytest.mark.parametrize("special", SPECIAL.values() if isinstance(SPECIAL, dict) else SPECIAL, ids=str)
def test_nan_and_infinity_spread_as_the_sums_say(special, options, rng, monkeypatch):
    force(monkeypatch)
    name, place, value = special
    (x, w, b, dy), z = arrays(rng, ((2, 8, 6, 7), (8, 8, 3, 3), options))
    array = {"x": x, "w": w, "b": b, "dy": dy}[name]
    array[tuple(min(i, n - 1) for i, n in zip(place, array.shape, strict=True))] = value
    assert_same(computed(shared(), x, w, dy, z), expected(x, w, b, dy, z)[2], dtype="float16")


# The rule -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "boxes", "tile"),
    [(64, 9, "flat"), (64, 2, "small"), (128, 18, "large"), (128, 1, "tall"), (200, 3, "large")],
)
def test_the_tile_of_the_fewest_cycles(filters, boxes, tile):
    assert conv_weight_wgmma.tile_of(filters, boxes) == TILES[tile]


@pytest.mark.parametrize("tile", TILES.values(), ids=TILES)
def test_slices_are_whole_steps_and_all_of_the_pixels(tile):
    for pixels in (1, 63, 64, 65, 5000, 2**17):
        for tiles in (1, 9, 400):
            slices, length = conv_weight_wgmma.slices_of(pixels, tiles, tile, 132)
            assert length % tile.depth == 0
            assert (slices - 1) * length < pixels <= slices * length
    busy, _ = conv_weight_wgmma.slices_of(2**17, 9, tile, 132)
    assert busy * 9 >= 0.9 * 132  # that all have something to do


@pytest.mark.parametrize("tile", TILES.values(), ids=TILES)
def test_runs_are_those_of_conv_weight_tensor_in_whole_steps(tile):
    for pixels in (1, 100, 5000, 2**17):
        run = conv_weight_wgmma.run_of(pixels, tile)
        assert run >= 1
        assert run * tile.depth <= max(64, 4 * pixels**0.5)
    longest = conv_weight_tensor._LONGEST_RUN, conv_weight_tensor._LEAST_RUN
    assert longest == (conv_weight_wgmma._LONGEST_RUN, conv_weight_wgmma._LEAST_RUN)


@pytest.mark.parametrize(("channels", "taken"), [(8, False), (24, False), (31, False), (32, True), (96, True)])
def test_boxes_of_mostly_zeros_are_left_to_conv_weight_tensor(channels, taken, monkeypatch):
    monkeypatch.setattr(conv_wgmma, "_LEAST_SHARE", LEAST_SHARE)
    z = conv_sizes(np.empty((2, channels, 9, 9)), np.empty((64, channels, 3, 3)), None)
    assert conv_weight_wgmma.takes(z, shared(), FLOAT16) is taken


def test_conv_weight_tensor_serves_where_a_box_cannot_be(rng, monkeypatch):
    device, case = shared(), ((2, 16, 40, 40), (16, 16, 3, 3), {"stride": 9, "pad": 1})
    force(monkeypatch)
    device.launches.clear()
    given, z = arrays(rng, case)
    assert not conv_weight_wgmma.takes(z, device, FLOAT16)
    assert_same(computed(device, *given[:2], given[3], z), wanted(*given, z)[0], dtype="float16")
    assert "conv_backward_weight_tensor" in launched(device)


def test_conv_weight_tensor_serves_a_device_that_makes_no_maps(rng, monkeypatch):
    class Without(EmulatedDevice):
        def tensor_map(self, array, form):
            msg = "CUDA's driver has no cuTensorMapEncodeIm2col"
            raise GpuLaunchError(msg)

    device = Without("emulated", arch=90)
    force(monkeypatch)
    given, z = arrays(rng, CASES["tiles_across_images"])
    assert_same(computed(device, *given[:2], given[3], z), wanted(*given, z)[0], dtype="float16")
    assert "conv_backward_weight_tensor" in launched(device)
    assert "cuTensorMapEncodeIm2col" in conv_wgmma.refusal(device)


# Planted faults -------------------------------------------------------------------------------------------------------

_FULL = "ptx::mbarrier_wait(&ring.full[turn.stage], turn.parity);"
_EMPTY = "ptx::mbarrier_wait(&ring.empty[turn.stage], turn.parity ^ 1);"
_EXPECT = "ptx::mbarrier_arrive_expect_tx(&ring.full[turn.stage], STAGE);"
_WAIT = "ptx::wgmma_wait<1>();  // the step before has been multiplied, its stage is free"
_RELEASE = "if (step > first && lane == 0) ptx::mbarrier_arrive(&ring.empty[before]);"
_EARLY = _RELEASE.replace("step > first && ", "").replace("[before]", "[turn.stage]")
_LAST_RELEASE = "    if (lane == 0) ptx::mbarrier_arrive(&ring.empty[before]);\n#pragma"
_A, _B = (f"ptx::wgmma_desc({name} + k, BOX, 8 * LINE, ptx::swizzle_128)" for name in "ab")

# Name -> (before, after, what mode check reports; None: wrong numbers).
FAULTS = {
    "no_wgmma_fence": ("ptx::wgmma_fence();", "", "MISSING wgmma.fence"),
    "no_wait_for_full": (_FULL, "", "UNINITIALISED: wgmma reads"),
    "no_wait_for_empty": (_EMPTY, "", "mbarrier"),
    "parity_of_full": (_FULL, _FULL.replace("parity", "parity ^ 1"), "UNINITIALISED: wgmma reads"),
    "parity_of_empty": (_EMPTY, _EMPTY.replace(" ^ 1", ""), "no thread can continue"),
    "too_few_bytes_expected": (_EXPECT, _EXPECT.replace("STAGE)", "STAGE - 128)"), "mbarrier"),
    "too_many_bytes_expected": (_EXPECT, _EXPECT.replace("STAGE)", "STAGE + 128)"), "more bytes than were"),
    "stage_released_early": (_RELEASE, _EARLY, ""),
    "step_before_not_waited_for": (_WAIT, "", ""),
    "last_stage_of_a_run_not_released": (_LAST_RELEASE, "#pragma", "no thread can continue"),
    "sums_read_early": ("ptx::wgmma_wait<0>();", "", ""),
    "no_hold": ("ptx::wgmma_hold(sum);", "", "without wgmma_hold"),
    "wrong_swizzle": (_A, _A.replace("swizzle_128", "swizzle_64"), ""),
    "filters_not_downwards": ("add_warpgroup_product<1, 1>", "add_warpgroup_product<0, 1>", None),
    "channels_too_close": (_B, _B.replace("BOX", "BOX / 2"), None),
    "runs_are_not_forgotten": ("step - first + k > 0", "step + k > 0", None),
    "sums_of_the_last_run_alone": ("total[i] += sum[i]", "total[i] = sum[i]", None),
    "taps_exchanged": ("unsigned short>(s * z.dilation_h)", "unsigned short>(r * z.dilation_h)", None),
    "corner_outside_the_box": ("q * z.stride_h - z.pad_h", "q * z.stride_h - z.pad_h - 1", "outside the bounding box"),
    "boxes_behind_the_last_are_stored": ("box >= boxes || ", "", ""),
}  # fmt: skip


def _run(device, rng, monkeypatch):
    """Make dw of more boxes than a tile has, in slices of several runs and turns of the ring; say whether it is right."""
    force(monkeypatch, tile=conv_weight_wgmma.LARGE, slices=2, run=3)
    given, z = arrays(rng, ((11, 40, 9, 10), (72, 40, 3, 1), {"pad": (1, 0)}))
    with np.errstate(all="ignore"):
        return np.array_equal(computed(device, *given[:2], given[3], z, dtype=np.float32), wanted(*given, z)[0])


def test_without_a_fault_nothing_is_reported(rng, monkeypatch):
    assert _run(EmulatedDevice("emulated-check", arch=90, timeout=20), rng, monkeypatch)


QUICK_FAULTS = ["stage_released_early", "last_stage_of_a_run_not_released", "runs_are_not_forgotten"]


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in QUICK_FAULTS else pytest.mark.long) for name in FAULTS
])  # fmt: skip
def test_planted_faults_are_noticed(name, rng, monkeypatch):
    before, after, words = FAULTS[name]
    broken(monkeypatch, before, after, "conv_weight_wgmma.cu")
    device = EmulatedDevice("emulated-check", arch=90, timeout=20)
    if words is None:
        assert not _run(device, rng, monkeypatch)
        return
    with pytest.raises(GpuLaunchError) as caught:
        _run(device, rng, monkeypatch)
    assert isinstance(caught.value.__cause__, EmulationError), caught.value
    assert words in str(caught.value.__cause__)
