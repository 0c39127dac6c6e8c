"""The wheel, the source archive, an editable install and a plain checkout all find the kernels and the package.

What the wheel says it needs, what conda is asked for and what CI installs is what pyproject.toml says.
"""

import json
import os
import platform
import re
import shutil
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
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[1]
REPORT = (
    "import gpuconv; from gpuconv.cuda.source import kernel_dir, source;"
    "print(gpuconv.__file__); print(kernel_dir()); print(len(source('common.cuh')))"
)


def run(*command, cwd, umask=-1, **environment):
    return subprocess.run(
        command, cwd=cwd, umask=umask, env={**os.environ, **environment}, check=True, capture_output=True, text=True
    ).stdout


def build(checkout, folder, **how):
    # The source archive first, then the wheel from it: what a user without our checkout would build.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, checkout, cwd=folder, **how)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(ROOT, tmp_path_factory.mktemp("dist"))


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
        | names("bench", ".py", ".md", ".json")
        | {name for name in names("docs", ".py", ".md", ".css", ".svg", ".png") if "_build" not in name}
    )
    wanted |= {
        "README.md",
        "LICENSE",
        "Makefile",
        "pyproject.toml",
        "hatch_build.py",
        ".ci/run",
        ".ci/requirements.txt",
    }
    assert wanted <= held


def test_the_same_checkout_elsewhere_at_another_time_gives_the_same_bytes(built, tmp_path):
    aside = {".git", *(line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines())}
    unlike = shutil.ignore_patterns("__pycache__", ".venv-*")
    checkout = shutil.copytree(
        ROOT,
        tmp_path / "other name",
        ignore=lambda folder, names: unlike(folder, names) | (aside & set(names) if Path(folder) == ROOT else set()),
    )
    for path in checkout.rglob("*"):
        os.utime(path, (10**9, 10**9))
        path.chmod(path.stat().st_mode & 0o700)
    (tmp_path / "dist").mkdir()
    again = build(checkout, tmp_path / "dist", umask=0o077, TZ="Asia/Kathmandu", PYTHONHASHSEED="7")
    assert [path.name for path in again] == [path.name for path in built]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in built]


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


# The bill of materials -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bill(built):
    with zipfile.ZipFile(built[0]) as wheel:
        (name,) = [name for name in wheel.namelist() if "/sboms/" in name]
        assert name == "gpuconv-0.1.0.dist-info/sboms/gpuconv.cdx.json"
        return wheel.read(name).decode()


def test_the_bill_of_materials_has_the_form_of_its_standard(bill):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(bill) is None
    values = json.loads(bill)
    assert "serialNumber" not in values  # nor a time: equal sources make equal bills
    assert values["metadata"].keys() == {"lifecycles", "component"}
    names = [component["bom-ref"] for component in values["components"]]
    assert values["dependencies"] == [{"ref": values["metadata"]["component"]["bom-ref"], "dependsOn": names}]


def test_the_bill_of_materials_names_all_that_the_package_asks_for(bill):
    needed, known, project = _pypi()
    values = json.loads(bill)
    package = values["metadata"]["component"]
    assert (package["name"], package["version"]) == (project["name"], project["version"])
    assert package["licenses"] == [{"expression": project["license"]}]
    components = {component["name"]: component for component in values["components"]}
    bounds = {
        name: SpecifierSet(one["versionRange"].removeprefix("vers:pypi/").replace("|", ","))
        if "versionRange" in one
        else SpecifierSet(f"=={one['version']}")
        for name, one in components.items()
    }
    assert bounds == {canonicalize_name(name): bound for name, bound in known.items() if name != project["name"]}
    assert {name for name, one in components.items() if one["scope"] == "required"} == needed.keys()
    extras = {entry["value"] for one in components.values() for entry in one.get("properties", [])}
    assert {value.partition(":")[0] for value in extras} == project["optional-dependencies"].keys()
    assert {"fast", "test", "cuda13x: cupy-cuda13x[ctk]", 'test: nvidia-cuda-crt; sys_platform == "linux"'} <= extras


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


# .ci/requirements.txt -----------------------------------------------------------------------------------------------

LOCK = ROOT / ".ci/requirements.txt"
OF_CI = {"test", "torch", "emulated13x"}


def _locked():
    """Return the version of each package that CI installs, and what is said of it."""
    text = re.sub(r"^ *#.*\n", "", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    options, *entries = text.replace("\\\n", " ").strip().splitlines()
    assert options == "--only-binary :all:"  # what is built would ask for more, of any version
    split = [entry.split() for entry in filter(None, entries)]
    names = [canonicalize_name(pin.partition("==")[0]) for pin, *_ in split]
    assert len(set(names)) == len(names)
    return {name: (pin.partition("==")[2], rest) for name, (pin, *rest) in zip(names, split, strict=True)}


def test_ci_installs_exact_versions_of_known_files_from_no_named_place():
    for version, hashes in _locked().values():
        assert re.fullmatch(r"[\w.+]+", version)
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", text) for text in hashes)
    text = LOCK.read_text(encoding="utf-8")
    assert not re.search(r"://|@|--(extra-)?index-url|--find-links|/tmp|/home", text)


def test_ci_installs_all_that_its_extras_ask_for():
    project = _pypi()[2]
    locked, waiting, seen = _locked(), [*project["dependencies"]], set()
    extras = set(OF_CI)
    while extras - seen:
        for extra in extras - seen:
            seen.add(extra)
            waiting += project["optional-dependencies"][extra]
        extras |= {
            extra for text in waiting if Requirement(text).name == "gpuconv" for extra in Requirement(text).extras
        }
    for requirement in map(Requirement, waiting):
        if requirement.name != "gpuconv":
            assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)][0]), requirement


def test_ci_installs_what_the_makefile_says():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(re.findall(r"--extra (\w+)", makefile)) == OF_CI
    assert re.search(r"^WITH_CUPY +:= (.*)", makefile, re.MULTILINE)[1].split(",") == sorted(OF_CI, key=makefile.index)
    assert _locked()["cupy-cuda13x"][0] == re.search(r"^CUPY +\?= (.*)", makefile, re.MULTILINE)[1]
    for line in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines():
        assert not line.startswith("make ") or "EXTRAS=locked WITH_CUPY=locked" in line


@pytest.fixture
def install(tmp_path):
    """Let make install a file of requirements into an empty environment; return its exit code and its sentences."""
    venv.create(tmp_path / ".venv", with_pip=False, system_site_packages=True, symlinks=True)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".ci").mkdir()
    with zipfile.ZipFile(tmp_path / "nothing-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("nothing-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1\n")
        wheel.writestr("nothing-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("nothing-1.dist-info/RECORD", "")
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith(("PIP_", "MAKE", "MFLAGS"))},
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path.endswith("site-packages")),
    }

    def make(text):
        (tmp_path / ".ci/requirements.txt").write_text(text)
        done = subprocess.run(
            ["make", "VENV=.venv", ".venv/.installed-locked"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not (tmp_path / ".venv/.installed-locked").exists()
        assert not list((tmp_path / ".venv").rglob("nothing*"))
        return done.returncode, done.stdout, done.stderr

    return make


HERE = " ".join(
    [platform.python_implementation(), "{}.{}".format(*sys.version_info), platform.system(), platform.machine()]
)
with_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@with_make
def test_versions_for_another_python_are_refused_by_name(install):
    code, out, _ = install("# written\n# for CPython 3.99 Plan9 vax\n")
    assert code == 2
    assert f".ci/requirements.txt is for CPython 3.99 Plan9 vax, and this is {HERE}: " in out
    assert "make lock" in out


@with_make
@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("nothing==1", "Hashes are required in --require-hashes mode"),
        (f"nothing==1 --hash=sha256:{'0' * 64}", "THESE PACKAGES DO NOT MATCH THE HASHES"),
        (f"nothing==1+cpu --hash=sha256:{'0' * 64}", "No matching distribution found for nothing==1+cpu"),
    ],
    ids=["without_hash", "other_file", "not_there"],
)
def test_what_is_not_as_written_down_is_not_installed(line, complaint, install):
    code, out, err = install(f"# written\n# for {HERE}\n--only-binary :all:\n{line}\n")
    assert code == 2
    assert complaint in err
    assert "not all that .ci/requirements.txt names could be installed" in out
