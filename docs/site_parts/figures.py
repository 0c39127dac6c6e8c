"""Figures drawn while the site is built, from the numbers that the code itself holds.

    ```{window}       what a convolution's window meets
    ```{tiles}        how a product of matrices is cut for blocks and threads, with the sizes of the largest tile
    ```{ladder}       what a kernel is held to, with how much of it there is

Each is an SVG in the page, narrow enough for a phone, in the colours of the page.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from gpuconv.cuda.conv_tiles import LARGE
from gpuconv.cuda.kernel import Kernel

LADDER = Path(__file__).resolve().parents[2] / "tests" / "ladder"
_WIDTH = 360


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"/>'


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(parts: list[str], height: float, says: str) -> str:
    return (
        f'<svg class="drawn" role="img" aria-label="{escape(says)}" viewBox="0 0 {_WIDTH} {height:g}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def window() -> str:
    """Return a padded picture, a window on it, and the output that the window makes: stride 2, pad 1."""
    size, side, pad, stride, taps = 18, 6, 1, 2, 3
    p, q = 1, 2  # the output that is shown
    left, top = 14, 30
    parts = [_text(left, 18, f"x, {side} x {side}, pad {pad}")]
    for row in range(side + 2 * pad):
        for column in range(side + 2 * pad):
            inside = pad <= row < side + pad and pad <= column < side + pad
            met = 0 <= row - p * stride < taps and 0 <= column - q * stride < taps
            kind = "met" if met else "cell" if inside else "zero"
            parts.append(_rect(left + column * size, top + row * size, size, size, kind))
    right = left + (side + 2 * pad) * size + 34
    parts.append(_text(right, 18, f"w, {taps} x {taps}"))
    parts += [
        _rect(right + column * size, top + row * size, size, size, "met")
        for row in range(taps)
        for column in range(taps)
    ]
    below = top + taps * size + 34
    outputs = (side + 2 * pad - taps) // stride + 1
    parts.append(_text(right, below - 12, f"y, stride {stride}"))
    for row in range(outputs):
        for column in range(outputs):
            kind = "made" if (row, column) == (p, q) else "cell"
            parts.append(_rect(right + column * size, below + row * size, size, size, kind))
    height = top + (side + 2 * pad) * size + 14
    return _svg(parts, height, "A window of three by three on a padded picture, and the output that it makes")


def tiles() -> str:
    """Return the product behind a convolution, the tile of a block, and that of a thread."""
    unit = 160 / LARGE.pixels  # of a tile's side, in the drawing
    wide, tall, deep = LARGE.filters * unit, LARGE.pixels * unit, 44
    left, top = 34, 76
    parts = [
        _text(left + deep + 14, 18, "taps and channels x filters"),
        _rect(left + deep + 14, top - deep - 6, wide, deep, "cell"),
        _rect(left + deep + 14, top - deep - 6, wide, LARGE.depth * unit, "met"),
        _rect(left, top, deep, tall, "cell"),
        _rect(left, top, LARGE.depth * unit, tall, "met"),
        _rect(left + deep + 14, top, wide, tall, "cell"),
    ]
    across, down = LARGE.filters // LARGE.width, LARGE.pixels // LARGE.height
    for i in range(1, across):
        x = left + deep + 14 + i * LARGE.width * unit
        parts.append(f'<path class="line" d="M{x:g} {top}v{tall:g}"/>')
    for i in range(1, down):
        y = top + i * LARGE.height * unit
        parts.append(f'<path class="line" d="M{left + deep + 14:g} {y:g}h{wide:g}"/>')
    parts.append(_rect(left + deep + 14, top, LARGE.width * unit, LARGE.height * unit, "made"))
    parts.append(
        f'<text class="" x="22" y="{top + tall / 2:g}" text-anchor="middle" '
        f'transform="rotate(-90 22 {top + tall / 2:g})">pixels x taps and channels</text>'
    )
    lines = [
        f"a block makes {LARGE.pixels} pixels x {LARGE.filters} filters",
        f"a thread makes {LARGE.height} x {LARGE.width} of them, in registers",
        f"each step brings {LARGE.depth} taps into shared memory",
    ]
    parts += [_text(14, top + tall + 24 + 18 * number, line) for number, line in enumerate(lines)]
    return _svg(parts, top + tall + 24 + 18 * len(lines), ". ".join(lines))


def rungs() -> list[tuple[str, str]]:
    """Return what a kernel is held to, from the first to the last, and in numbers."""
    resources = json.loads((LADDER / "kernel_resources.json").read_text(encoding="utf-8"))["rows"]
    score = json.loads((LADDER / "mutation_score.json").read_text(encoding="utf-8")).values()
    archs = sorted({arch for row in resources.values() for arch in row})
    mutants, noticed = (sum(one[key] for one in score) for key in ("mutants", "noticed"))
    return [
        ("compiled", f"{len(resources)} instances of {len(Kernel.all)} kernels, for sm_{', sm_'.join(archs)}"),
        ("right", "in the emulator, beside the oracle's loops"),
        ("clean", "checked for bounds, races, divergence"),
        ("broken on purpose", f"{mutants:,} small changes, {noticed:,} noticed"),
        ("launched by real CuPy", "with the CPU in the GPU's place"),
        ("on a GPU", "the same tests: kernels/README.md"),
    ]


def ladder() -> str:
    """Return the rungs as steps."""
    step, parts = 46, []
    for number, (name, words) in enumerate(rungs()):
        y = 8 + number * step
        parts.append(_rect(8 + number * 5, y, _WIDTH - 16 - number * 5, step - 8, "zero" if number == 5 else "cell"))
        parts.append(_text(18 + number * 5, y + 16, f"{number + 1}  {name}", "name"))
        parts.append(_text(18 + number * 5, y + 32, words, "small"))
    return _svg(parts, 8 + len(rungs()) * step, "; ".join(f"{name}: {words}" for name, words in rungs()))


def _directive(draw: Callable[[], str]) -> type[SphinxDirective]:
    class Drawn(SphinxDirective):
        def run(self) -> list[nodes.Node]:
            return [nodes.raw("", f'<figure class="drawn">{draw()}</figure>', format="html")]

    return Drawn


def setup(app: Sphinx) -> dict[str, bool]:
    for name, draw in (("window", window), ("tiles", tiles), ("ladder", ladder)):
        app.add_directive(name, _directive(draw))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
