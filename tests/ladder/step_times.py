"""What a training step of each preset should take on a GPU: a prediction from machine code and bytes; nothing is timed.

    python -m tests.ladder.step_times [--write | --check] [--kernels] [PRESET-BATCH-PRECISION ...]

Without a flag the table is shown; --check holds it to step_times.json beside this file and says what changed; --write
makes that file, and the table in README.md beside it; --kernels shows what each kernel adds.

The real launchers take a step of the real nets on a device that runs nothing (null_device.py), so that kernels, tiles,
grids and sizes are theirs.  Of each launch:

  convolutions  multiply-adds of all blocks, whole tiles and whole steps of the inner dimension, at the share of peak that
                *_loops.json give the kernel and tile, beside as many blocks as a multiprocessor has at that moment:
                waves are counted, the last one included; bytes, if those take longer
  Muon          its products likewise, of the banks' own tiles, with the loop of the forward's 64 x 64 tile, which is the same
                code around other loads; a block that lasts longer than all others is waited for
  affine        cuBLAS's products at 0.75 of the peak of FFMA, or of the bandwidth
  all others    each array once, and twice what is updated in place, at 0.75 of the bandwidth
  gaps          2 us a launch, for its start and its end: an estimate

A step as one graph takes the sum of these: the host launches once.  Launched one by one it takes that, or the host's
time if it is more: launches times host_us_per_launch of predictions.json.

"H200 wgmma" is an H200 whose launchers may take the kernels of warpgroups (conv_wgmma.ON, off by default), of 16 bits.

Peaks: H200 and A100 80 GB by NVIDIA's data sheets (FFMA, 16 bits and TF32 with dense matrices); bytes of an A100 by its
data sheet, of an H200 the rate of a copy, 4.3 TB/s.  0.75 is what cuBLAS's SGEMM keeps of the issue rate on an H100
(hot_loops.py), taken for bandwidth and for the A100, too.

What it does not know: the clock under load, caches between launches, how long a block waits for memory, sectors that
are read in part, and whether any kernel does on hardware what its machine code allows.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from gpuconv.cuda import conv_wgmma, muon
from gpuconv.errors import ConfigError
from gpuconv.train import PRESETS, Config, Stepper, recipe
from gpuconv.train.feed import Feed

from .null_device import Launch, nowhere
from .predictions import predictions

TABLE = Path(__file__).with_suffix(".json")
KEPT = 0.75
GAP_US = 2.0
GOALS = {"resnet18-512": 6.5, "speedrun-2000": 5.0}  # ms, in 16 bits on an H200, as one graph
README = Path(__file__).with_name("README.md")
_MARKS = "<!-- step_times -->\n", "<!-- end of step_times -->\n"
_BATCHES = {"convnet": (128, 512, 1024), "resnet18": (128, 512, 1024), "speedrun": (512, 1536, 2000)}
COLUMNS = ("launches", "GFLOP", "GB", "convolutions", "products", "passes", "gaps", "graph", "one by one")
_HEADS = ("nodes", "GFLOP", "GB", "conv", "prod", "passes", "gaps", "graph", "eager")
_WIDTHS = (5, 6, 6, 7, 6, 7, 5, 8, 8)
_TILED, _SMALL_TILE = "conv_forward_tiled<float, true, ", ", 64, 64, 4, 4, 16>"
_GROWTH = 0.005  # of a number, which is let pass: those of the table are rounded

# Arrays that a kernel reads and writes: their bytes count twice.
_IN_PLACE = {
    "adam_update": ("w", "m", "v"),
    "muon_momentum": ("velocity",),
    "muon_step": ("w",),
    "rmsprop_update": ("w", "square"),
    "sgd_update": ("w", "velocity"),
    "step_clip": ("x",),
}


class Chip(NamedTuple):
    """A GPU: operations a second by kind, and bytes."""

    arch: str
    multiprocessors: int
    ffma: float
    bits16: float
    tf32: float
    bandwidth: float
    warpgroups: bool = False  # whether kernels of warpgroups may be taken

    def peak(self, launch: Launch) -> float:
        """Return the operations a second of the units that a kernel of convolution adds up on."""
        if launch.name.endswith("_wgmma"):
            return self.bits16
        if "tensor" not in launch.name:
            return self.ffma
        return self.tf32 if launch.templates.get("T", "float") == "float" else self.bits16


_H200 = Chip("90", 132, 66.9e12, 990e12, 495e12, 4.3e12)
CHIPS = {
    "H200": _H200,
    "H200 wgmma": _H200._replace(warpgroups=True),
    "A100": Chip("80", 108, 19.5e12, 312e12, 156e12, 2.0e12),
}
_NARROW = ("float16", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Case:
    """A step: a preset at a batch size, in a precision."""

    preset: str
    batch: int
    precision: str

    def __str__(self) -> str:
        return f"{self.preset}-{self.batch}-{self.precision}"

    @property
    def chips(self) -> dict[str, Chip]:
        """The chips on which it is another step than on those before: kernels of warpgroups are of 16 bits."""
        return {name: chip for name, chip in CHIPS.items() if self.precision in _NARROW or not chip.warpgroups}


def _precisions() -> tuple[str, ...]:
    """Return the precisions that a run may have where a GPU is."""
    (setting,) = (field for field in dataclasses.fields(Config) if field.name == "precision")
    found = []
    for precision in setting.metadata["choices"]:
        with contextlib.suppress(ConfigError):
            found.append(dataclasses.replace(PRESETS["convnet"], device="cuda", precision=precision).precision)
    return tuple(found)


CASES = {
    str(case): case
    for preset, batches in _BATCHES.items()
    for batch in batches
    for precision in _precisions()
    for case in (Case(preset, batch, precision),)
}


class Time(NamedTuple):
    """What a launch takes, in seconds, and why: of which column it is, its operations and its bytes."""

    column: str
    seconds: float
    flop: float
    bytes: float


# Recording ------------------------------------------------------------------------------------------------------------


@functools.cache
def recorded(case: Case, chip: Chip) -> tuple[Launch, ...]:
    """Return the launches of a step, in order, as they would be on a chip."""
    settings = {"batch_size": case.batch, "train_images": case.batch, "precision": case.precision}
    config = dataclasses.replace(PRESETS[case.preset], **settings, validation=0, device="cuda", graph="off")
    images, labels = np.zeros((case.batch, 3, 32, 32), np.uint8), np.zeros(case.batch, np.int64)
    with (
        mock.patch.object(conv_wgmma, "ON", chip.warpgroups),
        nowhere(int(chip.arch), chip.multiprocessors) as device,
    ):
        stepper = Stepper(recipe.net(config, images.shape[1:], 10), config, lambda step: 0.1, lambda outcome: None)
        with Feed(images, labels, config, mean=(0.5,) * 3, std=(0.25,) * 3) as feed:
            for step in range(2):  # the first makes what is kept from step to step
                device.launches.clear()
                stepper.step(next(feed.epoch(step, 0, 1)), step)
    names = [launch.name for launch in device.launches]
    return tuple(device.launches[names.index("step_begin") :])  # what comes before it begins the epoch


# The model ------------------------------------------------------------------------------------------------------------


def time_of(launch: Launch, chip: Chip) -> Time:
    """Return what a launch takes without the gap beside it."""
    twice = _IN_PLACE.get(launch.name, ())
    size = sum(size * (2 if name in twice else 1) for name, size in launch.sizes.items())
    moved = size / (KEPT * chip.bandwidth)
    if launch.name == "product":
        flop = 2.0 * launch.values["rows"] * launch.values["inner"] * launch.values["columns"]
        return Time("products", max(flop / (KEPT * chip.ffma), moved), flop, size)
    if launch.name == "muon_product":
        blocks, loop = _muon_blocks(launch), _loop_of_muon(chip)
        flop = float(sum(count * of_each for count, of_each in blocks))
        return Time("products", max(_of_banks(blocks, loop, chip), moved), flop, size)
    if (loop := _loop_of(launch.expression, chip)) is not None:
        of_block = _flop_of_block(launch)
        seconds = _of_waves(launch.blocks, of_block, loop, chip, chip.peak(launch))
        return Time("convolutions", max(seconds, moved), launch.blocks * of_block, size)
    if launch.name.startswith(_CONVOLUTIONS):
        msg = f"{launch.expression} makes products and has no hot loop in any *_loops.json: nothing says how fast"
        raise ValueError(msg)
    return Time("passes", moved, 0.0, size)


@functools.cache
def _rows() -> dict[str, dict[str, Any]]:
    """Return the hot loops of all tables, by C++ name and architecture; each knows its `shares` and `blocks`."""
    rows: dict[str, dict[str, Any]] = {}
    for table in sorted(TABLE.parent.glob("*_loops.json")):
        rows |= importlib.import_module(f"{__package__}.{table.stem}").recorded()["rows"]
    return rows


def _loop_of(expression: str, chip: Chip) -> Any:
    """Return the hot loop of a kernel by its C++ name, None for none; bfloat16 has the instructions of float16."""
    rows = _rows()
    of_archs = rows.get(expression) or rows.get(expression.replace("bfloat16", "half16"), {})
    return of_archs.get(chip.arch)


def _loop_of_muon(chip: Chip) -> Any:
    """Return the loop of the forward's 64 x 64 tile for float32, the slowest of its variants."""
    rows = _rows().items()
    loops = [row[chip.arch] for name, row in rows if name.startswith(_TILED) and name.endswith(_SMALL_TILE)]
    return max(loops, key=lambda loop: loop.bound(chip.arch))


def _of_waves(blocks: int, of_block: float, loop: Any, chip: Chip, peak: float) -> float:
    """Return the seconds of equal blocks on the multiprocessor that gets most of them: as many as fit at a time."""
    of_busiest = ceil(blocks / chip.multiprocessors)
    whole, rest = divmod(of_busiest, loop.blocks)
    return sum(
        count * beside * of_block / _rate(beside, loop, chip, peak)
        for count, beside in ((whole, loop.blocks), (1, rest))
        if beside
    )


def _rate(beside: int, loop: Any, chip: Chip, peak: float) -> float:
    """Return the operations a second of a multiprocessor with so many blocks."""
    return peak / chip.multiprocessors * loop._replace(blocks=beside).shares(chip.arch)[1]


def _flop_of_block(launch: Launch) -> float:
    """Return the operations of a block's tile: over all of the inner dimension, in whole steps."""
    depth, inner = int(launch.templates["DEPTH"]), _inner(launch)
    across = [int(launch.templates[name]) for name in ("PIXELS", "FILTERS", "COLUMNS") if name in launch.templates]
    rows, columns = across or [int(launch.templates["SIDE"])] * 2
    return 2.0 * rows * columns * ceil(inner / depth) * depth * int(launch.templates.get("PRODUCTS", 1))


def _inner(launch: Launch) -> float:
    """Return the length of a convolution's sums, channels filled up where each tap has steps of its own."""
    z, name = launch.values["z"], launch.name
    if "backward_weight" in name:
        return float(launch.values["length"])
    data = "backward_data" in name
    channels, taps = int(z["K" if data else "C"]) // int(z["groups"]), int(z["R"]) * int(z["S"])
    if name.endswith(("_tiled", "_wgmma")):
        channels = _up_to(int(launch.templates["DEPTH"]), channels)
    elif "tensor" in name:
        channels = _up_to(_CHUNK if launch.templates.get("T", "float") == "float" else 2 * _CHUNK, channels)
    phases = int(z["stride_v"]) * int(z["stride_h"]) if data else 1  # each block has one, the mean of whose taps counts
    return taps / phases * channels


def _up_to(step: int, number: int) -> int:
    return ceil(number / step) * step


_CHUNK = 4  # channels of 32 bits in 16 bytes, by which tensor cores' kernels read

# What must have a hot loop: kernels that add up over channels.
_CONVOLUTIONS = ("conv_forward_", "conv_backward_data_", "conv_backward_weight_")


def _muon_blocks(launch: Launch) -> list[tuple[int, float]]:
    """Return how many blocks each bank has, and the operations of one: banks lie side by side in one launch."""
    side, found = muon._TILE, []
    for _, rows, columns, _, _, length, _ in launch.values["banks"].reshape(-1, 7).tolist():
        short, long = min(rows, columns), max(rows, columns)
        down, kind = ceil(short / side), int(launch.templates["KIND"])
        of_tile = 2.0 * side * side
        if kind == muon._APPLY:
            found.append((down * ceil(long / side), of_tile * short))
        elif kind == muon._SQUARE:
            found.append((_upper(down), of_tile * short))
        else:
            slices = range(0, long, length)
            found += [(_upper(down), of_tile * min(length, long - begin)) for begin in slices]
    return found


def _upper(side: int) -> int:
    """Return the tiles of a square of tiles on its diagonal and above."""
    return side * (side + 1) // 2


def _of_banks(blocks: list[tuple[int, float]], loop: Any, chip: Chip) -> float:
    """Return the seconds of blocks of different lengths: of all, evenly dealt out, or of the longest alone."""
    beside = min(loop.blocks, ceil(sum(count for count, _ in blocks) / chip.multiprocessors))
    everything = sum(count * of_each for count, of_each in blocks)
    longest = max(of_each for _, of_each in blocks)
    alone = longest / _rate(1, loop, chip, chip.ffma)
    return max(everything / (chip.multiprocessors * _rate(beside, loop, chip, chip.ffma)), alone)


# The table ------------------------------------------------------------------------------------------------------------


def predicted(case: Case, chip: Chip) -> dict[str, float]:
    """Return a row of the table: milliseconds but for the first three columns."""
    launches = recorded(case, chip)
    times = [time_of(launch, chip) for launch in launches]
    of_column: dict[str, float] = defaultdict(float)
    for time in times:
        of_column[time.column] += time.seconds * 1e3
    gaps = len(launches) * GAP_US / 1e3
    graph = sum(of_column.values()) + gaps
    host = len(launches) * predictions()["host_us_per_launch"] / 1e3
    return {
        "launches": len(launches),
        "GFLOP": round(sum(time.flop for time in times) / 1e9, 1),
        "GB": round(sum(time.bytes for time in times) / 1e9, 3),
        **{name: round(of_column[name], 3) for name in ("convolutions", "products", "passes")},
        "gaps": round(gaps, 3),
        "graph": round(graph, 3),
        "one by one": round(max(graph, host), 3),
    }


def table(cases: Iterable[str] = CASES) -> dict[str, dict[str, dict[str, float]]]:
    """Return what is checked in: rows by case and chip."""
    return {name: {of: predicted(CASES[name], chip) for of, chip in CASES[name].chips.items()} for name in cases}


def read() -> dict[str, Any]:
    """Return the table that is kept."""
    found: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return found


def differences(old: dict[str, dict[str, dict[str, float]]], new: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Return what changed by more than the table's rounding, a line each."""
    said = []
    for name, of_chips in new.items():
        for chip, row in of_chips.items():
            before = old.get(name, {}).get(chip, {})
            for column, number in row.items():
                was = before.get(column)
                if was is None or abs(number - was) > max(_GROWTH * abs(was), 0.002):
                    said.append(f"{name}, {chip}: {column}: {number:g}, was {'nothing' if was is None else f'{was:g}'}")
    return said


def shown(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the table to be read, within 80 columns."""
    lines = ["Predicted, not measured: milliseconds of a training step; nodes, GFLOP and GB"]
    for chip in CHIPS:
        lines += ["", f"{chip:<22}" + _line(_HEADS)]
        for name, of_chips in rows.items():
            if chip not in of_chips:
                continue
            numbers = [of_chips[chip][column] for column in COLUMNS]
            places = (0, 0, 2, 2, 2, 2, 2, 2, 2)
            lines.append(f"{name:<22}" + _line(f"{x:.{n}f}" for x, n in zip(numbers, places, strict=True)))
    goals = ", ".join(f"{name} {ms:g} ms" for name, ms in GOALS.items())
    return "\n".join([*lines, "", f"Goal: {goals}, in 16 bits on an H200, as a graph"])


def _line(cells: Iterable[str]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True))


def dumped(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the file, one row a line."""
    lines = [
        f"  {json.dumps(name)}: {{\n"
        + ",\n".join(f"   {json.dumps(of)}: {json.dumps(row)}" for of, row in of_chips.items())
        + "\n  }"
        for name, of_chips in rows.items()
    ]
    return '{\n "source": "a model, not a measurement",\n "steps": {\n' + ",\n".join(lines) + "\n }\n}\n"


def in_readme(text: str, rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return README.md with the table between its marks."""
    before, _, rest = text.partition(_MARKS[0])
    _, _, after = rest.partition(_MARKS[1])
    return f"{before}{_MARKS[0]}```\n{shown(rows)}\n```\n{_MARKS[1]}{after}"


def by_kernel(case: Case, chip: Chip) -> str:
    """Return what each kernel adds to a step, the most first."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    for launch in recorded(case, chip):
        time = time_of(launch, chip)
        row = sums[launch.expression or launch.name]
        for i, more in enumerate((1, time.seconds * 1e3, time.flop / 1e9, time.bytes / 1e9)):
            row[i] += more
    lines = []
    for name, (count, ms, flop, size) in sorted(sums.items(), key=lambda item: -item[1][1]):
        rate = f"{flop / ms:6.1f} TFLOP/s" if flop else f"{size / ms:6.2f} TB/s"
        lines.append(f"{ms:8.3f} ms {count:4.0f}  {rate:<15} {name}")
    return "\n".join(lines)


def main() -> int:
    """Show, write or check the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "cases", metavar="PRESET-BATCH-PRECISION", nargs="*", default=list(CASES), help="these steps only"
    )
    parser.add_argument("--kernels", action="store_true", help="show what each kernel adds")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--write", action="store_true", help=f"make {TABLE.name}")
    how.add_argument("--check", action="store_true", help=f"compare with {TABLE.name}; exit status 1 if it differs")
    arguments = parser.parse_args()
    if unknown := [case for case in arguments.cases if case not in CASES]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(CASES)}")
    rows = table(arguments.cases)
    if arguments.check:
        said = differences(read()["steps"], rows)
        sys.stdout.write("".join(f"{line}\n" for line in said) or "as they were\n")
        return 1 if said else 0
    sys.stdout.write(shown(rows) + "\n")
    if arguments.kernels:
        for name in arguments.cases:
            for of, chip in CASES[name].chips.items():
                sys.stdout.write(f"\n{name}, {of}\n{by_kernel(CASES[name], chip)}\n")
    if arguments.write:
        kept = {**(read()["steps"] if TABLE.exists() else {}), **rows}
        kept = {name: kept[name] for name in CASES if name in kept}
        TABLE.write_text(dumped(kept), encoding="utf-8")
        README.write_text(in_readme(README.read_text(encoding="utf-8"), kept), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
