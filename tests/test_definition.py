"""Building pipelines: prefixes that share, threads, composition, pickling, and no recursion."""

from __future__ import annotations

import copy
import pickle
import sys
import threading

import pytest

from stageflow_actors import Pipeline, PipelineValidationError, StageSpec, parallel_stages


async def nothing(ctx):
    """Return at once."""


async def other(ctx):
    """Return at once, too."""


def names(pipeline):
    return " ".join(spec.name for spec in pipeline.stages)


def build(name, *stages):
    pipeline = Pipeline(name)
    for stage in stages:
        pipeline = pipeline.with_stage(stage, nothing)
    return pipeline


# Appending


def test_adding_returns_a_new_pipeline_and_leaves_the_old_one():
    empty = Pipeline("p")
    one = empty.with_stage("a", nothing)
    two = one.with_stage("b", nothing, dependencies="a")
    assert (names(empty), names(one), names(two)) == ("", "a", "a b")
    assert (len(empty), len(one), len(two)) == (0, 1, 2)
    assert type(two) is Pipeline
    assert two.name == "p"


def test_every_prefix_stays_what_it_was():
    prefixes = [Pipeline("p")]
    for number in range(50):
        prefixes.append(prefixes[-1].with_stage(f"s{number}", nothing))
    for length, prefix in enumerate(prefixes):
        assert len(prefix) == len(prefix.stages) == length
        assert [spec.name for spec in prefix.stages] == [f"s{number}" for number in range(length)]


def test_adding_to_a_prefix_branches():
    root = build("p", "a", "b")
    left = root.with_stage("left", nothing)
    right = root.with_stage("right", nothing)
    deeper = root.with_stage("right", other)
    assert names(left) == "a b left"
    assert names(right) == "a b right"
    assert deeper.stages[-1].runner is other
    assert right.stages[-1].runner is nothing
    assert names(left.with_stage("more", nothing)) == "a b left more"
    assert names(root) == "a b"


def test_branches_may_use_the_same_name_and_a_prefix_may_use_one_that_came_later():
    root = build("p", "a")
    root.with_stage("b", nothing)
    assert names(root.with_stage("b", other)) == "a b"


def test_appending_shares_one_table_and_branching_copies_it_once():
    root = build("p", "a", "b")
    tip = root.with_stage("c", nothing)
    assert tip._table is root._table
    branch = root.with_stage("d", nothing)
    assert branch._table is not root._table
    assert branch.with_stage("e", nothing)._table is branch._table


def test_a_refused_stage_leaves_no_trace():
    root = build("p", "a")
    with pytest.raises(PipelineValidationError):
        root.with_stages([*build("q", "new").stages, *build("q", "a").stages])
    assert names(root.with_stage("new", nothing)) == "a new"
    assert root.with_stage("c", nothing)._table is not None
    assert names(root) == "a"


@pytest.fixture
def _hasty_threads():
    """Let threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hasty_threads")
def test_threads_adding_to_the_same_pipeline_at_once_get_a_pipeline_each():
    threads, rounds, depth = 4, 150, 5
    roots = [build("p", "root") for _ in range(rounds)]
    barrier = threading.Barrier(threads)
    made = [[] for _ in range(threads)]

    def add(thread):
        for root in roots:
            pipeline = root
            barrier.wait()
            for number in range(depth):
                pipeline = pipeline.with_stages(build("q", f"t{thread}-{number}").stages)
            made[thread].append(pipeline)

    workers = [threading.Thread(target=add, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for thread, pipelines in enumerate(made):
        expected = " ".join(["root", *(f"t{thread}-{number}" for number in range(depth))])
        assert [names(pipeline) for pipeline in pipelines] == [expected] * rounds
    assert {names(root) for root in roots} == {"root"}


class WatchedLock:
    """A lock that tells when a thread comes to it."""

    def __init__(self, arrived):
        self.lock = threading.Lock()
        self.arrived = arrived

    def __enter__(self):
        self.arrived(threading.current_thread().name)
        self.lock.acquire()

    def __exit__(self, *_):
        self.lock.release()


def test_a_thread_in_the_middle_of_adding_is_not_overtaken():
    inside, go_on, second = threading.Event(), threading.Event(), threading.Event()

    class SlowName(str):
        """The first look at it lasts until the other thread has come as far as it can."""

        __slots__ = ()

        def __hash__(self):
            if not inside.is_set():
                inside.set()
                go_on.wait()
            return super().__hash__()

    root = build("p", "root")
    root._table.lock = WatchedLock(lambda thread: thread == "second" and second.set())
    slow = StageSpec(SlowName("slow"), nothing, "work")
    made = {}

    def add(specs):
        made[threading.current_thread().name] = root.with_stages(specs)
        second.set()

    first = threading.Thread(target=add, args=([slow],), name="first")
    other = threading.Thread(target=add, args=(build("q", "quick").stages,), name="second")
    first.start()
    assert inside.wait(timeout=60)
    other.start()
    assert second.wait(timeout=60)
    go_on.set()
    first.join()
    other.join()
    assert {thread: names(pipeline) for thread, pipeline in made.items()} == {
        "first": "root slow",
        "second": "root quick",
    }


@pytest.mark.usefixtures("_hasty_threads")
def test_threads_reading_a_pipeline_that_others_extend_see_it_whole():
    root = build("p", *(f"s{number}" for number in range(100)))
    expected = root.stages
    stop = threading.Event()
    seen = []

    def read():
        while not stop.is_set():
            if root.stages != expected:
                seen.append(len(root.stages))

    reader = threading.Thread(target=read)
    reader.start()
    pipeline = root
    for number in range(2000):
        pipeline = pipeline.with_stage(f"more-{number}", nothing)
    stop.set()
    reader.join()
    assert seen == []


# Refusals


@pytest.mark.parametrize("name", ["", None, 5, b"p"])
def test_a_pipeline_needs_a_name(name):
    with pytest.raises(PipelineValidationError) as caught:
        Pipeline(name)
    assert str(caught.value) == f"the name of a pipeline must be a non-empty string, not {name!r}"


DUPLICATE = "pipeline 'report', stage 'a': the pipeline has a stage of this name already; rename one of the two"


@pytest.mark.parametrize(
    "add",
    [
        lambda pipeline: pipeline.with_stage("a", nothing),
        lambda pipeline: pipeline.with_stages(build("q", "a").stages),
        lambda pipeline: Pipeline("report").with_stages([*build("q", "a").stages, *build("q", "a").stages]),
        lambda pipeline: pipeline.compose(build("q", "z", "a")),
        lambda pipeline: pipeline.subpipeline("a", build("q", "x")),
    ],
)
def test_duplicate_names_are_refused_at_once(add):
    with pytest.raises(PipelineValidationError) as caught:
        add(build("report", "a"))
    assert str(caught.value) == DUPLICATE


@pytest.mark.parametrize("given", [[nothing], nothing, 5, "ab", [build("q", "a")]])
def test_with_stages_takes_specs(given):
    with pytest.raises(PipelineValidationError) as caught:
        Pipeline("report").with_stages(given)
    culprit = given[0] if isinstance(given, (list, str)) else given
    assert str(caught.value) == (
        f"pipeline 'report': with_stages takes stage specs, not {culprit!r}; "
        "use parallel_stages(...), or with_stage for a single one"
    )


def test_with_stages_takes_one_spec_and_any_iterable_of_them():
    specs = parallel_stages("s{key}", nothing, ["ab", "b"])
    assert names(Pipeline("p").with_stages(specs[0])) == "sab"
    assert names(Pipeline("p").with_stages(iter(specs))) == "sab sb"
    assert names(Pipeline("p").with_stages([])) == ""


def test_options_are_keyword_only():
    with pytest.raises(TypeError, match="positional argument"):
        Pipeline("p").with_stage("a", nothing, None, (), {})
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_retries'"):
        Pipeline("p").with_stage("a", nothing, max_retries=3)


# Composition


def test_compose_puts_the_stages_of_both_side_by_side():
    one = build("one", "a").with_stage("b", nothing, dependencies="x")
    two = build("two", "x").with_stage("y", nothing, dependencies="a")
    both = one.compose(two)
    both.validate()
    assert names(both) == "a b x y"
    assert both.name == "one"
    assert (names(one), names(two)) == ("a b", "x y")


def test_compose_with_an_empty_pipeline_and_onto_one():
    one = build("one", "a")
    assert one.compose(Pipeline("two")) == one
    assert names(Pipeline("two").compose(one)) == "a"


@pytest.mark.parametrize("wrong", [None, "report", [build("q", "a")]])
def test_only_pipelines_can_be_composed_and_nested(wrong):
    for add in (Pipeline("report").compose, lambda given: Pipeline("report").subpipeline("sub", given)):
        with pytest.raises(PipelineValidationError) as caught:
            add(wrong)
        assert str(caught.value) == f"pipeline 'report': it can only take in another pipeline, not {wrong!r}"


# As values


def test_pipelines_are_equal_by_name_and_stages():
    assert build("p", "a", "b") == build("p", "a", "b")
    assert build("p", "a", "b") != build("p", "b", "a")
    assert build("p", "a") != build("q", "a")
    assert build("p", "a") != build("p", "a", "b")
    assert build("p", "a") != "p"
    assert hash(build("p", "a", "b")) == hash(build("p", "a", "b"))
    assert len({build("p", "a"), build("p", "a"), build("p")}) == 2


def test_repr_names_it_and_counts_its_stages():
    assert repr(Pipeline("p")) == "<Pipeline 'p': 0 stages>"
    assert repr(build("p", "a")) == "<Pipeline 'p': 1 stage>"
    assert repr(build("p", "a", "b")) == "<Pipeline 'p': 2 stages>"


@pytest.mark.parametrize("name", ["name", "stages", "_new", "new"])
def test_attributes_cannot_be_set(name):
    with pytest.raises(AttributeError):
        setattr(build("p", "a"), name, "evil")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pipeline_pickles(protocol):
    pipeline = build("p", "a").with_stage("b", other, "guard", "a", config={"x": [1]}, trigger="all_done", timeout=2)
    pipeline.validate()
    back = pickle.loads(pickle.dumps(pipeline, protocol))
    assert back == pipeline
    assert type(back) is Pipeline
    assert names(back.with_stage("c", nothing)) == "a b c"
    assert names(pipeline) == "a b"


def test_a_prefix_pickles_without_what_was_added_later():
    root = build("p", "a")
    root.with_stage("b", nothing)
    assert names(pickle.loads(pickle.dumps(root))) == "a"


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy])
def test_copies_go_their_own_way(twin):
    pipeline = build("p", "a")
    back = twin(pipeline)
    assert back == pipeline
    assert names(back.with_stage("b", nothing)) == "a b"
    assert names(pipeline.with_stage("b", other)) == "a b"


def test_a_very_long_chain_needs_no_recursion():
    size = 20_000
    pipeline = Pipeline("chain")
    for number in range(size):
        pipeline = pipeline.with_stage(f"s{number}", nothing, dependencies=f"s{number - 1}" if number else ())
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(200)
    try:
        twin = pickle.loads(pickle.dumps(pipeline))
        assert twin == pipeline
        assert hash(twin) == hash(pipeline)
        assert repr(twin) == "<Pipeline 'chain': 20,000 stages>"
        assert copy.copy(pipeline) == pipeline
        pipeline.validate()
    finally:
        sys.setrecursionlimit(limit)
    assert len(pipeline) == size
    assert type(pipeline.stages[-1]) is StageSpec
