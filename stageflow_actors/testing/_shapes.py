"""Graphs made of drafts that know each other by numbers, so that leaving any out leaves a graph."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class Shape(Enum):
    """What a graph looks like."""

    RANDOM = "any"
    CHAIN = "one after the other"
    FAN = "a source, a wide fan-out, a join"
    LAYERS = "layers, each knowing only the one before"
    FOREST = "at most one dependency each, several roots"


class Placed(Protocol):
    """What a draft of a stage says about its place in the graph."""

    @property
    def parents(self) -> Sequence[int]:
        """The stages before it that it depends on, as numbers of any size."""
        ...

    @property
    def place(self) -> int:
        """Where it stands in the definition, beside the others."""
        ...


_Draft = TypeVar("_Draft", bound=Placed)


def lay_out(shape: Shape, drafts: Sequence[_Draft]) -> list[tuple[str, tuple[str, ...], _Draft]]:
    """Return names with their dependencies; a stage may stand before what it depends on."""
    names = [f"s{number}" for number in range(len(drafts))]
    stages = [
        (name, _choose(shape, names, number, draft.parents), draft)
        for number, (name, draft) in enumerate(zip(names, drafts, strict=True))
    ]
    return sorted(stages, key=lambda stage: stage[2].place)


def _choose(shape: Shape, names: list[str], number: int, parents: Sequence[int]) -> tuple[str, ...]:
    """Return the dependencies of one stage, among those before it."""
    before = names[:number]
    if shape is Shape.LAYERS:
        start = number // 3 * 3
        before = names[max(0, start - 3) : start]
    if not before:
        return ()
    if shape is Shape.CHAIN:
        return (before[-1],)
    if shape is Shape.FAN:
        return tuple(before[1:]) if number > 1 and number == len(names) - 1 else (before[0],)
    chosen = tuple(dict.fromkeys(before[parent % len(before)] for parent in parents))
    return chosen[:1] if shape is Shape.FOREST else chosen
