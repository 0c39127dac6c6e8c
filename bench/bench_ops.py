"""Every case for pytest-benchmark: `pytest bench`, grouped by case; CI runs each once, without timing."""

import pytest

from bench.cases import CASES, Arrays, gpuconv_calls


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def bench_operator(benchmark, case, layout, direction):
    arrays = Arrays.draw(case, channels_last=layout == "NHWC")
    call = gpuconv_calls(case, arrays, channels_last=layout == "NHWC")[direction]
    benchmark.group = f"{case.name} {direction}, float32"
    result = benchmark(call)
    if benchmark.stats and direction == "forward" and (flop := case.flop(result[0].shape)):
        benchmark.extra_info["GFLOP/s"] = round(flop / benchmark.stats["median"] / 1e9, 1)
