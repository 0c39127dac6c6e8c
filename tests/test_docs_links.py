"""Links in the project's Markdown lead somewhere, and each public name has its place in the reference."""

import os
import re
from pathlib import Path

import doc_files
import pytest
from doc_files import PAGES, ROOT

import gpuconv
from gpuconv import compat, cudnn, data, export, nn, testing, train
from gpuconv.cudnn import refusals


def _leads(page, link):
    """Return whether a link of a page leads to a file, folder or heading of the project, or out into the world."""
    name, _, anchor = link.partition("#")
    if "://" in name:
        return True
    path = Path(os.path.normpath((ROOT / page).parent / name)) if name else ROOT / page
    if not (path.exists() and path.is_relative_to(ROOT)):
        return False
    return not anchor or anchor in doc_files.anchors(path.relative_to(ROOT).as_posix())


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_are_there(page):
    assert [link for link in doc_files.links(page) if not _leads(page, link)] == []


@pytest.mark.parametrize("link", ["nowhere.md", "../..", "kernels.md#no-such-heading", "#no-such-heading"])
def test_a_link_that_leads_nowhere_is_seen(link):
    assert _leads("docs/training.md", "kernels.md#the-ladder")
    assert not _leads("docs/training.md", link)


def test_links_are_looked_for_in_every_kind_of_page():
    assert {"README.md", "CONTRIBUTING.md", "docs/index.md", "docs/from/pytorch.md", "tests/ladder/README.md"} <= set(
        PAGES
    )
    assert sum(len(doc_files.links(page)) for page in PAGES) > 100
    assert "the-ladder" in doc_files.anchors("docs/kernels.md")


def test_every_page_is_in_the_table_of_contents():
    pages = {page.removeprefix("docs/").removesuffix(".md") for page in PAGES if page.startswith("docs/")} - {"index"}
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    listed = {
        line for block in re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL) for line in block.splitlines()
    }
    assert pages == {line for line in listed if line and not line.startswith(":")}


# The reference --------------------------------------------------------------------------------------------------------

NAMES = {
    "gpuconv": {*gpuconv.ops.__all__, "errors", "use", "default_device", "free_memory", "load"},
    "gpuconv.nn": set(nn.__all__),
    "gpuconv.train": set(train.__all__),
    "gpuconv.data": set(data.__all__),
    "gpuconv.export": set(export.__all__),
    "gpuconv.testing": set(testing.__all__),
    "gpuconv.compat": {name for name in compat.__all__ if getattr(compat, name) is not gpuconv.use},
}


def _documented():
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES if page.startswith("docs/reference/"))
    return re.findall(r"^\.\. (?:auto|py:)\w+:: (\S+)$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("module", NAMES)
def test_every_public_name_is_in_the_reference_once(module):
    found = [name for name in _documented() if name.rpartition(".")[0] == module]
    assert sorted(found) == sorted(f"{module}.{name}" for name in NAMES[module])


def test_every_function_that_stands_for_one_of_cudnn_is_in_the_reference():
    refused = {name for name in vars(refusals) if name in cudnn.__all__}
    served = {name for name in cudnn.__all__ if callable(getattr(cudnn, name)) and name not in refused}
    beside = {"Descriptor", *(name for name in served if name.startswith(("create_", "get_", "set_", "reset_", "is_")))}
    assert {f"gpuconv.cudnn.{name}" for name in served - beside} <= set(_documented())
