"""The checks of what is to be spawned, before anything starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ._child import ChildOptions
from ._mailbox import Mailbox
from ._ref import ActorRef
from ._resident import ResidentOptions
from ._scopes import check_dependencies, require_policy
from ._spec import check_restart
from ._stage import inspect_runner
from ._validation import refuse, require_between, require_count, require_name
from .errors import PipelineValidationError

if TYPE_CHECKING:
    from ._family import Family


def read_child(family: Family, name: object, policy: object, restart: Any, depends_on: object) -> ChildOptions:
    """Return what a child's supervisor goes by.

    Raises:
        PipelineValidationError: The name is taken or none, or an option cannot be.
        CycleDetectedError: It would depend on itself.
    """
    read = require_name("the name of an actor", name)
    if "/" in read:
        refuse(f"the name of an actor has no slash, unlike {read!r}", hint="a path leads through child supervisors")
    if read in family.children:
        hint = "stop that one first, or choose another name"
        refuse(f"the supervisor has an actor {family.prefix + read!r} already", hint=hint)
    kept = require_policy(policy)
    if restart is not None:
        check_restart(restart, None)
        if kept == "temporary":
            problem = f"actor {read!r} has a restart policy, and is temporary: it is never restarted"
            refuse(problem, hint="leave restart out, or take policy='transient'")
    names = tuple(_name_dependency(family, read, each) for each in _list(depends_on))
    check_dependencies(read, names, family.children, is_needed=family.needed[read] > 0)
    return ChildOptions(read, kept, restart, names)


def read_resident(
    runner: Any,
    name: str,
    *,
    threads: int,
    mailbox: object,
    shutdown: object,
    pool: object,
    deliveries: object,
    idempotent: object,
) -> ResidentOptions:
    """Return what a resident actor is made of.

    Raises:
        PipelineValidationError: The runner is no stage, or an option cannot be.
    """
    if isinstance(runner, ActorRef):
        refuse(f"the runner of actor {name!r} is the actor {runner.name!r} itself", hint="pass a stage class")
    try:
        form = inspect_runner(runner)
    except PipelineValidationError as error:
        error.locate(actor=name)
        raise
    if form.is_container:
        hint = "put it into a pipeline, and run that"
        refuse(f"the runner of actor {name!r} is a fan-out, which needs a run", hint=hint)
    if not isinstance(mailbox, Mailbox):
        refuse(f"mailbox must be a Mailbox, not {mailbox!r}", hint="write mailbox=Mailbox(max_queued=64)")
    seconds = require_between("shutdown", shutdown, 0)
    workers = require_count("pool", pool)
    if form.is_threaded and workers > threads:
        problem = (
            f"actor {name!r} has pool={workers} workers of a plain `def`, and its supervisor max_threads={threads}"
        )
        refuse(problem, hint="raise max_threads: so many of them can be at work at once")
    times = require_count("max_deliveries", deliveries)
    if not isinstance(idempotent, bool):
        refuse(f"idempotent must be True or False, not {idempotent!r}")
    if times > 1 and not idempotent:
        hint = "write idempotent=True if handling a message twice does no harm"
        refuse(f"max_deliveries={times} may handle a message of actor {name!r} more than once", hint=hint)
    if idempotent and times == 1:
        hint = "give max_deliveries, such as max_deliveries=3"
        refuse(f"idempotent=True changes nothing about actor {name!r} with max_deliveries=1", hint=hint)
    return ResidentOptions(runner, form, mailbox, seconds, workers, times)


def _list(depends_on: object) -> Iterable[object]:
    if isinstance(depends_on, (str, ActorRef)):
        return (depends_on,)
    if isinstance(depends_on, Iterable):
        return depends_on
    refuse(f"depends_on must be actors or their names, not {depends_on!r}")


def _name_dependency(family: Family, name: str, given: object) -> str:
    if isinstance(given, ActorRef):
        resident = given._resident  # noqa: SLF001 (two sides of one thing)
        if resident.home is not family:
            hint = "only siblings are restarted together"
            refuse(f"actor {name!r} depends on {given.name!r}, which lives in another supervisor", hint=hint)
        if resident.is_retiring:
            refuse(f"actor {name!r} depends on {given.name!r}, which has ended", hint="spawn that one again first")
        return resident.name
    if not isinstance(given, str) or not given:
        refuse(f"depends_on must be actors or their names, not {given!r}")
    return given
