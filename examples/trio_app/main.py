"""Words counted over HTTP, piece by piece: Starlette on Hypercorn's trio worker, the supervisor in the same loop.

    python examples/trio_app/main.py --port 8000
    curl --data-binary @README.md http://127.0.0.1:8000/counts
    curl -N --data-binary @README.md http://127.0.0.1:8000/counts/events

No bridge is needed: a handler is a trio task, and calls the supervisor as any other does. A text is cut into pieces,
which worker threads count, a few at a time over all requests. A client that goes away ends its run.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import click
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stageflow_actors import FanOutLimiterStage, Limiter, OverloadedError, Pipeline, Run, StageContext, Supervisor
from stageflow_actors.events import RunEnded, StageEmitted, StageEnded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from stageflow_actors import EventStream, RunResult
    from stageflow_actors.events import Event

MOST: Final = 2_000_000
"""Bytes of a text."""
PIECE: Final = 500
"""Words."""
RETRY_AFTER: Final = 1
"""Seconds after which a client that was turned away may come back."""
PATIENCE: Final = 60.0
"""Seconds after which a text is given up as far as it has been counted."""
GONE: Final = 499
"""The status, seen in no answer, of a request whose client has gone away."""


# The pipeline


async def split(ctx: StageContext) -> dict[str, Any]:
    """Cut the text into pieces, between words."""
    words = ctx.snapshot.data["text"].split()
    return {"pieces": [" ".join(words[start : start + PIECE]) for start in range(0, len(words), PIECE)]}


def count_piece(ctx: StageContext) -> dict[str, Any]:
    """Count the words of one piece: a plain `def`, and so in a thread, where it keeps nobody else waiting."""
    time.sleep(ctx.snapshot.data["delay"])
    ctx.emit({"piece": ctx.snapshot.data["index"]})
    return {"words": Counter(re.findall(r"\w+", ctx.snapshot.data["item"].lower()))}


async def merge(ctx: StageContext) -> dict[str, Any]:
    """Add up what was counted."""
    total: Counter[str] = Counter()
    for counted in ctx.inputs.require_from("count", "results"):
        total.update(counted["words"])
    return {"words": total.total(), "different": len(total), "most_common": dict(total.most_common(5))}


def build_counting(threads: int) -> Pipeline:
    """Build the pipeline, whose limiter all its runs share."""
    count = FanOutLimiterStage(count_piece, items=("split", "pieces"), limiter=Limiter(threads))
    return (
        Pipeline("counting")
        .with_stage("split", split)
        .with_stage("count", count, dependencies="split")
        .with_stage("merge", merge, dependencies="count")
    )


# The application


class Service:
    """Answers requests.

    Args:
        supervisor: The one in whose loop it is served.
        threads: How many pieces are counted at once, over all requests.
        delay: Seconds that each piece takes longer than it would.
    """

    def __init__(self, supervisor: Supervisor, threads: int, delay: float) -> None:
        self._supervisor = supervisor
        self._pipeline = build_counting(threads)
        self._delay = delay
        self._streamed: set[Run] = set()

    def make_app(self) -> Starlette:
        """Make the application."""
        routes = [
            Route("/counts", self.answer_counts, methods=["POST"]),
            Route("/counts/events", self.stream_counts, methods=["POST"]),
            Route("/status", self.show_status),
        ]
        return Starlette(routes=routes, exception_handlers={OverloadedError: turn_away})

    async def start(self, request: Request) -> Run:
        """Start a run over the text that was sent. Its failures are in its result, and so are heard of."""
        if int(request.headers.get("content-length", MOST + 1)) > MOST:
            close = {"Connection": "close"}  # for the rest of the text is not read
            raise HTTPException(413, f"send at most {MOST:,} bytes, and say how many", close)
        snapshot = {"text": (await request.body()).decode(errors="replace"), "delay": self._delay}
        return self._supervisor.start(self._pipeline, snapshot, continue_on_failure=True, timeout=PATIENCE)

    async def answer_counts(self, request: Request) -> Response:
        """Answer with the counts, unless the client goes away."""
        run = await self.start(request)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when_gone, request, nursery.cancel_scope)
                answer = JSONResponse(describe_result(await run.result()))
                nursery.cancel_scope.cancel()
                return answer
        finally:
            run.cancel("the client has gone away")
        return Response(status_code=GONE)

    async def stream_counts(self, request: Request) -> Response:
        """Answer with the events of the run, and then the counts."""
        run = await self.start(request)
        self._streamed.add(run)
        return RunResponse(run, lambda: self._streamed.remove(run))

    async def show_status(self, _request: Request) -> Response:
        """Answer with what goes on."""
        tasks = trio.lowlevel.current_statistics().tasks_living
        return JSONResponse({"runs": self._supervisor.statistics().runs, "trio_tasks": tasks})

    def end_streams(self) -> None:
        """End the runs whose events are streamed; the streams end with what has come of them."""
        for run in self._streamed:
            run.cancel("the server is stopping")


class RunResponse(EventSourceResponse):
    """Streams the events of a run, which ends with the response, whichever way that ends."""

    def __init__(self, run: Run, on_end: Callable[[], object]) -> None:
        self._run = run
        self._on_end = on_end
        super().__init__(tell(run, run.events()), sep="\n")
        # Hypercorn keeps a connection over which it has streamed for ever, also while it stops.
        self.headers["Connection"] = "close"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._run.cancel("the client has gone away")
            self._on_end()


async def tell(run: Run, events: EventStream[Event]) -> AsyncIterator[ServerSentEvent]:
    """Yield the events of a run, and then its result."""
    async with events:
        async for event in events:
            yield ServerSentEvent(json.dumps(describe(event)), event=type(event).__name__)
    yield ServerSentEvent(json.dumps(describe_result(await run.result())), event="result")


async def cancel_when_gone(request: Request, scope: trio.CancelScope) -> None:
    """Cancel a scope when the client goes away: nobody would read the answer."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def turn_away(_request: Request, _error: Exception) -> Response:
    """Answer whom there is no place for."""
    headers = {"Retry-After": str(RETRY_AFTER)}
    return JSONResponse({"detail": "too many texts are being counted"}, status_code=503, headers=headers)


def describe(event: Event) -> dict[str, Any]:
    """Return what is told of an event."""
    told: dict[str, Any] = {"at": round(event.at, 3), "stage": getattr(event, "stage", None)}
    match event:
        case StageEmitted(event=emitted):
            told |= {"emitted": dict(emitted)}
        case StageEnded(state=state, item=item):
            told |= {"state": state.value, "item": item}
        case RunEnded(end=end):
            told |= {"ended": str(end)}
    return told


def describe_result(result: RunResult) -> dict[str, Any]:
    """Return what is answered."""
    counts = dict(result.data("merge")) if "merge" in result else None
    return {"run_id": result.run_id, "ended": str(result.ended), "counts": counts}


# Serving it


async def serve_until_stopped(port: int, threads: int, delay: float, max_runs: int) -> None:
    """Serve until SIGINT or SIGTERM; whoever is served by then is answered first, within the graceful timeout."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.graceful_timeout = 3
    config.errorlog = logging.getLogger("hypercorn.error")
    stop = trio.Event()
    options: dict[str, Any] = {"max_runs": max_runs, "max_queued": 2 * max_runs, "overflow": "reject"}
    supervisor = Supervisor(shutdown=2.0, max_threads=threads, **options)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with supervisor, trio.open_nursery() as nursery:
            service = Service(supervisor, threads, delay)
            app = cast("Any", service.make_app())  # Starlette and Hypercorn do not agree on the type of an application
            (address,) = await nursery.start(partial(serve, app, config, shutdown_trigger=stop.wait, mode="asgi"))
            click.echo(f"serving at {address}; Ctrl-C stops")
            await anext(signals)
            stop.set()
            service.end_streams()
    click.echo("stopped")


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="On 127.0.0.1; 0 for any.")
@click.option("--threads", type=click.IntRange(min=1), default=4, show_default=True, help="Pieces counted at once.")
@click.option("--delay", type=click.FloatRange(0, 60), default=0.0, help="Seconds that each piece takes longer.")
@click.option("--max-runs", type=click.IntRange(min=1), default=20, show_default=True, help="Texts counted at once.")
def main(*, port: int, threads: int, delay: float, max_runs: int) -> None:
    """Count the words of texts until Ctrl-C."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    trio.run(serve_until_stopped, port, threads, delay, max_runs)


if __name__ == "__main__":
    main()
