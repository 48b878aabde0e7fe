"""The pytest plugin of the race toolkit: reports of failures, options, replays."""

from __future__ import annotations

import shlex
import subprocess
import sys
from contextlib import suppress

import pytest
from race_projects import LOST, get_summary, make_run

from stageflow_actors.testing._search import STRATEGIES

pytest_plugins = ["pytester"]


@pytest.fixture
def run(pytester):
    return make_run(pytester)


# The report of a failure


def test_the_assertion_is_shown_and_the_race_without_our_frames(run, pytester):
    result = run(LOST, "-k", "lost")
    result.stdout.fnmatch_lines(
        [
            "*_ test_lost _*",
            ">       assert await update_twice() == 2",
            "E       assert 1 == 2",
            "test_it.py:*: AssertionError",
            "The above exception was the direct cause of the following exception:",
            "E   stageflow_actors.errors.RaceError: test_lost: AssertionError: assert 1 == 2 after 6 steps, 1 pre*",
            "E       1  test_lost  starts, awaits the end of its nursery *",
            "E   >   3  add#2 *",
            'E   replay: pytest "test_it.py::test_lost" --race-replay "01"',
            "FAILED test_it.py::test_lost - RaceError: AssertionError: assert 1 ==*",
        ],
    )
    shown = result.stdout.str()
    assert "_race_test.py" not in shown
    assert "hidden" not in shown


@pytest.mark.parametrize("style", ["auto", "long", "short", "line", "no", "native"])
def test_every_style_of_traceback_has_the_line_that_replays(run, style):
    result = run(LOST, "-k", "lost", f"--tb={style}")
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_lost*"])
    if style not in {"line", "no"}:
        result.stdout.fnmatch_lines(['*replay: pytest "test_it.py::test_lost" --race-replay "01"'])
    if style == "line":
        result.stdout.fnmatch_lines(["*test_it.py:23: RaceError: AssertionError: assert 1 == 2 after 6 steps*"])


def test_all_frames_are_shown_if_they_are_asked_for(run):
    result = run(LOST, "-k", "lost", "--full-trace")
    result.stdout.fnmatch_lines(["*_race_test.py:*"])


def test_a_deadlock_is_shown_as_its_text_and_at_the_test(run):
    source = """
    import trio
    from stageflow_actors.testing import race_test

    @race_test
    async def test_waiting():
        await trio.Event().wait()
    """
    result = run(source, "--tb=line")
    result.stdout.fnmatch_lines(["*test_it.py:4: RaceError: lost wake-up after 1 step*"])
    result = run(source)
    result.stdout.fnmatch_lines(
        ["E   stageflow_actors.errors.RaceError: test_waiting: lost wake-up *", "E * waits for *"]
    )
    assert "stageflow_actors/testing" not in result.stdout.str()


def test_an_error_that_nobody_raised_is_shown(run, pytester):
    """As where the toolkit itself notes what is wrong: such an error has no traceback."""
    pytester.makeconftest(
        """
        import pytest

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_call(item):
            __tracebackhide__ = True
            try:
                yield
            except Exception as error:
                error.__cause__.__traceback__ = None
                raise
        """
    )
    result = run(LOST, "-k", "lost")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["AssertionError: assert 1 == 2", "E   *RaceError: *", "E   replay: pytest *"])


def test_the_command_is_quoted_where_a_shell_would_read_it(run):
    result = run("""
    import pytest
    from stageflow_actors.testing import race_test

    @pytest.mark.parametrize("value", ["plain", "$HOME `x`"])
    @race_test
    async def test_value(value):
        assert not value
    """)
    lines = [line.partition("replay: ")[2] for line in result.outlines if "replay: pytest" in line]
    assert lines[0] == 'pytest "test_it.py::test_value[plain]" --race-replay "0"'
    assert [shlex.split(line)[1] for line in lines] == [
        "test_it.py::test_value[plain]",
        "test_it.py::test_value[$HOME `x`]",
    ]


def test_the_command_is_right_where_pytest_was_called(pytester, monkeypatch):
    pytester.makeini("[pytest]")
    pytester.mkpydir("below").joinpath("test_it.py").write_text(LOST)
    monkeypatch.chdir("below")
    result = pytester.runpytest_inprocess("-k", "lost")
    result.stdout.fnmatch_lines(['E   replay: pytest "test_it.py::test_lost" --race-replay "01"'])


def test_a_debugger_opens_at_the_assertion(run, pytester):
    pytester.makepyfile(test_it=LOST)
    with suppress(subprocess.TimeoutExpired):
        child = pytester.popen(
            [sys.executable, "-m", "pytest", "--pdb", "-k", "lost", "-p", "no:cacheprovider"], stdin=subprocess.PIPE
        )
        shown, _ = child.communicate(b"p 'at', __name__\nwhere\nquit\n", timeout=60)
    assert b"('at', 'test_it')" in shown
    assert b"test_it.py(23)test_lost()" in shown


# Options


def test_options_override_the_decorator(run):
    source = """
    from stageflow_actors.testing import race_test
    from stageflow_actors.testing._race_test import ORDERS
    import trio

    runs = []

    @race_test(max_executions=50, seed=3, strategy="dfs")
    async def test_many():
        runs.append(ORDERS.get())
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(trio.lowlevel.checkpoint)

    def test_how_many():
        print(f"{len(runs)} runs")
    """
    result = run(source, "-s")
    result.stdout.fnmatch_lines(["*50 runs*"])
    result = run(source, "-s", "--race-executions=7", "--race-seed=0", "--race-strategy=pos", "--race-report")
    result.stdout.fnmatch_lines(["*7 runs*", "test_it.py::test_many: no failure in 7 executions: 7 sampled; seed 0"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--race-executions=0", "argument --race-executions: must be a whole number of at least 1, not '0'"),
        ("--race-executions=many", "argument --race-executions: must be a whole number of at least 1, not 'many'"),
        ("--race-seed=-1", "argument --race-seed: must be a whole number of at least 0, not '-1'"),
        ("--race-strategy=dsf", "argument --race-strategy: must be one of auto, *, not 'dsf'; did you mean 'dfs'[?]"),
        (
            "--race-strategy=breadth",
            "argument --race-strategy: must be one of auto, dpor, dfs, pct, pos, random, not 'bre*'",
        ),
        ("--race-replay=0?", "argument --race-replay: the schedule '0[?]' has '[?]' at position 2*; copy it whole *"),
        ("--race-replay=v9:0", "argument --race-replay: *version 9*"),
    ],
)
def test_options_that_cannot_be_are_refused(run, option, message):
    result = run(LOST, option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*error: {message}"])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_can_be_said(run, strategy):
    result = run(LOST, f"--race-strategy={strategy}", "--race-executions=20", "-k", "kept")
    result.assert_outcomes(passed=1)


def test_the_options_are_in_the_help(run):
    result = run(LOST, "--help")
    result.stdout.fnmatch_lines(["race tests:", "*--race-executions*", "*--race-report*"])
    assert all(name in result.stdout.str() for name in STRATEGIES)


# Replay


def test_a_schedule_is_replayed(run):
    result = run(LOST + "    print('played')\n", "-k", "lost", "--race-replay", "01")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E       assert 1 == 2",
            "E   stageflow_actors.errors.RaceError: test_lost: AssertionError*",
            "E   >   3  add#2 *",
            'E   replay: pytest "test_it.py::test_lost" --race-replay "01"',
            'race test replayed: test_it.py::test_lost: the schedule "01" fails',
        ]
    )
    assert len(get_summary(result)) == 1


def test_the_command_that_is_printed_runs(run, pytester):
    result = run(LOST, "-k", "lost")
    line = next(line for line in result.outlines if "replay: pytest" in line)
    arguments = shlex.split(line.partition("replay: pytest ")[2])
    again = pytester.runpytest_inprocess(*arguments)
    again.assert_outcomes(failed=1)
    steps = [line for line in result.outlines if line.startswith(("E       ", "E   > "))]
    assert steps
    assert [line for line in again.outlines if line.startswith(("E       ", "E   > "))] == steps


def test_a_schedule_that_no_longer_fails_passes(run):
    result = run(LOST, "test_it.py::test_lost", "--race-replay", "0")
    result.assert_outcomes(passed=1)
    assert get_summary(result) == ['race test replayed: test_it.py::test_lost: the schedule "0" no longer fails']


def test_a_schedule_that_does_not_fit_fails(run):
    result = run(LOST, "-k", "kept", "--race-replay", "7")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E   stageflow_actors.errors.ReplayError: *'7' does not fit it*; explore it again"])
    assert get_summary(result) == []


def test_the_faults_of_the_decorator_are_those_of_the_replay(run):
    result = run(
        """
    from stageflow_actors.testing import Crash, race_test
    import trio

    async def work():
        await trio.sleep(0)

    @race_test(faults=[Crash("work")])
    async def test_work():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
    """,
        "--race-replay=1",
    )
    result.stdout.fnmatch_lines(["E   *InjectedError: injected by Crash('work')*", "E   replay: pytest *"])


@pytest.mark.parametrize(
    ("selected", "told"),
    [
        ("nothing", "none is selected"),
        ("test", "2 are selected, test_it.py::test_lost and test_it.py::test_kept among *"),
    ],
)
def test_one_race_test_must_be_selected(run, selected, told):
    result = run(LOST + "\n\ndef test_nothing(): pass\n", "-k", selected, "--race-replay", "01")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [f"ERROR: --race-replay replays one race test, and {told}; select it: pytest path::test *"]
    )


def test_other_tests_run_beside_a_replay(run):
    result = run(LOST + "\n\ndef test_nothing(): pass\n", "-k", "lost or nothing", "--race-replay", "01")
    result.assert_outcomes(passed=1, failed=1)


def test_a_module_that_cannot_be_imported_is_told_before(run):
    result = run("import nonesuch", "--race-replay", "01")
    result.stdout.fnmatch_lines(["E   ModuleNotFoundError: *"])
    assert result.ret == pytest.ExitCode.INTERRUPTED
