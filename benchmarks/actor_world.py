"""The world of a chaos of resident actors: what everybody takes down of actors, their lives and every message."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, Any, final

import attrs
import trio

if TYPE_CHECKING:
    from actor_plans import ActorPlan, ActorsPlan
    from actor_stages import Instance

    from stageflow_actors import ActorRef, StageOutput, Supervisor
    from stageflow_actors.events import ActorEvent, DeadLetter
    from stageflow_actors.statistics import ActorLedger

FINAL_LETTERS = frozenset({"overflow", "stopped", "poison"})
"""The dead letters that end a message which was accepted."""
_ENOUGH = 12
"""So many problems of one seed are written down."""


class HarmError(Exception):
    """What an actor raises on purpose: where, and over what."""

    def __init__(self, where: str, path: str, *over: Any) -> None:
        super().__init__(where, path, *over)
        self.where = where
        self.path = path
        self.over = over
        self.number: int = over[-1]
        """Which one it is of those that were raised."""


class LeftError(Exception):
    """What the body of a supervisor raises."""


class Ending(Enum):
    """How sending a message ended, for its sender."""

    REPLIED = "replied"
    FAILED = "failed with what the stage raised"
    TIMED_OUT = "timed out"
    DEAD = "the actor is dead"
    UNAVAILABLE = "the actor is unavailable"
    FULL = "the mailbox is full"
    CANCELLED = "the asker was cancelled"
    TOLD = "told"
    OTHER = "something else"


class End(Enum):
    """How the handling of a message ended."""

    RETURNED = "returned"
    RAISED = "raised"
    CUT = "cancelled"


@final
class Delivery:
    """One handling of a message."""

    __slots__ = ("began_at", "end", "ended_at", "instance")

    def __init__(self, instance: Instance | None, began_at: float) -> None:
        self.instance = instance
        self.began_at = began_at
        self.end: End | None = None
        self.ended_at = 0.0


@final
class Mail:
    """One message, as its sender and those who handle it know it."""

    __slots__ = (
        "at_once",
        "client",
        "deliveries",
        "ended_at",
        "ending",
        "error",
        "is_ask",
        "key",
        "letters",
        "life",
        "output",
        "patience",
        "phase",
        "sent_at",
        "seq",
        "timeout",
    )

    def __init__(self, life: Life, client: str, seq: int, phase: int, *, is_ask: bool) -> None:
        self.life = life
        """To which it was sent."""
        self.client = client
        self.seq = seq
        self.phase = phase
        self.is_ask = is_ask
        self.timeout: float | None = None
        self.patience: float | None = None
        """After so many seconds its sender is cancelled."""
        self.sent_at = 0.0
        self.ended_at = 0.0
        self.ending: Ending | None = None
        self.at_once = False
        """Whether that was in the very step in which it was sent."""
        self.output: StageOutput | None = None
        self.error: BaseException | None = None
        self.key = ""
        """Its idempotency key."""
        self.deliveries: list[Delivery] = []
        self.letters: list[str] = []

    @property
    def may_wait(self) -> bool:
        """Whether it may stand in the mailbox, or its sender before it, as far as one knows from outside."""
        last = self.deliveries[-1].end if self.deliveries else End.RAISED
        spent = len(self.deliveries) >= self.life.actor.plan.max_deliveries
        given_up = self.ending is not None and (self.is_ask or self.ending is not Ending.TOLD)
        return not (given_up or spent or last in (None, End.RETURNED) or not FINAL_LETTERS.isdisjoint(self.letters))

    def __str__(self) -> str:
        what = "ask" if self.is_ask else "tell"
        ends = ", ".join("under way" if each.end is None else each.end.value for each in self.deliveries)
        ending = "under way" if self.ending is None else self.ending.value
        return (
            f"{what} {self.seq} of client {self.client} to {self.life.actor.plan.path} (life {self.life.number}): "
            f"{ending}; handled: {ends or 'never'}; letters: {', '.join(self.letters) or 'none'}"
            f"; from {self.sent_at:.4f} to {self.ended_at:.4f}"
        )


@final
class Life:
    """An actor from one spawn to its end."""

    def __init__(self, actor: Actor, number: int, depends_on: tuple[str, ...]) -> None:
        self.actor = actor
        self.number = number
        self.depends_on = depends_on
        self.ref: ActorRef | None = None
        self.place: int | None = None
        """In the order in which its supervisor spawned all; -1 where its start failed, None where it was refused."""
        self.inside = 0
        """How many messages are being handled."""
        self.entered = 0
        self.left = 0
        self.instances: dict[Instance, None] = {}
        """Those that are up."""
        self.is_stopping = False
        """Whether it was told to stop for good."""
        self.is_over = False
        self.is_settled = False
        """Whether it was up and idle when all was over."""
        self.open: set[Mail] = set()
        """Messages to it that may wait in its mailbox, and some that do not any more."""

    def __str__(self) -> str:
        return f"{self.actor.plan.path} (life {self.number})"


@final
class Actor:
    """One name, whoever bears it."""

    def __init__(self, world: World, plan: ActorPlan) -> None:
        self.world = world
        self.plan = plan
        self.rng = random.Random(f"{world.plan.seed} {plan.path}")
        self.lives: list[Life] = []
        self.mails: dict[tuple[str, int], Mail] = {}
        self.handled: list[Mail] = []
        """Every delivery, in order."""
        self.floods = itertools.count()
        self.life: Life
        """The latest that came up."""

    def post(self, client: str, seq: int, *, is_ask: bool) -> Mail:
        """Take down a message that is about to be sent."""
        mail = Mail(self.life, client, seq, self.world.phase, is_ask=is_ask)
        self.mails[client, seq] = mail
        mail.life.open.add(mail)
        mail.sent_at = trio.current_time()
        return mail


@final
@attrs.define(eq=False)
class World:
    """All of one seed."""

    plan: ActorsPlan
    actors: dict[str, Actor] = attrs.field(factory=dict)
    supervisors: dict[str, Supervisor] = attrs.field(factory=dict)
    """By path; "" is the one at the top."""
    phase: int = 0
    is_faulty: bool = False
    is_closing: bool = False
    """Whether the supervisor is being left, or clients are to send nothing more."""
    done: int = 0
    """How many asks of the faulty phase are over."""
    problems: list[str] = attrs.field(factory=list)
    events: list[ActorEvent] = attrs.field(factory=list)
    letters: list[DeadLetter] = attrs.field(factory=list)
    dropped: int = 0
    """Events and letters that the streams lost."""
    ledgers: list[ActorLedger] = attrs.field(factory=list)
    """After each phase."""
    crashes: Counter[str] = attrs.field(factory=Counter)
    """What was raised on purpose, by where."""
    left: BaseException | None = None
    """What came out of the supervisor."""
    is_cut: bool = False
    """Whether the supervisor was left before its time."""
    is_caught: bool = False
    """Whether that was because of a cancellation."""
    tasks_left: int = 0
    threads_left: int = 0
    looks: int = 0
    steps: int = 0
    """Of tasks."""

    asked: set[tuple[str, float]] = attrs.field(factory=set)
    """Which actors were to be restarted because somebody asked for it, and when, as events tell the time."""
    stopped: set[tuple[str, float]] = attrs.field(factory=set)
    """Which were told to stop, likewise."""

    def take_letter(self, letter: DeadLetter) -> None:
        """Take down a dead letter."""
        self.letters.append(letter)
        data = letter.snapshot.data
        mail = self.actors[letter.actor].mails.get((data["client"], data["seq"]))
        if mail is None:
            self.note(f"a dead letter that nobody has sent: {letter}")
        else:
            mail.letters.append(letter.reason)

    def note(self, problem: str) -> None:
        """Write down something that must not be."""
        if len(self.problems) < _ENOUGH:
            self.problems.append(problem)

    @property
    def lives(self) -> list[Life]:
        """Of all actors."""
        return [life for actor in self.actors.values() for life in actor.lives]
