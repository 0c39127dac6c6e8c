"""What the README shows runs, and its tables are those of the committed results."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import report
from gpuconv import nn

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_code_runs_and_prints_what_it_says(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 3
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (comment,) = re.findall(r"^print\(p\.shape.*  # (.*)$", README, flags=re.MULTILINE)
    assert run.stdout.splitlines()[0] == comment


def test_the_net_of_ones_own_is_one(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "net.toml").write_text(text)
    net = nn.from_file(tmp_path / "net.toml", input_shape=(3, 32, 32), classes=10)
    assert net.output_shape == (10,)
    assert len(net.params) == 10  # four convolutions and the classifier with biases, a batch norm


def test_tables_are_those_of_the_results():
    assert report.readme(README) == README


def test_commands_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    assert (
        set(re.findall(r"^make ([a-z]+)", README, flags=re.MULTILINE)) | set(re.findall(r"`make ([a-z]+)", README))
        <= targets
    )


def test_make_alone_says_what_there_is_to_make_and_makes_nothing():
    if shutil.which("make") is None:
        pytest.skip("no make here")
    found = subprocess.run(["make", "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "gpuconv" not in found.replace("ARGS", "")
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    described = re.findall(r"^([a-z][a-z%-]*):.* ## ", makefile, flags=re.MULTILINE)
    assert [line.split()[1] for line in shown if line.startswith("make ")] == described
    assert {"train", "test", "bench", "cupy-cuda%"} <= {*described}
