"""A run folder, read, and shown: what `gpuconv.train.Run` is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..data.dataset import Dataset
from ..errors import GpuconvError
from ..folders import path_of
from ..runs.dataset import check_same
from ..runs.reading import Reading
from . import html, plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Run(Reading):
    """What lies in a run folder.  Nothing is locked or changed: a run in progress can be looked at.

    Each file is read when it is first asked for, and once; `Run(path)` again sees what is new.
    Raises ConfigError if the folder is not there, is not a run's or holds several.

    >>> run = train.Run("runs/first")
    >>> run.finished, run.config.widths, run.result["epochs"]
    (True, (4,), 1)
    >>> [row["step"] for row in run.metrics]
    [4]
    >>> run.report("first.html").name
    'first.html'
    """

    def plot(self) -> Figure:
        """Return a matplotlib Figure of the run's curves; ConfigError if matplotlib is not installed."""
        return plots.curves([self])

    def report(self, path: str | Path | None = None, *, dataset: Dataset | None = None) -> Path:
        """Write the HTML report, to report.html in the run folder if no path is given, and return where it is.

        Without a dataset the pictures come from the run's own, if it is on this machine.
        """
        if dataset is None:
            try:
                dataset = self.dataset()
            except (GpuconvError, OSError):  # the report says that the pictures could not be had
                dataset = None
        elif self.trained_on is not None:
            check_same(dataset, *self.trained_on)
        return html.write(self, dataset, None if path is None else path_of(path, "the report"))
