"""Which way a warp takes through the hottest loop of machine code: the blocks of the loop, and the heaviest path.

A loop's instructions as they stand in the file are more than a warp issues: each branch leaves some out.  Which
branches are taken is not known from the code; the heaviest path is the one on which the loop's work is done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .sass import Line

Weight = Callable[[list[Line]], tuple[int, ...]]
_ENDS = ("BRA", "EXIT", "RET")


class _Block(NamedTuple):
    lines: list[Line]
    successors: list[int]


def hottest_turn(code: list[Line], multiplies: Callable[[Line], bool], weight: Weight) -> list[Line]:
    """Return the instructions of one turn of the loop that multiplies most, along its heaviest path; [] without a loop.

    weight: of some instructions; what they have together is the sum of each, and the first place counts most.
    """
    blocks = _blocks(code)
    back = _back_edges(blocks)
    loops = [(header, _members(blocks, header, [a for a, b in back if b == header])) for header in {b for _, b in back}]

    def heat(loop: tuple[int, set[int]]) -> tuple[int, int]:
        return sum(multiplies(line) for i in loop[1] for line in blocks[i].lines), -len(loop[1])

    if not loops:
        return []
    header, members = max(loops, key=heat)
    ends = {a for a, b in back if b == header}
    best: dict[int, tuple[tuple[int, ...], list[int]]] = {header: (weight(blocks[header].lines), [header])}
    for i in _ordered(blocks, members, back):
        for j in blocks[i].successors:
            if i in best and j in members and (i, j) not in back:
                reached, path = best[i]
                total = tuple(a + b for a, b in zip(reached, weight(blocks[j].lines), strict=True))
                if j not in best or total > best[j][0]:
                    best[j] = total, [*path, j]
    _, path = max((best[i] for i in ends), key=lambda found: found[0])
    return [line for i in path for line in blocks[i].lines]


def _blocks(code: list[Line]) -> list[_Block]:
    lines: list[list[Line]] = [[]]
    labels: dict[str, int] = {}
    for line in code:
        if not line.opcode:
            if lines[-1]:
                lines.append([])
            labels[line.operands] = len(lines) - 1
            continue
        lines[-1].append(line)
        if line.opcode.split(".")[0] in _ENDS:
            lines.append([])
    return [_Block(block, _successors(block, i, len(lines), labels)) for i, block in enumerate(lines)]


def _successors(block: list[Line], i: int, count: int, labels: dict[str, int]) -> list[int]:
    last = block[-1] if block else Line("", "")
    following = [i + 1] if i + 1 < count else []
    if last.opcode.split(".")[0] not in _ENDS:
        return following
    target = re.search(r"\.L_x_\d+", last.operands)
    targets = [labels[target[0]]] if target is not None else []
    has_predicate = last.guard or "," in last.operands  # "@P0 BRA `(.L_x_1)", "BRA P0, `(.L_x_1)"
    return [*following, *targets] if has_predicate else targets


def _back_edges(blocks: list[_Block]) -> set[tuple[int, int]]:
    """Return the edges that lead back to a block on the way to where they start."""
    back: set[tuple[int, int]] = set()
    seen, open_ = {0}, {0}
    stack = [(0, iter(blocks[0].successors))]
    while stack:
        i, others = stack[-1]
        j = next(others, None)
        if j is None:
            stack.pop()
            open_.discard(i)
        elif j in open_:
            back.add((i, j))
        elif j not in seen:
            seen.add(j)
            open_.add(j)
            stack.append((j, iter(blocks[j].successors)))
    return back


def _members(blocks: list[_Block], header: int, ends: Iterable[int]) -> set[int]:
    """Return the blocks from which a loop's ends are reached without its header, and that."""
    before: dict[int, set[int]] = {}
    for i, block in enumerate(blocks):
        for j in block.successors:
            before.setdefault(j, set()).add(i)
    members, waiting = {header}, list(ends)
    while waiting:
        i = waiting.pop()
        if i not in members:
            members.add(i)
            waiting += before.get(i, ())
    return members


def _ordered(blocks: list[_Block], members: set[int], back: set[tuple[int, int]]) -> list[int]:
    """Return a loop's blocks, each behind all that lead to it."""
    missing = dict.fromkeys(members, 0)
    for i in members:
        for j in blocks[i].successors:
            if j in members and (i, j) not in back:
                missing[j] += 1
    ready, order = [i for i, count in missing.items() if not count], []
    while ready:
        i = ready.pop()
        order.append(i)
        for j in blocks[i].successors:
            if j in members and (i, j) not in back:
                missing[j] -= 1
                if not missing[j]:
                    ready.append(j)
    return order
