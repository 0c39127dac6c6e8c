"""Run what a GPU would run, with real CuPy, on a machine that has none: `make cupy` and CI's share of it.

    python -m tests.ladder.cupy_run [--core] [--processes N] [--save FILE]

The kernels are compiled first, in all processes; then pytest runs the cases marked `gpu` (with --core those CI runs on
every change), with work done as late as CUDA allows, guard pages around each array, freed memory filled with NaN, and
two GPUs.  A case may be left out for one of the reasons in LEFT_OUT only; collected = run + left out is checked, and
what is left out is listed.  Exit status: 0 all passed, 1 something failed or was skipped for another reason.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# Why a case that a GPU runs may be left out here, as conftest.py and tests say it.
LEFT_OUT = {
    "much work": "needs a GPU's speed: its smaller neighbours run",
    "cuts a device's memory": "needs the true size of a device's memory",
}
EMULATION = {"CUPY_EMULATED_LAZY": "1", "CUPY_EMULATED_GUARD": "1", "CUPY_EMULATED_DEVICES": "2"}
