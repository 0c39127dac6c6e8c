"""A learning rate to begin with: rates that rise, an end where the loss blows up, a rule that is said, nothing left."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from train_helpers import change, names, shapes

from gpuconv import cli, data
from gpuconv.errors import ConfigError
from gpuconv.train import RateSearch, Stepper, find_rate
from gpuconv.train.rate_search import _BlowUp, smoothed

FLAGS = ("--widths", "4", "--batch-size", "20", "--data", "shapes", "--validation", "100", "--train-images", "200")


def search(losses, ended="blown up") -> RateSearch:
    rates = [10.0 ** (-5 + n / 10) for n in range(len(losses))]
    return RateSearch(rates, list(losses), list(losses), ended)


@pytest.fixture(scope="module")
def found():
    return find_rate(change(), steps=40, progress="none", dataset=shapes())


# The search ---------------------------------------------------------------------------------------------------------


def test_rates_rise_by_a_constant_factor_over_more_than_an_epoch(found):
    assert 10 < len(found.rates) <= 40  # an epoch has ten steps
    factors = np.array(found.rates[1:]) / np.array(found.rates[:-1])
    np.testing.assert_allclose(factors, (10 / 1e-5) ** (1 / 39))
    assert found.rates[0] == pytest.approx(1e-5)
    assert len(found.rates) == len(found.losses) == len(found.smoothed)


def test_steps_are_those_of_a_run_at_these_rates(found):
    """The same batches in the same order, each looked at before the update of its own rate."""
    again = find_rate(change(), steps=40, progress="none", dataset=shapes())
    assert again.losses == found.losses
    slower = find_rate(change(), steps=40, lowest=1e-9, highest=1e-8, progress="none", dataset=shapes())
    assert slower.losses[0] == found.losses[0]  # the first weights, whatever the rate
    assert slower.losses[-1] != found.losses[-1]
    assert slower.ended == "highest rate"
    assert len(slower.losses) == 40


def test_the_stepper_is_asked_for_the_rates_of_the_search(monkeypatch):
    seen, real = [], Stepper.step

    def watched(self, batch, step):
        seen.append(self.rate(step))
        return real(self, batch, step)

    monkeypatch.setattr(Stepper, "step", watched)
    found = find_rate(change(), steps=12, lowest=1e-4, highest=1e-2, progress="none", dataset=shapes())
    assert seen == found.rates
    assert seen[-1] == pytest.approx(1e-2)


def test_a_loss_that_is_no_number_ends_it():
    found = find_rate(change(), steps=10, lowest=1e28, highest=1e32, progress="none", dataset=shapes())
    assert found.ended == "not finite"
    assert len(found.losses) < 10
    assert all(map(math.isfinite, found.losses))
    assert found.suggestion is None


def test_it_runs_on_a_gpu_with_the_same_rates(emulated_gpu):
    found = find_rate(
        change(device="cuda", batch_size=4, train_images=40, validation=4, test_images=4),
        steps=10, highest=1e-3, progress="none", dataset=shapes(),
    )  # fmt: skip
    assert len(found.losses) == 10
    assert found.rates[-1] == pytest.approx(1e-3)


def test_a_loss_blows_up_when_it_is_far_above_the_lowest():
    blow_up = _BlowUp()
    assert not any(blow_up.after(loss) for loss in [2.3] * 10 + [3.0] * 10)
    assert [blow_up.after(30.0) for _ in range(3)] == [False, True, True]


def test_smoothing_keeps_a_constant_and_lags_behind_nothing():
    assert smoothed([2.0] * 30, 100) == pytest.approx([2.0] * 30)
    valley = [abs(n - 50) / 10 for n in range(101)]
    curve = smoothed(valley, 100)
    assert int(np.argmin(curve)) == 50
    assert curve == pytest.approx(curve[::-1])
    assert smoothed([], 100) == []


# What it suggests ---------------------------------------------------------------------------------------------------


def test_the_suggestion_is_the_last_rate_before_a_tenth_of_the_fall_is_lost():
    found = search([2.3, 2.2, 1.8, 1.5, 1.57, 1.59, 1.5, 4.0])  # a fall of 0.8: up to 1.58
    assert found.suggestion == float(f"{found.rates[4]:.2g}") == 2.5e-5
    assert "a tenth of its fall" in found.rule
    assert "try lr 2.5e-05" in found._repr_html_()
    assert search([2.3, 2.0, 1.5, 1.7], "highest rate").suggestion == float(f"{found.rates[2]:.2g}")


def test_a_search_shows_in_a_line_and_as_a_curve():
    found = search([2.3, 2.2, 1.8, 1.5, 1.69, 1.71, 1.6, 4.0])
    assert repr(found) == f"RateSearch(try lr {found.suggestion:g}, after 8 steps)"
    assert "<details><summary>losses</summary>" in found._repr_html_()
    assert "beyond it the smoothed loss" in found._repr_html_()
    assert repr(search([2.3, 2.3])) == "RateSearch(no suggestion, after 2 steps)"
    pytest.importorskip("matplotlib")
    figure = found.plot()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert figure.axes[0].get_xscale() == "log"
    assert 'src="data:image/png;base64,iVBOR' in found._repr_html_()
    assert "<img" not in search([], "not finite")._repr_html_()


def test_a_loss_that_blows_up_does_not_flatten_the_picture():
    pytest.importorskip("matplotlib")
    axes = search([2.3, 2.2, 1.8, 1.5, 1.69, 2.5, 40.0, 300.0]).plot().axes[0]
    assert [len(line.get_xdata()) for line in axes.get_lines()[:2]] == [6, 6]
    low, high = axes.get_ylim()
    assert (low < 1.5, 2.5 < high < 4.0) == (True, True)


def test_a_loss_that_is_no_number_at_once_leaves_the_rate_of_the_lowest():
    found = search([2.3, 1.5, 1.55], "not finite")
    assert found.suggestion == float(f"{found.rates[1]:.2g}")


WITHOUT = {
    "never_fell": ([2.3, 2.3, 2.5, 9.0], "blown up", "has not fallen at any rate"),
    "never_rose": ([2.3, 2.0, 1.5, 1.2], "highest rate", "has not risen up to the highest rate"),
    "hardly_rose": ([2.3, 2.0, 1.2, 1.3], "highest rate", "has not risen up to the highest rate"),
    "nothing": ([], "not finite", "has not fallen at any rate"),
}


@pytest.mark.parametrize(("losses", "ended", "words"), WITHOUT.values(), ids=WITHOUT.keys())
def test_without_a_valley_there_is_none_and_it_says_why(losses, ended, words):
    found = search(losses, ended)
    assert found.suggestion is None
    assert words in found.rule
    assert "no suggestion" in found._repr_html_()


WRONG = {
    "few_steps": ({"steps": 5}, "steps must be an int from 10"),
    "no_rate": ({"lowest": 0.0}, "lowest must be finite, above 0"),
    "infinite": ({"highest": math.inf}, "highest must be finite"),
    "falling": ({"lowest": 1.0, "highest": 0.1}, "highest must be ten times lowest or more"),
}


@pytest.mark.parametrize(("settings", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_makes_no_curve_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        find_rate(change(), dataset=shapes(), progress="none", **settings)


# The command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "load", lambda name, **_: shapes())

    def run(*arguments):
        return (cli.main(["find-lr", *map(str, arguments)]), *capsys.readouterr())

    return run


def test_the_command_draws_says_its_rule_and_leaves_nothing(command, tmp_path):
    code, out, err = command(*FLAGS, "--steps", 30)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("loss")
    assert any("1e-05" in line and "0.01" in line and line.endswith("learning rate") for line in lines)
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    assert "rate" in " ".join(lines[-4:])
    assert names(tmp_path) == []


def test_the_command_marks_its_suggestion_and_says_what_to_do_next(command, monkeypatch):
    found = search([2.3, 2.2, 1.8, 1.5, 1.57, 1.59, 1.5, 4.0])
    monkeypatch.setattr("gpuconv.train.rate_search.find_rate", lambda *_, **__: found)
    for columns in (60, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        code, out, err = command(*FLAGS)
        lines = out.splitlines()
        assert (code, err) == (0, "")
        assert max(map(len, lines)) <= columns
        assert len(lines) <= 24
        assert [line for line in lines if line.endswith(" try 2.5e-05")]
        said = " ".join(lines[lines.index("") :])
        assert "try --lr 2.5e-05, as the highest rate of a schedule: beyond it the smoothed loss" in said
        assert "gpuconv train --sweep lr=1.3e-05,2.5e-05,5e-05, with the same settings" in said


def test_the_command_s_json_is_the_search(command, tmp_path):
    code, out, err = command(*FLAGS, "--steps", 30, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    wanted = find_rate(
        change(test_images=0, crop=2, pad_mode="reflect", flip_mode="alternate"),
        steps=30,
        progress="none",
        dataset=shapes(),
    )
    assert document["losses"] == wanted.losses
    assert (document["suggestion"], document["rule"], document["ended"]) == (
        wanted.suggestion,
        wanted.rule,
        wanted.ended,
    )
    assert names(tmp_path) == []


@pytest.mark.long
def test_the_command_saves_a_picture(command, tmp_path):
    pytest.importorskip("matplotlib")
    code, out, _ = command(*FLAGS, "--steps", 30, "--save", "rates.png")
    assert code == 0
    assert out.endswith("rates.png is written\n")
    assert names(tmp_path) == ["rates.png"]


BAD = {
    "picture": (["--save", "x.gif"], "must end in .png, .svg, .pdf"),
    "rate": (["--lr", "1"], "unrecognized arguments: --lr 1"),
    "steps": ([*FLAGS, "--steps", "3"], "steps must be an int from 10"),
    "setting": (["--optimizer", "adamm"], 'did you mean "adam"?'),
    "both": (["--config", "x", "--preset", "vgg"], "--config and --preset exclude each other"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_used_exits_with_2(arguments, message, command, tmp_path):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert names(tmp_path) == []


def test_a_blow_up_does_not_flatten_the_chart():
    from gpuconv.show.plots import until_it_blows_up

    assert until_it_blows_up([2.3, 2.0, 1.8, 2.5, 2.8, 2.9, 12.0]) == 5
    assert until_it_blows_up([2.0]) == 1
