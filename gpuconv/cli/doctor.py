"""`gpuconv doctor`: what is found on this machine."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add(commands: Any) -> None:
    """Add the command."""
    text = "what gpuconv finds on this machine"
    parser = commands.add_parser("doctor", help=text, description=f"Show {text}: for questions and bug reports.")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from .. import doctor
    from ..show import screen

    findings = doctor.examine()
    columns = screen.size()[0] if sys.stdout.isatty() else None
    sys.stdout.write((doctor.as_json(findings) if arguments.json else doctor.as_text(findings, columns)) + "\n")
    return 0 if all(finding.ok for finding in findings) else 1
