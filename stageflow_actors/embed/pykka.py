"""Pykka, in both directions: a supervisor for applications of pykka actors, and pykka actors as supervised stages.

`SupervisorActor.start()` opens a supervisor that callers in any thread use through `proxy()`. `pykka_stage(Counter)`
makes an existing pykka actor a stage, or a resident actor, of any supervisor. This module needs the extra `pykka`.
"""

from __future__ import annotations

from stageflow_actors.errors import MissingExtraError

try:
    from ._pykka_life import check_cancelled
    from ._pykka_resident import PykkaResident
    from ._pykka_run import PykkaRun
    from ._pykka_stage import pykka_stage
    from ._pykka_supervisor import SupervisorActor, SupervisorProxy, SupervisorRef
except ModuleNotFoundError as error:
    if error.name != "pykka":
        raise
    hint = "install it: pip install 'stageflow-actors[pykka]'"
    raise MissingExtraError("the bridge to pykka needs pykka", extra="pykka", hint=hint) from error

__all__ = [
    "PykkaResident",
    "PykkaRun",
    "SupervisorActor",
    "SupervisorProxy",
    "SupervisorRef",
    "check_cancelled",
    "pykka_stage",
]

for _name in __all__:
    # Tracebacks and documentation show the name that a user imports.
    globals()[_name].__module__ = __name__
del _name
