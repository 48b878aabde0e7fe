"""A language model behind HTTP that is overloaded, crashes and heals, and loses no request over it.

    python examples/model_server.py                      # let a few thousand requests loose on it, and show the bill
    python examples/model_server.py --serve --port 8000  # serve until Ctrl-C, which answers what is there first
    curl -d 'Alle mensen worden vrij geboren' http://127.0.0.1:8000/detect

The tree, in the order in which it starts; it stops the other way round:

    server
    ├── detection         a supervisor: after too many crashes it is closed, and opened again as a whole
    │   ├── model         reads the trained model; `POST /reload` restarts it, and the workers with it
    │   └── detector      workers behind one reference; one that crashes is restarted alone, at once
    └── edge              HTTP
"""

import logging
import signal
import sys
import time
from collections import deque
from functools import partial
from typing import Any, Final, Self

import attrs
import click
import trio
from faulty_web.running import INTERRUPTED, open_console
from model_web.edge import PATIENCE, Answer, Edge, Request
from model_web.report import draw_report
from model_web.traffic import Plan, Traffic
from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped]
from rich.console import Console

from stageflow_actors import ActorRef, AskTimeoutError, EventStream, Intensity, Mailbox, StageContext, Supervisor
from stageflow_actors.errors import ActorError, ActorStartError, MailboxFullError, RestartIntensityError
from stageflow_actors.events import DeadLetter

CRASHES: Final = Intensity(100, within=3.0)
"""More restarts than this, and it is not the requests: the model is read again."""

RETRY_AFTER: Final = 1
"""Seconds after which a client that was refused may come back."""


def read_model() -> LanguageIdentifier:
    """Read the model that comes with py3langid: 140 languages, 28 MB, most of a second."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


class Model:
    """Has the model, one for all workers, which only read it."""

    async def __aenter__(self) -> Self:
        self._model = await trio.to_thread.run_sync(read_model)
        return self

    async def __aexit__(self, *error: object) -> None:
        del self._model

    async def execute(self, ctx: StageContext) -> dict[str, Any]:
        return {"model": self._model}


class Detector:
    """Says in which language a text is. A plain `def` computes in a thread, and keeps nobody else waiting."""

    def __init__(self, store: ActorRef) -> None:
        self._store = store

    async def __aenter__(self) -> Self:
        self._model = (await self._store.ask()).data["model"]
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    def execute(self, ctx: StageContext) -> dict[str, Any]:
        text = ctx.snapshot.data["text"]
        misbehave(text, ctx.attempt)
        language, confidence = self._model.classify(text)
        return {"language": language, "confidence": round(confidence, 3), "deliveries": ctx.attempt}


def misbehave(text: str, delivery: int) -> None:
    """Do on demand what happens on a bad day; leave it out of a server of your own."""
    if text.startswith("!poison") or (text.startswith("!crash") and delivery == 1):
        raise MemoryError("the worker died over this text")
    if text.startswith("!sleep"):
        time.sleep(float(text.split()[1]))


@attrs.frozen(kw_only=True)
class Options:
    """How it is served."""

    workers: int = 4
    max_queued: int = 64
    """Requests that wait for a worker; one more is refused."""
    timeout: float = 2.0
    """Seconds until a request is answered, or given up."""
    port: int = 0


@attrs.frozen
class Service:
    """What a request becomes: a message, and an answer for every way in which an `ask` can end."""

    supervisor: Supervisor
    model: ActorRef
    detector: ActorRef
    timeout: float
    letters: deque[DeadLetter] = attrs.field(factory=lambda: deque(maxlen=10))
    """The latest."""

    async def answer(self, request: Request) -> Answer:
        """Answer a request; raises nothing."""
        match request.method, request.path:
            case "POST", "/detect":
                return await self.detect(request.body.decode(errors="replace"))
            case "POST", "/reload":
                return await self.reload()
            case "GET", "/stats":
                return Answer(200, self.count())
        return Answer(404, {"error": "there are POST /detect with a text, POST /reload, GET /stats"})

    async def detect(self, text: str) -> Answer:
        """Have a text looked at."""
        try:
            output = await self.detector.ask({"text": text}, timeout=self.timeout)
        except MailboxFullError as error:
            busy = f"{error.max_queued} requests are waiting already; try again in {RETRY_AFTER} s"
            return Answer(503, {"error": busy}, RETRY_AFTER)
        except AskTimeoutError:
            return Answer(504, {"error": f"there was no answer within {self.timeout:g} s; try a shorter text"})
        except ActorError as error:  # it is being restarted with others, or stopped
            return Answer(503, {"error": f"{error.problem}; try again in {RETRY_AFTER} s"}, RETRY_AFTER)
        except Exception as error:
            return Answer(500, {"error": f"{error}, twice; do not send it again"})
        return Answer(200, output.data)

    async def reload(self) -> Answer:
        """Read the model again; requests in hand are answered first, those that are queued wait."""
        try:
            await self.model.restart()
        except ActorError as error:
            return Answer(503, {"error": error.problem}, RETRY_AFTER)
        return Answer(200, {"restarts": self.model.statistics().restarts})

    def count(self) -> dict[str, Any]:
        """Return what there is to know: the tree, with what each of its members counts, and the latest dead letters."""
        letters = [{"reason": each.reason, "text": each.snapshot.data.get("text")} for each in self.letters]
        return {"tree": attrs.asdict(self.supervisor.statistics()), "dead_letters": letters}

    async def keep_letters(self, stream: EventStream[DeadLetter]) -> None:
        """Keep the latest dead letters, until the supervisor has ended."""
        async with stream:
            async for letter in stream:
                self.letters.append(letter)


async def start(supervisor: Supervisor, options: Options) -> tuple[Service, str]:
    """Start the tree; return what answers requests, and the address."""
    below = Supervisor(scope="dependents", intensity=CRASHES, max_threads=options.workers)
    detection = await supervisor.spawn_supervisor(below, name="detection")
    model = await detection.spawn(Model, name="model")
    detector = await detection.spawn(
        partial(Detector, model),
        name="detector",
        depends_on=model,
        pool=options.workers,
        mailbox=Mailbox(options.max_queued, overflow="reject"),
        idempotent=True,
        max_deliveries=2,
    )
    service = Service(supervisor, model, detector, options.timeout)
    budget = PATIENCE + options.timeout + 1  # no request takes longer
    edge = await supervisor.spawn(partial(Edge, service.answer, options.port), name="edge", shutdown=budget)
    return service, (await edge.ask()).data["address"]


async def serve(options: Options, console: Console) -> None:
    """Serve until Ctrl-C or SIGTERM; a second one does not wait for those who are being served."""
    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        service, address = await start(supervisor, options)
        nursery.start_soon(service.keep_letters, supervisor.dead_letters())
        console.print(f"serving at {address}; try: curl -d 'Hallo Welt' {address}/detect", soft_wrap=True)
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            await anext(signals)
        console.print("stopping: who is there is answered first")
    console.print(f"stopped: {supervisor.ledger}", soft_wrap=True)


async def drive(options: Options, plan: Plan, traffic: Traffic) -> None:
    """Serve, and be one's own clients."""
    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        service, address = await start(supervisor, options)
        nursery.start_soon(service.keep_letters, supervisor.dead_letters())
        nursery.start_soon(traffic.listen, supervisor.events())
        await traffic.run(plan, address, service.detector)


@click.command()
@click.option("--serve", "serves", is_flag=True, help="Only serve, until Ctrl-C.")
@click.option(
    "--requests", type=click.IntRange(min=10), default=3000, show_default=True, help="How many, beside incidents."
)
@click.option("--workers", type=click.IntRange(min=1), default=4, show_default=True, help="How many share the work.")
@click.option(
    "--crash-every",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="One of so many requests crashes its worker; one of five of those does so again. 0 for none.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="On 127.0.0.1; any that is free by default.")
@click.option("--seed", type=int, default=7, show_default=True, help="The texts follow from it.")
def main(*, serves: bool, requests: int, workers: int, crash_every: int, port: int, seed: int) -> None:
    """Serve a language model, and show what overload, crashes and slow clients make of it."""
    console = open_console()
    options = Options(workers=workers, port=port)
    plan = Plan(requests=requests, crash_every=crash_every, seed=seed, burst=6 * (workers + options.max_queued))
    traffic = Traffic(console)
    code = 0
    try:
        if serves:
            logging.basicConfig(format="%(levelname)s %(message)s")  # crashes and restarts, on stderr
            trio.run(serve, options, console)
        else:
            trio.run(drive, options, plan, traffic)
    except* KeyboardInterrupt:
        code = INTERRUPTED
    except* (ActorStartError, RestartIntensityError) as group:
        console.print(*group.exceptions, sep="\n", soft_wrap=True)
        code = 1
    if not serves:
        console.print(draw_report(traffic))
        code = code or traffic.code
    sys.exit(code)


if __name__ == "__main__":
    main()
