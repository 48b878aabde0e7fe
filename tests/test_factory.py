"""Pipelines from a mapping: from code, from TOML with a registry, and every refusal in full."""

from __future__ import annotations

import pytest

from stageflow_actors import (
    Backoff,
    Limiter,
    ParallelPipelineFactory,
    Pipeline,
    PipelineValidationError,
    Restart,
    StageKind,
    Trigger,
)


async def fetch(ctx):
    return {"rows": [1, 2, 3]}


async def score(ctx):
    return {"sum": sum(ctx.inputs.get_from("source", "rows", ())) * ctx.config.get("factor", 1)}


class Join:
    kind = StageKind.TRANSFORM

    async def execute(self, ctx):
        return {name: output.data["sum"] for name, output in ctx.inputs.outputs.items()}


REGISTRY = {"fetch": fetch, "score": score, "join": Join}


def workers(**options):
    return {"name": "report", "workers": {"runner": "score", "keys": ["a"], **options}}


def shape(pipeline):
    return {spec.name: spec.dependencies for spec in pipeline.stages}


# From code


async def test_a_source_workers_and_a_join_in_one_expression():
    pipeline = ParallelPipelineFactory().build(
        {"name": "report", "source": fetch, "workers": {"runner": score, "keys": ["a", "b"]}, "join": Join}
    )
    assert type(pipeline) is Pipeline
    assert pipeline.name == "report"
    assert shape(pipeline) == {
        "source": (),
        "worker-a": ("source",),
        "worker-b": ("source",),
        "join": ("worker-a", "worker-b"),
    }
    result = await pipeline.run()
    assert result.data("join") == {"worker-a": 6, "worker-b": 6}


def test_every_option_reaches_its_stages():
    pipeline = ParallelPipelineFactory().build(
        {
            "name": "report",
            "source": {"runner": fetch, "name": "fetch", "kind": "enrich", "config": {"n": 1}, "timeout": 1},
            "workers": {
                "runner": score,
                "name": "score-{key:02}",
                "keys": 2,
                "kind": StageKind.AGENT,
                "config": {"factor": 2},
                "timeout": 2.5,
                "trigger": "none_failed",
            },
            "join": {"runner": Join, "name": "end", "trigger": Trigger.ALL_DONE, "timeout": 3},
        }
    )
    source, first, second, end = pipeline.stages
    assert (source.name, source.kind, source.config, source.timeout) == ("fetch", StageKind.ENRICH, {"n": 1}, 1)
    for number, worker in enumerate((first, second)):
        assert worker.name == f"score-0{number}"
        assert worker.config == {"key": number, "factor": 2}
        assert worker.dependencies == ("fetch",)
        assert (worker.kind, worker.timeout, worker.trigger) == (StageKind.AGENT, 2.5, Trigger.NONE_FAILED)
    assert (end.name, end.kind, end.trigger, end.timeout) == ("end", StageKind.TRANSFORM, Trigger.ALL_DONE, 3)
    assert end.dependencies == ("score-00", "score-01")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (2, {"worker-0": {"key": 0}, "worker-1": {"key": 1}}),
        (range(1, 2), {"worker-1": {"key": 1}}),
        (("a", 1.5), {"worker-a": {"key": "a"}, "worker-1.5": {"key": 1.5}}),
        ({"a": {"factor": 2}, "b": {}}, {"worker-a": {"key": "a", "factor": 2}, "worker-b": {"key": "b"}}),
        ((key for key in "ab"), {"worker-a": {"key": "a"}, "worker-b": {"key": "b"}}),
    ],
)
def test_keys(keys, expected):
    pipeline = ParallelPipelineFactory().build({"name": "p", "workers": {"runner": score, "keys": keys}})
    assert {spec.name: spec.config for spec in pipeline.stages} == expected


def test_sections_may_be_left_out():
    factory = ParallelPipelineFactory(REGISTRY)
    assert shape(factory.build(workers())) == {"worker-a": ()}
    assert shape(factory.build({**workers(), "join": "join"})) == {"worker-a": (), "join": ("worker-a",)}
    assert shape(factory.build({**workers(), "source": "fetch"})) == {"source": (), "worker-a": ("source",)}


def test_no_workers_leave_the_join_below_the_source():
    pipeline = ParallelPipelineFactory(REGISTRY).build({**workers(keys=[]), "source": "fetch", "join": "join"})
    assert shape(pipeline) == {"source": (), "join": ("source",)}


def test_a_factory_makes_any_number_of_pipelines_and_leaves_the_mapping_alone():
    factory = ParallelPipelineFactory(REGISTRY)
    definition = {**workers(), "source": "fetch"}
    assert factory.build(definition) == factory.build(definition)
    assert definition == {**workers(), "source": "fetch"}


def test_with_a_registry_runners_may_still_be_given_themselves():
    pipeline = ParallelPipelineFactory(REGISTRY).build({**workers(), "join": Join})
    assert pipeline.stages[-1].runner is Join
    assert pipeline.stages[0].runner is score


# From TOML

TOML = """
name = "report"
source = "fetch"

[workers]
runner = "score"
name = "score-{key}"
timeout = 30
config = { factor = 2 }

[workers.keys]
a = {}
b = { factor = 3 }

[join]
runner = "join"
trigger = "none_failed"
"""


async def test_a_whole_pipeline_from_toml(tmp_path):
    path = tmp_path / "report.toml"
    path.write_text(TOML, encoding="utf-8")
    pipeline = ParallelPipelineFactory(REGISTRY).read(path)
    assert pipeline == ParallelPipelineFactory(REGISTRY).read(str(path))
    assert pipeline.stages[-1].trigger is Trigger.NONE_FAILED
    result = await pipeline.run()
    assert result.data("join") == {"score-a": 12, "score-b": 18}


def test_text_beyond_ascii(tmp_path):
    path = tmp_path / "report.toml"
    path.write_text('name = "Übersicht"\nworkers = { runner = "score", keys = ["ö"] }\n', encoding="utf-8")
    pipeline = ParallelPipelineFactory(REGISTRY).read(path)
    assert (pipeline.name, pipeline.stages[0].name) == ("Übersicht", "worker-ö")


def read_refusal(path, content):
    path.write_bytes(content)
    with pytest.raises(PipelineValidationError) as caught:
        ParallelPipelineFactory(REGISTRY).read(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"name = \n", "Invalid value (at line 1, column 8)"),
        (b"name = 'a'\nname = 'b'", "Cannot overwrite a value (at end of document)"),
        (b"name = '\xff'", "'utf-8' codec can't decode byte 0xff in position 8: invalid start byte"),
    ],
)
def test_a_file_that_is_no_toml(tmp_path, content, problem):
    path = tmp_path / "report.toml"
    assert read_refusal(path, content) == f"{path} is not valid TOML: {problem}"


@pytest.mark.parametrize(
    ("content", "before", "after"),
    [
        (b"", "the definition has no name", "; begin it with name = 'report'"),
        (b"name = ''", "the name of a pipeline must be a non-empty string, not ''", ""),
        (
            b"name = 'p'",
            "pipeline 'p': it has no section 'workers'",
            "; say there what runs, and for which keys",
        ),
        (
            b"name = 'p'\nworkers = { runner = 'scroe', keys = 2 }",
            "pipeline 'p': section 'workers': no runner 'scroe' in the registry",
            "; did you mean 'score'?",
        ),
    ],
)
def test_what_a_file_lacks_is_said_with_its_path(tmp_path, content, before, after):
    path = tmp_path / "report.toml"
    assert read_refusal(path, content) == f"{before} (in {path}){after}"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        ParallelPipelineFactory().read(tmp_path / "missing.toml")


def test_nothing_is_imported_by_name(tmp_path):
    path = tmp_path / "report.toml"
    message = read_refusal(path, b"name = 'p'\nworkers = { runner = 'os:system', keys = 1 }")
    assert "no runner 'os:system' in the registry" in message


# Refusals

KNOWN = "known are config, kind, limiter, name, priority, restart, runner, timeout, trigger"
CANNOT = "pass a stage class, an instance of one, or a function of the stage's context"
GIVE = "give a list, a whole number, or a mapping of key to configuration"


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (None, "a definition must be a mapping, not None"),
        ([1], "a definition must be a mapping, not [1]"),
        ({}, "the definition has no name; begin it with name = 'report'"),
        ({"name": 5}, "the name of a pipeline must be a non-empty string, not 5"),
        (
            {"name": "report", "wrokers": {}},
            "pipeline 'report': unknown section: 'wrokers'; did you mean 'workers'?",
        ),
        (
            {**workers(), "zzz": 1},
            "pipeline 'report': unknown section: 'zzz'; known are join, name, source, workers",
        ),
        ({**workers(), 5: 1}, "pipeline 'report': unknown section: 5; known are join, name, source, workers"),
        (
            {"name": "report", "workers": None},
            f"pipeline 'report': section 'workers' has no keys; {GIVE}",
        ),
        ({"name": "report", "workers": "score"}, f"pipeline 'report': section 'workers' has no keys; {GIVE}"),
        (
            {"name": "report", "workers": {"keys": 1}},
            ("pipeline 'report': section 'workers' has no runner; name one of the registry: 'fetch', 'score', 'join'"),
        ),
        (
            workers(runner="scroe"),
            "pipeline 'report': section 'workers': no runner 'scroe' in the registry; did you mean 'score'?",
        ),
        (
            workers(runner="zzz"),
            (
                "pipeline 'report': section 'workers': no runner 'zzz' in the registry; "
                "pass it: ParallelPipelineFactory({'zzz': ...})"
            ),
        ),
        (workers(runner=5), f"pipeline 'report': runner 5 cannot run a stage; {CANNOT}"),
        (workers(keys=None), f"pipeline 'report': section 'workers' has no keys; {GIVE}"),
        (workers(keys="abc"), f"pipeline 'report': the keys of 'workers' cannot be 'abc'; {GIVE}"),
        (workers(keys=-1), f"pipeline 'report': the keys of 'workers' cannot be -1; {GIVE}"),
        (workers(keys=True), f"pipeline 'report': the keys of 'workers' cannot be True; {GIVE}"),
        (workers(keys=1.5), f"pipeline 'report': the keys of 'workers' cannot be 1.5; {GIVE}"),
        (
            workers(keys=0),
            "pipeline 'report': section 'workers' has no keys, and there is no source; give at least one key",
        ),
        (
            workers(keys=[1, "1"]),
            "pipeline 'report': the keys 1 and '1' give two stages the name 'worker-1'; make the keys distinct",
        ),
        (
            workers(keys={"a": 5}),
            "pipeline 'report', stage 'worker-a': the configuration of key 'a' must be a mapping, not 5",
        ),
        (
            workers(timeuot=3),
            "pipeline 'report': unknown option of 'workers': 'timeuot'; did you mean 'timeout'?",
        ),
        (
            workers(name="w"),
            (
                "pipeline 'report': the template of the names must have {key} in it and nothing else in braces, "
                "not 'w'; write it as 'score-{key}'"
            ),
        ),
        (workers(config=5), "pipeline 'report': config must be a mapping, not 5"),
        (
            workers(timeout=-1),
            "pipeline 'report', stage 'worker-a': timeout must be a positive number of seconds, not -1",
        ),
        (
            workers(trigger="all-done"),
            (
                "pipeline 'report', stage 'worker-a': trigger must be one of all_success, none_failed, one_success, "
                "all_done, not 'all-done'; did you mean 'all_done'?"
            ),
        ),
        (
            {**workers(), "source": {"name": "a"}},
            ("pipeline 'report': section 'source' has no runner; name one of the registry: 'fetch', 'score', 'join'"),
        ),
        (
            {**workers(), "source": {"runner": "fetch", "keys": 2}},
            f"pipeline 'report': unknown option of 'source': 'keys'; {KNOWN}",
        ),
        (
            {**workers(), "source": {"runner": "fetch", "name": ""}},
            "pipeline 'report': stage name must be a non-empty string, not ''",
        ),
        (
            {**workers(), "source": {"runner": "fetch", "timeout": 0}},
            "pipeline 'report', stage 'source': timeout must be a positive number of seconds, not 0",
        ),
        (
            {**workers(), "source": {"runner": "fetch", "name": "worker-a"}},
            ("pipeline 'report', stage 'worker-a': 'worker-a' depends on itself; remove it from its dependencies"),
        ),
        (
            {**workers(), "join": None},
            f"pipeline 'report', stage 'join': runner None cannot run a stage; {CANNOT}",
        ),
        (
            {**workers(), "source": "fetch", "join": {"runner": "join", "name": "source"}},
            ("pipeline 'report', stage 'source': the pipeline has a stage of this name already; rename one of the two"),
        ),
    ],
)
def test_what_is_refused(definition, message):
    with pytest.raises(PipelineValidationError) as caught:
        ParallelPipelineFactory(REGISTRY).build(definition)
    assert str(caught.value) == message


def test_without_a_registry_names_are_refused_with_what_to_do():
    for factory in (ParallelPipelineFactory(), ParallelPipelineFactory({})):
        with pytest.raises(PipelineValidationError) as caught:
            factory.build(workers())
        assert str(caught.value) == (
            "pipeline 'report': section 'workers': no runner 'score' in the registry; "
            "pass it: ParallelPipelineFactory({'score': ...})"
        )
        with pytest.raises(PipelineValidationError, match="section 'workers' has no runner; give it a runner"):
            factory.build({"name": "report", "workers": {"keys": 1}})


@pytest.mark.parametrize("wrong", [[fetch], fetch, "registry", 5])
def test_a_registry_is_a_mapping(wrong):
    with pytest.raises(PipelineValidationError) as caught:
        ParallelPipelineFactory(wrong)
    assert str(caught.value) == f"runners must be a mapping of name to runner, not {wrong!r}"


# Restarts and limits


LIMITED = """
name = "report"
source = "fetch"
join = "fetch"

[workers]
runner = "fetch"
keys = 3
priority = 2
restart = { max_restarts = 5, within = 60, backoff = { initial = 0.5, jitter = 0.0 } }
limiter = { max_concurrency = 2, rate = { count = 100, per = 1.0 }, overflow = "wait" }
"""


def test_restarts_and_limits_from_a_file(tmp_path):
    path = tmp_path / "report.toml"
    path.write_text(LIMITED, encoding="utf-8")
    pipeline = ParallelPipelineFactory({"fetch": fetch}).read(path)
    workers = pipeline.stages[1:4]
    restart = Restart(max_restarts=5, within=60, backoff=Backoff(initial=0.5, jitter=0.0))
    assert [spec.restart for spec in workers] == [restart] * 3
    assert [spec.priority for spec in workers] == [2] * 3
    assert len({spec.limiter for spec in workers}) == 1
    assert workers[0].limiter.max_concurrency == 2
    assert pipeline.stages[0].limiter is pipeline.stages[0].restart is None


def test_restarts_and_limits_as_they_are():
    limiter, restart = Limiter(2), Restart(on=OSError)
    workers = {"runner": fetch, "keys": 2, "limiter": limiter, "restart": restart}
    pipeline = ParallelPipelineFactory().build({"name": "report", "workers": workers})
    assert {(spec.limiter, spec.restart) for spec in pipeline.stages} == {(limiter, restart)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"restart": {"max_restart": 1}},
            "unknown option of 'restart' of 'workers': 'max_restart'; did you mean 'max_restarts'?",
        ),
        (
            {"restart": {"backoff": {"jiter": 0}}},
            "unknown option of 'restart' of 'workers': backoff: 'jiter'; did you mean 'jitter'?",
        ),
        ({"restart": {"max_restarts": -1}}, "max_restarts must be a whole number from 0 to 1,000,000, not -1"),
        ({"restart": 3}, "restart must be a Restart, not 3; write restart=Restart(max_restarts=3)"),
        ({"limiter": {}}, "its limiter has no max_concurrency; say how many may run at once"),
        (
            {"limiter": {"max_concurrency": 0}},
            "max_concurrency must be a whole number of at least 1, not 0",
        ),
        (
            {"limiter": {"max_concurrency": 1, "rate": {"per": 1}}},
            "the rate of its limiter has no count; say how many may start in `per` s",
        ),
        (
            {"limiter": {"max_concurrency": 1, "rate": {"count": 1, "pre": 1}}},
            "unknown option of 'limiter' of 'workers': rate: 'pre'; did you mean 'per'?",
        ),
    ],
)
def test_restarts_and_limits_that_cannot_be(options, message):
    workers = {"runner": fetch, "keys": 2, **options}
    with pytest.raises(PipelineValidationError) as caught:
        ParallelPipelineFactory().build({"name": "report", "workers": workers})
    assert caught.value.pipeline == "report"
    assert caught.value.describe() == message
