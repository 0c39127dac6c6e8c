"""The training cells of the courses' ConvNet notebook on CIFAR-10, as they stand there, through gpuconv.compat.

    python -m bench.course_train [--data FOLDER] [--device cpu|cuda] [--save bench/results/NAME.json]

Seeded with 231 as in CS231n: a hundred pictures learnt by heart, then one epoch on 49,000.  Accuracies are those of the
cells, of the parameters with the best validation accuracy.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from gpuconv import compat, data

from .course_speed import report

# What notebooks of correct solutions print for the original pictures, with either form of Adam.
PUBLISHED = {
    "overfit": {"train": [0.82, 0.81], "val": [0.252, 0.248]},
    "one epoch": {"train": [0.4761836734693878, 0.46477551020408164], "val": [0.499, 0.485]},
}


def run_cells() -> dict[str, Any]:
    """Run both cells one after the other, on one stream of random numbers, and measure what the notebook measures."""
    compat.install()
    from cs231n.classifiers.cnn import ThreeLayerConvNet
    from cs231n.data_utils import get_CIFAR10_data
    from cs231n.solver import Solver

    everything = get_CIFAR10_data()
    np.random.seed(231)  # noqa: NPY002 - as the cell does
    small = {name: everything[name][:100] for name in ("X_train", "y_train")}
    small |= {name: everything[name] for name in ("X_val", "y_val")}
    settings = {"batch_size": 50, "update_rule": "adam", "optim_config": {"learning_rate": 1e-3}}
    model = ThreeLayerConvNet(weight_scale=1e-2)
    found = {"overfit": _trained(Solver(model, small, num_epochs=15, print_every=1, **settings))}
    model = ThreeLayerConvNet(weight_scale=0.001, hidden_dim=500, reg=0.001)
    found["one epoch"] = _trained(Solver(model, everything, num_epochs=1, print_every=20, **settings))
    return found


def _trained(solver: Any) -> dict[str, Any]:
    start = time.perf_counter()
    solver.train()
    seconds = time.perf_counter() - start
    return {
        "train_accuracy": solver.check_accuracy(solver.X_train, solver.y_train),
        "validation_accuracy": solver.check_accuracy(solver.X_val, solver.y_val),
        "last_epoch": {"train": solver.train_acc_history[-1], "val": solver.val_acc_history[-1]},
        "first_loss": solver.loss_history[0],
        "last_loss": solver.loss_history[-1],
        "steps": len(solver.loss_history),
        "seconds": round(seconds, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with CIFAR-10 (default: GPUCONV_DATA, the course's folders, the cache)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "auto"))
    parser.add_argument("--save", type=Path, help="write the result to this JSON file")
    arguments = parser.parse_args()
    if arguments.data:
        os.environ["GPUCONV_DATA"] = arguments.data
    compat.use(arguments.device)
    report({"data": data.load("cifar10").name, "cells": run_cells(), "published": PUBLISHED}, arguments.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
