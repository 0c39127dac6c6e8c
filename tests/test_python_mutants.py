"""The script that breaks Python code on purpose: what it changes, what it runs, and its recorded score."""

import ast
import json
import textwrap

import pytest

from tests.ladder import mutate_python as mutation
from tests.ladder.python_mutants import mutants

RECORDS = sorted(mutation.RESULTS.glob("python-mutants-*.json"))


def changes(source):
    """Return (kind, line afterwards) of every mutant of a source."""
    found = mutants("some.py", textwrap.dedent(source).strip() + "\n")
    return {(mutant.kind, mutant.text.partition(" -> ")[2]) for mutant in found}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", {("comparison", "a <= b")}),
        ("a <= b != c", {("comparison", "a < b != c"), ("comparison", "a <= b == c")}),
        ("(a) is not (b)", {("comparison", "(a) is (b)")}),
        ("a not in b", {("comparison", "a in b")}),
        ("a + b", {("arithmetic", "a - b")}),
        ("a // b % c", {("arithmetic", "a * b % c"), ("arithmetic", "a // b // c")}),
        ("a and b and c", {("logic", "a or b and c"), ("logic", "a and b or c")}),
        ("not a", {("not dropped", "(a)")}),
        ("a = 7", {("number plus one", "a = 8")}),
        ("a = 0.5", {("number plus one", "a = 1.5")}),
        ("a = True", {("other constant", "a = False")}),
        ("a.b = c", {("statement dropped", "pass")}),
        ("a += b", {("statement dropped", "pass")}),
        ("del a", {("statement dropped", "pass")}),
        ("a(b)", {("statement dropped", "pass")}),
        ("a = f(b, c)", {("arguments swapped", "a = f(c, b)")}),
        ("a = abs(b)", {("abs dropped", "a = (b)")}),
        ("a = min(b, *c)", {("min and max", "a = max(b, *c)")}),
        ("def f(a=1): return a", {("number plus one", "def f(a=2): return a"), ("returns None", "def f(a=1): return None")}),
        ("def f(*, a=True): ...", {("other constant", "def f(*, a=False): ...")}),
        ("while a: break", {("break", "while a: continue")}),
        ("while a: continue", {("continue", "while a: break")}),
        ("if a:\n    raise B", {("statement dropped", "pass")}),
        ("try:\n    ...\nexcept OSError: ...", {("exception", "except FileNotFoundError: ...")}),
        ("try:\n    ...\nexcept A: ...", {("exception", "except (): ...")}),
        ("try:\n    ...\nexcept (A, B): ...", {("exception", "except (A, ): ..."), ("exception", "except (B, ): ...")}),
    ],
)  # fmt: skip
def test_each_kind_of_place_is_changed(source, expected):
    assert changes(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""One + two is 3."""',
        "from a import b",
        "def f(a: Tuple[3, b < c]) -> int | 4: ...",
        "a: Literal[1]",
        "class A:\n    def __repr__(self): return 1",
        "a = f'{b + 1}'",
        "msg = 'a' + b",
        "a = 'b' + c",
        "if TYPE_CHECKING:\n    import a",
        "__all__ = [1]",
        "@dataclass(frozen=True)\nclass A: ...",
        "a = os.kill(b, 0)",
    ],
)
def test_words_types_and_settings_stay(source):
    assert changes(source) == set()


def test_what_a_message_says_stays_though_the_statement_may_go():
    assert changes("raise A(1 + 2)") == {("statement dropped", "pass")}


def test_a_mutant_changes_its_place_alone_behind_letters_of_several_bytes():
    text = 'a = "é"; b = 1  # é\nc = (\n    d  # <\n    < e\n)\n'
    assert [mutant.applied(text) for mutant in mutants("some.py", text)] == [
        text.replace("b = 1", "b = 2"),
        text.replace("    < e", "    <= e"),
    ]


def test_every_mutant_is_python():
    file = "nn/optim.py"
    text = (mutation.PACKAGE / file).read_text(encoding="utf-8")
    for mutant in mutants(file, text)[::5]:
        ast.parse(mutant.applied(text))


def test_a_mutant_knows_its_function():
    text = "class A:\n    def f(self, a=1):\n        return [b + 1 for b in a]\n"
    assert {mutant.scope for mutant in mutants("some.py", text)} == {"A.f"}


def test_a_larger_sample_begins_with_a_smaller_one():
    everything = mutation.mutants_of("durable.py")
    assert mutation.sample(everything, 9, 3)[:5] == mutation.sample(everything, 5, 3)
    assert mutation.sample(everything, 5, 3) != mutation.sample(everything, 5, 4)


def test_every_area_has_files_and_the_nearest_test_is_that_of_the_name():
    for area in mutation.AREAS:
        assert mutation.files([area])
    assert mutation.area_of("data/cifar/spec.py") == "data"
    nearest = {file: mutation.test_files_of(file)[0] for file in mutation.files()}
    assert nearest["cpu/memory.py"] == "test_memory.py"
    assert nearest["train/loop.py"] == "test_train_loop.py"
    assert nearest["data/download.py"] == "test_data_download.py"
    assert mutation.test_files_of("shapes.py")[1] == "test_errors.py"


def test_rounds_begin_with_tests_that_enter_the_function_and_hold_each_once(monkeypatch):
    mutant = next(mutant for mutant in mutation.mutants_of("durable.py") if mutant.scope == "lock")
    notes = {
        "test_near.py": {"long": (90.0, "lock"), "short": (1.0, "lock"), "other": (2.0, "write")},
        "test_far.py": {"far": (3.0, "write"), "elsewhere": (4.0, None)},
    }

    class Notes:
        @staticmethod
        def notes(test_file, copy):
            return {
                name: {"seconds": seconds, "enters": [f"durable.py:{function}"] if function else ["errors.py:A"]}
                for name, (seconds, function) in notes[test_file].items()
            }

    monkeypatch.setattr(mutation, "test_files_of", lambda file: list(notes))
    monkeypatch.setattr(mutation, "ROUNDS", ((1, 20.0), (mutation.FARTHEST, 120.0)))
    assert [list(tests) for tests in mutation.rounds(mutant, Notes, None)] == [["short"], ["other", "far", "long"]]


def test_a_function_that_none_of_the_nearest_tests_enters_is_looked_for_further_on(monkeypatch):
    mutant = next(mutant for mutant in mutation.mutants_of("durable.py") if mutant.scope == "lock")
    entered = {"test_near.py": "write", "test_next.py": "write", "test_far.py": "lock", "test_last.py": "lock"}

    class Notes:
        @staticmethod
        def notes(test_file, copy):
            return {test_file[5:-3]: {"seconds": 1.0, "enters": [f"durable.py:{entered[test_file]}"]}}

    monkeypatch.setattr(mutation, "test_files_of", lambda file: list(entered))
    monkeypatch.setattr(mutation, "FARTHEST", 2)
    monkeypatch.setattr(mutation, "ROUNDS", ((1, 20.0), (2, 120.0)))
    assert [list(tests) for tests in mutation.rounds(mutant, Notes, None)] == [[], ["far", "near", "next"]]


class Scripted:
    """A copy of the checkout in which nothing runs: it answers what it is told, with the change and without it."""

    def __init__(self, changed, unchanged=(0, "")):
        self.answers = {True: changed, False: unchanged}
        self.text = self._original = (mutation.PACKAGE / "durable.py").read_text(encoding="utf-8")

    def put(self, file, text):
        self.text = text

    def run(self, test_files, seconds, *options, **variables):
        return self.answers[self.text != self._original]


FAILED = "FAILED tests/test_near.py::test_a[b c] - OSError: no - but\n"


@pytest.mark.parametrize(
    ("changed", "unchanged", "outcome", "by"),
    [
        ((1, FAILED), (0, ""), mutation.NOTICED, "tests/test_near.py::test_a[b c]"),
        ((1, FAILED), (1, FAILED), mutation.UNDECIDED, "fails without the change, too"),
        ((2, "ERROR tests/test_near.py\n"), (0, ""), mutation.NOTICED, "tests/test_near.py"),
        ((4, "no conftest"), (0, ""), mutation.NOTICED, "pytest ends with 4: no conftest"),
        ((None, ""), (0, ""), mutation.NOTICED, "no end within"),
        ((None, ""), (None, ""), mutation.UNDECIDED, "too busy"),
        ((5, ""), (0, ""), mutation.UNDECIDED, "none of the tests"),
        ((0, ""), (0, ""), mutation.SURVIVED, "1 passed"),
    ],
    ids=["noticed", "fails_anyway", "import", "no_start", "endless", "too_busy", "nothing_run", "survived"],
)
def test_what_pytest_says_of_a_mutant_is_its_verdict(changed, unchanged, outcome, by, state, tmp_path, monkeypatch):
    monkeypatch.setattr(state, "knows", lambda test_file: True)
    monkeypatch.setattr(mutation, "rounds", lambda *arguments: [{"tests/test_near.py::test_a[b c]": 0.1}])
    copy = Scripted(changed, unchanged)
    trial = mutation.Trial(mutation.mutants_of("durable.py")[0], state, copy, tmp_path)
    found, words = trial.verdict(1)
    assert found == outcome
    assert by in words
    assert copy.text == (mutation.PACKAGE / "durable.py").read_text(encoding="utf-8")


def test_no_test_is_chosen_whose_file_is_unknown_before_that_file_has_run_whole(state, tmp_path, monkeypatch):
    monkeypatch.setattr(mutation, "rounds", lambda *arguments: pytest.fail("it was noticed before"))
    mutant = mutation.mutants_of("durable.py")[0]
    assert mutation.Trial(mutant, state, Scripted((1, FAILED)), tmp_path).verdict(1)[0] == mutation.NOTICED
    assert mutation.Trial(mutant, state, Scripted((0, "")), tmp_path).verdict(0)[0] == mutation.SURVIVED
    outcome, by = mutation.Trial(
        mutant, mutation.State(tmp_path), Scripted((1, FAILED), (1, FAILED)), tmp_path
    ).verdict(0)
    assert (outcome, "ends with 1" in by) == (mutation.UNDECIDED, True)


@pytest.fixture
def state(tmp_path):
    return mutation.State(tmp_path)


def test_verdicts_outlive_a_stop_and_survivors_are_tried_again_when_a_test_has_changed(state, tmp_path):
    state.add(mutation.Verdict("a", mutation.NOTICED, "a test", "others"))
    state.add(mutation.Verdict("b", mutation.SURVIVED, "2 passed", "others"))
    state.add(mutation.Verdict("c", mutation.SURVIVED, "2 passed", state.tests))
    state.add(mutation.Verdict("e", mutation.UNDECIDED, "too busy", state.tests))
    with (tmp_path / "verdicts.jsonl").open("a") as file:
        file.write('{"key": "d", "outc')  # stopped here
    assert list(mutation.State(tmp_path).verdicts()) == ["a", "c"]


def test_the_score_leaves_out_what_changes_nothing(monkeypatch):
    chosen = mutation.mutants_of("durable.py")[:10]
    monkeypatch.setattr(
        mutation, "reasons", lambda: [{"file": "durable.py", "text": chosen[0].text, "reason": "because"}]
    )
    outcomes = [mutation.SURVIVED] * 2 + [mutation.NOTICED] * 7 + [mutation.UNDECIDED]
    results = [
        (mutant, mutation.Verdict("", outcome, "", "")) for mutant, outcome in zip(chosen, outcomes, strict=True)
    ]
    record = mutation.report(results, 99)
    assert (record["mutants"], record["noticed"], record["change nothing"]) == (9, 7, 1)
    assert record["score"] == round(7 / 8, 4)
    assert [survivor["reason"] for survivor in record["survivors"]] == ["because", "not explained"]


def test_every_reason_is_that_of_a_mutant_of_today():
    known = mutation.reasons()
    there = {
        (mutant.file, mutant.text) for file in {one["file"] for one in known} for mutant in mutation.mutants_of(file)
    }
    assert [entry["text"] for entry in known if (entry["file"], entry["text"]) not in there] == []


@pytest.mark.parametrize("path", RECORDS[-1:], ids=lambda path: path.stem)
def test_the_newest_record_reaches_the_goal(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["mutants"] >= 200
    equal = sum(survivor["reason"] != "not explained" for survivor in record["survivors"])
    assert record["mutants"] - record["noticed"] == len(record["survivors"])
    assert record["noticed"] / (record["mutants"] - equal) >= mutation.GOAL
