"""The wheel, the source archive, an editable install and a plain checkout all find the kernels and the package."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[1]
REPORT = (
    "import gpuconv; from gpuconv.cuda.source import kernel_dir, source;"
    "print(gpuconv.__file__); print(kernel_dir()); print(len(source('common.cuh')))"
)


def run(*command, cwd, **environment):
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    # The source archive first, then the wheel from it: what a user without our checkout would build.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return wheel, sdist


def names(folder, *suffixes):
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.suffix in suffixes}


def test_wheel_holds_the_package_the_kernels_and_nothing_else(built):
    held = {name for name in zipfile.ZipFile(built[0]).namelist() if ".dist-info/" not in name}
    kernels = {f"gpuconv/{name}" for name in names("kernels", ".cu", ".cuh")}
    assert held == names("gpuconv", ".py", ".css") | {"gpuconv/py.typed"} | kernels
    assert kernels


def test_source_archive_holds_what_the_tests_need(built):
    with tarfile.open(built[1]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = (
        names("gpuconv", ".py", ".css")
        | names("kernels", ".cu", ".cuh")
        | names("tests", ".py")
        | names("bench", ".py")
    )
    assert wanted | {"README.md", "LICENSE", "Makefile", "pyproject.toml", "hatch_build.py"} <= held


def test_wheel_runs_from_its_own_copy(built, tmp_path):
    zipfile.ZipFile(built[0]).extractall(tmp_path / "site")
    package, kernels, size = run(
        sys.executable, "-c", REPORT, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site")
    ).splitlines()
    assert Path(package).is_relative_to(tmp_path)
    assert Path(kernels) == tmp_path / "site/gpuconv/kernels"
    assert int(size) > 0


def test_editable_install_reads_the_checkout(tmp_path):
    venv.create(tmp_path / "venv", with_pip=False, system_site_packages=True, symlinks=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    # The interpreter running these tests has pip and the build backend; the new environment sees its packages.
    packages = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-build-isolation"),
        *("--no-index", "--editable", ROOT),
        cwd=tmp_path,
        PYTHONPATH=packages,
    )
    package, kernels, _ = run(python, "-c", REPORT, cwd=tmp_path, PYTHONPATH=packages).splitlines()
    assert Path(package) == ROOT / "gpuconv/__init__.py"
    assert Path(kernels) == ROOT / "kernels"


def test_plain_checkout_reads_its_own_kernels(tmp_path):
    _, kernels, _ = run(sys.executable, "-c", REPORT, cwd=tmp_path, PYTHONPATH=str(ROOT)).splitlines()
    assert Path(kernels) == ROOT / "kernels"


def test_missing_kernels_are_named(monkeypatch):
    from gpuconv.cuda import source

    monkeypatch.setattr(source, "_SENTINEL", "no such file")
    with pytest.raises(FileNotFoundError, match=r"looked in .*kernels and .*kernels"):
        source.kernel_dir()


def test_headers_are_spliced_once_with_true_line_numbers(tmp_path, monkeypatch):
    from gpuconv.cuda import source

    (tmp_path / "a.cu").write_text('first\n#include "b.cuh"\n#include "c.cuh"\nlast\n')
    (tmp_path / "b.cuh").write_text('#pragma once\n#include "c.cuh"\nin b\n')
    (tmp_path / "c.cuh").write_text("#pragma once\nin c\n")
    monkeypatch.setattr(source, "kernel_dir", lambda: tmp_path)
    lines = source.source("a.cu").splitlines()
    assert lines.count("in c") == 1
    assert lines[lines.index("last") - 1] == '#line 4 "kernels/a.cu"'
    assert lines[lines.index("in b") - 1] == '#line 3 "kernels/b.cuh"'


# environment.yml ----------------------------------------------------------------------------------------------------

PYPI_NAMES = {"matplotlib-base": "matplotlib", "cupy": "cupy-cuda13x"}  # of what conda-forge calls otherwise
NOT_OF_PYPI = {"python", "pip", "cuda-version"}


def _conda():
    """Return what environment.yml asks conda for, name and bounds, what it only names for a GPU included."""
    text = (ROOT / "environment.yml").read_text(encoding="utf-8").partition("\ndependencies:\n")[2]
    found = re.findall(r"^  (?:# )?- ([a-z][a-z0-9-]*)([=<>!][^\s]*)?$", text, re.MULTILINE)
    assert len(dict(found)) == len(found), "a name twice"
    return dict(found)


def _pypi():
    """Return what pyproject.toml asks pip for: the package's own needs, and those of its extras, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {Requirement(text).name: Requirement(text).specifier for text in project["dependencies"]}
    extras = [Requirement(text) for texts in project["optional-dependencies"].values() for text in texts]
    bounds = {}
    for one in extras:
        if one.name != "gpuconv":
            assert bounds.setdefault(one.name, one.specifier) == one.specifier, f"{one.name} has two bounds"
    return needed, needed | bounds, project


def test_the_conda_environment_has_the_bounds_of_the_package():
    conda, (needed, known, _) = _conda(), _pypi()
    listed = {PYPI_NAMES.get(name, name): bounds for name, bounds in conda.items() if name not in NOT_OF_PYPI}
    assert needed.keys() <= listed.keys()
    assert {name: SpecifierSet(bounds) for name, bounds in listed.items()} == {name: known[name] for name in listed}


def test_the_conda_environment_has_a_python_and_a_cuda_that_the_package_takes():
    conda, (_, _, project) = _conda(), _pypi()
    python = conda["python"].removeprefix("=")
    assert SpecifierSet(project["requires-python"]).contains(python)
    assert f"Programming Language :: Python :: {python}" in project["classifiers"]
    assert f"cuda{conda['cuda-version'].removeprefix('=')}x" in project["optional-dependencies"]
