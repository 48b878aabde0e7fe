"""What can run a stage, how each form is called, and what is refused."""

from __future__ import annotations

import abc
import functools
import sys
import types
from typing import Protocol

import pytest

from stageflow_actors import Pipeline, PipelineValidationError, Stage
from stageflow_actors._stage import RunnerForm, bind_runner, inspect_runner

CLASS = RunnerForm(is_class=True, is_async=True, is_managed=False)
SYNC_CLASS = RunnerForm(is_class=True, is_async=False, is_managed=False)
MANAGED = RunnerForm(is_class=True, is_async=True, is_managed=True)
ASYNC = RunnerForm(is_class=False, is_async=True, is_managed=False)
SYNC = RunnerForm(is_class=False, is_async=False, is_managed=False)


class Score:
    def __init__(self, by="class", *, extra=None):
        self.by = by

    async def execute(self, ctx):
        return {"by": self.by}


class Blocking:
    def execute(self, ctx):
        return {"by": "thread"}


class Managed(Score):
    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return None


class HalfManaged(Score):
    async def __aenter__(self):
        return self


class Static:
    @staticmethod
    async def execute(ctx):
        return {"by": "static"}


class ClassMethod:
    @classmethod
    async def execute(cls, ctx):
        return {"by": cls.__name__}


class AsyncCall:
    async def __call__(self, ctx):
        return {"by": "call"}


class SyncCall:
    def __call__(self, ctx):
        return {"by": "call in a thread"}


class ExecuteIsPartial:
    def __init__(self):
        self.execute = functools.partial(function, by="attribute")


class Optional:
    async def execute(self, ctx, *more, flag=False, **rest):
        return {"by": "optional"}


async def function(ctx, *, by="function"):
    return {"by": by}


def blocking(ctx):
    return {"by": "thread"}


def decorate(wrapped):
    @functools.wraps(wrapped)
    async def wrapper(*args, **kwargs):
        return await wrapped(*args, **kwargs)

    return wrapper


class Partial(functools.partial):
    """Python flattens nested partials; this one it does not."""


FORMS = {
    "class": (Score, CLASS, "class"),
    "class, blocking": (Blocking, SYNC_CLASS, "thread"),
    "class, managed": (Managed, MANAGED, "class"),
    "class, half managed": (HalfManaged, CLASS, "class"),
    "class, static": (Static, CLASS, "static"),
    "class, class method": (ClassMethod, CLASS, "ClassMethod"),
    "class, more parameters": (Optional, CLASS, "optional"),
    "partial of a class": (functools.partial(Score, "partial"), CLASS, "partial"),
    "partial of a partial of a class": (functools.partial(functools.partial(Score, "p"), extra=1), CLASS, "p"),
    "partial of another kind of partial": (functools.partial(Partial(Score, "p"), extra=1), CLASS, "p"),
    "partial of a managed class": (functools.partial(Managed, "p"), MANAGED, "p"),
    "instance": (Score("instance"), ASYNC, "instance"),
    "instance, blocking": (Blocking(), SYNC, "thread"),
    "instance, managed": (Managed("instance"), ASYNC, "instance"),
    "instance, static": (Static(), ASYNC, "static"),
    "instance, partial for a method": (ExecuteIsPartial(), ASYNC, "attribute"),
    "async function": (function, ASYNC, "function"),
    "partial of an async function": (functools.partial(function, by="partial"), ASYNC, "partial"),
    "partial of a partial of an async function": (Partial(functools.partial(function), by="p"), ASYNC, "p"),
    "bound method": (Score("bound").execute, ASYNC, "bound"),
    "partial of a bound method": (functools.partial(Score("bound").execute), ASYNC, "bound"),
    "async callable object": (AsyncCall(), ASYNC, "call"),
    "partial of an async callable object": (functools.partial(AsyncCall()), ASYNC, "call"),
    "callable object": (SyncCall(), SYNC, "call in a thread"),
    "plain def": (blocking, SYNC, "thread"),
    "lambda": (lambda ctx: {"by": ctx.stage_name}, SYNC, "s"),
    "decorated": (decorate(function), ASYNC, "function"),
    "decorated twice": (decorate(decorate(function)), ASYNC, "function"),
    "cached": (functools.lru_cache(blocking), SYNC, "thread"),
}


@pytest.mark.parametrize("name", FORMS)
async def test_every_form_is_recognised_and_runs(name):
    runner, form, by = FORMS[name]
    assert inspect_runner(runner) == form
    result = await Pipeline("p").with_stage("s", runner).run()
    assert result.data("s") == {"by": by}


def test_a_class_is_bound_as_it_is_and_an_instance_by_its_method():
    stage = Score()
    partial = functools.partial(Score, "x")
    assert bind_runner(Score, CLASS) is Score
    assert bind_runner(partial, CLASS) is partial
    assert bind_runner(stage, ASYNC) == stage.execute
    assert bind_runner(function, ASYNC) is function


async def test_what_has_execute_is_a_stage_even_if_it_can_be_called():
    class Both:
        async def execute(self, ctx):
            return {"by": "execute"}

        async def __call__(self, ctx, by="call"):
            return {"by": by}

    pipeline = Pipeline("p").with_stage("object", Both()).with_stage("partial", functools.partial(Both(), by="partial"))
    result = await pipeline.run()
    assert result.data("object") == {"by": "execute"}
    assert result.data("partial") == {"by": "partial"}


# What is refused


class NoExecute:
    """Not a stage."""

    def __repr__(self):
        return "<NoExecute>"


class ExecuteIsData:
    execute = "not a method"


class Abstract(abc.ABC):
    @abc.abstractmethod
    async def execute(self, ctx):
        """Do nothing."""


class Duck(Protocol):
    async def execute(self, ctx):
        """Do nothing."""


class Needy:
    def __init__(self, url, *, depth):
        pass

    async def execute(self, ctx):
        """Do nothing."""


class Generating:
    def execute(self, ctx):
        yield 1


class AsyncGenerating:
    async def execute(self, ctx):
        yield 1


class CallGenerates:
    def __call__(self, ctx):
        yield 1

    def __repr__(self):
        return "<CallGenerates>"


class PartialGenerates:
    execute = functools.partial(lambda ctx: (yield ctx))


class NoContext:
    async def execute(self):
        """Do nothing."""


class TooMuch:
    async def execute(self, ctx, more):
        """Do nothing."""


def generate(ctx):
    yield 1


async def generate_async(ctx):
    yield 1


@types.coroutine
def old_style(ctx):
    yield 1


async def no_context():
    """Do nothing."""


async def too_much(ctx, more):
    """Do nothing."""


async def keyword(ctx, *, more):
    """Do nothing."""


CANNOT = "pass a stage class, an instance of one, or a function of the stage's context"
DEFINE = "define `async def execute(self, ctx)`"
YIELDS = "return the output instead of yielding it"
CONTEXT = "a stage takes its context, and nothing more that has no default"
NEEDS = "pass what it needs: functools.partial(cls, name=value)"

REFUSED = {
    "None": (None, f"runner None cannot run a stage; {CANNOT}"),
    "a string": ("Score", f"runner 'Score' cannot run a stage; {CANNOT}"),
    "a number": (5, f"runner 5 cannot run a stage; {CANNOT}"),
    "a list": ([Score], f"runner {[Score]!r} cannot run a stage; {CANNOT}"),
    "a pipeline": (Pipeline("q"), f"runner <Pipeline 'q': 0 stages> cannot run a stage; {CANNOT}"),
    "a module": (sys, f"runner {sys!r} cannot run a stage; {CANNOT}"),
    "an instance without execute": (NoExecute(), f"runner <NoExecute> cannot run a stage; {CANNOT}"),
    "a class without execute": (NoExecute, f"runner NoExecute is a class without an execute method; {DEFINE}"),
    "a partial of a class without execute": (
        functools.partial(NoExecute),
        f"runner NoExecute is a class without an execute method; {DEFINE}",
    ),
    "a class whose execute is data": (
        ExecuteIsData,
        f"runner ExecuteIsData is a class without an execute method; {DEFINE}",
    ),
    "a built-in class": (int, f"runner int is a class without an execute method; {DEFINE}"),
    "an abstract class": (Abstract, "runner Abstract is an abstract class; pass a class that can be instantiated"),
    "a protocol": (Duck, "runner Duck is an abstract class; pass a class that can be instantiated"),
    "the protocol": (Stage, "runner Stage is an abstract class; pass a class that can be instantiated"),
    "a class that needs arguments": (
        Needy,
        f"runner Needy(url, *, depth) cannot be called: missing a required argument: 'url'; {NEEDS}",
    ),
    "a generator": (generate, f"runner generate is a generator: a stage replies once; {YIELDS}"),
    "a partial of a generator": (
        functools.partial(generate),
        f"runner generate is a generator: a stage replies once; {YIELDS}",
    ),
    "an async generator": (generate_async, f"runner generate_async is a generator: a stage replies once; {YIELDS}"),
    "a generator made a coroutine": (old_style, f"runner old_style is a generator: a stage replies once; {YIELDS}"),
    "a class that generates": (
        Generating,
        f"runner Generating.execute is a generator: a stage replies once; {YIELDS}",
    ),
    "an instance that generates": (
        AsyncGenerating(),
        f"runner AsyncGenerating.execute is a generator: a stage replies once; {YIELDS}",
    ),
    "a callable object that generates": (
        CallGenerates(),
        f"runner <CallGenerates> is a generator: a stage replies once; {YIELDS}",
    ),
    "a class whose execute is a partial of a generator": (
        PartialGenerates,
        f"runner PartialGenerates.<lambda> is a generator: a stage replies once; {YIELDS}",
    ),
    "a function of nothing": (
        no_context,
        f"runner no_context() cannot be called: too many positional arguments; {CONTEXT}",
    ),
    "a function of more": (
        too_much,
        f"runner too_much(ctx, more) cannot be called: missing a required argument: 'more'; {CONTEXT}",
    ),
    "a function that needs a keyword": (
        keyword,
        f"runner keyword(ctx, *, more) cannot be called: missing a required argument: 'more'; {CONTEXT}",
    ),
    "an instance with execute of nothing": (
        NoContext(),
        f"runner NoContext.execute() cannot be called: too many positional arguments; {CONTEXT}",
    ),
    "a class with execute of nothing": (
        NoContext,
        f"runner NoContext.execute(self) cannot be called: too many positional arguments; {CONTEXT}",
    ),
    "a class with execute of more": (
        TooMuch,
        f"runner TooMuch.execute(self, ctx, more) cannot be called: missing a required argument: 'more'; {CONTEXT}",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("first", [True, False])
def test_what_cannot_run_a_stage_is_refused_when_it_is_added(name, first):
    runner, message = REFUSED[name]
    pipeline = Pipeline("report") if first else Pipeline("report").with_stage("fetch", function)
    with pytest.raises(PipelineValidationError) as caught:
        pipeline.with_stage("join", runner)
    said = str(caught.value).replace("required keyword-only argument", "required argument")  # Python 3.13 says more
    assert said == f"pipeline 'report', stage 'join': {message}"
    assert (caught.value.pipeline, caught.value.stage) == ("report", "join")


def test_a_called_function_is_told_from_the_function_and_closed():
    coroutine = function(None)
    with pytest.raises(PipelineValidationError) as caught:
        Pipeline("report").with_stage("join", coroutine)
    assert str(caught.value) == (
        "pipeline 'report', stage 'join': runner is a coroutine of 'function', already called; "
        "pass the function itself: function, not function()"
    )
    assert coroutine.cr_frame is None


@pytest.mark.parametrize("name", ["generator", "async generator"])
def test_a_called_generator_is_refused(name):
    runner = generate(None) if name == "generator" else generate_async(None)
    with pytest.raises(PipelineValidationError, match="cannot run a stage; pass a stage class"):
        Pipeline("report").with_stage("join", runner)


def test_callables_without_a_signature_pass():
    assert inspect_runner(print) == SYNC
    assert inspect_runner(dict.fromkeys) == SYNC
