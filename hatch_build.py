"""Build hook: a wheel carries the sources of kernels/ as gpuconv/kernels; an editable install reads them in place."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Add kernels/ to standard wheels only: in an editable one the copy would go stale."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            for path in sorted(Path(self.root, "kernels").glob("*.cu*")):
                build_data["force_include"][str(path)] = f"gpuconv/kernels/{path.name}"
