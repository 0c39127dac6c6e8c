"""Make the README's pictures: a terminal in which a net is trained, the curves and the report of that run, and a search for a rate.

    python docs/pictures.py [ARGUMENT ...]

The arguments are those of `gpuconv train`, which runs in a terminal of 80 columns that tmux draws; the report is drawn by
Chromium.  Both must be installed.  The run itself is thrown away.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

FOLDER = Path(__file__).resolve().parent / "pictures"
_COLUMNS, _LINES = 80, 60
_USUAL_LINES = 24  # of a terminal, for charts that fill it
_PAGE = (1000, 1500)  # the report's upper part, in pixels

# rich's own frame asks a server for a font; this one takes what the reader's machine has.
_SVG = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px Menlo, Consolas, "DejaVu Sans Mono", monospace; line-height: {line_height}px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def in_terminal(command: list[str], folder: Path, lines: int = _LINES) -> str:
    """Run a command in a terminal of its own of so many lines; return the screen it leaves, with its colours."""
    server = f"gpuconv-pictures-{os.getpid()}"

    def tmux(*arguments: str) -> str:
        done = subprocess.run(["tmux", "-L", server, *arguments], check=True, capture_output=True, text=True)
        return done.stdout

    line = f"{shlex.join(command)}; tmux -L {server} wait-for -S ended; exec cat"
    try:
        tmux("-f", os.devnull, "new-session", "-d", "-x", str(_COLUMNS), "-y", str(lines), "-c", str(folder), line)
        tmux("wait-for", "ended")
        return tmux("capture-pane", "-e", "-p").rstrip()
    finally:
        subprocess.run(["tmux", "-L", server, "kill-server"], check=False, capture_output=True)


def draw_terminal(title: str, screen: str, file: Path) -> None:
    """Draw a screen's text, with its colours, as SVG."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=_COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(f"\x1b[1m$ {title}\x1b[0m\n{screen}"))
        file.write_text(console.export_svg(title=title, code_format=_SVG, unique_id=file.stem), encoding="utf-8")


def draw_page(page: Path, file: Path) -> None:
    """Draw the upper part of an HTML file as PNG."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("docs/pictures.py needs Chromium to draw the report")
    width, height = _PAGE
    subprocess.run(
        [browser, "--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={width},{height}",
         f"--screenshot={file}", page.as_uri()],
        check=True, capture_output=True,
    )  # fmt: skip


def main() -> None:
    """Train, and draw all pictures."""
    arguments = sys.argv[1:]
    if shutil.which("tmux") is None:
        sys.exit("docs/pictures.py needs tmux to draw a terminal")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gpuconv = str(Path(sys.executable).with_name("gpuconv"))

        def draw(name: str, *command: str, lines: int = _LINES) -> None:
            screen = in_terminal([gpuconv, *command], folder, lines)
            draw_terminal(shlex.join(["gpuconv", *command]), screen, FOLDER / name)

        draw("terminal.svg", "train", *arguments)
        (report,) = folder.glob("runs/*/report.html")
        draw_page(report, FOLDER / "report.png")
        draw("plot.svg", "plot", str(report.parent.relative_to(folder)), lines=_USUAL_LINES)
        draw("find-lr.svg", "find-lr", "--data", "shapes", lines=_USUAL_LINES)


if __name__ == "__main__":
    main()
