"""python -m gpuconv.cudnn script.py args: install, then run a script that nobody may edit."""

import runpy
import sys
from pathlib import Path

from .modules import install

if len(sys.argv) < 2:
    sys.exit("usage: python -m gpuconv.cudnn script.py args")
del sys.argv[0]
sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
install()
runpy.run_path(sys.argv[0], run_name="__main__")
