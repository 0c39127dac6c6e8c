"""bench/results.py, tables.py, report.py, picture.py and the command: what is said of a run."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from bench import cases, harness, load, peers, quiet, readme, report, results, run, tables
from bench import conftest as bench_options
from bench.results import ONE_THREAD, OURS, Entry, Ratio, Result, Row
from gpuconv import cli
from gpuconv.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]


def entry(side, layout, *ms, **rest):
    return Entry(side, layout, times={"ms": list(ms)}, **rest)


@pytest.fixture
def result():
    """Two cases: a convolution beside two peers, one of them wrong backward, and a step of training."""
    forward = Row("conv a", "conv", "forward", "float32", 4, 2_000_000, 1_000_000)
    forward.entries = [
        entry(OURS, "NCHW", 4.0, 4.0, 8.0, error=2e-7, extra_bytes=1_500_000),
        entry(OURS, "NHWC", 2.0, 2.0, 2.0, error=3e-7, extra_bytes=0),
        entry("torch", "NCHW", 1.0, 1.0, 1.0, error=1e-7),
        entry("torch", "NHWC", 4.0, 5.0, 4.0, error=1e-7),
        entry("course", "NCHW", 20.0, 20.0, 20.0, error=1e-7),
        Entry("course", "NHWC", "not offered", "knows NCHW only"),
    ]
    backward = Row("conv a", "conv", "backward", "float32", 4, 4_000_000, 2_000_000)
    backward.entries = [
        entry(OURS, "NCHW", 6.0, 6.0, 6.0, error=2e-7),
        entry(OURS, "NHWC", 9.0, 9.0, 9.0, error=2e-7),
        Entry("torch", "NCHW", "wrong", "dx off by 1.0e+00", error=1.0),
        entry("torch", "NHWC", 3.0, 3.0, 3.0, error=1e-7),
        entry("course", "NCHW", 6.0, 6.0, 6.0),
        Entry("course", "NHWC", "not offered", "knows NCHW only"),
    ]
    step = Row("train b", "train_step", "step", "float32", 128, 0, 0)
    step.entries = [entry(OURS, "NCHW", 64.0, 64.0, 64.0), entry("torch", "NCHW", 32.0, 32.0, 32.0)]
    sides = {
        name: {"label": label, "version": "1.0", "status": "measured", "why": ""}
        for name, label in ((OURS, "gpuconv"), ("torch", "PyTorch"), ("course", "course im2col"))
    }
    sides["jax"] = {"label": "JAX", "version": "", "status": "not installed", "why": "no package jax, jaxlib"}
    machine = {"processor": "Abacus", "cores": 2, "threads": 2, "numpy": "2.0", "date": "2026-01-02"}
    peaks = {"GFLOP/s float32": 2.0, "GB/s": 2.0}
    return Result(machine, {"set": "readme"}, peaks, sides, [forward, backward, step])


def test_ratios_are_those_of_medians_with_the_spread_of_rounds(result):
    forward = result.rows[0]
    assert forward.ratio("torch", "NCHW") == Ratio(4.0, 4.0, 8.0)
    assert forward.ratio("torch", "NHWC") == Ratio(0.5, 0.4, 0.5)
    assert forward.ratio("torch") == Ratio(2.0, 2.0, 2.0)  # NHWC against NCHW
    assert forward.ratio("course", "NHWC") is None
    assert result.rows[1].ratio("torch") == Ratio(2.0, 2.0, 2.0)
    many = Row(
        "", "relu", "forward", "float32", 1, 0, 1, [entry(OURS, "NCHW", *range(1, 21)), entry("t", "NCHW", *[1] * 20)]
    )
    assert many.ratio("t") == Ratio(10.5, 3.0, 18.0)  # two of twenty rounds lie outside on either side


def test_summaries_are_geometric_means_and_worsts(result):
    torch = result.summary("torch", "float32")
    assert torch.rows == 3
    assert torch.best_mean == pytest.approx(2.0)
    assert torch.best_worst == 2.0
    assert torch.same_mean == pytest.approx((4.0 * 0.5 * 3.0 * 2.0) ** 0.25)
    assert (torch.same_least, torch.same_worst) == (0.5, 4.0)
    assert result.summary("jax", "float32") is None
    assert result.summary("torch", "float16") is None
    assert result.peers() == ["torch", "course"]


def test_rates_and_shares_of_the_peaks(result):
    forward, _, step = result.rows
    assert forward.rate(2.0) == (1.0, "GFLOP/s")
    assert step.rate(64.0) == (2000.0, "images/s")
    assert Row("", "relu", "forward", "float32", 1, 0, 3_000_000).rate(1.0) == (3.0, "GB/s")
    assert result.share(forward, 2.0) == pytest.approx(0.5)  # 1 ms to multiply, 0.5 to move
    assert result.share(step, 64.0) is None
    result.peaks = {"GB/s": 2.0}
    assert result.share(forward, 2.0) is None


def test_json_keeps_everything(result, tmp_path):
    path = tmp_path / "kept.json"
    path.write_text(result.to_json())
    assert results.read(path) == result


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda values: values.update(schema=0), "not a result of this version's benchmarks"),
        (lambda values: values.pop("rows"), "is not a benchmark result: 'rows'"),
        (lambda values: values.update(other=1), "unexpected keyword argument 'other'"),
        (lambda values: values["rows"][0]["entries"][0].update(status="fast"), "gpuconv is 'fast' with times"),
        (lambda values: values["rows"][0]["entries"][0].update(times={}), "gpuconv is 'measured' with times {}"),
        (lambda values: values["rows"][1]["entries"][2].update(times={"ms": [1]}), "torch is 'wrong' with times"),
    ],
)
def test_other_json_is_refused(result, change, said):
    values = json.loads(result.to_json())
    change(values)
    with pytest.raises(ConfigError, match=said):
        results.from_json(json.dumps(values))


def test_what_is_no_json_is_refused():
    with pytest.raises(ConfigError, match=r"x\.json is not a benchmark result"):
        results.from_json("[]", "x.json")
    with pytest.raises(ConfigError, match="the file is not a benchmark result"):
        results.from_json("<html>")


def test_facts_name_what_a_table_leaves_out(result):
    said = "\n".join(tables.facts(result))
    assert "JAX: not installed: no package jax, jaxlib" in said
    assert "wrong: PyTorch, conv a backward, NCHW, float32: dx off by 1.0e+00" in said
    assert "best format against best format 2.00 in geometric mean, worst 2.00" in said


def test_the_table_of_the_benchmarks_page_shows_best_formats(result):
    table = tables.best_table(result).splitlines()
    assert table[0].startswith("Abacus, 2 threads, NumPy 2.0, PyTorch 1.0, course im2col 1.0, 2026-01-02; float32.")
    assert (
        "| conv a | 2.00 / 6.00 | 1 / 1 GFLOP/s | 50% / 33% | 1.00 / 3.00 | 2.00 / 2.00 | 20.00 / 6.00 | 0.10 / 1.00 |"
        in table
    )
    assert "| train b | 64.00 | 2000 images/s |  | 32.00 | 2.00 |  |  |" in table


def test_the_readme_s_table_has_one_peer_and_the_mean_over_all_cases(result):
    text = tables.short_table(result, "torch", ["train b", "no such case"])
    assert text.splitlines() == [
        "| forward / backward | gpuconv, ms | PyTorch, ms | ratio |",
        "| --- | ---: | ---: | ---: |",
        "| train b | 64.00 | 32.00 | 2.00 |",
        "",
        "float32, Abacus, 2 threads, PyTorch 1.0, 2026-01-02.  Geometric mean of the ratios of all 2 cases: 2.00, worst 2.00.",
    ]
    assert "| conv a | 2.00 / 6.00 | 1.00 / 3.00 | 2.00 / 2.00 |" in tables.short_table(result, "torch", [])


def test_the_full_table_has_every_format_and_peer(result):
    text = tables.full_table(result)
    rows = [line for line in text.splitlines() if line.startswith(("| conv", "| train"))]
    assert len(rows) == 5
    assert {line.count(" | ") for line in rows} == {8 + 3 * 3}
    assert "| 0.50 (0.40-0.50) |" in text
    assert "| wrong |" in text


# One thread, several runs, noise --------------------------------------------------------------------------------------


@pytest.fixture
def alone(result):
    """The same with processor times of one thread of the convolution: forward twice as fast as PyTorch, backward even."""
    times = {
        (OURS, "NCHW"): (9.0, 8.0),
        (OURS, "NHWC"): (3.0, 12.0),
        ("torch", "NCHW"): (6.0,),
        ("torch", "NHWC"): (7.0, 8.0),
    }
    for row, place in zip(result.rows[:2], (0, -1), strict=True):
        for one in row.entries:
            if (one.side, one.layout) in times and one.measured:
                ms = times[one.side, one.layout][place]
                one.times[ONE_THREAD] = [ms + 5, ms, ms + 1, ms + 2, ms - 0.5]
    return result


def test_one_thread_is_the_lower_quartile_of_the_better_format(alone):
    forward, backward, step = alone.rows
    assert forward.entry(OURS, "NHWC").one_thread_ms == 3.0  # not the least, 2.5
    assert [results.lower_quartile(times) for times in ([4.0, 2.0, 3.0], [5.0, 2.0, 3.0, 4.0])] == [2.0, 3.0]
    assert forward.one_thread_ratio("torch") == 0.5
    assert forward.one_thread_ratio("torch", "NCHW") == 1.5
    assert backward.one_thread_ratio("torch") == 1.0
    assert backward.one_thread_ratio("torch", "NCHW") is None  # wrong
    assert step.one_thread_ratio("torch") is None
    assert forward.one_thread_ratio("course") is None
    assert alone.summary("torch", "float32").one_thread == pytest.approx(0.5**0.5)
    assert alone.summary("course", "float32").one_thread is None


def test_a_mean_without_a_case_leaves_out_its_rows(alone):
    rest = alone.summary("torch", "float32", without="conv a")
    assert (rest.rows, rest.best_mean, rest.one_thread) == (1, 2.0, None)
    assert alone.summary("torch", "float32", without="train b").rows == 2


def test_tables_say_which_ratio_is_which(alone):
    table = tables.best_table(alone, apart="train b").splitlines()
    assert table[0].endswith(
        "Times are wall time; the ratios of one thread are of processor time.  Forward / backward, each side in the "
        "better of its two memory formats:"
    )
    assert "| PyTorch, ms | ratio, 2 threads | ratio, one thread | course im2col, ms | ratio, 2 threads |" in table[2]
    (line,) = (line for line in table if line.startswith("| conv a"))
    assert "| 1.00 / 3.00 | 2.00 / 2.00 | 0.50 / 1.00 | 20.00 / 6.00 | 0.10 / 1.00 |  |" in line
    assert table[-2].endswith(
        "; processor time of one thread 0.71.  Without train b: geometric mean 2.00; processor time of one thread 0.71."
    )
    full = tables.full_table(alone)
    titles, _, first, *_ = [line for line in full.splitlines() if line.startswith("|")]
    assert titles.count("one thread, ms") == 1 + 3
    assert titles.count(" | ") == first.count(" | ") == 8 + 1 + 3 * 5
    assert first.endswith(
        "| 9.000 | 1.000 | 4.00 (4.00-8.00) | 1e-07 | 6.000 | 1.50 | 20.000 | 0.20 (0.20-0.40) | 1e-07 |  |  | - |  |  |  |  |"
    )
    facts = "\n".join(tables.facts(alone))
    assert "times and ratios are of wall time, 2 threads; those of one thread are of processor time" in facts
    assert "worst 2.00; format by format 1.86, from 0.50 to 4.00; processor time of one thread 0.71" in facts


def test_other_work_is_said_where_it_is_much(result):
    assert quiet.before(None) == quiet.before(0.19) == ""
    assert quiet.before(0.2) == "warning: other work keeps 0.2 cores busy: times show form, not speed"
    assert quiet.after(result.machine) == quiet.after(result.machine | {"other_work": 0.19}) == ""
    assert quiet.after(result.machine | {"other_work": 1.5}) == (
        "warning: other work kept 1.5 of 2 cores busy while this was measured: times show form, not speed"
    )
    for cores, said in ((None, False), (0.1, False), (1.25, True)):
        result.machine["other_work"] = cores
        assert ("2026-01-02, beside other work on 1.2 cores" in tables.setting(result)) is said
        facts = tables.facts(result)
        assert (f"other work while this was measured: {cores or 0:.1f} of 2 cores" in facts) is (cores is not None)


def several(result, times):
    """Return runs of a result, in which all times are so many times as long."""
    runs = []
    for number, factor in enumerate(times):
        run = results.from_json(result.to_json())
        for row in run.rows:
            for one in row.entries:
                one.times = {name: [factor * ms for ms in each] for name, each in one.times.items()}
                if number:
                    one.times.pop(ONE_THREAD, None)
        runs.append(run)
    return runs


def test_the_middle_of_several_runs_is_the_median_of_their_medians(alone):
    runs = several(alone, (1.0, 7.0, 2.0))
    runs[1].machine["other_work"], runs[2].peaks["GB/s"] = 0.7, 9.0
    for one in runs[2].rows[0].entries:
        if one.side == OURS:
            one.times["ms"] = [3 * ms for ms in one.times["ms"]]
    middle = results.middle(runs)
    assert (middle.machine["runs"], middle.machine["other_work"], middle.peaks["GB/s"]) == (3, 0.7, 9.0)
    forward, backward, _ = middle.rows
    assert forward.entry(OURS, "NHWC").times == {"ms": [2.0, 14.0, 12.0], ONE_THREAD: [8.0, 3.0, 4.0, 5.0, 2.5]}
    assert forward.ratio("torch") == Ratio(12.0 / 2.0, 2.0, 6.0)
    assert forward.one_thread_ratio("torch") == 0.5
    assert backward.entry("torch", "NCHW").status == "wrong"
    assert "2026-01-02, medians of 3 runs" in tables.setting(middle)
    assert "| ratio (least to largest of the runs) |" in tables.full_table(middle)
    assert results.from_json(middle.to_json()) == middle
    assert results.middle(runs[:1]) is runs[0]


def test_what_was_not_measured_in_one_run_is_not_in_their_middle(result):
    runs = several(result, (1.0, 1.0, 1.0))
    runs[1].rows[0].entries[2] = Entry("torch", "NCHW", "failed", "its process ended with status -9")
    one = results.middle(runs).rows[0].entry("torch", "NCHW")
    assert (one.status, one.times) == ("failed", {})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: run.machine.update(processor="Slide rule"), "differ in processor: 'Abacus' and 'Slide rule'"),
        (lambda run: run.machine.update(threads=1), "differ in threads: 2 and 1"),
        (lambda run: run.sides["torch"].update(version="2.0"), "differ in their sides"),
        (lambda run: run.rows.pop(), "differ in their cases"),
        (lambda run: run.rows[0].entries.pop(), "differ in their cases"),
    ],
)
def test_runs_of_different_things_are_no_table(result, change, said):
    runs = several(result, (1.0, 1.0))
    change(runs[1])
    with pytest.raises(ConfigError, match=said):
        results.middle(runs)


def test_noise_is_how_far_lower_quartiles_of_the_same_thing_differ(result):
    assert result.noise() is None
    assert tables.noise(result) == ""
    row = Row("a", "relu", "forward", "float32", 1, 0, 1)
    row.entries = [
        *(entry(OURS, layout, 1.0, 9.0, 9.0) for layout in "abcdefghij"),
        *(entry("self", layout, 1.0, 1.0, 1.0) for layout in "abcdefgh"),
        *(entry("self", layout, 8.0, 1.25, 7.0) for layout in "i"),
        *(entry("self", layout, 2.0, 2.0, 2.0) for layout in "j"),
    ]
    result.rows, result.settings["rounds"] = [row], 3
    noise = result.noise()
    assert (noise.mean, noise.nine_of_ten, noise.largest) == (pytest.approx(0.4**0.1), 0.25, 1.0)
    result.sides["self"] = result.sides[OURS] | {"label": "gpuconv again"}
    assert (
        "gpuconv beside itself, lower quartiles of 3 rounds, format by format: geometric mean 0.91, nine of ten ratios "
        "within 25% of 1, all within 100%"
    ) in tables.facts(result)


@pytest.fixture
def folder(result, tmp_path, monkeypatch):
    """A checkout with its pages of tables, runs of training, and two results, of which the second is newer."""
    kept = tmp_path / "bench" / "results"
    kept.mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    for page in ("README.md", "docs/benchmarks.md"):
        shutil.copy(ROOT / page, tmp_path / page)
    for path in (ROOT / "bench" / "results").glob("train-*.json"):
        shutil.copy(path, kept)
    (kept / "operators-cpu-2026-01-02.json").write_text(result.to_json())
    result.machine["processor"] = "Slide rule"
    (kept / "operators-cpu-2026-01-03.json").write_text(result.to_json())
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "RESULTS", kept)
    return tmp_path


def test_the_report_writes_tables_and_pictures_and_then_has_nothing_to_say(folder, capsys):
    pytest.importorskip("matplotlib")
    assert report.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "bench/results/operators-cpu-2026-01-03.md" in said
    assert said.endswith(": stale, run python -m bench.report\n")
    assert report.main([]) == 0
    readme, page = ((folder / name).read_text() for name in ("README.md", "docs/benchmarks.md"))
    for text in (readme, page):
        assert "Slide rule" in text
        assert "Abacus" not in text
    assert "(../bench/results/operators-cpu-2026-01-03.png)" in page
    assert report.main(["--check"]) == 0
    (folder / "README.md").write_text(readme.replace("64.00", "63.00"))
    assert report.main(["--check"]) == 1
    assert capsys.readouterr().err == "README.md: stale, run python -m bench.report\n"
    picture = folder / "bench" / "results" / "operators-cpu-2026-01-03.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_runs_of_one_table_are_shown_as_one(folder, alone, capsys):
    kept = folder / "bench" / "results"
    alone.rows[0].case = alone.rows[1].case = report._SLOW_IN_PYTORCH
    names = [f"operators-cpu-2026-01-04-{number}" for number in (1, 2, 3)]
    for name, run_ in zip(names, several(alone, (1.0, 3.0, 2.0)), strict=True):
        (kept / f"{name}.json").write_text(run_.to_json())
    assert report.groups()["operators-cpu-2026-01-04"] == [kept / f"{name}.json" for name in names]
    assert kept / "operators-cpu-2026-01-04.md" in report.texts()
    text = report.texts()[folder / "docs/benchmarks.md"]
    assert "(../bench/results/operators-cpu-2026-01-04.md)" in text
    assert "2026-01-02, medians of 3 runs; float32." in text
    assert "Without conv three-layer 3x3, 3->64, 32x32: geometric mean 2.00." in text
    assert "Whole steps" not in text
    assert "Noise" not in text
    alone.settings["rounds"] = 8
    alone.rows = alone.rows[-1:]
    (kept / "steps-cpu-2026-01-04.json").write_text(alone.to_json())
    alone.rows[0].entries[1].side = "self"
    (kept / "aa-cpu-2026-01-04.json").write_text(alone.to_json())
    assert report.main([str(kept / f"{name}.json") for name in names]) == 0
    printed, _ = capsys.readouterr()
    assert printed.rstrip() in report.texts()[folder / "docs/benchmarks.md"]
    assert "float32.  Whole steps, each side in the better of its two memory formats:" in printed
    assert printed.endswith("Noise: " + tables.noise(results.read(kept / "aa-cpu-2026-01-04.json")) + ".\n")


def test_what_is_no_table_cannot_be_printed(folder, capsys):
    kept = folder / "bench" / "results"
    files = [str(kept / f"operators-cpu-2026-01-0{day}.json") for day in (2, 3)]
    assert report.main(files) == 2
    assert "runs of one table differ in processor" in capsys.readouterr().err
    assert report.main([str(kept / "nothing.json")]) == 2
    assert "nothing.json" in capsys.readouterr().err


def test_the_committed_tables_are_those_of_the_committed_results():
    assert report.stale() == []
    for name in report.groups():
        assert (report.RESULTS / f"{name}.png").exists()


def test_a_picture_has_a_panel_for_each_peer_and_a_dot_for_each_ratio(result, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from bench import picture

    drawn = []
    monkeypatch.setattr(picture.Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    result.machine["processor"] = "Abacus " * 30
    picture.draw(result, tmp_path / "x.png")
    (figure,) = drawn
    assert [panel.get_title() for panel in figure.axes] == ["gpuconv / PyTorch", "gpuconv / course im2col"]
    assert all(panel.get_xscale() == "log" for panel in figure.axes)
    assert max(map(len, figure.get_supxlabel().splitlines())) <= 15 * figure.get_figwidth()  # at 7 points
    dots = {marks.get_label(): list(marks.lines[0].get_xdata()) for marks in figure.axes[0].containers}
    assert dots == {"forward": [2.0], "backward": [2.0], "step": [2.0]}
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["conv a", "train b"]
    result.rows.clear()
    picture.draw(result, tmp_path / "x.png")
    assert len(drawn) == 1


def test_a_picture_shows_one_thread_by_hollow_marks(alone, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from bench import picture

    drawn = []
    monkeypatch.setattr(picture.Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    picture.draw(alone, tmp_path / "x.png")
    first, second = drawn[0].axes
    hollow = {line.get_label(): list(line.get_xdata()) for line in first.lines if line.get_markerfacecolor() == "none"}
    assert hollow == {"forward, one thread": [0.5], "backward, one thread": [1.0]}
    assert not [line for line in second.lines if line.get_markerfacecolor() == "none"]


# The command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(capsys, monkeypatch):
    """Run `gpuconv bench`; return (exit code, stdout, stderr)."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(load, "look", lambda: None)

    def run(*arguments):
        code = cli.main(["bench", *map(str, arguments)])
        return (code, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "fast"], "there is no set 'fast': choose one of readme, course"),
        (
            ["--ops", "conv,pool"],
            f"there is no operator 'pool' among the cases: choose from {', '.join(cases.OPS)}",
        ),
        (["--only", "99x99"], "the set readme has no case of any operator with '99x99' in its name"),
        (["--peers", "torch,tf"], "there is no peer 'tf': choose from self, torch"),
        (["--peers", "cupy-im2col"], "the peer cupy-im2col runs on cuda, not on cpu"),
        (["--regimes", "bf16"], "there is no regime 'bf16': choose from float32, tf32, float16"),
        (["--threads", "0"], "threads must be from 1 to "),
        (["--threads", "100000"], "threads must be from 1 to "),
        (["--rounds", "1"], "rounds must be at least 2, so that both orders occur, got 1"),
        (["--save", "no/such/folder/x.json"], "--save: there is no folder no/such/folder"),
        (["--device", "tpu"], "argument --device: invalid choice: 'tpu'"),
    ],
)
def test_what_cannot_be_used_ends_with_2(bench, arguments, said):
    code, out, err = bench(*arguments)
    assert code == 2
    assert out == ""
    assert said in err


def test_a_gpu_that_is_not_there_ends_with_1(bench, monkeypatch):
    from gpuconv.cuda import device

    monkeypatch.setattr(device, "gpu_status", lambda: (False, "CuPy is not installed"))
    code, _, err = bench("--device", "cuda")
    assert code == 1
    assert "CuPy is not installed" in err


def test_outside_a_checkout_it_says_where_the_benchmarks_are(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(cli.bench, "__file__", str(tmp_path / "gpuconv" / "cli" / "bench.py"))
    code, _, err = bench()
    assert code == 2
    assert err == (
        "gpuconv: error: gpuconv bench needs a checkout of the source: "
        "the folder bench/ is not part of the installed package\n"
    )


def test_the_list_shows_all_there_is(bench):
    code, out, _ = bench("--list")
    assert code == 0
    assert "conv three-layer 7x7, 3->32, 32x32" in out
    assert f"operators: {', '.join(cases.OPS)}" in out
    assert all(f"\n  {name} " in out for name in peers.MODULES if name != OURS)


def test_a_run_prints_its_table_and_keeps_its_json(bench, monkeypatch, tmp_path, result):
    given = {}

    def run(cases, names, settings, watch):
        given.update(cases=[case.name for case in cases], names=names, settings=settings)
        watch.peaks(result.peaks)
        for row in result.rows:
            watch.row(row)
        return result

    monkeypatch.setattr(harness, "run", run)
    kept = tmp_path / "kept.json"
    code, out, err = bench(
        *("--set", "quick", "--ops", "relu,gelu", "--peers", "torch", "--threads", 1, "--rounds", 3, "--no-memory"),
        *("--save", kept),
    )
    assert (code, err) == (0, "")
    assert given["cases"] == ["quick relu 8, 16x16", "quick gelu 8, 16x16"]
    assert given["names"] == ["torch"]
    assert given["settings"] == harness.Settings("cpu", 1, 3, memory=False)
    assert "conv a" in out
    assert out.endswith(f"kept in {kept}\n")
    assert results.read(kept).settings == {"set": "quick", "ops": ["relu", "gelu"], "only": ""}


def test_ctrl_c_keeps_what_was_measured_and_ends_with_130(bench, monkeypatch, tmp_path, result):
    def run(cases, names, settings, watch):
        watch.peaks(result.peaks)
        watch.row(result.rows[0])
        cut = dataclasses.replace(result, rows=result.rows[:1], settings=result.settings | {"cut_short_of": 2})
        raise harness.CutShort(cut)

    monkeypatch.setattr(harness, "run", run)
    kept, picture = tmp_path / "kept.json", tmp_path / "ratios.png"
    code, out, err = bench("--set", "quick", "--peers", "torch", "--save", kept, "--picture", picture)
    assert (code, err) == (130, "gpuconv: cut short: 1 of 2 cases measured\n")
    assert "cut short: 1 of 2 cases measured" in " ".join(out.split())
    assert out.endswith(f"kept in {kept}\n")
    found = results.read(kept)
    assert [row.case for row in found.rows] == [result.rows[0].case]
    assert tables.cut_short(found)
    assert tables.cut_short(found) in tables.setting(found)
    assert not picture.exists()


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX's")
def test_ctrl_c_of_a_terminal_ends_a_run_without_a_traceback(tmp_path):
    """All its processes get it, at once."""
    kept = tmp_path / "kept.json"
    command = [sys.executable, "-m", "gpuconv", "bench", "--set", "quick", "--ops", "relu,gelu,silu", "--peers", "self"]
    process = subprocess.Popen(
        [*command, "--no-memory", "--save", kept],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        cwd=ROOT,
    )
    with process:
        while "backward" not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate()
    found = results.read(kept)
    assert process.returncode == 130
    assert err == f"gpuconv: {tables.cut_short(found)}\n"
    assert found.rows[0].case == "quick relu 8, 16x16"


def test_a_run_beside_other_work_begins_with_a_warning(bench, monkeypatch, result, tmp_path):
    monkeypatch.setattr(load, "look", lambda: 1.5)
    monkeypatch.setattr(harness, "run", lambda *_: result)
    kept = tmp_path / "kept.json"
    code, out, err = bench("--set", "quick", "--peers", "torch", "--save", kept)
    assert (code, err) == (0, "")
    assert out.startswith("warning: other work keeps 1.5 cores busy: times show form, not speed\n")
    assert results.read(kept).machine["other_work_before"] == 1.5


def test_one_thread_is_of_the_cpu(monkeypatch):
    monkeypatch.setattr(run, "resolve_device", lambda device: device)
    with pytest.raises(ConfigError, match="processor time of one thread is of the CPU, not of cuda"):
        run.bench(device="cuda", one_thread=True)


def test_what_the_readme_shows_is_measured_in_parts(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(run, "bench", lambda **settings: asked.append(settings))
    assert readme.main(["--folder", str(tmp_path), "--threads", "2"]) == 0
    names = [settings["save"].name for settings in asked]
    date = names[0][len("operators-cpu-") : -len("-1.json")]
    assert names == [
        *(f"operators-cpu-{date}-{number}.json" for number in (1, 2, 3)),
        *(f"steps-cpu-{date}.json", f"aa-cpu-{date}.json"),
    ]
    assert [settings.get("one_thread", False) for settings in asked] == [True, False, False, False, False]
    assert [settings["peer_names"] for settings in asked] == [("torch", "gpuconv-numpy")] * 3 + [("torch",), ("self",)]
    assert {settings["save"].parent for settings in asked} == {tmp_path}
    assert {settings["threads"] for settings in asked} == {2}
    asked.clear()
    assert readme.main(["steps"]) == 0
    assert [settings["set_name"] for settings in asked] == ["steps"]
    assert asked[0]["save"].parent == report.RESULTS


def test_a_part_that_cannot_be_measured_ends_the_command(monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        readme.main(["everything"])
    assert end.value.code == 2
    assert "there is no part 'everything': choose from operators, steps, noise" in capsys.readouterr().err

    def fail(**settings):
        msg = "gpuconv itself: no memory"
        raise run.BenchError(msg)

    monkeypatch.setattr(run, "bench", fail)
    assert readme.main(["noise"]) == 1
    assert capsys.readouterr().err == "gpuconv itself: no memory\n"


def test_a_run_that_cannot_start_ends_with_1(bench, monkeypatch):
    def run(*_):
        raise harness.SideError(results.FAILED, "gpuconv itself: no memory")

    monkeypatch.setattr(harness, "run", run)
    code, _, err = bench("--set", "quick", "--peers", "torch")
    assert (code, err) == (1, "gpuconv: error: gpuconv itself: no memory\n")


def test_pytest_bench_runs_each_case_once():
    command = [sys.executable, "-m", "pytest", "bench", "-q", "-p", "no:cacheprovider", "--benchmark-disable"]
    chosen = ["--bench-ops", "relu", "--bench-peers", "course", "--bench-device", "cpu"]
    run = subprocess.run([*command, *chosen], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "6 passed, 2 skipped" in run.stdout  # the course knows one format


@pytest.mark.parametrize(
    ("asked", "prefixes"),
    [
        (["bench", "--benchmark-histogram"], [".benchmarks/picture"]),
        (["bench", "--benchmark-histogram=mine"], ["mine"]),
        (["bench"], []),
    ],
)
def test_pictures_of_pytest_bench_lie_in_a_folder_that_git_ignores(asked, prefixes):
    given = ["mine"] if "=mine" in asked[-1] else ["benchmark_today"] if len(asked) > 1 else []
    option = types.SimpleNamespace(benchmark_columns=[], benchmark_histogram=given)
    config = types.SimpleNamespace(option=option, invocation_params=types.SimpleNamespace(args=asked))
    bench_options.pytest_configure(config)
    assert option.benchmark_histogram == prefixes
    assert ".benchmarks/" in (ROOT / ".gitignore").read_text().splitlines()


def test_pytest_bench_refuses_a_set_that_is_not_there():
    """With pytest's own error for what was asked wrongly."""
    options = {"--bench-set": "fast", "--bench-ops": "", "--bench-peers": "", "--bench-device": "cpu"}
    asked = types.SimpleNamespace(fixturenames=["direction"], config=types.SimpleNamespace(getoption=options.get))
    with pytest.raises(pytest.UsageError, match="there is no set 'fast'"):
        bench_options.pytest_generate_tests(asked)
