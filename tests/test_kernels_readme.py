"""kernels/README.md: its tables are those of the files, and no other file says what has run on a GPU."""

import re
from pathlib import Path

import pytest

from gpuconv.cuda.kernel import Kernel
from tests.ladder import kernel_tables

ROOT = Path(__file__).resolve().parents[1]
_HAS_RUN = re.compile(r"run\s+on\s+a\s+GPU", re.IGNORECASE)


def test_the_tables_are_those_of_the_files():
    text = kernel_tables.README.read_text(encoding="utf-8")
    assert kernel_tables.written(text) == text, "write them anew: python -m tests.ladder.kernel_tables --write"


@pytest.mark.parametrize("file", [name for name in kernel_tables.SOURCES if name.endswith(".cu")])
def test_the_comment_at_the_top_names_kernels_and_launchers(file):
    top = re.match(r"(?://[^\n]*\n)+", kernel_tables.text_of(file))[0]
    missing = [
        name for name, kernel in Kernel.all.items() if kernel.file == file and not re.search(rf"\b{name}\b", top)
    ]
    assert missing == [], f"add {', '.join(missing)} to the table at the top of kernels/{file}"
    launchers = " and ".join(f"gpuconv/cuda/{name}" for name in kernel_tables.launchers(file))
    line = f"// Launchers: {launchers}."
    assert top.endswith(f"{line}\n"), f"the comment at the top of kernels/{file} must end with {line}"


def test_one_sentence_says_what_has_run_on_a_gpu():
    places = ("kernels/*", "gpuconv/**/*", "bench/**/*", "tests/emulate/**/*", "tests/ladder/*")
    files = [
        path for place in places for path in ROOT.glob(place) if path.suffix in {".cu", ".cuh", ".hpp", ".py", ".md"}
    ]
    assert len(files) > 100
    saying = {path.relative_to(ROOT) for path in files if _HAS_RUN.search(path.read_text(encoding="utf-8"))}
    assert saying == {kernel_tables.README.relative_to(ROOT)}
