"""Predicted step times are what tests/ladder/step_times.json says, rest on the steps that are counted, and add up."""

import dataclasses
import json
import re
from collections import Counter

import numpy as np
import pytest

from gpuconv.cuda.kernel import Kernel
from tests.ladder import hot_loops, step_counts, step_times
from tests.ladder.null_device import Launch, NullArray, nowhere
from tests.ladder.predictions import predictions
from tests.ladder.step_times import CASES, CHIPS, Chip, time_of

RECORDED = step_times.read()["steps"]
ANEW = "write the table anew: python -m tests.ladder.step_times --write"
# Of resnet18, whose hundreds of nodes take a second, one precision.
SMALLEST = [
    name
    for name, case in CASES.items()
    if case.batch == min(step_times._BATCHES[case.preset])
    and (case.preset != "resnet18" or case.precision == "float32")
]
H200 = CHIPS["H200"]


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_batch_s_step_is_as_predicted(name):
    assert step_times.differences(RECORDED, step_times.table([name])) == [], ANEW


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(CASES.keys() - set(SMALLEST)))
def test_a_step_is_as_predicted(name):
    assert step_times.differences(RECORDED, step_times.table([name])) == [], ANEW


def test_the_table_has_every_case_and_chip():
    assert list(RECORDED) == list(CASES), ANEW
    for name, of_chips in RECORDED.items():
        assert list(of_chips) == list(CASES[name].chips), name
        for row in of_chips.values():
            assert tuple(row) == step_times.COLUMNS, name
            parts = sum(row[column] for column in ("convolutions", "products", "passes", "gaps"))
            assert row["graph"] == pytest.approx(parts, abs=0.003), name
            assert row["one by one"] >= row["graph"], name


def test_the_readme_shows_the_table():
    text = step_times.README.read_text(encoding="utf-8")
    assert step_times.in_readme(text, RECORDED) == text, ANEW
    assert max(map(len, step_times.shown(RECORDED).splitlines())) <= 80


def test_predictions_of_steps_are_those_of_the_table():
    steps = predictions()["steps"]
    found = {f"{step['preset']}-{step['batch']}-{step['precision']}": step["gpu_ms"] for step in steps}
    assert found == {name: RECORDED[name]["H200"]["graph"] for name in found}


def test_by_warpgroups_steps_of_16_bits_are_predicted_too_and_others_are_the_same():
    narrow = {name for name, case in CASES.items() if case.precision in ("float16", "bfloat16")}
    assert narrow == {name for name, of_chips in RECORDED.items() if "H200 wgmma" in of_chips}
    goals = [name for name in narrow if name.rpartition("-")[0] in step_times.GOALS]
    assert len(goals) == 4
    for name in goals:
        by_warps, by_groups = (RECORDED[name][of]["convolutions"] for of in ("H200", "H200 wgmma"))
        assert by_groups < by_warps, name


def test_kernels_of_warpgroups_are_taken_where_they_may_be():
    case = CASES["convnet-128-bfloat16"]
    ways = [step_times.recorded(case, CHIPS[of]) for of in ("H200", "H200 wgmma")]
    found = [{launch.name for launch in launches if launch.name.endswith("_wgmma")} for launches in ways]
    assert found == [set(), {"conv_forward_wgmma", "conv_backward_data_wgmma", "conv_backward_weight_wgmma"}]


# What is launched -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALLEST)
def test_the_launches_are_those_that_cupy_s_trace_counts(name):
    case = CASES[name]
    launches = step_times.recorded(case, H200)
    counted = step_counts.read()["steps"][f"{case.preset}-{case.precision}"]
    own = Counter(launch.name for launch in launches if launch.expression)
    if case.precision in ("float16", "bfloat16"):
        assert own == counted["own"]
    assert _by_pass(own) == _by_pass(counted["own"])
    assert sum(launch.name == "product" for launch in launches) == counted["products"]


def _by_pass(own):
    """Return how often each pass is launched, whichever kernel it takes: float32's sums are shorter in the nets counted.

    What gets images ready for one kernel and not for another is left out, and so are the moments of batch norm, which some
    make with the convolution.
    """
    counts = Counter()
    for name, count in own.items():
        if name not in ("conv_pad_tensor", "conv_pack_filters", "batchnorm_forward_moments"):
            method = r"_(tensor_float|tensor|tiled|few|direct)$" if name.startswith("conv_") else r"$"
            counts[re.sub(method, "", name)] += count
    return counts


def test_a_step_s_operations_are_those_of_its_layers_and_what_fills_their_tiles():
    """Of resnet18: forward of all, dx of all but the first, dw of all."""
    batch, found = 128, 0.0
    first = 2 * batch * 32**2 * 64 * 3 * 9
    layers = [(4, 32, 64, 64, 3)]
    for side, channels in ((16, 64), (8, 128), (4, 256)):
        layers += [(1, side, channels, 2 * channels, 3), (3, side, 2 * channels, 2 * channels, 3)]
        layers += [(1, side, channels, 2 * channels, 1)]
    others = sum(count * 2 * batch * side**2 * C * K * taps**2 for count, side, C, K, taps in layers)
    launches = step_times.recorded(CASES["resnet18-128-bfloat16"], H200)
    times = [time_of(launch, H200) for launch in launches]
    found = sum(time.flop for time in times if time.column == "convolutions")
    assert 1 < found / (2 * first + 3 * others) < 1.02


def test_a_step_s_bytes_are_those_of_its_passes():
    """Of resnet18, elements of each convolution's output: batch norm's results 2 and what is added to them; the sums of

    its gradients 2, these 3, and a byte's mark each time where a ReLU follows.  Its moments 1, where tensor cores do not
    make them with the convolution: of less than 128 terms, the first one's and the first shortcut's.
    """
    batch = 128
    outputs = {32: 5 * 64, 16: 4 * 128 + 128, 8: 4 * 256 + 256, 4: 4 * 512 + 512}
    relus = {32: 5 * 64, 16: 4 * 128, 8: 4 * 256, 4: 4 * 512}
    sums = {32: 2 * 64, 16: 2 * 128, 8: 2 * 256, 4: 2 * 512}  # what comes out of the blocks

    def elements(channels):
        return batch * sum(side**2 * count for side, count in channels.items())

    launches = step_times.recorded(CASES["resnet18-128-float32"], H200)
    kinds = {
        "batchnorm_forward_moments": elements({32: 64, 16: 128}),
        "batchnorm_forward_fused": 2 * elements(relus) + elements(sums),
        "batchnorm_backward_sums": 2 * elements(outputs),
        "batchnorm_backward_data": 3 * elements(outputs),
    }
    for kind, expected in kinds.items():
        of_kind = [each for each in launches if each.name.startswith(kind) and not each.name.endswith("_merge")]
        found = sum(time_of(launch, H200).bytes for launch in of_kind)
        assert 1 <= found / (4 * expected) < 1.13, kind  # partial sums, marks


def test_nothing_is_computed_and_nobody_s_memory_is_taken():
    with nowhere(90, 132) as device:
        array = device.zeros((2**15, 2**15), np.float32)  # 4 GB
        assert device.holds(array)
        assert [device.is_aligned(part, 16) for part in (array, array[:, 4:], array[:, 1:])] == [True, True, False]
        array[0, :3] = np.ones(3, np.float32)
        assert array.astype(np.float16).dtype == np.float16
    assert [launch.name for launch in device.launches] == ["memset", "copy", "copy"]
    assert device.launches[1].sizes == {"source": 12, "target": 12}
    assert not any(device in key for kernel in Kernel.all.values() for key in kernel._ready)


# The model ------------------------------------------------------------------------------------------------------------

# FFMA at 10 operations a second of each of 4 multiprocessors, one byte a second.
SMALL_CHIP = Chip("90", 4, 40.0, 400.0, 200.0, 1.0)
# Bound by FFMA alone; two blocks keep 0.75, one keeps 0.5.
LOOP = hot_loops.Loop(256, 256, 24, 5, 2, 60, 96, 2)
FASTER = {"90": LOOP._replace(instructions=128, ffma=128)}
SHAPE = [(name, np.int32) for name in ("N", "C", "K", "R", "S", "stride_v", "stride_h", "groups")]


def _product(name, blocks, z, *, length=0, templates=None, **sizes):
    shape = np.zeros((), SHAPE)
    for field, number in z.items():
        shape[field] = number
    templates = templates or {"T": "float", "PIXELS": "4", "FILTERS": "2", "DEPTH": "8"}
    values = {"z": shape, "length": length}
    return Launch(name, sizes, f"{name}<...>", templates, (blocks, 1, 1), values)


Z = {"N": 1, "C": 12, "K": 20, "R": 3, "S": 3, "stride_v": 1, "stride_h": 1, "groups": 1}


@pytest.fixture
def one_loop(monkeypatch):
    rows = {f"{name}<...>": {"90": LOOP} for name in ("conv_forward_tiled", "conv_backward_data_tiled", "any_tensor")}
    rows |= {f"{name}<...>": {"90": LOOP} for name in ("conv_forward_few", "conv_backward_weight_tiled")}
    by_warpgroups = ("conv_forward_wgmma", "conv_backward_data_wgmma", "conv_backward_weight_wgmma")
    rows |= {f"{name}<...>": {"90": LOOP} for name in by_warpgroups}
    for packs, row in (("true", FASTER), ("false", {"90": LOOP})):
        rows[f"{step_times._TILED}{packs}{step_times._SMALL_TILE}"] = row
    monkeypatch.setattr(step_times, "_rows", lambda: rows)


@pytest.mark.parametrize(
    ("name", "z", "length", "inner"),
    [
        ("conv_forward_tiled", Z, 0, 9 * 16),
        ("conv_forward_few", Z, 0, 14 * 8),
        ("conv_backward_data_tiled", Z, 0, 9 * 24),
        ("conv_backward_data_tiled", {**Z, "stride_v": 2, "stride_h": 2}, 0, 7 * 8),
        ("conv_forward_tiled", {**Z, "groups": 2}, 0, 9 * 8),
        ("conv_backward_weight_tiled", Z, 40, 40),
        ("conv_forward_wgmma", Z, 0, 9 * 16),
        ("conv_backward_data_wgmma", Z, 0, 9 * 24),
        ("conv_backward_weight_wgmma", Z, 40, 40),
        ("any_tensor", Z, 0, 14 * 8),
        ("any_tensor", {**Z, "C": 3}, 0, 5 * 8),
    ],
)
def test_a_block_s_operations_are_of_whole_steps(name, z, length, inner, one_loop):
    found = time_of(_product(name, 3, z, length=length), SMALL_CHIP)
    assert found.column == "convolutions"
    assert found.flop == 3 * 2 * 4 * 2 * inner


@pytest.mark.parametrize(
    ("blocks", "shares"),
    [(1, 1 / 0.5), (4, 1 / 0.5), (5, 2 / 0.75), (8, 2 / 0.75), (9, 2 / 0.75 + 1 / 0.5), (16, 4 / 0.75)],
)
def test_waves_are_those_of_the_busiest_multiprocessor(blocks, shares, one_loop):
    found = time_of(_product("conv_backward_weight_tiled", blocks, Z, length=40), SMALL_CHIP)
    assert found.seconds == pytest.approx(2 * 4 * 2 * 40 / 10 * shares)


def test_bytes_that_take_longer_are_waited_for(one_loop):
    launch = _product("conv_backward_weight_tiled", 1, Z, length=40, x=10**6)
    assert time_of(launch, SMALL_CHIP).seconds == 10**6 / 0.75


@pytest.mark.parametrize(
    ("name", "templates", "rate"),
    [
        ("conv_forward_tiled", {"T": "half16"}, 40),
        ("any_tensor", {"T": "half16"}, 400),
        ("any_tensor", {"T": "float"}, 200),
        ("any_tensor_float", {"PRODUCTS": "3"}, 200),
        ("any_wgmma", {"T": "half16"}, 400),
    ],
)
def test_tensor_cores_have_a_peak_of_their_own(name, templates, rate):
    launch = _product(name, 1, Z, templates=templates)
    assert SMALL_CHIP.peak(launch) == rate


def test_several_products_for_one_take_as_many_times(one_loop):
    templates = {"T": "float", "PRODUCTS": "3", "PIXELS": "4", "FILTERS": "2", "DEPTH": "8"}
    once, thrice = (
        time_of(_product("any_tensor", 3, Z, templates=each), SMALL_CHIP)
        for each in ({**templates, "PRODUCTS": "1"}, templates)
    )
    assert thrice.seconds == pytest.approx(3 * once.seconds)


def test_bfloat16_has_the_loop_of_float16(monkeypatch):
    rows = {"any_tensor<half16>": {"90": LOOP}}
    monkeypatch.setattr(step_times, "_rows", lambda: rows)
    found = [step_times._loop_of(f"any_tensor<{kind}>", SMALL_CHIP) for kind in ("half16", "bfloat16", "float")]
    assert found == [LOOP, LOOP, None]


def test_a_convolution_without_a_hot_loop_is_refused():
    with pytest.raises(ValueError, match=r"^conv_forward_direct<\.\.\.> makes products and has no hot loop in any"):
        time_of(_product("conv_forward_direct", 1, Z), SMALL_CHIP)


def test_what_is_updated_in_place_is_moved_twice():
    launch = Launch("sgd_update", {"w": 4, "dw": 4, "velocity": 4}, "sgd_update<float, true>")
    assert time_of(launch, SMALL_CHIP) == ("passes", 20 / 0.75, 0.0, 20)


def test_what_is_updated_in_place_is_an_argument():
    for name, arrays in step_times._IN_PLACE.items():
        parameters = {parameter.name for parameter in Kernel.all[name].signature.parameters if parameter.pointer}
        assert set(arrays) <= parameters, name


@pytest.mark.parametrize(
    ("kind", "flop", "longest"),
    [(0, (3 * 2304, 1 * 32), 256), (1, (3 * 128, 1 * 4), 128), (2, (72 * 128, 1 * 4), 128)],
)
def test_a_long_product_of_muon_s_is_waited_for(kind, flop, longest, one_loop):
    """A bank of 128 x 2304, two tiles down, its sums in nine slices, and one of 32 x 4, which is turned; on many
    multiprocessors."""
    banks = np.array([(0, 128, 2304, 0, 0, 256, 0), (0, 32, 4, 0, 0, 64, 0)])
    launch = Launch("muon_product", {}, "muon_product<float>", {"KIND": str(kind)}, values={"banks": banks})
    of_tile = 2.0 * 64 * 64
    found = time_of(launch, SMALL_CHIP._replace(multiprocessors=200, ffma=2000.0))
    assert found.flop == of_tile * sum(flop)
    assert found.seconds == pytest.approx(of_tile * longest / (10 * 0.5))
    few = time_of(launch, SMALL_CHIP._replace(multiprocessors=1, ffma=10.0))
    blocks = {0: 28, 1: 4, 2: 73}[kind]
    assert blocks > LOOP.blocks
    assert few.seconds == pytest.approx(of_tile * sum(flop) / (10 * 0.75))


def test_launches_one_by_one_take_the_host_s_time_if_it_is_more():
    for row in (of_chips["H200"] for of_chips in RECORDED.values()):
        host = row["launches"] * predictions()["host_us_per_launch"] / 1e3
        assert row["one by one"] == pytest.approx(max(host, row["graph"]), abs=0.002)


def test_what_changed_is_named():
    new = {name: {of: dict(row) for of, row in of_chips.items()} for name, of_chips in RECORDED.items()}
    assert step_times.differences(RECORDED, new) == []
    name = next(iter(new))
    new[name]["A100"]["graph"] *= 2
    new["other"] = {"H200": {"graph": 1.5}}
    was = RECORDED[name]["A100"]["graph"]
    assert step_times.differences(RECORDED, new) == [
        f"{name}, A100: graph: {2 * was:g}, was {was:g}",
        "other, H200: graph: 1.5, was nothing",
    ]


def test_the_table_is_written_as_it_is_read(tmp_path, monkeypatch, capsys):
    name = SMALLEST[0]
    monkeypatch.setattr(step_times, "TABLE", tmp_path / "table.json")
    monkeypatch.setattr(step_times, "README", tmp_path / "README.md")
    step_times.README.write_text("before\n<!-- step_times -->\nold\n<!-- end of step_times -->\nafter\n")
    monkeypatch.setattr("sys.argv", ["step_times", "--write", name])
    assert step_times.main() == 0
    assert json.loads(step_times.TABLE.read_text())["steps"] == {name: RECORDED[name]}
    text = step_times.README.read_text()
    assert text.startswith("before\n<!-- step_times -->\n```\nPredicted, not measured")
    assert text.endswith("```\n<!-- end of step_times -->\nafter\n")
    monkeypatch.setattr("sys.argv", ["step_times", "--check", name])
    assert step_times.main() == 0
    kept = json.loads(step_times.TABLE.read_text())
    kept["steps"][name]["H200"]["graph"] += 1
    step_times.TABLE.write_text(json.dumps(kept))
    assert step_times.main() == 1
    assert f"{name}, H200: graph" in capsys.readouterr().out


def test_each_kernel_s_share_is_shown(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["step_times", "--kernels", SMALLEST[0]])
    assert step_times.main() == 0
    out = capsys.readouterr().out
    assert "TFLOP/s" in out
    assert " TB/s" in out
    assert "conv_forward_few<float, true, false, 256, 32, 8, 4, 8>" in out


def test_a_case_is_a_preset_at_a_batch_size():
    assert str(dataclasses.replace(CASES[SMALLEST[0]], batch=7)) == "convnet-7-float32"
    assert not isinstance(np.zeros(1), NullArray)
