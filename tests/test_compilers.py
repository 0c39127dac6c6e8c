"""A machine without the emulator's compilers: an error by default, named skips where that is allowed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def run_without_compiler():
    """Return what pytest does with a test file where g++ is missing."""

    def run(*arguments, **environment):
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        variables = {name: value for name, value in os.environ.items() if name != "GPUCONV_ALLOW_MISSING_COMPILER"}
        return subprocess.run(
            command,
            cwd=ROOT,
            env=variables | {"CXX": "a-compiler-that-is-not-there"} | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_missing_compiler_is_an_error(run_without_compiler):
    done = run_without_compiler("tests/test_relu.py")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "a-compiler-that-is-not-there is not installed" in done.stderr
    assert "GPUCONV_ALLOW_MISSING_COMPILER=1 skips" in done.stderr


def test_a_missing_compiler_can_be_allowed(run_without_compiler):
    few = "tests/test_relu.py", "-k", "special_numbers"
    done = run_without_compiler(*few, GPUCONV_ALLOW_MISSING_COMPILER="1", GPUCONV_REQUIRE_GPU="")
    assert done.returncode == 0, done.stdout
    skipped = re.search(r"SKIPPED \[(\d+)\].*a-compiler-that-is-not-there", done.stdout)
    assert int(skipped[1]) > 0
    assert re.search(r"\d+ passed, \d+ skipped", done.stdout)


def test_what_needs_no_compiler_runs_without_one(run_without_compiler):
    assert run_without_compiler("tests/test_random.py").returncode == 0
    # A GPU's cases, which are chosen by their mark: none of them runs in the emulator, none is asked for g++.
    done = run_without_compiler("-m", "gpu", "--collect-only", "-q", "tests/test_relu.py", "tests/test_cuda_bits.py")
    assert done.returncode == 0
    collected = [line for line in done.stdout.splitlines() if "::" in line]
    assert collected
    assert not [case for case in collected if "cuda" not in case or "emulated" in case]
