"""Options of `pytest bench`: the same words as `gpuconv bench`."""

from __future__ import annotations

from typing import Any

import pytest

from gpuconv.errors import ConfigError

from . import cases, harness, peers, worker
from .inputs import REGIMES
from .results import OURS


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gpuconv benchmarks")
    group.addoption("--bench-set", default="quick", help="set of cases: " + ", ".join(cases.SETS))
    group.addoption("--bench-ops", default="", help="only these operators, with commas between them")
    group.addoption("--bench-peers", default="", help="peers beside gpuconv, with commas between them")
    group.addoption("--bench-device", default="cpu", choices=("cpu", "cuda"), help="where to run")
    group.addoption("--bench-regime", default="float32", choices=tuple(REGIMES), help="arithmetic")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "direction" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    try:
        rows = _rows(option)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None
    metafunc.parametrize(("side", "case", "layout", "direction"), rows)


def _rows(option: Any) -> list[Any]:
    """Return the parameters of every benchmark."""
    wanted = {name: tuple(filter(None, option(f"--bench-{name}").split(","))) for name in ("ops", "peers")}
    device = option("--bench-device")
    beside = peers.choose(wanted["peers"], device) if wanted["peers"] else []
    return [
        pytest.param(side, case, layout, direction, id=f"{case.name}-{direction}-{layout}-{side}")
        for case in cases.choose(option("--bench-set"), wanted["ops"])
        for layout in cases.LAYOUTS
        for direction in case.directions
        for side in (OURS, *beside)
    ]


@pytest.fixture(scope="session")
def workers(request: pytest.FixtureRequest) -> Any:
    """Return a function from a side's name to its started Worker; a side that is not here skips the test."""
    started: dict[str, worker.Worker] = {}
    device = request.config.getoption("--bench-device")

    def get(name: str) -> worker.Worker:
        if name not in started:
            peer = peers.load(name)
            if absent := peer.missing():
                pytest.skip(f"not installed: {', '.join(absent)}")
            one = worker.Worker(peer, device, harness.usable_cores())
            one.start()
            started[name] = one
        return started[name]

    return get
