"""`python -m bench` is `gpuconv bench`."""

import sys

from gpuconv.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
