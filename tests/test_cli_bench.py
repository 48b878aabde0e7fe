"""The command `bench dag005`: what it runs, what it prints, and that no wrong output passes."""

from __future__ import annotations

import json
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from click.testing import CliRunner, Result
from trio.testing import MockClock

from stageflow_actors import StageOutput, Supervisor
from stageflow_actors.cli._bench import SEED_ROWS, Figures, Row, bench, find_problems, make_dag005
from stageflow_actors.events import StageEnded, StageStarted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stageflow_actors import StageContext

REPORT = Figures(0.193, 2597, 1.0, 1.1)
PLAIN = Row("plain", 5, REPORT)
ADVERSARIAL = attrs.evolve(SEED_ROWS[5], name="adversarial", workers=5)


def invoke(*rows: Row, args: tuple[str, ...] = ("--rounds", "1")) -> Result:
    return CliRunner().invoke(make_dag005(rows), args)


def run(row: Row) -> dict[str, Any]:
    result = trio.run(partial(row.build().run, {"round": 0}, continue_on_failure=True))
    found: dict[str, Any] = json.loads(json.dumps(result.to_dict()), object_hook=freeze_lists)
    return found


def freeze_lists(plain: dict[str, Any]) -> dict[str, Any]:
    """Make tuples of lists again: JSON has none."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}


def say_ledger(accepted: int, replied: int, failed: int, cancelled: int) -> str:
    counts = {"accepted": accepted, "replied": replied, "failed": failed, "cancelled": cancelled}
    return f"the ledger is {counts}, not 7 accepted and as many replied"


def test_rows_are_those_of_the_seed_report() -> None:
    assert [(row.name, row.workers, row.report.duration, row.report.throughput) for row in SEED_ROWS] == [
        ("baseline_50", 50, 0.028, 1879),
        ("baseline_100", 100, 0.045, 2268),
        ("stress_250", 250, 0.090, 2786),
        ("stress_500", 500, 0.193, 2597),
        ("stress_500_latency", 500, 0.186, 2706),
        ("adversarial_race", 500, 0.172, 2924),
    ]
    assert [(row.report.success, row.report.memory) for row in SEED_ROWS] == [
        (1.0, 0.22),
        (1.0, 0.23),
        (1.0, 0.61),
        (1.0, 1.10),
        (1.0, 0.22),
        (1.0, 0.02),
    ]
    assert bench.commands.keys() == {"dag005"}


def test_each_row_is_a_source_n_workers_and_a_join() -> None:
    for row in SEED_ROWS:
        stages = row.build().stages
        workers = tuple(f"worker-{key}" for key in range(row.workers))
        assert [stage.name for stage in stages] == ["source", *workers, "join"]
        assert {stage.dependencies for stage in stages[1:-1]} == {("source",)}
        assert stages[-1].dependencies == workers


def test_prints_the_figures_beside_those_of_the_report() -> None:
    result = invoke(PLAIN, ADVERSARIAL)
    assert result.exit_code == 0, result.output
    plain = next(line for line in result.stdout.splitlines() if line.startswith("plain"))
    _, _, duration, _, throughput, success, report_success, _, memory = plain.split()
    assert (duration, throughput, success, report_success, memory) == ("0.193", "2,597", "100%", "100%", "1.10")
    assert "tracemalloc" in result.stdout
    assert "All 28 outputs of 4 runs are right." in result.stdout


def test_prints_json() -> None:
    result = invoke(PLAIN, ADVERSARIAL, args=("--json", "--rounds", "2"))
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["rounds"] == 2
    plain, adversarial = printed["rows"]
    assert (plain["name"], plain["stages"], plain["problems"]) == ("plain", 7, [])
    assert plain["report"] == {"duration": 0.193, "throughput": 2597, "success": 1.0, "memory": 1.1}
    assert plain["measured"]["success"] == 1.0
    assert plain["measured"]["throughput"] == pytest.approx(7 / plain["measured"]["duration"])
    assert plain["measured"]["memory"] > 0
    assert adversarial["name"] == "adversarial"


def test_waits_out_the_latency_once() -> None:
    clock = MockClock(autojump_threshold=0)
    row = attrs.evolve(SEED_ROWS[4], workers=5)
    result = CliRunner().invoke(make_dag005((row,), clock), ["--rounds", "2"])
    assert result.exit_code == 0, result.output
    # Two timed runs and one for the memory; five workers at once take as long as one.
    assert clock.current_time() == pytest.approx(3 * 0.05)


def test_stops_tracing_memory_unless_it_was_traced_before() -> None:
    assert invoke(PLAIN).exit_code == 0
    assert not tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        assert invoke(PLAIN).exit_code == 0
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


def test_refuses_no_rounds() -> None:
    result = invoke(PLAIN, args=("--rounds", "0"))
    assert result.exit_code == 2
    assert "0 is not in the range x>=1" in result.stderr


async def raise_at_three(ctx: StageContext) -> Mapping[str, Any]:
    if ctx.config["key"] == 3:
        message = "the disk is full"
        raise OSError(message)
    return {"value": 1009 + ctx.config["key"]}


async def give_wrong_value_at_three(ctx: StageContext) -> Mapping[str, Any]:
    return {"value": 0 if ctx.config["key"] == 3 else 1009 + ctx.config["key"]}


async def skip_at_three(ctx: StageContext) -> StageOutput | Mapping[str, Any]:
    return StageOutput.skip("not today") if ctx.config["key"] == 3 else {"value": 1009 + ctx.config["key"]}


@pytest.mark.parametrize(
    ("worker", "said"),
    [
        (
            raise_at_three,
            [
                "worker-3: its state is failed (OSError: the disk is full), not ok",
                "worker-3: its output is missing",
                "join: its state is isolated ('worker-3' did not end well), not ok",
                "join: its output is missing",
                say_ledger(6, 5, 1, 0),
            ],
        ),
        (
            give_wrong_value_at_three,
            ["worker-3: data['value'] is 0, not 1012", "join: data['total'] is 4043, not 5055"],
        ),
        (
            skip_at_three,
            [
                "worker-3: its state is skipped (not today), not ok",
                "worker-3: data has no 'value'",
                "join: its state is skipped (dependency 'worker-3' was skipped), not ok",
                "join: its output is missing",
                say_ledger(6, 6, 0, 0),
            ],
        ),
    ],
)
def test_a_sabotaged_worker_is_named_and_the_exit_code_is_1(worker: Callable[..., Any], said: list[str]) -> None:
    result = invoke(PLAIN, attrs.evolve(PLAIN, name="sabotaged", worker=worker))
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [f"sabotaged: {line}" for line in said]
    assert "are right" not in result.stdout


def test_a_sabotaged_worker_shows_in_the_json_too() -> None:
    result = invoke(attrs.evolve(PLAIN, worker=raise_at_three), args=("--json", "--rounds", "1"))
    assert result.exit_code == 1
    (row,) = json.loads(result.stdout)["rows"]
    assert row["measured"]["success"] == pytest.approx(5 / 7)
    assert "worker-3: its output is missing" in row["problems"]


async def write_nothing_in_common(ctx: StageContext) -> Mapping[str, Any]:
    key = ctx.config["key"]
    return {f"key-{key}": 1009 + key, "common": 0}


def test_a_lost_write_under_the_common_key_is_named() -> None:
    result = invoke(attrs.evolve(ADVERSARIAL, workers=3, worker=write_nothing_in_common))
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "adversarial: worker-1: data['common'] is 0, not 1",
        "adversarial: worker-2: data['common'] is 0, not 2",
        "adversarial: join: data['common'][1] is 0, not 1",
        "adversarial: join: data['common'][2] is 0, not 2",
    ]


async def fail(_ctx: StageContext) -> StageOutput:
    return StageOutput.fail("no")


def test_many_problems_are_cut_short() -> None:
    result = invoke(attrs.evolve(PLAIN, workers=50, worker=fail))
    lines = result.stderr.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "plain: and 83 more"  # 50 workers and a join, two lines each, and the ledger


async def test_adversarial_writers_overlap() -> None:
    running = most = 0
    async with Supervisor() as supervisor:
        run = supervisor.start(ADVERSARIAL.build(), {"round": 0})
        async with run.events() as events:
            async for event in events:
                running += isinstance(event, StageStarted)
                running -= isinstance(event, StageEnded)
                most = max(most, running)
        await run.result()
    assert most > 1


async def test_join_sees_every_unique_key_and_every_own_value_of_the_common_one() -> None:
    result = await ADVERSARIAL.build().run({"round": 0})
    assert result.data("join") == {
        "unique": {"key-0": 1009, "key-1": 1010, "key-2": 1011, "key-3": 1012, "key-4": 1013},
        "common": (0, 1, 2, 3, 4),
    }
    assert result.data("worker-2") == {"key-2": 1011, "common": 2}


@pytest.mark.parametrize("row", [PLAIN, ADVERSARIAL], ids=lambda row: row.name)
def test_a_right_result_has_no_problems(row: Row) -> None:
    assert find_problems(row.expect(), run(row)) == []


def corrupt(found: dict[str, Any], path: str, value: object) -> None:
    *way, last = path.split()
    for step in way:
        found = found[step]
    if value is None:
        del found[last]
    else:
        found[last] = value


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("outputs worker-2", None, "worker-2: its output is missing"),
        ("states worker-2", "running", "worker-2: its state is running, not ok"),
        ("states worker-2", None, "worker-2: its state is None, not ok"),
        ("states worker-9", "ok", "worker-9: no such stage was asked for"),
        ("outputs source data seed", 1, "source: data['seed'] is 1, not 1009"),
        ("outputs source data seed", 1009.0, "source: data['seed'] is 1009.0, not 1009"),
        ("outputs worker-2 data common", 3, "worker-2: data['common'] is 3, not 2"),
        ("outputs worker-2 data key-2", None, "worker-2: data has no 'key-2'"),
        ("outputs worker-2 data key-3", 4, "worker-2: data has 'key-3', which nobody should have written"),
        ("outputs join data unique key-4", None, "join: data['unique'] has no 'key-4'"),
        ("outputs join data unique key-4", 1, "join: data['unique']['key-4'] is 1, not 1013"),
        ("outputs join data common", (0, 1, 2, 3, 3), "join: data['common'][4] is 3, not 4"),
        ("outputs join data common", (0, 1, 2, 3), "join: data['common'] is (0, 1, 2, 3), not (0, 1, 2, 3, 4)"),
        (
            "ledger replied",
            6,
            say_ledger(7, 6, 0, 0),
        ),
        (
            "ledger cancelled",
            1,
            say_ledger(7, 7, 0, 1),
        ),
    ],
)
def test_each_thing_that_can_be_wrong_is_found_and_nothing_else(path: str, value: object, said: str) -> None:
    found = run(ADVERSARIAL)
    corrupt(found, path, value)
    assert find_problems(ADVERSARIAL.expect(), found) == [said]
