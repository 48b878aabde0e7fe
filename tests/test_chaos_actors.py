"""The chaos of resident actors: it finds nothing, and where something is broken, it finds that and can be run again."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stageflow_actors import Directive
from stageflow_actors._actor import Entered
from stageflow_actors._deadlines import Deadlines
from stageflow_actors._family import Family
from stageflow_actors._mailbox import MailQueue
from stageflow_actors._messages import Message
from stageflow_actors._resident import Resident
from stageflow_actors._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
OURS = {"actor_plans", "actor_world", "actor_stages", "actor_clients", "actor_play", "actor_checks", "actor_events"}
OURS |= {"actor_figures", "chaos_actors"}
SHORT = ["--asks", "25", "--timed", "0"]
"""What makes a seed take a fifth of a second."""


@pytest.fixture
def chaos(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the script as it is when it is run, and forget it afterwards."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    for name in OURS.intersection(sys.modules):
        monkeypatch.delitem(sys.modules, name)
    return importlib.import_module("chaos_actors")


def test_some_seeds(chaos: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    assert chaos.main([*SHORT, "--seeds", "8", "--json", str(written)]) == 0
    shown = capsys.readouterr().out
    assert "8 seeds in " in shown
    assert "0 with violations" in shown
    figures = json.loads(written.read_text(encoding="utf-8"))
    assert figures["violations"] == []
    assert [figures[name] for name in ("seeds", "lost", "doubled", "tasks_left", "threads_left")] == [8, 0, 0, 0, 0]
    assert figures["asks"] > 8 * 16 * 25 * 2
    assert figures["virtual_time_to_restart"]["count"] > 100


@pytest.mark.slow
def test_a_thousand_seeds(chaos: ModuleType) -> None:
    assert chaos.main(["--seeds", "1000", "--timed", "0"]) == 0


def test_it_is_chaotic(chaos: ModuleType) -> None:
    tally = chaos.Tally()
    world_module, plans = sys.modules["actor_world"], sys.modules["actor_plans"]
    scopes = set()
    for seed in range(10):
        figures, world = chaos.examine(seed, asks=25)
        assert figures.found == []
        tally.add(figures)
        assert {actor.plan.overflow for actor in world.actors.values()} == set(plans._OVERFLOWS)
        scopes |= {(plan.path, plan.scope) for plan in world.plan.supervisors}
    never = {world_module.Ending.TOLD, world_module.Ending.OTHER}
    assert set(tally.endings) == {ending.value for ending in world_module.Ending} - {ending.value for ending in never}
    assert set(tally.letters) == {"overflow", "stopped", "poison", "late_reply", "no_recipient"}
    assert set(tally.crashes) == {"execute", "__aenter__", "__aexit__", "background"}
    assert len(scopes) > 10
    assert tally.totals["restarts"] > 300
    assert tally.totals["given_up"] > 10
    assert tally.totals["redelivered"] > 30
    assert tally.totals["unsure"] < tally.totals["asks"] / 200


def test_a_plan_is_its_seed(chaos: ModuleType) -> None:
    plans = [chaos.draw(seed) for seed in range(300)]
    assert plans == [chaos.draw(seed) for seed in range(300)]
    assert {plan.leave for plan in plans} == set(sys.modules["actor_plans"].Leave)
    forms = {actor.form for plan in plans for actor in plan.actors}
    assert forms == set(sys.modules["actor_plans"].Form)
    assert all(plan.real for plan in plans if any(actor.form.name == "THREAD" for actor in plan.actors))
    assert all(len(plan.actors) == 16 and len({each.scope for each in plan.supervisors}) == 4 for plan in plans)


def test_everything_that_happened_to_one_seed(chaos: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert chaos.main(["--seed", "2", "--asks", "25"]) == 0
    shown = capsys.readouterr().out
    assert "plan: ActorsPlan(seed=2" in shown
    assert "  ActorPlan(path='west/deep/" in shown
    assert re.search(r"  \d\.\d{4}  ActorRestarting\(actor=", shown)
    assert "DeadLetter(" in shown
    assert re.search(r"  ask \d+ of client faulty-\d to ", shown)
    assert "1 seeds in " in shown


def test_the_real_clock_gives_the_figures_of_speed(
    chaos: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    written = tmp_path / "figures.json"
    options = ["--seeds", "1", "--asks", "6", "--timed", "1", "--json", str(written)]
    assert chaos.main(options) == 0
    shown = capsys.readouterr().out
    assert "slowdown, median and p95" in shown
    figures = json.loads(written.read_text(encoding="utf-8"))
    assert figures["timed_seeds"] == 1
    assert set(figures["slowdown"]) == {"median", "p95"}
    assert figures["latencies"]["clean"]["count"] == 16 * 6


# What is broken


def lose_what_is_put_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Resident, "put_back", lambda _self, _message: None)


def put_back_behind_the_others(patch: pytest.MonkeyPatch) -> None:
    def put_back(self: Any, message: Any) -> None:
        self._queued[message] = None

    patch.setattr(MailQueue, "put_back", put_back)


def redeliver_whatever_it_is(patch: pytest.MonkeyPatch) -> None:
    def may_redeliver(_self: Any, message: Any, _error: Any) -> bool:
        return message.deliveries < 4 and (message.task is not None or not message.is_ask)

    patch.setattr(Resident, "may_redeliver", may_redeliver)


def never_redeliver(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Resident, "may_redeliver", lambda _self, _message, _error: False)


def skip_a_count(patch: pytest.MonkeyPatch) -> None:
    reply = Resident.reply

    def skip(self: Any, message: Any, output: Any) -> None:
        reply(self, message, output)
        if message.number % 97 == 0:
            self._replied -= 1

    patch.setattr(Resident, "reply", skip)


def give_a_reply_to_another(patch: pytest.MonkeyPatch) -> None:
    reply = Resident.reply
    last: list[Any] = []

    def swap(self: Any, message: Any, output: Any) -> None:
        reply(self, message, last[-1] if last and message.number % 50 == 0 else output)
        last.append(output)

    patch.setattr(Resident, "reply", swap)


def give_an_error_to_another(patch: pytest.MonkeyPatch) -> None:
    fail = Resident.fail
    first: list[Any] = []

    def swap(self: Any, message: Any, error: Any) -> None:
        first.append(error)
        fail(self, message, first[0])

    patch.setattr(Resident, "fail", swap)


def drop_a_signal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Resident, "wake", lambda _self, _worker: None)


def keep_a_letter(patch: pytest.MonkeyPatch) -> None:
    tell = Resident._tell_letter

    def keep(self: Any, message: Any, reason: str) -> None:
        if reason != "overflow":
            tell(self, message, reason)

    patch.setattr(Resident, "_tell_letter", keep)


def keep_what_was_given_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Message, "_give_up", lambda _self: None)


def drop_the_newest(patch: pytest.MonkeyPatch) -> None:
    offer = MailQueue.offer

    def drop(self: Any, message: Any) -> Any:
        self._overflow = "drop_newest" if self._overflow == "drop_oldest" else self._overflow
        return offer(self, message)

    patch.setattr(MailQueue, "offer", drop)


def give_up_late(patch: pytest.MonkeyPatch) -> None:
    add = Deadlines.add
    patch.setattr(Deadlines, "add", lambda self, at, call: add(self, at + 0.01, call))


def restart_nobody_else(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("stageflow_actors._family.select", lambda *_arguments: [])


def resume_never(patch: pytest.MonkeyPatch) -> None:
    direct = Resident.direct

    def restart(self: Any, error: Any) -> Any:
        directive, meant = direct(self, error)
        return Directive.RESTART if directive is Directive.RESUME else directive, meant

    patch.setattr(Resident, "direct", restart)


def stop_in_a_hurry(patch: pytest.MonkeyPatch) -> None:
    end = Worker.end
    patch.setattr(Worker, "end", lambda self, hurry: end(self, hurry=bool(hurry) or True))


def forget_a_failure(patch: pytest.MonkeyPatch) -> None:
    judge = Family.judge
    counted: list[Any] = []

    def forget(self: Any, unit: Any, error: Any) -> None:
        counted.append(unit)
        if len(counted) % 10:
            judge(self, unit, error)

    patch.setattr(Family, "judge", forget)


def leave_nothing(patch: pytest.MonkeyPatch) -> None:
    async def leave(_self: Any, *_raised: Any) -> None:
        pass

    patch.setattr(Entered, "__aexit__", leave)


SABOTAGES = [
    lose_what_is_put_back,
    put_back_behind_the_others,
    redeliver_whatever_it_is,
    never_redeliver,
    skip_a_count,
    give_a_reply_to_another,
    give_an_error_to_another,
    drop_a_signal,
    keep_a_letter,
    keep_what_was_given_up,
    drop_the_newest,
    give_up_late,
    restart_nobody_else,
    resume_never,
    stop_in_a_hurry,
    forget_a_failure,
    leave_nothing,
]


@pytest.mark.parametrize("sabotage", SABOTAGES)
def test_what_is_broken_is_found(
    chaos: ModuleType, monkeypatch: pytest.MonkeyPatch, sabotage: Callable[[pytest.MonkeyPatch], None]
) -> None:
    sabotage(monkeypatch)
    with chaos.quiet():
        assert any(chaos.examine(seed, asks=25)[0].found for seed in range(12))


def test_what_was_found_is_found_again(
    chaos: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        give_a_reply_to_another(patch)
        assert chaos.main([*SHORT, "--seeds", "1"]) == 1
        shown = capsys.readouterr().out
        assert "seed 0 violates what must hold\n  its sender has the reply " in shown
        again = re.search(r"again: python benchmarks/chaos_actors\.py (--seed 0 --asks 25)\n", shown)
        assert again is not None
        assert "seeds with violations: 0" in shown
        assert chaos.main(again[1].split()) == 1
        assert "seed 0 violates what must hold\n  its sender has the reply " in capsys.readouterr().out
    assert chaos.main(again[1].split()) == 0


def test_what_hangs_is_found(chaos: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt = Resident.interrupt

    def forget(self: Any, message: Any) -> None:
        message.task = None
        interrupt(self, message)

    monkeypatch.setattr(Resident, "interrupt", forget)
    with chaos.quiet():
        problems = (problem for seed in range(12) for problem in chaos.examine(seed, asks=25)[0].found)
        assert any(problem.startswith("it hangs") for problem in problems)


def test_an_interrupt_shows_what_there_is(
    chaos: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = sys.modules["actor_figures"]
    play = figures.play

    def play_two(plan: Any) -> Any:
        if plan.seed == 2:
            raise KeyboardInterrupt
        return play(plan)

    monkeypatch.setattr(figures, "play", play_two)
    assert chaos.main(SHORT) == 130
    shown = capsys.readouterr().out
    assert "interrupted" in shown
    assert "2 seeds in " in shown


def test_an_interrupt_of_a_stage_is_not_one_of_its_faults(chaos: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["actor_stages"], "_finish", interrupt)
    with chaos.quiet(), pytest.raises(KeyboardInterrupt):
        chaos.examine(0, asks=25)


def test_several_processes(chaos: ModuleType) -> None:
    chosen = chaos.read_arguments([*SHORT, "--seeds", "3", "--jobs", "2"])
    found = list(chaos.examine_all(range(3), chosen))
    assert [figures.seed for figures in found] == [0, 1, 2]
    assert [figures.found for figures in found] == [[], [], []]


@pytest.mark.parametrize(("arguments", "problem"), [("--seeds 0", "--seeds must be"), ("--asks 0", "--asks must be")])
def test_arguments_that_cannot_be(
    chaos: ModuleType, capsys: pytest.CaptureFixture[str], arguments: str, problem: str
) -> None:
    with pytest.raises(SystemExit):
        chaos.main(arguments.split())
    assert f"{problem} at least 1" in capsys.readouterr().err
