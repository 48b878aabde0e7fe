"""The clients of a server: a steady crowd, and incidents; and what they were told."""

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Final

import attrs
import h11
import trio
from faulty_web.running import INTERRUPTED
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeElapsedColumn

from stageflow_actors import ActorRef, EventStream
from stageflow_actors.events import ActorCrashed, ActorEvent, ActorRestarting
from stageflow_actors.statistics import ActorLedger

from .client import FAILURES, connect, post, receive
from .edge import PATIENCE

CLIENTS: Final = 32
"""How many the steady crowd is; each asks again when it has its answer, or when it may."""

EXCERPT: Final = 25
"""Characters of a text: few enough to be mistaken now and then."""

CRASHES: Final = ("!crash ", "!crash ", "!crash ", "!crash ", "!poison ")
"""What a crash is, in turn: four that heal, one that does not."""


@attrs.frozen
class Sample:
    """A text, and its language."""

    text: str
    language: str


@attrs.frozen(kw_only=True)
class Plan:
    """What is sent."""

    requests: int
    """Of the steady crowd."""
    crash_every: int
    burst: int
    """How many come at once."""
    seed: int

    def samples(self) -> Iterator[Sample]:
        """Yield excerpts of the first article of human rights in some twenty languages, for ever."""
        path = Path(__file__).with_name("languages.txt")
        texts = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        random = Random(self.seed)
        while True:
            language, text = random.choice(texts)
            begin = random.randrange(max(1, len(text) - EXCERPT))
            yield Sample(text[begin : begin + EXCERPT], language)

    def steady(self) -> Iterator[Sample]:
        """Yield what the steady crowd sends."""
        slow = {self.requests * percent // 100 + 1 for percent in (90, 95)}  # so that nothing above waits for them
        for number, sample in zip(range(1, self.requests + 1), self.samples(), strict=False):
            trouble = "!sleep 2.4 " if number in slow else ""
            if self.crash_every and number % self.crash_every == 0:
                trouble = CRASHES[number // self.crash_every % len(CRASHES)]
            yield Sample(trouble + sample.text, sample.language)


@attrs.define
class Bill:
    """What became of the requests of one kind."""

    sent: int = 0
    statuses: Counter[int] = attrs.field(factory=Counter)
    hung_up: int = 0
    lost: int = 0
    """No answer, and no reason: there must be none."""
    seconds: list[float] = attrs.field(factory=list)
    """How long good answers took."""
    right: int = 0
    healed: int = 0
    """Answered by another worker than the first, which died over it."""

    @property
    def ended(self) -> int:
        """How many have ended, each in one way."""
        return self.statuses.total() + self.hung_up + self.lost


@attrs.define(eq=False)
class Traffic:
    """All clients, and what they were told."""

    console: Console
    bills: dict[str, Bill] = attrs.field(factory=dict)
    crashes: int = 0
    """Of workers."""
    reopened: int = 0
    """How often the model and its workers were closed, and opened again as a whole."""
    interrupted: bool = False
    detector: ActorRef | None = None
    """Whose ledger is to tell the same."""
    _address: str = ""
    _progress: Progress = attrs.field(init=False)
    _task: TaskID = attrs.field(init=False)

    async def run(self, plan: Plan, address: str, detector: ActorRef) -> None:
        """Send everything, or what there is time for until Ctrl-C."""
        self._address = address
        self.detector = detector
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=self.console, transient=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._stop_at_interrupt, nursery.cancel_scope)
            with self._progress:
                self._task = self._progress.add_task("", total=plan.requests)
                await self._send_all(plan)
            nursery.cancel_scope.cancel()

    async def listen(self, stream: EventStream[ActorEvent]) -> None:
        """Count what happens to the server, until it has ended."""
        async with stream:
            async for event in stream:
                match event:
                    case ActorCrashed(actor="detection/detector"):
                        self.crashes += 1
                    case ActorCrashed(error=error):
                        self._tell(f"{event.actor}: {error}")
                    case ActorRestarting(actor="detection"):
                        self.reopened += 1

    async def _stop_at_interrupt(self, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            task_status.started()
            await anext(signals)
        self.interrupted = True
        scope.cancel()

    async def _send_all(self, plan: Plan) -> None:
        incidents = {10: self._stall, 30: self._reload, 50: self._burst, 75: self._storm}
        due = {plan.requests * percent // 100: incident for percent, incident in incidents.items()}
        samples = plan.steady()
        async with trio.open_nursery() as crowd:

            async def ask_again_and_again() -> None:
                for sample in samples:
                    wait = await self._send("steady crowd", sample)
                    self._progress.advance(self._task)
                    incident = due.pop(self.bill("steady crowd").ended, None)
                    if incident is not None:
                        crowd.start_soon(incident, plan)
                    await trio.sleep(wait)  # as it was asked to

            for _ in range(CLIENTS):
                crowd.start_soon(ask_again_and_again)

    # Incidents

    async def _stall(self, plan: Plan) -> None:
        """Let clients say half of what they want."""
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(self._stall_one)
        cut = self.bill("that stall").statuses[408]
        self._tell(f"20 clients stall: {cut} cut off after {PATIENCE:g} s, and no worker has waited for them")

    async def _reload(self, plan: Plan) -> None:
        """Have the model read again, while everybody goes on."""
        began = trio.current_time()
        with suppress(*FAILURES):  # the server may give up meanwhile
            reply = await post(self._address, "/reload")
            seconds = trio.current_time() - began
            self._tell(f"POST /reload: {reply.status}, new model and workers after {seconds:.2f} s")

    async def _burst(self, plan: Plan) -> None:
        """Let many come at once, some of which do not wait for the answer."""
        samples = plan.samples()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(self._hang_up)
            for _ in range(plan.burst):
                sample = next(samples)
                nursery.start_soon(self._send, "burst", Sample(f"!sleep 0.05 {sample.text}", sample.language))
        bill = self.bill("burst")
        self._tell(f"{plan.burst} at once: {bill.statuses[200]} answered, {bill.statuses[503]} refused")

    async def _storm(self, plan: Plan) -> None:
        """Send what kills workers, until there were too many crashes to go on like that."""
        before = self.reopened

        async def poison() -> None:
            for _ in range(100):
                if self.reopened > before:
                    return
                await self._send("crash storm", Sample("!poison", ""))

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(poison)

    # One request

    async def _send(self, kind: str, sample: Sample) -> float:
        """Send a text; return for how many seconds the server wants to be left alone."""
        bill = self.bill(kind)
        bill.sent += 1
        began = trio.current_time()
        with self._watch(bill):
            reply = await post(self._address, "/detect", sample.text)
            bill.statuses[reply.status] += 1
            if reply.status == 200:
                bill.seconds.append(trio.current_time() - began)
                bill.right += reply.data["language"] == sample.language
                bill.healed += reply.data["deliveries"] > 1
            return reply.retry_after
        return 0.0

    async def _stall_one(self) -> None:
        bill = self.bill("that stall")
        bill.sent += 1
        with self._watch(bill):
            async with await connect(self._address) as stream:
                await stream.send_all(b"POST /detect HTTP/1.1\r\nHost: here\r\nContent-Length: 99\r\n\r\nhalf of")
                bill.statuses[(await receive(h11.Connection(h11.CLIENT), stream)).status] += 1

    async def _hang_up(self) -> None:
        bill = self.bill("that hang up")
        bill.sent += 1
        with self._watch(bill):
            async with await connect(self._address) as stream:
                await stream.send_all(b"POST /detect HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\nnever")
            bill.hung_up += 1

    @contextmanager
    def _watch(self, bill: Bill) -> Iterator[None]:
        """Take note of a request that does not come to its end."""
        try:
            yield
        except FAILURES:
            bill.lost += 1
        except BaseException:  # cancelled
            bill.hung_up += 1
            raise

    def bill(self, kind: str) -> Bill:
        """Return the account of one kind of requests."""
        return self.bills.setdefault(kind, Bill())

    def _tell(self, what: str) -> None:
        self.console.print(f"  {what}", soft_wrap=True)

    @property
    def ledger(self) -> ActorLedger:
        """The account of the workers' mailbox."""
        return self.detector.statistics().ledger if self.detector is not None else ActorLedger()

    @property
    def code(self) -> int:
        """The exit code: 0 if each request has ended in one way and none was lost, and the server says so too."""
        if self.interrupted:
            return INTERRUPTED
        sound = all(bill.sent == bill.ended and not bill.lost for bill in self.bills.values())
        return 0 if sound and self.ledger.balanced else 1
