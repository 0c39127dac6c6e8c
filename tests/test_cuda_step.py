"""Numbers of a step that live on a GPU: what the host would have come to, bit for bit, and what is left alone."""

import math
import re

import numpy as np
import pytest
from compare import assert_same_bits, normal

from gpuconv.cuda import step as launchers
from gpuconv.cuda.reduce import square_sums
from gpuconv.cuda.source import source
from gpuconv.cuda.step import StepNumbers
from gpuconv.train import precision
from gpuconv.train.precision import LossScale

STEPS = 40
BETA = 0.9, 0.999


def _tables(first=0, updates=0, rates=2):
    """Return rates, factors and shares by step, and what corrects Adam's means by update: no two are equal."""
    steps = np.arange(first, first + STEPS)[:, None]
    table = (steps + 1) * (np.arange(1 + 2 * rates) + 1) / 977
    corrections = [[1 - beta**number for beta in BETA] for number in range(updates + 1, updates + 1 + STEPS)]
    return {"table": table, "corrections": np.array(corrections)}


def _numbers(gpu, *, parts=1, rows=4, scaled=True, **at):
    """Return the numbers of a run that has two rates, placed at a step."""
    numbers = StepNumbers(gpu.array(np.zeros(1)), rates=2, parts=parts, rows=rows, steps=STEPS, scaled=scaled)
    start = {"step": 0, "updates": 0, "good": 0, "skips": 0, "scale": 65536.0, "row": 0} | at
    numbers.place(**start, **_tables(start["step"], start["updates"]))
    return numbers


def _counts(gpu, numbers):
    return gpu.numpy(numbers.counts).tolist()


def _lose(gpu, numbers, parts=1, loss=1.0):
    """Write the losses of the step in progress, as outcome.cu does."""
    row = _counts(gpu, numbers)[launchers.ROW]
    for part in range(parts):
        numbers.outcomes[row, 2 * part : 2 * part + 1][...] = gpu.array(np.array([loss]))


def _gradients(gpu, dtype="float32", *, bad=None, at=2050):
    host = normal(np.random.default_rng(3), (4099,), dtype)
    if bad is not None:
        host[at] = bad
    return gpu.array(host)


def _at(gpu, number):
    return float(gpu.numpy(number.at)[0]) * number.times


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("scaled", [True, False])
def test_steps_are_judged_as_the_host_does(scaled, parts, gpu, monkeypatch):
    monkeypatch.setattr(precision, "GROW_AFTER", 3)
    numbers, host, updates = _numbers(gpu, parts=parts, scaled=scaled, scale=8.0, rows=5), LossScale(8.0), 0
    tables = _tables()
    for step in range(STEPS):
        numbers.begin()
        share, *rates = tables["table"][step]
        counts = _counts(gpu, numbers)
        assert (counts[launchers.DRAWN], counts[launchers.ROW]) == (step * parts, step % 5)
        assert _at(gpu, numbers.unscale) == 1 / (host.value * parts)
        _lose(gpu, numbers, parts)
        finite = step not in (2, 3, 4, 5, 17, 30)
        numbers.judge(_gradients(gpu, bad=None if finite else np.nan, at=step * 100), longest=0.0, grow_after=3)
        if scaled and finite:
            host.succeed()
        skipped = scaled and not finite and host.fail()
        correction = tables["corrections"][updates]
        assert [_at(gpu, numbers.rate(k)) for k in range(2)] == [rate / correction[0] for rate in rates[:2]]
        assert [_at(gpu, numbers.shrink(k)) for k in range(2)] == rates[2:]
        assert (_at(gpu, numbers.second), _at(gpu, numbers.share)) == (correction[1], share)
        updates += finite
        counts = _counts(gpu, numbers)
        found = [counts[i] for i in (launchers.STEP, launchers.UPDATES, launchers.GOOD, launchers.SKIPS, launchers.GO)]
        assert found == [step + 1, updates, host.good, host.skipped, int(finite)]
        assert _at(gpu, numbers.scale) == host.value
        row = gpu.numpy(numbers.outcomes)[step % 5].tolist()
        assert row[2 * parts :] == [finite, skipped, updates, host.good, host.skipped, host.value]
    assert (host.skipped > 3, host.value > 8) == (scaled, scaled)


@pytest.mark.parametrize("at", [0, 255, 256, 4095, 4098])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_gradient_anywhere_holds_the_step_back(bad, at, gpu):
    numbers = _numbers(gpu)
    numbers.begin()
    _lose(gpu, numbers)
    numbers.judge(_gradients(gpu, bad=bad, at=at), longest=0.0, grow_after=2000)
    counts = _counts(gpu, numbers)
    assert (counts[launchers.GO], counts[launchers.UPDATES], counts[launchers.SKIPS]) == (0, 0, 1)


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_loss_that_is_no_number_ends_in_no_update_and_no_skip(loss, part, gpu):
    """The run ends when this is looked at: nothing is counted."""
    numbers = _numbers(gpu, parts=3)
    numbers.begin()
    _lose(gpu, numbers, 3)
    numbers.outcomes[0, 2 * part : 2 * part + 1][...] = gpu.array(np.array([loss]))
    numbers.judge(_gradients(gpu, bad=np.nan), longest=1.0, grow_after=1)
    numbers.begin()
    _lose(gpu, numbers, 3)
    numbers.outcomes[1, 2 * part : 2 * part + 1][...] = gpu.array(np.array([loss]))
    numbers.judge(_gradients(gpu), longest=1.0, grow_after=1)
    counts = _counts(gpu, numbers)
    places = launchers.UPDATES, launchers.GOOD, launchers.SKIPS, launchers.GO
    assert [counts[i] for i in places] == [0, 0, 0, 0]
    assert _at(gpu, numbers.scale) == 65536.0


def test_a_scale_of_one_is_halved_no_more(gpu):
    numbers = _numbers(gpu, scale=1.0, good=7)
    numbers.begin()
    _lose(gpu, numbers)
    numbers.judge(_gradients(gpu, bad=np.inf), longest=0.0, grow_after=2000)
    row = gpu.numpy(numbers.outcomes)[0].tolist()
    assert row[2:] == [0, 0, 0, 7, 0, 1.0]


def test_a_run_goes_on_where_it_was(gpu):
    """Tables begin at the step and the update that are next, and rows at the one that is free."""
    at = {"step": 1000, "updates": 990, "good": 12, "skips": 10, "scale": 64.0, "row": 3}
    numbers, tables = _numbers(gpu, **at), _tables(1000, 990)
    for number in range(3):
        numbers.begin()
        assert _counts(gpu, numbers)[launchers.ROW] == (3 + number) % 4
        _lose(gpu, numbers)
        numbers.judge(_gradients(gpu), longest=0.0, grow_after=2000)
        assert _at(gpu, numbers.rate(1)) == tables["table"][number][2] / tables["corrections"][number][0]
    assert gpu.numpy(numbers.outcomes)[1].tolist()[2:] == [1, 0, 993, 15, 10, 64.0]


def test_a_step_knows_its_number_in_the_epoch(gpu):
    numbers = _numbers(gpu, step=1000)
    for first, wanted in ((1000, (0, 1)), (1002, (0,)), (998, (5, 6))):  # the last: of an epoch gone back to
        numbers.enter(first)
        for number in wanted:
            numbers.begin()
            assert _counts(gpu, numbers)[launchers.NUMBER] == number
            _lose(gpu, numbers)
            numbers.judge(_gradients(gpu), longest=0.0, grow_after=2000)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_gradients_are_shortened_to_a_length(dtype, gpu):
    host = gpu.numpy(_gradients(gpu, dtype)).copy()
    norm = math.sqrt(math.fsum(value * value for value in host.astype(np.float64).tolist()))
    for longest in (norm / 3, norm * 0.999, norm * 1.001, 1e9):
        numbers, gradients = _numbers(gpu), _gradients(gpu, dtype)
        numbers.begin()
        _lose(gpu, numbers)
        numbers.judge(gradients, longest=longest, grow_after=2000)
        factor = float(gpu.numpy(numbers.numbers)[launchers.CLIP])
        assert factor == pytest.approx(min(1, longest / norm), rel=1e-15)
        if longest > norm:
            assert_same_bits(gpu.numpy(gradients), host)
        else:
            sums = np.float64 if dtype == "float64" else np.float32
            assert_same_bits(gpu.numpy(gradients), (host.astype(sums) * sums(factor)).astype(dtype))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradients_that_are_no_numbers_keep_their_length(bad, gpu):
    numbers, gradients = _numbers(gpu), _gradients(gpu, bad=bad)
    before = gpu.numpy(gradients).copy()
    numbers.begin()
    _lose(gpu, numbers)
    numbers.judge(gradients, longest=0.1, grow_after=2000)
    assert_same_bits(gpu.numpy(gradients), before)


def test_a_norm_beyond_float64_shortens_nothing(gpu):
    numbers, gradients = _numbers(gpu), gpu.array(np.full(5, 1e200))
    numbers.begin()
    _lose(gpu, numbers)
    numbers.judge(gradients, longest=1.0, grow_after=2000)
    assert gpu.numpy(gradients).tolist() == [1e200] * 5


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", [0, 1, 7, 70_001])
def test_squares_are_added_up_in_float64(size, dtype, gpu):
    host = normal(np.random.default_rng(1), (size,), dtype)
    sums = gpu.numpy(square_sums(gpu.array(host)))
    exact = math.fsum(value * value for value in host.astype(np.float64).tolist())
    assert sums.dtype == np.float64
    assert float(sums.sum()) == pytest.approx(exact, rel=1e-14, abs=0)


def test_places_are_those_of_the_kernels():
    found = dict(re.findall(r"STEP(?:_(\w+))? = (\d+)", source("step.cu")))
    found["STEP"] = found.pop("")
    assert found == {name: str(getattr(launchers, name)) for name in found}
    assert len(found) == 17
