"""The stages of the chaos of resident actors, and their restart policies: they do as their messages ask, or harm."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, final

import trio
from actor_plans import STEP, Act, Form, Restarts
from actor_world import Delivery, End, HarmError, Life, Mail

from stageflow_actors import Backoff, Directive, Restart, StageOutput

if TYPE_CHECKING:
    from types import TracebackType

    from stageflow_actors import StageContext

_LONG = 32 * STEP


def make_runner(life: Life) -> Any:
    """Return what is to be spawned."""
    form = life.actor.plan.form
    if form is Form.MANAGED:
        return partial(Managed, life)
    if form is Form.CLASS:
        return partial(Instance, life)
    if form is Form.SHARED:
        return Instance(life)
    if form is Form.THREAD:
        return partial(_handle_in_thread, life)
    return partial(_handle, life, None)


def make_restart(restarts: Restarts) -> Restart | None:
    """Return a restart policy."""
    backoff = Backoff(initial=STEP, factor=2, maximum=8 * STEP, jitter=0)
    if restarts is Restarts.NONE:
        return None
    if restarts is Restarts.FEW:
        return Restart(max_restarts=2, within=1.0, backoff=backoff)
    decide = {Restarts.RESUME: _resume_half, Restarts.CHOOSY: _choose}.get(restarts)
    return Restart(max_restarts=10_000, backoff=backoff, decide=decide)


def _number(error: Exception) -> int:
    return error.number if isinstance(error, HarmError) else 0


def _resume_half(error: Exception) -> Directive:
    return Directive.RESUME if _number(error) % 2 else Directive.RESTART


def _choose(error: Exception) -> Directive:
    number = _number(error) % 10
    return {4: Directive.ESCALATE, 7: Directive.FAIL}.get(number, Directive.RESTART)


class Instance:
    """A stage that is no context manager."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.wound = trio.Event()
        self.is_wounded = False
        """Whether its background task has raised."""
        self.is_up = True

    async def execute(self, ctx: StageContext) -> StageOutput | dict[str, Any] | None:
        return await _handle(self.life, self, ctx)


@final
class Managed(Instance):
    """A stage that is entered and left, and has a background task meanwhile."""

    def __init__(self, life: Life) -> None:
        super().__init__(life)
        self.is_up = False
        self._manager = trio.open_nursery()

    async def __aenter__(self) -> Managed:
        actor, world = self.life.actor, self.life.actor.world
        if actor.plan.enter_takes:
            await trio.sleep(actor.plan.enter_takes)
        if world.is_faulty and actor.rng.random() < actor.plan.enter_fails:
            raise _make_harm(self.life, "__aenter__")
        nursery = await self._manager.__aenter__()
        nursery.start_soon(self._watch)
        self._nursery = nursery
        self.is_up = True
        self.life.entered += 1
        self.life.instances[self] = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        actor, world = self.life.actor, self.life.actor.world
        self.is_up = False
        self.life.left += 1
        self.life.instances.pop(self, None)
        self._nursery.cancel_scope.cancel()
        try:
            return await self._manager.__aexit__(kind, error, traceback)
        finally:
            if world.is_faulty:
                if actor.plan.exit_takes:
                    await trio.sleep(actor.plan.exit_takes)
                if actor.rng.random() < actor.plan.exit_fails:
                    raise _make_harm(self.life, "__aexit__")

    async def _watch(self) -> None:
        await self.wound.wait()
        self.is_wounded = True
        raise _make_harm(self.life, "background")


def _make_harm(life: Life, where: str, *over: Any) -> HarmError:
    world = life.actor.world
    world.crashes[where] += 1
    return HarmError(where, life.actor.plan.path, *over, world.crashes.total())


def _begin(life: Life, instance: Instance | None, ctx: StageContext) -> tuple[Mail, Delivery] | None:
    """Take down that a message is handled; None where it is not one of ours."""
    actor = life.actor
    data = ctx.snapshot.data
    mail = actor.mails.get((data["client"], data["seq"]))
    if mail is None or mail.life is not life or data["path"] != actor.plan.path:
        actor.world.note(f"{life} was given what was not sent to it: {dict(data)}")
        return None
    if ctx.attempt != len(mail.deliveries) + 1:
        actor.world.note(f"delivery {len(mail.deliveries) + 1} is called attempt {ctx.attempt}: {mail}")
    if mail.key and mail.key != ctx.idempotency_key:
        actor.world.note(f"it had the key {mail.key}, and now has {ctx.idempotency_key}: {mail}")
    if instance is not None and not instance.is_up:
        actor.world.note(f"the instance that handles it is not entered: {mail}")
    mail.key = ctx.idempotency_key
    delivery = Delivery(instance, trio.current_time())
    mail.deliveries.append(delivery)
    actor.handled.append(mail)
    if actor.plan.form is not Form.THREAD:  # threads count themselves
        life.inside += 1
    if life.inside > actor.plan.pool:
        actor.world.note(f"{life} handles {life.inside} messages at once, with {actor.plan.pool} workers")
    return mail, delivery


async def _handle(life: Life, instance: Instance | None, ctx: StageContext) -> StageOutput | dict[str, Any] | None:
    begun = _begin(life, instance, ctx)
    if begun is None:
        return None
    mail, delivery = begun
    data = ctx.snapshot.data
    try:
        act = data["act"]
        reply = {"client": mail.client, "seq": mail.seq, "life": life.number}
        output = reply if act is Act.OK else await _act(act, data["takes"], mail, instance, ctx, reply)
    except Exception:
        delivery.end = End.RAISED
        raise
    except BaseException:
        delivery.end = End.CUT
        raise
    else:
        delivery.end = End.RETURNED
        return output
    finally:
        delivery.ended_at = trio.current_time()
        life.inside -= 1


async def _act(
    act: Act, takes: float, mail: Mail, instance: Instance | None, ctx: StageContext, reply: dict[str, Any]
) -> StageOutput | dict[str, Any]:
    """Do what is asked for, if it is more than a reply."""
    if act is Act.REST:
        await trio.lowlevel.checkpoint()
    elif act in (Act.SLEEP, Act.RAISE_LATER):
        await trio.sleep(takes)
    elif act is Act.LONG:
        await trio.sleep(_LONG)
    elif act is Act.WOUND and isinstance(instance, Managed):
        instance.wound.set()
        await trio.sleep(takes)
    return _finish(act, mail, instance, ctx, reply)


def _finish(
    act: Act, mail: Mail, instance: Instance | None, ctx: StageContext, reply: dict[str, Any]
) -> StageOutput | dict[str, Any]:
    raises = act in (Act.RAISE, Act.RAISE_LATER) or (act is Act.RAISE_ONCE and ctx.attempt == 1)
    if raises or (act is Act.WOUND and not isinstance(instance, Managed)):
        raise _make_harm(mail.life, "execute", mail.client, mail.seq, ctx.attempt)
    if act is Act.LEAVE:
        ctx.stop()
    if act is Act.FAIL:
        return StageOutput.fail("as asked", reply)
    if act is Act.RETRY:
        return StageOutput.retry("as asked", reply)
    return StageOutput.cancel("as asked", reply) if act is Act.CANCEL else reply


def _handle_in_thread(life: Life, ctx: StageContext) -> StageOutput | dict[str, Any] | None:
    begun = trio.from_thread.run_sync(_begin, life, None, ctx)
    if begun is None:
        return None
    mail, delivery = begun
    act, takes = ctx.snapshot.data["act"], ctx.snapshot.data["takes"]
    try:
        if act in (Act.SLEEP, Act.RAISE_LATER, Act.LONG):
            until = time.perf_counter() + (takes if act is not Act.LONG else _LONG)
            while time.perf_counter() < until:
                trio.from_thread.check_cancelled()
                time.sleep(0.001)
        output = _finish(act, mail, None, ctx, {"client": mail.client, "seq": mail.seq, "life": life.number})
    except Exception:
        delivery.end = End.RAISED
        raise
    except BaseException:
        delivery.end = End.CUT
        raise
    else:
        delivery.end = End.RETURNED
        return output
    finally:
        delivery.ended_at = time.perf_counter()
