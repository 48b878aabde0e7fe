"""Random programs for the reduction as text: nested statements over variables, containers, and trio's primitives.

What `dpor_programs` draws puts ready-made acts after one another; here the statements themselves are drawn, so that
what is read in one place and written in another meets in every way: in branches, loops, handlers and expressions.
"""

from __future__ import annotations

import random
import sys
import types

import attrs

INDENT = "    "

PRELUDE = """\
import trio
from trio.lowlevel import checkpoint

G = 0


async def later(value):
    await checkpoint()
    return value


def tell(error):
    if isinstance(error, BaseExceptionGroup):
        return tuple(map(tell, error.exceptions))
    return (type(error).__name__, str(error))


async def program():
    global G

    class Thing:
        def __init__(self):
            self.n = 0
            self.other = None

    G = a = b = 0
    items, table, thing = [1, 2], {"k": 0}, Thing()
    alias = items
    lock, event, scope = trio.Lock(), trio.Event(), trio.CancelScope()
    semaphore, limiter, condition = trio.Semaphore(1), trio.CapacityLimiter(1), trio.Condition()
    send, receive = trio.open_memory_channel(1)
    nursery = None
    seen = [[] for _ in range(TASKS)]

    async def put(value):
        nonlocal a
        before = b
        await checkpoint()
        a = value
        return before

    def bump():
        thing.n += 1
        return thing.n

"""

FINALE = """\
    ended = None
    try:
        async with trio.open_nursery() as nursery:
            for task in range(TASKS):
                nursery.start_soon(WALKS[task], name=f"t{task}")
    except BaseException as error:
        ended = tell(error)
    return repr((ended, seen, a, b, G, items, table, thing.n, event.is_set(), scope.cancel_called))
"""

SHARED = "a, b, items, alias, thing, event, send, receive"
PLACES = ("a", "b", "G", 'table["k"]', "table[NAME]", "thing.n", "items[0]", "alias[-1]")
VALUES = (
    "a",
    "b",
    "G",
    "len(items)",
    "sum(items)",
    'table.get("k", 0)',
    "len(table)",
    "thing.n",
    "mine",
    "mine",
    "1",
    "5",
    "event.is_set()",
    "lock.locked()",
    "scope.cancel_called",
    "scope.cancelled_caught",
    "semaphore.value",
    "limiter.available_tokens",
    "send.statistics().current_buffer_used",
    "len(nursery.child_tasks)",
    "trio.current_time()",
    "(items[-1] if items else 0)",
    "max((x for x in alias), default=0)",
)
PLAIN = (
    "PLACE = VALUE",
    "PLACE = VALUE",
    "PLACE += VALUE",
    "PLACE += await later(1)",
    "mine = VALUE",
    "mine = VALUE + await later(VALUE)",
    "see(VALUE)",
    "see(VALUE)",
    "items.append(VALUE)",
    "items.append(await later(VALUE))",
    "items.pop(0) if items else None",
    'table.pop("k", None)',
    "alias.insert(0, NUMBER)",
    "items = [*items]",
    "see(bump())",
    "mine = await put(VALUE)",
    "event.set()",
    "scope.cancel()",
    "scope.shield = not scope.shield",
    "event = trio.Event()",
    "await trio.sleep(1)",
    "raise ValueError(VALUE)",
    "send.send_nowait(VALUE)",
    "see(receive.receive_nowait())",
    "await send.send(VALUE)",
    "see(await receive.receive())",
    "await event.wait()",
    "await trio.sleep(0.5)",
    "await trio.sleep(2)",
    "scope.deadline = trio.current_time() + 1",
    "scope.deadline = VALUE",
    "nursery.cancel_scope.cancel()",
    "nursery.start_soon(put, VALUE)",
    "limiter.total_tokens += 1",
    "semaphore.release()",
    "thing, alias = Thing(), list(alias)",
    "Thing.n = VALUE",
    "setattr(Thing, 'extra', VALUE)",
    "see(getattr(thing, 'extra', None))",
    "send, receive = trio.open_memory_channel(0)",
    "send.close()",
    "thing = Thing()",
    "thing.other = items",
    "see(len(thing.other or ()))",
)
PAUSE = "await checkpoint()"
AROUND = (
    "if VALUE:",
    "if VALUE:",
    "async with lock:",
    "async with semaphore:",
    "async with limiter:",
    "async with condition:",
    "with trio.move_on_after(1):",
    "with scope:",
    "with trio.CancelScope(shield=True):",
    "for mine in items[:2]:",
    "for mine in alias:",
    "for mine in range(2):",
    "if (mine := VALUE) != VALUE:",
)


@attrs.frozen
class Text:
    """A program as text."""

    source: str

    def __str__(self):
        return self.source

    def load(self):
        """Return its function."""
        module = types.ModuleType("a_drawn_program")
        module.__file__ = f"{module.__name__}.py"
        sys.modules[module.__name__] = module
        exec(compile(self.source, "a_drawn_program.py", "exec"), vars(module))
        return module.program


class Writer:
    """Writes the statements of a task."""

    def __init__(self, rng, number):
        self.rng = rng
        self.number = number

    def fill(self, text):
        """Put values and places into a statement."""
        while "VALUE" in text:
            text = text.replace("VALUE", self.rng.choice(VALUES), 1)
        text = text.replace("PLACE", self.rng.choice(PLACES))
        return text.replace("NAME", f'"t{self.number}"').replace("NUMBER", str(10 + self.number))

    def write(self, depth, count):
        """Return so many statements as lines."""
        lines = []
        for _ in range(count):
            pick = self.rng.random()
            if pick < 0.3:
                lines.append(PAUSE)
            elif pick < 0.8 or not depth:
                lines.append(self.fill(self.rng.choice(PLAIN)))
            else:
                lines += self.write_around(depth)
        return lines

    def write_around(self, depth):
        inner = [INDENT + line for line in self.write(depth - 1, self.rng.choice((1, 1, 2)))]
        pick = self.rng.random()
        if pick < 0.2:
            handler = [INDENT + line for line in self.write(depth - 1, 1)]
            how = self.rng.choice(("finally:", "except trio.Cancelled:", "except Exception as error:"))
            if "Cancelled" in how:
                handler.append(f"{INDENT}raise")
            elif "Exception" in how:
                handler.insert(0, f"{INDENT}see(tell(error))")
            return ["try:", *inner, how, *handler]
        if pick < 0.27:
            return self.write_condition(inner)
        if pick < 0.37:
            head = ["async def child():", f"{INDENT}nonlocal {SHARED}, mine", f"{INDENT}global G"]
            return [
                *head,
                *inner,
                "async with trio.open_nursery() as inner:",
                f"{INDENT}inner.start_soon(child)",
                f"{INDENT}mine = 7",
            ]
        head = self.rng.choice(AROUND)
        if "alias" in head:
            inner = [f"{INDENT}if len(alias) > 4:", f"{INDENT}{INDENT}break", *inner]  # what is in it may add to it
        return [self.fill(head), *inner]

    def write_condition(self, inner):
        """Return a wait for a condition, or a word that it holds."""
        if self.rng.random() < 0.5:
            return ["async with condition:", *inner, f"{INDENT}condition.notify()"]
        waits = ["with trio.move_on_after(1):", f"{INDENT}async with condition:"]
        return [*waits, f"{INDENT}{INDENT}await condition.wait()", *(INDENT + line for line in inner)]


def draw_text(seed, *, tasks=(2, 2, 2, 3), statements=(2, 3, 4)):
    """Return a random program."""
    rng = random.Random(seed)
    count = rng.choice(tasks)
    body = []
    for number in range(count):
        writer = Writer(rng, number)
        lines = writer.write(2, rng.choice(statements) if count == 2 else 2)
        if rng.random() < 0.4:  # what it raises does not end the others
            caught = ["except Exception as error:", f"{INDENT}see(tell(error))"]
            lines = ["try:", *(INDENT + line for line in lines), *caught]
        head = [
            f"async def walk_{number}():",
            f"{INDENT}nonlocal {SHARED}",
            f"{INDENT}global G",
            f"{INDENT}mine, see = 0, seen[{number}].append",
        ]
        body += [INDENT + line for line in [*head, *(INDENT + line for line in lines)]] + [""]
    walks = ", ".join(f"walk_{number}" for number in range(count))
    text = PRELUDE + "\n".join(body) + "\n" + FINALE
    return Text(text.replace("TASKS", str(count)).replace("WALKS", f"[{walks}]"))
