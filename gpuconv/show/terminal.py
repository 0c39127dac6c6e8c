"""What the terminal shows of a run in progress: nothing, plain lines, or a live bar above which they appear."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from .. import tables
from ..errors import ConfigError
from .words import duration, labelled

PROGRESS = ("auto", "bar", "plain", "none")

_PRE = "font-family:monospace;line-height:normal"  # pages that show outputs forget it
_DRAW_SECONDS = 0.5  # in a notebook, between two states
_QUIET_SECONDS = 30.0  # plain lines within an epoch come no closer than this
_WIDTH = 80
_HEADING = f"{'epoch':<7}{'train loss':>12}{'training':>11}{'validation':>13}{'learning rate':>16}{'seconds':>10}"


def progress(name: str, rank: int = 0) -> Progress:
    """Return the display of a name; auto is the bar in a terminal or a notebook, and plain lines elsewhere.

    rank: of the process, where a run has many: the first one shows.
    """
    if name not in PROGRESS:
        msg = f"progress must be one of {', '.join(PROGRESS)}, got {name!r}"
        raise ConfigError(msg)
    if name == "none" or rank:
        return Progress()
    from rich.console import Console

    output: Any = _Output(sys.stdout)
    console = Console(file=output, highlight=False, markup=False, emoji=False, soft_wrap=True)
    if console.is_jupyter and name != "plain":
        return Notebook(console)
    if name == "bar" or (name == "auto" and console.is_terminal and not console.is_dumb_terminal):
        return Bar(console)
    return Plain(console)


def give_up(stream: TextIO) -> None:
    """Send what a stream still holds nowhere, lest the interpreter tries to write it, and fails, when it ends."""
    with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


class _Output:
    """Standard output; when its reader has gone or its disk is full, that is said once, and nothing more is written there.

    What is shown is no reason to end what is computed.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if not self._lost:
            try:
                self._stream.write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if not self._lost:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        self._lost = True
        if self._stream is sys.__stdout__:
            give_up(self._stream)
        with contextlib.suppress(OSError):  # it may go the same way
            sys.stderr.write(f"nothing more is shown ({error.strerror or error}); the work goes on\n")


class Progress:
    """Shows nothing.  Use it in a `with` block: leaving it gives the terminal back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End a live display."""

    def note(self, text: str) -> None:
        """Say something in passing."""

    def lines(self, lines: Sequence[str]) -> None:
        """Show lines as they are, such as those of a table."""

    def download(self, done: int, size: int) -> None:
        """So many bytes of a download have arrived."""

    def search(self, done: int, steps: int, *, rate: float, loss: float | None) -> None:
        """So many steps of a search for a learning rate are done, the last one at this rate."""

    def begin(self, facts: Sequence[tuple[str, str]], *, epochs: int, steps: int, done: int) -> None:
        """Say what is about to happen, in lines of (label, text)."""

    def step(self, *, epoch: int, images: int, loss: float | None) -> None:
        """A training step of so many images is done."""

    def validating(self) -> None:
        """The epoch's steps are done, its validation begins."""

    def epoch(self, row: Mapping[str, Any], *, best: bool) -> None:
        """An epoch is over."""

    def end(self, lines: Sequence[str]) -> None:
        """Say how it went."""


class Plain(Progress):
    """Lines of at most 80 columns, the same in a terminal, a file and a log."""

    def __init__(self, console: Any) -> None:
        self._console = console
        self._epochs = self._steps = self._done = 0
        self._session_steps = self._session_images = 0
        self._began = self._spoke = 0.0
        self._tenths = 0

    def note(self, text: str) -> None:
        self.lines(text.split("\n"))

    def lines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._print(line)

    def download(self, done: int, size: int) -> None:
        if 10 * done // size > self._tenths:
            self._tenths = 10 * done // size
            self._print(f"{done / 1e6:,.0f} of {size / 1e6:,.0f} MB")

    def begin(self, facts: Sequence[tuple[str, str]], *, epochs: int, steps: int, done: int) -> None:
        for line in labelled(facts):
            self._print(line[:9], "bold", line[9:])
        self._print()
        self._print(_HEADING, "bold")
        self._epochs, self._steps, self._done = epochs, steps, done
        self._began = self._spoke = time.perf_counter()

    def step(self, *, epoch: int, images: int, loss: float | None) -> None:
        self._done += 1
        self._session_steps += 1
        self._session_images += images
        if time.perf_counter() - self._spoke > _QUIET_SECONDS:
            self._status(epoch, loss)

    def epoch(self, row: Mapping[str, Any], *, best: bool) -> None:
        accuracy = "-" if row["validation_accuracy"] is None else f"{row['validation_accuracy']:.2%}"
        self._print(
            f"{row['epoch']:>3}/{self._epochs:<3}{row['train_loss']:>12.4f}{row['train_accuracy']:>11.2%}{accuracy:>13}"
            f"{row['learning_rate']:>16.3g}{row['seconds']:>10.1f}",
            None,
            "  best" if best else "",
        )

    def end(self, lines: Sequence[str]) -> None:
        self._print()
        self.lines(lines)

    def _status(self, epoch: int, loss: float | None) -> None:
        """Show the state within an epoch."""
        speed, left = self._pace()
        self._print(f"  step {self._done}/{self._steps}, loss {_shown(loss)}, {speed:,.0f} images/s, {left} left")

    def _pace(self) -> tuple[float, str]:
        """Return images per second of this session, and the time left at its pace, validation included."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        left = (self._steps - self._done) * seconds / max(self._session_steps, 1)
        return self._session_images / seconds, duration(left)

    def _print(self, text: str = "", style: str | None = None, rest: str = "") -> None:
        from rich.text import Text

        self._console.print(Text.assemble((text, style or ""), rest))
        self._spoke = time.perf_counter()


class Bar(Plain):
    """The same lines, and below them a bar that moves with every step."""

    def __init__(self, console: Any) -> None:
        super().__init__(console)
        self._bar: Any = None
        self._task: Any = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def note(self, text: str) -> None:
        self.lines(_broken(text))

    def download(self, done: int, size: int) -> None:
        if self._bar is None:
            self._show("download", size, done)
        self._bar.update(self._task, completed=done, state=f"{done / 1e6:,.0f} of {size / 1e6:,.0f} MB")

    def search(self, done: int, steps: int, *, rate: float, loss: float | None) -> None:
        if self._bar is None:
            self._show(f"step {done}/{steps}", steps, done)
        state = f"rate {rate:.2g}  loss {_shown(loss)}"
        self._bar.update(self._task, completed=done, description=f"step {done}/{steps}", state=state)

    def begin(self, facts: Sequence[tuple[str, str]], *, epochs: int, steps: int, done: int) -> None:
        self.__exit__(None, None, None)
        super().begin(facts, epochs=epochs, steps=steps, done=done)
        self._show("", steps, done)

    def step(self, *, epoch: int, images: int, loss: float | None) -> None:
        super().step(epoch=epoch, images=images, loss=loss)
        self._status(epoch, loss)

    def validating(self) -> None:
        self._bar.update(self._task, state="validating")

    def end(self, lines: Sequence[str]) -> None:
        self.__exit__(None, None, None)
        super().end(lines)

    def _show(self, description: str, total: int, completed: int) -> None:
        import rich.progress as bars

        self._bar = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=20),  # not to the edge: an echoed ^C would wrap, and the bar could not be erased
            bars.TextColumn("{task.percentage:>3.0f} %  {task.fields[state]}"),
            console=self._console,
            transient=True,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task(description, total=total, completed=completed, state="")
        self._bar.start()

    def _status(self, epoch: int, loss: float | None) -> None:
        speed, left = self._pace()
        self._bar.update(
            self._task,
            completed=self._done,
            description=f"epoch {epoch}/{self._epochs}",
            state=f"loss {_shown(loss)}  {speed:,.0f} images/s  {left} left",
        )


class Notebook(Plain):
    """The same lines as one output of a cell, which is renewed as they come, and below them a bar with the time left."""

    def __init__(self, console: Any) -> None:
        super().__init__(console)
        self._lines: list[str] = []
        self._state, self._share = "", 0.0
        self._drew = 0.0
        self._output: Any = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._state:
            self._state = ""
            self._draw()

    def note(self, text: str) -> None:
        self.lines(_broken(text))

    def download(self, done: int, size: int) -> None:
        self._show(f"{done / 1e6:,.0f} of {size / 1e6:,.0f} MB", done / size)

    def search(self, done: int, steps: int, *, rate: float, loss: float | None) -> None:
        self._show(f"step {done}/{steps}, rate {rate:.2g}, loss {_shown(loss)}", done / steps)

    def begin(self, facts: Sequence[tuple[str, str]], *, epochs: int, steps: int, done: int) -> None:
        self._state = ""
        super().begin(facts, epochs=epochs, steps=steps, done=done)

    def step(self, *, epoch: int, images: int, loss: float | None) -> None:
        super().step(epoch=epoch, images=images, loss=loss)
        self._status(epoch, loss)

    def validating(self) -> None:
        self._show("validating", self._share)

    def end(self, lines: Sequence[str]) -> None:
        self._state = ""
        super().end(lines)

    def _status(self, epoch: int, loss: float | None) -> None:
        speed, left = self._pace()
        state = f"epoch {epoch}/{self._epochs}, loss {_shown(loss)}, {speed:,.0f} images/s, {left} left"
        self._show(state, self._done / max(self._steps, 1))

    def _show(self, state: str, share: float) -> None:
        """Show a state of things, if the last was not just now."""
        self._state, self._share = state, share
        if time.perf_counter() - self._drew >= _DRAW_SECONDS:
            self._draw()

    def _print(self, text: str = "", style: str | None = None, rest: str = "") -> None:
        self._lines.append((f"<b>{escape(text)}</b>" if style else escape(text)) + escape(rest))
        self._draw()
        self._spoke = time.perf_counter()

    def _draw(self) -> None:
        from IPython.display import HTML, display

        bar = f'<div><progress value="{self._share:.4f}"></progress> {escape(self._state)}</div>' if self._state else ""
        shown = HTML(f"<pre style={_PRE!r}>" + "\n".join(self._lines) + f"</pre>{bar}")
        if self._output is None:
            self._output = display(shown, display_id=True)
        else:
            self._output.update(shown)
        self._drew = time.perf_counter()


def _broken(text: str) -> list[str]:
    """Return a note as lines for people, broken between words; in a log a note stays the line that it is."""
    lines = text.split("\n")
    return [
        part for line in lines for part in tables.wrapped(line, _WIDTH, indent=line[: len(line) - len(line.lstrip())])
    ]


def _shown(loss: float | None) -> str:
    """Return a loss as text; that of the first steps on a GPU is not known at once."""
    return "-" if loss is None else f"{loss:.3f}"
