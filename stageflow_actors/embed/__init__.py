"""A supervisor inside an application that does not run trio.

`stageflow_actors.embed.pykka` is for synchronous applications, `stageflow_actors.embed.asyncio` for asyncio's. An
application on trio needs neither: it opens a `Supervisor` in its own loop.
"""
