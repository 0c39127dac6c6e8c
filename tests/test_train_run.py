"""A run folder read back: numbers, nets, the HTML report, pictures and text; of runs of every kind."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import shutil
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from train_helpers import TINY, shapes

from gpuconv import cli, data, nn, png, train
from gpuconv.errors import ConfigError, DatasetMissingError
from gpuconv.runs import evaluation, settings
from gpuconv.runs.settings import read
from gpuconv.show import chart, filters, html, plots
from gpuconv.show.chart import ticks
from gpuconv.show.curves import Line
from gpuconv.train import Run


def go(folder: Path, dataset=None, **settings) -> train.Result:
    config = dataclasses.replace(TINY, **settings)
    return train.train(config, folder=folder, dataset=dataset or shapes(), progress="none")


def of_classes(names: list[str]) -> data.Dataset:
    """Return pictures of noise in so many classes."""
    draw = np.random.default_rng(0)
    pictures, labels = draw.integers(0, 256, (400, 3, 32, 32), np.uint8), np.arange(400) % len(names)
    statistics = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    return data.Dataset(
        name="noise", classes=tuple(names), x_train=pictures[:300], y_train=labels[:300], x_test=pictures[300:],
        y_test=labels[300:], source="drawn", **statistics,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of TINY from the first step to the last."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return go(folder)


@pytest.fixture
def here(monkeypatch):
    """The data set of the runs is on this machine."""
    monkeypatch.setattr(data, "load", lambda name, **_: shapes())


# Confusion ----------------------------------------------------------------------------------------------------------


def test_evaluation_counts_what_was_taken_for_what(finished):
    pictures, net = shapes(), train.load_net(finished.folder / "best.safetensors")
    # More than one batch, the last of them not full.
    x, y = np.concatenate([pictures.x_train, pictures.x_test]), np.concatenate([pictures.y_train, pictures.y_test])
    found = train.evaluate(net, x, y, mean=pictures.mean, std=pictures.std, classes=10)
    mean, std = (np.array(each, np.float32).reshape(3, 1, 1) for each in (pictures.mean, pictures.std))
    scores = net.forward((x / np.float32(255) - mean) / std)
    taken = scores.argmax(axis=1)
    wanted = np.zeros((10, 10), np.int64)
    for true, said in zip(y, taken, strict=True):
        wanted[true, said] += 1
    np.testing.assert_array_equal(found.confusion, wanted)
    np.testing.assert_array_equal(found.right, taken == y)
    np.testing.assert_array_equal(found.confusion.sum(axis=1), found.class_counts)
    np.testing.assert_array_equal(found.confusion.diagonal(), found.class_correct)
    shares = np.exp(scores.astype(np.float64))
    shares = (shares / shares.sum(axis=1, keepdims=True)).max(axis=1)
    order = sorted(np.flatnonzero(taken != y), key=lambda image: -shares[image])[: evaluation.MOST_MISTAKES]
    assert [mistake.image for mistake in found.mistakes] == order
    for mistake in found.mistakes:
        assert (mistake.true, mistake.predicted) == (y[mistake.image], taken[mistake.image])
        # A score is a sum of some 300 products after two others: its rounding, times its size, moves the share.
        assert mistake.confidence == pytest.approx(shares[mistake.image], rel=1e-4)


def test_the_result_holds_the_confusion(finished):
    record = json.loads((finished.folder / "result.json").read_text())
    counts = np.array(record["confusion"])
    assert counts.shape == (10, 10)
    assert counts.sum() == record["test_images"] == 60
    assert counts.trace() / 60 == record["test_accuracy"]
    right = evaluation.unpack_bits(record["test_right"], 60)
    assert right.mean() == record["test_accuracy"]
    assert (
        "\n" in (finished.folder / "result.json").read_text().partition('"confusion": [')[2].partition("]")[0] or True
    )


def test_labels_of_a_byte_are_counted_right():
    dataset = of_classes([f"c{number}" for number in range(100)])
    net = nn.ConvNet(2, input_shape=(3, 32, 32), classes=100)
    labels = dataset.y_test.astype(np.uint8)
    found = train.evaluate(net, dataset.x_test, labels, mean=dataset.mean, std=dataset.std, classes=100)
    np.testing.assert_array_equal(found.confusion.sum(axis=1), np.bincount(labels, minlength=100))


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_bits_come_back(count, rng):
    bits = rng.integers(0, 2, count).astype(bool)
    np.testing.assert_array_equal(evaluation.unpack_bits(evaluation.pack_bits(bits), count), bits)


def test_a_matrix_stands_in_the_result_row_by_row(finished):
    lines = (finished.folder / "result.json").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if '"confusion"' in line)
    assert all(re.fullmatch(r"\s+\[(\d+, ){9}\d+\],?", line) for line in lines[start + 1 : start + 11])


# Run ----------------------------------------------------------------------------------------------------------------


def test_a_run_reads_what_the_trainer_wrote(finished, here):
    run = Run(finished.folder)
    assert run.config == TINY
    assert run.metrics == finished.metrics
    assert run.finished
    assert run.result["test_accuracy"] == finished.test_accuracy
    assert run.environment["versions"] == run.result["versions"]
    assert run.evaluate().accuracy == finished.test_accuracy
    assert run.evaluate(shapes(), checkpoint="last").count == 60
    assert repr(run).endswith(f"finished, test accuracy {finished.test_accuracy:.2%}")


def test_a_run_without_its_data_says_so(finished, monkeypatch, tmp_path):
    other = data.draw_shapes(300, 100, seed=1)
    monkeypatch.setattr(data, "load", lambda name, **_: other)
    with pytest.raises(ConfigError, match="the data given or found are others"):
        Run(finished.folder).dataset()
    with pytest.raises(ConfigError, match="the data given or found are others"):
        Run(finished.folder).report(tmp_path / "x.html", dataset=other)


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"is not a run folder: it has no config\.toml"):
        Run(tmp_path)
    with pytest.raises(ConfigError, match="is not a run folder"):
        Run(tmp_path / "none")


def test_a_checkpoint_has_one_of_two_names(finished):
    with pytest.raises(ConfigError, match="checkpoint must be"):
        Run(finished.folder).net("first")


def test_damaged_metrics_are_named(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "run")
    (tmp_path / "run" / "metrics.csv").write_text("epoch,step\n1,x\n")
    with pytest.raises(ConfigError, match=r"metrics\.csv is damaged"):
        _ = Run(tmp_path / "run").metrics


@pytest.mark.parametrize(("content", "message"), [("{", "it is not JSON"), ('{"data": "x"}', "it has no")])
def test_a_damaged_result_is_named(content, message, finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "run")
    (tmp_path / "run" / "result.json").write_text(content)
    with pytest.raises(ConfigError, match=rf"result\.json is damaged.*{message}"):
        _ = Run(tmp_path / "run").result


# The report ---------------------------------------------------------------------------------------------------------

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags are closed in order; keeps texts, addresses and tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "style" not in self.open:
            self.text += text


def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_report_stands_alone(finished):
    text = (finished.folder / "report.html").read_text(encoding="utf-8")
    found = Page(text)
    assert "script" not in found.tags
    assert "link" not in found.tags
    assert all(address.startswith("data:image/png;base64,") for address in found.addresses)
    assert not re.search(r"url\(|@import|https?:", text)
    assert text.startswith("<!DOCTYPE html>")


def test_the_report_holds_what_a_reader_asks_for(finished):
    found, result = page(finished.folder), Run(finished.folder).result
    for title in (
        *("Curves", "Loss", "Accuracy", "Learning rate", "Confusion", "Accuracy of each class"),
        *("Most confident mistakes", "Filters of the first layer", "Timing", "Settings", "Repeat it", "Machine"),
    ):
        assert title in found.text
    assert f"{finished.test_accuracy:.2%}" in found.text
    assert shapes().name in found.text
    assert "gpuconv train --config run/config.toml" in found.text
    assert result["versions"]["numpy"] in found.text
    for name in TINY.__dataclass_fields__:
        assert (name in found.text) == (name != "data_dir")
    assert found.addresses.count("") == 0
    assert len(found.addresses) == len(result["mistakes"]) + 4  # and a picture per filter


def test_the_settings_in_the_report_repeat_the_run(finished, tmp_path):
    text = page(finished.folder).text
    toml = text[text.index("# All settings") :].partition("Machine, versions")[0]
    (tmp_path / "config.toml").write_text(toml)
    assert read(tmp_path / "config.toml") == TINY


def test_paths_in_settings_are_cut_to_their_last_part(finished, tmp_path, monkeypatch):
    values = {**settings.to_values(TINY), "net": "/home/me/a b/net.toml", "data": "C:\\me\\pictures\\"}
    monkeypatch.setattr(settings, "to_values", lambda config: values)
    text = html.page(Run(finished.folder), None)
    assert "home" not in text
    assert "a b" not in text
    assert 'net = "net.toml"' in Page(text).text
    assert 'data = "./pictures"' in Page(text).text
    assert "the path ./pictures is cut to its last part" in Page(text).text


def test_the_pictures_are_those_of_the_mistakes(finished):
    sources = page(finished.folder).addresses
    for source, (image, *_) in zip(sources, Run(finished.folder).result["mistakes"], strict=False):
        assert source == png.data_uri(shapes().x_test[image].transpose(1, 2, 0))


HOSTILE = "<script>alert('&\"</script>"


def test_names_are_escaped(tmp_path):
    dataset = dataclasses.replace(of_classes([HOSTILE, "b"]), name=HOSTILE)
    go(tmp_path / "<b>&'", dataset)
    found = page(tmp_path / "<b>&'")
    assert "script" not in found.tags
    assert HOSTILE in found.text
    assert "<b>&'" in found.text
    assert HOSTILE not in (tmp_path / "<b>&'" / "report.html").read_text()


KINDS = {
    "no_validation": {"validation": 0},
    "one_epoch": {"epochs": 1, "tta": "flip"},
    "one_step": {"epochs": 1, "max_steps": 1},
    "short_last_epoch": {"max_steps": 13},
    "three_layer": {"net": "three-layer", "filters": 3, "hidden": 8},
}


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS.keys())
def test_runs_of_every_kind_have_report_text_and_picture(settings, tmp_path, capsys):
    go(tmp_path / "run", **settings)
    text = page(tmp_path / "run").text
    assert ("validation accuracy" in text) == ("validation" not in settings)
    assert ("averaged views" in text) == ("tta" in settings)
    assert "Filters of the first layer" in text
    assert cli.main(["plot", str(tmp_path / "run"), "--text"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("loss") for line in lines)
    assert any("training 0" in line or "training 1" in line or "training 2" in line for line in lines)
    pytest.importorskip("matplotlib")
    assert len(Run(tmp_path / "run").plot().axes) == 3


@pytest.mark.parametrize("classes", [2, 20, 21, 100])
def test_any_number_of_classes_is_legible(classes, tmp_path):
    names = [f"class{number}" for number in range(classes)]
    go(tmp_path / "run", of_classes(names), epochs=1)
    text = (tmp_path / "run" / "report.html").read_text()
    assert ('class="matrix"' in text) == (classes <= html.MATRIX_CLASSES)
    assert ("Most confused" in text) == (classes > 2)
    assert (" classes have no test image" in text) == (classes == 100)  # 60 test images
    assert ("lowest first" in text) == (classes > 20)


def test_pairs_are_listed_by_how_often_they_are_confused():
    counts = np.array([[5, 2, 0], [7, 9, 1], [0, 2, 3]])
    assert html.confused_pairs(counts) == [(1, 0, 7), (0, 1, 2), (2, 1, 2), (1, 2, 1)]


def test_an_unfinished_run_has_a_report(finished, tmp_path, here):
    shutil.copytree(finished.folder, tmp_path / "run")
    for name in ("result.json", "report.html"):
        (tmp_path / "run" / name).unlink()
    path = Run(tmp_path / "run").report()
    assert path == tmp_path / "run" / "report.html"
    text = page(tmp_path / "run").text
    assert "not finished, 2 of 2 epochs done" in text
    assert "Curves" in text
    assert "Confusion" not in text


def test_a_run_that_has_only_begun_has_a_report(finished, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copy(finished.folder / "config.toml", tmp_path / "run")
    Run(tmp_path / "run").report(dataset=shapes())
    assert "not finished, 0 of 2 epochs done" in page(tmp_path / "run").text


def test_without_the_data_the_report_says_that_pictures_are_missing(finished, tmp_path, monkeypatch):
    def missing(*_, **__):
        msg = "not here"
        raise DatasetMissingError(msg)

    monkeypatch.setattr(data, "load", missing)
    path = Run(finished.folder).report(tmp_path / "other.html")
    assert "are not on this machine" in Page(path.read_text()).text


def test_a_report_that_fails_does_not_lose_the_run(tmp_path, monkeypatch, capsys):
    def broken(*_):
        msg = "no ink"
        raise RuntimeError(msg)

    monkeypatch.setattr(html, "page", broken)
    result = train.train(TINY, folder=tmp_path / "run", dataset=shapes(), progress="plain")
    assert (result.folder / "result.json").exists()
    assert "report.html could not be written (no ink); to try again: gpuconv plot" in capsys.readouterr().out


# Filters ------------------------------------------------------------------------------------------------------------


def test_the_filters_are_those_that_see_the_picture():
    net = nn.Net(nn.Sequential(nn.Relu(), nn.Conv(3, 5, 3), nn.Conv(5, 3, 3)), (3, 8, 8))
    name, weights = filters.first_filters(net)
    assert name == "conv1"
    np.testing.assert_array_equal(weights, net.params["conv1.w"])


def test_a_net_without_a_first_convolution_has_no_filters():
    net = nn.Net(nn.Sequential(nn.Flatten(), nn.Affine(12, 3)), (3, 2, 2))
    assert filters.first_filters(net) is None


TILES = {
    "rgb": (np.array([[[1.0]], [[-1.0]], [[0.0]]]), [[[255, 0, 128]]]),
    "grey": (np.array([[[2.0, -1.0]]]), [[255, 64]]),
    "mean_of_two": (np.array([[[2.0, 0.0]], [[0.0, -1.0]]]), [[255, 64]]),
    "zero": (np.zeros((3, 1, 1)), [[[128, 128, 128]]]),
}


@pytest.mark.parametrize(("weights", "wanted"), TILES.values(), ids=TILES.keys())
def test_zero_is_grey_in_a_filter(weights, wanted):
    assert filters.tile(weights).tolist() == wanted


# Drawing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (4, 7, 3)])
def test_a_png_holds_the_picture(shape, rng):
    picture = rng.integers(0, 256, shape, np.uint8)
    content, chunks = png.png(picture)[8:], {}
    while content:
        (size,) = struct.unpack(">I", content[:4])
        name, body = content[4:8], content[8 : 8 + size]
        assert struct.unpack(">I", content[8 + size : 12 + size]) == (zlib.crc32(name + body),)
        chunks[name], content = body, content[12 + size :]
    assert struct.unpack(">IIBB", chunks[b"IHDR"][:10]) == (shape[1], shape[0], 8, 2 if len(shape) == 3 else 0)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(shape[0], -1)
    assert not rows[:, 0].any()
    np.testing.assert_array_equal(rows[:, 1:].reshape(shape), picture)
    plots_read = pytest.importorskip("matplotlib.image").imread(io.BytesIO(png.png(picture)), format="png")
    np.testing.assert_array_equal(np.rint(plots_read[..., : picture.shape[-1]] * 255) if len(shape) == 3 else
                                  np.rint(plots_read * 255), picture)  # fmt: skip


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.1, 0.34), (-3, 17), (5, 5), (0, 0), (1e-9, 3e-9), (0, 1e6)])
def test_ticks_are_few_round_and_around_the_values(low, high):
    found = ticks(low, high)
    assert 3 <= len(found) <= 9
    assert found[0] <= low
    assert found[-1] >= high
    steps = np.diff(found)
    assert np.ptp(steps) < 1e-9 * max(abs(steps))
    assert all(step in (1, 2, 3, 4, 5) or step % 1 == 0 for step in np.diff(ticks(low, high, whole=True)))


def test_a_chart_places_its_points_between_the_axes():
    drawn = chart.chart("t", [Line("a", [(1, 0.0), (2, 10.0)])], x="epoch", y="{:g}".format)
    dots = [(float(a), float(b)) for a, b in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    (first, second), height = dots, 260 - 12 - 38
    assert second[0] == 560 - 14
    assert first[0] == pytest.approx((52 + 560 - 14) / 2, abs=0.1)  # the axis begins at 0
    assert (first[1], second[1]) == (12 + height, 12)


def test_the_first_steps_do_not_flatten_the_chart():
    faint = [(step / 100, 1000.0 if step < 5 else 2.0) for step in range(100)]
    lines = [Line("each step", faint, "faint"), Line("training", [(1, 2.0)])]
    assert ">1000<" not in chart.chart("t", lines, x="epoch", y="{:g}".format)


@pytest.mark.parametrize(("value", "below"), [(0.0, False), (0.5, False), (-1.0, True)])
def test_one_value_gives_no_axis_below_zero_unless_it_is(value, below):
    drawn = chart.chart("t", [Line("a", [(1, value)])], x="epoch", y="{:g}".format)
    assert (">-" in drawn) == below


def test_a_chart_of_nothing_is_nothing():
    assert chart.chart("t", [Line("a", [])], x="epoch", y=str) == ""


# The command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def gpuconv(capsys, here):
    def run(*arguments: object) -> tuple[int, str, str]:
        return (cli.main([str(argument) for argument in arguments]), *capsys.readouterr())

    return run


@pytest.mark.long
@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")])
def test_plot_saves_a_picture(suffix, start, gpuconv, finished, tmp_path):
    pytest.importorskip("matplotlib")
    files = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for file in files:
        code, out, err = gpuconv("plot", finished.folder, "--save", file)
        assert (code, out, err) == (0, f"{file} is written\n", "")
    assert files[0].read_bytes().startswith(start)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_plot_writes_the_report_anew(gpuconv, finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    code, out, _ = gpuconv("plot", tmp_path / "run", "--report")
    assert (code, out) == (0, f"{tmp_path / 'run' / 'report.html'} is written\n")
    assert (tmp_path / "run" / "report.html").read_bytes() == (finished.folder / "report.html").read_bytes()


def test_plot_draws_in_the_terminal_without_matplotlib(gpuconv, finished, monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)
    code, out, err = gpuconv("plot", finished.folder)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines if line[:1].isalpha()] == ["loss", "accuracy"]
    assert len(lines) <= 23  # and a prompt
    assert max(map(len, lines[len(lines) - 20 :])) < 80


BAD = {
    "no_run": (["plot", "nowhere"], "nowhere is not a run folder"),
    "other_picture": (["plot", "RUN", "--save", "x.gif"], "must end in .png, .svg, .pdf, got x.gif"),
    "one_run": (["compare", "RUN"], "a comparison needs two runs or more"),
    "compare_other_picture": (["compare", "RUN", "RUN", "--save", "x"], "must end in .png, .svg, .pdf, got x"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_plotted_exits_with_2(arguments, message, gpuconv, finished):
    code, out, err = gpuconv(*(finished.folder if word == "RUN" else word for word in arguments))
    assert (code, out) == (2, "")
    assert message in err


def test_a_picture_without_matplotlib_says_what_to_install(gpuconv, finished, monkeypatch, tmp_path):
    monkeypatch.setattr(plots, "available", lambda: False)
    code, _, err = gpuconv("plot", finished.folder, "--save", tmp_path / "x.png")
    assert code == 2
    assert "pip install -e '.[plots]' in the checkout" in err
    with pytest.raises(ConfigError, match="matplotlib"):
        Run(finished.folder).plot()


# In notebooks -------------------------------------------------------------------------------------------------------


def test_runs_results_and_nets_show_as_tables(finished):
    for shown in (Run(finished.folder)._repr_html_(), finished._repr_html_()):
        assert Page(shown).tags.count("tr") == 3
        assert f"{finished.test_accuracy:.2%}" in shown
    assert repr(finished) == f"Result(run: {finished.state})"
    assert finished.state == f"test accuracy {finished.test_accuracy:.2%}, best epoch {finished.best_epoch} of 2"
    net = Run(finished.folder).net()
    shown = Page(net._repr_html_())
    assert shown.tags.count("tr") == len(net.summary().splitlines()) - 1
    assert f"{net.flat_params.size:,}" in shown.text


def test_curves_show_as_a_picture_without_the_inline_backend(finished):
    pytest.importorskip("matplotlib")
    picture = Run(finished.folder).plot()._repr_png_()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 1000


def test_the_epochs_of_a_result_are_folded_away_for_training_has_shown_them(finished):
    opened, folded = Page(Run(finished.folder)._repr_html_()), Page(finished._repr_html_())
    assert "details" not in opened.tags
    assert folded.tags.index("details") < folded.tags.index("summary") < folded.tags.index("table")


def test_settings_show_what_differs_from_their_defaults():
    assert repr(train.Config()) == "Config()"
    config = train.Config(lr=0.3, widths=(4, 8), flip=False)
    assert repr(config) == "Config(widths=(4, 8), flip=False, lr=0.3)"
    assert eval(repr(config), {"Config": train.Config}) == config


def test_settings_show_beside_those_of_their_preset():
    assert Page(train.PRESETS["resnet9"]._repr_html_()).text == "Config: preset resnet9, 0 settings changed"
    config = dataclasses.replace(train.PRESETS["resnet9"], lr=0.3, flip=False, widths=(8, 16))
    shown = Page(config._repr_html_())
    assert "preset resnet9, 3 settings changed" in shown.text
    rows = re.findall(r"<tr>(.*?)</tr>", config._repr_html_())
    cells = [re.findall(r"<t[dh]>(.*?)</t[dh]>", row) for row in rows]
    assert cells == [
        ["setting", "here", "resnet9"],
        ["widths", "8, 16", "-"],
        ["flip", "no", "yes"],
        ["lr", "0.3", "0.2"],
    ]


def test_a_data_set_shows_pictures_of_each_class():
    dataset = shapes()
    html = dataset._repr_html_()
    shown = Page(html)
    assert all(name in shown.text for name in dataset.classes)
    assert "300" not in shown.text.replace(dataset.name, "")
    sources = re.findall(r"<td>([^<]*)</td><td>(\d+)</td><td>(\d+)</td><td>(.*?)</td>", html)
    assert [name for name, *_ in sources] == list(dataset.classes)
    for label, (_, train_count, test_count, pictures) in enumerate(sources):
        own = dataset.x_train[dataset.y_train == label]
        assert (int(train_count), int(test_count)) == (len(own), (dataset.y_test == label).sum())
        wanted = [png.data_uri(png.image(pixels)) for pixels in own[:6]]
        assert re.findall(r'src="(.*?)"', pictures) == wanted


def test_large_pictures_and_many_classes_of_a_data_set_are_shown_in_part():
    names = tuple(f"class {number:02}" for number in range(12))
    x = np.zeros((12, 1, 130, 100), np.uint8)
    dataset = data.Dataset("<own>", names, x, np.arange(12), x[:1], np.zeros(1, int), (0.5,), (0.5,), "", validation=2)
    shown = Page(dataset._repr_html_())
    assert "<own>" in shown.text
    assert "class 09" in shown.text
    assert "class 10" not in shown.text
    assert shown.text.endswith("and 2 classes more")
    assert "pictures of 100 x 130 (width x height), 1 channel" in shown.text
    assert shown.text.count("validation") == 1
    content = base64.b64decode(re.findall(r"base64,(.*?)\"", dataset._repr_html_())[0])
    assert struct.unpack(">II", content[16:24]) == (34, 44)


def test_a_data_set_shows_in_a_line():
    assert repr(shapes()) == "Dataset('shapes (built in, seed 0, 300 + 100 pictures)', 10 classes, 300 + 100 pictures)"


def test_an_evaluation_shows_as_a_table(finished, here):
    found = Run(finished.folder).evaluate()
    shown = Page(found._repr_html_())
    assert shown.tags.count("tr") == 11
    assert f"accuracy {found.accuracy:.2%}" in shown.text
    assert repr(found) == f"Evaluation({found.state} of 10 classes)"
    assert f"{found.class_accuracy[3]:.2%}" in shown.text
    assert all(name in shown.text for name in shapes().classes)


def test_the_report_says_that_the_folder_of_the_data_is_left_out(tmp_path):
    go(tmp_path / "run", data_dir="/somewhere/else")
    text = page(tmp_path / "run").text
    assert "For the text below to do the same: data_dir, the folder of the data set's files, is left out" in text
    assert "somewhere" not in text
