"""Write the tables of README and docs/benchmarks.md, and the full tables and pictures beside the JSON under bench/results/.

python -m bench.report                     writes them anew
python -m bench.report --check             exits with 1 if that would change a table
python -m bench.report FILE FILE FILE      prints the table of these runs, and writes nothing

operators-cpu-DATE-1.json, -2, -3 are runs of one table, which shows their medians.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpuconv import extras
from gpuconv.errors import ConfigError
from gpuconv.plural import counted

from . import results, tables
from .results import Result

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
_CPU = "operators-cpu-"

# The lines of docs/benchmarks.md: a middling convolution of each net, one of each other operator, a whole step; the slowest is among them.
_SHOWN = (
    "conv convnet 3x3, 32->64, 16x16",
    "conv resnet 3x3, 64->64, 32x32",
    "max_pool 3x3 s2, 64, 112x112",
    "spatial_batchnorm 32, 32x32",
    "relu 32, 32x32",
    "train convnet, batch 128",
)
# Those of the README, which has five.
_SHORT = (
    "conv convnet 3x3, 32->64, 16x16",
    "conv resnet 3x3, 64->64, 32x32",
    "max_pool 3x3 s2, 64, 112x112",
    "spatial_batchnorm 32, 32x32",
    "train convnet, batch 128",
)
_SLOW_IN_PYTORCH = "conv three-layer 3x3, 3->64, 32x32"  # which flatters the mean


def training_table(runs: list[dict[str, Any]]) -> str:
    """Return the table of training runs, one row per result.json."""
    lines = [
        "| preset | data | validation | test | test, averaged views | epochs | time | machine |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for run in runs:
        machine, minutes = run["machine"], run["seconds"] / 60
        views = run.get("test_accuracy_tta")
        lines.append(
            f"| `{run['config']['preset']}` | {run['data']} | {run['validation_accuracy']:.1%} "
            f"| {run['test_accuracy']:.1%} | {'' if views is None else f'{views:.1%}'} | {run['epochs']} | {minutes:.1f} min "
            f"| {machine['processor']}, {counted(machine['threads'], 'thread')}, {run['date'][:10]} |"
        )
    return "\n".join(lines)


def groups() -> dict[str, list[Path]]:
    """Return the results of operators by the name of their table, each with the files of its runs."""
    found: dict[str, list[Path]] = {}
    for path in sorted(RESULTS.glob("operators-*.json")):
        found.setdefault(_table_name(path), []).append(path)
    return found


def _table_name(path: Path) -> str:
    """Return the name of a file without the number of a run, which follows the date."""
    return re.sub(r"(-\d{4}-\d\d-\d\d)-\d+$", r"\1", path.stem)


def operators_table(paths: Sequence[Path]) -> str:
    """Return the table of the runs in these files; below that of several, steps and noise of their day."""
    runs = [results.read(path) for path in paths]
    result = results.middle(runs)
    if len(runs) == 1:
        return tables.best_table(result, shown=_SHOWN)
    text = [tables.best_table(result, shown=_SHOWN, apart=_SLOW_IN_PYTORCH)]
    beside = [
        paths[0].with_name(f"{kind}-{_table_name(paths[0]).removeprefix('operators-')}.json")
        for kind in ("steps", "aa")
    ]
    steps, noise = (results.read(path) if path.exists() else None for path in beside)
    if steps:
        text.append(tables.best_table(steps))
    if noise:
        text.append(f"Noise: {tables.noise(noise)}.")
    return "\n\n".join(text)


def filled(page: Path, text: str) -> str:
    """Return a page with its tables replaced by those of the newest results; dates in names order them."""
    for name, made in _TABLES.items():
        start, end = f"<!-- {name}: made by bench/report.py -->\n", f"<!-- end of {name} -->"
        before, begun, rest = text.partition(start)
        if begun:
            text = f"{before}{start}{made(page)}\n{end}{rest.partition(end)[2]}"
    return text


def _newest() -> str:
    return max(name for name in groups() if name.startswith(_CPU))


def _training(page: Path) -> str:
    del page
    return training_table(
        [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("train-*.json"))]
    )


def _operators(page: Path) -> str:
    newest, here = _newest(), Path(os.path.relpath(RESULTS, page.parent)).as_posix()
    links = [
        f"All cases, with every format, spread, error and byte: [{newest}.md]({here}/{newest}.md).  As a picture:",
        "",
        f"![Ratios of all cases, gpuconv to each peer]({here}/{newest}.png)",
    ]
    return "\n".join([operators_table(groups()[newest]), "", *links])


def _speed(page: Path) -> str:
    del page
    return tables.short_table(results.middle([results.read(path) for path in groups()[_newest()]]), "torch", _SHORT)


_TABLES = {"training": _training, "operators": _operators, "speed": _speed}
_PAGES = ("README.md", "docs/benchmarks.md")


def texts() -> dict[Path, str]:
    """Return every file of tables as it should be."""
    found = {}
    for page in (ROOT / name for name in _PAGES):
        found[page] = filled(page, page.read_text(encoding="utf-8"))
    for name, result in _results().items():
        found[RESULTS / f"{name}.md"] = tables.full_table(result)
    return found


def _results() -> dict[str, Result]:
    return {name: results.middle([results.read(path) for path in paths]) for name, paths in groups().items()}


def stale() -> list[str]:
    """Return the names of the files that are not what the results say."""
    return [
        path.relative_to(ROOT).as_posix()
        for path, text in texts().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="runs whose table is printed")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a table is stale")
    arguments = parser.parse_args(argv)
    if arguments.files:
        try:
            sys.stdout.write(operators_table(arguments.files) + "\n")
        except (ConfigError, OSError) as error:
            sys.stderr.write(f"{error}\n")
            return 2
        return 0
    if arguments.check:
        names = stale()
        if names:
            sys.stderr.write(f"{', '.join(names)}: stale, run python -m bench.report\n")
        return int(bool(names))
    for path, text in texts().items():
        path.write_text(text, encoding="utf-8")
    try:
        from . import picture
    except ImportError as error:
        sys.stderr.write(f"no pictures: {error}; {extras.install('bench')}\n")
        return 1
    for name, result in _results().items():
        picture.draw(result, RESULTS / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
