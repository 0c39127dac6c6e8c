"""The tables of kernel files and headers that kernels/README.md ends with: python -m tests.ladder.kernel_tables --write."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import gpuconv.cuda  # noqa: F401 - whose modules name the kernels
from gpuconv.cuda.kernel import Kernel
from gpuconv.cuda.source import kernel_dir

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "kernels" / "README.md"
LAUNCHERS = ROOT / "gpuconv" / "cuda"
SOURCES = sorted(path.name for path in kernel_dir().iterdir() if path.name.endswith((".cu", ".cuh")))
_HEADING = "| file | kernels | launched by | tests |"


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="into kernels/README.md")
    if parser.parse_args().write:
        README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(_tables())


def written(text: str) -> str:
    """Return the text of kernels/README.md, ending with the tables as they are now."""
    before, _, _ = text.partition(_HEADING)
    return f"{before}{_tables()}\n"


def text_of(name: str) -> str:
    """Return the text of a kernel file."""
    return kernel_dir().joinpath(name).read_text(encoding="utf-8")


def launchers(file: str) -> list[str]:
    """Return the modules of gpuconv/cuda that launch kernels of a file."""
    return [path.name for path in sorted(LAUNCHERS.glob("*.py")) if f'Kernel("{file}"' in path.read_text("utf-8")]


def _tests(file: str) -> list[str]:
    """Return the tests that are named after a kernel file or its launchers."""
    stems = dict.fromkeys(Path(name).stem for name in (*launchers(file), file))
    names = [f"test_{cuda}{stem}.py" for stem in stems for cuda in ("", "cuda_")]
    return [name for name in names if (ROOT / "tests" / name).is_file()]


def _row(*cells: Iterable[str]) -> str:
    return "| " + " | ".join(", ".join(f"`{name}`" for name in names) for names in cells) + " |"


def _tables() -> str:
    lines = [_HEADING, "|---|---|---|---|"]
    for file in SOURCES:
        if file.endswith(".cu"):
            of_file = [name for name, kernel in Kernel.all.items() if kernel.file == file]
            lines.append(_row([file], sorted(of_file, key=text_of(file).index), launchers(file), _tests(file)))
    lines += ["", "| header | included by |", "|---|---|"]
    for header in SOURCES:
        if header.endswith(".cuh"):
            lines.append(_row([header], [file for file in SOURCES if f'#include "{header}"' in text_of(file)]))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
