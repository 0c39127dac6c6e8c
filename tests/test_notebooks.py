"""The notebooks run from top to bottom, and what is stored in them is what their sources give, fit to be read."""

import ast
import base64
import os
import re
import struct
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from packaging.requirements import Requirement

from notebooks import build

ROOT = Path(__file__).resolve().parents[1]

every_notebook = pytest.mark.parametrize("name", build.NAMES)


def stored(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def shows(source):
    """Return whether a code cell has something to show: it prints, draws, or ends in an expression, a run's view at least."""
    last = ast.parse(source).body[-1]
    called = (
        isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) and not ast.unparse(last).startswith("run.")
    )
    return "plt.show()" in source or "print(" in source or (isinstance(last, ast.Expr) and not called)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a folder with what the wheel installs, and nothing else of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Return a folder for compiled loops, which all notebooks need."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def environment(tmp_path, cache):
    """Return what a kernel finds in os.environ: nobody's settings, no data set, our checkout first."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GPUCONV_", "MPL"))}
    own = {
        "IPYTHONDIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    return kept | own | {"GPUCONV_NOTEBOOK_QUICK": "1", "GPUCONV_CACHE": str(cache)}


def test_every_notebook_is_known():
    folder = ROOT / "notebooks"
    assert sorted(path.stem for path in folder.glob("*.ipynb")) == sorted(build.NAMES)
    assert {path.stem for path in folder.glob("*.py")} == {*build.NAMES, "build"}
    readme = (folder / "README.md").read_text()
    assert [name for name in build.NAMES if f"[`{name}.ipynb`]({name}.ipynb)" not in readme] == []


@every_notebook
def test_a_notebook_imports_what_the_extra_brings(name):
    """And modules of the courses, which gpuconv.compat makes."""
    trees = [ast.parse(cell.source) for cell in code_cells(build.notebook(name))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    tops = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"cs231n", "nndl", "utils"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["notebooks"]]
    brought = {Requirement(text).name for text in wanted}
    assert {{"PIL": "pillow"}.get(top, top) for top in tops} <= {"gpuconv", *brought}


@pytest.mark.notebook
@every_notebook
def test_runs_in_an_empty_folder_with_nothing_but_the_wheel(name, environment, installed):
    book = build.notebook(name)
    where = f"import gpuconv\nassert gpuconv.__file__.startswith({str(installed)!r}), gpuconv.__file__"
    book.cells.insert(0, nbformat.v4.new_code_cell(where))
    build.execute(book, environment | {"PYTHONPATH": str(installed)}, timeout=120)
    for cell in code_cells(book)[1:]:
        assert not [output.text for output in cell.outputs if output.get("name") == "stderr"]
        assert bool(cell.outputs) == shows(cell.source), cell.source


def test_a_false_assertion_in_a_cell_is_an_error(environment):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import gpuconv\nassert gpuconv is None")])
    with pytest.raises(CellExecutionError, match="AssertionError"):
        build.execute(book, environment, timeout=60)


@every_notebook
def test_stored_cells_are_those_of_the_source(name):
    book, source = stored(name), build.notebook(name)
    nbformat.validate(book)
    assert [(cell.id, cell.cell_type, cell.source) for cell in book.cells] == [
        (cell.id, cell.cell_type, cell.source) for cell in source.cells
    ]


@every_notebook
def test_stored_outputs_are_whole_and_in_order(name):
    cells = code_cells(stored(name))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert bool(cell.outputs) == shows(cell.source), cell.source
        for output in cell.outputs:
            assert output.output_type in ("display_data", "execute_result", "stream")
            assert output.get("name") != "stderr"
        pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        assert len(pictures) == cell.source.count("plt.show()") + cell.source.count(".plot()")
        for output in pictures:
            png = base64.b64decode(output.data["image/png"])
            width, height = struct.unpack(">II", png[16:24])
            assert 300 < width < 1200, cell.source
            assert 100 < height < 900, cell.source


@every_notebook
def test_stored_notebook_is_small_and_tells_nothing_about_a_machine(name):
    book = stored(name)
    assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size < 600_000
    assert set(book.metadata) == {"kernelspec", "language_info"}
    for cell in book.cells:
        assert not cell.metadata
        for output in cell.get("outputs", []):
            text = output.get("text", "") + "".join(
                re.sub("<[^>]*>", " ", value) if kind == "text/html" else value
                for kind, value in output.get("data", {}).items()
                if kind.startswith("text/")
            )
            # A path from the root, from a home folder or of a drive; a path of ours in a text is relative.
            assert not re.search(r"(?<![\w.])(/|~/)\w|\b[A-Za-z]:\\", text), text
            assert not re.search(r"\b\d+(\.\d+)? ?(s|ms|min|seconds)\b", text), text


def test_stored_training_is_that_of_cifar10():
    text = "".join(
        output.text for cell in stored("03-train-a-net").cells for output in cell.get("outputs", []) if "text" in output
    )
    accuracies = [float(percent) for percent in re.findall(r"test ([\d.]+)% on CIFAR-10", text)]
    assert len(accuracies) == 2
    assert 65 < accuracies[0] < accuracies[1]
