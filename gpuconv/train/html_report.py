"""report.html: a run in one file that opens anywhere, offline; no script, no address of anything outside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from .. import durable, nn
from ..backend import asnumpy
from ..data.dataset import Dataset
from ..errors import GpuconvError
from .config import shareable, shown, to_values, values_to_toml
from .drawing import Line, chart, data_uri, image
from .report import duration
from .run import Run

NAME = "report.html"

MATRIX_CLASSES = 20  # a larger confusion matrix cannot be read: its largest entries are listed instead
_MOST_FILTERS = 256
_MOST_PAIRS = 12


def after_run(folder: Path, dataset: Dataset) -> list[str]:
    """Write the report of a run that has just ended; return what to say; if that fails, the run does not."""
    try:
        path = write(Run(folder), dataset)
    except Exception as error:  # noqa: BLE001 - whatever it is, the run is done and kept
        return [f"{NAME} could not be written ({error}); to try again: gpuconv plot {folder} --report"]
    return [f"all of it to look at: {path}"]


def write(run: Run, dataset: Dataset | None, path: Path | None = None) -> Path:
    """Write the report of a run, finished or not, and return its path; without a dataset it has no pictures."""
    path = run.path / NAME if path is None else path
    durable.write(path, page(run, dataset).encode())
    return path


def page(run: Run, dataset: Dataset | None) -> str:
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
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join([_head(run), *filter(None, sections)])
        + "\n</main></body></html>\n"
    )


# The sections ---------------------------------------------------------------------------------------------------------


def _head(run: Run) -> str:
    facts, result = run.facts, run.result
    about = [shareable(run.config)["net"], *([f"{facts['parameters']:,} parameters"] if "parameters" in facts else [])]
    about.append(str(facts.get("data", shareable(run.config)["data"])))
    if result is not None:
        about.append(str(result["date"])[:10])
    tiles = []
    if result is not None:
        accuracy, count = result["test_accuracy"], result["test_images"]
        note = f"&plusmn; {standard_error(accuracy, count):.2%} standard error, {count:,} images"
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


def _curves(run: Run) -> str:
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


def curve_lines(run: Run) -> tuple[list[Line], list[Line], list[Line]]:
    """Return the lines of loss, accuracy and learning rate over the epochs; points lie at the ends of epochs."""
    rows = run.metrics
    steps = [event for event in run.events if event["event"] == "step"]
    plan, epochs = run.facts.get("steps"), run.facts.get("epochs")
    per_epoch = rows[0]["step"] if rows else (plan / epochs if plan and epochs else None)

    def column(name: str) -> list[tuple[float, float]]:
        return [(row["step"] / per_epoch, row[name]) for row in rows if row[name] is not None]

    def of_steps(name: str) -> list[tuple[float, float]]:
        return [(event["step"] / per_epoch, event[name]) for event in steps if name in event]

    if not per_epoch:
        return [], [], []
    loss = [
        Line("each step", of_steps("loss"), "faint"),
        Line("training", column("train_loss"), "a"),
        Line("validation", column("validation_loss"), "b"),
    ]
    accuracy = [
        Line("training", column("train_accuracy"), "a"),
        Line("validation", column("validation_accuracy"), "b"),
    ]
    rates = of_steps("learning_rate") or column("learning_rate")
    rate = [Line("learning rate", rates)]
    return loss, accuracy, rate


def _confusion(run: Run) -> str:
    found = _confusion_of(run)
    if found is None:
        return ""
    classes, counts = found
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
        parts.append(f"<div><h3>Most confused</h3>{_table(head, rows, numbers=2)}</div>")
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
            says = escape(f"{name} taken for {classes[taken]}: {count:,} ({share:.1%})")
            cells.append(f'<td class="{kind}{light}" style="--depth:{depth}%" title="{says}">{text}</td>')
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return (
        "<div><p>Rows: the true class. Columns: the class with the highest score. Number of test images.</p>"
        f'<div class="wide"><table class="matrix"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def _classes(run: Run) -> str:
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
    note = f"<p>{missing} classes have no test image.</p>" if missing else ""
    return _section(f"Accuracy of each class{order}", f'<div class="bars">{bars}</div>{note}')


def _mistakes(run: Run, dataset: Dataset | None) -> str:
    if run.result is None or not run.result["mistakes"]:
        return ""
    if dataset is None:
        text = f"<p>The pictures of {escape(str(run.result['data']))} are not on this machine.</p>"
        return _section("Most confident mistakes", text)
    figures = []
    for index, true, taken, confidence in run.result["mistakes"]:
        was, said = escape(dataset.classes[true]), escape(dataset.classes[taken])
        source = data_uri(image(dataset.x_test[index]))
        figures.append(
            f'<figure><img src="{source}" alt="test image {index}: {was}">'
            f"<figcaption><b>{was}</b><br>not {said}<br><small>{confidence:.0%} · no. {index}</small></figcaption></figure>"
        )
    text = "<p>The true class in bold, what it was taken for below, and at what probability.</p>"
    return _section("Most confident mistakes", f'{text}<div class="pictures">{"".join(figures)}</div>')


def _filters(run: Run) -> str:
    try:
        net = run.net("best" if (run.path / "best.safetensors").exists() else "last")
    except GpuconvError:  # a run without checkpoint yet
        return ""
    found = first_filters(net)
    if found is None:
        return ""
    name, weights = found
    shown = weights[:_MOST_FILTERS]
    pictures = "".join(
        f'<img src="{data_uri(picture)}" alt="filter {k}">' for k, picture in enumerate(map(tile, shown))
    )
    filters, channels, height, width = weights.shape
    what = f"{filters} of {height} x {width}" + (f", the first {len(shown)}" if len(shown) < filters else "")
    how = "as RGB" if channels == 3 else "in grey" if channels == 1 else f"mean over {channels} input channels, in grey"
    text = f"<p>{escape(name)}: {what}, {how}; grey is 0, each filter on a scale of its own.</p>"
    return _section("Filters of the first layer", f'{text}<div class="filters">{pictures}</div>')


def first_filters(net: nn.Net) -> tuple[str, np.ndarray] | None:
    """Return name and weights (K, C, R, S) of the first convolution that sees the picture; None if there is none."""
    for name, leaf in net.body.leaves():
        weights = leaf.params.get("w", leaf.state.get("w"))
        if weights is None:
            continue
        found = asnumpy(weights)
        sees = found.ndim == 4 and found.shape[1] == net.input_shape[0]
        return (name or "conv", np.asarray(found, np.float64)) if sees else None
    return None


def tile(weights: np.ndarray) -> np.ndarray:
    """Return a filter as a picture.   weights: (C, R, S) -> (R, S, 3) uint8 if C is 3, else (R, S)."""
    flat = weights if len(weights) == 3 else weights.mean(axis=0, keepdims=True)
    scale = np.abs(flat).max() or 1.0
    pixels = np.rint(127.5 + 127.5 * flat / scale).astype(np.uint8)
    return image(pixels)


def _timing(run: Run) -> str:
    rows = run.metrics
    if not rows:
        return ""
    seconds = [row["seconds"] for row in rows]
    # The last epoch of a run with max_steps may be short, so images are counted by steps.
    steps = [now["step"] - then for now, then in zip(rows, [0, *(row["step"] for row in rows)], strict=False)]
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


def _settings(run: Run) -> str:
    values = [(name, shown(value)) for name, value in shareable(run.config).items()]
    return _section("Settings", f'<div class="columns">{_facts(values)}</div>')


def _repeat(run: Run) -> str:
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
    command = escape(f"gpuconv train --config {run.name}/config.toml")
    return _section(
        "Repeat it",
        f"<p>Beside the run folder, or with the text below as the file config.toml:</p><pre>{command}</pre>"
        "<p>Same settings, same data and same machine give the same numbers, bit for bit.</p>"
        f"{note}<details><summary>config.toml</summary><pre>{escape(text)}</pre></details>",
    )


def _machine(run: Run) -> str:
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


def standard_error(accuracy: float, count: int) -> float:
    """Return the standard error of a share of count independent images."""
    return math.sqrt(accuracy * (1 - accuracy) / count)


def _confusion_of(run: Run) -> tuple[list[str], np.ndarray] | None:
    if run.result is None:
        return None
    return list(run.result["classes"]), np.array(run.result["confusion"], np.int64)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>"


def _legend(lines: Sequence[Line]) -> str:
    shown = [line for line in lines if line.points]
    if len(shown) < 2:
        return ""
    return "".join(f'<span class="key {line.style}">{escape(line.name)}</span>' for line in shown)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> str:
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


_STYLE = """
:root { color-scheme: light dark; --ink: #1c1f24; --soft: #5c6570; --rule: #d9dde3; --paper: #fff; --box: #f4f6f8;
  --a: #1f6fb4; --b: #c8551b; --faint: #b9cfe3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa4b0; --rule: #363c44; --paper: #15181c;
  --box: #1e2329; --a: #62a8e5; --b: #ef8f58; --faint: #2f4a63; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 12px; } h3 { font-size: 1rem; margin: 20px 0 8px; }
header p { margin: 4px 0 0; color: var(--soft); } section { margin-top: 40px; } section > p { margin: 0 0 12px; }
p { color: var(--soft); max-width: 70ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px; margin-top: 20px; }
.tile { background: var(--box); border-radius: 8px; padding: 12px 14px; }
.label, .note { font-size: .82rem; color: var(--soft); }
.number { font-size: 1.6rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 20px 28px; }
figure { margin: 0; } .chart { display: block; width: 100%; height: auto; max-width: 640px; }
.chart text { fill: var(--soft); font-size: 13px; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--rule); stroke-width: 1; }
.line { fill: none; stroke-width: 2.2; stroke-linejoin: round; stroke-linecap: round; }
.line.a { stroke: var(--a); } .line.b { stroke: var(--b); } .line.faint { stroke: var(--faint); stroke-width: 1; }
.dot.a { fill: var(--a); } .dot.b { fill: var(--b); }
.key { font-size: .85rem; color: var(--soft); margin-left: 12px; white-space: nowrap; }
.key::before { content: ""; display: inline-block; width: 16px; height: 3px; margin-right: 5px; vertical-align: middle;
  border-radius: 2px; background: var(--a); }
.key.b::before { background: var(--b); } .key.faint::before { background: var(--faint); }
.beside { display: flex; flex-wrap: wrap; gap: 8px 48px; } .beside > div { max-width: 100%; }
.beside p { max-width: 480px; margin: 0 0 4px; } .beside h3 { margin-top: 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: 4px 12px 4px 0; text-align: left; border-bottom: 1px solid var(--rule); } th { font-weight: 600; }
.n { text-align: right; }
.matrix { font-size: .8rem; } .matrix td, .matrix th { border: 0; padding: 0; }
.matrix tbody td { width: 46px; min-width: 34px; height: 34px; text-align: center; border: 1px solid var(--paper); }
.matrix th[scope=row] { text-align: right; padding-right: 8px; font-weight: 400; white-space: nowrap; }
.matrix th[scope=col] { font-weight: 400; height: 84px; vertical-align: bottom; }
.matrix th[scope=col] span { writing-mode: vertical-rl; transform: rotate(180deg); margin: auto; display: inline-block; }
.matrix thead th { text-align: center; padding-bottom: 6px; }
.hit { background: color-mix(in srgb, var(--a) var(--depth), var(--box)); }
.miss { background: color-mix(in srgb, var(--b) var(--depth), var(--box)); }
.matrix .on { color: var(--paper); }
.bars { columns: 320px; column-gap: 40px; }
.bar { display: grid; grid-template-columns: minmax(84px, 30%) 1fr 52px; gap: 10px; align-items: center; padding: 2px 0;
  break-inside: avoid; font-size: .9rem; }
.bar span { overflow-wrap: anywhere; }
.bar i { height: 12px; background: var(--box); border-radius: 3px; overflow: hidden; }
.bar b { display: block; height: 100%; background: var(--a); }
.bar em { font-style: normal; text-align: right; font-variant-numeric: tabular-nums; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)); gap: 16px 12px; }
.pictures figcaption { font-size: .78rem; line-height: 1.3; margin-top: 4px; overflow-wrap: anywhere; }
.pictures small { color: var(--soft); }
.pictures img, .filters img { image-rendering: pixelated; border-radius: 2px; display: block; }
.pictures img { width: 100%; max-width: 128px; }
.filters { display: flex; flex-wrap: wrap; gap: 6px; } .filters img { width: 40px; height: 40px; }
dl { margin: 0; font-size: .9rem; } .columns dl { columns: 320px; column-gap: 40px; }
dl div { display: flex; justify-content: space-between; gap: 16px; padding: 3px 0; border-bottom: 1px solid var(--rule);
  break-inside: avoid; }
dt { color: var(--soft); } dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
pre { background: var(--box); border-radius: 6px; padding: 10px 12px; overflow-x: auto; font-size: .85rem;
  font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
summary { cursor: pointer; }
@media (max-width: 520px) { .chart { overflow: visible; } .chart text { font-size: 17px; }
  .matrix { font-size: .7rem; } .matrix tbody td { width: 26px; min-width: 25px; height: 28px; }
  .matrix th[scope=row] { padding-right: 5px; } }
@media print { :root { --ink: #1c1f24; --soft: #5c6570; --rule: #d9dde3; --paper: #fff; --box: #f4f6f8; --a: #1f6fb4;
  --b: #c8551b; --faint: #b9cfe3; } .tiles { grid-template-columns: repeat(4, 1fr); }
  .charts { grid-template-columns: 1fr 1fr; } .columns dl, .bars { columns: 2; } main { max-width: none; padding: 0; } section { margin-top: 24px; }
  figure, table, h2 { break-inside: avoid; } h2, h3 { break-after: avoid; }
  body { font-size: 11pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
