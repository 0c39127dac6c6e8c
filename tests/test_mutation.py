"""The script that breaks kernels on purpose, its recorded score, and the reasons of mutants that nothing can notice."""

import json

import pytest

from tests.ladder import mutate_kernels as mutation

pytestmark = pytest.mark.compilers

RECORDED = json.loads(mutation.SCORE.read_text(encoding="utf-8"))


def _mutant(file, text):
    return mutation.Mutant(file, 0, " < ", " <= ", 1, text)


def test_recorded_score_reaches_the_goal():
    assert RECORDED["mutants"] >= 100
    assert RECORDED["score"] >= mutation.GOAL
    assert RECORDED["mutants"] - RECORDED["noticed"] == len(RECORDED["survivors"])


def test_every_kernel_file_is_broken_somewhere():
    assert set(RECORDED["files"]) == {mutant.file for mutant in mutation.all_mutants()}


def test_every_reason_is_that_of_a_mutant_of_today():
    lines = {(mutant.file, mutant.text) for mutant in mutation.all_mutants()}
    assert [entry["text"] for entry in mutation.reasons() if (entry["file"], entry["text"]) not in lines] == []


def test_a_mutant_changes_one_place():
    mutant = next(m for m in mutation.mutants("relu.cu") if m.before == " < ")
    original = mutation.kernel_dir().joinpath("relu.cu").read_text(encoding="utf-8")
    changed = mutant.applied(original)
    differing = [
        i for i, (a, b) in enumerate(zip(original.splitlines(), changed.splitlines(), strict=True), 1) if a != b
    ]
    assert differing == [mutant.line]
    assert changed.splitlines()[mutant.line - 1].strip() == mutant.text


def test_comments_signatures_and_static_asserts_stay():
    assert not [m for m in mutation.all_mutants() if m.text.startswith(("//", "template", "static_assert", "#"))]


def test_score_leaves_out_what_changes_nothing(monkeypatch):
    monkeypatch.setattr(mutation, "reasons", lambda: [{"file": "a.cu", "text": "same", "reason": "because"}])
    results = [(_mutant("a.cu", f"line {i}"), "noticed", "", 1.0) for i in range(8)]
    results += [(_mutant("a.cu", "same"), "survived", "", 1.0), (_mutant("b.cu", "other"), "survived", "", 1.0)]
    results += [(_mutant("b.cu", "odd"), "refused", "", 1.0)]
    found = mutation.summary(results, 100, 1)
    assert (found["mutants"], found["noticed"], found["change no result"]) == (10, 8, 1)
    assert found["score"] == round(8 / 9, 4)
    assert found["noticed of all"] == 0.8
    assert found["refused by the compiler"] == 1
    assert [survivor["reason"] for survivor in found["survivors"]] == ["because", "not explained"]


def test_a_sample_has_mutants_of_every_file_and_is_repeatable():
    everything = mutation.all_mutants()
    chosen = mutation.sample(everything, 100, 5)
    assert {mutant.file for mutant in chosen} == {mutant.file for mutant in everything}
    assert chosen == mutation.sample(everything, 100, 5)
    assert len(chosen) >= 100
