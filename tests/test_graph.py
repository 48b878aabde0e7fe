"""The compiled graph: positions, cycles, unknown names, and the part of it that a run needs."""

from __future__ import annotations

import pytest

from stageflow_actors import Pipeline, PipelineValidationError, parallel_stages
from stageflow_actors._graph import CONDITIONAL, compile_graph, narrow
from stageflow_actors.errors import CycleDetectedError


async def nothing(ctx):
    """Return at once."""


class Stage:
    async def execute(self, ctx):
        """Return at once."""


def pipeline(**stages):
    """A pipeline of stages given as `name=dependencies`."""
    made = Pipeline("report")
    for name, dependencies in stages.items():
        made = made.with_stage(name, nothing, dependencies=dependencies.split())
    return made


def refusal(made):
    with pytest.raises(PipelineValidationError) as caught:
        made.validate()
    return caught.value


# Compiling


def test_a_compiled_graph_has_positions_for_names():
    graph = pipeline(a="", b="a", c="a", d="c b")._compile()
    assert graph.names == ["a", "b", "c", "d"]
    assert graph.positions == {"a": 0, "b": 1, "c": 2, "d": 3}
    assert graph.dependencies == [(), (0,), (0,), (2, 1)]
    assert graph.dependents == [(1, 2), (3,), (3,), ()]
    assert list(graph.unmet) == [0, 1, 1, 2]
    assert len(graph) == 4


def test_dependencies_may_be_declared_later():
    graph = pipeline(join="b a", a="", b="a")._compile()
    assert graph.dependencies == [(2, 1), (), (1,)]
    assert graph.dependents == [(), (0, 2), (0,)]


def test_a_condition_is_a_flag():
    made = pipeline(a="").with_stage("b", nothing, dependencies="a", when=lambda _: True)
    assert list(made._compile().flags) == [0, CONDITIONAL]


def test_runners_are_bound_once_each():
    stage = Stage()
    graph = (
        Pipeline("p")
        .with_stage("class", Stage)
        .with_stage("instance", stage)
        .with_stage("function", nothing)
        .with_stage("again", Stage)
        ._compile()
    )
    assert graph.targets == [Stage, stage.execute, nothing, Stage]
    assert [form.is_class for form in graph.forms] == [True, False, False, True]
    assert graph.forms[0] is graph.forms[3]


def test_a_pipeline_is_compiled_once():
    made = pipeline(a="")
    assert made._compile() is made._compile()
    made.validate()


def test_wide_and_deep_graphs_compile_without_recursion():
    wide = Pipeline("wide").with_stages(parallel_stages("w{key}", nothing, range(5000)))
    join = wide.with_stage("join", nothing, dependencies=[spec.name for spec in wide.stages])._compile()
    assert join.unmet[-1] == 5000
    chain = pipeline(**{f"s{number}": f"s{number - 1}" if number else "" for number in range(5000)})
    assert chain._compile().dependents[4998] == (4999,)


# What cannot be compiled


def test_an_empty_pipeline():
    error = refusal(Pipeline("report"))
    assert str(error) == "pipeline 'report': it has no stages; add a stage: with_stage('name', runner)"
    assert error.pipeline == "report"
    with pytest.raises(PipelineValidationError, match="it has no stages"):
        compile_graph("report", [])


@pytest.mark.parametrize(
    ("missing", "hint"),
    [
        ("wroker-7", "did you mean 'worker-7'?"),
        ("worker_7", "did you mean 'worker-7'?"),
        ("Worker-7", "did you mean 'worker-7'?"),
        ("zzz", "add a stage of this name, or remove the dependency"),
    ],
)
def test_an_unknown_dependency(missing, hint):
    error = refusal(pipeline(**{"worker-7": "", "join": f"worker-7 {missing}"}))
    assert str(error) == f"pipeline 'report', stage 'join': unknown dependency {missing!r}; {hint}"
    assert (error.pipeline, error.stage, error.hint) == ("report", "join", hint)


def test_the_first_unknown_dependency_is_named():
    assert "stage 'b': unknown dependency 'x'" in str(refusal(pipeline(a="", b="a x y", c="z")))


def test_an_unknown_dependency_among_very_many_stages():
    made = Pipeline("p").with_stages(parallel_stages("stage-{key}", nothing, range(20_000)))
    error = refusal(made.with_stage("join", nothing, dependencies="stgae-77"))
    assert str(error) == "pipeline 'p', stage 'join': unknown dependency 'stgae-77'; did you mean 'stage-77'?"


@pytest.mark.parametrize(
    ("stages", "cycle"),
    [
        ({"a": "b", "b": "a"}, "a b a"),
        ({"a": "c", "b": "a", "c": "b"}, "a b c a"),
        ({"x": "", "b": "x a", "a": "x b"}, "b a b"),
        ({"root": "", "a": "root d", "b": "a", "c": "b", "d": "c", "end": "d"}, "a b c d a"),
        ({"below": "a", "lower": "below", "a": "b", "b": "a"}, "a b a"),
        ({"join": "x b", "x": "", "a": "c", "b": "a", "c": "b"}, "a b c a"),
    ],
)
def test_a_cycle_is_printed_in_the_direction_of_the_work(stages, cycle):
    error = refusal(pipeline(**stages))
    assert isinstance(error, CycleDetectedError)
    assert error.cycle == tuple(cycle.split())
    assert str(error) == (
        f"pipeline 'report': its stages wait for each other: {' -> '.join(error.cycle)}, "
        "where each needs the one before it; remove one of these dependencies"
    )
    for before, after in zip(error.cycle, error.cycle[1:], strict=False):
        assert before in stages[after].split()


def test_one_of_several_cycles_is_named():
    error = refusal(pipeline(a="b", b="a", c="d", d="c"))
    assert set(error.cycle) in ({"a", "b"}, {"c", "d"})


def test_a_long_cycle_is_cut_in_the_message_and_whole_in_the_attribute():
    size = 5000
    error = refusal(pipeline(**{f"s{number}": f"s{(number - 1) % size}" for number in range(size)}))
    assert error.cycle == (*(f"s{number}" for number in range(size)), "s0")
    shown = [*(f"s{number}" for number in range(10)), "... 4,981 more ..."]
    shown += [*(f"s{number}" for number in range(size - 9, size)), "s0"]
    assert error.problem == (
        f"its stages wait for each other: {' -> '.join(shown)}, where each needs the one before it"
    )


# Targets and overrides


def names(graph):
    return " ".join(graph.names)


def whole():
    return pipeline(a="", b="", ab="a b", b2="b", end="ab", other="b2")._compile()


def test_everything_is_the_same_graph():
    graph = whole()
    assert narrow(graph, None, ()) is graph


@pytest.mark.parametrize(
    ("targets", "kept"),
    [
        (["end"], "a b ab end"),
        ("end", "a b ab end"),
        (["other", "a"], "a b b2 other"),
        (["a"], "a"),
        (["end", "other", "end"], "a b ab b2 end other"),
        (iter(["b2"]), "b b2"),
        ({"b2": 1}, "b b2"),
    ],
)
def test_targets_bring_what_they_need_in_the_pipelines_order(targets, kept):
    assert names(narrow(whole(), targets, ())) == kept


def test_a_narrowed_graph_is_compiled_anew():
    graph = narrow(whole(), ["other"], ())
    assert graph.positions == {"b": 0, "b2": 1, "other": 2}
    assert graph.dependencies == [(), (0,), (1,)]
    assert graph.dependents == [(1,), (2,), ()]
    assert graph.pipeline == "report"


def test_an_override_stands_without_what_it_would_have_needed():
    graph = narrow(whole(), ["end"], {"ab": object()})
    assert names(graph) == "ab end"
    assert graph.dependencies == [(), (0,)]


def test_overrides_alone_keep_every_stage_that_is_no_longer_needed_too():
    graph = narrow(whole(), None, {"ab": object()})
    assert names(graph) == "a b ab b2 end other"
    assert graph.dependencies[graph.positions["ab"]] == ()


def test_an_override_that_no_target_needs_is_left_out():
    assert names(narrow(whole(), ["a"], {"b2": object()})) == "a"


def test_an_override_loses_its_condition():
    made = pipeline(a="").with_stage("b", nothing, dependencies="a", when=lambda _: False)
    graph = narrow(made._compile(), None, {"b": object()})
    assert list(graph.flags) == [0, 0]


@pytest.mark.parametrize(
    ("targets", "overridden", "message"),
    [
        ([], (), "targets names no stage; name at least one, or leave it out"),
        (["edn"], (), "unknown target 'edn'; did you mean 'end'?"),
        (
            ["a", "zzzzzz"],
            (),
            "unknown target 'zzzzzz'; its stages are 'a', 'b', 'ab', 'b2', 'end', 'other'",
        ),
        ("", (), "unknown target ''; its stages are 'a', 'b', 'ab', 'b2', 'end', 'other'"),
        ([5], (), "unknown target 5; its stages are 'a', 'b', 'ab', 'b2', 'end', 'other'"),
        ([["a"]], (), "unknown target ['a']; its stages are 'a', 'b', 'ab', 'b2', 'end', 'other'"),
        (5, (), "targets must be names of stages, not 5"),
        (None, {"ohter": 1}, "unknown override 'ohter'; did you mean 'other'?"),
        (["a"], {"ohter": 1}, "unknown override 'ohter'; did you mean 'other'?"),
    ],
)
def test_what_cannot_be_narrowed(targets, overridden, message):
    with pytest.raises(PipelineValidationError) as caught:
        narrow(whole(), targets, overridden)
    assert str(caught.value) == f"pipeline 'report': {message}"
