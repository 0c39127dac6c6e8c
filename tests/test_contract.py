"""Every backend offers the oracle's operators, under the same names and parameters; `ops` offers them to the user."""

import ast
import importlib
import inspect
import pathlib

import pytest

import gpuconv
from gpuconv import backend, cpu, cuda, naive, ops

PACKAGE = pathlib.Path(gpuconv.__file__).parent


def _operators(module):
    """Return the names of the functions that a package offers."""
    return sorted(name for name, value in vars(module).items() if inspect.isfunction(value) and name[0] != "_")


def _parameters(module, name):
    """Return (name, kind, default) of every parameter."""
    found = inspect.signature(getattr(module, name)).parameters.values()
    return [(p.name, p.kind.name, p.default) for p in found]


@pytest.mark.parametrize("module", [cpu, cuda], ids=["cpu", "cuda"])
@pytest.mark.parametrize("name", _operators(naive))
def test_backends_match_the_oracle(name, module):
    assert _parameters(module, name) == _parameters(naive, name)


@pytest.mark.parametrize("package", sorted(set(backend._PACKAGE_OF.values())))
def test_backends_offer_exactly_the_oracle_s_operators(package):
    module = importlib.import_module(package)
    assert _operators(module) == _operators(naive)


# Operators that are another one of the backend, which goes by the shape of its input.
_BY_SHAPE = {
    "spatial_batchnorm_forward": "batchnorm_forward",
    "spatial_batchnorm_backward": "batchnorm_backward",
    "layernorm_forward": "groupnorm_forward",
    "layernorm_backward": "groupnorm_backward",
}


def test_user_gets_exactly_the_backend_s_operators():
    assert set(ops.__all__) - set(_BY_SHAPE) == set(_operators(naive))
    assert set(_BY_SHAPE) < set(ops.__all__)
    assert set(gpuconv.__all__) - {"GpuconvError", "default_device", "free_memory", "use"} == set(ops.__all__)


@pytest.mark.parametrize("module", [gpuconv, ops], ids=lambda module: module.__name__)
def test_public_names_are_complete_and_there(module):
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
    assert set(_operators(module)) <= set(module.__all__)


def test_operators_are_listed_in_order():
    assert ops.__all__ == sorted(ops.__all__)


@pytest.mark.parametrize("name", ops.__all__)
def test_operators_say_what_they_do(name):
    """An imperative first line, in every layer that the user sees or that states the formula."""
    for module in (ops, naive):
        text = inspect.getdoc(getattr(module, _BY_SHAPE.get(name, name) if module is naive else name))
        assert text
        assert not text.startswith(("Returns", "Computes", "This "))


def test_forward_and_backward_come_in_pairs():
    forward = {name.removesuffix("_forward") for name in ops.__all__ if name.endswith("_forward")}
    backward = {name.removesuffix("_backward") for name in ops.__all__ if name.endswith("_backward")}
    assert forward == backward


def test_same_file_names_in_every_layer():
    """One look at **/conv.* shows a call's whole way."""
    operators = {path.stem for path in (PACKAGE / "ops").glob("*.py")} - {"__init__"}
    for layer in ("cpu", "cuda", "naive"):
        assert operators <= {path.stem for path in (PACKAGE / layer).glob("*.py")}


def test_each_cuda_operator_has_its_kernel_file():
    kernels = {path.stem for path in (PACKAGE.parent / "kernels").glob("*.cu")}
    assert {path.stem for path in (PACKAGE / "ops").glob("*.py")} - {"__init__"} <= kernels


def _imports(path):
    """Return the modules a file imports, as absolute names."""
    inside = [PACKAGE.name, *path.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else []
            source = ".".join([*base, *((node.module or "").split(".") if node.module else [])])
            found |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
    return found


# Which layers a layer must not know.  Arrows point down only.
_ABOVE = {
    "naive": ["cpu", "cuda", "ops", "backend", "nn", "data", "train", "cli", "compat"],
    "cpu": ["naive", "cuda", "ops", "backend", "nn", "data", "train", "cli", "compat"],
    "cuda": ["naive", "cpu", "ops", "backend", "nn", "data", "train", "cli", "compat"],
    "ops": ["naive", "cpu", "cuda", "nn", "data", "train", "cli", "compat"],
    "nn": ["naive", "cpu", "cuda", "data", "train", "cli", "compat"],
    "data": ["naive", "cpu", "cuda", "nn", "train", "cli", "compat"],
    "train": ["naive", "cli", "compat"],
}


@pytest.mark.parametrize("layer", _ABOVE)
def test_imports_point_down_only(layer):
    for path in (PACKAGE / layer).rglob("*.py"):
        for name in _imports(path):
            parts = name.split(".")
            assert parts[:1] != ["gpuconv"] or len(parts) < 2 or parts[1] not in _ABOVE[layer], f"{path.name}: {name}"


def test_cupy_and_torch_are_named_in_their_places_only():
    for path in PACKAGE.rglob("*.py"):
        tops = {name.split(".")[0] for name in _imports(path)}
        assert "torch" not in tops, path
        assert "cupy" not in tops or path.is_relative_to(PACKAGE / "cuda"), path


def test_no_function_hides_a_module():
    """`from gpuconv.nn import x` gives the module x wherever there is one."""
    for path in PACKAGE.rglob("*.py"):
        *parents, name = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if name not in ("__init__", "__main__"):
            here = vars(importlib.import_module(".".join(parents))).get(name)
            assert here is None or inspect.ismodule(here), f"rename {path.relative_to(PACKAGE.parent)}: {here} hides it"
