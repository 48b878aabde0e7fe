"""What the code of a frame could have touched between two suspensions: cells, globals, attributes, by name.

The path that a frame took in a step is not recorded, for that would cost more than the step. It is known where the
frame was suspended before and after, and every instruction that lies on a path between the two is taken to have run.
"""

from __future__ import annotations

import dis
from types import CodeType
from typing import TYPE_CHECKING, Final, final

import attrs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_CELLS: Final = {
    "LOAD_DEREF",
    "STORE_DEREF",
    "DELETE_DEREF",
    "LOAD_CLOSURE",
    "LOAD_CLASSDEREF",
    "LOAD_FROM_DICT_OR_DEREF",
}
_GLOBALS: Final = {
    "LOAD_GLOBAL",
    "STORE_GLOBAL",
    "DELETE_GLOBAL",
    "LOAD_NAME",
    "STORE_NAME",
    "DELETE_NAME",
    "LOAD_FROM_DICT_OR_GLOBALS",
}
_LOAD_GLOBAL: Final = dis.opmap["LOAD_GLOBAL"]
_EXTENDED: Final = dis.EXTENDED_ARG
_IMPORT: Final = dis.opmap["IMPORT_NAME"]
_BY_NAME: Final = frozenset(dis.opmap[name] for name in _GLOBALS - {"LOAD_GLOBAL"} if name in dis.opmap)
_ENDS: Final = {"RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE"}
_JUMPS: Final = {"JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_ABSOLUTE"}

START: Final = -1
"""Where a frame is that has not begun."""
END: Final = -2
"""Where a frame is that has ended."""


@final
@attrs.frozen
class Names:
    """What instructions refer to by name."""

    cells: frozenset[str] = frozenset()
    globals: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()
    imports: frozenset[str] = frozenset()

    def join(self, other: Names) -> Names:
        """Return these and others."""
        return Names(
            self.cells | other.cells,
            self.globals | other.globals,
            self.attributes | other.attributes,
            self.imports | other.imports,
        )


@final
class CodeMap:
    """The names in a code object, as a whole and between two of its suspensions."""

    def __init__(self, code: CodeType) -> None:
        self._code = code
        self._segments: dict[tuple[int, int], Names] = {}
        self._next: list[list[int]] = []
        """Which instructions may follow each; empty until it is taken apart."""
        self._deref = frozenset(code.co_cellvars) | frozenset(code.co_freevars)
        self.whole = self._gather_all()
        """Of all its instructions, and those of the functions that it makes."""

    def _gather_all(self) -> Names:
        """Gather names without taking the code apart, which takes ten times as long."""
        code = self._code
        names, imports = set[str](), set[str]()
        argument = 0
        for operation, low in zip(code.co_code[::2], code.co_code[1::2], strict=True):
            argument = argument << 8 | low
            if operation == _EXTENDED:
                continue
            if operation == _LOAD_GLOBAL:
                names.add(code.co_names[argument >> 1])
            elif operation in _BY_NAME:
                names.add(code.co_names[argument])
            elif operation == _IMPORT:
                imports.add(code.co_names[argument])
            argument = 0
        found = Names(self._deref, frozenset(names), frozenset(code.co_names), frozenset(imports))
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                found = found.join(map_code(inner).whole)
        return found

    def _take_apart(self) -> None:
        self._bytecode = dis.Bytecode(self._code)
        self._instructions = list(self._bytecode)
        self._index = {instruction.offset: at for at, instruction in enumerate(self._instructions)}
        self._stops = {at for at, one in enumerate(self._instructions) if one.opname == "YIELD_VALUE"}
        self._next = self._link()
        self._previous: list[list[int]] = [[] for _ in self._next]
        for at, nexts in enumerate(self._next):
            for other in nexts:
                self._previous[other].append(at)

    def between(self, start: int, end: int) -> Names:
        """Return the names on the paths from one suspension to another.

        Args:
            start: The frame's `f_lasti` before, or `START`.
            end: Its `f_lasti` after, or `END`.
        """
        names = self._segments.get((start, end))
        if names is None:
            names = self._segments[start, end] = self._find(start, end)
        return names

    def _find(self, start: int, end: int) -> Names:
        if not self._next:
            self._take_apart()
        first = [0]
        if start != START:
            at = self._find_stop(start)
            if at is None:
                return self.whole
            first = self._next[at]
        ahead = _reach(first, self._next, self._stops)
        if end == END:
            return self._gather(ahead)
        last = self._find_stop(end)
        if last is None:
            return self.whole
        behind = _reach(self._previous[last], self._previous, self._stops)
        return self._gather(sorted(ahead & behind))

    def _find_stop(self, offset: int) -> int | None:
        """Return where a suspended frame is; its `f_lasti` is that of the yield, or of what resumes it."""
        at = self._index.get(offset)
        for candidate in () if at is None else (at, at - 1, at + 1):
            if candidate in self._stops:
                return candidate
        return None

    def _link(self) -> list[list[int]]:
        """Return which instructions may follow each."""
        successors: list[list[int]] = []
        for at, one in enumerate(self._instructions):
            nexts = [] if one.opname in _ENDS or one.opname in _JUMPS else [at + 1]
            if one.opcode in dis.hasjrel or one.opcode in dis.hasjabs:
                nexts.append(self._index[one.argval])
            successors.append([other for other in nexts if other < len(self._instructions)])
        for entry in self._bytecode.exception_entries:  # type: ignore[attr-defined]  # not in the stubs
            handler = self._index[entry.target]
            for at, one in enumerate(self._instructions):
                if entry.start <= one.offset < entry.end:
                    successors[at].append(handler)
        return successors

    def _gather(self, chosen: Collection[int]) -> Names:
        cells, names, attributes, imports = set[str](), set[str](), set[str](), set[str]()
        for at in chosen:
            one = self._instructions[at]
            if one.opname in _CELLS:
                cells.add(one.argval)
            elif one.opname.startswith("LOAD_FAST"):  # by which newer releases pass a cell to an inner function
                argued = one.argval if isinstance(one.argval, tuple) else (one.argval,)
                cells.update(self._deref.intersection(argued))
            elif one.opname in _GLOBALS:
                names.add(one.argval)
            elif one.opname == "IMPORT_NAME":
                imports.add(one.argval)
            elif one.opcode in dis.hasname:
                attributes.add(one.argval)
        found = Names(frozenset(cells), frozenset(names), frozenset(attributes), frozenset(imports))
        for at in chosen:
            if isinstance(inner := self._instructions[at].argval, CodeType):
                found = found.join(map_code(inner).whole)
        return found


def _reach(first: Iterable[int], successors: list[list[int]], stops: set[int]) -> set[int]:
    """Return all that is reached without passing through a suspension."""
    found = set[int]()
    open_ones = list(first)
    while open_ones:
        at = open_ones.pop()
        if at not in found:
            found.add(at)
            if at not in stops:
                open_ones += successors[at]
    return found


_MAPS: Final[dict[CodeType, CodeMap]] = {}


def map_code(code: CodeType) -> CodeMap:
    """Return the map of a code object, made once."""
    found = _MAPS.get(code)
    if found is None:
        found = _MAPS[code] = CodeMap(code)
    return found
