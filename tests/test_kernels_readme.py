"""kernels/README.md: its tables are those of the files, and no other file says what has run on a GPU."""

import re
from pathlib import Path

import pytest

from gpuconv.cuda.kernel import Kernel
from gpuconv.cuda.source import kernel_dir

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "kernels" / "README.md"
LAUNCHERS = ROOT / "gpuconv" / "cuda"
SOURCES = sorted(path.name for path in kernel_dir().iterdir() if path.name.endswith((".cu", ".cuh")))
_HAS_RUN = re.compile(r"run\s+on\s+a\s+GPU", re.IGNORECASE)


def _text(name):
    return kernel_dir().joinpath(name).read_text(encoding="utf-8")


def _launchers(file):
    """Return the modules of gpuconv/cuda that launch kernels of a file."""
    return [path.name for path in sorted(LAUNCHERS.glob("*.py")) if f'Kernel("{file}"' in path.read_text("utf-8")]


def _tests(file):
    """Return the tests that are named after a kernel file or its launchers."""
    stems = dict.fromkeys(Path(name).stem for name in (*_launchers(file), file))
    names = [f"test_{cuda}{stem}.py" for stem in stems for cuda in ("", "cuda_")]
    return [name for name in names if (ROOT / "tests" / name).is_file()]


def _row(*cells):
    return "| " + " | ".join(", ".join(f"`{name}`" for name in names) for names in cells) + " |"


def _tables():
    lines = ["| file | kernels | launched by | tests |", "|---|---|---|---|"]
    for file in SOURCES:
        if file.endswith(".cu"):
            of_file = [name for name, kernel in Kernel.all.items() if kernel.file == file]
            lines.append(_row([file], sorted(of_file, key=_text(file).index), _launchers(file), _tests(file)))
    lines += ["", "| header | included by |", "|---|---|"]
    for header in SOURCES:
        if header.endswith(".cuh"):
            lines.append(_row([header], [file for file in SOURCES if f'#include "{header}"' in _text(file)]))
    return "\n".join(lines)


def test_the_tables_are_those_of_the_files():
    tables = _tables()
    assert tables in README.read_text(encoding="utf-8"), f"end kernels/README.md with these tables:\n\n{tables}"


@pytest.mark.parametrize("file", [name for name in SOURCES if name.endswith(".cu")])
def test_the_comment_at_the_top_names_kernels_and_launchers(file):
    top = re.match(r"(?://[^\n]*\n)+", _text(file))[0]
    missing = [
        name for name, kernel in Kernel.all.items() if kernel.file == file and not re.search(rf"\b{name}\b", top)
    ]
    assert missing == [], f"add {', '.join(missing)} to the table at the top of kernels/{file}"
    launchers = " and ".join(f"gpuconv/cuda/{name}" for name in _launchers(file))
    line = f"// Launchers: {launchers}."
    assert top.endswith(f"{line}\n"), f"the comment at the top of kernels/{file} must end with {line}"


def test_one_sentence_says_what_has_run_on_a_gpu():
    places = ("kernels/*", "gpuconv/**/*", "bench/**/*", "tests/emulate/**/*", "tests/ladder/*")
    files = [
        path for place in places for path in ROOT.glob(place) if path.suffix in {".cu", ".cuh", ".hpp", ".py", ".md"}
    ]
    assert len(files) > 100
    saying = {path.relative_to(ROOT) for path in files if _HAS_RUN.search(path.read_text(encoding="utf-8"))}
    assert saying == {README.relative_to(ROOT)}
