"""tests/ladder/torch_samples.py: PyTorch's samples come out right, and a fault planted in gpuconv is counted as wrong."""

import numpy as np
import pytest

import gpuconv
from tests.ladder import outcomes, torch_samples, torch_words
from tests.ladder.outcomes import Refused
from tests.ladder.torch_reference import Sample, by_torch
from tests.ladder.torch_words import DIVISOR, REASONS

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.long

FEW = (
    "conv1d",
    "conv_transpose1d",
    "avg_pool1d",
    "batch_norm",
    "cross_entropy",
    "binary_cross_entropy_with_logits",
    "silu",
    "adaptive_avg_pool1d",
)


def test_no_sample_is_wrong_and_each_refusal_has_a_known_reason():
    counts = torch_samples.count(FEW)
    for by_dtype in counts.values():
        for one in by_dtype.values():
            assert not one.wrong
            assert set(one.refused) <= set(REASONS)
    assert set(counts["conv1d"]) == set(torch_samples.DTYPES)
    for dtype in ("float32", "complex128"):
        assert counts["conv1d"][dtype].right > 0
        assert counts["conv1d"][dtype].adapted > 0
    for name in FEW:
        assert counts[name]["float16"].right > 0
    assert set(counts["conv1d"]["int64"].refused) == {outcomes.INTEGERS}


@pytest.mark.parametrize(("name", "result"), [("conv_backward", 1), ("conv_forward", 0)])
def test_a_planted_fault_is_wrong(name, result, monkeypatch):
    right = getattr(gpuconv, name)

    def faulty(*arguments, **options):
        results = list(right(*arguments, **options))
        results[result] = results[result] * (1 + 1e-5)
        return tuple(results)

    monkeypatch.setattr(gpuconv, name, faulty)
    counts = torch_samples.count(["conv1d"], ["float32", "complex64"])["conv1d"]
    for one in counts.values():
        assert len(one.wrong) > 0
        assert one.right == one.adapted == 0


@pytest.mark.parametrize("result", [0, 1], ids=["loss", "gradient"])
@pytest.mark.parametrize(
    ("function", "name"),
    [("softmax_cross_entropy", "cross_entropy"), ("sigmoid_cross_entropy", "binary_cross_entropy_with_logits")],
)
def test_a_planted_fault_of_a_loss_is_wrong(function, name, result, monkeypatch):
    right = getattr(gpuconv, function)

    def faulty(*arguments, **options):
        results = list(right(*arguments, **options))
        results[result] = results[result] * (1 + 1e-3)
        return tuple(results)

    monkeypatch.setattr(gpuconv, function, faulty)
    for dtype in ("float64", "float32"):
        one = torch_samples.count([name], [dtype])[name][dtype]
        assert len(one.wrong) > one.right


def test_the_record_has_every_function_and_nothing_wrong():
    record = outcomes.newest(torch_samples.KIND)
    assert set(record["samples"]) == set(torch_samples.NAMES), (
        "record them anew: python -m tests.ladder.torch_samples --save"
    )
    assert record["total"]["wrong"] == 0
    assert set(record["total"]["refused"]) <= set(REASONS)


def test_fewer_right_than_in_a_record_are_said():
    counted = {"right": 3, "adapted": 1}
    before = {"torch": "2", "samples": {"conv1d": {"float32": counted}, "silu": {"float64": counted}}}
    same = {
        "torch": "2",
        "samples": {"conv1d": {"float32": {"right": 4, "adapted": 0}}, "conv2d": {"float32": counted}},
    }
    fewer = {"torch": "2", "samples": {"conv1d": {"float32": {"right": 2, "adapted": 1}}}}
    assert torch_samples.lost(same, before) == []
    assert torch_samples.lost(fewer, before) == ["conv1d of float32"]
    assert torch_samples.lost({**fewer, "torch": "3"}, before) == []
    assert torch_samples.lost(fewer, None) == []


def test_an_unforeseen_refusal_is_wrong():
    x = np.ones((1, 1, 4))
    outcome, why = torch_samples.judge(
        Sample("conv1d", {"x": x, "w": np.ones((1, 2, 2)), "b": None}, {}), np.random.default_rng(0)
    )
    assert outcome == "wrong"
    assert "ShapeError" in why


def test_what_gpuconv_says_in_other_words_is_translated():
    x, w = np.ones((1, 1, 7)), np.ones((1, 1, 3))
    assert torch_words._conv(Sample("conv1d", {"x": x, "w": w}, {"padding": "same", "dilation": (2,)})) == (
        "conv",
        {"dilation": (2,), "pad": "same"},
    )
    assert torch_words._conv(Sample("conv1d", {"x": x, "w": w}, {"padding": "valid"})) == ("conv", {"pad": 0})
    windows = {"kernel_size": 3, "stride": 2, "ceil_mode": True, "dilation": 2}
    translated = {"window": (3,), "stride": (2,), "pad": (0,), "ceil": True, "dilation": (2,)}
    assert torch_words._pool(Sample("max_pool1d", {"x": x}, windows)) == ("max_pool", translated)
    with pytest.raises(Refused, match=DIVISOR):
        torch_words._pool(Sample("avg_pool1d", {"x": x}, {"kernel_size": 3, "divisor_override": 2}))


def test_complex_reference_is_pytorchs_complex_convolution():
    rng = np.random.default_rng(0)
    x, w, dy = (rng.standard_normal((2, *s)) for s in ((1, 2, 6), (3, 2, 2), (1, 3, 5)))
    arrays = {"x": x[0] + 1j * x[1], "w": w[0] + 1j * w[1], "b": None}
    upstream = dy[0] + 1j * dy[1]
    got = by_torch(Sample("conv1d", arrays, {}), arrays, upstream)
    leaves = [torch.tensor(arrays[name], requires_grad=True) for name in ("x", "w")]
    y = torch.nn.functional.conv1d(*leaves)
    expected = (y, *torch.autograd.grad(y, leaves, torch.tensor(upstream)))
    for name, want in zip(("y", "dx", "dw"), expected, strict=True):
        np.testing.assert_allclose(got[name], want.detach().resolve_conj().numpy(), rtol=0, atol=1e-13)


def test_what_is_saved_counts_all_samples(tmp_path, capsys):
    path = tmp_path / "counts.json"
    assert torch_samples.main(["--only", "avg_pool1d", "--save", str(path)]) == 0
    saved = torch_samples.json.loads(path.read_text(encoding="utf-8"))
    drawn = sum(
        len(torch_samples.samples(torch_samples.operators()["avg_pool1d"], "avg_pool1d", dtype))
        for dtype in torch_samples.DTYPES
    )
    total = saved["total"]
    assert total["right"] + total["adapted"] + sum(total["refused"].values()) + total["wrong"] == drawn
    assert saved["errors"]["avg_pool1d"]["taken"] == []
    assert "avg_pool1d" in capsys.readouterr().out
