"""Build hook: a wheel carries the sources of kernels/ as gpuconv/kernels, and a bill of materials (PEP 770).

An editable install reads kernels/ in place.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.requirements import Requirement
from packaging.version import Version


class WheelHook(BuildHookInterface):  # type: ignore[type-arg]
    """Add both to standard wheels only: in an editable one the copy of kernels/ would go stale."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            for path in sorted(Path(self.root, "kernels").glob("*.cu*")):
                build_data["force_include"][str(path)] = f"gpuconv/kernels/{path.name}"
            self.made = tempfile.TemporaryDirectory()
            bill = Path(self.made.name, f"{self.metadata.name}.cdx.json")
            bill.write_text(json.dumps(bill_of_materials(self.metadata), indent=2) + "\n", encoding="utf-8")
            build_data["sbom_files"].append(str(bill))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version == "standard":
            self.made.cleanup()


def bill_of_materials(metadata: Any) -> dict[str, Any]:
    """Return what a wheel consists of and needs, as CycloneDX 1.7 has it: the same for the same pyproject.toml.

    The package ships nobody else's code; its own files, with their hashes, are in the wheel's RECORD.  What it needs is
    chosen where it is installed, so that versions are ranges, and what that needs in turn is not known here.
    """
    core = metadata.core
    package = f"pkg:pypi/{metadata.name}@{metadata.version}"
    needs: dict[str, dict[str, Any]] = {}
    for extra, texts in [("", core.dependencies), *core.optional_dependencies.items()]:
        for requirement in map(Requirement, texts):
            component = needs.setdefault(requirement.name, _component(requirement, "optional" if extra else "required"))
            if extra:
                component.setdefault("properties", []).append(
                    {"name": "gpuconv:extra", "value": _as_asked(requirement, extra)}
                )
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "component": {
                "type": "library",
                "bom-ref": package,
                "authors": [{"name": author["name"]} for author in core.authors],
                "name": metadata.name,
                "version": metadata.version,
                "description": core.description,
                "licenses": [{"expression": core.license_expression}],
                "purl": package,
            },
        },
        "components": [needs[name] for name in sorted(needs)],
        "dependencies": [{"ref": package, "dependsOn": sorted(component["bom-ref"] for component in needs.values())}],
        "compositions": [{"aggregate": "complete", "assemblies": [package], "dependencies": [package]}],
    }


def _component(requirement: Requirement, scope: str) -> dict[str, Any]:
    package = f"pkg:pypi/{requirement.name.lower().replace('_', '-')}"
    bounds = sorted(requirement.specifier, key=lambda bound: Version(bound.version))
    version = {"versionRange": f"vers:pypi/{'|'.join(map(str, bounds))}"}
    if [bound.operator for bound in bounds] == ["=="]:
        version = {"version": bounds[0].version}
    return {
        "type": "library",
        "bom-ref": package,
        "name": requirement.name,
        **version,
        "scope": scope,
        "purl": package,
        "isExternal": True,
    }


def _as_asked(requirement: Requirement, extra: str) -> str:
    """Return which extra of the package asks for another, and for which extras of that and where."""
    wanted = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    marker = f"; {requirement.marker}" if requirement.marker else ""
    return f"{extra}: {requirement.name}{wanted}{marker}" if wanted or marker else extra
