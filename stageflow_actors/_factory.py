"""Whole pipelines of a source, a fan-out and a join, from a mapping."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, final

import attrs

from ._limiter import Limiter
from ._limits import Rate
from ._pipeline import Pipeline
from ._policy import Backoff, Restart, Trigger
from ._spec import StageSpec, parallel_stages
from ._validation import list_names, nearest, refuse, require_name
from .errors import PipelineValidationError

_STAGE_OPTIONS: Final = frozenset(
    {"runner", "name", "kind", "config", "trigger", "restart", "timeout", "limiter", "priority"}
)
_WORKER_OPTIONS: Final = _STAGE_OPTIONS | {"keys"}
_SECTIONS: Final = frozenset({"name", "source", "workers", "join"})


@final
class ParallelPipelineFactory:
    """Makes pipelines of a source, one worker a key, and a join.

    The mapping has a `name` and the sections `workers` and, each optional, `source` and `join`. A section
    is a runner, or a mapping with the options of `Pipeline.with_stage`:

    - `runner`: what runs the stage: itself or, with a registry, its name in there;
    - `name`: the stage's name, by default that of the section; for workers a template, by default `worker-{key}`;
    - `keys`, for workers: as in `parallel_stages`; a whole number N means 0 to N-1;
    - `config`, `kind`, `trigger`, `restart`, `timeout`, `limiter`, `priority`, as in `Pipeline.with_stage`; `restart`
      and `limiter` may be mappings of the options of a `Restart`, its `backoff` likewise, and of a `Limiter`, its
      `rate` likewise.

    Args:
        runners: A registry: where a mapping comes from a file, it names its runners as they are called here,
            and nothing is ever imported by name.
    """

    def __init__(self, runners: Mapping[str, Any] | None = None) -> None:
        if runners is not None and not isinstance(runners, Mapping):
            refuse(f"runners must be a mapping of name to runner, not {runners!r}")
        self._runners = runners or {}

    def build(self, definition: Mapping[str, Any]) -> Pipeline:
        """Return the pipeline of a mapping, validated.

        Raises:
            PipelineValidationError: Something is missing, unknown or cannot be; the message says what.
        """
        if not isinstance(definition, Mapping):
            refuse(f"a definition must be a mapping, not {definition!r}")
        if "name" not in definition:
            refuse("the definition has no name", hint="begin it with name = 'report'")
        name = require_name("the name of a pipeline", definition["name"])
        _refuse_unknown(definition, _SECTIONS, name, "section")
        if "workers" not in definition:
            refuse("it has no section 'workers'", pipeline=name, hint="say there what runs, and for which keys")
        pipeline = Pipeline(name)
        upstream: tuple[str, ...] = ()
        if "source" in definition:
            source = self._read_section("source", definition["source"], _STAGE_OPTIONS, name)
            pipeline = _add(pipeline, source, "source", ())
            upstream = (source.get("name", "source"),)
        workers = self._read_section("workers", definition["workers"], _WORKER_OPTIONS, name)
        specs = _make_workers(workers, upstream, name)
        pipeline = pipeline.with_stages(specs)
        if "join" in definition:
            join = self._read_section("join", definition["join"], _STAGE_OPTIONS, name)
            pipeline = _add(pipeline, join, "join", [spec.name for spec in specs] or upstream)
        pipeline.validate()
        return pipeline

    def read(self, path: str | Path) -> Pipeline:
        """Return the pipeline that a TOML file defines.

        Raises:
            PipelineValidationError: The file is no TOML, or what `build` refuses.
            OSError: The file cannot be read.
        """
        path = Path(path)
        try:
            definition = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            refuse(f"{path} is not valid TOML: {error}")
        try:
            return self.build(definition)
        except PipelineValidationError as error:
            error.problem += f" (in {path})"
            raise

    def _read_section(self, section: str, value: Any, options: frozenset[str], pipeline: str) -> dict[str, Any]:
        """Return a section as a mapping whose runner is one."""
        read = dict(value) if isinstance(value, Mapping) else {"runner": value}
        _refuse_unknown(read, options, pipeline, f"option of {section!r}")
        if "runner" not in read:
            hint = f"name one of the registry: {list_names(self._runners)}" if self._runners else "give it a runner"
            refuse(f"section {section!r} has no runner", pipeline=pipeline, hint=hint)
        runner = read["runner"]
        if isinstance(runner, str):
            if runner not in self._runners:
                hint = nearest(runner, self._runners) or f"pass it: ParallelPipelineFactory({{{runner!r}: ...}})"
                refuse(f"section {section!r}: no runner {runner!r} in the registry", pipeline=pipeline, hint=hint)
            read["runner"] = self._runners[runner]
        for option, make in (("restart", _make_restart), ("limiter", _make_limiter)):
            if isinstance(read.get(option), Mapping):
                where = f"option of {option!r} of {section!r}"
                try:
                    read[option] = make(read[option], pipeline, where)
                except PipelineValidationError as error:
                    error.locate(pipeline=pipeline)
                    raise
        return read


def _make_restart(options: Mapping[str, Any], pipeline: str, where: str) -> Restart:
    _refuse_unknown(options, ("max_restarts", "within", "backoff"), pipeline, where)
    backoff = options.get("backoff", Backoff())
    if isinstance(backoff, Mapping):
        _refuse_unknown(backoff, [field.name for field in attrs.fields(Backoff)], pipeline, f"{where}: backoff")
        backoff = Backoff(**backoff)
    return Restart(**{**options, "backoff": backoff})


def _make_limiter(options: Mapping[str, Any], pipeline: str, where: str) -> Limiter:
    _refuse_unknown(options, ("max_concurrency", "max_queued", "overflow", "rate", "aging"), pipeline, where)
    if "max_concurrency" not in options:
        refuse("its limiter has no max_concurrency", pipeline=pipeline, hint="say how many may run at once")
    rate = options.get("rate")
    if isinstance(rate, Mapping):
        _refuse_unknown(rate, ("count", "per", "burst"), pipeline, f"{where}: rate")
        if "count" not in rate:
            refuse("the rate of its limiter has no count", pipeline=pipeline, hint="say how many may start in `per` s")
        rate = Rate(**rate)
    return Limiter(**{**options, "rate": rate})


def _refuse_unknown(given: Mapping[str, Any], known: Iterable[str], pipeline: str, what: str) -> None:
    for key in given:
        if key not in known:
            hint = nearest(key, known) or f"known are {', '.join(sorted(known))}"
            refuse(f"unknown {what}: {key!r}", pipeline=pipeline, hint=hint)


def _add(pipeline: Pipeline, section: Mapping[str, Any], default: str, dependencies: Iterable[str]) -> Pipeline:
    return pipeline.with_stage(
        section.get("name", default),
        section["runner"],
        section.get("kind"),
        dependencies,
        config=section.get("config"),
        **_read_options(section),
    )


def _read_options(section: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "trigger": section.get("trigger", Trigger.ALL_SUCCESS),
        "restart": section.get("restart"),
        "timeout": section.get("timeout"),
        "limiter": section.get("limiter"),
        "priority": section.get("priority", 0),
    }


def _make_workers(section: Mapping[str, Any], upstream: tuple[str, ...], pipeline: str) -> tuple[StageSpec, ...]:
    keys = section.get("keys")
    if isinstance(keys, int) and not isinstance(keys, bool) and keys >= 0:
        keys = range(keys)
    if keys is None or isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
        problem = "section 'workers' has no keys" if keys is None else f"the keys of 'workers' cannot be {keys!r}"
        hint = "give a list, a whole number, or a mapping of key to configuration"
        refuse(problem, pipeline=pipeline, hint=hint)
    try:
        specs = parallel_stages(
            section.get("name", "worker-{key}"),
            section["runner"],
            keys,
            kind=section.get("kind"),
            dependencies=upstream,
            config=section.get("config"),
            **_read_options(section),
        )
    except PipelineValidationError as error:
        error.locate(pipeline=pipeline)
        raise
    if not specs and not upstream:
        refuse("section 'workers' has no keys, and there is no source", pipeline=pipeline, hint="give at least one key")
    return specs
