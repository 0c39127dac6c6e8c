"""Build hook: a wheel carries the top-level kernels/ as gpuconv/kernels; an editable install reads them in place."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Add kernels/ to standard wheels only: in an editable one the copy would go stale."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            build_data["force_include"]["kernels"] = "gpuconv/kernels"
