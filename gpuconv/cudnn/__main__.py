"""python -m gpuconv.cudnn script.py args: install, then run a script that nobody may edit."""

import runpy
import sys
from pathlib import Path

from .modules import install


def main() -> None:
    """Run the script as Python would: with its arguments, and its folder first on the path."""
    if len(sys.argv) < 2 or not Path(sys.argv[1]).exists():
        missing = f"no file {sys.argv[1]}\n" if len(sys.argv) > 1 else ""
        sys.stderr.write(f"{missing}usage: python -m gpuconv.cudnn script.py args\n")
        sys.exit(2)
    del sys.argv[0]
    if not sys.flags.safe_path:
        sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    install()
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
