"""report.html: a run in one file that opens anywhere, offline; no script, no address of anything outside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np

from .. import durable
from ..data.dataset import Dataset
from ..errors import GpuconvError
from ..folders import quoted
from ..plural import counted
from ..png import data_uri, image
from ..runs.reading import Reading
from ..runs.settings import shareable, to_values, values_to_toml
from ..runs.significance import standard_error
from ..tables import shown
from .chart import chart
from .curves import Line, curve_lines
from .filters import first_filters, tile
from .words import duration

NAME = "report.html"

MATRIX_CLASSES = 20  # a larger confusion matrix cannot be read: its largest entries are listed instead
_MOST_FILTERS = 256
_MOST_PAIRS = 12


def after_run(folder: Path, dataset: Dataset) -> list[str]:
    """Write the report of a run that has just ended; return what to say; if that fails, the run does not."""
    try:
        path = write(Reading(folder), dataset)
    except Exception as error:  # noqa: BLE001 - whatever it is, the run is done and kept
        return [f"{NAME} could not be written ({error}); to try again: gpuconv plot {quoted(folder)} --report"]
    return [f"all of it to look at: {path}"]


def write(run: Reading, dataset: Dataset | None, path: Path | None = None) -> Path:
    """Write the report of a run, finished or not, and return its path; without a dataset it has no pictures."""
    path = run.path / NAME if path is None else path
    durable.write(path, page(run, dataset).encode())
    return path


def page(run: Reading, dataset: Dataset | None) -> str:
    """Return the report as HTML."""
    sections = [
        _curves(run),
        _confusion(run),
        _classes(run),
        _mistakes(run, dataset),
        _filters(run),
        _timing(run),
        _settings(run),
        _repeat(run),
        _machine(run),
    ]
    title = escape(f"{run.name}: gpuconv run")
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>\n{style}</style></head>\n<body><main>\n"
        + "\n".join([_head(run), *filter(None, sections)])
        + "\n</main></body></html>\n"
    )


# The sections ---------------------------------------------------------------------------------------------------------


def _head(run: Reading) -> str:
    facts, result = run.facts, run.result
    about = [
        shareable(run.config)["net"],
        *([counted(facts["parameters"], "parameter")] if "parameters" in facts else []),
    ]
    about.append(str(facts.get("data", shareable(run.config)["data"])))
    if result is not None:
        about.append(str(result["date"])[:10])
    tiles = []
    if result is not None:
        accuracy, count = result["test_accuracy"], result["test_images"]
        note = f"&plusmn; {standard_error(accuracy, count):.2%} standard error, {counted(count, 'image')}"
        tiles.append(("test accuracy", f"{accuracy:.2%}", note))
        if result.get("test_accuracy_tta") is not None:
            views = escape(str(run.config.tta))
            tiles.append(("test accuracy, averaged views", f"{result['test_accuracy_tta']:.2%}", views))
        if result["validation_accuracy"] is not None:
            note = f"best epoch: {result['best_epoch']} of {result['epochs']}"
            tiles.append(("validation accuracy", f"{result['validation_accuracy']:.2%}", note))
        tiles.append(("test loss", f"{result['test_loss']:.3f}", "mean cross-entropy"))
        tiles.append(("time", duration(result["seconds"]), f"{result['images_per_second']:,.0f} images/s in training"))
    else:
        tiles.append(("state", "not finished", escape(run.state)))
        if run.metrics:
            row = run.metrics[-1]
            tiles.append(("training loss", f"{row['train_loss']:.3f}", f"epoch {row['epoch']}"))
            known = [row["validation_accuracy"] for row in run.metrics if row["validation_accuracy"] is not None]
            if known:
                tiles.append(("best validation accuracy", f"{max(known):.2%}", "so far"))
    boxes = "".join(
        f'<div class="tile"><div class="label">{label}</div><div class="number">{value}</div>'
        f'<div class="note">{note}</div></div>'
        for label, value, note in tiles
    )
    return (
        f"<header><h1>{escape(run.name)}</h1><p>{escape(' · '.join(about))}</p></header>"
        f'<div class="tiles">{boxes}</div>'
    )


def _curves(run: Reading) -> str:
    loss, accuracy, rate = curve_lines(run)
    charts = [
        (chart("Loss", loss, x="epoch", y=_short), "Loss", loss),
        (chart("Accuracy", accuracy, x="epoch", y=_percent), "Accuracy", accuracy),
        (chart("Learning rate", rate, x="epoch", y=_short, zero=True), "Learning rate", rate),
    ]
    figures = "".join(
        f"<figure><figcaption><b>{title}</b> {_legend(lines)}</figcaption>{drawn}</figure>"
        for drawn, title, lines in charts
        if drawn
    )
    return _section("Curves", f'<div class="charts">{figures}</div>') if figures else ""


def _confusion(run: Reading) -> str:
    if run.result is None:
        return ""
    classes, counts = list(run.result["classes"]), np.array(run.result["confusion"], np.int64)
    parts = []
    if len(classes) <= MATRIX_CLASSES:
        parts.append(_matrix(classes, counts))
    pairs = confused_pairs(counts)[:_MOST_PAIRS]
    if pairs and len(classes) > 2:
        rows = [
            [escape(classes[true]), escape(classes[taken]), f"{count:,}", f"{count / counts[true].sum():.1%}"]
            for true, taken, count in pairs
        ]
        head = ["class", "taken for", "images", "of the class"]
        parts.append(f"<div><h3>Most confused</h3>{table(head, rows, numbers=2)}</div>")
    if not pairs:
        parts.append("<p>No test image was taken for another class.</p>")
    return _section("Confusion", f'<div class="beside">{"".join(parts)}</div>')


def confused_pairs(counts: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (true class, class it was taken for, images), the most frequent first."""
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")
    places = ((int(place) // len(counts), int(place) % len(counts)) for place in order)
    return [(true, taken, int(wrong[true, taken])) for true, taken in places if wrong[true, taken]]


def _matrix(classes: Sequence[str], counts: np.ndarray) -> str:
    totals = counts.sum(axis=1)
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in classes)
    rows = []
    for true, name in enumerate(classes):
        cells = []
        for taken, count in enumerate(counts[true].tolist()):
            share = count / totals[true] if totals[true] else 0.0
            # The root shows small shares, which are what one looks for off the diagonal.
            depth = round(100 * math.sqrt(share))
            kind = "hit" if taken == true else "miss"
            light = " on" if depth > 78 else ""
            text = f"{count:,}" if count else ""
            words = escape(f"{name} taken for {classes[taken]}: {count:,} ({share:.1%})")
            cells.append(f'<td class="{kind}{light}" style="--depth:{depth}%" title="{words}">{text}</td>')
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return (
        "<div><p>Rows: the true class. Columns: the class with the highest score. Number of test images.</p>"
        f'<div class="wide"><table class="matrix"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def _classes(run: Reading) -> str:
    if run.result is None:
        return ""
    shares = run.result["test_accuracy_by_class"]
    known = [(name, share) for name, share in shares.items() if share is not None]
    if len(known) > MATRIX_CLASSES:
        known.sort(key=lambda pair: pair[1])
    bars = "".join(
        f'<div class="bar"><span>{escape(name)}</span><i><b style="width:{share:.2%}"></b></i>'
        f"<em>{share:.1%}</em></div>"
        for name, share in known
    )
    order = ", lowest first" if len(known) > MATRIX_CLASSES else ""
    missing = len(shares) - len(known)
    note = f"<p>{counted(missing, 'class has', 'classes have')} no test image.</p>" if missing else ""
    return _section(f"Accuracy of each class{order}", f'<div class="bars">{bars}</div>{note}')


def _mistakes(run: Reading, dataset: Dataset | None) -> str:
    if run.result is None or not run.result["mistakes"]:
        return ""
    if dataset is None:
        text = f"<p>The pictures of {escape(str(run.result['data']))} are not on this machine.</p>"
        return _section("Most confident mistakes", text)
    figures, classes = [], run.result["classes"]
    for index, true, taken, confidence in run.result["mistakes"]:
        was, said = escape(classes[true]), escape(classes[taken])
        source = data_uri(image(dataset.x_test[index]))
        figures.append(
            f'<figure><img src="{source}" alt="test image {index}: {was}">'
            f"<figcaption><b>{was}</b><br>not {said}<br><small>{confidence:.0%} · no. {index}</small></figcaption></figure>"
        )
    text = "<p>The true class in bold, what it was taken for below, and at what probability.</p>"
    return _section("Most confident mistakes", f'{text}<div class="pictures">{"".join(figures)}</div>')


def _filters(run: Reading) -> str:
    try:
        net = run.net("best" if (run.path / "best.safetensors").exists() else "last")
    except GpuconvError:  # a run without checkpoint yet
        return ""
    named = first_filters(net)
    if named is None:
        return ""
    name, weights = named
    shown = weights[:_MOST_FILTERS]
    pictures = "".join(
        f'<img src="{data_uri(picture)}" alt="filter {k}">' for k, picture in enumerate(map(tile, shown))
    )
    filters, channels, height, width = weights.shape
    what = f"{filters} of {height} x {width}" + (f", the first {len(shown)}" if len(shown) < filters else "")
    how = "as RGB" if channels == 3 else "in grey" if channels == 1 else f"mean over {channels} input channels, in grey"
    text = f"<p>{escape(name)}: {what}, {how}; grey is 0, each filter on a scale of its own.</p>"
    return _section("Filters of the first layer", f'{text}<div class="filters">{pictures}</div>')


def _timing(run: Reading) -> str:
    rows = run.metrics
    if not rows:
        return ""
    seconds = [row["seconds"] for row in rows]
    # The last epoch of a run with max_steps may be short, so images are counted by steps.
    ends = [row["step"] for row in rows]
    steps = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    images = [count * run.config.batch_size for count in steps]
    facts = [
        ("epochs", f"{len(rows)}"),
        ("seconds per epoch, validation included", f"median {np.median(seconds):.1f}, {_range(seconds)}"),
        ("images per second, validation included", f"{sum(images) / max(sum(seconds), 1e-9):,.0f}"),
    ]
    if run.result is not None:
        facts.append(("images per second in training", f"{run.result['images_per_second']:,.0f}"))
    facts.append(("total", duration(sum(seconds))))
    seconds_line = [Line("seconds", [(float(row["epoch"]), row["seconds"]) for row in rows])]
    drawn = chart("Seconds per epoch", seconds_line, x="epoch", y=_short, zero=True) if len(rows) > 1 else ""
    caption = "<figcaption><b>Seconds per epoch</b></figcaption>"
    figure = f"<figure>{caption}{drawn}</figure>" if drawn else ""
    return _section("Timing", f'<div class="charts"><div>{_facts(facts)}</div>{figure}</div>')


def _settings(run: Reading) -> str:
    values = [(name, shown(value)) for name, value in shareable(run.config).items()]
    return _section("Settings", f'<div class="columns">{_facts(values)}</div>')


def _repeat(run: Reading) -> str:
    short, whole = shareable(run.config), to_values(run.config)
    text = values_to_toml(short)
    missing = []
    if short["net"] != whole["net"]:
        missing.append(f"put {short['net']}, from the run folder, beside the file")
    if short["data"] != whole["data"]:
        missing.append(f"in data, the path {short['data']} is cut to its last part: write it in full")
    if whole["data_dir"]:
        missing.append("data_dir, the folder of the data set's files, is left out: write yours")
    note = f"<p>For the text below to do the same: {escape('; '.join(missing))}.</p>" if missing else ""
    command = escape(f"gpuconv train --config {quoted(f'{run.name}/config.toml')}")
    return _section(
        "Repeat it",
        f"<p>Beside the run folder, or with the text below as the file config.toml:</p><pre>{command}</pre>"
        "<p>Same settings, same data and same machine give the same numbers, bit for bit.</p>"
        f"{note}<details><summary>config.toml</summary><pre>{escape(text)}</pre></details>",
    )


def _machine(run: Reading) -> str:
    known = {**run.environment, **(run.result or {})}
    facts: list[tuple[str, str]] = []
    for name, value in known.get("machine", {}).items():
        if name != "thread_settings":
            facts.append((name.replace("_", " "), shown(value)))
    facts += [(name, shown(value)) for name, value in known.get("versions", {}).items()]
    facts += [(name, shown(value)) for name, value in run.environment.get("variables", {}).items()]
    facts.append(("data", str(run.facts.get("data", shareable(run.config)["data"]))))
    counts = [(f"{kind} images", run.facts.get(f"{kind}_images")) for kind in ("training", "validation", "test")]
    facts += [(name, f"{count:,}") for name, count in counts if count is not None]
    if "data_fingerprint" in run.facts:
        facts.append(("data fingerprint", str(run.facts["data_fingerprint"])))
    return _section("Machine, versions, data", f'<div class="columns">{_facts(facts)}</div>')


# Pieces ---------------------------------------------------------------------------------------------------------------


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>"


def _legend(lines: Sequence[Line]) -> str:
    shown = [line for line in lines if line.points]
    if len(shown) < 2:
        return ""
    return "".join(f'<span class="key {line.style}">{escape(line.name)}</span>' for line in shown)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> str:
    """Return a table; the last `numbers` columns are numbers."""
    first = len(head) - numbers

    def cells(tag: str, row: Sequence[str]) -> str:
        kinds = (' class="n"' if column >= first else "" for column in range(len(row)))
        return "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'


def _facts(pairs: Sequence[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>' for name, text in pairs)}</dl>"


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"


def _short(value: float) -> str:
    return f"{value:g}"


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"
