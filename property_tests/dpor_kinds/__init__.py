"""Kinds of shared state, for random programs that look for what the reduction does not see.

A kind is a function that makes some state and returns a `World`: what tasks can do with it, and how it looks in the
end. A new family is a module with `KINDS`, named in `FAMILIES` below.
"""

from __future__ import annotations

from . import (
    calls,
    classes,
    containers,
    corners,
    declared,
    functions,
    iterators,
    libraries,
    objects,
    primitives,
    tasks,
    time,
    variables,
    world,
)

FAMILIES = (
    variables,
    functions,
    containers,
    iterators,
    objects,
    classes,
    calls,
    primitives,
    tasks,
    time,
    corners,
    libraries,
    declared,
    world,
)

KINDS = tuple(kind for family in FAMILIES for kind in family.KINDS)
