"""What the tests of actors as stages share."""

from __future__ import annotations

import trio

from stageflow_actors import Intensity

OFTEN = Intensity(100)


class CrashError(Exception):
    pass


async def obey(ctx):
    """Do what the stage's configuration says, or else the message."""
    data = {**ctx.snapshot.data, **ctx.config}
    await trio.sleep(data.get("takes", 0))
    if data.get("crashes", 0) >= ctx.attempt:
        raise CrashError(ctx.stage_name)
    return {"attempt": ctx.attempt, "stage": ctx.stage_name}


async def source(_ctx):
    return {"rows": [1, 2, 3]}
