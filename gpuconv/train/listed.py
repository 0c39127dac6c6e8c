"""A run in the page of its folder: index.html is written anew as a run begins, and when nobody works on it any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..show import index
from ..show.terminal import Progress


@contextmanager
def listed(display: Progress, *, new: bool, first: bool = True) -> Iterator[Callable[[Path], None]]:
    """Yield what is to be told the folder of a run as it begins; enter this before that folder is held.

    new: the folder of runs is gpuconv's own, and gets a page if it has none.  One that is there is written anew if gpuconv
    wrote it.   first: this process is the one of many that writes.
    """
    begun: list[Path] = []

    def begin(run: Path) -> None:
        if first:
            begun.append(run)
            _write(run, display, new=new)

    try:
        yield begin
    finally:
        if begun:
            _write(begun[0], display, new=False)


def _write(run: Path, display: Progress, *, new: bool) -> None:
    """Write the page that lists a run; if that fails, the run does not."""
    page = index.page_of(run)
    try:
        if index.is_ours(page) or (new and not page.exists()):
            index.write(page.parent)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is no reason to end a run
        display.note(f"{index.NAME} could not be written ({error}); to try again: gpuconv runs --index")
