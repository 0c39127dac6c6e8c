"""Runs side by side: which settings differ, by how much the results do, and whether that can be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from .. import tables
from ..plural import counted
from ..runs.classes import listed
from ..runs.reading import Reading
from ..runs.settings import shareable
from ..runs.significance import paired, standard_error
from .words import duration

_WIDTH = 80  # columns of text; what stands in tables is as wide as it is
_HEAD = ["run", "test", "\u00b1", "validation", "best", "time", "images/s", "parameters"]
_LEGEND = "\u00b1: standard error of the test accuracy; best: the best epoch, of how many"
_ANOTHER_SEED = "This holds for the nets as they are; another seed of the same settings moves a result, too."
_MOST_CLASSES = 20
_SURE = 0.05


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Comparison:
    """Runs held against the first of them: as text by print(), as tables in a notebook, and as data.

    >>> comparison = train.compare_runs([train.Run("runs/first"), train.Run("runs/first")])
    >>> [row["epochs"] for row in comparison.rows], comparison.settings
    ([1, 1], {})
    """

    rows: list[dict[str, Any]]
    """One dict per run, what is not known of it None: name, state, test_accuracy, standard_error, validation_accuracy,
    best_epoch, epochs, seconds, images_per_second, parameters."""
    settings: dict[str, list[Any]]
    """The settings that differ, each with its value in every run."""
    pairs: list[dict[str, Any]]
    """One dict per run after the first, where both were tested on the same images: name, images, points of accuracy more
    than the first, only_first, only_second (images that one alone recognised) and McNemar's p."""
    classes: dict[str, list[float | None]]
    """The test accuracy of each class that all runs have, in every run."""
    about_data: list[str]
    """Whether the runs had the same data set, in sentences."""
    about_classes: list[str]
    """What there is to say of the classes, in sentences."""

    def __str__(self) -> str:
        return self.text()

    def text(self, columns: int | None = None) -> str:
        """Return the comparison as text.   columns: how wide its tables may be."""

        def table(rows: Sequence[Sequence[str]]) -> str:
            return "\n".join(tables.ruled(rows, columns))

        notes = [f"{row['name']}: {row['state']}" for row in self.rows if row["test_accuracy"] is None]
        settings = self._settings()
        pairs = [line for pair in self.pairs for line in self._pair(pair)]
        if pairs:
            pairs.append(_ANOTHER_SEED)
        classes = [f"({note})" for note in self.about_classes]
        if self.classes:
            classes.insert(0, table(self._classes()))
        elif classes:
            classes[0] = f"classes: no run has one of {self.rows[0]['name']}\n{classes[0]}"
        parts = [
            "\n".join([table(self._outcomes()), *notes]),
            _LEGEND,
            table(settings) if settings else "settings: all the same",
            "\n".join(map(_paragraph, self.about_data)),
            "\n".join(map(_paragraph, pairs)),
            "\n".join(classes),
        ]
        return "\n\n".join(filter(None, parts))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        def table(rows: Sequence[Sequence[str]]) -> str:
            return tables.html_table(rows[0], rows[1:]) if rows else ""

        def paragraphs(sentences: Sequence[str]) -> str:
            return "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)

        states = [f"{row['name']}: {row['state']}" for row in self.rows if row["test_accuracy"] is None]
        pairs = [". ".join(line.strip() for line in self._pair(pair)) for pair in self.pairs]
        parts = [
            table(self._outcomes()),
            paragraphs([*states, _LEGEND]),
            table(self._settings()) or paragraphs(["settings: all the same"]),
            paragraphs([*self.about_data, *pairs, *([_ANOTHER_SEED] if pairs else [])]),
            table(self._classes()) if self.classes else "",
            paragraphs(self.about_classes),
        ]
        return f"<div>{''.join(parts)}</div>"

    def _outcomes(self) -> list[list[str]]:
        rows = [_HEAD]
        for row in self.rows:
            best = row["best_epoch"]
            speed, parameters = row["images_per_second"], row["parameters"]
            rows.append(
                [
                    row["name"],
                    _percent(row["test_accuracy"]),
                    _percent(row["standard_error"]),
                    _percent(row["validation_accuracy"]),
                    "-" if best is None else f"{best}/{row['epochs']}",
                    duration(row["seconds"]),
                    "-" if speed is None else f"{speed:,.0f}",
                    "-" if parameters is None else f"{parameters:,}",
                ]
            )
        return rows

    def _settings(self) -> list[list[str]]:
        rows = [[name, *map(tables.shown, values)] for name, values in self.settings.items()]
        return [["setting", *self._names()], *rows] if rows else []

    def _pair(self, pair: dict[str, Any]) -> list[str]:
        first, name = self.rows[0]["name"], pair["name"]
        verdict = "is more than chance" if pair["p"] < _SURE else "can be chance"
        return [
            f"{name} against {first}: {pair['points']:+.2f} points of accuracy on {counted(pair['images'], 'test image')}",
            f"  {pair['only_second']:,} only {name} recognised, {pair['only_first']:,} only {first}",
            f"  McNemar p = {pair['p']:.2g}: on these test images the difference {verdict}",
        ]

    def _classes(self) -> list[list[str]]:
        rows = [["class", *self._names()]]
        for label, shares in _most_different(self.classes).items():
            base, *others = shares
            cells = [_share(base)]
            for value in others:
                change = "" if base is None or value is None else f" {100 * (value - base):+6.1f}"
                cells.append(_share(value) + change)
            rows.append([label, *cells])
        return rows

    def _names(self) -> list[str]:
        return [row["name"] for row in self.rows]


def compare_runs(runs: Sequence[Reading]) -> Comparison:
    """Return the comparison of runs; every one is held against the first.

    >>> runs = [train.Run("runs/first"), train.Run("runs/first")]
    >>> "settings: all the same" in str(train.compare_runs(runs))
    True
    """
    names = _names(runs)
    classes, about_classes = _of_classes(runs, names)
    return Comparison(
        rows=[_outcome(run, name) for run, name in zip(runs, names, strict=True)],
        settings=_differing(runs),
        pairs=_pairs(runs, names),
        classes=classes,
        about_data=_of_data(runs, names),
        about_classes=about_classes,
    )


def _outcome(run: Reading, name: str) -> dict[str, Any]:
    """Return the row of a run; of one that is not finished the best validation so far."""
    result = run.result or {}
    known = [row["validation_accuracy"] for row in run.metrics if row["validation_accuracy"] is not None]
    return {
        "name": name,
        "state": run.state,
        "test_accuracy": result.get("test_accuracy"),
        "standard_error": standard_error(result["test_accuracy"], result["test_images"]) if result else None,
        "validation_accuracy": result["validation_accuracy"] if result else max(known, default=None),
        "best_epoch": result.get("best_epoch"),
        "epochs": result.get("epochs", len(run.metrics)),
        "seconds": result["seconds"] if result else sum(row["seconds"] for row in run.metrics),
        "images_per_second": result.get("images_per_second"),
        "parameters": run.facts.get("parameters"),
    }


def _differing(runs: Sequence[Reading]) -> dict[str, list[Any]]:
    """Return the settings that are not the same in all runs."""
    values = [shareable(run.config) for run in runs]
    columns = {name: [each[name] for each in values] for name in values[0]}
    return {name: column for name, column in columns.items() if any(value != column[0] for value in column)}


def _of_data(runs: Sequence[Reading], names: Sequence[str]) -> list[str]:
    """Say whether the runs had the same data set."""
    prints = [run.facts.get("data_fingerprint") for run in runs]
    if None in prints:
        unknown = ", ".join(name for name, known in zip(names, prints, strict=True) if known is None)
        return [f"data: not recorded by {unknown}, so it cannot be said whether they are the same"]
    counts = [run.facts.get("test_images") for run in runs]
    if len(set(prints)) == 1:
        of = "but not as many test images"
        if len(set(counts)) == 1 and counts[0] is not None:
            of = counted(counts[0], "test image")
        return [f"data: the same, {runs[0].facts['data']}, {of}"]
    lines = [
        f"  {name}: {run.facts['data']} ({run.facts['data_fingerprint'][:8]})"
        for name, run in zip(names, runs, strict=True)
    ]
    return ["data: NOT the same, accuracies cannot be held against each other", *lines]


def _pairs(runs: Sequence[Reading], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return what McNemar's test says of each run and the first, where they were tested on the same images."""
    found = []
    for name, run in zip(names[1:], runs[1:], strict=True):
        pair = paired(runs[0], run)
        if pair is not None:
            points = 100 * (pair.only_second - pair.only_first) / pair.images
            counts = {"only_first": pair.only_first, "only_second": pair.only_second}
            found.append({"name": name, "images": pair.images, "points": points, **counts, "p": pair.p})
    return found


def _of_classes(runs: Sequence[Reading], names: Sequence[str]) -> tuple[dict[str, list[float | None]], list[str]]:
    """Return the accuracies of the classes that all runs have, and what there is to say of them."""
    shares = [(run.result or {}).get("test_accuracy_by_class") for run in runs]
    known = [share for share in shares if share is not None]
    if len(known) < len(shares):
        return {}, []
    classes = {name: [share[name] for share in known] for name in known[0] if all(name in share for share in known)}
    notes = []
    if alone := sorted({name for share in known for name in share} - classes.keys()):
        notes.append(f"left out, for not all runs have them: {listed(alone)}")
    if not classes:
        return {}, notes
    for name, share in zip(names, known, strict=True):
        if [label for label in share if label in classes] != list(classes):
            notes.append(f"{name} has the classes in another order: they are matched by name")
    if len(classes) > _MOST_CLASSES:
        notes.append(f"the {_MOST_CLASSES} of {len(classes)} classes that differ most")
    return classes, notes


def _most_different(classes: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
    """Return the classes to show: of many those that differ most."""

    def spread(name: str) -> float:
        values = [share for share in classes[name] if share is not None]
        return max(values, default=0.0) - min(values, default=0.0)

    if len(classes) <= _MOST_CLASSES:
        return classes
    return {name: classes[name] for name in sorted(classes, key=lambda name: -spread(name))[:_MOST_CLASSES]}


def _names(runs: Sequence[Reading]) -> list[str]:
    """Return names that tell the runs apart: the folders' own, or with those above them where they are the same."""
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.path) for run in runs]
    return names


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _paragraph(text: str) -> str:
    """Return a line of text as one or more that fit a terminal."""
    return "\n".join(tables.wrapped(text, _WIDTH, indent="  "))
