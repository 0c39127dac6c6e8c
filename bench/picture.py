"""The ratio of every case as a picture: a dot with its spread on a logarithmic axis, a panel for each peer."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .results import Result
from .tables import setting

# Told apart by shape and side of the line as well as by colour; colours of Okabe and Ito, Color Universal Design (2008).
_STYLES = {
    "forward": {"color": "#0072B2", "marker": "o", "offset": -0.18},
    "backward": {"color": "#D55E00", "marker": "D", "offset": 0.18},
    "loss": {"color": "#009E73", "marker": "^", "offset": 0.0},
    "step": {"color": "#000000", "marker": "s", "offset": 0.0},
}
_METADATA: dict[str, dict[str, None]] = {  # equal results give equal files
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}
_LETTERS = 15  # of the line below, to an inch
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_WIDE_TICKS = (0.0001, 0.001, 0.01, 0.1, 1, 10, 100, 1000)


def draw(result: Result, path: Path, regime: str = "float32") -> bool:
    """Write the picture of a result's best formats as .png, .svg or .pdf; return False if no peer is in it to draw."""
    peers = result.peers()
    rows = [row for row in result.rows if row.regime == regime and any(row.ratio(peer) for peer in peers)]
    if not rows:
        return False
    cases = list(dict.fromkeys(row.case for row in rows))
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 9}):
        figure = Figure(figsize=(4.2 + 3.6 * len(peers), 1.4 + 0.27 * len(cases)), layout="constrained")
        panels = figure.subplots(1, len(peers), sharey=True, squeeze=False)[0]
        for panel, peer in zip(panels, peers, strict=True):
            values = [1.0]
            for place in range(0, len(cases), 2):
                panel.axhspan(place - 0.5, place + 0.5, color="#f2f2f2", zorder=0)
            for direction, style in _STYLES.items():
                of_direction = [(cases.index(row.case), row) for row in rows if row.direction == direction]
                kept = [(place, ratio) for place, row in of_direction if (ratio := row.ratio(peer)) is not None]
                if not kept:
                    continue
                middle = [ratio.value for _, ratio in kept]
                # The ratio of the medians may lie outside the spread of the rounds where these are few.
                below = [max(0.0, ratio.value - ratio.low) for _, ratio in kept]
                above = [max(0.0, ratio.high - ratio.value) for _, ratio in kept]
                panel.errorbar(
                    middle,
                    [place + style["offset"] for place, _ in kept],
                    xerr=[below, above],
                    fmt=style["marker"],
                    color=style["color"],
                    markersize=4.5,
                    elinewidth=1.2,
                    label=direction,
                )
                values += [value for _, ratio in kept for value in (ratio.low, ratio.high)]
                alone = [(place, row.one_thread_ratio(peer)) for place, row in of_direction]
                measured = [(place, ratio) for place, ratio in alone if ratio is not None]
                if measured:
                    panel.plot(
                        [ratio for _, ratio in measured],
                        [place + style["offset"] for place, _ in measured],
                        style["marker"],
                        color=style["color"],
                        markerfacecolor="none",
                        markersize=6.5,
                        label=f"{direction}, one thread",
                    )
                    values += [ratio for _, ratio in measured]
            panel.axvline(1, color="#444444", linewidth=1)
            low, high = min(values) / 1.25, max(values) * 1.25
            ticks = [tick for tick in (_TICKS if high / low < 100 else _WIDE_TICKS) if low <= tick <= high]
            panel.set_xscale("log")
            panel.set_xlim(low, high)
            panel.xaxis.set_major_locator(FixedLocator(ticks))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.grid(axis="x", color="#dddddd", linewidth=0.6)
            panel.set_title(f"gpuconv / {result.label(peer)}")
            panel.set_xlabel("ratio of times: left of 1 gpuconv is faster")
        panels[0].set_yticks(range(len(cases)), cases)
        panels[0].set_ylim(len(cases) - 0.5, -0.5)
        names, marks = panels[0].get_legend_handles_labels()[::-1]
        figure.legend(marks, names, loc="outside upper right", ncols=len(names), frameon=False)
        letters = int(_LETTERS * figure.get_figwidth())
        figure.supxlabel(textwrap.fill(f"{setting(result)}; {regime}", letters), fontsize=7, color="#555555")
        figure.savefig(path, dpi=150, metadata=_METADATA[path.suffix.lower()])
    return True
