"""Python in the project's Markdown runs as it stands, page by page, and prints what its comments say."""

import os
import subprocess
import sys

import doc_files
import pytest
from doc_files import PAGES, ROOT

# Pages whose Python needs more than this machine, and who runs it there.
ELSEWHERE = {
    "docs/cuda-graphs.md": "CuPy: test_gpu_graph.py and test_train_graph.py",
    "docs/mixed-precision.md": "arrays of bfloat16 on a GPU: test_mixed_precision.py",
    "tests/emulate/README.md": "g++, and a kernel of the reader's own: test_emulate_routes.py",
}
WITH_PYTHON = [page for page in PAGES if doc_files.blocks(page, "python")]
_NEEDS_TORCH = ("docs/interoperability.md",)


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=() if page == "README.md" else pytest.mark.long) for page in WITH_PYTHON]
)
def test_python_runs_and_prints_what_its_comments_say(page, tmp_path):
    source = "\n".join(doc_files.blocks(page, "python"))
    compile(source, page, "exec")
    if page in ELSEWHERE:
        return
    if page in _NEEDS_TORCH:
        pytest.importorskip("torch", reason="needs PyTorch")
    for name, text in doc_files.nets(page).items():
        (tmp_path / name).write_text(text)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "GPUCONV_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = iter(run.stdout.splitlines())
    for said in doc_files.printed(source):
        assert said in lines, f"{page} says that this is printed: {said}\n{run.stdout}"


def test_every_page_that_is_run_elsewhere_is_there():
    assert ELSEWHERE.keys() <= set(WITH_PYTHON)
    assert len(WITH_PYTHON) - len(ELSEWHERE) >= 10
