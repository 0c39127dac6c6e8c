"""The command `gpuconv` on a small data set, with a signal sent to itself at a chosen place.

Run by the tests as `python train_process.py PLACE SIGNAL ARGUMENTS...`, PLACE being "step:17" (as that training
step of this process begins), "evaluate:1" (within that batch of a validation or test), "replace:3" (before that file gets its
name) or "never"; SIGNAL+SIGNAL sends two.
"""

from __future__ import annotations

import os
import signal
import sys

from gpuconv import cli, data, durable, train
from gpuconv.runs import evaluation


def wrap(owner, name, number, signals) -> None:
    real = getattr(owner, name)
    calls = 0

    def call(*arguments, **keywords):
        nonlocal calls
        calls += 1
        if calls == number:
            for each in signals:
                os.kill(os.getpid(), each)
        return real(*arguments, **keywords)

    setattr(owner, name, call)


def main() -> int:
    place, names, *arguments = sys.argv[1:]
    data.load = lambda name, **_: data.draw_shapes(300, 100)
    if place != "never":
        what, number = place.split(":")
        owner, name = {
            "step": (train.Stepper, "step"),
            "evaluate": (evaluation, "softmax_cross_entropy"),
            "replace": (durable.os, "replace"),
        }[what]
        wrap(owner, name, int(number), [signal.Signals[name] for name in names.split("+")])
    return cli.main(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
