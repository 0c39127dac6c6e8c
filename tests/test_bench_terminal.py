"""What `gpuconv bench` shows while it runs: a table that fits, a bar or plain lines, warnings of a machine that is not quiet."""

import io
import json

import pytest
from rich.cells import cell_len
from rich.console import Console

from bench import display, quiet, results
from bench.cases import SETS, Case
from bench.results import ONE_THREAD, OURS, Entry, Result, Row
from bench.terminal import Table

CASES = [Case("conv a", "conv", (4, 3, 8, 8), (5, 3, 3, 3)), Case("train b", "train_step", (128, 3, 32, 32))]
PEERS = ("torch", "gpuconv-numpy")


def entry(side, layout, *ms, **rest):
    return Entry(side, layout, times={"ms": list(ms), **rest.pop("times", {})}, **rest)


@pytest.fixture
def row():
    found = Row("conv a", "conv", "forward", "float32", 4, 2_000_000, 1_000_000)
    found.entries = [
        entry(OURS, "NCHW", 4.0, 4.0, 8.0, error=2e-7, extra_bytes=1_500_000, times={ONE_THREAD: [3.0]}),
        entry(OURS, "NHWC", 2.0, 2.0, 2.0, error=3e-7, extra_bytes=0),
        entry("torch", "NCHW", 1.0, 1.0, 1.0, error=1e-7, times={ONE_THREAD: [2.0]}),
        Entry("torch", "NHWC", "wrong", "dx off by 1.0e+00", error=1.0),
        entry("gpuconv-numpy", "NCHW", 20.0, 20.0, 20.0, error=1e-7),
        Entry("gpuconv-numpy", "NHWC", "not offered", "knows NCHW only"),
    ]
    return found


def test_where_it_fits_a_row_is_a_line_for_each_format(row):
    table = Table(CASES, PEERS, ["float32"])
    nchw, nhwc = table.lines(row)
    assert nchw.split() == [
        *("conv", "a", "forward", "NCHW", "4.000", "0.5", "GFLOP/s", "2e-07", "1.5"),
        *("1.000", "4.00", "(4.00-8.00)", "20.000", "0.20", "(0.20-0.40)"),
    ]
    assert nhwc.split()[-3:] == ["wrong", "not", "offered"]
    head = table.head()
    assert head.split()[:6] == ["case", "gpuconv", "ms", "rate", "error", "MB"]
    for title, cell in (
        ("gpuconv ms", "4.000"),
        ("rate", "GFLOP/s"),
        ("torch ms", " 1.000"),
        ("gpuconv-numpy ms", "20.000"),
    ):
        assert head.index(title) + len(title) == nchw.index(cell) + len(cell)
    assert nchw.index(" 4.00 (") + 1 == head.index("ratio (spread)") + 1


def test_a_column_that_tells_nothing_apart_is_left_out(row):
    assert "float32" not in Table(CASES, PEERS, ["float32"]).lines(row)[0]
    several = Table(CASES, PEERS, ["float32", "float16"])
    assert several.lines(row)[0].split()[:3] == ["conv", "a", "float32"]
    assert several.head().split()[:2] == ["case", "regime"]
    assert several.head().index("gpuconv ms") == Table(CASES, PEERS, ["float32"]).head().index("gpuconv ms") + 9


@pytest.mark.parametrize("width", [None, 80])
def test_memory_that_is_not_measured_has_no_column(row, width):
    with_it, without = (Table(CASES, PEERS, ["float32"], width=width, memory=memory) for memory in (True, False))
    for row.direction in ("forward", "backward"):
        lines = ["\n".join([table.head(), *table.lines(row)]) for table in (with_it, without)]
        assert "1.5" in lines[0]
        assert "1.5" not in lines[1]
    assert "wrong" in lines[1]
    row.entries[0] = Entry(OURS, "NCHW", "failed", "its process ended with status -9")
    if width is None:
        line, head = without.lines(row)[0], without.head()
        assert line.index("failed") + len("failed") == head.index("error") + len("error")


def test_one_thread_has_a_column(row):
    table = Table(CASES, PEERS, ["float32"], one_thread=True)
    nchw, _ = table.lines(row)
    assert nchw.split()[-8:] == ["1.000", "4.00", "(4.00-8.00)", "1.50", "20.000", "0.20", "(0.20-0.40)", "-"]
    assert table.head().count("1 thread") == 2
    assert nchw.index("1.50") + 4 == table.head().index("1 thread") + 8


def test_rows_that_do_not_fit_are_stacked_below_their_case(row):
    table = Table(CASES, PEERS, ["float32"], width=80, one_thread=True)
    assert table.head() == ""
    lines = table.lines(row)
    assert lines[:2] == ["", "conv a"]
    assert [line.split() for line in lines[3:]] == [
        ["forward", "NCHW", OURS, "4.000", "0.5", "GFLOP/s", "2e-07", "1.5"],
        ["torch", "1.000", "4.00", "(4.00-8.00)", "one", "thread", "1.50"],
        ["gpuconv-numpy", "20.000", "0.20", "(0.20-0.40)", "one", "thread", "-"],
        ["NHWC", OURS, "2.000", "1.0", "GFLOP/s", "3e-07", "0.0"],
        ["torch", "wrong"],
        ["gpuconv-numpy", "not", "offered"],
    ]
    row.direction = "backward"
    assert table.lines(row)[0].split()[0] == "backward"  # the case is named once


@pytest.mark.parametrize("width", [80, 100, 140, 200])
@pytest.mark.parametrize("peers", [(), ("torch",), ("torch", "gpuconv-numpy"), ("torch", "torch-compile", "course")])
@pytest.mark.parametrize("one_thread", [False, True])
def test_no_line_is_wider_than_the_terminal(width, peers, one_thread):
    cases = SETS["all"] if "all" in SETS else [case for chosen in SETS.values() for case in chosen]
    table = Table(cases, peers, ["float32", "tf32", "float16"], width=width, one_thread=one_thread)
    longest = max((case.name for case in cases), key=len)
    found = Row(longest, "train_step", "backward", "float32", 4_000_000, 2_000_000, 1_000_000)
    times = {ONE_THREAD: [999.99]}
    found.entries = [
        entry(side, layout, 99_999.999, 9_999.999, error=1e-7, extra_bytes=99_999_000_000, times=times)
        for layout in ("NCHW", "NHWC")
        for side in (OURS, *peers)
    ]
    found.entries[0].times["ms"] = [9_999.0, 99_999.0]
    lines = [table.head(), *table.lines(found)]
    assert max(map(cell_len, lines)) <= width
    assert any("thread" in line for line in lines) is (one_thread and bool(peers))


# While it goes on ---------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set."""
    now = [0.0]
    monkeypatch.setattr(display.time, "perf_counter", lambda: now[0])
    return now


def test_where_there_is_no_terminal_lines_say_how_far_it_is_when_it_has_been_quiet(capsys, clock):
    shown = display.display()
    assert type(shown) is display.Display
    assert shown.width is None
    with shown:
        shown.begin(3)
        shown.case("conv a")
        clock[0] = 29.0
        shown.doing("timing forward")
        shown.end_case()
        shown.case("conv b")
        assert capsys.readouterr().out == ""
        clock[0] = 40.0
        shown.end_case()
        shown.case("conv c")
        assert capsys.readouterr().out == "(case 3 of 3, about 20 s left: conv c)\n"
        shown.say("a row")
        clock[0] = 69.0
        shown.case("conv d")
        assert capsys.readouterr().out == "a row\n"


def test_in_a_terminal_a_bar_says_how_far_it_is(clock):
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=True, width=80, highlight=False, soft_wrap=True, _environ={"TERM": "xterm"}
    )
    shown = display.Bar(console)
    assert shown.width == 80
    with shown:
        shown.begin(4)
        shown.case("conv a")
        assert "case 1 of 4, time left not known yet: conv a" in _text(shown)
        clock[0] = 60.0
        shown.end_case()
        shown.case("a case whose name is longer than what is left of the line in a terminal of 80 columns")
        shown.doing("timing forward")
        assert _text(shown).startswith("case 2 of 4, about 3 min 0 s left: timing forward, a case")
        shown.say("a row")
        (line,) = _drawn(shown)
        assert cell_len(line) <= 80
        for _ in range(3):
            shown.end_case()
        assert _text(shown) == "measuring peaks once more"
    assert shown._bar is None
    assert "a row" in out.getvalue()


def _text(shown):
    return shown._bar.tasks[0].description


def _drawn(shown):
    console = Console(file=io.StringIO(), width=80)
    console.print(shown._bar.get_renderable())
    return console.file.getvalue().splitlines()


# A machine that is not as it was ------------------------------------------------------------------------------------


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """Write results that seem to have been committed."""
    monkeypatch.setattr(quiet, "RESULTS", tmp_path)

    def write(name, date, peak, **machine):
        where = {"processor": "Abacus", "threads": 2, "date": date, **machine}
        (tmp_path / name).write_text(Result(where, {}, {"GFLOP/s float32": peak}, {}, []).to_json())

    return write


def test_a_peak_far_below_the_last_one_of_the_same_machine_is_pointed_out(committed, tmp_path):
    machine = {"processor": "Abacus", "threads": 2}
    assert quiet.low_peaks(machine, {"GFLOP/s float32": 1.0}) == ""
    committed("old.json", "2026-01-01", 1000.0)
    committed("new.json", "2026-02-01", 100.0)
    committed("other.json", "2026-03-01", 1000.0, processor="Slide rule")
    committed("wider.json", "2026-03-01", 1000.0, loops="512-bit vectors")
    (tmp_path / "training.json").write_text(json.dumps({"test_accuracy": 1}))
    assert quiet.low_peaks(machine, {"GFLOP/s float32": 50.0, "GB/s": 0.1}) == ""
    assert quiet.low_peaks(machine, {"GFLOP/s float32": 49.0}) == (
        "warning: peaks far below those of new.json: 49 GFLOP/s float32 (100 there): "
        "the machine is busy, or slower than it was"
    )


def test_all_committed_results_can_be_asked_for_their_peaks():
    newest = max(quiet.RESULTS.glob("operators-cpu-*-1.json"))
    result = results.read(newest)
    said = quiet.low_peaks(result.machine, dict.fromkeys(result.peaks, 0.001))
    assert said.startswith("warning: peaks far below those of ")
