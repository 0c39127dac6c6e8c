"""What a type checker sees: NumPy arrays in, NumPy arrays out; CuPy arrays in, CuPy arrays out; and wrong calls."""

import os
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest

import gpuconv

ROOT = pathlib.Path(gpuconv.__file__).parents[1]

# What mypy knows of CuPy where somebody has written stubs; CuPy has none, and its arrays are Any then.
CUPY = """
    from typing import Any
    import numpy as np
    class ndarray:
        shape: tuple[int, ...]
        ndim: int
        size: int
        dtype: np.dtype
        strides: tuple[int, ...]
        flags: Any
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]: ...
        def __getitem__(self, key: Any) -> Any: ...
        def get(self) -> np.ndarray: ...
    def ones(shape: tuple[int, ...]) -> ndarray: ...
"""

BEGIN = """
    from typing import Any, assert_type
    import numpy as np
    import gpuconv
    from gpuconv import cudnn, nn
    from gpuconv.ops.batchnorm import BatchNormCache
    from gpuconv.ops.conv import ConvCache
    from gpuconv.typing import Array, GpuArray
    x, w, b = np.ones((2, 3, 8, 8)), np.ones((4, 3, 3, 3)), np.ones(4)
"""

NUMPY = """
    y, cache = gpuconv.conv_forward(x, w, b, pad=1)
    assert_type(y, np.ndarray)
    assert_type(cache, ConvCache)
    dx, dw, db = gpuconv.conv_backward(y, cache)
    assert_type(dx, np.ndarray | Any)
    print(dx + 1, db.sum())
    means, _ = gpuconv.global_average_pool_forward(x)
    n, c = means.shape
    loss, dscores = gpuconv.softmax_cross_entropy(means, np.zeros(2, np.int64))
    assert_type(loss, np.ndarray)
    half = x.astype(np.float16)
    normed, norm = gpuconv.spatial_batchnorm_forward(half, b, b, b.copy(), b.copy())
    assert_type(normed, np.ndarray)
    assert_type(norm, BatchNormCache)
    assert_type(gpuconv.batchnorm_backward(normed, norm), tuple[np.ndarray, np.ndarray, np.ndarray])
    assert_type(gpuconv.augment(np.zeros((2, 3, 8, 8), np.uint8), mean=[0.5] * 3, std=(0.2,) * 3), np.ndarray)
    assert_type(nn.ConvNet(8).forward(x), np.ndarray)
    assert_type(cudnn.activation_forward(x, cudnn.CUDNN_ACTIVATION_RELU), np.ndarray)
"""

WITHOUT_TYPES = """
    def of_cupy_without_stubs(x: Any) -> None:
        assert_type(gpuconv.relu_forward(x)[0], Any)
        assert_type(gpuconv.conv_forward(x, x)[0], Any)
"""

WITH_STUBS = """
    import cupy
    on_gpu = cupy.ones((2, 3, 8, 8))
    of_gpu = gpuconv.conv_forward(on_gpu, on_gpu)[0]
    assert_type(of_gpu, GpuArray)
    gpuconv.conv_forward(on_gpu, w)  # type: ignore[type-var]
"""

OWN_FUNCTION = """
    def smoothed(x: Array) -> Array:
        return gpuconv.average_pool_forward(x, window=3, stride=1, pad=1)[0]
    assert_type(smoothed(x), np.ndarray)
    smoothed(b"text")  # type: ignore[type-var]
"""

WRONG = """
    gpuconv.conv_forward([1.0], w)  # type: ignore[type-var]
    gpuconv.conv_forward(x, w, padding=1)  # type: ignore[call-arg]
    gpuconv.conv_forward(x, w, stride=1.5)  # type: ignore[arg-type]
    gpuconv.conv_backward(x, norm)  # type: ignore[arg-type]
    gpuconv.nothing(x)  # type: ignore[attr-defined]
"""

PARTS = {
    "numpy": NUMPY,
    "cupy_without_types": WITHOUT_TYPES,
    "cupy_with_stubs": WITH_STUBS,
    "a_function_of_ones_own": OWN_FUNCTION,
    "wrong_calls": WRONG,
}


@pytest.mark.long
def test_a_type_checker_sees_what_comes_out(tmp_path):
    """Errors that are expected are ignored by name, and one that is ignored and does not come is an error itself."""
    (tmp_path / "stubs").mkdir()
    (tmp_path / "stubs" / "cupy.pyi").write_text(textwrap.dedent(CUPY))
    program = "".join(f"# {name}\n{textwrap.dedent(text)}" for name, text in {"imports": BEGIN, **PARTS}.items())
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", "cache", "program.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": os.pathsep.join([str(tmp_path / "stubs"), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "Success: no issues found in 1 source file\n", f"{done.stdout}{done.stderr}\n{program}"


@pytest.mark.parametrize("name", gpuconv.ops.__all__)
def test_a_signature_says_what_is_an_array(name):
    assert re.findall(r"\bAny\b", str(getattr(gpuconv, name).__annotations__)) == []
