"""Whether the machine is as quiet and as fast as it should be, in warnings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpuconv.errors import ConfigError

from . import load, results

RESULTS = Path(__file__).resolve().parent / "results"
_LOW = 0.5  # of the peak that the same machine had
_SAME = ("processor", "gpu", "threads", "blas", "loops")  # names of processors alone do not tell their widths


def before(cores: float | None) -> str:
    """Return what to say before a run beside so much other work, or nothing."""
    if cores is None or cores < load.NOTEWORTHY:
        return ""
    return f"warning: other work keeps {cores:.1f} cores busy: times show form, not speed"


def after(machine: Mapping[str, Any]) -> str:
    """Return what to say of the other work during a run, or nothing."""
    cores = machine.get("other_work")
    if cores is None or cores < load.NOTEWORTHY:
        return ""
    return (
        f"warning: other work kept {cores:.1f} of {machine['cores']} cores busy while this was measured: times show form, "
        "not speed"
    )


def low_peaks(machine: Mapping[str, Any], peaks: Mapping[str, float]) -> str:
    """Return a warning if a peak is far below the one last committed of the same machine, or nothing."""
    name, known = _committed(machine)
    low = [
        f"{peak:.0f} {unit} ({known[unit]:.0f} there)"
        for unit, peak in peaks.items()
        if peak < _LOW * known.get(unit, 0.0)
    ]
    if not low:
        return ""
    return f"warning: peaks far below those of {name}: {', '.join(low)}: the machine is busy, or slower than it was"


def _committed(machine: Mapping[str, Any]) -> tuple[str, Mapping[str, float]]:
    """Return name and peaks of the newest committed result that was measured on what seems to be this machine."""
    found: tuple[str, str, Mapping[str, float]] = ("", "", {})
    for path in sorted(RESULTS.glob("*.json")):
        try:
            result = results.read(path)
        except ConfigError:  # of other measurements
            continue
        if result.peaks and all(result.machine.get(key) == machine.get(key) for key in _SAME):
            found = max(found, (result.machine["date"], path.name, result.peaks), key=lambda one: one[:2])
    return found[1:]
