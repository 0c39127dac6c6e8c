"""Every kernel through NVRTC to machine code, for each generation of GPUs: no GPU is needed, and none is asked.

tests/ladder/kernel_resources.py wrote the table that the kernels are held to.
"""

import functools
import re

import pytest
from emulate.cubin import MULTIPROCESSORS
from emulate.nvrtc import nvrtc

from gpuconv.cuda.kernel import Kernel
from gpuconv.cuda.source import kernel_dir
from tests.ladder import kernel_resources as resources

pytestmark = pytest.mark.compilers

RECORDED = resources.recorded()


def _anew(names):
    """Return the command that measures the files of kernels."""
    files = sorted({Kernel.all[name.partition("<")[0]].file for name in names if name.partition("<")[0] in Kernel.all})
    return f"write the table anew: python -m tests.ladder.kernel_resources --only {' '.join(files)} --write"


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
        assert not lines, "\n".join([*lines, _anew(chosen)])


def test_every_kernel_has_rows():
    of_table = {name.partition("<")[0] for name in RECORDED["rows"]}
    missing = sorted(set(Kernel.all) - of_table)
    assert not missing, f"{missing}: {_anew(missing)}"
    assert sorted(of_table - set(Kernel.all)) == [], "rows of kernels that are no more"


def test_the_table_is_possible():
    """Every kernel and architecture has its row: registers, shared memory, and at least one block that fits."""
    for name, row in RECORDED["rows"].items():
        assert tuple(row) == resources.archs_of(Kernel.all[name.partition("<")[0]]), name
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
    assert not lines, "\n".join([*lines, _anew(RECORDED["rows"])])


def test_only_some_files_are_written_beside_the_others(tmp_path, monkeypatch, capsys):
    table = tmp_path / "table.json"
    monkeypatch.setattr(resources, "TABLE", table)
    row = {arch: [1, 2, 3] for arch in resources.ARCHS}
    rows = {"relu_forward<float>": row, "relu_forward<gone>": row, "gone<float>": row, "adam_update<float, true>": row}
    table.write_text(resources.dumped({"nvrtc": nvrtc().version, "columns": [], "rows": rows}))
    measured = {arch: {"relu_forward<float>": {"registers": 9, "shared": 0, "blocks": 4}} for arch in resources.ARCHS}
    monkeypatch.setattr(resources, "measure", lambda archs, chosen: measured)
    monkeypatch.setattr(resources, "instances", dict)
    monkeypatch.setattr("sys.argv", ["kernel_resources", "--only", "relu"])
    assert resources.main() == 1
    assert capsys.readouterr().out.splitlines()[:2] == [
        "relu_forward<gone>: gone",
        "relu_forward<float>, sm_75: [9, 0, 4], recorded [1, 2, 3]",
    ]
    monkeypatch.setattr("sys.argv", ["kernel_resources", "--only", "relu.cu", "--write"])
    assert resources.main() == 0
    written = resources.recorded()["rows"]
    assert written == {
        "adam_update<float, true>": row,
        "relu_forward<float>": {arch: [9, 0, 4] for arch in resources.ARCHS},
    }
    table.write_text(table.read_text().replace(nvrtc().version, "0.0"))
    with pytest.raises(SystemExit):
        resources.main()
    assert "was written with NVRTC 0.0" in capsys.readouterr().err


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
