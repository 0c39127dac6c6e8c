"""Curves in a terminal: in its size, in letters that it knows, told apart, drawn anew while a run goes on."""

from __future__ import annotations

import io
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from train_helpers import change, shapes

from gpuconv import cli, durable, train
from gpuconv.cli import plot
from gpuconv.errors import ConfigError
from gpuconv.runs import folder as folders
from gpuconv.show import screen
from gpuconv.show.canvas import Chart, Style, draw
from gpuconv.show.curves import Line
from gpuconv.train import Run

MONO = Style(braille=True, colour=False)
ASCII = Style(braille=False, colour=False)
RISING = Line("training", [(float(x), float(x)) for x in range(11)])
FALLING = Line("validation", [(float(x), 10.0 - x) for x in range(11)], "b")


def chart(*lines: Line, **options) -> Chart:
    return Chart("loss", lines, "{:g}".format, **options)


def plain(lines) -> list[str]:
    return [line.plain for line in lines]


def inside(lines: list[str], edges: str = "│├|+") -> list[str]:
    """Return what stands between the axis and the words at the ends of lines."""
    rows = []
    for line in lines[1:-2]:
        start = next(place for place, letter in enumerate(line) if letter in edges) + 1
        rows.append(line[start:].split(" training")[0].split(" validation")[0])
    return rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plot") / "run"
    return train.train(change(), folder=folder, dataset=shapes(), progress="none").folder


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plot") / "both"
    return train.train_seeds(change(), 2, folder=folder, dataset=shapes(), progress="none").folder


@pytest.fixture
def gpuconv(capsys):
    def run(*arguments):
        return (cli.main([str(argument) for argument in arguments]), *capsys.readouterr())

    return run


# A chart ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", [Style(), MONO, ASCII], ids=["colour", "mono", "ascii"])
@pytest.mark.parametrize(("width", "height"), [(79, 10), (69, 24), (40, 8), (30, 6)])
def test_a_chart_has_the_size_it_is_given(width, height, style):
    drawn = draw(chart(RISING, FALLING), width, height, style)
    assert len(drawn) == height
    assert max(line.cell_len for line in drawn[:-1]) <= width


def test_a_line_rises_where_its_values_do():
    rows = inside(plain(draw(chart(RISING), 60, 13, ASCII)))
    places = [row.index("*") for row in rows]
    assert places == sorted(places, reverse=True)
    assert places[-1] == 0
    assert places[0] >= max(map(len, rows)) - 4


def test_dots_lie_where_the_points_are():
    lines = plain(draw(chart(Line("training", [(0.0, 0.0), (10.0, 10.0)])), 60, 13, MONO))
    rows = inside(lines)
    dots = np.zeros((4 * len(rows), 2 * max(map(len, rows))), bool)
    for row, text in enumerate(rows):
        for column, letter in enumerate(text):
            if letter != " ":
                bits = ord(letter) - 0x2800
                for place, bit in {
                    (0, 0): 1,
                    (1, 0): 2,
                    (2, 0): 4,
                    (0, 1): 8,
                    (1, 1): 16,
                    (2, 1): 32,
                    (3, 0): 64,
                    (3, 1): 128,
                }.items():
                    dots[4 * row + place[0], 2 * column + place[1]] = bool(bits & bit)
    ys, xs = np.nonzero(dots)
    width = len(rows[0].rstrip()) * 2
    assert set(xs) == set(range(width))
    np.testing.assert_allclose(ys, (1 - xs / (width - 1)) * (len(dots) - 1), atol=0.51)


def test_the_axes_name_values_and_epochs():
    lines = plain(draw(chart(RISING), 60, 13, MONO))
    levels = [float(line.split("├")[0]) for line in lines if "├" in line]
    assert levels == [10, 8, 6, 4, 2, 0]
    words = lines[-1].split()
    assert (words[0], words[-2:]) == ("0", ["10", "epoch"])
    axis = lines[-2]
    for word in words[:-1]:
        place = lines[-1].index(f" {word} ") + 1 if f" {word} " in lines[-1] else lines[-1].index(word)
        assert "┴" in axis[place - 1 : place + 3]


def test_less_than_an_epoch_has_an_axis_too():
    part = Line("training", [(x / 100, 2.0 - x / 100) for x in range(30)])
    words = plain(draw(chart(part), 60, 13, MONO))[-1].split()
    assert words[:-1] == ["0", "0.1", "0.2"]


def test_the_last_values_stand_at_the_ends_of_lines_none_over_another():
    close = [
        Line(name, [(0.0, 1.0), (1.0, 2.0 + 1e-3 * n)]) for n, name in enumerate(("training", "validation", "third"))
    ]
    lines = plain(draw(chart(*close), 60, 10, MONO))
    for line in close:
        assert sum(f" {line.name} {line.points[-1][1]:g}" in text for text in lines) == 1


def test_the_words_at_the_ends_keep_the_order_of_the_lines():
    close = [Line(f"n{n}", [(0.0, 0.0), (1.0, 5.0 - 1e-3 * n)]) for n in (3, 0, 4, 1, 2)]
    lines = plain(draw(chart(*close, Line("low", [(0.0, 0.0), (1.0, 1.0)])), 60, 12, MONO))
    words = [word for text in lines for word in text.split() if word in ("n0", "n1", "n2", "n3", "n4", "low")]
    assert words == ["n0", "n1", "n2", "n3", "n4", "low"]
    for level in (0.0, 1.0):  # at the edges there is room on one side alone
        same = [Line(f"n{n}", [(0.0, 1 - level), (1.0, level)]) for n in range(3)]
        assert sum("n" in text for text in plain(draw(chart(*same), 60, 8, MONO))[1:-2]) == 3


def test_the_first_steps_do_not_flatten_the_chart():
    faint = Line("each step", [(step / 100, 1000.0 if step < 9 else 2.0) for step in range(100)], "faint")
    lines = plain(draw(chart(faint, Line("training", [(0.5, 1.9), (1.0, 2.1)])), 60, 10, MONO))
    assert not any("1000" in line for line in lines)
    assert len(inside(lines)[0][:20].split()) <= 1  # cut off, and not laid along the edge
    assert len(inside(lines)[0][:20].strip()) <= 1


def test_what_is_faint_gives_way():
    faint = Line("each step", [(0.0, 5.0), (10.0, 5.0)], "faint")
    lines = plain(draw(chart(faint, RISING), 60, 13, ASCII))
    assert sum(line.count("*") for line in inside(lines)) >= 40
    alone = plain(draw(chart(RISING), 60, 13, ASCII))
    assert [row.replace(".", " ").rstrip() for row in inside(lines)] == [row.rstrip() for row in inside(alone)]


def test_lines_are_told_apart_by_colour_letter_or_dashes():
    coloured = draw(chart(RISING, FALLING), 60, 13, Style())
    assert {"cyan", "magenta"} <= {str(span.style) for line in coloured for span in line.spans}
    assert not [span for line in draw(chart(RISING, FALLING), 60, 13, MONO) for span in line.spans if span.style]
    letters = "".join(inside(plain(draw(chart(RISING, FALLING), 60, 13, ASCII))))
    assert set(letters) == {" ", "*", "o"}
    whole, dashed = (
        "".join(inside(plain(draw(chart(*lines), 60, 13, MONO))))
        for lines in ((FALLING,), (Line("training", [(0.0, 5.0)]), FALLING))
    )
    count = [sum((ord(letter) - 0x2800).bit_count() for letter in text if letter != " ") for text in (whole, dashed)]
    assert count[1] < 0.7 * count[0]


def test_a_point_alone_can_be_seen():
    rows = inside(plain(draw(chart(Line("training", [(1.0, 2.0)])), 60, 10, MONO)))
    assert sum((ord(letter) - 0x2800).bit_count() for row in rows for letter in row if letter != " ") >= 2


def test_nothing_yet_is_said():
    assert plain(draw(chart(Line("training", [])), 60, 10, MONO)) == ["loss", "nothing yet"]


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-30, 1e30, 123456.789])
def test_any_value_can_be_drawn(value):
    for points in ([(1.0, value)], [(1.0, value), (2.0, value)], [(1.0, value), (2.0, 2 * value + 1)]):
        assert len(draw(chart(Line("training", points)), 60, 10, MONO)) == 10


# The page -----------------------------------------------------------------------------------------------------------

SIZES = {"usual": (80, 24, 1, 2), "wide": (140, 40, 2, 2), "very_wide": (200, 50, 3, 3), "tall": (80, 60, 1, 3)}


@pytest.mark.parametrize(("columns", "lines", "beside", "charts"), SIZES.values(), ids=SIZES.keys())
def test_charts_fill_the_terminal_and_no_more(columns, lines, beside, charts, finished):
    page = plain(screen.of_run(Run(finished), columns, lines, MONO))
    assert max(map(len, page)) < columns
    assert len(page) < lines
    titles = [line for line in page if line.startswith(("loss", "accuracy", "learning"))]
    assert len(titles) == charts // beside
    assert sum(line.count("epoch") for line in page[2:]) == charts
    assert ("learning rate" in "".join(titles)) == (charts == 3)


def test_of_several_runs_the_validation_is_drawn_in_a_line_each(group):
    page = plain(screen.of_runs(group, [Run(group / f"seed-{n}") for n in (0, 1)], 80, 24, MONO))
    text = "\n".join(page)
    assert "2 of 2 runs finished" in text
    assert "validation loss" in text
    for n in (0, 1):
        last = Run(group / f"seed-{n}").metrics[-1]
        assert f"seed-{n} {last['validation_loss']:.3g}" in text
        assert f"seed-{n} {100 * last['validation_accuracy']:.3g} %" in text


class Encoded(io.StringIO):
    encoding = "ascii"


def test_letters_are_those_that_the_terminal_knows(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert screen.style_of(Console(file=io.StringIO(), force_terminal=True)) == Style(braille=True, colour=True)
    assert not screen.style_of(Console(file=Encoded(), force_terminal=True)).braille
    assert not screen.style_of(Console(file=io.StringIO(), force_terminal=True, no_color=True)).colour
    assert not screen.style_of(Console(file=io.StringIO())).colour
    monkeypatch.setenv("TERM", "linux")
    assert not screen.style_of(Console(file=io.StringIO(), force_terminal=True)).braille


# The command --------------------------------------------------------------------------------------------------------


def test_the_command_obeys_the_size_of_the_terminal(gpuconv, finished, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("LINES", "30")
    code, out, err = gpuconv("plot", finished)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert 100 < max(map(len, lines)) < 140
    assert any("loss" in line and "accuracy" in line for line in lines)


def test_output_in_ascii_has_nothing_else(finished, monkeypatch, capsys):
    raw = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", raw)
    assert cli.main(["plot", str(finished)]) == 0
    raw.flush()
    text = raw.buffer.getvalue().decode("ascii")
    assert "*" in text
    assert "o" in text


def test_a_group_is_plotted_and_reported(gpuconv, group, tmp_path):
    shutil.copytree(group, tmp_path / "both")
    code, out, err = gpuconv("plot", tmp_path / "both", "--report")
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"{tmp_path / 'both' / f'seed-{n}' / 'report.html'} is written" for n in (0, 1)]
    assert "validation accuracy" in gpuconv("plot", group)[1]


@pytest.mark.long
def test_a_group_is_drawn_as_a_picture(gpuconv, group, tmp_path):
    pytest.importorskip("matplotlib")
    assert gpuconv("plot", group, "--save", tmp_path / "x.svg")[0] == 0
    assert "seed-1: validation" in (tmp_path / "x.svg").read_text()


def test_a_group_that_has_not_begun_has_no_curves(gpuconv, tmp_path):
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "plan.json").write_text('{"count": 1}')
    code, out, err = gpuconv("plot", tmp_path)
    assert (code, out) == (2, "")
    assert "has no curves yet: none of its runs has been begun" in err


def test_what_is_followed_is_not_written(gpuconv, finished):
    code, _, err = gpuconv("plot", finished, "--follow", "--report")
    assert code == 2
    assert "--follow shows a run as it goes on: leave out --save and --report" in err


def test_a_run_that_is_over_is_followed_to_its_end_at_once(gpuconv, finished, monkeypatch):
    monkeypatch.setattr(plot, "_WAIT", math.inf)  # which no sleep takes
    code, out, err = gpuconv("plot", finished, "--follow")
    assert (code, err) == (0, "")
    assert out.count("finished, test accuracy") == 1


def test_a_run_is_drawn_anew_when_it_has_written_and_until_nobody_works_on_it(finished, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "result.json").unlink()
    whole = (run / "metrics.csv").read_bytes()
    (run / "metrics.csv").write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    pages, waits = [], []
    real = plot._page

    def page(path: Path, console):
        pages.append(Run(path).state)
        return real(path, console)

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            (run / "metrics.csv").write_bytes(whole)
        if len(waits) == 4:
            held.close()

    monkeypatch.setattr(plot, "_page", page)
    held = folders.RunFolder(run)
    plot._follow(run, wait)
    assert waits == [plot._WAIT] * 4
    assert pages == ["not finished, 1 of 2 epochs done", "not finished, 2 of 2 epochs done"]
    assert "not finished, 2 of 2 epochs done" in " ".join(capsys.readouterr().out.split())


def test_ctrl_c_ends_it_quietly(finished, monkeypatch, gpuconv):
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plot._follow, "__defaults__", (interrupted,))
    with folders.RunFolder(finished):
        code, out, err = gpuconv("plot", finished, "--follow")
    assert (code, err) == (0, "")
    assert "Traceback" not in out


def test_a_run_without_curves_is_waited_for(tmp_path, finished, capsys):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(finished / "config.toml", run)

    def wait(seconds: float) -> None:
        shutil.copytree(finished, run, dirs_exist_ok=True)
        held.close()

    held = folders.RunFolder(run)
    plot._follow(run, wait)
    assert "finished, test accuracy" in " ".join(capsys.readouterr().out.split())


def test_a_run_without_curves_that_nobody_works_on_is_refused(tmp_path, finished):
    (tmp_path / "run").mkdir()
    shutil.copy(finished / "config.toml", tmp_path / "run")
    with pytest.raises(ConfigError, match="has no curves yet"):
        plot._follow(tmp_path / "run")


# Who works on it ----------------------------------------------------------------------------------------------------


def test_whoever_looks_sees_a_lock_and_leaves_none(tmp_path):
    assert not folders.held(tmp_path)
    with folders.RunFolder(tmp_path):
        assert folders.held(tmp_path)
        assert folders.held(tmp_path)
    assert not folders.held(tmp_path)
    with folders.RunFolder(tmp_path):
        pass


def test_a_folder_that_somebody_looks_at_for_a_moment_can_be_locked(tmp_path, monkeypatch):
    looking = (tmp_path / ".lock").open("a+b")
    durable.lock(looking)
    tries = []

    def looked(seconds: float) -> None:
        tries.append(seconds)
        looking.close()

    monkeypatch.setattr(folders.time, "sleep", looked)
    with folders.RunFolder(tmp_path):
        assert len(tries) == 1
