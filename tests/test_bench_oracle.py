"""bench/cases.py, inputs.py, oracle.py and peers: the sampled oracle is the loops', and every side agrees with it."""

import dataclasses
import functools
import math

import numpy as np
import pytest
from operators import OPERATORS

import gpuconv
from bench import cases, inputs, oracle, peers
from bench import conftest as bench_options
from bench.cases import Case
from bench.peers import ours
from bench.worker import Worker
from gpuconv import backend
from gpuconv.errors import ConfigError

pytestmark = pytest.mark.long

# What has no definition yet, test_complete.py names.
TINY = {
    name: Case("tiny", row.name, shapes["x"], shapes.get("w"), row.options_of(sizes))
    for row in OPERATORS.values()
    if row.name in oracle._DEFINITIONS
    for name, sizes in row.bench.items()
    for shapes in [row.shapes(sizes)]
}
TINY |= {name: Case("tiny", name, (5, 4)) for name in cases.LOSSES}
TINY["complex conv"] = dataclasses.replace(TINY["conv"], complex=True)


def samples(name, case, layout="NCHW", regime="float32"):
    one = Worker(peers.load(name), "cpu", 1)
    one.start()
    return one.prepare(case, layout, regime)


@pytest.fixture(autouse=True)
def device_stays(monkeypatch):
    """Sides choose their device for their process, which here is that of all tests."""
    monkeypatch.setattr(backend, "_chosen", backend._chosen)


@pytest.mark.parametrize("case", TINY.values(), ids=TINY)
def test_definitions_are_those_of_the_loops(case, monkeypatch):
    monkeypatch.setitem(backend._PACKAGE_OF, "NumPy", "gpuconv.naive")
    drawn = inputs.draw(case)
    arrays = (drawn.x, drawn.w, drawn.b, drawn.dy, drawn.labels)
    wide = [a if a is None or a.dtype.kind == "i" else a.astype(oracle.wide(a.dtype)) for a in arrays]
    given = inputs.Inputs(case, "NCHW", "float32", *wide)
    loops = peers.load("gpuconv")
    loops.start("cpu", 1)
    calls = loops.calls(given)
    for direction, expected in oracle.references(given).items():
        for reference, result in zip(expected, calls[direction](), strict=True):
            got = oracle.sample(result, reference.name)
            assert got.shape == reference.shape
            # Both are sums in float64, in different orders.
            values = np.where(got.values == 0, 0, reference.values) if reference.dropped else reference.values
            np.testing.assert_allclose(got.values, values, rtol=1e-12, atol=1e-13)
            assert reference.agrees(got)


def test_allowed_error_follows_the_tolerance_rule():
    case = Case("ones", "conv", (1, 2, 3, 3), (1, 2, 3, 3))
    drawn = inputs.draw(case)
    ones = [np.ones_like(array) for array in (drawn.x, drawn.w, drawn.b, drawn.dy)]
    one = inputs.Inputs(case, "NCHW", "float32", *ones, None)
    (y,) = oracle.references(one)["forward"]
    assert y.values == [19.0]  # 18 products and the bias
    assert y.allowed == (4 + 2 * math.sqrt(19)) * 2.0**-24 * 19


@pytest.mark.parametrize("spoiled", ["value", "shape", "nan_elsewhere"])
def test_a_spoiled_sample_does_not_agree(spoiled):
    case = TINY["relu"]
    (reference,) = oracle.references(inputs.draw(case))["forward"]
    (right,) = samples("gpuconv", case)["forward"]
    assert reference.agrees(right)
    assert reference.error(right) == 0
    values = right.values.copy()
    values[7] += 1e-3
    wrong = {
        "value": oracle.Sample(right.shape, values, True),
        "shape": oracle.Sample((*right.shape, 1), right.values, True),
        "nan_elsewhere": oracle.Sample(right.shape, right.values, False),
    }[spoiled]
    assert not reference.agrees(wrong)
    assert reference.error(wrong) > 0


def test_dropout_is_held_to_its_values_and_its_share_of_zeros():
    ((case, references),) = (pair for pair in _references() if pair[0].name == "quick dropout 8, 16x16")
    (reference,) = references["forward"]
    (right,) = samples("gpuconv", case)["forward"]
    assert reference.agrees(right)
    kept = right.values != 0
    for values in (
        np.zeros_like(right.values),
        reference.values,  # nothing is dropped
        np.where(kept, right.values * 0.75, 0),  # what stays is not scaled
        np.where(kept, right.values, 1e-6),
    ):
        assert not reference.agrees(oracle.Sample(right.shape, values, True))


def test_samples_are_places_of_the_whole_array():
    shape = (5, 7, 11, 13)
    places = oracle.places_of("y", shape)
    assert len(np.unique(places, axis=0)) == 400
    assert len(oracle.places_of("dw", shape)) == 60
    assert (places.max(axis=0) == np.array(shape) - 1).all()
    array = np.arange(math.prod(shape)).reshape(shape)
    got = oracle.sample(array, "y")
    np.testing.assert_array_equal(got.values, np.ravel_multi_index(tuple(places.T), shape))
    assert not oracle.sample(np.array([1.0, np.inf]), "y").finite


@functools.cache
def _references():
    """Return the cases that every side is held to, with their references, which are the same for all sides."""
    return [(case, oracle.references(inputs.draw(case))) for case in [*TINY.values(), *cases.SETS["quick"]]]


@pytest.mark.parametrize(
    "name", [name for name in peers.MODULES if name not in ("self", "cupy-im2col", "torch-compile")]
)
def test_every_side_agrees_with_the_oracle(name, monkeypatch):
    peer = peers.load(name)
    if absent := peer.missing():
        pytest.skip(f"not installed: {', '.join(absent)}")
    for variable, value in peer.variables.items():
        monkeypatch.setenv(variable, value)
    compared = 0
    for case, references in _references():
        for layout in case.layouts:
            try:
                found = samples(name, case, layout)
            except peers.NotOffered:
                continue
            for direction, got in found.items():
                for reference, one in zip(references[direction], got, strict=True):
                    assert reference.agrees(one), (case, layout, direction, reference.name, reference.error(one))
                    compared += 1
    assert compared >= 5


def test_plain_loops_take_what_they_can_do_in_a_moment():
    taken = set()
    for case in cases.SETS["quick"]:
        try:
            samples("naive", case)
            taken.add(case.op)
        except peers.NotOffered:
            assert case.op == "train_step"
    assert taken == set(cases.OPS) - {"train_step"}
    assert backend._PACKAGE_OF["NumPy"] == "gpuconv.cpu"  # put back after each call
    (large,) = (case for case in cases.SETS["readme"] if case.name == "conv three-layer 7x7, 3->32, 32x32")
    with pytest.raises(peers.NotOffered, match="would need 616,562,688 steps of plain Python"):
        samples("naive", large)


def test_pytest_bench_has_every_side_on_every_device_it_knows():
    sides = bench_options._sides(("naive", "torch", "cupy-im2col"), "all")
    assert sides == [
        *(("gpuconv", "cpu"), ("gpuconv", "cuda"), ("naive", "cpu")),
        *(("torch", "cpu"), ("torch", "cuda"), ("cupy-im2col", "cuda")),
    ]
    installed = bench_options._sides((), "all")
    assert installed[:2] == [("gpuconv", "cpu"), ("gpuconv", "cuda")]
    assert installed[-1] == ("naive", "cpu")
    assert not {"self", "gpuconv-numpy", "torch-compile"} & {name for name, _ in installed}
    assert not [name for name, _ in installed if peers.load(name).missing()]
    with pytest.raises(ConfigError, match="the peer naive runs on cpu, not on cuda"):
        bench_options._sides(("naive",), "cuda")
    with pytest.raises(ConfigError, match="there is no peer 'pytorch'"):
        bench_options._sides(("pytorch",), "all")


@pytest.mark.parametrize("preset", ["convnet", "three-layer"])
def test_a_training_step_that_is_a_little_wrong_is_seen(preset, monkeypatch):
    ((case, references),) = (pair for pair in _references() if pair[0].options.get("preset") == preset)
    (reference,) = references["step"]
    assert reference.agrees(samples("gpuconv", case)["step"][0])
    right = ours.first_rate
    monkeypatch.setattr(ours, "first_rate", lambda config: 0.95 * right(config))
    assert not reference.agrees(samples("gpuconv", case)["step"][0])


@pytest.mark.parametrize("name", ["gpuconv", "torch"])
@pytest.mark.parametrize("preset", ["resnet9", "speedrun"])
def test_a_training_step_of_a_larger_net_is_that_of_the_oracle(preset, name):
    if absent := peers.load(name).missing():
        pytest.skip(f"not installed: {', '.join(absent)}")
    case, (reference,) = _small_step(preset)
    assert {c.options["preset"] for c in cases.SETS["steps"]} == {"three-layer", "convnet", "resnet9", "speedrun"}
    (got,) = samples(name, case, "NHWC")["step"]
    assert reference.agrees(got), reference.error(got)


@functools.cache
def _small_step(preset):
    case = Case("tiny", "train_step", (2, 3, 32, 32), options={"preset": preset})
    return case, oracle.references(inputs.draw(case))["step"]


def test_numpy_alone_does_not_pass_for_what_this_process_computes_with(monkeypatch):
    monkeypatch.setattr(ours, "loops_in_words", lambda: "compiled loops, numba 1.0")
    with pytest.raises(peers.NotOffered, match=r"computes with compiled loops, numba 1\.0, unless GPUCONV_COMPILED=0"):
        peers.load("gpuconv-numpy").start("cpu", 1)


def test_float16_is_computed_from_float16_inputs():
    for name in ("gpuconv", "torch"):
        if peers.load(name).missing():
            continue
        case = TINY["conv"]
        references = oracle.references(inputs.draw(case, regime="float16"))
        for direction, got in samples(name, case, "NHWC", "float16").items():
            assert all(r.agrees(s) for r, s in zip(references[direction], got, strict=True))
            assert any(r.error(s) > 1e-6 for r, s in zip(references[direction], got, strict=True))


def test_tf32_is_refused_where_it_does_not_exist():
    for name in ("gpuconv", "torch"):
        if not peers.load(name).missing():
            with pytest.raises(peers.NotOffered):
                samples(name, TINY["conv"], regime="tf32")


@pytest.mark.parametrize("set_name", cases.SETS)
def test_sets_have_unique_names_and_shapes_that_fit(set_name):
    chosen = cases.SETS[set_name]
    assert len({case.name for case in chosen}) == len(chosen) > 0
    for case in chosen:
        assert len(case.x) in (2, 3, 4, 5)
        assert min(case.y) >= 1, case
        if case.op == "conv":
            assert case.w[1] * case.options.get("groups", 1) == case.x[1]


def test_shapes_of_results_are_those_of_gpuconv():
    for case in [*TINY.values(), *cases.SETS["quick"]]:
        if "forward" in case.directions:
            one = Worker(peers.load("gpuconv"), "cpu", 1)
            one.start()
            one.prepare(case, case.layouts[-1], "float32")
            (y,) = one.ready[case.layouts[-1]]["forward"]()
            assert y.shape == case.y


def test_work_is_counted_as_the_definition_has_it():
    conv = Case("", "conv", (2, 4, 6, 6), (8, 2, 3, 3), {"groups": 2})
    assert conv.flop("forward") == 2 * 2 * 9 * 2 * 8 * 4 * 4
    assert conv.flop("backward") == 2 * conv.flop("forward")
    x, w, y = 2 * 4 * 36, 8 * 2 * 9, 2 * 8 * 16
    assert conv.bytes("forward") == 4 * (x + w + y)
    assert conv.bytes("backward", 2) == 2 * (2 * x + 2 * w + y)
    affine = Case("", "affine", (3, 4, 2, 2), (16, 5))
    assert affine.flop("forward") == 2 * 3 * 16 * 5
    assert affine.bytes("backward") == 4 * (2 * 48 + 2 * 80 + 15)
    pool = Case("", "max_pool", (1, 1, 4, 4), options={"window": 2})
    assert pool.flop("forward") == 0
    assert pool.bytes("forward") == 4 * 20 + 4


def test_layouts_store_the_same_numbers():
    case = TINY["conv"]
    here, last = (inputs.draw(case, layout) for layout in cases.LAYOUTS)
    np.testing.assert_array_equal(here.x, last.x)
    np.testing.assert_array_equal(here.dy, last.dy)
    assert here.x.flags.c_contiguous
    assert last.x.transpose(0, 2, 3, 1).flags.c_contiguous
    assert last.dy.transpose(0, 2, 3, 1).flags.c_contiguous


def test_what_is_not_there_is_refused_by_name():
    for wanted, said in (
        (("nothing", (), ""), "no set 'nothing': choose one of readme"),
        (("quick", ("cnov",), ""), "no operator 'cnov' among the cases"),
        (("quick", ("conv",), "9x9"), "no case of conv with '9x9' in its name"),
    ):
        with pytest.raises(ConfigError, match=said):
            cases.choose(*wanted)
    with pytest.raises(ConfigError, match="no peer 'pytorch': choose from self, torch"):
        peers.choose(("pytorch",), "cpu")
    with pytest.raises(ConfigError, match="cupy-im2col runs on cuda, not on cpu"):
        peers.choose(("cupy-im2col",), "cpu")


def test_every_peer_but_oneself_is_the_default():
    assert peers.choose((), "cpu") == ["torch", "torch-compile", "jax", "course", "scipy", "gpuconv-numpy"]
    assert peers.choose((), "cuda") == ["torch", "torch-compile", "jax", "cupy-im2col"]
    assert peers.choose(("self", "torch", "self"), "cpu") == ["self", "torch"]


def test_every_operator_of_the_cases_is_public():
    for op in cases.OPS:
        assert op == "train_step" or hasattr(gpuconv, op if op in cases.LOSSES else f"{op}_forward")
