"""Options of `pytest bench`: the same words as `gpuconv bench`."""

from __future__ import annotations

from typing import Any

import pytest

from gpuconv import backend
from gpuconv.errors import ConfigError, GpuUnavailableError

from . import cases, harness, inputs, oracle, peers, worker
from .results import OURS

# Sides that are not among "all that are installed": gpuconv twice, gpuconv in a process with variables of its own, and
# one that takes a minute to compile a case.
_ONLY_BY_NAME = ("self", "gpuconv-numpy", "torch-compile")
_PICTURES = ".benchmarks"  # where pytest-benchmark keeps results, too; ignored by git
_COLUMNS = ["median", "iqr", "rounds"]  # of the table: what is left of 80 columns beside names


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gpuconv benchmarks")
    group.addoption("--bench-set", default="quick", help="set of cases: " + ", ".join(cases.SETS))
    group.addoption("--bench-ops", default="", help="only these operators, with commas between them")
    group.addoption("--bench-peers", default="", help="peers beside gpuconv, with commas between them [all installed]")
    group.addoption("--bench-device", default="all", choices=("all", "cpu", "cuda"), help="where to run [all]")
    group.addoption("--bench-regime", default="float32", choices=tuple(inputs.REGIMES), help="arithmetic")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let the table of pytest-benchmark show less than it could, and put pictures beside results, unless asked otherwise."""
    asked = any(str(word).startswith("--benchmark-columns") for word in config.invocation_params.args)
    if hasattr(config.option, "benchmark_columns") and not asked:
        config.option.benchmark_columns = _COLUMNS
    if "--benchmark-histogram" in config.invocation_params.args:  # without a name: the current folder is its default
        config.option.benchmark_histogram = [f"{_PICTURES}/picture"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "direction" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    try:
        rows = _rows(option)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None
    metafunc.parametrize(("side", "device", "case", "layout", "direction"), rows)


def _rows(option: Any) -> list[Any]:
    """Return the parameters of every benchmark: case by case, all sides of a case together."""
    wanted = {name: tuple(filter(None, option(f"--bench-{name}").split(","))) for name in ("ops", "peers")}
    return [
        pytest.param(side, device, case, layout, direction, id=f"{case.name}-{direction}-{side}-{device}-{layout}")
        for case in cases.choose(option("--bench-set"), wanted["ops"])
        for direction in case.directions
        for side, device in _sides(wanted["peers"], option("--bench-device"))
        for layout in case.layouts
    ]


def _sides(names: tuple[str, ...], device: str) -> list[tuple[str, str]]:
    """Return gpuconv and its peers, each with the devices it is to run on; of no names: all that are installed."""
    devices = ("cpu", "cuda") if device == "all" else (device,)
    for name in names:
        offers = [one for one in devices if name in peers.MODULES and one in peers.load(name).devices]
        if not offers:
            peers.choose((name,), devices[0])  # says what is wrong with it
    chosen = names or [
        name for name in peers.MODULES if name not in (OURS, *_ONLY_BY_NAME) and not peers.load(name).missing()
    ]
    return [
        (name, one) for name in dict.fromkeys((OURS, *chosen)) for one in devices if one in peers.load(name).devices
    ]


@pytest.fixture(scope="session")
def workers() -> Any:
    """Return a function from a side's name and device to its started Worker; one that cannot run skips the test."""
    started: dict[tuple[str, str], worker.Worker | str] = {}

    def start(name: str, device: str) -> worker.Worker | str:
        peer = peers.load(name)
        if absent := peer.missing():
            return f"{name} is not installed: {', '.join(absent)}"
        one = worker.Worker(peer, device, harness.usable_cores())
        try:
            if device == "cuda" and "cupy" in (*peer.packages, *(["cupy"] if name == OURS else [])):
                backend.resolve_device(device)
            one.start()
        except (peers.NotOffered, GpuUnavailableError) as said:
            return f"{name} on {device}: {said}"
        return one

    def get(name: str, device: str) -> worker.Worker:
        found = started.get((name, device))
        if found is None:
            found = started[name, device] = start(name, device)
        if isinstance(found, str):
            pytest.skip(found)
        return found

    return get


@pytest.fixture(scope="session")
def references() -> Any:
    """Return a function from a case to what its results must be; the last is kept, for all sides come one by one."""
    last: dict[tuple[str, str], Any] = {}

    def get(case: cases.Case, regime: str) -> Any:
        key = case.name, regime
        if key not in last:
            last.clear()
            last[key] = oracle.references(inputs.draw(case, regime=regime))
        return last[key]

    return get
