"""What a training step asks of CUDA is what tests/ladder/step_counts.json says."""

import copy
import sys

import pytest
from places import place

from tests.ladder import step_counts

COUNTED = step_counts.read()["steps"]


@pytest.mark.gpu
@pytest.mark.core
def test_a_step_asks_for_what_the_table_says():
    place("cuda")
    if "cupy_emulated" not in sys.modules:
        pytest.skip("a GPU's driver does not say what it was asked for: emulated CuPy does")
    assert step_counts.check() == [], "if that is meant: python -m tests.ladder.step_counts --write"


def test_the_table_has_every_preset():
    assert list(COUNTED) == list(step_counts.CASES)


def test_no_step_waits_nor_copies_to_the_host():
    for case, counts in COUNTED.items():
        assert counts["waits"] == 0, case
        assert "device to host" not in counts["copies"], case


def test_a_replayed_step_is_one_graph_and_nothing_else():
    for case, counts in COUNTED.items():
        replayed = dict(counts["replayed"])
        nodes = replayed.pop("nodes")
        assert replayed.pop("graphs") == 1, case
        assert not any(replayed.values()), case
        assert set(nodes) <= {"launch", "product", "memset", "copy"}, case
        assert nodes["launch"] + nodes.get("product", 0) == counts["launches"], case
        assert nodes.get("memset", 0) == counts["memsets"], case
        assert nodes.get("copy", 0) == sum(counts["copies"].values()), case


def test_what_changed_is_named():
    new = copy.deepcopy(COUNTED)
    updates, nodes = new["convnet-float32"]["own"]["sgd_update"], new["vgg-float16"]["replayed"]["nodes"]["launch"]
    new["convnet-float32"]["own"]["sgd_update"] += 1
    new["convnet-float32"]["own"]["sgd_other"] = 2
    del new["convnet-float32"]["own"]["all_finite"]
    new["vgg-float16"]["waits"] = 5
    new["vgg-float16"]["replayed"]["nodes"]["launch"] += 1
    assert step_counts.differences(COUNTED, COUNTED) == []
    assert step_counts.differences(COUNTED, new) == [
        "convnet-float32: own all_finite: 0, was 1",
        "convnet-float32: own sgd_other: 2, was 0",
        f"convnet-float32: own sgd_update: {updates + 1}, was {updates}",
        f"vgg-float16: replayed nodes launch: {nodes + 1}, was {nodes}",
        "vgg-float16: waits: 5, was 0",
    ]


def test_names_of_another_cupy_s_kernels_are_added_up():
    old = {"step": {"launches": 3, "CuPy": {"cupy_copy__float32_float32": 2, "cupy_take": 1}}}
    new = {"step": {"launches": 3, "CuPy": {"cupy_copy": 2, "cupy_take": 1}}}
    assert len(step_counts.differences(old, new)) == 2
    assert step_counts.differences(old, new, by_name=False) == []
    new["step"]["CuPy"]["cupy_copy"] = 3
    assert step_counts.differences(old, new, by_name=False) == ["step: CuPy's kernels: 4, was 3"]
