"""Restarts that turn out to be one: whoever was waiting in either comes up again."""

from __future__ import annotations

import contextlib

import trio

from stageflow_actors import Backoff, Intensity, Restart, Supervisor

SLOWLY = Restart(max_restarts=9, backoff=Backoff(initial=5, factor=1, maximum=5, jitter=0))


async def obey(ctx):
    if ctx.snapshot.data.get("crash"):
        raise ValueError("told to")


async def crash(ref):
    with contextlib.suppress(ValueError):
        await ref.ask({"crash": True})
    await trio.testing.wait_all_tasks_blocked()


async def test_two_that_share_nothing_are_one_with_what_both_depend_on(autojump_clock):
    async with Supervisor(scope="dependents", intensity=Intensity(99)) as supervisor:
        roots = {name: await supervisor.spawn(obey, name=name, restart=SLOWLY) for name in ("a", "b", "x")}
        left = await supervisor.spawn(obey, name="left", depends_on=("a", "x"))
        right = await supervisor.spawn(obey, name="right", depends_on=("b", "x"))
        await crash(roots["a"])
        await crash(roots["b"])
        assert left.statistics().workers == right.statistics().workers == 0
        await crash(roots["x"])
        everybody = [*roots.values(), left, right]
        assert [ref.statistics().workers for ref in everybody] == [0] * 5
        for ref in everybody:
            await ref.ask(timeout=None)
        assert trio.current_time() == 5
        assert [ref.statistics().restarts for ref in everybody] == [1] * 5
        assert supervisor.ledger.pending == 0
