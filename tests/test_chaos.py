"""The chaos run: it finds nothing, and where something is broken, it finds that and can be run again."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from stageflow_actors import RunEnding, StageState
from stageflow_actors._gates import Gates
from stageflow_actors._policy import plan_restart

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SEEDS = 60


@pytest.fixture
def chaos(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the script as it is when it is run, and forget it afterwards."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    for name in [name for name in sys.modules if name.startswith("chaos_")]:
        monkeypatch.delitem(sys.modules, name)
    return importlib.import_module("chaos_runs")


def test_some_seeds(chaos: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert chaos.main(["--seeds", str(SEEDS)]) == 0
    shown = capsys.readouterr().out
    assert f"{SEEDS} seeds in " in shown
    assert "0 with violations" in shown


@pytest.mark.slow
def test_a_thousand_seeds(chaos: ModuleType) -> None:
    assert chaos.main([]) == 0


def test_it_is_chaotic(chaos: ModuleType) -> None:
    tally = chaos.Tally()
    for seed in range(SEEDS):
        assert chaos.examine(seed, tally)[1] == []
    endings = {ending.value.replace("_", " ") for ending in RunEnding} - {"unfinished"}
    assert endings <= set(tally.endings)
    assert {"refused", "never asked for"} <= set(tally.endings)
    assert set(tally.states) == {"ok", "skipped", "failed", "isolated", "cancelled"}
    assert tally.threaded
    assert len(tally.left) == 3
    assert tally.events["restarts"] > SEEDS
    assert tally.events["rejections by limiters"] > SEEDS / 2
    assert tally.events["items of fan-outs"] > SEEDS
    assert min(tally.events.values()) > 10


def digest(log: Any) -> list[tuple[Any, ...]]:
    """Return all that was told of a chaos run, in its order."""
    return [
        (number, type(event).__name__, event.at, getattr(event, "stage", None), getattr(event, "item", None))
        for number, call in enumerate(log.calls)
        for event in call.events
    ]


def is_calm(log: Any) -> bool:
    """Return whether no thread and no cancellation had a say: trio keeps tasks in sets, and cancels in their order."""
    states = {getattr(event, "state", None) for call in log.calls for event in call.events}
    return not log.plan.threads and StageState.CANCELLED not in states


def test_a_seed_gives_the_same_run_again(chaos: ModuleType) -> None:
    compared = 0
    for seed in range(2 * SEEDS):
        plan = chaos.draw(seed)
        assert plan == chaos.draw(seed)
        log = chaos.play(plan)
        if is_calm(log):
            compared += 1
            assert digest(chaos.play(plan)) == digest(log)
    assert compared > SEEDS / 5


def test_everything_that_happened_to_one_seed(chaos: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert chaos.main(["--only", "3", "-v"]) == 0
    shown = capsys.readouterr().out
    assert "plan: ChaosPlan(3" in shown
    assert "run 0, asked for at " in shown
    assert "RunEnded: end " in shown
    assert "1 seeds in " in shown


def keep_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(self: Gates, stage: int) -> None:
        self.passes.pop(stage, None)

    monkeypatch.setattr(Gates, "free", forget)


def restart_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(restart: Any, *arguments: Any, **options: Any) -> Any:
        return plan_restart(attrs.evolve(restart, max_restarts=restart.max_restarts + 1), *arguments, **options)

    monkeypatch.setattr("stageflow_actors._healing.plan_restart", plan)


def forget_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stageflow_actors._tracker.BELOW_BAD", 0)


def back_off_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(*arguments: Any, **options: Any) -> Any:
        window, delay = plan_restart(*arguments, **options)
        return window, None if delay is None else delay + 1

    monkeypatch.setattr("stageflow_actors._healing.plan_restart", plan)


@pytest.mark.parametrize("sabotage", [keep_slots, restart_once_more, forget_failures, back_off_too_long])
def test_what_is_broken_is_found_and_found_again(
    chaos: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sabotage: Callable[[pytest.MonkeyPatch], None],
) -> None:
    with monkeypatch.context() as patch:
        sabotage(patch)
        assert chaos.main(["--seeds", "12"]) == 1
        shown = capsys.readouterr().out
        again = re.search(r"again: python benchmarks/chaos_runs\.py (--only (\d+) -v)", shown)
        assert again is not None
        first = re.search(rf"seed {again[2]} violates what must hold\n(.*)\n", shown)
        assert first is not None
        assert chaos.main(again[1].split()) == 1
        shown = capsys.readouterr().out
        assert first[0] in shown
        assert f"seeds with violations: {again[2]}" in shown
    assert chaos.main(again[1].split()) == 0


def test_an_interrupt_shows_what_there_is(
    chaos: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play = chaos.play

    def play_two(plan: Any) -> Any:
        if plan.seed == 2:
            raise KeyboardInterrupt
        return play(plan)

    monkeypatch.setattr(chaos, "play", play_two)
    assert chaos.main([]) == 130
    shown = capsys.readouterr().out
    assert "interrupted" in shown
    assert "2 seeds in " in shown


def test_an_interrupt_of_a_run_is_not_one_of_its_faults(chaos: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupt(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("property_tests.behaviour._act_in_task", interrupt)
    with pytest.raises(KeyboardInterrupt):
        for seed in range(20):
            chaos.play(chaos.draw(seed))


def test_arguments_that_cannot_be(chaos: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        chaos.main(["--seeds", "0"])
    assert "--seeds must be at least 1" in capsys.readouterr().err
