"""What `gpuconv bench` does: choose cases and peers, run them, print the table, keep the JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from gpuconv.backend import resolve_device
from gpuconv.errors import ConfigError, GpuconvError
from gpuconv.plural import counted

from . import cases, harness, load, peers, tables
from .inputs import REGIMES
from .results import Result, Row

_REGIMES = {"cpu": ("float32",), "cuda": ("float32", "tf32", "float16")}


class BenchError(GpuconvError, RuntimeError):
    """A run that cannot be done, though its settings are right."""


def bench(
    *,
    set_name: str = "readme",
    ops: Sequence[str] = (),
    only: str = "",
    peer_names: Sequence[str] = (),
    device: str = "cpu",
    regimes: Sequence[str] = (),
    threads: int | None = None,
    rounds: int = 12,
    processes: int = 1,
    memory: bool = True,
    one_thread: bool = False,
    save: Path | None = None,
) -> Result:
    """Run and print a comparison; see `gpuconv bench --help` for what the arguments mean.

    Raises ConfigError for a name or number that cannot be used, GpuUnavailableError for a GPU that is not there.
    """
    device = resolve_device(device)
    chosen = cases.choose(set_name, tuple(ops), only)
    names = peers.choose(tuple(peer_names), device)
    for regime in regimes:
        if regime not in REGIMES:
            msg = f"there is no regime {regime!r}: choose from {', '.join(REGIMES)}"
            raise ConfigError(msg)
    cores = harness.usable_cores()
    threads = cores if threads is None else threads
    if not 1 <= threads <= cores:
        msg = f"threads must be from 1 to {cores}, the cores of this process, got {threads}"
        raise ConfigError(msg)
    if rounds < 2:
        msg = f"rounds must be at least 2, so that both orders occur, got {rounds}"
        raise ConfigError(msg)
    if not 1 <= processes <= rounds:
        msg = f"processes must be from 1 to the number of rounds, {rounds}, got {processes}"
        raise ConfigError(msg)
    if one_thread and device != "cpu":
        msg = f"processor time of one thread is of the CPU, not of {device}"
        raise ConfigError(msg)
    if save is not None and not save.parent.is_dir():
        msg = f"--save: there is no folder {save.parent}"
        raise ConfigError(msg)
    settings = harness.Settings(
        device=device,
        threads=threads,
        rounds=rounds,
        processes=processes,
        regimes=tuple(regimes) or _REGIMES[device],
        memory=memory,
        one_thread=one_thread,
    )
    other_work = load.look()
    if warning := tables.warning(other_work):
        _print(warning)
    _print(tables.head(["gpuconv", *names], one_thread=one_thread))

    def say(row: Row) -> None:
        _print("\n".join(tables.lines(row, names, one_thread=one_thread)))

    try:
        result = harness.run(chosen, names, settings, say)
    except harness.SideError as error:
        raise BenchError(str(error)) from None
    result.machine["other_work_before"] = other_work
    result.settings |= {"set": set_name, "ops": list(ops), "only": only}
    _print("\n" + "\n".join(tables.facts(result)))
    if save is not None:
        save.write_text(result.to_json(), encoding="utf-8")
        _print(f"kept in {save}")
    return result


def listing() -> str:
    """Return what there is to choose from: sets with their cases, operators, peers."""
    lines = []
    for name, chosen in cases.SETS.items():
        lines.append(f"{name}: {counted(len(chosen), 'case')}")
        if name != "all":
            lines += [f"  {case.name}" for case in chosen]
    lines += [f"operators: {', '.join(cases.OPS)}", "peers:"]
    for name in peers.MODULES:
        if name == "gpuconv":
            continue
        peer = peers.load(name)
        state = f"not installed: {', '.join(absent)}" if (absent := peer.missing()) else "installed"
        lines.append(f"  {name:14s} {', '.join(peer.devices):10s} {state}")
    return "\n".join(lines)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
