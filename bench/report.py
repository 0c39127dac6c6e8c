"""Write the README's tables from the JSON under bench/results/: nobody types a number into them.

python -m bench.report            rewrites README.md between the markers
python -m bench.report --check    exits with 1 if that would change anything
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"


def training_table(results: list[dict[str, Any]]) -> str:
    """Return the table of training runs, one row per result.json."""
    lines = [
        "| preset | data | validation | test | epochs | time | machine |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for result in results:
        machine, minutes = result["machine"], result["seconds"] / 60
        lines.append(
            f"| `{result['config']['preset']}` | {result['data']} | {result['validation_accuracy']:.1%} "
            f"| {result['test_accuracy']:.1%} | {result['epochs']} | {minutes:.1f} min "
            f"| {machine['processor']}, {machine['threads']} threads, {result['date'][:10]} |"
        )
    return "\n".join(lines)


def operator_table(result: dict[str, Any]) -> str:
    """Return the table of operators beside PyTorch: the better memory format of either side."""
    machine = result["machine"]
    setting = (
        f"{machine['cpu']}, {machine['threads']} threads, {machine['regime']}, NumPy {machine['numpy']}, "
        f"PyTorch {machine['torch']}, {machine['date']}.  Milliseconds, forward / backward; "
        "each side in the better of its two memory formats."
    )
    lines = [
        setting,
        "",
        "| case | gpuconv | PyTorch | ratio |",
        "| --- | ---: | ---: | ---: |",
    ]
    best: dict[str, dict[str, list[float]]] = {}
    for row in result["rows"]:
        sides = best.setdefault(row["case"], {}).setdefault(row["direction"], [row["gpuconv_ms"], row["torch_ms"]])
        sides[0], sides[1] = min(sides[0], row["gpuconv_ms"]), min(sides[1], row["torch_ms"])
    for case, directions in best.items():
        (ours, theirs), (ours_back, theirs_back) = directions["forward"], directions["backward"]
        lines.append(
            f"| {case} | {ours:.2f} / {ours_back:.2f} | {theirs:.2f} / {theirs_back:.2f} "
            f"| {ours / theirs:.2f} / {ours_back / theirs_back:.2f} |"
        )
    mean, worst = result["summary"]["best_format_geometric_mean"], result["summary"]["best_format_worst"]
    lines += ["", f"Geometric mean of the ratios {mean:.2f}, worst {worst:.2f}."]
    return "\n".join(lines)


def readme(text: str) -> str:
    """Return the README with its tables replaced by those of the newest results."""
    runs = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("train-*.json"))]
    operators = json.loads(max(RESULTS.glob("operators-*.json")).read_text())
    for name, table in (("training", training_table(runs)), ("operators", operator_table(operators))):
        start, end = f"<!-- {name}: made by bench/report.py -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}{table}\n{end}{after}"
    return text


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if the README is stale")
    arguments = parser.parse_args()
    path = ROOT / "README.md"
    old = path.read_text()
    new = readme(old)
    if arguments.check:
        sys.exit("README.md is stale: run python -m bench.report" if new != old else 0)
    path.write_text(new)


if __name__ == "__main__":
    main()
