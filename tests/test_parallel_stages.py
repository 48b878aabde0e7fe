"""Many stages alike: their names, their configuration, and every refusal in full."""

from __future__ import annotations

import pytest

from stageflow_actors import PipelineValidationError, StageKind, Trigger, parallel_stages, route


async def nothing(ctx):
    """Return at once."""


class Guard:
    kind = StageKind.GUARD

    async def execute(self, ctx):
        """Return at once."""


class Plain(tuple):
    __slots__ = ()


NAMES = "give a stage's name, or an iterable of names"
KINDS = "kind must be one of transform, enrich, route, guard, work, agent, not "


def refusal(call, *args, **options):
    with pytest.raises(PipelineValidationError) as caught:
        call(*args, **options)
    return str(caught.value)


def names(specs):
    return [spec.name for spec in specs]


def make(template="score-{key}", runner=nothing, keys=("a",), **options):
    return parallel_stages(template, runner, keys, **options)


@pytest.mark.parametrize(
    ("template", "keys", "expected"),
    [
        ("score-{key}", ["a", "b"], ["score-a", "score-b"]),
        ("{key}", range(2), ["0", "1"]),
        ("w{key:03}", range(2), ["w000", "w001"]),
        ("{key!r}", ["a"], ["'a'"]),
        ("{key}-{key}", ["a"], ["a-a"]),
        ("{{{key}}}", ["a"], ["{a}"]),
        ("w{key[0]}", [("x", 1), ("y", 2)], ["wx", "wy"]),
        ("w{key.imag}", [1j, 2j], ["w1.0", "w2.0"]),
        ("w{key}", (key for key in "ab"), ["wa", "wb"]),
        ("w{key}", {"a": {}, "b": None}, ["wa", "wb"]),
        ("w{key}", [], []),
        ("w{key}", {None, 1.5}, None),
    ],
)
def test_names_of_many(template, keys, expected):
    made = make(template, keys=keys)
    assert isinstance(made, tuple)
    assert names(made) == (expected if expected is not None else [f"w{key}" for key in keys])


def test_each_finds_its_key_and_its_own_configuration():
    made = make(keys={"a": {"depth": 1}, "b": {"depth": 2, "own": [1]}, "c": None}, config={"depth": 0, "all": True})
    assert [spec.config for spec in made] == [
        {"key": "a", "depth": 1, "all": True},
        {"key": "b", "depth": 2, "all": True, "own": (1,)},
        {"key": "c", "depth": 0, "all": True},
    ]
    assert [spec.config for spec in make(keys=[7, ("x", 1)])] == [{"key": 7}, {"key": ("x", 1)}]


def test_all_share_the_options():
    when = route("fetch", "go")
    made = make(
        keys=["a", "b"],
        kind="enrich",
        dependencies=iter(["fetch", "other"]),
        when=when,
        trigger="all_done",
        timeout=3,
    )
    for spec in made:
        assert spec.kind is StageKind.ENRICH
        assert spec.dependencies == ("fetch", "other")
        assert (spec.when, spec.trigger, spec.timeout) == (when, Trigger.ALL_DONE, 3)
    assert make(runner=Guard)[0].kind is StageKind.GUARD


BRACES = "the template of the names must have {key} in it and nothing else in braces, not "
WRITE = "; write it as 'score-{key}'"
KEYS = "keys must be an iterable of keys or a mapping of key to configuration, not "
RANGE = "; for numbered stages give range(n), for a single one use with_stage"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "score"}, f"{BRACES}'score'{WRITE}"),
        ({"template": ""}, f"{BRACES}''{WRITE}"),
        ({"template": "score-{}"}, f"{BRACES}'score-{{}}'{WRITE}"),
        ({"template": "score-{0}"}, f"{BRACES}'score-{{0}}'{WRITE}"),
        ({"template": "{key}{name}"}, f"{BRACES}'{{key}}{{name}}'{WRITE}"),
        ({"template": "{{key}}"}, f"{BRACES}'{{{{key}}}}'{WRITE}"),
        ({"template": "{keys}"}, f"{BRACES}'{{keys}}'{WRITE}"),
        ({"template": 5}, f"the template of the names must be a string, not 5{WRITE}"),
        ({"template": b"{key}"}, f"the template of the names must be a string, not b'{{key}}'{WRITE}"),
        (
            {"template": "score-{key"},
            f"the template 'score-{{key' cannot be used for names: expected '}}' before end of string{WRITE}",
        ),
        (
            {"template": "{key.x}"},
            "the template '{key.x}' does not fit the key 'a': 'str' object has no attribute 'x'",
        ),
        (
            {"template": "{key:d}"},
            "the template '{key:d}' does not fit the key 'a': Unknown format code 'd' for object of type 'str'",
        ),
        ({"template": "{key:{w}}"}, "the template '{key:{w}}' does not fit the key 'a': 'w'"),
        ({"template": "{key}", "keys": [""]}, "stage name must be a non-empty string, not ''"),
        ({"keys": 500}, f"{KEYS}500{RANGE}"),
        ({"keys": None}, f"{KEYS}None{RANGE}"),
        ({"keys": "abc"}, f"{KEYS}'abc'{RANGE}"),
        ({"keys": b"abc"}, f"{KEYS}b'abc'{RANGE}"),
        ({"keys": [1, "1"]}, "the keys 1 and '1' give two stages the name 'score-1'; make the keys distinct"),
        ({"keys": ["a", "a"]}, "the keys 'a' and 'a' give two stages the name 'score-a'; make the keys distinct"),
        ({"keys": {"a": 5}}, "stage 'score-a': the configuration of key 'a' must be a mapping, not 5"),
        ({"keys": {"a": 0}}, "stage 'score-a': the configuration of key 'a' must be a mapping, not 0"),
        ({"config": [1]}, "config must be a mapping, not [1]"),
        ({"config": 0}, "config must be a mapping, not 0"),
        (
            {"keys": {"a": {"key": 1}}},
            (
                "stage 'score-a': the configuration of key 'a' has an entry 'key'; "
                "there a stage finds its own key, so rename yours"
            ),
        ),
        (
            {"config": {"key": 1}},
            (
                "stage 'score-a': the configuration of key 'a' has an entry 'key'; "
                "there a stage finds its own key, so rename yours"
            ),
        ),
        ({"dependencies": 5}, f"dependencies must be names, not 5; {NAMES}"),
        ({"dependencies": [5]}, f"dependencies must be names of stages, not 5; {NAMES}"),
        ({"dependencies": ["aa", "aa"]}, "dependency 'aa' is named twice; remove one of the two"),
        (
            {"dependencies": "score-a"},
            "stage 'score-a': 'score-a' depends on itself; remove it from its dependencies",
        ),
        ({"kind": "zzz"}, f"stage 'score-a': {KINDS}'zzz'; if this one needs a stage 'zzz', write dependencies='zzz'"),
        ({"timeout": -1}, "stage 'score-a': timeout must be a positive number of seconds, not -1"),
        (
            {"when": route("fetch", "go")},
            (
                "stage 'score-a': when=route('fetch', 'go') names a router that is no dependency; "
                "add 'fetch' to its dependencies"
            ),
        ),
        (
            {"runner": None},
            (
                "runner None cannot run a stage; "
                "pass a stage class, an instance of one, or a function of the stage's context"
            ),
        ),
    ],
)
def test_many_that_are_refused(options, message):
    assert refusal(make, **options) == message


def test_an_unfreezable_key_or_configuration_names_its_path():
    assert "stage 'score-a': config['rows'][0] cannot be frozen" in refusal(make, keys={"a": {"rows": [Plain([[1]])]}})
