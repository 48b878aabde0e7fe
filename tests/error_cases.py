"""Errors of every kind that travels, for the tests of how they do."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import attrs

from stageflow_actors.errors import StageTimeoutError


def catch(function, *arguments):
    """Return what a function raises."""
    try:
        function(*arguments)
    except BaseException as error:
        return error


def raise_from(error, cause):
    raise error from cause


def dig(depth, error):
    if not depth:
        raise error
    dig(depth - 1, error)


class HTTPError(Exception):
    """Builds its message when it is made."""

    def __init__(self, status):
        self.status = status
        super().__init__(f"HTTP {status}")


class OddError(Exception):
    """Takes what its arguments do not hold."""

    def __init__(self, code, *, reason):
        super().__init__(f"{code}: {reason}")
        self.code = code


class SlottedError(Exception):
    __slots__ = ("__private", "code", "unset")

    def __init__(self, *, code):
        self.code = code
        self.__private = -code

    def __str__(self):
        return f"{self.code} {self.__private}"


class PathError(OSError):
    def __init__(self, path):
        super().__init__(2, "gone", path)


class QuitError(SystemExit):
    def __init__(self, who):
        super().__init__(f"{who} left")
        self.code = 5


class CodeGroup(ExceptionGroup):
    def __new__(cls, message, errors, code):
        made = super().__new__(cls, message, errors)
        made.code = code
        return made

    def derive(self, errors):
        return CodeGroup(self.message, errors, self.code)


class PickledError(Exception):
    """Says itself how it is pickled."""

    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code

    def __reduce__(self):
        return make_pickled_error, (self.code,)


def make_pickled_error(code):
    return PickledError(code=code)


@attrs.frozen(kw_only=True)
class FrozenError(Exception):
    code: int


@dataclasses.dataclass(frozen=True)
class SealedError(Exception):
    """Lets nothing of it be set, nor what Python sets."""

    code: int


def annotate(error):
    error.add_note("seen")
    return error


def import_it():
    from os import nothing_there  # noqa: F401, PLC0415


ERRORS = {
    "message built": HTTPError(500),
    "message changed": annotate(ValueError("a", 1)),
    "keyword": OddError(7, reason="odd"),
    "slots": SlottedError(code=7),
    "attrs": FrozenError(code=7),
    "dataclass": SealedError(7),
    "own way": annotate(PickledError(code=7)),
    "os": OSError(2, "gone", "here", None, "there"),
    "os, subclass": PathError("here"),
    "os, bare": OSError("gone"),
    "blocking": BlockingIOError(11, "busy", 5),
    "syntax": catch(compile, "1 +", "somewhere.py", "exec"),
    "decode": catch(b"caf\xe9".decode),
    "encode": catch("\ud800".encode),
    "exit": SystemExit(3),
    "exit, subclass": QuitError("ada"),
    "stop": StopIteration({"value": 4}),
    "import": catch(import_it),
    "attribute": catch(getattr, SimpleNamespace(), "nothing"),
    "name": catch(eval, "nothing"),
    "key": KeyError("key"),
    "interrupt": KeyboardInterrupt(),
    "memory": MemoryError("full"),
    "ours": StageTimeoutError("late", seconds=3.0, stage="a", hint="wait"),
    "group": ExceptionGroup("g", [HTTPError(500), ExceptionGroup("h", [SlottedError(code=8)])]),
    "group, subclass": CodeGroup("g", [ValueError("a")], 7),
    "group, base": BaseExceptionGroup("g", [SystemExit(3)]),
}
