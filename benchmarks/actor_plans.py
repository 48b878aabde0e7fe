"""Random plans for the chaos of resident actors: four supervisors, sixteen actors, and what befalls them, by seed."""

from __future__ import annotations

import random
from enum import Enum

import attrs

ACTORS = 16
PHASES = ("warm", "clean", "faulty")
STEP = 1 / 128
"""Seconds. Times that are multiples of it add up without an error, so that much happens at the very same moment."""
_PLENTY = 10_000
"""Of restarts: as good as no limit."""
_OVERFLOWS = ("wait", "reject", "drop_oldest", "drop_newest")
_SCOPES = ("one_for_one", "dependents", "one_for_all", "rest_for_one")
_PATHS = ("", "east", "west", "west/deep")


class Act(Enum):
    """What a message asks of its actor."""

    OK = "reply at once"
    REST = "reply after a checkpoint"
    SLEEP = "reply after a while"
    LONG = "reply after a long while"
    RAISE = "raise"
    RAISE_ONCE = "raise, unless this is a redelivery"
    RAISE_LATER = "raise after a while"
    WOUND = "make the background task raise"
    FAIL = "return a fail"
    RETRY = "return a retry"
    CANCEL = "return a cancel"
    LEAVE = "ctx.stop()"


class Form(Enum):
    """What an actor's runner is."""

    MANAGED = "a class that is a context manager, with a background task"
    CLASS = "a class"
    FUNCTION = "a function"
    SHARED = "an instance"
    THREAD = "a plain function"


class Restarts(Enum):
    """What the restart policy of an actor or a supervisor says."""

    NONE = "none: at once, after everything"
    BACKOFF = "after a backoff"
    FEW = "twice, then it ends"
    RESUME = "resume after half of the errors"
    CHOOSY = "fail after a tenth of the errors, escalate after a few"


class Kind(Enum):
    """What may befall an actor from outside."""

    RESTART = "ref.restart()"
    STOP = "ref.stop(), and spawned again"
    FLOOD = "many messages at once"
    PROVOKE = "many messages that make it crash"
    WOUND = "its background task raises"


class Leave(Enum):
    """How the supervisor at the top is left."""

    NORMALLY = "when all is over"
    RAISING = "with an exception"
    CANCELLED = "cancelled from outside"
    GIVING_UP = "because it gives up"


@attrs.frozen
class Strike:
    """Something that befalls an actor once so many asks of the faulty phase are over."""

    after: int
    kind: Kind
    path: str
    count: int = 0


@attrs.frozen
class ActorPlan:
    """One actor, whatever becomes of it."""

    path: str
    form: Form
    overflow: str
    max_queued: int | None
    clients: int
    pool: int = 1
    policy: str = "transient"
    restart: Restarts = Restarts.NONE
    max_deliveries: int = 1
    shutdown: float = 5.0
    depends_on: tuple[str, ...] = ()
    enter_takes: float = 0.0
    exit_takes: float = 0.0
    enter_fails: float = 0.0
    """The share of starts that fail, in the faulty phase."""
    exit_fails: float = 0.0

    @property
    def name(self) -> str:
        """Without the supervisors above."""
        return self.path.rpartition("/")[2]


@attrs.frozen
class SupervisorPlan:
    """One supervisor: at the top, or a child."""

    path: str
    scope: str
    max_restarts: int
    within: float | None
    children: tuple[str, ...]
    """Paths of actors and supervisors, in the order in which they are spawned."""
    restart: Restarts = Restarts.NONE
    """Of it, in the supervisor above."""


@attrs.frozen
class ActorsPlan:
    """What happens in one seed."""

    seed: int
    asks: int
    """Of every actor, in each phase."""
    supervisors: tuple[SupervisorPlan, ...]
    """The one at the top first, each before those below it."""
    actors: tuple[ActorPlan, ...]
    strikes: tuple[Strike, ...]
    badness: float
    """The share of messages of the faulty phase that do harm."""
    leave: Leave = Leave.NORMALLY
    leave_after: int | None = None
    """So many asks of the faulty phase."""
    real: bool = False
    """Whether time is real: it must be where there are threads."""

    def find(self, path: str) -> ActorPlan:
        """Return an actor's plan."""
        return next(actor for actor in self.actors if actor.path == path)


def draw(seed: int, *, asks: int = 300, real: bool = False) -> ActorsPlan:
    """Return the plan of a seed."""
    return _Drawer(random.Random(seed), seed, asks).draw(real=real)


class _Drawer:
    def __init__(self, rng: random.Random, seed: int, asks: int) -> None:
        self._rng = rng
        self._seed = seed
        self._asks = asks
        self._threads = rng.random() < 0.03

    def draw(self, *, real: bool) -> ActorsPlan:
        rng = self._rng
        homes = list(_PATHS) * (ACTORS // len(_PATHS))
        overflows = list(_OVERFLOWS) * (ACTORS // len(_OVERFLOWS))
        rng.shuffle(overflows)
        leave = rng.choice([Leave.NORMALLY] * 17 + list(Leave)[1:])
        frail = rng.choice(_PATHS[1:])
        actors = self._draw_actors(homes, overflows, frail)
        return ActorsPlan(
            self._seed,
            self._asks,
            self._draw_supervisors(actors, frail, leave),
            tuple(actors),
            self._draw_strikes(actors, frail),
            badness=rng.choice([0.01, 0.02, 0.05]),
            leave=leave,
            leave_after=None if leave is Leave.NORMALLY else self._draw_moment(),
            real=real or self._threads,
        )

    def _draw_moment(self) -> int:
        return self._rng.randrange(1, max(2, int(ACTORS * self._asks * 0.95)))

    def _draw_supervisors(self, actors: list[ActorPlan], frail: str, leave: Leave) -> tuple[SupervisorPlan, ...]:
        rng = self._rng
        scopes = rng.sample(_SCOPES, len(_SCOPES))
        drawn = []
        for path, scope in zip(_PATHS, scopes, strict=True):
            most, within = _PLENTY, rng.choice([None, 1.0])
            if path == frail:
                most, within = rng.randint(2, 5), rng.choice([0.25, 1.0])
            elif not path and leave is Leave.GIVING_UP:
                most, within = rng.randint(5, 40), None
            drawn.append(
                SupervisorPlan(
                    path,
                    scope,
                    most,
                    within,
                    self._list_children(path, actors),
                    restart=rng.choice([Restarts.NONE, Restarts.BACKOFF]),
                )
            )
        return tuple(drawn)

    def _list_children(self, path: str, actors: list[ActorPlan]) -> tuple[str, ...]:
        """Put the supervisors below somewhere among the actors, whose order their dependencies give."""
        children = [actor.path for actor in actors if actor.path.rpartition("/")[0] == path]
        for below in _PATHS[1:]:
            if below.rpartition("/")[0] == path:
                children.insert(self._rng.randint(0, len(children)), below)
        return tuple(children)

    def _draw_actors(self, homes: list[str], overflows: list[str], frail: str) -> list[ActorPlan]:
        rng = self._rng
        drawn: list[ActorPlan] = []
        for number, (home, overflow) in enumerate(zip(homes, overflows, strict=True)):
            siblings = [other.name for other in drawn if other.path.rpartition("/")[0] == home]
            clients = rng.choice([3, 4, 4, 5])
            policy = rng.choice(["transient"] * 5 + ["permanent", "permanent", "temporary"])
            # A permanent one that may not be restarted takes its supervisor along: not always the one at the top.
            choices = list(Restarts) if home else [Restarts.NONE, Restarts.BACKOFF, Restarts.RESUME]
            if home == frail or policy == "temporary":
                choices = [Restarts.NONE]
            max_deliveries = rng.choice([1, 1, 2, 3])
            drawn.append(
                ActorPlan(
                    f"{home}/a{number}" if home else f"a{number}",
                    Form.THREAD if self._threads and number < 3 else rng.choice([Form.MANAGED] * 4 + list(Form)[1:4]),
                    overflow,
                    self._draw_bound(overflow, clients),
                    clients,
                    pool=rng.choice([1, 1, 1, 2, 3]),
                    policy=policy,
                    restart=rng.choice([*choices, Restarts.NONE]),
                    max_deliveries=max_deliveries,
                    shutdown=rng.choice([5.0, 5.0, 8 * STEP]),
                    depends_on=tuple(sorted(rng.sample(siblings, rng.randint(0, min(2, len(siblings)))))),
                    enter_takes=rng.choice([0.0, 0.0, STEP]),
                    exit_takes=rng.choice([0.0, 0.0, STEP, 16 * STEP]),
                    enter_fails=rng.choice([0.0, 0.05, 0.2]),
                    exit_fails=rng.choice([0.0, 0.05, 0.2]),
                )
            )
        return drawn

    def _draw_bound(self, overflow: str, clients: int) -> int | None:
        """Draw a bound: where no sender waits, at least what the clients have under way while no harm is done."""
        if overflow == "wait":
            return self._rng.choice([0, 1, 2, 4, 64, None])
        return 2 * clients + self._rng.choice([0, 1, 4])

    def _draw_strikes(self, actors: list[ActorPlan], frail: str) -> tuple[Strike, ...]:
        rng = self._rng
        paths = [actor.path for actor in actors]
        in_frail = [actor.path for actor in actors if actor.path.rpartition("/")[0] == frail]
        managed = [actor.path for actor in actors if actor.form is Form.MANAGED] or paths
        strikes = [Strike(self._draw_moment(), Kind.PROVOKE, rng.choice(in_frail), 6) for _ in range(rng.randint(1, 3))]
        strikes += [Strike(self._draw_moment(), Kind.RESTART, rng.choice(paths)) for _ in range(rng.randint(2, 12))]
        strikes += [Strike(self._draw_moment(), Kind.STOP, rng.choice(paths)) for _ in range(rng.randint(1, 6))]
        strikes += [Strike(self._draw_moment(), Kind.WOUND, rng.choice(managed)) for _ in range(rng.randint(2, 8))]
        strikes += [
            Strike(self._draw_moment(), Kind.FLOOD, rng.choice(paths), rng.choice([8, 24]))
            for _ in range(rng.randint(20, 40))
        ]
        return tuple(sorted(strikes, key=lambda strike: strike.after))
