"""A student's own utils.py, and what lies in the __init__.py of their packages, stay visible beside the courses' modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpuconv.compat import data_utils
from gpuconv.errors import DatasetMissingError

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent
OWN = "def mine():\n    return 'mine'\n"
ALL, ONE = "compat.install()", 'compat.install("cs231n.fast_layers")'
CASES = {  # name -> files, how compat is installed, imports of the notebook
    "own_module": ({"utils.py": OWN}, ALL, "from cs231n.layers import affine_forward\nfrom utils import mine"),
    "own_module_one_installed": ({"utils.py": OWN}, ONE, "from utils import mine"),
    "own_module_as_a_whole": ({"utils.py": OWN}, ALL, "import utils\nmine = utils.mine"),
    "own_module_starred": ({"utils.py": f"__all__ = ['mine']\n{OWN}"}, ALL, "from utils import *"),
    "own_package": ({"utils/__init__.py": OWN}, ALL, "from utils import mine"),
    "own_package_that_gathers": (
        {"nndl/__init__.py": "from .own import mine\n", "nndl/own.py": OWN}, ALL, "from nndl import mine",
    ),
    "own_package_that_gathers_ours": (
        {"nndl/__init__.py": f"from .layers import affine_forward\n{OWN}"}, ALL,
        "from nndl import mine, affine_forward\nassert affine_forward.__module__.startswith('gpuconv')",
    ),
    "own_module_beside_ours": (
        {"utils.py": OWN}, ALL, "from utils.solver import Solver\nassert 'gpuconv' in Solver.__module__\nfrom utils import mine",
    ),
    "own_classifiers": (
        {"cs231n/__init__.py": "", "cs231n/classifiers/__init__.py": OWN}, ALL, "from cs231n.classifiers import mine",
    ),
    "own_module_in_a_package": ({"utils/__init__.py": "", "utils/own.py": OWN}, ALL, "from utils.own import mine"),
    "imported_before": ({"utils.py": OWN}, f"import utils\nutils.mark = 1\n{ALL}", "from utils import mine, mark"),
}  # fmt: skip


def notebook(files: dict[str, str], code: str, folder: Path) -> subprocess.CompletedProcess:
    """Run code beside files, in a process of its own."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=100, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_own_names_stay_visible(case, tmp_path):
    files, install, imports = CASES[case]
    done = notebook(files, f"from gpuconv import compat\n{install}\n{imports}\nprint(mine())", tmp_path)
    assert (done.stdout, done.stderr) == ("mine\n", "")


def test_a_name_that_nobody_has_is_said_as_ever_and_own_code_runs_once(tmp_path):
    code = (
        "from gpuconv import compat\ncompat.install()\nimport utils\n"
        "print(hasattr(utils, 'none'), hasattr(utils, 'none'), utils.__file__)\nfrom utils import none"
    )
    done = notebook({"utils.py": "print('run')\n"}, code, tmp_path)
    assert done.stdout == f"run\nFalse False {tmp_path / 'utils.py'}\n"
    assert "ImportError: cannot import name 'none' from 'utils'" in done.stderr


def test_an_error_in_own_code_is_theirs(tmp_path):
    code = "from gpuconv import compat\ncompat.install()\nfrom utils import mine"
    done = notebook({"utils.py": "import not_there\n"}, code, tmp_path)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'not_there'"


@pytest.mark.parametrize("load", [data_utils.get_CIFAR10_data, lambda: data_utils.load_CIFAR10("none")])
def test_a_missing_cifar_is_short_in_a_notebook(load, tmp_path, monkeypatch):
    """Notebooks show what this method of an error returns, else its whole traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPUCONV_DATA", str(tmp_path / "none"))
    with pytest.raises(DatasetMissingError) as caught:
        load()
    lines = caught.value._render_traceback_()
    assert lines == f"DatasetMissingError: {caught.value}".splitlines()
    assert "does not exist" in lines[0]
