"""Prints what loops become on other processors, as JSON {CPU: {function: assembly}}: machine_code.py TRIPLE FEATURES CPU ...

LLVM knows every processor, wherever it runs.  The loops' own code is made here as in a process there, for the vectors that
FEATURES have; nothing of it is executed.
"""

import json
import re
import sys

import llvmlite.binding as llvm
from numba.core.registry import cpu_target

TRIPLE, FEATURES, *CPUS = sys.argv[1:]


def assembly(code, cpu):
    """Return the assembly of LLVM's intermediate code, made as Numba does for the processor it runs on."""
    machine = llvm.Target.from_triple(TRIPLE).create_target_machine(
        cpu=cpu, features=FEATURES, opt=3, reloc="pic", codemodel="default"
    )
    code = re.sub(r'(target triple = )"[^"]*"', rf'\1"{TRIPLE}"', code)
    code = re.sub(r'(target datalayout = )"[^"]*"', rf'\1"{machine.target_data}"', code)
    module = llvm.parse_assembly(code)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = True
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    return machine.emit_assembly(module)


def main():
    """Compile the tile, and what is written for one kind of processor or another."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    cpu_target.target_context.codegen().magic_tuple = lambda: (TRIPLE, CPUS[0], FEATURES)

    from numba import cfunc, float32, types

    from gpuconv.cpu.loops import atomic, jit, tile, vectors

    @cfunc(types.int64(atomic.COUNTER, types.intp, types.intp, types.intp), _nrt=False)
    def others(counter, x, y, count):
        vectors.prefetch(x)
        vectors.stream(x, y, count)
        vectors.transpose_square(x, count, y, count)
        vectors.add_channels(x, count, count, y, y)
        vectors.add_pixels(x, count, count, count, y, y)
        return atomic.take(counter) + vectors.are_even(x, y, count, count, float32(8), float32(0), float32(1))

    functions = dict(zip(("multiply", "multiply_scattered", "others"), [*jit._callbacks, others], strict=True))
    result = {
        cpu: {name: assembly(function.inspect_llvm(), cpu) for name, function in functions.items()} for cpu in CPUS
    }
    json.dump({"lanes": vectors.LANES, "heights": tile._HEIGHTS, **result}, sys.stdout)


main()
