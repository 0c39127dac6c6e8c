"""Small changes of Python code, each of which a test should notice: found in its syntax tree, made in its text.

What is changed: comparisons, numbers by one, True and False, + - * / and their kin, and / or, `not`, the order of two
arguments, what is returned, abs, min and max, break and continue, which exceptions are caught; statements are dropped.
What stays: docstrings, strings, messages, type hints, the settings of decorators, __repr__ and __str__.
"""

from __future__ import annotations

import ast
import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
ARITHMETIC = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
}
LOGIC = {ast.And: ("and", "or"), ast.Or: ("or", "and")}
SWAPPED_FUNCTIONS = {"min": "max", "max": "min"}
NARROWER = {"OSError": "FileNotFoundError", "Exception": "ValueError", "BaseException": "Exception"}
NARROWED_TO_NOTHING = "()"

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Mutant:
    """A change of a file of gpuconv/: the text from `start` to `end`, in bytes, becomes `after`."""

    file: str
    start: int
    end: int
    after: str
    kind: str
    scope: str  # the function or class that it is in, as its __qualname__ says; "" in none
    line: int
    text: str  # the line before and after

    def applied(self, text: str) -> str:
        raw = text.encode()
        return (raw[: self.start] + self.after.encode() + raw[self.end :]).decode()

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}: {self.text}"


def mutants(file: str, text: str) -> list[Mutant]:
    """Return every mutant of a file's text, in the order of the text."""
    found = set(_Places(file, text).found())
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end, mutant.after))


class _Places:
    """The places of one file that can be changed."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.raw = text.encode()
        self.tree = ast.parse(text)
        self._starts = [0]
        for line in self.raw.split(b"\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)

    def found(self) -> Iterator[Mutant]:
        yield from self._of_all(self.tree.body, "")

    def _of_all(self, nodes: list[ast.stmt] | list[ast.expr], scope: str) -> Iterator[Mutant]:
        for node in nodes:
            yield from self._of(node, scope)

    def _of(self, node: ast.AST, scope: str) -> Iterator[Mutant]:
        """Yield the mutants of a node and of all below it."""
        if self._stays(node):
            return
        yield from self._here(node, scope)
        if isinstance(node, _Function):
            inside = f"{scope}.{node.name}" if scope else node.name
            arguments = node.args
            yield from self._of_all([*arguments.defaults, *filter(None, arguments.kw_defaults)], inside)
            yield from self._of_all(node.body, inside)
        elif isinstance(node, ast.ClassDef):
            yield from self._of_all(node.body, f"{scope}.{node.name}" if scope else node.name)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                yield from self._of(node.value, scope)
        elif isinstance(node, ast.Raise):
            return  # what is in it is the message
        else:
            for child in ast.iter_child_nodes(node):
                yield from self._of(child, scope)

    def _stays(self, node: ast.AST) -> bool:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.JoinedStr():
                return True
            case ast.Expr(value=ast.Constant()):
                return True  # a docstring, or `...`
            case ast.FunctionDef(name="__repr__" | "__str__"):
                return True
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                return True
            case ast.Assign(targets=[ast.Name(id="msg" | "__all__")]):
                return True
            case ast.Call(func=ast.Name(id="TypeVar" | "cast")):
                return True
            case ast.Call(func=ast.Attribute(attr="kill" | "killpg")):
                return True  # a mutant may not end what is not its own
        return False

    def _here(self, node: ast.AST, scope: str) -> Iterator[Mutant]:
        """Yield the mutants whose change is of this node itself."""
        for kind, start, end, after in self._changes(node):
            first = bisect.bisect_right(self._starts, start) - 1
            past = self._starts[bisect.bisect_left(self._starts, end)]
            old = self.raw[self._starts[first] : past].decode().splitlines()
            changed = self.raw[self._starts[first] : start] + after.encode() + self.raw[end:past]
            new = changed.decode().splitlines()
            differing = (i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
            i = next(differing, 0)
            text = f"{old[i].strip()} -> {new[i].strip()}"
            yield Mutant(self.file, start, end, after, kind, scope, first + i + 1, text)

    def _changes(self, node: ast.AST) -> Iterator[tuple[str, int, int, str]]:
        match node:
            case ast.Compare():
                sides = [node.left, *node.comparators]
                for left, operator, right in zip(sides, node.ops, sides[1:], strict=False):
                    yield from self._operator("comparison", left, right, *COMPARISONS[type(operator)])
            case ast.BinOp() if type(node.op) in ARITHMETIC and not _is_words(node.left) and not _is_words(node.right):
                yield from self._operator("arithmetic", node.left, node.right, *ARITHMETIC[type(node.op)])
            case ast.BoolOp():
                for left, right in zip(node.values, node.values[1:], strict=False):
                    yield from self._operator("logic", left, right, *LOGIC[type(node.op)])
            case ast.UnaryOp(op=ast.Not()):
                yield "not dropped", *self._span(node), f"({self._text(node.operand)})"
            case ast.Constant(value=bool()):
                yield "other constant", *self._span(node), str(not node.value)
            case ast.Constant(value=int() | float()):
                yield "number plus one", *self._span(node), repr(node.value + 1)
            case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Delete():
                yield "statement dropped", *self._span(node), "pass"
            case ast.AugAssign() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                yield "statement dropped", *self._span(node), "pass"
            case ast.Return(value=ast.expr() as value) if not _is_none(value):
                yield "returns None", *self._span(value), "None"
            case ast.Break():
                yield "break", *self._span(node), "continue"
            case ast.Continue():
                yield "continue", *self._span(node), "break"
            case ast.ExceptHandler(type=ast.expr() as caught):
                yield from self._narrowed(caught)
            case ast.Call():
                yield from self._of_call(node)

    def _of_call(self, node: ast.Call) -> Iterator[tuple[str, int, int, str]]:
        match node.func, node.args:
            case ast.Name(id="abs"), [argument]:
                yield "abs dropped", *self._span(node), f"({self._text(argument)})"
            case ast.Name(id=("min" | "max") as name), _:
                yield "min and max", *self._span(node.func), SWAPPED_FUNCTIONS[name]
            case _, [first, second, *_] if not {type(first), type(second)} & {ast.Starred, ast.JoinedStr}:
                a, b = self._text(first), self._text(second)
                if a != b:
                    start, end = self._span(first)[0], self._span(second)[1]
                    between = self.raw[self._span(first)[1] : self._span(second)[0]].decode()
                    yield "arguments swapped", start, end, f"{b}{between}{a}"

    def _narrowed(self, caught: ast.expr) -> Iterator[tuple[str, int, int, str]]:
        start, end = self._span(caught)
        if isinstance(caught, ast.Tuple):
            names = [self._text(name) for name in caught.elts]
            for i in range(len(names)):
                yield "exception", start, end, f"({''.join(f'{name}, ' for name in names[:i] + names[i + 1 :])})"
        else:
            yield "exception", start, end, NARROWER.get(self._text(caught), NARROWED_TO_NOTHING)

    def _operator(
        self, kind: str, left: ast.expr, right: ast.expr, before: str, after: str
    ) -> Iterator[tuple[str, int, int, str]]:
        """Yield the change of the operator between two operands."""
        start, end = self._span(left)[1], self._span(right)[0]
        between = re.sub(rb"#[^\n]*", lambda comment: b" " * len(comment[0]), self.raw[start:end])
        pattern = rf"\b{before}\b".replace(" ", r"\s+") if before[0].isalpha() else re.escape(before)
        place = re.search(pattern.encode(), between)
        assert place is not None, (self.file, self._text(left))
        yield kind, start + place.start(), start + place.end(), after

    def _span(self, node: ast.AST) -> tuple[int, int]:
        first = self._starts[node.lineno - 1] + node.col_offset
        return first, self._starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self.raw[start:end].decode()


def _is_words(node: ast.expr) -> bool:
    """Tell whether an operand is text: `+` and `%` mean something else there."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
