"""All runs of a folder: their states, a table that fits, a page for a browser, and JSON."""

from __future__ import annotations

import html.parser
import json
import os
import shutil
from pathlib import Path

import pytest
from train_helpers import change, interrupt, names, shapes

from gpuconv import cli, data, durable, train
from gpuconv.errors import CheckpointWriteError, ConfigError, NonFiniteLossError
from gpuconv.runs import journal, overview
from gpuconv.runs.folder import RunFolder
from gpuconv.show import index, listing
from gpuconv.train import Run
from gpuconv.train import listed as listed_module


def go(folder: Path, **settings) -> train.Result:
    return train.train(change(**settings), folder=folder, dataset=shapes(), progress="none")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with runs in every state, and what is no run."""
    runs = tmp_path_factory.mktemp("home") / "runs"
    runs.mkdir()
    place = {"runs": runs, "dataset": shapes(), "progress": "none"}
    train.train(change(), **place)
    interrupt(runs / "vgg-2", change(net="vgg", widths=(2, 2)), step=12)
    with pytest.raises(NonFiniteLossError):
        go(runs / "failed", lr=1e30)
    train.train_seeds(change(max_steps=2), 2, **place)
    (runs / "broken").mkdir()
    (runs / "broken" / "config.toml").write_text("net = ")
    (runs / "notes").mkdir()
    (runs / "notes.txt").write_text("mine")
    return runs


@pytest.fixture
def gpuconv(capsys):
    def run(*arguments):
        return (cli.main([str(argument) for argument in arguments]), *capsys.readouterr())

    return run


def by_name(entries):
    return {entry.name: entry for entry in entries}


# What is known ------------------------------------------------------------------------------------------------------


def test_each_run_has_its_state(made):
    found = by_name(overview.overview(made))
    assert {name: entry.state for name, entry in found.items()} == {
        "convnet-1": "done",
        "vgg-2": "stopped",
        "failed": "failed",
        "convnet-seeds-1": "done",
        "broken": "damaged",
    }
    with RunFolder(made / "vgg-2"):
        assert by_name(overview.overview(made))["vgg-2"].state == "running"


def test_a_run_is_known_by_its_files(made):
    found, result = by_name(overview.overview(made)), Run(made / "convnet-1").result
    one = found["convnet-1"]
    assert (one.net, one.data, one.epochs, one.planned) == ("convnet", "shapes", 2, 2)
    assert (one.validation, one.test) == (result["validation_accuracy"], result["test_accuracy"])
    assert (one.parameters, one.settings["lr"]) == (result["parameters"], 0.02)
    half = found["vgg-2"]
    assert (half.net, half.epochs, half.planned, half.test) == ("vgg", 1, 2, None)
    assert half.validation == Run(made / "vgg-2").metrics[0]["validation_accuracy"]
    assert found["broken"].problem.startswith("config file ")
    assert 0 <= one.age < 10_000


def test_a_run_from_weights_is_known_by_where_they_are_from(made, tmp_path):
    go(tmp_path / "fine", net="weights", widths=(), weights=str(made / "convnet-1"), max_steps=1)
    (fine,) = overview.overview(tmp_path)
    assert fine.net == "from convnet-1"


def test_several_runs_are_one_with_their_means(made, tmp_path):
    group = by_name(overview.overview(made))["convnet-seeds-1"]
    assert [run.name for run in group.runs] == ["seed-0", "seed-1"]
    assert (group.epochs, group.planned) == (2, 2)
    assert group.test == pytest.approx(sum(run.test for run in group.runs) / 2)
    shutil.copytree(made / "convnet-seeds-1", tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "seed-1")
    (half,) = overview.overview(tmp_path)
    assert (half.state, half.epochs, half.planned) == ("stopped", 1, 2)
    with RunFolder(tmp_path / "half"):
        assert overview.overview(tmp_path)[0].state == "running"


def test_a_run_s_own_folder_and_one_of_several_are_listed_too(made):
    assert [entry.name for entry in overview.overview(made / "convnet-1")] == ["convnet-1"]
    assert [entry.name for entry in overview.overview(made / "convnet-seeds-1")] == ["seed-0", "seed-1"]
    with pytest.raises(ConfigError, match=r"there is no folder .*nowhere: gpuconv train makes runs"):
        overview.overview(made / "nowhere")


ORDERS = {
    "name": ["broken", "convnet-1", "convnet-seeds-1", "failed", "vgg-2"],
    "state": ["broken", "convnet-1", "convnet-seeds-1", "failed", "vgg-2"],
    "net": ["broken", "convnet-1", "convnet-seeds-1", "failed", "vgg-2"],
}


@pytest.mark.parametrize("by", overview.SORTED)
def test_runs_are_sorted_by_what_is_asked_for(by, made):
    entries = overview.in_sequence(overview.overview(made), by)
    found = [entry.name for entry in entries]
    assert len(found) == 5
    if by in ORDERS:
        assert found == ORDERS[by]
    if by in ("validation", "test"):
        known = [value for entry in entries if (value := getattr(entry, by)) is not None]
        assert known == sorted(known, reverse=True)
        assert all(getattr(entry, by) is None for entry in entries[len(known) :])
    if by == "age":
        assert found[0] == "convnet-seeds-1" or found[0] == "broken"


def test_the_ends_of_a_journal_are_read_without_what_lies_between(made, tmp_path):
    events = journal.read(made / "convnet-1")
    assert journal.ends(made / "convnet-1") == (events[0], events[-1])
    lines = (made / "convnet-1" / "events.jsonl").read_bytes()
    (tmp_path / "events.jsonl").write_bytes(lines + b'{"event": "fail')
    assert journal.ends(tmp_path)[1] == events[-1]
    (tmp_path / "events.jsonl").write_bytes(b"{\n" + lines)
    assert journal.ends(tmp_path) == ({}, events[-1])
    assert journal.ends(tmp_path / "none") == ({}, {})


# The table ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 140, 1000])
def test_the_table_is_as_wide_as_the_terminal_at_most(columns, made):
    lines = listing.listing(made, overview.overview(made), columns)
    longest = max(map(len, lines))
    assert longest <= max(columns, 50)
    names = {line.split()[0] for line in lines[2:-1]}
    assert {"convnet-1", "vgg-2", "convnet-seeds-1"} <= names  # which no width makes alike
    if columns in (80, 140):
        assert ("seed" in lines[0]) == (columns == 140)


def test_the_table_has_a_line_for_each_run(made):
    lines = listing.listing(made, overview.overview(made), 80)
    found = {line.split()[0]: line.split() for line in lines[2:-1]}
    assert {*found} >= {"convnet-1", "vgg-2", "failed", "broken", "convnet-seeds-1", "seed-0", "seed-1"}
    result = Run(made / "convnet-1").result
    shares = [f"{result[name]:.2%}" for name in ("validation_accuracy", "test_accuracy")]
    assert found["convnet-1"][1:7] == ["done", "convnet", "shapes", "2/2", *shares]
    assert found["vgg-2"][1:5] == ["stopped", "vgg", "shapes", "1/2"]
    assert found["convnet-seeds-1"][4:6] == ["2", "runs"]
    assert "broken: config file" in " ".join(lines[-3:])


def test_very_many_runs_of_a_recipe_are_counted(made, monkeypatch):
    monkeypatch.setattr(listing, "_MOST_INSIDE", 1)
    lines = listing.listing(made, overview.overview(made), 200)
    assert not any(line.strip().startswith("seed-0") for line in lines)
    assert any("convnet-seeds-1 holds 2 runs: gpuconv runs " in line for line in lines)


def test_ages_are_said_in_one_unit():
    ages = {5: "5 s", 119: "1 min", 7200: "2 h", 86400 * 3.5: "3 d", 86400 * 700: "700 d", 86400 * 800: "2 y"}
    assert {seconds: listing.age(seconds) for seconds in ages} == ages


# The command --------------------------------------------------------------------------------------------------------


def test_the_command_lists_and_writes_json(made, gpuconv):
    code, out, err = gpuconv("runs", made, "--sort", "name")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[2:5]] == ["broken", "convnet-1", "convnet-seeds-1"]
    code, out, err = gpuconv("runs", made, "--sort", "name", "--json")
    assert (code, err) == (0, "")
    found = {entry["name"]: entry for entry in json.loads(out)}
    assert [*found] == ORDERS["name"]
    assert found["convnet-1"]["test_accuracy"] == Run(made / "convnet-1").result["test_accuracy"]
    assert [run["settings"]["seed"] for run in found["convnet-seeds-1"]["runs"]] == [0, 1]
    assert "problem" in found["broken"]


def test_runs_is_the_folder_where_none_is_named(made, gpuconv, monkeypatch, tmp_path):
    monkeypatch.chdir(made.parent)
    assert "convnet-1" in gpuconv("runs")[1]
    monkeypatch.chdir(tmp_path)
    code, out, err = gpuconv("runs")
    assert (code, out) == (2, "")
    assert "there is no folder runs" in err
    (tmp_path / "runs").mkdir()
    assert gpuconv("runs")[1] == "no runs in runs: gpuconv train makes one\n"
    assert gpuconv("runs", "--json")[1] == "[]\n"


def test_an_unknown_order_is_refused(made, gpuconv):
    code, out, err = gpuconv("runs", made, "--sort", "tset")
    assert (code, out) == (2, "")
    assert "sort 'tset' is not known; did you mean \"test\"?" in err


# The page -----------------------------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "path"):
            self.open.append(tag)
        values = dict(attributes)
        assert tag not in ("script", "img", "link", "iframe")
        if tag == "a":
            self.links.append(values["href"])

    def handle_endtag(self, tag):
        if tag != "path":
            assert self.open.pop() == tag


def test_the_page_leads_to_each_report_and_nowhere_else(made, gpuconv):
    code, out, err = gpuconv("runs", made, "--index")
    assert (code, err) == (0, "")
    assert out.endswith(f"{made / 'index.html'} is written\n")
    page = Page((made / "index.html").read_text())
    assert sorted(page.links) == [
        "convnet-1/report.html",
        "convnet-seeds-1/seed-0/report.html",
        "convnet-seeds-1/seed-1/report.html",
    ]
    assert all((made / link).is_file() for link in page.links)


def test_the_page_escapes_what_stands_in_it(tmp_path):
    entry = overview.Entry(tmp_path / "a<b>&c", "done", net="<net>", data='"d"', curve=[(1, 0.5), (2, 0.25)])
    text = index.page(tmp_path, [entry])
    Page(text)
    assert "<net>" not in text
    assert "a&lt;b&gt;&amp;c" in text


def listed(folder: Path) -> dict[str, str]:
    """Return the state that the page has of each run in a folder."""
    text = (folder / "index.html").read_text()
    return {
        name: next(word for word in ("running", "done", "failed", "stopped") if word in row)
        for name in names(folder)
        for row in text.split("<tr>")[2:]
        if f">{name}<" in row
    }


def test_a_run_is_on_the_page_as_it_begins_and_when_it_is_over(tmp_path, monkeypatch):
    seen, real = [], train.Stepper.step

    def watched(self, *arguments):
        seen.append(listed(tmp_path / "runs"))
        return real(self, *arguments)

    monkeypatch.setattr(train.Stepper, "step", watched)
    train.train(change(max_steps=1), runs=tmp_path / "runs", dataset=shapes(), progress="none")
    assert seen == [{"convnet-1": "running"}]
    assert listed(tmp_path / "runs") == {"convnet-1": "done"}
    monkeypatch.setattr(train.Stepper, "step", real)
    with pytest.raises(NonFiniteLossError):
        train.train(change(lr=1e30), runs=tmp_path / "runs", dataset=shapes(), progress="none")
    assert listed(tmp_path / "runs") == {"convnet-1": "done", "convnet-2": "failed"}


def test_an_interrupted_run_is_on_the_page_until_it_has_gone_on(tmp_path):
    train.train(change(max_steps=1), runs=tmp_path, dataset=shapes(), progress="none")
    interrupt(tmp_path / "other", change(), step=12)
    assert listed(tmp_path)["other"] == "stopped"
    train.resume(tmp_path / "other", dataset=shapes(), progress="none")
    assert listed(tmp_path)["other"] == "done"


def test_several_runs_are_on_the_page_of_the_folder_above(tmp_path):
    train.train_sweep(change(max_steps=1), {"lr": [0.1, 0.2]}, runs=tmp_path, dataset=shapes(), progress="none")
    page = Page((tmp_path / "index.html").read_text())
    assert page.links == [f"convnet-sweep-1/lr%3D{rate}/report.html" for rate in ("0.1", "0.2")]
    assert listed(tmp_path) == {"convnet-sweep-1": "done"}
    assert "index.html" not in names(tmp_path / "convnet-sweep-1")


def test_a_folder_of_one_s_own_gets_no_page(tmp_path):
    go(tmp_path / "run", max_steps=1)
    assert names(tmp_path) == ["run"]


def test_a_page_that_is_not_ours_stays(tmp_path, gpuconv):
    (tmp_path / "index.html").write_text("mine")
    train.train(change(max_steps=1), runs=tmp_path, dataset=shapes(), progress="none")
    assert (tmp_path / "index.html").read_text() == "mine"
    code, out, err = gpuconv("runs", tmp_path, "--index")
    assert (code, out) == (2, "")
    assert "index.html is not a page of gpuconv: move it away first" in err


def test_a_page_that_cannot_be_written_ends_no_run(tmp_path, monkeypatch, capsys):
    def full(folder):
        msg = "No space left on device"
        raise CheckpointWriteError(msg)

    monkeypatch.setattr(listed_module.index, "write", full)
    result = train.train(change(max_steps=1), runs=tmp_path, dataset=shapes(), progress="plain")
    assert (result.folder / "result.json").exists()
    assert "index.html could not be written (No space left on device)" in capsys.readouterr().out


def test_the_page_is_no_run_to_compare(tmp_path, gpuconv):
    for _ in range(2):
        train.train(change(max_steps=1), runs=tmp_path, dataset=shapes(), progress="none")
    assert names(tmp_path) == ["convnet-1", "convnet-2", "index.html"]
    code, out, err = gpuconv("compare", *sorted(tmp_path.iterdir()))
    assert (code, err) == (0, "")
    assert "convnet-2 against convnet-1" in out
    (tmp_path / "index.html").write_text("mine")
    assert gpuconv("compare", *sorted(tmp_path.iterdir()))[0] == 2


def test_the_page_of_a_group_is_that_above(made, gpuconv):
    code, _, err = gpuconv("runs", made / "convnet-seeds-1", "--index")
    assert code == 2
    assert "--index is for a folder of runs" in err


@pytest.mark.skipif(os.name == "nt", reason="locks there are mandatory")
def test_a_lock_that_cannot_be_read_is_free(tmp_path):
    assert not durable.is_locked(tmp_path / "none")
    assert not durable.is_locked(tmp_path)


def test_a_folder_of_pictures_is_called_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", lambda name, **_: shapes())
    go(tmp_path / "run", max_steps=1, data=f"{tmp_path}/pets/")
    assert overview.overview(tmp_path)[0].data == "pets"
