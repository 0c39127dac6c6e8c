"""Read the plain data in a pickle without unpickling it: nothing is imported, looked up or called.

A pickle is a program for a small stack machine.  The machine here knows only the instructions that build dicts, lists,
tuples, strings and numbers, and takes the few NumPy names that a stored array refers to as marks, not functions.  A
reader may know classes: of their objects it gets the attributes, and makes the object itself.
"""

from __future__ import annotations

import codecs
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import DatasetCorruptError, UnsafeArchiveError


@dataclass(slots=True)
class Array:
    """A stored NumPy array: what the pickle says about it, and its bytes.  The reader must check both."""

    shape: Any = None
    dtype: Any = None
    fortran: Any = False
    raw: Any = None
    order: str = "="


@dataclass(slots=True, eq=False)
class Instance:
    """A stored object of a class that the reader knows, and its attributes."""

    kind: type
    attributes: Any = None


@dataclass(slots=True)
class _DType:
    code: Any
    order: str = "="


@dataclass(frozen=True, slots=True)
class _Mark:
    """Stands where the pickle names a function or class; it can be recognised and nothing else."""

    what: str


# Every name a pickle may refer to.  NumPy moved core to _core in version 2.
_NAMES = {
    "numpy ndarray": _Mark("ndarray"),
    "numpy dtype": _Mark("dtype"),
    "numpy.core.multiarray _reconstruct": _Mark("reconstruct"),
    "numpy._core.multiarray _reconstruct": _Mark("reconstruct"),
    "numpy.core.numeric _frombuffer": _Mark("from_buffer"),  # protocol 5
    "numpy._core.numeric _frombuffer": _Mark("from_buffer"),
    "_codecs encode": _Mark("encode"),  # how Python 3 writes bytes in protocols 0 to 2
    "numpy.core.multiarray scalar": _Mark("scalar"),
    "numpy._core.multiarray scalar": _Mark("scalar"),
}


def read_pickle(data: bytes, name: str, *, most_steps: int, known: Mapping[str, Any] | None = None) -> Any:
    """Return what the pickle `data` holds; its strings of bytes stay bytes, its arrays become Array.

    known: further names a pickle may refer to, "module name", and what they stand for; of a class among them objects
    become Instance.
    Memory is bounded by the length of data and by most_steps, the number of instructions allowed.
    Raises UnsafeArchiveError for anything beyond plain data, DatasetCorruptError for bytes that are no pickle; both
    begin with `name`.
    """
    try:
        return _Machine(data, known or {}).run(most_steps)
    except _Unsafe as error:
        msg = f"{name} is not plain data: {error}; nothing of it was run"
        raise UnsafeArchiveError(msg) from None
    except _Broken as error:
        msg = f"{name} is not a sound pickle: {error}"
        raise DatasetCorruptError(msg) from None


class _Unsafe(Exception):
    """The pickle asks for more than plain data."""


class _Broken(Exception):
    """The bytes do not follow the format."""


class _Machine:
    """The stack machine.  Every instruction takes at least one byte and makes at most one object."""

    def __init__(self, data: bytes, known: Mapping[str, Any]) -> None:
        self.data = data
        self.known = known
        self.at = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks set aside by MARK
        self.memo: dict[int, Any] = {}

    def run(self, most_steps: int) -> Any:
        for _ in range(most_steps):
            code = self.take(1)
            if code == pickle.STOP:
                break
            action, *arguments = _INSTRUCTIONS.get(code, (_Machine.refuse, code))
            action(self, *arguments)
        else:
            msg = f"it has more than {most_steps} instructions"
            raise _Broken(msg)
        result = self.pop()
        if self.at != len(self.data) or self.stack or self.below:
            msg = f"it ends at byte {self.at} of {len(self.data)}, with {len(self.stack)} values left over"
            raise _Broken(msg)
        return result

    def refuse(self, code: bytes) -> None:
        import pickletools

        known = {opcode.code.encode("latin-1"): opcode.name for opcode in pickletools.opcodes}
        if code in known:
            msg = f"byte {self.at - 1} is the instruction {known[code]}, which arrays and lists do not need"
            raise _Unsafe(msg)
        msg = f"byte {self.at - 1} is {code!r}, which is no instruction"
        raise _Broken(msg)

    # Bytes of the program

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            msg = f"{count} bytes are asked for at byte {self.at} of {len(self.data)}"
            raise _Broken(msg)
        self.at += count
        return self.data[self.at - count : self.at]

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            msg = f"the line at byte {self.at} does not end"
            raise _Broken(msg)
        taken = self.take(end - self.at)
        self.at += 1
        return taken

    def number(self, width: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(width), "little", signed=signed)

    def decimal(self) -> int:
        line = self.line().removesuffix(b"L")
        if not line.removeprefix(b"-").isdigit() or len(line) > 20:
            msg = f"{line[:20]!r} at byte {self.at} is no whole number"
            raise _Broken(msg)
        return int(line)

    def decoded(self, raw: bytes, encoding: str) -> str:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            msg = f"the text before byte {self.at} is not {encoding}"
            raise _Broken(msg) from None

    # The stack

    def pop(self) -> Any:
        if not self.stack:
            msg = f"the stack is empty at byte {self.at}"
            raise _Broken(msg)
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            msg = f"there is no {kind.__name__} to add to at byte {self.at}"
            raise _Broken(msg)
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        if not self.below:
            msg = f"a mark is missing at byte {self.at}"
            raise _Broken(msg)
        items, self.stack = self.stack, self.below.pop()
        return items

    # Instructions

    def protocol(self) -> None:
        version = self.number(1)
        if version > pickle.HIGHEST_PROTOCOL:
            msg = f"it says protocol {version}, above {pickle.HIGHEST_PROTOCOL}"
            raise _Broken(msg)

    def frame(self) -> None:
        self.take(8)  # a hint for buffering

    def constant(self, value: Any) -> None:
        self.stack.append(value)

    def unsigned(self, width: int) -> None:
        self.stack.append(self.number(width))

    def signed(self) -> None:
        self.stack.append(self.number(4, signed=True))

    def real(self) -> None:
        self.stack.append(struct.unpack(">d", self.take(8))[0])

    def long(self) -> None:
        self.stack.append(self.number(self.number(1), signed=True))

    def digits(self) -> None:
        self.stack.append(self.decimal())

    def string(self, width: int) -> None:
        self.stack.append(self.take(self.number(width)))

    def text(self, width: int) -> None:
        self.stack.append(self.decoded(self.take(self.number(width)), "utf-8"))

    def quoted(self) -> None:
        line = self.line()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            msg = f"the string before byte {self.at} has no quotes"
            raise _Broken(msg)
        try:
            self.stack.append(codecs.escape_decode(line[1:-1])[0])
        except (ValueError, Warning):
            msg = f"the string before byte {self.at} has a wrong escape"
            raise _Broken(msg) from None

    def escaped_text(self) -> None:
        self.stack.append(self.decoded(self.line(), "raw-unicode-escape"))

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def empty(self, kind: type) -> None:
        self.stack.append(kind())

    def dict_of_items(self) -> None:
        items = self.since_mark()
        self.stack.append({})
        self.put_items(items)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.put_items([key, value])

    def set_items(self) -> None:
        self.put_items(self.since_mark())

    def put_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        keys = items[::2]
        if len(items) % 2 or not all(type(key) in (str, bytes, int) for key in keys):
            msg = f"a dict before byte {self.at} has keys that are no strings"
            raise _Broken(msg)
        target.update(zip(keys, items[1::2], strict=True))

    def list_of_items(self) -> None:
        items = self.since_mark()
        self.stack.append(items)

    def append(self) -> None:
        item = self.pop()
        self.top(list).append(item)

    def extend(self) -> None:
        items = self.since_mark()
        self.top(list).extend(items)

    def tuple_of_items(self) -> None:
        items = self.since_mark()
        self.stack.append(tuple(items))

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def put(self, index: int) -> None:
        if not self.stack:
            msg = f"there is nothing to remember at byte {self.at}"
            raise _Broken(msg)
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        if index not in self.memo:
            msg = f"entry {index} is used before it is stored at byte {self.at}"
            raise _Broken(msg)
        self.stack.append(self.memo[index])

    def put_digits(self) -> None:
        self.put(self.decimal())

    def put_number(self, width: int) -> None:
        self.put(self.number(width))

    def put_next(self) -> None:
        self.put(len(self.memo))

    def get_digits(self) -> None:
        self.get(self.decimal())

    def get_number(self, width: int) -> None:
        self.get(self.number(width))

    def name_in_lines(self) -> None:
        module, name = self.decoded(self.line(), "utf-8"), self.decoded(self.line(), "utf-8")
        self.name(f"{module} {name}")

    def name_on_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if type(module) is not str or type(name) is not str:
            msg = f"a name before byte {self.at} is no text"
            raise _Broken(msg)
        self.name(f"{module} {name}")

    def name(self, wanted: str) -> None:
        if wanted in self.known:
            self.stack.append(self.known[wanted])
        elif wanted in _NAMES:
            self.stack.append(_NAMES[wanted])
        else:
            msg = f"it names {wanted.replace(' ', '.')[:100]}"
            raise _Unsafe(msg)

    def new_object(self) -> None:
        """Take the class and the (empty) arguments of an object."""
        arguments, kind = self.pop(), self.pop()
        if not isinstance(kind, type) or arguments != ():
            msg = f"it makes an object before byte {self.at} in its own way"
            raise _Unsafe(msg)
        self.stack.append(Instance(kind))

    def call(self) -> None:
        """Recognise the few calls that make a stored array; any other is refused."""
        arguments, mark = self.pop(), self.pop()
        match mark, arguments:
            case _Mark("reconstruct"), (_Mark("ndarray"), (0,), _):
                self.stack.append(Array())
            case _Mark("from_buffer"), (bytes() as raw, _DType() as dtype, tuple() as shape, "C"):
                self.stack.append(Array(shape, dtype.code, False, raw, dtype.order))
            case _Mark("scalar"), (_DType() as dtype, bytes() as raw):
                self.stack.append(Array((), dtype.code, False, raw, dtype.order))
            case _Mark("dtype"), (str() | bytes() as code, _, _):
                self.stack.append(_DType(code.decode("latin-1") if isinstance(code, bytes) else code))
            case _Mark("encode"), (str() as text, "latin1" | "latin-1"):
                try:
                    self.stack.append(text.encode("latin-1"))
                except UnicodeEncodeError:
                    msg = f"the bytes before byte {self.at} are none"
                    raise _Broken(msg) from None
            case _:
                msg = f"it calls {mark.what if isinstance(mark, _Mark) else type(mark).__name__} in its own way"
                raise _Unsafe(msg)

    def build(self) -> None:
        """Take the state of the array or element type below it."""
        state = self.pop()
        target = self.stack[-1] if self.stack else None
        match target, state:
            case Array(), (_, shape, _DType() as dtype, fortran, raw):
                target.shape, target.dtype, target.fortran, target.raw = shape, dtype.code, fortran, raw
                target.order = dtype.order
            case _DType(), (_, str() | bytes() as order, None, None, None, *_):
                target.order = order.decode("latin-1") if isinstance(order, bytes) else order
            case Instance(attributes=None), dict():
                target.attributes = state
            case _:
                msg = f"it sets the state of a {type(target).__name__}"
                raise _Unsafe(msg)


# Instruction -> method of the machine and its arguments.  What is not here is refused.
_INSTRUCTIONS: dict[bytes, tuple[Any, ...]] = {
    pickle.PROTO: (_Machine.protocol,),
    pickle.FRAME: (_Machine.frame,),
    pickle.NONE: (_Machine.constant, None),
    pickle.NEWTRUE: (_Machine.constant, True),
    pickle.NEWFALSE: (_Machine.constant, False),
    pickle.BININT1: (_Machine.unsigned, 1),
    pickle.BININT2: (_Machine.unsigned, 2),
    pickle.BININT: (_Machine.signed,),
    pickle.LONG1: (_Machine.long,),
    pickle.BINFLOAT: (_Machine.real,),
    pickle.INT: (_Machine.digits,),
    pickle.LONG: (_Machine.digits,),
    pickle.STRING: (_Machine.quoted,),
    pickle.SHORT_BINSTRING: (_Machine.string, 1),
    pickle.BINSTRING: (_Machine.string, 4),
    pickle.SHORT_BINBYTES: (_Machine.string, 1),
    pickle.BINBYTES: (_Machine.string, 4),
    pickle.BINBYTES8: (_Machine.string, 8),
    pickle.BYTEARRAY8: (_Machine.string, 8),
    pickle.UNICODE: (_Machine.escaped_text,),
    pickle.SHORT_BINUNICODE: (_Machine.text, 1),
    pickle.BINUNICODE: (_Machine.text, 4),
    pickle.BINUNICODE8: (_Machine.text, 8),
    pickle.MARK: (_Machine.mark,),
    pickle.EMPTY_DICT: (_Machine.empty, dict),
    pickle.DICT: (_Machine.dict_of_items,),
    pickle.SETITEM: (_Machine.set_item,),
    pickle.SETITEMS: (_Machine.set_items,),
    pickle.EMPTY_LIST: (_Machine.empty, list),
    pickle.LIST: (_Machine.list_of_items,),
    pickle.APPEND: (_Machine.append,),
    pickle.APPENDS: (_Machine.extend,),
    pickle.EMPTY_TUPLE: (_Machine.empty, tuple),
    pickle.TUPLE: (_Machine.tuple_of_items,),
    pickle.TUPLE1: (_Machine.tuple_of, 1),
    pickle.TUPLE2: (_Machine.tuple_of, 2),
    pickle.TUPLE3: (_Machine.tuple_of, 3),
    pickle.PUT: (_Machine.put_digits,),
    pickle.BINPUT: (_Machine.put_number, 1),
    pickle.LONG_BINPUT: (_Machine.put_number, 4),
    pickle.MEMOIZE: (_Machine.put_next,),
    pickle.GET: (_Machine.get_digits,),
    pickle.BINGET: (_Machine.get_number, 1),
    pickle.LONG_BINGET: (_Machine.get_number, 4),
    pickle.GLOBAL: (_Machine.name_in_lines,),
    pickle.STACK_GLOBAL: (_Machine.name_on_stack,),
    pickle.REDUCE: (_Machine.call,),
    pickle.NEWOBJ: (_Machine.new_object,),
    pickle.BUILD: (_Machine.build,),
}
