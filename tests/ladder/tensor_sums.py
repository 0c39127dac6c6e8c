"""How far the sums of tensor cores are off, as a share of what the tolerance rule allows: a model of their adders.

    python -m tests.ladder.tensor_sums [--write | --show]

Prints a table and compares it with tensor_sums.json, or writes that; --show prints what is recorded.  Exit status 1: the
table is another one.

Tensor cores add a block of exact products and the sum before it so: all are brought to the exponent of the largest and
keep 23 bits and one or two more behind its first one, the rest is cut off; their exact sum is cut off to float32.  Nothing
is ever rounded up, so a long sum drifts towards zero.  A run is what goes into one accumulator; runs are added to each
other in float32, rounded to nearest.

Numbers are drawn from a normal distribution, or are its absolute values.  The rule (tests/compare.py) allows c u S + u_out
|ref|: c = 8 for the former, 4 + 2 sqrt(terms) for the latter, u = 2**-24, and u_out of the dtype that the result is stored
in.  TF32 rounds its inputs, which is allowed 2**-10 S more.  A share above 1 breaks the rule.

Sources: M. Fasi, N. J. Higham, M. Mikaitis, S. Pranesh, Numerical behavior of NVIDIA tensor cores, PeerJ Computer
Science 7:e330 (2021); F. A. Khattak, M. Mikaitis, Accurate models of NVIDIA tensor cores, arXiv:2512.07004 (2025), whose
models agree with hardware bit for bit: an A100 (and Ada) has blocks of 8 products, TF32 of 4, and one bit more, an H100
(and H200) 16, 8 and two.  The further bit that they found for products of 2 and more is left out: errors may be smaller.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

TABLE = Path(__file__).with_suffix(".json")
TERMS = (72, 576, 2304, 4608, 16384)
DATA = ("normal", "positive")
SAMPLES = 500
_U = 2.0**-24
_BITS = {"float16": 11, "bfloat16": 8, "float32": 24}  # significant ones
_FRACTION = 23  # bits of float32 behind the first one

Array = np.ndarray


class Cores(NamedTuple):
    """Products that are added at once, of 16-bit types and of TF32, and bits that addends keep beyond float32's."""

    of_16_bits: int
    of_tf32: int
    further_bits: int


CORES = {"A100": Cores(8, 4, 1), "H100": Cores(16, 8, 2)}


def cut_off(values: Array) -> Array:
    """Return float64 values as float32, rounded towards zero."""
    near = values.astype(np.float32)
    beyond = np.abs(near.astype(np.float64)) > np.abs(values)
    return np.where(beyond, np.nextafter(near, np.float32(0)), near)


def added(total: Array, products: Array, further_bits: int) -> Array:
    """Return what a tensor core makes of float32 sums and a block of products.   total: (n)   products: (n, block)"""
    addends = np.concatenate([total[:, None].astype(np.float64), products], 1)
    _, exponent = np.frexp(np.abs(addends).max(1))
    unit = np.ldexp(1.0, exponent - 1 - _FRACTION - further_bits)[:, None]
    return cut_off((np.trunc(addends / unit) * unit).sum(1))


def summed(
    factors: list[tuple[Array, Array]], step: int, block: int, further_bits: int, run: int | None = None
) -> Array:
    """Return sums of products in runs of so many terms, of all if None.

    factors: (n, terms) each; of `step` terms all are added to the accumulator, one after another.
    """
    count, terms = factors[0][0].shape
    total, accumulator = np.zeros((2, count), np.float32)
    for first in range(0, terms, step):
        for a, b in factors:
            for k in range(first, min(first + step, terms), block):
                here = slice(k, min(k + block, terms))
                accumulator = added(accumulator, a[:, here] * b[:, here], further_bits)
        if run is not None and (first + step) % run == 0:
            total, accumulator = total + accumulator, np.zeros_like(total)
    return total + accumulator


# Regimes: inputs as they are multiplied, and how they are added up ----------------------------------------------------


def _rounded(values: Array, bits: int) -> Array:
    """Return float64 values rounded to so many significant bits, 24 or fewer, as if there were no smallest number."""
    whole = values.astype(np.float32).view(np.uint32)
    spare = np.uint32(24 - bits)
    if spare:
        whole = (whole + ((np.uint32(1) << (spare - 1)) - 1 + (whole >> spare & 1))) >> spare << spare
    return whole.view(np.float32).astype(np.float64)


def _fused(a: Array, b: Array, _: Cores) -> Array:
    total = np.zeros(len(a), np.float32)
    for k in range(a.shape[1]):
        total = (total + a[:, k].astype(np.float64) * b[:, k]).astype(np.float32)
    return total


def _of_16_bits(run: int | None) -> Callable[[Array, Array, Cores], Array]:
    return lambda a, b, cores: summed([(a, b)], 16, cores.of_16_bits, cores.further_bits, run)


def _tf32(a: Array, b: Array, cores: Cores) -> Array:
    return summed([(_rounded(a, 11), _rounded(b, 11))], 8, cores.of_tf32, cores.further_bits)


def _three(run: int | None) -> Callable[[Array, Array, Cores], Array]:
    """Return sums of three products of TF32, the small ones first."""

    def sums(a: Array, b: Array, cores: Cores) -> Array:
        (a1, a2), (b1, b2) = (_parts(values) for values in (a, b))
        return summed([(a2, b1), (a1, b2), (a1, b1)], 8, cores.of_tf32, cores.further_bits, run)

    return sums


def _parts(values: Array) -> tuple[Array, Array]:
    high = _rounded(values, 11)
    return high, _rounded(values - high, 11)


class Regime(NamedTuple):
    """How sums are made, the dtypes of inputs and result, and what rounded inputs are allowed, in S."""

    sums: Callable[[Array, Array, Cores], Array]
    given: str
    stored: str
    inputs: float = 0.0


REGIMES = {
    "float32 by FFMA": Regime(_fused, "float32", "float32"),
    "float16, one run": Regime(_of_16_bits(None), "float16", "float16"),
    "bfloat16, one run": Regime(_of_16_bits(None), "bfloat16", "bfloat16"),
    "float16 to float32, one run": Regime(_of_16_bits(None), "float16", "float32"),
    **{f"float16 to float32, runs of {n}": Regime(_of_16_bits(n), "float16", "float32") for n in (128, 256, 512, 1024)},
    "TF32, one run": Regime(_tf32, "float32", "float32", 2.0**-10),
    "float32 by three of TF32, one run": Regime(_three(None), "float32", "float32"),
    **{f"float32 by three of TF32, runs of {n}": Regime(_three(n), "float32", "float32") for n in (8, 16, 32, 64)},
}


def share(regime: Regime, cores: Cores, terms: int, data: str, samples: int = SAMPLES) -> float:
    """Return the largest error of so many sums, as a share of what the rule allows."""
    rng = np.random.default_rng((terms, DATA.index(data)))
    drawn = rng.standard_normal((2, samples, terms))
    a, b = _rounded(np.abs(drawn) if data == "positive" else drawn, _BITS[regime.given])
    exact, size = (a * b).sum(1), np.abs(a * b).sum(1)  # which float64 has to 2**-50 of size
    c = 8.0 if data == "normal" else 4 + 2 * terms**0.5
    allowed = (c * _U + regime.inputs) * size + 2.0 ** -_BITS[regime.stored] * np.abs(exact)
    result = _rounded(regime.sums(a, b, cores), _BITS[regime.stored])
    return float(np.max(np.abs(result - exact) / allowed))


# The table ------------------------------------------------------------------------------------------------------------


def table() -> dict[str, Any]:
    """Return what is checked in: shares by regime, cores and data, one for each number of terms."""
    rows = {
        name: {
            of: {data: [round(share(regime, cores, n, data), 2) for n in TERMS] for data in DATA}
            for of, cores in CORES.items()
        }
        for name, regime in REGIMES.items()
    }
    return {"terms": list(TERMS), "samples": SAMPLES, "shares": rows}


def recorded() -> dict[str, Any]:
    """Return the table that is checked in."""
    return dict(json.loads(TABLE.read_text(encoding="utf-8")))


def dumped(kept: dict[str, Any]) -> str:
    """Return the table as JSON, one regime a line."""
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in kept["shares"].items())
    head = "".join(f" {json.dumps(key)}: {json.dumps(kept[key])},\n" for key in ("terms", "samples"))
    return f'{{\n{head} "shares": {{\n{rows}\n }}\n}}\n'


def shown(kept: dict[str, Any]) -> Iterator[str]:
    """Yield the table to be read, as Markdown."""
    yield "| regime | cores | data | " + " | ".join(f"{n} terms" for n in kept["terms"]) + " |"
    yield "| --- | --- | --- |" + " --- |" * len(kept["terms"])
    for name, of_cores in kept["shares"].items():
        for cores, of_data in of_cores.items():
            for data, shares in of_data.items():
                yield f"| {name} | {cores} | {data} | " + " | ".join(f"{x:.2f}" for x in shares) + " |"


def main() -> int:
    """Print, and compare or write."""
    parser = argparse.ArgumentParser(prog="tensor_sums", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write tensor_sums.json")
    parser.add_argument("--show", action="store_true", help="print what is recorded")
    arguments = parser.parse_args()
    made = recorded() if arguments.show else table()
    sys.stdout.write("\n".join(shown(made)) + "\n")
    if arguments.write:
        TABLE.write_text(dumped(made), encoding="utf-8")
    if made == recorded():
        return 0
    sys.stdout.write(f"{TABLE.name} is another one: write it anew with --write\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
