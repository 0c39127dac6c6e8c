"""Learning-rate schedules: their values at the boundaries, their shape between, their arguments."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from gpuconv import nn
from gpuconv.errors import ArgTypeError, ConfigError, GpuconvError, ParamError

# name -> (schedule, {step: rate})
POINTS = {
    "constant": (nn.Constant(0.3), {0: 0.3, 1: 0.3, 10**6: 0.3}),
    "step_changes_at_multiples": (nn.Step(0.8, every=10, factor=0.5), {0: 0.8, 9: 0.8, 10: 0.4, 19: 0.4, 20: 0.2, 35: 0.1}),
    "step_at_each_step": (nn.Step(0.8, every=1, factor=0.5), {0: 0.8, 1: 0.4, 2: 0.2}),
    "step_by_default_a_tenth": (nn.Step(1.0, 3), {2: 1.0, 3: 0.1, 6: 0.01}),
    "step_to_zero": (nn.Step(1.0, 3, 0.0), {2: 1.0, 3: 0.0}),
    "cosine": (nn.Cosine(0.4, 100), {0: 0.4, 25: 0.2 * (1 + math.sqrt(0.5)), 50: 0.2, 100: 0.0, 1000: 0.0}),
    "cosine_of_one_step": (nn.Cosine(0.5, 1), {0: 0.5, 1: 0.0}),
    "cosine_to_a_floor": (nn.Cosine(0.4, 100, floor=0.1), {0: 0.4, 50: 0.25, 100: 0.1, 101: 0.1}),
    "cosine_warms_up_in_a_line": (
        nn.Cosine(0.5, 104, warmup=4), {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 4: 0.5, 54: 0.25, 104: 0.0}
    ),
    "cosine_warmup_as_a_share": (nn.Cosine(0.5, 40, warmup=0.1), {0: 0.1, 3: 0.4, 4: 0.5, 22: 0.25, 40: 0.0}),
    "cosine_all_warmup": (nn.Cosine(0.5, 4, warmup=4), {0: 0.1, 3: 0.4, 4: 0.0}),
    "one_cycle": (
        nn.OneCycle(0.5, 100), {0: 0.02, 15: 0.26, 30: 0.5, 65: 0.25, 99: 0.5 / 70, 100: 0.0, 101: 0.0}
    ),
    "one_cycle_every_argument": (
        nn.OneCycle(0.5, 100, warmup=20, start=0.1, floor=0.05), {0: 0.1, 10: 0.3, 20: 0.5, 60: 0.275, 100: 0.05, 200: 0.05}
    ),
    "one_cycle_cosine": (
        nn.OneCycle(0.5, 100, warmup=0.2, start=0.1, shape="cosine"),
        {0: 0.1, 5: 0.3 - 0.2 * math.sqrt(0.5), 10: 0.3, 20: 0.5, 40: 0.25 * (1 + math.sqrt(0.5)), 60: 0.25, 100: 0.0},
    ),
    "one_cycle_without_warmup": (nn.OneCycle(0.5, 10, warmup=0), {0: 0.5, 5: 0.25, 10: 0.0}),
    "one_cycle_all_warmup": (nn.OneCycle(0.5, 10, warmup=1.0, start=0.0), {0: 0.0, 9: 0.45, 10: 0.0}),
    "one_step": (nn.OneCycle(0.5, 1), {0: 0.5, 1: 0.0}),
    "share_rounded_to_whole_steps": (nn.OneCycle(0.5, 7, warmup=0.3, start=0.1), {0: 0.1, 1: 0.3, 2: 0.5, 7: 0.0}),
}  # fmt: skip


@pytest.mark.parametrize(("schedule", "points"), POINTS.values(), ids=POINTS.keys())
def test_rates_at_the_boundaries(schedule, points):
    for step, rate in points.items():
        assert schedule(step) == pytest.approx(rate, rel=1e-12, abs=1e-15), step
        assert type(schedule(step)) is float


@pytest.mark.parametrize(("schedule", "points"), POINTS.values(), ids=POINTS.keys())
def test_rates_are_a_function_of_the_step_alone(schedule, points):
    steps = range(120)
    forwards = [schedule(step) for step in steps]
    assert [schedule(step) for step in reversed(steps)] == forwards[::-1]
    assert [replace(schedule)(step) for step in steps] == forwards


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_one_cycle_rises_once_then_falls(shape):
    rates = [nn.OneCycle(1.0, 50, shape=shape)(step) for step in range(50)]
    assert max(rates) == rates[15] == 1.0
    assert all(a < b for a, b in pairwise(rates[:16]))
    assert all(a > b > 0 for a, b in pairwise(rates[15:]))


def test_cosine_falls_slowly_at_both_ends():
    rates = [nn.Cosine(1.0, 50)(step) for step in range(51)]
    falls = [a - b for a, b in pairwise(rates)]
    assert all(fall > 0 for fall in falls)
    assert falls[0] < 0.1 * falls[25] > falls[-1]


BAD = {
    "lr_negative": (lambda: nn.Constant(-0.1), ParamError, "lr"),
    "lr_text": (lambda: nn.Constant("0.1"), ArgTypeError, "lr"),
    "lr_nan": (lambda: nn.Step(float("nan"), 3), ParamError, "lr"),
    "every_zero": (lambda: nn.Step(0.1, 0), ParamError, "every"),
    "every_float": (lambda: nn.Step(0.1, 2.0), ArgTypeError, "every"),
    "factor_above_one": (lambda: nn.Step(0.1, 2, 1.5), ParamError, "factor"),
    "total_zero": (lambda: nn.Cosine(0.1, 0), ParamError, "total"),
    "total_float": (lambda: nn.OneCycle(0.1, 1e3), ArgTypeError, "total"),
    "warmup_longer_than_the_run": (lambda: nn.Cosine(0.1, 10, warmup=11), ParamError, "warmup"),
    "warmup_share_above_one": (lambda: nn.OneCycle(0.1, 10, warmup=1.5), ParamError, "warmup"),
    "warmup_negative": (lambda: nn.OneCycle(0.1, 10, warmup=-1), ParamError, "warmup"),
    "warmup_true": (lambda: nn.OneCycle(0.1, 10, warmup=True), ArgTypeError, "warmup"),
    "floor_above_lr": (lambda: nn.Cosine(0.1, 10, floor=0.2), ParamError, "floor"),
    "one_cycle_floor_above_lr": (lambda: nn.OneCycle(0.1, 10, floor=0.2), ParamError, "floor"),
    "start_above_lr": (lambda: nn.OneCycle(0.1, 10, start=0.2), ParamError, "start"),
    "shape_unknown": (lambda: nn.OneCycle(0.1, 10, shape="square"), ParamError, "shape"),
    "step_negative": (lambda: nn.Constant(0.1)(-1), ParamError, "step"),
    "step_float": (lambda: nn.Step(0.1, 3)(1.0), ArgTypeError, "step"),
    "step_text": (lambda: nn.Cosine(0.1, 3)("1"), ArgTypeError, "step"),
    "unknown_name": (lambda: nn.schedule("onecycle", lr=0.1), ConfigError, 'did you mean "one-cycle"'),
    "unknown_setting": (lambda: nn.schedule("constant", lr=0.1, total=3), ConfigError, "total.*it takes lr"),
    "missing_setting": (lambda: nn.schedule("cosine", lr=0.1), ConfigError, "total"),
}


@pytest.mark.parametrize(("make", "error", "word"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_refused_by_name(make, error, word):
    with pytest.raises(error, match=word) as caught:
        make()
    assert isinstance(caught.value, GpuconvError)


def test_schedules_by_name_are_the_classes():
    assert nn.schedule("constant", lr=0.1) == nn.Constant(0.1)
    assert nn.schedule("step", lr=0.1, every=5, factor=0.2) == nn.Step(0.1, 5, 0.2)
    assert nn.schedule("cosine", lr=0.1, total=50, warmup=5) == nn.Cosine(0.1, 50, 5)
    assert nn.schedule("one-cycle", lr=0.1, total=50) == nn.OneCycle(0.1, 50)
