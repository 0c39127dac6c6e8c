"""Trainings that several processes do together, one after the other: what the tests of many processes start.

Run as `mpiexec -n 2 python process_trainings.py FILE`, FILE being JSON: a list of [settings of Config, run folder]; without settings the run there is
gone on with.  BUCKET_BYTES: of gradients that go from GPU to GPU at once; WITHOUT_NCCL: by way of the host.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import sys
from pathlib import Path

import numpy as np

from gpuconv import data, train
from gpuconv.cuda import nccl
from gpuconv.train import Config, messages


def pictures() -> data.Dataset:
    """Return pictures of noise: in drawn ones whole windows are equal, and which maximum is the first is up to rounding."""
    rng, drawn = np.random.default_rng(0), data.draw_shapes(300, 100)
    x_train, x_test = (rng.integers(0, 256, part.shape, np.uint8) for part in (drawn.x_train, drawn.x_test))
    return dataclasses.replace(drawn, x_train=x_train, x_test=x_test)


def main() -> None:
    messages.BUCKET_BYTES = int(os.environ.get("BUCKET_BYTES", messages.BUCKET_BYTES))
    if os.environ.get("WITHOUT_NCCL"):
        nccl.missing = lambda: "NCCL is not installed"
    dataset = pictures()
    for settings, folder in json.loads(Path(sys.argv[1]).read_text()):
        if settings is None:
            train.resume(folder, dataset=dataset, progress="none")
        else:
            train.train(Config(**settings), folder=folder, dataset=dataset, progress="none")
        gc.collect()  # memory given back within the next run waits for messages, which lazy processes pass only when they wait


if __name__ == "__main__":
    main()
