"""What one stage sets in a context variable no other stage or predicate sees, nor the caller; all see the caller's."""

from __future__ import annotations

import contextvars

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from stageflow_actors import Pipeline, Supervisor, Trigger

from .harness import scheduled
from .strategies import graphs

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nobody's")


class Witness:
    """Gives out stages and predicates that set the variable, and writes down what they find in it."""

    def __init__(self):
        self.found = []

    def look(self, who):
        self.found.append((who, VARIABLE.get()))
        VARIABLE.set(who)

    async def wait(self, who, ctx):
        self.look(who)
        for seconds in (0.0, ctx.config["sleep"], 0.0):
            await trio.sleep(seconds)
            assert VARIABLE.get() == who
        return {"who": who}

    def make_function(self):
        async def run(ctx):
            return await self.wait(ctx.stage_name, ctx)

        return run

    def make_thread(self):
        def run(ctx):
            self.look(ctx.stage_name)
            assert VARIABLE.get() == ctx.stage_name

        return run

    def make_managed(self):
        witness = self

        class Managed:
            async def __aenter__(self):
                return self

            async def execute(self, ctx):
                self.name = ctx.stage_name
                return await witness.wait(ctx.stage_name, ctx)

            async def __aexit__(self, *args):
                assert VARIABLE.get() == self.name

        return Managed

    def make_predicate(self, name, answer):
        def ask(inputs):
            self.look(f"predicate of {name}")
            if answer is None:
                raise ValueError(name)
            return answer

        return ask


FORMS = st.sampled_from(["make_function"] * 3 + ["make_managed"])
ANSWERS = st.sampled_from(["no predicate", "no predicate", True, False, None])


@st.composite
def settings_of_stages(draw, forms=FORMS, sleeps=(0.0, 0.5, 1.5)):
    graph = draw(graphs(max_stages=10))
    return [
        (name, dependencies, draw(forms), draw(st.sampled_from(sleeps)), draw(ANSWERS))
        for name, dependencies in graph.items()
    ]


def build(witness, stages):
    pipeline = Pipeline("context")
    for name, dependencies, form, sleep, answer in stages:
        when = None if answer == "no predicate" else witness.make_predicate(name, answer)
        runner = getattr(witness, form)()
        pipeline = pipeline.with_stage(
            name,
            runner,
            dependencies=dependencies,
            trigger=Trigger.ALL_DONE,
            when=when,
            config={"sleep": sleep},
            timeout=5 if sleep == 1.5 else None,
        )
    return pipeline


def check(witness, stages):
    assert {value for _, value in witness.found} <= {"the caller's"}
    asked = [name for name, _, _, _, answer in stages if answer != "no predicate"]
    ran = [name for name, _, _, _, answer in stages if answer in {"no predicate", True}]
    assert sorted(who for who, _ in witness.found) == sorted([*ran, *(f"predicate of {name}" for name in asked)])


@given(stages=settings_of_stages(), seed=st.integers(0, 2**16))
def test_no_stage_sees_what_another_set(stages, seed):
    witness = Witness()
    pipeline = build(witness, stages)

    async def main():
        VARIABLE.set("the caller's")
        await pipeline.run(continue_on_failure=True)
        assert VARIABLE.get() == "the caller's"

    with scheduled(seed):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    check(witness, stages)


@given(stages=settings_of_stages(), seed=st.integers(0, 2**16))
def test_a_started_run_has_the_context_of_its_start(stages, seed):
    """Captured at the call: what the caller sets afterwards is too late."""
    witness = Witness()
    pipeline = build(witness, stages)

    async def main():
        async with Supervisor() as supervisor:
            VARIABLE.set("the caller's")
            run = supervisor.start(pipeline, continue_on_failure=True)
            VARIABLE.set("too late")
            await run.result()
            assert VARIABLE.get() == "too late"

    with scheduled(seed):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    check(witness, stages)


@given(stages=settings_of_stages(forms=st.sampled_from(["make_thread", "make_function"]), sleeps=(0.0,)))
def test_threads_are_apart_too(stages):
    witness = Witness()
    pipeline = build(witness, stages)

    async def main():
        VARIABLE.set("the caller's")
        await pipeline.run(continue_on_failure=True)

    trio.run(main)
    check(witness, stages)


@settings(max_examples=10)
@given(width=st.integers(1, 600), last=st.integers(0, 599))
def test_a_join_does_not_see_whoever_finished_last(width, last):
    """Wider than the runtime spawns at a time, so that stages start from the ends of others."""
    witness = Witness()
    pipeline = Pipeline("wide")
    for number in range(width):
        config = {"sleep": 1.0 if number == last % width else 0.0}
        pipeline = pipeline.with_stage(f"w{number}", witness.make_function(), config=config)
    names = [f"w{number}" for number in range(width)]
    always = witness.make_predicate("join", True)
    pipeline = pipeline.with_stage(
        "join", witness.make_function(), dependencies=names, when=always, config={"sleep": 0.0}
    )

    async def main():
        VARIABLE.set("the caller's")
        await pipeline.run()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert len(witness.found) == width + 2
    assert {value for _, value in witness.found} == {"the caller's"}
