"""What has to be written in several places is written in each: every operator, layer and kernel file.

A failure says what to add, and where.  CONTRIBUTING.md has the order in which an operator is written.
"""

import importlib
import inspect
import re
from pathlib import Path

import pytest
import test_export
import test_kernel_counters
import test_long_sums_cuda
import test_nn_layers
from operators import OPERATORS

import gpuconv
from bench import cases, oracle
from gpuconv import cpu, cuda, naive, nn, ops
from gpuconv.cuda.kernel import Kernel
from gpuconv.export import onnx_file, tolerance, torch_source
from gpuconv.nn.layer import KINDS
from tests.ladder import hopper_calls, kernel_calls, kernel_counters, kernel_tables

ROOT = Path(__file__).resolve().parents[1]


def _text(path):
    return (ROOT / path).read_text(encoding="utf-8")


def _quoted(path):
    """Return what a file has in double quotes."""
    return set(re.findall(r'"([^"\n]+)"', _text(path)))


def _plain(name):
    """Return a name as functions, classes and TOML all have it: "maxpool"."""
    return name.replace("_", "").replace("-", "").lower()


# Operators ----------------------------------------------------------------------------------------------------------

_BY_KERNELS_OF = {"conv_transpose": "conv"}  # another operator's backward
_FOR_NETS = {"batchnorm_fused", "conv_fused"}  # what nets run on a GPU in place of several operators: none of its own
FILES = sorted({path.stem for path in (ROOT / "gpuconv/ops").glob("[!_]*.py")} - _FOR_NETS)
PUBLIC = sorted({name.removesuffix("_forward").removesuffix("_backward") for name in ops.__all__})
WITH_BACKWARD = [name for name in PUBLIC if f"{name}_forward" in ops.__all__]
# Operators that are another one of the backend, which goes by the shape of its input.
_BY_SHAPE = ("spatial_batchnorm", "layernorm")
# Of the package, not of its users: gradients without a forward, for gpuconv.cudnn, those that go where a net keeps them,
# the batches of an epoch, and what an operator and one in its place check alike.
_OF_THE_PACKAGE = {"input_gradient", "weight_gradient", "augment_batch", "checked_forward"}
_OF_THE_PACKAGE |= {
    "affine_backward_into",
    "batchnorm_backward_into",
    "conv_backward_into",
    "conv_transpose_backward_into",
}
_OF_THE_PACKAGE |= {"batchnorm_forward_across"}


def _functions(module):
    """Return the names of the functions that a module offers."""
    return {name for name, value in vars(module).items() if inspect.isfunction(value) and name[0] != "_"}


@pytest.mark.parametrize("file", FILES)
def test_every_file_of_ops_has_its_fellows(file):
    """The same name in every layer: one look at **/conv.* shows a call's whole way."""
    fellows = [f"gpuconv/{layer}/{file}.py" for layer in ("naive", "cpu", "cuda")]
    row = OPERATORS.get(file)
    tests = [] if row and row.elementwise else [f"tests/test_{file}.py"]  # which test_elementwise.py may have whole
    for path in (*fellows, f"kernels/{_BY_KERNELS_OF.get(file, file)}.cu", *tests):
        assert (ROOT / path).exists(), f"add {path}, beside gpuconv/ops/{file}.py"


@pytest.mark.parametrize("file", FILES)
def test_every_function_of_ops_is_offered(file):
    module = importlib.import_module(f"gpuconv.ops.{file}")
    own = {name for name in _functions(module) if getattr(module, name).__module__ == module.__name__}
    missing = sorted(own - set(ops.__all__) - _OF_THE_PACKAGE)
    assert not missing, f"add {', '.join(missing)} to gpuconv/ops/__init__.py: __all__"


@pytest.mark.parametrize("package", [naive, cpu, cuda, gpuconv], ids=lambda package: package.__name__)
def test_every_operator_is_offered_by(package):
    wanted, offered = set(ops.__all__), _functions(package)
    if package is gpuconv:
        offered -= {"default_device", "free_memory", "load", "use"}
    else:
        wanted = {name for name in wanted if not name.startswith(_BY_SHAPE)}
    where = f"{package.__name__.replace('.', '/')}/__init__.py"
    missing, more = sorted(wanted - offered), sorted(offered - wanted)
    assert not missing, f"add {', '.join(missing)} to {where}"
    assert not more, f"remove {', '.join(more)} from {where}, or add them to gpuconv/ops/__init__.py: __all__"


@pytest.mark.parametrize("operator", PUBLIC)
def test_every_operator_is_tested(operator):
    assert operator in OPERATORS, f"add a row of {operator} to tests/operators.py: _ROWS"
    row = OPERATORS[operator]
    missing = [] if row.calls else ["calls"]
    if row.elementwise:
        missing += [name for name in ("anywhere", "rounds", "counted") if not getattr(row, name)]
    assert not missing, f"add {', '.join(missing)} to the row of {operator} in tests/operators.py"


@pytest.mark.parametrize("operator", PUBLIC)
def test_every_operator_is_named_in_the_readme(operator):
    assert f"`{operator}`" in _text("README.md"), f"add `{operator}` to README.md: the list of operators"


def test_every_row_is_an_operator():
    assert set(OPERATORS) <= set(PUBLIC), "remove from tests/operators.py what gpuconv/ops/__init__.py does not offer"


def test_every_operator_is_drawn_at_random():
    drawn = {kernel_calls.random_call(seed)[0].operator for seed in range(2000)}
    missing = sorted(set(OPERATORS) - drawn)
    assert not missing, f"add random to the row of {', '.join(missing)} in tests/operators.py"


# What benchmarks know of operators: entries, and where a missing one goes.
BENCH = {
    "results": (set(cases.OPERATORS), "bench/cases.py: OPERATORS"),
    "case": ({case.op for case in cases.CASES}, "bench/cases.py: a set that is measured"),
    "quick case": ({case.op for case in cases.SETS["quick"]}, "bench/cases.py: _QUICK"),
    "definition": (set(oracle._DEFINITIONS), "bench/oracle.py: _DEFINITIONS"),
    "PyTorch": (_quoted("bench/peers/pytorch.py"), "bench/peers/pytorch.py: operator"),
    "tiny case": ({row.name for row in OPERATORS.values() if row.bench}, "tests/operators.py: bench of its row"),
}


@pytest.mark.parametrize("table", BENCH)
@pytest.mark.parametrize("operator", WITH_BACKWARD)
def test_every_operator_is_measured_beside_others(operator, table):
    entries, where = BENCH[table]
    row = OPERATORS.get(operator)  # test_every_operator_is_tested says if it has none
    by_name = table == "PyTorch" and (row is None or row.elementwise)  # which it knows by the same name
    or_row = ", or elementwise to its row in tests/operators.py" if table == "PyTorch" else ""
    assert by_name or operator in entries, f"add {operator} to {where}{or_row}"


@pytest.mark.parametrize("table", ["case", "quick case", "definition", "PyTorch"])
@pytest.mark.parametrize("loss", cases.LOSSES)
def test_every_loss_is_measured_beside_others(loss, table):
    entries, where = BENCH[table]
    assert loss in entries, f"add {loss} to {where}"


@pytest.mark.parametrize("operator", WITH_BACKWARD)
def test_every_operator_has_a_layer(operator):
    name = "batchnorm" if operator == "spatial_batchnorm" else operator
    assert _plain(name) in map(_plain, LAYERS), (
        f"add a layer of {operator} to gpuconv/nn/layers.py, and its name to __all__ there"
    )


# Layers -------------------------------------------------------------------------------------------------------------

LAYERS = sorted(
    name
    for name in nn.__all__
    if isinstance(cls := getattr(nn, name), type) and issubclass(cls, nn.Layer) and cls is not nn.Layer
)


def _made(table):
    """Return the names of the layers that a table of tests makes."""
    return {type(make()).__name__ for make, _ in table.values()}


# What files know of layers: entries by class name, and where a missing one goes.
OF_LAYERS = {
    "files": ({kind.cls.__name__ for kind in KINDS.values()}, "gpuconv/nn/layers.py: @register above its class"),
    "ONNX": (set(onnx_file._WRITERS), "gpuconv/export/onnx_file.py: _WRITERS"),
    "PyTorch": (set(torch_source._WRITERS), "gpuconv/export/torch_source.py: _WRITERS"),
    "rounding": (set(tolerance._RULES), "gpuconv/export/tolerance.py: _RULES"),
    "layer tests": (_made(test_nn_layers.LAYERS), "tests/test_nn_layers.py: LAYERS"),
    "export tests": (_made(test_export.LAYERS), "tests/test_export.py: layers()"),
}


@pytest.mark.parametrize("table", OF_LAYERS)
@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_is_known_to(layer, table):
    entries, where = OF_LAYERS[table]
    assert _plain(layer) in map(_plain, entries), f"add {layer} to {where}"


def test_every_layer_is_public():
    classes = {kind.cls.__name__ for kind in KINDS.values()}
    missing = sorted(classes - set(nn.__all__))
    assert not missing, f"add {', '.join(missing)} to gpuconv/nn/layers.py: __all__"


# Kernels ------------------------------------------------------------------------------------------------------------

KERNEL_FILES = sorted(path.name for path in (ROOT / "kernels").glob("*.cu"))
_RESOURCES, _SCORES = _quoted("tests/ladder/kernel_resources.json"), _quoted("tests/ladder/mutation_score.json")


@pytest.mark.parametrize("file", KERNEL_FILES)
def test_every_kernel_file_has_a_launcher(file):
    launched = {kernel.file for kernel in Kernel.all.values()}
    assert file in launched, f"add a Kernel of {file} to gpuconv/cuda/{Path(file).stem}.py"


@pytest.mark.parametrize("file", KERNEL_FILES)
def test_every_kernel_file_is_measured(file):
    names = {name for name, kernel in Kernel.all.items() if kernel.file == file}
    missing = sorted(names - {row.partition("<")[0] for row in _RESOURCES})
    measure = f"python -m tests.ladder.kernel_resources --only {Path(file).stem} --write"
    assert not missing, f"measure {', '.join(missing)}: {measure}"


@pytest.mark.parametrize("file", KERNEL_FILES)
def test_every_kernel_file_is_broken_somewhere(file):
    stem = Path(file).stem
    assert file in _SCORES, f"mutate {stem}: python -m tests.ladder.mutate_kernels --only {stem} --write"


def test_every_kernel_is_launched():
    every = kernel_calls.launched() | hopper_calls.instances()
    missing = set(Kernel.all) - {one.kernel.name for one in every.values()}
    files = {Kernel.all[name].file for name in missing}
    assert not missing, (
        f"add a call that launches {', '.join(sorted(missing))} ({', '.join(sorted(files))}) to tests/operators.py: "
        "calls, or to tests/ladder/kernel_calls.py: _SPECIAL"
    )


@pytest.mark.parametrize("call", kernel_counters.MEASURED.values(), ids=kernel_counters.MEASURED)
def test_every_counted_call_is_recorded(call):
    rows = _quoted("tests/ladder/kernel_counters.json")
    for memory in call.formats:
        assert f"{call.name}, {memory}" in rows, f"count {call.name}: python -m tests.ladder.kernel_counters --write"


def test_the_order_of_every_sum_is_told():
    missing, _ = test_long_sums_cuda.kernels_in_no_table()
    assert not missing, (
        f"add {', '.join(missing)} to tests/test_long_sums_cuda.py: TABLE, or NO_SUMS if they add nothing up"
    )


def test_every_access_that_is_scattered_has_its_reason():
    missing = sorted({(kernel, kind) for _, kernel, kind in test_kernel_counters.unexplained()})
    assert not missing, f"add {missing} to tests/test_kernel_counters.py: SCATTERED"


def test_the_tables_of_kernels_are_those_of_the_files():
    text = kernel_tables.README.read_text(encoding="utf-8")
    written = kernel_tables.written(text) == text
    assert written, "write those of kernels/README.md: python -m tests.ladder.kernel_tables --write"


# Words of others -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", WITH_BACKWARD)
def test_every_operator_is_in_the_reference(operator):
    name, page = f"gpuconv.{operator}_forward", "docs/reference/operators.md"
    text = _text(page)
    assert f"`~{name}`" in text, f"add {operator} to {page}: the table"
    assert f"autofunction:: {name}\n" in text, f"add {name} and its backward to {page}"


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_is_in_the_reference(layer):
    page = "docs/reference/nn.md"
    assert f"autoclass:: gpuconv.nn.{layer}\n" in _text(page), f"add gpuconv.nn.{layer} to {page}"
