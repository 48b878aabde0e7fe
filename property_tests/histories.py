"""Histories that a random number makes: right ones, ones with a wrong result, and ones that are wrong in the order."""

from __future__ import annotations

from operator import itemgetter

from stageflow_actors.testing import Model, Operation

from .linearizability_oracle import THINGS, do


def register(value, call):
    match call:
        case ("read",):
            return value, value
        case ("write", new):
            return None, new
        case ("swap", old, new):
            return (True, new) if value == old else (False, value)


def store(values, call):
    match call:
        case ("get", key):
            return values.get(key), values
        case ("put", key, value):
            return None, {**values, key: value}
        case ("pop", key):
            if key not in values:
                return KeyError(key), values
            return values.pop(key), values


def queue(items, call):
    match call:
        case ("push", item):
            return None, (*items, item)
        case ("take",):
            return (items[0], items[1:]) if items else (None, items)


def counter(number, call):
    match call:
        case ("add", amount):
            return number + amount, number + amount
        case ("read",):
            return number, number


def accept(values, operation):
    """Accept what `store` does, as the other form of a model."""
    reply, after = store(values, operation.call)
    if operation.pending:
        return [after]
    if operation.error is not None:
        return [after] if isinstance(reply, KeyError) else []
    return [after] if not isinstance(reply, KeyError) and reply == operation.result else []


MODELS = {
    "register": (Model(register, 0),),
    "store": (
        Model(store, {}, partition=itemgetter(1)),
        Model(store, {}),
        Model(initial={}, accepts=accept, partition=itemgetter(1)),
    ),
    "queue": (Model(queue, ()),),
    "counter": (Model(counter, 0),),
}


def draw_call(random, kind, number):
    """Return a call; most of what is written is written once."""
    value = random.choice([number, random.randrange(3)])
    return random.choice(
        {
            "register": [("read",), ("read",), ("write", value), ("swap", random.randrange(3), value)],
            "store": [("get", "a"), ("get", "b"), ("put", "a", value), ("put", "b", value), ("pop", "a")],
            "queue": [("push", value), ("take",)],
            "counter": [("add", random.choice([1, 1, 2])), ("read",)],
        }[kind]
    )


def draw_history(random, *, most=7):
    """Return a kind of thing and operations on it.

    Each takes effect in a moment between its ends. In some histories a result is another one's, in some a moment lies
    outside, as where a cache answers or a write comes late; in some operations are pending.
    """
    kind = random.choice(list(THINGS))
    clients = random.randrange(1, 5)
    strays, lies, hangs = (random.choice(shares) for shares in ([0.0, 0.4, 0.8], [0.0, 0.2, 0.6], [0.0, 0.0, 0.3]))
    free_at = [0.0] * clients
    length = random.choice([0.5, 2.0, 2.0, 4.0])
    is_rough = random.random() < 0.2  # so that some events come at the same time
    plans = []
    for number in range(random.randint(random.choice([1, most - 2]), most)):
        client = random.randrange(clients)
        invoked = free_at[client] + random.random()
        returned = free_at[client] = invoked + random.random() * length
        if is_rough:
            invoked, returned = float(round(invoked)), float(round(returned))
        moment = random.uniform(invoked, returned)
        if random.random() < strays:
            moment += random.uniform(-3, 3)
        plans.append((moment, client, draw_call(random, kind, number + 3), invoked, returned))
    thing = THINGS[kind]()
    drafts = [(plan, do(thing, plan[2])) for plan in sorted(plans)]
    operations = []
    for (_, client, call, invoked, returned), outcome in drafts:
        if random.random() < lies:
            same = [other for plan, other in drafts if plan[2][0] == call[0]]
            outcome = random.choice(same)  # noqa: PLW2901 (what the client is told)
        name = f"client {client}"
        if random.random() < hangs:
            operations.append(Operation(name, call, invoked=invoked))
        elif outcome[0] == "raised":
            error = outcome[1](*outcome[2])
            operations.append(Operation(name, call, invoked=invoked, returned=returned, error=error))
        else:
            operations.append(Operation(name, call, outcome[1], invoked=invoked, returned=returned))
    return kind, sorted(operations, key=lambda each: each.invoked)
