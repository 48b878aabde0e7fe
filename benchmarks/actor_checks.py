"""What must hold of the chaos of resident actors: of every message, of every ledger, of every event, and at rest."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from actor_events import NEAR, check_events
from actor_plans import PHASES, Form, Leave, Restarts
from actor_world import FINAL_LETTERS, End, Ending, HarmError, LeftError

from property_tests.problems import leaves
from stageflow_actors.errors import RestartIntensityError, StageTimeoutError, ThreadAbandonedError
from stageflow_actors.statistics import ActorLedger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actor_world import Actor, Life, Mail, World

_GAVE_UP = (Ending.TIMED_OUT, Ending.CANCELLED)
_BALANCE = ("replied", "failed", "cancelled", "overflow", "stopped", "poison")


def look_round(world: World, now: float) -> None:
    """Compare what actors say of themselves with what goes on in them, at a moment at which nothing is left to do.

    It runs inside of trio's loop, where nothing may be raised.
    """
    for actor in world.actors.values():
        life = actor.lives[-1] if actor.lives else None
        if life is None or life.ref is None or life.is_over:
            continue
        has = life.ref.statistics()
        pool, bound = actor.plan.pool, actor.plan.max_queued
        up_and_busy = has.workers - has.idle
        wrong = None
        if not up_and_busy <= life.inside <= pool - has.idle:  # one that leaves may still end what it has in hand
            wrong = f"{life.inside} messages are being handled"
        elif has.idle and (has.queued or has.blocked):
            wrong = "a worker is idle beside messages"
        elif has.blocked and bound is not None and has.queued < bound and has.workers:
            wrong = "senders wait beside room"
        elif bound is not None and has.queued > bound + pool:
            wrong = f"it may keep {bound}"
        elif has.queued + has.blocked > _count_waiting(life):
            wrong = f"{_count_waiting(life)} messages may wait"
        elif not has.queued + life.inside <= has.ledger.pending <= has.queued + pool - has.idle:
            wrong = f"{has.ledger.pending} messages are pending"
        elif life.is_stopping and has.idle and actor.plan.policy != "temporary":  # which may end with others, in order
            wrong = "a worker is idle that is to stop"
        if wrong is not None:
            world.note(f"at {now:g}: {life}: {wrong}: {has}")


def _count_waiting(life: Life) -> int:
    """Return how many messages may wait in a mailbox or before it, at most."""
    life.open = {mail for mail in life.open if mail.may_wait or None in [each.end for each in mail.deliveries]}
    return sum(mail.may_wait for mail in life.open)


def check(world: World) -> list[str]:
    """Return what is wrong with a seed, in words."""
    found = [*world.problems, *_check_ends(world)]
    for actor in world.actors.values():
        for mail in actor.mails.values():
            found += [f"{problem}: {mail}" for problem in _check_mail(world, mail)]
        found += _check_order(actor)
        found += [f"{life}: {problem}" for life in actor.lives for problem in _check_life(life)]
    found += _check_ledgers(world)
    found += check_events(world)
    return found


def _check_ends(world: World) -> Iterator[str]:
    """What is left, and what came out of the supervisor."""
    if world.tasks_left or world.threads_left:
        yield f"{world.tasks_left} tasks and {world.threads_left} threads are left"
    if world.dropped:
        yield f"the streams lost {world.dropped} events"
    left, leave = world.left, world.plan.leave
    raised = [] if left is None else leaves(left)
    expected: tuple[type[BaseException], ...] = ()
    if leave is Leave.GIVING_UP:
        expected = (RestartIntensityError,)
    elif world.is_cut and leave is Leave.RAISING:
        expected = (LeftError,)
        if not any(isinstance(error, LeftError) for error in raised):
            yield f"its body raised, and {left!r} came out of the supervisor"
    elif world.is_cut and not world.is_caught:
        yield f"it was cancelled, and {left!r} came out of the supervisor"
    if any(not isinstance(error, expected) for error in raised):
        yield f"{left!r} came out of the supervisor"


def _check_mail(world: World, mail: Mail) -> Iterator[str]:
    """One message: it ended, once, in time, and was handled as often as it may be."""
    ending, deliveries = mail.ending, mail.deliveries
    plan = mail.life.actor.plan
    if ending is None:
        yield "its sender was never told"
        return
    if ending is Ending.OTHER:
        yield f"its sender got {mail.error!r}"
    if not world.plan.real:
        yield from _check_time(mail)
    if len(deliveries) > plan.max_deliveries:
        yield f"handled {len(deliveries)} times, and may be {plan.max_deliveries} times"
    ends = [each.end for each in deliveries]
    if None in ends:
        yield "its handling has not ended"
    if End.RETURNED in ends[:-1]:
        yield "handled again after it was handled well"
    if len(mail.letters) > 1:
        yield f"it became {len(mail.letters)} dead letters"
    well = ending in (Ending.REPLIED, Ending.TOLD) and not mail.letters and ends == [End.RETURNED]
    if PHASES[mail.phase] != "faulty" and not well:
        yield "no harm was done, and yet"
    if ends:
        yield from _check_cut(world, mail)
    yield from _check_ending(mail, ends)


def _check_cut(world: World, mail: Mail) -> Iterator[str]:
    """What had a message in hand was cancelled for a reason, and where it may be delivered again it was."""
    life, plan = mail.life, mail.life.actor.plan
    calm = world.plan.leave is Leave.NORMALLY and not world.plan.real
    last = mail.deliveries[-1]
    for each in mail.deliveries:
        took = each.ended_at - each.began_at
        wounded = each.instance is not None and each.instance.is_wounded
        if each.end is End.CUT and calm and not wounded and took < plan.shutdown - NEAR:
            yield f"it was cancelled after {took:g} s, with {plan.shutdown:g} s to end"
    again = life.is_settled and plan.restart in (Restarts.NONE, Restarts.BACKOFF) and plan.policy != "temporary"
    again = again and last.end is not End.RETURNED and len(mail.deliveries) < plan.max_deliveries and not mail.letters
    if again and mail.ending in (Ending.FAILED, Ending.UNAVAILABLE, Ending.TOLD):
        yield f"it could have been delivered {plan.max_deliveries} times"


def _check_time(mail: Mail) -> Iterator[str]:
    took = mail.ended_at - mail.sent_at
    if mail.timeout is not None and took > mail.timeout + NEAR:
        yield f"it took {took:g} s, with a timeout of {mail.timeout:g} s"
    if mail.ending is Ending.TIMED_OUT and (mail.timeout is None or took < mail.timeout - NEAR):
        yield f"it timed out after {took:g} s, with a timeout of {mail.timeout} s"
    if mail.patience is not None and took > mail.patience + NEAR:
        yield f"it took {took:g} s, and was cancelled after {mail.patience:g} s"
    if mail.ending is Ending.CANCELLED and mail.patience is None:
        yield "its sender was cancelled by nobody"


def _check_ending(mail: Mail, ends: list[End | None]) -> Iterator[str]:
    """What its sender was told against what became of it."""
    ending, last = mail.ending, ends[-1] if ends else None
    if ending is Ending.REPLIED:
        data = {} if mail.output is None else mail.output.data
        if last is not End.RETURNED:
            yield "its sender has a reply"
        if (data.get("client"), data.get("seq"), data.get("life")) != (mail.client, mail.seq, mail.life.number):
            yield f"its sender has the reply {dict(data)}"
    elif mail.is_ask and last is End.RETURNED and ending not in _GAVE_UP:
        yield "its sender has no reply"
    if ending is Ending.FAILED:
        yield from _check_error(mail, last)
    if ends and ending in (Ending.DEAD, Ending.FULL):
        yield "its sender was told that nobody has begun with it"
    if ending is Ending.FULL and mail.is_ask and mail.at_once is (mail.life.actor.plan.overflow == "drop_oldest"):
        yield "it is not its turn to be dropped"
    if ending is Ending.UNAVAILABLE and last is not End.CUT and mail.life.actor.plan.form is not Form.THREAD:
        yield "its sender was told that it was stopped while it was handled"
    if ending is Ending.DEAD and not {"stopped", "no_recipient"}.intersection(mail.letters):
        yield "it became no dead letter"
    if "late_reply" in mail.letters and (last is not End.RETURNED or ending not in _GAVE_UP):
        yield "a late reply"
    if "late_reply" not in mail.letters and mail.is_ask and last is End.RETURNED and ending in _GAVE_UP:
        yield "its reply came too late, and is no dead letter"
    if last is End.RETURNED and not {"late_reply"}.issuperset(mail.letters):
        yield "handled, and yet a dead letter"


def _check_error(mail: Mail, last: End | None) -> Iterator[str]:
    """The error that a sender got is that of this message or, where that was cut, of the actor itself."""
    assert mail.error is not None
    path = mail.life.actor.plan.path
    for error in leaves(mail.error):
        if isinstance(error, StageTimeoutError) and last is End.CUT:
            continue  # its background task raised, and then its __aexit__ took too long
        if isinstance(error, ThreadAbandonedError) and mail.life.actor.plan.form is Form.THREAD:
            continue  # it has little time to end
        if not isinstance(error, HarmError) or error.path != path:
            yield f"its sender got {mail.error!r}"
        elif error.where == "execute" and (last is not End.RAISED or error.over[:2] != (mail.client, mail.seq)):
            yield f"its sender got the error of another, {error!r}"
        elif error.where != "execute" and last is not End.CUT:
            yield f"its sender got {error!r}"


def _check_order(actor: Actor) -> Iterator[str]:
    """A single worker handles the messages of one client in the order in which it sent them."""
    if actor.plan.pool > 1:
        return
    last: dict[str, Mail] = {}
    for mail in actor.handled:
        before = last.get(mail.client)
        if before is not None and before.seq > mail.seq:
            yield f"handled after number {before.seq} of the same client: {mail}"
        last[mail.client] = mail


def _check_life(life: Life) -> Iterator[str]:
    if life.inside or life.instances or life.entered != life.left:
        yield f"{life.inside} messages are still handled, entered {life.entered} times and left {life.left} times"
    if life.ref is None:
        return
    ledger = life.ref.statistics().ledger
    if not ledger.balanced:
        yield f"its ledger does not balance: {ledger}"
    yield from _compare(life, ledger)


def find_fates(mail: Mail, *, real: bool) -> set[str | None]:
    """Return what the ledger may have counted a message as; None for one that was not accepted.

    Mostly that is one thing. Where a sender gave up in the very moment in which something else happened to the
    message, it is not known from outside which came first.
    """
    plan, ending = mail.life.actor.plan, mail.ending
    last = mail.deliveries[-1] if mail.deliveries else None
    if last is not None and last.end is End.RETURNED:
        return {"replied"}
    final = [letter for letter in mail.letters if letter in FINAL_LETTERS]
    if final:
        return set(final)
    if ending in (Ending.DEAD, Ending.FULL):
        return {None}
    threaded = plan.form is Form.THREAD
    if last is None:
        if mail.is_ask and ending in _GAVE_UP:
            blocked: set[str | None] = {None} if plan.overflow == "wait" else set()
            return {"cancelled", *blocked}
        if not mail.is_ask and ending is Ending.CANCELLED:
            return {None}
        return {"cancelled"} if threaded else {"lost"}
    if mail.is_ask and ending is Ending.FAILED:
        return {"failed"}
    if mail.is_ask and ending is Ending.UNAVAILABLE:
        return {"cancelled"}
    if last.end is End.CUT:
        wounded = last.instance is not None and last.instance.is_wounded
        return {"cancelled", "failed"} if wounded or threaded else {"cancelled"}
    if not mail.is_ask:
        return {"failed"}
    if real or abs(last.ended_at - mail.ended_at) < NEAR:
        return {"failed", "cancelled"}
    return {"failed"} if last.ended_at > mail.ended_at else {"cancelled"}


def _compare(life: Life, ledger: ActorLedger) -> Iterator[str]:
    """Compare an actor's ledger with what its clients and handlers have counted themselves."""
    mails = [mail for mail in life.actor.mails.values() if mail.life is life]
    sure: Counter[str | None] = Counter()
    perhaps: Counter[str | None] = Counter()
    for mail in mails:
        fates = find_fates(mail, real=life.actor.world.plan.real)
        if fates == {"lost"}:
            yield f"lost: {mail}"
        (sure if len(fates) == 1 else perhaps).update(fates)
    for name in _BALANCE:
        counted = getattr(ledger, name)
        if not sure[name] <= counted <= sure[name] + perhaps[name]:
            yield f"{counted} messages are {name} in its ledger, and {sure[name]} to {sure[name] + perhaps[name]} were"
    accepted = len(mails) - sure[None]
    if not accepted - perhaps[None] <= ledger.accepted <= accepted:
        yield f"{ledger.accepted} messages are accepted in its ledger, and {accepted} were at most"
    letters = Counter(letter for mail in mails for letter in mail.letters)
    for name in ("late_reply", "no_recipient"):
        if getattr(ledger, name) != letters[name]:
            yield f"{getattr(ledger, name)} messages are {name} in its ledger, and {letters[name]} dead letters"
    refused = sum(mail.ending is Ending.FULL and not mail.letters for mail in mails)
    if ledger.rejected != refused:
        yield f"{ledger.rejected} messages are rejected in its ledger, and {refused} were"


def _check_ledgers(world: World) -> Iterator[str]:
    """The supervisor's ledger is the sum of its actors', and its dead letters are those of the stream."""
    total = ActorLedger()
    for life in world.lives:
        if life.ref is not None:
            total += life.ref.statistics().ledger
    if total != world.ledgers[-1]:
        yield f"the supervisor's ledger is {world.ledgers[-1]}, and the sum of its actors' is {total}"
    letters: Counter[str] = Counter(letter.reason for letter in world.letters)
    for name in (*FINAL_LETTERS, "late_reply", "no_recipient"):
        if getattr(total, name) != letters[name]:
            yield f"{getattr(total, name)} messages are {name}, and {letters[name]} dead letters"
    for phase, ledger in zip(PHASES, world.ledgers[:-1], strict=False):
        handled = sum(mail.phase <= PHASES.index(phase) for actor in world.actors.values() for mail in actor.handled)
        if ledger != ActorLedger(accepted=handled, replied=handled):
            yield f"after the {phase} phase the ledger is {ledger}, and {handled} messages were handled"
