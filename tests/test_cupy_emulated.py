"""Real CuPy on the CPU: what CuPy asks of a GPU is answered as one would (tests/cupy_emulated)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cupy

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments, **variables):
    """Run a program whose CuPy is emulated; return what it printed and how it ended."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("CUPY_")} | variables
    command = [sys.executable, "-m", "tests.cupy_emulated", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_settings_that_make_no_sense_are_refused_in_one_sentence():
    for name, text, reason in (
        ("MEMORY", "much", "CUPY_EMULATED_MEMORY=much must be a whole number from 1 to 262144"),
        ("SMS", "0", "must be a whole number from 1 to 1024"),
        ("LAZY", "yes", "CUPY_EMULATED_LAZY=yes must be 0 or 1"),
        ("SPEED", "1", "CUPY_EMULATED_SPEED is no setting"),
    ):
        done = run("-c", "print('ran')", **{f"CUPY_EMULATED_{name}": text})
        assert (done.returncode, done.stdout) == (1, "")
        assert reason in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_what_cupy_computes_is_right():
    code = """
import cupy, numpy as np
a = np.arange(20, dtype=np.float32).reshape(4, 5)
b = cupy.asarray(a)
np.testing.assert_array_equal((b[::-1].T + 1).get(), a[::-1].T + 1)
np.testing.assert_array_equal((b @ b.T).get(), a @ a.T)
assert float(b.sum()) == 190
assert cupy.cuda.runtime.getDeviceProperties(0)["name"] == b"Emulated on the CPU"
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
