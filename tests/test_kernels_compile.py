"""Every kernel through NVRTC to machine code, for each generation of GPUs: no GPU is needed, and none is asked.

bench/kernel_resources.py wrote the table that the kernels are held to.
"""

import functools
import json
import re

import pytest
from emulate.nvrtc import nvrtc

from bench import kernel_resources as resources
from gpuconv.cuda.kernel import Kernel
from gpuconv.cuda.source import kernel_dir

pytestmark = pytest.mark.ladder

RECORDED = json.loads(resources.TABLE.read_text(encoding="utf-8"))


@functools.cache
def _all_measured():
    return resources.measure(resources.ARCHS, resources.instances())


def _measured(arch):
    return _all_measured()[arch]


@pytest.mark.parametrize("arch", resources.ARCHS)
def test_nothing_spills(arch):
    """Local memory is device memory: a spilled register costs hundreds of cycles."""
    spilled = {
        name: (row["local"], row["spills"])
        for name, row in _measured(arch).items()
        if (row["local"] or row["spills"]) and name.partition("<")[0] not in resources.SPILLS_ALLOWED
    }
    assert not spilled, f"bytes of local memory, of spills: {spilled}"


@pytest.mark.parametrize("arch", resources.ARCHS)
def test_no_kernel_is_empty(arch):
    """A body that an #if leaves out compiles without a word."""
    nothing = resources.empty_code_bytes(arch)
    assert [name for name, row in _measured(arch).items() if row["code"] <= nothing] == []


@pytest.mark.parametrize("arch", resources.ARCHS)
def test_every_kernel_fits_on_a_multiprocessor(arch):
    assert [name for name, row in _measured(arch).items() if row["blocks"] < 1] == []


def test_resources_are_as_recorded():
    """Another NVRTC allots other registers; then the table says nothing."""
    if RECORDED["nvrtc"] != nvrtc().version:
        pytest.skip(f"the table was written with NVRTC {RECORDED['nvrtc']}, this is {nvrtc().version}")
    lines = resources.differences(RECORDED, {"rows": resources.compact(_all_measured())})
    assert not lines, "\n".join([*lines, "write the table anew: python -m bench.kernel_resources --write"])


def test_table_for_readers_is_the_recorded_one():
    assert resources.RENDERED.read_text(encoding="utf-8") == resources.rendered(RECORDED)


def test_every_exception_is_a_kernel():
    assert set(resources.SPILLS_ALLOWED) <= set(Kernel.all)


def test_every_global_function_has_a_launcher_and_every_launcher_its_function():
    defined = {}
    for path in kernel_dir().iterdir():
        text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for name in re.findall(r"__global__[^;{]*?\b(\w+)\s*\(\s*(?:const\s|\w+[\s*&]|\))", text):
            if name != "__launch_bounds__":
                defined[name] = path.name
    assert defined == {name: kernel.file for name, kernel in Kernel.all.items()}


# CUDA programming guide, occupancy: worked by hand for 256 threads.
@pytest.mark.parametrize(
    ("arch", "threads", "registers", "shared", "blocks"),
    [
        ("80", 256, 32, 0, 8),
        ("75", 256, 32, 0, 4),
        ("80", 256, 33, 0, 6),  # registers are allotted to a warp in steps of 256
        ("90", 256, 128, 0, 2),
        ("80", 256, 16, 40 * 1024, 4),  # each block also pays 1 KiB
        ("75", 256, 16, 40 * 1024, 1),
        ("90", 32, 16, 0, 32),
    ],
)
def test_occupancy(arch, threads, registers, shared, blocks):
    assert resources.occupancy(arch, threads, registers, shared) == blocks


def test_differences_are_named():
    before = {"rows": {"a": {"80": [1, 2, 3]}, "b": {"80": [1, 2, 3]}}}
    now = {"rows": {"a": {"80": [1, 2, 4]}, "c": {"80": [1, 2, 3]}}}
    assert resources.differences(before, now) == ["c: new", "b: gone", "a, sm_80: [1, 2, 4], recorded [1, 2, 3]"]
