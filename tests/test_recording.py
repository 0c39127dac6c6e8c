"""Work recorded once and replayed: the numbers of work that was not recorded, and what cannot be recorded, by name."""

import gc
import threading

import numpy as np
import pytest
from compare import assert_same, assert_same_bits
from core_calls import CORE
from emulate import EmulatedArray
from emulate.recording import _Place, _Pool
from places import EMULATED, GPU, Emulated

import gpuconv
from gpuconv import backend, nn
from gpuconv.cuda import device as cuda_device
from gpuconv.cuda import relu
from gpuconv.errors import RecordingError
from tests.ladder.kernel_calls import CALLS

REPLAYS = 3


def _record(gpu, work):
    """Do the work once, so that nothing is compiled any more, then record it."""
    work()
    return _device(gpu).record(work)


def _device(gpu):
    return Emulated.device if gpu is Emulated else cuda_device.current()


def _refusal(call):
    """Return what a call's RecordingError says.  Nothing keeps its traceback, which would keep arrays."""
    try:
        call()
    except RecordingError as error:
        return str(error)
    pytest.fail("nothing was refused")


def _put(gpu, array, host):
    """Let an array hold the numbers of a host array; the array stays where it is."""
    array[...] = gpu.array(host)


def _is_nowhere(gpu, array):
    return bool((gpu.numpy(array).reshape(-1).view(np.uint8) == 0xFF).all())


# Every operator -----------------------------------------------------------------------------------------------------


class _Drawn:
    """A place for a call's arrays that hands out those of an earlier call again, in the same order, once it is `again`."""

    def __init__(self, gpu):
        self._gpu, self.hosts, self.arrays, self._again = gpu, [], [], None

    def again(self):
        self._again = iter(self.arrays)

    def array(self, host):
        if self._again is not None:
            return next(self._again)
        self.hosts.append(host)
        self.arrays.append(self._gpu.array(host))
        return self.arrays[-1]

    @staticmethod
    def numpy(array):
        return array


_SEVERAL = ("conv", "max_pool", "average_pool", "spatial_batchnorm", "groupnorm", "dropout", "augment", "affine")

_MORE = ("conv_in_tiles_odd", "conv_strides_in_both", "max_pool_ties_split")


def _cases():
    """Return calls of each operator, several where it has several kernels, in a dtype and format of every change."""
    names = {}
    for name, call in CALLS.items():
        names.setdefault(call.operator, []).append(name)
    for operator in ("across", "all_finite", "muon", "step", "outcome"):  # these calls read their results, or make nets
        del names[operator]
    for operator, calls in names.items():
        for name in (*calls[: 3 if operator in _SEVERAL else 1], *(name for name in calls if name in _MORE)):
            yield min(case for case in CORE if case[0] == name)


@pytest.mark.core
@pytest.mark.parametrize("gpu", [EMULATED, GPU], indirect=True)
@pytest.mark.parametrize(("name", "dtype", "memory"), [pytest.param(*case, id="-".join(case)) for case in _cases()])
def test_a_replay_is_the_call_that_was_not_recorded(name, dtype, memory, gpu):
    """On the numbers that its arrays hold then, not on those that they held when it was recorded."""
    call, hosts, expected = CALLS[name], {}, {}
    for seed in (1, 2):
        drawn = _Drawn(gpu)
        expected[seed] = [gpu.numpy(array) for array in call.on(drawn, dtype, memory, seed)]
        hosts[seed] = drawn.hosts
    drawn = _Drawn(gpu)
    call.on(drawn, dtype, memory, seed=0)
    drawn.again()
    recording = _device(gpu).record(lambda: call.on(drawn, dtype, memory, seed=0))
    for seed in (1, 2, 1):
        for array, host in zip(drawn.arrays, hosts[seed], strict=True):
            _put(gpu, array, host)
        recording.replay()
        for found, wanted in zip(recording.result, expected[seed], strict=True):
            assert (found is None) == (wanted is None)
            if found is not None:
                assert_same_bits(gpu.numpy(found), wanted)


# A training step ----------------------------------------------------------------------------------------------------


class _Training:
    """A net, its optimiser and its batch: one step is `step`, what a step leaves is `numbers`."""

    def __init__(self, gpu, dtype):
        rng = np.random.default_rng(0)
        self._gpu, self._rng, self._dtype = gpu, rng, dtype
        vectors = "float32" if dtype == "float16" else dtype

        def drawn(*shape, kind=dtype):
            return gpu.array((rng.standard_normal(shape) * 0.3).astype(kind))

        self.x, self.labels = gpu.array(np.zeros((6, 3, 8, 6), dtype)), gpu.array(np.zeros(6, np.int64))
        self.w, self.gamma, self.beta = drawn(16, 3, 3, 3), drawn(16, kind=vectors), drawn(16, kind=vectors)
        self.mean, self.var = gpu.array(np.zeros(16, vectors)), gpu.array(np.ones(16, vectors))
        self.w2, self.b2 = drawn(16 * 4 * 3, 5), drawn(5)
        self.weights = [self.w.reshape(-1), self.gamma, self.beta, self.w2.reshape(-1), self.b2]
        self.velocities = [gpu.array(np.zeros(w.shape, w.dtype)) for w in self.weights]

    def feed(self, batch):
        rng = np.random.default_rng(batch)
        _put(self._gpu, self.x, rng.standard_normal(self.x.shape).astype(self._dtype))
        _put(self._gpu, self.labels, rng.integers(0, 5, 6))

    def step(self):
        image, conv = gpuconv.conv_forward(self.x, self.w, pad=1)
        normal, norm = gpuconv.spatial_batchnorm_forward(image, self.gamma, self.beta, self.mean, self.var)
        active, relu_cache = gpuconv.relu_forward(normal)
        kept, drop = gpuconv.dropout_forward(active, rate=0.25, seed=7, step=3)
        pooled, pool = gpuconv.max_pool_forward(kept)
        scores, affine = gpuconv.affine_forward(pooled, self.w2, self.b2)
        loss, dscores = gpuconv.softmax_cross_entropy(scores, self.labels)
        dpooled, dw2, db2 = gpuconv.affine_backward(dscores, affine)
        dactive = gpuconv.dropout_backward(gpuconv.max_pool_backward(dpooled, pool), drop)
        dimage, dgamma, dbeta = gpuconv.spatial_batchnorm_backward(gpuconv.relu_backward(dactive, relu_cache), norm)
        _, dw, _ = gpuconv.conv_backward(dimage, conv, input_grad=False)
        for w, dw_of, velocity in zip(self.weights, (dw, dgamma, dbeta, dw2, db2), self.velocities, strict=True):
            gpuconv.sgd_update(w, dw_of.reshape(-1), velocity, lr=0.1, momentum=0.9)
        return loss

    def numbers(self, loss):
        arrays = loss, *self.weights, *self.velocities, self.mean, self.var
        return [self._gpu.numpy(array) for array in arrays]


@pytest.mark.core
@pytest.mark.parametrize("gpu", [EMULATED, GPU], indirect=True)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_steps_by_replay_are_steps_that_were_not_recorded(dtype, gpu):
    """Each goes on from the weights, velocities and running averages that the one before has left."""
    eager, replayed = _Training(gpu, dtype), _Training(gpu, dtype)
    eager.step()
    replayed.step()
    before = replayed.numbers(replayed.b2)
    recording = _device(gpu).record(replayed.step)
    for now, then in zip(replayed.numbers(replayed.b2), before, strict=True):
        assert_same_bits(now, then)  # recorded, not run
    for batch in range(REPLAYS):
        eager.feed(batch)
        expected = eager.numbers(eager.step())
        replayed.feed(batch)
        recording.replay()
        for found, wanted in zip(replayed.numbers(recording.result), expected, strict=True):
            assert_same_bits(found, wanted)


NETS = {
    "convnet": lambda: nn.ConvNet(4, 8, input_shape=(3, 8, 8)),
    "resnet18": lambda: nn.ResNet18(4, 4, 4, 4, input_shape=(3, 8, 8)),
    "speedrun": lambda: nn.SpeedrunNet(4, 4, 4, input_shape=(3, 16, 16)),
}


class _Net:
    """A net of gpuconv.nn and what trains it: one step is `step`."""

    def __init__(self, gpu, name):
        self._gpu, self._net = gpu, NETS[name]()
        self._rule = nn.SGD(self._net, 0.9, weight_decay=1e-3, bias_lr=4.0)
        self.x = gpu.array(np.zeros((4, *self._net.input_shape), np.float32))
        self.labels = gpu.array(np.zeros(4, np.int64))

    def feed(self, batch):
        rng = np.random.default_rng(batch)
        _put(self._gpu, self.x, rng.standard_normal(self.x.shape).astype(np.float32))
        _put(self._gpu, self.labels, rng.integers(0, 10, 4))

    def step(self):
        loss, dscores = gpuconv.softmax_cross_entropy(self._net.forward(self.x, training=True), self.labels)
        self._net.backward(dscores)
        self._rule.step(0.1)
        return loss

    def numbers(self, loss):
        return [self._gpu.numpy(array) for array in (loss, self._net.flat_params, *self._net.state.values())]


def _on(place, name, *, core=False):
    return pytest.param(name, *place.values, marks=[*place.marks, *([pytest.mark.core] if core else [])])


@pytest.mark.parametrize(
    ("name", "cuda"),
    [_on(EMULATED, "convnet"), *(_on(GPU, name, core=name != "speedrun") for name in NETS)],
    indirect=["cuda"],
)
def test_steps_of_nets_by_replay_are_those_that_were_not_recorded(name, cuda):
    """Copies and sums of CuPy's own included: the emulator has none of these sums."""
    with backend.using("cuda"):
        eager, replayed = _Net(cuda, name), _Net(cuda, name)
        eager.step()
        recording = _record(cuda, replayed.step)
        for batch in range(REPLAYS):
            for one in (eager, replayed):
                one.feed(batch)
            expected = eager.numbers(eager.step())
            recording.replay()
            for found, wanted in zip(replayed.numbers(recording.result), expected, strict=True):
                assert_same_bits(found, wanted)


# Memory -------------------------------------------------------------------------------------------------------------


def _relu_twice(x):
    """Return relu(x) and relu(relu(x)), with something in between that is given back."""
    y, _ = gpuconv.relu_forward(x)
    gpuconv.relu_forward(y)
    return y, gpuconv.relu_forward(y)[0]


def _check_two_arrays(gpu):
    x = gpu.array(np.array([[1, -2, 3]], np.float32))
    recording = _record(gpu, lambda: (*_relu_twice(x), gpuconv.relu_forward(x)[0]))
    beside = [gpu.array(np.full((1, 3), 7, np.float32)) for _ in range(20)]  # where results may not lie
    for sign in (1, -1):
        host = sign * np.array([[1, -2, 3]], np.float32)
        _put(gpu, x, host)
        recording.replay()
        assert_same(gpu.numpy(x), host)
        for y in recording.result:
            assert_same(gpu.numpy(y), np.maximum(host, 0))
        for array in beside:
            assert_same(gpu.numpy(array), np.full((1, 3), 7, np.float32))
        _put(gpu, recording.result[0], np.full((1, 3), sign, np.float32))  # each result is an array of its own
        assert_same(gpu.numpy(recording.result[1]), np.maximum(host, 0))


@pytest.mark.core
@pytest.mark.parametrize("gpu", [EMULATED, GPU], indirect=True)
def test_memory_of_a_recording_is_nobody_else_s(gpu):
    _check_two_arrays(gpu)


@pytest.mark.compilers
def test_memory_handed_out_twice_is_noticed(monkeypatch):
    memory = np.empty(64, np.uint8)
    monkeypatch.setattr(_Pool, "take", lambda self, size: memory[:size])
    with pytest.raises(AssertionError):
        _check_two_arrays(Emulated)


@pytest.mark.core
@pytest.mark.parametrize("gpu", [GPU], indirect=True)
def test_a_recording_allocates_from_no_pool_but_its_own_and_keeps_that(gpu):
    import cupy

    pool, asked = cupy.cuda.MemoryPool(), []
    x = gpu.array(np.array([[1, -2, 3]], np.float32))

    def malloc(size):
        asked.append(size)
        return pool.malloc(size)

    with cupy.cuda.using_allocator(malloc):
        _relu_twice(x)
        asked.clear()
        recording = _device(gpu).record(lambda: _relu_twice(x)[1])
        assert asked == []
        result, recording.result = recording.result, None
        gc.collect()
        recording.replay()
        assert asked == []
    cupy.cuda.runtime.deviceSynchronize()  # a fault, if the replay wrote to memory that was given back
    assert_same(gpu.numpy(result), np.array([[1, 0, 3]], np.float32))


@pytest.mark.core
@pytest.mark.parametrize("gpu", [EMULATED, GPU], indirect=True)
def test_a_result_outlives_its_recording(gpu):
    x = gpu.array(np.array([[1, -2, 3]], np.float32))
    recording = _record(gpu, lambda: gpuconv.relu_forward(x)[0])
    recording.replay()
    y = recording.result
    del recording
    gc.collect()
    others = [gpu.array(np.full((1, 3), 7, np.float32)) for _ in range(4)]
    assert_same(gpu.numpy(y), np.array([[1, 0, 3]], np.float32))
    del others


@pytest.mark.core
@pytest.mark.parametrize("gpu", [GPU], indirect=True)
def test_a_recording_that_is_gone_leaves_no_memory_behind(gpu):
    import cupy

    def free():
        cupy.get_default_memory_pool().free_all_blocks()
        cupy.cuda.runtime.deviceSynchronize()
        return cupy.cuda.runtime.memGetInfo()[0]

    x = gpu.array(np.ones((1, 2**20), np.float32))
    recording = _record(gpu, lambda: _relu_twice(x)[1])
    recording.replay()
    del recording
    before = free()
    recording = _device(gpu).record(lambda: _relu_twice(x)[1])
    result = recording.result
    recording.replay()
    del recording
    assert_same(gpu.numpy(result[:, :3]), np.ones((1, 3), np.float32))
    del result
    assert free() == before


@pytest.mark.core
@pytest.mark.parametrize("gpu", [GPU], indirect=True)
@pytest.mark.parametrize("failures", [1, 2])
def test_a_recording_that_finds_no_memory_frees_nothing_that_it_uses(failures, gpu, monkeypatch):
    import cupy

    x, memory = gpu.array(np.ones((1, 5000), np.float32)), cupy.cuda.Memory
    largest = [0] * failures

    def scarce(size):
        if size > 2**20 and largest:
            largest.pop()
            raise cupy.cuda.runtime.CUDARuntimeError(2)
        return memory(size)

    def work():
        y, _ = gpuconv.relu_forward(gpuconv.relu_forward(x)[0])
        gpuconv.relu_forward(y)  # leaves memory unused
        return y, _device(gpu).zeros((2**19,), np.float32)

    work()
    monkeypatch.setattr(cupy.cuda, "Memory", scarce)
    if failures == 2:
        with pytest.raises(MemoryError, match=r"^the GPU has no 2097152 bytes left for what is recorded$"):
            _device(gpu).record(work)
    recording = _device(gpu).record(work)
    assert not largest
    recording.replay()
    cupy.cuda.runtime.deviceSynchronize()  # a fault, if a launch wrote to memory that was given back
    assert_same(gpu.numpy(recording.result[0]), np.ones((1, 5000), np.float32))


@pytest.mark.compilers
def test_an_array_from_elsewhere_that_has_died_is_an_error_of_the_replay():
    x = Emulated.array(np.ones((2, 3), np.float32))
    held = [x[1:]]
    del x
    recording = _record(Emulated, lambda: gpuconv.relu_forward(held[0])[0])
    recording.replay()  # a view keeps its array
    held.clear()
    assert _refusal(recording.replay) == (
        "an array float32 (1, 3) that recorded work was given has died: keep it as long as the recording"
    )


@pytest.mark.core
@pytest.mark.parametrize("gpu", [GPU], indirect=True)
def test_on_a_gpu_a_recording_keeps_what_kernels_were_given(gpu):
    held = [gpu.array(np.array([[1, -2, 3]], np.float32))]
    recording = _record(gpu, lambda: gpuconv.relu_forward(held[0])[0])
    held.clear()
    others = [gpu.array(np.full((1, 3), 7, np.float32)) for _ in range(4)]
    recording.replay()
    assert_same(gpu.numpy(recording.result), np.array([[1, 0, 3]], np.float32))
    del others


# What is fixed, and what is read at each replay ---------------------------------------------------------------------


def _check_nothing_runs(gpu):
    x = gpu.array(np.full((1, 3), 2, np.float32))
    device, lr = _device(gpu), 1.0
    dw = gpu.array(np.ones(3, np.float32))

    def work():
        y = gpuconv.relu_forward(x)[0]
        gpuconv.sgd_update(x.reshape(-1), dw, lr=lr)
        return y, device.zeros((5,), np.float32)

    recording = _record(gpu, work)
    assert_same(gpu.numpy(x), np.full((1, 3), 1, np.float32))  # what was done before it was recorded, and no more
    assert all(_is_nowhere(gpu, array) for array in recording.result)
    recording.replay()
    assert_same(gpu.numpy(recording.result[0]), np.full((1, 3), 1, np.float32))
    assert_same(gpu.numpy(recording.result[1]), np.zeros(5, np.float32))
    assert_same(gpu.numpy(x), np.zeros((1, 3), np.float32))


@pytest.mark.core
@pytest.mark.parametrize("gpu", [EMULATED, GPU], indirect=True)
def test_nothing_runs_while_it_is_recorded(gpu):
    _check_nothing_runs(gpu)


@pytest.mark.compilers
def test_a_launch_that_runs_while_it_is_recorded_is_noticed(monkeypatch):
    monkeypatch.setattr("emulate.device.active", lambda: None)
    with pytest.raises(AssertionError):
        _check_nothing_runs(Emulated)


def _check_what_is_fixed(gpu):
    w, dw, rate = gpu.array(np.zeros(3, np.float32)), gpu.array(np.ones(3, np.float32)), {"lr": 1.0}
    recording = _record(gpu, lambda: gpuconv.sgd_update(w, dw, **rate))
    rate["lr"] = 100.0
    for gradient in (2, 3):
        _put(gpu, dw, np.full(3, gradient, np.float32))
        recording.replay()
    assert_same(gpu.numpy(w), np.full(3, -1 - 2 - 3, np.float32))


@pytest.mark.core
@pytest.mark.parametrize("gpu", [EMULATED, GPU], indirect=True)
def test_numbers_by_value_are_those_of_the_recording_and_those_in_arrays_are_the_latest(gpu):
    _check_what_is_fixed(gpu)


@pytest.mark.compilers
def test_an_array_s_numbers_fixed_when_it_was_recorded_are_noticed(monkeypatch):
    placed = _Place.__init__

    def fixed(self, array):
        placed(self, array)
        host = np.array(array.view(np.ndarray))
        self.then = host.view(EmulatedArray) if (host == 1).all() else None  # dw alone

    plain = _Place.array
    monkeypatch.setattr(_Place, "__init__", fixed)
    monkeypatch.setattr(_Place, "array", lambda self: plain(self) if self.then is None else self.then)
    with pytest.raises(AssertionError):
        _check_what_is_fixed(Emulated)


@pytest.mark.core
@pytest.mark.parametrize("gpu", [EMULATED, GPU], indirect=True)
def test_what_another_thread_does_is_done_at_once(gpu):
    x = gpu.array(np.array([[1, -2, 3]], np.float32))
    gpuconv.relu_forward(x)
    found = []

    def elsewhere():
        y = gpuconv.relu_forward(gpu.array(np.array([[-1, 2, -3]], np.float32)))[0]
        found.append(gpu.numpy(y))

    def work():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return gpuconv.relu_forward(x)[0]

    recording = _device(gpu).record(work)
    assert_same(found[0], np.array([[0, 2, 0]], np.float32))
    recording.replay()
    assert_same(gpu.numpy(recording.result), np.array([[1, 0, 3]], np.float32))


# What cannot be recorded --------------------------------------------------------------------------------------------


def _refused(device, x):
    """Return work that cannot be recorded, by what its message begins with."""
    return {
        "a copy to the host cannot be recorded: make it after a replay": lambda: device.asnumpy(x),
        "a copy from the host cannot be recorded: make it before": lambda: device.asarray(np.zeros(3)),
        "a wait for the GPU cannot be recorded: wait after a replay": device.synchronize,
        "a recording cannot be recorded: record all of it at once": lambda: device.record(lambda: None),
        "a replay cannot be recorded: it is one launch, make it after": device.record(lambda: None).replay,
    }


def _works(gpu, x):
    """See that work is done at once, and can be recorded, whatever was refused before."""
    assert_same(gpu.numpy(gpuconv.relu_forward(x)[0]), np.array([[1, 0, 3]], np.float32))
    recording = _device(gpu).record(lambda: gpuconv.relu_forward(x)[0])
    recording.replay()
    assert_same(gpu.numpy(recording.result), np.array([[1, 0, 3]], np.float32))


@pytest.mark.core
@pytest.mark.parametrize("gpu", [EMULATED, GPU], indirect=True)
def test_what_cannot_be_recorded_is_refused_by_name(gpu):
    device, x = _device(gpu), gpu.array(np.array([[1, -2, 3]], np.float32))
    gpuconv.relu_forward(x)
    for message, call in _refused(device, x).items():

        def work(call=call):
            y = gpuconv.relu_forward(x)[0]
            call()
            return y

        assert _refusal(lambda work=work: device.record(work)).startswith(message)
        _works(gpu, x)


@pytest.mark.core
@pytest.mark.parametrize("gpu", [EMULATED, GPU], indirect=True)
def test_the_first_launch_of_a_kernel_is_refused(gpu, monkeypatch):
    x = gpu.array(np.array([[1, -2, 3]], np.float32))
    monkeypatch.setattr(relu._FORWARD, "_ready", {})
    assert _refusal(lambda: _device(gpu).record(lambda: gpuconv.relu_forward(x))) == (
        "the first launch of relu_forward<float>, which compiles it, cannot be recorded: do the work once before"
    )
    _works(gpu, x)


@pytest.mark.core
@pytest.mark.parametrize("gpu", [EMULATED, GPU], indirect=True)
def test_debug_mode_is_refused(gpu, monkeypatch):
    x = gpu.array(np.array([[1, -2, 3]], np.float32))
    monkeypatch.setenv("GPUCONV_DEBUG", "1")
    assert _refusal(lambda: _device(gpu).record(lambda: gpuconv.relu_forward(x))) == (
        "GPUCONV_DEBUG=1 waits for every launch, which cannot be recorded: record without it"
    )
    monkeypatch.delenv("GPUCONV_DEBUG")
    _works(gpu, x)


@pytest.mark.core
@pytest.mark.parametrize("gpu", [EMULATED, GPU], indirect=True)
@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt])
def test_an_error_of_the_work_ends_the_recording(kind, gpu):
    x = gpu.array(np.array([[1, -2, 3]], np.float32))

    def work():
        gpuconv.relu_forward(x)
        raise kind

    gpuconv.relu_forward(x)
    with pytest.raises(kind):
        _device(gpu).record(work)
    _works(gpu, x)
