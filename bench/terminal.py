"""The table of a run in the terminal: as wide as that is, a line a row where it fits, else a row's sides below each other."""

from __future__ import annotations

from collections.abc import Sequence

from .cases import Case
from .results import OURS, Entry, Ratio, Row
from .tables import error, spread, word

_LEAST_CASE = 8  # columns
_DIRECTION, _LAYOUT, _MS, _RATE, _ERROR, _MEMORY, _RATIO, _ALONE = 8, 4, 10, 15, 6, 7, 17, 8
_GAP = "  "


class Table:
    """What a run prints of its rows.

    width: the columns there are; None: as many as a line takes, for files and pipes.   memory: it is measured.
    one_thread: the ratio of processor times behind that of wall times.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        peers: Sequence[str],
        regimes: Sequence[str],
        *,
        width: int | None = None,
        memory: bool = True,
        one_thread: bool = False,
    ) -> None:
        self._memory = memory
        self._peers, self._one_thread = peers, one_thread
        self._regime = max(map(len, regimes)) if len(regimes) > 1 else 0  # nothing to tell apart: it is not shown
        self._case = max([_LEAST_CASE, *(len(case.name) for case in cases)])
        self._side = max(map(len, (OURS, *peers)))
        self._last = ""
        self.stacked = width is not None and len(self._wide_head()) > width

    def head(self) -> str:
        """Return the heading; of stacked rows there is one below each case."""
        return "" if self.stacked else self._wide_head()

    def lines(self, row: Row) -> list[str]:
        """Return a line for each memory format of a row, gpuconv and then each peer; or one for each side, stacked."""
        layouts = dict.fromkeys(entry.layout for entry in row.entries)
        if not self.stacked:
            return [self._wide(row, layout) for layout in layouts]
        title = row.case + (f", {row.regime}" if self._regime else "")
        found = [] if title == self._last else ["", title, self._stacked_head()]
        self._last = title
        for number, layout in enumerate(layouts):
            found += self._stacked(row, layout, row.direction if number == 0 else "")
        return found

    def _wide_head(self) -> str:
        cells = [f"{'case':{self._case}}", f"{'':{_DIRECTION}}", f"{'':{_LAYOUT}}"]
        if self._regime:
            cells.insert(1, f"{'regime':{self._regime}}")
        cells += self._titles(f"{OURS} ms", "rate")
        for peer in self._peers:
            cells += [f"{f'{peer} ms':>{self._peer(peer)}}", f"{'ratio (spread)':{_RATIO}}"]
            cells += [f"{'1 thread':>{_ALONE}}"] if self._one_thread else []
        return _GAP.join(cells).rstrip()

    def _titles(self, ms: str, rate: str) -> list[str]:
        """Return what stands above the cells of gpuconv's own entry."""
        cells = [f"{ms:>{_MS}}", f"{rate:>{_RATE}}", f"{'error':>{_ERROR}}"]
        return [*cells, f"{'MB':>{_MEMORY}}"] if self._memory else cells

    def _ours(self, row: Row, entry: Entry) -> list[str]:
        cells = [f"{entry.ms:{_MS}.3f}", _rate(row, entry), f"{error(entry):>{_ERROR}}"]
        return [*cells, f"{_memory(entry):>{_MEMORY}}"] if self._memory else cells

    def _peer(self, peer: str) -> int:
        return max(_MS, len(f"{peer} ms"))

    def _wide(self, row: Row, layout: str) -> str:
        cells = [f"{row.case:{self._case}}", f"{row.direction:{_DIRECTION}}", f"{layout:{_LAYOUT}}"]
        if self._regime:
            cells.insert(1, f"{row.regime:{self._regime}}")
        ours = row.entry(OURS, layout)
        if ours is None or not ours.measured:
            cells.append(f"{word(ours):>{len(_GAP.join(self._titles('', '')))}}")
        else:
            cells += self._ours(row, ours)
        for peer in self._peers:
            theirs = row.entry(peer, layout)
            width = self._peer(peer)
            if theirs is None or not theirs.measured:
                cells.append(f"{word(theirs):>{width + _RATIO + len(_GAP)}}")
            else:
                cells += [f"{theirs.ms:{width}.3f}", f"{_ratio(row.ratio(peer, layout)):{_RATIO}}"]
            if self._one_thread:
                cells.append(f"{_alone(row, peer, layout):>{_ALONE}}")
        return _GAP.join(cells).rstrip()

    def _stacked_head(self) -> str:
        cells = [f"{'':{_DIRECTION}}", f"{'':{_LAYOUT}}", f"{'':{self._side}}", *self._titles("ms", "rate; ratio")]
        return _GAP.join(cells)

    def _stacked(self, row: Row, layout: str, direction: str) -> list[str]:
        found = []
        for side in (OURS, *self._peers):
            entry = row.entry(side, layout)
            cells = [f"{direction:{_DIRECTION}}", f"{layout if side == OURS else '':{_LAYOUT}}", f"{side:{self._side}}"]
            direction = ""
            if entry is None or not entry.measured:
                cells.append(f"{word(entry):>{_MS}}")
            elif side == OURS:
                cells += self._ours(row, entry)
            else:
                cells += [f"{entry.ms:{_MS}.3f}", f"{_ratio(row.ratio(side, layout)):>{_RATE + 2}}"]
                if self._one_thread:
                    cells.append(f"one thread {_alone(row, side, layout)}")
            found.append(_GAP.join(cells).rstrip())
        return found


def _rate(row: Row, entry: Entry) -> str:
    rate, unit = row.rate(entry.ms)
    return f"{f'{rate:.1f} {unit}':>{_RATE}}"


def _memory(entry: Entry) -> str:
    return "" if entry.extra_bytes is None else f"{entry.extra_bytes / 1e6:.1f}"


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio.value:5.2f} {spread(ratio)}"


def _alone(row: Row, peer: str, layout: str) -> str:
    ratio = row.one_thread_ratio(peer, layout)
    return "-" if ratio is None else f"{ratio:.2f}"
