"""Files of the repository as pages of the site, and links that lead to them.

A page of docs/repository holds one line, `<!-- page: kernels/README.md -->`, and shows that file.  Links in all pages are
written for people who read the files where they lie: here those that leave docs/ lead to such a page, or to a copy of the
file.  A link to a folder becomes its text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
_PAGE = re.compile(r"<!-- page: (\S+) -->\n")
_LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\(([^()\s]+)\)")
_CODE = re.compile(r"(^```.*?^```|^~~~.*?^~~~|`[^`\n]+`)", re.DOTALL | re.MULTILINE)


def pages() -> dict[Path, Path]:
    """Return the page that shows each file of the repository."""
    found = {}
    for page in sorted((DOCS / "repository").glob("*.md")):
        if match := _PAGE.fullmatch(page.read_text(encoding="utf-8")):
            found[ROOT / match[1]] = page
    return found


def shown(page: Path, text: str) -> str:
    """Return what a page of docs/ shows, with links as the site has them."""
    match = _PAGE.fullmatch(text)
    file = ROOT / match[1] if match else page
    text = file.read_text(encoding="utf-8") if match else text
    shows = pages()

    def link(words: str, target: str) -> str:
        name, _, anchor = target.partition("#")
        there = Path(os.path.normpath(file.parent / name))
        if not name or "://" in name:
            return f"[{words}]({target})"
        if there.is_dir():
            return words
        if there.is_relative_to(DOCS) or there in shows:
            path = _relative(shows.get(there, there), page.parent)
            return f"[{words}]({path}{f'#{anchor}' if anchor else ''})"
        return f"{{download}}`{words.replace('`', '')} <{_relative(there, page.parent)}>`"

    # A link is looked for outside code, which may stand in its words.
    code: list[str] = []

    def hide(found: re.Match[str]) -> str:
        code.append(found[0])
        return f"\x00{len(code) - 1}\x00"

    def unhide(text: str) -> str:
        return re.sub(r"\x00(\d+)\x00", lambda found: code[int(found[1])], text)

    hidden = _CODE.sub(hide, text)
    return unhide(_LINK.sub(lambda found: link(unhide(found[1]), found[2]), hidden))


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path, start)).as_posix()


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    page = Path(app.env.doc2path(docname))
    if match := _PAGE.fullmatch(source[0]):
        app.env.note_dependency(ROOT / match[1])
    source[0] = shown(page, source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
