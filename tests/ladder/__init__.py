"""What only a machine with a GPU can tell, run by two commands: see README.md."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent

# What is measured here is what the tests run, and they find one another by their names alone.
for _place in (str(TESTS), str(ROOT)):
    if _place not in sys.path:
        sys.path.append(_place)
