"""tests/ladder/onnx_cases.py: ONNX's cases come out right in every place, and a fault planted in gpuconv is counted as wrong."""

import json

import numpy as np
import pytest
from places import Cpu

import gpuconv
from tests.ladder import onnx_cases, onnx_words, outcomes
from tests.ladder.onnx_words import WORDS

pytestmark = pytest.mark.long  # ONNX makes the cases of all its operators at once

RECORD = outcomes.newest(onnx_cases.KIND)
# What a case may be refused for: nothing else that gpuconv means to have.
REASONS = {
    outcomes.INTEGERS,
    *(onnx_words.DRAWS, onnx_words.MATRICES, onnx_words.ROWS_OF_BIAS),
    *(onnx_words.FRACTIONS, onnx_words.PLACES),
}
# Numbers in and out of the cases that places without a processor of their own are given, too.
_SMALL = 5000


@pytest.fixture(scope="module")
def counted():
    return onnx_cases.count()


def test_no_case_is_wrong_and_each_refusal_has_a_known_reason(counted):
    ended = {case.name: outcome for case, outcome in counted.items()}
    assert not {name: outcome.why for name, outcome in ended.items() if outcome.how == "wrong"}
    assert {outcome.why for outcome in ended.values() if outcome.how == "refused"} <= REASONS
    assert {case.operator for case in counted} == set(WORDS)


def test_what_was_right_is_right(counted):
    assert onnx_cases.lost(onnx_cases.report(counted), RECORD) == []


def test_the_record_is_of_what_is_counted(counted):
    found = onnx_cases.report(counted)
    if found["onnx"] != RECORD["onnx"]:
        pytest.skip(f"the record is of ONNX {RECORD['onnx']}")
    assert found["cases"] == RECORD["cases"], "record them anew: python -m tests.ladder.onnx_cases --save"


@pytest.mark.parametrize("operator", WORDS)
def test_small_cases_are_right_where_kernels_run(operator, gpu):
    small = [case for case in onnx_cases.cases() if case.operator == operator and case.size < _SMALL]
    assert small
    for case in small:
        outcome = onnx_cases.judge(case, gpu)
        assert outcome.how == "right" or outcome.why in REASONS, f"{case.name}: {outcome.why}"


# auto_pad: ((before, after) of 7 rows, of 6 columns) under windows 2 x 3 in steps of 2, columns dilated to 5.
AUTO = {
    "NOTSET": ((1, 0), (2, 1)),
    "VALID": ((0, 0), (0, 0)),
    "SAME_UPPER": ((0, 1), (1, 2)),
    "SAME_LOWER": ((1, 0), (2, 1)),
}


@pytest.mark.parametrize("auto", AUTO)
def test_padding_that_onnx_names_is_said_in_numbers(auto, rng):
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    named = {"auto_pad": auto} if auto != "NOTSET" else {"pads": [1, 2, 0, 1]}
    attributes = {"kernel_shape": [2, 3], "strides": [2, 2], "dilations": [1, 2], **named}
    said = onnx_words.along(onnx_words.Node("Conv", attributes, 1, 22, Cpu), (7, 6), (2, 3))
    assert said == {"stride": (2, 2), "dilation": (1, 2), "pad": AUTO[auto]}
    x, w = rng.standard_normal((1, 2, 7, 6)), rng.standard_normal((3, 2, 2, 3))
    theirs = ReferenceEvaluator(helper.make_node("Conv", ["x", "w"], ["y"], **attributes)).run(None, {"x": x, "w": w})
    np.testing.assert_allclose(gpuconv.conv_forward(x, w, **said)[0], theirs[0], rtol=1e-12, atol=1e-12)


def test_a_planted_fault_is_wrong_and_lost(monkeypatch):
    right = gpuconv.conv_forward

    def faulty(*arguments, **options):
        y, cache = right(*arguments, **options)
        return y * np.float32(1.01), cache

    monkeypatch.setattr(gpuconv, "conv_forward", faulty)
    found = onnx_cases.report(onnx_cases.count(["Conv", "Relu"]))
    assert found["operators"]["Conv"]["right"] == 0
    assert found["operators"]["Relu"]["wrong"] == 0
    assert len(onnx_cases.lost(found, RECORD)) == RECORD["operators"]["Conv"]["right"]


def test_an_attribute_that_nobody_reads_is_wrong(monkeypatch):
    monkeypatch.setitem(WORDS, "LeakyRelu", lambda node, x: node.run("leaky_relu_forward", x, slope=0.01)[0])
    outcomes_of = onnx_cases.count(["LeakyRelu"]).values()
    assert "onnx_words.py does not read the attribute alpha of LeakyRelu" in {outcome.why for outcome in outcomes_of}


def test_an_unforeseen_refusal_is_wrong(monkeypatch):
    monkeypatch.setitem(WORDS, "Relu", lambda node, x: node.run("max_pool_forward", x, window=0))
    for outcome in onnx_cases.count(["Relu"]).values():
        assert outcome.how == "wrong"
        assert "Error" in outcome.why


def test_what_is_saved_has_every_case(tmp_path, capsys):
    path = tmp_path / "counts.json"
    assert onnx_cases.main(["--only", "Conv,Gemm", "--save", str(path)]) == 0
    saved = json.loads(path.read_text(encoding="utf-8"))
    total = saved["total"]
    assert total["right"] + sum(total["refused"].values()) + total["wrong"] == len(saved["cases"])
    assert saved["cases"]["test_gemm_default_matrix_bias"] == {
        "operator": "Gemm",
        "outcome": "refused",
        "why": onnx_words.ROWS_OF_BIAS,
    }
    assert "ConvTranspose" not in saved["operators"]
    assert "Gemm" in capsys.readouterr().out
