"""tests/ladder/torture: what is wrong is counted as wrong, told with what repeats it, and makes the exit status 1."""

import json

import numpy as np
import planted_torture
import pytest

from gpuconv.errors import CheckpointCorruptError
from gpuconv.runs import sealed

pytest.importorskip("resource", reason="needs the forks and signals of POSIX")

from tests.ladder.kernel_calls import of
from tests.ladder.torture import __main__ as torture
from tests.ladder.torture import calls, damage
from tests.ladder.torture.kind import FINE, REFUSED, WRONG


def test_whatever_comes_of_a_case_is_counted_and_those_behind_it_are_run():
    outcomes = list(torture.outcomes("planted_torture", "planted", 1, 0, 5))
    assert [(outcome.number, outcome.result, outcome.sort) for outcome in outcomes] == [
        (0, FINE, "well"),
        (1, REFUSED, "ShapeError"),
        (2, WRONG, "KeyError"),
        (3, WRONG, "crash"),
        (4, WRONG, "hang"),
    ]
    assert "raise KeyError" in outcomes[2].story
    assert "SIGKILL" in outcomes[3].story
    assert "in _ends" in outcomes[4].story


def test_a_process_that_says_nothing_is_ended():
    (outcome,) = torture.outcomes("planted_torture", "planted", 1, 0, 1, silence=0.0)
    assert (outcome.number, outcome.result, outcome.sort) == (0, WRONG, "hang")


def test_a_case_is_the_same_again_and_another_with_another_seed_or_number():
    stories = [planted_torture.KINDS[0].outcome(2, seed).story.splitlines()[-1] for seed in (1, 1, 2)]
    assert stories[0] == stories[1] != stories[2]


def _results(monkeypatch, capsys, tmp_path, kind, module, *arguments):
    monkeypatch.setattr(torture, "all_kinds", lambda: [(module, kind)])
    monkeypatch.setattr(torture, "outcomes", lambda module, name, seed, first, last: (
        kind.outcome(number, seed) for number in range(first, last)
    ))  # fmt: skip
    status = torture.main(["--save", str(tmp_path / "figures.json"), *arguments])
    return status, capsys.readouterr().out, json.loads((tmp_path / "figures.json").read_text())


def test_a_reader_that_does_not_look_at_the_seal_is_wrong(monkeypatch, capsys, tmp_path):
    (kind,) = (kind for kind in damage.KINDS if kind.name == "bit flips")
    sound = sealed.encode({"w": np.arange(2000.0)}, {"step": 1})
    monkeypatch.setattr(damage, "_sound", lambda recipe: sound)
    arguments = monkeypatch, capsys, tmp_path, kind, damage.__name__, "--scale", "0.0005"
    status, out, values = _results(*arguments)
    assert (status, values["kinds"][0]["refused"]) == (0, {CheckpointCorruptError.__name__: 5})
    monkeypatch.setattr(sealed, "decode", lambda content, name: ({}, {}))
    status, out, values = _results(*arguments)
    assert status == 1
    assert values["kinds"][0]["wrong"] == {"taken": 5}
    assert 'python -m tests.ladder.torture --only "bit flips" --seed 1 --case 3' in out


def test_a_wrong_number_is_wrong(monkeypatch, capsys, tmp_path):
    (kind,) = (kind for kind in calls.KINDS if kind.name == "random calls")
    real = calls._on_the_oracle
    monkeypatch.setattr(calls.Call, "by_oracle", lambda call, dtype, memory: [
        None if array is None else array * 1.01 for array in real(call, calls.Inputs(calls._AsTheyAre, dtype, memory, wide=True))
    ])  # fmt: skip
    monkeypatch.setattr(calls, "random_call", lambda seed: (of("relu", "relu", x=(3, 4)), "float32", "NCHW"))
    status, _, values = _results(monkeypatch, capsys, tmp_path, kind, calls.__name__, "--scale", "0.0001")
    assert (status, values["kinds"][0]["wrong"]) == (1, {"AssertionError": 2})


def test_kinds_have_names_of_their_own_and_others_are_refused():
    names = [kind.name for _, kind in torture.all_kinds()]
    assert len(set(names)) == len(names)
    with pytest.raises(SystemExit, match="there is no kind rain; there are kills inside a save"):
        torture.chosen("signals,rain")
