"""The kernel files that a command line names."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence


def chosen(parser: argparse.ArgumentParser, only: Sequence[str], files: Iterable[str]) -> list[str]:
    """Return those of `files` that --only names, with or without their endings, all where it names none.

    What names no file ends the program.
    """
    files = sorted(files)
    names = {file: {file, file.partition(".")[0]} for file in files}
    unknown = [name for name in only if not any(name in known for known in names.values())]
    if unknown:
        parser.error(f"--only names no kernel file by {', '.join(unknown)}; there are {', '.join(files)}")
    return [file for file, known in names.items() if not only or known & set(only)]
