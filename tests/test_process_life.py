"""The life of a process: operators and training after the main thread, while the interpreter ends, without a reader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent
HEAD = """
import atexit, os, threading, weakref
import numpy as np, gpuconv
x, w = np.ones((64, 16, 16, 16), "f4"), np.ones((32, 16, 3, 3), "f4")
def use():
    y, cache = gpuconv.conv_forward(x, w, pad=1)
    gpuconv.conv_backward(y, cache)
    y, cache = gpuconv.max_pool_forward(x)
    gpuconv.max_pool_backward(y, cache)
    os.write(1, b"used ")
def later(work):
    def wait():
        threading.main_thread().join()
        work()
    threading.Thread(target=wait).start()
class Holder:
    pass
"""
ENDS = {
    "thread": "later(use)",
    "atexit": "atexit.register(use)",
    "finalizer": "holder = Holder(); weakref.finalize(holder, use)",
    "del": "Holder.__del__ = lambda self: use()\nholder = Holder()",
    "del_in_a_cycle": "Holder.__del__ = lambda self: use()\nholder = Holder(); holder.me = holder",
    "generator": "def steps():\n    try:\n        yield\n    finally:\n        use()\nsteps = steps(); next(steps)",
}
TRAIN = """
from gpuconv import train
from train_helpers import TINY, shapes
def run():
    train.train(TINY, folder="run", dataset=shapes(), progress="none")
    os.write(1, b"used ")
later(run)
"""


STRICT = """
import numpy as np
np.seterr(all="raise")
from gpuconv import train
from train_helpers import change, shapes
config = change(**{settings!r})
result = train.train(config, folder="run", dataset=shapes(), progress="none")
assert train.Run("run").evaluate(shapes()).count
assert np.geterr()["over"] == "raise"
"""


def python(code: str, folder: Path, **variables: str) -> tuple[int, str, str]:
    """Run code in a process of its own; return (exit code, stdout, stderr)."""
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": path, "GPUCONV_THREADS": "2", **variables},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("end", ENDS)
def test_operators_work_to_the_end(end, tmp_path):
    assert python(f"{HEAD}use()\n{ENDS[end]}", tmp_path, GPUCONV_COMPILED="0") == (0, "used used ", "")


@pytest.mark.parametrize("end", ["thread", "atexit"])
def test_operators_may_be_first_used_after_the_main_thread(end, tmp_path):
    """Whatever is imported only then must not ask to be told of an end that has come."""
    assert python(f"{HEAD}{ENDS[end]}", tmp_path) == (0, "used ", "")


def test_training_goes_on_after_the_main_thread(tmp_path):
    assert python(HEAD + TRAIN, tmp_path, GPUCONV_COMPILED="0") == (0, "used ", "")
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"precision": "float16"},
        {"optimizer": "adam", "lr": 1e-3, "ema": 0.9, "clip_norm": 1.0, "label_smoothing": 0.1, "tta": "flip"},
        {"optimizer": "muon", "schedule": "cosine"},
    ],
    ids=["sgd", "float16", "adam", "muon"],
)
def test_training_minds_no_warning_that_is_an_error(settings, tmp_path):
    """np.seterr(all="raise") is for the user's own arithmetic: underflow is part of ours, and non-finite losses are told."""
    code = STRICT.format(settings={"max_steps": 6, **settings})
    assert python(code, tmp_path, GPUCONV_COMPILED="0") == (0, "", "")
