"""The site: it is built without a warning, asks no network for anything, and shows what the package says of itself."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gpuconv import nn, ops
from gpuconv.runs.config import Config
from gpuconv.runs.settings import PRESETS

pytest.importorskip("sphinx", reason="needs the extra docs")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def parts():
    """What docs/ adds to Sphinx."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        from site_parts import docstrings, figures, mathml, repository, tables

        yield {
            "docstrings": docstrings,
            "figures": figures,
            "mathml": mathml,
            "repository": repository,
            "tables": tables,
        }
    for name in [name for name in sys.modules if name.partition(".")[0] == "site_parts"]:
        del sys.modules[name]


# Docstrings -----------------------------------------------------------------------------------------------------------


def restructured(parts, text, itself=""):
    return "\n".join(parts["docstrings"].restructured(text.split("\n"), itself))


def test_lines_of_shapes_keep_their_columns(parts):
    text = "x: (N, C)     w: (C, K)   ->   y: (N, K)\nx: (N, C, L)  w: (C, K)   ->   y: (N, K, L)"
    shown = restructured(parts, f"Multiply.\n\n{text}\n\nMore.")
    assert "Multiply.\n\n.. code-block:: text" in shown
    assert "   x: (N, C)     w: (C, K)   ->   y: (N, K)\n   x: (N, C, L)  w:" in shown
    assert shown.rstrip().endswith("\n\nMore.")


def test_a_sentence_that_names_a_pair_is_no_line_of_shapes(parts):
    text = "stride and pad are an int, or a tuple: (vertical, horizontal) for images."
    assert restructured(parts, text).strip() == text


def test_an_example_stays_one(parts):
    text = "Add.\n\n>>> y, cache = conv_forward(x, w)\n>>> y\narray([[1.],\n       [2.]])"
    assert restructured(parts, text).strip() == text


def test_a_sentence_before_shapes_is_one(parts):
    shown = restructured(parts, "Return dx.   dy: (N, C)   ->   dx: (N, C)")
    assert shown.startswith("Return dx.\n\n.. code-block:: text\n\n   dy: (N, C)   ->")


def test_arguments_in_a_line_are_a_paragraph_each(parts):
    shown = restructured(parts, "name: that of a\nset.   seed: of the draws.   folder: where it is.")
    assert shown == "name: that of a\nset.\n\nseed: of the draws.\n\nfolder: where it is.\n"


def test_formulas_side_by_side_keep_their_columns(parts):
    assert restructured(parts, "g = dw + w;   v = m v + g").startswith(".. code-block:: text\n\n   g = dw + w;   v")


def test_names_are_links_but_for_ones_own(parts):
    shown = restructured(parts, "As relu_forward(x) of max_pool_backward; ShapeError.", "max_pool_backward")
    assert ":func:`~gpuconv.relu_forward`\\ (x)" in shown
    assert "max\\_pool\\_backward;" in shown
    assert ":class:`~gpuconv.errors.ShapeError`." in shown


def test_signs_mean_nothing(parts):
    assert restructured(parts, "|y| <= c * u, `code_of` x_").strip() == "\\|y\\| <= c \\* u, ``code_of`` x\\_"


# Tables ---------------------------------------------------------------------------------------------------------------


def test_every_setting_has_a_row_in_the_table_of_the_training_guide(parts):
    text = "\n".join(parts["tables"].flags("train"))
    missing = [name for name in Config.__dataclass_fields__ if f"`--{name.replace('_', '-')}" not in text]
    assert missing == []
    assert "| `--batch-size N` | images per step \\[128\\] |" in text


def test_every_command_has_its_flags(parts):
    text = "\n".join(parts["tables"].every_command())
    for name in parts["tables"].commands():
        assert name == "train" or f"**gpuconv {name}**" in text
    assert {"eval", "data get", "import"} <= parts["tables"].commands().keys()


def test_presets_and_kinds_of_layers_are_all_there(parts):
    presets, kinds = ("\n".join(made()) for made in (parts["tables"].presets, parts["tables"].layer_kinds))
    assert all(f"| `{name}` |" in presets for name in PRESETS)
    assert all(f"| `{kind}` |" in kinds for kind in nn.kinds())
    assert "`slope = 0.01`" in kinds


def test_counts_of_the_ladder_are_those_of_its_files(parts):
    score = json.loads((ROOT / "tests/ladder/mutation_score.json").read_text(encoding="utf-8"))
    assert len(parts["tables"].mutants()) == len(score) + 3
    assert any("relu_forward" in line for line in parts["tables"].resources())
    total = sum(one["mutants"] for one in score.values())
    assert any(f"{total:,} small changes" in words for _, words in parts["figures"].rungs())


# Formulas and links ---------------------------------------------------------------------------------------------------


def test_links_that_leave_docs_lead_to_pages_or_copies(parts, tmp_path):
    page = ROOT / "docs/kernels.md"
    shown = parts["repository"].shown
    assert (
        shown(page, "[a `b`](../kernels/README.md#the-cuda-kernels)")
        == "[a `b`](repository/kernels.md#the-cuda-kernels)"
    )
    assert shown(page, "[a](runs.md) [b](#c)") == "[a](runs.md) [b](#c)"
    assert shown(page, "[log](../tests/ladder/steps.py)") == "{download}`log <../tests/ladder/steps.py>`"
    assert shown(page, "see [the tests](../tests)") == "see the tests"
    assert shown(page, "`[a](../tests)`") == "`[a](../tests)`"
    bench = ROOT / "docs/repository/bench.md"
    assert shown(bench, bench.read_text(encoding="utf-8")).startswith("# Benchmarks")


# The whole ------------------------------------------------------------------------------------------------------------


class _Loads(HTMLParser):
    """What a page loads, and whether it has formulas and scripts for them."""

    def __init__(self):
        super().__init__()
        self.loaded, self.formulas = [], 0

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.formulas += tag == "math"
        if tag in ("script", "img", "link", "source", "iframe"):
            self.loaded += filter(None, (attributes.get("src"), attributes.get("href")))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    flags = re.search(r"-m sphinx (.*) docs docs/_build", (ROOT / "Makefile").read_text(encoding="utf-8"))[1].split()
    command = [sys.executable, "-m", "sphinx", *flags, str(ROOT / "docs"), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.long
def test_no_page_asks_a_network_for_anything(site):
    pages, formulas = sorted(site.rglob("*.html")), 0
    assert len(pages) > 30
    for page in pages:
        parser = _Loads()
        parser.feed(page.read_text(encoding="utf-8"))
        assert [name for name in parser.loaded if re.match(r"\w+:|//", name)] == []
        for name in parser.loaded:
            assert (page.parent / name.partition("?")[0].partition("#")[0]).exists(), f"{page.name}: {name}"
        formulas += parser.formulas
    assert formulas > 10
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", style.read_text(encoding="utf-8"))


@pytest.mark.long
def test_the_search_knows_operators_and_settings(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert all(name in index for name in (*ops.__all__, "winograd", "warmup"))


@pytest.mark.long
def test_a_name_has_its_shapes_and_errors_in_the_reference(site):
    text = (site / "reference/operators.html").read_text(encoding="utf-8")
    assert 'id="gpuconv.conv_forward"' in text
    assert "errors.html#gpuconv.errors.ShapeError" in text
    assert "y: (N, K, P, Q)" in re.sub(r"<[^>]+>", "", text)
