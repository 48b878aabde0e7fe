"""Programs for asyncio in an order made by hand: one character a step, the number of a task or `t` for the clock.

It is for tests of the corpus only: what tool finds an order is not asked, only what comes of it.
"""

from __future__ import annotations

import asyncio
import time
from unittest import mock

STEPS = 500  # far past the steps of every program that ends
SETTLED = 12  # turns of the loop after which whoever was woken waits for their turn


class ClockLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still until it is made to jump to the next deadline."""

    def __init__(self):
        self.now = 0.0
        self.deadlines = []
        super().__init__()

    def time(self):
        return self.now

    def call_at(self, when, callback, *args, context=None):
        handle = super().call_at(when, callback, *args, context=context)
        self.deadlines.append(handle)
        return handle

    def jump(self):
        """Let the next deadline pass; return whether there was one."""
        left = [handle.when() for handle in self.deadlines if not handle.cancelled() and handle.when() > self.now]
        if left:
            self.now = min(left)
        return bool(left)


class Gated:
    """A task's coroutine, of which each step waits for its turn."""

    def __init__(self, coroutine):
        self._coroutine = coroutine
        self.turn = None
        self.over = False

    def close(self):
        """Give no more turns."""
        self.over = True
        self._coroutine.close()

    def __await__(self):
        send, value = self._coroutine.send, None
        while True:
            self.turn = asyncio.get_running_loop().create_future()
            try:
                yield from self.turn
            except asyncio.CancelledError as error:  # it is delivered at its turn
                if self.over:
                    raise
                send, value = self._coroutine.throw, error
                continue
            finally:
                self.turn = None
            try:
                awaited = send(value)
            except StopIteration:
                return
            send, value = self._coroutine.send, None
            if awaited is not None:
                try:
                    yield awaited
                except asyncio.CancelledError as error:
                    if self.over:
                        raise
                    send, value = self._coroutine.throw, error


async def _go(gate):
    await gate


async def _direct(program, choose):
    """Start the tasks, give the turns, and stop what is left; say how it ended."""
    shared = program()
    gates = [Gated(worker(shared)) for worker in program.workers()]
    tasks = [asyncio.ensure_future(_go(gate)) for gate in gates]
    try:
        return await _give_turns(shared, gates, tasks, choose)
    finally:
        for gate in gates:
            gate.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _give_turns(shared, gates, tasks, choose):
    loop = asyncio.get_running_loop()
    for _ in range(STEPS):
        for _ in range(SETTLED):
            await asyncio.sleep(0)
        if any(task.done() and task.exception() for task in tasks):
            return "exception"
        if all(task.done() for task in tasks):
            return "passed" if shared.holds() else "exception"
        ready = [number for number, gate in enumerate(gates) if gate.turn is not None]
        chosen = choose(ready)
        if chosen in ready:
            gates[chosen].turn.set_result(None)
        elif not (loop.jump() or ready):
            return "hang"
    return "livelock"


def run_in_order(program, choose):
    """Run a program's tasks one step at a time; `choose` is given who can go on, and anything else is the clock.

    Says how it ended: "passed", "exception", "hang" or "livelock".
    """
    loop = ClockLoop()
    with mock.patch.object(time, "monotonic", loop.time), asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(_direct(program, choose))


def follow(order):
    """Choose as an order says, and when it has come to its end, go on with the same task for as long as it can."""
    steps = iter(order)
    last = 0

    def choose(ready):
        nonlocal last
        step = next(steps, None)
        if step == "t":
            return None
        if step is not None:
            assert int(step) in ready, f"task {step} cannot go on, only {ready}"
            last = int(step)
        elif last not in ready:
            last = ready[0] if ready else last
        return last

    return choose


def draw(source):
    """Choose by random numbers, and the clock one time in eight; note the order in `choose.order`."""

    def choose(ready):
        step = source.choice(ready) if ready and source.randrange(8) else None
        choose.order += "t" if step is None else str(step)
        return step

    choose.order = ""
    return choose
