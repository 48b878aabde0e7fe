"""Is a history linearizable? Tried out: every order of every choice of pending operations, without a memory.

The things here are objects that change, the ones that the library's models stand for are functions of states.
"""

from __future__ import annotations

import copy
from collections import deque

import attrs


class Register:
    """A value that is read and written."""

    def __init__(self):
        self.value = 0

    def read(self):
        return self.value

    def write(self, value):
        self.value = value

    def swap(self, old, new):
        if self.value != old:
            return False
        self.value = new
        return True


class Store:
    """Values by key."""

    def __init__(self):
        self.values = {}

    def get(self, key):
        return self.values.get(key)

    def put(self, key, value):
        self.values[key] = value

    def pop(self, key):
        return self.values.pop(key)  # a KeyError, where there is none


class Queue:
    """First in, first out."""

    def __init__(self):
        self.items = deque()

    def push(self, item):
        self.items.append(item)

    def take(self):
        return self.items.popleft() if self.items else None


class Counter:
    """A number that grows."""

    def __init__(self):
        self.number = 0

    def add(self, amount):
        self.number += amount
        return self.number

    def read(self):
        return self.number


THINGS = {"register": Register, "store": Store, "queue": Queue, "counter": Counter}


def do(thing, call):
    """Do what an operation asks for; return what came of it: `("returned", value)` or `("raised", type, args)`."""
    name, *args = call
    try:
        return "returned", getattr(thing, name)(*args)
    except Exception as error:
        return "raised", type(error), error.args


def tell_outcome(operation):
    if operation.error is not None:
        return "raised", type(operation.error), operation.error.args
    return "returned", operation.result


def is_linearizable(thing, operations):
    """Return whether there is an order of all operations that have returned, and of any that have not."""
    if all(each.returned is None for each in operations):
        return True
    for place, each in enumerate(operations):
        others = [*operations[:place], *operations[place + 1 :]]
        if any(other.returned is not None and other.returned < each.invoked for other in others):
            continue
        changed = copy.deepcopy(thing)
        outcome = do(changed, each.call)
        if (each.returned is None or outcome == tell_outcome(each)) and is_linearizable(changed, others):
            return True
    return False


def forget(operation):
    """Return an operation as a pending one."""
    return attrs.evolve(operation, result=None, returned=None, error=None)


def is_violated(thing, operations, kept):
    """Return whether some of the operations cannot be linearized although all others count as pending."""
    ids = {id(each) for each in kept}
    return not is_linearizable(thing, [each if id(each) in ids else forget(each) for each in operations])
