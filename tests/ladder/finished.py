"""A plugin of pytest: one line of JSON for each test as it ends, since a pytest that is killed writes no report.

GPUCONV_LADDER_LINES names the file.  With pytest-xdist the process that collects the results writes; one of the others
says how many tests there are.  A test that leaves the GPU unusable ends its process, and pytest-xdist starts another.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

LINES = "GPUCONV_LADDER_LINES"
_LONG, _SHORT, _MANY = 3000, 300, 300  # characters of a failure, of those after so many
_failures = 0


def _write(**values: Any) -> None:
    with Path(os.environ[LINES]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def _worker(config: pytest.Config) -> str | None:
    """Return the number of a process of pytest-xdist's, or None."""
    found: dict[str, str] | None = getattr(config, "workerinput", None)
    return None if found is None else found["workerid"]


def pytest_collection_finish(session: pytest.Session) -> None:
    if _worker(session.config) in (None, "gw0") and session.items:
        _write(collected=len(session.items))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        _write(uncollected=report.nodeid, said=report.longreprtext[-_SHORT:])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    global _failures  # noqa: PLW0603 - once in a process
    if "PYTEST_XDIST_WORKER" in os.environ or (report.passed and report.when != "call"):
        return
    message = "" if report.passed else _said(report)
    if report.failed:
        _failures += 1
        message = message[-(_LONG if _failures <= _MANY else _SHORT) :]
    outcome = "crashed" if report.when not in ("setup", "call", "teardown") else report.outcome
    _write(test=report.nodeid, outcome=outcome, when=report.when, seconds=round(report.duration, 3), said=message)


def _said(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):  # of a skip: file, line, reason
        return str(report.longrepr[2])
    return report.longreprtext


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    if report.when == "teardown" and item.stash.get(_FAILED, False) and _worker(item.config) and _lost():
        os._exit(1)
    return report


_FAILED = pytest.StashKey[bool]()


def _lost() -> bool:
    """Return whether the GPU refuses everything from now on; without CuPy in the process there is nothing to lose."""
    if "cupy" not in sys.modules:
        return False
    import cupy

    try:
        cupy.cuda.runtime.deviceSynchronize()
    except cupy.cuda.runtime.CUDARuntimeError:
        return True
    return False
