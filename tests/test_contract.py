"""Every backend offers the oracle's operators, under the same names and parameters; `ops` offers them to the user."""

import ast
import importlib
import inspect
import pathlib
from graphlib import TopologicalSorter

import pytest

import gpuconv
from gpuconv import cpu, cuda, naive, ops

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


# Operators that are another one of the backend, which goes by the shape of its input.
_BY_SHAPE = {
    "spatial_batchnorm_forward": "batchnorm_forward",
    "spatial_batchnorm_backward": "batchnorm_backward",
    "layernorm_forward": "groupnorm_forward",
    "layernorm_backward": "groupnorm_backward",
}


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


# Arrows ---------------------------------------------------------------------------------------------------------------


def _module(path):
    """Return the name of a file's module."""
    parts = (PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _statements(tree, *, at_runtime):
    """Yield every statement of a file, those inside functions, too; at_runtime: without those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if not (at_runtime and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from _statements(node, at_runtime=at_runtime)


def _imports(module, *, at_runtime=False):
    """Return the modules that a module imports anywhere, as absolute names."""
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    names = set()
    for node in _statements(ast.parse(path.read_text()), at_runtime=at_runtime):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{source}.{each.name}" if f"{source}.{each.name}" in MODULES else source for each in node.names}
    return names


def _part(module):
    """Return the part of the house that a module belongs to: a folder, or a file beside the folders."""
    return [*module.split("."), "__init__"][1]


PARTS = sorted(set(map(_part, MODULES)))

# The house, from the roof down: a part may use those it points to, and all that these point to.
_ARROWS = {
    "__main__": {"cli"},
    "cli": {"train", "export", "doctor"},
    "train": {"show"},
    "show": {"runs"},
    "doctor": {"runs"},
    "runs": {"nn", "data"},
    "export": {"nn"},
    "nn": {"ops"},
    "data": {"ops"},
    "testing": {"nn"},
    "compat": {"ops", "data", "naive"},  # the courses' functions, among them the loops and the loaders
    "__init__": {
        "ops",
        "train",
        "export",
        "compat",
        "cudnn",
        "testing",
    },  # all but ops for type checkers: they come on first touch
    "cudnn": {"ops"},  # the functions CuPy had until 13, by their names
    "ops": {"backend"},
    "backend": set(),  # which finds cpu and cuda by their names, when the first of their arrays arrives
    "cpu": set(),
    "cuda": set(),
    "naive": set(),
}
# What every part stands on: files that know nothing of operators, nets or runs.
_GROUND = {
    "bfloat16",
    "bounded",
    "checks",
    "contents",
    "durable",
    "elsewhere",
    "errors",
    "extras",
    "folders",
    "foreign",
    "interrupts",
    "placed",
    "plural",
    "png",
    "pool_shapes",
    "random",
    "shapes",
    "tables",
    "typing",
    "upsample_shapes",
    "version",
}


def _reach(part):
    """Return what a part may use."""
    below = _ARROWS.get(part, set())
    return _GROUND.union(below, *map(_reach, below))


@pytest.mark.parametrize("part", PARTS)
def test_arrows_point_down_only(part):
    assert part in _ARROWS.keys() | _GROUND, f"say in _ARROWS what {part} may use"
    for module in MODULES:
        if _part(module) == part:
            used = {_part(name) for name in _imports(module) if name in MODULES} - {part}
            assert used <= _reach(part), f"{module} may not use {', '.join(sorted(used - _reach(part)))}"


def test_nothing_is_imported_in_a_circle():
    """Neither modules nor parts, imports inside functions included."""
    modules = {module: _imports(module, at_runtime=True) & MODULES.keys() for module in MODULES}
    parts = {part: set() for part in PARTS}
    for module, used in modules.items():
        parts[_part(module)] |= {_part(name) for name in used} - {_part(module)}
    for graph in (modules, parts):
        TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_cupy_numba_and_torch_are_named_in_their_places_only():
    for module in MODULES:
        tops = {name.split(".")[0] for name in _imports(module)}
        assert not tops & {"numba", "llvmlite"} or module.startswith("gpuconv.cpu.loops."), module
        assert "torch" not in tops, module
        assert "cupy" not in tops or _part(module) == "cuda", module


def test_no_function_hides_a_module():
    """`from gpuconv.nn import x` gives the module x wherever there is one."""
    for module in MODULES.keys() - {"gpuconv"}:
        package, _, name = module.rpartition(".")
        here = vars(importlib.import_module(package)).get(name)
        assert here is None or inspect.ismodule(here), f"rename {module}: {here} hides it"


def test_no_file_of_the_package_is_long():
    lengths = {path.relative_to(PACKAGE).as_posix(): len(path.read_text().splitlines()) for path in MODULES.values()}
    assert {name: lines for name, lines in lengths.items() if lines >= 450} == {}, "cut these files by job"
