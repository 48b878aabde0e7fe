"""The nightly run finds nothing; where something is broken it says so, goes on, and tells how to run it again."""

from __future__ import annotations

import itertools
import json
import re
from importlib import import_module

import pytest
import trio

from stageflow_actors import Pipeline
from stageflow_actors.testing import race_test

from . import nightly, nightly_plan
from .nightly_plan import Found, Piece, Plan, Tally, explore_piece
from .nightly_programs import (
    AREAS,
    FOLDER,
    Noted,
    PipelineProgram,
    RaceProgram,
    find_programs,
    iterate_programs,
)

SHORT = 450
NIGHTLY = 1_000_000


@pytest.fixture
def failures(tmp_path):
    return tmp_path / "failures.txt"


@pytest.fixture
def run(failures, capsys):
    """Run the command, and return its exit code and what it printed."""

    def run(*arguments):
        code = nightly.main(["--failures", str(failures), *arguments])
        return code, capsys.readouterr().out

    return run


@race_test
async def lose_an_update():
    counts = [0]

    async def add():
        count = counts[0]
        await trio.lowlevel.checkpoint()
        counts[0] = count + 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(add)
        nursery.start_soon(add)
    assert counts == [2]


async def take_turns(count):
    """Have so many tasks write into one list, twice: whose turn it is matters at every step."""
    turns = []

    async def write(number):
        turns.append(number)
        await trio.lowlevel.checkpoint()
        turns.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(write, number)


@race_test
async def take_few_turns():
    """It has six schedules, of six steps each."""
    await take_turns(2)


@race_test
async def take_many_turns():
    await take_turns(8)


@pytest.fixture
def use(monkeypatch):
    """Explore these instead of the runtime."""

    def use(**tests):
        programs = {name: RaceProgram("area", name, test, {}) for name, test in tests.items()}
        monkeypatch.setattr(nightly, "find_programs", lambda: programs)
        monkeypatch.setattr(nightly_plan, "find_programs", lambda: programs)
        nightly_plan.forget_programs()

    yield use
    nightly_plan.forget_programs()


def test_every_program_runs_a_few_times(run, failures):
    code, printed = run("--schedules", str(SHORT), "--seed", "1")
    assert code == 0, printed
    assert not failures.exists()
    assert all(area in printed for area in AREAS)


@pytest.mark.slow
def test_a_million_schedules(run, tmp_path):
    figures = tmp_path / "figures.json"
    jobs = str(nightly_plan.count_processors())
    code, printed = run("--schedules", str(NIGHTLY), "--jobs", jobs, "--json", str(figures))
    assert code == 0, printed
    programs = json.loads(figures.read_text())["programs"].values()
    assert sum(program["executions"] for program in programs) >= 0.99 * NIGHTLY
    for area in AREAS:
        assert sum(program["executions"] for program in programs if program["area"] == area) >= 0.04 * NIGHTLY


# The catalogue


def test_there_are_programs_for_every_area_and_each_has_a_name_of_its_own():
    programs = find_programs()
    assert len(programs) >= 60
    assert {program.area for program in programs.values()} == set(AREAS)
    assert all(name == program.name for name, program in programs.items())


def test_every_module_with_race_tests_is_in_the_catalogue():
    """Those of `test_explored_*.py`, with each of their sets of parameters, and all that is named in it."""
    listed = {name for modules in AREAS.values() for name in modules}
    written = {path.stem for path in FOLDER.glob("test_explored_*.py")}
    written |= {f"explored_nightly.{path.stem}" for path in FOLDER.glob("explored_nightly/*.py")}
    with_programs = {name for name in written if any(iterate_programs("", import_module(f"{__package__}.{name}")))}
    assert with_programs == listed
    names = [name for name in find_programs() if name.startswith("mailboxes: two senders")]
    assert len(names) == len(set(names)) == 12
    assert "mailboxes: two senders [0, wait]" in names


# What is explored


def test_a_program_fails_and_the_others_are_explored_all_the_same(use, run, failures):
    use(bad=lose_an_update, good=take_many_turns)
    code, printed = run("--schedules", "400")
    assert code == 1
    assert "failed: bad" in printed
    told = failures.read_text()
    assert "bad fails (strategy='auto', seed=0, max_executions=8)" in told
    assert 'again: python property_tests/nightly.py --only "bad" --replay "01"' in told
    assert "assert counts == [2]" in told


def test_a_failure_is_run_again(use, run):
    use(bad=lose_an_update, worse=lose_an_update)
    code, printed = run("--only", "bad", "--replay", "01")
    assert code == 1
    assert "lose_an_update: AssertionError" in printed
    code, printed = run("--only", "bad", "--replay", "0")
    assert code == 0
    assert "bad: does not fail under this schedule" in printed


def test_what_a_complete_program_does_not_need_is_given_to_the_others(use, run, tmp_path):
    use(small=take_few_turns, large=take_many_turns)
    figures = tmp_path / "figures.json"
    code, _ = run("--schedules", "1000", "--json", str(figures))
    assert code == 0
    programs = json.loads(figures.read_text())["programs"]
    assert programs["small"]["complete"]
    assert programs["small"]["distinct"] == 6 <= programs["small"]["executions"] < 50
    assert not programs["large"]["complete"]
    assert 900 <= programs["large"]["executions"] < 1000
    assert 400 < programs["large"]["distinct"] <= programs["large"]["executions"]


def test_the_same_seed_explores_the_same(use, run, tmp_path):
    use(large=take_many_turns)
    figures = [tmp_path / name for name in ("one.json", "two.json", "other.json")]
    for path, seed in zip(figures, "001", strict=True):
        run("--schedules", "200", "--seed", seed, "--json", str(path))
    one, two, other = [json.loads(path.read_text())["programs"]["large"] for path in figures]
    assert (one["steps"], one["distinct"]) == (two["steps"], two["distinct"])
    assert (one["steps"], one["distinct"]) != (other["steps"], other["distinct"])


def test_every_strategy_has_its_share():
    tally = Tally({"p": "area"})
    rounds = Plan(tally, 100_000, seed=3).iterate_rounds()
    taken = {}
    for _, pieces in rounds:
        for piece in pieces:
            taken[piece.strategy] = taken.get(piece.strategy, 0) + piece.executions
            tally.add(Found(piece, executions=piece.executions, steps=piece.executions * 10))
    assert sum(taken.values()) == tally.executions == 100_000
    assert set(taken) == {"auto", *nightly_plan.OTHERS}
    assert all(count >= 5_000 for count in taken.values())


def test_an_area_with_few_programs_has_its_share_and_short_executions_are_more():
    tally = Tally({"lone": "small", **{f"p{number}": "large" for number in range(99)}})
    for _, pieces in Plan(tally, 100_000, seed=0).iterate_rounds():
        for piece in pieces:
            steps = 20 if piece.program == "p0" else 10
            tally.add(Found(piece, executions=piece.executions, steps=piece.executions * steps))
    accounts = tally.accounts
    assert 4_000 <= accounts["lone"].executions <= 6_000
    assert accounts["p0"].executions < accounts["p1"].executions == accounts["p2"].executions


def test_schedules_are_counted_once_however_often_they_are_run():
    noted = Noted()
    program = RaceProgram("area", "p", take_few_turns, {})
    with noted:
        first = program.explore("dfs", 0, 100)
        second = program.explore("random", 0, 100)
    assert first.complete
    assert len(noted.schedules) == first.executions == 6
    assert second.executions == 100
    assert noted.steps == 106 * 6


# The command


def test_the_table_for_the_docs(use, run, tmp_path):
    use(small=take_few_turns)
    page = tmp_path / "page.md"
    run("--schedules", "1000", "--markdown", str(page))
    told, _, head, rule, area, total = page.read_text().splitlines()
    assert told.startswith("`nightly.py --schedules 1000 --seed 0`, with Python ")
    assert head == "| area | programs | schedules | distinct | complete | bound | failures |"
    assert rule == "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert re.fullmatch(r"\| area \| 1 \| \d+ \| 6 \| 1 \| all \| 0 \|", area)
    assert total.startswith("| **all** | **1** | **")


def test_an_interrupt_prints_what_there_is(use, run, monkeypatch):
    use(large=take_many_turns)

    def interrupt(piece):
        if piece.strategy != "auto":
            raise KeyboardInterrupt
        return explore_piece(piece)

    monkeypatch.setattr(nightly, "explore_piece", interrupt)
    code, printed = run("--schedules", "400")
    assert code == 130
    assert "interrupted" in printed
    assert "208 schedules of 1 program in" in printed


def test_what_an_exploration_raises_is_told_and_does_not_end_the_run(use, run, failures):
    @race_test
    async def wrong():
        raise AssertionError  # never: it is given an argument that it does not have

    use(good=take_few_turns)
    programs = nightly.find_programs()
    programs["wrong"] = RaceProgram("area", "wrong", wrong, {"none": 1})
    code, printed = run("--schedules", "300")
    assert code == 1
    assert "failed: wrong" in printed
    assert "unexpected keyword argument 'none'" in failures.read_text()


def number_stages(numbers):
    """Return a pipeline whose two stages say which of them was first."""

    async def work(_ctx):
        await trio.lowlevel.checkpoint()
        return {"number": next(numbers)}

    return Pipeline("p").with_stage("a", work).with_stage("b", work)


def test_a_pipeline_that_breaks_a_law_fails():
    program = PipelineProgram("laws", "p", lambda: number_stages(itertools.count()), {})
    report = program.explore("auto", 0, 100)
    assert report.failure.schedule != "0"
    assert program.replay(report.failure.schedule).kind == "exception"
    assert program.replay("0") is None


def test_a_pipeline_that_breaks_a_law_in_the_default_schedule_fails_too(use):
    use(good=take_few_turns)
    numbers = itertools.count()
    nightly.find_programs()["p"] = PipelineProgram("laws", "p", lambda: number_stages(numbers), {})
    found = explore_piece(Piece("p", "auto", 0, 100))
    assert (found.executions, found.schedule) == (1, "0")
    assert "data['number'] is 2 and was 0 in the first run" in found.failure


def test_options_that_cannot_be_are_refused(run, capsys):
    for arguments, message in (
        (["--schedules", "0"], "--schedules must be at least 1"),
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--only", "xyzzy"], "no program has 'xyzzy' in its name; --list lists them"),
        (["--only", "mailboxes", "--replay", "0"], "--replay is for one program, and --only chooses"),
        (["--replay", "0"], "--replay is for one program; --only chooses it"),
    ):
        with pytest.raises(SystemExit):
            run(*arguments)
        assert message in capsys.readouterr().err


def test_programs_are_listed(run):
    code, printed = run("--list", "--only", "streams")
    assert code == 0
    lines = printed.splitlines()
    assert all(line.startswith("streams: ") for line in lines)
    assert "streams: two readers of two runs" in lines


def test_pieces_are_explored_in_other_processes():
    pieces = [Piece("streams: two readers of two runs", "auto", seed, 3) for seed in range(2)]
    found = list(nightly.explore_all(pieces, 2))
    assert sorted(each.piece.seed for each in found) == [0, 1]
    assert all(each.executions == 3 and each.failure is None for each in found)
