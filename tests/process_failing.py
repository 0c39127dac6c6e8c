"""The command `gpuconv` in one of several processes, of which one fails in a chosen way as a training step begins.

Run by the tests as `mpiexec -n N python -m mpi4py process_failing.py RANK WAY STEP ARGUMENTS...`; WAY is one of WAYS.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np
from process_trainings import pictures

from gpuconv import cli, data, train, version
from gpuconv.train import team


def _out_of_memory(stepper) -> None:
    msg = "Unable to allocate 900. GiB"
    raise MemoryError(msg)


def _fault(stepper) -> None:
    msg = "a mistake in the program"
    raise TypeError(msg)


def _nan(stepper) -> None:
    stepper.net.flat_params[...] = np.nan


def _drift(stepper) -> None:
    stepper.net.flat_params[0] += 1e-6


WAYS = {
    "out-of-memory": _out_of_memory,
    "fault": _fault,
    "nan": _nan,
    "drift": _drift,
    "killed": lambda stepper: os.kill(os.getpid(), signal.SIGKILL),
    "stopped": lambda stepper: os.kill(os.getpid(), signal.SIGSTOP),
    "hangs": lambda stepper: time.sleep(1000),
    "exits": lambda stepper: os._exit(7),
    "interrupted": lambda stepper: os.kill(os.getpid(), signal.SIGINT),
    "terminated": lambda stepper: os.kill(os.getpid(), signal.SIGTERM),
    "never": lambda stepper: None,
}


def main() -> int:
    rank, way, number, *arguments = sys.argv[1:]
    mine = os.environ.get("PMI_RANK", "0") == rank
    dataset = data.draw_shapes(300, 100, seed=1) if mine and way == "other-data" else pictures()
    data.load = lambda name, **_: dataset
    if mine and way == "other-version":
        team.host_versions = lambda: {**version_of(), "gpuconv": "0.0.9"}
    if mine and way in WAYS:
        real, fail = train.Stepper.step, WAYS[way]

        def step(self, batch, at):
            if at == int(number):
                sys.stderr.write(f"now {time.time()}\n")
                fail(self)
            real(self, batch, at)

        train.Stepper.step = step
    return cli.main(arguments)


def version_of() -> dict[str, str]:
    """Return versions, of which one is to be another."""
    return {"gpuconv": version.gpuconv_version()}


if __name__ == "__main__":
    raise SystemExit(main())
