"""The compiled graph: accepts exactly what graphlib does, and names real cycles and real unknowns."""

from __future__ import annotations

import graphlib
import itertools

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from stageflow_actors import Pipeline, PipelineValidationError
from stageflow_actors._graph import compile_graph, narrow
from stageflow_actors.errors import CycleDetectedError

from .strategies import graphs


async def nothing(ctx):
    """Return at once."""


@st.composite
def any_graphs(draw):
    """Draw a graph that may have cycles, but no stage that depends on itself."""
    names = [f"s{number}" for number in range(draw(st.integers(1, 10)))]
    edges = draw(st.sets(st.tuples(st.sampled_from(names), st.sampled_from(names)), max_size=18))
    return {name: tuple(sorted(above for below, above in edges if below == name != above)) for name in names}


def build(graph):
    pipeline = Pipeline("drawn")
    for name, dependencies in graph.items():
        pipeline = pipeline.with_stage(name, nothing, dependencies=dependencies)
    return pipeline


@given(graph=any_graphs())
def test_cycles_are_found_exactly_where_graphlib_finds_one(graph):
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError:
        event("cycle")
        with pytest.raises(CycleDetectedError) as caught:
            build(graph).validate()
        check_cycle(graph, caught.value)
    else:
        build(graph).validate()


def check_cycle(graph, error):
    """It goes round along real dependencies, through no stage twice, the same way at every reading."""
    cycle = error.cycle
    assert len(cycle) >= 3
    assert cycle[0] == cycle[-1]
    assert len(set(cycle)) == len(cycle) - 1
    for above, below in itertools.pairwise(cycle):
        assert above in graph[below]
    assert " -> ".join(cycle) in str(error)
    assert "'drawn'" in str(error)


@given(length=st.integers(2, 400), tail=st.integers(0, 50), data=st.data())
def test_a_long_cycle_is_found_whole(length, tail, data):
    """Behind a tail that hangs below it, which is not part of it."""
    names = [f"s{number}" for number in range(length + tail)]
    graph = {name: (names[number - 1],) for number, name in enumerate(names)}
    graph[names[0]] = (names[length - 1],)
    order = data.draw(st.sampled_from([names, names[::-1], names[length:] + names[:length]]))
    with pytest.raises(CycleDetectedError) as caught:
        build({name: graph[name] for name in order}).validate()
    assert set(caught.value.cycle) == set(names[:length])
    assert len(caught.value.cycle) == length + 1


@given(graph=graphs())
def test_a_compiled_graph_says_what_was_declared(graph):
    pipeline = build(graph)
    compiled = compile_graph("drawn", list(pipeline.stages))
    names = compiled.names
    assert names == list(graph)
    assert [compiled.positions[name] for name in names] == list(range(len(names)))
    for position, name in enumerate(names):
        assert [names[number] for number in compiled.dependencies[position]] == list(graph[name])
        assert compiled.unmet[position] == len(graph[name])
        below = [other for other, dependencies in graph.items() if name in dependencies]
        assert [names[number] for number in compiled.dependents[position]] == below


@given(graph=graphs(), data=st.data())
def test_an_unknown_dependency_is_named_with_its_stage(graph, data):
    victim = data.draw(st.sampled_from(list(graph)))
    unknown = data.draw(st.sampled_from(["s", "s99", "zzz", "S1"]))
    position = data.draw(st.integers(0, len(graph[victim])))
    broken = dict(graph)
    broken[victim] = (*graph[victim][:position], unknown, *graph[victim][position:])
    with pytest.raises(PipelineValidationError) as caught:
        build(broken).validate()
    error = caught.value
    assert (error.pipeline, error.stage) == ("drawn", victim)
    assert f"unknown dependency {unknown!r}" in str(error)
    assert error.hint
    assert not isinstance(error, CycleDetectedError)


@given(graph=graphs(), data=st.data())
def test_narrowing_keeps_the_targets_and_what_they_need(graph, data):
    names = st.sampled_from(list(graph))
    targets = data.draw(st.lists(names, min_size=1, max_size=3))
    overridden = data.draw(st.sets(names, max_size=2))
    compiled = compile_graph("drawn", list(build(graph).stages))
    needed = set()
    for target in targets:
        needed |= ancestors(graph, target, overridden)
    narrowed = narrow(compiled, targets, overridden)
    assert narrowed.names == [name for name in graph if name in needed]
    for position, name in enumerate(narrowed.names):
        kept = () if name in overridden else graph[name]
        assert tuple(narrowed.names[number] for number in narrowed.dependencies[position]) == kept


def ancestors(graph, name, overridden):
    """Return a stage with all that it needs, in which an overridden one needs nothing."""
    found = {name}
    if name not in overridden:
        for dependency in graph[name]:
            found |= ancestors(graph, dependency, overridden)
    return found
