"""Plant faults in the code between gpuconv and CuPy, and see that CI's GPU cases notice, without a GPU.

    python -m tests.ladder.planted_faults [--count N] [--seed S] [--only TEXT] [--save FILE]

Each fault is one change of gpuconv/cuda that CUDA itself may take in silence: work on a wrong stream or a wrong GPU, a
struct passed by its address, arguments in a wrong order, a read that does not wait, ...  A copy of the checkout gets
it, and the cases marked `core` run there until one fails, as `make cupy-core` runs them: first those of the files that
look at launches most closely, then all.  Exit status 1: a fault that nothing noticed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from . import ROOT
from .cupy_run import SETTINGS, emulated, marked


@dataclass(frozen=True)
class Fault:
    """One change of gpuconv/cuda/<file>: every `before` in it becomes `after`."""

    kind: str
    file: str
    before: str
    after: str

    def plant(self, root: Path) -> None:
        path = root / "gpuconv" / "cuda" / self.file
        text = path.read_text(encoding="utf-8")
        if self.before not in text:
            msg = f"{self.file} has no {self.before!r} to change: the list of faults is behind the code"
            raise ValueError(msg)
        path.write_text(text.replace(self.before, self.after), encoding="utf-8")

    def __str__(self) -> str:
        return f"{self.kind}: {self.file}: {_line(self.before)} -> {_line(self.after)}"


def _line(text: str) -> str:
    return " ".join(text.split())


_LAUNCH = "function(grid, block, passed, shared_mem=shared)"
_STRUCT = "np.void: np.asarray"

FAULTS = (
    # Streams: what is launched elsewhere runs too early, too late, or is not recorded.
    Fault("a stream of its own", "device.py", _LAUNCH, f"with self._cupy.cuda.Stream(non_blocking=True): {_LAUNCH}"),
    Fault("the default stream", "device.py", _LAUNCH, f"with self._cupy.cuda.Stream.null: {_LAUNCH}"),
    Fault(
        "products on the default stream",
        "products.py",
        "_pointer(cuda.get_current_stream().ptr)",
        "_pointer(0)",
    ),
    Fault(
        "a replay on a stream of its own",
        "recording.py",
        "self._graph.launch()",
        "self._graph.launch(self._cupy.cuda.Stream(non_blocking=True))",
    ),
    # GPUs: what is made or launched on the current one, though the arrays lie on another.
    Fault("arrays on the current GPU", "device.py", "_Place(gpu, self.name)", "_Place(cupy.cuda.Device(), self.name)"),
    Fault("always the first GPU", "device.py", "return gpu(array.device.id)", "return gpu(0)"),
    Fault("any GPU's array is taken", "device.py", " and array.data.device_id == self._index", ""),
    Fault("kernels of another GPU", "kernel.py", "(device, templates)", "(None, templates)"),
    Fault(
        "kernels of other types",
        "kernel.py",
        "self._ready.get((device, templates))",
        "next((f for k, f in self._ready.items() if k[0] is device), None)",
    ),
    # Arguments: CUDA reads as many bytes as the kernel declares, whatever it is given.
    Fault(
        "a struct by its address",
        "device.py",
        _STRUCT,
        "np.void: lambda arg: np.uint64(np.asarray(arg).ctypes.data)",
    ),
    Fault(
        "a float as a double",
        "kernel.py",
        "        return kind(number)\n\n    kind =",
        "        return np.float64(number)\n\n    kind =",
    ),
    Fault("null pointers that are none", "device.py", "np.uint64(0)", "np.uint64(512)"),
    Fault("arguments swapped", "relu.py", "_BACKWARD, dy, y", "_BACKWARD, y, dy"),
    Fault("arguments swapped", "batchnorm.py", "x, mean, inv_std, gamma", "x, inv_std, mean, gamma"),
    Fault("arguments swapped", "conv.py", "*filters, depth, rows, width)", "*filters, depth, width, rows)"),
    Fault("arguments swapped", "loss.py", "N, classes, step, setting", "classes, N, step, setting"),
    # Reads: the host goes on before the device has written.
    # To pinned memory: a copy to any other has waited by CUDA's own rules when it returns.
    Fault(
        "a read that does not wait",
        "device.py",
        "self._cupy.asnumpy(array)",
        "array.get(out=__import__('cupyx').empty_pinned(array.shape, array.dtype), blocking=False)",
    ),
    Fault("a wait that does not", "device.py", "self._cupy.cuda.get_current_stream().synchronize()", "pass"),
    # Memory: what is uninitialised, shared or given back too early.
    Fault("zeros that are none", "device.py", "self._cupy.zeros(shape, dtype)", "self._cupy.empty(shape, dtype)"),
    Fault(
        "one array for all of a shape", "device.py", "    def empty(self", "    @functools.cache\n    def empty(self"
    ),
    Fault(
        "fewer bytes than asked for",
        "device.py",
        "return self._cupy.empty(shape, dtype)",
        "return self._cupy.ndarray(shape, dtype, self._cupy.empty(max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize - 600), np.uint8).data)",
    ),
    Fault("views taken for contiguous arrays", "copy.py", "    if array.flags.c_contiguous:\n", "    if True:\n"),
    Fault("a recording's memory is everybody's", "recording.py", "cuda.using_allocator(self._malloc)", "stream"),
    Fault(
        "a recording's memory is given back",
        "recording.py",
        "self.result = self._captured(work)",
        "self.result = self._captured(work)\n        self._pool.free_all_blocks()",
    ),
    Fault(
        "a recording's memory is never given back", "recording.py", "weakref.finalize(self, ", "weakref.finalize(cupy, "
    ),
    Fault("a recording frees what it uses", "recording.py", "MemoryPool(_allocator(cupy))", "MemoryPool()"),
    Fault("a recording keeps no array", "recording.py", "self._kept[arg.data.mem.ptr] = arg", "pass"),
    # Sizes: blocks that are missing, more threads than a kernel expects.
    Fault("the last block is missing", "kernel.py", "-(-threads // block)", "threads // block"),
    Fault(
        "blocks of another size",
        "kernel.py",
        "device.launch(function, blocks, self.block, values, shared)",
        "device.launch(function, blocks, (self.block[0] // 2, *self.block[1:]), values, shared)",
    ),
    Fault("grid turned round", "conv.py", "(tiles, slices), *arguments", "(slices, tiles), *arguments"),
    # Steps: numbers of another step, or of none.
    Fault(
        "a rate that was read once",
        "step.py",
        "Number(self.numbers[i : i + 1], go=self.go)",
        "Number(self.numbers[i : i + 1].copy(), go=self.go)",
    ),
    Fault(
        "one row for all outcomes", "step.py", "self._rates, self._parts, self._rows)", "self._rates, self._parts, 1)"
    ),
    Fault(
        "a step that is never skipped",
        "step.py",
        "self.go = self.counts[GO : GO + 1] if scaled else None",
        "self.go = None",
    ),
    Fault(
        "a step of Muon that is never skipped", "muon.py", "go = lr.go if isinstance(lr, Number) else None", "go = None"
    ),
    Fault("draws of the next part", "step.py", "plus=part)", "plus=part + 1)"),
    Fault("updates that are those of the run", "step.py", "= step, updates, good, skips", "= step, step, good, skips"),
    # Errors: a fault of the device that is told wrongly, or to nobody.
    Fault("a fault that is not known", "device.py", "_FAULTS = (214, 700, ", "_FAULTS = (214, "),
    Fault("formats mistaken", "layout.py", "if channels_last else x)", "if not channels_last else x)"),
)

_CLOSE = ("gpu_places", "recording", "gpu_graph", "products", "cuda_outcome", "gpu_calls")


def drawn(count: int, seed: int, only: str = "") -> list[Fault]:
    """Return `count` faults of as many different kinds, by a seed."""
    chosen = [fault for fault in FAULTS if only in str(fault)]
    return random.Random(seed).sample(chosen, min(count, len(chosen)))


def noticed(fault: Fault | None) -> tuple[str | None, str]:
    """Return the first test that fails with a fault planted, None if none does, and the end of the output."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        root = Path(folder) / "checkout"
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        if fault is not None:
            fault.plant(root)
        command = emulated("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", marked(core=True))
        environment = {**os.environ, **SETTINGS, "PYTHONPATH": str(root)}
        close = [f"tests/test_{name}.py" for name in _CLOSE]
        for paths in ([],) if fault is None else (close, []):
            done = subprocess.run(
                [*command, *paths], cwd=root, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                break
    first = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    end = (done.stdout + done.stderr)[-2000:]
    return (first[1] if first else f"exit status {done.returncode}") if done.returncode else None, end


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    made = argparse.ArgumentParser(
        prog="python -m tests.ladder.planted_faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--count", type=int, default=10, help="faults to plant (default 10)")
    made.add_argument("--seed", type=int, default=1, help="of the draw (default 1)")
    made.add_argument("--only", default="", help="faults whose description contains this text")
    made.add_argument("--save", type=Path, help="JSON file of what was found")
    arguments = made.parse_args(argv)
    wrong, end = noticed(None)
    if wrong is not None:
        print(f"without a fault, {wrong} fails already\n{end}", file=sys.stderr)
        return 2
    results = []
    for fault in drawn(arguments.count, arguments.seed, arguments.only):
        start = time.monotonic()
        test, _ = noticed(fault)
        results.append({**asdict(fault), "noticed by": test, "seconds": round(time.monotonic() - start)})
        print(f"{fault}\n    {test or 'NOT NOTICED'}", flush=True)
    missed = sum(result["noticed by"] is None for result in results)
    print(f"{len(results) - missed} of {len(results)} faults noticed, seed {arguments.seed}")
    if arguments.save is not None:
        text = json.dumps({"seed": arguments.seed, "faults": results}, indent=1)
        arguments.save.write_text(text + "\n", encoding="utf-8")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
