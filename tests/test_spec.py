"""The definition of a stage, of many alike, and of a route: what is taken, and every refusal in full."""

from __future__ import annotations

import math
from functools import partial

import pytest

from stageflow_actors import (
    Pipeline,
    PipelineValidationError,
    StageInputs,
    StageKind,
    StageOutput,
    StageSpec,
    Trigger,
    parallel_stages,
    route,
)
from stageflow_actors._bag import OutputBag
from stageflow_actors._freeze import FrozenDict


async def nothing(ctx):
    """Return at once."""


class Guard:
    kind = StageKind.GUARD

    def __init__(self, func=None):
        self.func = func

    async def execute(self, ctx):
        """Return at once."""


class Strange:
    kind = "strange"

    async def execute(self, ctx):
        """Return at once."""


class Endless(Guard):
    @property
    def func(self):
        return self

    @func.setter
    def func(self, _):
        pass


class Plain(tuple):
    __slots__ = ()


def add(*args, name="join", **options):
    """Add a stage to a pipeline; return its definition."""
    return Pipeline("report").with_stage(name, nothing, *args, **options).stages[-1]


def refusal(call, *args, **options):
    with pytest.raises(PipelineValidationError) as caught:
        call(*args, **options)
    return str(caught.value)


HERE = "pipeline 'report', stage 'join': "

# One stage


def test_the_least_that_a_stage_needs():
    spec = add()
    assert spec == StageSpec("join", nothing, StageKind.WORK)
    assert (spec.dependencies, spec.config, spec.when, spec.timeout) == ((), {}, None, None)
    assert spec.trigger is Trigger.ALL_SUCCESS
    assert spec.local_names is None


def test_everything_that_a_stage_can_have():
    when = route("b", "left")
    spec = add("guard", ["a", "b"], config={"x": [1]}, when=when, trigger="none_failed", timeout=2.5)
    assert spec.kind is StageKind.GUARD
    assert spec.dependencies == ("a", "b")
    assert spec.config == {"x": (1,)}
    assert type(spec.config) is FrozenDict
    assert spec.when is when
    assert spec.trigger is Trigger.NONE_FAILED
    assert spec.timeout == 2.5


def test_a_specification_is_a_value():
    assert add(dependencies="a", config={"x": [1]}) == add(dependencies="a", config={"x": [1]})
    assert hash(add(config={"x": [1]})) == hash(add(config={"x": [1]}))
    assert add(dependencies="a") != add(dependencies="b")
    with pytest.raises(AttributeError):
        add().name = "other"
    assert "runner" not in repr(add())


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("a", ("a",)),
        (["b", "a"], ("b", "a")),
        ({"b": 1, "a": 2}, ("b", "a")),
        (iter(["a"]), ("a",)),
        ((), ()),
        ([], ()),
        (add(name="fetch"), ("fetch",)),
        ([add(name="fetch"), "a"], ("fetch", "a")),
        (parallel_stages("w{key}", nothing, range(3)), ("w0", "w1", "w2")),
    ],
)
def test_dependencies(given, names):
    assert add(dependencies=given).dependencies == names


NAMES = "give a stage's name, or an iterable of names"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, f"dependencies must be names, not 5; {NAMES}"),
        (None, f"dependencies must be names, not None; {NAMES}"),
        (b"ab", f"dependencies must be names, not b'ab'; {NAMES}"),
        (nothing, f"dependencies must be names, not {nothing!r}; {NAMES}"),
        (Pipeline("q"), f"dependencies must be names, not <Pipeline 'q': 0 stages>; {NAMES}"),
        ("", f"dependencies must be names of stages, not ''; {NAMES}"),
        (["a", 5], f"dependencies must be names of stages, not 5; {NAMES}"),
        (["a", None], f"dependencies must be names of stages, not None; {NAMES}"),
        ([["a"]], f"dependencies must be names of stages, not ['a']; {NAMES}"),
        ("join", "'join' depends on itself; remove it from its dependencies"),
        (["a", "join"], "'join' depends on itself; remove it from its dependencies"),
        (["a", "b", "a"], "dependency 'a' is named twice; remove one of the two"),
    ],
)
def test_dependencies_that_are_refused(given, message):
    assert refusal(add, dependencies=given) == HERE + message


@pytest.mark.parametrize("name", ["", None, 5, b"join", ["join"]])
def test_a_stage_needs_a_name(name):
    message = refusal(add, name=name)
    assert message == f"pipeline 'report': stage name must be a non-empty string, not {name!r}"


@pytest.mark.parametrize(
    ("runner", "given", "kind"),
    [
        (nothing, None, StageKind.WORK),
        (nothing, "route", StageKind.ROUTE),
        (nothing, StageKind.AGENT, StageKind.AGENT),
        (Guard, None, StageKind.GUARD),
        (Guard(), None, StageKind.GUARD),
        (partial(Guard, func=1), None, StageKind.GUARD),
        (partial(partial(Guard), func=1), None, StageKind.GUARD),
        (Guard, StageKind.ENRICH, StageKind.ENRICH),
        (Guard(func=nothing), None, StageKind.GUARD),
        (Endless(), None, StageKind.GUARD),
    ],
)
def test_kinds(runner, given, kind):
    assert Pipeline("p").with_stage("s", runner, given).stages[0].kind is kind


KINDS = "kind must be one of transform, enrich, route, guard, work, agent, not "
TRIGGERS = "trigger must be one of all_success, none_failed, one_success, all_done, not "


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("wrok", "'wrok'; did you mean 'work'?"),
        ("WORK", "'WORK'; did you mean 'work'?"),
        ("zzz", "'zzz'; if this one needs a stage 'zzz', write dependencies='zzz'"),
        (5, "5"),
        ([], "[]"),
    ],
)
def test_a_kind_that_is_none(given, message):
    assert refusal(add, given) == HERE + KINDS + message


def test_a_runner_with_a_kind_that_is_none():
    message = refusal(Pipeline("report").with_stage, "join", Strange)
    assert message == f"{HERE}{KINDS}'strange'"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("all-done", "'all-done'; did you mean 'all_done'?"),
        ("ALL_SUCCESS", "'ALL_SUCCESS'; did you mean 'all_success'?"),
        (None, "None"),
        (5, "5"),
    ],
)
def test_a_trigger_that_is_none(given, message):
    assert refusal(add, trigger=given) == HERE + TRIGGERS + message


@pytest.mark.parametrize("given", [0, -1, True, "3", math.nan, math.inf, [1]])
def test_a_timeout_that_is_none(given):
    assert refusal(add, timeout=given).startswith(f"{HERE}timeout must be a positive number of seconds, not {given!r}")


RING = {}
RING["ring"] = RING


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "config must be a mapping, not 5"),
        ([("a", 1)], "config must be a mapping, not [('a', 1)]"),
        ("text", "config must be a mapping, not 'text'"),
        (
            {"rows": [0, Plain([[1]])]},
            (
                "config['rows'][1] cannot be frozen: it is a Plain, a tuple that holds mutable values "
                "and has no _make; convert it, or teach its type with register_freezer"
            ),
        ),
        (
            RING,
            (
                "config refers to itself, or is nested too deeply to be frozen; "
                "give names or numbers of things instead of the things, or flatten it"
            ),
        ),
    ],
)
def test_a_configuration_that_is_refused(given, message):
    assert refusal(add, config=given) == HERE + message


async def decide_later(inputs):
    return True


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            route("router", "left", "right"),
            (
                "when=route('router', 'left', 'right') names a router that is no dependency; "
                "add 'router' to its dependencies"
            ),
        ),
        (
            "left",
            (
                "when must be a route or a predicate, not 'left'; "
                "use route('router', 'label') or a function of the stage's inputs"
            ),
        ),
        (
            True,
            (
                "when must be a route or a predicate, not True; "
                "use route('router', 'label') or a function of the stage's inputs"
            ),
        ),
        (
            decide_later,
            (
                f"when is the async function {decide_later!r}; "
                "a condition is a plain function of the stage's inputs; what has to wait is a stage"
            ),
        ),
    ],
)
def test_a_condition_that_is_refused(given, message):
    assert refusal(add, dependencies="fetch", when=given) == HERE + message


# Routes


def test_a_route_reads_as_it_was_written():
    made = route("router", "left", "right")
    assert str(made) == "route('router', 'left', 'right')"
    assert made == route("router", "left", "right")
    assert hash(made) == hash(route("router", "left", "right"))
    assert made != route("router", "right", "left")


@pytest.mark.parametrize(
    ("output", "chosen"),
    [
        (StageOutput.route("left"), True),
        (StageOutput.route("right"), True),
        (StageOutput.route("up"), False),
        (StageOutput.ok(), False),
        (StageOutput.skip(), False),
        (None, False),
    ],
)
def test_a_route_is_taken_for_any_of_its_labels(output, chosen):
    bag = OutputBag(["router"], 0.0)
    bag.outputs[0] = output
    assert route("router", "left", "right")(StageInputs(bag, "join", ("router",), (0,))) is chosen


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("", "left"), "router must be a non-empty string, not ''"),
        ((5, "left"), "router must be a non-empty string, not 5"),
        (("router",), "route('router') needs at least one label; write route('router', 'label')"),
        (("router", ""), "label must be a non-empty string, not ''"),
        (("router", "left", 5), "label must be a non-empty string, not 5"),
    ],
)
def test_a_route_that_is_refused(args, message):
    assert refusal(route, *args).split("; give labels")[0] == message


def test_labels_in_a_list_are_refused_with_what_to_write():
    assert refusal(route, "router", ["x", "y"]) == (
        "label must be a non-empty string, not ['x', 'y']; give labels one by one: route('router', 'x', 'y')"
    )
