"""The project's Markdown, taken apart: blocks of code, commands, links, anchors."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.anchors.index import slugify

ROOT = Path(__file__).resolve().parents[1]
_PLACES = ("*.md", "bench/*.md", "kernels/*.md", "notebooks/*.md", "docs/**/*.md", "tests/**/*.md")
PAGES = sorted(
    path.relative_to(ROOT).as_posix() for place in _PLACES for path in ROOT.glob(place) if "_build" not in path.parts
)


@functools.cache
def tokens(page: str) -> list[Token]:
    """Return the blocks of a page, and what stands in each line of text, in one list."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        each
        for token in MarkdownIt("commonmark").enable("table").parse(text)
        for each in (token, *(token.children or ()))
    ]


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of code in a language."""
    return [token.content for token in tokens(page) if token.type == "fence" and token.info == language]


def nets(page: str) -> dict[str, str]:
    """Return the nets in blocks of TOML by the names of their files, which a comment in front may say."""
    found = {}
    for text in blocks(page, "toml"):
        name = re.match(r"# (\w+\.toml)\n", text)
        found[name[1] if name else "my_net.toml"] = text
    return found


def commands(page: str) -> list[str]:
    """Return the commands in blocks of shell, without comments, each in one line."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    found = [shlex.join(shlex.split(line, comments=True)) for line in lines]
    return [command for command in found if command]


def in_sentences(page: str) -> list[str]:
    """Return what stands in backquotes in text."""
    return [token.content for token in tokens(page) if token.type == "code_inline"]


def links(page: str) -> list[str]:
    """Return the targets of links and pictures."""
    kinds = {"link_open": "href", "image": "src"}
    return [str(token.attrs[kinds[token.type]]) for token in tokens(page) if token.type in kinds]


@functools.cache
def anchors(page: str) -> set[str]:
    """Return the names by which headings of a page are linked to."""
    found: set[str] = set()
    for title in _titles(page):
        name, number = slugify(title), 0
        while (slug := f"{name}-{number}" if number else name) in found:
            number += 1
        found.add(slug)
    return found


def _titles(page: str) -> Iterator[str]:
    heading = False
    for token in tokens(page):
        if token.type == "inline" and heading:
            yield "".join(child.content for child in token.children or () if child.type in ("text", "code_inline"))
        heading = token.type == "heading_open"


def printed(source: str) -> list[str]:
    """Return what the comments behind calls of print say that they print."""
    return re.findall(r"^ *print\(.*\)  # (.*)$", source, flags=re.MULTILINE)
