"""Faults of messages to resident actors, in one execution.

While a plan with such faults is explored, two methods of actors are replaced: the one by which a message comes in,
and the one by which a reply goes out. The core knows nothing of it, and elsewhere nothing is any slower.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio

from stageflow_actors._messages import Reply
from stageflow_actors._resident import Resident
from stageflow_actors.errors import PipelineValidationError

from ._clock import ControlledClock
from ._faults import ANY, Doubled, Dropped, Late, MessageFault
from ._late_queue import get_queue

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stageflow_actors._messages import Message
    from stageflow_actors._output import StageOutput

    from ._control import Controller
    from ._faults import Fault
    from ._late_queue import LateQueue

_ACCEPT: Final = Resident.accept
_REPLY: Final = Resident.reply

_LONGEST: Final = 60
"""Characters of a message that are told."""


@final
class _Unharmed:
    """The option that nothing befalls a message."""

    number = 0
    name = "unharmed"


UNHARMED: Final = _Unharmed()


@final
@attrs.frozen
class Blow:
    """The option that a fault strikes a message."""

    number: int
    index: int
    """Of the fault in the plan."""
    fault: MessageFault

    @property
    def name(self) -> str:
        """What strikes."""
        return f"{self.fault!r}"


@final
class Post:
    """The faults of a plan that befall messages: each strikes once at most.

    Whether one strikes is chosen in the middle of a step: where a message is sent or, of one that is delivered twice,
    where it has been replied to.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._open = {index: fault for index, fault in enumerate(faults) if isinstance(fault, MessageFault)}
        """The faults that have not struck, by their index."""
        self._counts = dict.fromkeys(self._open, 0)
        self._asked = 0
        self._choice: int | None = None
        """By which choice the last fault struck; None where its point was given."""
        self._due: dict[Message, int] = {}
        """The messages that are the ones to be delivered twice, and by which fault."""
        self._again: dict[Message, bool] = {}
        """Those that were delivered, and are to be once more: whether they had an asker."""

    # On the way in

    def accept(self, controller: Controller, resident: Resident, message: Message) -> bool:
        """Take a message in, or what becomes of it; otherwise as the actor does."""
        sender = trio.lowlevel.current_task()
        fault = self._find_blow(controller, resident, message)
        if isinstance(fault, Dropped):
            self._tell(controller, resident, message, "finds the mailbox full", fault)
            return _take_in(resident, message, sender, as_if_full=True)
        if isinstance(fault, Late):
            self._tell(controller, resident, message, "comes late", fault)
            _hold(controller, resident, message, sender, fault.seconds)
            return True
        if get_queue(resident).is_behind(sender) and not resident.is_retiring:
            return _take_in(resident, message, sender, as_if_full=False)
        return _ACCEPT(resident, message)

    def _find_blow(self, controller: Controller, resident: Resident, message: Message) -> MessageFault | None:
        """Return the fault that strikes a message which is being sent."""
        concerned = [(index, fault) for index, fault in self._open.items() if fault.on in (ANY, resident.path)]
        struck: MessageFault | None = None
        for index, fault in concerned:
            if fault.on != ANY and (problem := _find_problem(fault, resident)) is not None:
                controller.give_up(problem)
            self._counts[index] += 1
            if self._counts[index] != fault.at:
                continue
            if isinstance(fault, Doubled):
                self._due[message] = index
            elif struck is None and _may_strike(fault, resident):
                struck = fault
                self._choice = None
                del self._open[index]
        if struck is not None:
            return struck
        return self._choose(
            controller,
            [
                (index, fault)
                for index, fault in concerned
                if fault.at is None and not isinstance(fault, Doubled) and _may_strike(fault, resident)
            ],
        )

    def _choose(self, controller: Controller, faults: Sequence[tuple[int, MessageFault]]) -> MessageFault | None:
        """Return which of some faults strikes, if any; of equal ones it makes no difference which."""
        if not faults:
            return None
        self._asked += 1
        first = {fault: index for index, fault in reversed(faults)}
        blows = [Blow(-2 - 1000 * index - self._asked, index, fault) for fault, index in reversed(first.items())]
        chosen = controller.choose_within([UNHARMED, *blows])
        if chosen == 0:
            return None
        blow = blows[chosen - 1]
        del self._open[blow.index]
        self._choice = chosen
        return blow.fault

    # On the way out

    def reply(self, controller: Controller, resident: Resident, message: Message, output: StageOutput) -> None:
        """Give a message's asker the reply, and deliver the message again if that is to be."""
        was_asked = self._again.pop(message, None)
        if was_asked is not None:
            _REPLY(resident, message, output)
            if was_asked:
                resident._late_replies += 1  # noqa: SLF001 (as `Resident.reply` does)
                resident._tell_letter(message, "late_reply")  # noqa: SLF001 (likewise)
            return
        fault = self._find_double(controller, resident, message)
        if fault is None:
            _REPLY(resident, message, output)
            return
        self._tell(controller, resident, message, "is delivered again", fault)
        self._again[message] = message.is_ask
        message.wake(Reply(output))
        message.is_ask = False  # from now on nobody waits, and nobody can give up
        resident.put_back(message)

    def _find_double(self, controller: Controller, resident: Resident, message: Message) -> MessageFault | None:
        """Return the fault that has a message delivered again which was handled."""
        due = self._due.pop(message, None)
        assert message.worker is not None
        if message.worker.leaves or not resident.may_redeliver(message, None):
            return None
        if due is not None:
            self._choice = None
            return self._open.pop(due)
        return self._choose(
            controller,
            [
                (index, fault)
                for index, fault in self._open.items()
                if isinstance(fault, Doubled) and fault.at is None and fault.on in (ANY, resident.path)
            ],
        )

    def _tell(
        self, controller: Controller, resident: Resident, message: Message, what: str, fault: MessageFault
    ) -> None:
        if controller.recorder is not None:
            assert controller.granted is not None
            told = f"the message{_describe(message)} to {resident.path} {what}"
            controller.recorder.befall(controller.granted.name, told, f"struck by {fault!r}", self._choice)


def _find_problem(fault: MessageFault, resident: Resident) -> PipelineValidationError | None:
    """Return the error for a fault that can never strike the actor that it names; None where it can."""
    never = f"{fault!r} can never strike: actor {resident.path!r}"
    if isinstance(fault, Doubled) and resident._max_deliveries == 1:  # noqa: SLF001 (it stands in for parts of it)
        hint = "spawn it with idempotent=True and max_deliveries=2, or leave the fault out"
        return PipelineValidationError(f"{never} delivers a message once, max_deliveries=1", hint=hint)
    if isinstance(fault, Dropped) and _is_unbounded(resident):
        hint = "give its Mailbox a max_queued, or leave the fault out"
        return PipelineValidationError(f"{never} has a mailbox that is never full, max_queued=None", hint=hint)
    return None


def _is_unbounded(resident: Resident) -> bool:
    return resident._options.max_queued is None  # noqa: SLF001 (likewise)


def _may_strike(fault: MessageFault, resident: Resident) -> bool:
    """Return whether a message that is sent now can be late, or dropped: it would have been taken in."""
    if resident.is_retiring or (isinstance(fault, Dropped) and _is_unbounded(resident)):
        return False
    return bool(resident.idle) or get_queue(resident).has_room


def _take_in(resident: Resident, message: Message, sender: trio.lowlevel.Task, *, as_if_full: bool) -> bool:
    """Take a message in that no worker is to have at once, though one may be free.

    Args:
        resident: For whom.
        message: What is sent.
        sender: The task that sends it: it comes after what that has sent before.
        as_if_full: Whether the mailbox does what it does when it is full.
    """
    queue = get_queue(resident)
    idle, resident.idle = resident.idle, []
    queue.is_full = as_if_full
    try:
        is_in = _ACCEPT(resident, message)
    finally:
        resident.idle = idle
        queue.is_full = False
    if queue.is_behind(sender):
        queue.follow(message, sender)
    elif is_in:
        _settle(resident)  # what was late may have been dropped for it
    else:
        queue.delay(message, resident.home.now(), partial(_let_in, resident, queue, message))
    return is_in


def _let_in(resident: Resident, queue: LateQueue, message: Message) -> None:
    queue.end_delay(message)
    _settle(resident)


def _hold(
    controller: Controller, resident: Resident, message: Message, sender: trio.lowlevel.Task, seconds: float
) -> None:
    """Take a message in that comes later."""
    come = partial(_let_come, controller, resident, message, sender)
    get_queue(resident).hold(message, sender, resident.home.now() + seconds, come)
    resident._count_in(message)  # noqa: SLF001 (as `Resident.accept` does)


def _let_come(controller: Controller, resident: Resident, message: Message, sender: trio.lowlevel.Task) -> None:
    """Give an actor what is late, at last."""
    queue = get_queue(resident)
    for each in queue.let_come(message, sender):
        if controller.recorder is not None:
            controller.recorder.befall(resident.path, f"the late message{_describe(each)} arrives")
        if resident.idle:
            resident._hand(each)  # noqa: SLF001 (as `Resident.accept` does)
        else:
            queue.add(each)
    _settle(resident)


def _settle(resident: Resident) -> None:
    """Let in who waits for room that there is, and give workers that are free what there is."""
    resident._admit()  # noqa: SLF001 (as `Resident.withdraw` does)
    while resident.idle and (message := resident.take()) is not None:
        resident._hand(message)  # noqa: SLF001 (as `Resident.accept` does)


def _describe(message: Message) -> str:
    """Return how people tell a message from others, with a space before it; nothing where it is empty."""
    if message.stage is not None:
        return f" of stage {message.stage!r}"
    data = repr(dict(message.snapshot.data)) if message.snapshot.data else message.snapshot.input_text or ""
    return f" {data if len(data) <= _LONGEST else data[: _LONGEST - 3] + '...'}" if data else ""


# Where the methods are replaced


def _find() -> tuple[Controller, Post] | None:
    """Return who decides about messages in the execution that runs here, where any fault can strike one."""
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, ControlledClock) or clock.controller is None:
        return None  # it is the run of another thread
    post = clock.controller.post
    return None if post is None else (clock.controller, post)


def _accept(resident: Resident, message: Message) -> bool:
    found = _find()
    return _ACCEPT(resident, message) if found is None else found[1].accept(found[0], resident, message)


def _reply(resident: Resident, message: Message, output: StageOutput) -> None:
    found = _find()
    if found is None:
        _REPLY(resident, message, output)
    else:
        found[1].reply(found[0], resident, message, output)


_lock: Final = threading.Lock()
_open: Final[list[None]] = []
"""As many as explore such faults at the moment, each in a thread of its own."""


@contextmanager
def intercept(faults: Sequence[Fault]) -> Iterator[None]:
    """Have the faults of a plan befall messages for as long as this is open."""
    if not any(isinstance(fault, MessageFault) for fault in faults):
        yield
        return
    cls: Any = Resident
    with _lock:
        _open.append(None)
        cls.accept, cls.reply = _accept, _reply
    try:
        yield
    finally:
        with _lock:
            _open.pop()
            if not _open:
                cls.accept, cls.reply = _ACCEPT, _REPLY
