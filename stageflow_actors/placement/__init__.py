"""Where stages run: `placement=` of a stage.

Without one, an async stage runs in the run's loop and a plain `def` in a thread of its supervisor. `threads` is a pool
of threads of its own, `processes` puts plain functions on all cores. For stages that await asyncio there is
`asyncio_loop` in `stageflow_actors.embed.asyncio`. A placement of your own is a `Placement` that opens a `Site`; a
`RunnerForm` and a `Host` are what it is given.
"""

from stageflow_actors._placement import Host, Placement, Site
from stageflow_actors._stage import RunnerForm

from ._parcel import Carrier
from ._processes import processes
from ._threads import threads

__all__ = ["Carrier", "Host", "Placement", "RunnerForm", "Site", "processes", "threads"]

for _name in __all__:
    # Tracebacks and documentation show the name that a user imports.
    globals()[_name].__module__ = __name__
del _name
