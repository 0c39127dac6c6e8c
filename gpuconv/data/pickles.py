"""Read the plain data in a pickle by Python's own unpickler, which is handed nothing else: no function of it is run.

A pickle is a program for a small stack machine.  Each instruction is checked when the unpickler asks for its first byte,
having done those before: it must be one that builds dicts, lists, tuples, strings and numbers, and find values of the
right kinds on the stack.  The few NumPy names that a stored array refers to become stand-ins, which recognise the calls
that make an array; nothing is imported.  A reader may know classes: of their objects it gets the attributes, and makes
the object itself.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from ..errors import DatasetCorruptError, UnsafeArchiveError


def read_pickle(data: bytes, name: str, *, most_steps: int, known: Mapping[str, Any] | None = None) -> Any:
    """Return what the pickle `data` holds; its strings of bytes stay bytes, its arrays become Array.

    known: further names a pickle may refer to, "module name", and what they stand for; a class among them becomes
    Class, and its objects Instance.
    Memory is bounded by the length of data and by most_steps, the number of instructions allowed.
    Raises UnsafeArchiveError for anything beyond plain data, DatasetCorruptError for bytes that are no pickle; both
    begin with `name`.
    """
    try:
        return _Unpickler(_Program(data, most_steps), len(data), known or {}).load()
    except _Unsafe as error:
        msg = f"{name} is not plain data: {error}; nothing of it was run"
        raise UnsafeArchiveError(msg) from None
    except (_Broken, *_MISTAKES) as error:
        msg = f"{name} is not a sound pickle: {error}"
        raise DatasetCorruptError(msg) from None


class _Unsafe(Exception):
    """The pickle asks for more than plain data."""


class _Broken(Exception):
    """The bytes do not follow the format."""


# What an unpickler raises for such bytes; of wrong escapes in strings it may warn.
_MISTAKES = (pickle.UnpicklingError, AttributeError, EOFError, IndexError, TypeError, ValueError, Warning)


def _check(sound: bool, problem: str, *facts: object) -> None:
    if not sound:
        raise _Broken(problem.format(*facts))


_LONGEST_CODE = 16  # of an element type; NumPy's have a few characters

# What names and calls become ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Array:
    """A stored NumPy array: what the pickle says about it, and its bytes.  The reader must check both."""

    shape: Any = None
    dtype: Any = None
    fortran: Any = False
    raw: Any = None
    order: str = "="

    def __setstate__(self, state: Any) -> None:
        match state:
            case (_, shape, _DType() as dtype, fortran, raw):
                self.shape, self.fortran, self.raw = shape, fortran, raw
                self.dtype, self.order = dtype.code, dtype.order
            case _:
                _refuse_state("array")


@dataclass(slots=True, eq=False)
class Instance:
    """A stored object of a class that the reader knows, and its attributes."""

    kind: type
    attributes: Any = None

    def __setstate__(self, state: Any) -> None:
        if self.attributes is not None or type(state) is not dict:
            _refuse_state(self.kind.__name__)
        self.attributes = state


@dataclass(frozen=True, slots=True)
class Class:
    """A stored class that the reader knows."""

    kind: type

    def __call__(self, *arguments: Any) -> Instance:
        if arguments:
            msg = f"it makes a {self.kind.__name__} in its own way"
            raise _Unsafe(msg)
        return Instance(self.kind)


@dataclass(slots=True)
class _DType:
    code: Any
    order: str = "="

    def __setstate__(self, state: Any) -> None:
        match state:
            case (_, str() | bytes() as order, None, None, None, *_) if len(order) <= _LONGEST_CODE:
                self.order = _text(order)
            case _:
                _refuse_state("dtype")


@dataclass(frozen=True, slots=True)
class _StandIn:
    """Stands for something of NumPy's or Python's; calls that make plain data are recognised, others refused."""

    name: str
    makes: str = ""

    def __call__(self, *arguments: Any) -> Any:
        match self.name, arguments:
            case "reconstruct", (_StandIn("ndarray"), (0,), _):
                return Array()
            case "from_buffer", (bytes() as raw, _DType() as dtype, tuple() as shape, "C" | "F" as order):
                return Array(shape, dtype.code, order == "F", raw, dtype.order)
            case "scalar", (_DType() as dtype, bytes() as raw):
                return Array((), dtype.code, False, raw, dtype.order)
            case "dtype", (str() | bytes() as code, _, _) if len(code) <= _LONGEST_CODE:
                return _DType(_text(code))
        _refuse_call(self.name)


@dataclass(slots=True)
class _Encode:
    """Stands for _codecs.encode, by which Python 3 writes bytes in protocols 0 to 2: each text once."""

    left: int
    """Bytes it may still make: in all no more than the pickle has, or a text that is named often would fill memory."""
    makes: ClassVar[str] = "bytes"

    def __call__(self, *arguments: Any) -> bytes:
        match arguments:
            case (str() as text, "latin1" | "latin-1"):
                self.left -= len(text)
                _check(self.left >= 0, "its bytes are more than it is long")
                return text.encode("latin-1")
        _refuse_call("encode")


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _refuse_call(name: str) -> NoReturn:
    msg = f"it calls {name} in its own way"
    raise _Unsafe(msg)


def _refuse_state(kind: str) -> NoReturn:
    msg = f"it sets the state of a {kind} in its own way"
    raise _Unsafe(msg)


# Every name a pickle may refer to, but for _codecs.encode.  NumPy moved core to _core in version 2.
_STAND_INS = {
    "numpy ndarray": _StandIn("ndarray"),
    "numpy dtype": _StandIn("dtype", "dtype"),
    "numpy.core.multiarray _reconstruct": _StandIn("reconstruct", "array"),
    "numpy._core.multiarray _reconstruct": _StandIn("reconstruct", "array"),
    "numpy.core.numeric _frombuffer": _StandIn("from_buffer", "array"),  # protocol 5
    "numpy._core.numeric _frombuffer": _StandIn("from_buffer", "array"),
    "numpy.core.multiarray scalar": _StandIn("scalar", "array"),
    "numpy._core.multiarray scalar": _StandIn("scalar", "array"),
}


class _Unpickler(pickle.Unpickler):
    """Python's unpickler on a program that is checked; every name in it is looked up here."""

    def __init__(self, program: _Program, size: int, known: Mapping[str, Any]) -> None:
        super().__init__(program, encoding="bytes")
        self._program = program
        self._known = {**_STAND_INS, "_codecs encode": _Encode(size), **known}

    def find_class(self, module: str, name: str) -> Any:
        wanted = f"{module} {name}"
        if wanted not in self._known:
            msg = f"it names {wanted.replace(' ', '.')[:100]}"
            raise _Unsafe(msg)
        value = self._known[wanted]
        if isinstance(value, type):
            value, makes = Class(value), "object"
        else:
            makes = value.makes if isinstance(value, _StandIn | _Encode) else ""
        self._program.tell_maker(makes)
        return value


# The program ----------------------------------------------------------------------------------------------------------

# The instructions that plain data need; any other is refused.
_NEEDED = """
    PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT LONG BININT1 BININT2 BININT LONG1 BINFLOAT
    STRING SHORT_BINSTRING BINSTRING SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8
    UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD
"""
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_TAKES = {opcode.name: [value.name for value in opcode.stack_before] for opcode in pickletools.opcodes}
_GIVES = {opcode.name: [value.name for value in opcode.stack_after] for opcode in pickletools.opcodes}
_ALLOWED = frozenset(_NEEDED.split())
_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), ("GET", "BINGET", "LONG_BINGET")
_HANDED_AS = {
    "BYTEARRAY8": pickle.BINBYTES8,
    "NEWOBJ": pickle.REDUCE,  # a Class makes its objects by a call
    **dict.fromkeys(_PUTS, pickle.PUT),
    **dict.fromkeys(_GETS, pickle.GET),
}
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_KEYS = ("str", "bytes", "bytearray", "bytes_or_str", "int", "int_or_bool")
_LONGEST_KEY = (
    2 + 8
)  # bytes of LONG1: of longer numbers as many as one likes have one hash, and fill a dict in square time


class _Program:
    """A pickle as the file that an unpickler reads: an instruction is checked when its first byte is asked for.

    It follows what the unpickler does by kinds of values alone: pickletools' names for them, or what a stand-in makes.
    """

    def __init__(self, data: bytes, most_steps: int) -> None:
        self._data = data
        self._most_steps = most_steps
        self._steps = 0
        self._at = 0  # of the next byte
        self._end = 0  # of the instruction
        self._number: int | None = None  # handed out as the instruction's line
        self._kinds: list[str] = []  # of the values on the stack
        self._marks: list[int] = []  # lengths of the stack
        self._memo: dict[int, tuple[int, str]] = {}  # kinds, and places in order: an unpickler's memo has no gaps

    def read(self, count: int) -> bytes:
        """Return that many bytes, at most to the end of the instruction."""
        if count and self._at == self._end:
            return self._next_code()
        start, self._at = self._at, min(self._at + count, self._end)
        return self._data[start : self._at]

    def readline(self) -> bytes:
        """Return a line; a number as Python writes it, for an unpickler takes 010 for 8 and 01 for True."""
        start = self._at
        if self._number is not None:
            self._at = self._end
            return b"%d\n" % self._number
        self._at = self._data.index(b"\n", start) + 1
        return self._data[start : self._at]

    def tell_maker(self, makes: str) -> None:
        """Set the kind of the value that the unpickler found for a name, by what a call of it makes."""
        self._kinds[-1] = f"maker of {makes}" if makes else "name"

    def _next_code(self) -> bytes:
        """Check the next instruction and return its code; pass over frames, which are hints for buffering."""
        while True:
            self._steps += 1
            _check(self._steps <= self._most_steps, "it has more than {} instructions", self._most_steps)
            start = self._end
            code = self._taken(1)
            _check(code in _OPCODES, "byte {} is {!r}, which is no instruction", start, code)
            opcode = _OPCODES[code]
            if opcode.name not in _ALLOWED:
                msg = f"byte {start} is the instruction {opcode.name}, which arrays and lists do not need"
                raise _Unsafe(msg)
            self._number = None if opcode.arg is None else self._argument(opcode.arg)
            if opcode.name != "FRAME":
                self._follow(opcode.name, self._end - start)
                self._at = start + 1
                return _HANDED_AS.get(opcode.name, code)

    # Its bytes

    def _taken(self, count: int) -> bytes:
        self._extend(count)
        return self._data[self._end - count : self._end]

    def _extend(self, count: int) -> None:
        """Let the instruction go on for that many bytes."""
        size = len(self._data)
        _check(count <= size - self._end, "{} bytes are asked for at byte {} of {}", count, self._end, size)
        self._end += count

    def _line(self) -> bytes:
        length = self._data.find(b"\n", self._end) - self._end
        _check(length >= 0, "the line at byte {} does not end", self._end)
        return self._taken(length + 1)[:-1]

    def _argument(self, argument: pickletools.ArgumentDescriptor) -> int | None:
        """Let the instruction have its argument, and return that if it is decimal or a place in the memo."""
        count, kind = argument.n, argument.name
        if count == pickletools.UP_TO_NEWLINE:
            line = self._line()
            if kind.endswith("pair"):
                self._line()
            return self._decimal(line) if kind.startswith("decimal") else None
        if count in _LENGTH_BYTES:
            count = int.from_bytes(self._taken(_LENGTH_BYTES[count]), "little")
        if kind in ("uint1", "uint4"):
            return int.from_bytes(self._taken(count), "little")
        if kind.startswith("unicode"):
            self._taken(count).decode("utf-8")  # an unpickler would let lone surrogates through
        else:
            self._extend(count)
        return None

    def _decimal(self, line: bytes) -> int:
        digits = line.removesuffix(b"L")
        sound = digits.removeprefix(b"-").isdigit() and len(digits) <= 20
        _check(sound, "{!r} before byte {} is no whole number", line[:20], self._end)
        return int(digits)

    # What it does

    def _popped(self, length: int) -> list[str]:
        """Shorten the stack to a length, which must not be less than at the last mark."""
        floor = self._marks[-1] if self._marks else 0
        _check(length >= floor, "the stack is empty at byte {}", self._end)
        kinds = self._kinds[length:]
        del self._kinds[length:]
        return kinds

    def _follow(self, name: str, length: int) -> None:
        """Do to the kinds what the instruction of so many bytes will do to the values, if they are what it needs."""
        if name == "MARK":
            self._marks.append(len(self._kinds))
            return
        takes, gives, marked = _TAKES[name], _GIVES[name], []
        if name in _PUTS:
            takes = ["any"]
        elif "mark" in takes:
            takes = takes[: takes.index("mark")]
            _check(bool(self._marks), "a mark is missing at byte {}", self._end)
            marked = self._popped(self._marks.pop())
        taken = self._popped(len(self._kinds) - len(takes)) if takes else []
        suits = all(wanted in ("any", kind) for wanted, kind in zip(takes, taken, strict=True))
        _check(suits, "{} before byte {} finds {}, expected {}", name, self._end, taken, takes)
        number = len(self._memo) if self._number is None else self._number
        if name in _PUTS:
            gives = taken
            self._number = self._memo[number][0] if number in self._memo else len(self._memo)
            self._memo[number] = self._number, taken[0]
        elif name in _GETS:
            _check(number in self._memo, "entry {} is used before it is stored at byte {}", number, self._end)
            self._number, kind = self._memo[number]
            gives = [kind]
        elif name == "LONG1" and length > _LONGEST_KEY:
            gives = ["long int"]
        elif gives == ["dict"]:
            sound = all(key in _KEYS for key in (taken[1:] + marked)[::2])
            _check(sound, "a dict before byte {} has keys that are no strings", self._end)
        elif name in ("REDUCE", "NEWOBJ", "BUILD"):
            gives = [_made(name, *taken)]
        elif name == "STOP":
            size, left = len(self._data), len(self._kinds)
            ends = self._end == size and not left and not self._marks
            _check(ends, "it ends at byte {} of {}, with {} values left over", self._end, size, left)
        self._kinds += gives


def _made(name: str, target: str, operand: str) -> str:
    """Return the kind of what a call, a making or a new state leaves, if it is one that plain data need."""
    if name == "BUILD":
        if target not in ("array", "dtype", "object"):
            _refuse_state(target)
        return target
    makes = target.removeprefix("maker of ")
    if makes == target or operand != "tuple" or (makes == "object") != (name == "NEWOBJ"):
        msg = f"it calls a {target} in its own way"
        raise _Unsafe(msg)
    return makes
