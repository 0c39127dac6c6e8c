"""What a run shows: the right reporter for the place, lines that fit, a bar that leaves nothing behind."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from gpuconv.errors import ConfigError
from gpuconv.show import terminal, words

ROW = {
    "epoch": 2, "step": 20, "train_loss": 1.23456, "train_accuracy": 0.5, "validation_loss": 1.5,
    "validation_accuracy": 0.51239, "learning_rate": 0.012345, "seconds": 12.34,
}  # fmt: skip
FACTS = [("gpuconv", "0.1.0"), ("data", "word " * 30), ("run", "runs/x-1")]


def console(*, terminal: bool) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=terminal, width=80, highlight=False, markup=False, emoji=False,
        soft_wrap=True, color_system=None, _environ={},
    )  # fmt: skip


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told."""
    now = [100.0]
    monkeypatch.setattr(terminal.time, "perf_counter", lambda: now[0])
    return now


def play(says: terminal.Progress, clock, *, step_seconds: float) -> None:
    with says:
        says.note("a note")
        says.begin(FACTS, epochs=3, steps=30, done=10)
        for _ in range(10):
            clock[0] += step_seconds
            says.step(epoch=2, images=20, loss=1.5)
        says.validating()
        says.epoch(ROW, best=True)
        says.epoch({**ROW, "epoch": 3, "validation_accuracy": None}, best=False)
        says.end(["the end"])


def test_plain_lines_are_all_there_and_fit(clock):
    target = console(terminal=False)
    play(terminal.Plain(target), clock, step_seconds=0.1)
    assert target.file.getvalue().splitlines() == [
        "a note",
        "gpuconv  0.1.0",
        "data     " + ("word " * 14).strip(),
        "         " + ("word " * 14).strip(),
        "         word word",
        "run      runs/x-1",
        "",
        "epoch    train loss   training   validation   learning rate   seconds",
        "  2/3        1.2346     50.00%       51.24%          0.0123      12.3  best",
        "  3/3        1.2346     50.00%            -          0.0123      12.3",
        "",
        "the end",
    ]


def test_a_note_is_broken_between_words_and_a_table_is_not():
    target, log = console(terminal=True), console(terminal=False)
    text = "word " * 17 + "\n  " + "this " * 16
    for says in (terminal.Bar(target), terminal.Plain(log)):
        with says:
            says.note(text)
            says.lines(["x" * 90, ""])
    assert log.file.getvalue() == f"{text}\n{'x' * 90}\n\n"
    assert target.file.getvalue().splitlines() == [
        ("word " * 16).strip(),
        "word",
        "  " + ("this " * 15).strip(),
        "  this",
        "x" * 90,
        "",
    ]


def test_a_long_epoch_gives_a_sign_of_life_twice_a_minute(clock):
    target = console(terminal=False)
    play(terminal.Plain(target), clock, step_seconds=9.0)
    status = [line for line in target.file.getvalue().splitlines() if line.startswith("  step")]
    assert status == [
        "  step 14/30, loss 1.500, 2 images/s, 2 min 24 s left",
        "  step 18/30, loss 1.500, 2 images/s, 1 min 48 s left",
    ]


def test_the_bar_shows_pace_and_time_left_and_leaves_only_the_lines(clock):
    target = console(terminal=True)
    play(terminal.Bar(target), clock, step_seconds=0.1)
    shown = target.file.getvalue()
    plain = console(terminal=False)
    play(terminal.Plain(plain), clock, step_seconds=0.1)
    for line in plain.file.getvalue().splitlines():
        assert line in shown
    assert re.search(r"epoch 2/3 .* 67 %  validating", shown)
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is hidden once and comes back
    assert shown.rstrip().endswith("the end")


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_the_cursor_comes_back_however_the_run_ends(error, clock):
    target = console(terminal=True)
    try:
        with terminal.Bar(target) as says:
            says.begin(FACTS, epochs=3, steps=30, done=0)
            says.step(epoch=1, images=20, loss=1.5)
            if error is not None:
                raise error
    except (KeyboardInterrupt, ValueError):
        pass
    assert "\x1b[?25h" in target.file.getvalue()


def test_a_download_gives_way_to_the_training_bar(clock):
    target = console(terminal=True)
    with terminal.Bar(target) as says:
        says.download(50 * 10**6, 100 * 10**6)
        says.begin(FACTS, epochs=3, steps=30, done=0)
        says.step(epoch=1, images=20, loss=1.5)
    assert "50 of 100 MB" in target.file.getvalue()


class Shown:
    """Outputs of a cell: what each showed, one after the other."""

    def __init__(self, monkeypatch) -> None:
        self.outputs: list[list[str]] = []
        monkeypatch.setattr(pytest.importorskip("IPython.display"), "display", self.display)

    def display(self, page, *, display_id):
        assert display_id
        self.outputs.append([page.data])
        return self

    def update(self, page):
        self.outputs[-1].append(page.data)

    @property
    def last(self) -> str:
        return self.outputs[-1][-1]


def test_a_notebook_has_one_output_that_ends_as_the_plain_lines(clock, monkeypatch):
    shown = Shown(monkeypatch)
    play(terminal.Notebook(console(terminal=False)), clock, step_seconds=0.1)
    assert len(shown.outputs) == 1
    plain = console(terminal=False)
    play(terminal.Plain(plain), clock, step_seconds=0.1)
    assert re.sub("<[^>]*>", "", shown.last) == plain.file.getvalue().removesuffix("\n")
    assert "<b>gpuconv  </b>0.1.0" in shown.last
    assert "<progress" not in shown.last


def test_a_notebook_shows_how_far_it_is_twice_a_second_at_most(clock, monkeypatch):
    shown = Shown(monkeypatch)
    with terminal.Notebook(console(terminal=False)) as says:
        says.begin(FACTS, epochs=3, steps=30, done=10)
        begun = len(shown.outputs[0])
        for _ in range(10):
            clock[0] += 0.3
            says.step(epoch=2, images=20, loss=1.5)
        assert len(shown.outputs[0]) == begun + 5
        assert 'value="0.6667"></progress> epoch 2/3, loss 1.500, 67 images/s, 3.0 s left' in shown.last
        clock[0] += 1
        says.validating()
        assert 'value="0.6667"></progress> validating' in shown.last
    assert "<progress" not in shown.last


def test_a_notebook_shows_a_download_and_names_as_they_are(clock, monkeypatch):
    shown = Shown(monkeypatch)
    with terminal.Notebook(console(terminal=False)) as says:
        says.download(50 * 10**6, 100 * 10**6)
        assert 'value="0.5000"></progress> 50 of 100 MB' in shown.last
        says.begin([("data", "<own> & others")], epochs=3, steps=30, done=0)
        assert "<b>data     </b>&lt;own&gt; &amp; others" in shown.last
        assert "MB" not in shown.last
        clock[0] += 1
        says.search(30, 100, rate=0.0123, loss=1.5)
        assert 'value="0.3000"></progress> step 30/100, rate 0.012, loss 1.500' in shown.last


@pytest.mark.parametrize(
    ("name", "kind"), [("auto", "Notebook"), ("bar", "Notebook"), ("plain", "Plain"), ("none", "Progress")]
)
def test_a_kernel_gets_the_notebooks_display(name, kind, monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert type(terminal.progress(name)).__name__ == kind


def test_silence(clock, capsys):
    play(terminal.progress("none"), clock, step_seconds=100)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "variables", "kind"),
    [
        ("auto", {}, terminal.Plain),
        ("auto", {"FORCE_COLOR": "1"}, terminal.Bar),
        ("auto", {"FORCE_COLOR": "1", "TERM": "dumb"}, terminal.Plain),
        ("bar", {}, terminal.Bar),
        ("plain", {"FORCE_COLOR": "1"}, terminal.Plain),
        ("none", {"FORCE_COLOR": "1"}, terminal.Progress),
    ],
)
def test_the_reporter_fits_the_place(name, variables, kind, monkeypatch):
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert type(terminal.progress(name)) is kind


def test_an_unknown_reporter_is_refused():
    with pytest.raises(ConfigError, match="progress must be one of auto, bar, plain, none, got 'loud'"):
        terminal.progress("loud")


DURATIONS = {
    0.04: "0.0 s",
    8.26: "8.3 s",
    9.99: "10.0 s",
    59.4: "59 s",
    59.6: "1 min 0 s",
    3599.6: "1 h 0 min",
    7500: "2 h 5 min",
}


@pytest.mark.parametrize(("seconds", "text"), DURATIONS.items())
def test_times_read_well(seconds, text):
    assert words.duration(seconds) == text
