"""The operators of a training step, captured once by CuPy and replayed: the numbers of a run that was not captured."""

import contextlib
import re
from pathlib import Path

import numpy as np
import pytest
from compare import assert_same_bits
from places import GPU, LAYOUTS

import gpuconv
from gpuconv.cuda.device import current
from gpuconv.errors import RecordingError

pytestmark = pytest.mark.core

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "cuda-graphs.md"
N, C, H, W, K = 2, 16, 6, 8, 16


def _step(x, w, gamma, beta, running_mean, running_var, w2, dy):
    """Return what convolution, batch norm, ReLU, pool and affine come to, forward and backward."""
    image, conv = gpuconv.conv_forward(x, w, pad=1)
    normal, norm = gpuconv.spatial_batchnorm_forward(image, gamma, beta, running_mean, running_var)
    active, relu = gpuconv.relu_forward(normal)
    y, pool = gpuconv.max_pool_forward(active)
    scores, affine = gpuconv.affine_forward(y, w2)
    dpooled, dw2, _ = gpuconv.affine_backward(dy, affine)
    dactive = gpuconv.max_pool_backward(dpooled, pool)
    dimage, dgamma, dbeta = gpuconv.spatial_batchnorm_backward(gpuconv.relu_backward(dactive, relu), norm)
    dx, dw, _ = gpuconv.conv_backward(dimage, conv)
    return [scores, dx, dw, dw2, dgamma, dbeta, running_mean, running_var]


def _numbers(seed, dtype, layout):
    rng = np.random.default_rng(seed)
    vectors = "float32" if dtype == "float16" else dtype
    images = [(N, C, H, W), (K, C, 3, 3)]
    x, w = (layout(rng.standard_normal(shape).astype(dtype)) for shape in images)
    w2, dy = (rng.standard_normal(shape).astype(dtype) for shape in ((K * H * W // 4, 5), (N, 5)))
    return [x, w, *(rng.random(K).astype(vectors) + 0.5 for _ in range(4)), w2, dy]


@pytest.mark.parametrize("gpu", [GPU], indirect=True)
@pytest.mark.parametrize("layout", ["c_order", "channels_last"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_replay_is_the_step_that_was_not_captured(dtype, layout, gpu):
    """With other numbers than those that were there when it was captured, and nothing allocated."""
    import cupy

    layout = LAYOUTS[layout]
    eager = {}
    for seed in (1, 2):
        eager[seed] = [gpu.numpy(array) for array in _step(*map(gpu.array, _numbers(seed, dtype, layout)))]
    pool = cupy.cuda.MemoryPool()  # of the graph's own: what it works on is handed to nobody else
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream, cupy.cuda.using_allocator(pool.malloc):
        inputs = [gpu.array(array) for array in _numbers(0, dtype, layout)]
        _step(*inputs)  # what is compiled at the first call is so now
        stream.begin_capture()
        results = _step(*inputs)
        graph = stream.end_capture()
        held = pool.used_bytes()
        for seed in (1, 2, 1):
            for array, host in zip(inputs, _numbers(seed, dtype, layout), strict=True):
                array[...] = cupy.asarray(host)
            before = pool.total_bytes()
            graph.launch(stream)
            assert pool.total_bytes() == before
            for found, expected in zip(results, eager[seed], strict=True):
                assert_same_bits(gpu.numpy(found), expected)
        assert pool.used_bytes() == held


@pytest.mark.parametrize("gpu", [GPU], indirect=True)
def test_the_graph_of_the_documentation_trains_as_its_calls_do(gpu):
    _, code = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)
    captured, eager = {}, {}
    exec(code, captured)  # noqa: S102 - our own
    called = (
        code.replace("stream.begin_capture()", "")
        .replace("loss = step()", "")
        .replace("graph = stream.end_capture()", "")
    )
    exec(called.replace("graph.launch(stream)", "loss = step()"), eager)  # noqa: S102
    assert len(set(captured["losses"])) == 5
    assert captured["losses"] == eager["losses"]
    for name in ("w", "w2", "b2"):
        assert_same_bits(gpu.numpy(captured[name]), gpu.numpy(eager[name]))


@pytest.fixture
def captured():
    """Return what a call that a capture forbids says; the capture is over then."""
    import cupy

    def said(call):
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            try:
                call()
            except Exception as error:  # noqa: BLE001 - CUDA's own, or ours
                return type(error), str(error)
            finally:
                with contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError):
                    stream.end_capture()

    return said


@pytest.mark.parametrize("gpu", [GPU], indirect=True)
def test_what_a_capture_forbids_is_told_so(gpu, captured, monkeypatch):
    device, x = current(), gpu.array(np.ones((1, 3), np.float32))
    gpuconv.relu_forward(x)
    for call in (lambda: device.asnumpy(x), lambda: device.asarray(np.ones(3)), device.synchronize):
        kind, text = captured(call)
        assert kind is RecordingError
        assert text.startswith(device.name)
        assert text.endswith("no copy from or to the host and no product of CuPy's own can be captured or recorded")
    monkeypatch.setenv("GPUCONV_DEBUG", "1")
    assert captured(lambda: gpuconv.relu_forward(x))[0] is RecordingError
    monkeypatch.delenv("GPUCONV_DEBUG")
    kind, text = captured(lambda: device.record(lambda: gpuconv.relu_forward(x)))
    assert kind is RecordingError
    assert text.startswith("a recording cannot be made while the current stream is captured")
    assert_same_bits(gpu.numpy(gpuconv.relu_forward(x)[0]), np.ones((1, 3), np.float32))


@pytest.mark.parametrize("gpu", [GPU], indirect=True)
def test_what_cupy_refuses_in_a_recording_ends_it(gpu):
    import cupy

    x = gpu.array(np.ones((2, 2), np.float32))
    x @ x
    for call in (lambda: cupy.asnumpy(x), lambda: float(x[0, 0]), lambda: cupy.asarray(np.ones(3)), lambda: x @ x):
        with pytest.raises(RecordingError, match=r"can be captured or recorded$"):
            current().record(call)
        assert not cupy.cuda.get_current_stream().is_capturing()
    recording = current().record(lambda: gpuconv.affine_forward(x, x)[0])
    recording.replay()
    assert_same_bits(gpu.numpy(recording.result), np.full((2, 2), 2, np.float32))
