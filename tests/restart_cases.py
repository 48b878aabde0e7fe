"""What the tests of restarts share: flaky stages, every way in which an attempt can end, and every policy."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from stageflow_actors import (
    Backoff,
    Directive,
    Intensity,
    Pipeline,
    StageFailedError,
    StageOutput,
    StageState,
    StageTimeoutError,
    Supervisor,
)
from stageflow_actors.errors import (
    NotFreezableError,
    NurseryLeftOpenError,
    StageReturnTypeError,
    UndeclaredDependencyError,
)

ONE_SECOND = Backoff(initial=1.0, factor=1.0, jitter=0.0)
NO_DELAY = Backoff(initial=0.0)


class Abort(BaseException):
    """What is no `Exception`."""


async def nothing(ctx):
    pass


def failing(times, took=0.0):
    """Return a stage that fails so many times, each after `took` seconds."""

    async def run(ctx):
        await trio.sleep(took)
        if ctx.attempt <= times:
            raise ConnectionError(f"down {ctx.attempt}")
        return {"attempt": ctx.attempt}

    return run


def times_of(attempts):
    return [(attempt.number, attempt.started, attempt.ended) for attempt in attempts]


def errors_of(attempts):
    return [None if attempt.error is None else str(attempt.error) for attempt in attempts]


async def run_one(runner, *, chances=(1.0,), intensity=None, **options):
    """Run one stage and return the result; `chances` are the random numbers, the last of them for ever."""
    left = list(chances)
    async with Supervisor(random=lambda: left.pop(0) if len(left) > 1 else left[0]) as supervisor:
        pipeline = Pipeline("p").with_stage("a", runner, **options)
        return await supervisor.run(pipeline, continue_on_failure=True, intensity=intensity)


# How an attempt ends


@attrs.frozen(kw_only=True)
class Ending:
    runner: Any
    state: StageState = StageState.FAILED
    """What the stage's own reply makes of it; FAILED where a policy is asked."""
    error: type[BaseException] | None = None
    leaves: tuple[type[BaseException], ...] = ()
    """Those of a group."""
    asks: bool = True
    """Whether the policy's functions are asked what to do."""
    final: bool = False
    """Whether no policy restarts it."""
    timeout: float | None = None
    stop_at: float | None = None
    """When the run is cancelled from outside."""
    raises_late: bool = False
    """Whether it raises because it was cancelled."""
    backoff: Backoff | None = None
    threaded: bool = False


def reply(output):
    async def run(ctx):
        return output

    return run


def raising(make):
    async def run(ctx):
        raise make()

    return run


def plain(function):
    def run(ctx):
        return function()

    return run


def throw(error):
    raise error


async def forever(ctx):
    await trio.sleep_forever()


async def ask_a_stranger(ctx):
    ctx.inputs.output("stranger")


async def leave_nursery_open(ctx):
    await trio.open_nursery().__aenter__()


async def clean_up_badly(ctx):
    try:
        await trio.sleep_forever()
    finally:
        raise OSError("in cleanup")


async def fail_in_a_nursery(ctx):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        raise ConnectionResetError("reset")


class BadEnter:
    async def __aenter__(self):
        raise ConnectionRefusedError("in __aenter__")

    async def __aexit__(self, *exc):
        pytest.fail("left, though never entered")

    async def execute(self, ctx):
        pytest.fail("executed, though never entered")


class BadExit:
    async def __aenter__(self):
        pass

    async def __aexit__(self, *exc):
        raise ConnectionAbortedError("in __aexit__")

    async def execute(self, ctx):
        return {}


class BadInit:
    def __init__(self):
        raise ConnectionError("in __init__")

    async def execute(self, ctx):
        pytest.fail("executed, though never made")


def circle():
    found = []
    found.append(found)
    return {"circle": found}


def group(*errors):
    return lambda: ExceptionGroup("several", [error("boom") for error in errors])


OK, SKIPPED, CANCELLED = StageState.OK, StageState.SKIPPED, StageState.CANCELLED

ENDINGS = {
    "ok": Ending(runner=nothing, state=OK),
    "skip": Ending(runner=reply(StageOutput.skip("idle")), state=SKIPPED),
    "cancel": Ending(runner=reply(StageOutput.cancel("enough")), state=CANCELLED),
    "fail": Ending(runner=reply(StageOutput.fail("no")), error=StageFailedError, final=True),
    "fail with a listed error": Ending(
        runner=reply(StageOutput.fail(ConnectionError("no"))), error=StageFailedError, final=True
    ),
    "retry": Ending(runner=reply(StageOutput.retry("later")), error=StageFailedError, asks=False),
    "listed": Ending(runner=raising(lambda: ConnectionResetError("reset")), error=ConnectionResetError),
    "unlisted": Ending(runner=raising(lambda: ValueError("boom")), error=ValueError),
    "group of listed": Ending(
        runner=raising(group(ConnectionResetError, BrokenPipeError)),
        error=ExceptionGroup,
        leaves=(ConnectionResetError, BrokenPipeError),
    ),
    "mixed group": Ending(
        runner=raising(group(ConnectionResetError, ValueError)),
        error=ExceptionGroup,
        leaves=(ConnectionResetError, ValueError),
    ),
    "group of a nursery": Ending(runner=fail_in_a_nursery, error=ExceptionGroup, leaves=(ConnectionResetError,)),
    "timeout": Ending(runner=forever, timeout=1.0, error=StageTimeoutError),
    "wrong type": Ending(runner=reply(3), error=StageReturnTypeError, final=True),
    "not freezable": Ending(runner=plain(circle), error=NotFreezableError, final=True, threaded=True),
    "undeclared dependency": Ending(runner=ask_a_stranger, error=UndeclaredDependencyError, final=True),
    "nursery left open": Ending(runner=leave_nursery_open, error=NurseryLeftOpenError, final=True),
    "contract error in a group": Ending(
        runner=raising(lambda: ExceptionGroup("several", [ConnectionError("boom"), StageReturnTypeError("odd")])),
        error=ExceptionGroup,
        final=True,
    ),
    "BaseException": Ending(runner=raising(Abort), error=Abort, final=True),
    "cancelled run": Ending(runner=forever, state=CANCELLED, stop_at=0.5),
    "cancelled run, bad cleanup": Ending(runner=clean_up_badly, error=OSError, stop_at=0.5, raises_late=True),
    "cancelled during backoff": Ending(
        runner=raising(lambda: ConnectionResetError("reset")),
        error=ConnectionResetError,
        stop_at=0.5,
        backoff=Backoff(initial=1.0),
    ),
    "__init__": Ending(runner=BadInit, error=ConnectionError),
    "__aenter__": Ending(runner=BadEnter, error=ConnectionRefusedError),
    "__aexit__": Ending(runner=BadExit, error=ConnectionAbortedError),
    "thread, ok": Ending(runner=plain(dict), state=OK, threaded=True),
    "thread, retry": Ending(
        runner=plain(lambda: StageOutput.retry("later")), error=StageFailedError, asks=False, threaded=True
    ),
    "thread, listed": Ending(
        runner=plain(lambda: throw(ConnectionResetError("reset"))), error=ConnectionResetError, threaded=True
    ),
    "thread, unlisted": Ending(runner=plain(lambda: throw(ValueError("boom"))), error=ValueError, threaded=True),
    "thread, wrong type": Ending(runner=plain(lambda: 3), error=StageReturnTypeError, final=True, threaded=True),
    "thread, BaseException": Ending(runner=plain(lambda: throw(Abort())), error=Abort, final=True, threaded=True),
}


# What a policy says


@attrs.frozen(kw_only=True)
class Policy:
    options: dict[str, Any] | None = attrs.field(factory=dict)
    """Of its `Restart`; None for none at all."""
    intensity: Intensity | None = None
    budget: int = 3
    """How many restarts there can be."""
    listed: tuple[type[BaseException], ...] | None = None
    """On what it restarts; None for everything."""
    looks_inside: bool = True
    """Whether it judges a group by its leaves."""
    says: Directive | None = None
    """What it says of every error, instead."""
    raises: type[BaseException] | None = None
    """What its function raises, or is refused with."""
    cancels: bool = False
    """Whether its function cancels the run."""
    who: str = "it failed"
    """Whose budget is spent, as the error says."""


def is_broken(error):
    return isinstance(error, ConnectionError)


def always(answer):
    return lambda error: answer


LISTED = (ConnectionError,)

POLICIES = {
    "none": Policy(options=None, budget=0),
    "no restarts": Policy(options={"max_restarts": 0}, budget=0),
    "default": Policy(),
    "window": Policy(options={"max_restarts": 2, "within": 60.0}, budget=2),
    "on": Policy(options={"on": ConnectionError}, listed=LISTED),
    "on several": Policy(options={"on": (KeyError, ConnectionError)}, listed=LISTED),
    "on predicate": Policy(options={"on": is_broken}, listed=LISTED, looks_inside=False),
    "on raises": Policy(options={"on": lambda error: throw(LookupError("odd"))}, raises=LookupError),
    "decide restart": Policy(options={"on": KeyError, "decide": always(Directive.RESTART)}, says=Directive.RESTART),
    "decide fail": Policy(options={"decide": always(Directive.FAIL)}, says=Directive.FAIL),
    "decide escalate": Policy(options={"decide": always(Directive.ESCALATE)}, says=Directive.ESCALATE),
    "decide raises": Policy(options={"decide": lambda error: throw(LookupError("odd"))}, raises=LookupError),
    "decide aborts": Policy(options={"decide": lambda error: throw(Abort())}, raises=Abort),
    "decide nonsense": Policy(options={"decide": always(True)}, raises=StageReturnTypeError),
    "decide nothing": Policy(options={"decide": always(None)}, raises=StageReturnTypeError),
    "decide cancels": Policy(says=Directive.RESTART, cancels=True),
    "intensity spent": Policy(intensity=Intensity(1), budget=1, who="the run has had"),
    "intensity of none": Policy(intensity=Intensity(0, within=60.0), budget=0, who="the run has had"),
    "intensity to spare": Policy(options={"max_restarts": 1}, intensity=Intensity(5), budget=1),
}
