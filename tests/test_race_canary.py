"""At import the toolkit tries out whether this release of trio lets its tasks be controlled, and says so if not."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import trio
from race_cases import explore_all
from trio.lowlevel import checkpoint

from stageflow_actors.errors import ControlError, StageflowError
from stageflow_actors.testing import _canary, explore, replay


async def program():
    await checkpoint()


def test_this_release_of_trio_is_controlled():
    assert _canary.PROBLEM is None
    _canary.require_control()


@pytest.mark.parametrize("call", [lambda: explore(program), lambda: replay(program, "0")], ids=["explore", "replay"])
def test_where_control_is_broken_it_is_said_before_anything_runs(monkeypatch, call):
    monkeypatch.setattr(_canary, "PROBLEM", "schedule '01' gave 'abab' instead of 'abba'")
    with pytest.raises(ControlError) as caught:
        call()
    assert isinstance(caught.value, (StageflowError, RuntimeError))
    assert str(caught.value) == (
        f"trio {trio.__version__} does not let its tasks be controlled: schedule '01' gave 'abab' instead of 'abba';"
        " explore, replay, race_test and check_pipeline need another release of trio; run_stage works"
    )


def run(code):
    """Run code in a new process; return what it prints."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


BREAKAGES = {
    "the coroutine is kept before the instrument sees the task": """
        slot = internals.Task.coro
        def keep_first(task, value):
            try:
                slot.__get__(task)
            except AttributeError:
                slot.__set__(task, value)
        internals.Task.coro = property(slot.__get__, keep_first)
    """,
    "the attribute cannot be set": """
        slot = internals.Task.coro
        def refuse_second(task, value):
            try:
                slot.__get__(task)
            except AttributeError:
                slot.__set__(task, value)
            else:
                raise AttributeError("coro is read-only")
        internals.Task.coro = property(slot.__get__, refuse_second)
    """,
    "no instrument hears of tasks": """
        from trio._core import _instrumentation
        original = _instrumentation.Instruments.call
        def deaf(self, hookname, *args):
            if hookname != "task_spawned":
                original(self, hookname, *args)
        _instrumentation.Instruments.call = deaf
    """,
    "checkpoints are made in another way": """
        import outcome
        from trio._core import _traps
        async def cancel_shielded_checkpoint():
            internals.reschedule(internals.current_task())
            await _traps.wait_task_rescheduled(lambda _: _traps.Abort.FAILED)
        async def checkpoint():
            await cancel_shielded_checkpoint()
            await trio.lowlevel.checkpoint_if_cancelled()
        trio.lowlevel.checkpoint = checkpoint
    """,
}


@pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=BREAKAGES)
def test_a_trio_that_has_changed_is_noticed_or_controlled_all_the_same(breakage):
    told = run(
        f"""
        import trio
        from trio._core import _run as internals
        {textwrap.indent(textwrap.dedent(breakage), " " * 8).strip()}
        from stageflow_actors.errors import ControlError
        from stageflow_actors.testing import explore
        orders = []

        async def program():
            order = []

            async def walk(name):
                order.append(name)
                await trio.lowlevel.checkpoint()
                order.append(name)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(walk, "a")
                nursery.start_soon(walk, "b")
            orders.append("".join(order))

        try:
            report = explore(program, strategy="dfs")
        except ControlError as error:
            print("refused:", error)
        else:
            print("controlled:", report.complete, sorted(set(orders)))
        """
    )
    assert told.startswith(f"refused: trio {trio.__version__} does not let its tasks be controlled: ") or told == (
        "controlled: True ['aabb', 'abab', 'abba', 'baab', 'baba', 'bbaa']"
    )


def test_it_can_be_imported_where_trio_is_running():
    told = run(
        """
        import trio

        async def main():
            from stageflow_actors.testing import _canary
            return _canary.PROBLEM

        print(trio.run(main))
        """
    )
    assert told == "None"


def test_it_can_be_imported_in_a_thread():
    told = run(
        """
        import threading
        found = []

        def load():
            from stageflow_actors.testing import _canary
            found.append(_canary.PROBLEM)

        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
        print(found)
        """
    )
    assert told == "[None]"


def test_in_a_thread_a_program_is_explored_as_in_the_main_one():
    async def main():
        await trio.to_thread.run_sync(explore_all, program)

    trio.run(main)
