"""The README's table is that of the committed results; what it shows is run by test_docs_snippets.py and test_docs_commands.py."""

import re
from pathlib import Path

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
