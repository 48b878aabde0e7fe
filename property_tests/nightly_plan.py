"""How the schedules of a nightly run are shared out, and what came of them: numbers, without a console.

A piece is one exploration: a program, a strategy, a seed and how many executions it may make. It is explored in any
process; what was found is added up in one.
"""

from __future__ import annotations

import os
import traceback
from array import array
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, final, get_args

import attrs

from stageflow_actors.errors import RaceError
from stageflow_actors.testing._search import Strategy

from .nightly_programs import Noted, find_programs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .nightly_programs import Program

LEAST: Final = 0.05
"""The least share of an area of all schedules, unless there are more areas than that allows."""

SCOUTING: Final = 0.04
"""The share of all schedules that is spent on a short look at every program."""

SYSTEMATIC: Final = 0.5
"""The share of what is left then for the systematic search, before the other strategies."""

LARGEST: Final = 2_000
"""So many executions at most has a piece of a sampler: none keeps the others waiting for long."""

OTHERS: Final[tuple[Strategy, ...]] = tuple(name for name in get_args(Strategy) if name != "auto")


@final
@attrs.frozen
class Piece:
    """One exploration."""

    program: str
    strategy: Strategy
    seed: int
    executions: int

    def __str__(self) -> str:
        return f"strategy={self.strategy!r}, seed={self.seed}, max_executions={self.executions}"


@final
@attrs.frozen
class Found:
    """What came of a piece."""

    piece: Piece
    executions: int = 0
    steps: int = 0
    seconds: float = 0.0
    complete: bool = False
    bound: int | None = None
    diverged: int = 0
    schedules: bytes = b""
    """The hashes of the schedules that were run, eight bytes each."""
    failure: str | None = None
    schedule: str = ""
    """That of the failure."""

    def __str__(self) -> str:
        covered = "complete" if self.complete else "" if self.bound is None else f"bound {self.bound}"
        told = (
            f"{self.executions:>6,} in {self.seconds:6.1f} s  {self.piece.strategy:6}  {self.piece.program}  {covered}"
        )
        return told + (f"  {self.diverged:,} diverged" if self.diverged else "")


def explore_piece(piece: Piece) -> Found:
    """Explore a piece. What it raises that is no failure of the program is one of the run, and told as such."""
    program = _list_programs()[piece.program]
    noted = Noted()
    began = perf_counter()
    try:
        with noted:
            report = program.explore(piece.strategy, piece.seed, piece.executions)
    except RaceError as error:
        schedule = error.failure.schedule
        return Found(piece, executions=1, seconds=perf_counter() - began, failure=str(error), schedule=schedule)
    except Exception:
        return Found(piece, seconds=perf_counter() - began, failure=traceback.format_exc())
    failure = None
    if report.failure is not None:
        failure = str(report)
        if report.failure.error is not None:
            failure += "\n" + "".join(traceback.format_exception(report.failure.error))
    return Found(
        piece,
        executions=report.executions,
        steps=noted.steps,
        seconds=perf_counter() - began,
        complete=report.complete,
        bound=report.bound,
        diverged=report.diverged,
        schedules=array("q", noted.schedules).tobytes(),
        failure=failure,
        schedule="" if report.failure is None else report.failure.schedule,
    )


@cache
def _list_programs() -> Mapping[str, Program]:
    return find_programs()


def forget_programs() -> None:
    """Ask for the programs again: tests explore others."""
    _list_programs.cache_clear()


@final
@attrs.define
class Account:
    """What is known of a program."""

    area: str
    executions: int = 0
    steps: int = 0
    seconds: float = 0.0
    complete: bool = False
    bound: int | None = None
    diverged: int = 0
    failures: list[str] = attrs.field(factory=list)
    """The schedules that failed."""
    schedules: set[int] = attrs.field(factory=set, repr=False)

    @property
    def is_open(self) -> bool:
        """Whether there is more to explore."""
        return not (self.complete or self.failures)

    @property
    def weight(self) -> float:
        """How many executions it can make while another makes one of a single step."""
        return self.executions / max(self.steps, 1)


@final
@attrs.frozen
class Area:
    """The sum of the programs of an area."""

    name: str
    programs: int
    executions: int
    distinct: int
    complete: int
    bounds: tuple[int | None, ...]
    """Of the programs that are not complete."""
    seconds: float
    failures: int


def tell_bound(area: Area) -> str:
    """Say with how many preemptions every schedule was run, of the programs that are not complete."""
    if not area.bounds:
        return "all"
    bounds = sorted(-1 if bound is None else bound for bound in area.bounds)
    told = ["none" if bound < 0 else str(bound) for bound in (bounds[0], bounds[-1])]
    return told[0] if told[0] == told[1] else f"{told[0]} to {told[1]}"


@final
class Tally:
    """What came of all pieces so far.

    Args:
        areas: Of each program, by name.
    """

    def __init__(self, areas: Mapping[str, str]) -> None:
        self.accounts = {name: Account(area) for name, area in areas.items()}

    @property
    def executions(self) -> int:
        """How many were made."""
        return sum(account.executions for account in self.accounts.values())

    @property
    def failed(self) -> list[str]:
        """The programs that fail."""
        return [name for name, account in self.accounts.items() if account.failures]

    def add(self, found: Found) -> None:
        """Add what was found."""
        account = self.accounts[found.piece.program]
        account.executions += found.executions
        account.steps += found.steps
        account.seconds += found.seconds
        account.complete = account.complete or found.complete
        account.diverged += found.diverged
        if found.bound is not None:
            account.bound = found.bound if account.bound is None else max(account.bound, found.bound)
        hashes = array("q")
        hashes.frombytes(found.schedules)
        account.schedules.update(hashes)
        if found.failure is not None:
            account.failures.append(found.schedule)

    def sum_up(self) -> list[Area]:
        """Return the sums, area by area."""
        names = dict.fromkeys(account.area for account in self.accounts.values())
        return [_sum_up(name, [each for each in self.accounts.values() if each.area == name]) for name in names]

    def sum_up_all(self) -> Area:
        """Return the sum of all."""
        return _sum_up("all", list(self.accounts.values()))

    def make_raw(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each program."""
        return {
            name: {
                **attrs.asdict(account, filter=lambda field, _: field.name != "schedules"),
                "distinct": len(account.schedules),
            }
            for name, account in self.accounts.items()
        }


def _sum_up(name: str, accounts: Sequence[Account]) -> Area:
    return Area(
        name,
        programs=len(accounts),
        executions=sum(account.executions for account in accounts),
        distinct=sum(len(account.schedules) for account in accounts),
        complete=sum(account.complete for account in accounts),
        bounds=tuple(account.bound for account in accounts if not account.complete),
        seconds=sum(account.seconds for account in accounts),
        failures=sum(bool(account.failures) for account in accounts),
    )


@final
class Plan:
    """Shares out schedules, round by round, among the programs that still have some.

    Args:
        tally: What came of those that were given so far.
        schedules: How many there are.
        seed: Of the searches; a second exploration of a program has another.
    """

    def __init__(self, tally: Tally, schedules: int, seed: int) -> None:
        self._tally = tally
        self._schedules = schedules
        self._seed = seed
        self._shares = self._share_by_area()

    def iterate_rounds(self) -> Iterator[tuple[str, list[Piece]]]:
        """Yield rounds; each has to be explored, and its finds to be added, before the next is asked for."""
        accounts = self._tally.accounts
        few = max(int(self._schedules * SCOUTING / len(accounts)), 1)
        yield "a short look", [Piece(name, "auto", self._seed, few) for name in accounts]
        systematic = self._deal(int(self._left * SYSTEMATIC))
        yield "systematic", [Piece(name, "auto", self._seed + 1, count) for name, count in systematic.items()]
        pieces = [piece for name, count in self._deal(self._left).items() for piece in self._split(name, count)]
        # One strategy after the other, so that a run that is interrupted has neglected no area.
        yield "all strategies", sorted(pieces, key=lambda piece: OTHERS.index(piece.strategy))

    @property
    def _left(self) -> int:
        return max(self._schedules - self._tally.executions, 0)

    def _share_by_area(self) -> dict[str, float]:
        areas = [account.area for account in self._tally.accounts.values()]
        shares = {area: max(areas.count(area) / len(areas), LEAST) for area in areas}
        total = sum(shares.values())
        return {area: share / total for area, share in shares.items()}

    def _deal(self, schedules: int) -> dict[str, int]:
        """Return how many of these each open program gets."""
        open_ones = {name: account for name, account in self._tally.accounts.items() if account.is_open}
        weights: dict[str, float] = {}
        for account in open_ones.values():
            weights[account.area] = weights.get(account.area, 0.0) + account.weight
        total = sum(self._shares[area] for area in weights)
        dealt = {}
        for name, account in open_ones.items():
            share = self._shares[account.area] / total * account.weight / weights[account.area]
            dealt[name] = int(schedules * share)
        return {name: count for name, count in dealt.items() if count}

    def _split(self, name: str, executions: int) -> Iterator[Piece]:
        """Yield the pieces of the last round: all strategies but the first in turn, in small portions.

        The systematic ones get theirs in one piece: cut up, they would begin anew each time.
        """
        each = -(-executions // len(OTHERS))
        for strategy in OTHERS:
            left, seed = min(each, executions), self._seed
            executions -= left
            while left:
                portion = left if strategy.startswith("d") else min(left, LARGEST)
                yield Piece(name, strategy, seed, portion)
                left -= portion
                seed += 1


def count_processors() -> int:
    """Return how many processes can go on at once here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
