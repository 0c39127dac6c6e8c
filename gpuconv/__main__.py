"""`python -m gpuconv` is the command `gpuconv`."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
