"""Runs side by side: which settings differ, by how much the results do, and whether that can be chance."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .. import tables
from ..plural import counted
from ..runs.classes import listed
from ..runs.reading import Reading
from ..runs.settings import shareable
from ..runs.significance import paired, standard_error
from .words import duration, shown

_WIDTH = 80  # columns of text; what stands in tables is as wide as it is
_LEGEND = "\u00b1: standard error of the test accuracy; best: the best epoch, of how many"
_MOST_CLASSES = 20
_SURE = 0.05


class Comparison(str):
    """A text that interpreters and notebooks show in lines."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self)}</pre>"


def compare_runs(runs: Sequence[Reading]) -> Comparison:
    """Return the comparison as lines; every run is held against the first.

    >>> runs = [train.Run("runs/first"), train.Run("runs/first")]
    >>> "settings: all the same" in str(train.compare_runs(runs))
    True
    """
    names = _names(runs)
    parts = [_outcomes(runs, names), _LEGEND, _settings(runs, names), _data(runs, names), _tests(runs, names)]
    parts.append(_classes(runs, names))
    return Comparison("\n\n".join(filter(None, parts)))


def _outcomes(runs: Sequence[Reading], names: Sequence[str]) -> str:
    rows = [["run", "test", "\u00b1", "validation", "best", "time", "images/s", "parameters"]]
    for name, run in zip(names, runs, strict=True):
        result = run.result
        if result is None:
            known = [row["validation_accuracy"] for row in run.metrics if row["validation_accuracy"] is not None]
            seconds = duration(sum(row["seconds"] for row in run.metrics))
            parameters = f"{run.facts['parameters']:,}" if "parameters" in run.facts else "-"
            rows.append([name, "-", "-", f"{max(known):.2%}" if known else "-", "-", seconds, "-", parameters])
            continue
        error = standard_error(result["test_accuracy"], result["test_images"])
        validation = result["validation_accuracy"]
        rows.append(
            [
                name,
                f"{result['test_accuracy']:.2%}",
                f"{error:.2%}",
                "-" if validation is None else f"{validation:.2%}",
                f"{result['best_epoch']}/{result['epochs']}",
                duration(result["seconds"]),
                f"{result['images_per_second']:,.0f}",
                f"{result['parameters']:,}",
            ]
        )
    notes = [f"{name}: {run.state}" for name, run in zip(names, runs, strict=True) if not run.finished]
    return "\n".join([_columns(rows), *notes])


def _settings(runs: Sequence[Reading], names: Sequence[str]) -> str:
    values = [shareable(run.config) for run in runs]
    differing = [name for name in values[0] if any(other[name] != values[0][name] for other in values)]
    if not differing:
        return "settings: all the same"
    rows = [["setting", *names]]
    rows += [[name, *(shown(each[name]) for each in values)] for name in differing]
    return _columns(rows)


def _data(runs: Sequence[Reading], names: Sequence[str]) -> str:
    prints = [run.facts.get("data_fingerprint") for run in runs]
    if None in prints:
        unknown = ", ".join(name for name, known in zip(names, prints, strict=True) if known is None)
        return f"data: not recorded by {unknown}, so it cannot be said whether they are the same"
    counts = [run.facts.get("test_images") for run in runs]
    if len(set(prints)) == 1:
        of = "but not as many test images"
        if len(set(counts)) == 1 and counts[0] is not None:
            of = counted(counts[0], "test image")
        return _paragraph(f"data: the same, {runs[0].facts['data']}, {of}")
    lines = ["data: NOT the same, accuracies cannot be held against each other"]
    lines += [
        f"  {name}: {run.facts['data']} ({run.facts['data_fingerprint'][:8]})"
        for name, run in zip(names, runs, strict=True)
    ]
    return "\n".join(lines)


def _tests(runs: Sequence[Reading], names: Sequence[str]) -> str:
    lines = []
    for name, run in zip(names[1:], runs[1:], strict=True):
        pair = paired(runs[0], run)
        if pair is None:
            continue
        points = 100 * (pair.only_second - pair.only_first) / pair.images
        verdict = "is more than chance" if pair.p < _SURE else "can be chance"
        counts = f"{pair.only_second:,} only {name} recognised, {pair.only_first:,} only {names[0]}"
        lines += [
            f"{name} against {names[0]}: {points:+.2f} points of accuracy on {counted(pair.images, 'test image')}",
            f"  {counts}",
            f"  McNemar p = {pair.p:.2g}: on these test images the difference {verdict}",
        ]
    if lines:
        lines.append("This holds for the nets as they are; another seed of the same settings moves a result, too.")
    return "\n".join(map(_paragraph, lines))


def _classes(runs: Sequence[Reading], names: Sequence[str]) -> str:
    shares = [(run.result or {}).get("test_accuracy_by_class") for run in runs]
    known = [share for share in shares if share is not None]
    if len(known) < len(shares):
        return ""
    classes = [name for name in known[0] if all(name in share for share in known)]
    note = ""
    if alone := sorted({name for share in known for name in share} - set(classes)):
        note += f"\n(left out, for not all runs have them: {listed(alone)})"
    if not classes:
        return f"classes: no run has one of {names[0]}{note}"
    for name, share in zip(names, known, strict=True):
        if [label for label in share if label in set(classes)] != classes:
            note += f"\n({name} has the classes in another order: they are matched by name)"
    if len(classes) > _MOST_CLASSES:

        def spread(name: str) -> float:
            values = [share[name] for share in known if share[name] is not None]
            return max(values, default=0.0) - min(values, default=0.0)

        note += f"\n(the {_MOST_CLASSES} of {len(classes)} classes that differ most)"
        classes = sorted(classes, key=lambda name: -spread(name))[:_MOST_CLASSES]
    rows = [["class", *names]]
    for label in classes:
        base = known[0][label]
        cells = [_share(base)]
        for share in known[1:]:
            value = share[label]
            change = "" if base is None or value is None else f" {100 * (value - base):+6.1f}"
            cells.append(_share(value) + change)
        rows.append([label, *cells])
    return _columns(rows) + note


def _names(runs: Sequence[Reading]) -> list[str]:
    """Return names that tell the runs apart: the folders' own, or with those above them where they are the same."""
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.path) for run in runs]
    return names


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _paragraph(text: str) -> str:
    """Return a line of text as one or more that fit a terminal."""
    return "\n".join(tables.wrapped(text, _WIDTH, indent="  "))


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns with a rule below the head; the first names what the others are of."""
    lines = tables.columns(rows, numbers=len(rows[0]) - 1)
    lines.insert(1, "-" * max(map(tables.width, lines)))
    return "\n".join(lines)
