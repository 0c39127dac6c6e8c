"""`gpuconv bench --compare`: gpuconv now beside gpuconv then, and when something counts as slower."""

import copy
import json

import pytest

from bench import compare, harness, load, quiet, results, run
from bench.results import OURS, Entry, Ratio, Result, Row
from gpuconv import cli
from gpuconv.errors import ConfigError

CASE = "quick relu 8, 16x16"
MACHINE = {
    "processor": "Abacus",
    "system": "Linux",
    "cores": 2,
    "threads": 2,
    "python": "3.11",
    "numpy": "2.0",
    "blas": "none",
    "loops": "compiled",
    "date": "2026-01-02",
}


def measured(times, *, processes=3, peer=1.0, case=CASE):
    """Return a run of one case whose forward took these milliseconds in gpuconv, and always the same in a peer."""
    row = Row(case, "relu", "forward", "float32", 8, 0, 1_000_000)
    row.entries = [
        Entry(OURS, "NCHW", times={"ms": list(times)}),
        Entry("torch", "NCHW", times={"ms": [peer] * len(times)}),
    ]
    sides = {
        name: {"label": label, "version": "1.0", "status": "measured", "why": ""}
        for name, label in ((OURS, "gpuconv"), ("torch", "PyTorch"))
    }
    return Result(dict(MACHINE), {"processes": processes}, {"GB/s": 2.0}, sides, [row])


def then(*runs):
    return compare.Then("old.json", runs)


STEADY = [1.0, 1.0, 1.1, 1.1, 0.9, 0.9]  # two rounds in each of three processes


def test_ratios_are_of_medians_with_the_spread_of_pairs_of_rounds():
    (change,) = compare.changes(measured([2.0] * 5 + [4.0]), then(measured(STEADY)))
    assert (change.then, change.now) == (1.0, 2.0)
    each = sorted(new / old for new in [2.0] * 5 + [4.0] for old in STEADY)
    assert change.ratio == Ratio(2.0, each[3], each[-4])
    assert change.least == 2.0 / 1.1  # the fastest process now by the slowest then


def test_a_process_is_judged_by_its_own_median():
    (change,) = compare.changes(measured([3.0, 3.0, 1.0, 3.0, 3.0, 9.0]), then(measured(STEADY)))
    assert change.least == 2.0 / 1.1  # the medians are 3, 2 and 6
    (change,) = compare.changes(measured([3.0, 3.0, 1.0, 3.0, 3.0, 9.0], processes=1), then(measured(STEADY)))
    assert change.least == 3.0 / 1.1


@pytest.mark.parametrize(
    ("now", "slower"),
    [
        ([1.3, 1.3, 1.3, 1.3, 1.3, 1.3], True),
        ([1.3, 1.3, 1.3, 1.3, 1.0, 1.0], False),  # one process is as fast as then
        ([1.15, 1.15, 1.15, 1.15, 1.15, 1.15], False),  # a process then took 1.1
        ([0.5, 2.0, 0.5, 2.0, 0.5, 2.0], False),  # each process has a median of 1.25, and rounds all over
    ],
)
def test_slower_is_what_is_slower_in_every_process(now, slower):
    (change,) = compare.changes(measured(now), then(measured(STEADY)))
    assert change.slower(1.1) is slower


def test_several_older_runs_are_one():
    older = then(measured([1.0, 1.0], processes=1), measured([3.0, 3.0], processes=1), measured([1.0], processes=1))
    assert older.processes() == 3
    (change,) = compare.changes(measured(STEADY), older)
    assert change.then == 1.0
    assert change.least == 0.9 / 3.0


def test_only_what_both_have_measured_is_compared():
    now = measured(STEADY)
    now.rows.append(measured(STEADY, case="new").rows[0])
    now.rows[0].entries.append(Entry(OURS, "NHWC", "failed", "its process ended with status -9"))
    older = measured(STEADY)
    older.rows.append(measured(STEADY, case="gone").rows[0])
    older.rows[0].entries.append(Entry(OURS, "NHWC", times={"ms": STEADY}))
    assert [change.case for change in compare.changes(now, then(older))] == [CASE]
    assert compare.lost(now, then(older)) == [
        f"{CASE} forward, NHWC, float32: failed, its process ended with status -9"
    ]
    assert compare.lost(older, then(now)) == []


@pytest.mark.parametrize("key", ["processor", "threads", "python", "numpy", "blas", "loops", "system"])
def test_another_machine_or_version_is_refused(key):
    older = then(measured(STEADY))
    older.check(MACHINE, [CASE], ["float32"])
    with pytest.raises(
        ConfigError, match=rf"of another machine or other versions, .*\({key}: {MACHINE[key]} there, new here\)"
    ):
        older.check(MACHINE | {key: "new"}, [CASE], ["float32"])


@pytest.mark.parametrize(("cases", "regimes"), [(["other"], ["float32"]), ([CASE], ["float16"])])
def test_older_runs_of_other_cases_are_refused(cases, regimes):
    with pytest.raises(ConfigError, match=r"old\.json has no case of this run"):
        then(measured(STEADY)).check(MACHINE, cases, regimes)


def test_the_text_has_a_line_a_row_and_a_peer_as_measure_of_the_machine():
    now, older = measured([1.3] * 6, peer=2.0), then(measured(STEADY))
    lines = compare.lines(now, older, 1.1)
    assert lines[2] == CASE
    assert lines[3].split() == ["forward", "NCHW", "1.000", "->", "1.300", "ms", "1.30", "(1.18-1.44)", "slower"]
    assert "slower" not in "".join(compare.lines(now, older))
    assert lines[-2:] == [
        "gpuconv now / then: geometric mean 1.30 of 1 row, from 1.30 to 1.30",
        "PyTorch now / then: geometric mean 2.00 of 1 row, from 2.00 to 2.00, the same version: a measure of the machine",
    ]
    now.sides["torch"]["version"] = "2.0"
    assert "PyTorch" not in "".join(compare.lines(now, older))


def test_gpuconv_in_another_process_is_no_measure_of_the_machine():
    now, older = measured([1.3] * 6, peer=2.0), measured(STEADY)
    for one in (now, older):
        one.sides["gpuconv-numpy"] = {**one.sides.pop("torch"), "label": "gpuconv, NumPy alone"}
        one.rows[0].entries[1].side = "gpuconv-numpy"
    assert compare.means(now, then(older))[1] == (
        "gpuconv, NumPy alone now / then: geometric mean 2.00 of 1 row, from 2.00 to 2.00"
    )


def test_a_row_of_the_text_fits_80_columns():
    lines = compare.lines(measured([1.3] * 6), then(measured(STEADY)), 1.1)
    assert max(map(len, lines[1:-2])) <= 80


# The command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(capsys, monkeypatch, tmp_path):
    """Run `gpuconv bench` with sides that pretend: each run is the next of those given; return (code, stdout, stderr)."""
    monkeypatch.setattr(load, "look", lambda: None)
    monkeypatch.setattr(harness, "machine", lambda settings: MACHINE | {"threads": settings.threads})
    monkeypatch.setattr(harness, "usable_cores", lambda: 2)
    monkeypatch.setattr(quiet, "RESULTS", tmp_path / "none")

    def go(*arguments, runs=(), older=None):
        if older is not None:
            (tmp_path / "old.json").write_text(older.to_json())
        left = list(runs)

        def measure(cases, names, settings, watch):
            result = copy.deepcopy(left.pop(0))
            if isinstance(result, KeyboardInterrupt):
                raise result
            for row in result.rows:
                watch.row(row)
            return result

        monkeypatch.setattr(harness, "run", measure)
        command = ["bench", "--set", "quick", "--only", "quick relu", "--peers", "torch", *map(str, arguments)]
        code = cli.main(command)
        assert left == []
        return (code, *capsys.readouterr())

    go.old = tmp_path / "old.json"
    return go


def test_a_comparison_is_printed_below_the_table(bench):
    code, out, err = bench("--compare", bench.old, runs=[measured([1.3] * 6)], older=measured(STEADY))
    assert (code, err) == (0, "")
    assert "time now / then (old.json)" in out
    assert "1.000 ->      1.300 ms   1.30 (1.18-1.44)\n" in out


def test_what_is_slower_twice_ends_with_1(bench):
    slow = measured([1.3] * 6)
    given = ("--compare", bench.old, "--fail-above", 1.1, "--processes", 3)
    code, out, err = bench(*given, runs=[slow, slow], older=measured(STEADY))
    assert (code, err) == (1, "")
    assert "1 case once more, to be sure that what seems slower is" in out
    assert f"slower: {CASE} forward, NCHW, float32: 1.30, 1.18 of the nearest two processes" in out
    assert out.endswith("1 row above 1.1, or not right any more\n")


def test_what_is_slower_once_is_noise(bench):
    given = ("--compare", bench.old, "--fail-above", 1.1, "--processes", 3)
    code, out, _ = bench(*given, runs=[measured([1.3] * 6), measured(STEADY)], older=measured(STEADY))
    assert code == 0
    assert out.endswith("1 row seemed slower, and not when measured once more\nnothing above 1.1\n")


def test_ctrl_c_in_the_second_measurement_keeps_the_first(bench, tmp_path):
    given = ("--compare", bench.old, "--fail-above", 1.1, "--processes", 3, "--save", tmp_path / "kept.json")
    code, out, err = bench(*given, runs=[measured([1.3] * 6), KeyboardInterrupt()], older=measured(STEADY))
    assert (code, err) == (130, "gpuconv: stopped before what seems slower was measured twice\n")
    assert out.endswith(f"kept in {tmp_path / 'kept.json'}\n")
    (row,) = results.read(tmp_path / "kept.json").rows
    assert row.entry(OURS).times == {"ms": [1.3] * 6}


def test_what_is_as_fast_is_measured_once(bench):
    given = ("--compare", bench.old, "--fail-above", 1.1, "--processes", 3)
    code, out, _ = bench(*given, runs=[measured(STEADY)], older=measured(STEADY))
    assert code == 0
    assert out.endswith("nothing above 1.1\n")


def test_what_is_wrong_now_ends_with_1(bench):
    wrong = measured(STEADY)
    wrong.rows[0].entries[0] = Entry(OURS, "NCHW", "wrong", "y off by 1.0e+00", error=1.0)
    given = ("--compare", bench.old, "--fail-above", 1.1, "--processes", 3)
    code, out, _ = bench(*given, runs=[wrong], older=measured(STEADY))
    assert code == 1
    assert f"{CASE} forward, NCHW, float32: wrong, y off by 1.0e+00" in out


@pytest.mark.parametrize(
    ("arguments", "older", "said"),
    [
        (["--fail-above", 1.1], None, "--fail-above is of a comparison: name older results by --compare FILE"),
        (["--compare", "OLD", "--fail-above", 0.5], measured(STEADY), "--fail-above must be at least 1, got 0.5"),
        (["--compare", "OLD", "--fail-above", "nan"], measured(STEADY), "--fail-above must be at least 1, got nan"),
        (
            ["--compare", "OLD", "--fail-above", 1.1],
            measured(STEADY),
            "--fail-above needs 3 processes or more of each side, then and now",
        ),
        (
            ["--compare", "OLD", "--fail-above", 1.1, "--processes", 3],
            measured(STEADY, processes=2),
            "old.json has 2, this run 3; --processes 3 --save FILE measures so, and --compare takes several files",
        ),
        (["--compare", "OLD", "--threads", 1], measured(STEADY), "(threads: 2 there, 1 here)"),
        (["--compare", "OLD"], measured(STEADY, case="other"), "old.json has no case of this run"),
        (["--compare", "OLD"], None, "old.json cannot be read: No such file or directory"),
        (["--picture", "x.gif"], None, "a picture's name must end in .png, .svg, .pdf, got x.gif"),
        (["--picture", "no/such/x.png"], None, "--picture: there is no folder no"),
    ],
)
def test_what_cannot_be_compared_ends_with_2_before_anything_is_measured(bench, arguments, older, said):
    code, out, err = bench(*(bench.old if word == "OLD" else word for word in arguments), older=older)
    assert (code, out) == (2, "")
    assert said in err


def test_a_file_that_is_no_result_is_refused(bench, tmp_path):
    bench.old.write_text(json.dumps({"schema": 0}))
    code, _, err = bench("--compare", bench.old)
    assert code == 2
    assert "old.json is not a result of this version's benchmarks" in err


def test_the_picture_is_drawn(bench, tmp_path):
    pytest.importorskip("matplotlib")
    for name, start in (("x.png", b"\x89PNG"), ("x.svg", b"<?xml"), ("x.pdf", b"%PDF")):
        code, out, _ = bench("--picture", tmp_path / name, runs=[measured(STEADY)])
        assert code == 0
        assert out.endswith(f"drawn in {tmp_path / name}\n")
        assert (tmp_path / name).read_bytes().startswith(start)


def test_a_picture_of_no_peer_is_not_drawn(bench, tmp_path):
    alone = measured(STEADY)
    alone.rows[0].entries.pop()
    _, out, _ = bench("--picture", tmp_path / "x.png", runs=[alone])
    assert "is not drawn: no peer was measured beside gpuconv" in out
    assert not (tmp_path / "x.png").exists()


def test_sentences_fit_the_terminal(monkeypatch):
    watch = run._Watch(run.Display(), MACHINE, harness.Settings(), [], [])
    assert watch.wrapped("a " * 60, "", "b") == "a " * 60 + "\n\nb"
    monkeypatch.setattr(run.Display, "width", 20)
    assert watch.wrapped("a " * 12, "b").splitlines() == ["a a a a a a a a a a", "  a a", "b"]
