"""Compiled loops and NumPy's passes: the same names, one choice, machine code that is kept, and doing without.

That both compute right is what the operators' own tests say: they run on loops where numba is installed, and on NumPy
alone with GPUCONV_COMPILED=0.  What a process does at first is seen in fresh ones, which compile the loops of ReLU.
"""

import ast
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpuconv
from bench import harness, tables
from bench.results import Result
from gpuconv import backend, doctor
from gpuconv.cpu import compiled
from gpuconv.errors import ConfigError
from gpuconv.runs.machine import environment

CPU = Path(compiled.__file__).parent
_NO_OPERATORS = {
    "__init__",
    "jit",
    "cache",
    "atomic",
    "vectors",
    "tile",
    "strips",
    "blocks",
    "exponential",
    "pieces",
    "bits",
    "unfold",
    "winograd_filters",
}
TWINS = sorted({path.stem for form in ("arrays", "loops") for path in (CPU / form).glob("*.py")} - _NO_OPERATORS)

numba_installed = pytest.mark.skipif(compiled._obstacle() != "", reason="the extra `fast` is not installed")


@pytest.mark.skipif(
    os.environ.get("GPUCONV_ALLOW_MISSING_COMPILER") == "1", reason="this environment may do without compilers"
)
def test_loops_can_be_had():
    """Without this, tests of an environment that should have them would pass on NumPy alone."""
    assert compiled._obstacle() == ""


# Twins --------------------------------------------------------------------------------------------------------------


def _offered(form, operator):
    """Return what a module offers: its constants, and the parameters of its functions."""
    tree = ast.parse((CPU / form / f"{operator}.py").read_text(encoding="utf-8"))
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    names = {node.id: None for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    names |= {node.name: [a.arg for a in [*node.args.posonlyargs, *node.args.args]] for node in functions}
    return {name: parameters for name, parameters in names.items() if not name.startswith("_")}


@pytest.mark.parametrize("operator", TWINS)
def test_both_forms_of_an_operators_passes_offer_the_same(operator):
    assert _offered("loops", operator) == _offered("arrays", operator)


def test_each_operator_with_passes_has_a_file_of_its_own():
    """`passes("relu", ...)` in some file of gpuconv/cpu names each of them."""
    asked = {
        name for path in CPU.glob("*.py") for name in re.findall(r'(?:passes|elementwise)\("(\w+)"', path.read_text())
    }
    assert asked - _NO_OPERATORS == set(TWINS)


# The choice ---------------------------------------------------------------------------------------------------------


def _form(dtype=np.float32, **options):
    return compiled.passes("relu", np.dtype(dtype), **options).__name__.split(".")[-2]


@numba_installed
@pytest.mark.parametrize("operator", TWINS)
def test_the_loops_of_each_operator_compile(operator, setting):
    """Where they do not, NumPy steps in, and the operator's tests pass."""
    setting("1")
    assert compiled.passes(operator, np.dtype(np.float32)).__name__ == f"gpuconv.cpu.loops.{operator}"


@pytest.fixture
def setting(monkeypatch):
    monkeypatch.delenv("GPUCONV_COMPILED", raising=False)
    return lambda value: monkeypatch.setenv("GPUCONV_COMPILED", value)


@numba_installed
@pytest.mark.usefixtures("setting")
def test_loops_serve_float32_and_numpy_the_rest():
    assert _form() == "loops"
    assert _form(np.float64) == _form(np.float16) == _form(">f4") == _form(served=False) == "arrays"
    assert re.fullmatch(r"compiled loops, numba [\d.]+\w*, (128|256|512)-bit vectors", backend.loops_in_words())


@numba_installed
@pytest.mark.parametrize(("value", "form"), [("", "loops"), ("1", "loops"), ("0", "arrays")])
def test_a_setting_counts_from_the_next_call_on(setting, value, form):
    setting(value)
    assert _form() == form


def test_the_setting_switches_loops_off(setting):
    setting("0")
    assert _form() == "arrays"
    assert backend.loops_in_words() == "NumPy alone"


@pytest.mark.parametrize("wrong", ["2", "yes", " ", "-1", "01"])
def test_a_wrong_setting_is_named(setting, wrong):
    setting(wrong)
    with pytest.raises(ConfigError, match=re.escape(f"GPUCONV_COMPILED must be 0 or 1, got {wrong!r}")):
        gpuconv.relu_forward(np.ones(3, np.float32))


@numba_installed
def test_loops_that_do_not_compile_are_done_without(setting, monkeypatch, caplog):
    real = compiled.importlib.import_module

    def failing(name):
        if name.endswith("loops.relu"):
            msg = "no such instruction"
            raise ValueError(msg)
        return real(name)

    monkeypatch.setattr(compiled.importlib, "import_module", failing)
    assert compiled._loops.__wrapped__("relu") is None
    (record,) = caplog.records
    assert record.getMessage() == (
        "gpuconv computes relu with NumPy alone: its loops do not compile here (no such instruction)"
    )
    setting("1")
    with pytest.raises(ValueError, match="no such instruction"):
        compiled._loops.__wrapped__("relu")


@numba_installed
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("moves", [{}, {"pad_mode": "reflect", "cutout": 3}], ids=["black_border", "mirrored_border"])
def test_both_forms_of_augmentation_give_the_same_bits(channels_last, moves, setting, rng):
    """It looks values up, and computes none."""
    images = rng.integers(0, 256, (70, 3, 9, 7), dtype=np.uint8)
    draws = rng.integers(0, 2**64, 70, dtype=np.uint64)
    options = {"mean": [0.1, 0.5, 0.9], "std": [0.3, 0.2, 0.1], "channels_last": channels_last, **moves}
    results = []
    for value in ("0", "1"):
        setting(value)
        results += [gpuconv.augment(images, draws, pad=4, flip=True, **options), gpuconv.augment(images, **options)]
    for numpy, loops in zip(results[:2], results[2:], strict=True):
        assert numpy.tobytes() == loops.tobytes()
        assert numpy.strides == loops.strides


# Pools that need more of their loops than windows side by side: (x, options)
POOLS = {
    "ceil": ((3, 20, 9, 7), {"ceil": True}),
    "ceil_of_rows": ((3, 20, 9, 8), {"ceil": True}),
    "ceil_of_columns": ((3, 20, 8, 7), {"ceil": True}),
    "padded_before": ((3, 20, 9, 7), {"window": 3, "stride": 2, "pad": ((1, 0), (0, 0))}),
    "padded_behind": ((3, 20, 9, 7), {"window": 3, "stride": 2, "pad": ((0, 1), (0, 1))}),
    "dilated": ((3, 20, 11, 12), {"window": 3, "stride": (1, 2), "pad": (2, 1), "dilation": (2, 3)}),
    "dilated_apart": ((2, 3, 12, 14), {"window": 2, "stride": (3, 4), "dilation": (2, 3)}),
    "pooled_in_two": ((2, 5, 17, 13), {"window": 7, "stride": 1, "pad": 3}),
    "pooled_in_two_with_gaps": ((2, 5, 23, 17), {"window": 5, "stride": (2, 1), "pad": (4, 2), "dilation": (3, 2)}),
    "more_than_256_places": ((2, 3, 34, 36), {"window": 17}),
    "more_than_256_places_in_two": ((2, 3, 18, 36), {"window": 17, "stride": 1}),
    "a_long_row": ((2, 3, 2, 150), {"window": (1, 70), "stride": 1}),
    "a_tall_window": ((2, 3, 150, 4), {"window": (70, 2), "stride": 1}),
    "signals": ((3, 5, 40), {"window": (5,), "stride": 1, "pad": "same", "dilation": (3,)}),
    "boxes": ((2, 3, 5, 7, 6), {"window": (2, 3, 2), "stride": (2, 1, 2), "dilation": (1, 2, 2), "ceil": True}),
    "boxes_in_three": ((1, 3, 9, 8, 10), {"window": (6, 7, 5), "stride": 1, "pad": (3, 3, 2)}),
    "tiles_of_boxes": ((2, 3, 6, 4, 8), {}),
}


@numba_installed
@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize(("shape", "options"), POOLS.values(), ids=POOLS.keys())
def test_both_forms_of_pooling_give_the_same(shape, options, last, setting, rng, monkeypatch):
    """Maxima, places and sums of whole numbers bit for bit; gradients of averages are rounded once for each window."""
    x = rng.integers(-4, 5, shape).astype(np.float32)
    x.reshape(-1)[::37], x.reshape(-1)[5::41] = np.nan, -np.inf
    numbers = rng.integers(-4, 5, shape).astype(np.float32)
    if last and len(shape) > 3:
        x, numbers = (np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) for a in (x, numbers))
    results = []
    for value in ("0", "1"):
        setting(value)
        if value == "1":
            monkeypatch.setattr(compiled, "_arrays", pytest.fail)
        maxima, cache = gpuconv.max_pool_forward(x, **options)
        averages, averaged = gpuconv.average_pool_forward(numbers, **options)
        dy = (np.arange(maxima.size) % 7 - 3).reshape(maxima.shape).astype(np.float32)
        exact = maxima, cache.argmax, gpuconv.max_pool_backward(dy, cache), averages
        results.append((exact, gpuconv.average_pool_backward(dy, averaged)))
        size = gpuconv.average_pool_backward(np.abs(dy), averaged)
    (numpy, gradient), (loops, other) = results
    for a, b in zip(numpy, loops, strict=True):
        assert a.dtype == b.dtype
        assert a.strides == b.strides
        np.testing.assert_array_equal(a, b)
    assert (np.abs(gradient - other) <= 8 * 2.0**-24 * size).all()


@numba_installed
@pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("name", ["dilated", "pooled_in_two", "a_tall_window", "boxes"])
def test_odd_pools_have_the_same_bits_for_any_number_of_threads(name, last, setting, rng, monkeypatch):
    setting("1")
    monkeypatch.setattr("gpuconv.cpu.loops.max_pool._BLOCK", 200)
    monkeypatch.setattr("gpuconv.cpu.loops.average_pool._BLOCK", 200)
    shape, options = POOLS[name]
    x = rng.standard_normal((6, *shape[1:])).astype(np.float32)
    if last:
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    found = set()
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("GPUCONV_THREADS", threads)
        results = []
        for operator in ("max_pool", "average_pool"):
            y, cache = getattr(gpuconv, f"{operator}_forward")(x, **options)
            results += [y, getattr(gpuconv, f"{operator}_backward")(y, cache)]
        found.add(b"".join(a.tobytes() for a in results))
    assert len(found) == 1


# Arrays that loops cannot take ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["relu", "batchnorm", "max_pool", "average_pool", "global_average_pool"])
def test_maps_of_files_and_subclasses_are_taken_as_arrays(operator, tmp_path, rng):
    """Arrays that are read-only, or in a file, are types of their own to a compiler."""
    x = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=x.shape)
    mapped[...] = x
    mapped.flags.writeable = False

    def call(x):
        if operator == "batchnorm":
            vectors = [np.ones(3, np.float32) for _ in range(4)]
            return gpuconv.spatial_batchnorm_forward(x, *vectors)[0]
        return getattr(gpuconv, f"{operator}_forward")(x)[0]

    np.testing.assert_array_equal(call(mapped), call(x))


# Machine code that is kept -------------------------------------------------------------------------------------------

_CALL = """
import json, logging, sys
said = []
class Listener(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.getLogger("gpuconv").addHandler(Listener())
logging.getLogger("gpuconv").setLevel("INFO")
import numpy as np
import gpuconv
<first>
y, _ = gpuconv.relu_forward(np.array([-1, 2, np.nan], <dtype>))
assert y[0] == 0 and y[1] == 2 and np.isnan(y[2])
from gpuconv.cpu import compiled
print(json.dumps({"said": said, "numba": "numba" in sys.modules, "words": compiled.in_words()}))
"""
_COMPILED = r"compiled loops of relu for this processor in \d+\.\d s"


def _command(first, dtype):
    return [sys.executable, "-c", _CALL.replace("<first>", first).replace("<dtype>", f"np.{dtype}")]


def _environment(cache, environment):
    variables = {name: value for name, value in os.environ.items() if name not in ("GPUCONV_COMPILED", "GPUCONV_CACHE")}
    return variables | ({"GPUCONV_CACHE": str(cache)} if cache else {}) | environment


def _run(cache, first="", dtype="float32", **environment):
    """Call ReLU in a fresh process, and return what was said and used there."""
    done = subprocess.run(
        _command(first, dtype), env=_environment(cache, environment), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _fails(cache, first="", **environment):
    """Return the last line of what a fresh process fails with."""
    done = subprocess.run(
        _command(first, "float32"), env=_environment(cache, environment), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def _kept(cache):
    return sorted(path for path in cache.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """A cache with the loops of ReLU, and what was said when they were compiled."""
    cache = tmp_path_factory.mktemp("cache")
    return cache, _run(cache)


@pytest.fixture
def cache(compiled_once, tmp_path):
    """A copy of it."""
    for path in _kept(compiled_once[0]):
        copy = tmp_path / "cache" / path.relative_to(compiled_once[0])
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return tmp_path / "cache"


@numba_installed
def test_a_process_that_compiles_says_so_and_the_next_one_does_not(compiled_once, cache):
    (line,) = compiled_once[1]["said"]
    assert re.fullmatch(_COMPILED, line)
    assert len(_kept(cache)) == 2  # forward and backward
    assert _run(cache)["said"] == []


@pytest.mark.compiling
@numba_installed
@pytest.mark.parametrize("spoil", ["a byte", "the end", "everything", "the meaning"])
def test_spoiled_files_are_compiled_anew(cache, spoil):
    for path in _kept(cache):
        content = bytearray(path.read_bytes())
        if spoil == "a byte":
            content[-100] ^= 1
        elif spoil == "the meaning":  # sealed well, but nothing that this version reads
            from hashlib import sha256

            content = sha256(b"other").digest() + b"other"
        else:
            content = content[: len(content) // 2 if spoil == "the end" else 0]
        path.write_bytes(content)
    assert re.fullmatch(_COMPILED, *_run(cache)["said"])
    if spoil == "a byte":  # put right
        assert _run(cache)["said"] == []


@numba_installed
@pytest.mark.skipif(sys.platform == "win32", reason="owners and modes are POSIX's")
@pytest.mark.parametrize("written_by", ["others may write the file", "others may write the folder", "another user's"])
def test_what_another_user_may_have_put_there_is_not_read(written_by, tmp_path, monkeypatch):
    from gpuconv.cpu.loops import cache as module

    path = tmp_path / "loops" / "relu.code"
    folder = path.parent
    mask = os.umask(0)  # what this process creates others might write, too, but for the modes it asks for
    try:
        module._make(folder)
        module._write(path, b"code")
    finally:
        os.umask(mask)
    assert module._read_own(path) == b"code"
    if written_by == "another user's":
        monkeypatch.setattr(module.os, "getuid", lambda: 12345)
    else:
        (path if "file" in written_by else folder).chmod(0o777)
    with pytest.raises(PermissionError):
        module._read_own(path)


@pytest.mark.compiling
@numba_installed
@pytest.mark.skipif(sys.platform == "win32", reason="owners and modes are POSIX's")
def test_a_folder_that_others_may_write_costs_time_and_is_named(cache):
    (folder,) = (cache / "loops").iterdir()
    mode = folder.stat().st_mode
    folder.chmod(0o777)
    try:
        assert _warned(_run(cache), f"in {cache / 'loops'} (other users may write there)")
    finally:
        folder.chmod(mode)


@numba_installed
@pytest.mark.parametrize("change", ["source", "new file", "version", "numba", "setting", "processor"])
def test_what_machine_code_depends_on_is_in_its_name(change, tmp_path, monkeypatch):
    from gpuconv.cpu.loops import cache as module

    for path in (CPU / "loops").glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(module, "__file__", str(tmp_path / "cache.py"))
    key = module._key.__wrapped__
    before = key()
    assert before == key()
    if change == "source":
        (tmp_path / "pieces.py").write_text("# another\n")  # one that passes of another file call
    elif change == "new file":
        (tmp_path / "new.py").write_text("")
    elif change == "version":
        monkeypatch.setattr(module, "gpuconv_version", lambda: "another")
    elif change == "numba":
        monkeypatch.setattr(module.numba, "__version__", "another")
    elif change == "setting":
        monkeypatch.setenv("NUMBA_OPT", "1")
    else:
        context = module.numba.core.registry.cpu_target.target_context
        monkeypatch.setattr(type(context.codegen()), "magic_tuple", lambda self: ("another",))
    assert key() != before


_EACH_SAID = """
from gpuconv.cpu.loops import cache, jit
save = cache.Kept.save_overload
def keep(self, *arguments):
    <at_save>
    save(self, *arguments)
    said.append(self._name)
cache.Kept.save_overload = keep
<more>
"""
_HOLDING = "if self._name == 'relu.forward': print('compiled', flush=True); sys.stdin.readline()"
_TELLING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
wait = jit._wait
def tell():
    wait()
    print('waits', flush=True)
jit._wait = tell
"""
_WAITED = r"waited for another process to compile loops of relu for this processor in \d+\.\d s"


def _begun(cache, at_save="", more=""):
    """Start a process that calls ReLU, and says which passes it has compiled, too."""
    command = _command(_EACH_SAID.replace("<at_save>", at_save or "pass").replace("<more>", more), "float32")
    return subprocess.Popen(
        command, env=_environment(cache, {}), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def _said(process):
    out, err = process.communicate("\n")
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])["said"]


@pytest.mark.compiling
@numba_installed
def test_of_processes_that_begin_at_once_one_compiles_each_pass(tmp_path):
    processes = [_begun(tmp_path) for _ in range(3)]
    names = [line for process in processes for line in _said(process) if line.startswith("relu.")]
    assert sorted(names) == ["relu.backward", "relu.forward"]
    assert len(_kept(tmp_path)) == 2
    assert _run(tmp_path)["said"] == []


@pytest.fixture
def two(tmp_path):
    """A process that has compiled a pass and not yet kept it, and another that waits for that."""
    with _begun(tmp_path, _HOLDING) as first:
        try:
            assert first.stdout.readline() == "compiled\n"
            with _begun(tmp_path, more=_TELLING) as second:
                try:
                    assert second.stdout.readline() == "waits\n"
                    yield first, second
                finally:
                    second.kill()
        finally:
            first.kill()


@pytest.mark.compiling
@numba_installed
def test_a_process_waits_for_another_that_compiles_and_says_so(two):
    compiled_by = [_said(process) for process in two]
    assert "relu.forward" in compiled_by[0]
    assert "relu.forward" not in compiled_by[1]
    assert any(re.fullmatch(_COMPILED, line) for line in compiled_by[0])
    assert re.fullmatch(_COMPILED if "relu.backward" in compiled_by[1] else _WAITED, compiled_by[1][-1])


@pytest.mark.compiling
@numba_installed
def test_where_the_one_that_compiles_is_killed_the_other_goes_on(two, tmp_path):
    two[0].kill()
    names = _said(two[1])
    assert names[:2] == ["relu.forward", "relu.backward"]
    assert re.fullmatch(_COMPILED, names[2])
    assert len(_kept(tmp_path)) == 2  # and no lock


@pytest.mark.compiling
@numba_installed
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C goes to all processes there")
def test_who_waits_for_another_can_be_interrupted(two):
    two[1].send_signal(signal.SIGINT)
    _, err = two[1].communicate()
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert "relu.forward" in _said(two[0])


@pytest.mark.compiling
@numba_installed
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_means_to_compile_oneself(number, tmp_path):
    more = f"""
def none(file):
    raise OSError({number}, "none here")
cache.durable.lock = none
"""
    for process in [_begun(tmp_path, more=more) for _ in range(2)]:
        assert re.fullmatch(_COMPILED, _said(process)[-1])
    assert len(_kept(tmp_path)) == 2
    assert _run(tmp_path)["said"] == []


@pytest.mark.compiling
@numba_installed
def test_a_pass_that_does_not_compile_leaves_no_lock(tmp_path):
    """The next one to try is not kept waiting, nor is this process."""
    more = """
def fail(self, *arguments):
    raise RuntimeError("no such instruction")
cache.Kept.save_overload = fail
"""
    (line,) = [line for line in _said(_begun(tmp_path, more=more)) if "NumPy" in line]
    assert "no such instruction" in line
    assert _kept(tmp_path) == []
    assert "relu.forward" in _said(_begun(tmp_path))


@pytest.mark.compiling
@numba_installed
def test_threads_that_call_first_compile_once(tmp_path):
    first = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
barrier = Barrier(4)
def call(number):
    barrier.wait()
    return gpuconv.relu_forward(np.array([-1, number], np.float32))[0].tolist()
with ThreadPoolExecutor(4) as pool:
    assert list(pool.map(call, range(4))) == [[0, number] for number in range(4)]
"""
    assert re.fullmatch(_COMPILED, *_run(tmp_path, first)["said"])


_CANNOT = (
    "gpuconv: compiled loops cannot be kept {}: every process compiles them anew. GPUCONV_CACHE names another folder"
)


def _warned(found, where):
    """Return whether it was said once that loops are not kept, and why, beside what always is."""
    warnings = [line for line in found["said"] if not re.fullmatch(_COMPILED, line)]
    return len(warnings) == 1 and warnings[0].startswith(_CANNOT.format(where)) and len(found["said"]) == 2


@pytest.mark.compiling
@numba_installed
def test_a_folder_that_cannot_be_made_costs_time_only(tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "cache"
    assert _warned(_run(folder), f"in {folder / 'loops'} ({os.strerror(errno.ENOTDIR)})")


@pytest.mark.compiling
@numba_installed
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_is_read_only_costs_time_only(tmp_path):
    tmp_path.chmod(0o500)
    assert _warned(_run(tmp_path), f"in {tmp_path / 'loops'} ({os.strerror(errno.EACCES)})")


@pytest.mark.compiling
@numba_installed
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_no_more_leaves_nothing_behind(number, tmp_path):
    first = f"""
from pathlib import Path
def write_bytes(path, content):
    with path.open("wb") as file:
        file.write(content[:100])
    raise OSError({number}, "{os.strerror(number)}", str(path))
Path.write_bytes = write_bytes
"""
    assert _warned(_run(tmp_path, first), f"in {tmp_path / 'loops'} ({os.strerror(number)})")
    assert _kept(tmp_path) == []


@pytest.mark.compiling
@numba_installed
def test_no_home_costs_time_only():
    first = """
from pathlib import Path
def home():
    raise RuntimeError("Could not determine home directory.")
Path.home = home
"""
    assert _warned(
        _run(None, first, XDG_CACHE_HOME=""),
        "anywhere (this user has no home folder to keep a cache in: name one by the environment variable GPUCONV_CACHE)",
    )


@pytest.mark.compiling
@numba_installed
def test_folders_of_versions_long_gone_go(tmp_path):
    for age in range(8):
        folder = tmp_path / "loops" / f"version{age}"
        folder.mkdir(parents=True)
        (folder / "pass").touch()
        os.utime(folder, (1e9 - age, 1e9 - age))
    _run(tmp_path)
    names = {path.name for path in (tmp_path / "loops").iterdir()}
    assert {name for name in names if name.startswith("version")} == {f"version{age}" for age in range(4)}
    assert len(names) == 5


# Saying so ------------------------------------------------------------------------------------------------------------


@numba_installed
def test_a_terminal_is_told_before_it_waits(monkeypatch):
    from gpuconv.cpu.loops import jit

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with jit.compiling("relu"):
        assert terminal.getvalue() == ""
        for _ in range(2):  # passes
            jit._begin()
            jit._wait()
            assert terminal.getvalue() == "gpuconv: compiling loops of relu for this processor ..."
    assert re.fullmatch(r"gpuconv: compiling loops of relu for this processor \.\.\. \d+\.\d s\n", terminal.getvalue())
    with jit.compiling("relu"):
        pass  # all were found
    assert terminal.getvalue().count("\n") == 1
    with jit.compiling("gelu"):
        jit._wait()
        begun = "gpuconv: waiting for another process that compiles loops of gelu for this processor ..."
        assert terminal.getvalue().splitlines()[1:] == [begun]


# Without numba -------------------------------------------------------------------------------------------------------

_NONE = "sys.modules['numba'] = None"  # as if it were not installed


def test_without_numba_numpy_computes_and_nothing_is_said(tmp_path):
    assert _run(tmp_path, _NONE) == {"said": [], "numba": True, "words": "NumPy alone"}
    assert _kept(tmp_path) == []


def test_loops_that_are_asked_for_need_numba(tmp_path):
    assert _fails(tmp_path, _NONE, GPUCONV_COMPILED="1") == (
        "gpuconv.errors.ConfigError: GPUCONV_COMPILED=1 asks for compiled loops, but numba is not installed: "
        "pip install -e '.[fast]' in the checkout"
    )


@pytest.fixture
def broken(tmp_path):
    """The environment of a numba that cannot be imported."""
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 1.9 or less')\n")
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(CPU.parents[1])])}


def test_a_numba_that_cannot_be_imported_is_named_once(broken, tmp_path):
    found = _run(tmp_path, **broken)
    assert found["said"] == ["gpuconv computes with NumPy alone: numba cannot be used (Numba needs NumPy 1.9 or less)"]
    assert found["words"] == "NumPy alone"
    assert "numba cannot be used (Numba needs" in _fails(tmp_path, GPUCONV_COMPILED="1", **broken)


@numba_installed
def test_a_numba_that_is_switched_off_is_named(tmp_path):
    assert _run(tmp_path, NUMBA_DISABLE_JIT="1")["said"] == [
        "gpuconv computes with NumPy alone: numba cannot be used (NUMBA_DISABLE_JIT is set)"
    ]


@pytest.mark.parametrize(("dtype", "environment"), [("float64", {}), ("float32", {"GPUCONV_COMPILED": "0"})])
def test_numba_is_imported_only_where_it_serves(dtype, environment, tmp_path):
    """Nor is it for threads to wait for each other."""
    first = """
from gpuconv.cpu import parallel
parallel.for_each(lambda _: None, range(4))
said.append('numba' in sys.modules)
"""
    environment = {"GPUCONV_THREADS": "2"} | environment
    assert _run(tmp_path, first, dtype, **environment)["said"] == [False]


# How they are compiled -------------------------------------------------------------------------------------------------


@numba_installed
def test_arguments_are_promised_not_to_overlap_and_loops_become_vectors():
    """numba has no public name for the promise: a version that does not know it any more is to be seen here."""
    from numba import types

    from gpuconv.cpu.loops import jit

    def double(x, y):
        for i in range(len(x)):
            y[i] = x[i] + x[i]

    signature = types.void(jit.read(1), jit.write(1))
    for decorate, promises in ((jit.apart_loop, True), (jit.loop, False)):
        dispatcher = decorate(double)
        dispatcher.compile(signature)
        (llvm,) = dispatcher.inspect_llvm().values()
        assert bool(re.search(r"define [^{]*noalias [^,]*%arg\.y\.4", llvm)) == promises  # the address of the data
        (assembly,) = dispatcher.inspect_asm().values()
        assert re.search(r"addps\s+.*[xyz]mm|fadd\s+v\d+\.4s", assembly)


@numba_installed
def test_a_pass_takes_no_other_types_than_it_was_compiled_for(rng):
    from gpuconv.cpu.loops import relu

    x = rng.standard_normal(8)
    with pytest.raises(TypeError, match="No matching definition"):
        relu.forward(x, np.empty_like(x), 8, np.zeros(1, np.int64))


@numba_installed
def test_a_pass_that_could_not_be_kept_is_refused():
    """It would be compiled in every process."""
    from gpuconv.cpu.loops import cache, jit

    class Result:
        lifted = ()
        library = type("Library", (), {"has_dynamic_globals": True})

    with pytest.raises(TypeError, match="refers to memory of this process"):
        cache.Kept(lambda: None, jit._begin, jit._wait).save_overload(None, Result())


@numba_installed
@pytest.mark.parametrize(
    ("features", "bits"),
    [("+sse2,-avx,-avx512f", 128), ("+avx,+avx2,-avx512f", 256), ("+avx,+avx2,+avx512f", 512), ("+neon", 128)],
)
def test_the_processor_says_how_wide_vectors_are(features, bits, monkeypatch):
    from gpuconv.cpu.loops import jit

    monkeypatch.setattr(type(jit.cpu_target.target_context.codegen()), "magic_tuple", lambda self: ("", "", features))
    assert jit.vector_bits() == bits


# What says which is in use ---------------------------------------------------------------------------------------------


def test_doctor_and_env_json_say_what_runs(setting):
    setting("0")
    assert environment()["machine"]["loops"] == "NumPy alone"
    assert doctor.Finding("loops", "NumPy alone") in doctor.examine()
    setting("both")
    assert doctor.Finding("loops", "GPUCONV_COMPILED must be 0 or 1, got 'both'", ok=False) in doctor.examine()


def test_tables_of_benchmarks_say_what_ran(setting):
    setting("0")
    machine = harness.machine(harness.Settings())
    assert machine["loops"] == "NumPy alone"
    result = Result(machine=machine, settings={}, peaks={}, sides={}, rows=[])
    assert ", NumPy alone, " in tables.setting(result)
    assert "passes over NumPy arrays: NumPy alone" in tables.facts(result)
    del machine["loops"]  # results from before there were loops
    assert "alone" not in tables.setting(result)
