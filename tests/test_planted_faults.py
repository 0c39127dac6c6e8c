"""The faults of tests/ladder/planted_faults.py: each still finds its place in the code, and makes Python of it."""

import shutil
from pathlib import Path

import pytest

from gpuconv.cuda import device
from tests.ladder.planted_faults import FAULTS, Fault, drawn

CUDA = Path(device.__file__).parent


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.file}: {fault.kind}")
def test_a_fault_finds_its_place(fault, tmp_path):
    shutil.copytree(CUDA, tmp_path / "gpuconv" / "cuda")
    fault.plant(tmp_path)
    planted = (tmp_path / "gpuconv" / "cuda" / fault.file).read_text(encoding="utf-8")
    assert planted != (CUDA / fault.file).read_text(encoding="utf-8")
    compile(planted, fault.file, "exec")


def test_a_fault_whose_place_is_gone_says_so(tmp_path):
    shutil.copytree(CUDA, tmp_path / "gpuconv" / "cuda")
    with pytest.raises(ValueError, match="the list of faults is behind the code"):
        Fault("kind", "relu.py", "no such line", "").plant(tmp_path)


def test_a_seed_draws_the_same_faults():
    assert drawn(10, 1) == drawn(10, 1) != drawn(10, 2)
    assert len(set(drawn(10, 1))) == 10
