"""Every public name has an example in its docstring, and what it shows is what comes out.

Public are the functions and classes that `__all__` of `gpuconv` and of its packages names; an error says by its message
what is to be known of it, and needs no example.  Examples begin in an empty folder, after the imports in `names`; those
that read a run take the one in runs/first, which `train_first` makes as the example of `gpuconv.train.train` does.
"""

import contextlib
import doctest
import functools
import importlib
import inspect
import os
import shutil
import sys
import types
from unittest import mock

import pytest
import test_data_cifar100 as tiny_cifar100
import tiny_cifar10

import gpuconv
from gpuconv.data import cifar10, cifar100, sources

PACKAGES = ("gpuconv", *(f"gpuconv.{part}" for part in gpuconv._PARTS))


def _public():
    """Return what is public, by its full name."""
    found = {}
    for package in map(importlib.import_module, PACKAGES):
        for name in package.__all__:
            value = getattr(package, name)
            is_error = inspect.isclass(value) and issubclass(value, BaseException)
            if (inspect.isclass(value) or inspect.isroutine(value)) and not is_error:
                found[f"{package.__name__}.{name}"] = value
    return found


PUBLIC = _public()


def names():
    """Return what is imported before an example begins, as the docstring of gpuconv says."""
    lines = [line.strip() for line in gpuconv.__doc__.splitlines() if line.strip().startswith(("import ", "from "))]
    imported = {}
    exec("\n".join(lines), imported)  # noqa: S102 - what a reader types first
    return imported


@functools.cache
def _cifar100():
    """Return the small CIFAR-100 as an archive, and the specification that it is the original of."""
    return tiny_cifar100.packed("binary"), tiny_cifar100.spec()


def train_first(folder):
    """Train an epoch on drawn pictures."""
    pictures = gpuconv.data.draw_shapes(100, 40)
    config = gpuconv.train.Config(widths=(4,), epochs=1, batch_size=20, validation=20)
    gpuconv.train.train(config, folder=folder, dataset=pictures, progress="none")


@contextlib.contextmanager
def beginning(folder, run):
    """Go to a folder that holds a copy of a run; small files lie for CIFAR's in the cache, and CuPy is an empty package."""
    shutil.copytree(run, folder / "runs" / "first")
    cache, (archive, spec) = folder / "cache", _cifar100()
    tiny_cifar10.write_archive(cache, tiny_cifar10.BINARY)
    (cache / spec.layouts[0].archive).write_bytes(archive)
    default = gpuconv.default_device()
    with pytest.MonkeyPatch.context() as patch, mock.patch.dict(os.environ):
        patch.setattr(cifar10, "OFFICIAL", tiny_cifar10.spec())
        patch.setattr(cifar100, "OFFICIAL", spec)
        patch.setattr(sources, "cache_folder", lambda: cache)
        os.environ.pop("GPUCONV_DATA", None)
        for name in ("cupy", "cupy.cuda", "cupyx"):
            package = types.ModuleType(name)
            package.__path__ = []
            patch.setitem(sys.modules, name, package)
        patch.chdir(folder)
        yield
        gpuconv.cudnn.uninstall()
        gpuconv.compat.uninstall()
        gpuconv.use(default)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    train_first(folder)
    return folder


@pytest.fixture
def place(tmp_path, first_run):
    with beginning(tmp_path, first_run):
        yield


def _examples(full_name):
    """Return the examples in a docstring."""
    text = inspect.getdoc(PUBLIC[full_name]) or ""
    return doctest.DocTestParser().get_doctest(text, names(), full_name, None, None)


_NEEDS = {"gpuconv.export.check_torch": "torch"}  # which takes seconds to import


@pytest.mark.filterwarnings("ignore:create_dropout_states is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "full_name", [pytest.param(name, marks=[pytest.mark.long] if name in _NEEDS else []) for name in PUBLIC]
)
def test_an_example_shows_what_comes_out(full_name, place):
    if full_name in _NEEDS:
        pytest.importorskip(_NEEDS[full_name])
    report = []
    doctest.DocTestRunner(verbose=False).run(_examples(full_name), out=report.append)
    assert not report, "".join(report)


def test_no_public_name_is_without_an_example():
    assert [name for name in PUBLIC if not any(example.want for example in _examples(name).examples)] == []


def test_examples_are_short():
    assert [name for name in PUBLIC if len(_examples(name).examples) > 6] == []
