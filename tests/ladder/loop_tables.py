"""Tables of hot loops, as hot_loops.py and tensor_loops.py keep them: read, written, compared, shown."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

ARCHS = ("80", "90")
GROWTH = 0.03  # of the bound: what of it is let pass


class Row(Protocol):
    """What a warp does in a step of a hot loop, and what its kernel takes of a multiprocessor."""

    registers: int
    blocks: int

    def cycles(self, arch: str) -> dict[str, float]:
        """Return the cycles of each bound."""

    def bound(self, arch: str) -> tuple[float, str]:
        """Return the cycles of the loop, and which of them these are: `largest` of its cycles."""

    def shares(self, arch: str) -> tuple[float, float]:
        """Return the share of the peak alone, and beside other blocks."""


R = TypeVar("R", bound=Any)  # a Row, which named tuples are only by what they read
Rows = Mapping[str, Mapping[str, R]]  # by C++ name of the kernel and architecture


def largest(cycles: Mapping[str, float]) -> tuple[float, str]:
    """Return the largest of the cycles of each bound, and whose they are."""
    by = max(cycles, key=cycles.__getitem__)
    return cycles[by], by


def read(path: Path, kind: Callable[..., R]) -> dict[str, Any]:
    """Return the table of a file, its rows made by `kind`."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    rows = {name: {arch: kind(*row) for arch, row in of_archs.items()} for name, of_archs in kept["rows"].items()}
    return {**kept, "rows": rows}


def dumped(kept: Mapping[str, Any]) -> str:
    """Return a table as JSON, one kernel a line."""
    rows = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps({arch: [_short(x) for x in row] for arch, row in of_archs.items()})}"
        for name, of_archs in kept["rows"].items()
    )
    head = ",\n".join(f" {json.dumps(key)}: {json.dumps(kept[key])}" for key in ("nvrtc", "columns"))
    return f'{{\n{head},\n "rows": {{\n{rows}\n }}\n}}\n'


def _short(number: float) -> float:
    return int(number) if number == int(number) else round(number, 2)


def differences(before: Rows[R], now: Rows[R]) -> list[str]:
    """Return one line for each kernel that is new or gone, and each loop whose bound is another."""
    lines = [f"{name}: new" for name in sorted(now.keys() - before.keys())]
    lines += [f"{name}: gone" for name in sorted(before.keys() - now.keys())]
    for name in sorted(before.keys() & now.keys()):
        for arch, loop in now[name].items():
            was, by = before[name][arch].bound(arch)
            cycles, why = loop.bound(arch)
            if not was * (1 - GROWTH) <= cycles <= was * (1 + GROWTH):
                word = "more" if cycles > was else "less, which is to be recorded"
                lines.append(f"{name}, sm_{arch}: {cycles:.1f} cycles ({why}), recorded {was:.1f} ({by}): {word}")
    return lines


def shown(rows: Rows[R], columns: Iterable[str], counts: Callable[[R], list[str]], of: str = "a warp") -> str:
    """Return a table to be read, as Markdown: by architecture, with what bounds each loop.

    columns: what `counts` says of a loop, then its bounds, in the order of its cycles.   of: whose cycles they are
    """
    titles = ["kernel", *columns, "bound by", "registers, blocks", "share"]
    text = []
    for arch in ARCHS:
        if not any(arch in of_archs for of_archs in rows.values()):
            continue
        text += [
            f"sm_{arch}: of {of} and a step, in cycles of a multiprocessor; share of peak alone and beside others",
            "",
            f"| {' | '.join(titles)} |",
            f"| {' | '.join('---' for _ in titles)} |",
        ]
        for name, of_archs in rows.items():
            if arch in of_archs:
                loop = of_archs[arch]
                cells = [
                    f"`{name}`",
                    *counts(loop),
                    *(f"{cycles:.0f}" for cycles in loop.cycles(arch).values()),
                    loop.bound(arch)[1],
                    f"{loop.registers}, {loop.blocks}",
                    ", ".join(f"{share:.2f}" for share in loop.shares(arch)),
                ]
                text.append(f"| {' | '.join(cells)} |")
        text.append("")
    return "\n".join(text)


def run(
    doc: str | None,
    path: Path,
    recorded: Callable[[], dict[str, Any]],
    measured: Callable[[], dict[str, Any]],
    show: Callable[[Rows[Any]], str],
) -> int:
    """Run from the command line of a table in a file; return the exit status."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table")
    parser.add_argument("--show", action="store_true", help="print the table that is recorded")
    arguments = parser.parse_args()
    if arguments.show:
        print(show(recorded()["rows"]))
        return 0
    now = measured()
    print(show(now["rows"]))
    if arguments.write:
        path.write_text(dumped(now), encoding="utf-8")
        return 0
    before = recorded()
    lines = differences(before["rows"], now["rows"])
    if before["nvrtc"] != now["nvrtc"]:
        lines.append(f"recorded with NVRTC {before['nvrtc']}, this is {now['nvrtc']}")
    print("\n".join(lines) or "as recorded")
    return int(bool(lines))
