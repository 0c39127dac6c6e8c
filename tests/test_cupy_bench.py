"""The benchmarks' side of real CuPy (tests/cupy_emulated): what is measured is what its name says.  Nothing is timed."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from bench import cases

pytestmark = pytest.mark.cupy

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments, **variables):
    """Run a program whose CuPy is emulated, in the checkout; return how it ended."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("CUPY_", "GPUCONV_"))}
    command = [sys.executable, "-m", "tests.cupy_emulated", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment | variables, capture_output=True, text=True, check=False)


PEAKS = """
import json
import cupy
from cupy import _core
from bench import clocks, peaks

peaks._GPU_SIZE, peaks._GPU_BYTES, peaks._ROUNDS, clocks.FLUSH_BYTES = 16, 2**16, 1, 2**16
{before}
seen, matmul = [], cupy.matmul
def watched(a, b, out):
    seen.append((str(a.dtype), _core.get_compute_type(a.dtype)))
    return matmul(a, b, out=out)
cupy.matmul = watched
found = peaks.cuda_peaks()
names = ["float32", "float16"]
print(json.dumps([sorted(found), list(dict.fromkeys(seen)), [_core.get_compute_type(name) for name in names]]))
"""
DEFAULT, PEDANTIC, TF32 = 1, 2, 7  # COMPUTE_TYPE_* of CuPy
REGIMES = ["GB/s", "GFLOP/s float16", "GFLOP/s float32", "GFLOP/s tf32"]


@pytest.mark.parametrize(
    ("before", "variables", "after"),
    [
        ("", {}, [DEFAULT, DEFAULT]),
        ("cupy.matmul(cupy.ones((2, 2), 'f'), cupy.ones((2, 2), 'f'))", {}, [DEFAULT, DEFAULT]),
        ("_core.set_compute_type('float32', 2)", {}, [PEDANTIC, DEFAULT]),
        ("", {"CUPY_TF32": "1"}, [TF32, DEFAULT]),
    ],
    ids=["fresh", "after a product", "another way was set", "CUPY_TF32"],
)
def test_the_peak_of_tf32_is_that_of_tf32(before, variables, after):
    done = run("-c", PEAKS.format(before=before), **variables)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [REGIMES, [["float32", DEFAULT], ["float32", TF32], ["float16", DEFAULT]], after]


def test_a_gpu_without_tf32_has_no_such_peak():
    done = run("-c", PEAKS.format(before=""), CUPY_EMULATED_ARCH="75")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0] == [name for name in REGIMES if "tf32" not in name]


def test_every_case_of_every_side_runs_once(tmp_path):
    """pytest bench, not timed: what has CuPy arrays runs, beside the sides on the CPU."""
    report = tmp_path / "report.xml"
    options = ["-q", "--benchmark-disable", f"--junitxml={report}", "-p", "no:cacheprovider"]
    done = run("-m", "pytest", "bench", *options)
    assert done.returncode == 0, done.stdout[-4000:]
    ran, skipped = set(), {}
    for test in xml.etree.ElementTree.parse(report).iter("testcase"):
        found = re.fullmatch(
            r"bench_operator\[(.*)-(forward|backward|loss|step)-(.*)-(cpu|cuda)-(NCHW|NHWC)\]", test.get("name")
        )
        case, direction, side, device, _ = found.groups()
        reason = test.find("skipped")
        if reason is None:
            ran.add((side, device, case, direction))
        else:
            skipped.setdefault((side, device), set()).add(reason.get("message"))
    rows = {(case.name, direction) for case in cases.SETS["quick"] for direction in case.directions}
    for device in ("cpu", "cuda"):
        assert {row[2:] for row in ran if row[:2] == ("gpuconv", device)} == rows
    for side, device in (("naive", "cpu"), ("course", "cpu"), ("cupy-im2col", "cuda")):
        of_side = {row[2:] for row in ran if row[:2] == (side, device)}
        assert {name.partition(" ")[0] for name, _ in of_side} >= {"conv", "quick"}
        assert skipped.get((side, device), set()).isdisjoint({None, ""})
    for (side, _), reasons in skipped.items():
        assert all(reason.startswith(side) for reason in reasons)
