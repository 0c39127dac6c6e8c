"""Run a Python program whose CuPy works without a GPU; the processes that it starts inherit this.

python -m tests.cupy_emulated SCRIPT [ARGUMENT ...]
python -m tests.cupy_emulated -m MODULE [ARGUMENT ...]
python -m tests.cupy_emulated -c CODE [ARGUMENT ...]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_SITE = str(_HERE / "site")


def main() -> None:
    """Become that program: Python again, with the folder site first on its path."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    sys.path.insert(0, str(_HERE.parent))  # of this process only: both packages have one name, in every process
    from cupy_emulated.errors import CupyEmulatedError
    from cupy_emulated.requirements import check

    try:
        check()
    except CupyEmulatedError as error:
        sys.exit(f"cupy-emulated: {error}")
    others = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place and place != _SITE]
    os.environ["PYTHONPATH"] = os.pathsep.join([_SITE, *others])
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


main()
