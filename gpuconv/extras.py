"""How the packages that only some of gpuconv needs are installed here, where gpuconv itself came from."""

from __future__ import annotations

import functools
import importlib.metadata
import json
from pathlib import Path

OF_CHECKOUT = "in a checkout: pip install -e '.[NAME]'"
OF_WHEEL = "from a wheel: pip install 'gpuconv[NAME] @ file:///FOLDER/gpuconv-....whl'"


def install(extra: str) -> str:
    """Return the command that installs an extra: from the checkout that this is, or as this was installed."""
    if (Path(__file__).parents[1] / "pyproject.toml").is_file():
        return f"pip install -e '.[{extra}]' in the checkout"
    origin = _origin()
    return f"pip install 'gpuconv[{extra}]{f' @ {origin}' if origin else ''}'"


@functools.cache
def _origin() -> str:
    """Return the address of the wheel, folder or repository that pip installed this from; "" for an index."""
    try:
        text = importlib.metadata.distribution("gpuconv").read_text("direct_url.json")
        facts = json.loads(text) if text else {}
        vcs = f"{facts['vcs_info']['vcs']}+" if "vcs_info" in facts else ""
        return f"{vcs}{facts['url']}" if facts else ""
    except (importlib.metadata.PackageNotFoundError, ValueError, KeyError, TypeError):  # no metadata, or not pip's
        return ""
