"""PTX instructions as C++ statements, one function per family; an instruction that is not known is an error."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .ptx_operands import Operands, PtxError, bits_type, cpp_name, cpp_type, is_float, size_of, split, vector


@dataclass(frozen=True)
class Instruction:
    """One instruction: add.rn.f32 %f1, %f2, %f3."""

    text: str
    parts: tuple[str, ...]  # opcode and modifiers
    args: tuple[str, ...]
    operands: Operands
    tables: dict[str, list[str]]  # branch tables of the kernel

    @property
    def opcode(self) -> str:
        return self.parts[0]

    @property
    def type(self) -> str:
        return self.parts[-1]

    def one_of(self, *names: str) -> str | None:
        """Return the first modifier that is one of these names."""
        return next((p for p in self.parts[1:] if p in names), None)

    def read(self, i: int, kind: str | None = None) -> str:
        return self.operands.read(self.args[i], kind or self.type)

    def write(self, value: str, kind: str | None = None) -> str:
        return self.operands.write(self.args[0], kind or self.type, value)

    def space(self) -> str:
        return self.one_of("global", "shared", "param", "local", "const") or "generic"

    def address(self, i: int) -> str:
        return self.operands.address(self.args[i], self.space())

    def write_vector(self, i: int, kind: str, array: str) -> str:
        """Return the statements that store the elements of a C++ array in the registers of argument i."""
        registers = vector(self.args[i])
        return " ".join(self.operands.write(r, kind, f"{array}[{n}]") for n, r in enumerate(registers))

    def read_vector(self, i: int, kind: str) -> str:
        """Return the registers of argument i as a C++ initialiser list."""
        return ", ".join(self.operands.read(r, kind) for r in vector(self.args[i]))


_Emitter = Callable[[Instruction], str]
_EMITTERS: dict[str, _Emitter] = {}


def _emits(*opcodes: str) -> Callable[[_Emitter], _Emitter]:
    def register(emitter: _Emitter) -> _Emitter:
        _EMITTERS.update(dict.fromkeys(opcodes, emitter))
        return emitter

    return register


def translate(statement: str, operands: Operands, tables: dict[str, list[str]]) -> str:
    """Return the C++ statement of one PTX instruction, its predicate included."""
    statement = statement.rstrip(";").strip()
    guard = ""
    guarded = re.match(r"@(!?)(%?\w+)\s+(.*)$", statement, re.DOTALL)
    if guarded:
        guard = f"if ({guarded[1]}{operands.variable(guarded[2])}) "
        statement = guarded[3]
    opcode, _, rest = statement.partition(" ")
    instruction = Instruction(statement, tuple(opcode.split(".")), tuple(split(rest)), operands, tables)
    emitter = _EMITTERS.get(instruction.opcode)
    try:
        if emitter is None:
            raise KeyError(instruction.opcode)
        body = emitter(instruction)
    except (KeyError, IndexError, StopIteration) as error:
        msg = f"the emulator does not know the PTX instruction {statement!r} ({error!r})"
        raise PtxError(msg) from error
    return f"{guard}{{ {body} }}"


# Control ------------------------------------------------------------------------------------------------------------


@_emits("bra")
def _branch(i: Instruction) -> str:
    return f"goto {cpp_name(i.args[0])};"


@_emits("brx")
def _branch_table(i: Instruction) -> str:
    cases = [f"case {n}: goto {cpp_name(label)};" for n, label in enumerate(i.tables[i.args[1]])]
    return f"switch ({i.read(0, 'u32')}) {{ {' '.join(cases)} }}"


@_emits("ret", "exit")
def _return(i: Instruction) -> str:
    return "return;"


@_emits("trap")
def _trap(i: Instruction) -> str:
    return 'emulate::fail("trap");'


@_emits("nanosleep")
def _sleep(i: Instruction) -> str:
    return ""


# Moves, memory ------------------------------------------------------------------------------------------------------


@_emits("mov")
def _move(i: Instruction) -> str:
    target, origin = i.args
    if target.startswith("{"):  # unpack
        parts = vector(target)
        width = 8 * size_of(i.type) // len(parts)
        value = i.read(1)
        return " ".join(i.operands.write(p, f"b{width}", f"({value}) >> {n * width}") for n, p in enumerate(parts))
    if origin.startswith("{"):  # pack
        parts = vector(origin)
        width = 8 * size_of(i.type) // len(parts)
        shifted = [
            f"(({bits_type(i.type)}){i.operands.read(p, f'b{width}')} << {n * width})" for n, p in enumerate(parts)
        ]
        return i.write(" | ".join(shifted))
    return i.write(i.read(1))


def _volatile(i: Instruction) -> str:
    """Return the word that keeps g++ from dropping an access: a loop around it may be meant to last."""
    return "volatile " if "volatile" in i.parts else ""


@_emits("ld", "ldu")
def _load(i: Instruction) -> str:
    registers = vector(i.args[0])
    if len(registers) == 1:
        return i.operands.write(registers[0], i.type, f"*({_volatile(i)}const {cpp_type(i.type)}*){i.address(1)}")
    kind = f"emulate::Vec<{cpp_type(i.type)}, {len(registers)}>"
    return f"auto v_ = *(const {kind}*){i.address(1)}; {i.write_vector(0, i.type, 'v_.e')}"


@_emits("st")
def _store(i: Instruction) -> str:
    registers = vector(i.args[1])
    if len(registers) == 1:
        return f"*({_volatile(i)}{cpp_type(i.type)}*){i.address(0)} = {i.operands.read(registers[0], i.type)};"
    kind = f"emulate::Vec<{cpp_type(i.type)}, {len(registers)}>"
    return f"*({kind}*){i.address(0)} = {kind}{{{{{i.read_vector(1, i.type)}}}}};"


@_emits("cvta")
def _convert_address(i: Instruction) -> str:
    if "shared" not in i.parts:
        return i.write(i.read(1))
    if "to" in i.parts:
        return i.write(f"emulate::shared_address((void*){i.read(1)})")
    return i.write(f"(uint64_t)(emulate::shared_base + (int32_t){i.read(1)})")


@_emits("prefetch", "prefetchu")
def _prefetch(i: Instruction) -> str:
    return ""


# Arithmetic ---------------------------------------------------------------------------------------------------------


# With a rounding named, as the intrinsics of CUDA C++ ask for it, a product and a sum behind it stay two operations.
_SINGLE = {"+": "add", "-": "sub", "*": "mul"}


def _rounded(i: Instruction, operator: str, a: str, b: str) -> str:
    if "rn" in i.parts and i.type in ("f32", "f64"):
        return f"__{'f' if i.type == 'f32' else 'd'}{_SINGLE[operator]}_rn({a}, {b})"
    return f"{a} {operator} {b}"


@_emits("add", "sub")
def _add(i: Instruction) -> str:
    sign = "+" if i.opcode == "add" else "-"
    if i.type in _PACKED:
        return _packed(i)
    if is_float(i.type):
        return i.write(_saturated(i, _rounded(i, sign, i.read(1), i.read(2))))
    bits = bits_type(i.type)
    return i.write(f"({bits}){i.read(1)} {sign} ({bits}){i.read(2)}")


@_emits("mul", "mad", "fma")
def _multiply(i: Instruction) -> str:
    if i.type in _PACKED:
        return _packed(i)
    a, b = i.read(1), i.read(2)
    if is_float(i.type):
        value = _rounded(i, "*", a, b) if i.opcode == "mul" else f"emulate::fused({a}, {b}, {i.read(3)})"
        return i.write(_saturated(i, value))
    if "wide" in i.parts:
        wide = f"{i.type[0]}{16 * size_of(i.type)}"
        product = f"({cpp_type(wide)}){a} * ({cpp_type(wide)}){b}"
        return i.write(f"{product} + {i.read(3, wide)}" if i.opcode == "mad" else product, wide)
    bits, width = bits_type(i.type), 8 * size_of(i.type)
    if "hi" in i.parts:
        double = "__int128" if width == 64 else "int64_t"
        double = double if i.type[0] == "s" else f"u{double}" if width < 64 else f"unsigned {double}"
        product = f"(({bits})((({double}){a} * ({double}){b}) >> {width}))"
    else:
        product = f"({bits})(({bits}){a} * ({bits}){b})"
    return i.write(f"({bits})({product} + ({bits}){i.read(3)})" if i.opcode == "mad" else product)


@_emits("div", "rem")
def _divide(i: Instruction) -> str:
    a, b = i.read(1), i.read(2)
    if is_float(i.type):
        return i.write(f"{a} / {b}")
    return i.write(f"emulate::{'quotient' if i.opcode == 'div' else 'remainder'}({a}, {b})")


@_emits("min", "max")
def _extreme(i: Instruction) -> str:
    if i.type in _PACKED:
        return _packed(i)
    name = ("smaller" if i.opcode == "min" else "larger") + ("_or_nan" if "NaN" in i.parts else "")
    return i.write(f"emulate::{name}({i.read(1)}, {i.read(2)})")


@_emits("neg")
def _negate(i: Instruction) -> str:
    return i.write(f"-{i.read(1)}" if is_float(i.type) else f"0 - ({bits_type(i.type)}){i.read(1)}")


@_emits("abs")
def _absolute(i: Instruction) -> str:
    return i.write(f"emulate::magnitude({i.read(1)})")


@_emits("copysign")
def _copy_sign(i: Instruction) -> str:
    return i.write(f"copysign({i.read(2)}, {i.read(1)})")


_FUNCTIONS = {
    "rsqrt": "1 / sqrt({})",
    "rcp": "1 / {}",
    "sqrt": "sqrt({})",
    "ex2": "exp2({})",
    "lg2": "log2({})",
    "sin": "sin({})",
    "cos": "cos({})",
    "tanh": "tanh({})",
}


@_emits(*_FUNCTIONS)
def _function(i: Instruction) -> str:
    return i.write(_FUNCTIONS[i.opcode].format(i.read(1)))


_PACKED = {"f16x2": "__half2", "bf16x2": "__nv_bfloat162"}
_PACKED_FUNCTIONS = {"add": "__hadd2", "mul": "__hmul2", "fma": "__hfma2", "max": "__hmax2"}


def _packed(i: Instruction) -> str:
    """Two half-precision numbers in one register."""
    pair = _PACKED[i.type]
    values = ", ".join(f"emulate::as<{pair}>({i.operands.read(a, 'b32')})" for a in i.args[1:])
    value = f"emulate::as<uint32_t>({_PACKED_FUNCTIONS[i.opcode]}({values}))"
    return i.operands.write(i.args[0], "b32", value)


def _saturated(i: Instruction, value: str) -> str:
    return f"emulate::saturated({value})" if "sat" in i.parts else value


# Bits ---------------------------------------------------------------------------------------------------------------


@_emits("and", "or", "xor")
def _logic(i: Instruction) -> str:
    return i.write(f"{i.read(1)} {({'and': '&', 'or': '|', 'xor': '^'})[i.opcode]} {i.read(2)}")


@_emits("not")
def _not(i: Instruction) -> str:
    return i.write(f"{'!' if i.type == 'pred' else '~'}{i.read(1)}")


@_emits("shl", "shr")
def _shift(i: Instruction) -> str:
    kind = i.type if i.opcode == "shr" and i.type[0] == "s" else f"u{8 * size_of(i.type)}"
    name = "shift_left" if i.opcode == "shl" else "shift_right"
    return i.write(f"emulate::{name}({i.read(1, kind)}, {i.read(2, 'u32')})")


@_emits("shf")
def _funnel_shift(i: Instruction) -> str:
    a, b, c = (i.read(n, "u32") for n in (1, 2, 3))
    return i.write(
        f"emulate::funnel_{'left' if 'l' in i.parts else 'right'}({a}, {b}, {c}, {str('clamp' in i.parts).lower()})",
        "b32",
    )


@_emits("popc", "clz", "brev", "bfind")
def _count_bits(i: Instruction) -> str:
    if i.opcode in ("popc", "clz") and size_of(i.type) == 8:
        return i.write(f"__{i.opcode}ll({i.read(1)})", "u32")
    if size_of(i.type) != 4 or i.opcode == "bfind":
        raise KeyError(i.type)
    return i.write(f"__{i.opcode}({i.read(1)})", "b32")


@_emits("prmt")
def _permute(i: Instruction) -> str:
    return i.write(f"__byte_perm({i.read(1, 'u32')}, {i.read(2, 'u32')}, {i.read(3, 'u32')})", "b32")


@_emits("bfe")
def _extract(i: Instruction) -> str:
    return i.write(f"emulate::bits_of<{cpp_type(i.type)}>({i.read(1)}, {i.read(2, 'u32')}, {i.read(3, 'u32')})")


@_emits("bfi")
def _insert(i: Instruction) -> str:
    return i.write(f"emulate::with_bits({i.read(1)}, {i.read(2)}, {i.read(3, 'u32')}, {i.read(4, 'u32')})")


@_emits("lop3")
def _three_inputs(i: Instruction) -> str:
    return i.write(f"emulate::lop3({', '.join(i.read(n, 'u32') for n in (1, 2, 3, 4))})", "b32")


# Comparisons, conversions -------------------------------------------------------------------------------------------

_ORDERED = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">"}
_ORDERED["hs"] = ">="
_UNLESS = {"ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<", "neu": "=="}  # true, too, if a number is NaN


@_emits("setp")
def _compare(i: Instruction) -> str:
    name, a, b = i.parts[1], i.read(1), i.read(2)
    numbers = f"{a} == {a} && {b} == {b}"
    if name == "ne" and is_float(i.type):
        value = f"({a} != {b} && {numbers})"
    elif name in _ORDERED:
        value = f"({a} {_ORDERED[name]} {b})"
    elif name in _UNLESS:
        value = f"(!({a} {_UNLESS[name]} {b}))"
    else:
        value = {"equ": f"({a} == {b} || !({numbers}))", "nan": f"(!({numbers}))", "num": f"({numbers})"}[name]
    targets = i.args[0].split("|")
    joined = next((p for p in i.parts[2:-1] if p in ("and", "or", "xor")), None)
    other = f" {({'and': '&', 'or': '|', 'xor': '^'})[joined]} {i.read(3, 'pred')}" if joined else ""
    statement = i.operands.write(targets[0], "pred", value + other)
    if len(targets) > 1:
        statement += " " + i.operands.write(targets[1], "pred", f"!{value}{other}")
    return statement


@_emits("selp")
def _select(i: Instruction) -> str:
    return i.write(f"{i.read(3, 'pred')} ? {i.read(1)} : {i.read(2)}")


@_emits("testp")
def _test(i: Instruction) -> str:
    tests = {"finite": "std::isfinite", "infinite": "std::isinf", "notanumber": "std::isnan", "number": "!std::isnan"}
    return i.write(f"{tests[i.parts[1]]}({i.read(1)})", "pred")


_ROUND = {"rni": "nearbyint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}


@_emits("cvt")
def _convert(i: Instruction) -> str:
    to, kind = i.parts[-2:]
    rounding = i.one_of(*_ROUND)
    if to in _PACKED:
        element = {"f16x2": "__half", "bf16x2": "__nv_bfloat16"}[to]
        return i.write(f"emulate::pack<{element}>({i.read(2, kind)}, {i.read(1, kind)})", "b32")
    if to == "tf32":
        return i.write(f"__float_as_uint(emulate::tf32_rounded({i.read(1, 'f32')}))", "b32")
    value = i.read(1, kind)
    if is_float(kind) and not is_float(to):
        return i.write(f"emulate::to_integer<{cpp_type(to)}>({_ROUND[rounding or '']}((double){value}))", to)
    if to in ("f16", "bf16"):
        return i.write(f"{cpp_type(to)}((float){value})", to)
    if is_float(kind) and rounding:
        return i.write(f"{_ROUND[rounding]}({value})", to)
    value = f"({cpp_type(to)}){value}"
    if "sat" in i.parts and not is_float(to):
        raise KeyError(i.parts)
    return i.write(_saturated(i, value), to)


# Threads working together -------------------------------------------------------------------------------------------

_HERE = "__FILE__, EMULATE_SITE"
_ATOMICS = {k: k.capitalize() for k in ("add", "min", "max", "exch", "and", "or", "xor", "inc", "dec")} | {"cas": "CAS"}


@_emits("atom", "red")
def _atomic(i: Instruction) -> str:
    target, args = (i.args[0], i.args[1:]) if i.opcode == "atom" else ("_", i.args)
    name = _ATOMICS[i.one_of(*_ATOMICS) or ""]
    kind = cpp_type(f"u{i.type[1:]}" if i.type[0] == "b" else i.type)
    values = ", ".join(f"({kind}){i.operands.read(a, i.type)}" for a in args[1:])
    call = f"atomic{name}(({kind}*){i.operands.address(args[0], i.space())}, {values})"
    return i.operands.write(target, i.type, call)


@_emits("bar", "barrier")
def _barrier(i: Instruction) -> str:
    if "warp" in i.parts:
        return f"emulate::sync_warp({_HERE}, {i.read(0, 'u32')});"
    if "red" in i.parts:
        operation = {"or": 0, "and": 1, "popc": 2}[i.one_of("or", "and", "popc") or ""]
        predicate = i.args[-1]
        call = f"emulate::barrier_reduce({_HERE}, {i.operands.read(predicate, 'pred')}, {operation})"
        return i.write(call if operation == 2 else f"{call} != 0", "u32" if operation == 2 else "pred")
    if i.args != ("0",):
        raise KeyError(i.args)
    return f"emulate::barrier({_HERE});"


@_emits("shfl")
def _shuffle(i: Instruction) -> str:
    target, *in_range = i.args[0].split("|")
    mode = i.parts[2][0]
    values = ", ".join(i.read(n, "u32") for n in (1, 2, 3, 4))
    statement = f"bool p_; uint32_t v_ = emulate::shfl({_HERE}, '{mode}', {values}, p_); "
    statement += i.operands.write(target, "u32", "v_")
    return statement + (" " + i.operands.write(in_range[0], "pred", "p_") if in_range else "")


@_emits("vote")
def _vote(i: Instruction) -> str:
    negated = "!" if "all" in i.parts else ""
    ballot = f"emulate::ballot({_HERE}, {i.read(2, 'u32')}, {negated}{i.read(1, 'pred')})"
    if "ballot" in i.parts:
        return i.write(ballot, "b32")
    return i.write(f"{ballot} {'==' if 'all' in i.parts else '!='} 0", "pred")


@_emits("redux")
def _warp_reduction(i: Instruction) -> str:
    operation = {"add": "Add", "min": "Min", "max": "Max", "and": "And", "or": "Or", "xor": "Xor"}[i.parts[2]]
    return i.write(f"emulate::reduce({_HERE}, {i.read(2, 'u32')}, {i.read(1)}, emulate::{operation}{{}})")


@_emits("activemask")
def _active(i: Instruction) -> str:
    return i.write("emulate::active_mask()", "b32")


@_emits("membar", "fence")
def _fence(i: Instruction) -> str:
    return "EMULATE_FENCE();"


# Tensor cores, asynchronous copies ----------------------------------------------------------------------------------


@_emits("mma")
def _mma(i: Instruction) -> str:
    shape, kinds = i.parts[3], i.parts[6:]
    known = {("m16n8k16", "f16"), ("m16n8k16", "bf16"), ("m16n8k8", "f16"), ("m16n8k8", "tf32")}
    if (shape, kinds[1]) not in known or kinds[0] != "f32" or kinds[3] != "f32":
        raise KeyError(i.text)
    arrays = [
        f"float d_[4], c_[4] = {{{i.read_vector(3, 'f32')}}};",
        f"unsigned a_[{len(vector(i.args[1]))}] = {{{i.read_vector(1, 'b32')}}};",
        f"unsigned b_[{len(vector(i.args[2]))}] = {{{i.read_vector(2, 'b32')}}};",
    ]
    return f"{' '.join(arrays)} ptx::mma_{shape}_{kinds[1]}(d_, a_, b_, c_); {i.write_vector(0, 'f32', 'd_')}"


@_emits("ldmatrix")
def _load_matrices(i: Instruction) -> str:
    count = len(vector(i.args[0]))
    transposed = str("trans" in i.parts).lower()
    load = f"unsigned r_[{count}]; emulate::ldmatrix<{count}, {transposed}>(r_, {i.operands.address(i.args[1], 'shared')});"
    return f"{load} {i.write_vector(0, 'b32', 'r_')}"


@_emits("cp")
def _copy_asynchronously(i: Instruction) -> str:
    kind = i.parts[2]
    if kind == "commit_group":
        return "emulate::copy_async_commit();"
    if kind == "wait_group":
        return f"emulate::copy_async_wait({i.args[0]});"
    if kind == "wait_all":
        return "emulate::copy_async_commit(); emulate::copy_async_wait(0);"
    if kind not in ("ca", "cg"):
        raise KeyError(kind)
    target, origin = i.operands.address(i.args[0], "shared"), i.operands.address(i.args[1], "global")
    valid = i.read(3, "u32") if len(i.args) > 3 else i.args[2]
    return f"emulate::copy_async({target}, {origin}, {i.args[2]}, {valid});"


_ELEMENT = {"f16": "__half", "bf16": "__nv_bfloat16", "tf32": "nvcuda::wmma::precision::tf32", "f32": "float"}


@_emits("wmma")
def _wmma(i: Instruction) -> str:
    shape = next(p for p in i.parts if re.fullmatch(r"m\d+n\d+k\d+", p))
    sizes = ", ".join(re.findall(r"\d+", shape))

    def fragment(use: str, element: str, layout: str = "") -> str:
        rest = f", nvcuda::wmma::{layout}_major" if layout else ""
        return f"nvcuda::wmma::fragment<nvcuda::wmma::{use}, {sizes}, {_ELEMENT[element]}{rest}>"

    layout = "row" if "row" in i.parts else "col"
    memory = {"tf32": "float", "f32": "float"}.get(i.type) or _ELEMENT.get(i.type, "")
    if i.parts[1] == "load":
        use = {"a": "matrix_a", "b": "matrix_b", "c": "accumulator"}[i.parts[2]]
        kind = fragment(use, i.type, "" if use == "accumulator" else layout)
        order = f", nvcuda::wmma::mem_{layout}_major" if use == "accumulator" else ""
        load = f"nvcuda::wmma::load_matrix_sync(q_, ({memory}*){i.address(1)}, {i.read(2, 'u32')}{order});"
        registers = f"uint32_t r_[{len(vector(i.args[0]))}] = {{}}; emulate::fragment_to_registers(q_, r_);"
        return f"{kind} q_; {load} {registers} {i.write_vector(0, 'b32', 'r_')}"
    if i.parts[1] == "store":
        registers = f"uint32_t r_[{len(vector(i.args[1]))}] = {{{i.read_vector(1, 'b32')}}}; emulate::registers_to_fragment(q_, r_);"
        where = f"({memory}*){i.address(0)}, q_, {i.read(2, 'u32')}, nvcuda::wmma::mem_{layout}_major"
        return f"{fragment('accumulator', i.type)} q_; {registers} nvcuda::wmma::store_matrix_sync({where});"
    if i.parts[1] != "mma":
        raise KeyError(i.parts[1])
    kinds = i.parts[i.parts.index(shape) + 1 :]
    element = kinds[1] if len(kinds) == 4 else "f16"
    statements = [
        f"{fragment('matrix_a', element, i.parts[4])} qa;",
        f"{fragment('matrix_b', element, i.parts[5])} qb;",
        f"{fragment('accumulator', 'f32')} qc;",
    ]
    for n, name in enumerate("abc", 1):
        count = len(vector(i.args[n]))
        statements.append(
            f"uint32_t r{name}[{count}] = {{{i.read_vector(n, 'b32')}}}; emulate::registers_to_fragment(q{name}, r{name});"
        )
    statements.append("nvcuda::wmma::mma_sync(qc, qa, qb, qc); emulate::fragment_to_registers(qc, rc);")
    return " ".join([*statements, i.write_vector(0, "b32", "rc")])
