"""Kernels compile for every architecture without a GPU, and what they need is read right."""

import re

import pytest
from emulate import BuildError
from emulate.cubin import Occupancy, compile_cubin, occupancy, parse_account
from emulate.examples import PROBLEMS, text
from emulate.nvrtc import nvrtc
from emulate.sass import count_instructions, disassemble, hottest_loop

pytestmark = [pytest.mark.compilers, pytest.mark.long]

_LOG = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5firstPf' for 'sm_80'
ptxas info    : Function properties for _Z5firstPf
    16 bytes stack frame, 24 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 48 registers, used 1 barriers, 8448 bytes smem, 388 bytes cmem[0]
ptxas info    : Compiling entry function '_Z6secondPf' for 'sm_80'
ptxas info    : Function properties for _Z6secondPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers, 360 bytes cmem[0]
"""


def test_accounts_are_read():
    accounts = parse_account(_LOG)
    first, second = accounts["_Z5firstPf"], accounts["_Z6secondPf"]
    assert (first.registers, first.shared_bytes, first.stack_bytes, first.barriers) == (48, 8448, 16, 1)
    assert (first.spill_store_bytes, first.spill_load_bytes, first.spills) == (24, 20, 44)
    assert (second.registers, second.shared_bytes, second.spills) == (10, 0, 0)


# Worked out by hand from the tables of the programming guide: (architecture, threads, registers, shared bytes).
OCCUPANCIES = {
    "threads": ((80, 256, 32, 0), Occupancy(8, "threads")),
    "blocks": ((75, 32, 16, 0), Occupancy(16, "blocks")),
    "registers": ((80, 256, 48, 8448), Occupancy(5, "registers")),
    "registers_in_steps_of_256_a_warp": ((80, 256, 33, 0), Occupancy(6, "registers")),
    "registers_in_units_of_a_warp": ((90, 384, 168, 0), Occupancy(1, "registers")),
    "shared_memory": ((80, 128, 32, 40000), Occupancy(4, "shared memory")),
    "shared_memory_reserved_by_the_system": ((90, 128, 32, 115712), Occupancy(2, "shared memory")),
    "too_much_shared_memory": ((86, 128, 32, 101377), Occupancy(0, "shared memory")),
    "no_shared_memory_at_all": ((75, 1024, 64, 0), Occupancy(1, "threads")),
}


@pytest.mark.parametrize(("case", "want"), OCCUPANCIES.values(), ids=OCCUPANCIES.keys())
def test_occupancy(case, want):
    assert occupancy(*case) == want


@pytest.mark.parametrize("arch", ["75", "80", "90", "100"])
def test_kernels_compile_without_spills(arch):
    problems = [PROBLEMS["shared_tiles_and_float4"](), PROBLEMS["template_halo_and_dynamic_shared"]()]
    for problem in problems:
        cubin = compile_cubin(text(problem.file), problem.file, (problem.kernel,), arch)
        resources = cubin.resources[problem.kernel]
        assert cubin.code.startswith(b"\x7fELF")
        assert 16 < resources.registers < 128
        assert resources.spills == 0
        assert resources.shared_bytes >= 18 * 19 * 4
        assert resources.barriers == 1


def test_spills_are_seen():
    body = "float a[64]; for (int i = 0; i < 64; i++) a[i] = x[i]; __syncthreads();"
    kernel = (
        f"__global__ void __launch_bounds__(1024, 2) f(float* x) {{ {body} for (int i = 0; i < 64; i++) x[i] = a[i]; }}"
    )
    resources = compile_cubin(kernel, "f.cu", ("f",), "80").resources["f"]
    assert resources.registers <= 32
    assert resources.spills > 0


def test_compiler_errors_name_the_line():
    with pytest.raises(BuildError, match=r"kernels/f\.cu\(2\).*missing"):
        compile_cubin(
            '#line 1 "kernels/f.cu"\n__global__ void f(float* x) {\n  x[0] = missing; }', "f.cu", ("f",), "80"
        )


# (file, expressions); the wgmmas of each must stay asynchronous, and all in registers.
HOPPER = {
    "gemm": ("gemm_wgmma.cu", ("gemm_wgmma<false, false>",)),
    "gemm_b_by_rows_pipelined": ("gemm_wgmma.cu", ("gemm_wgmma<true, true>",)),
    "convolution": ("conv_wgmma.cu", ("conv_wgmma",)),
    "features": ("hopper_features.cu", ("tensor_load<5, true, false>", "tensor_load<1, false, true>", "tensor_store")),
    "tiles": (
        "wgmma_tile.cu",
        (
            "wgmma_tile<BF16, 8, 64, 128, false, false, false, false>",
            "wgmma_tile<F16, 96, 64, 0, true, true, false, true>",
            "wgmma_tile<TF32, 192, 64, 128, false, false, false, false>",
            "wgmma_tile<TF32, 64, 64, 128, false, false, true, false>",
            "wgmma_tile<BF16, 128, 64, 128, false, false, true, false>",
            "wgmma_tile<F16, 256, 64, 64, false, true, false, false>",
        ),
    ),
}


@pytest.mark.parametrize(("file", "expressions"), HOPPER.values(), ids=HOPPER.keys())
def test_hopper_kernels_compile(file, expressions):
    cubin = compile_cubin(text(file), file, expressions, "90a")
    assert {e: r.spills for e, r in cubin.resources.items()} == dict.fromkeys(expressions, 0)
    assert cubin.performance_warnings == []


def test_the_hot_loop_of_a_matrix_product():
    problem = PROBLEMS["shared_tiles_and_float4"]()
    cubin = compile_cubin(text(problem.file), problem.file, (problem.kernel,), "80")
    code = disassemble(cubin.code)[cubin.symbols[problem.kernel]]
    loop = hottest_loop(code)
    assert loop.opcodes["FFMA"] == 4 * 4 * 16
    assert loop.opcodes["LDS.128"] == 2 * 16
    assert loop.instructions < count_instructions(code)


def test_instructions_know_their_line_and_what_guards_them():
    problem = PROBLEMS["shared_tiles_and_float4"]()
    cubin = compile_cubin(text(problem.file), problem.file, (problem.kernel,), "80", ("-lineinfo",))
    code = disassemble(cubin.code)[cubin.symbols[problem.kernel]]
    (line,) = {line.source for line in code if line.opcode.startswith("FFMA")}
    file, number = line.split(":")
    assert file == f"kernels/{problem.file}"
    assert "+=" in text(problem.file).splitlines()[int(number)]  # behind a #line
    assert {line.bytes for line in code if line.opcode.startswith("LDS")} == {16}
    assert all(re.fullmatch(r"!?U?P\d", line.guard) for line in code if line.guard)
    assert any(line.guard for line in code if line.opcode == "BRA")


def test_the_hot_loop_on_tensor_cores():
    problem = PROBLEMS["mma_ldmatrix_cp_async"]()
    cubin = compile_cubin(text(problem.file), problem.file, (problem.kernel,), "80")
    loop = hottest_loop(disassemble(cubin.code)[cubin.symbols[problem.kernel]])
    assert loop.opcodes["HMMA"] % 16 == 0
    assert loop.opcodes["HMMA"] > 0


def test_straight_code_has_no_loop():
    cubin = compile_cubin("__global__ void f(float* x) { x[0] = 1.0f; }", "f.cu", ("f",), "80")
    (code,) = disassemble(cubin.code).values()
    assert count_instructions(code) > 3
    assert hottest_loop(code) is None


def test_the_compilers_version_is_known():
    assert re.fullmatch(r"\d+\.\d+", nvrtc().version)
