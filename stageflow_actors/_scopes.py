"""Who is restarted when one is: the strategies and policies of OTP's supervisors, as pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar, cast, get_args

from ._validation import FEW_NAMES, refuse, require_word, suggest
from .errors import CycleDetectedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Scope: TypeAlias = Literal["one_for_one", "dependents", "one_for_all", "rest_for_one"]
"""Who is restarted with one that failed: nobody; those that depend on it, directly or not; all; those spawned later."""

Policy: TypeAlias = Literal["permanent", "transient", "temporary"]
"""When a child is restarted: always; when it failed; never."""


class Node(Protocol):
    """A child of a supervisor, as far as restarts depend on it."""

    @property
    def name(self) -> str:
        """Its name, unique among its siblings."""
        ...

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The siblings that it needs."""
        ...


_N = TypeVar("_N", bound=Node)


def require_scope(value: object) -> Scope:
    """Return `value` if it names a scope."""
    return cast("Scope", require_word("scope", value, get_args(Scope)))


def require_policy(value: object) -> Policy:
    """Return `value` if it names a policy."""
    return cast("Policy", require_word("policy", value, get_args(Policy)))


def select(scope: Scope, children: Sequence[_N], failed: _N) -> list[_N]:
    """Return the children to be restarted with one that failed, that one left out, in the order of `children`.

    Args:
        scope: The supervisor's.
        children: All of them, in the order in which they were spawned.
        failed: One of them.
    """
    if scope == "one_for_one":
        return []
    if scope == "one_for_all":
        return [child for child in children if child is not failed]
    if scope == "rest_for_one":
        return list(children[children.index(failed) + 1 :])
    affected = {failed.name}
    grown = True
    while grown:  # the order of spawning is nearly always one of dependencies, and then one round does
        before = len(affected)
        affected.update(child.name for child in children if affected.intersection(child.depends_on))
        grown = len(affected) > before
    return [child for child in children if child.name in affected and child is not failed]


def check_dependencies(name: str, depends_on: Iterable[str], known: Mapping[str, Node], *, is_needed: bool) -> None:
    """Refuse dependencies on what is not there, and those that lead back to `name`.

    An actor that was given up may be spawned again while others still name it: that is how a cycle can come about.

    Args:
        name: The new actor's.
        depends_on: What it names.
        known: Those that there are.
        is_needed: Whether one of these names it.

    Raises:
        PipelineValidationError: An actor is unknown, or has ended.
        CycleDetectedError: The dependencies lead back.
    """
    names = tuple(depends_on)
    if name in names:
        raise CycleDetectedError(f"actor {name!r} depends on itself", cycle=(name, name))
    for other in names:
        if other not in known:
            hint = suggest(other, known, "the supervisor has", most=FEW_NAMES) if known else "spawn it first"
            refuse(f"actor {name!r} depends on {other!r}, which is unknown or has ended", hint=hint)
    if not is_needed:
        return
    reached_from: dict[str, str] = dict.fromkeys(names, name)
    work = list(names)
    while work:
        other = work.pop()
        for further in known[other].depends_on if other in known else ():
            if further == name:
                chain = [other]
                while chain[-1] != name:
                    chain.append(reached_from[chain[-1]])
                cycle = (*reversed(chain), name)
                shown = " -> ".join(cycle)
                raise CycleDetectedError(f"actors would depend on each other: {shown}", cycle=cycle)
            if further not in reached_from:
                reached_from[further] = other
                work.append(further)
