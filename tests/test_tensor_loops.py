"""The hot loops of the convolutions on tensor cores are what tests/ladder/tensor_loops.json says, and what bounds them."""

import json

import pytest
from emulate.nvrtc import nvrtc
from emulate.sass import Line

from gpuconv.cuda import conv_tensor, conv_weight_tensor
from tests.ladder import loop_tables, tensor_loops
from tests.ladder.kernel_calls import GroupedDevice, emulated_on
from tests.ladder.tensor_loops import TensorLoop

RECORDED = tensor_loops.recorded()
ANEW = "write the table anew: python -m tests.ladder.tensor_loops --write"


def _held(chosen):
    """Compile kernels, given by architecture and name, and hold their loops to the table."""
    if RECORDED["nvrtc"] != nvrtc().version:
        pytest.skip(f"the table was written with NVRTC {RECORDED['nvrtc']}, this is {nvrtc().version}")
    measured = tensor_loops.measure(chosen)
    kept = {name: {arch: RECORDED["rows"][name][arch] for arch in of_archs} for name, of_archs in measured.items()}
    lines = loop_tables.differences(kept, measured)
    assert not lines, "\n".join([*lines, ANEW])


@pytest.mark.compilers
def test_a_loop_of_each_kernel_is_as_recorded():
    of_kernel = {}
    for name, one in tensor_loops.instances().items():
        of_kernel.setdefault(one.kernel.name, (name, one))
    _held({"90": dict(of_kernel.values())})


@pytest.mark.long
@pytest.mark.compilers
def test_loops_of_float16_are_as_recorded_and_none_spills():
    _held({"90": {name: one for name, one in tensor_loops.instances().items() if "half16" in name}})


@pytest.mark.ladder
@pytest.mark.compilers
def test_loops_are_as_recorded():
    _held(dict.fromkeys(loop_tables.ARCHS, tensor_loops.instances()))


def test_the_table_has_every_kernel_and_tile():
    assert list(RECORDED["rows"]) == sorted(tensor_loops.instances()), ANEW
    for name, of_archs in RECORDED["rows"].items():
        assert tuple(of_archs) == loop_tables.ARCHS, name


def test_the_table_is_possible():
    for name, one in tensor_loops.instances().items():
        for arch, loop in RECORDED["rows"][name].items():
            assert loop.hmma == tensor_loops.hmma_of_step(one), name
            assert loop.shared_cycles >= 4 * (loop.ldmatrix + loop.copies), name
            assert loop.instructions > loop.hmma + loop.ldmatrix + loop.copies, name
            assert 0 < loop.shares(arch)[1] < loop.shares(arch)[0] <= 1, name


def _of_tile(kernel, tile):
    (row,) = (of for name, of in RECORDED["rows"].items() if name.startswith(kernel) and name.endswith(tile))
    return row


@pytest.mark.parametrize(
    ("kernel", "tile"),
    [
        ("conv_forward_tensor", conv_tensor.LARGE),
        ("conv_backward_data_tensor", conv_tensor.LARGE),
        ("conv_backward_weight_tensor", conv_weight_tensor.LARGE),
    ],
)
def test_large_tiles_are_bound_by_tensor_cores(kernel, tile):
    """On both architectures, with over a third of the instructions products."""
    for arch, loop in _of_tile(kernel, f"{', '.join(map(str, tile))}>").items():
        assert loop.bound(arch)[1] == "tensor"
        assert loop.hmma_share >= 0.36


@pytest.mark.parametrize("kernel", ["conv_forward_tensor<half16, 1, false", "conv_backward_data_tensor<half16, 1"])
def test_of_the_instructions_of_tall_tiles_36_of_100_are_products(kernel):
    """Shared memory bounds these on sm_90."""
    rows = _of_tile(kernel, f", {', '.join(map(str, conv_tensor.TALL))}>")
    assert all(loop.hmma_share >= 0.36 for loop in rows.values())


@pytest.mark.compilers
def test_no_two_lanes_of_a_load_from_shared_memory_meet_in_a_bank():
    """ldmatrix takes its four passes, and what says where windows lie takes one.

    The gradient of float32's filters has no ldmatrix: its loads of 16 bytes take four passes, or two of which lanes read
    the same.
    """
    every = tensor_loops.instances()
    device = GroupedDevice("emulated-stats", every.values())
    seen = set()
    with emulated_on(device) as place:
        for call in tensor_loops._calls():
            device.launches.clear()
            call.on(place, call.dtypes[0], "NHWC")
            for one in device.launches:
                if one.kernel in every:
                    for site in one.sites:
                        in_loop = site.kind == "shared load" and "weight" in one.kernel
                        if in_loop and one.kernel.startswith(tensor_loops._WEIGHTS_OF_FLOAT):
                            assert site.units <= 4 * site.requests, (one.kernel, site)
                            assert site.ideal in (site.units, site.requests), (one.kernel, site)
                        elif in_loop or site.kind == "ldmatrix":
                            passes = 1 if in_loop else 4
                            assert site.units == passes * site.requests, (one.kernel, site)
                            seen.add((one.kernel.partition("<")[0], site.kind))
    assert ("conv_backward_weight_tensor", "shared load") in seen  # the others have such loads behind the loop
    by_ldmatrix = {one.kernel.name for one in every.values()} - {tensor_loops._WEIGHTS_OF_FLOAT}
    assert {kernel for kernel, kind in seen if kind == "ldmatrix"} == by_ldmatrix


# The model -----------------------------------------------------------------------------------------------------------

LOOP = TensorLoop(160, 64, 16, 8, 96, 217, 2)


@pytest.mark.parametrize(
    ("loop", "arch", "bound", "alone"),
    [
        (LOOP, "90", (104, "tensor"), 64 / 104),
        (LOOP, "80", (128, "tensor"), 1.0),
        (LOOP._replace(shared_cycles=128), "90", (128, "shared"), 0.5),
        (LOOP._replace(instructions=640), "80", (160, "issue"), 0.8),
    ],
)
def test_the_largest_of_the_cycles_is_the_bound(loop, arch, bound, alone):
    assert loop.bound(arch) == bound
    assert loop.shares(arch) == pytest.approx((alone, 0.75 * alone))


def test_three_percent_of_the_bound_are_let_pass():
    before = {"a": {"80": LOOP, "90": LOOP}, "gone": {"90": LOOP}}
    now = {"a": {"80": LOOP._replace(shared_cycles=131), "90": LOOP._replace(shared_cycles=108)}, "new": {}}
    assert loop_tables.differences(before, now) == [
        "new: new",
        "gone: gone",
        "a, sm_90: 108.0 cycles (shared), recorded 104.0 (tensor): more",
    ]
    now["a"] = {"80": LOOP._replace(hmma=32)}
    assert loop_tables.differences(before, now)[2:] == [
        "a, sm_80: 96.0 cycles (shared), recorded 128.0 (tensor): less, which is to be recorded",
    ]


@pytest.mark.parametrize(
    ("opcode", "guard", "passes"),
    [
        ("LDSM.16.M88.4", "", 4),
        ("LDSM.16.MT88.4", "", 4),
        ("LDSM.16.M88.2", "", 2),
        ("LDGSTS.E.BYPASS.128", "", 4),
        ("LDS.64", "", 1),
        ("LDS", "!PT", 0),
        ("LDG.E.128", "", 0),
        ("HMMA.16816.F32", "", 0),
    ],
)
def test_passes_over_shared_memory(opcode, guard, passes):
    assert tensor_loops.passes(Line(opcode, "", guard)) == passes


def test_the_table_is_written_as_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_loops, "TABLE", tmp_path / "table.json")
    tensor_loops.TABLE.write_text(loop_tables.dumped(RECORDED))
    assert tensor_loops.recorded() == RECORDED
    assert json.loads(tensor_loops.TABLE.read_text())["columns"] == list(tensor_loops.COLUMNS)


def test_what_is_recorded_is_shown(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["tensor_loops", "--show"])
    assert tensor_loops.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| `conv_") for line in lines) == len(loop_tables.ARCHS) * len(RECORDED["rows"])
