"""A learning rate to begin with: the losses of some steps whose rate rises from far too low to far too high.

Source of the method: Smith, Cyclical learning rates for training neural networks (arXiv 1506.01186).
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks, tables
from ..errors import ConfigError, GpuconvError, NonFiniteLossError
from ..plural import counted
from ..runs.config import Config
from ..show import plots, terminal
from .outcomes import Outcome
from .processes import refuse_many
from .start import begin
from .team import gathered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS, LOWEST, HIGHEST = 100, 1e-5, 10.0

_FEWEST = 10  # steps of a curve with a shape
_SPREAD = 0.03  # of all steps: the standard deviation of the weights by which losses are averaged
_KEPT = 0.8  # share of the losses before that a mean keeps, where it is seen whether they blow up
_BLOWN_UP = 4.0  # times the lowest of these means
_FALLEN = 0.02  # of the lowest smoothed loss: the start is so much above it, if the curve says anything
# Of a fall, how much may be lost again: a starting point, from sweeps of three rates (convnet, three-layer with Adam; 93 steps of
# CIFAR-10, one seed), whose best rates lay above that of the lowest loss.
_LOST = 0.1


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RateSearch:
    """The loss of each step at its rate, smoothed over its neighbours, and what that suggests.

    >>> losses = [2.3, 1.8, 1.5, 1.55, 4.0]
    >>> found = train.RateSearch([1e-3, 1e-2, 1e-1, 0.3, 1.0], losses, losses, "blown up")
    >>> found.suggestion
    0.3
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    ended: str
    """Why it ended: "highest rate", or before that "blown up" or "not finite"."""

    @property
    def suggestion(self) -> float | None:
        """A rate to try as `lr`, in two digits; None where the loss has not fallen, or had nowhere to rise."""
        if not self._has_fallen:
            return None
        curve, place = self.smoothed, int(np.argmin(self.smoothed))
        limit = curve[place] + _LOST * (curve[0] - curve[place])
        above = next((number for number in range(place, len(curve)) if curve[number] > limit), None)
        if above is None and self.ended == "highest rate":
            return None
        # Where the loss was no number any more before it had risen, nothing beyond the lowest one is known to be safe.
        return float(f"{self.rates[place if above is None else above - 1]:.2g}")

    @property
    def _has_fallen(self) -> bool:
        return bool(self.smoothed) and self.smoothed[0] > (1 + _FALLEN) * min(self.smoothed)

    @property
    def rule(self) -> str:
        """How the suggestion is made, or why there is none, in a sentence."""
        if self.suggestion is not None:
            return "beyond it the smoothed loss gives back more than a tenth of its fall"
        if not self._has_fallen:
            return "the loss has not fallen at any rate: begin lower (--lowest), or look for a mistake in data or net"
        return "the loss has not risen up to the highest rate: go higher (--highest)"

    def plot(self) -> Figure:
        """Return a matplotlib Figure of the losses; ConfigError if matplotlib is not installed."""
        return plots.rates(self.rates, self.losses, self.smoothed, self.suggestion)

    def __repr__(self) -> str:
        return f"RateSearch({self._found}, after {counted(len(self.rates), 'step')})"

    @property
    def _found(self) -> str:
        return "no suggestion" if self.suggestion is None else f"try lr {self.suggestion:g}"

    def _repr_html_(self) -> str:
        """Show the suggestion and its rule, the curve where matplotlib is installed, and the losses on a click."""
        rows = [
            [f"{rate:.2g}", f"{loss:.4f}", f"{smooth:.4f}"]
            for rate, loss, smooth in zip(self.rates, self.losses, self.smoothed, strict=True)
        ]
        said = f"{self._found}: {self.rule}"
        table = tables.html("Learning rates", said, ["rate", "loss", "smoothed"], rows, folded="losses")
        if not self.smoothed or not plots.available():
            return table
        picture = base64.b64encode(plots.png(self.plot())).decode("ascii")
        return f'{table}<img alt="the losses at these rates" src="data:image/png;base64,{picture}">'


def find_rate(
    config: Config,
    *,
    steps: int = STEPS,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    progress: str = "auto",
    dataset: Any = None,
) -> RateSearch:
    """Take steps of these settings at rates that rise by a constant factor, and return their losses; nothing is kept.

    It ends before the last step where the loss blows up.   progress, dataset: as of `train`.
    Raises ConfigError for rates and numbers of steps that make no curve, and what `train` raises before its first step.

    >>> config = train.Config(widths=(4,), batch_size=20, validation=20)
    >>> pictures = data.draw_shapes(100, 40)
    >>> found = train.find_rate(config, steps=10, lowest=1e-3, highest=1e-1, dataset=pictures, progress="none")
    >>> [f"{rate:.2g}" for rate in found.rates[::3]]
    ['0.001', '0.0046', '0.022', '0.1']
    """
    refuse_many("find-lr")
    _check(steps, lowest, highest)

    def rate(step: int) -> float:
        return lowest * (highest / lowest) ** (min(step, steps - 1) / (steps - 1))

    outcomes: list[Outcome] = []
    ended, blow_up = "highest rate", _BlowUp()
    with gathered(config) as team, team.placed(config.device), terminal.progress(progress) as display:
        training = begin(config, dataset, display, team, rate)
        training.stepper.note = outcomes.append
        with training.feed:
            try:
                for step in range(steps):
                    epoch, number = divmod(step, training.plan.steps_per_epoch)
                    if number == 0:
                        batches = training.feed.epoch(epoch, 0, training.plan.steps_per_epoch)
                    training.rehearse(next(batches))
                    display.search(step + 1, steps, rate=rate(step), loss=outcomes[-1].loss)
                    if blow_up.after(outcomes[-1].loss):
                        ended = "blown up"
                        break
            except NonFiniteLossError:
                ended = "not finite"
    losses = [outcome.loss for outcome in outcomes]
    return RateSearch([rate(outcome.step) for outcome in outcomes], losses, smoothed(losses, steps), ended)


def smoothed(losses: list[float], steps: int) -> list[float]:
    """Return losses, each averaged with its neighbours by a bell curve: as wide on both sides, so that it lags behind none."""
    if not losses:
        return []
    spread = max(1.0, _SPREAD * steps)
    reach = math.ceil(4 * spread)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / spread) ** 2)
    around = slice(reach, reach + len(losses))
    sums, weights = (np.convolve(values, bell)[around] for values in (np.array(losses), np.ones(len(losses))))
    means: list[float] = (sums / weights).tolist()
    return means


class _BlowUp:
    """Tells when a loss, averaged with those before it, is far above the lowest such mean."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0
        self._lowest = math.inf

    def after(self, loss: float) -> bool:
        """Return whether the loss has blown up after this one more."""
        self._sum, self._weight = _KEPT * self._sum + loss, _KEPT * self._weight + 1
        mean = self._sum / self._weight
        self._lowest = min(self._lowest, mean)
        return mean > _BLOWN_UP * self._lowest


def _check(steps: int, lowest: float, highest: float) -> None:
    """Raise ConfigError for what makes no curve."""
    try:
        checks.integer("steps", steps, least=_FEWEST, most=10_000)
        checks.real("lowest", lowest, low=0.0, open_low=True)
        checks.real("highest", highest, low=0.0, open_low=True)
    except GpuconvError as error:
        raise ConfigError(str(error)) from None
    if not lowest * 10 <= highest or math.isinf(highest / lowest):
        msg = f"highest must be ten times lowest or more, got lowest={lowest:g}, highest={highest:g}"
        raise ConfigError(msg)
