"""What the programs of this folder share: kernels, and how a program runs its checks and says what became of each."""

import json
import os
import sys
import traceback

import cupy
from cupy.cuda import driver, runtime

LAZY = os.environ.get("CUPY_EMULATED_LAZY") == "1"

KERNELS = r"""
struct Shape { int n; float scale; int more[2]; };

template <typename T, int K>
__global__ void scale(const T* x, T* y, const Shape s, const T add, const bool flip, const T* nothing) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < s.n) y[i] = (flip ? -x[i] : x[i]) * (T)s.scale * K + add + s.more[1] + (nothing ? nothing[0] : (T)0);
}

extern "C" {
__device__ float table[4] = {1, 2, 3, 4};
__device__ int unused = 7;
__constant__ int factor[2];

__global__ void use_table(float* y) { y[threadIdx.x] += table[threadIdx.x % 4] * factor[1]; }
__global__ void use_shared(float* y) {
  extern __shared__ float memory[];
  memory[20000] = 1;
  __syncthreads();
  y[0] = memory[20000];
}
__global__ void add(float* y, const float* x, float value) { y[threadIdx.x] = x[threadIdx.x] + value; }
__global__ void write_at(float* y, long long i, float value) { y[i] = value; }
__global__ void read_at(float* y, const float* x, long long i) { y[0] = x[i]; }
__global__ void endless(volatile int* flag) { while (flag[0] == 0) {} }
__global__ void give_up() { asm("trap;"); }
}
"""
SCALE = "scale<float, 3>"
_NAMES = (SCALE, "use_table", "use_shared", "add", "write_at", "read_at", "endless", "give_up")
_modules = {}


def module():
    """Return the kernels' module for the current device."""
    device = cupy.cuda.Device().id
    if device not in _modules:
        _modules[device] = cupy.RawModule(code=KERNELS, options=("-std=c++17", "-lineinfo"), name_expressions=_NAMES)
    return _modules[device]


def kernel(name):
    return module().get_function(name)


def add(y, x, value):
    """Launch y = x + value on the current stream."""
    kernel("add")((1,), (y.size,), (y, x, cupy.float32(value)))


def filled(value, size=32):
    """Return an array that is written before this returns, without a kernel."""
    import numpy as np

    array = cupy.empty(size, np.float32)
    array.set(np.full(size, value, np.float32))
    cupy.cuda.get_current_stream().synchronize()
    return array


def seen(array):
    """Return the first element as it lies in memory at this moment, waiting for nothing but this copy."""
    import numpy as np

    number = np.empty(1, np.float32)
    stream = cupy.cuda.Stream(non_blocking=True)
    runtime.memcpyAsync(number.ctypes.data, array.data.ptr, 4, runtime.memcpyDeviceToHost, stream.ptr)
    return float(number[0])


def refused(code, call, *arguments, **named):
    """Make a call that must fail with this error of CUDA."""
    status = 0
    try:
        call(*arguments, **named)
    except (runtime.CUDARuntimeError, driver.CUDADriverError) as error:
        status = error.status
    assert status == code, f"expected error {code} of CUDA, not {status}"


def run(functions):
    """Run the checks that the command line names, else all; print a line of JSON for each."""
    for name in sys.argv[1:] or [name for name in functions if name.startswith("check_")]:
        reason = ""
        try:
            functions[name]()
        except BaseException:  # noqa: BLE001 - whatever it is, it is reported
            reason = traceback.format_exc()
        sys.stdout.write(json.dumps([name, reason]) + "\n")
        sys.stdout.flush()
