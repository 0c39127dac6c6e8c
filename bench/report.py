"""Write the README's tables, and the full tables and pictures beside the JSON under bench/results/.

python -m bench.report            writes them anew
python -m bench.report --check    exits with 1 if that would change a table
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from . import results, tables

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
_CPU = "operators-cpu-*.json"

# The README's lines: a middling convolution of each net, one of each other operator, a whole step; the slowest is among them.
_SHOWN = (
    "conv convnet 3x3, 32->64, 16x16",
    "conv resnet 3x3, 64->64, 32x32",
    "max_pool 3x3 s2, 64, 112x112",
    "spatial_batchnorm 32, 32x32",
    "relu 32, 32x32",
    "train convnet, batch 128",
)


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
            f"| {machine['processor']}, {machine['threads']} threads, {run['date'][:10]} |"
        )
    return "\n".join(lines)


def readme(text: str) -> str:
    """Return the README with its tables replaced by those of the newest results; dates in names order them."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("train-*.json"))]
    newest = max(RESULTS.glob(_CPU))
    here = "bench/results"
    operators = [
        tables.best_table(results.read(newest), shown=_SHOWN),
        "",
        f"All cases, with every format, spread, error and byte: [{newest.stem}.md]({here}/{newest.stem}.md);",
        f"as a picture: [{newest.stem}.png]({here}/{newest.stem}.png).",
    ]
    for name, table in (("training", training_table(runs)), ("operators", "\n".join(operators))):
        start, end = f"<!-- {name}: made by bench/report.py -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}{table}\n{end}{after}"
    return text


def texts() -> dict[Path, str]:
    """Return every file of tables as it should be."""
    path = ROOT / "README.md"
    found = {path: readme(path.read_text(encoding="utf-8"))}
    for kept in sorted(RESULTS.glob("operators-*.json")):
        found[kept.with_suffix(".md")] = tables.full_table(results.read(kept))
    return found


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
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a table is stale")
    arguments = parser.parse_args(argv)
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
        sys.stderr.write(f"no pictures: {error}; pip install 'gpuconv[bench]'\n")
        return 1
    for kept in sorted(RESULTS.glob("operators-*.json")):
        picture.draw(results.read(kept), kept.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
