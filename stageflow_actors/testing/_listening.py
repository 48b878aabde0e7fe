"""Runners that do what others do, and have somebody hear of it.

Such a runner has the form of the other, so that the runtime treats the two alike: what runs in a thread still
does, and what is entered is entered in the stage's task.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from stageflow_actors._stage import bind_runner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from stageflow_actors import StageContext
    from stageflow_actors._stage import RunnerForm


class Listener(Protocol):
    """Whoever hears what a runner does, in the task or thread in which it does it."""

    def began(self, ctx: StageContext, /) -> Any:
        """Hear that it is called; return what names this call in what follows."""

    def returned(self, call: Any, value: Any, /) -> None:
        """Hear what it returned."""

    def raised(self, call: Any, error: BaseException, /) -> None:
        """Hear what it raised."""


def listen(runner: Any, form: RunnerForm, listener: Listener) -> Any:
    """Return a runner that does what another does, and is heard; not for a fan-out, which only a run can call."""
    if form.is_class:
        return partial(_HEARD[form.is_async, form.is_managed], runner, listener)
    return partial(_hear if form.is_async else _hear_in_thread, bind_runner(runner, form), listener)


async def _hear(target: Callable[[StageContext], Awaitable[Any]], listener: Listener, ctx: StageContext) -> Any:
    call = listener.began(ctx)
    try:
        value = await target(ctx)
    except BaseException as error:
        listener.raised(call, error)
        raise
    listener.returned(call, value)
    return value


def _hear_in_thread(target: Callable[[StageContext], Any], listener: Listener, ctx: StageContext) -> Any:
    call = listener.began(ctx)
    try:
        value = target(ctx)
    except BaseException as error:
        listener.raised(call, error)
        raise
    listener.returned(call, value)
    return value


class _Heard:
    def __init__(self, cls: Callable[[], Any], listener: Listener) -> None:
        self._instance = cls()
        self._listener = listener

    async def execute(self, ctx: StageContext) -> Any:
        return await _hear(self._instance.execute, self._listener, ctx)


class _HeardInThread(_Heard):
    def execute(self, ctx: StageContext) -> Any:
        return _hear_in_thread(self._instance.execute, self._listener, ctx)


class _Entering:
    _instance: Any

    async def __aenter__(self) -> Any:
        return await self._instance.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Any:
        return await self._instance.__aexit__(kind, error, traceback)


class _Managed(_Entering, _Heard):
    pass


class _ManagedInThread(_Entering, _HeardInThread):
    pass


_HEARD: Final[Mapping[tuple[bool, bool], type[_Heard]]] = {
    (True, False): _Heard,
    (False, False): _HeardInThread,
    (True, True): _Managed,
    (False, True): _ManagedInThread,
}
