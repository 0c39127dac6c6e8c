"""What compiled loops become in the machine code of processors that are not here, and in narrower vectors of this one.

A tile of products is fast if its loop is nothing but loads and multiply-adds: one that goes to the stack for a sum is
not.  Which code LLVM makes for a processor can be read anywhere (machine_code.py).
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpuconv.cpu import compiled

if compiled._obstacle():
    pytest.skip("the extra `fast` is not installed", allow_module_level=True)


from gpuconv.cpu.loops import atomic, jit, vectors

pytestmark = pytest.mark.compiling

TESTS = Path(__file__).parent
_LINUX, _ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
# Vectors: (triple, features, CPUs), lanes of a vector, registers that hold vectors
KINDS = {
    "SSE": (_LINUX, "+sse2", "nehalem"),
    "AVX2": (_LINUX, "+avx,+avx2,+fma", "x86-64-v3", "haswell", "znver3"),
    "AVX-512": (_LINUX, "+avx,+avx2,+fma,+avx512f,+avx512vl", "x86-64-v4", "skylake-avx512", "znver4"),
    "NEON": (_ARM, "+neon", "neoverse-n1", "neoverse-v1", "apple-m1"),
}
CPUS = {cpu: kind for kind, (_, _, *cpus) in KINDS.items() for cpu in cpus}
LANES = {"SSE": 4, "AVX2": 8, "AVX-512": 16, "NEON": 4}
HEIGHTS = {"SSE": 6, "AVX2": 6, "AVX-512": 8, "NEON": 8}  # of the tallest tile


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    """Return a function that returns the code of loops for one kind of processors."""
    made = {}

    def code(kind):
        if kind not in made:
            variables = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
            variables["GPUCONV_CACHE"] = str(tmp_path_factory.mktemp("cache"))  # what is kept has no code to look at
            command = [sys.executable, str(TESTS / "machine_code.py"), *KINDS[kind]]
            done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            made[kind] = json.loads(done.stdout)
        return made[kind]

    return code


def _inner_loops(assembly):
    """Return the instructions of each loop that holds no other: from a label to the jump back to it."""
    loops, label, body = [], None, []
    for line in (re.split(r"#|//|;", line)[0].strip() for line in assembly.splitlines()):
        if match := re.fullmatch(r"([.\w$]+):", line):
            label, body = match[1], []
        elif line and not line.startswith("."):
            body.append(line)
            if re.fullmatch(rf"(j|b|cb|tb).*\s{re.escape(label or '-')}", line):
                loops.append(body)
                label, body = None, []
    return loops


def _products(loop):
    """Return the instructions that multiply and add vectors."""
    return [line for line in loop if re.match(r"vfmadd\d+ps|fmla(\.4s)?\s+v|mulps", line)]


def _tallest(assembly):
    return max(_inner_loops(assembly), key=lambda loop: len(_products(loop)))


@pytest.mark.parametrize("cpu", CPUS)
def test_a_tiles_sums_stay_in_registers(cpu, codes):
    kind = CPUS[cpu]
    code = codes(kind)
    assert code["lanes"] == LANES[kind]
    assert code["heights"][0] == HEIGHTS[kind]
    for function, sums in (("multiply", 2 * HEIGHTS[kind]), ("multiply_scattered", 12)):
        loop = _tallest(code[cpu][function])
        products = _products(loop)
        assert len(products) == sums, loop
        if kind == "SSE":  # which multiplies and adds apart, and lacks a register for that
            continue
        operand = -1 if kind != "NEON" else 0  # the sum's: the last in one notation, the first in the other
        registers = {re.findall(r"%[xyz]mm\d+|v\d+", line)[operand] for line in products}
        assert len(registers) == sums, loop
        assert not [line for line in loop if re.search(r"%rsp|%rbp\)|\bsp\b", line)], loop
        if kind == "AVX-512":
            assert all("%zmm" in line for line in products)
        # Besides the products: what they multiply is loaded, and places are counted.
        loads = sum(bool(re.match(r"v?mov[au]ps|vbroadcastss|ldr|ldp|ldur|ld1", line)) for line in loop)
        assert len(loop) - len(products) - loads <= 6, loop


@pytest.mark.parametrize("cpu", CPUS)
def test_what_is_written_for_a_processor_is_there(cpu, codes):
    code, arm = codes(CPUS[cpu])[cpu]["others"], CPUS[cpu] == "NEON"
    assert re.search(r"\sldadd|\sldaxr" if arm else r"\slock\s", code), "an addition that no thread can break into"
    assert re.search(r"\sprfm\s" if arm else r"\sprefetcht\d\s", code)
    assert re.search(r"\sstnp\s" if arm else r"\sv?movntps\s", code), "stores past the caches"


# This processor ---------------------------------------------------------------------------------------------------------


_ARGUMENTS = jit.read(1), jit.read(1), jit.write(1), jit.NUMBER, atomic.COUNTER  # of ReLU's gradient


def test_plain_loops_become_vectors_without_asking_whether_arrays_overlap(tmp_path, monkeypatch):
    """That they do not is promised by a flag that Numba does not document: see jit.py."""
    from gpuconv.cpu.loops import relu

    monkeypatch.setenv("GPUCONV_CACHE", str(tmp_path))  # what is kept has no code to look at
    compiled_pass = jit.compiled_pass(*_ARGUMENTS)(relu.backward.py_func)
    (code,) = compiled_pass.inspect_llvm().values()
    assert f"<{vectors.LANES} x float>" in code
    assert "vector.body" in code
    assert "vector.memcheck" not in code


# Narrower vectors, running ----------------------------------------------------------------------------------------------

_WIDTHS = {
    128: {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": ""},
    256: {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"},
    512: {"NUMBA_CPU_NAME": "x86-64-v4", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+avx512f"},
}


@pytest.mark.parametrize("bits", [bits for bits in _WIDTHS if bits != jit.vector_bits()])
def test_operators_compute_right_in_vectors_of_each_width(bits):
    """The processor's own is what all other tests run in."""
    if bits > jit.vector_bits() or vectors.ARM:
        pytest.skip(f"loops were not run in vectors of {bits} bits, which this processor does not have")
    files = [str(TESTS / f"test_{name}.py") for name in ("loops", "conv", "winograd", "max_pool", "batchnorm")]
    chosen = "matches_oracle and cpu and float32 or whole_numbers or height or scattered or depthwise_windows"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        *files,
        "-k",
        chosen,
    ]
    done = subprocess.run(
        command, env=os.environ | _WIDTHS[bits] | {"GPUCONV_COMPILED": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 100, done.stdout
