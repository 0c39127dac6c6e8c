"""A disk that is full at some point of a training run.

Two ways, since a disk cannot be filled without root: from some call of a save on, a limit on the size of files, by which
the system itself refuses the rest of a write (RLIMIT_FSIZE; what a file has until then stays); ENOSPC or EDQUOT from any
one call of a save.
"""

from __future__ import annotations

import errno
import os
import resource

from train_helpers import assert_same_run

from gpuconv import cli, data, durable
from gpuconv.runs import settings

from .kind import Case, Kind
from .runs import RECIPES, Child, Failing, assert_goes_on, calls_of_saves, shapes, undisturbed


def _run(case: Case) -> str:
    recipe, by_limit = case.draw.choice(list(RECIPES)), case.number % 2 == 0
    folder, config = case.folder / "run", case.folder / "config.toml"
    config.write_text(settings.to_toml(RECIPES[recipe]), encoding="utf-8")
    largest = (undisturbed(recipe) / "last.safetensors").stat().st_size
    limit, place = case.draw.randrange(largest), case.draw.randrange(calls_of_saves(recipe))
    code = case.draw.choice((errno.ENOSPC, errno.EDQUOT))

    def full() -> None:
        raise OSError(code, os.strerror(code))

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    def work(_: int) -> int:
        data.load = lambda name, **_: shapes()
        durable.os = Failing(place, limited if by_limit else full)  # type: ignore[assignment]
        return cli.main(["train", "--config", str(config), "--run-dir", str(folder), "--progress", "none"])

    status, told = Child(work).finish()
    text = told.decode()
    if by_limit and status == 0:  # nothing was left to be written
        assert_same_run(folder, undisturbed(recipe))
        return "had finished"
    assert status == 4, f"status {status}: {text}"
    last = text.rstrip().rpartition("\n")[2]
    assert "Traceback" not in text, text
    assert "gpuconv: error: " in text, text
    assert "could not be" in last or os.strerror(code) in last or os.strerror(errno.EFBIG) in last, text
    litter = [entry.name for entry in folder.glob("*") if entry.name.endswith(".part")]
    assert not litter, f"left behind: {litter}"
    return assert_goes_on(folder, recipe)


KINDS = (Kind("full disk", 50, _run),)
