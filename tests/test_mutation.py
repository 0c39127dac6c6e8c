"""The script that breaks kernels on purpose, its recorded score, and the reasons of mutants that nothing can notice."""

import argparse
import json

import pytest

from tests.ladder import kernel_files
from tests.ladder import mutate_kernels as mutation

pytestmark = pytest.mark.compilers

RECORDED = mutation.recorded()
# Files whose code may have changed since they were measured: a small change needs no measurement of its own.
CHANGED_ALLOWED = 3


def _mutant(file, text):
    return mutation.Mutant(file, 0, " < ", " <= ", 1, text)


def test_recorded_score_reaches_the_goal():
    of_all = mutation.totals(RECORDED)
    assert of_all["mutants"] >= 100
    assert of_all["score"] >= mutation.GOAL


@pytest.mark.parametrize("file", mutation.files())
def test_every_kernel_file_is_measured(file):
    assert file in RECORDED, f"kernels/{file} has no mutation score: {mutation.command([file])}"
    result = RECORDED[file]
    assert 0 < result["mutants"] <= result["places"]
    assert result["mutants"] - result["noticed"] == len(result["survivors"])


def test_few_files_have_changed_since_they_were_measured():
    _, changed = mutation.to_be_measured(RECORDED)
    assert len(changed) <= CHANGED_ALLOWED, f"measure the code of today: {mutation.command(changed)}"


def test_the_record_names_no_file_that_is_no_more():
    assert set(RECORDED) <= set(mutation.files())


def test_every_reason_is_that_of_a_mutant_of_today():
    lines = {(mutant.file, mutant.text) for mutant in mutation.all_mutants()}
    assert [entry["text"] for entry in mutation.reasons() if (entry["file"], entry["text"]) not in lines] == []


def test_every_survivor_has_its_reason():
    silent = [one for one in mutation.totals(RECORDED)["survivors"] if one["reason"] == "not explained"]
    assert silent == [], (
        "no test notices these changes: add a call that does to the row of the operator in tests/operators.py, and mutate "
        "the file again, or say in tests/ladder/mutation_survivors.toml why nothing can"
    )


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


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """A folder of kernels in the place of ours: a.cu and b.cu with three mutants each."""
    for name in ("a.cu", "b.cu"):
        (tmp_path / name).write_text(
            "int f(int i) {\n  // sums\n  return i + 1 < 2;\n}\nint g(int i) { return i - 1; }\n"
        )
    monkeypatch.setattr(mutation, "kernel_dir", lambda: tmp_path)
    return tmp_path


def test_results_are_kept_by_file_and_totals_leave_out_what_changes_nothing(kernels, monkeypatch):
    monkeypatch.setattr(mutation, "reasons", lambda: [{"file": "a.cu", "text": "same", "reason": "because"}])
    results = [(_mutant("a.cu", f"line {i}"), "noticed", "", 1.0) for i in range(8)]
    results += [(_mutant("a.cu", "same"), "survived", "", 1.0), (_mutant("b.cu", "other"), "survived", "", 1.0)]
    results += [(_mutant("b.cu", "odd"), "refused", "", 1.0)]
    record = mutation.of_files(results, 1)
    code = mutation.code_digest((kernels / "a.cu").read_text())
    assert record["a.cu"] == {
        "code": code,
        "places": 3,
        "seed": 1,
        "mutants": 9,
        "noticed": 8,
        "refused by the compiler": 0,
        "survivors": ["same"],
    }
    assert (record["b.cu"]["mutants"], record["b.cu"]["refused by the compiler"]) == (1, 1)
    of_all = mutation.totals(record)
    assert (of_all["mutants"], of_all["noticed"], of_all["change no result"]) == (10, 8, 1)
    assert of_all["score"] == round(8 / 9, 4)
    assert [survivor["reason"] for survivor in of_all["survivors"]] == ["because", "not explained"]


def _run(monkeypatch, *arguments, verdict="noticed"):
    """Run the command line on results that need no emulator."""
    monkeypatch.setattr(mutation, "Plan", lambda: None)
    monkeypatch.setattr(
        mutation, "run_all", lambda plan, chosen, jobs: [(mutant, verdict, "why", 1.0) for mutant in chosen]
    )
    monkeypatch.setattr("sys.argv", ["mutate_kernels", *arguments])
    return mutation.main()


def test_only_some_files_are_written_beside_the_others(kernels, tmp_path_factory, monkeypatch, capsys):
    score = tmp_path_factory.mktemp("score") / "score.json"
    monkeypatch.setattr(mutation, "SCORE", score)
    before = {
        file: {"mutants": 1, "noticed": 1, "survivors": [], "code": "old"} for file in ("a.cu", "b.cu", "gone.cu")
    }
    score.write_text(json.dumps(before))
    assert mutation.to_be_measured(before) == ([], ["a.cu", "b.cu"])
    assert _run(monkeypatch, "--only", "a", "--write") == 0
    record = mutation.recorded()
    assert record["b.cu"] == before["b.cu"]
    assert (record["a.cu"]["mutants"], record["a.cu"]["seed"]) == (3, None)
    assert set(record) == {"a.cu", "b.cu"}
    assert mutation.to_be_measured(record) == ([], ["b.cu"])
    assert _run(monkeypatch, "--write", "--sample", "4", "--seed", "7") == 0  # of all files, and in their place
    record = mutation.recorded()
    assert [(result["mutants"], result["seed"]) for result in record.values()] == [(2, 7), (2, 7)]
    assert _run(monkeypatch, "--write", verdict="broken") == 1  # a fault of the script is not kept
    assert mutation.recorded() == record
    capsys.readouterr()


def test_a_new_file_is_to_be_measured_and_a_comment_changes_nothing(kernels):
    text = (kernels / "a.cu").read_text()
    record = {file: {"code": mutation.code_digest(text)} for file in ("a.cu", "b.cu")}
    (kernels / "c.cu").write_text(text)
    (kernels / "a.cu").write_text(text.replace("// sums", "// sums of all\n"))
    (kernels / "b.cu").write_text(text.replace("i + 1", "i + 2"))
    assert mutation.to_be_measured(record) == (["c.cu"], ["b.cu"])
    assert mutation.command(["c.cu"]) == "python -m tests.ladder.mutate_kernels --only c.cu --write"


def test_files_are_named_with_or_without_their_endings(capsys):
    parser, files = argparse.ArgumentParser(), ("conv.cu", "conv.cuh", "conv_tiled.cu", "relu.cu")
    assert kernel_files.chosen(parser, [], files) == list(files)
    assert kernel_files.chosen(parser, ["relu", "conv"], files) == ["conv.cu", "conv.cuh", "relu.cu"]
    assert kernel_files.chosen(parser, ["conv.cu"], files) == ["conv.cu"]
    with pytest.raises(SystemExit):
        kernel_files.chosen(parser, ["relu", "con"], files)
    assert "--only names no kernel file by con; there are conv.cu, conv.cuh" in capsys.readouterr().err


def test_a_sample_has_mutants_of_every_file_and_is_repeatable():
    everything = mutation.all_mutants()
    chosen = mutation.sample(everything, 100, 5)
    assert {mutant.file for mutant in chosen} == {mutant.file for mutant in everything}
    assert chosen == mutation.sample(everything, 100, 5)
    assert len(chosen) >= 100
