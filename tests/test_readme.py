"""The README's table is that of the committed results; what it shows is run by test_docs_snippets.py and test_docs_commands.py."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bench import report

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_those_of_the_results():
    assert report.filled(ROOT / "README.md", README) == README
    assert README.count("made by bench/report.py") == 1


def test_commands_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    assert (
        set(re.findall(r"^make ([a-z]+)", README, flags=re.MULTILINE)) | set(re.findall(r"`make ([a-z]+)", README))
        <= targets
    )


def test_make_alone_says_what_there_is_to_make_and_makes_nothing():
    if shutil.which("make") is None:
        pytest.skip("no make here")
    found = subprocess.run(["make", "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "gpuconv" not in found.replace("ARGS", "")
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    described = re.findall(r"^([a-z][a-z%-]*):.* ## ", makefile, flags=re.MULTILINE)
    assert [line.split()[1] for line in shown if line.startswith("make ")] == described
    assert {"train", "test", "bench", "cupy-cuda%"} <= {*described}
