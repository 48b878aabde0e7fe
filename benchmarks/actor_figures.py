"""The figures of the chaos of resident actors: of a seed, of all seeds, and of the faulty phase against the clean."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

import attrs
from actor_checks import check, find_fates
from actor_events import count_restarts, list_times_to_restart
from actor_plans import PHASES, Leave, draw
from actor_play import play
from actor_world import End, Ending

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actor_world import Mail, World


@attrs.frozen
class SeedFigures:
    """What happened in one seed, and what is wrong with it."""

    seed: int
    found: list[str]
    asks: int = 0
    tells: int = 0
    endings: Counter[str] = attrs.field(factory=Counter)
    """Of asks."""
    lost: int = 0
    doubled: int = 0
    redelivered: int = 0
    """Messages of idempotent actors that were handled more than once, as they may be."""
    unsure: int = 0
    """Messages of which the ledger may have counted this or that."""
    letters: Counter[str] = attrs.field(factory=Counter)
    crashes: Counter[str] = attrs.field(factory=Counter)
    """By where something was raised."""
    restarts: int = 0
    given_up: int = 0
    """How often a supervisor below was up again."""
    times_to_restart: list[float] = attrs.field(factory=list)
    tasks_left: int = 0
    threads_left: int = 0
    latencies: dict[str, list[float]] = attrs.field(factory=dict)
    """Seconds until each reply, by phase; only where time is real."""
    real: bool = False
    leave: str = ""


def examine(seed: int, *, asks: int = 300, real: bool = False) -> tuple[SeedFigures, World | None]:
    """Play a seed; return its figures, and all that was taken down, where it came to its end."""
    try:
        world = play(draw(seed, asks=asks, real=real))
        found = check(world)
    except Exception as error:
        return SeedFigures(seed, [f"it raised {type(error).__name__}: {error}"]), None
    return _count(world, found), world


def _count(world: World, found: list[str]) -> SeedFigures:
    mails = [mail for actor in world.actors.values() for mail in actor.mails.values()]
    asks = [mail for mail in mails if mail.is_ask]
    real = world.plan.real
    fates = [find_fates(mail, real=real) for mail in mails]
    below = {plan.path for plan in world.plan.supervisors}
    return SeedFigures(
        world.plan.seed,
        found,
        asks=len(asks),
        tells=len(mails) - len(asks),
        endings=Counter(mail.ending.value if mail.ending else "never" for mail in asks),
        lost=sum(mail.ending is None or fate == {"lost"} for mail, fate in zip(mails, fates, strict=True)),
        doubled=sum(_is_doubled(mail) for mail in mails),
        redelivered=sum(len(mail.deliveries) > 1 for mail in mails),
        unsure=sum(len(fate) > 1 for fate in fates),
        letters=Counter(letter.reason for letter in world.letters),
        crashes=world.crashes,
        restarts=count_restarts(world.events),
        given_up=count_restarts([event for event in world.events if event.actor in below]),
        times_to_restart=list_times_to_restart(world.events),
        tasks_left=world.tasks_left,
        threads_left=world.threads_left,
        latencies={phase: _list_latencies(asks, number) for number, phase in enumerate(PHASES)} if real else {},
        real=real,
        leave=world.plan.leave.value,
    )


def _is_doubled(mail: Mail) -> bool:
    """Return whether a message was handled more often than it may be."""
    ends = [each.end for each in mail.deliveries]
    return len(ends) > mail.life.actor.plan.max_deliveries or End.RETURNED in ends[:-1]


def _list_latencies(asks: Sequence[Mail], phase: int) -> list[float]:
    return [mail.ended_at - mail.sent_at for mail in asks if mail.phase == phase and mail.ending is Ending.REPLIED]


@attrs.define
class Tally:
    """What has happened so far, over all seeds."""

    violations: list[int] = attrs.field(factory=list)
    totals: Counter[str] = attrs.field(factory=Counter)
    endings: Counter[str] = attrs.field(factory=Counter)
    letters: Counter[str] = attrs.field(factory=Counter)
    crashes: Counter[str] = attrs.field(factory=Counter)
    left: Counter[str] = attrs.field(factory=Counter)
    """How supervisors were left."""
    times_to_restart: list[float] = attrs.field(factory=list)
    seconds: float = 0.0

    def add(self, figures: SeedFigures) -> None:
        """Count one more seed."""
        if figures.found:
            self.violations.append(figures.seed)
        self.totals["seeds"] += 1
        self.totals["seeds on the real clock"] += figures.real
        for name in ("asks", "tells", "lost", "doubled", "redelivered", "unsure", "restarts", "given_up"):
            self.totals[name] += getattr(figures, name)
        self.totals["tasks_left"] += figures.tasks_left
        self.totals["threads_left"] += figures.threads_left
        self.endings.update(figures.endings)
        self.letters.update(figures.letters)
        self.crashes.update(figures.crashes)
        self.left[figures.leave] += 1
        if not figures.real:
            self.times_to_restart += figures.times_to_restart


@attrs.define
class Pace:
    """How fast it is on the real clock: replies of the clean phase and the faulty one, and restarts."""

    seeds: int = 0
    latencies: dict[str, list[float]] = attrs.field(factory=lambda: {phase: [] for phase in PHASES})
    times_to_restart: list[float] = attrs.field(factory=list)

    def add(self, figures: SeedFigures) -> None:
        """Take in one more seed."""
        self.seeds += 1
        self.times_to_restart += figures.times_to_restart
        for phase, latencies in figures.latencies.items():
            self.latencies[phase] += latencies

    def find_slowdown(self) -> dict[str, float] | None:
        """Return how many times longer a reply takes in the faulty phase; None where nothing was measured."""
        clean, faulty = self.latencies["clean"], self.latencies["faulty"]
        if len(clean) < 2 or len(faulty) < 2:
            return None
        return {"median": median(faulty) / median(clean), "p95": percentile(faulty, 95) / percentile(clean, 95)}


def percentile(values: Sequence[float], which: int) -> float:
    """Return a percentile; nan where there is none."""
    if not values:
        return float("nan")
    return quantiles(values, n=100, method="inclusive")[which - 1] if len(values) > 1 else values[0]


def list_timed_seeds(first: int, count: int) -> list[int]:
    """Return seeds that are fit to be timed: those whose supervisor lives to the end, and that have no threads."""
    found: list[int] = []
    for seed in chain(range(first, first + 1000)):
        if len(found) == count:
            break
        plan = draw(seed)
        if plan.leave is Leave.NORMALLY and not plan.real:
            found.append(seed)
    return found


def list_rows(tally: Tally, pace: Pace) -> Iterator[tuple[str, str]]:
    """Yield the lines of the summary."""
    totals = tally.totals
    yield "seeds", f"{totals['seeds']:,}"
    yield "  on the real clock, with threads", f"{totals['seeds on the real clock']:,}"
    yield from ((f"  supervisor left {how}", f"{count:,}") for how, count in tally.left.most_common() if how)
    yield "asks", f"{totals['asks']:,}"
    yield from ((f"  {ending}", f"{count:,}") for ending, count in tally.endings.most_common())
    yield "tells", f"{totals['tells']:,}"
    yield "lost", f"{totals['lost']:,}"
    yield "doubled", f"{totals['doubled']:,}"
    yield "delivered again, as allowed", f"{totals['redelivered']:,}"
    yield "dead letters", f"{tally.letters.total():,}"
    yield from ((f"  {reason}", f"{count:,}") for reason, count in tally.letters.most_common())
    yield "raised on purpose", f"{tally.crashes.total():,}"
    yield from ((f"  in {where}", f"{count:,}") for where, count in tally.crashes.most_common())
    yield "restarts", f"{totals['restarts']:,}"
    yield "  of supervisors", f"{totals['given_up']:,}"
    yield "tasks left", f"{totals['tasks_left']:,}"
    yield "threads left", f"{totals['threads_left']:,}"
    if tally.times_to_restart:
        yield "time to restart, virtual, p50 and p99", _tell_times(tally.times_to_restart)
    if pace.times_to_restart:
        yield f"time to restart, real, p50 and p99 ({pace.seeds} seeds)", _tell_times(pace.times_to_restart)
    slowdown = pace.find_slowdown()
    if slowdown is not None:
        yield "a reply in the clean phase, median and p95", _tell_times(pace.latencies["clean"], (50, 95))
        yield "a reply in the faulty phase, median and p95", _tell_times(pace.latencies["faulty"], (50, 95))
        yield "slowdown, median and p95", f"{slowdown['median']:.2f}x, {slowdown['p95']:.2f}x"


def _tell_times(seconds: Sequence[float], which: tuple[int, int] = (50, 99)) -> str:
    return ", ".join(f"{percentile(seconds, each) * 1000:,.2f} ms" for each in which)


def make_raw(tally: Tally, pace: Pace) -> dict[str, Any]:
    """Return all figures, to be written as JSON."""
    return {
        **tally.totals,
        "violations": tally.violations,
        "endings": dict(tally.endings),
        "dead_letters": dict(tally.letters),
        "crashes": dict(tally.crashes),
        "left": dict(tally.left),
        "virtual_time_to_restart": _make_percentiles(tally.times_to_restart, (50, 99)),
        "real_time_to_restart": _make_percentiles(pace.times_to_restart, (50, 99)),
        "latencies": {phase: _make_percentiles(values, (50, 95)) for phase, values in pace.latencies.items()},
        "slowdown": pace.find_slowdown(),
        "timed_seeds": pace.seeds,
        "seconds": tally.seconds,
    }


def _make_percentiles(values: Sequence[float], which: tuple[int, int]) -> dict[str, float | int]:
    made: dict[str, float | int] = {"count": len(values)}
    if values:
        made.update({f"p{each}": percentile(values, each) for each in which})
    return made
