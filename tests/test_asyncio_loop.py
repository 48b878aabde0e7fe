"""`asyncio_loop()`: stages that await asyncio, in a loop inside trio's or in the application's own."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import asyncio_stages
import pytest
import trio

from stageflow_actors import Pipeline, PipelineValidationError
from stageflow_actors.embed.asyncio import asyncio_loop
from stageflow_actors.errors import MissingExtraError

TESTS = Path(__file__).parent


def test_in_a_loop_inside_trios():
    """In a process of its own: trio-asyncio changes how asyncio makes loops, for all that follow."""
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    done = subprocess.run(
        # trio-asyncio itself uses what newer versions of Python want to remove.
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", str(TESTS / "asyncio_stages.py")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
    )
    assert (done.stdout, done.returncode) == ("all is well\n", 0), done.stderr


@pytest.fixture
def loop():
    """A loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    assert asyncio.all_tasks(loop) == set()
    loop.close()


def test_in_the_applications_own_loop(loop):
    asyncio_stages.log.clear()
    trio.run(partial(asyncio_stages.check, asyncio_loop(loop)))


async def test_a_loop_that_was_closed_meanwhile_fails_the_stage():
    loop = asyncio.new_event_loop()
    place = asyncio_loop(loop)
    loop.close()
    result = await Pipeline("p").with_stage("a", asyncio_stages.sleep, placement=place).run(continue_on_failure=True)
    assert str(result.failures["a"].error) == "Event loop is closed"


def test_it_is_imported_only_when_a_supervisor_needs_it():
    program = "import sys; from stageflow_actors.embed.asyncio import asyncio_loop; asyncio_loop(); "
    program += "sys.exit('trio_asyncio' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=TESTS.parent)


# Refusals


def test_a_plain_function_is_refused(loop):
    with pytest.raises(PipelineValidationError) as caught:
        Pipeline("p").with_stage("a", lambda ctx: None, placement=asyncio_loop())
    told = "placement asyncio_loop() is not for a stage that awaits nothing, as it is a plain `def`"
    assert str(caught.value) == f"pipeline 'p', stage 'a': {told}: leave the placement out"
    assert repr(asyncio_loop(loop)) == f"asyncio_loop({loop!r})"


def test_what_is_no_open_loop_is_refused():
    with pytest.raises(PipelineValidationError) as caught:
        asyncio_loop(asyncio)
    hint = "write asyncio_loop(asyncio.get_running_loop())"
    assert str(caught.value) == f"loop must be an asyncio loop, not {asyncio!r}; {hint}"
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(PipelineValidationError) as caught:
        asyncio_loop(loop)
    assert str(caught.value) == f"loop {loop!r} is closed; give one that runs as long as the supervisor is open"


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        asyncio_loop()
    told = "asyncio_loop() without a loop needs trio_asyncio"
    assert str(caught.value) == f"{told}; install it: pip install 'stageflow-actors[asyncio]'"
    assert caught.value.extra == "asyncio"
