"""What the terminal shows while a run goes on: lines, and below them a bar with the time left."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from gpuconv.show.words import duration
from gpuconv.tables import shortened

_QUIET_SECONDS = 30.0  # where there is no bar, the state of a run is said this often at most
_BAR, _MARGIN = 12, 6  # columns of the bar, and those left free: an echoed ^C would wrap


def display() -> Display:
    """Return the bar in a terminal, else plain lines."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if console.is_terminal and not console.is_dumb_terminal:
        return Bar(console)
    return Display()


class Display:
    """Plain lines.  Use it in a `with` block: leaving it gives the terminal back.

    width: the columns of the terminal; None where it is none.
    """

    width: int | None = None

    def __init__(self) -> None:
        self._done = self._total = 0
        self._began = self._spoke = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End a live display."""

    def say(self, text: str) -> None:
        """Print lines."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        self._spoke = time.perf_counter()

    def begin(self, total: int) -> None:
        """So many cases are about to be measured."""
        self._total, self._done = total, 0
        self._began = self._spoke = time.perf_counter()

    def case(self, name: str) -> None:
        """A case begins."""
        if time.perf_counter() - self._spoke >= _QUIET_SECONDS:
            self.say(f"({self._state()}: {name})")

    def doing(self, what: str) -> None:
        """Something within the case begins."""

    def end_case(self) -> None:
        """The case is over."""
        self._done += 1

    def _state(self) -> str:
        return f"case {min(self._done + 1, self._total)} of {self._total}, {self._left()}"

    def _left(self) -> str:
        """Return the time left, at the pace of the cases that are done."""
        if not self._done:
            return "time left not known yet"
        seconds = (time.perf_counter() - self._began) * (self._total - self._done) / self._done
        return f"about {duration(seconds)} left"


class Bar(Display):
    """The same lines, and below them a bar."""

    def __init__(self, console: Any) -> None:
        super().__init__()
        self._console, self._bar, self._task = console, None, None
        self._name = ""

    @property
    def width(self) -> int:  # type: ignore[override]
        return self._console.width

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        self._console.print(text)

    def begin(self, total: int) -> None:
        import rich.progress as bars

        super().begin(total)
        self.__exit__(None, None, None)
        self._bar = bars.Progress(
            bars.BarColumn(bar_width=_BAR),
            bars.TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("starting all sides, measuring peaks", total=total)
        self._bar.start()

    def case(self, name: str) -> None:
        self._name = name
        self.doing("")

    def doing(self, what: str) -> None:
        state = f"{self._state()}: " + (f"{what}, " if what else "") + self._name
        fitting = shortened(state, self.width - _BAR - _MARGIN)
        self._bar.update(self._task, completed=self._done, description=fitting)

    def end_case(self) -> None:
        super().end_case()
        self._bar.update(self._task, completed=self._done)
        if self._done == self._total:
            self._bar.update(self._task, description="measuring peaks once more")
