"""Every kernel through NVRTC to machine code, for each generation of GPUs: no GPU is needed, and none is asked.

tests/ladder/kernel_resources.py wrote the table that the kernels are held to.
"""

import functools
import json
import re

import pytest
from emulate.cubin import MULTIPROCESSORS
from emulate.nvrtc import nvrtc

from gpuconv.cuda.kernel import Kernel
from gpuconv.cuda.source import kernel_dir
from tests.ladder import kernel_resources as resources

pytestmark = pytest.mark.compilers

_ANEW = "write the table anew: python -m tests.ladder.kernel_resources --write"
RECORDED = json.loads(resources.TABLE.read_text(encoding="utf-8"))


@functools.cache
def _all_measured():
    return resources.measure(resources.ARCHS, resources.instances())


def _measured(arch):
    return _all_measured()[arch]


def _spilled(rows):
    return {
        name: (row["local"], row["spills"])
        for name, row in rows.items()
        if (row["local"] or row["spills"]) and name.partition("<")[0] not in resources.SPILLS_ALLOWED
    }


def test_one_instance_of_each_kernel():
    """What the ladder looks at in every instance on every architecture: one each, on one."""
    measured = resources.measure_each(resources.one_of_each(resources.instances()))
    for arch, rows in measured.items():
        nothing = resources.empty_code_bytes(arch)
        assert _spilled(rows) == {}, f"sm_{arch}: bytes of local memory, of spills"
        assert [name for name, row in rows.items() if row["code"] <= nothing or row["blocks"] < 1] == []
    assert {name.partition("<")[0] for rows in measured.values() for name in rows} == set(Kernel.all)
    if RECORDED["nvrtc"] == nvrtc().version:
        chosen = resources.compact(measured)
        of_chosen = {name: RECORDED["rows"].get(name, {}) for name in chosen}
        lines = resources.differences({"rows": of_chosen}, {"rows": chosen})
        assert not lines, "\n".join([*lines, _ANEW])


def test_the_table_is_possible():
    """Every kernel and architecture has its row: registers, shared memory, and at least one block that fits."""
    assert {name.partition("<")[0] for name in RECORDED["rows"]} == set(Kernel.all)
    for name, row in RECORDED["rows"].items():
        assert tuple(row) == resources.ARCHS, name
        for arch, (registers, shared, blocks) in row.items():
            sm = MULTIPROCESSORS[int(arch)]
            assert 0 < registers <= 255, name
            assert 0 <= shared <= sm.shared_bytes_of_block, name
            assert 0 < blocks <= sm.blocks, name


@pytest.mark.ladder
@pytest.mark.parametrize("arch", resources.ARCHS)
def test_nothing_spills(arch):
    """Local memory is device memory: a spilled register costs hundreds of cycles."""
    assert _spilled(_measured(arch)) == {}, "bytes of local memory, of spills"


@pytest.mark.ladder
@pytest.mark.parametrize("arch", resources.ARCHS)
def test_no_kernel_is_empty(arch):
    """A body that an #if leaves out compiles without a word."""
    nothing = resources.empty_code_bytes(arch)
    assert [name for name, row in _measured(arch).items() if row["code"] <= nothing] == []


@pytest.mark.ladder
@pytest.mark.parametrize("arch", resources.ARCHS)
def test_every_kernel_fits_on_a_multiprocessor(arch):
    assert [name for name, row in _measured(arch).items() if row["blocks"] < 1] == []


@pytest.mark.ladder
def test_resources_are_as_recorded():
    """Another NVRTC allots other registers; then the table says nothing."""
    if RECORDED["nvrtc"] != nvrtc().version:
        pytest.skip(f"the table was written with NVRTC {RECORDED['nvrtc']}, this is {nvrtc().version}")
    lines = resources.differences(RECORDED, {"rows": resources.compact(_all_measured())})
    assert not lines, "\n".join([*lines, _ANEW])


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


def test_differences_are_named():
    before = {"rows": {"a": {"80": [1, 2, 3]}, "b": {"80": [1, 2, 3]}}}
    now = {"rows": {"a": {"80": [1, 2, 4]}, "c": {"80": [1, 2, 3]}}}
    assert resources.differences(before, now) == ["c: new", "b: gone", "a, sm_80: [1, 2, 4], recorded [1, 2, 3]"]
