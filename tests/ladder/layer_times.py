"""What each pass of a layer should take on an H200, by regime: a prediction from machine code and bytes; nothing is timed.

    python -m tests.ladder.layer_times [--write | --check]

Without a flag the table is shown; --check holds it to layer_times.json beside this file and says what changed; --write
makes that file.  It is the model of step_times.py, at the layers of predictions.json: the real launchers take each pass
on a device that runs nothing, and its launches take what step_times.py says, the gaps between them included.
Convolutions of bfloat16 by warpgroups, which are off by default, have a row of their own.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.cases import OPERATORS, Case

from .layers import WGMMA, Arrays, case_of, dtype_of, in_regime, ours, passes_of, regimes_of
from .null_device import NullDevice, nowhere
from .predictions import predictions
from .step_times import CHIPS, GAP_US, time_of

TABLE = Path(__file__).with_suffix(".json")
_CHIP = CHIPS["H200"]
_GROWTH = 0.005  # of a number, which is let pass: those of the table are rounded

Row = dict[str, dict[str, float]]  # microseconds by regime and pass


def predicted(layer: dict[str, Any]) -> Row:
    """Return the microseconds of a layer's passes."""
    row: Row = {}
    for regime in (*regimes_of(layer), *(() if "op" in layer else (WGMMA,))):
        with nowhere(int(_CHIP.arch), _CHIP.multiprocessors) as device, in_regime(regime):
            passes = ours(case_of(layer), _arrays(device, case_of(layer), dtype_of(regime)), regime)
            row[regime] = {name: _us(device, passes[name][1]) for name in passes_of(layer)}
    return row


def _arrays(device: NullDevice, case: Case, dtype: np.dtype) -> Arrays:
    """Return arrays in channels-last, whose memory is never touched."""

    def images(shape: tuple[int, ...]) -> Any:
        N, C, H, W = shape
        return device.empty((N, H, W, C), dtype).transpose(0, 3, 1, 2)

    vectors = [device.empty(case.x[1:2], np.float32) for _ in range(4)] if OPERATORS[case.op].scales else []
    return Arrays(images(case.x), images(case.y), None if case.w is None else device.empty(case.w, dtype), vectors)


def _us(device: NullDevice, call: Callable[[], Any]) -> float:
    device.launches.clear()
    call()
    return round(sum(time_of(launch, _CHIP).seconds * 1e6 + GAP_US for launch in device.launches), 1)


def table(layers: list[dict[str, Any]]) -> dict[str, Row]:
    """Return what is checked in: rows by the names of layers."""
    return {layer["name"]: predicted(layer) for layer in layers}


@functools.cache
def read() -> dict[str, Row]:
    """Return the table that is kept."""
    found: dict[str, Row] = json.loads(TABLE.read_text(encoding="utf-8"))["layers"]
    return found


def differences(old: dict[str, Row], new: dict[str, Row]) -> list[str]:
    """Return what changed by more than the table's rounding, a line each."""
    said = []
    for name, regimes in new.items():
        for regime, row in regimes.items():
            for which, us in row.items():
                was = old.get(name, {}).get(regime, {}).get(which)
                if was is None or abs(us - was) > max(_GROWTH * was, 0.1):
                    said.append(f"{name}, {regime}, {which}: {us:g} us, was {'nothing' if was is None else f'{was:g}'}")
    return said


def dumped(rows: dict[str, Row]) -> str:
    """Return the file, a layer a line."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    return f'{{\n "source": "a model, not a measurement",\n "chip": "H200",\n "layers": {{\n{lines}\n }}\n}}\n'


def shown(rows: dict[str, Row]) -> str:
    """Return the table to be read."""
    lines = ["Predicted, not measured: microseconds of a pass on an H200"]
    for name, regimes in rows.items():
        for regime, row in regimes.items():
            passes = "  ".join(f"{which} {us:8.1f}" for which, us in row.items())
            lines.append(f"{name:32} {regime:14} {passes}")
    return "\n".join(lines)


def main() -> int:
    """Show, write or check the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--write", action="store_true", help=f"make {TABLE.name}")
    how.add_argument("--check", action="store_true", help=f"compare with {TABLE.name}; exit status 1 if it differs")
    arguments = parser.parse_args()
    found = predictions()
    rows = table([*found["layers"], *found["passes"]])
    if arguments.check:
        said = differences(read(), rows)
        sys.stdout.write("".join(f"{line}\n" for line in said) or "as they were\n")
        return 1 if said else 0
    sys.stdout.write(f"{shown(rows)}\n")
    if arguments.write:
        TABLE.write_text(dumped(rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
