"""A pytest plugin, `-p tests.ladder.chosen_tests`: notes what each test enters of gpuconv, or runs chosen tests alone.

GPUCONV_NOTED names a JSON file for the first: by test, its seconds, whether it passes, and the functions it enters.
GPUCONV_CHOSEN names one for the second: a list of tests, which run in its order.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from . import ROOT

PACKAGE = ROOT / "gpuconv"
NOTED, CHOSEN = "GPUCONV_NOTED", "GPUCONV_CHOSEN"


def pytest_configure(config: pytest.Config) -> None:
    if path := os.environ.get(NOTED):
        config.pluginmanager.register(_Notes(Path(path)))
    if path := os.environ.get(CHOSEN):
        config.pluginmanager.register(_Choice(json.loads(Path(path).read_text(encoding="utf-8"))))


class _Notes:
    """The functions that each test enters: the codes of all frames that begin meanwhile, in threads, too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._codes: dict[int, CodeType] = {}  # by id: the hash of a code is that of all that is in it
        self._tests: dict[str, dict[str, Any]] = {}
        threading.settrace(self._entered)

    def _entered(self, frame: FrameType, event: str, argument: object) -> None:
        self._codes[id(frame.f_code)] = frame.f_code

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._codes = {}
        self._tests[item.nodeid] = {"passes": True}
        started = time.monotonic()
        sys.settrace(self._entered)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            note = self._tests[item.nodeid]
            note["seconds"] = round(time.monotonic() - started, 3)
            note["enters"] = sorted({name for code in list(self._codes.values()) if (name := _name(code))})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed or (report.skipped and report.when != "teardown"):
            self._tests[report.nodeid]["passes"] = False

    def pytest_sessionfinish(self) -> None:
        threading.settrace(None)  # type: ignore[arg-type]
        self._path.write_text(json.dumps(self._tests), encoding="utf-8")


def _name(code: CodeType) -> str | None:
    """Return "cpu/memory.py:_Pool._take" for code of the package: a lambda or a loop inside belongs to its function."""
    if not code.co_filename.startswith(str(PACKAGE)):
        return None
    names = [name for name in code.co_qualname.split(".") if not name.startswith("<")]
    return f"{Path(code.co_filename).relative_to(PACKAGE).as_posix()}:{'.'.join(names)}"


class _Choice:
    """Runs the tests of a list, in its order, and no others."""

    def __init__(self, chosen: list[str]) -> None:
        self._turn = {nodeid: i for i, nodeid in enumerate(chosen)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self._turn), key=lambda item: self._turn[item.nodeid]
        )
