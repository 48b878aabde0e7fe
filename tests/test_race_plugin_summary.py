"""The pytest plugin of the race toolkit: its summary, and how it stands beside other plugins."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from race_projects import LIGHT, LOST, get_summary, make_run

pytest_plugins = ["pytester"]

KEPT = "no failure in any schedule that can be told apart: complete, 4 executions, 4 by partial order reduction"


@pytest.fixture
def run(pytester):
    return make_run(pytester)


# The summary


def test_the_summary_counts(run):
    result = run(LOST)
    result.assert_outcomes(passed=1, failed=1)
    assert get_summary(result) == ["race tests: 2 tests, 5 schedules explored, 1 complete"]


def test_the_summary_speaks_of_one(run):
    result = run(LOST, "-k", "lost", "--race-executions=1")
    assert get_summary(result) == ["race tests: 1 test, 1 schedule explored, 0 complete"]


def test_there_is_no_summary_without_race_tests(run):
    assert get_summary(run("def test_nothing(): pass", "--race-report")) == []


def test_a_report_lists_each_test(run):
    result = run(LOST, "--race-report")
    result.stdout.fnmatch_lines(
        [
            "*= race tests =*",
            "test_it.py::test_lost: fails, found in 1 execution",
            f"test_it.py::test_kept: {KEPT}",
            "race tests: *",
        ],
        consecutive=True,
    )


def test_what_passed_says_what_was_covered(run):
    result = run(LOST, "-k", "kept", "-rP")
    result.stdout.fnmatch_lines(["*- Race test -*", KEPT])


def test_a_skipped_test_has_explored_nothing(run):
    result = run("""
    import pytest
    from stageflow_actors.testing import race_test

    @race_test
    async def test_skipped():
        pytest.skip("not today")

    @race_test
    async def test_expected():
        pytest.xfail("known")
    """)
    result.assert_outcomes(skipped=1, xfailed=1)
    assert get_summary(result) == []


def test_the_coverage_is_in_the_xml_of_junit(run, pytester):
    run(LOST, "--junitxml=report.xml", "-k", "kept")
    properties = {
        found.get("name"): found.get("value") for found in ET.parse(pytester.path / "report.xml").iter("property")
    }
    assert properties == {
        "race_executions": "4",
        "race_complete": "True",
        "race_coverage": KEPT,
    }


# Beside other plugins


def test_the_summary_counts_what_workers_explored(run, pytester):
    pytester.makepyfile(test_it=LOST, test_too=LOST)
    result = pytester.runpytest_subprocess("-n2", "--race-report", *LIGHT)
    result.assert_outcomes(passed=2, failed=2)
    assert get_summary(result) == ["race tests: 4 tests, 10 schedules explored, 2 complete"]
    result.stdout.fnmatch_lines_random(
        [
            "test_too.py::test_lost: fails, found in 1 execution",
            'E   replay: pytest "test_too.py::test_lost" --race-replay "01"',
            "FAILED test_it.py::test_lost - RaceError: AssertionError: assert 1 ==*",
        ]
    )


def test_workers_do_not_replay(run):
    result = run(LOST, "-n2", "--race-replay=01")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --race-replay *; leave out the options of pytest-xdist, or add -n 0"])
    run(LOST, "-n0", "--race-replay=01", "-k", "lost").assert_outcomes(failed=1)


@pytest.mark.parametrize("mark", ["", "pytestmark = pytest.mark.trio", "pytestmark = pytest.mark.anyio"])
@pytest.mark.parametrize("mode", ["true", "false"])
def test_other_plugins_leave_it_alone(run, mark, mode):
    if "anyio" in mark:
        pytest.importorskip("anyio")  # it comes with httpx
    result = run(f"{LOST}\n{mark}\n", "-o", f"trio_mode={mode}")
    result.assert_outcomes(passed=1, failed=1)
    assert get_summary(result) == ["race tests: 2 tests, 5 schedules explored, 1 complete"]


def test_async_tests_of_pytest_trio_stand_beside_it(run):
    result = run(
        LOST
        + """

async def test_async(nursery, autojump_clock):
    await trio.sleep(5)
""",
        "-o",
        "trio_mode=true",
    )
    result.assert_outcomes(passed=2, failed=1)


ASYNC_FIXTURES = """
import pytest
import trio
from stageflow_actors.testing import race_test


@pytest.fixture
async def connection():
    return 1


@pytest.fixture{scope}
async def server():
    yield 1


@pytest.fixture
def client(connection):
    return connection


@race_test
async def test_coroutine(connection): pass


@race_test
async def test_generator(server): pass


@race_test
async def test_indirect(client): pass
"""


@pytest.mark.parametrize("options", [[], ["-o", "trio_mode=true"], ["-p", "no:trio"]])
@pytest.mark.parametrize("scope", ["", "(scope='module')"])
def test_async_fixtures_are_refused(run, options, scope):
    result = run(ASYNC_FIXTURES.format(scope=scope), *options)
    result.assert_outcomes(errors=3)
    refused = [line for line in result.outlines if line.startswith("a race test cannot have the async fixture")]
    assert [line.split("'")[1] for line in refused] == ["connection", "server", "connection"]
    assert all("; make it inside the test, or let a plain fixture return the " in line for line in refused)


def test_the_nursery_of_pytest_trio_is_refused(run):
    source = """
    from stageflow_actors.testing import race_test

    @race_test
    async def test_it(nursery): pass
    """
    result = run(source)
    result.stdout.fnmatch_lines(["a race test cannot have the async fixture 'nursery': *"])


def test_the_clock_of_pytest_trio_is_refused(run):
    result = run("""
    from stageflow_actors.testing import race_test

    @race_test
    async def test_it(autojump_clock): pass
    """)
    result.stdout.fnmatch_lines(["E   stageflow_actors.PipelineValidationError: the argument 'autojump_clock' of *"])
    assert "All traceback entries are hidden" not in result.stdout.str()


# What it costs


def test_the_plugin_alone_imports_neither_the_library_nor_trio(pytester):
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            assert "_stageflow_actors_pytest" in sys.modules
            assert not {"stageflow_actors", "trio", "attrs"} & set(sys.modules)
        """
    )
    result = pytester.runpytest_subprocess(*LIGHT)
    result.assert_outcomes(passed=1)
