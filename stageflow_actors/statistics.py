"""What runs, limiters and resident actors count: one frozen value each, of one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs

from ._validation import count

if TYPE_CHECKING:
    from collections.abc import Mapping


@final
@attrs.frozen
class RunStatistics:
    """How many stages of a run are in which state, at one moment."""

    total: int
    pending: int
    running: int
    restarting: int
    ok: int
    skipped: int
    failed: int
    isolated: int
    cancelled: int
    abandoned: int

    @property
    def ended(self) -> int:
        """How many have their final state."""
        return self.total - self.pending - self.running - self.restarting


@final
@attrs.frozen
class LimiterStatistics:
    """What a limiter holds, and what it has done since it was made."""

    max_concurrency: int
    running: int
    """How many it has admitted that have not given their slot back."""
    queued: int
    """How many wait."""
    admitted: int
    rejected: int
    """How many `overflow="reject"` has refused."""
    dropped: int
    """How many `drop_oldest` has dropped and `drop_newest` has refused."""


@final
@attrs.frozen
class ActorLedger:
    """The conservation of messages to resident actors: each that was accepted ends in exactly one way.

    What is below `poison` stands outside of the balance.
    """

    accepted: int = 0
    """Messages that a mailbox took in, or a worker at once."""
    replied: int = 0
    """The actor returned an output, of whatever status."""
    failed: int = 0
    """The actor raised, broke the contract or was abandoned."""
    cancelled: int = 0
    """Withdrawn by its asker before the actor began with it, or stopped in the actor's hand."""
    overflow: int = 0
    """Dead letters: dropped from a full mailbox."""
    stopped: int = 0
    """Dead letters: still queued when the actor ended for good."""
    poison: int = 0
    """Dead letters: delivered as often as it may be, and the actor failed each time."""
    late_reply: int = 0
    """Replies whose asker had given up."""
    no_recipient: int = 0
    """Messages that were sent to an actor which had ended, or which waited for room when it did."""
    rejected: int = 0
    """Messages that a full mailbox refused."""

    @property
    def pending(self) -> int:
        """How many were accepted and have not ended: queued, or in hand."""
        ended = self.replied + self.failed + self.cancelled + self.overflow + self.stopped + self.poison
        return self.accepted - ended

    @property
    def balanced(self) -> bool:
        """Whether every message has ended, in exactly one way."""
        return self.pending == 0

    def __str__(self) -> str:
        """Return the account for a person; what is zero is left out."""
        names = [field.name for field in attrs.fields(ActorLedger)]
        told = {name: f"{getattr(self, name):,} {name.replace('_', ' ')}" for name in names if getattr(self, name)}
        ended = [told[name] for name in names[1:_BALANCED] if name in told]
        beside = [told[name] for name in names[_BALANCED:] if name in told]
        pending = [f"{self.pending:,} pending"] if self.pending else []
        text = f"{self.accepted:,} accepted = {' + '.join([*ended, *pending]) or '0'}"
        return f"{text}; {', '.join(beside)}" if beside else text

    def __add__(self, other: ActorLedger) -> ActorLedger:
        """Return the sums."""
        names = [field.name for field in attrs.fields(ActorLedger)]
        return ActorLedger(*(getattr(self, name) + getattr(other, name) for name in names))


_BALANCED = 7
"""So many fields of a ledger are in the balance."""


@final
@attrs.frozen
class ActorStatistics:
    """What a resident actor has and has done, at one moment."""

    pool: int
    """How many workers it is to have."""
    workers: int
    """How many of these are up: all, but for restarts."""
    idle: int
    """How many of those wait for a message."""
    queued: int
    """Messages in its mailbox."""
    blocked: int
    """Senders that wait for room in it."""
    restarts: int
    """How often a worker of it was restarted, for whatever reason."""
    ledger: ActorLedger

    def __str__(self) -> str:
        """Return it for a person."""
        told = [f"{self.workers} of {count(self.pool, 'worker')} up", f"{self.queued:,} queued"]
        if self.blocked:
            told.append(f"{count(self.blocked, 'sender')} blocked")
        if self.restarts:
            told.append(count(self.restarts, "restart"))
        return f"{', '.join(told)}; {self.ledger}"


@final
@attrs.frozen
class SupervisorStatistics:
    """What a supervisor has, at one moment: its actors, and the supervisors below it."""

    runs: int
    """Runs that go on, queued ones included."""
    restarts: int
    """How often the supervisor above has restarted it."""
    actors: Mapping[str, ActorStatistics]
    """By name, in the order of spawning."""
    supervisors: Mapping[str, SupervisorStatistics]
    """By name, in the order of spawning."""
    ledger: ActorLedger
    """Of all messages to actors since it was opened, those below and those that have ended included."""

    def __str__(self) -> str:
        """Return the tree, a line for each of its members."""
        return "\n".join(self._list_lines("supervisor", ""))

    def _list_lines(self, name: str, indent: str) -> list[str]:
        told = [count(self.runs, "run")]
        if self.restarts:
            told.append(count(self.restarts, "restart"))
        lines = [f"{indent}{name}: {', '.join(told)}; {self.ledger}"]
        lines += [f"{indent}  {actor}: {statistics}" for actor, statistics in self.actors.items()]
        for below, statistics in self.supervisors.items():
            lines += statistics._list_lines(f"supervisor {below}", f"{indent}  ")  # noqa: SLF001 (its own class)
        return lines
