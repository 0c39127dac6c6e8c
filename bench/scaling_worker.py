"""One of the processes that `bench.scaling` times: the steps of preset convnet, as `gpuconv train` makes them."""

from __future__ import annotations

import dataclasses
import json
import sys
import time

from gpuconv import data
from gpuconv.backend import using
from gpuconv.show.terminal import Progress
from gpuconv.train import PRESETS
from gpuconv.train.start import begin
from gpuconv.train.team import gathered

_WARM = 3


def main() -> None:
    steps = int(sys.argv[1])
    config = dataclasses.replace(
        PRESETS["convnet"], data="shapes", validation=0, batch_size=128, device="cpu", epochs=1
    )
    dataset = data.draw_shapes(128 * (steps + _WARM), 10)
    with gathered(config) as team, using(config.device):
        training = begin(config, dataset, Progress(), team)
        start = 0.0
        with training.feed:
            for number, batch in enumerate(training.feed.epoch(0, 0, steps + _WARM)):
                if number == _WARM:
                    start = time.perf_counter()
                training.rehearse(batch)
        seconds = time.perf_counter() - start
        if team.rank == 0:
            sys.stdout.write(json.dumps({"images_per_second": steps * config.batch_size / seconds}) + "\n")


if __name__ == "__main__":
    main()
