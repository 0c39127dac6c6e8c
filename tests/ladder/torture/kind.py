"""What every kind of harm is: a name, how many cases a full run has, and a function that runs one of them.

A case is made of the seed, the kind's name and its number alone, so these three repeat it.  What may come out of it:

    fine      it came through, and the function has looked at all that came out
    refused   an error of gpuconv, one of those that the kind allows
    wrong     anything else: another error, a result that does not hold, no error where there had to be one
"""

from __future__ import annotations

import random
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

FINE, REFUSED, WRONG = "fine", "refused", "wrong"


@dataclass(frozen=True)
class Case:
    """One case of a kind; `folder` is empty, and gone afterwards."""

    kind: str
    number: int
    seed: int
    folder: Path

    @cached_property
    def draw(self) -> random.Random:
        return random.Random(f"{self.seed} {self.kind} {self.number}")


@dataclass(frozen=True)
class Outcome:
    """What came out of a case: one of the three, by which error or of what sort, and, if wrong, the whole story."""

    number: int
    result: str
    sort: str
    story: str = ""

    def values(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Kind:
    """One kind of harm.

    run: runs a case, and returns its sort in a word, or None.
    allowed: errors by which a case may be refused; always: by which it must be, so that coming through is wrong.
    """

    name: str
    count: int
    run: Callable[[Case], str | None]
    allowed: tuple[type[Exception], ...] = ()
    always: bool = False

    def outcome(self, number: int, seed: int) -> Outcome:
        """Run one case."""
        with tempfile.TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as folder:
            try:
                sort = self.run(Case(self.name, number, seed, Path(folder)))
            except self.allowed as error:
                return Outcome(number, REFUSED, type(error).__name__)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is what we are looking for
                return Outcome(number, WRONG, type(error).__name__, traceback.format_exc())
        if self.always:
            return Outcome(number, WRONG, "taken", f"nothing was refused ({sort or 'no more is known'})")
        return Outcome(number, FINE, sort or FINE)
