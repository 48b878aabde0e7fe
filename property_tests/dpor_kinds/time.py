"""Cancel scopes, deadlines, and the clock."""

from __future__ import annotations

import contextlib
import math

import trio
from trio.lowlevel import checkpoint

from property_tests.dpor_programs import World


def cancelled_by_others():
    """A scope that another cancels, before it is entered, inside of it, or after; and shields within it."""
    scope = trio.CancelScope()
    log = []

    async def cancel(me):
        await checkpoint()
        scope.cancel()

    async def enter(me):
        if log:
            me.see("too late")
            return
        log.append(me.name)
        await checkpoint()
        with scope:
            log.append("in")
            await checkpoint()
            log.append("through")
        me.see(scope.cancelled_caught)

    async def look(me):
        me.see(scope.cancel_called)
        await checkpoint()
        me.see(scope.cancelled_caught)

    async def shielded(me):
        with scope if not log else contextlib.nullcontext():
            log.append(me.name)
            with trio.CancelScope(shield=True):
                await checkpoint()
                log.append("shielded")
            await checkpoint()
            log.append("after the shield")

    return World((cancel, enter, look, shielded), lambda: (log, scope.cancel_called, scope.cancelled_caught))


def shields():
    """A shield that others put up and take down, and scopes in scopes."""
    outer, inner = trio.CancelScope(), trio.CancelScope()
    log = []

    async def work(me):
        if log:
            return
        log.append(me.name)
        with outer, inner:
            await checkpoint()
            log.append("one")
            await checkpoint()
            log.append("two")
        me.see((outer.cancelled_caught, inner.cancelled_caught))

    async def protect(me):
        await checkpoint()
        inner.shield = True

    async def expose(me):
        await checkpoint()
        me.see(inner.shield)
        inner.shield = False

    async def cancel_outer(me):
        outer.cancel()
        await checkpoint()

    async def cancel_inner(me):
        await checkpoint()
        inner.cancel()

    return World((work, protect, expose, cancel_outer, cancel_inner), lambda: log)


def sleepers():
    """Sleeps of equal and of different length, and who reads the clock."""
    log = []

    async def one(me):
        await trio.sleep(1)
        log.append((me.name, trio.current_time()))

    async def two(me):
        await trio.sleep(2)
        log.append((me.name, "two"))

    async def now(me):
        await checkpoint()
        me.see(trio.current_time())

    async def none(me):
        await checkpoint()
        log.append((me.name, "none"))

    return World((one, two, now, none), lambda: log)


def timeouts():
    state = {"n": 0}

    async def move_on(me):
        with trio.move_on_after(1) as scope:
            await checkpoint()
            state["n"] += 1
            await checkpoint()
        me.see((scope.cancelled_caught, state["n"]))

    async def fail(me):
        with trio.fail_after(1):
            await checkpoint()
            state["n"] += 10

    async def nest(me):
        with trio.move_on_after(2) as outer, trio.move_on_after(1) as inner:
            await trio.sleep(3)
        me.see((outer.cancelled_caught, inner.cancelled_caught, trio.current_time()))

    async def look(me):
        await checkpoint()
        me.see(state["n"])

    return World((move_on, fail, nest, look), lambda: state["n"])


def deadlines():
    """Deadlines that others move, and who reads them."""
    scope = trio.CancelScope(deadline=math.inf)
    log = []

    async def work(me):
        if log:
            return
        log.append(me.name)
        with scope:
            await checkpoint()
            await trio.sleep(2)
            log.append("done")
        me.see((scope.cancelled_caught, trio.current_time()))

    async def push(me):
        await checkpoint()
        scope.deadline = trio.current_time() + 1

    async def off(me):
        await checkpoint()
        scope.deadline = math.inf

    async def past(me):
        scope.deadline = -1
        await checkpoint()

    async def look(me):
        await checkpoint()
        me.see((scope.deadline, trio.current_effective_deadline()))

    return World((work, push, off, past, look), lambda: log)


def flags():
    """Loops of checkpoints until somebody has set a flag, or the time has come."""
    state = {"ready": False}

    async def wait(me):
        for turn in range(3):
            if state["ready"]:
                me.see(turn)
                return
            await checkpoint()
        me.see("gave up")

    async def ready(me):
        await checkpoint()
        state["ready"] = True

    async def until(me):
        with trio.move_on_after(1):
            while not state["ready"]:  # noqa: ASYNC110 (on purpose)
                await trio.sleep(0.6)
        me.see(trio.current_time())

    return World((wait, ready, until), lambda: state["ready"])


def around_cancelled():
    """Who catches what cancels it, and what it does then."""
    scope = trio.CancelScope()
    log = []

    async def stubborn(me):
        if log:
            return
        with scope:
            log.append(me.name)
            try:
                await checkpoint()
                log.append("fine")
            except trio.Cancelled:
                log.append("cancelled")
                raise
            finally:
                log.append("left")
                await checkpoint()
                log.append("not if cancelled")

    async def in_children(me):
        if log:
            return
        log.append(me.name)
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(note, "child", name=f"{me.name} child")
                await checkpoint()
                log.append("parent")

    async def note(what):
        await checkpoint()
        log.append(what)

    async def cancel(me):
        scope.cancel()
        await checkpoint()

    async def stop_all(me):
        await checkpoint()
        me.nursery.cancel_scope.cancel()

    async def ask(me):
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        finally:
            log.append("asked")

    return World((stubborn, in_children, cancel, stop_all, ask), lambda: log)


KINDS = (
    cancelled_by_others,
    shields,
    sleepers,
    timeouts,
    deadlines,
    flags,
    around_cancelled,
)
