"""Results as text: what is said below a table, and Markdown for the README and beside the JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpuconv.plural import counted

from . import load
from .results import FAILED, MEASURED, OURS, WRONG, Entry, Ratio, Result, Row, Summary


def facts(result: Result) -> list[str]:
    """Return what a table alone does not say: peaks, versions, what was not measured, and the summary."""
    found = ["measured peaks: " + ", ".join(f"{name} {value:.0f}" for name, value in result.peaks.items())]
    if said := cut_short(result):
        found.append(said)
    if "loops" in result.machine:
        found.append(f"passes over NumPy arrays: {result.machine['loops']}")
    if result.has_one_thread:
        found.append(
            f"times and ratios are of wall time, {counted(result.machine['threads'], 'thread')}; those of one thread are of "
            "processor time, the lower quartile of the rounds"
        )
    if (work := result.machine.get("other_work")) is not None:
        found.append(f"other work while this was measured: {work:.1f} of {result.machine['cores']} cores")
    for side in result.sides.values():
        state = side["version"] if side["status"] == MEASURED else f"{side['status']}: {side['why']}"
        found.append(f"{side['label']}: {state}")
    for row in result.rows:
        for entry in row.entries:
            if entry.status in (WRONG, FAILED):
                where = f"{row.case} {row.direction}, {entry.layout}, {row.regime}"
                found.append(f"{entry.status}: {result.label(entry.side)}, {where}: {entry.why}")
    return found + summaries(result)


def cut_short(result: Result) -> str:
    """Return how far a run came that Ctrl-C ended, or nothing of one that was not."""
    if (of := result.settings.get("cut_short_of")) is None:
        return ""
    done = len({(row.case, row.regime) for row in result.rows})
    return f"cut short: {done} of {counted(of, 'case')} measured"


def summaries(result: Result) -> list[str]:
    """Return a sentence for each peer and regime."""
    found = []
    if sentence := noise(result):
        found.append(sentence)
    for peer in result.peers():
        for regime in dict.fromkeys(row.regime for row in result.rows):
            if summary := result.summary(peer, regime):
                found.append(
                    f"gpuconv / {result.label(peer)}, {regime}, {summary.rows} rows: best format against best format "
                    f"{summary.best_mean:.2f} in geometric mean, worst {summary.best_worst:.2f}; format by format "
                    f"{summary.same_mean:.2f}, from {summary.same_least:.2f} to {summary.same_worst:.2f}"
                    + _one_thread(summary)
                )
    return found


def noise(result: Result) -> str:
    """Return how far gpuconv is from itself, or nothing where it was not measured twice."""
    away = result.noise()
    if away is None:
        return ""
    return (
        f"gpuconv beside itself, lower quartiles of {result.settings['rounds']} rounds, format by format: geometric mean "
        f"{away.mean:.2f}, nine of ten ratios within {away.nine_of_ten:.0%} of 1, all within {away.largest:.0%}"
    )


def word(entry: Entry | None) -> str:
    """Return what stands in the place of a time that there is not."""
    return "-" if entry is None else entry.status


def error(entry: Entry) -> str:
    """Return how far a side is from the oracle."""
    return "" if entry.error is None else f"{entry.error:.0e}"


def spread(ratio: Ratio) -> str:
    """Return the spread of a ratio, if it has one."""
    return "" if ratio.low == ratio.high else f"({ratio.low:.2f}-{ratio.high:.2f})"


# In Markdown --------------------------------------------------------------------------------------------------------


def setting(result: Result) -> str:
    """Return where and with what a result was measured."""
    machine = result.machine
    where = f"{machine['gpu']}, " if "gpu" in machine else ""
    versions = [f"{side['label']} {side['version']}" for name, side in result.sides.items() if name in result.peers()]
    loops = f"{machine['loops']}, " if "loops" in machine else ""  # older results were of NumPy alone
    work = machine.get("other_work") or 0.0
    cut = f", {said}" if (said := cut_short(result)) else ""
    busy = f", beside other work on {work:.1f} cores" if work >= load.NOTEWORTHY else ""
    runs = f", medians of {counted(machine['runs'], 'run')}" if "runs" in machine else ""
    return (
        f"{where}{machine['processor']}, {counted(machine['threads'], 'thread')}, NumPy {machine['numpy']}, {loops}"
        f"{', '.join(versions)}, {machine['date']}{runs}{cut}{busy}"
    )


def best_table(result: Result, regime: str = "float32", shown: Sequence[str] = (), apart: str = "") -> str:
    """Return the table of docs/benchmarks.md: a line a case, forward / backward, each side in the better of its memory formats.

    shown: the cases that have a line, all where none of them was measured; the means below are those of all cases.
    apart: a case without which the means are given, too.
    """
    peers = result.peers()
    with_peak = bool(result.peaks)
    titles = ["case", "gpuconv, ms", "rate", *(["of peak"] if with_peak else [])]
    alone = result.has_one_thread
    ratio_titles = (
        [f"ratio, {counted(result.machine['threads'], 'thread')}", "ratio, one thread"] if alone else ["ratio"]
    )
    for peer in peers:
        titles += [f"{result.label(peer)}, ms", *ratio_titles]
    table = [titles, ["---"] + ["---:"] * (len(titles) - 1)]
    cases: dict[str, list[Row]] = {}
    for row in result.rows:
        if row.regime == regime:
            cases.setdefault(row.case, []).append(row)
    named = [case for case in shown if case in cases] or list(cases)
    for case in named:
        rows = cases[case]
        ours = [row.entry(OURS) for row in rows]
        cells = [case, _each(ours, lambda row, entry: f"{entry.ms:.2f}", rows)]
        cells.append(f"{_each(ours, lambda row, entry: f'{row.rate(entry.ms)[0]:.0f}', rows)} {rows[0].rate(1.0)[1]}")
        if with_peak:
            cells.append(_each(ours, lambda row, entry: _share(result, row, entry), rows))
        for peer in peers:
            theirs = [row.entry(peer) for row in rows]
            cells.append(_each(theirs, lambda row, entry: f"{entry.ms:.2f}", rows))
            cells.append(_each(theirs, lambda row, entry: _ratio(row.ratio(entry.side)), rows))
            if alone:
                cells.append(_each(theirs, lambda row, entry: _number(row.one_thread_ratio(entry.side)), rows))
        table.append(cells)
    some = "" if len(named) == len(cases) else f"{len(named)} of {len(cases)} cases.  "
    directions = " / ".join(dict.fromkeys(row.direction for row in result.rows if row.direction != "step"))
    what = directions.capitalize() or "Whole steps"
    method = "  Times are wall time; the ratios of one thread are of processor time." if alone else ""
    text = [
        f"{setting(result)}; {regime}.{method}  {some}{what}, each side in the better of its two memory formats:",
        "",
        *(f"| {' | '.join(cells)} |" for cells in table),
        "",
    ]
    for peer in peers:
        if summary := result.summary(peer, regime):
            text.append(
                f"Against {result.label(peer)}: geometric mean of the ratios {summary.best_mean:.2f}, "
                f"worst {summary.best_worst:.2f}; format by format {summary.same_mean:.2f} and {summary.same_worst:.2f}"
                f"{_also(result, peer, regime, apart)}."
            )
    return "\n".join(text)


def short_table(result: Result, peer: str, shown: Sequence[str], regime: str = "float32") -> str:
    """Return the README's table: forward / backward of some cases beside one peer, and the mean over all of them."""
    table = [["forward / backward", "gpuconv, ms", f"{result.label(peer)}, ms", "ratio"], ["---"] + ["---:"] * 3]
    cases: dict[str, list[Row]] = {}
    for row in result.rows:
        if row.regime == regime and row.entry(OURS) and row.entry(peer):
            cases.setdefault(row.case, []).append(row)
    for case in [case for case in shown if case in cases] or list(cases):
        rows = cases[case]
        sides = [[row.entry(side) for row in rows] for side in (OURS, peer)]
        times = [_each(entries, lambda row, entry: f"{entry.ms:.2f}", rows) for entries in sides]
        table.append([case, *times, _each(sides[1], lambda row, entry: _ratio(row.ratio(entry.side)), rows)])
    machine, of_peer = result.machine, result.sides[peer]
    loops = f"{machine['loops']}, " if "loops" in machine else ""
    cases_in_all = len({row.case for row in result.rows if row.regime == regime})
    mean = ""
    if summary := result.summary(peer, regime):
        mean = (
            f"  Geometric mean of the ratios of all {counted(cases_in_all, 'case')}: {summary.best_mean:.2f}, "
            f"worst {summary.best_worst:.2f}."
        )
    where = f"{regime}, {machine['processor']}, {counted(machine['threads'], 'thread')}, {loops}{of_peer['label']}"
    lines = [f"| {' | '.join(cells)} |" for cells in table]
    return "\n".join([*lines, "", f"{where} {of_peer['version']}, {machine['date']}.{mean}"])


def _also(result: Result, peer: str, regime: str, apart: str) -> str:
    """Return the mean in one thread, and both means without the case that stands apart, each where there is one."""
    whole, rest = result.summary(peer, regime), result.summary(peer, regime, without=apart)
    if whole is None:
        return ""
    text = _one_thread(whole)
    if apart and rest and rest.rows < whole.rows:
        text += f".  Without {apart}: geometric mean {rest.best_mean:.2f}{_one_thread(rest)}"
    return text


def _one_thread(summary: Summary) -> str:
    return "" if summary.one_thread is None else f"; processor time of one thread {summary.one_thread:.2f}"


def full_table(result: Result) -> str:
    """Return every row, direction, regime and memory format, with all that was measured."""
    peers = [name for name in result.sides if name != OURS]
    alone = result.has_one_thread
    ratio_title = (
        "ratio (least to largest of the runs)" if "runs" in result.machine else "ratio (10th to 90th percentile)"
    )
    titles = ["case", "direction", "regime", "format", "gpuconv, ms", "rate", "of peak", "error", "extra MB"]
    titles += ["one thread, ms"] if alone else []
    for peer in peers:
        titles += [
            f"{result.label(peer)}, ms",
            ratio_title,
            "error",
            *(["one thread, ms", "ratio, one thread"] if alone else []),
        ]
    table = [titles, ["---"] * 4 + ["---:"] * (len(titles) - 4)]
    for row in result.rows:
        for layout in dict.fromkeys(entry.layout for entry in row.entries):
            cells = [row.case, row.direction, row.regime, layout]
            ours = row.entry(OURS, layout)
            if ours is None or not ours.measured:
                cells += [word(ours), "", "", "", ""]
            else:
                rate, unit = row.rate(ours.ms)
                memory = "" if ours.extra_bytes is None else f"{ours.extra_bytes / 1e6:.1f}"
                cells += [f"{ours.ms:.3f}", f"{rate:.1f} {unit}", _share(result, row, ours), error(ours), memory]
            if alone:
                cells.append(_number(row.one_thread_ms(OURS, layout), 3))
            for peer in peers:
                theirs, ratio = row.entry(peer, layout), row.ratio(peer, layout)
                if theirs is None or not theirs.measured:
                    cells += [word(theirs), "", ""]
                else:
                    compared = f"{ratio.value:.2f} {spread(ratio)}" if ratio else ""
                    cells += [f"{theirs.ms:.3f}", compared, error(theirs)]
                if alone:
                    cells.append(_number(row.one_thread_ms(peer, layout), 3))
                    cells.append(_number(row.one_thread_ratio(peer, layout)))
            table.append(cells)
    return "\n".join(
        [
            "<!-- made by bench/report.py -->",
            f"{setting(result)}.",
            "",
            *(f"| {' | '.join(cells)} |" for cells in table),
            "",
            *(f"- {fact}" for fact in facts(result)),
            "",
        ]
    )


def _each(entries: Sequence[Entry | None], text: Any, rows: Sequence[Row]) -> str:
    """Return the text of each direction with slashes between, or nothing where no direction has one."""
    texts = [text(row, entry) if entry else "" for row, entry in zip(rows, entries, strict=True)]
    return " / ".join(each or "-" for each in texts) if any(texts) else ""


def _share(result: Result, row: Row, entry: Entry) -> str:
    share = result.share(row, entry.ms)
    return "" if share is None else f"{share:.0%}"


def _ratio(ratio: Ratio | None) -> str:
    return _number(None if ratio is None else ratio.value)


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"
