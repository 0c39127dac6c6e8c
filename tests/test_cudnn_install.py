"""gpuconv.cudnn.install, what undoes it, and python -m gpuconv.cudnn, in processes whose CuPy is three empty packages."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

# What a test's process begins with, beside its own code.
BEGIN = """
import importlib.util, sys, warnings
from gpuconv import cudnn as ours
NAMES = "cupy.cuda.cudnn", "cupyx.cudnn", "cupy.cudnn"
def found():
    return {importlib.util.find_spec(name) is not None for name in NAMES}
def told(function, *args):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*args)
    return result, [str(each.message) for each in caught]
before = list(sys.meta_path)
"""


@pytest.fixture
def written(tmp_path):
    """Write files into a folder that comes first on the path, by their names; CuPy's packages are there."""

    def write(**files):
        for name, text in {"cupy": "", "cupyx": "", "cupy.cuda": "", **files}.items():
            file = tmp_path.joinpath(*name.split("."), "__init__.py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    write()
    return write


@pytest.fixture
def run(written, tmp_path):
    """Run Python with arguments in another folder than that of the packages; return how it ended."""

    def python(*arguments, **options):
        here = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])}
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=os.environ | here, capture_output=True, text=True, check=False, **options,
        )  # fmt: skip

    return python


@pytest.fixture
def passes(run):
    """Check that a process ends well, which runs BEGIN and some code."""

    def check(code):
        done = run("-c", BEGIN + textwrap.dedent(code))
        assert done.returncode == 0, done.stderr

    return check


def test_install_gives_the_modules_and_uninstall_takes_them(passes):
    passes("""
        assert told(ours.install) == told(ours.install) == (True, [])
        assert found() == {True}
        from cupy import cudnn
        import cupy.cuda.cudnn, cupyx.cudnn
        assert cudnn is sys.modules["cupy.cudnn"] is cupy.cudnn
        assert cudnn.__spec__.name == "cupy.cudnn"
        ours.uninstall()
        assert found() == {False} and sys.meta_path == before
        assert not any(hasattr(parent, "cudnn") for parent in (cupy, cupyx, cupy.cuda))
        try:
            from cupy import cudnn
        except ImportError:
            assert ours.install() and found() == {True}
        else:
            raise AssertionError
    """)


def test_the_modules_hold_the_functions_and_the_constants(passes):
    passes("""
        ours.install()
        import cupy.cudnn, cupyx.cudnn, cupy.cuda.cudnn as raw
        for name in set(ours.__all__) - {"install", "installed", "uninstall"}:
            assert getattr(cupy.cudnn, name) is getattr(cupyx.cudnn, name) is getattr(ours, name), name
        assert not hasattr(cupy.cudnn, "install")
        for module in (cupy.cudnn, cupyx.cudnn, raw):
            constants = {name for name in vars(ours) if name.startswith("CUDNN_")}
            assert constants and all(getattr(module, name) == getattr(ours, name) for name in constants)
        assert raw.available is True and raw.CuDNNError is ours.CuDNNError
        assert raw.getVersion() == raw.get_build_version() == 8900
    """)


def test_calls_by_pointer_are_attribute_errors_that_name_gpuconv(passes):
    passes("""
        ours.install()
        import cupy.cudnn, cupyx.cudnn, cupy.cuda.cudnn
        for name in ("convolutionForward", "setTensor4dDescriptor", "createCTCLossDescriptor", "createFusedOpsPlan"):
            for module in (cupy.cudnn, cupyx.cudnn, cupy.cuda.cudnn):
                try:
                    getattr(module, name)
                except AttributeError as error:
                    assert f"gpuconv serves no {name}: it has no calls by pointer" in str(error)
                else:
                    raise AssertionError(name)
    """)


def test_a_function_that_is_patched_is_seen_by_its_module_alone(passes):
    passes("""
        ours.install()
        import cupy.cudnn, cupyx.cudnn
        cupy.cudnn.get_handle = lambda: "patched"
        assert cupy.cudnn.get_handle() == "patched" and cupyx.cudnn.get_handle() == ours.get_handle() == 1
    """)


def test_uninstall_twice_or_without_install_does_nothing_more(passes):
    passes("""
        ours.uninstall()
        assert found() == {False} and sys.meta_path == before
        ours.install()
        ours.uninstall()
        ours.uninstall()
        assert found() == {False} and sys.meta_path == before
    """)


def test_uninstall_leaves_what_others_have_put_in_place(passes):
    passes("""
        import types
        ours.install()
        import cupy
        sys.modules["cupy.cudnn"] = cupy.cudnn = theirs = types.ModuleType("cupy.cudnn")
        ours.uninstall()
        assert sys.modules["cupy.cudnn"] is cupy.cudnn is theirs
        assert "cupyx.cudnn" not in sys.modules
    """)


def test_installed_undoes_itself_but_not_what_was_installed_before(passes):
    passes("""
        with ours.installed():
            assert found() == {True}
            with ours.installed():
                assert found() == {True}
            assert found() == {True}
        assert found() == {False} and sys.meta_path == before
        try:
            with ours.installed():
                raise KeyError
        except KeyError:
            assert found() == {False}
        ours.install()
        with ours.installed():
            pass
        assert found() == {True}
    """)


@pytest.mark.parametrize(
    ("available", "words"),
    [(True, "cuDNN of its own"), (False, "a cupy.cuda.cudnn of its own, though no cuDNN; CuPy 14 has neither")],
)
def test_modules_of_cupy_stay(written, passes, available, words):
    written(**{"cupy.cuda.cudnn": f"available = {available}"})
    passes(f"""
        assert told(ours.install) == (False, ["CuPy has {words}: gpuconv.cudnn is not installed"])
        with warnings.catch_warnings(record=True), ours.installed():
            pass
        import cupy.cuda.cudnn
        assert cupy.cuda.cudnn.available is {available} and not hasattr(cupy, "cudnn") and sys.meta_path == before
    """)


@pytest.mark.parametrize(
    ("config", "warned"), [("cudnn_enabled = False", True), ("cudnn_enabled = True", False), ("", False)]
)
def test_a_sigpy_that_decided_before_is_named(written, passes, config, warned):
    written(**{"sigpy": "", "sigpy.config": config})
    passes(f"""
        import sigpy.config
        installed, words = told(ours.install)
        assert installed and found() == {{True}}
        assert [text.split(":")[0] for text in words] == {
            ["sigpy was imported before gpuconv.cudnn.install() and goes without cuDNN"] if warned else []
        }
    """)  # fmt: skip


def test_without_cupy_nothing_is_installed(passes):
    passes("""
        sys.modules["cupy"] = None
        try:
            ours.install()
        except ImportError as error:
            assert "cupy" in str(error)
        else:
            raise AssertionError
        assert sys.meta_path == before
    """)


SCRIPT = """
import json, sys
try:
    from cupy import cudnn
    served = cudnn.__spec__.origin
except ImportError:
    served = None
import beside
print(json.dumps([served, __name__, __file__, sys.argv, sys.path[0], sys.flags.safe_path]))
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def script(tmp_path):
    """Write a script that tells how it was run, and a module beside it; return its path from a folder above."""
    folder = tmp_path / "programs" / "one"
    folder.mkdir(parents=True)
    (folder / "script.py").write_text(SCRIPT)
    (folder / "beside.py").touch()
    return folder.relative_to(tmp_path) / "script.py"


@pytest.mark.parametrize("status", [0, 3])
def test_a_script_runs_as_by_python_alone_but_with_cudnn(run, script, tmp_path, status):
    by_python, by_us = (
        run(*way, script, status, "--flag", "a b", cwd=tmp_path) for way in ([], ["-m", "gpuconv.cudnn"])
    )
    assert by_python.returncode == by_us.returncode == status, by_us.stderr
    (nothing, _, file, *expected), (served, name, own_file, *got) = (
        json.loads(done.stdout) for done in (by_python, by_us)
    )
    assert (nothing, served) == (None, "gpuconv.cudnn")
    assert name == "__main__"
    assert (tmp_path / own_file).samefile(tmp_path / file)
    assert got == expected == [[str(script), str(status), "--flag", "a b"], str(tmp_path / script.parent), False]


def test_a_path_that_must_not_hold_the_folder_of_the_script_is_left_alone(run, script, tmp_path):
    (tmp_path / "beside.py").touch()  # in a folder that PYTHONPATH names
    done = run("-P", "-m", "gpuconv.cudnn", script, 0, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *_, first, safe = json.loads(done.stdout)
    assert safe
    assert first == str(tmp_path)


def test_an_error_of_the_script_is_shown_and_its_exit_status_is_1(run, script, tmp_path):
    done = run("-m", "gpuconv.cudnn", script, "no number", cwd=tmp_path)
    assert done.returncode == 1
    assert "ValueError: invalid literal for int" in done.stderr


@pytest.mark.parametrize("given", [[], ["missing.py", "0"]], ids=["no script", "missing script"])
def test_without_a_script_the_usage_is_told(run, given):
    done = run("-m", "gpuconv.cudnn", *given)
    expected = "usage: python -m gpuconv.cudnn script.py args\n"
    assert done.stderr == ("no file missing.py\n" if given else "") + expected
    assert (done.stdout, done.returncode) == ("", 2)
