"""The clients of the chaos of resident actors: what they send, with which patience, and how it ends for them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import trio
from actor_plans import PHASES, STEP, Act
from actor_world import Ending, HarmError

from stageflow_actors import AskTimeoutError
from stageflow_actors.errors import (
    ActorDeadError,
    ActorUnavailableError,
    MailboxFullError,
    StageTimeoutError,
    ThreadAbandonedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from actor_world import Actor, Mail, World

_CALM = [Act.OK] * 21 + [Act.REST] * 2 + [Act.SLEEP] * 2
_HARM = [
    *[Act.RAISE] * 6,
    *[Act.RAISE_ONCE] * 3,
    *[Act.RAISE_LATER] * 3,
    *[Act.WOUND] * 4,
    *[Act.LONG, Act.FAIL] * 2,
    *[Act.RETRY, Act.CANCEL, Act.LEAVE],
]
_CALM_TIMEOUT = 60.0
_TELLS = 0.08
"""The share of asks before which a client tells something."""
_ENDINGS: list[tuple[type[BaseException], Ending]] = [
    (HarmError, Ending.FAILED),
    (BaseExceptionGroup, Ending.FAILED),
    (StageTimeoutError, Ending.FAILED),
    (ThreadAbandonedError, Ending.FAILED),
    (AskTimeoutError, Ending.TIMED_OUT),
    (MailboxFullError, Ending.FULL),
    (ActorDeadError, Ending.DEAD),
    (ActorUnavailableError, Ending.UNAVAILABLE),
]


async def be_client(actor: Actor, number: int, count: int, advance: Callable[[], None]) -> None:
    """Send so many asks, one after the other, and tells in between.

    Args:
        actor: To which.
        number: The client's.
        count: How many asks.
        advance: Called after each ask of the faulty phase.
    """
    world = actor.world
    rng = random.Random(f"{world.plan.seed} {actor.plan.path} {number}")
    name = f"{PHASES[world.phase]}-{number}"
    seq = 0
    for _ in range(count):
        chances = [rng.random() for _ in range(5)]
        if chances[0] < _TELLS and not world.is_closing:
            seq += 1
            await _tell(actor, name, seq, chances[1:])
        if world.is_closing:
            return
        seq += 1
        mail = actor.post(name, seq, is_ask=True)
        act, takes = _choose_act(world, *chances[1:3])
        mail.timeout = _CALM_TIMEOUT
        if not world.is_faulty:
            await ask(mail, act, takes)
            continue
        mail.timeout, mail.patience = _choose_patience(*chances[3:])
        await ask(mail, act, takes)
        advance()
        if mail.ending is Ending.DEAD:
            await trio.sleep(2 * STEP)


async def ask(mail: Mail, act: Act, takes: float) -> None:
    """Send a message, and take down how that ends."""
    ref = mail.life.ref
    assert ref is not None
    payload = _make_payload(mail, act, takes)
    world = mail.life.actor.world
    step = world.steps
    try:
        if mail.patience is None:
            mail.output = await ref.ask(payload, timeout=mail.timeout)
        else:
            with trio.move_on_after(mail.patience):
                mail.output = await ref.ask(payload, timeout=mail.timeout)
        mail.ending = Ending.CANCELLED if mail.output is None else Ending.REPLIED
    except Exception as error:
        _take_down(mail, error)
        mail.at_once = world.steps == step
    mail.ended_at = trio.current_time()


async def _tell(actor: Actor, name: str, seq: int, chances: list[float]) -> None:
    act, takes = _choose_act(actor.world, *chances[:2])
    mail = actor.post(name, seq, is_ask=False)
    assert mail.life.ref is not None
    try:
        with trio.CancelScope() as scope:
            if actor.world.is_faulty and chances[2] < 0.1:
                mail.patience = STEP * int(chances[3] * 3)
                scope.deadline = trio.current_time() + mail.patience
            await mail.life.ref.tell(_make_payload(mail, act, takes))
            mail.ending = Ending.TOLD
    except Exception as error:
        _take_down(mail, error)
    mail.ending = mail.ending or Ending.CANCELLED
    mail.ended_at = trio.current_time()


def flood(actor: Actor, count: int, *, harmful: bool) -> None:
    """Tell an actor so many things at once."""
    for _ in range(count):
        if actor.world.is_closing:
            return
        number = next(actor.floods)
        mail = actor.post("flood", number, is_ask=False)
        assert mail.life.ref is not None
        act = Act.RAISE if harmful else _CALM[number % len(_CALM)]
        try:
            mail.life.ref.tell_nowait(_make_payload(mail, act, STEP))
            mail.ending = Ending.TOLD
        except Exception as error:
            _take_down(mail, error)
        mail.ended_at = trio.current_time()


def _choose_act(world: World, harm: float, which: float) -> tuple[Act, float]:
    badness = world.plan.badness if world.is_faulty else 0.0
    acts = _HARM if harm < badness else _CALM
    return acts[int(which * len(acts))], STEP * (1 + int(which * 1000) % 3)


def _choose_patience(which: float, how_long: float) -> tuple[float | None, float | None]:
    """Return the timeout of an ask, and after how many seconds its asker is cancelled."""
    timeout: float | None = 5.0
    if which < 0.06:
        timeout = STEP * (1 + int(how_long * 8))
    elif which < 0.1:
        timeout = 0.001 + how_long / 10
    elif which < 0.13:
        timeout = None
    patience = None
    if 0.13 <= which < 0.17:
        patience = STEP * int(how_long * 4) if how_long < 0.7 else how_long / 20
    return timeout, patience


def _make_payload(mail: Mail, act: Act, takes: float) -> dict[str, Any]:
    return {"path": mail.life.actor.plan.path, "client": mail.client, "seq": mail.seq, "act": act, "takes": takes}


def _take_down(mail: Mail, error: Exception) -> None:
    mail.error = error
    mail.ending = next((ending for kind, ending in _ENDINGS if isinstance(error, kind)), Ending.OTHER)
