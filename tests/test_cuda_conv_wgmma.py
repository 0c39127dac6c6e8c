"""Convolution by warpgroups: right on Hopper in the emulator in every order of threads, each planted fault noticed, and
elsewhere left to conv_tensor."""

import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
from compare import absolute, assert_close, assert_same, normal, whole
from conv_checks import channels_last, exact_backward, exact_forward, positive
from emulate import EmulatedDevice, EmulationError
from emulate.emulator import ORDERS
from emulate.hopper.driver_stand_in import stand_in
from test_conv import SPECIAL
from test_cuda_conv import expected, off_by_one
from test_cuda_conv_tensor import CASES_OF_TILES, FLOAT16, arrays

from gpuconv.cuda import conv, conv_wgmma, kernel, tensor_map
from gpuconv.errors import GpuLaunchError
from gpuconv.shapes import conv_sizes

pytestmark = pytest.mark.compilers

LEAST_SHARE = conv_wgmma._LEAST_SHARE
TILES = {name: getattr(conv_wgmma, name.upper()) for name in ("wide", "tall", "large", "slim", "turned")}
# Cases of one group, and of their own: more steps than twice the stages, tiles that cross images, phases of unlike sizes.
CASES = {name: case for name, case in CASES_OF_TILES.items() if "groups" not in case[2] and case[0][0]}
CASES |= {
    "many_steps": ((2, 136, 6, 7), (136, 136, 3, 3), {"pad": 1}),
    "stride_two_of_odd_sizes": ((3, 64, 9, 7), (64, 64, 3, 3), {"stride": 2, "pad": 1}),
    "dilated": ((2, 40, 11, 12), (72, 40, 3, 3), {"pad": 2, "dilation": 2}),
    "one_by_one": ((5, 72, 5, 7), (88, 72, 1, 1), {}),
}


@pytest.fixture(autouse=True)
def _on(monkeypatch):
    """Let warpgroups serve all that they can, few channels among it."""
    monkeypatch.setattr(conv_wgmma, "ON", True)
    monkeypatch.setattr(conv_wgmma, "_LEAST_SHARE", 0.0)


def hopper(name="emulated", **settings):
    """Return an emulated GPU of compute capability 9.0."""
    return EmulatedDevice(name, arch=90, **{"timeout": 60, **settings})


@functools.cache
def shared(name="emulated"):
    return hopper(name)


def force(monkeypatch, device, tile=None):
    """Let tensor cores of a device serve every size, by this tile."""
    monkeypatch.setattr(conv, "device_of", lambda array: device)
    monkeypatch.setattr(conv, "forward_method", lambda *_: "tensor")
    monkeypatch.setattr(conv, "data_method", lambda *_: "tensor")
    if tile is not None:
        monkeypatch.setattr(conv_wgmma, "_CYCLES", {tile: 1})


def computed(device, x, w, b, dy, z, *, arrange=channels_last, **epilogue):
    """Return y and dx as NumPy arrays."""
    x, dy = (device.same_layout(arrange(a)) for a in (x, dy))
    w, b = (None if a is None else device.asarray(a) for a in (w, b))
    y = conv.convolve(x, w, b, z, **{"relu": False, **epilogue})
    dx = conv.data_gradient(device, dy, w, z, None, channels_last=arrange is channels_last)
    return device.asnumpy(y), device.asnumpy(dx)


def wanted(x, w, b, dy, z):
    return exact_forward(x, w, b, z), exact_backward(dy, x, w, z)[0]


def launched(device):
    return {launch.kernel.partition("<")[0] for launch in device.launches}


BOTH = {"conv_forward_wgmma", "conv_backward_data_wgmma"}


# Every case -----------------------------------------------------------------------------------------------------------


# Each case by one tile at each change, and one case by each; in CI all of them.
QUICK = {*((case, "slim") for case in CASES), *(("many_steps", tile) for tile in TILES)}


@pytest.mark.parametrize(("case", "tile"), [
    pytest.param(case, tile, marks=() if (case, tile) in QUICK else pytest.mark.long)
    for case in CASES for tile in TILES
])  # fmt: skip
def test_every_tile_serves_every_case(case, tile, rng, monkeypatch):
    case, device = CASES[case], shared()
    force(monkeypatch, device, TILES[tile])
    device.launches.clear()
    given, z = arrays(rng, case)
    for actual, want in zip(computed(device, *given, z), wanted(*given, z), strict=True):
        assert_same(actual, want, dtype="float16")
    assert launched(device) >= BOTH


ALL_WAYS = [("emulated", order) for order in ORDERS]
ALL_WAYS += [("emulated-check", order) for order in ("forward", "random", "depth-reverse")]


@pytest.mark.parametrize("case", [
    "stride_two_of_odd_sizes", *(pytest.param(case, marks=pytest.mark.long) for case in ("many_steps", "several_tiles"))
])  # fmt: skip
def test_the_order_of_threads_does_not_matter(case, rng, monkeypatch):
    given, z = arrays(rng, CASES[case], normal)
    results = set()
    for mode, order in ALL_WAYS:
        device = hopper(mode, order=order, block_order="reverse" if order == "reverse" else "forward", seed=3)
        force(monkeypatch, device)
        results.add(tuple(result.tobytes() for result in computed(device, *given, z)))
        assert launched(device) >= BOTH
    assert len(results) == 1


# Numbers, types, what follows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", pytest.param("bfloat16", marks=pytest.mark.long)])
@pytest.mark.parametrize("make", [normal, positive])
@pytest.mark.parametrize("case", ["many_steps", "channels_of_no_whole_chunk", "dilation_shares_a_factor"])
def test_within_the_tolerance(case, make, dtype, rng, monkeypatch):
    device = shared()
    force(monkeypatch, device)
    dtype = np.dtype(dtype) if dtype == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    given, z = arrays(rng, CASES[case], make, np.dtype(dtype))
    refs, scales = wanted(*given, z), wanted(*absolute(*given), z)
    terms = (z.C * z.R * z.S + 1, z.K * z.R * z.S)
    for actual, ref, scale, count in zip(computed(device, *given, z), refs, scales, terms, strict=True):
        assert_close(actual, ref, scale=scale, dtype=np.dtype(dtype), terms=count, zero_mean=make is normal)


@pytest.mark.parametrize("arrange", [np.asarray, channels_last], ids=["c_order", "channels_last"])
def test_bias_relu_and_formats(arrange, rng, monkeypatch):
    device = shared()
    force(monkeypatch, device)
    (x, w, b, dy), z = arrays(rng, CASES["tiles_across_images"])
    x[0, 0, 0, 0] = np.nan
    y = exact_forward(x, w, b, z)
    assert (y < 0).any()
    got, dx = computed(device, x, w, b, dy, z, arrange=arrange, relu=True)
    assert_same(got, np.where(y < 0, 0, y), dtype="float16")
    assert_same(dx, exact_backward(dy, x, w, z)[0], dtype="float16")
    got, _ = computed(device, x, w, None, dy, z, arrange=arrange)
    assert_same(got, exact_forward(x, w, np.zeros_like(b), z), dtype="float16")


@pytest.mark.parametrize("options", [{"pad": 1}, {"pad": 2, "stride": 2}, {"dilation": 2, "pad": 2}], ids=str)
@pytest.mark.parametrize("special", SPECIAL.values() if isinstance(SPECIAL, dict) else SPECIAL, ids=str)
def test_nan_and_infinity_spread_as_the_sums_say(special, options, rng, monkeypatch):
    device = shared()
    force(monkeypatch, device)
    name, place, value = special
    (x, w, b, dy), z = arrays(rng, ((2, 8, 6, 7), (8, 8, 3, 3), options))
    array = {"x": x, "w": w, "b": b, "dy": dy}[name]
    array[tuple(min(i, n - 1) for i, n in zip(place, array.shape, strict=True))] = value
    for actual, want in zip(computed(device, x, w, b, dy, z), expected(x, w, b, dy, z)[:2], strict=True):
        assert_same(actual, want, dtype="float16")


def test_views_that_start_anywhere(rng, monkeypatch):
    """An address that is no multiple of 16 bytes: bulk copies get a copy."""
    device = shared()
    force(monkeypatch, device)
    (x, w, b, dy), z = arrays(rng, ((2, 16, 6, 6), (24, 16, 3, 3), {"pad": 1}))

    class Place:
        array, numpy = staticmethod(device.same_layout), staticmethod(device.asnumpy)

    x_view, dy_view = (off_by_one(Place, a, "channels_last") for a in (x, dy))
    w, b = map(device.asarray, (w, b))
    y = conv.conv_forward(x_view, w, b, z)
    dx = conv.data_gradient(device, dy_view, w, z, None, channels_last=True)
    for actual, want in zip((y, dx), wanted(*map(device.asnumpy, (x_view, w, b, dy_view)), z), strict=True):
        assert_same(device.asnumpy(actual), want, dtype="float16")


def test_a_recording_runs_on_what_lies_there(rng, monkeypatch):
    """A map is kept by value: of the array's place, not of its numbers; the array lives as long as the recording."""
    device = shared()
    force(monkeypatch, device)
    (x, w, b, _), z = arrays(rng, CASES["stride_two"])
    on_device = [device.asarray(channels_last(x)), device.asarray(channels_last(w)), device.asarray(b)]
    conv.conv_forward(*on_device, z)
    device.launches.clear()
    recording = device.record(lambda: conv.conv_forward(*on_device, z))
    assert not device.launches
    for _ in range(2):
        on_device[0][...] = device.asarray(channels_last(whole(rng, x.shape, "float16")))
        recording.replay()
        want = exact_forward(device.asnumpy(on_device[0]), w, b, z)
        assert_same(device.asnumpy(recording.result), want, dtype="float16")
    assert launched(device) == {"conv_forward_wgmma"}


# The rule -----------------------------------------------------------------------------------------------------------

RULE = {  # x, w, options -> whether warpgroups make y and dx
    "body_of_a_net": ((128, 64, 32, 32), (64, 64, 3, 3), {"pad": 1}, (True, True)),
    "first_layer": ((128, 3, 32, 32), (64, 3, 3, 3), {"pad": 1}, (False, True)),
    "stem": ((64, 3, 224, 224), (64, 3, 7, 7), {"stride": 2, "pad": 3}, (False, True)),
    "few_filters": ((2, 64, 9, 9), (8, 64, 3, 3), {}, (True, False)),
    "half_a_step": ((2, 16, 9, 9), (15, 16, 3, 3), {}, (True, False)),
    "groups": ((2, 16, 9, 9), (16, 8, 3, 3), {"groups": 2}, (False, False)),
    "nothing": ((0, 16, 9, 9), (16, 16, 3, 3), {}, (False, False)),
    "largest_corner": ((1, 16, 9, 9), (16, 16, 1, 1), {"pad": 127}, (True, True)),
    "corner_too_far": ((1, 16, 9, 9), (16, 16, 1, 1), {"pad": 129}, (False, False)),
    "largest_step": ((1, 16, 40, 40), (16, 16, 3, 3), {"stride": 8, "pad": 1}, (True, True)),
    "step_too_long": ((1, 16, 40, 40), (16, 16, 3, 3), {"stride": 9, "pad": 1}, (False, True)),
    "taps_too_far": ((1, 16, 300, 300), (16, 16, 3, 3), {"dilation": 128, "pad": 120}, (False, False)),
}


@pytest.mark.parametrize(("x", "w", "options", "taken"), RULE.values(), ids=RULE)
def test_rule(x, w, options, taken, monkeypatch):
    monkeypatch.setattr(conv_wgmma, "_LEAST_SHARE", LEAST_SHARE)
    z, device = conv_sizes(np.broadcast_to(0.0, x), np.empty(w), None, **options), shared()
    assert tuple(conv_wgmma.takes(z, device, FLOAT16, data=data) for data in (False, True)) == taken
    for dtype, arch in ((np.dtype("float32"), 90), (FLOAT16, 80), (FLOAT16, 100)):
        other = EmulatedDevice("emulated", arch=arch)
        assert not any(conv_wgmma.takes(z, other, dtype, data=data) for data in (False, True))
    monkeypatch.setattr(conv_wgmma, "ON", False)
    assert not any(conv_wgmma.takes(z, device, FLOAT16, data=data) for data in (False, True))


@pytest.mark.parametrize(
    ("pixels", "columns", "channels", "taps", "tile"),
    [
        (2**17, 64, 64, 9, conv_wgmma.TURNED),
        (2**17, 128, 128, 9, conv_wgmma.TALL),
        (2**17, 256, 256, 9, conv_wgmma.WIDE),
        (2**13, 128, 64, 1, conv_wgmma.SLIM),
        (2**17, 128, 24, 9, conv_wgmma.TALL._replace(depth=32, stages=8)),
        (2**17, 128, 72, 9, conv_wgmma.TALL._replace(depth=32, stages=8)),
    ],
)
def test_the_tile_that_is_done_first(pixels, columns, channels, taps, tile):
    assert conv_wgmma.tile_of(pixels, columns, channels, taps, 132) == tile


def test_the_box_is_what_the_windows_need():
    """Every size, stride, pad, dilation and window: the box has the outputs' count, and no shift of a tap is negative."""
    axes = itertools.product((1, 4, 9), (1, 2, 3), (1, 2, 3, 4), (0, 1, 2), (1, 2, 3))
    for size, taps, stride, pad, dilation in axes:
        out = (size + 2 * pad - dilation * (taps - 1) - 1) // stride + 1
        if out < 1:
            continue
        z = dataclasses.replace(
            conv_sizes(np.empty((1, 8, 9, 9)), np.empty((8, 8, 3, 3)), None),
            H=size,
            W=size,
            R=taps,
            S=taps,
            P=out,
            Q=out,
            stride=(stride,) * 2,
            pad=(pad,) * 2,
            dilation=(dilation,) * 2,
        )
        for (corners, _), inner, count, step in (
            (conv_wgmma.forward_axes(z), size, out, stride),
            (conv_wgmma._data_axes(z), out, -(-size // stride), 1),
        ):
            assert len(range(corners.lower, inner + corners.upper, step)) == count
        met = {(at + pad - tap * dilation) // stride - at // stride
               for at in range(size) for tap in range(taps) if (at + pad - tap * dilation) % stride == 0}  # fmt: skip
        box, _ = conv_wgmma._data_axes(z)
        assert (box.lower, box.lower + box.reach) == (min(met, default=0), max(met, default=0))


def test_off_by_default():
    """Until a GPU has been seen to agree with the emulator."""
    assert "\nON = False\n" in Path(conv_wgmma.__file__).read_text(encoding="utf-8")


# Where they cannot be had ---------------------------------------------------------------------------------------------


class _Without(EmulatedDevice):
    """A GPU of compute capability 9.0 whose compiler, or whose driver, does not know of these instructions."""

    def __init__(self, *, maps):
        super().__init__("emulated", arch=90)
        self._maps = maps

    def compile(self, text, file, expressions, options=()):
        if not self._maps and "-arch=sm_90a" in options:
            msg = "invalid value for --gpu-architecture"
            raise RuntimeError(msg)
        return super().compile(text, file, expressions, options)

    def tensor_map(self, array, form):
        msg = "CUDA's driver has no cuTensorMapEncodeIm2col"
        raise GpuLaunchError(msg)


@pytest.mark.parametrize(("maps", "why"), [(False, "does not compile"), (True, "cuTensorMapEncodeIm2col")])
def test_conv_tensor_serves_a_device_that_cannot_have_them(maps, why, rng, monkeypatch):
    device = _Without(maps=maps)
    force(monkeypatch, device)
    given, z = arrays(rng, CASES["tiles_across_images"])
    for _ in range(2):
        for actual, want in zip(computed(device, *given, z), wanted(*given, z), strict=True):
            assert_same(actual, want, dtype="float16")
    assert launched(device) >= {"conv_forward_tensor", "conv_backward_data_tensor"}
    assert not launched(device) & BOTH
    assert why in conv_wgmma.refusal(device)
    assert not conv_wgmma.takes(z, device, FLOAT16, data=False)


def test_maxima_are_left_to_conv_tensor(rng, monkeypatch):
    device = shared()
    force(monkeypatch, device)
    (x, w, b, _), z = arrays(rng, ((2, 16, 6, 6), (16, 16, 3, 3), {"pad": 1}))
    device.launches.clear()
    on_device = [device.asarray(channels_last(x)), device.asarray(w), device.asarray(b)]
    made = conv.forward_unit(*on_device, z, precision=None, pooled=True, training=True, moments=False)
    want = exact_forward(x, w, b, z).reshape(2, 16, 3, 2, 3, 2).max((3, 5))
    assert_same(device.asnumpy(made.y), want, dtype="float16")
    assert "conv_forward_tensor" in launched(device)


def test_a_kernel_of_one_architecture_is_refused_elsewhere():
    message = r"^conv_forward_wgmma needs compute capability 9\.0, emulated has 10\.0$"
    with pytest.raises(GpuLaunchError, match=message):
        conv_wgmma._FORWARD.prepare(EmulatedDevice("emulated", arch=100), (FLOAT16, False, *conv_wgmma.SLIM))


def test_a_map_must_be_of_an_array_of_the_device():
    device = shared()
    message = "argument x must be a tensor map of an array on emulated, got builtins.int"
    with pytest.raises(kernel.ArgTypeError, match=message):
        conv_wgmma._FORWARD(device, (FLOAT16, False, *conv_wgmma.SLIM), 1, 7, None, None, None, {}, None)


# Maps of the driver -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    return stand_in(tmp_path_factory.mktemp("libcuda"))


def test_maps_are_encoded_as_the_driver_documents(driver):
    array = [0, 6, 4, 4096, 72, 9, 7, 3, 144, 1296, 9072]
    form = tensor_map.Windows((-1, -2), (-3, -4), (1, 2), 64, 128, 128)
    made = tensor_map.encode(driver, 4096, (3, 7, 9, 72), FLOAT16, form)
    assert made.tobytes() == b"\7" * 128
    want = [*array, -1, -2, -3, -4, 64, 128, 1, 1, 2, 1, 0, 3, 2, 0]
    assert driver.seen()[: len(want)] == want
    tensor_map.encode(driver, 4096, (40, 9, 72), FLOAT16, tensor_map.Boxes((32, 1, 64), 64))
    want = [0, 6, 3, 4096, 72, 9, 40, 144, 1296, 32, 1, 64, 1, 1, 1, 0, 2, 2, 0]
    assert driver.seen()[: len(want)] == want


def test_what_the_driver_refuses_is_named(driver):
    driver.refuse(1)
    form = tensor_map.Boxes((32, 1, 64), 64)
    with pytest.raises(
        GpuLaunchError, match=r"cuTensorMapEncodeTiled failed with CUDA error 1: array float16 \(40, 9, 72\)"
    ):
        tensor_map.encode(driver, 4096, (40, 9, 72), FLOAT16, form)
    with pytest.raises(GpuLaunchError, match="no cuTensorMapEncodeTiled, which is there from CUDA 12 on"):
        tensor_map.encode(object(), 4096, (40, 9, 72), FLOAT16, form)


def test_a_map_is_encoded_once_for_a_place_and_a_form(driver, monkeypatch):
    monkeypatch.setattr(tensor_map, "_driver", lambda: driver)
    calls = []
    monkeypatch.setattr(tensor_map, "encode", lambda *key: calls.append(key) or np.zeros((), "V128")[()])

    class Array:
        shape, dtype = (40, 9, 72), FLOAT16

        def __init__(self, address):
            self.data = type("Memory", (), {"ptr": address})

    maps, form = tensor_map.Maps(), tensor_map.Boxes((32, 1, 64), 64)
    for address in (4096, 4096, 8192):
        assert maps.of(Array(address), form).array.data.ptr == address
    maps.of(Array(4096), form._replace(box=(32, 1, 128)))
    assert len(calls) == 3
    monkeypatch.setattr(maps, "_MOST", 3, raising=False)
    maps.of(Array(0), form)
    assert len(maps._known) == 1


# Planted faults -------------------------------------------------------------------------------------------------------

_FULL = "ptx::mbarrier_wait(&beside.ring.full[turn.stage], turn.parity);"
_EMPTY = "ptx::mbarrier_wait(&beside.ring.empty[turn.stage], turn.parity ^ 1);"
_EXPECT = "ptx::mbarrier_arrive_expect_tx(&beside.ring.full[turn.stage], STAGE);"
_WAIT = "ptx::wgmma_wait<1>();  // the step before has been multiplied, its stage is free"
_RELEASE = "if (step > 0 && lane == 0) ptx::mbarrier_arrive(&beside.ring.empty[before]);"
_ONE_RELEASES = _RELEASE.replace("lane == 0)", "thread == 0) for (int i = 0; i < 8; ++i)")
_FACTOR = "ptx::wgmma_desc(a + i * 64 * LINE + k, 16, 8 * LINE, SWIZZLE)"
_DOWNWARDS = "ptx::wgmma_desc(d + k / 32 * 16 * 128, BOX, 8 * 128, ptx::swizzle_128)"

# Name -> (before, after, what mode check reports; None: wrong numbers).
FAULTS = {
    "no_wgmma_fence": ("ptx::wgmma_fence();", "", "MISSING wgmma.fence"),
    "no_wait_for_full": (_FULL, "", "UNINITIALISED: wgmma reads"),
    "no_wait_for_empty": (_EMPTY, "", "mbarrier"),
    "parity_of_full": (_FULL, _FULL.replace("parity", "parity ^ 1"), "UNINITIALISED: wgmma reads"),
    "parity_of_empty": (_EMPTY, _EMPTY.replace(" ^ 1", ""), "no thread can continue"),
    "parity_never_turns": ("stage = 0, parity ^= 1;", "stage = 0;", ""),
    "too_few_bytes_expected": (_EXPECT, _EXPECT.replace("STAGE)", "STAGE - 128)"), "mbarrier"),
    "too_many_bytes_expected": (_EXPECT, _EXPECT.replace("STAGE)", "STAGE + 128)"), "more bytes than were"),
    "stage_released_early": (_RELEASE, _RELEASE.replace("step > 0 && ", "").replace("[before]", "[turn.stage]"), ""),
    "step_before_not_waited_for": (_WAIT, "", ""),
    "one_warp_releases_for_all": (_RELEASE, _ONE_RELEASES, "has not signalled this thread"),
    "no_fence_after_mbarrier_init": ("ptx::fence_mbarrier_init();", "", "MISSING fence.mbarrier_init"),
    "sums_read_early": ("ptx::wgmma_wait<0>();", "", ""),
    "no_hold": ("ptx::wgmma_hold(sum[i]);", ";", "without wgmma_hold"),
    "no_barrier_before_outputs": ("__syncthreads();  // the stages are free", ";  //", ""),
    "wrong_swizzle": (_FACTOR, _FACTOR.replace("SWIZZLE", "ptx::swizzle_32"), "SWIZZLE"),
    "columns_too_close": (_DOWNWARDS, _DOWNWARDS.replace("BOX", "BOX / 2"), None),
    "rows_too_close": (_DOWNWARDS, _DOWNWARDS.replace("8 * 128", "4 * 128"), None),
    "pixels_off_by_8_channels": ("slice * DEPTH, left, top, n", "slice * DEPTH + 8, left, top, n", None),
    "taps_exchanged": ("at.left + s * at.across.apart", "at.left + r * at.across.apart", None),
    "corner_outside_the_box": ("at.across.first - at.left;", "at.across.first - at.left - 1;", "outside the bounding box"),
    "first_sums_are_not_forgotten": ("step + k > 0", "true", None),
}  # fmt: skip


def broken(monkeypatch, before, after, file="conv_wgmma.cu"):
    """Let kernels be compiled with `after` in the place of `before`, which is in that file."""
    text = kernel.source
    assert before in text(file)
    monkeypatch.setattr(kernel, "source", lambda file: text(file).replace(before, after))


def _run(device, rng, monkeypatch):
    """Run a convolution of two slices of channels and several turns of the ring; return whether its numbers are right."""
    force(monkeypatch, device, conv_wgmma.LARGE)
    given, z = arrays(rng, ((2, 72, 5, 6), (136, 72, 3, 3), {"pad": 1}))
    with np.errstate(all="ignore"):
        results = computed(device, *given, z)
        return all(np.array_equal(a, b) for a, b in zip(results, wanted(*given, z), strict=True))


def test_without_a_fault_nothing_is_reported(rng, monkeypatch):
    assert _run(EmulatedDevice("emulated-check", arch=90, timeout=20), rng, monkeypatch)


QUICK_FAULTS = ["no_wgmma_fence", "stage_released_early", "parity_of_empty", "too_many_bytes_expected"]


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in QUICK_FAULTS else pytest.mark.long) for name in FAULTS
])  # fmt: skip
def test_planted_faults_are_noticed(name, rng, monkeypatch):
    before, after, words = FAULTS[name]
    broken(monkeypatch, before, after)
    device = EmulatedDevice("emulated-check", arch=90, timeout=20)
    if words is None:
        assert not _run(device, rng, monkeypatch)
        return
    with pytest.raises(GpuLaunchError) as caught:
        _run(device, rng, monkeypatch)
    assert isinstance(caught.value.__cause__, EmulationError), caught.value
    assert words in str(caught.value.__cause__)
